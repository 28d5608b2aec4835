//! Random programs against a simple model: pushes, events, blocked and refusing sinks, flushes, ends of stream, restarts.
//!
//! The model knows what was accepted, in order, and what was in force for each unit. Whatever the program does: no unit is lost
//! unless it was reported as dropped; units arrive in order, and repeats begin at a keyframe after a flush or a start; each
//! arrives as it went in, under its own caps and tags; the counters add up after every step.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use gst::prelude::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use crate::common::*;

/// Less than elsewhere: a program that hangs is run again to make it smaller.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Leaky {
    No,
    Upstream(u32),
    Downstream(u32),
    Thin(u32),
}

/// How an element is set up.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Setup {
    leaky: Leaky,
    memory: u64,
    /// Nothing is stored before it has waited for some ms.
    spill: bool,
    /// With `ack-mode=explicit`.
    explicit: bool,
}

#[derive(Debug, Clone, Copy)]
enum Op {
    /// So many units, a keyframe every `gop`, `phase` units into it.
    Push {
        count: usize,
        gop: usize,
        phase: usize,
    },
    PushList {
        count: usize,
        gop: usize,
    },
    /// A serialized event that is not sticky.
    Mark,
    Tag,
    /// Other caps, and a keyframe.
    Caps,
    /// Downstream takes so many more and blocks.
    Hold(usize),
    Release,
    Refuse(gst::FlowError),
    Heal,
    Flush {
        reset: bool,
    },
    /// The end of the stream, and another one.
    Eos,
    /// What has arrived is acknowledged, up to this part of 8.
    Acknowledge(usize),
    Rewind,
    /// From one part of 8 of what has arrived, so many.
    Purge(usize, u64),
    Limit(u32),
    /// The element is stopped, and another one takes over the store.
    Restart(Setup),
    /// Everything that can be delivered is.
    Settle,
}

fn setup() -> impl Strategy<Value = Setup> {
    let leaky = prop_oneof![
        2 => Just(Leaky::No),
        1 => (3u32..30).prop_map(Leaky::Upstream),
        1 => (3u32..30).prop_map(Leaky::Downstream),
        1 => (3u32..30).prop_map(Leaky::Thin),
    ];
    let memory = prop_oneof![Just(0u64), Just(500), Just(1 << 20)];
    (leaky, memory, any::<bool>(), any::<bool>()).prop_map(|(leaky, memory, spill, explicit)| Setup {
        leaky,
        memory,
        spill,
        explicit,
    })
}

fn op() -> impl Strategy<Value = Op> {
    use gst::FlowError::{Error, Flushing, NotLinked, NotNegotiated};
    prop_oneof![
        8 => (1usize..30, 1usize..12, 0usize..12).prop_map(|(count, gop, phase)| Op::Push { count, gop, phase }),
        2 => (1usize..8, 1usize..5).prop_map(|(count, gop)| Op::PushList { count, gop }),
        2 => Just(Op::Mark),
        1 => Just(Op::Tag),
        1 => Just(Op::Caps),
        2 => (0usize..15).prop_map(Op::Hold),
        2 => Just(Op::Release),
        2 => prop_oneof![Just(Error), Just(Flushing), Just(NotLinked), Just(NotNegotiated)].prop_map(Op::Refuse),
        2 => Just(Op::Heal),
        1 => any::<bool>().prop_map(|reset| Op::Flush { reset }),
        1 => Just(Op::Eos),
        3 => (0usize..9).prop_map(Op::Acknowledge),
        1 => Just(Op::Rewind),
        1 => (0usize..9, 0u64..40).prop_map(|(from, count)| Op::Purge(from, count)),
        1 => (3u32..40).prop_map(Op::Limit),
        1 => setup().prop_map(Op::Restart),
        1 => Just(Op::Settle),
    ]
}

/// A unit that was accepted, and what was in force.
struct Unit {
    seen: Seen,
    key: bool,
    caps: i32,
    tag: Option<u64>,
}

fn payload(number: usize) -> Vec<u8> {
    let length = 8 + (number * 37) % 200;
    number.to_be_bytes().into_iter().cycle().take(length).collect()
}

/// What came out of one element.
struct Run {
    buffers: Vec<Seen>,
    events: Vec<(usize, gst::Event)>,
    /// Units that earlier elements had accounted for, when that can be told.
    acknowledged: Option<usize>,
    /// The first unit that it was given.
    first: usize,
}

struct World<'a> {
    location: &'a Path,
    setup: Setup,
    rig: Rig,
    units: Vec<Unit>,
    marks: Vec<usize>,
    caps: i32,
    tag: Option<u64>,
    runs: Vec<Run>,
    acknowledged: Option<usize>,
    first: usize,
    /// By elements that are gone.
    rejected: u64,
    refused: bool,
    leaked: bool,
    purged: bool,
    /// Some may have been dropped although they had arrived.
    inexact: bool,
    rewound: bool,
}

fn start(location: &Path, setup: Setup, caps: i32) -> Rig {
    let rig = Rig::idle(Some(location), &[("max-memory-bytes", &setup.memory.to_string())], Sink::default());
    let (leaky, limit) = match setup.leaky {
        Leaky::No => ("no", 0),
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

fn caps_of(number: i32) -> gst::Caps {
    gst::Caps::builder("application/x-test").field("number", number).build()
}

impl<'a> World<'a> {
    fn new(location: &'a Path, setup: Setup) -> Self {
        Self {
            location,
            setup,
            rig: start(location, setup, 0),
            units: Vec::new(),
            marks: Vec::new(),
            caps: 0,
            tag: None,
            runs: Vec::new(),
            first: 0,
            acknowledged: (setup.leaky == Leaky::No).then_some(0),
            rejected: 0,
            refused: false,
            purged: false,
            inexact: setup.explicit,
            rewound: false,
            leaked: setup.leaky != Leaky::No,
        }
    }

    fn unit(&mut self, key: bool) -> gst::Buffer {
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
        self.units.push(Unit { seen: see(&buffer), key, caps: self.caps, tag: self.tag });
        buffer
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Push { count, gop, phase } => {
                for i in 0..count {
                    let buffer = self.unit((i + phase) % gop == 0);
                    self.rig.push(buffer);
                }
            }
            Op::PushList { count, gop } => {
                let list: gst::BufferList = (0..count).map(|i| self.unit(i % gop == 0)).collect();
                assert_eq!(self.rig.source.push_list(list), Ok(gst::FlowSuccess::Ok));
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
                assert!(self.rig.element.emit_by_name::<bool>("purge", &[from, &(from + count)]));
            }
            Op::Limit(limit) if self.setup.leaky != Leaky::No => {
                self.rig.element.set_property("max-size-buffers", limit);
            }
            Op::Limit(_) => {}
            Op::Restart(setup) => {
                self.end_run();
                self.inexact |= setup.explicit;
                self.setup = setup;
                self.leaked |= setup.leaky != Leaky::No;
                self.begin_stream();
                self.rig = start(self.location, setup, self.caps);
            }
            Op::Settle => self.settle(),
        }
        self.rig.check_accounts();
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

    fn settle(&mut self) {
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

    fn end_run(&mut self) {
        self.rig.stop();
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
        self.acknowledged = (!self.leaked).then(|| (self.rig.stat("delivered") + self.rig.stat("bypassed")) as usize);
    }

    /// Lets everything arrive, and compares.
    fn finish(mut self) {
        self.settle();
        self.caps += 1;
        assert!(self.rig.source.push_event(gst::event::Caps::new(&caps_of(self.caps))));
        let last = self.unit(true);
        self.rig.push(last);
        self.settle();
        self.rig.check_accounts();
        let (dropped, lost) = (self.rig.stat("dropped") + self.rig.stat("purged"), self.rig.stat("lost"));
        self.end_run();
        assert_eq!(lost, 0);
        let mut arrived = vec![false; self.units.len()];
        let mut marked = vec![false; self.marks.len()];
        for run in &self.runs {
            self.check_run(run, &mut arrived);
            for (_, event) in &run.events {
                if let Some(at) = mark(event) {
                    self.marks.iter().zip(&mut marked).for_each(|(mark, marked)| *marked |= *mark == at);
                }
            }
        }
        let missing: Vec<_> = (0..arrived.len()).filter(|i| !arrived[*i]).collect();
        let told = dropped + self.rejected;
        // What a sink that then failed had taken may have been dropped later.
        let exact = missing.len() as u64 == told || ((self.refused || self.inexact) && (missing.len() as u64) < told);
        assert!(exact, "{told} were reported as dropped, these are missing: {missing:?}");
        assert!(arrived.last() == Some(&true), "the last one is missing");
        if !self.leaked {
            let missing: Vec<_> = self.marks.iter().zip(marked).filter(|(_, marked)| !marked).collect();
            assert!(missing.is_empty(), "serialized events are missing: {missing:?}");
        }
    }

    fn check_run(&self, run: &Run, arrived: &mut [bool]) {
        let (mut caps, mut tag, mut flushed, mut previous) = (None, None, true, None::<usize>);
        let mut started = false;
        let mut events = run.events.iter().peekable();
        // Of the events since the last unit.
        let mut marks = Vec::new();
        for (at, seen) in run.buffers.iter().enumerate() {
            while let Some((_, event)) = events.next_if(|(place, _)| *place <= at) {
                match event.view() {
                    gst::EventView::FlushStop(_) => flushed = true,
                    gst::EventView::StreamStart(_) => (started, tag) = (true, None),
                    gst::EventView::Caps(e) => caps = e.caps().structure(0).and_then(|s| s.get::<i32>("number").ok()),
                    gst::EventView::Tag(e) => {
                        tag = e.tag().get::<gst::tags::Title>().and_then(|title| title.get().parse().ok());
                    }
                    _ => marks.extend(mark(event)),
                }
            }
            let number = seen.offsets.0 as usize;
            let unit = &self.units[number];
            let what = format!("unit {number}, at {at} after {previous:?} in run {}", self.runs.len());
            let discont = seen.flags & gst::BufferFlags::DISCONT;
            // The stream of another element begins: nothing is missing in it.
            let live = self.runs.iter().any(|run| run.first == number);
            let told = live || !discont.is_empty() || (started && !flushed);
            self.check_order(&what, number, previous, (flushed, told), run.acknowledged.filter(|_| at == 0));
            // Within a stream that goes on, a mark is where it was.
            if previous.is_some_and(|previous| previous + 1 == number) {
                assert!(marks.iter().all(|mark| *mark == number), "{what}: events of {marks:?} stand before it");
            }
            let mut expected = unit.seen.clone();
            expected.flags |= discont;
            assert!(*seen == expected, "{what}: it arrived as {seen:?} instead of {expected:?}");
            assert_eq!(caps, Some(unit.caps), "{what}: caps");
            assert_eq!(tag, unit.tag, "{what}: tags");
            arrived[number] = true;
            (flushed, started, previous) = (false, false, Some(number));
            marks.clear();
        }
    }

    fn check_order(
        &self,
        what: &str,
        number: usize,
        previous: Option<usize>,
        (flushed, told): (bool, bool),
        acknowledged: Option<usize>,
    ) {
        if previous.is_some_and(|previous| previous + 1 == number) || (number == 0 && previous.is_none()) {
            return;
        }
        let repeat = previous.is_some_and(|previous| number <= previous);
        assert!(!repeat || flushed || self.refused || self.rewound, "{what}: a repeat for no reason");
        assert!(self.units[number].key || self.purged, "{what}: it begins without a keyframe");
        if let Some(acknowledged) = acknowledged {
            let bound = self.keyframe_at_or_before(0..acknowledged + 1);
            assert!(
                (bound..=acknowledged).contains(&number),
                "{what}: {acknowledged} were delivered, the rest is owed"
            );
        }
        assert!(told, "{what}: no DISCONT");
    }

    fn keyframe_at_or_before(&self, range: Range<usize>) -> usize {
        range.rev().find(|i| self.units.get(*i).is_some_and(|unit| unit.key)).unwrap_or(0)
    }
}

fn mark(event: &gst::Event) -> Option<usize> {
    let structure = event.structure().filter(|structure| structure.name() == "mark")?;
    Some(structure.get::<u64>("at").ok()? as usize)
}

fn run(setup: Setup, ops: &[Op]) {
    let temp = tempfile::tempdir().unwrap();
    let mut world = World::new(temp.path(), setup);
    ops.iter().for_each(|op| world.step(*op));
    world.finish();
}

/// `programs` from each seed; a failure is made smaller and shown.
fn explore(seeds: Range<u8>, programs: u32, length: usize) {
    std::thread::scope(|scope| {
        let run_seed = |seed: u8| {
            let config =
                Config { cases: programs, max_shrink_iters: 600, failure_persistence: None, ..Config::default() };
            let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
            let mut runner = TestRunner::new_with_rng(config, rng);
            let strategy = (setup(), proptest::collection::vec(op(), 1..length));
            let result = runner.run(&strategy, |(setup, ops)| {
                run(setup, &ops);
                Ok(())
            });
            match result {
                Ok(()) => {}
                Err(TestError::Fail(reason, (setup, ops))) => {
                    panic!("seed {seed}: {reason}\nrun({setup:?}, &{ops:?});")
                }
                Err(err) => panic!("seed {seed}: {err}"),
            }
        };
        seeds.map(|seed| scope.spawn(move || run_seed(seed))).collect::<Vec<_>>().into_iter().for_each(|thread| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    });
}

#[test]
fn random_programs_do_as_the_model() {
    explore(0..4, 6, 25);
}

#[test]
fn a_flush_while_dropping_at_the_entrance_ends_at_a_keyframe() {
    let ops = [
        Op::Hold(0),
        Op::Push { count: 18, gop: 8, phase: 0 },
        Op::Flush { reset: true },
        Op::Settle,
        Op::Push { count: 14, gop: 10, phase: 9 },
    ];
    run(Setup { leaky: Leaky::Upstream(3), memory: 0, spill: false, explicit: false }, &ops);
}

/// The end lies in memory alone when delivery begins behind it.
#[test]
fn a_rewind_after_an_end_of_stream_goes_on() {
    let setup = Setup { leaky: Leaky::No, memory: 500, spill: true, explicit: false };
    let ops = [
        Op::Push { count: 25, gop: 8, phase: 2 },
        Op::Push { count: 16, gop: 5, phase: 0 },
        Op::Eos,
        Op::Flush { reset: false },
        Op::Settle,
        Op::Rewind,
        Op::Push { count: 16, gop: 1, phase: 6 },
    ];
    (0..5).for_each(|_| run(setup, &ops));
}

/// Events that come from memory again are the objects that the pad has sent before: it would not send them again.
#[test]
fn a_resume_from_memory_takes_back_what_came_later() {
    let ops = [
        Op::Push { count: 8, gop: 11, phase: 11 },
        Op::Flush { reset: false },
        Op::Tag,
        Op::Caps,
        Op::Mark,
        Op::Flush { reset: false },
        Op::Settle,
        Op::Push { count: 7, gop: 6, phase: 6 },
    ];
    for _ in 0..5 {
        run(Setup { leaky: Leaky::No, memory: 1 << 20, spill: true, explicit: true }, &ops);
    }
}

/// For `scripts/soak`; `STREAMBUFFER_SOAK_PROGRAMS` sets how many, in each of eight threads.
mod soak {
    #[test]
    #[ignore = "long"]
    fn many_random_programs_do_as_the_model() {
        let programs = std::env::var("STREAMBUFFER_SOAK_PROGRAMS").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
        super::explore(100..108, programs, 60);
    }
}
