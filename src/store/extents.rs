//! The table of extents: which extent holds which sequences of which stream, and when it is dead.
//!
//! Sequences of a stream grow from extent to extent, so the first sequence of each stream in each extent is enough to find
//! a record. An extent is dead when no stream has a record in it at or above the stream's log start; it leaves the table
//! then, and files that hold nothing of the table's extents can go.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::holes::Holes;
use super::record::Sequence;

/// Where a stream stands at the start of an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct First {
    pub sequence: Sequence,
    /// Payload bytes before it.
    pub bytes: u64,
}

#[derive(Debug)]
struct Entry {
    id: u32,
    /// Number of the boot in which it was opened.
    boot: u32,
    /// Of every stream known when the extent was opened, by stream.
    first: Vec<(u32, First)>,
    /// Streams with records in it that may still be wanted, with their payload bytes. Only once a later extent exists.
    live: Vec<(u32, u64)>,
    /// What was kept of thinned stretches: stream, end of the stretch, bytes.
    kept: Vec<(u32, Sequence, u64)>,
    /// Payload bytes when it was closed.
    bytes: u64,
    /// Compacted already: nothing more to gain.
    compacted: bool,
}

impl Entry {
    fn is_dead(&self) -> bool {
        self.live.is_empty() && self.kept.is_empty()
    }

    fn first(&self, stream: u32) -> Option<First> {
        self.first.binary_search_by_key(&stream, |f| f.0).ok().map(|at| self.first[at].1)
    }
}

/// Extents from the oldest to the one being written.
#[derive(Debug, Default)]
pub struct Extents {
    entries: VecDeque<Entry>,
    log_start: HashMap<u32, Sequence>,
    /// Extent up to which a stream has no live records: each is looked at once.
    passed: HashMap<u32, u32>,
    /// Holes that were taken account of, and the newest extent then.
    covered: HashMap<u32, (Arc<Holes>, u32)>,
    /// Some extent has kept records of a thinned stretch.
    any_kept: bool,
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

/// Closed extents of which little is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub first: u32,
    pub last: u32,
    /// Payload bytes that are still wanted.
    pub live: u64,
}

/// A run is compacted when at most this part of each extent is wanted: what it writes is less than a tenth of what it
/// reclaims. With a quarter, 64 streams that were drained one after the other wrote 0.12 more per byte stored.
const WANTED: u64 = 12;
/// A compaction reads a run as a whole and must come to its end soon.
const MAX_RUN: u32 = 16;

impl Extents {
    /// Opens an extent; the one before it is closed with it.
    pub fn push(&mut self, id: u32, boot: u32, mut first: Vec<(u32, First)>) {
        first.sort_unstable_by_key(|f| f.0);
        if let Some(last) = self.entries.back_mut() {
            for (stream, next) in &first {
                // One that is not in the earlier extent begins with this one.
                let start = last.first(*stream).unwrap_or(*next);
                let bytes = next.bytes.saturating_sub(start.bytes);
                last.bytes += bytes;
                let wanted = self.log_start.get(stream).is_none_or(|start| *start < next.sequence);
                if next.sequence > start.sequence && wanted {
                    last.live.push((*stream, bytes));
                }
            }
        }
        self.entries.push_back(Entry {
            id,
            boot,
            first,
            live: Vec::new(),
            kept: Vec::new(),
            bytes: 0,
            compacted: false,
        });
    }

    /// The first boot of which there are records.
    pub fn oldest_boot(&self) -> Option<u32> {
        self.entries.front().map(|e| e.boot)
    }

    /// Where a stream stands at the start of the newest extent.
    pub fn newest_first(&self, stream: u32) -> Option<Sequence> {
        self.entries.back()?.first(stream).map(|first| first.sequence)
    }

    /// Whether the newest extent can hold records of the stream.
    pub fn knows(&self, stream: u32) -> bool {
        self.entries.back().is_some_and(|e| e.first(stream).is_some())
    }

    /// A stream that begins in the newest extent.
    pub fn add_stream(&mut self, stream: u32, first: First) {
        if let Some(last) = self.entries.back_mut()
            && let Err(at) = last.first.binary_search_by_key(&stream, |f| f.0)
        {
            last.first.insert(at, (stream, first));
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    fn first(&self, index: usize, stream: u32) -> Option<First> {
        self.entries.get(index)?.first(stream)
    }

    /// Index of the extent in which `sequence` lies or would lie.
    fn locate(&self, stream: u32, sequence: Sequence) -> usize {
        self.entries.partition_point(|e| e.first(stream).is_none_or(|f| f.sequence <= sequence)).saturating_sub(1)
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

    /// The stretch in which the last number before `sequence` lies.
    pub fn span_before(&self, stream: u32, sequence: Sequence) -> Option<Span> {
        let mut index = self.locate(stream, sequence.saturating_sub(1)) + 1;
        while let Some(before) = index.checked_sub(1) {
            index = before;
            let first = self.first(index, stream)?.sequence;
            let end = self.first(index + 1, stream).map(|f| f.sequence);
            if first < sequence && end != Some(first) {
                return Some(Span { extent: self.entries[index].id, first, end });
            }
        }
        None
    }

    /// The extents with something of `stream` up to the one in which `sequence` lies, in order.
    pub fn up_to(&self, stream: u32, sequence: Sequence) -> Vec<u32> {
        let Some(last) = self.spans(stream, sequence, 1).first().map(|span| span.extent) else { return Vec::new() };
        let spans = self.spans(stream, 0, usize::MAX).into_iter();
        spans.map(|span| span.extent).filter(|extent| *extent < last).chain([last]).collect()
    }

    /// Nothing of `stream` below `sequence` is wanted any more.
    pub fn advance(&mut self, stream: u32, sequence: Sequence) {
        let start = self.log_start.entry(stream).or_default();
        if *start >= sequence {
            return;
        }
        *start = sequence;
        if self.any_kept {
            for entry in &mut self.entries {
                entry.kept.retain(|kept| kept.0 != stream || kept.1 > sequence);
            }
            self.any_kept = self.entries.iter().any(|entry| !entry.kept.is_empty());
        }
        let passed = self.passed.get(&stream).copied().unwrap_or(0);
        let mut index = self.entries.partition_point(|e| e.id < passed);
        // Extents from before the stream hold nothing of it.
        while self.entries.get(index + 1).is_some_and(|e| e.first(stream).is_none_or(|f| f.sequence <= sequence)) {
            self.entries[index].live.retain(|live| live.0 != stream);
            index += 1;
        }
        if let Some(entry) = self.entries.get(index) {
            self.passed.insert(stream, entry.id);
        }
    }

    /// An extent holds what was kept of a stretch of `stream` that ends before `to`.
    pub fn keep(&mut self, extent: u32, stream: u32, to: Sequence, bytes: u64) {
        if let Some(entry) = self.entries.iter_mut().find(|e| e.id == extent) {
            entry.kept.push((stream, to, bytes));
            entry.bytes += bytes;
            self.any_kept = true;
        }
    }

    /// Nothing of `stream` in these stretches is wanted in its first place any more.
    pub fn cover(&mut self, stream: u32, holes: &Arc<Holes>) {
        let newest = self.newest().unwrap_or(0);
        let known = self.covered.get(&stream).is_some_and(|(was, at)| Arc::ptr_eq(was, holes) && *at == newest);
        if known || (holes.is_empty() && !self.covered.contains_key(&stream)) {
            return;
        }
        for index in 0..self.entries.len().saturating_sub(1) {
            let (Some(first), Some(next)) = (self.first(index, stream), self.first(index + 1, stream)) else {
                continue;
            };
            let numbers = next.sequence.saturating_sub(first.sequence);
            let covered = holes.covered(first.sequence, next.sequence);
            let entry = &mut self.entries[index];
            let Some(at) = entry.live.iter().position(|live| live.0 == stream).filter(|_| covered > 0) else {
                continue;
            };
            if covered >= numbers {
                entry.live.swap_remove(at);
            } else {
                let bytes = next.bytes.saturating_sub(first.bytes);
                let left = (u128::from(bytes) * u128::from(numbers - covered) / u128::from(numbers)) as u64;
                // Worth another look at whether there is something to gain.
                entry.compacted &= left >= entry.live[at].1;
                entry.live[at].1 = left.min(entry.live[at].1);
            }
        }
        self.covered.insert(stream, (holes.clone(), newest));
    }

    /// Extents in which records of the stretch were appended.
    pub fn within(&self, stream: u32, from: Sequence, to: Sequence) -> Vec<u32> {
        let range = self.locate(stream, from)..self.entries.len();
        let begins_before = |index: &usize| self.first(*index, stream).is_none_or(|first| first.sequence < to);
        range.take_while(begins_before).map(|index| self.entries[index].id).collect()
    }

    /// Extents that hold what was kept of a thinned stretch of the stream.
    pub fn keepers(&self, stream: u32) -> Vec<u32> {
        self.entries.iter().filter(|e| e.kept.iter().any(|kept| kept.0 == stream)).map(|e| e.id).collect()
    }

    /// Whether all extents from `first` to `last` are in the table.
    pub fn all_within(&self, first: u32, last: u32) -> bool {
        let index = self.entries.partition_point(|e| e.id < first);
        self.entries.range(index..).take_while(|e| e.id <= last).count() as u64 == u64::from(last - first) + 1
    }

    /// The oldest extents of which nothing is pending, until `wanted` payload bytes are in them: how many there are, and where
    /// each stream with some of it goes on. `resumes` tells where what is pending begins.
    pub fn oldest_delivered(&self, wanted: u64, resumes: &HashMap<u32, Sequence>) -> (u64, HashMap<u32, Sequence>) {
        let (mut bytes, mut goals) = (0, HashMap::new());
        for (index, entry) in self.entries.iter().enumerate().take(self.entries.len().saturating_sub(1)) {
            if bytes >= wanted {
                break;
            }
            let appended = entry.live.iter().map(|(stream, bytes)| {
                (*stream, self.first(index + 1, *stream).map_or(Sequence::MAX, |first| first.sequence), *bytes)
            });
            let parts: Vec<_> = appended.chain(entry.kept.iter().copied()).collect();
            if parts.iter().any(|(stream, end, _)| resumes.get(stream).is_none_or(|resume| resume < end)) {
                continue;
            }
            for (stream, end, part) in parts {
                let goal = goals.entry(stream).or_insert(end);
                *goal = end.max(*goal);
                bytes += part;
            }
        }
        (bytes, goals)
    }

    fn closed(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().take(self.entries.len().saturating_sub(1))
    }

    pub fn has_dead(&self) -> bool {
        self.closed().any(Entry::is_dead)
    }

    /// Forgets the dead extents.
    pub fn drop_dead(&mut self) {
        let newest = self.entries.back().map(|e| e.id);
        self.entries.retain(|e| Some(e.id) == newest || !e.is_dead());
    }

    /// Whether one of the extents from `first` to `last` is in the table.
    pub fn any_within(&self, first: u32, last: u32) -> bool {
        let index = self.entries.partition_point(|e| e.id < first);
        self.entries.get(index).is_some_and(|e| e.id <= last)
    }

    /// The newest extent, which is being written.
    pub fn newest(&self) -> Option<u32> {
        self.entries.back().map(|e| e.id)
    }

    /// A run of closed extents of which little is wanted, worth `min_bytes` of reclaimed space.
    pub fn mostly_dead(&self, min_bytes: u64) -> Option<Run> {
        let mut best: Option<(Run, u64)> = None;
        let mut current: Option<(Run, u64)> = None;
        let mut length = 0;
        for entry in self.closed() {
            let live = entry.live.iter().map(|l| l.1).sum::<u64>() + entry.kept.iter().map(|kept| kept.2).sum::<u64>();
            if entry.compacted || live > entry.bytes / WANTED || length == MAX_RUN {
                (current, length) = (None, 0);
                if entry.compacted || live > entry.bytes / WANTED {
                    continue;
                }
            }
            let reclaimed = entry.bytes.saturating_sub(live);
            length += 1;
            current = Some(match current {
                Some((run, sum)) => (Run { last: entry.id, live: run.live + live, ..run }, sum + reclaimed),
                None => (Run { first: entry.id, last: entry.id, live }, reclaimed),
            });
            if current.map(|c| c.1) > best.map(|b| b.1) {
                best = current;
            }
        }
        best.filter(|(run, sum)| *sum >= min_bytes && run.first < run.last).map(|(run, _)| run)
    }

    /// A run was compacted, or there was nothing to gain.
    pub fn compacted(&mut self, run: Run) {
        for entry in self.entries.iter_mut().filter(|e| (run.first..=run.last).contains(&e.id)) {
            entry.compacted = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(pairs: &[(u32, u64)]) -> Vec<(u32, First)> {
        pairs.iter().map(|&(stream, sequence)| (stream, First { sequence, bytes: sequence * 10 })).collect()
    }

    fn table() -> Extents {
        let mut extents = Extents::default();
        extents.push(1, 1, first(&[(1, 1)]));
        extents.push(2, 1, first(&[(1, 10), (2, 1)]));
        extents.push(4, 1, first(&[(1, 20), (2, 1)]));
        extents.push(5, 1, first(&[(1, 30), (2, 5)]));
        extents
    }

    fn ids(extents: &Extents) -> Vec<u32> {
        extents.entries.iter().map(|e| e.id).collect()
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
        extents.drop_dead();
        assert_eq!(ids(&extents), [4, 5]);
        extents.advance(1, 30);
        assert!(!extents.has_dead(), "stream 2 has records in extent 4");
        extents.advance(2, 5);
        extents.drop_dead();
        assert_eq!(ids(&extents), [5]);
        extents.advance(1, 99);
        assert!(!extents.has_dead(), "the newest extent is being written");
        assert_eq!(extents.spans(1, 0, 9).len(), 1);
    }

    #[test]
    fn a_stream_that_came_later_is_not_held_up_by_extents_from_before_it() {
        let mut extents = Extents::default();
        extents.push(1, 1, first(&[(1, 1)]));
        extents.push(2, 1, first(&[(1, 10)]));
        extents.push(3, 1, first(&[(1, 10), (2, 1)]));
        extents.push(4, 1, first(&[(1, 10), (2, 50)]));
        extents.advance(2, 50);
        extents.drop_dead();
        assert_eq!(ids(&extents), [1, 4], "stream 1 is stalled in extent 1");
    }

    #[test]
    fn a_stalled_stream_makes_extents_mostly_dead() {
        let mut extents = Extents::default();
        for id in 1..=5u32 {
            extents.push(id, 1, first(&[(1, u64::from(id) * 100), (2, u64::from(id))]));
        }
        assert_eq!(extents.mostly_dead(1), None);
        extents.advance(1, 400);
        let run = Run { first: 1, last: 3, live: 30 };
        assert_eq!(extents.mostly_dead(2000), Some(run));
        assert_eq!(extents.mostly_dead(5000), None);
        extents.compacted(run);
        assert_eq!(extents.mostly_dead(1), None);
    }

    #[test]
    fn the_oldest_that_is_not_pending_makes_room() {
        let extents = table();
        let resumes = |one, two| HashMap::from([(1, one), (2, two)]);
        assert_eq!(extents.oldest_delivered(1, &resumes(99, 99)), (90, HashMap::from([(1, 10)])));
        assert_eq!(extents.oldest_delivered(91, &resumes(99, 99)), (190, HashMap::from([(1, 20)])));
        assert_eq!(extents.oldest_delivered(1000, &resumes(99, 99)), (330, HashMap::from([(1, 30), (2, 5)])));
        assert_eq!(extents.oldest_delivered(1000, &resumes(99, 3)), (190, HashMap::from([(1, 20)])));
        assert_eq!(extents.oldest_delivered(1000, &resumes(5, 3)), (0, HashMap::new()));
    }

    #[test]
    fn a_run_is_bounded() {
        let mut extents = Extents::default();
        for id in 1..=40u32 {
            extents.push(id, 1, first(&[(1, u64::from(id) * 100), (2, u64::from(id))]));
        }
        extents.advance(1, 4000);
        let run = extents.mostly_dead(1);
        assert!(run.is_some_and(|run| run.last - run.first < MAX_RUN), "{run:?}");
    }

    #[test]
    fn files_of_the_table_are_known() {
        let extents = table();
        assert!(extents.any_within(3, 4) && extents.any_within(1, 9));
        assert!(!extents.any_within(3, 3) && !extents.any_within(6, 9));
    }
}
