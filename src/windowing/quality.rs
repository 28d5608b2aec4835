//! How much of what a stream should have carried in a window was there.
//!
//! ```text
//! part     = the window without what lies before the stream's first frame or behind its end, ns
//! gap      = time of that part that GAP events or frames flagged GAP cover, ns
//! expected = frames/s of the caps x part / 10^9                     Rate
//!          = part / mean distance of the last 64 frames x 0.995     Cadence
//!          = 0                                                      Nothing
//! missing  = max(0, floor(expected + 0.01) - frames)
//!          = floor((part - sum of durations) / mean duration + 0.01), at least 0         Coverage
//! quality  = (1 - missing' / expected') x (1 - corrupted / frames) x (1 - gap / part) x exposure
//! ```
//!
//! `missing'` and `expected'` are those of part - gap, so an announced gap costs once. Expected' of Coverage is (part -
//! gap) / mean duration. Exposure is the mean over frames that tell it, 1 if none does. A window has one frame more or
//! less than its length times the rate, depending on where it begins: the floor never calls that one missing. Cadence
//! leaves out distances of more than 1.5 medians (lost frames), and is unknown below 8 frames.

use super::window::{Expected, Figures, Frame};
use crate::timeline::Ns;

const KEPT: usize = 64;
const FEWEST: usize = 8;

/// Distances of the last frames.
#[derive(Debug, Clone)]
pub struct Cadence {
    distances: [i64; KEPT],
    count: usize,
    last: Option<Ns>,
}

impl Default for Cadence {
    fn default() -> Self {
        Self { distances: [0; KEPT], count: 0, last: None }
    }
}

impl Cadence {
    /// Positions, not presentation times: those of B-frames jump.
    pub fn push(&mut self, position: Ns) {
        if let Some(last) = self.last
            && position > last
        {
            self.distances[self.count % KEPT] = (position - last).0;
            self.count += 1;
            // Stays above KEPT, and what it is modulo KEPT.
            if self.count >= 4 * KEPT {
                self.count -= 2 * KEPT;
            }
        }
        self.last = Some(self.last.map_or(position, |last| last.max(position)));
    }

    pub fn restart(&mut self) {
        self.last = None;
    }

    /// Mean distance in ns.
    pub fn mean(&self) -> Option<f64> {
        let known = self.count.min(KEPT);
        if known < FEWEST {
            return None;
        }
        let mut sorted = self.distances;
        let median = *sorted[..known].select_nth_unstable(known / 2).1 as f64;
        let (sum, count) = sorted[..known]
            .iter()
            .map(|&distance| distance as f64)
            .filter(|&distance| distance <= 1.5 * median)
            .fold((0., 0.), |(sum, count), distance| (sum + distance, count + 1.));
        (count > 0. && sum > 0.).then(|| sum / count)
    }
}

/// What a stream has had in a window so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    pub frames: u32,
    pub keyframes: u32,
    pub late: u32,
    pub bytes: u64,
    pub complexity: f64,
    corrupted: u32,
    exposure: f64,
    exposed: u32,
    durations: i64,
    timed: u32,
    first: Option<Ns>,
    latest: Option<Ns>,
    last: Option<Ns>,
}

impl Tally {
    pub fn add(&mut self, frame: &Frame) {
        self.frames = self.frames.saturating_add(1);
        self.keyframes = self.keyframes.saturating_add(frame.keyframe.into());
        self.corrupted = self.corrupted.saturating_add(frame.corrupted.into());
        self.bytes = self.bytes.saturating_add(frame.size as u64);
        self.complexity += complexity(frame);
        if let Some(exposure) = frame.exposure.filter(|exposure| exposure.is_finite()) {
            self.exposure += exposure.clamp(0., 1.);
            self.exposed = self.exposed.saturating_add(1);
        }
        let duration = frame.duration.unwrap_or_default();
        if duration > Ns::ZERO && !frame.gap {
            self.durations = self.durations.saturating_add(duration.0);
            self.timed = self.timed.saturating_add(1);
        }
        let end = frame.time + duration.max(Ns::ZERO);
        self.first = Some(self.first.map_or(frame.time, |first| first.min(frame.time)));
        self.latest = self.latest.max(Some(frame.time));
        self.last = self.last.max(Some(end));
    }

    pub fn first(&self) -> Option<Ns> {
        self.first
    }

    /// Presentation time of the last frame.
    pub fn latest(&self) -> Option<Ns> {
        self.latest
    }

    /// Its end.
    pub fn last(&self) -> Option<Ns> {
        self.last
    }

    /// `part` and `gap` as above, in ns.
    pub fn figures(&self, part: Ns, gap: Ns, expected: Expected, cadence: &Cadence) -> Figures {
        let part = part.0.max(0) as f64;
        let gap = (gap.0.max(0) as f64).min(part);
        let frames = f64::from(self.frames);
        // Frames expected in, and missing of, a time.
        let of = |time: f64| -> (f64, f64) {
            let counted = |expected: f64| (expected, ((expected + 0.01).floor() - frames).max(0.));
            match expected {
                Expected::Rate(numerator, denominator) => {
                    counted(time * f64::from(numerator) / f64::from(denominator.max(1)) / 1e9)
                }
                Expected::Cadence => cadence.mean().map_or((0., 0.), |mean| counted(time / mean * 0.995)),
                Expected::Coverage if self.timed > 0 => {
                    let mean = self.durations as f64 / f64::from(self.timed);
                    (time / mean, ((time - self.durations as f64) / mean + 0.01).floor().max(0.))
                }
                // Not one, so that their number is not known: as one that is missing.
                Expected::Coverage if time > 0. => (1., 1.),
                Expected::Coverage | Expected::Nothing => (0., 0.),
            }
        };
        let (_, missing) = of(part);
        let (due, lost) = of(part - gap);
        let there = if due > 0. { (1. - lost / due).clamp(0., 1.) } else { 1. };
        let sound = if self.frames > 0 { 1. - f64::from(self.corrupted) / frames } else { 1. };
        let covered = if part > 0. { 1. - gap / part } else { 1. };
        let exposure = if self.exposed > 0 { self.exposure / f64::from(self.exposed) } else { 1. };
        Figures {
            frames: self.frames,
            keyframes: self.keyframes,
            late: self.late,
            missing: missing as u32,
            bytes: self.bytes,
            quality: there * sound * covered * exposure,
            complexity: self.complexity,
            first: self.first,
            last: self.last,
        }
    }
}

/// As it counts: finite and not negative.
pub fn complexity(frame: &Frame) -> f64 {
    if frame.complexity.is_finite() { frame.complexity.max(0.) } else { 0. }
}
