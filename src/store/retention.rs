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
use std::time::{Duration, Instant};

use rocksdb::compaction_filter::{CompactionFilter, Decision};
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};
use rocksdb::{Options, WriteBatch};

use super::error::StoreError;
use super::extents::Run;
use super::holes::Holes;
use super::log::{Log, StoreOptions, lock};
use super::record::Sequence;
use super::schema::{self, Lane, Meta};
use super::stream_log::{Head, StreamLog};

/// How long a cursor may be unsaved.
const CURSOR_DELAY: Duration = Duration::from_millis(100);
/// How often dead files are looked for until they are gone, and a full disk is looked at.
const RETRY: Duration = Duration::from_millis(500);
/// The file system is asked for its space when so much was written, or after so long.
const SPACE_BYTES: u64 = 4 << 20;
const SPACE_INTERVAL: Duration = Duration::from_secs(1);
/// Looks after the last find: a dead extent may still be on its way into a file.
const SWEEPS: u32 = 10;
/// Range deletions per stream and memtable: each costs its share at the flush.
const TRIMS_PER_MEMTABLE: u64 = 64;
/// Memtables' worth of reclaimable space that justifies a compaction.
const COMPACT_MEMTABLES: u64 = 4;

/// Log start and holes of a stream.
pub type Start = (u32, Sequence, Arc<Holes>);

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
        // A tender may have been the last to hold the store.
        let itself = |keeper: &JoinHandle<()>| keeper.thread().id() == std::thread::current().id();
        if let Some(keeper) = self.keeper.take_if(|keeper| !itself(keeper)) {
            let _ = keeper.join();
        }
        #[cfg(test)]
        if self.log.abandoned.load(std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        // Without it the next open replays the log: slower, nothing lost.
        let _ = self.log.close();
    }
}

fn keep(log: &Log) {
    // What an earlier process left half done is looked for too.
    let mut sweeps = SWEEPS;
    let mut ages = None;
    let mut asked = (log.gate.entered(), Instant::now());
    loop {
        let busy = sweeps > 0 || log.space.is_low() || log.compaction_due().is_some() || log.has_unerased();
        let streams = log.stream_list();
        let again = streams
            .iter()
            .filter_map(|stream| stream.tend())
            .chain(busy.then_some(RETRY))
            .chain(ages)
            .chain(log.leases.due())
            .chain(log.commits.next_tick())
            .chain(log.fault.next_attempt())
            .min();
        if !log.work.wait(CURSOR_DELAY, again) {
            break;
        }
        log.honour_leases();
        ages = log.retire();
        // A disk that refuses now is tried again with the next change; the writer reports it.
        let _ = log.recover();
        let tended = log.tick().and_then(|()| log.tend(&mut sweeps));
        let entered = log.gate.entered();
        let ask = log.space.is_low() || entered >= asked.0 + SPACE_BYTES || asked.1.elapsed() >= SPACE_INTERVAL;
        if tended.is_ok() && ask {
            asked = (entered, Instant::now());
            log.space.refresh();
            log.space.restore_ballast();
        }
        log.note_flushed();
        log.work.finished(tended.is_ok());
        // What is not erased now is tried again.
        let _ = log.erase();
        if tended.is_ok() && !log.space.is_low() {
            log.compact();
        }
    }
    log.work.finished(false);
}

impl Log {
    /// One round: removal, cursors, trimming.
    fn tend(&self, sweeps: &mut u32) -> Result<(), StoreError> {
        if *sweeps > 0 {
            *sweeps -= 1;
            if self.remove_dead_files()? {
                *sweeps = SWEEPS;
            } else if *sweeps == 0 && self.has_files_under_way() {
                *sweeps = 1;
            }
        }
        self.advance(sweeps)
    }

    /// The database is writing files, or is about to: what is in them may be dead already.
    fn has_files_under_way(&self) -> bool {
        const JOBS: [&CStr; 4] = [
            c"rocksdb.mem-table-flush-pending",
            c"rocksdb.num-running-flushes",
            c"rocksdb.compaction-pending",
            c"rocksdb.num-running-compactions",
        ];
        self.db().is_ok_and(|db| JOBS.iter().any(|job| matches!(db.property_int_value(*job), Ok(Some(1..)))))
    }

    fn advance(&self, sweeps: &mut u32) -> Result<(), StoreError> {
        let starts = self.starts();
        self.save_cursors(false)?;
        let dead = {
            let mut extents = self.extents_mut();
            for (id, start, holes) in &starts {
                extents.advance(*id, *start);
                extents.cover(*id, holes);
            }
            extents.has_dead()
        };
        if dead {
            self.sync_log_starts(&starts)?;
            self.extents_mut().drop_dead();
            *sweeps = SWEEPS;
            self.remove_dead_files()?;
        }
        Ok(())
    }

    /// Whether files wait to be removed.
    pub fn has_consumed_extents(&self) -> bool {
        let starts = self.starts();
        let mut extents = self.extents_mut();
        starts.iter().for_each(|(id, start, _)| extents.advance(*id, *start));
        extents.has_dead()
    }

    /// Log starts and holes to go by. Asked for before the cursors are saved, so that the saved ones are no older.
    pub fn starts(&self) -> Vec<Start> {
        let start = |stream: &Arc<StreamLog>| {
            let (cursor, holes) = stream.cursor_and_holes();
            (stream.id, cursor.log_start, holes)
        };
        self.stream_list().iter().map(start).collect()
    }

    /// Writes the cursors that moved and trims the newest extent behind them; all of it when `everything`. Called by the
    /// thread that tends the log, or after its end: cursors are written in the order in which they move.
    pub fn save_cursors(&self, everything: bool) -> Result<(), StoreError> {
        let streams = self.stream_list();
        if !everything && !self.time.is_unsaved() && !streams.iter().any(|stream| stream.is_dirty()) {
            return Ok(());
        }
        let min_bytes = self.extent_bytes() / TRIMS_PER_MEMTABLE / streams.len().max(1) as u64;
        // Inside the gate: a switch of extents writes cursors too, and must not be overtaken by older ones.
        let ticket = self.enter(0)?;
        let moved: Vec<_> = streams.iter().filter_map(|s| Some((s, s.take_dirty()?))).collect();
        let mut batch = WriteBatch::default();
        for (stream, head) in &moved {
            self.put_head(&mut batch, ticket.extent, stream, head);
        }
        let clock = self.time.take_unsaved();
        if clock || everything {
            self.put_clock(&mut batch, ticket.extent);
        }
        for stream in &streams {
            self.trim(&mut batch, ticket.extent, stream, if everything { 0 } else { min_bytes });
        }
        let written = self.db().and_then(|db| db.write_opt(batch, &self.write_meta).map_err(|err| self.refused(err)));
        if written.is_err() {
            if clock {
                self.time.set_unsaved();
            }
            for (stream, head) in moved {
                stream.put_back(head);
            }
        }
        written
    }

    /// Covers what `stream` has consumed of the newest extent, when it is worth `min_bytes`. The cursor that allows it is
    /// written with it: no crash can leave the one without the other.
    pub fn trim(&self, batch: &mut WriteBatch, extent: u32, stream: &StreamLog, min_bytes: u64) {
        if let Some((from, head)) = stream.begin_trim(min_bytes) {
            self.put_head(batch, extent, stream, &head);
            for lane in [Lane::Data(stream.id), Lane::Index(stream.id)] {
                batch.delete_range(schema::key(extent, lane, from), schema::key(extent, lane, head.cursor.log_start));
            }
        }
    }

    /// Writes cursor and holes, and covers what new holes have given up of the newest extent.
    fn put_head(&self, batch: &mut WriteBatch, extent: u32, stream: &StreamLog, head: &Head) {
        batch.put(Meta::Cursor(stream.id).key(extent), schema::encode_value(&head.cursor));
        if let Some(holes) = &head.holes {
            batch.put(Meta::Holes(stream.id).key(extent), schema::encode_value(&**holes));
        }
        let first = self.extents().newest_first(stream.id).unwrap_or(0);
        let id = stream.id;
        for hole in &head.fresh {
            let appended = (hole.to > first).then_some([Lane::Data(id), Lane::Index(id)]);
            let kept = hole.purged.then_some([Lane::ThinData(id), Lane::ThinIndex(id)]);
            for lane in appended.into_iter().chain(kept).flatten() {
                batch.delete_range(schema::key(extent, lane, hole.from), schema::key(extent, lane, hole.to));
            }
        }
    }

    /// Has the log starts on the disk itself, so that files below them can go. The saved cursors carry them.
    pub fn sync_log_starts(&self, starts: &[Start]) -> Result<(), StoreError> {
        self.sync_wal()?;
        for (id, start, holes) in starts {
            self.log_starts.set(*id, *start, holes.clone());
        }
        Ok(())
    }

    /// Removes the files that hold nothing of the table's extents; true when some are left. RocksDB leaves a file that it is
    /// moving down a level, and one that is still being written is not there yet: they are asked for again.
    fn remove_dead_files(&self) -> Result<bool, StoreError> {
        let files = self.db()?.live_files().map_err(|err| self.failed(err))?;
        let dead: Vec<_> = {
            let extents = self.extents();
            let newest = extents.newest().unwrap_or(0);
            files
                .into_iter()
                .filter_map(|file| {
                    let (start, end) = (file.start_key?, file.end_key?);
                    let (first, last) = (schema::parse(&start)?.0, schema::parse(&end)?.0);
                    (last < newest && !extents.any_within(first, last)).then_some((start, end))
                })
                .collect()
        };
        for (start, end) in &dead {
            self.db()?.delete_file_in_range(start, end).map_err(|err| self.failed(err))?;
        }
        Ok(!dead.is_empty())
    }

    fn compaction_due(&self) -> Option<Run> {
        self.extents().mostly_dead(COMPACT_MEMTABLES * self.space.memtable())
    }

    /// Compacts a run of extents of which little is wanted, with a filter that leaves out what lies below the log starts.
    fn compact(&self) {
        let Some(run) = self.compaction_due() else { return };
        let Ok(files) = self.db().and_then(|db| db.live_files().map_err(|err| self.failed(err))) else { return };
        let on_disk: u64 = {
            let within = |key: &Option<Vec<u8>>| {
                key.as_deref().and_then(schema::parse).is_some_and(|key| (run.first..=run.last).contains(&key.0))
            };
            files
                .iter()
                .filter(|file| within(&file.start_key) && within(&file.end_key))
                .map(|file| file.size as u64)
                .sum()
        };
        // An earlier process may have done it already.
        if on_disk > run.live.saturating_mul(2) {
            let starts = self.starts();
            if self.save_cursors(false).and_then(|()| self.sync_log_starts(&starts)).is_err() {
                return;
            }
            let Ok(db) = self.db() else { return };
            db.compact_range(Some(schema::extent_start(run.first)), Some(schema::extent_end(run.last)));
        }
        self.extents_mut().compacted(run);
    }
}

/// Log starts and holes that are on the disk; the compaction filter goes by them.
#[derive(Clone, Default)]
pub struct LogStarts(Arc<Mutex<Starts>>);

/// By stream.
type Starts = HashMap<u32, (Sequence, Arc<Holes>)>;

impl LogStarts {
    pub fn set(&self, stream: u32, sequence: Sequence, holes: Arc<Holes>) {
        lock(&self.0).insert(stream, (sequence, holes));
    }
}

pub fn drop_below_log_start(options: &mut Options, starts: &LogStarts) {
    options.set_compaction_filter_factory(FilterFactory(starts.clone()));
}

struct FilterFactory(LogStarts);

struct Filter(Starts);

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
                if self
                    .0
                    .get(&stream)
                    .is_some_and(|(start, holes)| sequence < *start || holes.at(sequence).is_some()) =>
            {
                Decision::Remove
            }
            // Copies of a plan that was not carried out yet are in no hole: they stay.
            Some((_, Lane::ThinData(stream) | Lane::ThinIndex(stream), sequence))
                if self.0.get(&stream).is_some_and(|(start, holes)| {
                    sequence < *start || holes.at(sequence).is_some_and(|hole| hole.purged)
                }) =>
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
