//! The arithmetic of accounting: what moving the cursor does to the sums.
//!
//! The identity that holds after each of these: what lies before the cursor is delivered, dropped, expired, purged or lost.
//! Sums only grow: a record that was read before part of the backlog was thinned or purged carries smaller sums than the
//! cursor, and counts as itself all the same.

use super::record::{Sequence, Totals};
use super::schema::{Count, CursorRecord, Ledger};
use super::stream::Mark;

/// Why records are given up without being delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Dropped,
    Expired,
    Purged,
    Lost,
}

impl Ledger {
    pub fn count(&mut self, cause: Cause) -> &mut Count {
        match cause {
            Cause::Dropped => &mut self.dropped,
            Cause::Expired => &mut self.expired,
            Cause::Purged => &mut self.purged,
            Cause::Lost => &mut self.lost,
        }
    }
}

/// What a record was to the cursor that it passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// It had passed before.
    Repeat,
    /// It is delivered now; what the sums skipped before it is not there any more and counts as lost.
    New { lost: Totals },
}

impl CursorRecord {
    /// What is not delivered of a stream that ends with these sums.
    pub fn pending(&self, end: Totals) -> Totals {
        end.since(self.totals)
    }

    /// A record was delivered. `before` and `after` are its sums as they were read.
    pub fn pass(&mut self, before: Mark, after: Totals) -> Pass {
        let next = before.sequence + 1;
        if next <= self.position {
            return Pass::Repeat;
        }
        let lost = before.totals.since(self.totals);
        let one = after.since(before.totals);
        self.ledger.lost.add(lost);
        self.ledger.delivered.add(one);
        self.totals = self.totals.plus(lost).plus(one);
        self.position = next;
        Pass::New { lost }
    }

    /// A record was delivered that had been given up while it was on its way.
    pub fn pass_given_up(&mut self, sequence: Sequence, one: Totals, cause: Cause) {
        self.ledger.delivered.add(one);
        self.ledger.count(cause).subtract(one);
        self.position = self.position.max(sequence + 1);
    }

    /// What is pending of a stream that ends with these sums is not there any more.
    pub fn lose_pending(&mut self, end: Totals) -> Totals {
        let lost = self.pending(end);
        self.ledger.lost.add(lost);
        self.totals = self.totals.plus(lost);
        lost
    }

    /// Gives up all before `to`; what of it was pending.
    pub fn skip(&mut self, to: Mark, cause: Cause) -> Totals {
        let gone = if to.sequence > self.position { to.totals.since(self.totals) } else { Totals::default() };
        self.ledger.count(cause).add(gone);
        self.totals = self.totals.plus(gone);
        self.position = self.position.max(to.sequence);
        self.resume = self.resume.max(to.sequence);
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mark(sequence: Sequence) -> Mark {
        Mark { sequence, totals: Totals { buffers: sequence - 1, bytes: (sequence - 1) * 10, time: sequence - 1 } }
    }

    fn balanced(cursor: &CursorRecord) -> bool {
        let l = cursor.ledger;
        let sum = [l.delivered, l.dropped, l.expired, l.purged, l.lost].into_iter().fold(Count::default(), Count::plus);
        sum == Count { buffers: cursor.totals.buffers, bytes: cursor.totals.bytes }
    }

    #[test]
    fn a_gap_in_the_sums_is_lost_and_a_repeat_counts_once() {
        let mut cursor = CursorRecord { position: 1, resume: 1, ..Default::default() };
        assert_eq!(cursor.pass(mark(1), mark(2).totals), Pass::New { lost: Totals::default() });
        assert_eq!(cursor.pass(mark(1), mark(2).totals), Pass::Repeat);
        assert_eq!(cursor.pass(mark(4), mark(5).totals), Pass::New { lost: mark(4).totals.since(mark(2).totals) });
        assert_eq!((cursor.ledger.delivered.buffers, cursor.ledger.lost.buffers), (2, 2));
        assert_eq!(cursor.pending(mark(9).totals).buffers, 4);
    }

    #[test]
    fn to_skip_behind_the_cursor_moves_the_resume_point_only() {
        let mut cursor = CursorRecord { position: 5, resume: 2, totals: mark(5).totals, ..Default::default() };
        assert_eq!(cursor.skip(mark(4), Cause::Expired), Totals::default());
        assert_eq!((cursor.position, cursor.resume), (5, 4));
    }

    #[test]
    fn what_was_given_up_on_its_way_is_delivered_after_all() {
        let mut cursor = CursorRecord { position: 1, resume: 1, ..Default::default() };
        cursor.skip(mark(5), Cause::Dropped);
        let one = mark(2).totals.since(mark(1).totals);
        cursor.pass_given_up(1, one, Cause::Dropped);
        assert_eq!((cursor.ledger.delivered.buffers, cursor.ledger.dropped.buffers, cursor.position), (1, 3, 5));
        assert!(balanced(&cursor));
    }

    proptest! {
        #[test]
        fn the_sums_always_balance(steps in proptest::collection::vec((any::<bool>(), 0..6u64), 0..60)) {
            let mut cursor = CursorRecord { position: 1, resume: 1, ..Default::default() };
            let mut at = 1;
            for (pass, ahead) in steps {
                at += ahead;
                if pass {
                    cursor.pass(mark(at), mark(at + 1).totals);
                } else {
                    cursor.skip(mark(at), Cause::Expired);
                }
                prop_assert!(balanced(&cursor));
                at = at.saturating_sub(2).max(1);
            }
        }
    }
}
