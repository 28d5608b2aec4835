//! Finding a sync point: by sequence and by capture time.
//!
//! Sync points are looked for in the index, which has one per second or MiB, and then among the records between two entries of
//! it: the answer is exact to the sync point. Extents are found by halving, so a search costs some twenty reads whatever is
//! stored.
//!
//! The capture time of a record is what it brought along, else the corrected time of its arrival. Within a boot of the machine
//! arrivals grow, so halving is sound; boots are searched one by one, for a clock may have been wrong in one of them. Of all
//! sync points at or before a time the one with the latest time is found, and of equal ones the last. Where the times that
//! buffers bring along go back within one boot, because a camera's clock was set, a sync point at or before the time is
//! found, though maybe not the nearest.

use super::clock::Arrival;
use super::error::StoreError;
use super::extents::Span;
use super::reader::{Piece, View};
use super::record::{Body, BufferHeader, MetaRecord, Record, Sequence, Sync, Totals};
use super::walk::{Walk, is_damage};

/// What is read at a time in search of a sync point.
const SCAN_RECORDS: usize = 256;
const SCAN_BYTES: usize = 1 << 20;

/// Capture time that a buffer brings along, by its metas, in ns since 1970.
pub type Reference = fn(&[MetaRecord]) -> Option<i64>;

/// A place where decoding can begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncPoint {
    pub sequence: Sequence,
    /// Everything before it.
    pub totals: Totals,
    pub sync: Sync,
    /// ns; of the epoch it belongs to.
    pub running_time: Option<i64>,
    /// ns since 1970.
    pub captured_at: i64,
    /// Whether the clock that says so was synchronised.
    pub synced: bool,
}

/// When a buffer was captured, and whether the clock that says so was synchronised.
pub fn captured_at(view: View<'_>, reference: Reference, header: &BufferHeader, arrival: Arrival) -> (i64, bool) {
    match reference(&header.metas) {
        Some(at) => (at, true),
        None => view.source.corrected(arrival).unwrap_or((header.captured_at, false)),
    }
}

/// Searches a stream from its log start on.
#[derive(Clone, Copy)]
pub struct Seek<'a> {
    pub view: View<'a>,
    pub first: Sequence,
    pub reference: Reference,
}

impl Seek<'_> {
    fn sync_point(&self, record: &Record) -> Option<SyncPoint> {
        let Body::Buffer(header) = &record.body else { return None };
        let (captured_at, synced) = captured_at(self.view, self.reference, header, record.arrival);
        (header.sync != Sync::None).then_some(SyncPoint {
            sequence: record.sequence,
            totals: record.before,
            sync: header.sync,
            running_time: header.running_time,
            captured_at,
            synced,
        })
    }

    /// Visits the sync points from `from` to before `to` until `visit` says that it is enough.
    fn each_sync(
        &self,
        from: Sequence,
        to: Sequence,
        mut visit: impl FnMut(SyncPoint) -> bool,
    ) -> Result<(), StoreError> {
        let mut at = from.max(self.first);
        while at < to {
            let chunk = self.view.read(at, SCAN_RECORDS, SCAN_BYTES)?;
            for record in chunk.records.iter().take_while(|record| record.sequence < to) {
                if self.sync_point(record).is_some_and(&mut visit) {
                    return Ok(());
                }
            }
            match chunk.next {
                Some(next) => at = next,
                None => break,
            }
        }
        Ok(())
    }

    /// The first sync point at or after `sequence`.
    pub fn first_from(&self, sequence: Sequence) -> Result<Option<SyncPoint>, StoreError> {
        let mut found = None;
        self.each_sync(sequence, Sequence::MAX, |point| {
            found = Some(point);
            true
        })?;
        Ok(found)
    }

    /// The last sync point at or before `sequence`.
    pub fn last_until(&self, sequence: Sequence) -> Result<Option<SyncPoint>, StoreError> {
        let sequence = sequence.min(self.view.stream.committed().saturating_sub(1));
        let end = sequence.saturating_add(1);
        let mut until = end;
        while until > self.first {
            // A damaged entry may name what is none: then the one before it.
            let from = self.index_before(until)?.unwrap_or(self.first);
            let mut found = None;
            self.each_sync(from, end, |point| {
                found = Some(point);
                false
            })?;
            if found.is_some() {
                return Ok(found);
            }
            until = from;
        }
        Ok(None)
    }

    /// The last sync point at or before a capture time: the one with the latest time.
    pub fn last_until_time(&self, utc: i64) -> Result<Option<SyncPoint>, StoreError> {
        let spans = self.view.source.extents().spans(self.view.stream.id(), self.first, usize::MAX);
        let mut best: Option<SyncPoint> = None;
        for boot in spans.chunk_by(|a, b| a.boot == b.boot) {
            if let Some(found) = self.last_until_time_within(boot, utc)?
                && best.is_none_or(|best| found.captured_at >= best.captured_at)
            {
                best = Some(found);
            }
        }
        Ok(best)
    }

    fn last_until_time_within(&self, boot: &[Span], utc: i64) -> Result<Option<SyncPoint>, StoreError> {
        let (Some(oldest), Some(newest)) = (boot.first(), boot.last()) else { return Ok(None) };
        let (start, end) = (oldest.first.max(self.first), newest.end.unwrap_or(Sequence::MAX));
        let mut failed = None;
        let mut reaches = |from: Sequence, to: Sequence| match self.indexed_from(from, to) {
            Ok(Some(point)) => point.captured_at <= utc,
            Ok(None) => false,
            Err(error) => {
                failed.get_or_insert(error);
                false
            }
        };
        let after = boot.partition_point(|span| reaches(span.first.max(start), end));
        if let Some(error) = failed {
            return Err(error);
        }
        let span = boot[after.saturating_sub(1)];
        // The entries of this extent, then the one that is the last at or before the time, and what follows it.
        let (from, to) = (span.first.max(start), span.end.unwrap_or(Sequence::MAX));
        let entries = self.entries(from, to)?;
        let mut failed = None;
        let after = entries.partition_point(|at| match self.indexed_from(*at, to) {
            Ok(point) => point.is_some_and(|point| point.captured_at <= utc),
            Err(error) => {
                failed.get_or_insert(error);
                false
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let from = after.checked_sub(1).map_or(start, |before| entries[before]);
        let to = match entries.get(after) {
            Some(next) => *next,
            None => self.entry_from(to)?.map_or(end, |next| next.min(end)),
        };
        let mut best: Option<SyncPoint> = None;
        self.each_sync(from, to, |point| {
            if point.captured_at <= utc && best.is_none_or(|best| point.captured_at >= best.captured_at) {
                best = Some(point);
            }
            false
        })?;
        Ok(best)
    }

    /// The first indexed sync point from `from` to before `to` that is readable.
    fn indexed_from(&self, from: Sequence, to: Sequence) -> Result<Option<SyncPoint>, StoreError> {
        let mut at = from;
        while let Some(entry) = self.entry_from(at)?.filter(|entry| *entry < to) {
            let record = self.view.read(entry, 1, 1)?.records.into_iter().next();
            if let Some(point) = record.filter(|record| record.sequence == entry).and_then(|r| self.sync_point(&r)) {
                return Ok(Some(point));
            }
            at = entry + 1;
        }
        Ok(None)
    }

    /// The first entry of the index at or after `sequence`.
    fn entry_from(&self, sequence: Sequence) -> Result<Option<Sequence>, StoreError> {
        let found = self.view.next_sync(sequence.max(1) - 1, |_, _| true)?;
        Ok(found.map(|found| found.0))
    }

    /// The entries of the index from `from` to before `to`.
    fn entries(&self, from: Sequence, to: Sequence) -> Result<Vec<Sequence>, StoreError> {
        let mut entries = Vec::new();
        self.view.next_sync(from.max(1) - 1, |at, _| {
            if at < to {
                entries.push(at);
            }
            at >= to
        })?;
        Ok(entries)
    }

    /// The last entry of the index before `sequence`.
    fn index_before(&self, sequence: Sequence) -> Result<Option<Sequence>, StoreError> {
        let mut to = sequence;
        while to > self.first
            && let Some(piece) = self.view.piece_before(to)
        {
            let to_here = piece.to.min(to);
            if let Some(found) = self.last_entry(&piece, to_here)?.filter(|found| *found >= self.first) {
                return Ok(Some(found));
            }
            to = piece.from;
        }
        Ok(None)
    }

    fn last_entry(&self, piece: &Piece, to: Sequence) -> Result<Option<Sequence>, StoreError> {
        if piece.purged {
            return Ok(None);
        }
        let db = self.view.source.db()?;
        let lane = piece.index(self.view.stream.id());
        match Walk::last(&db, piece.extent, lane, piece.from, to) {
            Ok(found) => Ok(found),
            Err(error) if is_damage(&error) => {
                let mut walk = Walk::new(&db, piece.extent, lane, piece.from, to, true);
                let mut last = None;
                while let Some(at) = walk.sequence() {
                    last = Some(at);
                    walk.next();
                }
                walk.status().map(|()| last).map_err(|err| self.view.source.failed(err))
            }
            Err(error) => Err(self.view.source.failed(error)),
        }
    }
}
