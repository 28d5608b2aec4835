//! Disks that refuse, fill up, go away, and come back, under a store that stays open.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::tests::{buffer, noise, read_all, until};
use super::*;

#[path = "../../tests/shared/shim.rs"]
pub mod shim;

const CHILD: &str = "STREAMBUFFER_STORE_CHILD";
const LOCATION: &str = "STREAMBUFFER_STORE_LOCATION";
const ALL: [Durability; 4] = [Durability::None, Durability::Crash, Durability::Interval, Durability::Power];
const SIZE: usize = 20_000;
/// Space is back: writing has to work again.
const SOON: Duration = Duration::from_secs(15);

fn options(durability: Durability) -> StoreOptions {
    StoreOptions {
        durability,
        sync_interval: Duration::from_millis(100),
        min_free_bytes: 1 << 20,
        limit_bytes: 8 << 20,
        lock_timeout: Duration::from_secs(5),
        ..StoreOptions::default()
    }
}

/// Feeds a stream as the element does: what was refused is appended again with the same number.
struct Feeder {
    stream: Stream,
    next: Sequence,
    stored: BTreeMap<Sequence, u64>,
    slowest: Duration,
}

fn open(path: &Path, durability: Durability) -> Stream {
    Store::open(path, &options(durability)).unwrap().stream("default").unwrap()
}

impl Feeder {
    fn new(path: &Path, durability: Durability) -> Self {
        let stream = open(path, durability);
        let next = stream.end().sequence;
        Self { stream, next, stored: BTreeMap::new(), slowest: Duration::ZERO }
    }

    fn push(&mut self) -> Result<(), StoreError> {
        let start = Instant::now();
        let payload = noise(self.next, SIZE);
        let record = NewRecord { body: buffer(Sync::Closed), payload: &[&payload], advance: 10 };
        let result = self.stream.append(self.next, &[record]);
        self.slowest = self.slowest.max(start.elapsed());
        result?;
        self.stored.insert(self.next, self.next);
        self.next += 1;
        Ok(())
    }

    /// Pushes until it fails, at most `count`.
    fn push_until_refused(&mut self, count: usize) -> Option<StoreError> {
        (0..count).find_map(|_| self.push().err())
    }

    fn push_again(&mut self) -> Duration {
        let start = Instant::now();
        while let Err(err) = self.push() {
            assert!(start.elapsed() < SOON, "still {err}");
            std::thread::sleep(Duration::from_millis(20));
        }
        start.elapsed()
    }

    fn check(&self) {
        check(&self.stream, &self.stored);
        let end = self.stream.end();
        assert_eq!(end.totals.bytes, end.totals.buffers * SIZE as u64);
    }

    fn consume_all(&self) {
        let end = self.stream.end();
        let cursor = self.stream.cursor();
        self.stream.set_cursor(CursorRecord {
            position: end.sequence,
            totals: end.totals,
            resume: end.sequence,
            ..cursor
        });
    }
}

/// Exactly the stored records from the log start on come out, each once, with sums that fit.
fn check(stream: &Stream, stored: &BTreeMap<Sequence, u64>) {
    let found = read_all(stream, 0);
    let expected: Vec<_> = stored.range(stream.cursor().resume..).map(|(at, seed)| (*at, *seed)).collect();
    assert_eq!(found.iter().map(|r| r.sequence).collect::<Vec<_>>(), expected.iter().map(|e| e.0).collect::<Vec<_>>());
    for (record, (_, seed)) in found.iter().zip(&expected) {
        assert!(record.payload.as_ref() == noise(*seed, SIZE), "record {}", record.sequence);
    }
    for pair in found.windows(2) {
        assert_eq!(pair[0].after(), pair[1].before, "the sums have a gap before {}", pair[1].sequence);
    }
}

/// A process that runs [`child`] with this scenario, in what `wrap` makes of the command line.
fn run_child(scenario: &str, location: &Path, wrap: &[&str], environment: &[(&std::ffi::OsStr, &std::ffi::OsStr)]) {
    let exe = std::env::current_exe().unwrap();
    let mut words: Vec<&std::ffi::OsStr> = wrap.iter().map(|word| word.as_ref()).collect();
    words.extend([exe.as_os_str(), "--exact".as_ref(), "store::fault_tests::child".as_ref(), "--nocapture".as_ref()]);
    let output = Command::new(words[0])
        .args(&words[1..])
        .envs(environment.iter().copied())
        .env(CHILD, scenario)
        .env(LOCATION, location)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("all well"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    eprintln!("{text}");
}

/// Not a test by itself.
#[test]
fn child() {
    let (Ok(scenario), Some(location)) = (std::env::var(CHILD), std::env::var_os(LOCATION)) else { return };
    let location = PathBuf::from(location);
    match scenario.as_str() {
        "refusals" => refusals(&location, &[Durability::Power]),
        "all refusals" => refusals(&location, &ALL),
        "again" => again_and_again(&location),
        "meanwhile" => read_meanwhile(&location),
        "full" => full(&location, &[Durability::Crash]),
        "all full" => full(&location, &ALL),
        "reads" => reads(&location),
        "floor" => floor(&location, 2),
        "twenty" => floor(&location, 20),
        "flow" => return flow(&location),
        other => panic!("{other}"),
    }
    println!("all well");
}

#[test]
fn a_disk_that_refuses_and_recovers_loses_nothing() {
    on_a_refusing_disk("refusals");
}

#[test]
#[ignore = "takes some time"]
fn a_disk_that_refuses_and_recovers_loses_nothing_with_any_durability() {
    on_a_refusing_disk("all refusals");
}

fn on_a_refusing_disk(scenario: &str) {
    let temp = tempfile::tempdir().unwrap();
    let library = shim::build(temp.path());
    let location = temp.path().join("store");
    let mut environment = Command::new("env");
    shim::preload(&mut environment, &library, temp.path(), &location, 0);
    let environment: Vec<_> = environment.get_envs().filter_map(|(name, value)| Some((name, value?))).collect();
    run_child(scenario, &location, &["env"], &environment);
}

fn refusals(location: &Path, durabilities: &[Durability]) {
    for kind in ["eio", "fsync", "rofs", "full"] {
        for &durability in durabilities {
            let path = location.join(format!("{kind} {durability:?}"));
            let mut feeder = Feeder::new(&path, durability);
            assert!(feeder.push_until_refused(30).is_none());
            shim::command(kind);
            let refused = feeder.push_until_refused(400);
            if let Some(error) = &refused {
                let durable = feeder.stream.durable();
                // For long enough that a reopening is tried.
                let start = Instant::now();
                while start.elapsed() < Duration::from_millis(400) {
                    assert!(feeder.push().is_err());
                    assert!(!feeder.stream.probe());
                    std::thread::sleep(Duration::from_millis(50));
                }
                assert!(kind == "full" || feeder.stream.durable() == durable, "nothing becomes durable");
                feeder.check();
                assert!(feeder.stream.store().fault().is_some());
                println!("{kind} {durability:?}: {error}");
            } else {
                println!("{kind} {durability:?}: not noticed");
            }
            assert!(refused.is_some() || kind == "fsync", "{kind} {durability:?}");
            shim::command("");
            let took = feeder.push_again();
            println!("  again after {took:?}, slowest append {:?}", feeder.slowest);
            assert!(feeder.push_until_refused(100).is_none());
            feeder.check();
            assert_eq!(feeder.stream.store().fault().map(|e| e.to_string()), None);
            let stored = feeder.stored.clone();
            let end = feeder.stream.end();
            drop(feeder);
            let stream = open(&path, durability);
            assert_eq!(stream.end(), end);
            check(&stream, &stored);
        }
    }
}

#[test]
fn what_no_file_holds_outlives_one_fault_after_the_other() {
    on_a_refusing_disk("again");
}

/// So little that nothing but the faults has it written to files.
fn again_and_again(location: &Path) {
    for durability in [Durability::None, Durability::Crash] {
        let mut feeder = Feeder::new(&location.join(format!("{durability:?}")), durability);
        for _ in 0..4 {
            assert!(feeder.push_until_refused(5).is_none());
            shim::command("eio");
            // Without a log for records it is heads that the disk refuses.
            assert!(!feeder.stream.probe());
            shim::command("");
            feeder.push_again();
            feeder.check();
        }
    }
}

#[test]
fn what_is_read_while_the_database_is_opened_again_is_whole() {
    on_a_refusing_disk("meanwhile");
}

/// What no file holds is not there for a moment: nobody may take it for lost.
fn read_meanwhile(location: &Path) {
    let mut feeder = Feeder::new(location, Durability::None);
    assert!(feeder.push_until_refused(100).is_none());
    for _ in 0..5 {
        shim::command("eio");
        assert!(!feeder.stream.probe());
        shim::command("");
        let (stream, stored) = (&feeder.stream, feeder.stored.keys().copied().collect::<Vec<_>>());
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    if let Ok(chunk) = stream.read(0, usize::MAX, usize::MAX) {
                        assert_eq!(chunk.records.iter().map(|record| record.sequence).collect::<Vec<_>>(), stored);
                    }
                }
            });
            until("the disk is used again", || stream.probe());
            over.store(true, Ordering::Relaxed);
        });
        assert!(feeder.push_until_refused(5).is_none());
    }
    feeder.check();
}

#[test]
fn what_is_read_of_a_disk_that_cannot_always_be_read_is_whole() {
    on_a_refusing_disk("reads");
}

/// Data and states lie apart: neither may be read without the other.
fn reads(path: &Path) {
    let slot = Slot { rank: 1, name: String::new() };
    let stream = open(path, Durability::Crash);
    for i in 0..400 {
        let body = Body::State { slot: slot.clone(), clears: Clears::Ranks(Vec::new()) };
        let payload = noise(i, 3000);
        let records = [
            NewRecord { body, payload: &[&payload], advance: 0 },
            NewRecord { body: buffer(Sync::Closed), payload: &[&payload], advance: 10 },
        ];
        stream.append(stream.end().sequence, &records).unwrap();
    }
    let expected = read_all(&stream, 0);
    drop(stream);
    let (mut whole, mut refused) = (0, 0);
    for _ in 0..20 {
        // What was read is remembered until then.
        let stream = open(path, Durability::Crash);
        shim::command("reads@40");
        for expected in expected.chunks(16) {
            match stream.read(expected[0].sequence, 16, usize::MAX) {
                Ok(chunk) => {
                    assert!(chunk.records == expected, "from {}", expected[0].sequence);
                    whole += 1;
                }
                Err(_) => refused += 1,
            }
        }
        shim::command("");
    }
    assert!(whole > 0 && refused > 0, "{whole} {refused}");
}

/// A command line that runs the rest in a mount namespace of its own, with 96 MB of memory for a disk.
fn small_disk(location: &Path) -> Option<[String; 5]> {
    use std::os::unix::fs::MetadataExt;
    if std::fs::metadata("/proc/self").map(|meta| meta.uid()).unwrap_or(1) != 0 {
        eprintln!("skipped: mounting a small disk takes root");
        return None;
    }
    std::fs::create_dir_all(location).unwrap();
    let mount = format!("mount -t tmpfs -o size=96m tmpfs '{}' && exec \"$@\"", location.display());
    Some(["unshare".into(), "-m".into(), "sh".into(), "-c".into(), mount])
}

fn on_small_disk(scenario: &str) {
    let temp = tempfile::tempdir().unwrap();
    let location = temp.path().join("disk");
    let Some(wrap) = small_disk(&location) else { return };
    let mut wrap: Vec<&str> = wrap.iter().map(String::as_str).collect();
    wrap.push("sh");
    run_child(scenario, &location, &wrap, &[]);
}

#[test]
fn a_full_disk_loses_nothing_and_is_written_again_soon() {
    on_small_disk("full");
}

#[test]
#[ignore = "takes some time"]
fn a_full_disk_loses_nothing_and_is_written_again_soon_with_any_durability() {
    on_small_disk("all full");
}

fn full(location: &Path, durabilities: &[Durability]) {
    for &durability in durabilities {
        let path = location.join(format!("{durability:?}"));
        let options = StoreOptions { limit_bytes: 0, ..options(durability) };
        let stream = Store::open(&path, &options).unwrap().stream("default").unwrap();
        let mut feeder = Feeder { next: 1, stored: BTreeMap::new(), slowest: Duration::ZERO, stream };
        // By itself.
        let error = feeder.push_until_refused(6000).expect("the disk is full");
        assert!(error.is_no_space(), "{error}");
        println!("{durability:?}: {} stored, {error}", feeder.stored.len());
        feeder.check();
        feeder.consume_all();
        let took = feeder.push_again();
        println!("  again {took:?} after its own data was consumed, slowest append {:?}", feeder.slowest);
        feeder.check();
        // By somebody else.
        let other = location.join("other");
        let mut file = std::fs::File::create(&other).unwrap();
        while file.write_all(&[1; 1 << 16]).is_ok() {}
        drop(file);
        let refused = feeder.push_until_refused(3000);
        assert!(refused.is_some(), "the disk is full");
        std::thread::sleep(Duration::from_millis(700));
        feeder.push().unwrap_err();
        std::fs::remove_file(&other).unwrap();
        let took = feeder.push_again();
        println!("  again {took:?} after another's file was removed, slowest append {:?}", feeder.slowest);
        assert!(feeder.push_until_refused(200).is_none());
        feeder.check();
        let (stored, end) = (feeder.stored.clone(), feeder.stream.end());
        drop(feeder);
        let stream = Store::open(&path, &options).unwrap().stream("default").unwrap();
        assert_eq!(stream.end(), end);
        check(&stream, &stored);
        drop(stream);
        std::fs::remove_dir_all(&path).unwrap();
    }
}

#[test]
fn kills_on_a_full_disk_lose_nothing() {
    on_small_disk("floor");
}

#[test]
#[ignore = "takes some time"]
fn twenty_kills_on_a_full_disk_lose_nothing() {
    on_small_disk("twenty");
}

/// Appends until the disk is full, then on and on; tells of each record that was accepted.
fn flow(location: &Path) {
    let mut feeder = Feeder::new(location, Durability::Crash);
    let mut refusals = 0;
    loop {
        let at = feeder.next;
        match feeder.push() {
            Ok(()) => println!("{at} accepted"),
            Err(_) if refusals == 20 => {
                println!("full");
                refusals += 1;
            }
            Err(_) => {
                refusals += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

fn floor(location: &Path, rounds: usize) {
    let mut stored = BTreeMap::new();
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::fault_tests::child", "--nocapture"])
            .env(CHILD, "flow")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        for line in lines {
            if let Some(at) = line.strip_suffix(" accepted").and_then(|at| at.rsplit(' ').next()?.parse().ok()) {
                stored.insert(at, at);
            } else if line.ends_with("full") {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let stream = open(location, Durability::Crash);
        // The last one may have been stored without being told.
        for record in read_all(&stream, stored.last_key_value().map_or(0, |last| last.0 + 1)) {
            stored.insert(record.sequence, record.sequence);
        }
        check(&stream, &stored);
        println!("round {round}: {} stored so far", stored.len());
        if round % 4 == 3 {
            let end = stream.end();
            let cursor =
                CursorRecord { position: end.sequence, totals: end.totals, resume: end.sequence, ..stream.cursor() };
            stream.set_cursor(cursor);
            until("the cursor is saved", || stream.save_cursor());
        }
    }
    assert!(stored.len() > 3000, "{}", stored.len());
}

#[test]
fn a_removed_directory_is_made_again_and_its_loss_told() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("store");
    let mut feeder = Feeder::new(&path, Durability::Crash);
    assert!(feeder.push_until_refused(50).is_none());
    std::fs::remove_dir_all(&path).unwrap();
    until("it is noticed", || feeder.push().is_err());
    feeder.push_again();
    let incident = feeder.stream.take_incidents().into_iter().find(|i| i.stream.is_some()).unwrap();
    let lost = feeder.next - 2;
    assert_eq!((incident.first, incident.last, incident.buffers), (1, lost, Some(lost)));
    feeder.stored.retain(|at, _| *at > lost);
    assert!(feeder.push_until_refused(20).is_none());
    feeder.check();
    let (stored, end) = (feeder.stored.clone(), feeder.stream.end());
    drop(feeder);
    let stream = open(&path, Durability::Crash);
    assert_eq!(stream.end(), end);
    check(&stream, &stored);
}

#[test]
fn what_is_durable_is_told() {
    let temp = tempfile::tempdir().unwrap();
    for durability in ALL {
        let mut feeder = Feeder::new(&temp.path().join(format!("{durability:?}")), durability);
        assert!(feeder.push_until_refused(10).is_none());
        match durability {
            Durability::Power => assert_eq!(feeder.stream.durable(), 11),
            Durability::Interval => until("the tick syncs", || feeder.stream.durable() == 11),
            Durability::Crash | Durability::None => {
                assert_eq!(feeder.stream.durable(), 1);
                assert!(feeder.push_until_refused(200).is_none());
                until("files are synced", || feeder.stream.durable() > 100);
            }
        }
        assert!(feeder.stream.durable() <= feeder.next);
        let store = feeder.stream.store();
        assert!(store.commit_latency_p99() > Duration::ZERO);
        println!("{durability:?}: p99 {:?}, jitter {:?}", store.commit_latency_p99(), store.sync_jitter());
    }
}

#[test]
#[ignore = "measures"]
fn syncs_come_on_time_under_load() {
    for durability in ALL {
        let temp = tempfile::tempdir().unwrap();
        let mut feeder = Feeder::new(temp.path(), durability);
        let start = Instant::now();
        let mut lag = 0;
        while start.elapsed() < Duration::from_secs(4) {
            feeder.push().unwrap();
            lag = lag.max(feeder.next - feeder.stream.durable());
            if feeder.next.is_multiple_of(500) {
                feeder.consume_all();
            }
        }
        let store = feeder.stream.store();
        let (p99, jitter) = (store.commit_latency_p99(), store.sync_jitter());
        println!("{durability:?}: {} records, p99 {p99:?}, at most {lag} not durable, jitter {jitter:?}", feeder.next);
        assert!(jitter < Duration::from_secs(1));
    }
}
