//! Reading a stream: records in order, the state at a position, sync points.
//!
//! A stream is a row of pieces, each in one extent: a stretch of what was appended, or what was kept of a stretch that was
//! thinned or purged. Readers go from piece to piece and see one stream.

use std::sync::atomic::Ordering;

use super::clock::Arrival;
use super::error::StoreError;
use super::log::Log;
use super::record::{self, Body, Record, Sequence, StateMap, Sync, Totals};
use super::schema::{self, IndexEntry, Lane};
use super::stream::{Chunk, Mark, Stream, StreamLog};
use super::survey::state_before;
use super::walk::Walk;

/// Extents that a reader looks at in one go.
const SPANS: usize = 64;
/// What is read at a time in search of a sync point.
const SCAN_RECORDS: usize = 256;
const SCAN_BYTES: usize = 1 << 20;

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

    fn data(&self, stream: u32) -> Lane {
        self.lane(Lane::Data, Lane::ThinData, stream)
    }

    fn state(&self, stream: u32) -> Lane {
        self.lane(Lane::State, Lane::ThinState, stream)
    }

    fn index(&self, stream: u32) -> Lane {
        self.lane(Lane::Index, Lane::ThinIndex, stream)
    }
}

/// Some pieces in order, and where to ask for more; `None` at the end of the stream.
pub struct Pieces {
    pub list: Vec<Piece>,
    pub next: Option<Sequence>,
}

impl Log {
    /// Pieces from `from` on.
    pub fn pieces(&self, stream: &StreamLog, from: Sequence) -> Pieces {
        let holes = stream.holes();
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
            let spans = self.extents().spans(stream.id, at, SPANS);
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

    /// See [`Stream::read`].
    pub fn read(
        &self,
        stream: &StreamLog,
        from: Sequence,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Chunk, StoreError> {
        let mut chunk = Chunk::default();
        let mut from = from;
        let mut bytes = 0;
        loop {
            let pieces = self.pieces(stream, from);
            for piece in &pieces.list {
                if self.read_piece(stream, piece, max_records, max_bytes, &mut bytes, &mut chunk)? {
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
        stream: &StreamLog,
        piece: &Piece,
        max_records: usize,
        max_bytes: usize,
        bytes: &mut usize,
        chunk: &mut Chunk,
    ) -> Result<bool, StoreError> {
        // Both lanes up to the same record: what is being written could show in the one and not in the other.
        let committed = stream.committed.load(Ordering::Acquire);
        let to = committed.min(piece.to);
        let db = self.db()?;
        let data_end = piece.data_end(committed);
        let mut data = Walk::new(&db, piece.extent, piece.data(stream.id), piece.from, data_end, false);
        let mut state = Walk::new(&db, piece.extent, piece.state(stream.id), piece.from.max(1), to, true);
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
                    // The state at the beginning of a thinned piece is no record.
                    Ok(Record { body: Body::Snapshot(_), .. }) if piece.thinned => {}
                    Ok(record) => {
                        *bytes += record.payload.len();
                        chunk.records.push(Record { before: record.before.plus(piece.base), ..record });
                    }
                    Err(_) => chunk.damaged.push(at),
                }
                chunk.next = Some(at + 1);
            }
            iter.next();
        }
        data.status().and_then(|()| state.status()).map_err(|err| self.failed(err))?;
        chunk.skip(data.take_skipped());
        chunk.skip(state.take_skipped());
        Ok(false)
    }

    /// See [`Stream::state_at`].
    pub fn state_at(&self, stream: &StreamLog, sequence: Sequence) -> Result<StateMap, StoreError> {
        let holes = stream.holes();
        let db = self.db()?;
        let mut state = StateMap::new();
        let read = match holes.at(sequence) {
            // The snapshot stands at the beginning.
            Some(hole) => {
                let to = sequence.max(hole.from + 1);
                state_before(&db, Lane::ThinState(stream.id), [hole.extent], to, &mut state)
            }
            None => {
                let mut extents = self.extents().up_to(stream.id, sequence);
                extents.reverse();
                state_before(&db, Lane::State(stream.id), extents, sequence, &mut state)
            }
        };
        read.map(|_| state).map_err(|err| self.failed(err))
    }

    /// See [`Stream::next_sync`].
    pub fn next_sync(
        &self,
        stream: &StreamLog,
        sequence: Sequence,
        mut wanted: impl FnMut(Sequence, &IndexEntry) -> bool,
    ) -> Result<Option<(Sequence, IndexEntry)>, StoreError> {
        let mut from = sequence + 1;
        loop {
            let pieces = self.pieces(stream, from);
            for piece in &pieces.list {
                // Beyond the end lies what an append that failed may have left.
                let to = piece.data_end(stream.committed.load(Ordering::Acquire));
                let db = self.db()?;
                let mut iter = Walk::new(&db, piece.extent, piece.index(stream.id), piece.from, to, true);
                while let Some(at) = iter.sequence() {
                    if let Some(entry) = iter.value().and_then(schema::decode_value::<IndexEntry>) {
                        let entry = IndexEntry { totals: entry.totals.plus(piece.base), ..entry };
                        if wanted(at, &entry) {
                            return Ok(Some((at, entry)));
                        }
                    }
                    iter.next();
                }
                iter.status().map_err(|err| self.failed(err))?;
            }
            match pieces.next {
                Some(next) => from = next,
                None => return Ok(None),
            }
        }
    }

    /// When the first buffer or event at or after `sequence` came.
    pub fn arrival_at(&self, stream: &StreamLog, sequence: Sequence) -> Result<Option<Arrival>, StoreError> {
        let mut from = sequence;
        loop {
            let pieces = self.pieces(stream, from);
            for piece in &pieces.list {
                // Beyond the end lies what an append that failed may have left.
                let to = piece.data_end(stream.committed.load(Ordering::Acquire));
                let db = self.db()?;
                let mut iter = Walk::new(&db, piece.extent, piece.data(stream.id), piece.from, to, true);
                while let Some(at) = iter.sequence() {
                    if let Some(Ok(record)) = iter.value().map(|value| record::decode(at, value.to_vec())) {
                        return Ok(Some(record.arrival));
                    }
                    iter.next();
                }
                iter.status().map_err(|err| self.failed(err))?;
            }
            match pieces.next {
                Some(next) => from = next,
                None => return Ok(None),
            }
        }
    }

    /// Visits the records in the state lane of a piece.
    pub fn each_state(
        &self,
        stream: &StreamLog,
        piece: &Piece,
        mut visit: impl FnMut(Record),
    ) -> Result<(), StoreError> {
        let to = stream.committed.load(Ordering::Acquire).min(piece.to);
        let db = self.db()?;
        let mut iter = Walk::new(&db, piece.extent, piece.state(stream.id), piece.from.max(1), to, true);
        while let Some(at) = iter.sequence() {
            if let Some(Ok(record)) = iter.value().map(|value| record::decode(at, value.to_vec())) {
                visit(record);
            }
            iter.next();
        }
        iter.status().map_err(|err| self.failed(err))
    }

    /// The sums of all before `sequence`.
    pub fn totals_at(&self, stream: &StreamLog, sequence: Sequence) -> Result<Totals, StoreError> {
        let end = stream.written_mark();
        if sequence >= end.sequence {
            return Ok(end.totals);
        }
        let first = self.read(stream, sequence, 1, 1)?.records.into_iter().next();
        Ok(first.map_or(end.totals, |record| record.before))
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
        log.read(stream, from.max(stream.cursor().log_start), max_records, max_bytes)
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
            None => log.state_at(stream, sequence),
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
        log.next_sync(stream, sequence, |_, entry| wanted(entry))
    }

    /// The first sync point after `sequence` whose sums `wanted` approves of; sums grow, so all later ones are approved of
    /// too. The index finds the neighbourhood, the records themselves the place.
    ///
    /// # Errors
    ///
    /// The disk could not be read.
    pub fn first_sync(&self, sequence: Sequence, wanted: impl Fn(Totals) -> bool) -> Result<Option<Mark>, StoreError> {
        let (log, stream) = self.parts();
        // One interval of the index lies between the last that is not enough and the first that is.
        let mut at = sequence + 1;
        let indexed = log.next_sync(stream, sequence, |sequence, entry| {
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
