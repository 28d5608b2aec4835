//! Windows that are open, and what each stream has in them.

use std::sync::Arc;

use super::quality::Tally;
use super::window::{Figures, Reason, StreamId, Window, WindowId};
use crate::timeline::Ns;

#[derive(Debug, Clone, Copy, Default)]
pub struct Share {
    pub tally: Tally,
    /// Its first frame has come.
    pub begun: bool,
    /// Nothing that is missing was given up on.
    pub whole: bool,
    /// None: frames may still come.
    pub sealed: Option<Sealed>,
}

#[derive(Debug, Clone, Copy)]
pub struct Sealed {
    pub figures: Figures,
    pub complete: bool,
    /// The stream should have had something here.
    pub there: bool,
}

#[derive(Debug)]
pub struct Open {
    pub window: Window,
    /// Why it ends at `window.end`.
    pub reason: Option<Reason>,
    /// A stream has come to the end.
    pub reached: bool,
    /// Why it is closed before.
    pub forced: Option<Reason>,
    /// By the index of [`StreamId`].
    pub shares: Vec<Share>,
    /// Empty: all.
    pub only: Vec<StreamId>,
}

impl Open {
    pub fn new(id: WindowId, start: Ns, end: Option<(Ns, Reason)>, shares: Vec<Share>) -> Self {
        Self {
            window: Window { id, start, end: end.map(|end| end.0), name: None, triggers: 0 },
            reason: end.map(|end| end.1),
            reached: false,
            forced: None,
            shares,
            only: Vec::new(),
        }
    }

    pub fn triggered(mut self, name: Option<Arc<str>>, triggers: u32, only: Vec<StreamId>) -> Self {
        self.window.name = name;
        self.window.triggers = triggers;
        self.only = only;
        self
    }

    pub fn has(&self, slot: usize) -> bool {
        self.only.is_empty() || self.only.iter().any(|stream| stream.index() == slot)
    }

    /// Part of it has been told, so it begins where it does.
    pub fn begun(&self) -> bool {
        self.shares.iter().any(|share| share.begun || share.sealed.is_some())
    }
}
