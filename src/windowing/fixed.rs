//! Windows on a grid: fixed (hop = duration) and sliding, overlapping or with gaps between. Window k is [k x hop, k x
//! hop + duration). No frame is needed to know them.

use super::strategy::{Layout, Policy};
use super::window::{Ids, WindowId};
use crate::timeline::Ns;

/// Both above 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    pub hop: Ns,
    pub duration: Ns,
}

impl Grid {
    /// k x hop <= time < k x hop + duration.
    pub fn at(&self, time: Ns) -> Ids {
        let last = time.0.div_euclid(self.hop.0);
        Ids::between((time - self.duration).0.div_euclid(self.hop.0) + 1, last)
    }

    pub fn start(&self, id: WindowId) -> Ns {
        Ns(id.saturating_mul(self.hop.0))
    }

    pub fn end(&self, id: WindowId) -> Ns {
        self.start(id) + self.duration
    }

    /// The last window that ends at or before `time`.
    pub fn ended_by(&self, time: Ns) -> WindowId {
        (time - self.duration).0.div_euclid(self.hop.0)
    }

    /// Of the first window that starts after `time`.
    pub fn next(&self, time: Ns) -> Ns {
        self.start(time.0.div_euclid(self.hop.0) + 1)
    }
}

#[derive(Debug)]
pub struct Fixed(pub Grid);

impl Policy for Fixed {
    fn layout(&self) -> Layout {
        Layout::Grid(self.0)
    }
}
