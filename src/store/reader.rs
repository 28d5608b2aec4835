//! Reading a stream: records in order, the state at a position, sync points.
//!
//! A stream is a row of pieces, each in one extent: a stretch of what was appended, or what was kept of a stretch that was
//! thinned or purged. Readers go from piece to piece and see one stream. It is the same for the log that this process has
//! open and for one that another process writes: what differs is the [`Source`].

use std::sync::{Arc, Mutex, RwLockReadGuard};

use rocksdb::DB;

use super::clock::Arrival;
use super::error::StoreError;
use super::extents::Extents;
use super::handle::Guard;
use super::holes::{Hole, Holes};
use super::log::{Log, lock};
use super::record::{self, Body, Decoder, Record, Sequence, StateMap, Sync, Totals};
use super::schema::{self, IndexEntry, Lane};
use super::stream::{Chunk, Mark, Stream};
use super::stream_log::StreamLog;
use super::survey::state_before;
use super::walk::Walk;

/// Extents that a reader looks at in one go.
const SPANS: usize = 64;
/// What is read at a time in search of a sync point.
const SCAN_RECORDS: usize = 256;
const SCAN_BYTES: usize = 1 << 20;

/// Payload of a whole state in a thin lane that stood in what was thinned or purged. Without it, it is the one with which a hole
/// begins, or began.
pub const KEPT_SNAPSHOT: &[u8] = b"kept";

/// Room is made at once for so many records at most.
const ROOM: usize = 1024;

/// A stretch of a stream in one extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    pub extent: u32,
    pub from: Sequence,
    pub to: Sequence,
    /// Stands in the thin lanes.
    pub thinned: bool,
    /// Only changes of state were kept.
    pub purged: bool,
    /// Added to the sums of its records.
    pub base: Totals,
}

impl Piece {
    /// Where its buffers and events end.
    fn data_end(&self, committed: Sequence) -> Sequence {
        if self.purged { self.from } else { self.to.min(committed) }
    }

    fn lane(&self, lane: fn(u32) -> Lane, thinned: fn(u32) -> Lane, stream: u32) -> Lane {
        if self.thinned { thinned(stream) } else { lane(stream) }
    }

    /// The sums of all before a record, of what stands in it.
    fn sums(&self, before: Totals) -> Totals {
        // Changes of state add nothing, and may say where they stood in what was thinned there before.
        if self.purged { self.base } else { before.plus(self.base) }
    }

    /// The state at the beginning of a hole is no record of the stream. Where memory alone had changed it, it is: see
    /// [`KEPT_SNAPSHOT`].
    pub fn is_beginning(&self, record: &Record) -> bool {
        self.thinned && matches!(record.body, Body::Snapshot(_)) && record.payload.as_ref() != KEPT_SNAPSHOT
    }

    fn data(&self, stream: u32) -> Lane {
        self.lane(Lane::Data, Lane::ThinData, stream)
    }

    fn state(&self, stream: u32) -> Lane {
        self.lane(Lane::State, Lane::ThinState, stream)
    }

    pub fn index(&self, stream: u32) -> Lane {
        self.lane(Lane::Index, Lane::ThinIndex, stream)
    }
}

/// Where streams are read from.
pub trait Source {
    /// The database, until the guard is dropped.
    ///
    /// # Errors
    ///
    /// [`StoreError::Away`] while it is being opened again.
    fn db(&self) -> Result<Guard<'_>, StoreError>;
    fn extents(&self) -> RwLockReadGuard<'_, Extents>;
    fn failed(&self, source: rocksdb::Error) -> StoreError;
    /// When it was, in ns since 1970, and whether that clock was synchronised; `None` when nothing is known of the boot.
    fn corrected(&self, arrival: Arrival) -> Option<(i64, bool)>;
}

/// What of a stream can be read.
pub trait Bounds {
    fn id(&self) -> u32;
    fn holes(&self) -> Arc<Holes>;
    /// Everything below is written. Beyond lies what an append that failed may have left.
    fn committed(&self) -> Sequence;
    /// Where no state changes, if what was seen once can be relied on.
    fn quiet(&self) -> Option<&Quiet>;
}

/// A stretch of an extent in which no state changes: nothing comes into it any more, and a search would read what comes after
/// it on the disk, which may be a large record.
#[derive(Default)]
pub struct Quiet(Mutex<Option<(u32, Sequence, Sequence)>>);

impl Quiet {
    /// Where to begin to look for a change at or after `from`.
    fn end(&self, extent: u32, from: Sequence) -> Sequence {
        match *lock(&self.0) {
            Some((at, first, end)) if at == extent && (first..end).contains(&from) => end,
            _ => from,
        }
    }

    fn note(&self, extent: u32, from: Sequence, to: Sequence) {
        *lock(&self.0) = Some((extent, from, to));
    }
}

/// A stream as it is read.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub source: &'a dyn Source,
    pub stream: &'a dyn Bounds,
}

impl Source for Log {
    fn db(&self) -> Result<Guard<'_>, StoreError> {
        Log::db(self)
    }

    fn extents(&self) -> RwLockReadGuard<'_, Extents> {
        Log::extents(self)
    }

    fn failed(&self, source: rocksdb::Error) -> StoreError {
        Log::failed(self, source)
    }

    fn corrected(&self, arrival: Arrival) -> Option<(i64, bool)> {
        self.time.corrected(arrival)
    }
}

impl Bounds for StreamLog {
    fn id(&self) -> u32 {
        self.id
    }

    fn holes(&self) -> Arc<Holes> {
        StreamLog::holes(self)
    }

    fn committed(&self) -> Sequence {
        StreamLog::committed(self)
    }

    fn quiet(&self) -> Option<&Quiet> {
        Some(&self.quiet)
    }
}

impl Log {
    pub fn view<'a>(&'a self, stream: &'a StreamLog) -> View<'a> {
        View { source: self, stream }
    }

    /// Counts what was stored after its delivery from memory, when the cursor that said so was not saved any more, and what a
    /// disk had kept all the same when it refused: what lies before the cursor was delivered.
    pub fn settle_account(&self, stream: &StreamLog) -> Result<(), StoreError> {
        let position = stream.cursor().position;
        let view = self.view(stream);
        let mut to = position;
        // Also before the resume point, where some may be left: it moves on whatever becomes of them.
        while let Some(piece) = view.piece_before(to).filter(|piece| !piece.thinned && piece.from < to) {
            let db = self.db()?;
            let last = Walk::last(&db, piece.extent, piece.data(stream.id), piece.from, piece.to.min(to));
            drop(db);
            if let Some(last) = last.map_err(|err| self.failed(err))? {
                let record = view.read(last, 1, 1)?.records.into_iter().find(|record| record.sequence == last);
                if let Some(record) = record {
                    stream.count_delivered(record.after());
                }
                break;
            }
            to = piece.from;
        }
        // Nothing can be missing between the cursor and what begins or ends there.
        let end = stream.written_mark();
        let next = view.read(position, 1, 1)?.records.into_iter().next();
        match next {
            Some(next) if next.sequence == position => stream.count_delivered(next.before),
            None if end.sequence <= position => stream.count_delivered(end.totals),
            _ => {}
        }
        Ok(())
    }

    /// The sums of all before `sequence`.
    pub fn totals_at(&self, stream: &StreamLog, sequence: Sequence) -> Result<Totals, StoreError> {
        self.view(stream).totals_at(sequence, stream.written_mark())
    }
}

/// Some pieces in order, and where to ask for more; `None` at the end of the stream.
pub struct Pieces {
    pub list: Vec<Piece>,
    pub next: Option<Sequence>,
}

impl View<'_> {
    /// Pieces from `from` on.
    pub fn pieces(&self, from: Sequence) -> Pieces {
        let holes = self.stream.holes();
        let mut list = Vec::new();
        let mut at = from;
        while list.len() < SPANS {
            if let Some(hole) = holes.at(at) {
                let base = hole.base.plus(holes.shift(at));
                list.push(Piece {
                    extent: hole.extent,
                    from: at,
                    to: hole.to,
                    thinned: true,
                    purged: hole.purged,
                    base,
                });
                at = hole.to;
                continue;
            }
            let until = holes.after(at).map_or(Sequence::MAX, |hole| hole.from);
            let base = holes.shift(at);
            let spans = self.source.extents().spans(self.stream.id(), at, SPANS);
            let full = spans.len() == SPANS;
            let mut ended = true;
            for span in spans {
                let (from, to) = (at.max(span.first), span.end.unwrap_or(Sequence::MAX).min(until));
                if from >= until {
                    break;
                }
                list.push(Piece { extent: span.extent, from, to, thinned: false, purged: false, base });
                ended = span.end.is_none_or(|end| end >= until);
                at = to;
            }
            if full && !ended {
                continue;
            }
            if until == Sequence::MAX {
                return Pieces { list, next: None };
            }
            at = until;
        }
        Pieces { list, next: Some(at) }
    }

    /// The piece in which the number before `sequence` lies.
    pub fn piece_before(&self, sequence: Sequence) -> Option<Piece> {
        let holes = self.stream.holes();
        let at = sequence.checked_sub(1)?;
        let base = holes.shift(at);
        if let Some(hole) = holes.at(at) {
            let Hole { extent, from, to, purged, .. } = *hole;
            return Some(Piece { extent, from, to, thinned: true, purged, base: hole.base.plus(base) });
        }
        let span = self.source.extents().span_before(self.stream.id(), sequence)?;
        let from = span.first.max(holes.end_before(at).unwrap_or(0));
        let until = holes.after(at).map_or(Sequence::MAX, |hole| hole.from);
        let to = span.end.unwrap_or(Sequence::MAX).min(until);
        Some(Piece { extent: span.extent, from, to, thinned: false, purged: false, base })
    }

    /// See [`Stream::read`].
    pub fn read(&self, from: Sequence, max_records: usize, max_bytes: usize) -> Result<Chunk, StoreError> {
        // Before the pieces: an extent that begins meanwhile is not among them, nor is anything asked of what is in it.
        let mut chunk = Chunk { end: self.stream.committed(), ..Chunk::default() };
        let mut from = from;
        let mut bytes = 0;
        loop {
            let pieces = self.pieces(from);
            for piece in &pieces.list {
                if self.read_piece(piece, max_records, max_bytes, &mut bytes, &mut chunk)? {
                    return Ok(chunk);
                }
            }
            match pieces.next {
                Some(next) => from = next,
                None => return Ok(chunk),
            }
        }
    }

    /// Reads one piece, both lanes in order of their sequence; true when the limits are reached.
    fn read_piece(
        &self,
        piece: &Piece,
        max_records: usize,
        max_bytes: usize,
        bytes: &mut usize,
        chunk: &mut Chunk,
    ) -> Result<bool, StoreError> {
        // Both lanes up to the same record: what is being written could show in the one and not in the other.
        let committed = chunk.end;
        let to = committed.min(piece.to);
        let db = self.source.db()?;
        let data_end = piece.data_end(committed);
        let mut data = Walk::new(&db, piece.extent, piece.data(self.stream.id()), piece.from, data_end, false);
        let mut state = self.walk_states(&db, piece, to);
        let mut decoder = Decoder::default();
        let mut enough = false;
        while !enough {
            let iter = match (data.sequence(), &mut state) {
                (Some(d), Some(state)) if state.sequence().is_none_or(|s| d < s) => &mut data,
                (_, Some(state)) if state.sequence().is_some() => state,
                (Some(_), None) => &mut data,
                _ => break,
            };
            if let (Some(at), Some(value)) = (iter.sequence(), iter.value()) {
                match decoder.decode(at, value) {
                    Ok(record) if piece.is_beginning(&record) => {}
                    Ok(record) => {
                        *bytes += record.payload.len();
                        if chunk.records.is_empty() {
                            let wanted = max_records.min((max_bytes / record.payload.len().max(1)).saturating_add(1));
                            chunk.records.reserve(wanted.min(ROOM));
                        }
                        chunk.records.push(Record { before: piece.sums(record.before), ..record });
                    }
                    Err(_) => chunk.damaged.push(at),
                }
                chunk.next = Some(at + 1);
            }
            // Not one record further: a large one would be read for nothing, and again the next time.
            enough = chunk.records.len() >= max_records || *bytes >= max_bytes;
            if !enough {
                iter.next();
            }
        }
        // Or one lane would go on without the other.
        let status = data.status().and_then(|()| state.as_ref().map_or(Ok(()), Walk::status));
        status.map_err(|err| self.source.failed(err))?;
        chunk.skip(data.take_skipped());
        if let Some(state) = state.as_mut().filter(|_| !enough) {
            chunk.skip(state.take_skipped());
        }
        Ok(enough)
    }

    /// The changes of state in a piece up to `to`; `None` when it is known that there are none.
    fn walk_states<'d>(&self, db: &'d DB, piece: &Piece, to: Sequence) -> Option<Walk<'d>> {
        let from = piece.from.max(1);
        let quiet = self.stream.quiet().filter(|_| !piece.thinned);
        let first = quiet.map_or(from, |quiet| quiet.end(piece.extent, from));
        if first >= to {
            return None;
        }
        let walk = Walk::new(db, piece.extent, piece.state(self.stream.id()), first, to, true);
        if let Some(quiet) = quiet.filter(|_| walk.is_sound()) {
            quiet.note(piece.extent, from, walk.sequence().unwrap_or(to));
        }
        Some(walk)
    }

    /// See [`Stream::state_at`].
    pub fn state_at(&self, sequence: Sequence) -> Result<StateMap, StoreError> {
        let holes = self.stream.holes();
        let db = self.source.db()?;
        let mut state = StateMap::new();
        let read = match holes.at(sequence) {
            // The snapshot stands at the beginning.
            Some(hole) => {
                let to = sequence.max(hole.from + 1);
                state_before(&db, Lane::ThinState(self.stream.id()), [hole.extent], to, &mut state)
            }
            None => {
                let mut extents = self.source.extents().up_to(self.stream.id(), sequence);
                extents.reverse();
                state_before(&db, Lane::State(self.stream.id()), extents, sequence, &mut state)
            }
        };
        read.map(|_| state).map_err(|err| self.source.failed(err))
    }

    /// See [`Stream::next_sync`].
    pub fn next_sync(
        &self,
        sequence: Sequence,
        mut wanted: impl FnMut(Sequence, &IndexEntry) -> bool,
    ) -> Result<Option<(Sequence, IndexEntry)>, StoreError> {
        let mut from = sequence + 1;
        loop {
            let pieces = self.pieces(from);
            for piece in &pieces.list {
                // Beyond the end lies what an append that failed may have left.
                let to = piece.data_end(self.stream.committed());
                let db = self.source.db()?;
                let mut iter = Walk::new(&db, piece.extent, piece.index(self.stream.id()), piece.from, to, true);
                while let Some(at) = iter.sequence() {
                    if let Some(entry) = iter.value().and_then(schema::decode_value::<IndexEntry>) {
                        let entry = IndexEntry { totals: piece.sums(entry.totals), ..entry };
                        if wanted(at, &entry) {
                            return Ok(Some((at, entry)));
                        }
                    }
                    iter.next();
                }
                iter.status().map_err(|err| self.source.failed(err))?;
            }
            match pieces.next {
                Some(next) => from = next,
                None => return Ok(None),
            }
        }
    }

    /// When the first buffer or event at or after `sequence` came.
    pub fn arrival_at(&self, sequence: Sequence) -> Result<Option<Arrival>, StoreError> {
        let mut from = sequence;
        loop {
            let pieces = self.pieces(from);
            for piece in &pieces.list {
                // Beyond the end lies what an append that failed may have left.
                let to = piece.data_end(self.stream.committed());
                let db = self.source.db()?;
                let mut iter = Walk::new(&db, piece.extent, piece.data(self.stream.id()), piece.from, to, true);
                while let Some(at) = iter.sequence() {
                    if let Some(Ok(record)) = iter.value().map(|value| record::decode(at, value)) {
                        return Ok(Some(record.arrival));
                    }
                    iter.next();
                }
                iter.status().map_err(|err| self.source.failed(err))?;
            }
            match pieces.next {
                Some(next) => from = next,
                None => return Ok(None),
            }
        }
    }

    /// Visits the records in the state lane of a piece.
    pub fn each_state(&self, piece: &Piece, mut visit: impl FnMut(Record)) -> Result<(), StoreError> {
        let to = self.stream.committed().min(piece.to);
        let db = self.source.db()?;
        let mut iter = Walk::new(&db, piece.extent, piece.state(self.stream.id()), piece.from.max(1), to, true);
        while let Some(at) = iter.sequence() {
            if let Some(Ok(record)) = iter.value().map(|value| record::decode(at, value)) {
                visit(record);
            }
            iter.next();
        }
        iter.status().map_err(|err| self.source.failed(err))
    }

    /// The sums of all before `sequence`, of a stream that ends so.
    pub fn totals_at(&self, sequence: Sequence, end: Mark) -> Result<Totals, StoreError> {
        if sequence >= end.sequence {
            return Ok(end.totals);
        }
        let first = self.read(sequence, 1, 1)?.records.into_iter().next();
        Ok(first.map_or(end.totals, |record| record.before))
    }

    /// See [`Stream::first_sync`].
    pub fn first_sync(&self, sequence: Sequence, wanted: impl Fn(Totals) -> bool) -> Result<Option<Mark>, StoreError> {
        // One interval of the index lies between the last that is not enough and the first that is.
        let mut at = sequence + 1;
        let indexed = self.next_sync(sequence, |sequence, entry| {
            let enough = wanted(entry.totals);
            if !enough {
                at = sequence + 1;
            }
            enough
        })?;
        let known = indexed.map(|(sequence, entry)| Mark { sequence, totals: entry.totals });
        let until = known.map_or(Sequence::MAX, |known| known.sequence);
        loop {
            let chunk = self.read(at, SCAN_RECORDS, SCAN_BYTES)?;
            for record in chunk.records.iter().take_while(|record| record.sequence < until) {
                if let Body::Buffer(header) = &record.body
                    && header.sync != Sync::None
                    && wanted(record.before)
                {
                    return Ok(Some(Mark { sequence: record.sequence, totals: record.before }));
                }
            }
            match chunk.next.filter(|next| *next < until) {
                Some(next) => at = next,
                None => return Ok(known),
            }
        }
    }
}

impl Stream {
    /// Records from `from` or the log start on, until `max_records` or `max_bytes` of payload are reached; at least one if
    /// there is one.
    ///
    /// # Errors
    ///
    /// The disk could not be read. Damaged records are no error: they are left out and listed.
    pub fn read(&self, from: Sequence, max_records: usize, max_bytes: usize) -> Result<Chunk, StoreError> {
        let (log, stream) = self.parts();
        log.view(stream).read(from.max(stream.cursor().log_start), max_records, max_bytes)
    }

    /// The state in force just before `sequence`.
    ///
    /// # Errors
    ///
    /// The disk could not be read.
    pub fn state_at(&self, sequence: Sequence) -> Result<StateMap, StoreError> {
        let (log, stream) = self.parts();
        match stream.state_at_end(sequence) {
            Some(state) => Ok(state),
            None => log.view(stream).state_at(sequence),
        }
    }

    /// The first indexed sync point after `sequence` of which `wanted` approves.
    ///
    /// # Errors
    ///
    /// The disk could not be read.
    #[cfg(test)]
    pub fn next_sync(
        &self,
        sequence: Sequence,
        wanted: impl Fn(&IndexEntry) -> bool,
    ) -> Result<Option<(Sequence, IndexEntry)>, StoreError> {
        let (log, stream) = self.parts();
        log.view(stream).next_sync(sequence, |_, entry| wanted(entry))
    }

    /// The first sync point after `sequence` whose sums `wanted` approves of; sums grow, so all later ones are approved of
    /// too. The index finds the neighbourhood, the records themselves the place.
    ///
    /// # Errors
    ///
    /// The disk could not be read.
    pub fn first_sync(&self, sequence: Sequence, wanted: impl Fn(Totals) -> bool) -> Result<Option<Mark>, StoreError> {
        let (log, stream) = self.parts();
        log.view(stream).first_sync(sequence.max(stream.cursor().log_start.saturating_sub(1)), wanted)
    }
}
