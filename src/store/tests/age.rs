//! Clocks, replay and expiry against a store.

use super::super::clock::fake::FakeClock;
use super::*;
use std::sync::Arc;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// 2026, ns since 1970.
const NOW: i64 = 1_770_000_000_000_000_000;

fn store(path: &Path, clock: &Arc<FakeClock>) -> Store {
    Store::open(path, &StoreOptions { clock: clock.clone(), ..options() }).unwrap()
}

/// A keyframe a second, of 20 kB.
fn record(stream: &Stream, clock: &FakeClock, seconds: u64) {
    for i in 0..seconds {
        append(stream, buffer(Sync::Closed), &noise(i, 20_000));
        clock.pass(SECOND);
    }
}

fn deliver_all(stream: &Stream) {
    let end = stream.end();
    let mut cursor = stream.cursor();
    cursor.ledger.delivered.add(end.totals.since(cursor.totals));
    cursor.position = end.sequence;
    cursor.totals = end.totals;
    cursor.resume = end.sequence;
    stream.set_cursor(cursor);
}

/// Waits until the log start is `sequence`; the thread that moves it does not notice that these clocks go on.
fn starts_at(stream: &Stream, sequence: Sequence) {
    until(&format!("the log starts at {sequence}"), || {
        stream.probe();
        first(stream) == Some(sequence)
    });
}

fn first(stream: &Stream) -> Option<Sequence> {
    stream.read(0, 1, 1).unwrap().records.first().map(|record| record.sequence)
}

#[test]
fn a_clock_that_jumps_from_1970_to_now_and_back_an_hour_changes_no_age() {
    let temp = tempfile::tempdir().unwrap();
    let clock = FakeClock::new("boot", 0, 0);
    let store = store(temp.path(), &clock);
    let stream = store.stream("default").unwrap();
    stream.set_retention(Retention { max_age: 24 * HOUR, ..Default::default() });
    record(&stream, &clock, 10);
    clock.set(NOW, true);
    record(&stream, &clock, 10);
    clock.set(NOW - HOUR.as_nanos() as i64, false);
    record(&stream, &clock, 10);
    let records = read_all(&stream, 0);
    assert_eq!(records.len(), 30, "nothing expired");
    for (i, record) in records.iter().enumerate() {
        assert_eq!(stream.age(record.arrival), (30 - i as u32) * SECOND);
        let expected = NOW + (i as i64 - 10) * SECOND.as_nanos() as i64;
        assert_eq!(stream.captured_at(record.arrival, 0), (expected, true), "record {i}");
    }
    assert_eq!(stream.expired_until(24 * HOUR).unwrap(), None);
    let steps: Vec<_> = store.clock_steps(0).iter().map(|step| (step.by, step.synced)).collect();
    assert_eq!(
        steps,
        [(NOW - 10 * SECOND.as_nanos() as i64, true), (-((10 + 3600) * SECOND.as_nanos() as i64), false)]
    );
    drop((stream, store));
    // The correction is on the disk.
    let clock = FakeClock::new("another boot", 0, 0);
    let stream = self::store(temp.path(), &clock).stream("default").unwrap();
    let first = &read_all(&stream, 0)[0];
    assert_eq!(stream.captured_at(first.arrival, 0), (NOW - 10 * SECOND.as_nanos() as i64, true));
    assert_eq!(stream.age(first.arrival), 30 * SECOND, "this clock is not believed");
    let (_, entry) = stream.next_sync(0, |_| true).unwrap().unwrap();
    assert_eq!(entry.arrival, first.arrival);
}

#[test]
fn a_correction_survives_a_crash_and_new_extents() {
    let temp = tempfile::tempdir().unwrap();
    let clock = FakeClock::new("boot", 0, 0);
    let stream = store(temp.path(), &clock).stream("default").unwrap();
    record(&stream, &clock, 10);
    clock.set(NOW, true);
    record(&stream, &clock, 200);
    assert!(stream.store().log().extents().len() > 2);
    crash(stream);
    let clock = FakeClock::new("another", 0, 0);
    let stream = store(temp.path(), &clock).stream("default").unwrap();
    let first = &read_all(&stream, 0)[0];
    assert_eq!(stream.captured_at(first.arrival, 0), (NOW - 10 * SECOND.as_nanos() as i64, true));
}

#[test]
fn delivered_data_stays_for_the_retention_time() {
    let temp = tempfile::tempdir().unwrap();
    let clock = FakeClock::new("boot", NOW, 0);
    let store = store(temp.path(), &clock);
    let stream = store.stream("default").unwrap();
    stream.set_retention(Retention { time: 60 * SECOND, ..Default::default() });
    record(&stream, &clock, 50);
    deliver_all(&stream);
    assert!(stream.save_cursor());
    assert_eq!(first(&stream), Some(1), "all of it is young");
    record(&stream, &clock, 150);
    deliver_all(&stream);
    starts_at(&stream, 141);
    assert_eq!(stream.cursor().resume, 201);
    assert_eq!(read_all(&stream, 0).len(), 60);
    until("extents go", || store.log().extents().len() < 4);
    drop((stream, store));
    let store = self::store(temp.path(), &clock);
    let stream = store.stream("default").unwrap();
    assert_eq!(first(&stream), Some(141), "the log start is kept over a restart");
    stream.set_retention(Retention { bytes: 200_000, ..Default::default() });
    starts_at(&stream, 191);
    stream.set_retention(Retention { bytes: 200_000, total_bytes: 300_000, ..Default::default() });
    record(&stream, &clock, 10);
    starts_at(&stream, 196);
    stream.set_retention(Retention::default());
    assert_eq!(first(&stream), Some(201), "without retention the log start is the resume point");
    assert_eq!(stream.cursor().pending(stream.end().totals).buffers, 10);
}

#[test]
fn nothing_stays_beyond_its_age() {
    let temp = tempfile::tempdir().unwrap();
    let clock = FakeClock::new("boot", NOW, 0);
    let store = store(temp.path(), &clock);
    let stream = store.stream("default").unwrap();
    let max_age = 30 * SECOND;
    stream.set_retention(Retention { time: HOUR, max_age, ..Default::default() });
    record(&stream, &clock, 20);
    deliver_all(&stream);
    record(&stream, &clock, 20);
    // Although it would be kept.
    starts_at(&stream, 12);
    assert_eq!(stream.expired_until(max_age).unwrap(), None, "the pending part is young enough");
    clock.pass(20 * SECOND);
    let to = stream.expired_until(max_age).unwrap().unwrap();
    assert_eq!((to.sequence, to.totals.buffers), (32, 31));
    let mut cursor = stream.cursor();
    assert_eq!(cursor.skip(to, Cause::Expired).buffers, 11);
    stream.set_cursor(cursor);
    starts_at(&stream, 32);
    clock.pass(HOUR);
    assert_eq!(stream.expired_until(max_age).unwrap().map(|to| to.sequence), Some(41), "nothing is young enough");
}

#[test]
fn a_stream_that_nobody_holds_expires_by_itself() {
    let temp = tempfile::tempdir().unwrap();
    let clock = FakeClock::new("boot", NOW, 0);
    let store = store(temp.path(), &clock);
    let (gone, other) = (store.stream("gone").unwrap(), store.stream("other").unwrap());
    gone.set_retention(Retention { max_age: 30 * SECOND, ..Default::default() });
    record(&gone, &clock, 20);
    drop(gone);
    clock.pass(15 * SECOND);
    until("the oldest go", || {
        other.probe();
        store.log().stream_list().iter().any(|s| s.name == "gone" && s.cursor().ledger.expired.buffers == 6)
    });
    let gone = store.stream("gone").unwrap();
    assert_eq!((first(&gone), gone.cursor().position), (Some(7), 7));
}

#[test]
fn what_was_set_aside_expires() {
    let temp = tempfile::tempdir().unwrap();
    let clock = FakeClock::new("boot", wall_clock(), 0);
    let store = store(temp.path(), &clock);
    let aside = temp.path().join("aside");
    std::fs::create_dir_all(aside.join("damaged")).unwrap();
    std::fs::write(aside.join("damaged/000001.sst"), b"footage").unwrap();
    let stream = store.stream("default").unwrap();
    stream.set_retention(Retention { max_age: HOUR, ..Default::default() });
    stream.save_cursor();
    assert!(aside.join("damaged").exists());
    clock.pass(2 * HOUR);
    until("it is removed", || {
        stream.probe();
        !aside.join("damaged").exists()
    });
}
