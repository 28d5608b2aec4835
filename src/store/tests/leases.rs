//! Consumers and what is kept for them.

use super::super::clock::Clock;
use super::super::clock::fake::FakeClock;
use super::super::log::lock;
use super::*;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const NOW: i64 = 1_770_000_000_000_000_000;

fn deliver_all(stream: &Stream) {
    let end = stream.end();
    let mut cursor = stream.cursor();
    cursor.ledger.delivered.add(end.totals.since(cursor.totals));
    (cursor.position, cursor.totals, cursor.resume) = (end.sequence, end.totals, end.sequence);
    stream.set_cursor(cursor);
}

/// Keyframes of 20 kB, one a second by this clock.
fn record(stream: &Stream, clock: &FakeClock, count: u64) {
    for i in 0..count {
        append(stream, buffer(Sync::Closed), &noise(i, 20_000));
        clock.pass(SECOND);
    }
}

struct Site {
    clock: Arc<FakeClock>,
    temp: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        Self { clock: FakeClock::new("boot", NOW, 1), temp: tempfile::tempdir().unwrap() }
    }

    fn stream(&self) -> Stream {
        let options = StoreOptions { clock: self.clock.clone(), ..options() };
        Store::open(self.temp.path(), &options).unwrap().stream("default").unwrap()
    }

    fn reader(&self) -> StreamReader {
        let options = ReaderOptions { clock: self.clock.clone(), ..Default::default() };
        StreamReader::open(self.temp.path(), None, &options).unwrap()
    }
}

/// Reads up to before `to` and moves the consumer; what it read and what it lost.
fn consume_until(reader: &StreamReader, consumer: &Consumer, to: Sequence) -> (Vec<Sequence>, Totals) {
    let mut cursor = consumer.position().unwrap();
    let (mut seen, mut lost) = (Vec::new(), Totals::default());
    let mut at = Some(cursor.position);
    while let Some(next) = at.filter(|at| *at < to) {
        let chunk = reader.read(next, 10, 1 << 20).unwrap();
        for record in chunk.records.iter().filter(|record| record.sequence < to) {
            let before = Mark { sequence: record.sequence, totals: record.before };
            if let Pass::New { lost: more } = cursor.pass(before, record.after()) {
                lost = lost.plus(more);
            }
            cursor.resume = record.sequence;
            seen.push(record.sequence);
        }
        at = chunk.next;
    }
    consumer.advance(cursor);
    consumer.renew().unwrap();
    (seen, lost)
}

#[test]
fn space_is_freed_up_to_the_slower_of_two_consumers() {
    let site = Site::new();
    let stream = site.stream();
    record(&stream, &site.clock, 10);
    let reader = site.reader();
    let (fast, slow) = (reader.consumer("fast", HOUR).unwrap(), reader.consumer("slow", HOUR).unwrap());
    for consumer in [&fast, &slow] {
        consumer.advance(reader.cursor_at(1).unwrap());
        consumer.renew().unwrap();
    }
    record(&stream, &site.clock, 290);
    deliver_all(&stream);
    assert!(stream.save_cursor());
    assert_eq!(reader.first(), 1, "nothing goes that is needed");
    let none = Totals::default();
    assert_eq!(consume_until(&reader, &fast, 301), ((1..301).collect(), none));
    assert_eq!(consume_until(&reader, &slow, 101), ((1..101).collect(), none));
    until("what both have seen goes", || {
        stream.probe();
        reader.first() == 100
    });
    until("its files go", || stream.store().log().extents().len() < 9);
    assert_eq!(consume_until(&reader, &slow, 301), ((101..301).collect(), none));
    drop(slow);
    fast.forget().unwrap();
    until("only the slow one holds", || {
        stream.probe();
        reader.first() == 300
    });
    reader.consumer("slow", HOUR).unwrap().forget().unwrap();
    until("nobody holds", || {
        stream.probe();
        reader.first() == stream.cursor().resume
    });
}

#[test]
fn a_lease_that_nobody_renews_runs_out_by_elapsed_time() {
    let site = Site::new();
    let stream = site.stream();
    record(&stream, &site.clock, 5);
    let reader = site.reader();
    let consumer = reader.consumer("a", HOUR).unwrap();
    consumer.advance(reader.cursor_at(1).unwrap());
    drop(consumer);
    record(&stream, &site.clock, 5);
    deliver_all(&stream);
    site.clock.set(NOW + 48 * HOUR.as_nanos() as i64, true);
    stream.store().log().leases.changed();
    stream.probe();
    assert_eq!(reader.first(), 1, "a step of the clock is no elapsed time");
    site.clock.pass(HOUR);
    until("it has run out", || {
        stream.store().log().leases.changed();
        stream.probe();
        reader.first() == stream.cursor().resume
    });
}

#[test]
fn a_lease_of_another_boot_runs_out_by_the_wall_clock() {
    for (away, kept) in [(Duration::from_secs(60), true), (2 * HOUR, false)] {
        let mut site = Site::new();
        let stream = site.stream();
        record(&stream, &site.clock, 5);
        let reader = site.reader();
        let consumer = reader.consumer("a", HOUR).unwrap();
        consumer.advance(reader.cursor_at(1).unwrap());
        drop((consumer, stream));
        site.clock = FakeClock::new("another", NOW + away.as_nanos() as i64, 1);
        let stream = site.stream();
        deliver_all(&stream);
        stream.probe();
        reader.refresh().unwrap();
        assert_eq!(reader.first() == 1, kept);
    }
}

#[test]
fn a_writer_that_opens_the_store_again_honours_what_it_finds() {
    let site = Site::new();
    let stream = site.stream();
    record(&stream, &site.clock, 100);
    drop(stream);
    let reader = site.reader();
    assert!(!reader.is_shared());
    let consumer = reader.consumer("a", HOUR).unwrap();
    consumer.advance(reader.cursor_at(51).unwrap());
    drop(consumer);
    let stream = site.stream();
    deliver_all(&stream);
    until("what is not needed goes", || {
        stream.probe();
        stream.read(0, 1, 1).unwrap().records.first().is_some_and(|record| record.sequence == 51)
    });
}

/// Does something once, when it was asked for the time so often and the store is still being opened.
struct Meanwhile {
    location: PathBuf,
    clock: Arc<FakeClock>,
    left: AtomicU32,
    act: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.clock.fmt(f)
    }
}

impl Meanwhile {
    fn asked(&self) -> &FakeClock {
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) == Ok(1) {
            let act = lock(&self.act).take_if(|_| registry::find(&self.location).is_none());
            act.into_iter().for_each(|act| act());
        }
        &self.clock
    }
}

impl Clock for Meanwhile {
    fn wall(&self) -> i64 {
        self.asked().wall()
    }

    fn boot(&self) -> u64 {
        self.asked().boot()
    }

    fn synced(&self) -> bool {
        self.asked().synced()
    }

    fn boot_id(&self) -> String {
        self.asked().boot_id()
    }
}

/// Whoever opens the store has looked for consumers already, and nobody can tell him yet.
#[test]
fn a_consumer_that_comes_while_the_store_is_being_opened_loses_nothing() {
    for step in 1.. {
        let site = Site::new();
        let stream = site.stream();
        record(&stream, &site.clock, 5);
        drop(stream);
        let reader = Arc::new(site.reader());
        let act = {
            let (reader, consumer) = (reader.clone(), reader.consumer("a", HOUR).unwrap());
            Box::new(move || {
                consumer.advance(reader.cursor_at(1).unwrap());
                consumer.renew().unwrap();
            })
        };
        let clock = Arc::new(Meanwhile {
            location: registry::resolve(site.temp.path()).unwrap(),
            clock: site.clock.clone(),
            left: AtomicU32::new(step),
            act: Mutex::new(Some(act)),
        });
        let store = Store::open(site.temp.path(), &StoreOptions { clock: clock.clone(), ..options() }).unwrap();
        if lock(&clock.act).is_some() {
            assert!(step > 3, "the clock is read");
            return;
        }
        let stream = store.stream("default").unwrap();
        deliver_all(&stream);
        reader.refresh().unwrap();
        assert_eq!(reader.first(), 1, "at step {step}");
    }
}

#[test]
fn a_limit_overruns_a_consumer_and_the_sums_tell_what_it_lost() {
    let site = Site::new();
    let stream = site.stream();
    stream.set_retention(Retention { total_bytes: 1_000_000, ..Default::default() });
    record(&stream, &site.clock, 10);
    let reader = site.reader();
    let consumer = reader.consumer("a", HOUR).unwrap();
    consumer.advance(reader.cursor_at(1).unwrap());
    assert_eq!(consume_until(&reader, &consumer, 5), ((1..5).collect(), Totals::default()));
    record(&stream, &site.clock, 190);
    deliver_all(&stream);
    until("the limit comes first", || {
        stream.probe();
        reader.first() == 151
    });
    let (seen, lost) = consume_until(&reader, &consumer, 201);
    assert_eq!(seen, (151..201).collect::<Vec<_>>());
    assert_eq!((lost.buffers, lost.bytes), (146, 146 * 20_000));
    let position = consumer.position().unwrap();
    assert_eq!((position.ledger.delivered.buffers, position.ledger.lost.buffers), (54, 146));
    // Too old is a limit too.
    stream.set_retention(Retention { max_age: 60 * SECOND, ..Default::default() });
    record(&stream, &site.clock, 100);
    deliver_all(&stream);
    until("age comes first", || {
        stream.probe();
        reader.first() > 201
    });
    let (seen, lost) = consume_until(&reader, &consumer, 301);
    assert_eq!(seen.len() as u64 + lost.buffers, 100);
}

#[test]
fn what_was_purged_shows_as_a_gap_in_the_sums() {
    let site = Site::new();
    let stream = site.stream();
    record(&stream, &site.clock, 30);
    let reader = site.reader();
    let consumer = reader.consumer("a", HOUR).unwrap();
    consumer.advance(reader.cursor_at(1).unwrap());
    assert_eq!(consume_until(&reader, &consumer, 5).0.len(), 4);
    deliver_all(&stream);
    record(&stream, &site.clock, 30);
    stream.purge(11..41).unwrap();
    let (seen, lost) = consume_until(&reader, &consumer, 61);
    assert_eq!(seen, (5..11).chain(41..61).collect::<Vec<_>>());
    assert_eq!((lost.buffers, lost.bytes), (30, 600_000));
}

#[test]
fn a_file_system_at_its_floor_takes_the_oldest_step_by_step() {
    let site = Site::new();
    let stream = site.stream();
    stream.set_retention(Retention { time: 1000 * HOUR, ..Default::default() });
    let log = stream.store().log();
    record(&stream, &site.clock, 10);
    let reader = site.reader();
    let consumer = reader.consumer("a", HOUR).unwrap();
    consumer.advance(reader.cursor_at(1).unwrap());
    consumer.renew().unwrap();
    let size = 24 << 20;
    log.space.pretend(log.space.floor() + size);
    let mut least = u64::MAX;
    for _ in 0..300 {
        record(&stream, &site.clock, 10);
        deliver_all(&stream);
        until("there is room", || {
            stream.probe();
            !stream.store().is_low()
        });
        if reader.first() > 1 {
            least = least.min(stream.end().sequence - reader.first());
        }
    }
    assert!(reader.first() > 1000, "60 MB do not fit");
    assert!(least < 3000 && least * 20_000 > size / 3, "{least} of 20 kB are kept at the least");
    let (seen, lost) = consume_until(&reader, &consumer, 3011);
    assert_eq!(seen.len() as u64 + lost.buffers, 3010);
    assert_eq!(seen.first(), Some(&reader.first()));
}
