//! Random programs from seeds: in threads, or in a process whose disk can be full (see `src/store/shim.c`). What is wrong with
//! one is told with its seed and the smallest program that shows it.

use std::fmt::Debug;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::thread;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

/// What the disk does, below [`DISK`].
pub const CONTROL: &str = "SHIM_CONTROL";
pub const DISK: &str = "SHIM_PATH";
const PROGRAMS: &str = "STREAMBUFFER_MODEL_PROGRAMS";
const SEED: &str = "STREAMBUFFER_MODEL_SEED";

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Of a long run, a seed for each of so many threads: from `STREAMBUFFER_SOAK_SEED` on, or new ones.
pub fn seeds(threads: u64) -> Range<u64> {
    let now = || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let first = number("STREAMBUFFER_SOAK_SEED").unwrap_or_else(now);
    first..first + threads
}

/// Of a long run, how many of each seed.
pub fn count() -> u32 {
    number("STREAMBUFFER_SOAK_PROGRAMS").map_or(100, |programs| programs as u32)
}

/// `programs` from each seed, a thread each.
pub fn explore<S: Strategy>(
    seeds: Range<u64>,
    programs: u32,
    max_shrink_iters: u32,
    strategy: impl Fn() -> S + Sync,
    run: impl Fn(S::Value) + Sync,
) where
    S::Value: Debug,
{
    let run_seed = |seed: u64| {
        let config = Config { cases: programs, max_shrink_iters, failure_persistence: None, ..Config::default() };
        let bytes = seed.wrapping_mul(0x0101_0101_0101_0101).to_le_bytes().repeat(4);
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let result = TestRunner::new_with_rng(config, rng).run(&strategy(), |program| {
            run(program);
            Ok(())
        });
        match result {
            Ok(()) => {}
            Err(TestError::Fail(reason, program)) => panic!("seed {seed}: {reason}\nrun{program:?}"),
            Err(error) => panic!("seed {seed}: {error}"),
        }
    };
    let run_seed = &run_seed;
    thread::scope(|scope| {
        let threads: Vec<_> = seeds.map(|seed| scope.spawn(move || run_seed(seed))).collect();
        for thread in threads {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

/// Runs `test` of this program in a process of its own, with a disk that can be full; there [`asked_for`] says what to do.
pub fn on_a_full_disk(test: &str, build_shim: impl Fn(&Path) -> std::path::PathBuf, seed: u64, programs: u32) {
    let temp = tempfile::tempdir().unwrap();
    let disk = temp.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("LD_PRELOAD", build_shim(temp.path()))
        .env(CONTROL, temp.path().join("control"))
        .env(DISK, &disk)
        .env(PROGRAMS, programs.to_string())
        .env(SEED, seed.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("all well"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

/// In that process, the seed and how many programs of it; to be followed by [`all_well`].
pub fn asked_for() -> Option<(Range<u64>, u32)> {
    let (seed, programs) = (number(SEED)?, number(PROGRAMS)?);
    Some((seed..seed + 1, programs as u32))
}

pub fn all_well() {
    println!("all well");
}
