//! What must never happen in a process of its own: warnings of GLib, panics, threads that hang. And what was measured.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gst::glib;

static VIOLATIONS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static LONGEST: Mutex<BTreeMap<&'static str, Duration>> = Mutex::new(BTreeMap::new());
static OVER: AtomicBool = AtomicBool::new(false);
/// What is written of the rest is the same.
const SHOWN: usize = 12;

/// A promise was broken.
pub fn violation(text: impl Into<String>) {
    let text = text.into();
    let mut all = VIOLATIONS.lock().unwrap();
    if all.len() < SHOWN {
        println!("VIOLATION: {text}");
    }
    all.push(text);
}

pub fn violations() -> Vec<String> {
    VIOLATIONS.lock().unwrap().clone()
}

/// `what` took so long; `limit` is for a machine that has much else to do.
pub fn took(what: &'static str, time: Duration, limit: Duration) {
    {
        let mut longest = LONGEST.lock().unwrap();
        let longest = longest.entry(what).or_default();
        *longest = time.max(*longest);
    }
    if time > limit {
        violation(format!("{what} took {time:?}"));
    }
}

pub fn print_longest() {
    for (what, time) in LONGEST.lock().unwrap().iter() {
        println!("longest {what}: {} ms", time.as_millis());
    }
}

/// From here on warnings and panics are violations.
pub fn listen() {
    glib::log_set_default_handler(|domain, level, text| {
        if matches!(level, glib::LogLevel::Error | glib::LogLevel::Critical | glib::LogLevel::Warning) {
            violation(format!("{domain:?} {level:?}: {text}"));
        }
    });
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        violation(format!("panic: {info}"));
        before(info);
    }));
}

/// Ends the process with all its stacks when it is not over in time.
pub fn guard(limit: Duration) {
    std::thread::spawn(move || {
        let start = Instant::now();
        while start.elapsed() < limit {
            if OVER.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        println!("VIOLATION: it hangs");
        print_stacks();
        std::process::exit(1);
    });
}

pub fn over() {
    OVER.store(true, Ordering::Relaxed);
}

pub fn print_stacks() {
    let pid = std::process::id().to_string();
    let gdb = Command::new("timeout")
        .args(["60", "gdb", "-p", &pid, "-batch", "-nx", "-ex", "thread apply all bt 30"])
        .env_remove("LD_PRELOAD")
        .output();
    match gdb {
        Ok(output) if output.status.success() => println!("{}", String::from_utf8_lossy(&output.stdout)),
        _ => {
            for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
                let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
                println!("{}: {} {}", read("comm").trim(), read("wchan"), read("syscall").trim());
            }
        }
    }
}

/// Resident memory at its highest, in bytes.
pub fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kb = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kb.unwrap_or(0) << 10
}
