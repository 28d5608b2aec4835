//! The table of extents: which extent holds which sequences of which stream, and when it is dead.
//!
//! Sequences of a stream grow from extent to extent, so the first sequence of each stream in each extent is enough to find
//! a record. An extent is dead when no stream has a record in it at or above the stream's log start; its files go then.

use std::collections::{HashMap, VecDeque};

use super::record::{Sequence, Totals};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct First {
    pub sequence: Sequence,
    pub totals: Totals,
}

#[derive(Debug)]
struct Entry {
    id: u32,
    /// Of every stream known when the extent was opened.
    first: HashMap<u32, First>,
    /// Streams with records in it that may still be wanted, with their payload bytes. Only once a later extent exists.
    live: HashMap<u32, u64>,
    /// Extents whose records lie in the same files since they were compacted together: first and last.
    group: (u32, u32),
    /// Payload bytes when it was closed.
    bytes: u64,
}

/// Extents from the oldest to the one being written.
#[derive(Debug, Default)]
pub struct Extents {
    entries: VecDeque<Entry>,
    log_start: HashMap<u32, Sequence>,
    /// Extent up to which a stream has no live records: each is looked at once.
    passed: HashMap<u32, u32>,
}

/// A stretch of one extent that a reader has to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub extent: u32,
    /// First sequence of the stream in it.
    pub first: Sequence,
    /// Where the next extent begins for the stream; `None` in the newest.
    pub end: Option<Sequence>,
}

impl Extents {
    /// Opens an extent; the one before it is closed with it.
    pub fn push(&mut self, id: u32, first: HashMap<u32, First>) {
        if let Some(last) = self.entries.back_mut() {
            let bounds = first.iter().filter_map(|(stream, next)| {
                // One that is not in the earlier extent begins with this one.
                let start = last.first.get(stream).unwrap_or(next);
                let bytes = next.totals.since(start.totals).bytes;
                (next.sequence > start.sequence).then_some((*stream, next.sequence, bytes))
            });
            let mut live = HashMap::new();
            for (stream, end, bytes) in bounds {
                last.bytes += bytes;
                if self.log_start.get(&stream).is_none_or(|start| *start < end) {
                    live.insert(stream, bytes);
                }
            }
            last.live = live;
        }
        self.entries.push_back(Entry { id, first, live: HashMap::new(), group: (id, id), bytes: 0 });
    }

    /// A stream that begins in the newest extent.
    pub fn add_stream(&mut self, stream: u32, first: First) {
        if let Some(last) = self.entries.back_mut() {
            last.first.insert(stream, first);
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    fn first(&self, index: usize, stream: u32) -> Option<First> {
        self.entries.get(index)?.first.get(&stream).copied()
    }

    /// Index of the extent in which `sequence` lies or would lie.
    fn locate(&self, stream: u32, sequence: Sequence) -> usize {
        self.entries.partition_point(|e| e.first.get(&stream).is_none_or(|f| f.sequence <= sequence)).saturating_sub(1)
    }

    /// Up to `limit` stretches from the one that holds `from`, in order.
    pub fn spans(&self, stream: u32, from: Sequence, limit: usize) -> Vec<Span> {
        (self.locate(stream, from)..self.entries.len())
            .filter_map(|index| {
                let first = self.first(index, stream)?.sequence;
                let end = self.first(index + 1, stream).map(|f| f.sequence);
                // Nothing of the stream in it.
                (end != Some(first)).then_some(Span { extent: self.entries[index].id, first, end })
            })
            .take(limit)
            .collect()
    }

    /// Nothing of `stream` below `sequence` is wanted any more.
    pub fn advance(&mut self, stream: u32, sequence: Sequence) {
        let start = self.log_start.entry(stream).or_default();
        if *start >= sequence {
            return;
        }
        *start = sequence;
        let passed = self.passed.get(&stream).copied().unwrap_or(0);
        let mut index = self.entries.partition_point(|e| e.id < passed);
        while self.first(index + 1, stream).is_some_and(|next| next.sequence <= sequence) {
            self.entries[index].live.remove(&stream);
            index += 1;
        }
        if let Some(entry) = self.entries.get(index) {
            self.passed.insert(stream, entry.id);
        }
    }

    /// Whether [`Extents::take_dead`] would find something.
    pub fn has_dead(&self) -> bool {
        self.closed().any(|e| e.live.is_empty() && self.group_dead(e.group))
    }

    fn closed(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().take(self.entries.len().saturating_sub(1))
    }

    fn group_dead(&self, (first, last): (u32, u32)) -> bool {
        first == last || self.closed().filter(|e| (first..=last).contains(&e.id)).all(|e| e.live.is_empty())
    }

    /// Forgets the dead extents and tells their ranges, first to last, neighbours together.
    pub fn take_dead(&mut self) -> Vec<(u32, u32)> {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        let newest = self.entries.back().map(|e| e.id);
        let dead: Vec<(u32, (u32, u32))> =
            self.closed().filter(|e| e.live.is_empty() && self.group_dead(e.group)).map(|e| (e.id, e.group)).collect();
        for (id, group) in &dead {
            match ranges.last_mut() {
                // Ids between two neighbours in the table belong to extents that are gone already.
                Some(range) if self.adjacent(range.1, *id) || range.1 >= group.0 => range.1 = range.1.max(group.1),
                _ => ranges.push(*group),
            }
        }
        self.entries.retain(|e| Some(e.id) == newest || dead.binary_search_by_key(&e.id, |d| d.0).is_err());
        ranges
    }

    fn adjacent(&self, earlier: u32, later: u32) -> bool {
        !self.entries.iter().any(|e| e.id > earlier && e.id < later)
    }

    /// A run of closed extents of which at most a quarter is wanted, worth `min_bytes` of reclaimed space: first and last.
    pub fn mostly_dead(&self, min_bytes: u64) -> Option<(u32, u32)> {
        let mut run: Option<(u32, u32, u64)> = None;
        let mut best: Option<(u32, u32, u64)> = None;
        for entry in self.closed() {
            let live: u64 = entry.live.values().sum();
            let reclaimed = entry.bytes.saturating_sub(live);
            let candidate = entry.group.0 == entry.group.1 && live > 0 && live <= entry.bytes / 4;
            run = match run {
                Some((first, _, sum)) if candidate => Some((first, entry.id, sum + reclaimed)),
                _ if candidate => Some((entry.id, entry.id, reclaimed)),
                _ => None,
            };
            if run.map_or(0, |r| r.2) > best.map_or(0, |b| b.2) {
                best = run;
            }
        }
        best.filter(|b| b.2 >= min_bytes && b.0 < b.1).map(|b| (b.0, b.1))
    }

    /// The extents from `first` to `last` share their files from now on.
    pub fn merged(&mut self, first: u32, last: u32) {
        for entry in self.entries.iter_mut().filter(|e| (first..=last).contains(&e.id)) {
            entry.group = (first, last);
            entry.bytes = entry.live.values().sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(pairs: &[(u32, u64)]) -> HashMap<u32, First> {
        pairs
            .iter()
            .map(|&(stream, sequence)| {
                (stream, First { sequence, totals: Totals { bytes: sequence * 10, ..Totals::default() } })
            })
            .collect()
    }

    fn table() -> Extents {
        let mut extents = Extents::default();
        extents.push(1, first(&[(1, 1)]));
        extents.push(2, first(&[(1, 10), (2, 1)]));
        extents.push(4, first(&[(1, 20), (2, 1)]));
        extents.push(5, first(&[(1, 30), (2, 5)]));
        extents
    }

    #[test]
    fn a_sequence_is_found_in_its_extent() {
        let extents = table();
        let spans = |stream, from| extents.spans(stream, from, 9).iter().map(|s| s.extent).collect::<Vec<_>>();
        assert_eq!(spans(1, 0), [1, 2, 4, 5]);
        assert_eq!(spans(1, 10), [2, 4, 5]);
        assert_eq!(spans(1, 19), [2, 4, 5]);
        assert_eq!(spans(1, 99), [5]);
        assert_eq!(spans(2, 1), [4, 5], "extent 2 holds nothing of stream 2");
        assert_eq!(spans(3, 1), Vec::<u32>::new());
    }

    #[test]
    fn an_extent_dies_when_its_last_stream_has_passed() {
        let mut extents = table();
        extents.advance(1, 25);
        assert_eq!(extents.take_dead(), [(1, 2)]);
        extents.advance(1, 30);
        assert!(!extents.has_dead(), "stream 2 has records in extent 4");
        extents.advance(2, 5);
        assert_eq!(extents.take_dead(), [(4, 4)]);
        extents.advance(1, 99);
        assert!(!extents.has_dead(), "the newest extent is being written");
        assert_eq!(extents.spans(1, 0, 9).len(), 1);
    }

    #[test]
    fn extents_that_share_files_die_together() {
        let mut extents = table();
        extents.merged(1, 2);
        extents.advance(1, 10);
        assert!(!extents.has_dead());
        extents.advance(1, 20);
        assert_eq!(extents.take_dead(), [(1, 2)]);
    }

    #[test]
    fn a_stalled_stream_makes_extents_mostly_dead() {
        let mut extents = Extents::default();
        for id in 1..=5u32 {
            extents.push(id, first(&[(1, u64::from(id) * 100), (2, u64::from(id))]));
        }
        assert_eq!(extents.mostly_dead(1), None);
        extents.advance(1, 400);
        assert_eq!(extents.mostly_dead(2000), Some((1, 3)));
        assert_eq!(extents.mostly_dead(5000), None);
        extents.merged(1, 3);
        assert_eq!(extents.mostly_dead(1), None);
    }
}
