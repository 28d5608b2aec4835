//! A process that feeds a store and delivers from it is killed at any time, again and again; then everything has to be there.
//!
//! The process tells, before it goes on, of each unit that the element accepted and of each that the sink accepted. What was
//! accepted and not delivered by any of the killed processes has to come out at the end, in order, unchanged.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::common::*;
use crate::victims::{Dice, Victim, seed, tell, variable};

const TASK: &str = "STREAMBUFFER_TEST_KILLED";
const LOCATION: &str = "STREAMBUFFER_TEST_LOCATION";
/// Numbers of a run begin at a multiple of this.
const RUN: u64 = 1_000_000;
const GOP: u64 = 10;
/// A serialized event stands before each of these.
const MARKED: u64 = 25;

fn size(number: u64) -> usize {
    // Some larger than what an extent holds of small ones.
    if number.is_multiple_of(40) { 200_000 } else { 500 + (number * 131 % 5000) as usize }
}

fn mark(number: u64) -> gst::Event {
    gst::event::CustomDownstream::new(gst::Structure::builder("mark").field("at", number).build())
}

/// What is wrong with what arrived, if anything.
#[derive(Default)]
struct Check {
    previous: Option<u64>,
    marked: Option<u64>,
    flushed: bool,
}

impl Check {
    fn event(&mut self, event: &gst::Event) {
        if matches!(event.view(), gst::EventView::FlushStop(_)) {
            self.flushed = true;
        }
        if let Some(structure) = event.structure().filter(|structure| structure.name() == "mark") {
            self.marked = structure.get("at").ok();
        }
    }

    fn unit(&mut self, seen: &Seen) -> Option<String> {
        let number = number(seen);
        let expected = see(&frame(number, GOP, size(number)));
        // Parameter sets may stand before a keyframe.
        let same = seen.data.ends_with(&expected.data) && seen.data.len() <= expected.data.len() + 100;
        let previous = self.previous.replace(number);
        let flushed = std::mem::take(&mut self.flushed);
        let marked = self.marked.take();
        if !same || (seen.pts, seen.dts, seen.duration) != (expected.pts, expected.dts, expected.duration) {
            return Some(format!("{number} has changed"));
        }
        if seen.flags - gst::BufferFlags::DISCONT != expected.flags - gst::BufferFlags::DISCONT {
            return Some(format!("{number} has other flags: {:?}", seen.flags));
        }
        let next = previous.is_some_and(|previous| previous + 1 == number);
        // The first of a run follows the last of the one before.
        let next_run = previous.is_some_and(|previous| previous < number) && number.is_multiple_of(RUN);
        if next && number.is_multiple_of(MARKED) && marked != Some(number) {
            return Some(format!("{number} has {marked:?} before it instead of its event"));
        }
        // A sink that refused one is tried again without a flush first.
        let anew = previous.is_none() || flushed || seen.flags.contains(gst::BufferFlags::DISCONT);
        let resumed = anew && number.is_multiple_of(GOP);
        (!next && !next_run && !resumed).then(|| format!("{number} follows {previous:?}"))
    }
}

/// Not a test by itself: what is killed.
#[test]
fn child() {
    let (Ok(task), Some(location)) = (std::env::var(TASK), std::env::var_os(LOCATION)) else { return };
    let (run, behaviour) = task.split_once(' ').unwrap();
    let (run, behaviour): (u64, u64) = (run.parse().unwrap(), behaviour.parse().unwrap());
    init();
    let any = gst::Caps::new_any();
    let template = gst::PadTemplate::new("sink", gst::PadDirection::Sink, gst::PadPresence::Always, &any).unwrap();
    let check = std::sync::Arc::new(Mutex::new((Check::default(), 0u64)));
    let events = check.clone();
    let pad = gst::Pad::builder_from_template(&template)
        .chain_function(move |_, _, buffer| {
            let mut check = check.lock().unwrap();
            check.1 += 1;
            match behaviour % 4 {
                // Takes some, and blocks.
                1 if check.1 > behaviour => {
                    drop(check);
                    std::thread::sleep(PATIENCE);
                    return Err(gst::FlowError::Flushing);
                }
                // Refuses one now and then.
                2 if check.1 % (behaviour + 20) == 0 => return Err(gst::FlowError::Error),
                // Never takes anything.
                3 => return Err(gst::FlowError::Flushing),
                _ => {}
            }
            let seen = see(&buffer);
            if let Some(wrong) = check.0.unit(&seen) {
                tell(&format!("wrong {wrong}"));
            }
            tell(&format!("delivered {}", number(&seen)));
            Ok(gst::FlowSuccess::Ok)
        })
        .event_function(move |_, _, event| {
            events.lock().unwrap().0.event(&event);
            true
        })
        .build();
    pad.set_active(true).unwrap();
    let rig = Rig::idle(Some(Path::new(&location)), &[("max-memory-bytes", "300000")], Sink::default());
    let src = rig.element.static_pad("src").unwrap();
    src.unlink(&rig.sinkpad).unwrap();
    src.link(&pad).unwrap();
    // Delivery tells from here on.
    tell("ready");
    rig.element.set_state(gst::State::Playing).unwrap();
    rig.source.set_active(true).unwrap();
    rig.start_stream(&format!("run {run}"), &h264_caps());
    for number in run * RUN..run * RUN + 20_000 {
        if number.is_multiple_of(MARKED) {
            assert!(rig.source.push_event(mark(number)));
        }
        rig.push(frame(number, GOP, size(number)));
        tell(&format!("accepted {number}"));
    }
    std::thread::sleep(PATIENCE);
}

/// Kills so many processes on one store and drains it.
fn kill_and_drain(dice: &mut Dice, runs: u64, longest: u64) {
    let temp = tempfile::tempdir().unwrap();
    let (mut accepted, mut delivered) = (BTreeSet::new(), BTreeSet::new());
    let mut story = Vec::new();
    for run in 0..runs {
        let behaviour = dice.below(200);
        let task = format!("{run} {behaviour}");
        let environment = [(TASK, task.as_ref()), (LOCATION, temp.path().as_os_str())];
        let victim = Victim::start("kills::child", &environment);
        std::thread::sleep(Duration::from_millis(dice.below(longest)));
        let told = victim.kill().unwrap();
        let all = |what: &str| -> Vec<u64> {
            told.iter().filter_map(|line| line.strip_prefix(what)?.trim().parse().ok()).collect()
        };
        let ends = |all: Vec<u64>| (all.first().copied(), all.last().copied(), all.len());
        story.push((run, behaviour, ends(all("accepted")), ends(all("delivered"))));
        for line in told {
            match line.split_once(' ') {
                Some(("accepted", number)) => accepted.extend(number.parse::<u64>()),
                Some(("delivered", number)) => delivered.extend(number.parse::<u64>()),
                Some(("wrong", what)) => panic!("run {run}: {what}"),
                _ => {}
            }
        }
    }
    let rig = Rig::new(temp.path(), &[]);
    rig.start_stream("end", &h264_caps());
    rig.eos();
    rig.sink.wait_eos();
    let mut check = Check::default();
    let (events, buffers) = (rig.sink.events(), rig.sink.buffers());
    let mut events = events.iter().peekable();
    for (at, seen) in buffers.iter().enumerate() {
        while let Some((_, event)) = events.next_if(|(place, _)| *place <= at) {
            check.event(event);
        }
        assert_eq!(check.unit(seen), None);
        delivered.insert(number(seen));
    }
    let missing: Vec<_> = accepted.difference(&delivered).collect();
    let drained = (buffers.first().map(number), buffers.last().map(number), buffers.len());
    assert!(
        missing.is_empty(),
        "{} of {} are lost: {missing:?}\nrun, behaviour, accepted, delivered: {story:?}\nthen {drained:?}\n{}",
        missing.len(),
        accepted.len(),
        rig.element.property::<gst::Structure>("stats")
    );
    until("all is counted", || rig.stat("pending") == 0);
    rig.check_accounts();
    assert_eq!(rig.stat("lost"), 0);
}

#[test]
fn a_store_survives_kills_with_every_kind_of_sink() {
    kill_and_drain(&mut Dice::new(0x5EED), 6, 120);
}

/// For `scripts/soak`; `STREAMBUFFER_SOAK_MINUTES` sets for how long, `STREAMBUFFER_SOAK_SEED` repeats a round.
mod soak {
    use super::*;

    #[test]
    #[ignore = "long"]
    fn kills_for_minutes() {
        let time = Duration::from_secs(60 * variable("STREAMBUFFER_SOAK_MINUTES").unwrap_or(1));
        let (start, mut seed, mut kills) = (Instant::now(), seed(), 0);
        while start.elapsed() < time {
            println!("seed {seed}, after {kills} kills");
            let mut dice = Dice::new(seed);
            let runs = 1 + dice.below(12);
            kill_and_drain(&mut dice, runs, 400);
            kills += runs;
            seed = seed.wrapping_add(0x9E37_79B9);
        }
        println!("{kills} kills");
    }
}
