//! Thinning and purging against a plain list.

use super::*;
use crate::store::cursor::Pass;
use std::collections::BTreeSet;

const GOP: u64 = 10;

/// Whole GOPs of `len` bytes a record; a change of state before each third.
fn record_gops(stream: &Stream, gops: u64, len: usize) {
    (0..gops).for_each(|gop| record_gop(stream, gop, len));
}

fn record_gop(stream: &Stream, gop: u64, len: usize) {
    if gop.is_multiple_of(3) {
        let slot = Slot { rank: 1, name: String::new() };
        let body = Body::State { slot, clears: Clears::Nothing };
        let change = NewRecord { body, payload: &[&gop.to_be_bytes()], advance: 0 };
        stream.append(stream.end().sequence, &[change]).unwrap();
    }
    for i in 0..GOP {
        let sync = if i == 0 { Sync::Closed } else { Sync::None };
        append(stream, buffer(sync), &noise(gop * GOP + i + 1, len));
    }
    append(stream, Body::Event, b"event");
}

fn is_sync(record: &Record) -> Option<bool> {
    match &record.body {
        Body::Buffer(header) => Some(header.sync != Sync::None),
        _ => None,
    }
}

/// Delivers up to `count` records the way an element does; what it delivered.
fn deliver(stream: &Stream, cursor: &mut CursorRecord, count: usize) -> Vec<Record> {
    let mut delivered = Vec::new();
    while delivered.len() < count {
        let chunk = stream.read(cursor.position, (count - delivered.len()).min(7), 1 << 20).unwrap();
        let Some(next) = chunk.next else { break };
        for record in chunk.records {
            let before = Mark { sequence: record.sequence, totals: record.before };
            assert_eq!(cursor.pass(before, record.after()), Pass::New { lost: Totals::default() }, "{record:?}");
            if is_sync(&record) == Some(true) {
                cursor.resume = record.sequence;
            }
            delivered.push(record);
        }
        cursor.position = cursor.position.max(next);
        stream.set_cursor(*cursor);
    }
    delivered
}

/// Without what only the store keeps.
fn own(cursor: CursorRecord) -> CursorRecord {
    CursorRecord { log_start: 0, log_start_bytes: 0, max_age: 0, ..cursor }
}

/// An erasure may keep the thread that saves.
fn saved(stream: &Stream) {
    until("the cursor is saved", || stream.save_cursor());
}

fn balance(stream: &Stream, cursor: &CursorRecord) {
    let l = cursor.ledger;
    let sum = [l.delivered, l.dropped, l.expired, l.purged, l.lost].into_iter().fold(Count::default(), Count::plus);
    let stored = stream.end().totals;
    let pending = cursor.pending(stored);
    assert_eq!(
        sum.plus(Count { buffers: pending.buffers, bytes: pending.bytes }),
        Count { buffers: stored.buffers, bytes: stored.bytes }
    );
}

fn thin(stream: &Stream, cursor: &mut CursorRecord, buffers: u64) -> Option<GivenUp> {
    let plan = stream.plan_thin(0, |gone| gone.buffers >= buffers).unwrap()?;
    Some(stream.commit(plan, cursor).unwrap())
}

#[test]
fn thinned_gops_are_read_as_their_keyframes_and_counted_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let clock = super::super::clock::fake::FakeClock::new("boot", 0, 0);
    let open = || {
        let options = StoreOptions { clock: clock.clone(), ..options() };
        Store::open(temp.path(), &options).unwrap().stream("default").unwrap()
    };
    let mut stream = open();
    for gop in 0..30 {
        record_gop(&stream, gop, 5000);
        clock.pass(Duration::from_secs(1));
    }
    let before = read_all(&stream, 0);
    let mut cursor = stream.cursor();
    deliver(&stream, &mut cursor, 15);
    let given_up = thin(&stream, &mut cursor, 60).unwrap();
    assert_eq!(given_up.totals.buffers, 63, "seven GOPs");
    assert_eq!(cursor.pending(stream.end().totals).buffers, 300 - 13 - 63);
    assert_eq!(cursor.ledger.dropped.buffers, 63);
    balance(&stream, &cursor);
    let kept = |record: &&Record| !given_up.range().contains(&record.sequence) || is_sync(record) != Some(false);
    let expected: Vec<_> = before.iter().filter(|r| r.sequence >= cursor.resume).filter(kept).collect();
    for reopen in [false, true] {
        if reopen {
            saved(&stream);
            crash(stream);
            stream = open();
            assert_eq!(own(stream.cursor()), own(cursor), "with the hole");
        }
        let found = read_all(&stream, 0);
        let bytes = |records: Vec<&Record>| records.iter().map(|r| (r.sequence, r.payload.clone())).collect::<Vec<_>>();
        assert!(
            found
                .iter()
                .map(|r| (r.sequence, r.payload.as_ref()))
                .eq(expected.iter().map(|r| (r.sequence, r.payload.as_ref()))),
            "{:?}",
            bytes(found.iter().collect()).iter().map(|b| b.0).collect::<Vec<_>>()
        );
        for record in &found {
            let expected =
                before.iter().rev().find(|r| r.sequence < record.sequence && matches!(r.body, Body::State { .. }));
            let state: Vec<_> = stream.state_at(record.sequence).unwrap().into_values().collect();
            assert_eq!(state, expected.map(|r| r.payload.as_ref().to_vec()).into_iter().collect::<Vec<_>>());
        }
    }
    // The oldest thinned keyframes go when they are too many themselves.
    let (to, entry) = stream.next_sync(given_up.range().start, |_| true).unwrap().unwrap();
    assert!(given_up.range().contains(&to), "{to} is among the thinned ones");
    let gone = cursor.skip(Mark { sequence: to, totals: entry.totals }, Cause::Dropped);
    stream.set_cursor(cursor);
    balance(&stream, &cursor);
    assert!(gone.buffers > 0 && gone.buffers < 20, "{gone:?}");
    deliver(&stream, &mut cursor, usize::MAX);
    assert_eq!(cursor.pending(stream.end().totals), Totals::default());
    balance(&stream, &cursor);
}

#[test]
fn records_that_were_read_before_thinning_count_as_themselves() {
    let temp = tempfile::tempdir().unwrap();
    let stream = open(temp.path());
    record_gops(&stream, 10, 100);
    let mut cursor = stream.cursor();
    let early = stream.read(0, 12, 1 << 20).unwrap().records;
    let from = early.last().unwrap().sequence + 1;
    let plan = stream.plan_thin(from, |_| false).unwrap().unwrap();
    assert!(plan.range().start >= from);
    stream.commit(plan, &mut cursor).unwrap();
    for record in early {
        cursor.pass(Mark { sequence: record.sequence, totals: record.before }, record.after());
    }
    deliver(&stream, &mut cursor, usize::MAX);
    assert_eq!(cursor.ledger.lost, Count::default());
    assert_eq!(cursor.pending(stream.end().totals), Totals::default());
    balance(&stream, &cursor);
}

#[test]
fn a_plan_that_was_overtaken_changes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let stream = open(temp.path());
    record_gops(&stream, 10, 100);
    let before = read_all(&stream, 0);
    let mut cursor = stream.cursor();
    let plan = stream.plan_thin(0, |_| false).unwrap().unwrap();
    let other = stream.plan_thin(0, |_| false).unwrap().unwrap();
    let start = cursor;
    deliver(&stream, &mut cursor, 20);
    assert_eq!(stream.commit(plan, &mut cursor), None, "the cursor is within");
    assert_eq!(read_all(&stream, 0).len(), before.iter().filter(|r| r.sequence >= cursor.resume).count());
    let again = thin(&stream, &mut cursor, 1).unwrap();
    assert!(again.range().start >= cursor.position && start.position < cursor.position);
    assert_eq!(stream.commit(other, &mut cursor), None, "another one was carried out");
    balance(&stream, &cursor);
}

#[test]
fn thinning_frees_the_disk_and_ends() {
    let temp = tempfile::tempdir().unwrap();
    let stream = open(temp.path());
    record_gops(&stream, 60, 60_000);
    // Without what is set aside. A flush may put two extents into one file, which goes with the later one: the newest GOP keeps
    // four of them at most.
    let ballast = std::fs::metadata(temp.path().join("ballast")).unwrap().len();
    let used = || stream.store().disk_bytes().saturating_sub(ballast);
    let full = used();
    let mut cursor = stream.cursor();
    let mut count = 0;
    while thin(&stream, &mut cursor, 1000).is_some() {
        count += 1;
        stream.set_cursor(cursor);
    }
    assert!(count > 5, "a quarter of a memtable each");
    until("the originals go", || used() < full / 3);
    assert_eq!(cursor.pending(stream.end().totals).buffers, 59 + GOP, "all but the newest GOP");
    let buffers = deliver(&stream, &mut cursor, usize::MAX);
    assert_eq!(buffers.iter().filter(|r| is_sync(r) == Some(true)).count(), 60);
    balance(&stream, &cursor);
    until("the kept ones go too", || used() < full / 4);
}

/// A change that memory alone had shows as the whole state before the next record, which may be given up.
#[test]
fn state_that_memory_alone_had_changed_outlives_thinning_and_purging() {
    let slot = Slot { rank: 1, name: String::new() };
    for purges in [false, true] {
        let temp = tempfile::tempdir().unwrap();
        let stream = open(temp.path());
        record_gops(&stream, 3, 100);
        let lost = stream.end().sequence;
        stream.give_out(lost + 1);
        stream.change_state(lost, (&slot, &Clears::Nothing, b"memory alone"), None);
        // Within the next GOP, and at its beginning.
        for sync in [Sync::None, Sync::Closed, Sync::None, Sync::Closed] {
            append(&stream, buffer(sync), b"frame");
        }
        let end = stream.end().sequence;
        let state_at = |at| stream.state_at(at).unwrap().into_values().next();
        let told = || {
            let mut state = StateMap::new();
            read_all(&stream, 0).into_iter().for_each(|record| log::apply_record(&mut state, record));
            state.into_values().next()
        };
        assert_eq!((told(), state_at(lost + 1)), (Some(b"memory alone".to_vec()), Some(b"memory alone".to_vec())));
        let mut cursor = stream.cursor();
        if purges {
            let plan = stream.plan_purge(lost - 5..end).unwrap().unwrap();
            stream.commit(plan, &mut cursor).unwrap();
        } else {
            thin(&stream, &mut cursor, 1000).unwrap();
        }
        assert_eq!(told(), Some(b"memory alone".to_vec()), "who reads on is told, {purges}");
        for at in lost + 1..=end {
            assert_eq!(state_at(at), Some(b"memory alone".to_vec()), "at {at}, {purges}");
        }
    }
}

#[test]
fn what_is_thinned_does_not_count_as_kept_for_replay() {
    let temp = tempfile::tempdir().unwrap();
    let stream = open(temp.path());
    stream.set_retention(Retention { bytes: 30_000, ..Retention::default() });
    record_gops(&stream, 20, 1000);
    let mut cursor = stream.cursor();
    deliver(&stream, &mut cursor, 30);
    until("a look at what is kept", || stream.probe());
    assert_eq!(stream.cursor().log_start, 1, "30 kB are kept");
    assert!(cursor.resume > 20);
    assert!(thin(&stream, &mut cursor, 1000).unwrap().totals.bytes > 100_000);
    until("another look", || stream.probe());
    assert_eq!(stream.cursor().log_start, 1, "they still are");
    record_gops(&stream, 1, 1000);
    deliver(&stream, &mut cursor, 30);
    until("what is more goes", || stream.probe() && stream.cursor().log_start > 1);
}

/// Where the log start is to go next is known from before the hole.
#[test]
fn sync_points_that_thinning_kept_are_gone_by() {
    let temp = tempfile::tempdir().unwrap();
    let clock = super::super::clock::fake::FakeClock::new("boot", 0, 0);
    let options = StoreOptions { clock: clock.clone(), ..options() };
    let stream = Store::open(temp.path(), &options).unwrap().stream("default").unwrap();
    stream.set_retention(Retention { bytes: 1, ..Retention::default() });
    for gop in 0..10 {
        // The sixth is in the index, and of those before it only the first.
        if gop == 5 {
            clock.pass(Duration::from_secs(2));
        }
        record_gop(&stream, gop, 100);
    }
    let mut cursor = stream.cursor();
    deliver(&stream, &mut cursor, 11);
    until("a look", || stream.probe());
    let from = thin(&stream, &mut cursor, 1000).unwrap().from.sequence;
    assert!(from > cursor.resume && stream.cursor().log_start <= 2, "{cursor:?}");
    deliver(&stream, &mut cursor, 6);
    assert!((from..50).contains(&cursor.resume), "{cursor:?}");
    until("it goes to what was kept", || stream.probe() && stream.cursor().log_start == from);
}

/// Its copies stand where those of what was thinned before do.
#[test]
fn a_purge_that_is_only_planned_changes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let stream = open(temp.path());
    record_gops(&stream, 8, 100);
    let mut cursor = stream.cursor();
    thin(&stream, &mut cursor, 1000).unwrap();
    let all = || read_all(&stream, 0);
    let (before, end) = (all(), stream.end().sequence);
    let changes = before.iter().filter(|record| matches!(record.body, Body::State { .. })).count();
    assert!(changes > 1 && before.len() < 80, "{changes} of {}", before.len());
    for from in 1..end {
        let _ = stream.plan_purge(from..end).unwrap();
        assert_eq!(all(), before, "from {from}");
    }
    let mut sums = cursor.totals;
    for record in all() {
        assert_eq!(record.before, sums, "before {}", record.sequence);
        sums = record.after();
    }
    let plan = stream.plan_purge(3..end - 3).unwrap().unwrap();
    stream.commit(plan, &mut cursor).unwrap();
    let mut sums = cursor.totals;
    for record in all() {
        assert_eq!(record.before, sums, "before {}", record.sequence);
        sums = record.after();
    }
}

#[test]
fn a_purge_behind_the_cursor_outlives_a_kill() {
    let temp = tempfile::tempdir().unwrap();
    let stream = open(temp.path());
    stream.set_retention(Retention { time: Duration::from_secs(1000), ..Retention::default() });
    record_gops(&stream, 3, 100);
    let mut cursor = stream.cursor();
    let delivered = deliver(&stream, &mut cursor, usize::MAX);
    saved(&stream);
    // It knows the same cursor, and nothing of what follows.
    stream.store().log().save_high_water();
    let (from, to) = (delivered[3].sequence, delivered[8].sequence);
    assert_eq!(stream.purge(from..to).unwrap(), Totals::default());
    crash(stream);
    let stream = open(temp.path());
    let holes = stream.parts().1.holes();
    assert!((from..to).all(|at| holes.at(at).is_some()), "{holes:?}");
    let there = read_all(&stream, 0);
    assert!(there.iter().all(|record| !(from..to).contains(&record.sequence)));
    assert_eq!(there.len(), delivered.len() - (to - from) as usize);
}

fn holds(dir: &Path, needle: &[u8]) -> Option<std::path::PathBuf> {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        let found = if path.is_dir() {
            holds(&path, needle)
        } else {
            let bytes = std::fs::read(&path).unwrap_or_default();
            bytes.windows(needle.len()).any(|window| window == needle).then_some(path)
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

#[test]
fn purged_bytes_are_in_no_file() {
    let temp = tempfile::tempdir().unwrap();
    let stream = open(temp.path());
    let secret = |i: u64| noise(i * 7 + 99_999, 64);
    let mut marks = Vec::new();
    for i in 0..60u64 {
        record_gops(&stream, 1, 3000);
        marks.push(append(&stream, buffer(Sync::Closed), &secret(i)));
    }
    let mut cursor = stream.cursor();
    stream.set_retention(Retention { bytes: 1 << 30, ..Default::default() });
    deliver(&stream, &mut cursor, 100);
    thin(&stream, &mut cursor, 100).unwrap();
    stream.set_cursor(cursor);
    let all = read_all(&stream, 0).len();
    // Delivered, thinned, on the disk, in memory.
    for range in [2..4usize, 10..12, 30..33, 57..60] {
        for i in range.clone() {
            assert!(holds(temp.path(), &secret(i as u64)).is_some(), "{i} is there before");
        }
        stream.purge(marks[range.start]..marks[range.end - 1] + 1).unwrap();
        for i in range {
            assert_eq!(holds(temp.path(), &secret(i as u64)), None, "{i}");
        }
    }
    assert!(holds(temp.path(), &secret(20)).is_some(), "others stay");
    let mut cursor = stream.cursor();
    balance(&stream, &cursor);
    assert!(cursor.ledger.purged.buffers > 20 && read_all(&stream, 0).len() < all);
    deliver(&stream, &mut cursor, usize::MAX);
    assert_eq!((cursor.pending(stream.end().totals), cursor.ledger.lost), (Totals::default(), Count::default()));
    let state = stream.state();
    stream.clear().unwrap();
    for i in 0..60 {
        assert_eq!(holds(temp.path(), &secret(i)), None, "{i}");
    }
    drop(stream);
    let stream = open(temp.path());
    balance(&stream, &stream.cursor());
    assert_eq!(read_all(&stream, 0).iter().filter(|r| is_sync(r).is_some()).count(), 0);
    assert_eq!(stream.state(), state, "what is in force stays");
}

#[derive(Debug, Clone)]
enum Step {
    Gops { gops: u64, len: usize },
    Deliver(usize),
    Thin(u64),
    Purge(f64, f64),
    Drop(f64),
    Save,
    Reopen,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (1..8u64, 10..20_000usize).prop_map(|(gops, len)| Step::Gops { gops, len }),
        4 => (0..60usize).prop_map(Step::Deliver),
        4 => (1..60u64).prop_map(Step::Thin),
        3 => (0.0..1.0f64, 0.0..0.5f64).prop_map(|(from, len)| Step::Purge(from, len)),
        1 => (0.0..0.5f64).prop_map(Step::Drop),
        1 => Just(Step::Save),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// What is read is what was neither delivered nor given up, in order, and the sums always balance, over crashes too.
    #[test]
    fn giving_up_agrees_with_a_list(steps in steps()) {
        let temp = tempfile::tempdir().unwrap();
        let mut stream = open(temp.path());
        let mut cursor = stream.cursor();
        let mut gone: BTreeSet<Sequence> = BTreeSet::new();
        let mut all: Vec<Record> = Vec::new();
        for step in steps {
            match step {
                Step::Gops { gops, len } => {
                    let from = stream.end().sequence;
                    record_gops(&stream, gops, len);
                    all.extend(read_all(&stream, from));
                }
                Step::Deliver(count) => _ = deliver(&stream, &mut cursor, count),
                Step::Thin(buffers) => {
                    if let Some(thinned) = thin(&stream, &mut cursor, buffers) {
                        let within = |r: &&Record| thinned.range().contains(&r.sequence) && is_sync(r) == Some(false);
                        gone.extend(all.iter().filter(within).map(|r| r.sequence));
                        stream.set_cursor(cursor);
                    }
                }
                Step::Purge(from, len) => {
                    let end = stream.end().sequence as f64;
                    let range = (from * end) as u64..((from + len) * end) as u64;
                    if let Some(plan) = stream.plan_purge(range).unwrap() {
                        let purged = stream.commit(plan, &mut cursor).unwrap();
                        let within = |r: &&Record| {
                            purged.range().contains(&r.sequence) && !matches!(r.body, Body::State { .. })
                        };
                        gone.extend(all.iter().filter(within).map(|r| r.sequence));
                    }
                }
                Step::Drop(part) => {
                    let at = cursor.position + (part * (stream.end().sequence - cursor.position) as f64) as u64;
                    if let Some((sequence, entry)) = stream.next_sync(at, |_| true).unwrap() {
                        cursor.skip(Mark { sequence, totals: entry.totals }, Cause::Dropped);
                        stream.set_cursor(cursor);
                    }
                }
                Step::Save => saved(&stream),
                Step::Reopen => {
                    drop(stream);
                    stream = open(temp.path());
                    prop_assert_eq!(own(stream.cursor()), own(cursor));
                }
                Step::Crash => {
                    saved(&stream);
                    crash(stream);
                    stream = open(temp.path());
                    cursor = stream.cursor();
                }
            }
            let resume = stream.cursor().resume;
            let found = read_all(&stream, 0);
            let left = |r: &&Record| r.sequence >= resume && !gone.contains(&r.sequence);
            let expected: Vec<_> = all.iter().filter(left).map(|r| (r.sequence, r.payload.as_ref())).collect();
            let found_list: Vec<_> = found.iter().map(|r| (r.sequence, r.payload.as_ref())).collect();
            let numbers = |list: &[(Sequence, &[u8])]| list.iter().map(|record| record.0).collect::<BTreeSet<_>>();
            let (has, wants) = (numbers(&found_list), numbers(&expected));
            prop_assert!(
                found_list == expected,
                "missing {:?}, too many {:?}, holes {:?}, {:?}",
                wants.difference(&has).collect::<Vec<_>>(),
                has.difference(&wants).collect::<Vec<_>>(),
                stream.parts().1.holes(), stream.store().log().extents()
            );
            balance(&stream, &cursor);
            let pending = cursor.pending(stream.end().totals).buffers;
            let buffers = found.iter().filter(|r| r.sequence >= cursor.position && is_sync(r).is_some()).count();
            prop_assert_eq!(pending, buffers as u64);
            // The sums follow each other without a gap.
            let mut sums = cursor.totals;
            for record in found.iter().filter(|r| r.sequence >= cursor.position) {
                prop_assert_eq!(record.before, sums);
                sums = record.after();
            }
            prop_assert_eq!(sums, stream.end().totals);
        }
    }
}
