//! The newest records, in memory: what a downstream that keeps up is served from, without a copy and with every meta.
//!
//! Holds a run of records up to the end of the log. When it grows past its limit the oldest go, unless they could not be
//! stored: those stay until delivered.

use std::collections::VecDeque;

use crate::media::buffer::Facts;
use crate::media::nal::ParameterSets;
use crate::store::{Sequence, Totals};

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

    pub fn is_buffer(&self) -> bool {
        matches!(self.content, Content::Buffer { .. })
    }
}

#[derive(Debug, Default)]
pub struct Tail {
    items: VecDeque<Item>,
    bytes: u64,
    /// Buffers that are nowhere else, and their bytes.
    unstored: (u64, u64),
}

impl Tail {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn unstored(&self) -> (u64, u64) {
        self.unstored
    }

    pub fn first(&self) -> Option<Sequence> {
        self.items.front().map(|item| item.sequence)
    }

    pub fn push(&mut self, item: Item) {
        self.bytes += item.size();
        if !item.stored && item.is_buffer() {
            self.unstored.0 += 1;
            self.unstored.1 += item.size();
        }
        self.items.push_back(item);
    }

    /// Takes back a record that was not accepted and is nowhere else.
    pub fn put_back(&mut self, item: Item) {
        self.bytes += item.size();
        if !item.stored && item.is_buffer() {
            self.unstored.0 += 1;
            self.unstored.1 += item.size();
        }
        self.items.push_front(item);
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= item.size();
        if !item.stored && item.is_buffer() {
            self.unstored.0 -= 1;
            self.unstored.1 -= item.size();
        }
        Some(item)
    }

    /// Lets go of stored records until at most `limit` bytes are held.
    pub fn shrink(&mut self, limit: u64) {
        while self.bytes > limit && self.items.front().is_some_and(|item| item.stored) {
            self.pop();
        }
    }

    /// Takes the record at `position`, forgetting those before it. `None` when the disk has to be asked.
    pub fn take(&mut self, position: Sequence) -> Option<Item> {
        while self.first().is_some_and(|first| first < position) {
            self.pop();
        }
        if self.first() == Some(position) { self.pop() } else { None }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
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
        assert_eq!((tail.first(), tail.unstored()), (Some(1), (1, 10)));
        tail.take(1);
        tail.shrink(0);
        assert_eq!((tail.bytes(), tail.unstored()), (0, (0, 0)));
    }
}
