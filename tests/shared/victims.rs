//! Processes that are killed: a test of this binary, run again by itself, that tells what it does line by line.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Tells whoever started this process; what was told survives its end.
pub fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Killed when the test ends early.
pub struct Victim {
    child: Child,
    told: Option<JoinHandle<Vec<String>>>,
}

impl Victim {
    /// Runs the test of this name until it tells that it is `ready`.
    pub fn start(test: &str, environment: &[(&str, &OsStr)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let ready = lines.any(|line| line.ends_with("ready"));
        // It must never wait for its lines to be read.
        let told = std::thread::spawn(move || lines.collect());
        let victim = Self { child, told: Some(told) };
        assert!(ready, "{test} did not begin with {environment:?}");
        victim
    }

    /// SIGKILL; what it had told until then, or what is wrong.
    pub fn kill(mut self) -> Result<Vec<String>, String> {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        let told = self.told.take().unwrap().join().unwrap();
        if status.signal() == Some(9) { Ok(told) } else { Err(format!("it ended by itself, {status}: {told:?}")) }
    }

    /// Waits for its end, which has to be that of a test that passed; what it had told.
    pub fn wait(mut self, patience: Duration) -> Result<Vec<String>, String> {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > patience {
                return Err("it does not end".to_owned());
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let told = self.told.take().unwrap().join().unwrap();
        if status.success() { Ok(told) } else { Err(format!("it failed, {status}: {told:?}")) }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Small, and good enough to choose times with.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds shall not be alike.
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

pub fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Of a long run: the one that is to be repeated, or a new one.
pub fn seed() -> u64 {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    variable("STREAMBUFFER_SOAK_SEED").unwrap_or_else(now)
}
