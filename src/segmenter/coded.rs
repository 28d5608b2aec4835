//! Encoded video for strategy=scene: frames wait until it is known, from the sizes of those after them, whether a hard
//! cut begins with them.
//!
//! With B-frames a cut may lie among frames that are decoded after the first one behind it, which tells it: the window
//! begins at the cut, and they are in it or not by their PTS.

use std::collections::VecDeque;

use super::frames::Seen;
use crate::timeline::Ns;
use crate::windowing::scene::encoded::{EncodedDetector, Unit};

#[derive(Default)]
pub struct Coded {
    detector: EncodedDetector,
    /// In decode order.
    waiting: VecDeque<Seen>,
}

impl Coded {
    /// The first frame of which all is known by now.
    pub fn score(&mut self, seen: Seen) -> Option<Seen> {
        self.waiting.push_back(seen);
        let pts = place(&seen);
        let unit = Unit { pts, bytes: seen.size as u64, keyframe: seen.keyframe };
        let cut = self.detector.push(unit);
        self.mark(cut);
        self.settled()
    }

    fn mark(&mut self, cut: Option<u64>) {
        let Some(cut) = cut else { return };
        let begins = |seen: &&mut Seen| place(seen) >= cut;
        if let Some(seen) = self.waiting.iter_mut().find(begins) {
            seen.scored.cut = true;
            seen.scored.cut_at = Some(Ns::from(cut));
        }
    }

    /// The next one that nothing later can change.
    pub fn settled(&mut self) -> Option<Seen> {
        let known = self.detector.known()?;
        let settled = self.waiting.front().is_some_and(|seen| place(seen) <= known);
        if settled { self.waiting.pop_front() } else { None }
    }

    /// The next one, with what is known: nothing follows.
    pub fn finish(&mut self) -> Option<Seen> {
        while let Some(cut) = self.detector.drain() {
            self.mark(Some(cut));
        }
        self.waiting.pop_front()
    }
}

fn place(seen: &Seen) -> u64 {
    seen.stamp.0.max(0).unsigned_abs()
}
