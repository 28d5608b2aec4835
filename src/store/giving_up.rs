//! Thinning and purging: a stretch of pending records is given up, and what is to stay of it is written anew.
//!
//! In two steps, because whoever delivers must not be within the stretch while it changes:
//!
//! 1. [`Stream::plan_thin`] or [`Stream::plan_purge`] copies what stays to the thin lanes of the newest extent. Nothing has
//!    changed for anybody; a plan may be dropped.
//! 2. [`Stream::commit`] puts the hole in, in memory, with the deliverer's own cursor: to be called under the lock that guards
//!    that cursor, when nothing of the stretch is on its way. From then on readers see what stays.
//!
//! Hole and cursor go to the disk together within 100 ms. A crash before leaves the stream as it was, copies that nobody
//! reads, and the sums of the cursor without the hole. Only then the originals go, by their extents.
//!
//! Purged bytes have to leave the disk, not only the stream: [`Stream::erase`] waits until no file of the directory holds them:
//! the memtable is flushed without them, their log files are gone, their data files are rewritten or removed. What the file
//! system keeps in blocks that it has freed is out of its reach. A crash in between goes on at the next open.

use std::collections::HashSet;
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rocksdb::WriteBatch;

use super::cursor::Cause;
use super::error::StoreError;
use super::holes::Hole;
use super::log::{Log, lock};
use super::reader::{KEPT_SNAPSHOT, Piece};
use super::record::{Body, BufferHeader, Encoder, Header, Record, Sequence, Sync, Totals};
use super::schema::{self, CursorRecord, IndexEntry, Lane};
use super::stream::{Mark, Stream};
use super::stream_log::StreamLog;

/// What one look for something to thin reads at most.
const SCAN_BYTES: u64 = 256 << 20;
const CHUNK_RECORDS: usize = 256;
const CHUNK_BYTES: usize = 1 << 20;
/// Kept keyframes are indexed this far apart, as appended ones are.
const INDEX_INTERVAL: u64 = 1_000_000_000;
const INDEX_BYTES: u64 = 1 << 20;
/// How long an erasure may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the files of one round may take to go.
const FILES_PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// What would be given up.
#[derive(Debug)]
pub struct Plan {
    hole: Hole,
    cause: Cause,
    /// Sums at its beginning and its end.
    before: Totals,
    after: Totals,
    /// Holes that had been cut when it was made: with more it does not hold.
    cuts: u64,
}

impl Plan {
    /// The stretch: its first number and the one after its last.
    pub fn range(&self) -> Range<Sequence> {
        self.hole.from..self.hole.to
    }
}

/// What was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// Its beginning and its end, with the sums that the records there had.
    pub from: Mark,
    pub to: Mark,
    /// Of what was pending.
    pub totals: Totals,
}

impl GivenUp {
    pub fn range(&self) -> Range<Sequence> {
        self.from.sequence..self.to.sequence
    }
}

/// Records of a stretch that stay, on their way to the thin lanes.
#[derive(Default)]
struct Copies {
    values: Vec<(Lane, Sequence, Vec<u8>)>,
    bytes: u64,
    kept: Totals,
    indexed: Option<(u64, Totals)>,
}

impl Copies {
    fn keep(&mut self, stream: u32, record: &Record, encoder: &mut Encoder) {
        self.keep_with(stream, record, self.kept, encoder);
    }

    fn keep_with(&mut self, stream: u32, record: &Record, before: Totals, encoder: &mut Encoder) {
        let body = match &record.body {
            // Its list is not whole any more.
            Body::Buffer(header) => Body::Buffer(BufferHeader { list_remaining: 0, ..header.clone() }),
            other => other.clone(),
        };
        let lane = match body {
            Body::State { .. } | Body::Snapshot(_) => Lane::ThinState(stream),
            Body::Buffer(_) | Body::Event => Lane::ThinData(stream),
        };
        if let Body::Buffer(header) = &body
            && header.sync != Sync::None
        {
            let (time, kept) = (record.arrival.time, self.kept);
            let due = self.indexed.is_none_or(|(t, totals)| {
                time >= t + INDEX_INTERVAL
                    || kept.time >= totals.time + INDEX_INTERVAL
                    || kept.bytes >= totals.bytes + INDEX_BYTES
            });
            if due {
                self.indexed = Some((time, kept));
                let entry = IndexEntry {
                    totals: self.kept,
                    sync: header.sync,
                    running_time: header.running_time,
                    captured_at: header.captured_at,
                    arrival: record.arrival,
                };
                self.values.push((Lane::ThinIndex(stream), record.sequence, schema::encode_value(&entry)));
            }
        }
        let header = Header { before, advance: record.advance, arrival: record.arrival, body };
        let payload = match header.body {
            Body::Snapshot(_) => KEPT_SNAPSHOT,
            _ => record.payload.as_ref(),
        };
        let value = encoder.encode(&header, &[payload]).to_vec();
        self.bytes += value.len() as u64;
        self.kept = self.kept.plus(record.after().since(record.before));
        self.values.push((lane, record.sequence, value));
    }
}

impl Stream {
    /// Plans to thin the oldest pending GOPs at or after `from` to their keyframes, until `enough` approves of what that gives
    /// up or a quarter of a memtable was copied. `from` has to lie at or behind what is on its way to downstream. `None` when
    /// there is nothing to thin: the newest GOP stays whole, and what was thinned is not thinned again.
    ///
    /// # Errors
    ///
    /// The disk could not be read or written; nothing has changed.
    pub fn plan_thin(&self, from: Sequence, enough: impl Fn(Totals) -> bool) -> Result<Option<Plan>, StoreError> {
        let (log, stream) = self.parts();
        let (known, cuts) = stream.holes_and_cuts();
        let mut at = from.max(stream.cursor().position);
        let mut scanned = 0;
        while scanned < SCAN_BYTES {
            while let Some(hole) = known.at(at) {
                at = hole.to;
            }
            let until = known.after(at).map_or(Sequence::MAX, |hole| hole.from);
            let found = self.look_for_gops(at, until, &mut scanned, &enough)?;
            let Some(found) = found else {
                if until == Sequence::MAX {
                    return Ok(None);
                }
                at = until;
                continue;
            };
            if found.gone().buffers == 0 {
                // Keyframes only.
                at = found.to;
                continue;
            }
            let Found { from, to, before, after, copies } = found;
            let hole = log.write_copies(stream, from, to, after, copies, false)?;
            return Ok(Some(Plan { hole, cause: Cause::Dropped, before, after, cuts }));
        }
        Ok(None)
    }

    fn look_for_gops(
        &self,
        from: Sequence,
        until: Sequence,
        scanned: &mut u64,
        enough: &impl Fn(Totals) -> bool,
    ) -> Result<Option<Found>, StoreError> {
        let (log, stream) = self.parts();
        let full = log.extent_bytes() / 4;
        let mut encoder = Encoder::default();
        let mut at = from;
        // Complete GOPs, and what is to stay of the one that is being read.
        let mut gops: Option<Found> = None;
        let mut open: Vec<Record> = Vec::new();
        loop {
            let chunk = log.view(stream).read(at, CHUNK_RECORDS, CHUNK_BYTES)?;
            for record in chunk.records.into_iter().take_while(|record| record.sequence < until) {
                *scanned += record.payload.len() as u64;
                match &record.body {
                    Body::Buffer(header) if header.sync != Sync::None => {}
                    Body::Buffer(_) => continue,
                    _ => {
                        if gops.is_some() {
                            open.push(record);
                        }
                        continue;
                    }
                }
                if let Some(found) = &mut gops {
                    open.drain(..).for_each(|kept| found.copies.keep(stream.id, &kept, &mut encoder));
                    (found.to, found.after) = (record.sequence, record.before);
                    let gone = found.gone();
                    let copied = found.copies.bytes >= full;
                    if gone.buffers > 0 && (copied || enough(gone)) {
                        return Ok(gops);
                    }
                    if copied {
                        // Keyframes only so far.
                        gops = Some(Found::at(&record));
                    }
                } else {
                    gops = Some(Found::at(&record));
                }
                open.push(record);
            }
            match chunk.next.filter(|next| *next < until && *scanned < SCAN_BYTES) {
                Some(next) => at = next,
                // The newest GOP is still growing.
                None => return Ok(gops.filter(|gops| gops.to > gops.from)),
            }
        }
    }

    /// Plans to purge what lies in `range`: buffers and events, pending or kept for replay. Changes of state stay in force. A
    /// stretch with very many of those is purged in several plans: each begins where the one before ended.
    ///
    /// # Errors
    ///
    /// The disk could not be read or written; nothing has changed.
    pub fn plan_purge(&self, range: Range<Sequence>) -> Result<Option<Plan>, StoreError> {
        let (log, stream) = self.parts();
        let (_, cuts) = stream.holes_and_cuts();
        let mut from = range.start.max(stream.cursor().log_start).max(1);
        let mut to = range.end.min(stream.written_mark().sequence);
        // Changes of state stay anyway, and one at the beginning would take the place of the copies' snapshot.
        'lead: while from < to {
            let before = from;
            for record in log.view(stream).read(from, CHUNK_RECORDS, CHUNK_BYTES)?.records {
                if record.sequence != from || !matches!(record.body, Body::State { .. } | Body::Snapshot(_)) {
                    break 'lead;
                }
                from += 1;
            }
            if from == before {
                break;
            }
        }
        if from >= to {
            return Ok(None);
        }
        let full = log.extent_bytes() / 4;
        let mut copies = Copies::default();
        let mut encoder = Encoder::default();
        let mut at = Some(from);
        'copy: while let Some(next) = at {
            let pieces = log.view(stream).pieces(next);
            for piece in pieces.list {
                if piece.from >= to {
                    break 'copy;
                }
                let mut cut = to;
                log.view(stream).each_state(&Piece { to: piece.to.min(to), ..piece }, |record| {
                    if record.sequence < cut && copies.bytes >= full {
                        cut = record.sequence;
                    } else if record.sequence < cut && !piece.is_beginning(&record) {
                        // The copy may take the place of the one that was thinned, and the plan may be dropped.
                        let before = if piece.thinned { record.before } else { Totals::default() };
                        copies.keep_with(stream.id, &record, before, &mut encoder);
                    }
                })?;
                to = cut;
            }
            at = pieces.next.filter(|next| *next < to);
        }
        let (before, after) = (log.totals_at(stream, from)?, log.totals_at(stream, to)?);
        let hole = log.write_copies(stream, from, to, after, copies, true)?;
        Ok(Some(Plan { hole, cause: Cause::Purged, before, after, cuts }))
    }

    /// Carries a plan out, with the cursor of whoever delivers, which is changed and becomes the stream's. No disk is touched.
    /// `None` when it does not hold any more: the cursor has come into a stretch that was to be thinned, or another plan was
    /// carried out meanwhile.
    pub fn commit(&self, plan: Plan, cursor: &mut CursorRecord) -> Option<GivenUp> {
        let (log, stream) = self.parts();
        let range = plan.range();
        let totals = {
            let mut progress = lock(&stream.progress);
            let overtaken = plan.cause == Cause::Dropped && cursor.position > range.start;
            if overtaken || progress.cuts != plan.cuts {
                return None;
            }
            let pending = if cursor.position > range.start { cursor.totals } else { plan.before };
            let totals = plan.after.since(pending).since(plan.hole.kept);
            cursor.ledger.count(plan.cause).add(totals);
            cursor.totals = cursor.totals.plus(totals);
            cursor.resume = cursor.resume.max(progress.cursor.resume);
            progress.cut(Hole { gone: totals, ..plan.hole }, cursor);
            totals
        };
        log.work.announce();
        let from = Mark { sequence: range.start, totals: plan.before };
        Some(GivenUp { from, to: Mark { sequence: range.end, totals: plan.after }, totals })
    }

    /// Purges what lies in `range` and waits until its bytes are gone from the disk. For streams that nobody delivers from at
    /// the time: who does has a cursor of its own and goes by [`Stream::plan_purge`], [`Stream::commit`] and
    /// [`Stream::erase`].
    ///
    /// # Errors
    ///
    /// The disk could not be read or written, or the bytes are not gone after a minute.
    #[cfg(test)]
    pub fn purge(&self, range: Range<Sequence>) -> Result<Totals, StoreError> {
        let mut purged = Totals::default();
        let mut from = range.start;
        while let Some(plan) = self.plan_purge(from..range.end)? {
            let mut cursor = self.cursor();
            if let Some(done) = self.commit(plan, &mut cursor) {
                purged = purged.plus(done.totals);
                from = done.to.sequence;
            }
        }
        self.erase()?;
        Ok(purged)
    }

    /// Purges everything.
    ///
    /// # Errors
    ///
    /// As [`Stream::purge`].
    #[cfg(test)]
    pub fn clear(&self) -> Result<Totals, StoreError> {
        self.purge(0..Sequence::MAX)
    }

    /// Waits until the bytes of all that was purged are gone from the disk. Readers that are at work hold files back.
    ///
    /// # Errors
    ///
    /// They are not gone after a minute, or the disk refuses. They will be erased all the same, also by a later process.
    pub fn erase(&self) -> Result<(), StoreError> {
        let (log, stream) = self.parts();
        let since = Instant::now();
        while stream.holes().unerased().next().is_some() {
            log.writable()?;
            if since.elapsed() >= PATIENCE {
                let source =
                    std::io::Error::new(std::io::ErrorKind::TimedOut, "purged data is not gone from the disk yet");
                return Err(StoreError::Io { path: log.directory.path().to_owned(), source });
            }
            if log.work.is_own_thread() {
                // A tender asks for it.
                log.erase()?;
            } else if !log.work.run_now(PATIENCE) {
                std::thread::sleep(POLL);
            }
        }
        Ok(())
    }
}

/// Complete GOPs.
struct Found {
    from: Sequence,
    to: Sequence,
    before: Totals,
    after: Totals,
    copies: Copies,
}

impl Found {
    /// They begin with this record.
    fn at(record: &Record) -> Self {
        let (sequence, before) = (record.sequence, record.before);
        Self { from: sequence, to: sequence, before, after: before, copies: Copies::default() }
    }

    fn gone(&self) -> Totals {
        self.after.since(self.before).since(self.copies.kept)
    }
}

impl Log {
    /// Writes what stays of a stretch, with the state that is in force at its beginning.
    fn write_copies(
        &self,
        stream: &StreamLog,
        from: Sequence,
        to: Sequence,
        after: Totals,
        copies: Copies,
        purged: bool,
    ) -> Result<Hole, StoreError> {
        let state = self.view(stream).state_at(from)?;
        let arrival = self.time.arrival();
        let mut encoder = Encoder::default();
        let body = Body::Snapshot(state.into_iter().collect());
        let snapshot = encoder.encode(&Header { before: Totals::default(), advance: 0, arrival, body }, &[]);
        let ticket = self.enter(copies.bytes + snapshot.len() as u64)?;
        let mut batch = WriteBatch::default();
        batch.put(schema::key(ticket.extent, Lane::ThinState(stream.id), from), snapshot);
        for (lane, sequence, value) in &copies.values {
            batch.put(schema::key(ticket.extent, *lane, *sequence), value);
        }
        self.db()?.write_opt(batch, &self.write_meta).map_err(|err| self.failed(err))?;
        // While this extent is the newest it cannot go.
        self.extents_mut().keep(ticket.extent, stream.id, to, copies.bytes);
        let shift = stream.holes().shift(to.saturating_sub(1));
        let base = after.since(copies.kept).since(shift);
        let gone = Totals::default();
        Ok(Hole { from, to, gone, extent: ticket.extent, base, kept: copies.kept, purged, erased: false })
    }

    pub fn has_unerased(&self) -> bool {
        self.stream_list().iter().any(|stream| stream.holes().unerased().next().is_some())
    }

    /// Gets the bytes of purged stretches off the disk, if there are any; by the thread that tends the log, once the holes
    /// are saved.
    pub fn erase(&self) -> Result<(), StoreError> {
        let streams = self.stream_list();
        let holes = |stream: &StreamLog| stream.holes().unerased().map(|h| (h.from, h.to)).collect::<Vec<_>>();
        let work: Vec<_> = streams.iter().map(|stream| (stream, holes(stream))).filter(|w| !w.1.is_empty()).collect();
        if work.is_empty() {
            return Ok(());
        }
        let starts = self.starts();
        self.save_cursors(false)?;
        self.sync_log_starts(&starts)?;
        let logs = self.files("log")?;
        if let Err(switch) = self.gate.enter(0, 0) {
            self.switch(switch)?;
        }
        self.wait_for(|| {
            let left = self.db()?.property_int_value("rocksdb.num-immutable-mem-table");
            Ok(left.map_err(|err| self.failed(err))? == Some(0))
        })?;
        let mut extents = HashSet::new();
        for (stream, holes) in &work {
            for (from, to) in holes {
                extents.extend(self.extents().within(stream.id, *from, *to));
            }
        }
        // What was purged may have been thinned before.
        extents.extend(work.iter().flat_map(|(stream, _)| self.extents().keepers(stream.id)));
        let newest = self.extents().newest().unwrap_or(0);
        let mut gone = logs;
        for file in self.db()?.live_files().map_err(|err| self.failed(err))? {
            let (Some(start), Some(end)) = (file.start_key, file.end_key) else { continue };
            let (Some(first), Some(last)) = (schema::parse(&start), schema::parse(&end)) else { continue };
            let holds = (first.0..=last.0).any(|extent| extents.contains(&extent) && extent < newest);
            // What is left of extents that are dead goes with them.
            if !holds && self.extents().all_within(first.0, last.0) {
                continue;
            }
            gone.push(self.directory.database().join(file.name.trim_start_matches('/')));
            let (start, end) = (schema::extent_start(first.0), schema::extent_end(last.0));
            self.db()?.compact_range(Some(start), Some(end));
        }
        self.wait_for(|| Ok(gone.iter().all(|path| !path.exists())))?;
        for (stream, holes) in &work {
            stream.set_erased(holes);
        }
        self.save_cursors(false)
    }

    /// Files of the database with this ending.
    fn files(&self, extension: &str) -> Result<Vec<PathBuf>, StoreError> {
        let path = self.directory.database();
        let entries = std::fs::read_dir(&path).map_err(|source| StoreError::Io { path, source })?;
        Ok(entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .collect())
    }

    /// Nothing else is done meanwhile: what has to come on time does, and a fault ends it.
    fn wait_for(&self, done: impl Fn() -> Result<bool, StoreError>) -> Result<(), StoreError> {
        let since = Instant::now();
        while !done()? {
            self.writable()?;
            self.tick()?;
            if since.elapsed() >= FILES_PATIENCE {
                let source =
                    std::io::Error::new(std::io::ErrorKind::TimedOut, "purged data is not gone from the disk yet");
                return Err(StoreError::Io { path: self.directory.path().to_owned(), source });
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}
