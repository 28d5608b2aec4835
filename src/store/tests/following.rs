//! Reading what another process writes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use super::super::clock::{Clock, SystemClock};
use super::super::reader::Source;
use super::super::replica::Replica;
use super::playback::all;
use super::*;

const LOCATION: &str = "STREAMBUFFER_TEST_WRITER";
const SIZE: usize = 20_000;

fn payload(sequence: Sequence) -> Vec<u8> {
    noise(sequence, SIZE)
}

fn deliver_all(stream: &Stream) {
    let end = stream.end();
    let mut cursor = stream.cursor();
    cursor.ledger.delivered.add(end.totals.since(cursor.totals));
    (cursor.position, cursor.totals, cursor.resume) = (end.sequence, end.totals, end.sequence);
    stream.set_cursor(cursor);
    stream.save_cursor();
}

/// Not a test by itself: does what it is told, line by line.
#[test]
fn writer() {
    let Some(location) = std::env::var_os(LOCATION) else { return };
    let durability = if std::env::var_os("UNLOGGED").is_some() { Durability::None } else { Durability::Crash };
    let stream = Store::open(Path::new(&location), &StoreOptions { durability, ..options() }).unwrap();
    let stream = stream.stream("default").unwrap();
    println!("ready");
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let mut words = line.split(' ');
        let command = words.next().unwrap();
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).unwrap();
        match command {
            "append" => (0..number()).for_each(|_| {
                append(&stream, buffer(Sync::Closed), &payload(stream.end().sequence));
            }),
            "deliver" => deliver_all(&stream),
            // As a camera and a sink that keeps up.
            "flow" => (0..number()).for_each(|i| {
                append(&stream, buffer(Sync::Closed), &payload(stream.end().sequence));
                if i % 20 == 0 {
                    deliver_all(&stream);
                }
            }),
            "purge" => _ = stream.purge(number()..number()).unwrap(),
            "close" => break,
            _ => unreachable!(),
        }
        println!("end {} {}", stream.end().sequence, stream.end().totals.buffers);
    }
}

struct Writer {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Writer {
    fn launch(path: &Path, unlogged: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "store::tests::following::writer", "--nocapture"]).env(LOCATION, path);
        if unlogged {
            command.env("UNLOGGED", "1");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let orders = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, orders, answers }
    }

    fn start(path: &Path) -> Self {
        let mut writer = Self::launch(path, false);
        writer.answer("ready");
        writer
    }

    fn answer(&mut self, what: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the writer ended");
            if let Some(at) = line.find(what) {
                return line[at + what.len()..].trim().to_owned();
            }
        }
    }

    fn ask(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    /// Has it done and tells the end.
    fn order(&mut self, order: &str) -> (Sequence, u64) {
        self.ask(order);
        let answer = self.answer("end ");
        let (sequence, buffers) = answer.split_once(' ').unwrap();
        (sequence.parse().unwrap(), buffers.parse().unwrap())
    }

    fn close(mut self) {
        self.ask("close");
        assert!(self.child.wait().unwrap().success());
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn reader(path: &Path) -> StreamReader {
    StreamReader::open(path, Some("default"), &ReaderOptions::default()).unwrap()
}

fn check(records: &[(Sequence, Vec<u8>)], expected: impl IntoIterator<Item = Sequence>) {
    let expected: Vec<_> = expected.into_iter().collect();
    assert_eq!(records.iter().map(|record| record.0).collect::<Vec<_>>(), expected);
    assert!(records.iter().all(|(sequence, bytes)| *bytes == payload(*sequence)));
}

/// A byte of the log that is another while it is read, as when a log is read while it is written.
#[test]
fn what_was_misread_in_the_log_is_read_again() {
    use std::os::unix::fs::FileExt;
    let temp = tempfile::tempdir().unwrap();
    let mut writer = Writer::start(temp.path());
    writer.order("append 10");
    let follower = reader(temp.path());
    check(&all(&follower), 1..11);
    let database = temp.path().canonicalize().unwrap().join(super::super::directory::DATABASE);
    let logs = || std::fs::read_dir(&database).unwrap().map(|entry| entry.unwrap().path());
    let log = logs().filter(|path| path.extension().is_some_and(|kind| kind == "log")).max().unwrap();
    let log = std::fs::File::options().read(true).write(true).open(log).unwrap();
    let at = log.metadata().unwrap().len() + 25_000;
    writer.order("append 10");
    let mut byte = [0];
    log.read_exact_at(&mut byte, at).unwrap();
    log.write_all_at(&[!byte[0]], at).unwrap();
    println!("refresh {:?}", follower.refresh());
    let other = StreamReader::open(temp.path(), Some("default"), &ReaderOptions::default());
    println!("other {:?}", other.as_ref().map(|_| ()));
    log.write_all_at(&byte, at).unwrap();
    let (end, _) = writer.order("append 10");
    for reader in [Some(follower), other.ok()].into_iter().flatten() {
        reader.refresh().unwrap();
        check(&all(&reader), 1..end);
    }
    assert_eq!(end, 31);
}

#[test]
fn a_reader_follows_a_writer_through_trims_kills_and_restarts() {
    let temp = tempfile::tempdir().unwrap();
    let mut writer = Writer::start(temp.path());
    writer.order("append 300");
    let reader = reader(temp.path());
    assert!(!reader.is_shared());
    check(&all(&reader), 1..301);
    let mut end = 301;
    for _ in 0..5 {
        let (next, buffers) = writer.order("append 60");
        assert_eq!(reader.end().sequence, end, "not before it looks");
        reader.refresh().unwrap();
        assert_eq!((reader.end().sequence, reader.end().totals.buffers), (next, buffers));
        check(&all(&reader)[end as usize - 1..], end..next);
        end = next;
    }
    assert_eq!(reader.sync_at_or_before(250).unwrap().map(|point| point.sequence), Some(250));
    writer.order("purge 100 200");
    reader.refresh().unwrap();
    check(&all(&reader), (1..100).chain(200..601));
    assert_eq!(reader.totals_at(1).unwrap().buffers, 100, "counted as if it had lain at the cursor");
    writer.order("deliver");
    until("what was delivered goes", || {
        reader.refresh().unwrap();
        reader.first() == 601
    });
    let (killed_at, _) = writer.order("append 40");
    writer.kill();
    reader.refresh().unwrap();
    check(&all(&reader), 601..641);
    // It begins anew, behind a gap in the numbers.
    let mut writer = Writer::start(temp.path());
    let (end, buffers) = writer.order("append 40");
    assert_eq!(end, killed_at + schema::UNCLEAN_GAP + 40);
    reader.refresh().unwrap();
    assert_eq!((reader.end().sequence, reader.end().totals.buffers), (end, buffers));
    check(&all(&reader), (601..641).chain(end - 40..end));
    writer.order("append 200");
    writer.close();
    reader.refresh().unwrap();
    check(&all(&reader), (601..641).chain(end - 40..end + 200));
    let mut writer = Writer::start(temp.path());
    let (last, _) = writer.order("append 1");
    reader.refresh().unwrap();
    assert_eq!(reader.end().sequence, last);
    // This process takes over.
    writer.close();
    let stream = open(temp.path());
    reader.refresh().unwrap();
    assert!(reader.is_shared());
    assert_eq!(append(&stream, buffer(Sync::Closed), &payload(last)), last);
    assert_eq!(all(&reader).len(), 40 + 40 + 200 + 2);
}

/// Reads on from `next`; the sums must have no gap.
fn read_on(reader: &StreamReader, consumer: &Consumer, cursor: &mut CursorRecord) {
    let mut at = Some(cursor.position);
    while let Some(next) = at {
        let chunk = reader.read(next, 50, 1 << 20).unwrap();
        for record in &chunk.records {
            assert!(record.payload.as_ref() == payload(record.sequence), "record {}", record.sequence);
            let before = Mark { sequence: record.sequence, totals: record.before };
            assert_eq!(cursor.pass(before, record.after()), Pass::New { lost: Totals::default() });
            cursor.resume = record.sequence;
        }
        consumer.advance(*cursor);
        at = chunk.next;
    }
}

#[test]
fn a_consumer_in_another_process_loses_nothing_through_a_kill_and_a_rolling_update() {
    let temp = tempfile::tempdir().unwrap();
    let mut writer = Writer::start(temp.path());
    writer.order("append 20");
    let reader = reader(temp.path());
    let consumer = reader.consumer("other process", Duration::from_secs(3600)).unwrap();
    let mut cursor = reader.cursor_at(reader.first()).unwrap();
    consumer.advance(cursor);
    consumer.renew().unwrap();
    // Longer than it takes the writer to notice.
    std::thread::sleep(Duration::from_millis(1200));
    let mut expected = 20;
    let mut follow = |writer: &mut Writer, reader: &StreamReader, cursor: &mut CursorRecord| {
        writer.ask("flow 1000");
        expected += 1000;
        until("all of it came", || {
            reader.refresh().unwrap();
            read_on(reader, &consumer, cursor);
            cursor.ledger.delivered.buffers == expected
        });
        writer.answer("end ");
    };
    follow(&mut writer, &reader, &mut cursor);
    until("what it has seen goes meanwhile", || {
        reader.refresh().unwrap();
        reader.first() > 1
    });
    writer.kill();
    let mut writer = Writer::start(temp.path());
    follow(&mut writer, &reader, &mut cursor);
    // The new process waits until the old one lets go.
    let mut next = Writer::launch(temp.path(), false);
    follow(&mut writer, &reader, &mut cursor);
    writer.close();
    next.answer("ready");
    follow(&mut next, &reader, &mut cursor);
    assert_eq!(cursor.ledger.lost.buffers, 0);
}

#[test]
fn what_a_writer_does_not_log_shows_once_it_is_in_files() {
    let temp = tempfile::tempdir().unwrap();
    let mut writer = Writer::launch(temp.path(), true);
    writer.answer("ready");
    writer.order("append 20");
    let reader = reader(temp.path());
    assert_eq!(all(&reader), []);
    until("it is told", || {
        writer.order("append 1");
        reader.refresh().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        reader.is_behind()
    });
    let (end, _) = writer.order("append 1");
    writer.close();
    reader.refresh().unwrap();
    check(&all(&reader), 1..end);
    until("it is not behind any more", || {
        reader.refresh().unwrap();
        !reader.is_behind()
    });
}

const CONSUMER: &str = "STREAMBUFFER_TEST_CONSUMER";

/// Not a test by itself: a consumer that tells what it sees, a record a millisecond.
#[test]
fn a_consumer_of_its_own() {
    let Some(location) = std::env::var_os(CONSUMER) else { return };
    let reader = reader(Path::new(&location));
    let consumer = reader.consumer("killed", Duration::from_secs(60)).unwrap();
    let mut cursor = consumer.position().unwrap_or_else(|| reader.cursor_at(reader.first()).unwrap());
    for line in (cursor.position..=reader.end().sequence).map_while(|at| reader.read(at, 1, 1).unwrap().records.pop()) {
        println!("saw {}", line.sequence);
        let before = Mark { sequence: line.sequence, totals: line.before };
        assert_eq!(cursor.pass(before, line.after()), Pass::New { lost: Totals::default() });
        cursor.resume = line.sequence;
        consumer.advance(cursor);
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("saw all");
}

#[test]
fn a_consumer_that_is_killed_goes_on_where_it_saved() {
    let temp = tempfile::tempdir().unwrap();
    let mut writer = Writer::start(temp.path());
    writer.order("append 1500");
    let (mut seen, mut kills) = (0, 0);
    loop {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::following::a_consumer_of_its_own", "--nocapture"])
            .env(CONSUMER, temp.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut told = lines.filter_map(|line| Some(line.split_once("saw ")?.1.to_owned()));
        let first: Sequence = told.next().unwrap().parse().unwrap();
        assert!(first <= seen + 1, "nothing is passed over");
        assert!(kills == 0 || first > 100, "not from the beginning");
        seen = first;
        let all = told.by_ref().take(400).any(|line| {
            line.parse().map_or(true, |at| {
                seen = at;
                false
            })
        });
        let _ = child.kill();
        let _ = child.wait();
        if all {
            break;
        }
        kills += 1;
    }
    assert_eq!(seen, 1500);
    assert!(kills >= 3);
    writer.close();
    // A damaged file counts as none.
    let file = temp.path().join("consumers/default/killed");
    let saved = std::fs::read(&file).unwrap();
    std::fs::write(&file, &saved[1..]).unwrap();
    assert_eq!(reader(temp.path()).consumer("killed", Duration::ZERO).unwrap().position(), None);
}

fn listing(path: &Path) -> Vec<(std::path::PathBuf, u64, std::time::SystemTime)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        let meta = entry.metadata().unwrap();
        found.push((entry.path(), meta.len(), meta.modified().unwrap()));
        found.extend(listing(&entry.path()));
    }
    found.sort();
    found
}

#[test]
fn a_store_is_left_as_it_is_by_who_reads_it() {
    let temp = tempfile::tempdir().unwrap();
    let mut writer = Writer::start(temp.path());
    writer.order("append 100");
    writer.kill();
    let before = listing(temp.path());
    for _ in 0..2 {
        let reader = reader(temp.path());
        check(&all(&reader), 1..101);
        reader.refresh().unwrap();
    }
    assert_eq!(listing(temp.path()), before);
}

#[test]
fn what_is_no_store_is_left_untouched() {
    let temp = tempfile::tempdir().unwrap();
    let open = |path: &Path| StreamReader::open(path, None, &ReaderOptions::default()).map(|_| ()).unwrap_err();
    let missing = temp.path().join("missing");
    assert!(matches!(open(&missing), StoreError::NoStore { .. }));
    assert!(!missing.exists());
    assert!(matches!(open(temp.path()), StoreError::NoStore { .. }));
    std::fs::write(temp.path().join("holiday.jpg"), b"x").unwrap();
    for path in [temp.path().to_owned(), temp.path().join("holiday.jpg")] {
        let error = open(&path);
        assert!(matches!(error, StoreError::NoStore { .. }), "{error}");
    }
    std::fs::write(temp.path().join("FORMAT"), "gst-streambuffer-store\nversion=7\n").unwrap();
    assert!(matches!(open(temp.path()), StoreError::NewerFormat { found: 7, .. }));
    assert_eq!(listing(temp.path()).len(), 2);
}

#[test]
fn streams_are_named_when_the_wrong_one_is_asked_for() {
    let temp = tempfile::tempdir().unwrap();
    let options = ReaderOptions::default();
    let store = Store::open(temp.path(), &super::options()).unwrap();
    let streams: Vec<_> = (10..74).map(|i| store.stream(&format!("cam{i}")).unwrap()).collect();
    for stream in &streams {
        for i in 0..50 {
            append(stream, buffer(Sync::Closed), &noise(i, 2000));
        }
    }
    let several = |error| match error {
        StoreError::NoStream { names, .. } => assert!(names.len() == 64 && names[0] == "cam10"),
        error => panic!("{error}"),
    };
    several(StreamReader::open(temp.path(), None, &options).unwrap_err());
    several(StreamReader::open(temp.path(), Some("cam9"), &options).unwrap_err());
    assert_eq!(stream_names(temp.path(), &options).unwrap().len(), 64);
    let shared = StreamReader::open(temp.path(), Some("cam30"), &options).unwrap();
    assert!(shared.is_shared() && all(&shared).len() == 50);
    drop((streams, store));
    several(StreamReader::open(temp.path(), None, &options).unwrap_err());
    let readers: Vec<_> =
        (10..74).map(|i| StreamReader::open(temp.path(), Some(&format!("cam{i}")), &options).unwrap()).collect();
    assert!(readers.iter().all(|reader| !reader.is_shared() && all(reader).len() == 50));
    assert_eq!(stream_names(temp.path(), &options).unwrap().len(), 64);
}

#[derive(Debug, Clone)]
enum Act {
    Append(u8),
    State(u8),
    Deliver(u8),
    Purge(u8, u8),
    Thin,
    Reopen,
    Crash,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1..80u8).prop_map(Act::Append),
        2 => any::<u8>().prop_map(Act::State),
        3 => any::<u8>().prop_map(Act::Deliver),
        1 => any::<(u8, u8)>().prop_map(|(from, count)| Act::Purge(from, count)),
        1 => Just(Act::Thin),
        1 => Just(Act::Reopen),
        1 => Just(Act::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..Default::default() })]
    /// Both in this process: to the database it is all the same.
    #[test]
    fn a_replica_shows_what_the_writer_has(acts in proptest::collection::vec(act(), 1..30)) {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().canonicalize().unwrap();
        let mut stream = Some(open(&path));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let mut replica = Replica::open(&path, &clock).unwrap();
        for act in acts {
            let writer = stream.as_ref().unwrap();
            let held = read_all(writer, 0);
            let place = |part: u8| held.get(usize::from(part) * held.len() / 256);
            match act {
                Act::Append(count) => for i in 0..count {
                    let sync = if i % 4 == 0 { Sync::Closed } else { Sync::None };
                    append(writer, buffer(sync), &noise(u64::from(i), SIZE));
                },
                Act::State(value) => {
                    let slot = Slot { rank: u32::from(value % 4), name: String::new() };
                    append(writer, Body::State { slot, clears: Clears::Nothing }, &[value]);
                }
                Act::Deliver(part) => if let Some(to) = place(part) {
                    let mut cursor = writer.cursor();
                    if to.sequence > cursor.position {
                        cursor.skip(Mark { sequence: to.sequence, totals: to.before }, Cause::Dropped);
                        writer.set_cursor(cursor);
                    }
                },
                Act::Purge(from, count) => if let Some(from) = place(from) {
                    writer.purge(from.sequence..from.sequence + u64::from(count)).unwrap();
                },
                Act::Thin => if let Some(plan) = writer.plan_thin(0, |gone| gone.buffers > 5).unwrap() {
                    let mut cursor = writer.cursor();
                    writer.commit(plan, &mut cursor);
                },
                Act::Reopen => {
                    drop(stream.take());
                    stream = Some(open(&path));
                }
                Act::Crash => {
                    crash(stream.take().unwrap());
                    stream = Some(open(&path));
                }
            }
            let writer = stream.as_ref().unwrap();
            prop_assert!(writer.save_cursor());
            if replica.refresh().is_err() {
                prop_assert!(replica.is_stale());
                replica = Replica::open(&path, &clock).unwrap();
            }
            let followed = replica.stream("default").unwrap();
            let view = super::super::reader::View { source: &*replica, stream: &*followed };
            let expected = read_all(writer, 0);
            prop_assert_eq!(followed.cursor(), writer.cursor());
            let mut found = Vec::new();
            let mut at = Some(followed.cursor().log_start);
            while let Some(next) = at {
                let chunk = view.read(next, 9, 100_000).unwrap();
                found.extend(chunk.records);
                at = chunk.next;
            }
            let numbers = |records: &[Record]| records.iter().map(|r| r.sequence).collect::<Vec<_>>();
            prop_assert_eq!(numbers(&found), numbers(&expected));
            prop_assert!(found == expected);
            prop_assert_eq!(followed.end().totals, writer.end().totals);
            for record in expected.iter().step_by(17) {
                prop_assert_eq!(view.state_at(record.sequence).unwrap(), writer.state_at(record.sequence).unwrap());
            }
        }
    }
}

#[test]
#[ignore = "writes 1 GB and measures"]
fn what_it_costs_to_follow_a_gigabyte() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().canonicalize().unwrap();
    let store = Store::open(&path, &StoreOptions { min_free_bytes: 1 << 20, ..Default::default() }).unwrap();
    let streams: Vec<_> = (0..64).map(|i| store.stream(&format!("cam{i}")).unwrap()).collect();
    let bytes = noise(1, 1 << 20);
    for i in 0..320u64 {
        for stream in &streams {
            let sync = if i % 10 == 0 { Sync::Closed } else { Sync::None };
            append(stream, buffer(sync), &bytes[..50_000]);
        }
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let time = |what: &str, count: u32, run: &mut dyn FnMut(u32)| {
        let start = std::time::Instant::now();
        (0..count).for_each(run);
        println!("{what}: {:?}", start.elapsed() / count);
    };
    let mut replica = None;
    time("open as secondary", 1, &mut |_| replica = Some(Replica::open(&path, &clock).unwrap()));
    let replica = replica.unwrap();
    println!("{} extents, {} MB", replica.extents().len(), store.disk_bytes() / 1_000_000);
    time("refresh, idle", 200, &mut |_| replica.refresh().unwrap());
    time("append and refresh", 200, &mut |i| {
        append(&streams[i as usize % 64], buffer(Sync::None), b"one");
        replica.refresh().unwrap();
    });
    drop((streams, store));
    let readers: Vec<_> = (0..64)
        .map(|i| StreamReader::open(&path, Some(&format!("cam{i}")), &ReaderOptions::default()).unwrap())
        .collect();
    let mut times = Vec::new();
    let mut at = Some(0);
    while let Some(next) = at {
        let chunk = readers[0].read(next, 256, 1 << 20).unwrap();
        for record in &chunk.records {
            let Body::Buffer(header) = &record.body else { continue };
            times.push(readers[0].captured_at(header, record.arrival).0);
        }
        at = chunk.next;
    }
    time("search by time", 200, &mut |i| {
        let utc = times[i as usize * 37 % times.len()];
        assert!(readers[i as usize % 64].sync_at_or_before_time(utc).unwrap().is_some() || i % 64 > 0);
    });
    time("search by sequence", 200, &mut |i| {
        assert!(readers[i as usize % 64].sync_at_or_before(u64::from(i) + 1).unwrap().is_some());
    });
    time("64 refreshes, idle", 20, &mut |_| readers.iter().for_each(|reader| reader.refresh().unwrap()));
}
