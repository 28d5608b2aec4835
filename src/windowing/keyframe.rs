//! Windows that begin at keyframes of the reference stream: at each, or at the first one at or after each multiple of a
//! duration.
//!
//! A keyframe at t begins a window when floor(t / unit) is not that of the window before; this is the id as well. From
//! any keyframe on, wherever a run begins, frames get the same ids. Frames before the first keyframe get a window of
//! their own.

use super::strategy::{Layout, Policy};
use super::window::{Frame, Reason};
use crate::timeline::Ns;

#[derive(Debug)]
pub struct Keyframe {
    /// 1 ns: each keyframe.
    pub unit: Ns,
    pub reason: Reason,
}

impl Policy for Keyframe {
    fn layout(&self) -> Layout {
        Layout::Cuts { unit: self.unit }
    }

    fn cut(&mut self, frame: &Frame, _start: Ns) -> Option<Reason> {
        // Whether the id is another one is asked of all cuts alike.
        frame.keyframe.then_some(self.reason)
    }
}
