//! Trimming: what was consumed is discarded, first in the memtable, then file by file.
//!
//! One thread per open store tends it while there is something to do and sleeps otherwise. 100 ms after a cursor moved it
//! saves the cursors and covers what they have passed in the newest extent with a range deletion: the flush then leaves it
//! out, and consumed data is never written to a file. Flushed data is not touched by deletions: dead extents go by removing
//! their files, which works on a full disk too. Extents that a stalled stream keeps alive are compacted in batches with a
//! filter that drops what lies below the log starts.
//!
//! Before a file is removed the log starts are on the disk: a removal can bring back older versions that a deletion hid,
//! and nothing below a log start is ever read.

use std::collections::HashMap;
use std::ffi::CStr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rocksdb::compaction_filter::{CompactionFilter, Decision};
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};
use rocksdb::{Options, WriteBatch, WriteOptions};

use super::error::StoreError;
use super::log::{Durability, Log, StoreOptions, lock};
use super::record::Sequence;
use super::schema::{self, Lane, Meta};
use super::stream::StreamLog;

/// How long a cursor may be unsaved.
const CURSOR_DELAY: Duration = Duration::from_millis(100);
/// How often removed extents are looked after until their files are gone, and a full disk is looked at.
const RETRY: Duration = Duration::from_millis(500);
/// Range deletions per stream and memtable: each costs its share at the flush.
const TRIMS_PER_MEMTABLE: u64 = 64;
/// Memtables' worth of reclaimable space that justifies a compaction.
const COMPACT_MEMTABLES: u64 = 4;

/// An open log and the thread that tends it.
pub struct OpenStore {
    log: Arc<Log>,
    keeper: Option<JoinHandle<()>>,
}

impl OpenStore {
    pub fn open(path: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        let log = Log::open(path, options)?;
        let tended = log.clone();
        let keeper = std::thread::Builder::new()
            .name("streambuffer".into())
            .spawn(move || keep(&tended))
            .map_err(|source| StoreError::Io { path: path.to_owned(), source })?;
        Ok(Self { log, keeper: Some(keeper) })
    }

    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }
}

impl Drop for OpenStore {
    fn drop(&mut self) {
        self.log.work.stop();
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
        // Without it the next open replays the log: slower, nothing lost.
        let _ = self.log.close();
    }
}

fn keep(log: &Log) {
    let mut removals = Vec::new();
    loop {
        let again = !removals.is_empty() || log.space.is_low();
        if !log.work.wait(CURSOR_DELAY, again.then_some(RETRY)) {
            break;
        }
        // A disk that refuses now is tried again with the next change; the writer reports it.
        let _ = log.tend(&mut removals);
    }
}

impl Log {
    /// One round: cursors, trimming, removal.
    fn tend(&self, removals: &mut Vec<(u32, u32)>) -> Result<(), StoreError> {
        self.save_cursors(false)?;
        for stream in self.stream_list() {
            self.extents_mut().advance(stream.id, stream.cursor().resume);
        }
        if self.extents().has_dead() {
            self.sync_log_starts()?;
            removals.extend(self.extents_mut().take_dead());
        }
        self.remove(removals)?;
        let batch = self.extents().mostly_dead(COMPACT_MEMTABLES * self.space.memtable());
        if let Some((first, last)) = batch {
            self.sync_log_starts()?;
            self.db.compact_range(Some(schema::extent_start(first)), Some(schema::extent_start(last + 1)));
            self.extents_mut().merged(first, last);
        }
        self.space.refresh();
        self.space.restore_ballast();
        Ok(())
    }

    /// Writes the cursors that moved and trims the newest extent behind them; all of it when `everything`.
    pub fn save_cursors(&self, everything: bool) -> Result<(), StoreError> {
        let streams = self.stream_list();
        let moved: Vec<_> = streams.iter().filter_map(|s| Some((s, s.take_dirty()?))).collect();
        if moved.is_empty() && !everything {
            return Ok(());
        }
        let min_bytes = self.space.memtable() / TRIMS_PER_MEMTABLE / streams.len().max(1) as u64;
        let written = self.enter(0).and_then(|ticket| {
            let mut batch = WriteBatch::default();
            for (stream, cursor) in &moved {
                batch.put(Meta::Cursor(stream.id).key(ticket.extent), schema::encode_value(cursor));
            }
            for stream in &streams {
                self.trim(&mut batch, ticket.extent, stream, if everything { 0 } else { min_bytes });
            }
            self.db.write_opt(batch, &self.write).map_err(|err| self.failed(err))
        });
        if written.is_err() {
            for (stream, _) in moved {
                stream.set_dirty();
            }
        }
        written
    }

    /// Covers what `stream` has consumed of the newest extent, when it is worth `min_bytes`. The cursor that allows it is
    /// written with it: no crash can leave the one without the other.
    pub fn trim(&self, batch: &mut WriteBatch, extent: u32, stream: &StreamLog, min_bytes: u64) {
        if let Some((from, cursor)) = stream.begin_trim(min_bytes) {
            batch.put(Meta::Cursor(stream.id).key(extent), schema::encode_value(&cursor));
            for lane in [Lane::Data(stream.id), Lane::Index(stream.id)] {
                batch.delete_range(schema::key(extent, lane, from), schema::key(extent, lane, cursor.resume));
            }
        }
    }

    /// Puts the log starts on the disk itself, so that files below them can go.
    fn sync_log_starts(&self) -> Result<(), StoreError> {
        let streams = self.stream_list();
        let mut batch = WriteBatch::default();
        let ticket = self.enter(0)?;
        let cursors: Vec<_> = streams.iter().map(|s| (s.id, s.cursor())).collect();
        for (id, cursor) in &cursors {
            batch.put(Meta::Cursor(*id).key(ticket.extent), schema::encode_value(cursor));
        }
        match self.durability() {
            Durability::Crash => {
                let mut options = WriteOptions::default();
                options.set_sync(true);
                self.db.write_opt(batch, &options)
            }
            // Nothing outlives a crash but what was flushed, the cursors included.
            Durability::None => self.db.write_opt(batch, &self.write),
        }
        .map_err(|err| self.failed(err))?;
        for (id, cursor) in cursors {
            self.log_starts.set(id, cursor.resume);
        }
        Ok(())
    }

    /// Removes the files of dead extents. A file on its way down a level is left by RocksDB and asked for again.
    fn remove(&self, removals: &mut Vec<(u32, u32)>) -> Result<(), StoreError> {
        if removals.is_empty() {
            return Ok(());
        }
        for (first, last) in removals.iter() {
            let range = (schema::extent_start(*first), schema::extent_start(last.saturating_add(1)));
            self.db.delete_file_in_range(range.0, range.1).map_err(|err| self.failed(err))?;
        }
        let files = self.db.live_files().map_err(|err| self.failed(err))?;
        let extent = |key: &Option<Vec<u8>>| key.as_deref().and_then(schema::parse).map(|key| key.0);
        removals.retain(|(first, last)| {
            files.iter().any(|file| {
                let (start, end) = (extent(&file.start_key), extent(&file.end_key));
                start.is_some_and(|e| e >= *first) && end.is_some_and(|e| e <= *last)
            })
        });
        Ok(())
    }
}

/// Log starts that are on the disk; the compaction filter goes by them.
#[derive(Clone, Default)]
pub struct LogStarts(Arc<Mutex<HashMap<u32, Sequence>>>);

impl LogStarts {
    pub fn set(&self, stream: u32, sequence: Sequence) {
        lock(&self.0).insert(stream, sequence);
    }
}

pub fn drop_below_log_start(options: &mut Options, starts: &LogStarts) {
    options.set_compaction_filter_factory(FilterFactory(starts.clone()));
}

struct FilterFactory(LogStarts);

struct Filter(HashMap<u32, Sequence>);

const FILTER_NAME: &CStr = c"streambuffer.log-start";

impl CompactionFilterFactory for FilterFactory {
    type Filter = Filter;

    fn create(&mut self, _context: CompactionFilterContext) -> Filter {
        Filter(lock(&self.0.0).clone())
    }

    fn name(&self) -> &CStr {
        FILTER_NAME
    }
}

impl CompactionFilter for Filter {
    fn filter(&mut self, _level: u32, key: &[u8], _value: &[u8]) -> Decision {
        match schema::parse(key) {
            Some((_, Lane::Data(stream) | Lane::Index(stream), sequence))
                if self.0.get(&stream).is_some_and(|start| sequence < *start) =>
            {
                Decision::Remove
            }
            _ => Decision::Keep,
        }
    }

    fn name(&self) -> &CStr {
        FILTER_NAME
    }
}
