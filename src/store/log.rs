//! The open database: what is in it, and the switch from one extent to the next.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rocksdb::{DB, FlushOptions, Options, ReadOptions, WriteBatch, WriteOptions};

use super::clock::{Clock, ClockRecord, SystemClock, Time};
use super::directory::Directory;
use super::domains::Domains;
use super::durability::{Commits, Durability};
use super::error::StoreError;
use super::extents::{Extents, First};
use super::fault::Fault;
use super::gate::{Gate, Switch, Ticket};
use super::handle::{Guard, Handle};
use super::health::{Space, database_options, release_ballast};
use super::highwater::{Gauge, HighWater};
use super::holes::Holes;
use super::record::{self, Body, Header, Sequence};
use super::retention::{LogStarts, drop_below_log_start};
use super::salvage::{self, Incident};
use super::schema::{self, CleanMark, CursorRecord, ExtentHeader, Lane, Meta, StreamStart, UNCLEAN_GAP};
use super::stream::{Mark, StreamLog};

/// How a store is opened. The elements that share it share these.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    pub durability: Durability,
    /// How often [`Durability::Interval`] syncs.
    pub sync_interval: Duration,
    /// Free-space floor in bytes; kept between four memtables and a quarter of the file system.
    pub min_free_bytes: u64,
    /// The most that is meant to be stored, 0 for no limit: memtables stay below an eighth of it.
    pub limit_bytes: u64,
    /// How long to wait for another process to let go of the store.
    pub lock_timeout: Duration,
    /// Tells the time; tests bring their own.
    pub clock: Arc<dyn Clock>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Crash,
            sync_interval: Duration::from_secs(1),
            min_free_bytes: 1 << 30,
            limit_bytes: 0,
            lock_timeout: Duration::from_secs(15),
            clock: Arc::new(SystemClock),
        }
    }
}

pub struct Log {
    // First, so that the database is closed before the directory is given up.
    pub handle: Handle,
    pub directory: Directory,
    pub space: Space,
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
    pub gauge: Mutex<Gauge>,
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
    changed: Condvar,
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
}

impl Work {
    pub fn announce(&self) {
        if !self.pending.swap(true, Ordering::Relaxed) {
            lock(&self.state).pending = true;
            self.changed.notify_all();
        }
    }

    pub fn stop(&self) {
        lock(&self.state).stop = true;
        self.changed.notify_all();
    }

    /// Has a whole round done now; false when it fails or takes longer than `patience`.
    pub fn run_now(&self, patience: Duration) -> bool {
        let mut state = lock(&self.state);
        state.pending = true;
        state.urgent = true;
        let wanted = state.begun + 1;
        self.changed.notify_all();
        let (state, timeout) = self
            .changed
            .wait_timeout_while(state, patience, |state| state.finished < wanted && !state.stop)
            .unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out() && state.succeeded
    }

    /// Waits for work, then lets more of it gather for `delay`, but no longer than `again` in all; false when it is time to
    /// stop. After `again` it looks in even without being called.
    pub fn wait(&self, delay: Duration, again: Option<Duration>) -> bool {
        let start = Instant::now();
        let idle = |state: &mut WorkState| !state.pending && !state.stop;
        let state = lock(&self.state);
        let state = match again {
            Some(again) => {
                self.changed.wait_timeout_while(state, again, idle).unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner),
        };
        let left = again.map_or(Duration::MAX, |again| again.saturating_sub(start.elapsed()));
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, delay.min(left), |state| !state.stop && !state.urgent)
            .unwrap_or_else(PoisonError::into_inner);
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
        self.changed.notify_all();
    }
}

/// A panic of another thread leaves numbers that are still consistent: each critical section only stores finished values.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An extent as found on the disk.
#[derive(Default)]
struct Found {
    header: Option<ExtentHeader>,
    starts: HashMap<u32, StreamStart>,
    /// `None` when the value is damaged: only the newest extent's count.
    cursors: HashMap<u32, Option<CursorRecord>>,
    clean: Option<CleanMark>,
    clock: Option<ClockRecord>,
    /// `None` when the value is damaged.
    holes: HashMap<u32, Option<Holes>>,
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
        let directory = Directory::claim(path, options.lock_timeout)?;
        let limit = (options.limit_bytes > 0).then_some(options.limit_bytes / 8);
        let space = Space::new(path, options.min_free_bytes, limit)?;
        let log_starts = LogStarts::default();
        let memtable = space.memtable();
        let opened = salvage::open_database(&directory, options, || store_options(memtable, &log_starts))?;
        let db = opened.db;
        let high = HighWater::load(path);
        let mut write = WriteOptions::default();
        write.disable_wal(options.durability == Durability::None);
        write.set_sync(options.durability == Durability::Power);

        let (found, headless) = scan(&db, path)?;
        // An extent without a head takes its number all the same.
        let last_extent = found.last().map(|f| f.0).max(headless.iter().copied().max());
        let newest = found.last();
        let session = newest.and_then(|(_, f)| f.header.as_ref()).map_or(0, |h| h.session) + 1;
        // A new store has nothing to be unclean about.
        let clean = newest.map_or(Some(CleanMark { ends: Vec::new() }), |(_, f)| f.clean.clone());
        // Damaged: ages then go by what this boot has seen.
        let clock = newest.and_then(|(_, f)| f.clock.clone()).unwrap_or_default();
        let time = Time::new(options.clock.clone(), clock);
        let mut extents = Extents::default();
        for (id, extent) in &found {
            let first = extent.starts.iter().map(|(id, s)| (*id, First { sequence: s.first, bytes: s.totals.bytes }));
            extents.push(*id, extent.header.as_ref().map_or(0, |header| header.boot), first.collect());
        }
        let mut streams = HashMap::new();
        if let Some((extent, newest)) = newest {
            for (id, start) in &newest.starts {
                let cursor = match newest.cursors.get(id) {
                    Some(Some(cursor)) => *cursor,
                    Some(None) => {
                        let reason = format!("the cursor of stream \"{}\" does not check", start.name);
                        return Err(StoreError::Damaged { path: path.to_owned(), reason });
                    }
                    None => CursorRecord::default(),
                };
                let mut holes = match newest.holes.get(id) {
                    Some(Some(holes)) => holes.clone(),
                    Some(None) => {
                        let reason = format!("the holes of stream \"{}\" do not check", start.name);
                        return Err(StoreError::Damaged { path: path.to_owned(), reason });
                    }
                    None => Holes::default(),
                };
                holes.forget(cursor.log_start);
                let (mut end, state) = tail_of(&db, path, *extent, *id, start, &cursor)?;
                // What was given up at the very end is not there to tell it.
                if let Some(hole) = holes.iter().last().filter(|hole| hole.to > end.sequence) {
                    end = Mark { sequence: hole.to, totals: hole.base.plus(hole.kept) };
                }
                match &clean {
                    Some(mark) => {
                        let given = mark.ends.iter().find(|given| given.0 == *id).map_or(0, |given| given.1);
                        end.sequence = end.sequence.max(given);
                    }
                    None => end.sequence += UNCLEAN_GAP,
                }
                streams.insert(*id, Arc::new(StreamLog::new(*id, start.name.clone(), end, state, cursor, holes)));
            }
        }
        let id = last_extent.map_or(1, |id| id + 1);
        let log = Self {
            handle: Handle::new(db),
            directory,
            space,
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
            gauge: Mutex::new(Gauge::after(&high)),
            incidents: Mutex::new(opened.incidents),
            #[cfg(test)]
            abandoned: AtomicBool::new(false),
        };
        log.begin_extent(id)?;
        log.check_headless(&headless)?;
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
        store_options(self.space.memtable(), &self.log_starts)
    }

    pub fn failed(&self, source: rocksdb::Error) -> StoreError {
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

    /// Lets a writer in, switching extents first when the current one is full.
    pub fn enter(&self, bytes: u64) -> Result<Ticket<'_>, StoreError> {
        self.writable()?;
        loop {
            match self.gate.enter(bytes, self.space.memtable()) {
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
        switch.done(next);
        self.work.announce();
        Ok(())
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
            if !state.is_empty() {
                let snapshot = Header {
                    before: end.totals,
                    advance: 0,
                    arrival,
                    body: Body::Snapshot(state.into_iter().collect()),
                };
                batch.put(schema::key(id, Lane::State(stream.id), 0), encoder.encode(&snapshot, &[]));
            }
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

    /// An extent whose removal was interrupted may have lost its head. It must hold nothing that is wanted.
    fn check_headless(&self, extents: &[u32]) -> Result<(), StoreError> {
        let streams = self.stream_list();
        let starts: HashMap<_, _> = streams.iter().map(|s| (s.id, s.cursor_and_holes())).collect();
        let db = self.db()?;
        for extent in extents {
            let mut iter = db.raw_iterator();
            iter.seek(schema::extent_start(*extent));
            while let Some((id, lane, sequence)) = iter.key().and_then(schema::parse)
                && id == *extent
            {
                if let Lane::Data(stream) = lane
                    && starts
                        .get(&stream)
                        .is_none_or(|(cursor, holes)| sequence >= cursor.log_start && holes.at(sequence).is_none())
                {
                    let reason =
                        format!("extent {extent} has no head, but data of stream {stream} that is not delivered");
                    return Err(StoreError::Damaged { path: self.directory.path().to_owned(), reason });
                }
                iter.next();
            }
            iter.status().map_err(|err| self.failed(err))?;
        }
        Ok(())
    }
}

/// Options of the database with all that this log adds.
fn store_options(memtable: u64, starts: &LogStarts) -> Options {
    let mut options = database_options(memtable);
    drop_below_log_start(&mut options, starts);
    options
}

/// Extents by number, oldest first, and the numbers of those without a head.
type Scan = (Vec<(u32, Found)>, Vec<u32>);

/// All extents, oldest first, and those without a head. Reads one meta lane each.
fn scan(db: &DB, path: &Path) -> Result<Scan, StoreError> {
    let damaged = |reason: String| StoreError::Damaged { path: path.to_owned(), reason };
    let failed = |source| StoreError::database(path, source);
    let mut extents: Vec<(u32, Found)> = Vec::new();
    let mut headless = Vec::new();
    let mut iter = db.raw_iterator();
    iter.seek(schema::extent_start(0));
    while let Some((key, value)) = iter.item() {
        let (id, lane, sequence) = schema::parse(key).ok_or_else(|| damaged("it holds a foreign key".into()))?;
        if lane != Lane::Meta {
            if extents.last().is_none_or(|last| last.0 != id) {
                headless.push(id);
            }
            match id.checked_add(1) {
                Some(next) => iter.seek(schema::extent_start(next)),
                None => break,
            }
            continue;
        }
        if extents.last().is_none_or(|last| last.0 != id) {
            extents.push((id, Found::default()));
        }
        let bad = || damaged(format!("the head of extent {id} does not check"));
        if let Some((_, found)) = extents.last_mut() {
            match Meta::from_sequence(sequence) {
                Some(Meta::Header) => found.header = Some(schema::decode_value(value).ok_or_else(bad)?),
                Some(Meta::Start(s)) => _ = found.starts.insert(s, schema::decode_value(value).ok_or_else(bad)?),
                Some(Meta::Cursor(s)) => _ = found.cursors.insert(s, schema::decode_value(value)),
                Some(Meta::Clean) => found.clean = schema::decode_value(value),
                Some(Meta::Clock) => found.clock = schema::decode_value(value),
                Some(Meta::Holes(s)) => _ = found.holes.insert(s, schema::decode_value(value)),
                None => return Err(bad()),
            }
        }
        iter.next();
    }
    iter.status().map_err(failed)?;
    headless.extend(extents.iter().filter(|(_, found)| found.header.is_none()).map(|(id, _)| *id));
    extents.retain(|(_, found)| found.header.is_some());
    Ok((extents, headless))
}

/// Where a stream ends in the newest extent, and the state in force there.
fn tail_of(
    db: &DB,
    path: &Path,
    extent: u32,
    stream: u32,
    start: &StreamStart,
    cursor: &CursorRecord,
) -> Result<(Mark, record::StateMap), StoreError> {
    let failed = |source| StoreError::database(path, source);
    let mut end = Mark { sequence: start.first.max(1), totals: start.totals };
    if cursor.position > end.sequence {
        end = Mark { sequence: cursor.position, totals: cursor.totals };
    }
    let bounded = |lane| {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(schema::key(extent, lane, 0).to_vec());
        options.set_iterate_upper_bound(schema::key(extent, lane, Sequence::MAX).to_vec());
        db.raw_iterator_opt(options)
    };
    let mut last = bounded(Lane::Data(stream));
    last.seek_to_last();
    // A damaged last record still takes its number; the one before it tells the sums.
    let mut taken = 0;
    while let Some((key, value)) = last.item() {
        let sequence = schema::parse(key).map_or(0, |k| k.2);
        taken = taken.max(sequence + 1);
        if sequence < end.sequence {
            break;
        }
        if let Ok(record) = record::decode(sequence, value.to_vec()) {
            end = Mark { sequence: sequence + 1, totals: record.after() };
            break;
        }
        last.prev();
    }
    last.status().map_err(failed)?;
    let mut state = record::StateMap::new();
    let mut iter = bounded(Lane::State(stream));
    iter.seek_to_first();
    while let Some((key, value)) = iter.item() {
        let sequence = schema::parse(key).map_or(0, |k| k.2);
        if let Ok(record) = record::decode(sequence, value.to_vec()) {
            if sequence >= end.sequence {
                end = Mark { sequence: sequence + 1, totals: record.after() };
            }
            apply_record(&mut state, record);
        }
        iter.next();
    }
    iter.status().map_err(failed)?;
    end.sequence = end.sequence.max(taken);
    Ok((end, state))
}

/// Puts a record of the state lane into force.
pub fn apply_record(state: &mut record::StateMap, record: record::Record) {
    match record.body {
        Body::Snapshot(entries) => *state = entries.into_iter().collect(),
        Body::State { slot, clears } => record::apply(state, &slot, &clears, record.payload.as_ref()),
        Body::Buffer(_) | Body::Event => {}
    }
}
