//! The accounts of what memory alone holds while it is being stored, which may take long: meanwhile it is delivered, left out,
//! given up by a flush, or forgotten by a stop.
//!
//! Once it is stored, each record counts as what it was when memory alone had it. How it counted, and counts then:
//!
//! | meanwhile | before | after |
//! |---|---|---|
//! | it waits, or is being pushed | queued | pending |
//! | it was delivered | bypassed | delivered |
//! | it was left out | rejected | dropped |
//! | the cursor was moved past it | rejected | dropped |
//! | the same, and its push succeeded all the same | bypassed | delivered |
//! | it was forgotten before the cursor came to it | rejected | pending |
//!
//! If it could not be stored, nothing changes.

use std::collections::BTreeSet;
use std::ops::Range;

use super::state::State;
use super::tail::Item;
use crate::store::{Mark, Sequence, Totals};

/// Records that are being stored.
#[derive(Debug)]
pub struct Storing {
    pub range: Range<Sequence>,
    /// Those of them that were delivered and that memory does not hold any more.
    pub delivered: BTreeSet<Sequence>,
}

impl Storing {
    pub fn new(range: Range<Sequence>) -> Self {
        Self { range, delivered: BTreeSet::new() }
    }
}

impl State {
    /// What delivery has to go on with is nowhere until it is stored.
    pub fn awaits_storing(&self) -> bool {
        let forgotten = |first: Sequence| self.tail.first_unstored() != Some(first);
        let range = self.storing.as_ref().map(|storing| &storing.range);
        range.is_some_and(|range| self.cursor.position < range.end && forgotten(range.start))
    }

    /// What was being stored is stored up to `end`, or was refused.
    pub fn stored(&mut self, items: &[Item], end: Option<Mark>) {
        let Some((storing, end)) = self.storing.take().zip(end) else { return };
        let sum = |items: &[Item]| items.iter().fold(Totals::default(), |sum, item| sum.plus(item.adds));
        let before = end.totals.since(sum(items));
        self.end = Mark { sequence: self.end.sequence.max(end.sequence), totals: end.totals };
        let kept = self.tail.unstored().take_while(|item| item.sequence < end.sequence).count();
        let (gone, _) = items.split_at(items.len().saturating_sub(kept));
        let mut late = self.tail.mark_stored(kept, before.plus(sum(gone)));
        let cursor = &mut self.cursor;
        for item in gone {
            if storing.delivered.contains(&item.sequence) {
                late.delivered = late.delivered.plus(item.adds);
            } else if item.sequence < cursor.position {
                late.left_out = late.left_out.plus(item.adds);
            } else {
                cursor.ledger.rejected.subtract(item.adds);
            }
        }
        cursor.totals = cursor.totals.plus(late.delivered).plus(late.left_out);
        cursor.ledger.delivered.add(late.delivered);
        cursor.ledger.bypassed.subtract(late.delivered);
        cursor.ledger.dropped.add(late.left_out);
        cursor.ledger.rejected.subtract(late.left_out);
        for range in self.dropped_in_flight.iter_mut().filter(|range| range.stored >= storing.range.start) {
            range.stored = range.stored.max(end.sequence).min(range.to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diskbuffer::outcome::{Passed, acknowledge_one};
    use crate::diskbuffer::tail::Content;
    use crate::media::buffer::Facts;
    use crate::store::{Cause, Store, StoreOptions, Stream, Sync};
    use proptest::prelude::*;
    use std::time::Instant;

    const SIZE: u64 = 3;
    const ONE: Totals = Totals { buffers: 1, bytes: SIZE, time: 2 };

    fn totals(n: usize) -> Totals {
        Totals { buffers: n as u64, bytes: n as u64 * ONE.bytes, time: n as u64 * ONE.time }
    }

    /// What the element does with its state, one step at a time; each record is a buffer.
    struct Run<'a> {
        stream: &'a Stream,
        state: State,
        /// What the disk has.
        log: Vec<Sequence>,
        batch: Option<Vec<Item>>,
        /// Where delivery is.
        at: Sequence,
        pushed: Option<Passed>,
        /// What downstream has taken.
        taken: BTreeSet<Sequence>,
    }

    impl<'a> Run<'a> {
        fn new(stream: &'a Stream) -> Self {
            gst::init().unwrap();
            let mut state = State::default();
            (state.end.sequence, state.cursor.position, state.cursor.resume) = (1, 1, 1);
            Self { stream, state, log: Vec::new(), batch: None, at: 1, pushed: None, taken: BTreeSet::new() }
        }

        fn facts(sequence: Sequence) -> Facts {
            let sync = if sequence.is_multiple_of(4) { Sync::Closed } else { Sync::None };
            Facts { sync, ..Facts::default() }
        }

        fn arrive(&mut self, spill: bool) {
            let state = &mut self.state;
            let sequence = state.end.sequence;
            let stored = !(spill || state.spooling || state.tail.has_unstored());
            let buffer = gst::Buffer::with_size(SIZE as usize).unwrap();
            let content = Content::Buffer { buffer, facts: Self::facts(sequence) };
            let (before, arrived) = (state.end.totals, (!stored).then(Instant::now));
            let item = Item { sequence, before, adds: ONE, stored, arrived, coded: None, left_out: false, content };
            state.tail.push(item);
            state.counters.received.add(ONE);
            state.end.sequence += 1;
            if stored {
                self.log.push(sequence);
                state.end.totals = totals(self.log.len());
            }
        }

        fn begin_to_store(&mut self, count: usize) {
            let items: Vec<_> = self.state.tail.unstored().take(count).cloned().collect();
            if self.batch.is_none()
                && let [first, .., last] | [first @ last] = &items[..]
            {
                self.state.spooling = true;
                self.state.storing = Some(Storing::new(first.sequence..last.sequence + 1));
                self.batch = Some(items);
            }
        }

        fn end_to_store(&mut self, works: bool) {
            let Some(items) = self.batch.take() else { return };
            let end = works.then(|| {
                self.log.extend(items.iter().map(|item| item.sequence));
                Mark { sequence: items.last().map_or(0, |item| item.sequence + 1), totals: totals(self.log.len()) }
            });
            self.state.stored(&items, end);
            self.state.spooling = false;
        }

        /// The next one is on its way.
        fn push(&mut self) {
            let state = &mut self.state;
            if self.pushed.is_some() || state.awaits_storing() {
                return;
            }
            if state.skip_to.take().is_some() {
                self.at = state.cursor.position;
            }
            if self.at >= state.end.sequence {
                return;
            }
            let (at, before, stored) = if let Some(item) = state.tail.take(self.at) {
                (item.sequence, item.before, item.stored)
            } else {
                let until = state.tail.first().unwrap_or(Sequence::MAX).min(state.end.sequence);
                match self.log.iter().position(|sequence| (self.at..until).contains(sequence)) {
                    Some(index) => (self.log[index], totals(index), true),
                    None => return self.at = until,
                }
            };
            self.at = at + 1;
            state.pushing = Some(Instant::now());
            self.pushed = Some(Passed {
                at,
                next: at + 1,
                before,
                adds: ONE,
                stored,
                facts: Some(Self::facts(at)),
                pts: None,
                domain: None,
                dropped: false,
            });
        }

        fn downstream(&mut self, takes: bool, leave_out: bool) {
            let Some(passed) = self.pushed.take() else { return };
            let state = &mut self.state;
            state.pushing = None;
            if leave_out {
                state.dropped_in_flight.clear();
                if passed.next > state.cursor.position {
                    acknowledge_one(state, &Passed { dropped: true, ..passed });
                }
            } else if takes {
                self.taken.insert(passed.at);
                acknowledge_one(state, &passed);
            } else {
                self.at = state.cursor.resume.max(1);
            }
            state.dropped_in_flight.clear();
            self.moved();
        }

        fn moved(&mut self) {
            let state = &mut self.state;
            state.settle_resume();
            state.tail.acknowledge(state.cursor.position);
            if !state.spooling {
                state.tail.release(state.cursor.resume);
            }
        }

        fn flush(&mut self) {
            let end = self.state.end;
            self.state.drop_until(self.stream, end, Cause::Dropped);
        }

        fn stop(&mut self) {
            if self.pushed.is_none() {
                let end = self.state.tail.end();
                self.state.forget_until(self.stream, end);
                self.at = self.state.cursor.resume;
            }
        }

        fn step(&mut self, step: u8, much: bool) {
            match step {
                0..3 => self.arrive(much),
                3 => self.begin_to_store(if much { 9 } else { 2 }),
                4 => self.end_to_store(much),
                5..8 => self.push(),
                8..10 => self.downstream(true, false),
                10 => self.downstream(false, much),
                11 => self.flush(),
                _ => self.stop(),
            }
            self.check();
        }

        fn check(&self) {
            let State { cursor, end, counters, tail, .. } = &self.state;
            let l = cursor.ledger;
            let (queued, pending) = (tail.queued().buffers, end.totals.since(cursor.totals).buffers);
            let sum = end.totals.buffers + l.bypassed.buffers + queued + l.rejected.buffers;
            assert_eq!(counters.received.buffers, sum, "{l:?}, {queued} are queued, {:?}", end.totals);
            let given_up = l.dropped.buffers + l.expired.buffers + l.purged.buffers + l.lost.buffers;
            assert_eq!(end.totals.buffers, l.delivered.buffers + pending + given_up, "{l:?}, {pending} are pending");
            assert_eq!(l.delivered.buffers + l.bypassed.buffers, self.taken.len() as u64, "{l:?}, {:?}", self.taken);
            assert_eq!(l.lost.buffers, 0);
        }
    }

    fn in_a_store(test: impl FnOnce(&Stream)) {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path(), &StoreOptions::default()).unwrap();
        test(&store.stream("default").unwrap());
    }

    #[test]
    fn each_counts_as_what_became_of_it_while_it_was_being_stored() {
        in_a_store(|stream| {
            for works in [true, false] {
                let mut run = Run::new(stream);
                (0..6).for_each(|_| run.arrive(true));
                run.begin_to_store(5);
                // 1 is delivered, 2 left out, 3 arrives after it was given up, 4 and 5 are given up.
                for (takes, leave_out) in [(true, false), (false, true)] {
                    run.push();
                    run.downstream(takes, leave_out);
                }
                run.push();
                run.flush();
                run.downstream(true, false);
                run.check();
                run.end_to_store(works);
                run.check();
                let l = run.state.cursor.ledger;
                let counts = [l.delivered, l.bypassed, l.dropped, l.rejected].map(|count| count.buffers);
                assert_eq!(counts, if works { [2, 0, 3, 1] } else { [0, 2, 0, 4] });
            }
        });
    }

    #[test]
    fn what_a_stop_has_forgotten_is_delivered_once_it_is_stored() {
        in_a_store(|stream| {
            let mut run = Run::new(stream);
            (0..4).for_each(|_| run.arrive(true));
            run.begin_to_store(4);
            run.push();
            run.downstream(true, false);
            run.stop();
            assert_eq!((run.state.cursor.ledger.rejected.buffers, run.state.awaits_storing()), (3, true));
            run.arrive(false);
            run.end_to_store(true);
            run.check();
            assert_eq!((run.state.cursor.ledger.rejected.buffers, run.state.awaits_storing()), (0, false));
            for _ in 0..8 {
                run.push();
                run.downstream(true, false);
                run.check();
            }
            assert_eq!(run.taken, (1..6).collect());
        });
    }

    /// As one entry of many that wait for their acknowledgement.
    fn merged(run: &mut Run<'_>, count: usize, dropped: bool) -> Passed {
        let mut merged: Option<Passed> = None;
        for _ in 0..count {
            run.push();
            let passed = Passed { dropped, ..run.pushed.take().unwrap() };
            run.state.pushing = None;
            match &mut merged {
                Some(merged) => merged.extend(&passed),
                None => merged = Some(passed),
            }
        }
        merged.unwrap()
    }

    #[test]
    fn what_is_stored_in_part_counts_as_both() {
        in_a_store(|stream| {
            for (dropped, in_part, whole) in [(false, [2, 2, 0, 0], [4, 0, 0, 0]), (true, [0, 0, 2, 2], [0, 0, 4, 0])] {
                let mut run = Run::new(stream);
                (0..4).for_each(|_| run.arrive(true));
                let passed = merged(&mut run, 4, dropped);
                run.begin_to_store(2);
                run.end_to_store(true);
                if !dropped {
                    run.taken.extend(1..5);
                }
                acknowledge_one(&mut run.state, &passed);
                let counts = |run: &Run<'_>| {
                    let l = run.state.cursor.ledger;
                    [l.delivered, l.bypassed, l.dropped, l.rejected].map(|count| count.buffers)
                };
                run.state.tail.acknowledge(run.state.cursor.position);
                run.check();
                assert_eq!(counts(&run), in_part);
                run.begin_to_store(2);
                run.end_to_store(true);
                run.check();
                assert_eq!(counts(&run), whole);
            }
        });
    }

    #[test]
    fn a_push_under_way_over_two_flushes_counts_once() {
        in_a_store(|stream| {
            let mut run = Run::new(stream);
            (0..3).for_each(|_| run.arrive(true));
            run.push();
            run.flush();
            (0..3).for_each(|_| run.arrive(false));
            run.flush();
            run.downstream(true, false);
            run.check();
        });
    }

    proptest! {
        #[test]
        fn the_accounts_add_up_whatever_happens_meanwhile(
            steps in proptest::collection::vec((0..13u8, any::<bool>()), 0..80),
        ) {
            // One store for all: only states that change go there, and none does.
            static STREAM: std::sync::OnceLock<(tempfile::TempDir, Stream)> = std::sync::OnceLock::new();
            let (_, stream) = STREAM.get_or_init(|| {
                let temp = tempfile::tempdir().unwrap();
                let stream = Store::open(temp.path(), &StoreOptions::default()).unwrap().stream("default").unwrap();
                (temp, stream)
            });
            let mut run = Run::new(stream);
            for (step, much) in steps {
                run.step(step, much);
            }
        }
    }
}
