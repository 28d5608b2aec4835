//! One stream between its pads: what waits for others (`held`, in order of arrival), what waits for the source pad's
//! task (`queue`), and what has been counted.
//!
//! Held are frames whose set is not known yet, and the events that came after them: nothing overtakes.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar};

use super::mark::{Mark, NO_SET};
use super::placing::Placer;
use super::settings::StreamSettings;
use crate::timeline::Ns;

/// The two pads of a stream, and what their threads wait for.
pub struct Port {
    pub index: u32,
    /// Of the sink pad.
    pub name: String,
    pub sink: super::FrameSyncPad,
    pub src: gst::Pad,
    /// The task has something to do.
    pub item: Condvar,
    /// There is room, or no point in waiting for it.
    pub room: Condvar,
    /// The step of the task that was under way has ended.
    pub idle: Condvar,
}

#[derive(Debug, Clone)]
pub struct Frame {
    pub token: u64,
    pub buffer: gst::Buffer,
    pub pts: Ns,
    pub dts: Option<Ns>,
    pub interpolated: bool,
    pub discont: bool,
    /// None: as the buffer has it.
    pub duration: Option<Option<Ns>>,
}

/// What has been decided about a frame that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Waiting,
    Out(Option<Mark>),
    /// The PTS of its set instead of its own.
    Snapped(Mark, Ns),
    Dropped,
}

#[derive(Debug)]
pub enum Entry {
    Frame(Frame, Fate),
    Event(gst::Event),
    Gap { at: Ns, duration: Option<Ns> },
}

#[derive(Debug)]
pub enum Item {
    Frame(Frame, Option<Mark>),
    Event(gst::Event),
    Gap { at: Ns, duration: Option<Ns> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The source pad is not active, or it is being flushed.
    Flushing,
    Running,
    /// EOS came in; what is held is decided before it goes on.
    Ending,
    /// EOS has its place: nothing may come behind it.
    Ended,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    pub input: u64,
    pub output: u64,
    pub late: u64,
    pub outliers: u64,
    pub jumps: u64,
    pub gaps: u64,
    pub duplicates: u64,
    pub interpolated: u64,
}

/// What the segment that goes out needs of the one that came in.
#[derive(Debug, Clone, Copy)]
pub struct SegmentFacts {
    pub applied_rate: f64,
    pub seqnum: gst::Seqnum,
    /// Stream time less running time.
    pub stream_time: Ns,
}

pub struct Stream {
    pub port: Arc<Port>,
    pub phase: Phase,
    pub flow: Result<gst::FlowSuccess, gst::FlowError>,
    /// The task pushes.
    pub busy: bool,
    pub thread: Option<std::thread::ThreadId>,
    /// Upstream waits for room.
    pub blocked: bool,
    pub settings: Arc<StreamSettings>,
    pub segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    /// Of the event that brought it.
    pub seqnum: Option<gst::Seqnum>,
    pub facts: Option<SegmentFacts>,
    pub live: Option<bool>,
    /// Of what is upstream.
    pub upstream_latency: Ns,
    pub inter_coded: bool,
    pub placer: Option<Placer>,
    /// The highest that was placed, of what rises.
    pub floor: Option<Ns>,
    pub held: VecDeque<Entry>,
    pub frames_held: usize,
    pub queue: VecDeque<Item>,
    pub next_token: u64,
    /// Its number in the matcher.
    pub slot: Option<usize>,
    /// Inter-coded: frames by PTS that may still be preceded by others.
    pub reordered: Vec<(Ns, u64)>,
    /// The highest stamp the matcher was given.
    pub matched: Option<Ns>,
    /// Frames in a row that came late for their set.
    pub late_in_row: u32,
    pub last: Option<Frame>,
    /// Something before the next frame is missing.
    pub discont: bool,
    pub has_caps: bool,
    pub counters: Counters,
    pub told: super::messages::Told,
    /// Of the task: the segment that went out, and what is added to running time in it.
    pub lift: Option<Ns>,
}

impl Stream {
    pub fn new(port: Arc<Port>) -> Self {
        Self {
            port,
            phase: Phase::Flushing,
            flow: Ok(gst::FlowSuccess::Ok),
            busy: false,
            thread: None,
            blocked: false,
            settings: Arc::default(),
            segment: None,
            seqnum: None,
            facts: None,
            live: None,
            upstream_latency: Ns::ZERO,
            inter_coded: false,
            placer: None,
            floor: None,
            held: VecDeque::new(),
            frames_held: 0,
            queue: VecDeque::new(),
            next_token: 0,
            slot: None,
            reordered: Vec::new(),
            matched: None,
            late_in_row: 0,
            last: None,
            discont: false,
            has_caps: false,
            counters: Counters::default(),
            told: super::messages::Told::default(),
            lift: None,
        }
    }

    /// After a flush; counters go on.
    pub fn reset(&mut self) {
        self.keep_sticky();
        self.matched = None;
        self.late_in_row = 0;
        self.last = None;
        self.placer = None;
        self.floor = None;
        self.segment = None;
        self.facts = None;
        self.lift = None;
        self.discont = false;
        self.slot = None;
        self.flow = Ok(gst::FlowSuccess::Ok);
    }

    /// Nothing else can go out of what is here: what a pad keeps anyway goes when something can. A flush does not bring it
    /// again.
    pub fn keep_sticky(&mut self) {
        let keep = |event: &gst::Event| event.is_sticky() && event.type_() != gst::EventType::Eos;
        self.queue.retain(|item| matches!(item, Item::Event(event) if keep(event)));
        for entry in std::mem::take(&mut self.held) {
            if let Entry::Event(event) = entry
                && keep(&event)
            {
                self.has_caps |= event.type_() == gst::EventType::Caps;
                self.queue.push_back(Item::Event(event));
            }
        }
        self.frames_held = 0;
        self.reordered.clear();
    }

    /// Behind what is held.
    pub fn add(&mut self, entry: Entry) {
        self.frames_held += usize::from(matches!(entry, Entry::Frame(..)));
        self.held.push_back(entry);
    }

    /// Decides about a frame; those that are gone are nobody's business.
    pub fn decide(&mut self, token: u64, decided: Fate) {
        for entry in &mut self.held {
            if let Entry::Frame(frame, fate) = entry
                && frame.token == token
            {
                if *fate == Fate::Waiting {
                    *fate = decided;
                }
                return;
            }
        }
    }

    /// For frames that nobody waits for any more: they pass unmarked.
    pub fn pass_all(&mut self) {
        self.reordered.clear();
        for entry in &mut self.held {
            if let Entry::Frame(_, fate @ Fate::Waiting) = entry {
                *fate = Fate::Out(None);
            }
        }
    }

    /// What a frame without a set has for a fate.
    pub fn alone(&self) -> Fate {
        if self.inter_coded { Fate::Out(None) } else { Fate::Dropped }
    }

    /// Moves everything that is decided to the queue. Says whether there was anything.
    pub fn release(&mut self) -> bool {
        let before = self.queue.len();
        while let Some(entry) = self.held.pop_front() {
            match entry {
                Entry::Frame(frame, Fate::Waiting) => {
                    self.held.push_front(Entry::Frame(frame, Fate::Waiting));
                    break;
                }
                Entry::Frame(_, Fate::Dropped) => {
                    self.frames_held -= 1;
                    self.discont = true;
                }
                Entry::Frame(frame, Fate::Out(mark)) => {
                    self.frames_held -= 1;
                    self.emit(frame, mark);
                }
                Entry::Frame(mut frame, Fate::Snapped(mark, at)) => {
                    self.frames_held -= 1;
                    let apart = at - frame.pts;
                    frame.pts = at;
                    frame.dts = frame.dts.map(|dts| dts + apart);
                    self.emit(frame, Some(mark));
                }
                Entry::Event(event) => {
                    if let gst::EventView::Caps(_) = event.view() {
                        self.has_caps = true;
                    }
                    self.queue.push_back(Item::Event(event));
                }
                Entry::Gap { at, duration } => self.queue.push_back(Item::Gap { at, duration }),
            }
        }
        let some = self.queue.len() > before;
        if some {
            self.port.item.notify_all();
        }
        some
    }

    fn emit(&mut self, mut frame: Frame, mark: Option<Mark>) {
        frame.discont |= std::mem::take(&mut self.discont);
        let unset = Mark { id: NO_SET, spread: 0, complete: false, interpolated: true };
        let mark = match mark {
            Some(mark) => Some(Mark { interpolated: frame.interpolated, ..mark }),
            None => frame.interpolated.then_some(unset),
        };
        if !self.inter_coded {
            self.last = Some(frame.clone());
        }
        self.queue.push_back(Item::Frame(frame, mark));
    }

    /// Gives the last frame once more, in a later set.
    pub fn repeat(&mut self, mark: Mark, at: Ns) -> bool {
        let allowed = !self.inter_coded && self.phase != Phase::Ended;
        let Some(mut frame) = self.last.clone().filter(|_| allowed) else { return false };
        let apart = at - frame.pts;
        frame.pts = at;
        frame.dts = frame.dts.map(|dts| dts + apart);
        frame.discont = false;
        self.queue.push_back(Item::Frame(frame, Some(Mark { interpolated: true, ..mark })));
        self.port.item.notify_all();
        true
    }

    pub fn is_flushing(&self) -> bool {
        self.phase == Phase::Flushing
    }

    /// In the same order as fields are documented.
    pub fn stats(&self) -> gst::Structure {
        let counters = &self.counters;
        let placer = self.placer.as_ref();
        let estimate = placer.and_then(Placer::estimate);
        gst::Structure::builder("framesync-stats")
            .field("in", counters.input)
            .field("out", counters.output)
            .field("late", counters.late)
            .field("outliers", counters.outliers)
            .field("jumps", counters.jumps)
            .field("gaps", counters.gaps)
            .field("duplicates", counters.duplicates)
            .field("interpolated", counters.interpolated)
            .field("drift-ppm", estimate.map_or(0.0, |estimate| estimate.ppm))
            .field("drift-confidence-ppm", estimate.map_or(f64::INFINITY, |estimate| estimate.confidence_ppm))
            .field("offset", estimate.map_or(0, |estimate| estimate.offset.0) + self.bias())
            .field("jitter", placer.map_or(0, |placer| placer.jitter().0))
            .field("epoch", placer.map_or(0, Placer::epoch))
            .field("format", placer.map_or_else(|| "undecided".to_string(), Placer::format))
            .build()
    }

    fn bias(&self) -> i64 {
        let biased = self.placer.as_ref().is_some_and(Placer::is_biased);
        if biased { super::stamps::BIAS } else { 0 }
    }
}
