//! What downstream has taken and nobody has acknowledged yet, with `ack-mode=explicit`.
//!
//! One entry a buffer, merged when there are many: an acknowledgement then counts up to the last whole entry, so that more may
//! be sent again after an outage, and never less. Of a merged entry that is given up in part the rest waits on; the sums tell
//! how much that is.

use std::collections::VecDeque;

use super::outcome::Passed;
use crate::media::buffer::Facts;
use crate::store::{Mark, Sequence, Sync, Totals};

/// Entries at which the older half is merged: some megabytes.
const MOST: usize = 32_768;

#[derive(Debug, Default)]
pub struct Sent {
    entries: VecDeque<Passed>,
    /// What they add to the sums.
    waiting: Totals,
}

impl Sent {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What was sent and waits.
    pub fn waiting(&self) -> Totals {
        self.waiting
    }

    fn pop(&mut self) -> Option<Passed> {
        let first = self.entries.pop_front()?;
        self.waiting = self.waiting.since(first.adds);
        Some(first)
    }

    /// After the last record that was sent.
    pub fn end(&self) -> Option<Sequence> {
        self.entries.back().map(|last| last.next)
    }

    /// Adds what was sent now; false when it is a repeat of what waits here already.
    pub fn push(&mut self, passed: Passed) -> bool {
        if self.end().is_some_and(|end| passed.next <= end) {
            return false;
        }
        self.entries.push_back(passed);
        self.waiting = self.waiting.plus(passed.adds);
        if self.entries.len() >= MOST {
            self.merge();
        }
        true
    }

    /// Merges neighbours of the older half; sync points stay, for a resume begins there.
    fn merge(&mut self) {
        let half = self.entries.len() / 2;
        let newer = self.entries.split_off(half);
        let older = std::mem::take(&mut self.entries);
        let mut alone = true;
        for entry in older {
            match self.entries.back_mut() {
                Some(last) if alone && entry.sync() == Sync::None && entry.dropped == last.dropped => {
                    last.extend(&entry);
                    alone = false;
                }
                _ => {
                    self.entries.push_back(entry);
                    alone = true;
                }
            }
        }
        self.entries.extend(newer);
    }

    /// Takes out what `position` acknowledges: everything up to it, and what is right behind that nobody can acknowledge.
    pub fn acknowledge(&mut self, position: Sequence) -> Vec<Passed> {
        let mut done = Vec::new();
        while let Some(first) = self.entries.front()
            && (first.next <= position.saturating_add(1) || (first.is_silent() && !done.is_empty()))
        {
            done.extend(self.pop());
        }
        done
    }

    /// Takes out what nothing unacknowledged lies before and nobody can acknowledge.
    pub fn leading_silent(&mut self) -> Vec<Passed> {
        let mut done = Vec::new();
        while self.entries.front().is_some_and(Passed::is_silent) {
            done.extend(self.pop());
        }
        done
    }

    /// Forgets what lies before `to`.
    pub fn drop_until(&mut self, to: Mark) {
        while let Some(first) = self.entries.front().copied()
            && first.at < to.sequence
        {
            self.pop();
            if let Some(rest) = first.from(to) {
                self.waiting = self.waiting.plus(rest.adds);
                self.entries.push_front(rest);
                return;
            }
        }
    }

    /// Forgets what lies between two marks: it is gone.
    pub fn forget(&mut self, from: Mark, to: Mark) {
        let gone = from.sequence..to.sequence;
        if self.entries.iter().all(|entry| entry.next <= gone.start || entry.at >= gone.end) {
            return;
        }
        let parts = std::mem::take(&mut self.entries).into_iter().flat_map(|entry| {
            if entry.next <= gone.start || entry.at >= gone.end {
                return [Some(entry), None];
            }
            [entry.until(from), entry.from(to)]
        });
        self.entries = parts.flatten().collect();
        self.waiting = self.entries.iter().fold(Totals::default(), |sum, entry| sum.plus(entry.adds));
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.waiting = Totals::default();
    }
}

/// Parts of what was merged. Where memory alone held it the sums are not known, and there are none.
impl Passed {
    /// What lies before `end`.
    fn until(&self, end: Mark) -> Option<Passed> {
        let within = self.stored && (self.at + 1..self.next).contains(&end.sequence);
        let adds = self.adds.at_most(end.totals.since(self.before));
        within.then_some(Passed { next: end.sequence, adds, ..*self })
    }

    /// What begins with `start`.
    fn from(&self, start: Mark) -> Option<Passed> {
        let within = self.stored && (self.at + 1..self.next).contains(&start.sequence);
        let adds = self.adds.at_most(self.before.plus(self.adds).since(start.totals));
        // Sync points are at the beginning of an entry.
        let facts = self.facts.map(|facts| Facts { sync: Sync::None, ..facts });
        within.then_some(Passed { at: start.sequence, before: start.totals, adds, facts, ..*self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(at: Sequence, sync: Sync) -> Passed {
        Passed {
            at,
            next: at + 1,
            before: Totals { buffers: at, ..Totals::default() },
            adds: Totals { buffers: 1, ..Totals::default() },
            stored: true,
            facts: Some(Facts { sync, ..Facts::default() }),
            pts: None,
            domain: None,
            dropped: false,
        }
    }

    fn event(at: Sequence) -> Passed {
        Passed { facts: None, adds: Totals::default(), ..passed(at, Sync::None) }
    }

    #[test]
    fn events_go_with_the_buffer_before_them() {
        let mut sent = Sent::default();
        for entry in [event(1), passed(2, Sync::Closed), event(3), passed(4, Sync::None), event(5)] {
            assert!(sent.push(entry));
        }
        assert!(!sent.push(passed(2, Sync::Closed)), "a repeat");
        assert_eq!(sent.leading_silent().len(), 1);
        assert_eq!(sent.acknowledge(1).len(), 0);
        assert_eq!(sent.acknowledge(2).iter().map(|p| p.at).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(sent.acknowledge(9).iter().map(|p| p.at).collect::<Vec<_>>(), [4, 5]);
        assert!(sent.is_empty());
        assert_eq!(sent.waiting(), Totals::default());
    }

    #[test]
    fn many_entries_are_merged_and_nothing_is_acknowledged_too_early() {
        let mut sent = Sent::default();
        for at in 0..200_000 {
            sent.push(passed(at, if at % 50 == 0 { Sync::Closed } else { Sync::None }));
        }
        assert!(sent.entries.len() < MOST);
        let done = sent.acknowledge(77_777);
        let (buffers, end) = (done.iter().map(|p| p.adds.buffers).sum::<u64>(), done.last().map(|p| p.next));
        assert_eq!(Some(buffers), end, "each buffer counts once");
        assert!(end.is_some_and(|end| end <= 77_778 && end > 77_000), "{end:?}");
        assert!(done.iter().filter(|p| p.sync() == Sync::Closed).all(|p| p.at.is_multiple_of(50)));
        assert_eq!(sent.acknowledge(199_999).last().map(|p| p.next), Some(200_000));
    }

    fn merged() -> Sent {
        let mut sent = Sent::default();
        (0..200_000).for_each(|at| {
            sent.push(passed(at, Sync::None));
        });
        sent
    }

    fn mark(sequence: Sequence) -> Mark {
        Mark { sequence, totals: Totals { buffers: sequence, ..Totals::default() } }
    }

    #[test]
    fn of_what_was_merged_the_rest_waits_on() {
        for to in [1, 1001, 1002, 1003, 190_001, 199_999] {
            let mut sent = merged();
            sent.drop_until(mark(to));
            assert_eq!(sent.waiting().buffers, 200_000 - to);
            let done = sent.acknowledge(199_999);
            assert_eq!(done.first().map(|p| (p.at, p.before.buffers)), Some((to, to)));
            assert_eq!(done.iter().map(|p| p.adds.buffers).sum::<u64>(), 200_000 - to);
        }
        let mut sent = merged();
        sent.drop_until(mark(200_000));
        assert!(sent.is_empty() && sent.waiting() == Totals::default());
    }

    #[test]
    fn what_is_gone_amid_what_was_merged_is_not_acknowledged() {
        for (from, to) in [(1, 2), (1001, 1003), (1003, 77_777), (190_001, 200_000), (0, 3), (199_998, 199_999)] {
            let mut sent = merged();
            sent.forget(mark(from), mark(to));
            assert_eq!(sent.waiting().buffers, 200_000 - (to - from), "{from}..{to}");
            let done = sent.acknowledge(199_999);
            assert_eq!(done.iter().map(|p| p.adds.buffers).sum::<u64>(), 200_000 - (to - from), "{from}..{to}");
            assert!(done.iter().all(|p| p.next <= from || p.at >= to), "{from}..{to}");
            assert!(done.iter().all(|p| p.before.buffers == p.at && p.adds.buffers == p.next - p.at), "{from}..{to}");
        }
    }
}
