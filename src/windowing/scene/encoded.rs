//! Where shots begin in an encoded stream, told from coded sizes and keyframes alone: nothing is decoded.
//!
//! What an encoder spends tells what it could not predict. In decode order:
//!
//! - A keyframe that comes earlier than others did: the encoder saw the cut. One that keeps to the period says
//!   nothing; one later than any before counts if its size is at least twice or at most half that of the last
//!   keyframe.
//! - A frame predicted from the past (in display order after all before it) several times as large as such frames were,
//!   and than the two that follow are, and not small beside keyframes: what an intra-coded picture costs. With B-frames
//!   the cut lies somewhere between it and the one before; the middle is told.
//! - In streams of keyframes only (JPEG, intra profiles): sizes that settle elsewhere for three frames.
//!
//! This is a guess. A cut that falls on a periodic keyframe, or between shots of which one moves fast, is not seen; a
//! flash or a title may be taken for a cut. Streams from encoders that place keyframes at cuts fare best.

use std::collections::VecDeque;

/// Frames predicted from the past, after the one in question, that are waited for.
pub const LOOK_AHEAD: usize = 2;
/// Such frames before it that it is measured against.
const USUAL: usize = 9;
const ENOUGH: usize = 3;
/// Intervals and sizes of keyframes that are remembered.
const KEYFRAMES: usize = 16;
/// Times the usual size of a predicted frame.
const BEYOND_USUAL: u64 = 3;
/// The least part of a keyframe's size, one in so many.
const OF_KEYFRAME: u64 = 5;
/// Times the usual size of what follows, in halves.
const BEYOND_NEXT_HALVES: u64 = 3;

/// One access unit, in decode order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    /// In any unit.
    pub pts: u64,
    pub bytes: u64,
    /// Not a delta unit.
    pub keyframe: bool,
}

/// A frame that no frame after it in decode order precedes in display order.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    unit: Unit,
    /// PTS of the one before.
    before: u64,
    /// Access units since the last keyframe; of a keyframe only.
    interval: Option<u64>,
}

/// One stream's detector. Memory is bounded and settles after the first frames.
#[derive(Debug, Default)]
pub struct EncodedDetector {
    /// The one in question, after it those waited for; before it, as many as an intra-only stream needs.
    anchors: VecDeque<Anchor>,
    /// Of those, how many have been judged.
    judged: usize,
    highest: Option<u64>,
    since_keyframe: Option<u64>,
    predicted: Recent<USUAL>,
    keyframes: Recent<KEYFRAMES>,
    intervals: Recent<KEYFRAMES>,
    /// Anchors until the next cut is believed.
    quiet: usize,
}

impl EncodedDetector {
    /// Takes the next access unit. Returns the PTS from which on frames belong to a new shot, once that is known.
    pub fn push(&mut self, unit: Unit) -> Option<u64> {
        let interval = self.since_keyframe;
        self.since_keyframe = if unit.keyframe { Some(1) } else { interval.map(|n| n + 1) };
        if self.highest.is_some_and(|highest| unit.pts <= highest) {
            return None;
        }
        let before = self.highest.replace(unit.pts).unwrap_or(unit.pts);
        let interval = if unit.keyframe { interval } else { None };
        self.anchors.push_back(Anchor { unit, before, interval });
        if self.anchors.len() - self.judged > LOOK_AHEAD { self.judge() } else { None }
    }

    /// The PTS of the last frame that was judged: cuts that are told later lie behind it.
    pub fn known(&self) -> Option<u64> {
        self.judged.checked_sub(1).and_then(|last| self.anchors.get(last)).map(|anchor| anchor.unit.pts)
    }

    /// What was still waited for, at the end of a stream; `None` when nothing is left or it holds no cut.
    pub fn drain(&mut self) -> Option<u64> {
        while self.judged < self.anchors.len() {
            if let Some(cut) = self.judge() {
                return Some(cut);
            }
        }
        None
    }

    fn judge(&mut self) -> Option<u64> {
        let anchor = *self.anchors.get(self.judged)?;
        let cut = match (anchor.unit.keyframe, anchor.interval) {
            (true, Some(1)) => self.settles_elsewhere().then_some(anchor.unit.pts),
            (true, Some(interval)) => self.unexpected(interval, anchor.unit.bytes).then_some(anchor.unit.pts),
            (true, None) => None,
            // The least PTS in the later half.
            (false, _) => self.stands_out(anchor.unit.bytes).then(|| anchor.before.midpoint(anchor.unit.pts) + 1),
        };
        if anchor.unit.keyframe {
            self.keyframes.add(anchor.unit.bytes);
            if let Some(interval) = anchor.interval {
                self.intervals.add(interval);
            }
        } else {
            self.predicted.add(anchor.unit.bytes);
        }
        // A keyframe right after a predicted frame that stood out is the encoder's late answer to the same cut.
        let near = self.quiet > 0;
        self.quiet = self.quiet.saturating_sub(1);
        self.judged += 1;
        if self.judged > LOOK_AHEAD + 1 {
            self.anchors.pop_front();
            self.judged -= 1;
        }
        let cut = cut.filter(|_| !near)?;
        self.quiet = LOOK_AHEAD;
        Some(cut)
    }

    fn unexpected(&self, interval: u64, bytes: u64) -> bool {
        let longest = self.intervals.max();
        match longest {
            Some(longest) if interval + 1 < longest => true,
            Some(longest) if interval <= longest + 1 => false,
            _ => self.keyframes.last().is_some_and(|last| bytes / 2 >= last || last / 2 >= bytes),
        }
    }

    fn stands_out(&self, bytes: u64) -> bool {
        let next = self.anchors.iter().skip(self.judged + 1).filter(|a| !a.unit.keyframe).map(|a| a.unit.bytes).max();
        self.predicted.len() >= ENOUGH
            && self.predicted.median().is_some_and(|usual| bytes / BEYOND_USUAL > usual)
            && self.keyframes.median().is_none_or(|keyframe| bytes >= keyframe / OF_KEYFRAME)
            && next.is_none_or(|next| bytes / BEYOND_NEXT_HALVES > next / 2)
    }

    /// Three frames before and three from here on: the groups lie further apart than either is wide, by a tenth at
    /// least.
    fn settles_elsewhere(&self) -> bool {
        let range = |anchors: &mut dyn Iterator<Item = &Anchor>| {
            anchors.fold((u64::MAX, 0), |(low, high), a| (low.min(a.unit.bytes), high.max(a.unit.bytes)))
        };
        if self.judged < LOOK_AHEAD + 1 || self.anchors.len() < self.judged + LOOK_AHEAD + 1 {
            return false;
        }
        let before = range(&mut self.anchors.iter().take(self.judged));
        let after = range(&mut self.anchors.iter().skip(self.judged));
        let (lower, upper) = if before.1 < after.0 { (before, after) } else { (after, before) };
        let gap = upper.0.saturating_sub(lower.1);
        gap > lower.1 / 10 && gap > (lower.1 - lower.0).max(upper.1 - upper.0)
    }
}

/// The last `N` values.
#[derive(Debug, Clone)]
struct Recent<const N: usize> {
    values: [u64; N],
    count: usize,
}

impl<const N: usize> Default for Recent<N> {
    fn default() -> Self {
        Self { values: [0; N], count: 0 }
    }
}

impl<const N: usize> Recent<N> {
    fn add(&mut self, value: u64) {
        self.values[self.count % N] = value;
        self.count += 1;
    }

    fn len(&self) -> usize {
        self.count.min(N)
    }

    fn last(&self) -> Option<u64> {
        self.count.checked_sub(1).map(|n| self.values[n % N])
    }

    fn max(&self) -> Option<u64> {
        self.values[..self.len()].iter().copied().max()
    }

    fn median(&self) -> Option<u64> {
        let mut sorted = self.values;
        let sorted = &mut sorted[..self.len()];
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}
