//! Sync points by time and by sequence, against looking at everything.

use std::sync::Arc;

use super::super::clock::fake::FakeClock;
use super::*;

const SECOND: i64 = 1_000_000_000;
/// 2026, ns since 1970.
const NOW: i64 = 1_770_000_000 * SECOND;

/// A buffer that says when it was captured.
fn reference(metas: &[MetaRecord]) -> Option<i64> {
    let told = metas.iter().find(|meta| meta.name == "captured")?;
    Some(i64::from_le_bytes(told.data.as_slice().try_into().ok()?))
}

#[derive(Debug, Clone)]
enum Act {
    /// So many GOPs of so many buffers, each so many ms long; whether the camera tells its time.
    Record {
        gops: u8,
        buffers: u8,
        ms: u16,
        tells: bool,
        size: u16,
    },
    /// The wall clock is set, by seconds.
    Step {
        by: i32,
        synced: bool,
    },
    Pass(u16),
    Reopen,
    Crash,
    /// The machine starts again, with a clock that is wrong by seconds.
    Boot {
        off: i32,
        synced: bool,
    },
    Thin,
    Purge(u8, u8),
    Trim(u8),
}

fn act() -> impl Strategy<Value = Act> {
    let gops = (1..12u8, 1..6u8, 1..3000u16, any::<bool>(), 1..30_000u16);
    prop_oneof![
        6 => gops.prop_map(|(gops, buffers, ms, tells, size)| Act::Record { gops, buffers, ms, tells, size }),
        2 => (-4000..4000i32, any::<bool>()).prop_map(|(by, synced)| Act::Step { by, synced }),
        1 => any::<u16>().prop_map(Act::Pass),
        1 => Just(Act::Reopen),
        1 => Just(Act::Crash),
        2 => (-4000..4000i32, any::<bool>()).prop_map(|(off, synced)| Act::Boot { off, synced }),
        3 => Just(Act::Thin),
        1 => any::<(u8, u8)>().prop_map(|(from, count)| Act::Purge(from, count)),
        1 => (0..100u8).prop_map(Act::Trim),
    ]
}

struct Site {
    temp: tempfile::TempDir,
    clock: Arc<FakeClock>,
    stream: Option<Stream>,
    /// Whether cameras tell the time in this boot: the two do not mix within one.
    tells: Option<bool>,
    boots: u32,
}

impl Site {
    fn open(&mut self) {
        self.stream = None;
        let options = StoreOptions { clock: self.clock.clone(), ..options() };
        let stream = Store::open(self.temp.path(), &options).unwrap().stream("default").unwrap();
        stream.set_retention(Retention { time: Duration::from_secs(1 << 30), ..Default::default() });
        self.stream = Some(stream);
    }

    fn act(&mut self, act: Act) {
        let stream = self.stream.as_ref().unwrap();
        let held = read_all(stream, 0);
        let place = |part: u8| held.get(usize::from(part) * held.len() / 256);
        match act {
            Act::Record { gops, buffers, ms, tells, size } => {
                let tells = *self.tells.get_or_insert(tells);
                for i in 0..u32::from(gops) * u32::from(buffers) {
                    let sync = if i % u32::from(buffers) == 0 { Sync::Open } else { Sync::None };
                    let wall = super::super::clock::Clock::wall(&*self.clock);
                    let at = NOW + self.clock_time() - SECOND / 3;
                    let metas = match tells {
                        true => vec![MetaRecord { name: "captured".into(), data: at.to_le_bytes().to_vec() }],
                        false => vec![],
                    };
                    let captured_at = reference(&metas).unwrap_or(wall);
                    let header = BufferHeader { sync, captured_at, metas, ..Default::default() };
                    append(stream, Body::Buffer(header), &noise(u64::from(i), usize::from(size)));
                    self.clock.pass(Duration::from_millis(u64::from(ms) / u64::from(buffers)));
                }
            }
            Act::Step { by, synced } => {
                let wall = super::super::clock::Clock::wall(&*self.clock);
                self.clock.set(wall + i64::from(by) * SECOND, synced);
            }
            Act::Pass(seconds) => self.clock.pass(Duration::from_secs(u64::from(seconds))),
            Act::Reopen => self.open(),
            Act::Crash => {
                crash(self.stream.take().unwrap());
                self.open();
            }
            Act::Boot { off, synced } => {
                self.stream = None;
                self.boots += 1;
                let wall = NOW + i64::from(self.boots) * 100_000 * SECOND + i64::from(off) * SECOND;
                self.clock = FakeClock::new(&format!("boot {}", self.boots), wall, 1);
                self.clock.set(wall, synced);
                self.tells = None;
                self.open();
            }
            Act::Thin => {
                if let Some(plan) = stream.plan_thin(0, |gone| gone.buffers > 8).unwrap() {
                    let mut cursor = stream.cursor();
                    stream.commit(plan, &mut cursor);
                }
            }
            Act::Purge(from, count) => {
                if let Some(from) = place(from) {
                    stream.purge(from.sequence..from.sequence + u64::from(count)).unwrap();
                }
            }
            Act::Trim(part) => {
                if let Some(to) = place(part) {
                    let mut cursor = stream.cursor();
                    cursor.skip(Mark { sequence: to.sequence, totals: to.before }, Cause::Dropped);
                    stream.set_retention(Retention::default());
                    stream.set_cursor(cursor);
                    stream.set_retention(Retention { time: Duration::from_secs(1 << 30), ..Default::default() });
                }
            }
        }
    }

    fn clock_time(&self) -> i64 {
        use super::super::clock::Clock;
        i64::from(self.boots) * 100_000 * SECOND + self.clock.boot() as i64
    }

    fn check(&self, shared: bool) -> Result<(), TestCaseError> {
        // A step that came last is noticed by whoever looks at the clock next.
        self.stream.iter().for_each(|stream| _ = stream.store().log().time.arrival());
        let options = ReaderOptions { clock: self.clock.clone(), reference };
        let reader = StreamReader::open(self.temp.path(), None, &options).unwrap();
        prop_assert_eq!(reader.is_shared(), shared);
        let mut points: Vec<SyncPoint> = Vec::new();
        let mut at = Some(reader.first());
        while let Some(next) = at {
            let chunk = reader.read(next, 64, 1 << 20).unwrap();
            for record in chunk.records {
                let Body::Buffer(header) = &record.body else { continue };
                let (captured_at, synced) = reader.captured_at(header, record.arrival);
                if header.sync != Sync::None {
                    points.push(SyncPoint {
                        sequence: record.sequence,
                        totals: record.before,
                        sync: header.sync,
                        running_time: None,
                        captured_at,
                        synced,
                    });
                }
            }
            at = chunk.next;
        }
        let end = reader.end().sequence;
        let ends = [0, reader.first(), end.saturating_sub(1), end, Sequence::MAX - 1];
        let near = points.iter().flat_map(|point| [point.sequence - 1, point.sequence, point.sequence + 1]);
        for at in near.chain(ends) {
            let last = points.iter().rev().find(|point| point.sequence <= at).copied();
            prop_assert_eq!(reader.sync_at_or_before(at).unwrap(), last, "at or before {}", at);
            let first = points.iter().find(|point| point.sequence >= at).copied();
            prop_assert_eq!(reader.first_sync_from(at).unwrap(), first, "from {}", at);
            let next = points.iter().find(|point| point.sequence > at).copied();
            prop_assert_eq!(reader.next_sync_after(at).unwrap(), next, "after {}", at);
        }
        let near = points.iter().flat_map(|point| [point.captured_at - 1, point.captured_at, point.captured_at + 1]);
        for utc in near.chain([i64::MIN, 0, NOW, i64::MAX]) {
            let before = points.iter().filter(|point| point.captured_at <= utc);
            let last = before.max_by_key(|point| (point.captured_at, point.sequence)).copied();
            prop_assert_eq!(reader.sync_at_or_before_time(utc).unwrap(), last, "until {}", utc);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..Default::default() })]
    #[test]
    fn a_search_finds_what_looking_at_everything_finds(acts in proptest::collection::vec(act(), 1..16)) {
        let clock = FakeClock::new("boot 0", NOW, 1);
        let temp = tempfile::tempdir().unwrap();
        let mut site = Site { temp, clock, stream: None, tells: None, boots: 0 };
        site.open();
        for act in acts {
            site.act(act);
        }
        site.check(true)?;
        site.stream = None;
        site.check(false)?;
    }
}

#[test]
fn a_clock_that_was_right_only_later_finds_what_came_before() {
    let temp = tempfile::tempdir().unwrap();
    let clock = FakeClock::new("boot", 0, 0);
    let options = StoreOptions { clock: clock.clone(), ..options() };
    let stream = Store::open(temp.path(), &options).unwrap().stream("default").unwrap();
    for i in 0..100u64 {
        if i == 50 {
            clock.set(NOW, true);
        }
        append(&stream, buffer(Sync::Closed), &noise(i, 100));
        clock.pass(Duration::from_secs(2));
    }
    let reader = StreamReader::open(temp.path(), None, &ReaderOptions { clock, reference }).unwrap();
    let at = |utc| reader.sync_at_or_before_time(utc).unwrap().map(|point| (point.sequence, point.synced));
    assert_eq!(at(NOW - 99 * SECOND), Some((1, true)), "recorded in 1970, as the machine believed");
    assert_eq!(at(NOW - 100 * SECOND - 1), None);
    assert_eq!(at(NOW - 1), Some((50, true)));
    assert_eq!(at(NOW + 5 * SECOND), Some((53, true)));
    assert_eq!(at(i64::MAX), Some((100, true)));
}
