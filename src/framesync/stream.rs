//! One stream between its pads: what waits for others (`held`, in order of arrival), what waits for the source pad's
//! task (`queue`), and what has been counted.
//!
//! Held are frames whose set is not known yet, and the events that came after them: nothing overtakes.

use std::collections::VecDeque;
use std::sync::Arc;

use gst::glib::translate::IntoGlib;

use super::mark::{Mark, NO_SET};
use super::placing::Placer;
use super::settings::{Fill, OutlierPolicy, Policy, StreamSettings};
use super::stamps::Content;
use crate::bell::Bell;
use crate::timeline::Ns;

/// With that many items queued nothing is made up any more: downstream takes nothing.
const FILLS: usize = 64;

/// The two pads of a stream, and what their threads wait for.
pub struct Port {
    pub index: u32,
    /// Of the sink pad.
    pub name: String,
    pub sink: super::FrameSyncPad,
    pub src: gst::Pad,
    /// The task has something to do.
    pub item: Bell,
    /// There is room, or no point in waiting for it.
    pub room: Bell,
    /// The step of the task that was under way has ended.
    pub idle: Bell,
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

/// The segment that goes out, as far as the one that came in has a say, and what is added to running time in it.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// As it came, with the number of its event.
    pub came: Option<(gst::Event, gst::FormattedSegment<gst::ClockTime>)>,
    /// None: nothing has gone out yet.
    pub lift: Option<Ns>,
    /// One has to go out before the next thing that has a time.
    pub due: bool,
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
    pub live: Option<bool>,
    /// Of what is upstream.
    pub upstream_latency: Ns,
    pub content: Content,
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
    /// The highest that left the sets, of what rises.
    top: Option<Ns>,
    /// Something before the next frame is missing.
    pub discont: bool,
    /// The last one that came was left out.
    pub left_out: bool,
    /// The highest PTS that was queued.
    pub tail: Option<Ns>,
    /// SEGMENT_DONE came: what comes next belongs to another round.
    pub round_over: bool,
    pub has_caps: bool,
    pub counters: Counters,
    pub told: super::messages::Told,
    /// Of the task.
    pub outgoing: Outgoing,
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
            live: None,
            upstream_latency: Ns::ZERO,
            content: Content::default(),
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
            top: None,
            discont: false,
            left_out: false,
            tail: None,
            round_over: false,
            has_caps: false,
            counters: Counters::default(),
            told: super::messages::Told::default(),
            outgoing: Outgoing::default(),
        }
    }

    /// After a flush; counters go on.
    pub fn reset(&mut self) {
        self.keep_sticky();
        self.matched = None;
        self.late_in_row = 0;
        self.last = None;
        self.top = None;
        self.placer = None;
        self.floor = None;
        self.segment = None;
        self.outgoing = Outgoing::default();
        // A flush takes it from all pads.
        self.queue.retain(|item| !matches!(item, Item::Event(event) if event.type_() == gst::EventType::Segment));
        self.discont = false;
        self.left_out = false;
        self.tail = None;
        self.round_over = false;
        self.slot = None;
        self.flow = Ok(gst::FlowSuccess::Ok);
    }

    /// Nothing else can go out of what is here: what a pad keeps anyway goes when something can. A flush does not bring it
    /// again.
    pub fn keep_sticky(&mut self) {
        let keep = |event: &gst::Event| {
            event.is_sticky() && (self.phase != Phase::Flushing || event.type_() != gst::EventType::Eos)
        };
        self.queue.retain(|item| matches!(item, Item::Event(event) if keep(event)));
        for entry in std::mem::take(&mut self.held) {
            if let Entry::Event(event) = entry
                && keep(&event)
            {
                self.has_caps |= event.type_() == gst::EventType::Caps;
                self.queue.push_back(Item::Event(event));
            }
        }
        self.keep_newest();
        self.frames_held = 0;
        self.reordered.clear();
    }

    /// A pad keeps one of each kind, and of each name where there are several, in the order of kinds.
    fn keep_newest(&mut self) {
        let name = |event: &gst::Event| {
            let named = event.structure().filter(|_| event.type_().is_sticky_multi());
            named.map(|fields| fields.name().to_string())
        };
        let same = |a: &Item, b: &Item| match (a, b) {
            (Item::Event(a), Item::Event(b)) => a.type_() == b.type_() && name(a) == name(b),
            _ => false,
        };
        let mut i = 0;
        while i < self.queue.len() {
            if self.queue.iter().skip(i + 1).any(|later| same(&self.queue[i], later)) {
                self.queue.remove(i);
            } else {
                i += 1;
            }
        }
        self.queue.make_contiguous().sort_by_key(|item| match item {
            Item::Event(event) => event.type_().into_glib(),
            Item::Frame(..) | Item::Gap { .. } => i32::MAX,
        });
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
        if self.content == Content::Frames { Fate::Dropped } else { Fate::Out(None) }
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
            self.port.item.ring();
        }
        some
    }

    fn emit(&mut self, mut frame: Frame, mark: Option<Mark>) {
        frame.discont |= std::mem::take(&mut self.discont);
        self.rise(&mut frame);
        let unset = Mark { id: NO_SET, spread: 0, complete: false, interpolated: true };
        let mark = match mark {
            Some(mark) => Some(Mark { interpolated: frame.interpolated, ..mark }),
            None => frame.interpolated.then_some(unset),
        };
        if self.repeats() {
            self.last = Some(frame.clone());
        }
        self.tail = Some(self.tail.map_or(frame.pts, |tail| tail.max(frame.pts)));
        self.queue.push_back(Item::Frame(frame, mark));
    }

    /// Whether a frame may be asked for again. A reference that is kept costs a copy of the buffer when it is stamped.
    fn repeats(&self) -> bool {
        let again = self.settings.fill == Fill::Last || self.settings.policy == Policy::Nearest;
        again && self.slot.is_some() && self.content == Content::Frames
    }

    /// The frame of a later set may be older than the time of the last set: stamps never go back for that.
    fn rise(&mut self, frame: &mut Frame) {
        if self.content != Content::Frames || self.settings.outlier_policy == OutlierPolicy::Pass {
            return;
        }
        let key = frame.dts.unwrap_or(frame.pts);
        let top = self.top.map_or(key, |top| top.max(key));
        match &mut frame.dts {
            Some(dts) => {
                frame.pts += top - key;
                *dts = top;
            }
            None => frame.pts = top,
        }
        self.top = Some(top);
    }

    /// Gives the last frame once more, in a later set.
    pub fn repeat(&mut self, mark: Mark, at: Ns) -> bool {
        let allowed = self.repeats() && !self.is_over();
        let Some(mut frame) = self.last.clone().filter(|_| allowed) else { return false };
        if self.queue.len() >= FILLS {
            return true;
        }
        let at = self.not_before(at);
        let apart = at - frame.pts;
        frame.pts = at;
        frame.dts = frame.dts.map(|dts| dts + apart);
        frame.discont = false;
        self.rise(&mut frame);
        self.queue.push_back(Item::Frame(frame, Some(Mark { interpolated: true, ..mark })));
        self.port.item.ring();
        true
    }

    /// A GAP for a set that goes out without this stream.
    pub fn leave_gap(&mut self, at: Ns, duration: Option<Ns>) {
        let at = self.not_before(at);
        let full = self.queue.len() >= FILLS;
        match self.queue.back_mut() {
            // Downstream takes nothing: one GAP says it all.
            Some(Item::Gap { at: begin, duration: length }) if full => {
                *length = Some(at - *begin + duration.unwrap_or(Ns::ZERO));
            }
            _ => self.queue.push_back(Item::Gap { at, duration }),
        }
        self.port.item.ring();
    }

    /// A time that is made up, not below what is queued.
    fn not_before(&mut self, at: Ns) -> Ns {
        let at = self.tail.map_or(at, |tail| tail.max(at));
        self.tail = Some(at);
        at
    }

    /// Nothing more comes, for now.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Ended || self.round_over
    }

    /// Downstream could take what is held here.
    pub fn starves(&self) -> bool {
        self.frames_held > 0 && self.queue.is_empty() && !self.busy && self.flow.is_ok()
    }

    pub fn is_flushing(&self) -> bool {
        self.phase == Phase::Flushing
    }

    /// In the same order as fields are documented.
    pub fn stats(&self) -> gst::Structure {
        let counters = &self.counters;
        let placer = self.placer.as_ref();
        // When a file is read says nothing of its clock.
        let timely = placer.filter(|_| self.live == Some(true));
        let estimate = timely.and_then(Placer::estimate);
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
            .field("offset", estimate.map_or(0, |estimate| estimate.offset.0.saturating_add(self.bias())))
            .field("jitter", timely.map_or(0, |placer| placer.jitter().0))
            .field("epoch", placer.map_or(0, Placer::epoch))
            .field("format", placer.map_or_else(|| "undecided".to_string(), Placer::format))
            .build()
    }

    fn bias(&self) -> i64 {
        let biased = self.placer.as_ref().is_some_and(Placer::is_biased);
        if biased { super::stamps::BIAS } else { 0 }
    }
}
