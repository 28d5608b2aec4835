//! The disk under a store: how the database is opened, the free-space floor, the ballast.
//!
//! The floor keeps enough room that the database can always be opened again: its log is preallocated, and a store that
//! filled the disk to the last block never opens. The ballast is that room in advance: it is given up when the disk is
//! full all the same, and put back when there is space again.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use once_cell::sync::Lazy;
use rocksdb::{BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, LogLevel, Options};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::error::StoreError;

const MIB: u64 = 1 << 20;

/// Space set aside in the store's directory.
const BALLAST: &str = "ballast";

/// Upper bound of a memtable: an eighth of the memory that the elements of a process may use together.
const MAX_MEMTABLE: u64 = 16 * MIB;
const MIN_MEMTABLE: u64 = MIB;
/// Bytes that no level reaches.
const LEVEL: u64 = 1 << 50;

/// Indexes of files, for all stores of the process.
static CACHE: Lazy<Cache> = Lazy::new(|| Cache::new_lru_cache(8 * MIB as usize));

pub fn database_options(memtable: u64) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    // Media is compressed already.
    options.set_compression_type(DBCompressionType::None);
    // The writer ends an extent before RocksDB would switch by itself. The log is preallocated at 1.1 times this, which the
    // floor has to bear.
    options.set_write_buffer_size((memtable + memtable / 2) as usize);
    options.set_max_write_buffer_number(3);
    // By itself an eighth of a memtable, taken at once: much for a store of forty in one process.
    options.set_arena_block_size(256 << 10);
    // With one column family it bounds nothing but how far the log is preallocated: what a kill leaves of that is missing at
    // the next open.
    options.set_max_total_wal_size(MIB);
    // One flushed file at a time goes down a level: moved, not rewritten, and files of level 0 cannot be dropped by range.
    options.set_level_zero_file_num_compaction_trigger(1);
    options.set_target_file_size_base(memtable * 2);
    // All stand in one level: of each level a reader looks at what comes next, and that may be a record of megabytes.
    options.set_max_bytes_for_level_base(LEVEL);
    options.set_max_background_jobs(2);
    // A damaged record in the middle of the log must not pass for its end.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_max_open_files(64);
    // Backlogs are read from end to end: let the kernel read ahead.
    options.set_advise_random_on_open(false);
    options.set_skip_stats_update_on_db_open(true);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(MIB as usize);
    options.set_log_level(LogLevel::Warn);
    options.set_max_manifest_file_size(4 * MIB as usize);
    options.set_manifest_preallocation_size(64 << 10);
    let mut table = BlockBasedOptions::default();
    table.set_block_size(64 << 10);
    table.set_cache_index_and_filter_blocks(true);
    table.set_block_cache(&CACHE);
    options.set_block_based_table_factory(&table);
    options
}

/// Space on the file system and what is kept of it.
pub struct Space {
    path: PathBuf,
    ballast: PathBuf,
    memtable: u64,
    /// Free bytes below which nothing more is stored.
    floor: u64,
    free: AtomicU64,
    has_ballast: AtomicBool,
    /// Of a file system that is only pretended, unless 0.
    #[cfg(test)]
    size: AtomicU64,
}

impl Space {
    /// `limit` bounds the memtables, in bytes.
    pub fn new(path: &Path, min_free: u64, limit: Option<u64>) -> Result<Self, StoreError> {
        let ballast = path.join(BALLAST);
        let stat = statvfs(path).map_err(|err| StoreError::Io { path: path.to_owned(), source: err.into() })?;
        let volume = stat.f_blocks.saturating_mul(stat.f_frsize);
        let memtable = limit.unwrap_or(u64::MAX).min(MAX_MEMTABLE).min(volume / 16).max(MIN_MEMTABLE);
        let floor = min_free.min(volume / 4).max(ballast_size(memtable) + memtable);
        let space = Self {
            path: path.to_owned(),
            memtable,
            floor,
            free: AtomicU64::new(stat.f_bavail.saturating_mul(stat.f_frsize)),
            // One that an interruption left half made does not count.
            has_ballast: AtomicBool::new(
                fs::metadata(&ballast).is_ok_and(|meta| meta.blocks() * 512 >= ballast_size(memtable)),
            ),
            ballast,
            #[cfg(test)]
            size: AtomicU64::new(0),
        };
        space.restore_ballast();
        Ok(space)
    }

    pub fn memtable(&self) -> u64 {
        self.memtable
    }

    /// Asks the file system.
    pub fn refresh(&self) {
        #[cfg(test)]
        if let size @ 1.. = self.size.load(Ordering::Relaxed) {
            let used = super::directory::bytes_below(&self.path);
            return self.free.store(size.saturating_sub(used), Ordering::Relaxed);
        }
        if let Ok(stat) = statvfs(&self.path) {
            self.free.store(stat.f_bavail.saturating_mul(stat.f_frsize), Ordering::Relaxed);
        }
    }

    /// Below the floor, as of the last look.
    pub fn is_low(&self) -> bool {
        self.free.load(Ordering::Relaxed) < self.floor
    }

    /// What is missing to come some way above the floor.
    pub fn shortage(&self) -> u64 {
        (self.floor + self.memtable * 4).saturating_sub(self.free())
    }

    /// Goes on as if the file system had this many bytes, for the store alone.
    #[cfg(test)]
    pub fn pretend(&self, size: u64) {
        self.size.store(size, Ordering::Relaxed);
        self.refresh();
    }

    #[cfg(test)]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    pub fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// What has to be free, the ballast included, for writing to go on after the disk was full.
    pub fn wanted(&self) -> u64 {
        ballast_size(self.memtable) + self.memtable
    }

    /// Free bytes and what the ballast holds.
    pub fn room(&self) -> u64 {
        let ballast = if self.has_ballast.load(Ordering::Relaxed) { ballast_size(self.memtable) } else { 0 };
        self.free() + ballast
    }

    /// Gives the ballast to the file system; whether there was one.
    pub fn release_ballast(&self) -> bool {
        let had = self.has_ballast.swap(false, Ordering::Relaxed);
        had && fs::remove_file(&self.ballast).is_ok()
    }

    /// Sets the ballast aside when the disk can spare it.
    pub fn restore_ballast(&self) {
        if self.free() >= self.floor + ballast_size(self.memtable) {
            self.set_ballast_aside();
        }
    }

    /// Whether there is enough for writing, with a ballast besides, which is made if need be.
    pub fn is_roomy(&self) -> bool {
        self.refresh();
        self.room() >= self.wanted() && self.set_ballast_aside()
    }

    /// A file system that cannot preallocate goes without: false only when there is no room.
    fn set_ballast_aside(&self) -> bool {
        if self.has_ballast.load(Ordering::Relaxed) {
            return true;
        }
        let done = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&self.ballast)
            .and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, ballast_size(self.memtable))?));
        if done.is_err() {
            let _ = fs::remove_file(&self.ballast);
        }
        self.has_ballast.store(done.is_ok(), Ordering::Relaxed);
        self.refresh();
        self.has_ballast.load(Ordering::Relaxed) || self.free() >= self.wanted()
    }
}

fn ballast_size(memtable: u64) -> u64 {
    // An open writes up to three memtables to files, and begins a log.
    memtable * 3 + 2 * MIB
}

/// Gives up the ballast of a store that could not be opened; whether there was one.
pub fn release_ballast(location: &Path) -> bool {
    let ballast = location.join(BALLAST);
    fs::metadata(&ballast).is_ok_and(|meta| meta.blocks() > 0) && fs::remove_file(&ballast).is_ok()
}
