//! The open database: what is in it, and the switch from one extent to the next.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rocksdb::{DB, FlushOptions, Options, WriteBatch, WriteOptions};

use super::budget::Share;
use super::clock::{Clock, SystemClock, Time};
use super::directory::Directory;
use super::domains::Domains;
use super::durability::{Commits, Durability};
use super::error::StoreError;
use super::extents::{Extents, First};
use super::fault::Fault;
use super::floor::Relief;
use super::gate::{Gate, Switch, Ticket};
use super::handle::{Guard, Handle};
use super::health::{Space, database_options, release_ballast};
use super::highwater::{Gauge, HighWater};
use super::leases::Leases;
use super::record::{self, Body, Encoders, Header};
use super::retention::{LogStarts, drop_below_log_start};
use super::salvage::{self, Incident, RecoveryMode};
use super::schema::{self, CleanMark, CursorRecord, ExtentHeader, Lane, Meta, StreamStart};
use super::stream_log::StreamLog;
use super::survey::{Standing, Survey, survey};
use crate::bell::Bell;

/// How often a disk that cannot be read is asked for what was delivered.
const SETTLE_ATTEMPTS: u32 = 3;

/// How a store is opened. The elements that share it share these.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    pub durability: Durability,
    pub recovery: RecoveryMode,
    /// How often [`Durability::Interval`] syncs.
    pub sync_interval: Duration,
    /// Free-space floor in bytes; kept between what the store needs to open again and a quarter of the file system.
    pub min_free_bytes: u64,
    /// The most that is meant to be stored, 0 for no limit: memtables stay below an eighth of it.
    pub limit_bytes: u64,
    /// How long to wait for another process to let go of the store.
    pub lock_timeout: Duration,
    /// What the stores and elements of this process may take together, in bytes: memtables stay below this store's share of an
    /// eighth of it.
    pub process_memory_bytes: u64,
    /// Tells the time; tests bring their own.
    pub clock: Arc<dyn Clock>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Crash,
            recovery: RecoveryMode::default(),
            sync_interval: Duration::from_secs(1),
            min_free_bytes: 1 << 30,
            limit_bytes: 0,
            lock_timeout: Duration::from_secs(15),
            process_memory_bytes: 128 << 20,
            clock: Arc::new(SystemClock),
        }
    }
}

pub struct Log {
    // First, so that the database is closed before the directory is given up.
    pub handle: Handle,
    pub directory: Directory,
    pub space: Space,
    share: Share,
    pub gate: Gate,
    pub extents: RwLock<Extents>,
    pub streams: Mutex<HashMap<u32, Arc<StreamLog>>>,
    pub log_starts: LogStarts,
    pub write: WriteOptions,
    /// For heads, cursors and marks: logged whatever the durability of records is.
    pub write_meta: WriteOptions,
    pub options: StoreOptions,
    pub session: u64,
    pub time: Time,
    pub domains: Domains,
    pub work: Work,
    pub commits: Commits,
    pub fault: Fault,
    /// For all streams.
    pub encoders: Encoders,
    /// Damage was met.
    doubtful: AtomicBool,
    pub gauge: Mutex<Gauge>,
    pub leases: Leases,
    pub relief: Relief,
    /// What the openers of streams have to be told.
    pub incidents: Mutex<Vec<Incident>>,
    /// Ends as a killed process does.
    #[cfg(test)]
    pub abandoned: AtomicBool,
}

/// Wakes the thread that tends the log, and tells when it has.
#[derive(Default)]
pub struct Work {
    /// There is something to do; spares the lock when it is known already.
    pending: AtomicBool,
    state: Mutex<WorkState>,
    /// Rung for the thread that tends the log: while it waits for work, while it lets work gather.
    called: Bell,
    hurried: Bell,
    /// Rung for those who wait for a round.
    done: Bell,
}

#[derive(Default)]
struct WorkState {
    pending: bool,
    /// Somebody waits for it.
    urgent: bool,
    stop: bool,
    /// Rounds begun and finished.
    begun: u64,
    finished: u64,
    /// The last round came to its end.
    succeeded: bool,
    /// The thread that tends the log.
    thread: Option<std::thread::ThreadId>,
}

impl Work {
    pub fn announce(&self) {
        if !self.pending.swap(true, Ordering::Relaxed) {
            lock(&self.state).pending = true;
            self.called.ring();
        }
    }

    pub fn stop(&self) {
        lock(&self.state).stop = true;
        self.called.ring();
        self.hurried.ring();
        self.done.ring();
    }

    /// Called by a tender, in the thread that tends the log.
    pub fn is_own_thread(&self) -> bool {
        lock(&self.state).thread == Some(std::thread::current().id())
    }

    /// Has a whole round done now; false when it fails or takes longer than `patience`.
    pub fn run_now(&self, patience: Duration) -> bool {
        let mut state = lock(&self.state);
        if state.thread == Some(std::thread::current().id()) {
            // Called by a tender: this round has to end first.
            state.pending = true;
            return false;
        }
        state.pending = true;
        state.urgent = true;
        let wanted = state.begun + 1;
        self.called.ring();
        self.hurried.ring();
        let unfinished = |state: &mut WorkState| state.finished < wanted && !state.stop;
        let mut state = self.done.wait_timeout_while(state, patience, unfinished);
        !unfinished(&mut state) && state.succeeded
    }

    /// Waits for work and lets more of it gather for `delay`, but no longer than `again` in all; false when it is time to stop.
    /// After `again` it looks in even without being called. While data flows nobody has to call: there is work when it has
    /// rested.
    pub fn wait(&self, delay: Duration, again: Option<Duration>) -> bool {
        let start = Instant::now();
        let left = || again.map_or(Duration::MAX, |again| again.saturating_sub(start.elapsed()));
        let calm = |state: &mut WorkState| !state.stop && !state.urgent;
        let mut state = lock(&self.state);
        state.thread = Some(std::thread::current().id());
        state = self.hurried.wait_timeout_while(state, delay.min(left()), calm);
        if !state.pending && calm(&mut state) {
            state = self.called.wait_timeout_while(state, left(), |state| !state.pending && !state.stop);
            state = self.hurried.wait_timeout_while(state, delay.min(left()), calm);
        }
        state.pending = false;
        state.urgent = false;
        state.begun += 1;
        self.pending.store(false, Ordering::Relaxed);
        !state.stop
    }

    pub fn finished(&self, succeeded: bool) {
        let mut state = lock(&self.state);
        state.finished = state.begun;
        state.succeeded = succeeded;
        drop(state);
        self.done.ring();
    }
}

/// A panic of another thread leaves numbers that are still consistent: each critical section only stores finished values.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    /// Opens the log; on a full disk once more without the ballast.
    pub fn open(path: &Path, options: &StoreOptions) -> Result<Arc<Self>, StoreError> {
        match Self::try_open(path, options) {
            Err(err) if err.is_no_space() && release_ballast(path) => Self::try_open(path, options),
            other => other,
        }
    }

    fn try_open(path: &Path, options: &StoreOptions) -> Result<Arc<Self>, StoreError> {
        let (directory, mut incidents) = Directory::claim(path, options.lock_timeout, options.recovery)?;
        let limit = if options.limit_bytes > 0 { options.limit_bytes / 8 } else { u64::MAX };
        let limit = limit.min(Share::most(options.process_memory_bytes));
        let space = Space::new(path, options.min_free_bytes, Some(limit))?;
        let log_starts = LogStarts::default();
        let mut write = WriteOptions::default();
        write.disable_wal(options.durability == Durability::None);
        write.set_sync(options.durability == Durability::Power);

        // Without it a store opens all the same.
        let loaded = HighWater::try_load(path);
        let gauge = Gauge::after(&loaded);
        let high = loaded.unwrap_or_default();
        let (db, found) = open_and_survey(&directory, options, &high, || store_options(space.memtable(), &log_starts))?;
        incidents.extend(found.incidents);
        let last_extent = found.extents.keys().next_back().copied().max(Some(high.extent));
        let session = found.session;
        let time = Time::new(options.clock.clone(), found.clock);
        let mut extents = Extents::default();
        for (id, extent) in found.extents.iter().filter(|(_, extent)| !extent.starts.is_empty()) {
            let first = extent.starts.iter().map(|(id, s)| (*id, First { sequence: s.first, bytes: s.totals.bytes }));
            extents.push(*id, extent.boot(), first.collect());
        }
        let streams = found.streams.into_iter().map(|standing| {
            let Standing { id, name, end, state, cursor, holes } = standing;
            (id, Arc::new(StreamLog::new(id, name, end, state, cursor, holes)))
        });
        let streams = streams.collect();
        let id = last_extent.map_or(1, |id| id + 1);
        let log = Self {
            handle: Handle::new(db),
            directory,
            space,
            share: Share::new(options.process_memory_bytes),
            gate: Gate::new(id),
            extents: RwLock::new(extents),
            streams: Mutex::new(streams),
            log_starts,
            write,
            write_meta: WriteOptions::default(),
            options: options.clone(),
            session,
            time,
            domains: Domains::default(),
            work: Work::default(),
            commits: Commits::new(options.sync_interval),
            fault: Fault::default(),
            encoders: Encoders::default(),
            doubtful: AtomicBool::new(false),
            gauge: Mutex::new(gauge),
            leases: Leases::default(),
            relief: Relief::default(),
            incidents: Mutex::new(incidents),
            #[cfg(test)]
            abandoned: AtomicBool::new(false),
        };
        // Before anything is trimmed.
        log.honour_leases();
        log.begin_extent(id)?;
        log.sync_head()?;
        for stream in log.stream_list() {
            let (CursorRecord { log_start, .. }, holes) = stream.cursor_and_holes();
            let mut extents = log.extents_mut();
            for hole in holes.iter() {
                extents.keep(hole.extent, stream.id, hole.to, hole.kept.bytes);
            }
            extents.advance(stream.id, log_start);
            extents.cover(stream.id, &holes);
            drop(extents);
            log.log_starts.set(stream.id, log_start, holes);
            // Of a stream that cannot be read at all the sums tell of a loss.
            let _ = (0..SETTLE_ATTEMPTS).any(|_| log.settle_account(&stream).is_ok());
        }
        log.check_room();
        log.work.announce();
        Ok(Arc::new(log))
    }

    pub fn check_options(&self, asked: &StoreOptions) -> Result<(), StoreError> {
        let conflict = |option, open: String, asked: String| {
            Err(StoreError::Conflict { path: self.directory.path().to_owned(), option, open, asked })
        };
        let open = &self.options;
        if open.durability != asked.durability {
            let name = |durability: Durability| format!("{durability:?}").to_lowercase();
            return conflict("durability", name(open.durability), name(asked.durability));
        }
        if open.durability == Durability::Interval && open.sync_interval != asked.sync_interval {
            let ns = |interval: Duration| interval.as_nanos().to_string();
            return conflict("sync-interval", ns(open.sync_interval), ns(asked.sync_interval));
        }
        if open.recovery != asked.recovery {
            let name = |mode: RecoveryMode| format!("{mode:?}").to_lowercase();
            return conflict("recovery", name(open.recovery), name(asked.recovery));
        }
        if open.min_free_bytes != asked.min_free_bytes {
            return conflict("min-free-bytes", open.min_free_bytes.to_string(), asked.min_free_bytes.to_string());
        }
        Ok(())
    }

    /// The database, until the guard is dropped.
    ///
    /// # Errors
    ///
    /// [`StoreError::Away`] while it is being opened again.
    pub fn db(&self) -> Result<Guard<'_>, StoreError> {
        self.handle.get().ok_or_else(|| StoreError::Away { path: self.directory.path().to_owned() })
    }

    pub fn database_options(&self) -> Options {
        let mut options = store_options(self.space.memtable(), &self.log_starts);
        // Or a compaction that meets the damage would end all writing again.
        options.set_paranoid_checks(!self.doubtful.load(Ordering::Relaxed));
        options
    }

    pub fn failed(&self, source: rocksdb::Error) -> StoreError {
        if source.kind() == rocksdb::ErrorKind::Corruption {
            self.doubtful.store(true, Ordering::Relaxed);
        }
        StoreError::database(self.directory.path(), source)
    }

    pub fn extents_mut(&self) -> std::sync::RwLockWriteGuard<'_, Extents> {
        self.extents.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn extents(&self) -> std::sync::RwLockReadGuard<'_, Extents> {
        self.extents.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn stream_list(&self) -> Vec<Arc<StreamLog>> {
        lock(&self.streams).values().cloned().collect()
    }

    /// Bytes at which an extent ends.
    pub fn extent_bytes(&self) -> u64 {
        self.share.extent(self.space.memtable())
    }

    /// Lets a writer in, switching extents first when the current one is full.
    pub fn enter(&self, bytes: u64) -> Result<Ticket<'_>, StoreError> {
        self.writable()?;
        loop {
            match self.gate.enter(bytes, self.extent_bytes()) {
                Ok(ticket) => return Ok(ticket),
                Err(switch) => self.switch(switch)?,
            }
        }
    }

    /// Ends the extent: what was consumed of it is discarded, the rest is flushed in the background.
    pub fn switch(&self, switch: Switch<'_>) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        for stream in self.stream_list() {
            self.trim(&mut batch, switch.extent, &stream, 0);
        }
        self.db()?.write_opt(batch, &self.write_meta).map_err(|err| self.refused(err))?;
        let mut flush = FlushOptions::default();
        flush.set_wait(false);
        self.db()?.flush_opt(&flush).map_err(|err| self.refused(err))?;
        let next = switch.extent + 1;
        self.begin_extent(next)?;
        switch.done(next);
        self.space.refresh();
        self.work.announce();
        Ok(())
    }

    /// Begins an extent with a database that has none of it.
    pub fn begin_next_extent(&self) -> Result<(), StoreError> {
        let switch = self.gate.switch();
        let next = switch.extent + 1;
        self.begin_extent(next)?;
        self.sync_head()?;
        switch.done(next);
        self.work.announce();
        Ok(())
    }

    /// Has what tells that numbers are being given out on the disk, whatever the durability of records is: or a power cut
    /// could leave a store that gives them out again, to other records.
    pub fn sync_head(&self) -> Result<(), StoreError> {
        self.db()?.flush_wal(true).map_err(|err| self.refused(err))
    }

    /// Writes what makes an extent readable by itself, and makes it the newest.
    fn begin_extent(&self, id: u32) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        let (arrival, wall) = self.time.now();
        let header = ExtentHeader { session: self.session, boot: arrival.boot, opened_at: wall };
        batch.put(Meta::Header.key(id), schema::encode_value(&header));
        self.put_clock(&mut batch, id);
        let mut first = Vec::new();
        let mut encoder = record::Encoder::default();
        for stream in self.stream_list() {
            let (end, state) = stream.written();
            let start = StreamStart { name: stream.name.clone(), first: end.sequence, totals: end.totals };
            batch.put(Meta::Start(stream.id).key(id), schema::encode_value(&start));
            let (cursor, holes) = stream.cursor_and_holes();
            batch.put(Meta::Cursor(stream.id).key(id), schema::encode_value(&cursor));
            if !holes.is_empty() {
                batch.put(Meta::Holes(stream.id).key(id), schema::encode_value(&*holes));
            }
            // Also when nothing is in force: an extent before this one may say otherwise, and those between may go first.
            let body = Body::Snapshot(state.into_iter().collect());
            let snapshot = Header { before: end.totals, advance: 0, arrival, body };
            batch.put(schema::key(id, Lane::State(stream.id), 0), encoder.encode(&snapshot, &[]));
            first.push((stream.id, First { sequence: end.sequence, bytes: end.totals.bytes }));
        }
        self.db()?.write_opt(batch, &self.write_meta).map_err(|err| self.refused(err))?;
        self.extents_mut().push(id, arrival.boot, first);
        Ok(())
    }

    /// Writes down what is known of the clocks.
    pub fn put_clock(&self, batch: &mut WriteBatch, extent: u32) {
        let oldest = self.extents().oldest_boot().unwrap_or(0);
        batch.put(Meta::Clock.key(extent), schema::encode_value(&self.time.record(oldest)));
    }

    /// Writes the cursors and all that is in memory, and marks the store as closed in order.
    pub fn close(&self) -> Result<(), StoreError> {
        self.recover_for_good()?;
        match self.try_close() {
            Err(err) if err.is_no_space() => self.recover_for_good().and_then(|()| self.try_close()),
            other => other,
        }
    }

    fn try_close(&self) -> Result<(), StoreError> {
        self.save_cursors(true)?;
        self.save_high_water();
        let ticket = self.enter(0)?;
        let ends = self.stream_list().iter().map(|stream| (stream.id, stream.given())).collect();
        let mark = schema::encode_value(&CleanMark { ends });
        let db = self.db()?;
        db.put_opt(Meta::Clean.key(ticket.extent), mark, &self.write_meta)
            .and_then(|()| db.flush())
            .map_err(|err| self.failed(err))
    }
}

/// Options of the database with all that this log adds.
fn store_options(memtable: u64, starts: &LogStarts) -> Options {
    let mut options = database_options(memtable);
    drop_below_log_start(&mut options, starts);
    options
}

/// The database and what it holds, by the rules of the recovery mode.
fn open_and_survey(
    directory: &Directory,
    options: &StoreOptions,
    high: &HighWater,
    database: impl Fn() -> Options,
) -> Result<(DB, Survey), StoreError> {
    let path = directory.path();
    let opened = salvage::open_database(directory, options, &database)?;
    let mut found = survey(&opened.db, path, high, opened.doubtful)?;
    let mut incidents = opened.incidents;
    let mut db = opened.db;
    match (found.damage.take(), options.recovery) {
        (None, _) | (_, RecoveryMode::Salvage) => {}
        (Some(reason), RecoveryMode::Fail) => return Err(StoreError::Damaged { path: path.to_owned(), reason }),
        (Some(reason), RecoveryMode::Reset) => {
            drop(db);
            let opened = salvage::delete(directory, &reason, &database)?;
            found = survey(&opened.db, path, high, true)?;
            incidents = opened.incidents;
            db = opened.db;
        }
    }
    incidents.append(&mut found.incidents);
    Ok((db, Survey { incidents, ..found }))
}

/// Puts a record of the state lane into force.
pub fn apply_record(state: &mut record::StateMap, record: record::Record) {
    match record.body {
        Body::Snapshot(entries) => *state = entries.into_iter().collect(),
        Body::State { slot, clears } => record::apply(state, &slot, &clears, record.payload.as_ref()),
        Body::Buffer(_) | Body::Event => {}
    }
}
