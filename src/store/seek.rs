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
        let points = self.points();
        let mut best = None;
        self.scan(self.first, self.entry_from(self.first)?.map_or(Sequence::MAX, |entry| entry.0), utc, &mut best)?;
        // Numbers of boots grow along the stream.
        let mut rest = points.as_slice();
        while let Some(first) = rest.first()
            && let Some((_, boot)) = self.entry_from(*first)?
        {
            let of_boot = halve(rest, |at| Ok(self.entry_from(*at)?.is_some_and(|entry| entry.1 <= boot)))?;
            let before = halve(&rest[..of_boot], |at| self.is_before(*at, utc))?;
            // In the last stretch the next boots may begin.
            let last = of_boot - 1;
            for index in [before.checked_sub(1).filter(|index| *index != last), Some(last)].into_iter().flatten() {
                let to = rest.get(index + 1).copied().unwrap_or(Sequence::MAX);
                self.search(rest[index], to, utc, &mut best)?;
            }
            rest = &rest[of_boot..];
        }
        Ok(best)
    }

    /// Where extents and what was kept of them begin: between two of these little is indexed.
    fn points(&self) -> Vec<Sequence> {
        let spans = self.view.source.extents().spans(self.view.stream.id(), self.first, usize::MAX);
        let holes = self.view.stream.holes();
        let begins = spans.iter().map(|span| span.first).chain(holes.iter().map(|hole| hole.from));
        let mut points: Vec<_> = begins.map(|at| at.max(self.first)).chain([self.first]).collect();
        points.sort_unstable();
        points.dedup();
        points
    }

    /// Looks for a better one in a stretch, boot by boot.
    fn search(&self, from: Sequence, to: Sequence, utc: i64, best: &mut Option<SyncPoint>) -> Result<(), StoreError> {
        let entries = self.entries(from, to)?;
        let mut done = 0;
        for boot in entries.chunk_by(|a, b| a.1 == b.1) {
            let before = halve(boot, |entry| self.is_before(entry.0, utc))?;
            if let Some(index) = before.checked_sub(1) {
                let next = match entries.get(done + before) {
                    Some(next) => Some(next.0),
                    None => self.entry_from(to)?.map(|next| next.0),
                };
                self.scan(boot[index].0, next.unwrap_or(Sequence::MAX), utc, best)?;
            }
            done += boot.len();
        }
        Ok(())
    }

    /// Looks for a better one among the records from `from` to before `to`.
    fn scan(&self, from: Sequence, to: Sequence, utc: i64, best: &mut Option<SyncPoint>) -> Result<(), StoreError> {
        self.each_sync(from, to, |point| {
            let key = |point: SyncPoint| (point.captured_at, point.sequence);
            if point.captured_at <= utc && best.is_none_or(|best| key(point) > key(best)) {
                *best = Some(point);
            }
            false
        })
    }

    /// Whether the first indexed sync point at or after `sequence` was captured at or before `utc`.
    fn is_before(&self, sequence: Sequence, utc: i64) -> Result<bool, StoreError> {
        Ok(self.indexed_from(sequence)?.is_some_and(|point| point.captured_at <= utc))
    }

    /// The first indexed sync point at or after `sequence` that is readable.
    fn indexed_from(&self, sequence: Sequence) -> Result<Option<SyncPoint>, StoreError> {
        let mut at = sequence;
        while let Some((entry, _)) = self.entry_from(at)? {
            let record = self.view.read(entry, 1, 1)?.records.into_iter().next();
            if let Some(point) = record.filter(|record| record.sequence == entry).and_then(|r| self.sync_point(&r)) {
                return Ok(Some(point));
            }
            at = entry + 1;
        }
        Ok(None)
    }

    /// The first entry of the index at or after `sequence`, and the number of its boot.
    fn entry_from(&self, sequence: Sequence) -> Result<Option<(Sequence, u32)>, StoreError> {
        let found = self.view.next_sync(sequence.max(1) - 1, |_, _| true)?;
        Ok(found.map(|(at, entry)| (at, entry.arrival.boot)))
    }

    /// The entries of the index from `from` to before `to`.
    fn entries(&self, from: Sequence, to: Sequence) -> Result<Vec<(Sequence, u32)>, StoreError> {
        let mut entries = Vec::new();
        self.view.next_sync(from.max(1) - 1, |at, entry| {
            if at < to {
                entries.push((at, entry.arrival.boot));
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

/// How many at the beginning `holds` is true of, when it is false of all that follow.
fn halve<T>(list: &[T], holds: impl Fn(&T) -> Result<bool, StoreError>) -> Result<usize, StoreError> {
    let (mut low, mut high) = (0, list.len());
    while low < high {
        let middle = low + (high - low) / 2;
        match holds(&list[middle])? {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    Ok(low)
}
