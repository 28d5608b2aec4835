//! From where a consumer that comes back has to be fed.
//!
//! Follows the acknowledged buffers and keeps the sync points that a resume may still need: the last one at or before the
//! first unacknowledged buffer, or further back by the replay overlap. A sync point with leading pictures counts once the
//! last of them is acknowledged: a resume there leaves them out. A GOP without end must not pin the disk, so past a bound
//! it is treated as cut.

use std::collections::VecDeque;

use crate::media::buffer::Facts;
use crate::store::{Mark, Sequence, Sync, Totals};

/// Longest stretch kept for a resume, besides the overlap.
const MAX_TIME: u64 = 30_000_000_000;
const MAX_BYTES: u64 = 64 << 20;

#[derive(Debug, Clone, Copy)]
struct Point {
    sequence: Sequence,
    totals: Totals,
    /// Presentation time of an open sync point whose leading pictures are still passing.
    leading_before: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Resume {
    points: VecDeque<Point>,
    overlap: u64,
    warned: bool,
}

/// Where to resume now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumption {
    pub at: Sequence,
    /// The GOP has grown past the bound, told once.
    pub cut: bool,
}

impl Resume {
    pub fn new(from: Mark, overlap: u64) -> Self {
        let point = Point { sequence: from.sequence, totals: from.totals, leading_before: None };
        Self { points: VecDeque::from([point]), overlap, warned: false }
    }

    /// What lies before `from` is gone.
    pub fn restart(&mut self, from: Mark) {
        *self = Self { warned: self.warned, ..Self::new(from, self.overlap) };
    }

    /// A buffer was acknowledged.
    pub fn acknowledged(&mut self, before: Mark, after: Mark, facts: &Facts, pts: Option<u64>) -> Resumption {
        if let Some(last) = self.points.back_mut()
            && let Some(key) = last.leading_before
            && last.sequence != before.sequence
            && !facts.leading
            && pts.is_none_or(|pts| pts > key)
        {
            last.leading_before = None;
        }
        if facts.sync != Sync::None && self.points.back().is_none_or(|last| last.sequence < before.sequence) {
            // A point that never became usable gives way to the next one.
            if self.points.len() > 1 && self.points.back().is_some_and(|last| last.leading_before.is_some()) {
                self.points.pop_back();
            }
            let leading_before = if facts.sync == Sync::Open { pts } else { None };
            self.points.push_back(Point { sequence: before.sequence, totals: before.totals, leading_before });
        }
        while let [_, next, ..] = self.points.make_contiguous()
            && next.leading_before.is_none()
            && after.totals.since(next.totals).time >= self.overlap
        {
            self.points.pop_front();
        }
        let mut cut = false;
        if let Some(first) = self.points.front() {
            let kept = after.totals.since(first.totals);
            if kept.time > MAX_TIME.saturating_add(self.overlap) || kept.bytes > MAX_BYTES {
                // Anything newer is better than this.
                self.points.pop_front();
                if self.points.is_empty() {
                    self.points.push_back(Point {
                        sequence: after.sequence,
                        totals: after.totals,
                        leading_before: None,
                    });
                }
                cut = !std::mem::replace(&mut self.warned, true);
            }
        }
        let at = self.points.front().map_or(after.sequence, |first| first.sequence);
        Resumption { at, cut }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    struct Run {
        resume: Resume,
        at: Mark,
    }

    impl Run {
        fn new(overlap: u64) -> Self {
            let at = Mark { sequence: 1, totals: Totals::default() };
            Self { resume: Resume::new(at, overlap), at }
        }

        /// One second of media.
        fn ack(&mut self, sync: Sync, pts: u64) -> Sequence {
            self.ack_bytes(sync, pts, 1000).at
        }

        fn ack_bytes(&mut self, sync: Sync, pts: u64, bytes: u64) -> Resumption {
            let before = self.at;
            self.at = Mark {
                sequence: before.sequence + 1,
                totals: before.totals.plus(Totals { buffers: 1, bytes, time: SECOND }),
            };
            let facts = Facts { sync, ..Facts::default() };
            self.resume.acknowledged(before, self.at, &facts, Some(pts))
        }
    }

    #[test]
    fn the_last_keyframe_is_where_to_resume() {
        let mut run = Run::new(0);
        let at: Vec<_> = [Sync::Closed, Sync::None, Sync::None, Sync::Closed, Sync::None]
            .iter()
            .enumerate()
            .map(|(i, sync)| run.ack(*sync, i as u64))
            .collect();
        assert_eq!(at, [1, 1, 1, 4, 4]);
    }

    #[test]
    fn leading_pictures_are_waited_for() {
        let mut run = Run::new(0);
        assert_eq!(run.ack(Sync::Closed, 0), 1);
        assert_eq!(run.ack(Sync::Open, 50), 1);
        assert_eq!(run.ack(Sync::None, 40), 1, "leading");
        assert_eq!(run.ack(Sync::None, 45), 1, "leading");
        assert_eq!(run.ack(Sync::None, 60), 2);
    }

    #[test]
    fn the_overlap_reaches_back() {
        let mut run = Run::new(3 * SECOND);
        let at: Vec<_> = (0..8).map(|i| run.ack(Sync::Closed, i)).collect();
        assert_eq!(at, [1, 1, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_gop_without_end_is_cut() {
        let mut run = Run::new(0);
        run.ack(Sync::Closed, 0);
        let results: Vec<_> = (1..40).map(|i| run.ack_bytes(Sync::None, i, 1000)).collect();
        assert_eq!(results.iter().filter(|r| r.cut).count(), 1);
        assert!(results.last().is_some_and(|r| r.at > 25), "{results:?}");
        let mut run = Run::new(0);
        run.ack(Sync::Closed, 0);
        assert!(run.ack_bytes(Sync::None, 1, 65 << 20).cut);
    }
}
