//! What this process has used: time, memory, bytes written, files, threads.

use std::path::Path;

use crate::Outcome;

/// Processor time of all threads so far, in s.
pub fn cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn field(file: &str, name: &str) -> Outcome<u64> {
    let text = std::fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("{file} lacks {name}"))?;
    Ok(line.trim_start_matches(':').split_whitespace().next().unwrap_or_default().parse()?)
}

/// Bytes that were given to the disk, or to the page cache for it.
pub fn written() -> Outcome<u64> {
    field("/proc/self/io", "write_bytes")
}

/// Resident bytes.
pub fn resident() -> Outcome<u64> {
    Ok(field("/proc/self/status", "VmRSS")? * 1024)
}

pub fn threads() -> Outcome<u64> {
    field("/proc/self/status", "Threads")
}

pub fn files() -> Outcome<u64> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count() as u64)
}

/// Bytes that the files below a directory occupy.
pub fn disk(directory: &Path) -> Outcome<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        sum += match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk(&entry.path())?,
            Ok(meta) => meta.blocks() * 512,
            // Gone meanwhile.
            Err(_) => 0,
        };
    }
    Ok(sum)
}
