//! Windows that begin at hard cuts of the reference stream, at the next keyframe after them if aligned. Who finds the
//! cuts: [`scene`](super::scene).

use super::strategy::{Layout, Policy};
use super::window::{Frame, Reason};
use crate::timeline::Ns;

#[derive(Debug)]
pub struct SceneCuts {
    pub aligned: bool,
    /// A scene has begun; its window waits for a keyframe.
    pub owed: bool,
}

impl Policy for SceneCuts {
    fn layout(&self) -> Layout {
        Layout::Cuts { unit: Ns(1) }
    }

    fn cut(&mut self, frame: &Frame, _start: Ns) -> Option<Reason> {
        self.owed |= self.aligned && frame.cut;
        (if self.aligned { self.owed && frame.keyframe } else { frame.cut }).then_some(Reason::Scene)
    }

    fn began(&mut self, _start: Ns) {
        self.owed = false;
    }
}
