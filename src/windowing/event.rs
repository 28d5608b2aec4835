//! Windows around triggers; see [`ring`](super::ring) for what is kept for them.

use super::strategy::{Layout, Policy};
use crate::timeline::Ns;

#[derive(Debug)]
pub struct Event {
    pub pre_roll: Ns,
    pub post_roll: Ns,
}

impl Policy for Event {
    fn layout(&self) -> Layout {
        Layout::Clips { pre_roll: self.pre_roll, post_roll: self.post_roll }
    }
}
