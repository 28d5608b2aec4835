//! One stream between its pads: what waits until it is known which windows it belongs to (`pending`, in order of
//! arrival), and what can leave (`ready`, with starts and ends of windows in their places). Nothing overtakes.
//!
//! The line of `sink` is emptied by the thread that fills it; others have a task and bounds.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::ThreadId;

use super::frames::{Look, Seen};
use super::mapping::Clockwork;
use super::tell::{Ending, Opening};
use crate::timeline::Ns;
use crate::windowing::{Expected, Ids, StreamId};

/// Which stream of the element; `sink` goes first as the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Main,
    Further(u32),
}

impl Key {
    pub fn sink_name(self) -> String {
        match self {
            Key::Main => "sink".into(),
            Key::Further(index) => format!("sink_{index}"),
        }
    }

    pub fn src_name(self) -> String {
        match self {
            Key::Main => "src".into(),
            Key::Further(index) => format!("src_{index}"),
        }
    }
}

/// The two pads of a stream, and what their threads wait for.
pub struct Port {
    pub key: Key,
    /// Of the sink pad.
    pub name: String,
    pub sink: gst::Pad,
    pub src: gst::Pad,
    /// What its thread upstream knows of it.
    pub look: Mutex<Look>,
    /// The task has something to do.
    pub item: Condvar,
    /// There is room, or no point in waiting for it.
    pub room: Condvar,
    /// The step of the task that was under way has ended.
    pub idle: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Pads are not active, or they are being flushed.
    Flushing,
    Running,
    /// EOS came in.
    Ended,
}

/// A buffer on its way.
#[derive(Debug)]
pub struct Frame {
    pub buffer: gst::Buffer,
    pub keyframe: bool,
    /// Counted up per list that came in, 0 for buffers that came alone: what came together leaves together.
    pub list: u64,
    pub running: Option<Ns>,
}

/// What the windows have not been told yet: its score or its place in time is not known, or it stands behind something
/// of which that is so.
#[derive(Debug)]
pub enum Incoming {
    Frame(Frame, Option<Seen>),
    /// Belongs to no window: not in time, or backwards.
    Unwindowed(Frame),
    Event(gst::Event),
}

/// What waits for a decision, or behind something that does.
#[derive(Debug)]
pub enum Pending {
    /// With its serial in the decisions.
    Frame(u64, Frame),
    Unwindowed(Frame),
    Event(gst::Event),
}

/// A buffer about which all is known.
#[derive(Debug)]
pub struct Passing {
    pub frame: Frame,
    pub windows: Ids,
    pub late: bool,
    /// Something before it is missing.
    pub discont: bool,
}

/// A window that is held until it is complete.
#[derive(Debug)]
pub struct Collected {
    pub opening: Arc<Opening>,
    pub frames: Vec<Passing>,
    /// A part of it has left: caps changed.
    pub started: bool,
}

/// What leaves.
#[derive(Debug)]
pub enum Out {
    Start(Arc<Opening>),
    Frame(Passing),
    /// What came as a list, or leaves as one.
    List(Vec<Passing>),
    End(Box<Ending>),
    Event(gst::Event),
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    pub buffers: u64,
    pub bytes: u64,
    pub late: u64,
    pub dropped: u64,
    pub unwindowed: u64,
}

/// How much waits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Level {
    pub buffers: usize,
    pub bytes: u64,
    pub oldest: Option<Ns>,
    pub newest: Option<Ns>,
}

impl Level {
    fn add(&mut self, frame: &Frame) {
        self.buffers += 1;
        self.bytes += frame.buffer.size() as u64;
        self.oldest = self.oldest.or(frame.running);
        self.newest = frame.running.max(self.newest);
    }
}

pub struct Line {
    pub port: Arc<Port>,
    pub phase: Phase,
    pub flow: Result<gst::FlowSuccess, gst::FlowError>,
    /// Its number in the windows, once it takes part.
    pub stream: Option<StreamId>,
    /// The segment in force for what the windows are told next.
    pub clockwork: Option<Clockwork>,
    pub live: Option<bool>,
    /// What caps say of it.
    pub expected: Expected,
    pub reordered: bool,
    pub incoming: VecDeque<Incoming>,
    pub pending: VecDeque<Pending>,
    pub ready: VecDeque<Out>,
    pub level: Level,
    /// Windows that are being collected (output=buffer-lists).
    pub collecting: VecDeque<Collected>,
    /// Events that go behind them.
    pub behind: Vec<gst::Event>,
    /// The source pad has a task that pushes; else the thread that fills the line does.
    pub tasked: bool,
    /// Somebody pushes.
    pub busy: bool,
    pub thread: Option<ThreadId>,
    /// The thread upstream that brought something last, and how often something came.
    pub feeder: Option<ThreadId>,
    pub arrivals: u64,
    /// Something before the next buffer is missing.
    pub discont: bool,
    pub counters: Counters,
}

impl Line {
    pub fn new(port: Arc<Port>) -> Self {
        let port_key = port.key;
        Self {
            port,
            phase: Phase::Flushing,
            flow: Ok(gst::FlowSuccess::Ok),
            stream: None,
            clockwork: None,
            live: None,
            expected: Expected::default(),
            reordered: false,
            incoming: VecDeque::new(),
            pending: VecDeque::new(),
            ready: VecDeque::new(),
            level: Level::default(),
            collecting: VecDeque::new(),
            behind: Vec::new(),
            tasked: matches!(port_key, Key::Further(_)),
            busy: false,
            thread: None,
            feeder: None,
            arrivals: 0,
            discont: false,
            counters: Counters::default(),
        }
    }

    /// Whether data may come.
    pub fn open(&self) -> Result<(), gst::FlowError> {
        match (self.phase, self.flow) {
            (Phase::Flushing, _) => Err(gst::FlowError::Flushing),
            (_, Err(err)) => Err(err),
            (Phase::Ended, _) => Err(gst::FlowError::Eos),
            (Phase::Running, Ok(_)) => Ok(()),
        }
    }

    /// Takes something in.
    pub fn arrives(&mut self, incoming: Incoming) {
        if let Incoming::Frame(frame, _) | Incoming::Unwindowed(frame) = &incoming {
            self.level.add(frame);
            self.counters.buffers += 1;
            self.counters.bytes += frame.buffer.size() as u64;
        }
        self.feeder = Some(std::thread::current().id());
        self.arrivals += 1;
        self.incoming.push_back(incoming);
    }

    /// Nothing of it can leave before more comes. What is collected of a window does not count, nor what is kept for
    /// triggers.
    pub fn starves(&self, event: bool) -> bool {
        let waits = self.level.buffers > 0 && self.collecting.is_empty() && !event;
        !waits && !self.busy && self.ready.is_empty()
    }

    /// How much of what waits can leave.
    pub fn leaving(&self) -> Level {
        let mut level = Level::default();
        let frames = self.ready.iter().flat_map(|out| match out {
            Out::Frame(passing) => std::slice::from_ref(passing),
            Out::List(frames) => frames,
            Out::Start(_) | Out::End(_) | Out::Event(_) => &[],
        });
        for Passing { frame, .. } in frames {
            level.add(frame);
        }
        level
    }

    /// Beside what is being pushed more waits to leave than so many collected windows, which may each be longer than
    /// bounds of queues are.
    pub fn holds_back(&self, windows: u64) -> bool {
        let is_end = |out: &&Out| matches!(out, Out::End(_));
        match self.ready.iter().filter(is_end).count() {
            0 => self.ready.iter().any(|out| matches!(out, Out::Frame(_) | Out::List(_))),
            ends => ends as u64 >= windows,
        }
    }

    /// The windows could be told of the next one, if its place in time were known.
    pub fn is_unplaced(&self) -> bool {
        matches!(self.incoming.front(), Some(Incoming::Frame(_, Some(_))))
    }

    /// What was seen of the first buffer for which that was to be found out.
    pub fn scored(&mut self, seen: Seen) {
        let unscored = self.incoming.iter_mut().find_map(|incoming| match incoming {
            Incoming::Frame(frame, slot @ None) => Some((frame, slot)),
            _ => None,
        });
        if let Some((frame, slot)) = unscored {
            frame.keyframe = seen.keyframe;
            *slot = Some(seen);
        }
    }

    /// The buffer with this serial, about which there is a decision.
    pub fn decided(&mut self, serial: u64) -> Option<Frame> {
        self.release();
        let is_it = |pending: &Pending| matches!(pending, Pending::Frame(of, _) if *of == serial);
        let at = if self.pending.front().is_some_and(is_it) { 0 } else { self.pending.iter().position(is_it)? };
        match self.pending.remove(at) {
            Some(Pending::Frame(_, frame)) => Some(frame),
            _ => None,
        }
    }

    /// Buffers with serials below leave nowhere.
    pub fn forget(&mut self, before: u64) {
        let mut lost = Vec::new();
        loop {
            self.release();
            match self.pending.front() {
                Some(Pending::Frame(serial, _)) if *serial < before => {}
                _ => break,
            }
            if let Some(Pending::Frame(_, frame)) = self.pending.pop_front() {
                self.leaves(&frame);
                lost.push(frame);
            }
        }
        self.lose(lost.iter());
    }

    /// The buffer leaves nowhere.
    pub fn discard(&mut self, frame: &Frame) {
        self.leaves(frame);
    }

    fn leaves(&mut self, frame: &Frame) {
        self.level.buffers = self.level.buffers.saturating_sub(1);
        self.level.bytes = self.level.bytes.saturating_sub(frame.buffer.size() as u64);
        self.level.oldest = frame.running.or(self.level.oldest);
        if self.level.buffers == 0 {
            (self.level.oldest, self.level.newest) = (None, None);
        }
    }

    /// The next thing to push.
    pub fn take(&mut self) -> Option<Out> {
        let mut out = self.ready.pop_front()?;
        if let Out::Frame(first) = &out
            && first.frame.list > 0
        {
            let list = first.frame.list;
            let next = |line: &Self| matches!(line.ready.front(), Some(Out::Frame(next)) if next.frame.list == list);
            if next(self) {
                let mut frames = Vec::new();
                if let Out::Frame(first) = out {
                    frames.push(first);
                }
                while next(self) {
                    if let Some(Out::Frame(passing)) = self.ready.pop_front() {
                        frames.push(passing);
                    }
                }
                out = Out::List(frames);
            }
        }
        match &out {
            Out::Frame(passing) => self.leaves(&passing.frame),
            Out::List(frames) => frames.iter().for_each(|passing| self.leaves(&passing.frame)),
            Out::Start(_) | Out::End(_) | Out::Event(_) => {}
        }
        Some(out)
    }

    /// Drops what has not left, except for sticky events: a flush does not bring them again.
    pub fn clear(&mut self) {
        let keep = |event: &gst::Event| event.is_sticky() && event.type_() != gst::EventType::Eos;
        self.ready.retain(|out| matches!(out, Out::Event(event) if keep(event)));
        for pending in self.pending.drain(..) {
            if let Pending::Event(event) = pending
                && keep(&event)
            {
                self.ready.push_back(Out::Event(event));
            }
        }
        for incoming in self.incoming.drain(..) {
            if let Incoming::Event(event) = incoming
                && keep(&event)
            {
                self.ready.push_back(Out::Event(event));
            }
        }
        self.level = Level::default();
        self.collecting.clear();
        for event in self.behind.drain(..).filter(keep) {
            self.ready.push_back(Out::Event(event));
        }
        self.discont = false;
    }

    /// Moves everything to what leaves that waits for nothing.
    pub fn release(&mut self) {
        self.release_before(|_| false);
    }

    /// EOS stays: after it windows can no longer be ended downstream.
    fn release_before_eos(&mut self) {
        self.release_before(|event| event.type_() == gst::EventType::Eos);
    }

    fn release_before(&mut self, stays: impl Fn(&gst::Event) -> bool) {
        loop {
            match self.pending.front() {
                Some(Pending::Event(event)) if !stays(event) => {}
                Some(Pending::Unwindowed(_)) => {}
                Some(Pending::Event(_) | Pending::Frame(..)) | None => return,
            }
            match self.pending.pop_front() {
                Some(Pending::Event(event)) => self.emit_event(event),
                Some(Pending::Unwindowed(frame)) => {
                    self.counters.unwindowed += 1;
                    self.emit(Passing { frame, windows: Ids::NONE, late: false, discont: false });
                }
                Some(Pending::Frame(..)) | None => {}
            }
        }
    }

    fn emit_event(&mut self, event: gst::Event) {
        if self.collecting.is_empty() {
            self.ready.push_back(Out::Event(event));
            return;
        }
        match event.type_() {
            gst::EventType::Caps | gst::EventType::Segment | gst::EventType::StreamStart | gst::EventType::Eos => {
                self.part();
                self.ready.push_back(Out::Event(event));
            }
            _ => self.behind.push(event),
        }
    }

    /// What has been collected leaves: it belongs before something else.
    fn part(&mut self) {
        for collected in &mut self.collecting {
            if !std::mem::replace(&mut collected.started, true) {
                self.ready.push_back(Out::Start(collected.opening.clone()));
            }
            self.ready.push_back(Out::List(std::mem::take(&mut collected.frames)));
        }
        self.ready.extend(self.behind.drain(..).map(Out::Event));
    }

    /// A window begins.
    pub fn begin(&mut self, opening: Arc<Opening>, lists: bool) {
        self.release();
        if lists {
            self.collecting.push_back(Collected { opening, frames: Vec::new(), started: false });
        } else {
            self.ready.push_back(Out::Start(opening));
        }
    }

    pub fn emit(&mut self, mut passing: Passing) {
        passing.discont |= std::mem::take(&mut self.discont);
        let id = passing.windows.first().filter(|_| !passing.late).map(|id| id.max(0).cast_unsigned());
        match self.collecting.iter_mut().find(|collected| Some(collected.opening.id) == id) {
            Some(collected) => collected.frames.push(passing),
            None => self.ready.push_back(Out::Frame(passing)),
        }
    }

    /// A window ends. Without `keep` it leaves nowhere, where it was collected: the gap that it leaves is told.
    pub fn end(&mut self, ending: Ending, keep: bool) {
        self.release_before_eos();
        let at = self.collecting.iter().position(|collected| collected.opening.id == ending.window.id);
        let Some(collected) = at.and_then(|at| self.collecting.remove(at)) else {
            self.ready.push_back(Out::End(Box::new(ending)));
            return;
        };
        if keep || collected.started {
            if !collected.started {
                self.ready.push_back(Out::Start(collected.opening));
            }
            if !collected.frames.is_empty() {
                self.ready.push_back(Out::List(collected.frames));
            }
            self.ready.push_back(Out::End(Box::new(ending)));
        } else {
            self.lose(collected.frames.iter().map(|passing| &passing.frame));
            collected.frames.iter().for_each(|passing| self.leaves(&passing.frame));
        }
        if self.collecting.is_empty() {
            self.ready.extend(self.behind.drain(..).map(Out::Event));
        }
    }

    /// Buffers that leave nowhere: a GAP stands for them.
    pub fn lose<'a>(&mut self, frames: impl Iterator<Item = &'a Frame>) {
        let (mut first, mut last, mut count) = (None::<gst::ClockTime>, None::<gst::ClockTime>, 0);
        for frame in frames {
            count += 1;
            let Some(pts) = frame.buffer.pts() else { continue };
            first = Some(first.map_or(pts, |first| first.min(pts)));
            let end = pts + frame.buffer.duration().unwrap_or_default();
            last = Some(last.map_or(end, |last| last.max(end)));
        }
        self.counters.dropped += count;
        self.discont |= count > 0;
        if let (Some(first), Some(last)) = (first, last) {
            let gap = gst::event::Gap::builder(first).duration(last.saturating_sub(first));
            self.ready.push_back(Out::Event(gap.build()));
        }
    }

    /// It is no longer known what is on its way.
    pub fn wake(&self) {
        self.port.item.notify_all();
        self.port.room.notify_all();
    }
}
