//! The memory that the stores of a process take together.
//!
//! An eighth of the process's budget is for the memtables that are being filled, in equal shares: RocksDB holds up to three
//! per store when the disk is slow. The rest is for the elements' own buffers and for reading. A store that is opened later
//! makes the shares of the others smaller from their next extent on: extents end before RocksDB would switch memtables, so
//! nothing has to be opened anew.

use std::sync::atomic::{AtomicU64, Ordering};

/// A memtable below this would write more files than it saves memory.
const LEAST: u64 = 1 << 20;

static OPEN: AtomicU64 = AtomicU64::new(0);

/// What one store may take; counts as open while it lives.
#[derive(Debug)]
pub struct Share {
    process: u64,
}

impl Share {
    /// Of `process` bytes.
    pub fn new(process: u64) -> Self {
        OPEN.fetch_add(1, Ordering::Relaxed);
        Self { process }
    }

    /// The most that a memtable of this process may have, were the store alone.
    pub fn most(process: u64) -> u64 {
        (process / 8).max(LEAST)
    }

    /// Bytes at which an extent ends, at most `memtable`.
    pub fn extent(&self, memtable: u64) -> u64 {
        share(self.process, OPEN.load(Ordering::Relaxed)).min(memtable)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

fn share(process: u64, open: u64) -> u64 {
    (process / 8 / open.max(1)).max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_share_alike_and_none_starves() {
        assert_eq!(share(128 << 20, 1), 16 << 20);
        assert_eq!(share(128 << 20, 4), 4 << 20);
        assert_eq!(share(128 << 20, 100), LEAST);
        assert_eq!(Share::most(0), LEAST);
    }
}
