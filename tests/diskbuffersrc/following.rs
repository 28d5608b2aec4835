//! Following what is being written.

use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::common::*;
use crate::player::*;

#[test]
fn what_is_written_comes_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let rig = recorder(dir.path(), 0..40);
    let player = Player::new(dir.path(), &[("follow", "true"), ("start", "latest")]);
    player.sink.wait_buffers(15);
    let mut slowest = Duration::ZERO;
    for n in 40..60 {
        let before = Instant::now();
        push(&rig, n..n + 1);
        player.sink.wait_buffers((n - 25 + 1) as usize);
        slowest = slowest.max(before.elapsed());
    }
    assert_eq!(player.numbers(), (25..60).collect::<Vec<_>>());
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    assert!(player.events(gst::EventType::Eos).is_empty());
    until("it to wait", || player.status() == "waiting");
    player.element.send_event(gst::event::Eos::new());
    player.sink.wait_eos();
}

#[test]
fn following_is_live() {
    let dir = tempfile::tempdir().unwrap();
    let rig = recorder(dir.path(), 0..40);
    let player = Player::idle(dir.path(), &[("follow", "true")]);
    assert_eq!(player.element.set_state(gst::State::Paused), Ok(gst::StateChangeSuccess::NoPreroll));
    let mut latency = gst::query::Latency::new();
    assert!(player.element.query(&mut latency));
    let (live, min, max) = latency.result();
    assert!(live && min > gst::ClockTime::ZERO && max.is_none());
    // Nothing comes before PLAYING.
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(player.numbers(), Vec::<u64>::new());
    player.element.set_state(gst::State::Playing).unwrap();
    player.sink.wait_buffers(40);
    assert_eq!(player.element.set_state(gst::State::Paused), Ok(gst::StateChangeSuccess::NoPreroll));
    push(&rig, 40..50);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(player.numbers().len(), 40);
    player.element.set_state(gst::State::Playing).unwrap();
    player.sink.wait_buffers(50);
}

#[test]
fn what_can_be_sought_grows_and_its_beginning_moves() {
    let dir = tempfile::tempdir().unwrap();
    let rig = recorder(dir.path(), 0..250);
    let player = Player::new(dir.path(), &[("follow", "true")]);
    player.sink.wait_buffers(250);
    let range = || {
        let mut seeking = gst::query::Seeking::new(gst::Format::Time);
        assert!(player.element.query(&mut seeking));
        let (seekable, start, end) = seeking.result();
        let value = |value: gst::GenericFormattedValue| value.value() as u64 / SECOND;
        assert!(seekable);
        (value(start), value(end))
    };
    assert_eq!(range(), (0, 10));
    push(&rig, 250..500);
    player.sink.wait_buffers(500);
    assert_eq!(range(), (0, 20));
    rig.element.set_property("retention-time", 1u64);
    push(&rig, 500..525);
    until("the beginning to move", || range().0 > 0);
    assert!(player.seek(gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE, 0));
    player
        .sink
        .wait("a buffer after the seek", |a| a.events.iter().any(|(_, e)| e.type_() == gst::EventType::FlushStop));
    push(&rig, 525..550);
    player.sink.wait("the live end", |a| a.buffers.last().is_some_and(|seen| number(seen) == 549));
}

#[test]
fn a_stop_ends_following() {
    let dir = tempfile::tempdir().unwrap();
    let rig = recorder(dir.path(), 0..10);
    let stop = (T0 + 2 * SECOND).to_string();
    let player = Player::new(dir.path(), &[("follow", "true"), ("stop", &stop)]);
    player.sink.wait_buffers(10);
    push(&rig, 10..60);
    player.sink.wait_eos();
    assert_eq!(player.numbers(), (0..50).collect::<Vec<_>>());
}

#[test]
fn it_goes_on_when_the_writer_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let rig = recorder(dir.path(), 0..50);
    let player = Player::new(dir.path(), &[("follow", "true")]);
    player.sink.wait_buffers(50);
    rig.eos();
    rig.stop();
    drop(rig);
    let rig = Rig::new(dir.path(), &KEPT);
    rig.start_stream("again", &h264_caps());
    push(&rig, 0..50);
    player.sink.wait_buffers(100);
    assert_eq!(player.numbers(), (0..50).chain(0..50).collect::<Vec<_>>());
    assert_eq!(player.segments().len(), 2);
    assert!(player.events(gst::EventType::Eos).is_empty(), "what was the end is a boundary");
    assert_eq!(player.stat("lost"), 0);
}

#[test]
fn an_empty_stream_is_followed_from_its_first_keyframe() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &KEPT);
    let player = Player::new(dir.path(), &[("follow", "true")]);
    until("it to wait", || player.status() == "waiting");
    rig.start_stream("camera", &h264_caps());
    push(&rig, 0..30);
    player.sink.wait_buffers(30);
    assert_eq!(player.numbers(), (0..30).collect::<Vec<_>>());
    assert_eq!(player.segments()[0].time(), Some(gst::ClockTime::ZERO));
}

#[test]
fn frames_are_shown_as_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let rig = recorder(dir.path(), 0..26);
    let clock = gst::SystemClock::obtain();
    let pipeline = gst::Pipeline::new();
    let source = gst::ElementFactory::make("diskbuffersrc").build().unwrap();
    source.set_property("location", dir.path().to_str().unwrap());
    source.set_property("follow", true);
    source.set_property("start", "latest");
    let sink =
        gst::ElementFactory::make("fakesink").property("sync", true).property("signal-handoffs", true).build().unwrap();
    pipeline.add_many([&source, &sink]).unwrap();
    source.link(&sink).unwrap();
    pipeline.use_clock(Some(&clock));
    let (sender, received) = std::sync::mpsc::channel();
    sink.connect("handoff", false, move |values| {
        let buffer = values[1].get::<gst::Buffer>().unwrap();
        let _ = sender.send(buffer.offset());
        None
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    for n in 26..40 {
        push(&rig, n..n + 1);
        let start = Instant::now();
        while received.recv_timeout(PATIENCE).unwrap() != n {}
        // Its place in time and the latency; nothing waits for a clock that began before.
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
    // The writer was away: what it writes then is not late.
    rig.stop();
    drop(rig);
    let least = pipeline.current_running_time().unwrap().max(gst::ClockTime::from_mseconds(1800));
    until("the clock to pass what was shown", || pipeline.current_running_time().unwrap() > least);
    let _rig = recorder(dir.path(), 100..110);
    while received.recv_timeout(PATIENCE).unwrap() != 109 {}
    let segment = source.static_pad("src").unwrap().sticky_event::<gst::event::Segment>(0).unwrap();
    let base = segment.segment().downcast_ref::<gst::ClockTime>().unwrap().base().unwrap();
    let now = pipeline.current_running_time().unwrap();
    assert!(base >= least && base <= now, "{base} of {now}");
    pipeline.set_state(gst::State::Null).unwrap();
}
