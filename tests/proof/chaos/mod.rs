//! Faults at random. Each round is a process of its own, in which some elements share a store on a disk that fails in all the
//! ways of `shim.c`, before sinks that fail, block, lose interest and renegotiate, while other threads flush, seek, change
//! states and properties, rewind, purge, and read the counters. Meanwhile and at the end the promises are checked, see
//! `feeder`, `oracle`, `line` and `watch`.
//!
//! All choices come from the seed of the round, which is printed; how threads come to run does not.

mod accounts;
mod bin;
mod disk;
mod feeder;
mod line;
mod oracle;
mod single;
mod sink;
mod watch;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::init;
use crate::shim;
use crate::streams::Random;

use bin::Bin;
use disk::Disk;
use line::{Line, Setup};

const SEED: &str = "STREAMBUFFER_CHAOS_SEED";
const SECONDS: &str = "STREAMBUFFER_CHAOS_SECONDS";
const SCENARIO: &str = "STREAMBUFFER_CHAOS_SCENARIO";
const LOCATION: &str = "STREAMBUFFER_CHAOS_LOCATION";
/// Of faults in one round; a few seconds follow, in which everything is delivered.
const ROUND: Duration = Duration::from_secs(10);
/// Until everything is delivered and closed.
const AFTERWARDS: Duration = Duration::from_secs(150);
/// Of one process, in bytes; all elements together may hold 128 MiB.
const MEMORY: u64 = 600 << 20;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Not a test by itself: one round, or one of [`single`].
#[test]
fn child() {
    let Some(location) = std::env::var_os(LOCATION) else { return };
    let location = PathBuf::from(location);
    let time = Duration::from_secs(variable(SECONDS).unwrap_or(0));
    watch::guard(time + AFTERWARDS);
    init();
    watch::listen();
    match std::env::var(SCENARIO) {
        Ok(scenario) => single::run(&scenario, &location),
        Err(_) => round(variable(SEED).unwrap(), time, &location),
    }
    watch::print_longest();
    println!("peak memory: {} MB", watch::peak_memory() >> 20);
    if watch::peak_memory() > MEMORY {
        watch::violation("too much memory");
    }
    watch::over();
    assert_eq!(watch::violations().len(), 0);
    println!("all well");
}

fn round(seed: u64, time: Duration, location: &Path) {
    let mut random = Random::new(seed);
    let durability = ["crash", "crash", "crash", "interval", "power", "none"][(random.bits() % 6) as usize];
    let disk = Disk::default();
    let count = 1 + (random.bits() % 4) as usize;
    let setups: Vec<_> = (0..count).map(|index| Setup::random(&mut random, index, durability)).collect();
    let lines: Vec<_> = setups
        .into_iter()
        .map(|setup| {
            println!("{setup:?}");
            Line::new(setup, &location.join("store"), &disk)
        })
        .collect();
    // Beside them, or alone.
    let bin = random.chance(0.35).then(|| Bin::new(&location.join("store"), durability, &disk));
    lines.iter().for_each(|line| line.play());
    let bin = bin.map(|bin| {
        bin.play();
        (bin.start(seed), bin)
    });
    let threads: Vec<_> = lines.iter().map(|line| line.start(seed)).collect();
    let until = Instant::now() + time;
    let mut random = Random::new(seed ^ 0xD15C);
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100 + random.bits() % 1000));
        disk.fail(&mut random);
        std::thread::sleep(Duration::from_millis(50 + random.bits() % 1500));
        disk.heal();
    }
    let ends: Vec<_> = lines.iter().zip(threads).map(|(line, threads)| line.calm(threads)).collect();
    let bin = bin.map(|(threads, bin)| (bin.calm(threads), bin));
    lines.iter().zip(ends).for_each(|(line, (next, caps))| line.settle(next, caps));
    if let Some(((next, caps), bin)) = bin {
        bin.settle(next, caps);
    }
}

/// A process that runs [`child`].
struct Process {
    what: String,
    child: Child,
    temp: tempfile::TempDir,
}

impl Process {
    fn round(library: &Path, seed: u64, seconds: u64) -> Self {
        let environment = [(SEED, seed.to_string()), (SECONDS, seconds.to_string())];
        Self::start(library, seed, format!("STREAMBUFFER_SOAK_SEED={seed}"), &environment)
    }

    fn single(library: &Path, scenario: &str) -> Self {
        Self::start(library, 0, scenario.to_owned(), &[(SCENARIO, scenario.to_owned())])
    }

    fn start(library: &Path, seed: u64, what: String, environment: &[(&str, String)]) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let out = std::fs::File::create(temp.path().join("out")).unwrap();
        let location = temp.path().join("disk");
        let mut command = Command::new(std::env::current_exe().unwrap());
        shim::preload(&mut command, library, temp.path(), &location, seed);
        let child = command
            .args(["--exact", "chaos::child", "--nocapture"])
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env(LOCATION, &location)
            .stdin(Stdio::null())
            .stderr(out.try_clone().unwrap())
            .stdout(out)
            .spawn()
            .unwrap();
        Self { what, child, temp }
    }

    /// Waits for it; a panic when it failed.
    fn finish(mut self) {
        let status = self.child.wait().unwrap();
        let text = String::from_utf8_lossy(&std::fs::read(self.temp.path().join("out")).unwrap()).into_owned();
        let what = &self.what;
        assert!(status.success() && text.contains("all well"), "{what}: {status}\n{text}");
        println!("{what}\n{text}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two rounds beside each other, again and again, until this time is over; seeds count from `seed` on.
fn rounds(mut seed: u64, time: Duration) {
    let temp = tempfile::tempdir().unwrap();
    let library = shim::build(temp.path());
    let (start, first) = (Instant::now(), seed);
    while start.elapsed() + ROUND / 2 < time {
        println!("seeds {seed} and {}", seed + 1);
        let running: Vec<_> = [seed, seed + 1].map(|seed| Process::round(&library, seed, ROUND.as_secs())).into();
        running.into_iter().for_each(Process::finish);
        seed += 2;
    }
    println!("{} rounds", seed - first);
}

#[test]
fn faults_at_random_break_no_promise_for_a_minute() {
    rounds(1, Duration::from_secs(60));
}

fn alone(scenario: &str) {
    let temp = tempfile::tempdir().unwrap();
    let library = shim::build(temp.path());
    Process::single(&library, scenario).finish();
}

#[test]
fn a_slow_disk_slows_down_and_loses_nothing() {
    alone("slow");
}

#[test]
fn a_source_faster_than_the_disk_fills_no_memory() {
    alone("slow and spilling");
}

#[test]
fn tables_that_cannot_be_read_are_read_when_they_can_be() {
    alone("table");
}

#[test]
fn a_log_that_cannot_be_read_is_an_error_until_it_can_be() {
    alone("log");
}

#[test]
fn reads_and_writes_in_pieces_change_nothing() {
    alone("short");
}

#[test]
fn a_resume_while_the_disk_refuses_begins_at_a_keyframe() {
    alone("gop");
}

#[test]
fn a_flush_while_memory_is_stored_loses_no_state() {
    alone("flush");
}

#[test]
fn a_purge_without_a_disk_returns_and_the_disk_is_used_again() {
    alone("purge");
}

/// For `scripts/soak`; `STREAMBUFFER_SOAK_MINUTES` sets for how long, `STREAMBUFFER_SOAK_SEED` repeats a round.
mod soak {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    #[ignore = "long"]
    fn faults_at_random_for_minutes() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let time = Duration::from_secs(60 * variable("STREAMBUFFER_SOAK_MINUTES").unwrap_or(1));
        rounds(variable("STREAMBUFFER_SOAK_SEED").unwrap_or(now), time);
    }
}
