//! Windows of equal complexity: the sum over the reference stream's frames since the start, in the order in which they
//! are decoded.
//!
//! A window begins with the frame (aligned: the keyframe) at which the sum so far is nearer to the target than it would
//! be after it: with s the sum, c the complexity of this frame (aligned: of the last whole GOP), where s + c / 2 >=
//! target. So a window differs from the target by at most half of one frame's complexity (aligned: half a GOP's, and
//! what this GOP differs from the last), as far as `min-duration` and `max-duration` let it. It is within 20 % where no
//! frame (no GOP) holds more than 40 % of the target. B-frames that follow the cut in decode order belong to the window
//! before it by their time; they are on top of this.
//!
//! The automatic target is duration x complexity per second over what has been seen, at most about 64 durations of it;
//! the first window is as long as the duration. It moves with that mean: windows that are to be equal need a set
//! target.

use super::quality::complexity;
use super::strategy::{Layout, Policy};
use super::window::{Frame, Reason};
use crate::timeline::Ns;

const MEMORY: f64 = 64.;

#[derive(Debug, Default)]
pub struct Adaptive {
    aligned: bool,
    /// 0: automatic.
    target: f64,
    duration: Ns,
    sum: f64,
    gop: f64,
    /// Seen in all, and in how many ns.
    total: f64,
    elapsed: f64,
    last: Option<Ns>,
    newest: f64,
}

impl Adaptive {
    pub fn new(target: f64, duration: Ns, aligned: bool) -> Self {
        Self { aligned, target, duration, ..Self::default() }
    }

    /// None as long as there is nothing to tell it from.
    fn target(&self) -> Option<f64> {
        if self.target > 0. {
            return Some(self.target);
        }
        let duration = self.duration.as_f64();
        (self.elapsed >= duration && self.total > 0.).then(|| self.total / self.elapsed * duration)
    }
}

impl Policy for Adaptive {
    fn layout(&self) -> Layout {
        Layout::Cuts { unit: Ns(1) }
    }

    fn cut(&mut self, frame: &Frame, start: Ns) -> Option<Reason> {
        if self.aligned && !frame.keyframe {
            return None;
        }
        let over = match self.target() {
            Some(target) => {
                let next = if self.aligned { self.gop } else { complexity(frame) };
                self.sum > 0. && self.sum + next / 2. >= target
            }
            None => frame.time - start >= self.duration,
        };
        over.then_some(Reason::Complexity)
    }

    fn see(&mut self, frame: &Frame) {
        let complexity = complexity(frame);
        self.sum += complexity;
        if frame.keyframe {
            self.gop = 0.;
        }
        self.gop += complexity;
        // The time of the newest frame has not passed yet.
        self.total += std::mem::replace(&mut self.newest, complexity);
        if let Some(last) = self.last {
            // A stretch without frames says nothing.
            self.elapsed += (frame.time - last).max(Ns::ZERO).min(self.duration.max(Ns::SECOND)).as_f64();
        }
        self.last = self.last.max(Some(frame.time));
        if self.elapsed > MEMORY * self.duration.as_f64().max(1e9) {
            self.total /= 2.;
            self.elapsed /= 2.;
        }
    }

    fn began(&mut self, _start: Ns) {
        self.sum = 0.;
    }

    fn restart(&mut self) {
        self.sum = 0.;
        self.gop = 0.;
        self.newest = 0.;
        self.last = None;
    }
}
