//! What was accepted survives the process, and comes back as it was.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use gst::prelude::*;

use crate::common::*;

const CHILD: &str = "STREAMBUFFER_TEST_CHILD";
const LOCATION: &str = "STREAMBUFFER_TEST_LOCATION";
const GOP: u64 = 25;
const LARGE: usize = 100_000;
/// 60 s at 25 frames/s.
const MINUTE: u64 = 1500;

/// A process that feeds a store until it is killed.
struct Victim(Child, BufReader<ChildStdout>);

impl Victim {
    /// Runs the scenario of [`child`] with this name until it says that it is done.
    fn run(scenario: &str, location: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "restart::child", "--nocapture"])
            .env(CHILD, scenario)
            .env(LOCATION, location)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut victim = Self(child, output);
        let mut lines = (&mut victim.1).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.ends_with("done")), "{scenario} did not come to its end");
        victim
    }

    /// Waits until it has told this.
    fn wait_for(&mut self, line: &str) {
        assert!((&mut self.1).lines().map_while(Result::ok).any(|told| told == line), "it does not come to: {line}");
    }

    /// SIGKILL. What it had told since it was waited for.
    fn kill(mut self) -> Vec<String> {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        (&mut self.1).lines().map_while(Result::ok).collect()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test by itself: what a [`Victim`] does.
#[test]
fn child() {
    let (Ok(scenario), Some(location)) = (std::env::var(CHILD), std::env::var_os(LOCATION)) else { return };
    let (name, number) = scenario.split_once(' ').unwrap();
    let number: u64 = number.parse().unwrap();
    let sink = Sink::default();
    match name {
        // A minute of video with events into a sink that stops after `number` buffers.
        "minute" => sink.hold_after(number as usize),
        // A hundred frames, of run `number`.
        "run" | "flow" => sink.hold_after(0),
        // A hundred frames into a sink that takes them at once, or all together.
        "drained" if number == 0 => {}
        "drained" => sink.hold_after(0),
        other => panic!("{other}"),
    }
    let rig = Rig::with_sink(Path::new(&location), &[], sink);
    match name {
        "minute" => {
            rig.start_stream("minute", &h264_caps());
            for i in 0..MINUTE {
                push_events_before(&rig, i);
                rig.push(frame(i, GOP, 4000));
            }
            if number > 0 {
                until("half of it is delivered", || rig.stat("delivered") >= number);
                // The cursor is saved within 100 ms.
                std::thread::sleep(Duration::from_millis(300));
            }
        }
        "drained" => {
            rig.start_stream("drained", &h264_caps());
            (0..110).for_each(|i| rig.push(frame(i, GOP, 4000)));
            rig.sink.release();
            rig.sink.wait_buffers(110);
            std::thread::sleep(Duration::from_secs(1));
        }
        // Large frames of run `number` without end; tells of each that was accepted.
        "flow" => {
            rig.start_stream(&format!("flow {number}"), &h264_caps());
            println!("done");
            for i in 0..5000 {
                rig.push(frame(i, GOP, LARGE));
                println!("{i} accepted");
            }
        }
        _ => {
            rig.start_stream(&format!("run {number}"), &h264_caps());
            for i in 0..100 {
                rig.push(frame(i, GOP, 1000 + number as usize));
            }
        }
    }
    println!("done");
    // Until the kill.
    std::thread::sleep(PATIENCE);
}

fn custom(at: u64) -> gst::Event {
    gst::event::CustomDownstream::new(gst::Structure::builder("mark").field("at", at).build())
}

fn push_events_before(rig: &Rig, i: u64) {
    match i {
        500 => assert!(rig.source.push_event(custom(i))),
        800 => {
            let mut tags = gst::TagList::new();
            tags.make_mut().add::<gst::tags::Title>(&"north gate", gst::TagMergeMode::Append);
            assert!(rig.source.push_event(gst::event::Tag::new(tags)));
        }
        1000 => {
            let gap = gst::event::Gap::builder(gst::ClockTime::from_nseconds(i * FRAME)).duration(gst::ClockTime::ZERO);
            assert!(rig.source.push_event(gap.build()));
        }
        1200 => assert!(rig.source.push_event(custom(i))),
        _ => {}
    }
}

/// The frame as it has to come out; `first` of a resumption.
fn expected(i: u64, size: usize, first: bool) -> Seen {
    let mut seen = see(&frame(i, GOP, size));
    if first {
        seen.flags |= gst::BufferFlags::DISCONT;
        if i > 0 {
            seen.data = [sps(), pps(), seen.data].concat();
        }
    }
    seen
}

fn check_minute(seen: &[Seen], from: u64) {
    assert_eq!(seen.len() as u64, MINUTE - from);
    for (i, seen) in (from..).zip(seen) {
        assert!(
            *seen == expected(i, 4000, i == from),
            "frame {i} differs: {:?}",
            Seen { data: vec![], ..seen.clone() }
        );
    }
}

/// Places of the events of a kind, by the number of the frame that follows.
fn places(rig: &Rig, kind: gst::EventType, from: u64) -> Vec<u64> {
    rig.sink.events().iter().filter(|(_, e)| e.type_() == kind).map(|(at, _)| *at as u64 + from).collect()
}

#[test]
fn a_kill_before_anything_was_delivered_loses_nothing() {
    let temp = tempfile::tempdir().unwrap();
    Victim::run("minute 0", temp.path()).kill();
    let rig = Rig::new(temp.path(), &[]);
    rig.sink.wait_buffers(MINUTE as usize);
    check_minute(&rig.sink.buffers(), 0);
    assert_eq!(places(&rig, gst::EventType::CustomDownstream, 0), [500, 1200]);
    assert_eq!(places(&rig, gst::EventType::Tag, 0), [800]);
    assert_eq!(places(&rig, gst::EventType::Gap, 0), [1000]);
    for kind in [gst::EventType::StreamStart, gst::EventType::Caps, gst::EventType::Segment] {
        assert_eq!(places(&rig, kind, 0), [0], "{kind:?}");
    }
    until("all is counted", || rig.stat("pending") == 0);
    rig.check_accounts();
    assert_eq!((rig.stat("delivered"), rig.stat("lost"), rig.stat("replayed")), (MINUTE, 0, 0));
}

#[test]
fn a_kill_in_the_middle_resumes_at_a_keyframe_that_decodes_by_itself() {
    let temp = tempfile::tempdir().unwrap();
    Victim::run("minute 760", temp.path()).kill();
    let rig = Rig::new(temp.path(), &[]);
    // 760 were delivered: frame 750 is the keyframe before the first that was not.
    rig.sink.wait_buffers(MINUTE as usize - 750);
    check_minute(&rig.sink.buffers(), 750);
    assert_eq!(places(&rig, gst::EventType::CustomDownstream, 750), [1200]);
    assert_eq!(places(&rig, gst::EventType::Gap, 750), [1000]);
    // In force already: sent before the first frame.
    assert_eq!(places(&rig, gst::EventType::Tag, 750), [800]);
    until("all is counted", || rig.stat("pending") == 0);
    rig.check_accounts();
    assert_eq!((rig.stat("delivered"), rig.stat("replayed")), (MINUTE, 10));
}

#[test]
fn what_is_in_force_comes_before_the_first_frame() {
    let temp = tempfile::tempdir().unwrap();
    Victim::run("minute 1000", temp.path()).kill();
    let rig = Rig::new(temp.path(), &[]);
    rig.sink.wait_buffers(500);
    check_minute(&rig.sink.buffers(), 1000);
    let first: Vec<_> = rig.sink.events().into_iter().filter(|(at, _)| *at == 0).map(|(_, e)| e.type_()).collect();
    use gst::EventType::{Caps, Gap, Segment, StreamStart, Tag};
    // The gap was not acknowledged: it stands before frame 1000.
    assert!([StreamStart, Caps, Segment, Tag].iter().all(|t| first.contains(t)), "{first:?}");
    assert!(first.iter().take(3).eq([StreamStart, Caps, Segment].iter()), "{first:?}");
    assert!(!first.contains(&Gap) || first.last() == Some(&Gap), "{first:?}");
}

#[test]
fn ten_restarts_with_a_growing_backlog_lose_nothing_and_time_never_goes_back() {
    let temp = tempfile::tempdir().unwrap();
    for run in 0..10 {
        let victim = Victim::run(&format!("run {run}"), temp.path());
        victim.kill();
    }
    let rig = Rig::new(temp.path(), &[]);
    rig.start_stream("run 10", &h264_caps());
    for i in 0..100 {
        rig.push(frame(i, GOP, 1010));
    }
    rig.eos();
    rig.sink.wait_eos();
    let seen = rig.sink.buffers();
    assert_eq!(seen.len(), 1100);
    for (at, seen) in seen.iter().enumerate() {
        let (run, i) = (at / 100, at as u64 % 100);
        let mut expected = see(&frame(i, GOP, 1000 + run));
        if at == 0 {
            expected.flags |= gst::BufferFlags::DISCONT;
        }
        assert!(*seen == expected, "run {run} frame {i}");
    }
    let times: Vec<_> = rig.sink.running_times().into_iter().map(Option::unwrap).collect();
    assert!(times.is_sorted(), "running time goes back");
    assert!(times.windows(2).all(|w| w[1] - w[0] <= FRAME), "running time jumps");
    let events = rig.sink.events();
    let starts: Vec<_> = events
        .iter()
        .filter_map(|(at, e)| match e.view() {
            gst::EventView::StreamStart(s) => Some((*at, s.stream_id().to_owned(), s.group_id())),
            _ => None,
        })
        .collect();
    for (run, (at, id, group)) in starts.iter().enumerate() {
        assert_eq!((*at, id.as_str()), (run * 100, format!("run {run}").as_str()));
        assert!(starts.iter().filter(|s| s.2 == *group).count() == 1, "each epoch has its own group");
    }
    assert_eq!(starts.len(), 11);
    assert_eq!(events.iter().filter(|(_, e)| e.type_() == gst::EventType::Eos).count(), 1);
    rig.check_accounts();
}

/// Extents change every 160 frames: kills fall before, into and after a change.
#[test]
fn kills_at_any_time_lose_nothing_that_was_accepted() {
    let temp = tempfile::tempdir().unwrap();
    let mut accepted = Vec::new();
    for run in 0..8u64 {
        let mut victim = Victim::run(&format!("flow {run}"), temp.path());
        let enough = 11 + 37 * run;
        victim.wait_for(&format!("{enough} accepted"));
        let told = victim.kill();
        let last = told.iter().rev().find_map(|line| line.strip_suffix(" accepted")?.parse::<u64>().ok());
        accepted.push(last.unwrap_or(enough) + 1);
    }
    let rig = Rig::new(temp.path(), &[]);
    rig.start_stream("end", &h264_caps());
    rig.eos();
    rig.sink.wait_eos();
    let numbers: Vec<_> = rig.sink.buffers().iter().map(number).collect();
    // Each run counts from 0; the last frame of a run may have been accepted without being told.
    let mut rest = numbers.as_slice();
    for (run, accepted) in accepted.iter().enumerate() {
        let length = rest.iter().enumerate().take_while(|(i, n)| *i as u64 == **n).count();
        assert!((*accepted..=accepted + 1).contains(&(length as u64)), "run {run}: {length} of {accepted}");
        rest = &rest[length..];
    }
    assert_eq!(rest, [0u64; 0]);
    rig.check_accounts();
    assert_eq!(rig.stat("lost"), 0);
}

#[test]
fn a_kill_a_second_after_all_was_delivered_brings_nothing_again() {
    for way in 0..2 {
        let temp = tempfile::tempdir().unwrap();
        Victim::run(&format!("drained {way}"), temp.path()).kill();
        let rig = Rig::new(temp.path(), &[("max-memory-bytes", "0")]);
        rig.start_stream("next", &h264_caps());
        (0..30).for_each(|i| rig.push(frame(i, GOP, 1000)));
        rig.eos();
        rig.sink.wait_eos();
        let seen: Vec<_> = rig.sink.buffers().iter().map(|seen| (number(seen), seen.data.len() > 3000)).collect();
        assert_eq!(seen, (0..30).map(|i| (i, false)).collect::<Vec<_>>());
        until("all is counted", || rig.stat("pending") == 0);
        rig.check_accounts();
        assert_eq!((rig.stat("replayed"), rig.stat("lost"), rig.stat("delivered")), (0, 0, 140));
    }
}

/// Lets this process write no file any more, as a disk that refuses.
fn refuse_the_disk() {
    let pid = std::process::id().to_string();
    let status = Command::new("prlimit").args(["--fsize=0:unlimited", "--pid", &pid]).status().unwrap();
    assert!(status.success());
}

/// Not a test by itself: runs in a process of its own, which ignores SIGXFSZ.
#[test]
fn child_without_a_disk() {
    let (Ok("no disk"), Some(location)) = (std::env::var(CHILD).as_deref(), std::env::var_os(LOCATION)) else { return };
    let rig = Rig::new(Path::new(&location), &[]);
    rig.start_stream("stored", &h264_caps());
    (0..15).for_each(|i| rig.push(frame(i, GOP, 1000)));
    rig.sink.wait_buffers(15);
    until("all is acknowledged", || rig.stat("delivered") == 15);
    refuse_the_disk();
    let caps = gst::Caps::builder("video/x-h264").field("width", 99i32).build();
    rig.start_stream("refused", &caps);
    (15..25).for_each(|i| rig.push(frame(i, GOP, 1000)));
    rig.sink.wait_buffers(25);
    assert_eq!(rig.message("diskbuffer-storage").get::<&str>("state"), Ok("fault"));
    rig.check_accounts();
    rig.sink.answer(Some(gst::FlowError::Error));
    (25..35).for_each(|i| rig.push(frame(i, GOP, 1000)));
    rig.message("diskbuffer-outage");
    rig.check_accounts();
    rig.sink.answer(None);
    rig.eos();
    rig.sink.wait_eos();
    let numbers: Vec<_> = rig.sink.buffers().iter().map(number).collect();
    assert!((0..35).all(|i| numbers.contains(&i)), "{numbers:?}");
    let last_caps = rig.sink.events().into_iter().rev().find_map(|(_, e)| match e.view() {
        gst::EventView::Caps(e) => Some(e.caps_owned()),
        _ => None,
    });
    assert_eq!(last_caps, Some(caps), "what the disk refused is in force again after the outage");
    until("all is counted", || rig.stat("queued") == 0);
    rig.check_accounts();
    println!("done");
}

#[test]
fn a_disk_that_refuses_costs_neither_buffers_nor_caps() {
    let temp = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "restart::child_without_a_disk", "--nocapture"])
        .env(CHILD, "no disk")
        .env(LOCATION, temp.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("done"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_end_of_stream_of_an_earlier_run_only_ends_its_epoch() {
    let temp = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    sink.hold_after(0);
    let rig = Rig::with_sink(temp.path(), &[], sink);
    rig.start_stream("first", &h264_caps());
    (0..50).for_each(|i| rig.push(frame(i, GOP, 1000)));
    rig.eos();
    rig.stop();
    let rig = Rig::new(temp.path(), &[]);
    rig.sink.wait_buffers(50);
    rig.start_stream("second", &h264_caps());
    (0..50).for_each(|i| rig.push(frame(i, GOP, 1000)));
    rig.sink.wait_buffers(100);
    assert!(!rig.sink.events().iter().any(|(_, e)| e.type_() == gst::EventType::Eos));
    rig.eos();
    rig.sink.wait_eos();
    assert_eq!(rig.sink.buffers().len(), 100);
}

#[test]
fn what_was_delivered_is_not_sent_again() {
    let temp = tempfile::tempdir().unwrap();
    for run in 0..3 {
        let rig = Rig::new(temp.path(), &[]);
        rig.start_stream("run", &h264_caps());
        (0..60).for_each(|i| rig.push(frame(i, GOP, 1000)));
        rig.eos();
        rig.sink.wait_eos();
        assert_eq!(rig.sink.buffers().len(), 60, "run {run}");
        assert_eq!(rig.sink.running_times()[0], Some(0), "with an empty backlog nothing is shifted");
        assert!(!rig.sink.buffers()[0].flags.contains(gst::BufferFlags::DISCONT));
        rig.stop();
        rig.check_accounts();
    }
}

#[test]
fn original_timestamps_stay_when_asked_for() {
    let temp = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        Victim::run("run 0", temp.path()).kill();
    }
    let rig = Rig::new(temp.path(), &[("timestamp-mode", "original")]);
    rig.sink.wait_buffers(200);
    let times = rig.sink.running_times();
    assert_eq!(times[100..], times[..100]);
}

#[test]
fn an_element_can_be_stopped_and_started_again() {
    let temp = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    let rig = Rig::with_sink(temp.path(), &[], sink.clone());
    for run in 0..3u64 {
        rig.start_stream("run", &h264_caps());
        (0..40).for_each(|i| rig.push(frame(i, GOP, 1000)));
        sink.wait_buffers(40 * (run as usize + 1));
        rig.source.set_active(false).unwrap();
        rig.element.set_state(gst::State::Ready).unwrap();
        rig.element.set_state(gst::State::Playing).unwrap();
        rig.source.set_active(true).unwrap();
    }
    let numbers: Vec<_> = sink.buffers().iter().map(number).collect();
    assert_eq!(numbers, [0..40, 0..40, 0..40].into_iter().flatten().collect::<Vec<u64>>());
}

/// A list is stored as one record batch: it is there whole or not at all.
#[test]
fn a_list_is_dropped_whole() {
    let temp = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    sink.hold_after(0);
    let rig = Rig::with_sink(temp.path(), &[("max-size-buffers", "4"), ("leaky", "upstream")], sink);
    rig.start_stream("first", &h264_caps());
    for first in [0, 4] {
        let list: gst::BufferList = (first..first + 4).map(|i| frame(i, GOP, 100)).collect();
        rig.source.push_list(list).unwrap();
    }
    assert_eq!((rig.stat("stored"), rig.stat("rejected")), (4, 4));
    rig.stop();
    let rig = Rig::new(temp.path(), &[]);
    rig.start_stream("second", &h264_caps());
    rig.push(frame(0, GOP, 100));
    rig.sink.wait_buffers(5);
    let starts = rig.sink.events().iter().filter(|(_, e)| e.type_() == gst::EventType::StreamStart).count();
    assert_eq!((rig.sink.buffers().iter().map(number).collect::<Vec<_>>(), starts), (vec![0, 1, 2, 3, 0], 2));
}
