//! From where a consumer that comes back has to be fed.
//!
//! Follows the acknowledged buffers and keeps the sync points that a resume may still need: the last one at or before the
//! first unacknowledged buffer, or further back by the replay overlap. A sync point with leading pictures counts once the
//! last of them is acknowledged: a resume there leaves them out. With other streams beside it ([`super::joint`]) a later point is
//! taken only as far as they allow. A GOP without end, or a stream beside that gets nothing, must not pin the disk, so past a
//! bound what was kept is treated as cut.

use std::collections::VecDeque;

use super::joint::{Limit, Moment};
use crate::media::buffer::Facts;
use crate::store::{Mark, Sequence, Sync, Totals};

/// Longest stretch kept for a resume, besides the overlap.
const MAX_TIME: u64 = 30_000_000_000;
const MAX_BYTES: u64 = 64 << 20;
/// An overlap in bytes reaches back so far at most: a slow stream would send again what went out minutes ago.
const MAX_BYTES_TIME: u64 = 60_000_000_000;

/// What is sent again besides what was not acknowledged: media time in ns and payload bytes, whichever reaches further back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overlap {
    pub time: u64,
    pub bytes: u64,
}

impl Overlap {
    pub fn is_none(self) -> bool {
        self == Overlap::default()
    }

    /// Whether a resume with this much behind it covers the overlap.
    pub fn is_covered(self, behind: Totals) -> bool {
        behind.time >= self.time && (behind.bytes >= self.bytes || behind.time >= MAX_BYTES_TIME)
    }

    /// The most that is kept for it.
    fn bound(self) -> Overlap {
        let longest = self.time.max(if self.bytes > 0 { MAX_BYTES_TIME } else { 0 });
        Overlap { time: MAX_TIME.saturating_add(longest), bytes: MAX_BYTES.saturating_add(self.bytes) }
    }
}

#[derive(Debug, Clone, Copy)]
struct Point {
    sequence: Sequence,
    totals: Totals,
    /// `None` when it is not known, or the stream has no running time.
    at: Option<Moment>,
    /// Presentation time of an open sync point whose leading pictures are still passing.
    leading_before: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Resume {
    /// The first is where to resume.
    points: VecDeque<Point>,
    /// Index of the point that this stream alone would resume from.
    own: usize,
    newest: Totals,
    overlap: Overlap,
    /// Media time in ns and bytes that are kept at most.
    most: Overlap,
    warned: bool,
}

impl Resume {
    pub fn new(from: Mark, at: Option<Moment>, overlap: Overlap) -> Self {
        let point = Point { sequence: from.sequence, totals: from.totals, at, leading_before: None };
        let most = overlap.bound();
        Self { points: VecDeque::from([point]), own: 0, newest: from.totals, overlap, most, warned: false }
    }

    /// Of a stream beside one that leads with this overlap: what a socket has accepted is that of all streams together, and the
    /// one that leads counts for them. It keeps what that one may need, which is a GOP more.
    pub fn following(from: Mark, at: Option<Moment>, overlap: Overlap) -> Self {
        let mut most = overlap.bound();
        most.time = most.time.saturating_add(MAX_TIME);
        Self { most, ..Self::new(from, at, Overlap { bytes: 0, ..overlap }) }
    }

    /// What lies before `from` is gone.
    pub fn restart(&mut self, from: Mark) {
        *self = Self { warned: self.warned, most: self.most, ..Self::new(from, None, self.overlap) };
    }

    /// A buffer was acknowledged. True when the GOP has grown past the bound, told once.
    pub fn acknowledged(
        &mut self,
        before: Mark,
        after: Mark,
        facts: &Facts,
        pts: Option<u64>,
        at: Option<Moment>,
    ) -> bool {
        self.newest = after.totals;
        self.begins_with(at);
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
            self.points.push_back(Point { sequence: before.sequence, totals: before.totals, at, leading_before });
        }
        while let Some(next) = self.points.get(self.own + 1)
            && next.leading_before.is_none()
            && self.overlap.is_covered(after.totals.since(next.totals))
        {
            self.own += 1;
        }
        self.cut(after)
    }

    /// Gives up the oldest point when too much is kept for it.
    fn cut(&mut self, after: Mark) -> bool {
        let Some(first) = self.points.front() else { return false };
        let kept = after.totals.since(first.totals);
        if kept.time <= self.most.time && kept.bytes <= self.most.bytes {
            return false;
        }
        // Anything newer is better than this.
        self.points.pop_front();
        if self.points.is_empty() {
            let (sequence, totals) = (after.sequence, after.totals);
            self.points.push_back(Point { sequence, totals, at: None, leading_before: None });
        }
        match self.own.checked_sub(1) {
            // Kept for another stream.
            Some(own) => {
                self.own = own;
                false
            }
            None => !std::mem::replace(&mut self.warned, true),
        }
    }

    /// Where to resume now, with what the other streams allow: not beyond `sent`, up to where downstream has had everything
    /// since it was last given something from before.
    pub fn settle(&mut self, limit: Limit, sent: Sequence) -> Option<Sequence> {
        let allows = |next: &Point| next.leading_before.is_none() && next.sequence <= sent && limit.allows(next.at);
        while self.own > 0 && self.points.get(1).is_some_and(allows) {
            self.points.pop_front();
            self.own -= 1;
        }
        self.from()
    }

    /// The time of where to resume.
    pub fn at(&self) -> Option<Moment> {
        self.points.front().and_then(|first| first.at)
    }

    /// What lies at `sequence` is of this time.
    pub fn note(&mut self, sequence: Sequence, at: Option<Moment>) {
        if let Some(first) = self.points.front_mut().filter(|first| first.sequence == sequence) {
            first.at = first.at.or(at);
        }
    }

    /// The first that comes is of this time.
    pub fn begins_with(&mut self, at: Option<Moment>) {
        if let [first] = self.points.make_contiguous() {
            first.at = first.at.or(at);
        }
    }

    /// Where to resume, as of the last move.
    pub fn from(&self) -> Option<Sequence> {
        self.points.front().map(|first| first.sequence)
    }

    /// The time of what this stream alone would resume from.
    pub fn own_at(&self) -> Option<Moment> {
        self.points.get(self.own).and_then(|point| point.at)
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
        fn new(time: u64) -> Self {
            Self::with(Overlap { time, bytes: 0 })
        }

        fn with(overlap: Overlap) -> Self {
            let at = Mark { sequence: 1, totals: Totals::default() };
            Self { resume: Resume::new(at, None, overlap), at }
        }

        /// One second of media.
        fn ack(&mut self, sync: Sync, pts: u64) -> Sequence {
            self.ack_bytes(sync, pts, 1000).0
        }

        fn ack_bytes(&mut self, sync: Sync, pts: u64, bytes: u64) -> (Sequence, bool) {
            let before = self.at;
            self.at = Mark {
                sequence: before.sequence + 1,
                totals: before.totals.plus(Totals { buffers: 1, bytes, time: SECOND }),
            };
            let facts = Facts { sync, ..Facts::default() };
            let cut = self.resume.acknowledged(before, self.at, &facts, Some(pts), None);
            (self.resume.settle(Limit::Own, u64::MAX).unwrap(), cut)
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
    fn the_overlap_in_bytes_reaches_back_for_a_minute_at_most() {
        let mut run = Run::with(Overlap { time: 0, bytes: 2500 });
        let at: Vec<_> = (0..8).map(|i| run.ack(Sync::Closed, i)).collect();
        assert_eq!(at, [1, 1, 1, 2, 3, 4, 5, 6]);
        let mut run = Run::with(Overlap { time: 0, bytes: 1 << 30 });
        let at: Vec<_> = (0..100).map(|i| run.ack(Sync::Closed, i)).collect();
        assert_eq!(at.last(), Some(&(100 - 59)));
        let mut run = Run::with(Overlap { time: 5 * SECOND, bytes: 2500 });
        let at: Vec<_> = (0..20).map(|i| run.ack(Sync::Closed, i)).collect();
        assert_eq!(at.last(), Some(&(20 - 4)), "whichever reaches further back");
    }

    #[test]
    fn a_gop_without_end_is_cut() {
        let mut run = Run::new(0);
        run.ack(Sync::Closed, 0);
        let results: Vec<_> = (1..40).map(|i| run.ack_bytes(Sync::None, i, 1000)).collect();
        assert_eq!(results.iter().filter(|r| r.1).count(), 1);
        assert!(results.last().is_some_and(|r| r.0 > 25), "{results:?}");
        let mut run = Run::new(0);
        run.ack(Sync::Closed, 0);
        assert!(run.ack_bytes(Sync::None, 1, 65 << 20).1);
    }
}
