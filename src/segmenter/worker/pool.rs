//! Who gets which window. A window goes to a worker that has nothing to do, in turn; while all of them are busy it waits, and the
//! first that is done takes the one that has waited longest.
//!
//! Nothing here blocks or pushes: the threads of [`super::Workers`] do, and ask here what comes next.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use gst::prelude::*;

use super::Worker;
use super::epoch::{Epoch, Item, State};
use super::gops::Gops;
use super::head::Stickies;
use crate::segmenter::line::Key;
use crate::timeline::Ns;
use crate::windowing::{Ids, WindowId};

type Flow = Result<gst::FlowSuccess, gst::FlowError>;

/// What may wait for one worker, and for a worker at all; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    pub bytes: u64,
    pub time: u64,
}

impl Limits {
    fn are_over(self, (bytes, time): (u64, gst::ClockTime)) -> bool {
        self.bytes > 0 && bytes > self.bytes || self.time > 0 && time.nseconds() > self.time
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its pad is not active, or it is being flushed.
    Flushing,
    Running,
    /// EOS went out.
    Ended,
}

/// What the task of a worker pushes when no window is there for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Idle {
    Nothing,
    /// Sinks that wait for their first data: there is none before this PTS.
    Gap(gst::ClockTime),
}

pub struct Branch {
    pub worker: Arc<Worker>,
    pub phase: Phase,
    pub flow: Flow,
    /// The task pushes something of a window.
    pub busy: bool,
    /// The task pushes.
    pub pushing: bool,
    pub thread: Option<std::thread::ThreadId>,
    idle: Idle,
    /// What the task pushes is shown.
    shows: bool,
    /// Something of its window that is shown was accepted.
    accepted: bool,
    /// Got the STREAM_START of what comes next.
    started: bool,
    /// Got sticky events.
    introduced: bool,
}

impl Branch {
    pub fn new(worker: Arc<Worker>) -> Self {
        Self {
            worker,
            phase: Phase::Flushing,
            flow: Ok(gst::FlowSuccess::Ok),
            busy: false,
            pushing: false,
            thread: None,
            idle: Idle::Nothing,
            shows: false,
            accepted: false,
            started: false,
            introduced: false,
        }
    }

    /// Takes windows.
    fn takes(&self) -> bool {
        self.phase == Phase::Running && self.flow.is_ok() && self.worker.pad.is_linked()
    }

    /// What it had got is gone.
    pub fn reset(&mut self) {
        self.flow = Ok(gst::FlowSuccess::Ok);
        self.idle = Idle::Nothing;
        self.started = false;
        self.introduced = false;
    }
}

/// What became of a window that begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    Queued,
    /// No worker had room.
    Dropped,
    /// There is no worker that takes anything.
    Nobody,
}

/// What is worth a word about a buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Noticed {
    /// A window begins with it and needs pictures before it that are not there.
    pub no_lead_in: bool,
    /// More than is kept of a GOP, for the first time.
    pub gop_too_large: bool,
}

/// What a task is to do.
pub enum Next {
    Push { events: Vec<gst::Event>, buffer: Option<gst::Buffer> },
    Wait,
    Pause,
}

#[derive(Default)]
pub struct Pool {
    pub limits: Limits,
    /// A window is left out rather than waited for.
    pub drops: bool,
    pub flushing: bool,
    pub ended: bool,
    /// Whose windows they are.
    pub stream: Option<Key>,
    pub branches: BTreeMap<u32, Branch>,
    pub stickies: Stickies,
    pub gops: Gops,
    /// In the order in which they began.
    epochs: VecDeque<Epoch>,
    /// The worker that was chosen last.
    last: Option<u32>,
    /// Windows of which something did not arrive.
    lost: Vec<WindowId>,
}

impl Pool {
    fn epoch_of(&mut self, index: u32) -> Option<&mut Epoch> {
        self.epochs.iter_mut().find(|epoch| epoch.owner == Some(index))
    }

    fn has_epoch(&self, index: u32) -> bool {
        self.epochs.iter().any(|epoch| epoch.owner == Some(index))
    }

    fn is_free(&self, index: u32, branch: &Branch) -> bool {
        branch.takes() && !branch.busy && !self.has_epoch(index)
    }

    /// The next free worker after the one that was last.
    fn next_free(&self) -> Option<u32> {
        let free = |&(&index, branch): &(&u32, &Branch)| self.is_free(index, branch);
        let after = self.last.map_or(0, |last| last.wrapping_add(1));
        let mut turn = self.branches.range(after..).chain(self.branches.range(..after));
        turn.find(free).map(|(index, _)| *index)
    }

    /// A window begins.
    /// Running times; the end if it is known ahead.
    pub fn begin(&mut self, id: WindowId, start: Ns, end: Option<Ns>, event: gst::Event) -> Begun {
        if !self.branches.values().any(Branch::takes) {
            return Begun::Nobody;
        }
        let waits = self.epochs.iter().any(|epoch| epoch.owner.is_none());
        // Those that wait come first.
        let chosen = if waits { None } else { self.next_free() };
        if self.drops && waits {
            return Begun::Dropped;
        }
        let at = self.stickies.head(Some(start), None).start;
        let mut epoch = Epoch::new(id, start, end, event);
        epoch.owner = chosen;
        self.epochs.push_back(epoch);
        self.last = chosen.or(self.last);
        for (index, branch) in &mut self.branches {
            if Some(*index) != chosen
                && let Some(at) = at
            {
                branch.idle = Idle::Gap(at);
            }
            branch.worker.item.notify_all();
        }
        Begun::Queued
    }

    /// A buffer of these windows.
    pub fn buffer(&mut self, buffer: &gst::Buffer, ids: Ids) -> Noticed {
        let picture = self.gops.look(buffer);
        let mut noticed = Noticed::default();
        for epoch in &mut self.epochs {
            let waited = epoch.is_empty();
            noticed.no_lead_in |= !epoch.picture(&picture, ids.contains(epoch.id), &self.gops, &self.stickies);
            if waited && let Some(branch) = epoch.owner.and_then(|owner| self.branches.get(&owner)) {
                branch.worker.item.notify_all();
            }
        }
        if self.drops {
            self.cut();
        }
        noticed.gop_too_large = self.gops.add(picture);
        noticed
    }

    pub fn event(&mut self, event: &gst::Event) {
        self.stickies.keep(event);
        match event.view() {
            gst::EventView::Eos(_) => self.ended = true,
            gst::EventView::StreamStart(_) => {
                self.ended = false;
                self.gops.clear();
                for branch in self.branches.values_mut() {
                    branch.started = false;
                    if branch.phase == Phase::Ended {
                        branch.phase = Phase::Running;
                    }
                }
            }
            _ => self.epochs.iter_mut().for_each(|epoch| epoch.event(event)),
        }
        self.wake();
    }

    /// The window ends.
    pub fn end(&mut self, id: WindowId, event: gst::Event) {
        if let Some(epoch) = self.epochs.iter_mut().find(|epoch| epoch.id == id && epoch.state != State::Ended) {
            epoch.end(event);
        }
        self.epochs.retain(|epoch| epoch.state != State::Ended || epoch.has_begun());
        self.wake();
    }

    pub fn wake(&self) {
        self.branches.values().for_each(|branch| branch.worker.item.notify_all());
    }

    /// There is no room: windows that no worker has are left out as a whole, those that one has end early.
    fn cut(&mut self) {
        let limits = self.limits;
        let lost = &mut self.lost;
        self.epochs.retain_mut(|epoch| {
            if epoch.state != State::Open || !limits.are_over(epoch.level()) {
                return true;
            }
            lost.push(epoch.id);
            epoch.cut();
            epoch.owner.is_some()
        });
    }

    /// Whether upstream has to wait: a limit is passed, nobody could go on if more came, and somebody gets through what is there.
    pub fn is_full(&self) -> bool {
        if self.drops {
            return false;
        }
        let waiting = self.epochs.iter().filter(|epoch| epoch.owner.is_none()).map(Epoch::level);
        let waiting = waiting.fold((0, gst::ClockTime::ZERO), |sum, level| (sum.0 + level.0, sum.1 + level.1));
        let owned = self.epochs.iter().filter(|epoch| epoch.owner.is_some());
        if !self.limits.are_over(waiting) && !owned.clone().any(|epoch| self.limits.are_over(epoch.level())) {
            return false;
        }
        let (mut starves, mut goes_on) = (false, false);
        for epoch in owned {
            let busy = epoch.owner.and_then(|owner| self.branches.get(&owner)).is_some_and(|branch| branch.busy);
            let idle = epoch.is_empty() && !busy;
            starves |= idle && epoch.state == State::Open;
            goes_on |= !idle;
        }
        goes_on && !starves
    }

    /// What the task of this worker does next.
    pub fn next(&mut self, index: u32) -> Next {
        let Some(branch) = self.branches.get(&index) else { return Next::Pause };
        match branch.phase {
            Phase::Running if branch.flow.is_ok() => {}
            // Another stream may follow.
            Phase::Ended => return Next::Wait,
            Phase::Running | Phase::Flushing => return Next::Pause,
        }
        if !self.has_epoch(index) && branch.takes() {
            let waiting = self.epochs.iter_mut().find(|epoch| epoch.owner.is_none());
            if let Some(epoch) = waiting {
                epoch.owner = Some(index);
                self.last = Some(index);
            }
        }
        let item = self.epoch_of(index).map(|epoch| (epoch.pop(), epoch.state));
        let Some(branch) = self.branches.get_mut(&index) else { return Next::Pause };
        let name = branch.worker.pad.name();
        let (events, buffer) = match item {
            Some((Some(item), _)) => {
                branch.busy = true;
                branch.idle = Idle::Nothing;
                match item {
                    Item::Head(head) => {
                        (branch.introduced, branch.accepted) = (true, false);
                        (head.events(&name, std::mem::take(&mut branch.started)), None)
                    }
                    Item::Event(event) => (vec![event], None),
                    Item::Buffer(buffer) => {
                        branch.shows = !buffer.flags().contains(gst::BufferFlags::DECODE_ONLY);
                        (Vec::new(), Some(buffer))
                    }
                    Item::Tail { end, head, until } => {
                        // Decoders give what they hold when a stream begins, parsers let events go with a GAP.
                        let start = head.stream_start(&name);
                        branch.started = start.is_some();
                        let gap = until.map(|until| gst::event::Gap::builder(until).build());
                        let over = self.epochs.iter().position(|epoch| epoch.owner == Some(index));
                        over.and_then(|at| self.epochs.remove(at));
                        ([Some(end), start, gap].into_iter().flatten().collect(), None)
                    }
                }
            }
            Some((None, _)) => return Next::Wait,
            None if self.ended => {
                branch.phase = Phase::Ended;
                let mut events = self.introduce(index);
                events.push(gst::event::Eos::new());
                (events, None)
            }
            None => {
                let Idle::Gap(at) = std::mem::replace(&mut branch.idle, Idle::Nothing) else { return Next::Wait };
                let mut events = self.introduce(index);
                events.push(gst::event::Gap::builder(at).build());
                (events, None)
            }
        };
        if let Some(branch) = self.branches.get_mut(&index) {
            branch.pushing = true;
            branch.thread = Some(std::thread::current().id());
        }
        Next::Push { events, buffer }
    }

    /// Sticky events for a worker that has had none.
    fn introduce(&mut self, index: u32) -> Vec<gst::Event> {
        let head = self.stickies.head(None, None);
        let Some(branch) = self.branches.get_mut(&index) else { return Vec::new() };
        if std::mem::replace(&mut branch.introduced, true) {
            return Vec::new();
        }
        let events = head.events(&branch.worker.pad.name(), branch.started);
        branch.started = true;
        events
    }

    /// What was taken last has been pushed. Gives what is worth a warning.
    pub fn pushed(&mut self, index: u32, flow: Flow) -> Option<gst::FlowError> {
        let branch = self.branches.get_mut(&index)?;
        branch.busy = false;
        branch.pushing = false;
        let shown = std::mem::take(&mut branch.shows) && flow.is_ok();
        branch.accepted |= shown;
        let err = flow.err()?;
        if branch.phase == Phase::Flushing {
            return None;
        }
        let accepted = branch.accepted;
        if err == gst::FlowError::Eos && accepted && self.epoch_of(index).is_some_and(Epoch::sate) {
            return None;
        }
        let branch = self.branches.get_mut(&index)?;
        branch.flow = Err(err);
        branch.started = false;
        branch.introduced = false;
        self.give_up(index);
        Some(err)
    }

    /// The worker takes nothing any more: its window is not complete, and nobody else has its beginning.
    pub fn give_up(&mut self, index: u32) {
        let lost = &mut self.lost;
        self.epochs.retain(|epoch| {
            let gone = epoch.owner == Some(index);
            if gone {
                lost.push(epoch.id);
            }
            !gone
        });
        if !self.branches.values().any(Branch::takes) {
            self.lost.extend(self.epochs.drain(..).map(|epoch| epoch.id));
        }
    }

    /// Windows of which workers did not get all since the last time.
    pub fn take_lost(&mut self) -> Vec<WindowId> {
        std::mem::take(&mut self.lost)
    }

    /// After a flush, or when everything stops.
    pub fn clear(&mut self) {
        self.epochs.clear();
        self.lost.clear();
        self.gops.clear();
        self.ended = false;
    }

    /// What upstream is told, of all workers; none when there is none.
    pub fn flow(&self) -> Option<Flow> {
        if self.branches.is_empty() {
            return None;
        }
        if self.flushing {
            return Some(Err(gst::FlowError::Flushing));
        }
        let flows = self.branches.values().map(|branch| match branch.flow {
            Ok(_) if !branch.worker.pad.is_linked() => Err(gst::FlowError::NotLinked),
            flow => flow,
        });
        flows.reduce(|one, other| if severity(other) > severity(one) { other } else { one })
    }
}

/// What of several answers counts: one that goes on, else the worst.
fn severity(flow: Flow) -> u8 {
    match flow {
        Ok(_) => 5,
        Err(gst::FlowError::Flushing) => 3,
        Err(gst::FlowError::Eos) => 2,
        Err(gst::FlowError::NotLinked) => 1,
        Err(_) => 4,
    }
}
