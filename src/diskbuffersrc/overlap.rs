//! How far a consumer that comes back goes back: to a sync point that has the replay overlap behind it.
//!
//! A sink that answers OK may have put data into a socket that its peer never read: when the process is killed, it is lost. The
//! overlap sends it again. While a consumer runs, its resume point lies as far back, so that the writer keeps what a start
//! would send.

use std::collections::VecDeque;

use super::acks::Pushed;
use super::range;
use crate::diskbuffer::Overlap;
use crate::store::{Mark, Sequence, StoreError, StreamReader, Totals};

/// With more sync points every other one is left out: a resume then begins earlier.
const MOST: usize = 4096;

/// The sync points that a consumer may have to go back to.
#[derive(Debug, Default)]
pub struct Kept {
    /// The first is where to resume.
    points: VecDeque<Mark>,
    overlap: Overlap,
}

impl Kept {
    /// Nothing before `from` is needed any more.
    pub fn new(from: Mark, overlap: Overlap) -> Self {
        Self { points: VecDeque::from([from]), overlap }
    }

    /// Takes note of what was delivered, for the first time or again.
    pub fn note(&mut self, pushed: &Pushed) {
        if self.points.back().is_none_or(|last| last.sequence < pushed.sync) {
            self.points.push_back(Mark { sequence: pushed.sync, totals: pushed.before });
        }
        if self.points.len() > MOST {
            let last = self.points.len() - 1;
            let mut index = 0..;
            self.points.retain(|_| index.next().is_some_and(|index| index % 2 == 0 || index == last));
        }
    }

    /// Where to resume when everything before `totals` is delivered.
    pub fn resume(&mut self, totals: Totals) -> Option<Sequence> {
        while let Some(next) = self.points.get(1)
            && self.overlap.is_covered(totals.since(next.totals))
        {
            self.points.pop_front();
        }
        self.points.front().map(|first| first.sequence)
    }
}

/// The sync point from which everything that lies within the overlap before `position` is sent again; the beginning of what
/// is held when that is less. `None` when nothing lies before it.
pub fn before(reader: &StreamReader, position: Sequence, overlap: Overlap) -> Result<Option<Sequence>, StoreError> {
    let first = reader.first();
    let position = position.min(reader.end().sequence);
    if overlap.is_none() || position <= first {
        return Ok(None);
    }
    let totals = reader.totals_at(position)?;
    // The last place that has enough behind it: `from` has, `to` has not.
    let (mut from, mut to) = (first, position);
    while to - from > 1 {
        let middle = from + (to - from) / 2;
        match overlap.is_covered(totals.since(reader.totals_at(middle)?)) {
            true => from = middle,
            false => to = middle,
        }
    }
    let (range::Start::At(at) | range::Start::Undecided(at)) = range::at_sync(reader, from)?;
    Ok(Some(at.min(position)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn totals(buffers: u64) -> Totals {
        Totals { buffers, bytes: buffers * 1000, time: buffers * SECOND }
    }

    /// GOPs of ten buffers of one second.
    fn resumes(overlap: Overlap, buffers: u64) -> Vec<Sequence> {
        let mut kept = Kept::new(Mark { sequence: 0, totals: totals(0) }, overlap);
        let pass = |n| {
            kept.note(&Pushed { last: n, sync: n / 10 * 10, before: totals(n), after: totals(n + 1) });
            kept.resume(totals(n + 1)).unwrap()
        };
        (0..buffers).map(pass).collect()
    }

    #[test]
    fn without_an_overlap_the_last_keyframe_is_where_to_resume() {
        assert_eq!(resumes(Overlap::default(), 25)[..25], [[0; 10], [10; 10], [20; 10]].concat()[..25]);
    }

    #[test]
    fn the_overlap_lies_behind_the_resume_point_whichever_reaches_further() {
        let resumes = |time, bytes| *resumes(Overlap { time, bytes }, 100).last().unwrap();
        assert_eq!(resumes(10 * SECOND, 0), 90);
        assert_eq!(resumes(11 * SECOND, 0), 80);
        assert_eq!(resumes(0, 25_000), 70);
        assert_eq!(resumes(35 * SECOND, 25_000), 60);
        assert_eq!(resumes(0, u64::MAX), 40, "a minute at most");
        assert_eq!(resumes(u64::MAX, 0), 0);
    }

    #[test]
    fn many_sync_points_are_thinned_and_a_resume_is_never_too_late() {
        let mut kept = Kept::new(Mark { sequence: 0, totals: totals(0) }, Overlap { time: 6000 * SECOND, bytes: 0 });
        for n in 0..20_000 {
            kept.note(&Pushed { last: n, sync: n, before: totals(n), after: totals(n + 1) });
            let resume = kept.resume(totals(n + 1)).unwrap();
            assert!(resume <= (n + 1).saturating_sub(6000), "{resume} at {n}");
            assert!(n < 12_000 || resume + 7000 > n, "{resume} at {n}");
        }
        assert!(kept.points.len() <= MOST + 1);
    }
}
