//! The handle of one stream of a store: who holds it has the stream for itself, and moves its cursor.
//!
//! How it is written is in `append`, how it is read in `reader`. One writer, one reader, anybody for the levels.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use rocksdb::WriteBatch;

use super::Store;
use super::age::{Retention, Start};
use super::append::OVERHEAD;
use super::clock::Arrival;
use super::error::StoreError;
use super::holes::Holes;
use super::log::{Log, lock};
use super::record::{Record, Sequence, StateMap, Totals};
use super::salvage::Incident;
use super::schema::{self, CursorRecord, MAX_STREAMS, Meta, StreamStart};
use super::stream_log::{Progress, StreamLog, Tended};

/// How long a caller waits for the disk to take the cursors.
const PATIENCE: Duration = Duration::from_millis(400);

/// A position in a stream and the sums of all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    pub sequence: Sequence,
    pub totals: Totals,
}

/// Looks after a stream while the store is open: called by the thread that tends the log, with no lock held.
pub trait Tender: Send + std::marker::Sync {
    /// One round; after how long the next one is wanted at the latest.
    fn tend(&self) -> Option<Duration>;
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

/// The handle of whoever writes and reads a stream. One at a time; gives the stream free when dropped.
pub struct Stream {
    store: Store,
    pub(super) stream: Arc<StreamLog>,
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
