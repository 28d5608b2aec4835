//! Each kind of fault alone: what follows from it, step by step.

use std::path::Path;
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::common::*;
use crate::shim::command;

use super::watch;

const GOP: u64 = 10;
const SIZE: usize = 20_000;

/// Runs the scenario of this name; in a process whose disk obeys.
pub fn run(scenario: &str, location: &Path) {
    match scenario {
        "slow" => a_slow_disk(location),
        "slow and spilling" => a_slow_disk_and_a_fast_source(location),
        "table" => tables_that_cannot_be_read(location),
        "log" => a_log_that_cannot_be_read(location),
        "short" => everything_in_pieces(location),
        "gop" => a_fault_within_a_gop(location),
        "flush" => a_flush_while_memory_is_stored(location),
        "purge" => a_purge_without_a_disk(location),
        other => panic!("{other}"),
    }
}

fn numbers(rig: &Rig) -> Vec<u64> {
    rig.sink.buffers().iter().map(number).collect()
}

fn push(rig: &Rig, range: std::ops::Range<u64>) {
    range.for_each(|i| rig.push(frame(i, GOP, SIZE)));
}

fn held() -> Sink {
    let sink = Sink::default();
    sink.hold_after(0);
    sink
}

/// Each arrived once, in order, unchanged but for parameter sets that a keyframe was given.
fn check_all(rig: &Rig, range: std::ops::Range<u64>) {
    assert_eq!(numbers(rig), range.collect::<Vec<_>>());
    for seen in rig.sink.buffers() {
        assert!(seen.data.ends_with(&see(&frame(number(&seen), GOP, SIZE)).data), "{} has changed", number(&seen));
    }
    until("all is counted", || rig.stat("pending") + rig.stat("queued") == 0);
    rig.check_accounts();
    assert_eq!((rig.stat("lost"), rig.stat("rejected"), rig.stat("dropped")), (0, 0, 0));
}

/// 100 ms a write, a source that makes 30 a second: it is slowed down to what the disk does, and nothing else happens.
fn a_slow_disk(location: &Path) {
    let rig = Rig::new(location, &[]);
    rig.start_stream("s", &h264_caps());
    command("slow=100");
    let (start, mut longest) = (Instant::now(), Duration::ZERO);
    for i in 0..40 {
        let due = start + Duration::from_millis(33) * i as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let since = Instant::now();
        rig.push(frame(i, GOP, SIZE));
        longest = longest.max(since.elapsed());
        rig.check_accounts();
    }
    println!("40 buffers in {:?}, chain at most {longest:?}", start.elapsed());
    rig.sink.wait_buffers(40);
    // Who looks after it sees why.
    let p99: f64 = rig.element.property::<gst::Structure>("stats").get("commit-latency-p99").unwrap();
    assert!(p99 >= 100e6, "{p99}");
    let since = Instant::now();
    rig.source.push_event(gst::event::FlushStart::new());
    rig.source.push_event(gst::event::FlushStop::new(true));
    watch::took("flush with a slow disk", since.elapsed(), Duration::from_secs(5));
    let since = Instant::now();
    rig.element.set_state(gst::State::Ready).unwrap();
    watch::took("stop with a slow disk", since.elapsed(), Duration::from_secs(5));
    let since = Instant::now();
    rig.element.set_state(gst::State::Null).unwrap();
    watch::took("close with a slow disk", since.elapsed(), Duration::from_secs(20));
    command("");
    check_all_of(&rig, 0..40);
}

/// As [`check_all`], with the element stopped.
fn check_all_of(rig: &Rig, range: std::ops::Range<u64>) {
    assert_eq!(numbers(rig), range.collect::<Vec<_>>());
    rig.check_accounts();
}

/// Data that is stored by the store's own thread comes in faster than the disk takes it.
fn a_slow_disk_and_a_fast_source(location: &Path) {
    const MEMORY: u64 = 1_000_000;
    let properties = [("persist", "spill"), ("spill-after", "20000000"), ("max-memory-bytes", "1000000")];
    let rig = Rig::with_sink(location, &properties, held());
    rig.start_stream("s", &h264_caps());
    command("slow=300");
    let mut most = 0;
    for i in 0..600 {
        rig.push(frame(i, GOP, SIZE));
        most = most.max(rig.stat("memory-bytes"));
        rig.check_accounts();
    }
    println!("at most {most} bytes in memory");
    assert!(most <= 2 * MEMORY + SIZE as u64, "{most} bytes of {MEMORY} that may be held in memory");
    command("");
    rig.sink.release();
    rig.sink.wait_buffers(600);
    check_all(&rig, 0..600);
}

fn tables_that_cannot_be_read(location: &Path) {
    // A memtable of 1 MiB.
    let rig = Rig::with_sink(location, &[("max-size-bytes", "8388608"), ("max-memory-bytes", "1000000")], held());
    rig.start_stream("s", &h264_caps());
    push(&rig, 0..300);
    command("reads only=.sst");
    rig.sink.release();
    until("it is told", || {
        let text: String = rig.element.property::<gst::Structure>("stats").get("last-error").unwrap();
        text.contains("Input/output error")
    });
    // What comes in is stored all the same.
    push(&rig, 300..330);
    rig.check_accounts();
    assert_eq!(rig.stat("lost"), 0);
    let arrived = numbers(&rig);
    assert_eq!(arrived, (0..arrived.len() as u64).collect::<Vec<_>>(), "nothing is left out");
    let since = Instant::now();
    rig.element.set_state(gst::State::Paused).unwrap();
    rig.element.set_state(gst::State::Playing).unwrap();
    watch::took("pause and play with a disk that cannot be read", since.elapsed(), Duration::from_secs(5));
    command("reads@30 only=.sst");
    std::thread::sleep(Duration::from_millis(500));
    command("");
    rig.sink.wait_buffers(330);
    check_all(&rig, 0..330);
}

fn a_log_that_cannot_be_read(location: &Path) {
    {
        let rig = Rig::with_sink(location, &[], held());
        rig.start_stream("s", &h264_caps());
        push(&rig, 0..100);
        // The end of the log is not written to tables.
        command("eio");
        rig.stop();
    }
    command("reads only=.log");
    let rig = Rig::idle(Some(location), &[], Sink::default());
    assert!(rig.element.set_state(gst::State::Playing).is_err(), "it cannot be known what is in the log");
    let message = rig.bus.pop_filtered(&[gst::MessageType::Error]).expect("no error");
    let gst::MessageView::Error(error) = message.view() else { unreachable!() };
    let text = error.error().to_string();
    assert!(text.contains(location.to_str().unwrap()) && text.contains("Input/output error"), "{text}");
    command("");
    rig.element.set_state(gst::State::Playing).unwrap();
    rig.sink.wait_buffers(100);
    check_all(&rig, 0..100);
}

fn everything_in_pieces(location: &Path) {
    command("short shortread eintr@50");
    let rig = Rig::with_sink(location, &[("max-size-bytes", "8388608"), ("max-memory-bytes", "0")], held());
    rig.start_stream("s", &h264_caps());
    push(&rig, 0..200);
    rig.stop();
    drop(rig);
    let rig = Rig::new(location, &[]);
    rig.sink.wait_buffers(200);
    check_all(&rig, 0..200);
    assert_eq!(rig.element.property::<gst::Structure>("stats").get::<&str>("last-error"), Ok(""));
}

/// Memory is full while the disk refuses, and the GOP that is on its way lies in memory alone.
fn a_fault_within_a_gop(location: &Path) {
    let rig = Rig::with_sink(location, &[("max-memory-bytes", "100000"), ("leaky", "upstream")], Sink::default());
    rig.start_stream("s", &h264_caps());
    push(&rig, 0..10);
    rig.sink.wait_buffers(10);
    command("eio");
    push(&rig, 10..13);
    rig.sink.wait_buffers(13);
    rig.sink.hold_after(0);
    push(&rig, 13..40);
    assert!(rig.stat("rejected") > 0);
    rig.sink.answer(Some(gst::FlowError::Error));
    rig.sink.release();
    until("an outage", || rig.element.property::<gst::Structure>("stats").get::<u32>("outages") == Ok(1));
    let before = rig.sink.buffers().len();
    rig.sink.answer(None);
    rig.sink.wait_buffers(before + 1);
    assert_eq!(numbers(&rig)[before], 10, "a resume begins at the keyframe");
    command("");
    until("all is counted", || rig.stat("pending") + rig.stat("queued") == 0);
    rig.check_accounts();
}

/// A flush gives up what is just being stored, with the segment in it.
fn a_flush_while_memory_is_stored(location: &Path) {
    let properties = [("persist", "spill"), ("spill-after", "20000000"), ("flush-mode", "discard")];
    let rig = Rig::with_sink(location, &properties, held());
    rig.start_stream("s", &h264_caps());
    // Stored, so that the state is read from the disk.
    push(&rig, 0..5);
    until("it is stored", || rig.stat("stored") == 5);
    command("slow=1500");
    push(&rig, 5..9);
    std::thread::sleep(Duration::from_millis(500));
    rig.source.push_event(gst::event::FlushStart::new());
    rig.source.push_event(gst::event::FlushStop::new(true));
    rig.source.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    push(&rig, 10..20);
    rig.source.push_event(gst::event::FlushStart::new());
    rig.source.push_event(gst::event::FlushStop::new(true));
    command("");
    until("it is stored", || rig.stat("queued") == 0);
    rig.source.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    rig.sink.release();
    push(&rig, 20..40);
    rig.sink.wait("the last", |arrived| arrived.buffers.last().map(number) == Some(39));
    // A resume from the disk has all that it needs.
    assert!(rig.element.emit_by_name::<bool>("rewind", &[]));
    push(&rig, 40..41);
    rig.sink.wait("the last", |arrived| arrived.buffers.last().map(number) == Some(40));
    rig.check_accounts();
}

/// Who purges is told that the disk refuses, not kept for a minute; and the disk is used again when it can be.
fn a_purge_without_a_disk(location: &Path) {
    let rig = Rig::with_sink(location, &[], held());
    rig.start_stream("s", &h264_caps());
    push(&rig, 0..100);
    let element = rig.element.clone();
    command("eio");
    push(&rig, 100..110);
    let since = Instant::now();
    let cleared = std::thread::spawn(move || element.emit_by_name::<bool>("clear", &[]));
    until("it returns", || cleared.is_finished());
    assert!(!cleared.join().unwrap(), "nothing can be erased");
    watch::took("purge without a disk", since.elapsed(), Duration::from_secs(10));
    command("");
    rig.sink.release();
    push(&rig, 110..130);
    rig.sink.wait("the last", |arrived| arrived.buffers.last().map(number) == Some(129));
    until("the disk is used", || rig.element.property_value("status").serialize().unwrap() == "live");
    until("all is counted", || rig.stat("pending") + rig.stat("queued") == 0);
    rig.check_accounts();
    assert_eq!(rig.stat("lost"), 0);
}
