//! The newest records, in memory: what a downstream that keeps up is served from, without a copy and with every meta.
//!
//! Holds a run of records up to the end of the log. When it grows past its limit the oldest go, unless they could not be
//! stored: those stay until delivered.

use std::collections::VecDeque;

use crate::media::buffer::Facts;
use crate::media::nal::ParameterSets;
use crate::store::{Count, Sequence, Sync, Totals};

/// A record on its way out.
#[derive(Debug, Clone)]
pub struct Item {
    pub sequence: Sequence,
    /// Sums before and after it.
    pub before: Totals,
    pub after: Totals,
    /// It is on the disk too.
    pub stored: bool,
    pub content: Content,
}

#[derive(Debug, Clone)]
pub enum Content {
    Buffer {
        buffer: gst::Buffer,
        facts: Facts,
    },
    Event(gst::Event),
    /// What follows counts its running time from another zero.
    Domain(u64),
    /// The parameter sets in force.
    Sets(ParameterSets),
    /// Has its place in the order and nothing to say.
    Nothing,
}

impl Item {
    fn size(&self) -> u64 {
        match &self.content {
            Content::Buffer { buffer, .. } => buffer.size() as u64,
            _ => 0,
        }
    }

    /// What would be lost with it: a buffer that is nowhere else.
    pub fn unstored(&self) -> Option<Totals> {
        let buffer = matches!(self.content, Content::Buffer { .. });
        (buffer && !self.stored).then(|| Totals { buffers: 1, bytes: self.size(), time: 0 })
    }
}

#[derive(Debug, Default)]
pub struct Tail {
    items: VecDeque<Item>,
    bytes: u64,
    /// Buffers that are nowhere else.
    unstored: Count,
    /// Such buffers that were passed over.
    forgotten: Count,
}

impl Tail {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn unstored(&self) -> Count {
        self.unstored
    }

    /// Buffers that are gone for good, since this was last asked.
    pub fn take_forgotten(&mut self) -> Count {
        std::mem::take(&mut self.forgotten)
    }

    pub fn first(&self) -> Option<Sequence> {
        self.items.front().map(|item| item.sequence)
    }

    fn count(&mut self, item: &Item) {
        self.bytes += item.size();
        if let Some(one) = item.unstored() {
            self.unstored.add(one);
        }
    }

    fn uncount(&mut self, item: &Item) {
        self.bytes -= item.size();
        if let Some(one) = item.unstored() {
            self.unstored.subtract(one);
        }
    }

    pub fn push(&mut self, item: Item) {
        self.count(&item);
        self.items.push_back(item);
    }

    /// Takes back a record that was not accepted and is nowhere else.
    pub fn put_back(&mut self, item: Item) {
        self.count(&item);
        self.items.push_front(item);
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.uncount(&item);
        Some(item)
    }

    /// Lets go of stored records until at most `limit` bytes are held.
    pub fn shrink(&mut self, limit: u64) {
        while self.bytes > limit
            && let Some(at) = self.items.iter().position(|item| item.stored)
            && let Some(item) = self.items.remove(at)
        {
            self.uncount(&item);
        }
    }

    /// Takes the record at `position`, forgetting those before it. `None` when the disk has to be asked.
    pub fn take(&mut self, position: Sequence) -> Option<Item> {
        while self.first().is_some_and(|first| first < position) {
            self.forget_first();
        }
        if self.first() == Some(position) { self.pop() } else { None }
    }

    fn forget_first(&mut self) {
        if let Some(one) = self.pop().and_then(|item| item.unstored()) {
            self.forgotten.add(one);
        }
    }

    pub fn clear(&mut self) {
        while !self.items.is_empty() {
            self.forget_first();
        }
    }

    /// What the first buffer at or after `position` says, if all records up to it are here.
    pub fn sync_at(&self, position: Sequence) -> Option<Sync> {
        if self.first()? > position {
            return None;
        }
        let from_there = self.items.iter().filter(|item| item.sequence >= position);
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

    fn item(sequence: Sequence, size: usize, stored: bool) -> Item {
        Item {
            sequence,
            before: Totals::default(),
            after: Totals::default(),
            stored,
            content: Content::Buffer { buffer: gst::Buffer::with_size(size).unwrap(), facts: Facts::default() },
        }
    }

    #[test]
    fn the_oldest_stored_records_go_first() {
        gst::init().unwrap();
        let mut tail = Tail::default();
        for sequence in 1..=4 {
            tail.push(item(sequence, 10, true));
        }
        tail.shrink(25);
        assert_eq!((tail.first(), tail.bytes()), (Some(3), 20));
        assert!(tail.take(2).is_none(), "it is on the disk");
        assert_eq!(tail.take(4).map(|i| i.sequence), Some(4));
        assert_eq!((tail.first(), tail.bytes()), (None, 0));
    }

    #[test]
    fn what_is_nowhere_else_stays() {
        gst::init().unwrap();
        let mut tail = Tail::default();
        tail.push(item(1, 10, false));
        tail.push(item(2, 10, true));
        tail.shrink(0);
        assert_eq!((tail.first(), tail.bytes()), (Some(1), 10));
        assert_eq!(tail.unstored(), Count { buffers: 1, bytes: 10 });
        tail.take(1);
        tail.push(item(3, 10, false));
        tail.clear();
        assert_eq!((tail.bytes(), tail.unstored()), (0, Count::default()));
        assert_eq!(tail.take_forgotten(), Count { buffers: 1, bytes: 10 });
    }
}
