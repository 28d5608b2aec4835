//! One stream of a store: append, read, state as of a position, cursor.
//!
//! One writer at a time (the streaming thread that feeds it), one reader, anybody for the levels. Appending takes no lock
//! while the disk works.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rocksdb::WriteBatch;

use super::Store;
use super::durability::Durability;
use super::error::StoreError;
use super::extents::Span;
use super::highwater::High;
use super::log::{Log, boot_time, lock};
use super::record::{self, Body, Clears, Encoder, Header, Record, Sequence, Slot, StateMap, Sync, Totals};
use super::salvage::Incident;
use super::schema::{self, CursorRecord, IndexEntry, Lane, MAX_STREAMS, Meta, StreamStart};
use super::survey::state_before;
use super::walk::Walk;

/// Index entries are at least this far apart, in time or in bytes.
const INDEX_INTERVAL: u64 = 1_000_000_000;
const INDEX_BYTES: u64 = 1 << 20;

/// Room that an entry takes besides its payload; for the size of extents only.
const OVERHEAD: u64 = 128;
/// An encoder keeps what ordinary records need.
const ENCODER_KEEP: usize = 4 << 20;
/// How long a caller waits for the disk to take the cursors.
const PATIENCE: Duration = Duration::from_millis(400);
/// Extents that a reader looks at in one go.
const SPANS: usize = 64;

/// A position in a stream and the sums of all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    pub sequence: Sequence,
    pub totals: Totals,
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
}

impl Chunk {
    fn skip(&mut self, stretches: Vec<(Sequence, Sequence)>) {
        let end = stretches.iter().map(|stretch| stretch.1.saturating_add(1)).max();
        self.next = self.next.max(end);
        self.unreadable.extend(stretches);
    }
}

/// The part of a stream that lives as long as the log.
pub struct StreamLog {
    pub id: u32,
    pub name: String,
    attached: AtomicBool,
    /// Everything below is written: a reader goes no further, or it could overtake a record that is on its way.
    committed: AtomicU64,
    /// Everything below survives a power cut.
    durable: AtomicU64,
    writer: Mutex<Writer>,
    progress: Mutex<Progress>,
    tended: Mutex<Tended>,
}

struct Writer {
    /// After the last record that is stored.
    end: Mark,
    /// After the last number that was given out.
    given: Sequence,
    /// In force at the end.
    state: StateMap,
    /// The state changed by what is not stored: it has to be written down as a whole before the next record.
    state_unwritten: bool,
    encoder: Encoder,
    /// Boot time and bytes at the last index entry.
    indexed: Option<(u64, u64)>,
}

struct Progress {
    cursor: CursorRecord,
    dirty: bool,
    trimmed: Trimmed,
}

/// How far the newest extent was trimmed.
#[derive(Clone, Copy, Default)]
pub struct Trimmed {
    pub sequence: Sequence,
    /// Bytes before the cursor then.
    pub bytes: u64,
}

impl StreamLog {
    pub fn new(id: u32, name: String, end: Mark, state: StateMap, cursor: CursorRecord) -> Self {
        Self {
            id,
            name,
            attached: AtomicBool::new(false),
            committed: AtomicU64::new(end.sequence),
            // An open writes all that it finds to files.
            durable: AtomicU64::new(end.sequence),
            writer: Mutex::new(Writer {
                end,
                given: end.sequence,
                state,
                state_unwritten: false,
                encoder: Encoder::default(),
                indexed: None,
            }),
            progress: Mutex::new(Progress { cursor, dirty: false, trimmed: Trimmed::default() }),
            tended: Mutex::default(),
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

    /// After the last number that was given out.
    pub fn given(&self) -> Sequence {
        lock(&self.writer).given
    }

    /// End of what is stored and state in force there, for the head of an extent.
    pub fn written(&self) -> (Mark, StateMap) {
        let writer = lock(&self.writer);
        (writer.end, writer.state.clone())
    }

    pub fn committed(&self) -> Sequence {
        self.committed.load(Ordering::Acquire)
    }

    pub fn set_durable(&self, sequence: Sequence) {
        self.durable.fetch_max(sequence, Ordering::Relaxed);
    }

    /// Where it stands, for the high-water file.
    pub fn high(&self) -> High {
        let cursor = self.cursor();
        let writer = lock(&self.writer);
        let (end, given) = (writer.end, writer.given);
        High { id: self.id, name: self.name.clone(), end: end.sequence, totals: end.totals, given, cursor }
    }

    pub fn is_dirty(&self) -> bool {
        lock(&self.progress).dirty
    }

    /// The cursor if it moved since it was last taken.
    pub fn take_dirty(&self) -> Option<CursorRecord> {
        let mut progress = lock(&self.progress);
        mem::take(&mut progress.dirty).then_some(progress.cursor)
    }

    /// The cursor could not be saved after all.
    pub fn set_dirty(&self) {
        lock(&self.progress).dirty = true;
    }

    /// Exchanges the trim mark when the cursor is `min_bytes` past it: where it was, and the cursor to which it moved.
    pub fn begin_trim(&self, min_bytes: u64) -> Option<(Sequence, CursorRecord)> {
        let mut progress = lock(&self.progress);
        let Progress { cursor, trimmed, .. } = &mut *progress;
        let due = cursor.resume > trimmed.sequence && cursor.totals.bytes >= trimmed.bytes + min_bytes;
        due.then(|| {
            let from = mem::replace(trimmed, Trimmed { sequence: cursor.resume, bytes: cursor.totals.bytes });
            (from.sequence, *cursor)
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
                    stream.clone()
                }
                None => {
                    let id = streams.keys().max().map_or(1, |id| id + 1);
                    if id >= MAX_STREAMS {
                        return Err(StoreError::TooManyStreams { path: path() });
                    }
                    let end = Mark { sequence: 1, totals: Totals::default() };
                    let cursor = CursorRecord { position: 1, resume: 1, ..CursorRecord::default() };
                    let stream = Arc::new(StreamLog::new(id, name.to_owned(), end, StateMap::new(), cursor));
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
        let first = super::extents::First { sequence: 1, bytes: 0 };
        log.extents_mut().add_stream(self.stream.id, first);
        Ok(())
    }

    fn log(&self) -> &Log {
        self.store.log()
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
    pub fn state(&self) -> StateMap {
        lock(&self.stream.writer).state.clone()
    }

    /// Everything below survives a power cut. Exact with [`Durability::Power`] and [`Durability::Interval`]; with the others
    /// what was synced or flushed last.
    pub fn durable(&self) -> Sequence {
        self.stream.durable.load(Ordering::Relaxed)
    }

    pub fn cursor(&self) -> CursorRecord {
        self.stream.cursor()
    }

    /// Moves the cursor; it is saved within 100 ms. What lies before its `resume` may be gone from then on.
    pub fn set_cursor(&self, cursor: CursorRecord) {
        let mut progress = lock(&self.stream.progress);
        if progress.cursor == cursor {
            return;
        }
        // What lies before a resume may be gone: it never goes back.
        let resume = cursor.resume.max(progress.cursor.resume);
        progress.cursor = CursorRecord { resume, ..cursor };
        progress.dirty = true;
        drop(progress);
        self.log().work.announce();
    }

    /// Numbers below `sequence` are given out, to records that are not stored, or not yet.
    pub fn give_out(&self, sequence: Sequence) {
        let mut writer = lock(&self.stream.writer);
        writer.given = writer.given.max(sequence);
    }

    /// A change of state that is not stored, and will not be, comes into force before the next record that is.
    pub fn change_state(&self, slot: &Slot, clears: &Clears, value: &[u8]) {
        let mut writer = lock(&self.stream.writer);
        record::apply(&mut writer.state, slot, clears, value);
        writer.state_unwritten = true;
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
        let ticket = match log.accepts().and_then(|()| log.enter(bytes)) {
            Ok(ticket) => ticket,
            Err(error) => {
                // The numbers are given out all the same.
                let mut writer = lock(&self.stream.writer);
                writer.given = writer.given.max(first.max(writer.end.sequence) + records.len() as u64);
                return Err(error);
            }
        };

        let mut writer = lock(&self.stream.writer);
        let before = Mark { sequence: first.max(writer.end.sequence), totals: writer.end.totals };
        let index = self.index_entries(&mut writer, before, records);
        let mut encoder = mem::take(&mut writer.encoder);
        let whole = writer.state_unwritten.then(|| writer.state.clone());
        let stored = writer.end.sequence;
        writer.given = writer.given.max(before.sequence + records.len() as u64);
        drop(writer);

        let snapshot = whole.map(|state| (before.sequence.saturating_sub(1).max(stored), state));
        let written = self.write(log, ticket.extent, before, records, &index, snapshot, &mut encoder);
        encoder.shrink(ENCODER_KEEP);
        let mut writer = lock(&self.stream.writer);
        writer.encoder = encoder;
        match &written {
            Ok(end) => {
                for record in records {
                    if let Body::State { slot, clears } = &record.body {
                        record::apply(&mut writer.state, slot, clears, &record.payload.concat());
                    }
                }
                writer.end = *end;
                writer.state_unwritten = false;
                self.stream.committed.store(end.sequence, Ordering::Release);
                if log.options.durability == Durability::Power {
                    self.stream.set_durable(end.sequence);
                }
            }
            Err(_) => writer.indexed = None,
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
        log: &Log,
        extent: u32,
        mut at: Mark,
        records: &[NewRecord<'_>],
        index: &[(Sequence, IndexEntry)],
        snapshot: Option<(Sequence, StateMap)>,
        encoder: &mut Encoder,
    ) -> Result<Mark, StoreError> {
        let id = self.stream.id;
        let db = log.db()?;
        let several = records.len() > 1 || !index.is_empty() || snapshot.is_some();
        let mut batch = several.then(WriteBatch::default);
        if let (Some(batch), Some((sequence, state))) = (&mut batch, snapshot) {
            let header = Header { before: at.totals, advance: 0, body: Body::Snapshot(state.into_iter().collect()) };
            batch.put(schema::key(extent, Lane::State(id), sequence), encoder.encode(&header, &[]));
        }
        for record in records {
            let lane = match record.body {
                Body::State { .. } | Body::Snapshot(_) => Lane::State(id),
                Body::Buffer(_) | Body::Event => Lane::Data(id),
            };
            let header = Header { before: at.totals, advance: record.advance, body: record.body.clone() };
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
        records: &[NewRecord<'_>],
    ) -> Vec<(Sequence, IndexEntry)> {
        let mut entries = Vec::new();
        for record in records {
            if let Body::Buffer(header) = &record.body
                && header.sync != Sync::None
            {
                let now = boot_time();
                let due = writer
                    .indexed
                    .is_none_or(|(time, bytes)| now >= time + INDEX_INTERVAL || at.totals.bytes >= bytes + INDEX_BYTES);
                if due {
                    writer.indexed = Some((now, at.totals.bytes));
                    let entry = IndexEntry {
                        totals: at.totals,
                        sync: header.sync,
                        running_time: header.running_time,
                        captured_at: header.captured_at,
                        boot_time: now,
                    };
                    entries.push((at.sequence, entry));
                }
            }
            at.sequence += 1;
            at.totals = at.totals.plus(record.contribution());
        }
        entries
    }

    /// Records from `from` on, until `max_records` or `max_bytes` of payload are reached; at least one if there is one.
    ///
    /// # Errors
    ///
    /// The disk could not be read. Damaged records are no error: they are left out and listed.
    pub fn read(&self, from: Sequence, max_records: usize, max_bytes: usize) -> Result<Chunk, StoreError> {
        let mut chunk = Chunk::default();
        let mut from = from.max(self.cursor().resume);
        let mut bytes = 0;
        loop {
            let spans = self.log().extents().spans(self.stream.id, from, SPANS);
            let exhausted = spans.last().is_none_or(|span| span.end.is_none());
            for span in spans {
                from = from.max(span.first);
                let full = self.read_span(span, from, max_records, max_bytes, &mut bytes, &mut chunk)?;
                if full {
                    return Ok(chunk);
                }
                if let Some(end) = span.end {
                    from = end;
                }
            }
            if exhausted {
                return Ok(chunk);
            }
        }
    }

    /// Reads one extent, both lanes in order of their sequence; true when the limits are reached.
    fn read_span(
        &self,
        span: Span,
        from: Sequence,
        max_records: usize,
        max_bytes: usize,
        bytes: &mut usize,
        chunk: &mut Chunk,
    ) -> Result<bool, StoreError> {
        let id = self.stream.id;
        // Both lanes up to the same record: what is being written could show in the one and not in the other.
        let to = self.stream.committed.load(Ordering::Acquire).min(span.end.unwrap_or(Sequence::MAX));
        let db = self.log().db()?;
        let mut data = Walk::new(&db, span.extent, Lane::Data(id), from, to, false);
        let mut state = Walk::new(&db, span.extent, Lane::State(id), from.max(1), to, true);
        loop {
            let iter = match (data.sequence(), state.sequence()) {
                (Some(d), Some(s)) if d < s => &mut data,
                (_, Some(_)) => &mut state,
                (Some(_), None) => &mut data,
                (None, None) => break,
            };
            if chunk.records.len() >= max_records || *bytes >= max_bytes {
                chunk.skip(data.take_skipped());
                return Ok(true);
            }
            if let (Some(at), Some(value)) = (iter.sequence(), iter.value()) {
                match record::decode(at, value.to_vec()) {
                    Ok(record) => {
                        *bytes += record.payload.len();
                        chunk.records.push(record);
                    }
                    Err(_) => chunk.damaged.push(at),
                }
                chunk.next = Some(at + 1);
            }
            iter.next();
        }
        data.status().and_then(|()| state.status()).map_err(|err| self.log().failed(err))?;
        chunk.skip(data.take_skipped());
        chunk.skip(state.take_skipped());
        Ok(false)
    }

    /// The state in force just before `sequence`.
    pub fn state_at(&self, sequence: Sequence) -> Result<StateMap, StoreError> {
        let mut state = StateMap::new();
        let mut extents: Vec<u32> = {
            let extents = self.log().extents();
            let Some(span) = extents.spans(self.stream.id, sequence, 1).first().copied() else { return Ok(state) };
            let spans = extents.spans(self.stream.id, 0, usize::MAX).into_iter();
            spans.map(|span| span.extent).filter(|extent| *extent < span.extent).chain([span.extent]).collect()
        };
        extents.reverse();
        let db = self.log().db()?;
        state_before(&db, self.stream.id, extents.into_iter(), sequence, &mut state)
            .map_err(|err| self.log().failed(err))?;
        Ok(state)
    }

    /// The first indexed sync point after `sequence` of which `wanted` approves.
    pub fn next_sync(
        &self,
        sequence: Sequence,
        wanted: impl Fn(&IndexEntry) -> bool,
    ) -> Result<Option<(Sequence, IndexEntry)>, StoreError> {
        let mut from = sequence + 1;
        loop {
            let spans = self.log().extents().spans(self.stream.id, from, SPANS);
            for span in &spans {
                // Beyond the end lies what an append that failed may have left.
                let to = self.stream.committed().min(span.end.unwrap_or(Sequence::MAX));
                let db = self.log().db()?;
                let mut iter = Walk::new(&db, span.extent, Lane::Index(self.stream.id), from, to, true);
                while let Some(at) = iter.sequence() {
                    if let Some(entry) = iter.value().and_then(schema::decode_value)
                        && wanted(&entry)
                    {
                        return Ok(Some((at, entry)));
                    }
                    iter.next();
                }
                iter.status().map_err(|err| self.log().failed(err))?;
            }
            match spans.last().and_then(|span| span.end) {
                Some(end) if spans.len() == SPANS => from = end,
                _ => return Ok(None),
            }
        }
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
