//! Random programs against a simple model: pushes, events, blocked and refusing sinks, flushes, ends of stream, restarts, kills,
//! disks that fill up, readers that come and go.
//!
//! The model knows what was accepted, in order, and what was in force for each unit. Whatever the program does: no unit is lost
//! unless it was reported as dropped; units arrive in order, and repeats begin at a keyframe after a flush or a start; each
//! arrives as it went in, under its own caps and tags; the counters add up after every step. A push that blocks because the
//! element is full goes on when something is delivered or a limit is raised, and ends with a flush or a state change.
//!
//! A kill is a copy of the store, taken while the element runs; another element goes on with the copy. Only what waited in
//! memory then may be missing. Readers of the same store get all of it in order.

use std::ops::Range;
use std::path::{Path, PathBuf};

use gst::prelude::*;
use proptest::prelude::*;

use crate::common::*;

mod check;
#[path = "../../shared/image.rs"]
mod image;
#[path = "../../diskbuffersrc/player.rs"]
#[allow(dead_code)]
mod player;
#[path = "../../shared/programs.rs"]
mod programs;
mod pusher;
mod readers;
#[path = "../../shared/shim.rs"]
#[allow(dead_code)]
mod shim;
mod world;

use world::World;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Leaky {
    No,
    /// Upstream waits for room.
    Blocks(u32),
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
    /// Of buffers, bytes or time, for so many units; 0 for none of any kind.
    Limit(u8, u32),
    /// The element is stopped, and another one takes over the store.
    Restart(Setup),
    /// The store is copied as it is, and another element goes on with the copy.
    Crash(Setup),
    /// The disk is full, where that can be had.
    Fill,
    Free,
    /// A reader comes, or comes back.
    Watch(u8),
    Unwatch(u8),
    /// Everything that can be delivered is.
    Settle,
}

fn setup() -> impl Strategy<Value = Setup> {
    let leaky = prop_oneof![
        2 => Just(Leaky::No),
        2 => (2u32..40).prop_map(Leaky::Blocks),
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
        2 => (0u8..3, prop_oneof![1 => Just(0u32), 4 => 1u32..40]).prop_map(|(kind, limit)| Op::Limit(kind, limit)),
        1 => setup().prop_map(Op::Restart),
        2 => setup().prop_map(Op::Crash),
        1 => Just(Op::Fill),
        1 => Just(Op::Free),
        1 => (0u8..2).prop_map(Op::Watch),
        1 => (0u8..2).prop_map(Op::Unwatch),
        1 => Just(Op::Settle),
    ]
}

fn run(setup: Setup, ops: &[Op]) {
    let temp = tempfile::tempdir().unwrap();
    let control = std::env::var_os(programs::CONTROL).map(PathBuf::from);
    let root = match std::env::var_os(programs::DISK) {
        Some(disk) => Path::new(&disk).join(temp.path().file_name().unwrap()),
        None => temp.path().join("disk"),
    };
    // While the disk refuses, memory says how far a resume can go back: it holds a GOP here.
    let roomy = |setup: Setup| if control.is_some() { Setup { memory: 1 << 20, ..setup } } else { setup };
    let mut world = World::new(&root, temp.path().join("aside"), roomy(setup), control.clone());
    ops.iter().for_each(|op| {
        world.step(match *op {
            Op::Restart(setup) => Op::Restart(roomy(setup)),
            Op::Crash(setup) => Op::Crash(roomy(setup)),
            op => op,
        })
    });
    world.finish();
    let _ = std::fs::remove_dir_all(&root);
}

fn explore(seeds: Range<u64>, programs: u32, length: usize) {
    let strategy = || (setup(), proptest::collection::vec(op(), 1..length));
    programs::explore(seeds, programs, 600, strategy, |(setup, ops)| run(setup, &ops));
}

#[test]
fn random_programs_do_as_the_model() {
    explore(0..4, 8, 25);
}

/// Not a test by itself.
#[test]
fn on_a_disk_that_fills_up() {
    let Some((seeds, count)) = programs::asked_for() else { return };
    explore(seeds, count, 25);
    programs::all_well();
}

fn explore_full(seed: u64, programs: u32) {
    programs::on_a_full_disk("model::on_a_disk_that_fills_up", shim::build, seed, programs);
}

#[test]
fn random_programs_do_as_the_model_on_a_disk_that_fills_up() {
    explore_full(0, 8);
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

/// What was delivered from memory and never stored had changed what is in force: after a kill all that is stored follows one
/// another, with that between.
#[test]
fn what_changed_in_memory_alone_is_in_force_after_a_kill() {
    let spill = Setup { leaky: Leaky::Blocks(15), memory: 500, spill: true, explicit: false };
    let after = Setup { leaky: Leaky::Downstream(26), memory: 500, spill: false, explicit: false };
    let ops = [
        Op::Eos,
        Op::Hold(11),
        Op::Push { count: 16, gop: 8, phase: 2 },
        Op::Push { count: 26, gop: 2, phase: 9 },
        Op::Release,
        Op::Crash(after),
        Op::PushList { count: 1, gop: 2 },
    ];
    (0..3).for_each(|_| run(spill, &ops));
    let ops = [
        Op::Push { count: 11, gop: 8, phase: 0 },
        Op::Hold(4),
        Op::Flush { reset: false },
        Op::Tag,
        Op::Push { count: 7, gop: 6, phase: 3 },
        Op::Crash(after),
        Op::PushList { count: 2, gop: 3 },
    ];
    (0..3).for_each(|_| run(Setup { leaky: Leaky::No, ..spill }, &ops));
}

#[test]
fn a_reader_sees_what_changed_in_memory_alone() {
    let temp = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    sink.hold_after(0);
    let properties = [("persist", "spill"), ("spill-after", "1000000"), ("retention-time", "1000000000000000")];
    let rig = Rig::with_sink(temp.path(), &properties, sink);
    let push = |range: Range<u64>| range.for_each(|number| rig.push(frame(number, 1, 100)));
    rig.start_stream("s", &world::caps_of(0));
    push(0..3);
    until("they are stored", || rig.stat("stored") == 3);
    rig.sink.release();
    until("they are delivered", || rig.stat("pending") == 0);
    rig.element.set_property("spill-after", 3_600_000_000_000u64);
    assert!(rig.source.push_event(gst::event::Caps::new(&world::caps_of(1))));
    push(3..8);
    until("they never see the disk", || rig.stat("bypassed") >= 4);
    rig.sink.hold_after(0);
    rig.element.set_property("spill-after", 1_000_000u64);
    push(8..11);
    until("these do", || rig.stat("stored") >= 6);
    let player = player::Player::new(temp.path(), &[]);
    player.sink.wait_eos();
    let caps: Vec<_> = player.events(gst::EventType::Caps).into_iter().map(|event| event.0).collect();
    let numbers = player.numbers();
    assert!(numbers.starts_with(&[0, 1, 2]) && numbers.ends_with(&[8, 9, 10]), "{numbers:?}");
    assert_eq!(caps, [0, 3], "those of each");
}

/// The beginning of a run was delivered from memory and never stored: what follows of it is no beginning.
#[test]
fn a_reader_is_told_that_the_beginning_of_a_run_is_missing() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(temp.path(), &[("retention-time", "1000000000000000")]);
    rig.start_stream("s", &world::caps_of(0));
    (0..4).for_each(|number| rig.push(frame(number, 1, 100)));
    until("they are delivered", || rig.stat("pending") == 0);
    rig.stop();
    let properties = [("persist", "spill"), ("spill-after", "3600000000000"), ("retention-time", "1000000000000000")];
    let rig = Rig::new(temp.path(), &properties);
    rig.start_stream("s", &world::caps_of(0));
    (4..20).for_each(|number| rig.push(frame(number, 1, 100)));
    until("they never see the disk", || rig.stat("bypassed") == 16);
    rig.sink.hold_after(0);
    rig.element.set_property("spill-after", 1_000_000u64);
    (20..23).for_each(|number| rig.push(frame(number, 1, 100)));
    until("these do", || rig.stat("stored") >= 7);
    let player = player::Player::new(temp.path(), &[]);
    player.sink.wait_eos();
    let buffers = player.sink.buffers();
    let numbers = player.numbers();
    let first = buffers.get(4).unwrap();
    assert!(numbers.starts_with(&[0, 1, 2, 3]) && number(first) > 4 && numbers.ends_with(&[20, 21, 22]), "{numbers:?}");
    assert!(first.flags.contains(gst::BufferFlags::DISCONT), "{first:?}");
}

/// For `scripts/soak`; `STREAMBUFFER_SOAK_PROGRAMS` sets how many, in each of eight threads, `STREAMBUFFER_SOAK_SEED` which.
mod soak {
    use super::programs;

    #[test]
    #[ignore = "long"]
    fn many_random_programs_do_as_the_model() {
        super::explore(programs::seeds(8), programs::count(), 60);
    }

    #[test]
    #[ignore = "long"]
    fn many_random_programs_do_as_the_model_on_a_disk_that_fills_up() {
        std::thread::scope(|scope| {
            programs::seeds(8)
                .for_each(|seed| _ = scope.spawn(move || super::explore_full(seed, programs::count() / 4)));
        });
    }
}
