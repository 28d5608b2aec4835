//! What a strategy is asked. A new one is a file with a [`Policy`], a value of [`Strategy`], and a line in [`policy`].

use std::fmt::Debug;

use super::adaptive::Adaptive;
use super::config::{Config, Strategy};
use super::event::Event;
use super::fixed::{Fixed, Grid};
use super::keyframe::Keyframe;
use super::scene_cuts::SceneCuts;
use super::window::{Frame, Reason};
use crate::timeline::Ns;

/// How windows lie in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    Grid(Grid),
    /// Each ends where the next one begins, which the reference stream's frames say; ids are floor(start / unit).
    Cuts {
        unit: Ns,
    },
    Clips {
        pre_roll: Ns,
        post_roll: Ns,
    },
}

pub trait Policy: Debug + Send {
    fn layout(&self) -> Layout;

    /// Whether a window begins with this frame of the reference stream, which is presented after all before it, and
    /// why; the current one began at `start`. `min-duration`, `max-duration` and splits are seen to elsewhere.
    fn cut(&mut self, _frame: &Frame, _start: Ns) -> Option<Reason> {
        None
    }

    /// Each frame of the reference stream, after [`cut`](Self::cut) and [`began`](Self::began).
    fn see(&mut self, _frame: &Frame) {}

    /// A window began, whatever the reason.
    fn began(&mut self, _start: Ns) {}

    /// Time goes elsewhere.
    fn restart(&mut self) {}
}

/// Of a configuration that has been checked.
pub fn policy(config: &Config) -> Box<dyn Policy> {
    let aligned = config.align_to_keyframe;
    let unit = config.duration.max(Ns(1));
    match config.strategy {
        Strategy::Fixed if aligned => Box::new(Keyframe { unit, reason: Reason::Duration }),
        Strategy::Fixed => Box::new(Fixed(Grid { hop: unit, duration: unit })),
        Strategy::Sliding => Box::new(Fixed(Grid { hop: config.hop.max(Ns(1)), duration: unit })),
        Strategy::Keyframe => Box::new(Keyframe { unit, reason: Reason::Keyframe }),
        Strategy::Adaptive => Box::new(Adaptive::new(config.target_complexity, config.duration, aligned)),
        Strategy::Scene => Box::new(SceneCuts { aligned, owed: false }),
        Strategy::Event => Box::new(Event { pre_roll: config.pre_roll, post_roll: config.post_roll }),
    }
}
