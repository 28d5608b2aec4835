//! One stream of a store: append, cursor, handles. How it is read is in `reader`.
//!
//! One writer at a time (the streaming thread that feeds it), one reader, anybody for the levels. Appending takes no lock
//! while the disk works.

use std::mem;
use std::ops::RangeBounds;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rocksdb::WriteBatch;

use super::Store;
use super::age::{Retention, Start};
use super::clock::Arrival;
use super::durability::Durability;
use super::error::StoreError;
use super::highwater::High;
use super::holes::{Hole, Holes};
use super::log::{Log, lock};
use super::reader::Quiet;
use super::record::{self, Body, Clears, Encoder, Header, Record, Sequence, Slot, StateMap, Sync, Totals};
use super::salvage::Incident;
use super::schema::{self, Count, CursorRecord, IndexEntry, Lane, MAX_STREAMS, Meta, StreamStart};

/// Index entries are at least this far apart, in time or in bytes.
const INDEX_INTERVAL: u64 = 1_000_000_000;
const INDEX_BYTES: u64 = 1 << 20;

/// Room that an entry takes besides its payload; for the size of extents only.
const OVERHEAD: u64 = 128;
/// An encoder keeps what ordinary records need.
const ENCODER_KEEP: usize = 4 << 20;
/// How long a caller waits for the disk to take the cursors.
const PATIENCE: Duration = Duration::from_millis(400);

/// A position in a stream and the sums of all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    pub sequence: Sequence,
    pub totals: Totals,
}

/// Where and when records are appended.
#[derive(Clone, Copy)]
struct Place {
    extent: u32,
    at: Mark,
    arrival: Arrival,
}

/// A record to be appended.
pub struct NewRecord<'a> {
    pub body: Body,
    /// In pieces, so that scattered memory needs no merging.
    pub payload: &'a [&'a [u8]],
    /// Media time in ns that it adds.
    pub advance: u64,
}

impl NewRecord<'_> {
    /// What it adds to the sums.
    pub fn contribution(&self) -> Totals {
        record::contribution(&self.body, payload_len(self.payload), self.advance)
    }
}

/// Looks after a stream while the store is open: called by the thread that tends the log, with no lock held.
pub trait Tender: Send + std::marker::Sync {
    /// One round; after how long the next one is wanted at the latest.
    fn tend(&self) -> Option<Duration>;
}

/// The tender of a stream and when it wants to be called.
#[derive(Default)]
struct Tended {
    tender: Option<Arc<dyn Tender>>,
    due: Option<Instant>,
}

/// Records in order, and where to go on.
#[derive(Debug, Default)]
pub struct Chunk {
    pub records: Vec<Record>,
    /// Records that did not check and were left out.
    pub damaged: Vec<Sequence>,
    /// Stretches, both ends included, of which nothing could be read. Records may or may not have been there: the sums of the
    /// next record tell.
    pub unreadable: Vec<(Sequence, Sequence)>,
    /// Where the next read begins; `None` when nothing more is stored.
    pub next: Option<Sequence>,
    /// Where the stream ended when reading began: what was appended since may be missing here.
    pub end: Sequence,
}

impl Chunk {
    pub fn skip(&mut self, stretches: Vec<(Sequence, Sequence)>) {
        let end = stretches.iter().map(|stretch| stretch.1.saturating_add(1)).max();
        self.next = self.next.max(end);
        self.unreadable.extend(stretches);
    }
}

/// The part of a stream that lives as long as the log.
pub struct StreamLog {
    pub id: u32,
    pub name: String,
    pub(super) attached: AtomicBool,
    /// Everything below is written: a reader goes no further, or it could overtake a record that is on its way.
    pub(super) committed: AtomicU64,
    /// Everything below survives a power cut.
    durable: AtomicU64,
    writer: Mutex<Writer>,
    pub(super) progress: Mutex<Progress>,
    tended: Mutex<Tended>,
    /// For readers.
    pub(super) quiet: Quiet,
}

struct Writer {
    /// After the last record that is stored.
    end: Mark,
    /// The same before what is being stored late: the cursor does not know of that yet.
    settled: Option<Mark>,
    /// After the last number that was given out.
    given: Sequence,
    /// In force at the end.
    state: StateMap,
    /// The state changed by what is not stored: it has to be written down as a whole before the next record.
    state_unwritten: bool,
    /// Changes by what may be on its way to the disk, or comes after that: they have no place before it.
    held_back: Vec<Change>,
    appending: bool,
    /// Boot time and bytes at the last index entry.
    indexed: Option<(u64, Totals)>,
}

/// A change of state by a record that memory alone had.
struct Change {
    sequence: Sequence,
    slot: Slot,
    clears: Clears,
    value: Vec<u8>,
}

impl Change {
    fn apply(&self, state: &mut StateMap) {
        record::apply(state, &self.slot, &self.clears, &self.value);
    }
}

impl Writer {
    /// With all changes.
    fn state_in_force(&self) -> StateMap {
        let mut state = self.state.clone();
        self.held_back.iter().for_each(|change| change.apply(&mut state));
        state
    }

    /// Changes by what has numbers in `range` come into force.
    fn settle(&mut self, range: impl RangeBounds<Sequence>) {
        for change in self.held_back.extract_if(.., |change| range.contains(&change.sequence)) {
            change.apply(&mut self.state);
            self.state_unwritten = true;
        }
    }
}

#[derive(Default)]
pub(super) struct Progress {
    pub cursor: CursorRecord,
    pub dirty: bool,
    trimmed: Trimmed,
    pub retention: Retention,
    pub start: Start,
    /// What the slowest consumer with a valid lease has to be fed from when it comes back.
    pub held: Option<Sequence>,
    /// The owner has said what is to be kept, or has moved the cursor, since it took the stream.
    pub settled: bool,
    pub holes: Arc<Holes>,
    pub holes_dirty: bool,
    /// How many were cut.
    pub cuts: u64,
    /// Holes of which the records in the newest extent are not covered yet.
    pub fresh: Vec<Hole>,
}

/// What is written down of a stream when its cursor is.
pub struct Head {
    pub cursor: CursorRecord,
    /// When they changed.
    pub holes: Option<Arc<Holes>>,
    pub fresh: Vec<Hole>,
}

impl Progress {
    /// Without retention, and with nobody who needs more, the log start is the resume point.
    pub fn settle_log_start(&mut self) {
        let resume = self.cursor.resume;
        if !self.retention.keeps_delivered() && self.held.is_none_or(|held| held >= resume) {
            self.cursor.log_start = self.cursor.resume;
            self.cursor.log_start_bytes = self.cursor.totals.bytes;
        }
    }

    /// The cursor, and the holes with it: sums of the one hold with the other only.
    fn take_head(&mut self) -> Head {
        let start = self.cursor.log_start;
        if self.holes.has_below(start) {
            Arc::make_mut(&mut self.holes).forget(start);
            self.holes_dirty = true;
        }
        let holes = mem::take(&mut self.holes_dirty).then(|| self.holes.clone());
        Head { cursor: self.cursor, holes, fresh: mem::take(&mut self.fresh) }
    }

    /// Puts a hole in, with the cursor as it is after it.
    pub fn cut(&mut self, hole: Hole, cursor: &CursorRecord) {
        let CursorRecord { log_start, log_start_bytes, max_age, .. } = self.cursor;
        self.cursor = CursorRecord { log_start, log_start_bytes, max_age, ..*cursor };
        Arc::make_mut(&mut self.holes).cut(hole);
        self.fresh.push(hole);
        self.cuts += 1;
        self.holes_dirty = true;
        self.dirty = true;
    }
}

/// How far the newest extent was trimmed.
#[derive(Clone, Copy, Default)]
pub struct Trimmed {
    pub sequence: Sequence,
    /// Bytes before it, or before the cursor, then.
    pub bytes: u64,
}

impl StreamLog {
    pub fn new(id: u32, name: String, end: Mark, state: StateMap, cursor: CursorRecord, holes: Holes) -> Self {
        Self {
            id,
            name,
            attached: AtomicBool::new(false),
            committed: AtomicU64::new(end.sequence),
            // An open writes all that it finds to files.
            durable: AtomicU64::new(end.sequence),
            writer: Mutex::new(Writer {
                end,
                settled: None,
                given: end.sequence,
                state,
                state_unwritten: false,
                held_back: Vec::new(),
                appending: false,
                indexed: None,
            }),
            progress: Mutex::new(Progress { cursor, holes: Arc::new(holes), ..Progress::default() }),
            tended: Mutex::default(),
            quiet: Quiet::default(),
        }
    }

    /// Calls the tender if it is time; after how long it has to be called again.
    pub fn tend(&self) -> Option<Duration> {
        let now = Instant::now();
        let tender = {
            let tended = lock(&self.tended);
            let due = tended.due?;
            if due > now {
                return Some(due - now);
            }
            tended.tender.clone()?
        };
        let wanted = tender.tend();
        let mut tended = lock(&self.tended);
        tended.due = wanted.filter(|_| tended.tender.is_some()).map(|wanted| Instant::now() + wanted);
        tended.due.and(wanted)
    }

    pub fn cursor(&self) -> CursorRecord {
        lock(&self.progress).cursor
    }

    /// What lies before the cursor has these sums.
    pub fn count_delivered(&self, sums: Totals) {
        let mut progress = lock(&self.progress);
        let more = sums.since(progress.cursor.totals);
        if more.buffers > 0 {
            let cursor = &mut progress.cursor;
            cursor.totals = cursor.totals.plus(more);
            // What was not delivered from memory was given up there.
            let Count { buffers, bytes } = cursor.ledger.bypassed;
            let delivered = Totals { buffers: more.buffers.min(buffers), bytes: more.bytes.min(bytes), ..more };
            let dropped = Totals { time: 0, ..more.since(delivered) };
            cursor.ledger.delivered.add(delivered);
            cursor.ledger.bypassed.subtract(delivered);
            cursor.ledger.dropped.add(dropped);
            cursor.ledger.rejected.subtract(dropped);
            progress.dirty = true;
        }
    }

    /// What consumers need from now on.
    pub fn hold(&self, held: Option<Sequence>) {
        lock(&self.progress).held = held;
    }

    /// After the last number that was given out.
    pub fn given(&self) -> Sequence {
        lock(&self.writer).given
    }

    /// End of what is stored and state in force there, for the head of an extent.
    pub fn written(&self) -> (Mark, StateMap) {
        let writer = lock(&self.writer);
        (writer.end, writer.state.clone())
    }

    /// The state in force at `sequence` if nothing stored comes after it: what is not stored may have changed it.
    pub fn state_at_end(&self, sequence: Sequence) -> Option<StateMap> {
        let writer = lock(&self.writer);
        (sequence >= writer.end.sequence).then(|| writer.state_in_force())
    }

    pub fn committed(&self) -> Sequence {
        self.committed.load(Ordering::Acquire)
    }

    pub fn set_durable(&self, sequence: Sequence) {
        self.durable.fetch_max(sequence, Ordering::Relaxed);
    }

    /// Where it stands, for the high-water file.
    pub fn high(&self) -> High {
        let progress = lock(&self.progress);
        let (cursor, holes) = (progress.cursor, progress.holes.clone());
        let writer = lock(&self.writer);
        let (Mark { sequence: end, totals }, given) = (writer.settled.unwrap_or(writer.end), writer.given);
        High { id: self.id, name: self.name.clone(), end, totals, given, cursor, holes: Holes::clone(&holes) }
    }

    pub fn written_mark(&self) -> Mark {
        lock(&self.writer).end
    }

    pub fn is_dirty(&self) -> bool {
        lock(&self.progress).dirty
    }

    /// Cursor and holes if they changed since they were last taken.
    pub fn take_dirty(&self) -> Option<Head> {
        let mut progress = lock(&self.progress);
        mem::take(&mut progress.dirty).then(|| progress.take_head())
    }

    /// The head could not be saved after all.
    pub fn put_back(&self, head: Head) {
        let mut progress = lock(&self.progress);
        progress.dirty = true;
        progress.holes_dirty |= head.holes.is_some();
        progress.fresh.extend(head.fresh);
    }

    /// Something is to be saved although nothing changed.
    pub fn set_dirty(&self) {
        lock(&self.progress).dirty = true;
    }

    pub fn holes(&self) -> Arc<Holes> {
        lock(&self.progress).holes.clone()
    }

    /// All that was kept of what was given up is gone.
    pub fn forget_holes(&self) {
        let mut progress = lock(&self.progress);
        progress.holes = Arc::default();
        progress.holes_dirty = true;
        progress.cuts += 1;
    }

    pub fn holes_and_cuts(&self) -> (Arc<Holes>, u64) {
        let progress = lock(&self.progress);
        (progress.holes.clone(), progress.cuts)
    }

    /// Cursor and holes as they are, of the same moment.
    pub fn cursor_and_holes(&self) -> (CursorRecord, Arc<Holes>) {
        let progress = lock(&self.progress);
        (progress.cursor, progress.holes.clone())
    }

    /// The bytes of the purged holes in these stretches are gone from the disk.
    pub fn set_erased(&self, which: &[(Sequence, Sequence)]) {
        let mut progress = lock(&self.progress);
        Arc::make_mut(&mut progress.holes).set_erased(which);
        progress.holes_dirty = true;
        progress.dirty = true;
    }

    /// Exchanges the trim mark when the log start is `min_bytes` past it: where it was, and the cursor to which it moved.
    pub fn begin_trim(&self, min_bytes: u64) -> Option<(Sequence, Head)> {
        let mut progress = lock(&self.progress);
        let CursorRecord { log_start, log_start_bytes, .. } = progress.cursor;
        let trimmed = progress.trimmed;
        let due = log_start > trimmed.sequence && log_start_bytes >= trimmed.bytes + min_bytes;
        due.then(|| {
            progress.trimmed = Trimmed { sequence: log_start, bytes: log_start_bytes };
            (trimmed.sequence, progress.take_head())
        })
    }
}

/// The handle of whoever writes and reads a stream. One at a time; gives the stream free when dropped.
pub struct Stream {
    store: Store,
    stream: Arc<StreamLog>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        *lock(&self.stream.tended) = Tended::default();
        self.stream.attached.store(false, Ordering::Release);
    }
}

impl Stream {
    pub(super) fn attach(store: Store, name: &str) -> Result<Self, StoreError> {
        let log = store.log();
        let path = || log.directory.path().to_owned();
        let in_use = || StoreError::StreamInUse { path: path(), stream: name.to_owned() };
        let stream = {
            let mut streams = lock(&log.streams);
            match streams.values().find(|s| s.name == name) {
                Some(stream) if stream.attached.load(Ordering::Relaxed) => return Err(in_use()),
                Some(stream) => {
                    stream.attached.store(true, Ordering::Relaxed);
                    let mut progress = lock(&stream.progress);
                    progress.retention = Retention::default();
                    progress.settled = false;
                    drop(progress);
                    stream.clone()
                }
                None => {
                    let id = streams.keys().max().map_or(1, |id| id + 1);
                    if id >= MAX_STREAMS {
                        return Err(StoreError::TooManyStreams { path: path() });
                    }
                    let end = Mark { sequence: 1, totals: Totals::default() };
                    let cursor = CursorRecord { position: 1, resume: 1, log_start: 1, ..CursorRecord::default() };
                    let stream =
                        Arc::new(StreamLog::new(id, name.to_owned(), end, StateMap::new(), cursor, Holes::default()));
                    stream.attached.store(true, Ordering::Relaxed);
                    streams.insert(id, stream.clone());
                    stream
                }
            }
        };
        let this = Self { store, stream };
        if !this.log().extents().knows(this.stream.id) {
            this.announce()?;
        }
        Ok(this)
    }

    /// Makes a new stream known in the newest extent; a switch that comes in between has done it already.
    fn announce(&self) -> Result<(), StoreError> {
        let log = self.log();
        let ticket = log.enter(OVERHEAD)?;
        let start = StreamStart { name: self.stream.name.clone(), first: 1, totals: Totals::default() };
        let mut batch = WriteBatch::default();
        batch.put(Meta::Start(self.stream.id).key(ticket.extent), schema::encode_value(&start));
        batch.put(Meta::Cursor(self.stream.id).key(ticket.extent), schema::encode_value(&self.stream.cursor()));
        log.db()?.write_opt(batch, &log.write_meta).map_err(|err| log.refused(err))?;
        log.sync_head()?;
        let first = super::extents::First { sequence: 1, bytes: 0 };
        log.extents_mut().add_stream(self.stream.id, first);
        Ok(())
    }

    pub(super) fn log(&self) -> &Log {
        self.store.log()
    }

    pub(super) fn parts(&self) -> (&Log, &StreamLog) {
        (self.store.log(), &self.stream)
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn name(&self) -> &str {
        &self.stream.name
    }

    /// The sums at the end, and the next number to be given out.
    pub fn end(&self) -> Mark {
        let writer = lock(&self.stream.writer);
        Mark { sequence: writer.given, totals: writer.end.totals }
    }

    /// How many stretches were thinned or purged: sums that were read before another was may not hold any more.
    pub fn cuts(&self) -> u64 {
        self.stream.holes_and_cuts().1
    }

    /// Has `tender` called from now on, until this handle is dropped.
    pub fn set_tender(&self, tender: Arc<dyn Tender>) {
        *lock(&self.stream.tended) = Tended { tender: Some(tender), due: Some(Instant::now()) };
        self.log().work.announce();
    }

    /// What the openers of this stream have not been told yet, with what concerns the store as a whole.
    pub fn take_incidents(&self) -> Vec<Incident> {
        let mut incidents = lock(&self.log().incidents);
        let ours = |incident: &mut Incident| incident.stream.as_ref().is_none_or(|stream| *stream == self.stream.name);
        incidents.extract_if(.., ours).collect()
    }

    /// The state in force at the end.
    #[cfg(test)]
    pub fn state(&self) -> StateMap {
        lock(&self.stream.writer).state_in_force()
    }

    /// Everything below survives a power cut. Exact with [`Durability::Power`] and [`Durability::Interval`]; with the others
    /// what was synced or flushed last.
    pub fn durable(&self) -> Sequence {
        self.stream.durable.load(Ordering::Relaxed)
    }

    pub fn cursor(&self) -> CursorRecord {
        self.stream.cursor()
    }

    /// Keeps delivered data for replay and sets the age at which data goes. To be called before the cursor is first moved:
    /// until then nothing is kept that was delivered.
    pub fn set_retention(&self, retention: Retention) {
        let mut progress = lock(&self.stream.progress);
        progress.retention = retention;
        progress.cursor.max_age = u64::try_from(retention.max_age.as_nanos()).unwrap_or(u64::MAX);
        progress.start = Start::default();
        progress.settled = true;
        progress.settle_log_start();
        progress.dirty = true;
        drop(progress);
        self.log().work.announce();
    }

    /// Where pending data would have to begin for nothing to be older than `max_age`: the first sync point that is young
    /// enough, the end when there is none; `None` when nothing is too old. Looks from the resume point on, so the answer may
    /// lie before the cursor: [`CursorRecord::skip`] does what is right then too.
    ///
    /// # Errors
    ///
    /// The disk could not be read.
    pub fn expired_until(&self, max_age: Duration) -> Result<Option<Mark>, StoreError> {
        self.log().expired_until(&self.stream, max_age)
    }

    /// How long ago the oldest pending record came; `None` when nothing is pending.
    ///
    /// # Errors
    ///
    /// The disk could not be read.
    pub fn oldest_pending_age(&self) -> Result<Option<Duration>, StoreError> {
        let arrival = self.log().view(&self.stream).arrival_at(self.cursor().position)?;
        Ok(arrival.map(|arrival| self.log().time.age(arrival)))
    }

    /// When a record came: ns since 1970, corrected for steps of the clock since, and whether that clock was synchronised.
    /// Of a boot that nothing is known of it is what the machine `believed` then.
    pub fn captured_at(&self, arrival: Arrival, believed: i64) -> (i64, bool) {
        self.log().time.corrected(arrival).unwrap_or((believed, false))
    }

    /// How long ago a record came; steps of the clock do not change it.
    #[cfg(test)]
    pub fn age(&self, arrival: Arrival) -> Duration {
        self.log().time.age(arrival)
    }

    /// Moves the cursor; it is saved within 100 ms. What lies before its `resume` may be gone from then on, unless
    /// [`Stream::set_retention`] keeps it.
    pub fn set_cursor(&self, cursor: CursorRecord) {
        self.move_cursor(lock(&self.stream.progress), cursor);
    }

    /// The same after [`Stream::append_late`]: it counts now as what became of it.
    pub fn settle(&self, cursor: CursorRecord) {
        let progress = lock(&self.stream.progress);
        lock(&self.stream.writer).settled = None;
        self.move_cursor(progress, cursor);
    }

    fn move_cursor(&self, mut progress: MutexGuard<'_, Progress>, cursor: CursorRecord) {
        if progress.cursor == cursor {
            return;
        }
        // What lies before a resume may be gone: it never goes back.
        let resume = cursor.resume.max(progress.cursor.resume);
        let CursorRecord { log_start, log_start_bytes, max_age, .. } = progress.cursor;
        progress.cursor = CursorRecord { resume, log_start, log_start_bytes, max_age, ..cursor };
        progress.settled = true;
        progress.settle_log_start();
        progress.dirty = true;
        drop(progress);
        self.log().work.announce();
    }

    /// Whether the cursor is saved as it was set, or is being saved before any that is set from now on.
    pub fn is_cursor_saved(&self) -> bool {
        !self.stream.is_dirty()
    }

    /// Numbers below `sequence` are given out, to records that are not stored, or not yet.
    pub fn give_out(&self, sequence: Sequence) {
        let mut writer = lock(&self.stream.writer);
        writer.given = writer.given.max(sequence);
    }

    /// A change of state by a record that memory alone had and has given up comes into force before the next record that is
    /// stored; if what comes from `storing` on is about to be stored, after that.
    pub fn change_state(
        &self,
        sequence: Sequence,
        (slot, clears, value): (&Slot, &Clears, &[u8]),
        storing: Option<Sequence>,
    ) {
        let mut writer = lock(&self.stream.writer);
        if sequence < writer.end.sequence {
            // It was stored meanwhile.
            return;
        }
        let (slot, clears, value) = (slot.clone(), clears.clone(), value.to_vec());
        writer.held_back.push(Change { sequence, slot, clears, value });
        if !writer.appending && storing.is_none_or(|from| sequence < from) {
            writer.settle(..=sequence);
        }
    }

    /// Appends what the cursor may have passed already. What counts as bypassed in it is not counted as stored too before
    /// [`Stream::settle`] says what became of it.
    ///
    /// # Errors
    ///
    /// As those of [`Stream::append`].
    pub fn append_late(&self, first: Sequence, records: &[NewRecord<'_>]) -> Result<Mark, StoreError> {
        {
            let mut writer = lock(&self.stream.writer);
            writer.settled = Some(writer.end);
        }
        self.append(first, records)
    }

    /// Appends the records as one: after a crash all of them are there or none. The first gets the number `first`, which
    /// lies behind all that is stored, the others those that follow. What lies between was given to records that are not
    /// stored.
    ///
    /// # Errors
    ///
    /// Nothing was accepted. The same records may be appended again with the same numbers.
    pub fn append(&self, first: Sequence, records: &[NewRecord<'_>]) -> Result<Mark, StoreError> {
        let start = Instant::now();
        let log = self.log();
        let bytes: u64 = records.iter().map(|r| payload_len(r.payload) as u64 + OVERHEAD).sum();
        let arrival = log.time.arrival();
        if log.time.is_unsaved() {
            log.work.announce();
        }
        let ticket = match log.accepts().and_then(|()| log.enter(bytes)) {
            Ok(ticket) => ticket,
            Err(error) => {
                // The numbers are given out all the same.
                let mut writer = lock(&self.stream.writer);
                writer.given = writer.given.max(first.max(writer.end.sequence) + records.len() as u64);
                writer.settle(..);
                return Err(error);
            }
        };

        let mut writer = lock(&self.stream.writer);
        let before = Mark { sequence: first.max(writer.end.sequence), totals: writer.end.totals };
        let index = self.index_entries(&mut writer, before, arrival, records);
        writer.settle(..before.sequence);
        let whole = writer.state_unwritten.then(|| writer.state.clone());
        let stored = writer.end.sequence;
        writer.given = writer.given.max(before.sequence + records.len() as u64);
        writer.appending = true;
        drop(writer);

        let mut encoder = log.encoders.take();
        let snapshot = whole.map(|state| (before.sequence.saturating_sub(1).max(stored), state));
        let written =
            self.write(Place { extent: ticket.extent, at: before, arrival }, records, &index, snapshot, &mut encoder);
        log.encoders.give_back(encoder, ENCODER_KEEP);
        let mut writer = lock(&self.stream.writer);
        writer.appending = false;
        match &written {
            Ok(end) => {
                writer.state_unwritten = false;
                writer.settle(..before.sequence);
                for record in records {
                    if let Body::State { slot, clears } = &record.body {
                        record::apply(&mut writer.state, slot, clears, &record.payload.concat());
                    }
                }
                writer.end = *end;
                // What is among the records says so itself.
                writer.settle(end.sequence..);
                writer.held_back.clear();
                self.stream.committed.store(end.sequence, Ordering::Release);
                if log.options.durability == Durability::Power {
                    self.stream.set_durable(end.sequence);
                }
            }
            Err(_) => {
                writer.indexed = None;
                writer.settle(..);
            }
        }
        drop(writer);
        // Not before: a switch of extents writes down what the writer says.
        drop(ticket);
        if written.is_ok() && log.commits.appended(start) {
            log.work.announce();
        }
        written
    }

    fn write(
        &self,
        place: Place,
        records: &[NewRecord<'_>],
        index: &[(Sequence, IndexEntry)],
        snapshot: Option<(Sequence, StateMap)>,
        encoder: &mut Encoder,
    ) -> Result<Mark, StoreError> {
        let (log, id) = (self.log(), self.stream.id);
        let Place { extent, mut at, arrival } = place;
        let db = log.db()?;
        let several = records.len() > 1 || !index.is_empty() || snapshot.is_some();
        let mut batch = several.then(WriteBatch::default);
        if let (Some(batch), Some((sequence, state))) = (&mut batch, snapshot) {
            let body = Body::Snapshot(state.into_iter().collect());
            let header = Header { before: at.totals, advance: 0, arrival, body };
            batch.put(schema::key(extent, Lane::State(id), sequence), encoder.encode(&header, &[]));
        }
        for record in records {
            let lane = match record.body {
                Body::State { .. } | Body::Snapshot(_) => Lane::State(id),
                Body::Buffer(_) | Body::Event => Lane::Data(id),
            };
            let header = Header { before: at.totals, advance: record.advance, arrival, body: record.body.clone() };
            let bytes = encoder.encode(&header, record.payload);
            let key = schema::key(extent, lane, at.sequence);
            match &mut batch {
                Some(batch) => batch.put(key, bytes),
                None => db.put_opt(key, bytes, &log.write).map_err(|err| log.refused(err))?,
            }
            at.sequence += 1;
            at.totals = at.totals.plus(record.contribution());
        }
        if let Some(mut batch) = batch {
            for (sequence, entry) in index {
                batch.put(schema::key(extent, Lane::Index(id), *sequence), schema::encode_value(entry));
            }
            db.write_opt(batch, &log.write).map_err(|err| log.refused(err))?;
        }
        Ok(at)
    }

    /// Index entries that are due with these records.
    fn index_entries(
        &self,
        writer: &mut Writer,
        mut at: Mark,
        arrival: Arrival,
        records: &[NewRecord<'_>],
    ) -> Vec<(Sequence, IndexEntry)> {
        let mut entries = Vec::new();
        for record in records {
            if let Body::Buffer(header) = &record.body
                && header.sync != Sync::None
            {
                let now = arrival.time;
                // What comes faster than it plays is dropped by its own time.
                let due = writer.indexed.is_none_or(|(time, totals)| {
                    now >= time + INDEX_INTERVAL
                        || at.totals.time >= totals.time + INDEX_INTERVAL
                        || at.totals.bytes >= totals.bytes + INDEX_BYTES
                });
                if due {
                    writer.indexed = Some((now, at.totals));
                    let entry = IndexEntry {
                        totals: at.totals,
                        sync: header.sync,
                        running_time: header.running_time,
                        captured_at: header.captured_at,
                        arrival,
                    };
                    entries.push((at.sequence, entry));
                }
            }
            at.sequence += 1;
            at.totals = at.totals.plus(record.contribution());
        }
        entries
    }

    /// Whether the disk takes data.
    pub fn probe(&self) -> bool {
        // With nothing to write the disk would not be asked.
        self.stream.set_dirty();
        self.log().fault.hurry();
        self.log().work.run_now(PATIENCE)
    }

    /// Saves the cursor now and not in 100 ms; false when the disk refuses or is slow.
    pub fn save_cursor(&self) -> bool {
        self.log().work.run_now(PATIENCE)
    }
}

fn payload_len(payload: &[&[u8]]) -> usize {
    payload.iter().map(|part| part.len()).sum()
}
