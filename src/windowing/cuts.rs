//! Where windows begin that follow one another without gaps: the policy's cuts, splits, and the bounds of length.
//!
//! A cut is known when the reference stream has come to it, in the order of presentation: a frame that is presented
//! before another one that has been decided (a B-frame) begins nothing. So where a moment belongs is known as soon as
//! [`known`](Cuts::known) has passed it, and never changes.
//!
//! - `max-duration` is hard: no window is longer, on a keyframe or not. A stretch without frames is cut into as many
//!   windows as fit; they are arithmetic, none is stored.
//! - `min-duration` holds for the policy's cuts, not for splits.
//! - An id, floor(start / unit), is larger than the one before, or there is no cut.

use std::collections::VecDeque;

use super::strategy::Policy;
use super::window::{Frame, Reason, Split, WindowId};
use crate::timeline::Ns;

/// Cuts remembered: to name what is late. Open windows are fewer.
const REMEMBERED: usize = 2048;
const SPLITS: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Cut {
    start: Ns,
    /// Why the window before it ended.
    reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the window that starts here.
    In { start: Ns },
    /// Before the first.
    Outside,
    /// It may still be cut off.
    Unknown,
}

#[derive(Debug)]
pub struct Cuts {
    unit: Ns,
    min: Ns,
    /// 0: none.
    max: Ns,
    cuts: VecDeque<Cut>,
    /// Older ones are forgotten.
    pruned: bool,
    /// No cut will come before; [`Ns::MIN`] at first.
    known: Ns,
    /// Of the reference stream.
    latest: Option<Ns>,
    split_now: bool,
    split_keyframe: bool,
    split_at: Vec<Ns>,
}

impl Cuts {
    pub fn new(unit: Ns, min: Ns, max: Ns) -> Self {
        Self {
            unit,
            min,
            max,
            cuts: VecDeque::new(),
            pruned: false,
            known: Ns::MIN,
            latest: None,
            split_now: false,
            split_keyframe: false,
            split_at: Vec::new(),
        }
    }

    pub fn known(&self) -> Ns {
        self.known
    }

    pub fn id(&self, start: Ns) -> WindowId {
        start.0.div_euclid(self.unit.0)
    }

    /// A frame of the reference stream.
    pub fn reference(&mut self, frame: &Frame, policy: &mut dyn Policy) {
        if self.latest.is_none_or(|latest| frame.time > latest) {
            self.latest = Some(frame.time);
            self.frontier(frame, policy);
            self.know(frame.time + Ns(1));
        }
        policy.see(frame);
    }

    fn frontier(&mut self, frame: &Frame, policy: &mut dyn Policy) {
        // Later than the frame when others could not be kept waiting for it.
        let time = frame.cut_at.filter(|_| frame.cut).map_or(frame.time, |cut| cut.min(frame.time));
        let at = time.max(self.known);
        let Some(start) = self.start_at(at) else {
            self.begin(at, Reason::Segment, policy);
            return;
        };
        if self.cuts.back().is_some_and(|cut| cut.start < start) {
            self.begin(start, Reason::MaxDuration, policy);
        }
        let wanted = policy.cut(frame, start).filter(|_| at - start >= self.min);
        let split = self.split_now
            || self.split_keyframe && frame.keyframe
            || self.split_at.first().is_some_and(|&split| split <= at);
        if let Some(reason) = if split { Some(Reason::Split) } else { wanted }
            && self.id(at) > self.id(start)
        {
            self.begin(at, reason, policy);
        }
    }

    fn begin(&mut self, start: Ns, reason: Reason, policy: &mut dyn Policy) {
        if reason != Reason::MaxDuration {
            self.split_now = false;
            self.split_keyframe = false;
            self.split_at.retain(|&at| at > start);
        }
        if self.cuts.len() >= REMEMBERED {
            self.cuts.pop_front();
            self.pruned = true;
        }
        self.cuts.push_back(Cut { start, reason });
        policy.began(start);
    }

    /// No cut before `known` any more.
    pub fn know(&mut self, known: Ns) {
        self.known = self.known.max(known);
    }

    /// Where the window starts that holds `time`.
    fn start_at(&self, time: Ns) -> Option<Ns> {
        let after = self.after(time);
        let cut = self.cuts.get(after.checked_sub(1)?)?;
        Some(self.period(cut.start, time))
    }

    /// Of the windows of at most `max-duration` after `start`, the start of the one that holds `time`.
    fn period(&self, start: Ns, time: Ns) -> Ns {
        if self.max <= Ns::ZERO { start } else { start + Ns((time - start).0 / self.max.0 * self.max.0) }
    }

    /// Cuts at or before `time`. It is the last one or the one before, mostly.
    fn after(&self, time: Ns) -> usize {
        let len = self.cuts.len();
        match self.cuts.iter().rev().take(4).position(|cut| cut.start <= time) {
            Some(back) => len - back,
            None => self.cuts.partition_point(|cut| cut.start <= time),
        }
    }

    pub fn place(&self, time: Ns) -> Place {
        if time >= self.known {
            return Place::Unknown;
        }
        self.start_at(time).map_or(Place::Outside, |start| Place::In { start })
    }

    /// Too long ago to tell.
    pub fn forgotten(&self, time: Ns) -> bool {
        self.pruned && self.cuts.front().is_none_or(|cut| time < cut.start)
    }

    /// Where the window that starts at `start` ends, once that is known.
    pub fn end(&self, start: Ns) -> Option<(Ns, Reason)> {
        let next = self.cuts.get(self.after(start));
        let bound = (self.max > Ns::ZERO).then(|| start + self.max);
        match (next, bound) {
            (Some(next), Some(bound)) if bound < next.start => Some((bound, Reason::MaxDuration)),
            (Some(next), _) => Some((next.start, next.reason)),
            (None, Some(bound)) if bound <= self.known => Some((bound, Reason::MaxDuration)),
            (None, _) => None,
        }
    }

    /// The first end after `time` that is known ahead.
    pub fn next(&self, time: Ns) -> Option<Ns> {
        let bound = (self.max > Ns::ZERO)
            .then(|| self.cuts.back().map(|cut| self.period(cut.start, time.max(cut.start)) + self.max))
            .flatten();
        let unit = (self.unit > Ns(1)).then(|| Ns((time.0.div_euclid(self.unit.0) + 1).saturating_mul(self.unit.0)));
        let split = self.split_at.iter().copied().find(|&at| at > time);
        [bound, unit, split].into_iter().flatten().min()
    }

    /// False if ids leave no place for it.
    pub fn split(&mut self, split: Split) -> bool {
        if self.unit > Ns(1) {
            return false;
        }
        match split {
            Split::Now | Split::Keyframe if self.cuts.is_empty() => return false,
            Split::Now => self.split_now = true,
            Split::Keyframe => self.split_keyframe = true,
            Split::At(at) if self.split_at.len() < SPLITS && at >= self.known => {
                let place = self.split_at.partition_point(|&other| other <= at);
                self.split_at.insert(place, at);
            }
            Split::At(_) => return false,
        }
        true
    }

    /// Splits at a time are kept: it may come again.
    pub fn restart(&mut self, policy: &mut dyn Policy) {
        self.cuts.clear();
        self.pruned = false;
        self.known = Ns::MIN;
        self.latest = None;
        self.split_now = false;
        self.split_keyframe = false;
        policy.restart();
    }
}
