//! Ends of streams: the bin's own EOS, with sinks that take everything, and with sinks that do not.

use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::common::*;
use crate::faulty::*;
use crate::station::*;

#[test]
fn eos_comes_when_the_sink_has_everything() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("eos", temp.path(), &[]).playing();
    station.start_stream(&h264_caps());
    station.push(0..50);
    station.eos();
    station.wait_eos();
    assert_eq!(station.faults.numbers(), (0..50).collect::<Vec<_>>());
    assert_eq!((station.stat("pending"), station.faults.tell(|told| told.eos)), (0, 1));
    station.stop();
    // Nothing of it comes again.
    let station = Station::faulty("eos", temp.path(), &[]).playing();
    assert_eq!(station.stat("pending"), 0);
}

#[test]
fn eos_with_a_sink_that_cannot_be_reached_leaves_the_backlog() {
    let temp = tempfile::tempdir().unwrap();
    {
        let station = Station::faulty("leaves", temp.path(), &[("eos-timeout", "300000000")]);
        station.faults.tell(|told| told.unreachable = true);
        station.play();
        station.start_stream(&h264_caps());
        station.push(0..50);
        let before = Instant::now();
        station.eos();
        let message = station.message("diskbuffersink-eos-timeout");
        assert_eq!(message.get::<u32>("level-buffers").unwrap(), 50);
        station.wait_eos();
        assert!(before.elapsed() >= Duration::from_millis(300));
    }
    let station = Station::faulty("leaves", temp.path(), &[]);
    station.faults.tell(|told| told.unreachable = false);
    station.play();
    station.faults.wait_for(0..50);
}

#[test]
fn eos_waits_for_ever_when_it_is_told_to() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("for-ever", temp.path(), &[("eos-timeout", "-1")]);
    assert_eq!(station.bin.property::<u64>("eos-timeout"), u64::MAX);
    station.faults.tell(|told| told.unreachable = true);
    station.play();
    station.start_stream(&h264_caps());
    station.push(0..50);
    station.eos();
    for _ in 0..20 {
        station.message("diskbuffersink-error");
    }
    station.faults.tell(|told| told.unreachable = false);
    station.wait_eos();
    assert_complete(&station.faults.numbers(), 0..50);
}

#[test]
fn eos_waits_as_long_as_there_is_progress() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("slow", temp.path(), &[("eos-timeout", "400000000")]);
    station.faults.mood(Mood::Blocks);
    station.play();
    station.start_stream(&h264_caps());
    station.push(0..30);
    station.eos();
    let before = Instant::now();
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(30));
        station.faults.tell(|told| told.takes += 1);
    }
    station.wait_eos();
    assert!(before.elapsed() > Duration::from_millis(800));
    assert_eq!(station.faults.numbers(), (0..30).collect::<Vec<_>>());
}

#[test]
fn a_failure_at_the_end_does_not_cut_it_short() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("last", temp.path(), &[]).playing();
    station.start_stream(&h264_caps());
    station.faults.tell(|told| (told.mood, told.takes) = (Mood::Fails, 25));
    station.push(0..40);
    station.eos();
    station.message("diskbuffersink-error");
    station.message("diskbuffersink-error");
    station.faults.mood(Mood::Takes);
    station.wait_eos();
    assert_complete(&station.faults.numbers(), 0..40);
    assert_eq!(station.stat("pending"), 0);
}

#[test]
fn what_a_queue_inside_still_holds_is_waited_for() {
    let temp = tempfile::tempdir().unwrap();
    // Takes 1.2 s for what the queue has at once.
    let sink = "queue max-size-time=0 ! identity sleep-time=20000 ! faultysink about=behind";
    let station = Station::new("behind", temp.path(), sink, &["video"], &[("eos-timeout", "500000000")]).playing();
    station.start_stream(&h264_caps());
    for number in 0..60 {
        station.sources[0].push(frame(number, GOP, 100)).unwrap();
    }
    station.eos();
    station.wait_eos();
    assert_complete(&station.faults.numbers(), 0..60);
}

#[test]
fn a_child_that_is_closed_may_write_what_it_holds() {
    let temp = tempfile::tempdir().unwrap();
    let sink = "mpegtsmux ! queue max-size-time=0 ! identity sleep-time=30000 ! faultysink about=closes";
    let station = Station::new("closes", temp.path(), sink, &["video"], &[("eos-timeout", "500000000")]).playing();
    station.start_stream(&h264_caps());
    station.push(0..50);
    // Other caps: a child of their own.
    let mut caps = h264_caps();
    caps.make_mut().set("width", 640);
    assert!(station.sources[0].push_event(gst::event::Caps::new(&caps)));
    station.push(50..60);
    station.eos();
    station.wait_eos();
    assert_eq!(station.faults.tell(|told| (told.starts, told.eos)), (2, 2), "each had its end of stream");
}

#[test]
fn an_end_without_data_is_an_end() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("empty", temp.path(), &[("eos-timeout", "500000000")]).playing();
    station.start_stream(&h264_caps());
    station.eos();
    station.wait_eos();
}

#[test]
fn another_stream_after_the_end_gets_another_sink() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("again", temp.path(), &[]).playing();
    for epoch in 0..3 {
        station.start_stream(&h264_caps());
        station.push(epoch * 20..epoch * 20 + 20);
        station.eos();
        station.wait_eos();
        // A flush ends the end, as a seek does.
        assert!(station.sources[0].push_event(gst::event::FlushStart::new()));
        assert!(station.sources[0].push_event(gst::event::FlushStop::new(true)));
    }
    assert_complete(&station.faults.numbers(), 0..60);
    assert_eq!(station.count("child-errors"), 0);
}
