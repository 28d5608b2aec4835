//! What the log itself knows of a stream, whoever has its handle: where writer and cursor stand, what is to be saved.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::age::{Retention, Start};
use super::append::Writer;
use super::highwater::High;
use super::holes::{Hole, Holes};
use super::log::lock;
use super::reader::Quiet;
use super::record::{Sequence, StateMap, Totals};
use super::schema::{Count, CursorRecord};
use super::stream::{Mark, Tender};

/// The part of a stream that lives as long as the log.
pub struct StreamLog {
    pub id: u32,
    pub name: String,
    pub(super) attached: AtomicBool,
    /// Everything below is written: a reader goes no further, or it could overtake a record that is on its way.
    pub(super) committed: AtomicU64,
    /// Everything below survives a power cut.
    pub(super) durable: AtomicU64,
    pub(super) writer: Mutex<Writer>,
    pub(super) progress: Mutex<Progress>,
    pub(super) tended: Mutex<Tended>,
    /// For readers.
    pub(super) quiet: Quiet,
}

/// The tender of a stream and when it wants to be called.
#[derive(Default)]
pub(super) struct Tended {
    pub tender: Option<Arc<dyn Tender>>,
    pub due: Option<Instant>,
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
        let CursorRecord { log_start, max_age, .. } = self.cursor;
        // What it gave up is told before all that lies before it.
        let log_start_bytes = self.cursor.log_start_bytes + hole.gone.bytes;
        self.cursor = CursorRecord { log_start, log_start_bytes, max_age, ..*cursor };
        // What was kept has sync points of its own.
        self.start = Start::default();
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
            writer: Mutex::new(Writer::at(end, state)),
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
