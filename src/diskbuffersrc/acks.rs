//! What was pushed and waits for its acknowledgement, and where a resume would begin.
//!
//! With `ack-mode=push` a buffer is acknowledged when its push returns. With `explicit` buffers wait here: when they grow many,
//! neighbours of one GOP are merged, which can only make a resume begin earlier.

use std::collections::VecDeque;

use crate::store::{Sequence, Totals};

/// More are merged.
const MOST: usize = 1 << 14;

/// A buffer that was pushed, or several that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// The last one.
    pub last: Sequence,
    /// The sync point from which it can be decoded.
    pub sync: Sequence,
    /// Sums before the first and after the last.
    pub before: Totals,
    pub after: Totals,
}

#[derive(Debug, Default)]
pub struct Acks {
    waiting: VecDeque<Pushed>,
    /// With more of them neighbours are merged.
    most: usize,
    /// One past the highest position that is acknowledged.
    until: Sequence,
    /// One past the highest that was pushed.
    pushed: Sequence,
}

impl Acks {
    /// Begins anew: nothing waits.
    pub fn reset(&mut self, acknowledged: Sequence) {
        *self = Self { until: acknowledged, ..Self::default() };
    }

    /// Whether the position is known to be acknowledged or was pushed before.
    pub fn is_repeat(&self, position: Sequence) -> bool {
        position < self.until.max(self.pushed)
    }

    /// It was pushed and waits for nothing.
    pub fn note(&mut self, position: Sequence) {
        self.pushed = self.pushed.max(position + 1);
    }

    pub fn wait(&mut self, pushed: Pushed) {
        self.pushed = self.pushed.max(pushed.last + 1);
        if self.waiting.back().is_some_and(|last| last.last >= pushed.last) {
            return;
        }
        self.waiting.push_back(pushed);
        if self.waiting.len() > self.most.max(MOST) {
            self.merge();
        }
    }

    /// Puts neighbours of one GOP together two by two.
    fn merge(&mut self) {
        let mut merged: VecDeque<Pushed> = VecDeque::with_capacity(MOST);
        let mut alone = false;
        for entry in self.waiting.drain(..) {
            match merged.back_mut() {
                // What was lost between two has to show.
                Some(before) if alone && before.sync == entry.sync && before.after == entry.before => {
                    *before = Pushed { last: entry.last, after: entry.after, ..*before };
                    alone = false;
                }
                _ => {
                    merged.push_back(entry);
                    alone = true;
                }
            }
        }
        // One of each GOP stays.
        self.most = merged.len() * 2;
        self.waiting = merged;
    }

    /// Takes note of an acknowledgement of all up to `position`, and takes out what it acknowledges. `None` when it was not
    /// pushed.
    pub fn acknowledge(&mut self, position: Sequence) -> Option<Vec<Pushed>> {
        if position >= self.until.max(self.pushed) {
            return None;
        }
        let mut done = Vec::new();
        while let Some(first) = self.waiting.front().filter(|first| first.last <= position) {
            done.push(*first);
            self.waiting.pop_front();
        }
        if let Some(last) = done.last() {
            self.until = self.until.max(last.last + 1);
        }
        Some(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(last: Sequence) -> Pushed {
        let totals = |buffers| Totals { buffers, ..Totals::default() };
        Pushed { last, sync: last / 50 * 50, before: totals(last), after: totals(last + 1) }
    }

    #[test]
    fn a_position_acknowledges_all_before_it() {
        let mut acks = Acks::default();
        acks.reset(5);
        (5..30).for_each(|at| acks.wait(pushed(at)));
        assert_eq!(acks.acknowledge(3), Some(vec![]), "was acknowledged before");
        assert_eq!(acks.acknowledge(30), None, "was not pushed");
        assert_eq!(acks.acknowledge(17), Some((5..=17).map(pushed).collect()));
        assert!(acks.is_repeat(29) && !acks.is_repeat(30));
        assert_eq!(acks.acknowledge(29), Some((18..=29).map(pushed).collect()));
        assert_eq!(acks.acknowledge(29), Some(vec![]));
    }

    #[test]
    fn many_that_wait_are_merged_and_never_acknowledged_too_early() {
        let mut acks = Acks::default();
        (0..200_000).for_each(|at| acks.wait(pushed(at)));
        assert!(acks.waiting.len() <= 3 * MOST, "{}", acks.waiting.len());
        let done = acks.acknowledge(77_777).unwrap();
        let last = done.last().unwrap();
        assert!(last.last <= 77_777 && last.last > 77_000, "{last:?}");
        let delivered: u64 = done.iter().map(|entry| entry.after.since(entry.before).buffers).sum();
        assert_eq!(delivered, last.last + 1, "each buffer counts once");
        assert!(done.iter().all(|entry| entry.sync <= entry.last));
    }
}
