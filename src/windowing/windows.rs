//! Which windows frames are in, and when windows are over: the caller's side. Deciding is in
//! [`deciding`](super::deciding), ends are in [`closing`](super::closing), event mode is in [`ring`](super::ring).
//!
//! - A frame is decided once, in the order of arrival on its stream, and is in exactly the windows that its time says,
//!   except those whose share on its stream is final: for these it is late.
//! - A share is final when the stream's position (decode time) has reached the window's end + lateness; a window closes
//!   when all its shares are final. Windows close once, in the order of their ids, between two flushes or restarts;
//!   nothing changes after.
//! - Live, the streams that lag are waited for until the one that leads has passed the end by the lateness (automatic:
//!   1 s). Not live they are waited for, with at most [`MOST_OPEN`] open windows.
//! - What a call costs depends on the windows that it opens or closes, never on the time that has passed. A frame that
//!   does neither allocates nothing.

use std::collections::VecDeque;

use super::config::{Config, ConfigError};
use super::cuts::Cuts;
use super::fixed::Grid;
use super::share::{Open, Share};
use super::strategy::{self, Layout, Policy};
use super::stream::{Item, Stream};
use super::window::{Decision, Expected, Frame, Reason, Split, StreamId, Trigger, Window, WindowId};
use crate::timeline::Ns;

/// Beyond, the oldest is closed, whoever lags.
pub const MOST_OPEN: usize = 1024;
/// Times are within this of 0 (146 years), so that differences of two do not overflow.
const FARTHEST: i64 = (1 << 62) - 1;

#[derive(Debug)]
pub(super) enum Plan {
    Grid(Grid),
    Cuts(Cuts),
    Clips { pre_roll: Ns, post_roll: Ns },
}

#[derive(Debug)]
pub struct Windows {
    pub(super) config: Config,
    pub(super) policy: Box<dyn Policy>,
    pub(super) plan: Plan,
    pub(super) live: bool,
    pub(super) reference: Option<usize>,
    pub(super) streams: Vec<Stream>,
    /// In the order of ids, which is that of starts and of ends.
    pub(super) open: VecDeque<Open>,
    /// Memory of closed windows, used again.
    pub(super) spare: Vec<Vec<Share>>,
    /// Position of the stream that leads.
    pub(super) lead: Option<Ns>,
    /// End of the last closed window.
    pub(super) closed: Option<Ns>,
    /// A share has become final since the last look at what can be closed.
    pub(super) sealed: bool,
}

pub(super) fn within(time: Ns) -> Ns {
    Ns(time.0.clamp(-FARTHEST, FARTHEST))
}

impl Windows {
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        config.check()?;
        let policy = strategy::policy(config);
        let plan = match policy.layout() {
            Layout::Grid(grid) => Plan::Grid(grid),
            Layout::Cuts { unit } => Plan::Cuts(Cuts::new(unit, config.min_duration, config.max_duration)),
            Layout::Clips { pre_roll, post_roll } => Plan::Clips { pre_roll, post_roll },
        };
        Ok(Self {
            config: config.clone(),
            policy,
            plan,
            live: false,
            reference: None,
            streams: Vec::new(),
            open: VecDeque::new(),
            spare: Vec::new(),
            lead: None,
            closed: None,
            sealed: false,
        })
    }

    /// The first one is the reference stream until [`set_reference`](Self::set_reference) says otherwise.
    pub fn add_stream(&mut self) -> StreamId {
        let free = self.streams.iter().position(|stream| !stream.used).filter(|_| self.open.is_empty());
        let slot = free.unwrap_or_else(|| {
            self.streams.push(Stream::default());
            self.streams.len() - 1
        });
        let serial = self.streams[slot].serial;
        self.streams[slot] = Stream { used: true, serial, floor: self.closed, ..Stream::default() };
        for open in &mut self.open {
            open.shares.resize(slot + 1, Share { whole: true, ..Share::default() });
        }
        self.reference = self.reference.or(Some(slot));
        StreamId(slot as u32)
    }

    /// As if it had ended; it is waited for no longer. Its undecided frames are gone without a decision.
    pub fn remove_stream(&mut self, stream: StreamId, out: &mut Vec<Decision>) {
        let Some(slot) = self.slot(stream) else { return };
        self.streams[slot].drop_held();
        if !self.streams[slot].ended {
            self.end_stream(slot, out);
        }
        self.streams[slot].used = false;
        self.find_lead();
        if self.reference == Some(slot) {
            self.reference = self.streams.iter().position(|stream| stream.used);
            if matches!(self.plan, Plan::Cuts(_)) {
                self.restart_all(None, Reason::Segment, out);
            }
        }
        self.sealed = true;
        self.close(out);
    }

    /// When it changes while windows are open whose ends it tells, these are closed with [`Reason::Segment`].
    pub fn set_reference(&mut self, stream: StreamId, out: &mut Vec<Decision>) {
        let Some(slot) = self.slot(stream) else { return };
        let changed = self.reference.replace(slot) != Some(slot);
        if changed && matches!(&self.plan, Plan::Cuts(cuts) if cuts.known() > Ns::MIN) {
            self.restart_all(None, Reason::Segment, out);
        }
    }

    pub fn set_expected(&mut self, stream: StreamId, expected: Expected) {
        if let Some(slot) = self.slot(stream) {
            self.streams[slot].expected = expected;
        }
    }

    /// Whether frames without decode times may come out of presentation order (B-frames).
    pub fn set_reordered(&mut self, stream: StreamId, reordered: bool) {
        if let Some(slot) = self.slot(stream) {
            self.streams[slot].reordered = reordered;
        }
    }

    pub fn set_live(&mut self, live: bool) {
        self.live = live;
    }

    /// Returns the frame's serial: 0, 1, 2 ... on each stream, not reset by anything. After EOS it begins anew, as
    /// after [`restart`](Self::restart).
    pub fn push(&mut self, mut frame: Frame, out: &mut Vec<Decision>) -> u64 {
        let Some(slot) = self.slot(frame.stream) else { return 0 };
        if self.streams[slot].eos {
            self.restart(frame.stream, Reason::Segment, out);
        }
        frame.time = within(frame.time);
        frame.position = frame.position.map(within);
        let stream = &mut self.streams[slot];
        let position = stream.arrive(&frame);
        frame.position = Some(position);
        let serial = stream.serial;
        stream.serial += 1;
        self.lead = self.lead.max(stream.arrived);
        if self.reference == Some(slot)
            && let Plan::Cuts(cuts) = &mut self.plan
        {
            cuts.reference(&frame, &mut *self.policy);
            self.learn_end();
        }
        if let Plan::Clips { .. } = self.plan {
            self.ring_push(slot, frame, serial, out);
        } else if self.streams[slot].pending.is_empty() && self.is_known(frame.time) {
            self.decide(slot, frame, serial, out);
        } else {
            self.streams[slot].hold(Item::Frame { frame, serial });
        }
        self.go_on(out);
        serial
    }

    /// Nothing comes between `time` and `time + duration`, which may be 0: the stream has come here.
    pub fn gap(&mut self, stream: StreamId, time: Ns, duration: Ns, out: &mut Vec<Decision>) {
        let Some(slot) = self.slot(stream) else { return };
        let (start, end) = (within(time), within(within(time) + duration));
        if self.streams[slot].eos || end < start {
            return;
        }
        let stream = &mut self.streams[slot];
        stream.arrived = stream.arrived.max(Some(end));
        if end > start {
            stream.gap(start, end);
        }
        let position = stream.arrived.unwrap_or(end);
        self.lead = self.lead.max(Some(position));
        if self.reference == Some(slot)
            && let Plan::Cuts(cuts) = &mut self.plan
        {
            // The next frame may be rounded to a little before the end.
            cuts.know((end - Ns::from_millis(1)).max(start));
            self.learn_end();
        }
        self.hold_or_do(slot, Item::Mark(position), out);
        self.go_on(out);
    }

    pub fn eos(&mut self, stream: StreamId, out: &mut Vec<Decision>) {
        let Some(slot) = self.slot(stream) else { return };
        if std::mem::replace(&mut self.streams[slot].eos, true) {
            return;
        }
        self.find_lead();
        let all = self.streams.iter().all(|stream| !stream.used || stream.eos);
        if (all || self.reference == Some(slot))
            && let Plan::Cuts(cuts) = &mut self.plan
        {
            cuts.know(Ns::MAX);
            self.learn_end();
        }
        self.hold_or_do(slot, Item::End, out);
        self.go_on(out);
    }

    /// Undecided frames are gone without a decision; what was before makes nothing after late. Of the reference stream:
    /// all open windows close; of another one: its shares of them, and windows that only it was in.
    pub fn flush(&mut self, stream: StreamId, out: &mut Vec<Decision>) {
        let Some(slot) = self.slot(stream) else { return };
        let gone = self.streams[slot].drop_held();
        self.streams[slot].totals.dropped += gone as u64;
        self.restart(stream, Reason::Flush, out);
    }

    /// As [`flush`](Self::flush), but undecided frames are decided by what is known.
    pub fn restart(&mut self, stream: StreamId, reason: Reason, out: &mut Vec<Decision>) {
        let Some(slot) = self.slot(stream) else { return };
        if self.reference == Some(slot) {
            self.restart_all(Some(slot), reason, out);
        } else {
            self.give_up_waiting(stream, None, out);
            self.restart_one(slot, reason, out);
        }
        self.close(out);
    }

    /// Ends the current window. False if there is none that could end there: on a grid ends are arithmetic.
    pub fn split(&mut self, split: Split, out: &mut Vec<Decision>) -> bool {
        let split = match split {
            Split::At(time) => Split::At(within(time)),
            split => split,
        };
        match &mut self.plan {
            Plan::Grid(_) => false,
            Plan::Cuts(cuts) => cuts.split(split),
            Plan::Clips { .. } => self.ring_split(split, out),
        }
    }

    /// The window that will hold it; None outside of event mode, or when all of it has been decided. As long as nothing
    /// of it is out, an earlier trigger may still move its start, and thereby its id.
    pub fn trigger(&mut self, trigger: Trigger, out: &mut Vec<Decision>) -> Option<WindowId> {
        let id = self.ring_trigger(trigger, out);
        self.go_on(out);
        id
    }

    /// Undecided frames of the stream up to `until` (None: all) are decided by what is known. A cut of the reference
    /// stream before these comes to stand after them. In event mode nothing waits for another stream: no effect.
    pub fn give_up_waiting(&mut self, stream: StreamId, until: Option<Ns>, out: &mut Vec<Decision>) {
        let Some(slot) = self.slot(stream) else { return };
        let stream = &self.streams[slot];
        let held = stream.pending.iter().filter_map(|item| match item {
            Item::Frame { frame, .. } => Some(frame.time),
            Item::Mark(_) | Item::End => None,
        });
        let until = until.map(within);
        let Some(last) = held.filter(|&time| until.is_none_or(|until| time <= until)).max() else { return };
        if let Plan::Cuts(cuts) = &mut self.plan {
            cuts.know(last + Ns(1));
            self.learn_end();
            self.go_on(out);
        }
    }

    /// Latest presentation time on the stream.
    pub fn latest(&self, stream: StreamId) -> Option<Ns> {
        self.streams[self.slot(stream)?].latest
    }

    /// The first window start after `time` that is known ahead: to ask for a keyframe there.
    pub fn next_start(&self, time: Ns) -> Option<Ns> {
        let time = within(time);
        match &self.plan {
            Plan::Grid(grid) => Some(grid.next(time)),
            Plan::Cuts(cuts) => cuts.next(time),
            Plan::Clips { .. } => None,
        }
    }

    /// Frames of the stream that wait for a decision, and their bytes (at least 128 each).
    #[cfg(test)]
    pub fn undecided(&self, stream: StreamId) -> (usize, u64) {
        self.slot(stream).map_or((0, 0), |slot| (self.streams[slot].held, self.streams[slot].bytes))
    }

    /// Those that are not closed yet, in the order of ids.
    pub fn open(&self) -> impl Iterator<Item = &Window> {
        self.open.iter().map(|open| &open.window)
    }

    #[cfg(test)]
    pub fn totals(&self, stream: StreamId) -> super::window::Totals {
        self.slot(stream).map_or_else(super::window::Totals::default, |slot| self.streams[slot].totals)
    }

    pub(super) fn slot(&self, stream: StreamId) -> Option<usize> {
        self.streams.get(stream.index()).filter(|stream| stream.used).map(|_| stream.index())
    }

    fn hold_or_do(&mut self, slot: usize, item: Item, out: &mut Vec<Decision>) {
        if let Plan::Clips { .. } = self.plan {
            // What it says has been noted, and nothing waits for its turn.
        } else if self.streams[slot].pending.is_empty() {
            self.pass(slot, item, out);
        } else {
            self.streams[slot].hold(item);
        }
    }
}
