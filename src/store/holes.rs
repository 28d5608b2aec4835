//! Stretches of a stream whose records were given up while records before them are still pending.
//!
//! A hole is what thinning and purging leave. What was kept of it (keyframes, events and changes of state of a thinned
//! stretch; of a purged one changes of state only) stands in the thin lanes of one extent, under the old sequence numbers, and
//! is read in place of the originals.
//!
//! # Accounting
//!
//! What a hole gave up is counted at once, as if it had lain directly behind the cursor: the sums of the cursor grow by it,
//! and so do the sums of every record between the cursor and the hole when they are read. The records that were kept follow
//! each other without a gap up to the end of the hole, and nothing changes behind it. So the level is the end's sums less the
//! cursor's, a gap in the sums is a loss, and neither has to know of holes. A record that was read before the hole came
//! about carries smaller sums than the cursor: [`CursorRecord::pass`] counts it as itself.
//!
//! ```text
//! before   cursor 100 | 100 101 102 [103 K 104 105 106 K 107] 108 109 | end 110      pending 10
//! after    cursor 104 | 104 105 106 [        K 107          ] 108 109 | end 110      pending 6, 4 dropped
//! ```
//!
//! [`CursorRecord::pass`]: super::CursorRecord::pass

use bitcode::{Decode, Encode};

use super::record::{Sequence, Totals};

/// One stretch, from `from` to before `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Hole {
    pub from: u64,
    pub to: u64,
    /// Given up of it while it was pending: added to the sums of the records before it.
    pub gone: Totals,
    /// Where what was kept stands.
    pub extent: u32,
    /// Added to the sums of the kept records, which count from the beginning of the hole.
    pub base: Totals,
    /// The sums of all that was kept.
    pub kept: Totals,
    /// Its bytes must not stay on the disk.
    pub purged: bool,
    /// They are gone from there.
    pub erased: bool,
}

/// The holes of a stream in order. Changed by copying.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Holes(Vec<Hole>);

impl Holes {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Hole> {
        self.0.iter()
    }

    /// The one in which `sequence` lies.
    pub fn at(&self, sequence: Sequence) -> Option<&Hole> {
        let index = self.0.partition_point(|hole| hole.to <= sequence);
        self.0.get(index).filter(|hole| hole.from <= sequence)
    }

    /// The first that begins after `sequence`.
    pub fn after(&self, sequence: Sequence) -> Option<&Hole> {
        self.0.get(self.0.partition_point(|hole| hole.from <= sequence))
    }

    /// Where the last one ends that ends at or before `sequence`.
    pub fn end_before(&self, sequence: Sequence) -> Option<Sequence> {
        let index = self.0.partition_point(|hole| hole.to <= sequence);
        index.checked_sub(1).map(|index| self.0[index].to)
    }

    /// What is added to the sums of records at `sequence`, for the holes behind it.
    pub fn shift(&self, sequence: Sequence) -> Totals {
        let index = self.0.partition_point(|hole| hole.from <= sequence);
        self.0[index..].iter().fold(Totals::default(), |sum, hole| sum.plus(hole.gone))
    }

    /// Puts a hole in place of all that it covers.
    pub fn cut(&mut self, mut new: Hole) {
        let mut holes = Vec::with_capacity(self.0.len() + 2);
        for hole in &self.0 {
            if hole.to <= new.from || hole.from >= new.to {
                holes.push(*hole);
                continue;
            }
            // What it gave up is told before what is left of it.
            if hole.from < new.from {
                holes.push(Hole { to: new.from, ..*hole });
            } else {
                new.gone = new.gone.plus(hole.gone);
            }
            if hole.to > new.to {
                holes.push(Hole { from: new.to, gone: Totals::default(), ..*hole });
            }
            new.erased &= !hole.purged || hole.erased;
            new.purged |= hole.purged;
        }
        let at = holes.partition_point(|hole| hole.from < new.from);
        holes.insert(at, new);
        self.0 = holes;
    }

    /// Whether some lie wholly before `start`.
    pub fn has_below(&self, start: Sequence) -> bool {
        self.0.first().is_some_and(|hole| hole.to <= start && (!hole.purged || hole.erased))
    }

    /// Forgets those wholly before `start`, but for those of which bytes may still be on the disk.
    pub fn forget(&mut self, start: Sequence) {
        self.0.retain(|hole| hole.to > start || (hole.purged && !hole.erased));
    }

    pub fn unerased(&self) -> impl Iterator<Item = &Hole> {
        self.0.iter().filter(|hole| hole.purged && !hole.erased)
    }

    /// The bytes of these are gone from the disk.
    pub fn set_erased(&mut self, which: &[(Sequence, Sequence)]) {
        for hole in &mut self.0 {
            hole.erased |= which.iter().any(|(from, to)| *from <= hole.from && hole.to <= *to);
        }
    }

    /// How much of the stretch lies in holes, in numbers.
    pub fn covered(&self, from: Sequence, to: Sequence) -> u64 {
        let index = self.0.partition_point(|hole| hole.to <= from);
        let within = self.0[index..].iter().take_while(|hole| hole.from < to);
        within.map(|hole| hole.to.min(to) - hole.from.max(from)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(buffers: u64) -> Totals {
        Totals { buffers, ..Totals::default() }
    }

    fn hole(from: u64, to: u64, gone: u64) -> Hole {
        let none = Totals::default();
        Hole { from, to, gone: sums(gone), extent: 1, base: none, kept: none, purged: false, erased: false }
    }

    fn holes(of: &[(u64, u64, u64)]) -> Holes {
        let mut holes = Holes::default();
        of.iter().for_each(|&(from, to, gone)| holes.cut(hole(from, to, gone)));
        holes
    }

    fn list(holes: &Holes) -> Vec<(u64, u64, u64)> {
        holes.iter().map(|hole| (hole.from, hole.to, hole.gone.buffers)).collect()
    }

    #[test]
    fn a_place_is_found_in_its_hole() {
        let holes = holes(&[(10, 20, 5), (30, 40, 7)]);
        let at = |sequence| holes.at(sequence).map(|hole| hole.from);
        assert_eq!([at(9), at(10), at(19), at(20), at(35), at(40)], [None, Some(10), Some(10), None, Some(30), None]);
        assert_eq!(holes.after(10).map(|hole| hole.from), Some(30));
        let shift = |sequence| holes.shift(sequence).buffers;
        assert_eq!([shift(5), shift(10), shift(25), shift(30), shift(99)], [12, 7, 7, 0, 0]);
        assert_eq!([holes.covered(0, 99), holes.covered(15, 35), holes.covered(20, 30)], [20, 10, 0]);
    }

    #[test]
    fn a_new_hole_takes_the_place_of_what_it_covers() {
        assert_eq!(list(&holes(&[(10, 20, 5), (12, 15, 1)])), [(10, 12, 5), (12, 15, 1), (15, 20, 0)]);
        assert_eq!(list(&holes(&[(10, 20, 5), (5, 15, 2)])), [(5, 15, 7), (15, 20, 0)]);
        assert_eq!(list(&holes(&[(10, 20, 5), (30, 40, 3), (10, 40, 2)])), [(10, 40, 10)]);
        assert_eq!(list(&holes(&[(10, 20, 5), (30, 40, 3), (20, 30, 2)])), [(10, 20, 5), (20, 30, 2), (30, 40, 3)]);
    }

    #[test]
    fn what_must_be_erased_is_not_forgotten() {
        let mut holes = holes(&[(10, 20, 5)]);
        holes.cut(Hole { purged: true, ..hole(30, 40, 0) });
        holes.forget(50);
        assert_eq!(list(&holes), [(30, 40, 0)]);
        holes.set_erased(&[(30, 40)]);
        assert!(holes.has_below(40));
        holes.forget(40);
        assert!(holes.is_empty());
    }
}
