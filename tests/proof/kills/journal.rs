//! What a process tells of each unit before it goes on.
//!
//! A file for each stream and run, one write a line: what was written when the process is killed stays with the operating
//! system. Lines of 64 bytes never lie across pages, so none is torn.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// `chain` has returned OK for this unit.
    Accepted(u64),
    /// The event before this unit was taken.
    AcceptedMark(u64),
    /// Downstream takes this unit.
    Delivered {
        number: u64,
        position: u64,
        discont: bool,
    },
    DeliveredMark(u64),
    /// Downstream does not take this unit, or the list that begins with it.
    Refused(u64),
    /// It is about to be acknowledged, with all before it.
    Acknowledging(u64),
    Acknowledged(u64),
    Stats(Stats),
    /// The process runs: how late it is shows how busy the machine is.
    Beat,
}

/// Some of `stats`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    pub received: u64,
    /// In memory alone.
    pub queued: u64,
    pub durable: u64,
    pub delivered: u64,
    pub bypassed: u64,
    pub lost: u64,
}

/// When, in ns of the monotonic clock, and what.
pub type Line = (u64, Told);

const LINE: usize = 64;

pub fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

pub fn path(directory: &Path, run: u64, stream: usize) -> PathBuf {
    directory.join(format!("told-{run}-{stream}"))
}

/// May be written by several threads.
pub struct Journal(File);

impl Journal {
    pub fn open(path: &Path) -> Self {
        Self(OpenOptions::new().create(true).append(true).open(path).unwrap())
    }

    pub fn tell(&self, told: Told) {
        let numbers = match told {
            Told::Accepted(n) => [1, n, 0, 0, 0, 0, 0],
            Told::AcceptedMark(n) => [2, n, 0, 0, 0, 0, 0],
            Told::Delivered { number, position, discont } => [3, number, position, u64::from(discont), 0, 0, 0],
            Told::DeliveredMark(n) => [4, n, 0, 0, 0, 0, 0],
            Told::Refused(n) => [5, n, 0, 0, 0, 0, 0],
            Told::Acknowledging(n) => [6, n, 0, 0, 0, 0, 0],
            Told::Acknowledged(n) => [7, n, 0, 0, 0, 0, 0],
            Told::Stats(s) => [8, s.received, s.queued, s.durable, s.delivered, s.bypassed, s.lost],
            Told::Beat => [9, 0, 0, 0, 0, 0, 0],
        };
        let mut line = [0; LINE];
        for (bytes, number) in line.chunks_exact_mut(8).zip([now()].into_iter().chain(numbers)) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        (&self.0).write_all(&line).unwrap();
    }
}

/// In the order in which it was told; nothing when the process had not come that far.
pub fn read(path: &Path) -> Vec<Line> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(err) if err.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(err) => panic!("{}: {err}", path.display()),
    };
    assert!(bytes.len().is_multiple_of(LINE), "{} is torn", path.display());
    let line = |line: &[u8]| {
        let number = |at: usize| u64::from_le_bytes(line[at * 8..at * 8 + 8].try_into().unwrap());
        let told = match number(1) {
            1 => Told::Accepted(number(2)),
            2 => Told::AcceptedMark(number(2)),
            3 => Told::Delivered { number: number(2), position: number(3), discont: number(4) == 1 },
            4 => Told::DeliveredMark(number(2)),
            5 => Told::Refused(number(2)),
            6 => Told::Acknowledging(number(2)),
            7 => Told::Acknowledged(number(2)),
            8 => Told::Stats(Stats {
                received: number(2),
                queued: number(3),
                durable: number(4),
                delivered: number(5),
                bypassed: number(6),
                lost: number(7),
            }),
            9 => Told::Beat,
            other => panic!("{}: {other}", path.display()),
        };
        (number(0), told)
    };
    bytes.chunks_exact(LINE).map(line).collect()
}
