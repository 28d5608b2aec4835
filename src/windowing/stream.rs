//! What is kept of one stream: how far it has come, and its frames that cannot be decided yet.

use std::collections::VecDeque;

use super::quality::Cadence;
use super::reorder::Reorder;
use super::window::{Expected, Frame, Totals};
use crate::timeline::Ns;

/// Stretches without frames remembered until the windows that they touch are final.
const GAPS: usize = 1024;

#[derive(Debug, Clone)]
pub enum Item {
    /// Its position is that of the stream after it: it never goes back.
    Frame {
        frame: Frame,
        serial: u64,
    },
    /// The stream has come here without a frame.
    Mark(Ns),
    End,
}

/// A place where the ring may begin.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    pub serial: u64,
    pub time: Ns,
}

#[derive(Debug, Default)]
pub struct Stream {
    pub used: bool,
    pub serial: u64,
    pub expected: Expected,
    pub reordered: bool,
    pub reorder: Reorder,
    pub cadence: Cadence,
    /// Where it is, and where what has been decided of it is. None: nothing yet.
    pub arrived: Option<Ns>,
    pub decided: Option<Ns>,
    /// Its shares of windows that end here or before are final.
    pub floor: Option<Ns>,
    /// Of the open windows, its shares of the first so many are final.
    pub finals: usize,
    /// Presentation: first, newest, end of the last.
    pub begin: Option<Ns>,
    pub latest: Option<Ns>,
    pub last_end: Option<Ns>,
    /// EOS has come; and it has been its turn.
    pub eos: bool,
    pub ended: bool,
    pub pending: VecDeque<Item>,
    /// Frames in `pending`, and what they take.
    pub held: usize,
    pub bytes: u64,
    pub keys: VecDeque<Key>,
    /// Newest frame that left outside of windows, for those that refer to it.
    pub lent: Option<Ns>,
    /// Late frames that no window was open for.
    pub late: u32,
    pub totals: Totals,
    pub gaps: VecDeque<(Ns, Ns)>,
}

impl Stream {
    /// Takes note of a frame; returns where the stream is now.
    pub fn arrive(&mut self, frame: &Frame) -> Ns {
        let position = match frame.position {
            // A stamp before its own decoding says nothing of what follows.
            Some(position) => Some(position.min(frame.time)),
            None if self.reordered => self.reorder.push(frame.time),
            None => Some(frame.time),
        };
        self.arrived = self.arrived.max(position);
        self.latest = self.latest.max(Some(frame.time));
        // Nothing can be told before the first positions: as if it had not moved.
        self.arrived.unwrap_or(Ns::MIN)
    }

    /// Takes note of a frame that is being decided.
    pub fn take(&mut self, frame: &Frame, position: Ns) {
        if position > Ns::MIN {
            self.cadence.push(position);
        }
        self.begin = Some(self.begin.map_or(frame.time, |begin| begin.min(frame.time)));
        let duration = frame.duration.unwrap_or_default().max(Ns::ZERO);
        self.last_end = self.last_end.max(Some(frame.time + duration));
        if frame.gap && duration > Ns::ZERO {
            self.gap(frame.time, frame.time + duration);
        }
    }

    pub fn gap(&mut self, start: Ns, end: Ns) {
        if let Some(last) = self.gaps.back_mut()
            && start >= last.0
            && start <= last.1
        {
            last.1 = last.1.max(end);
        } else if self.gaps.len() < GAPS {
            self.gaps.push_back((start, end));
        }
    }

    /// Time without frames, as announced, in [start, end).
    pub fn gap_in(&self, start: Ns, end: Ns) -> Ns {
        self.gaps
            .iter()
            .map(|gap| (gap.1.min(end) - gap.0.max(start)).max(Ns::ZERO))
            .fold(Ns::ZERO, |sum, gap| sum + gap)
    }

    /// No window that ends at or before `floor` is asked for any more; `longest` windows reach back that far.
    pub fn forget_gaps(&mut self, before: Ns) {
        while self.gaps.front().is_some_and(|gap| gap.1 <= before) {
            self.gaps.pop_front();
        }
    }

    pub fn hold(&mut self, item: Item) {
        if let Item::Frame { frame, .. } = &item {
            self.held += 1;
            self.bytes += cost(frame);
        }
        self.pending.push_back(item);
    }

    pub fn release(&mut self) -> Option<Item> {
        let item = self.pending.pop_front()?;
        if let Item::Frame { frame, .. } = &item {
            self.held -= 1;
            self.bytes -= cost(frame);
        }
        Some(item)
    }

    /// What is held is gone; returns how many frames.
    pub fn drop_held(&mut self) -> usize {
        self.pending.clear();
        self.keys.clear();
        self.bytes = 0;
        std::mem::take(&mut self.held)
    }

    /// What was before makes nothing after late.
    pub fn restart(&mut self) {
        self.reorder.restart();
        self.cadence.restart();
        self.arrived = None;
        self.decided = None;
        self.floor = None;
        self.begin = None;
        self.latest = None;
        self.last_end = None;
        self.eos = false;
        self.ended = false;
        self.gaps.clear();
        self.lent = None;
    }
}

/// A frame without bytes takes room as well.
fn cost(frame: &Frame) -> u64 {
    (frame.size as u64).max(128)
}
