//! The newest records, in memory: what a downstream that keeps up is served from, without a copy and with every meta.
//!
//! Holds a run of records up to the end of the log: stored ones first, then those that are nowhere else yet, because the
//! disk refuses or because `persist=spill` spares it. Stored ones go when they were taken, or when memory gets short. The
//! others stay until a resume has no use for them any more, or until they are stored.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::settings::Settings;
pub use crate::media::content::Content;
use crate::media::event::Coded;
use crate::store::{Count, Sequence, Sync, Totals};

/// Elements of this process that have a store open; they share what `process-memory-bytes` allows.
static SHARES: AtomicU64 = AtomicU64::new(0);

/// A part of the memory of the process, for as long as this lives.
pub struct MemoryShare(());

impl MemoryShare {
    pub fn new() -> Self {
        SHARES.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        SHARES.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes that one element may hold: as it is set, as far as the process has room. The other half is the stores'.
pub fn memory_limit(settings: &Settings) -> u64 {
    let share = settings.process_memory_bytes / 2 / SHARES.load(Ordering::Relaxed).max(1);
    settings.max_memory_bytes.min(share)
}

/// A record on its way out.
#[derive(Debug, Clone)]
pub struct Item {
    pub sequence: Sequence,
    /// Sums before it; unknown while it is not stored.
    pub before: Totals,
    /// What it adds to the sums.
    pub adds: Totals,
    /// It is on the disk too.
    pub stored: bool,
    /// When it came, if it has to be stored later.
    pub arrived: Option<Instant>,
    /// What has to be stored later, unless it is a buffer.
    pub coded: Option<Arc<Coded>>,
    /// Nobody is to have it: it counts as given up, not as delivered, when the cursor has passed it.
    pub left_out: bool,
    pub content: Content,
}

impl Item {
    fn size(&self) -> u64 {
        self.adds.bytes
    }
}

/// What went with records that are nowhere else.
#[derive(Debug, Default)]
pub struct Gone {
    /// Buffers that were not delivered.
    pub buffers: Count,
    /// Changes of state, by number; they stay in force.
    pub state: Vec<(Sequence, Arc<Coded>)>,
}

/// What those add that were stored after the cursor had passed them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Late {
    pub delivered: Totals,
    pub left_out: Totals,
}

#[derive(Debug, Default)]
pub struct Tail {
    items: VecDeque<Item>,
    bytes: u64,
    /// Index of the first record that is not stored; all after it are not stored either.
    stored: usize,
    /// Bytes from there on.
    unstored_bytes: u64,
    /// Undelivered ones of them.
    queued: Totals,
    /// Records before this one count as delivered.
    acknowledged: Sequence,
}

impl Tail {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Undelivered buffers that are nowhere else.
    pub fn queued(&self) -> Totals {
        self.queued
    }

    pub fn has_unstored(&self) -> bool {
        self.stored < self.items.len()
    }

    /// Whether some of `from` to `to`, both included, is nowhere else.
    pub fn holds_unstored(&self, from: Sequence, to: Sequence) -> bool {
        let last = self.items.back().map(|item| item.sequence);
        self.first_unstored().is_some_and(|first| first <= to) && last.is_some_and(|last| last >= from)
    }

    pub fn unstored_bytes(&self) -> u64 {
        self.unstored_bytes
    }

    /// When the oldest undelivered record came that is nowhere else.
    pub fn waiting_since(&self) -> Option<Instant> {
        let from = self.index(self.acknowledged).max(self.stored);
        self.items.get(from)?.arrived
    }

    pub fn first(&self) -> Option<Sequence> {
        self.items.front().map(|item| item.sequence)
    }

    pub fn first_unstored(&self) -> Option<Sequence> {
        self.items.get(self.stored).map(|item| item.sequence)
    }

    /// Records that are nowhere else, from the oldest on.
    pub fn unstored(&self) -> impl Iterator<Item = &Item> {
        self.items.range(self.stored..)
    }

    /// Those of `range` that are nowhere else and were delivered.
    pub fn delivered_unstored(&self, range: Range<Sequence>) -> impl Iterator<Item = Sequence> {
        let until = range.end.min(self.acknowledged);
        let within = move |item: &&Item| item.sequence < until && !item.left_out && range.contains(&item.sequence);
        self.unstored().filter(within).map(|item| item.sequence)
    }

    /// What the records of `range` add that are nowhere else.
    pub fn unstored_within(&self, range: Range<Sequence>) -> Totals {
        let (from, to) = (self.index(range.start).max(self.stored), self.index(range.end));
        let within = self.items.range(from..to.max(from));
        within.fold(Totals::default(), |sum, item| sum.plus(item.adds))
    }

    /// The records of `range` are left out, as far as they are nowhere else.
    pub fn leave_out(&mut self, range: Range<Sequence>) {
        let (from, to) = (self.index(range.start).max(self.stored), self.index(range.end));
        self.items.range_mut(from..to.max(from)).for_each(|item| item.left_out = true);
    }

    fn index(&self, sequence: Sequence) -> usize {
        // Numbers follow each other, so the place can be computed; where it cannot, it is looked for.
        let guess = self.first().map_or(0, |first| sequence.saturating_sub(first) as usize);
        match self.items.get(guess) {
            Some(item) if item.sequence == sequence => guess,
            _ => self.items.partition_point(|item| item.sequence < sequence),
        }
    }

    /// Adds the newest record. One that is not stored comes after stored ones only.
    pub fn push(&mut self, item: Item) {
        let size = item.size();
        self.bytes += size;
        if item.stored && self.stored == self.items.len() {
            self.stored += 1;
        } else {
            self.unstored_bytes += size;
            self.queued = self.queued.plus(item.adds);
        }
        self.items.push_back(item);
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        let size = item.size();
        self.bytes -= size;
        if self.stored > 0 {
            self.stored -= 1;
        } else {
            self.unstored_bytes -= size;
            if item.sequence >= self.acknowledged {
                self.queued = self.queued.since(item.adds);
            }
        }
        Some(item)
    }

    /// Lets go of stored records until at most `limit` bytes are held.
    pub fn shrink(&mut self, limit: u64) {
        while self.bytes > limit && self.stored > 0 {
            self.pop();
        }
    }

    /// The record at `position`. A stored one is taken out, with those before it; one that is nowhere else stays. `None`
    /// when the disk has to be asked.
    pub fn take(&mut self, position: Sequence) -> Option<Item> {
        while self.stored > 0 && self.first().is_some_and(|first| first < position) {
            self.pop();
        }
        if self.stored > 0 {
            return if self.first() == Some(position) { self.pop() } else { None };
        }
        self.items.get(self.index(position)).filter(|item| item.sequence == position).cloned()
    }

    /// Whether a record is on the disk: all that is not here as nowhere else.
    pub fn is_stored(&self, sequence: Sequence) -> bool {
        let index = self.index(sequence);
        index < self.stored || self.items.get(index).is_none_or(|item| item.sequence != sequence)
    }

    /// What lies before `position` counts as delivered.
    pub fn acknowledge(&mut self, position: Sequence) {
        if self.has_unstored() {
            let (from, to) = (self.index(self.acknowledged).max(self.stored), self.index(position));
            for index in from..to {
                self.queued = self.queued.since(self.items[index].adds);
            }
        }
        self.acknowledged = self.acknowledged.max(position);
    }

    /// Lets go of delivered records that a resume does not need.
    pub fn release(&mut self, resume: Sequence) -> Vec<(Sequence, Arc<Coded>)> {
        let mut state = Vec::new();
        let until = resume.min(self.acknowledged);
        while self.stored == 0 && self.first().is_some_and(|first| first < until) {
            state.extend(self.pop().and_then(|item| Some((item.sequence, item.coded?))));
        }
        state
    }

    /// Lets go of delivered records that only a resume would need.
    pub fn release_delivered(&mut self) -> Vec<(Sequence, Arc<Coded>)> {
        self.release(self.acknowledged)
    }

    /// The oldest `count` records that were nowhere else are on the disk now, the first with the sums `before`; what those
    /// of them add that the cursor has passed.
    pub fn mark_stored(&mut self, count: usize, before: Totals) -> Late {
        let mut at = before;
        let mut late = Late::default();
        for item in self.items.range_mut(self.stored..).take(count) {
            (item.stored, item.before, item.coded, item.arrived) = (true, at, None, None);
            at = at.plus(item.adds);
            self.unstored_bytes -= item.size();
            if item.sequence < self.acknowledged {
                let sum = if item.left_out { &mut late.left_out } else { &mut late.delivered };
                *sum = sum.plus(item.adds);
            } else {
                self.queued = self.queued.since(item.adds);
            }
            self.stored += 1;
        }
        late
    }

    /// Forgets stored records before `position`, and those between, which would be read from the disk too.
    pub fn forget_stored_until(&mut self, position: Sequence) {
        while self.stored > 0 && self.first().is_some_and(|first| first < position) {
            self.pop();
        }
    }

    /// Forgets what lies before `position`.
    pub fn drop_until(&mut self, position: Sequence) -> Gone {
        let mut gone = Gone::default();
        while self.first().is_some_and(|first| first < position) {
            let nowhere_else = self.stored == 0;
            let Some(item) = self.pop() else { break };
            if nowhere_else {
                if item.sequence >= self.acknowledged {
                    gone.buffers.add(item.adds);
                }
                gone.state.extend(item.coded.map(|coded| (item.sequence, coded)));
            }
        }
        self.acknowledged = self.acknowledged.max(position);
        gone
    }

    /// After the last record.
    pub fn end(&self) -> Sequence {
        self.items.back().map_or(0, |last| last.sequence + 1)
    }

    /// What the first buffer at or after `position` says, if all records up to it are here.
    pub fn sync_at(&self, position: Sequence) -> Option<Sync> {
        if self.first()? > position {
            return None;
        }
        let from_there = self.items.range(self.index(position)..);
        for (expected, item) in (position..).zip(from_there) {
            if item.sequence != expected {
                return None;
            }
            if let Content::Buffer { facts, .. } = &item.content {
                return Some(facts.sync);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::buffer::Facts;

    fn item(sequence: Sequence, size: usize, stored: bool) -> Item {
        Item {
            sequence,
            before: Totals::default(),
            adds: Totals { buffers: 1, bytes: size as u64, time: 5 },
            stored,
            arrived: None,
            coded: None,
            left_out: false,
            content: Content::Buffer { buffer: gst::Buffer::with_size(size).unwrap(), facts: Facts::default() },
        }
    }

    fn tail(stored: u64, unstored: u64) -> Tail {
        gst::init().unwrap();
        let mut tail = Tail::default();
        (1..=stored).for_each(|sequence| tail.push(item(sequence, 10, true)));
        (1..=unstored).for_each(|i| tail.push(item(stored + i, 10, false)));
        tail
    }

    fn all(n: u64) -> Totals {
        Totals { buffers: n, bytes: 10 * n, time: 5 * n }
    }

    #[test]
    fn the_oldest_stored_records_go_first() {
        let mut tail = tail(4, 0);
        tail.shrink(25);
        assert_eq!((tail.first(), tail.bytes()), (Some(3), 20));
        assert!(tail.take(2).is_none(), "it is on the disk");
        assert_eq!(tail.take(4).map(|i| i.sequence), Some(4));
        assert_eq!((tail.first(), tail.bytes()), (None, 0));
    }

    #[test]
    fn what_is_nowhere_else_stays_until_no_resume_needs_it() {
        let mut tail = tail(1, 4);
        tail.shrink(0);
        assert_eq!((tail.first(), tail.bytes(), tail.queued()), (Some(2), 40, all(4)));
        assert_eq!(tail.take(3).map(|i| i.sequence), Some(3));
        assert_eq!(tail.take(2).map(|i| i.sequence), Some(2), "again, for a resume");
        assert!(tail.take(1).is_none() && !tail.is_stored(3) && tail.is_stored(1));
        tail.acknowledge(4);
        assert_eq!(tail.queued(), all(2));
        assert!(tail.release(3).is_empty());
        assert_eq!((tail.first(), tail.bytes(), tail.queued()), (Some(3), 30, all(2)));
        tail.release_delivered();
        assert_eq!((tail.first(), tail.queued()), (Some(4), all(2)));
    }

    #[test]
    fn what_is_stored_later_is_as_what_was_stored_at_once() {
        let mut tail = tail(0, 4);
        tail.acknowledge(2);
        assert_eq!(tail.mark_stored(3, all(7)), Late { delivered: all(1), ..Late::default() });
        assert_eq!((tail.queued(), tail.unstored_bytes(), tail.first_unstored()), (all(1), 10, Some(4)));
        assert!(tail.is_stored(3) && !tail.is_stored(4));
        assert_eq!(tail.take(3).map(|i| (i.stored, i.before)), Some((true, all(9))));
        assert_eq!((tail.take(4).map(|i| i.stored), tail.bytes()), (Some(false), 10));
    }

    #[test]
    fn what_is_dropped_from_memory_alone_is_told() {
        let mut tail = tail(2, 3);
        tail.acknowledge(4);
        assert_eq!(tail.drop_until(5).buffers, Count { buffers: 1, bytes: 10 });
        assert_eq!(tail.drop_until(tail.end()).buffers, Count { buffers: 1, bytes: 10 });
        assert_eq!((tail.bytes(), tail.unstored_bytes(), tail.queued()), (0, 0, Totals::default()));
    }
}
