//! The element of a program, and what the steps do to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::image;
use super::pusher::{Load, Pusher};
use super::readers::Watcher;
use super::{Leaky, Op, Setup};
use crate::common::*;

/// Less than elsewhere: a program that hangs is run again to make it smaller.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A unit that was accepted, and what was in force.
pub struct Unit {
    pub seen: Seen,
    pub key: bool,
    pub caps: i32,
    pub tag: Option<u64>,
    /// False when a kill came while it was being accepted.
    pub certain: bool,
}

fn payload(number: usize) -> Vec<u8> {
    let length = 8 + (number * 37) % 200;
    number.to_be_bytes().into_iter().cycle().take(length).collect()
}

/// What came out of one element.
pub struct Run {
    pub buffers: Vec<Seen>,
    pub events: Vec<(usize, gst::Event)>,
    /// Units that earlier elements had accounted for, when that can be told.
    pub acknowledged: Option<usize>,
    /// The first unit that it was given.
    pub first: usize,
}

pub struct World<'a> {
    root: &'a Path,
    /// Where copies are made: a full disk does not keep that.
    aside: PathBuf,
    location: PathBuf,
    copies: usize,
    setup: Setup,
    pub rig: Rig,
    pub units: Vec<Unit>,
    pub marks: Vec<usize>,
    pub caps: i32,
    tag: Option<u64>,
    pub runs: Vec<Run>,
    acknowledged: Option<usize>,
    pub first: usize,
    /// By elements that are gone.
    pub rejected: u64,
    pub refused: bool,
    pub leaked: bool,
    pub purged: bool,
    /// Some may have been dropped although they had arrived.
    pub inexact: bool,
    pub rewound: bool,
    /// How many may have been in memory alone when the element was killed.
    pub forgotten: u64,
    /// Kills while something was in memory alone, or a buffer that was never stored: readers see less.
    pub unseen: bool,
    /// A kill came while memory alone knew what was delivered: which units counters speak of cannot be told.
    uncounted: bool,
    pusher: Option<Pusher>,
    overruns: Arc<AtomicU32>,
    pub watchers: [Watcher; 2],
    control: Option<PathBuf>,
    full: bool,
}

fn start(location: &Path, setup: Setup, caps: i32, sink: Sink) -> Rig {
    let rig = Rig::idle(Some(location), &[("max-memory-bytes", &setup.memory.to_string())], sink);
    let (leaky, limit) = match setup.leaky {
        Leaky::No => ("no", 0),
        Leaky::Blocks(limit) => ("no", limit),
        Leaky::Upstream(limit) => ("upstream", limit),
        Leaky::Downstream(limit) => ("downstream", limit),
        Leaky::Thin(limit) => ("thin", limit),
    };
    rig.element.set_property_from_str("persist", if setup.spill { "spill" } else { "always" });
    rig.element.set_property("spill-after", 3_000_000u64);
    rig.element.set_property_from_str("ack-mode", if setup.explicit { "explicit" } else { "push" });
    rig.element.set_property("add-position-meta", true);
    rig.element.set_property_from_str("leaky", leaky);
    rig.element.set_property("max-size-buffers", limit);
    for name in ["retry-interval", "retry-max-interval"] {
        if rig.element.find_property(name).is_some() {
            rig.element.set_property(name, 5_000_000u64);
        }
    }
    rig.element.set_state(gst::State::Playing).unwrap();
    rig.source.set_active(true).unwrap();
    rig.start_stream("s", &caps_of(caps));
    rig
}

pub fn caps_of(number: i32) -> gst::Caps {
    gst::Caps::builder("application/x-test").field("number", number).build()
}

fn count_overruns(rig: &Rig) -> Arc<AtomicU32> {
    let overruns = Arc::new(AtomicU32::new(0));
    let count = overruns.clone();
    rig.element.connect("overrun", false, move |_| {
        count.fetch_add(1, Ordering::Release);
        None
    });
    overruns
}

impl Leaky {
    /// Upstream waits for room, and nothing is dropped.
    pub fn blocks(self) -> bool {
        matches!(self, Leaky::No | Leaky::Blocks(_))
    }
}

impl<'a> World<'a> {
    pub fn new(root: &'a Path, aside: PathBuf, setup: Setup, control: Option<PathBuf>) -> Self {
        let location = root.join("store 0");
        let rig = start(&location, setup, 0, Sink::default());
        let overruns = count_overruns(&rig);
        Self {
            root,
            aside,
            location,
            copies: 0,
            setup,
            rig,
            units: Vec::new(),
            marks: Vec::new(),
            caps: 0,
            tag: None,
            runs: Vec::new(),
            first: 0,
            acknowledged: setup.leaky.blocks().then_some(0),
            rejected: 0,
            refused: false,
            purged: false,
            inexact: setup.explicit,
            rewound: false,
            leaked: !setup.leaky.blocks(),
            forgotten: 0,
            unseen: setup.spill,
            uncounted: false,
            pusher: None,
            overruns,
            watchers: [Watcher::new("a"), Watcher::new("b")],
            control,
            full: false,
        }
    }

    pub fn unit(&mut self, key: bool) -> gst::Buffer {
        let number = self.units.len();
        // The first of a stream is a keyframe.
        let key = key || self.units.last().is_none_or(|last| last.caps != self.caps);
        let mut buffer = gst::Buffer::from_mut_slice(payload(number));
        {
            let buffer = buffer.get_mut().unwrap();
            let time = gst::ClockTime::from_nseconds(number as u64 * FRAME);
            buffer.set_pts(time);
            buffer.set_dts((!number.is_multiple_of(5)).then_some(time));
            buffer.set_duration(gst::ClockTime::from_nseconds(FRAME));
            buffer.set_offset(number as u64);
            let mut flags = gst::BufferFlags::empty();
            flags.set(gst::BufferFlags::DELTA_UNIT, !key);
            flags.set(gst::BufferFlags::MARKER, number % 7 == 3);
            flags.set(gst::BufferFlags::DROPPABLE, number % 11 == 3);
            buffer.set_flags(flags);
        }
        self.units.push(Unit { seen: see(&buffer), key, caps: self.caps, tag: self.tag, certain: true });
        buffer
    }

    pub fn step(&mut self, op: Op) {
        use Op::{Caps, Eos, Mark, Push, PushList, Tag};
        // Nothing comes past a push that blocks.
        if matches!(op, Push { .. } | PushList { .. } | Mark | Tag | Caps | Eos) {
            self.unblock();
        }
        match op {
            Op::Push { count, gop, phase } => {
                let first = self.units.len();
                let buffers = (0..count).map(|i| self.unit((i + phase) % gop == 0)).collect();
                self.push(first, Load::Buffers(buffers));
            }
            Op::PushList { count, gop } => {
                let first = self.units.len();
                let list: gst::BufferList = (0..count).map(|i| self.unit(i % gop == 0)).collect();
                self.push(first, Load::List(list));
            }
            Op::Mark => {
                let at = self.units.len();
                let structure = gst::Structure::builder("mark").field("at", at as u64).build();
                assert!(self.rig.source.push_event(gst::event::CustomDownstream::new(structure)));
                self.marks.push(at);
            }
            Op::Tag => {
                let number = self.units.len() as u64;
                let mut tags = gst::TagList::new();
                let title = number.to_string();
                tags.make_mut().add::<gst::tags::Title>(&title.as_str(), gst::TagMergeMode::Append);
                assert!(self.rig.source.push_event(gst::event::Tag::new(tags)));
                self.tag = Some(number);
            }
            Op::Caps => {
                self.caps += 1;
                assert!(self.rig.source.push_event(gst::event::Caps::new(&caps_of(self.caps))));
            }
            Op::Hold(after) => self.rig.sink.hold_after(after),
            Op::Release => self.rig.sink.release(),
            Op::Refuse(flow) => {
                let refuses_us = matches!(flow, gst::FlowError::NotLinked | gst::FlowError::NotNegotiated);
                // Before the first buffer of an activation it is an error.
                if !refuses_us || !self.rig.sink.buffers().is_empty() {
                    self.refused = true;
                    self.rig.sink.answer(Some(flow));
                }
            }
            Op::Heal => self.rig.sink.answer(None),
            // A flush forgets that units are being dropped at the entrance, see the regression below.
            Op::Flush { reset } => {
                // Nobody answers while no sink is linked.
                let linked = self.rig.element.static_pad("src").unwrap().is_linked();
                assert!(self.rig.source.push_event(gst::event::FlushStart::new()) || !linked);
                self.join();
                assert!(self.rig.source.push_event(gst::event::FlushStop::new(reset)) || !linked);
                let segment = gst::FormattedSegment::<gst::ClockTime>::new();
                assert!(self.rig.source.push_event(gst::event::Segment::new(&segment)));
            }
            Op::Eos => {
                self.rig.eos();
                self.begin_stream();
                self.rig.start_stream("s", &caps_of(self.caps));
            }
            Op::Acknowledge(part) => self.acknowledge(part),
            Op::Rewind => {
                self.rewound = true;
                self.rig.element.emit_by_name::<bool>("rewind", &[]);
            }
            Op::Purge(part, count) => {
                let positions = self.rig.sink.positions();
                let Some(from) = positions.get(positions.len() * part / 8).or(positions.last()) else { return };
                (self.purged, self.leaked, self.inexact) = (true, true, true);
                let purged = self.rig.element.emit_by_name::<bool>("purge", &[from, &(from + count)]);
                // The bytes cannot leave a disk that refuses.
                assert!(purged || self.full);
            }
            Op::Limit(kind, limit) => self.limit(kind, limit),
            Op::Restart(setup) => {
                self.free();
                self.end_run();
                self.begin_run(setup, Sink::default());
            }
            Op::Crash(setup) => self.crash(setup),
            Op::Fill => self.fill(),
            Op::Free => self.free(),
            Op::Watch(which) => self.watchers[usize::from(which)].watch(&self.location),
            Op::Unwatch(which) => self.watchers[usize::from(which)].leave(),
            Op::Settle => self.settle(),
        }
        self.rig.check_accounts();
    }

    /// Pushes units that are in the list from `first` on; goes on when upstream is kept waiting.
    pub fn push(&mut self, first: usize, load: Load) {
        let overruns = self.overruns.load(Ordering::Acquire);
        let pusher = Pusher::start(&self.rig.source, first, load);
        if !self.setup.leaky.blocks() {
            assert_eq!(pusher.join(), self.units.len(), "nobody is kept waiting");
            return;
        }
        let start = Instant::now();
        while !pusher.is_done() && self.overruns.load(Ordering::Acquire) == overruns {
            assert!(start.elapsed() < PATIENCE, "a push blocks and nobody is told");
            std::thread::sleep(Duration::from_micros(200));
        }
        self.pusher = Some(pusher);
        if self.pusher.as_ref().is_some_and(Pusher::is_done) {
            self.join();
        }
    }

    /// Waits for the end of what is being pushed; what was refused never was.
    fn join(&mut self) {
        if let Some(pusher) = self.pusher.take() {
            self.units.truncate(pusher.join());
        }
    }

    /// Lets data through until upstream has got rid of its own.
    fn unblock(&mut self) {
        if self.pusher.is_none() {
            return;
        }
        self.free();
        self.rig.sink.release();
        self.rig.sink.answer(None);
        let start = Instant::now();
        while self.pusher.as_ref().is_some_and(|pusher| !pusher.is_done()) {
            let stats = self.rig.element.property::<gst::Structure>("stats");
            assert!(start.elapsed() < PATIENCE, "a push blocks although there is room: {stats}");
            self.acknowledge(8);
            std::thread::sleep(Duration::from_micros(500));
        }
        let all = self.units.len();
        self.join();
        assert_eq!(self.units.len(), all, "nothing was refused");
    }

    fn limit(&mut self, kind: u8, limit: u32) {
        let element = &self.rig.element;
        match kind {
            0 => element.set_property("max-size-buffers", limit),
            1 => element.set_property("max-size-bytes", u64::from(limit) * 110),
            _ => element.set_property("max-size-time", u64::from(limit) * FRAME),
        }
        if limit > 0 || self.full {
            return;
        }
        // Without any limit upstream goes on.
        element.set_property("max-size-buffers", 0u32);
        element.set_property("max-size-bytes", 0u64);
        element.set_property("max-size-time", 0u64);
        let start = Instant::now();
        while self.pusher.as_ref().is_some_and(|pusher| !pusher.is_done()) {
            assert!(start.elapsed() < PATIENCE, "a push blocks without a limit");
            std::thread::sleep(Duration::from_micros(200));
        }
        self.join();
    }

    fn begin_run(&mut self, setup: Setup, sink: Sink) {
        self.inexact |= setup.explicit;
        self.setup = setup;
        self.leaked |= !setup.leaky.blocks();
        self.unseen |= setup.spill;
        self.begin_stream();
        self.rig = start(&self.location, setup, self.caps, sink);
        self.overruns = count_overruns(&self.rig);
    }

    fn crash(&mut self, setup: Setup) {
        let stat = |rig: &Rig, name: &str| rig.stat(name);
        self.copies += 1;
        let blocked = self.pusher.is_some();
        let certain = self.pusher.as_ref().map_or(self.units.len(), Pusher::accepted);
        let before = ["stored", "rejected", "delivered"].map(|name| stat(&self.rig, name));
        let queued = stat(&self.rig, "queued");
        image::copy(&self.location, &self.aside);
        let (buffers, events) = (self.rig.sink.buffers(), self.rig.sink.events());
        self.watchers.iter_mut().for_each(Watcher::note);
        // From here on nobody sees what it does.
        self.rig.sink.release();
        self.set_full(false);
        self.rig.stop();
        self.join();
        self.units.iter_mut().skip(certain).for_each(|unit| unit.certain = false);
        let watching = self.watchers.each_mut().map(Watcher::abandon);
        let first = std::mem::replace(&mut self.first, self.units.len());
        let acknowledged = self.acknowledged.filter(|_| !self.leaked);
        self.runs.push(Run { buffers, events, acknowledged, first });
        let _ = std::fs::remove_dir_all(&self.location);
        self.location = self.root.join(format!("store {}", self.copies));
        std::fs::rename(&self.aside, &self.location).unwrap();
        let was = self.setup;
        self.unseen |= queued > 0 || blocked;
        self.forgotten += queued;
        self.full = false;
        // Nothing is delivered before it has told what was.
        let sink = Sink::default();
        sink.hold_after(0);
        self.begin_run(setup, sink);
        // What had arrived and was not acknowledged for good may be dropped now.
        self.inexact |= queued > 0 || self.leaked;
        self.rig.check_accounts();
        let after = ["stored", "rejected", "delivered"].map(|name| stat(&self.rig, name));
        // The last of the newest entries of the ledger is 100 ms old at most.
        self.forgotten += before[1].saturating_sub(after[1]);
        self.rejected = after[1];
        if !was.spill && queued == 0 && !blocked {
            assert_eq!(after[0], before[0], "what was stored");
        }
        let passed = (after[2] + stat(&self.rig, "bypassed")) as usize;
        self.uncounted |= self.unseen;
        let told = !self.leaked && !self.unseen && !self.purged;
        assert!(!told || passed <= certain, "{passed} were delivered of {certain}");
        self.acknowledged = told.then_some(passed);
        self.rig.sink.release();
        for (watcher, watching) in self.watchers.iter_mut().zip(watching) {
            if watching {
                watcher.watch(&self.location);
            }
        }
    }

    fn set_full(&self, full: bool) {
        let Some(control) = &self.control else { return };
        match full {
            true => std::fs::write(control, "full").unwrap(),
            false => _ = std::fs::remove_file(control),
        }
    }

    fn fill(&mut self) {
        self.full |= self.control.is_some();
        self.unseen |= self.full;
        self.set_full(true);
    }

    /// There is space again, and the element has noticed.
    pub fn free(&mut self) {
        if !std::mem::take(&mut self.full) {
            return;
        }
        self.set_full(false);
        let start = Instant::now();
        let status = || self.rig.element.property::<gst::Structure>("stats").get::<String>("status").unwrap();
        while status() == "storage-fault" {
            assert!(start.elapsed() < PATIENCE, "it does not notice that there is space");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn begin_stream(&mut self) {
        self.caps += 1;
        self.tag = None;
    }

    fn acknowledge(&self, part: usize) {
        let positions = self.rig.sink.positions();
        if let Some(position) = (positions.len() * part / 8).checked_sub(1).and_then(|at| positions.get(at)) {
            self.rig.element.emit_by_name::<bool>("acknowledge", &[position]);
        }
    }

    pub fn settle(&mut self) {
        self.unblock();
        self.rig.sink.release();
        self.rig.sink.answer(None);
        let start = Instant::now();
        while self.rig.stat("pending") > 0 || self.rig.stat("queued") > 0 {
            let stats = self.rig.element.property::<gst::Structure>("stats");
            assert!(start.elapsed() < PATIENCE, "it does not deliver: {stats}");
            self.acknowledge(8);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn end_run(&mut self) {
        self.rig.stop();
        self.join();
        self.rig.check_accounts();
        let run = Run {
            buffers: self.rig.sink.buffers(),
            events: self.rig.sink.events(),
            acknowledged: self.acknowledged.filter(|_| !self.leaked),
            first: std::mem::replace(&mut self.first, self.units.len()),
        };
        self.runs.push(run);
        // With those of the elements before.
        self.rejected = self.rig.stat("rejected");
        // With drops, which ones were delivered is not in the counters.
        self.acknowledged = (!self.leaked && !self.uncounted)
            .then(|| (self.rig.stat("delivered") + self.rig.stat("bypassed")) as usize);
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        self.set_full(false);
        self.watchers.iter_mut().for_each(|watcher| _ = watcher.abandon());
        let _ = self.rig.element.set_state(gst::State::Null);
    }
}
