//! Playing from the beginning to the end: what comes, and how.

use gst::prelude::*;

use crate::common::*;
use crate::player::*;

#[test]
fn a_recording_comes_as_it_was_recorded() {
    let dir = recording(0..60);
    let player = Player::new(dir.path(), &[]);
    player.sink.wait_eos();
    let seen = player.sink.buffers();
    assert_eq!(seen.len(), 60);
    for (n, seen) in (0..).zip(&seen) {
        let expected = see(&frame(n, GOP, 100));
        assert_eq!(
            (&seen.data, seen.pts, seen.dts, seen.duration),
            (&expected.data, expected.pts, expected.dts, expected.duration)
        );
        let flags = if n == 0 { expected.flags | gst::BufferFlags::DISCONT } else { expected.flags };
        assert_eq!((n, seen.flags), (n, flags));
    }
    let kinds: Vec<_> = player.sink.events().iter().map(|(at, e)| (*at, e.type_())).collect();
    use gst::EventType as T;
    assert_eq!(kinds, [(0, T::StreamStart), (0, T::Caps), (0, T::Segment), (60, T::Eos)]);
    match player.events(T::StreamStart)[0].1.view() {
        gst::EventView::StreamStart(e) => assert_eq!(e.stream_id(), "camera"),
        _ => unreachable!(),
    }
    assert_eq!(player.stat("delivered"), 60);
    assert_eq!(player.status(), "ended");
}

#[test]
fn each_playback_is_a_group_of_its_own() {
    let dir = recording(0..5);
    let group = || {
        let player = Player::new(dir.path(), &[]);
        player.sink.wait_eos();
        match player.events(gst::EventType::StreamStart)[0].1.view() {
            gst::EventView::StreamStart(e) => e.group_id().unwrap(),
            _ => unreachable!(),
        }
    };
    assert_ne!(group(), group());
}

#[test]
fn a_recording_plays_again_after_a_stop() {
    let dir = recording(0..30);
    let player = Player::new(dir.path(), &[]);
    player.sink.wait_eos();
    player.element.set_state(gst::State::Ready).unwrap();
    player.element.set_state(gst::State::Playing).unwrap();
    player.sink.wait_buffers(60);
    assert_eq!(player.numbers(), (0..30).chain(0..30).collect::<Vec<_>>());
}

#[test]
fn it_plays_while_it_is_recorded_up_to_where_it_began() {
    let dir = tempfile::tempdir().unwrap();
    let rig = recorder(dir.path(), 0..40);
    let player = Player::idle(dir.path(), &[]);
    player.sink.hold_after(10);
    player.element.set_state(gst::State::Playing).unwrap();
    player.sink.wait_buffers(10);
    push(&rig, 40..60);
    player.sink.release();
    player.sink.wait_eos();
    assert_eq!(player.numbers(), (0..40).collect::<Vec<_>>());
    assert!(player.element.property::<gst::Structure>("stats").get::<bool>("shared").unwrap());
}

#[test]
fn positions_and_capture_times_are_put_on_buffers() {
    let dir = recording(0..30);
    let player = Player::new(dir.path(), &[("add-position-meta", "true"), ("add-reference-timestamp-meta", "true")]);
    player.sink.wait_eos();
    let positions = player.sink.positions();
    assert!(positions.is_sorted() && positions.len() == 30);
    assert!(player.sink.replayed().iter().all(|replayed| !replayed));
    assert_eq!(player.element.property::<u64>("current-position"), positions[29]);
    assert_eq!(player.element.property::<gst::Structure>("stats").get::<i64>("captured-at").unwrap() as u64, utc(29));
}

#[test]
fn lists_and_events_come_at_their_places() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &KEPT);
    rig.start_stream("camera", &h264_caps());
    let mark = |at: u64| gst::event::CustomDownstream::new(gst::Structure::builder("mark").field("at", at).build());
    rig.source.push_event(mark(0));
    for list in 0..5u64 {
        let buffers: gst::BufferList = (list * 10..list * 10 + 10).map(|n| frame(n, GOP, 100)).collect();
        assert!(rig.source.push_list(buffers).is_ok());
        rig.source.push_event(mark(list + 1));
    }
    rig.source
        .push_event(gst::event::Gap::builder(gst::ClockTime::from_seconds(2)).duration(gst::ClockTime::SECOND).build());
    rig.sink.wait_buffers(50);
    rig.stop();
    let player = Player::new(dir.path(), &[]);
    player.sink.wait_eos();
    assert_eq!(player.numbers(), (0..50).collect::<Vec<_>>());
    assert_eq!(player.sink.arrived.0.lock().unwrap().lists, [10; 5]);
    let marks: Vec<_> = player
        .events(gst::EventType::CustomDownstream)
        .iter()
        .map(|(at, e)| (*at, e.structure().unwrap().get::<u64>("at").unwrap()))
        .collect();
    assert_eq!(marks, [(0, 0), (10, 1), (20, 2), (30, 3), (40, 4), (50, 5)]);
    assert_eq!(player.events(gst::EventType::Gap).len(), 1);
}

#[test]
fn the_application_can_end_it_and_send_events() {
    let dir = recording(0..60);
    let player = Player::idle(dir.path(), &[]);
    player.sink.hold_after(5);
    player.element.set_state(gst::State::Playing).unwrap();
    player.sink.wait_buffers(5);
    let custom = gst::event::CustomDownstream::new(gst::Structure::new_empty("from-outside"));
    assert!(player.element.send_event(custom));
    player.sink.hold_after(1);
    player.sink.wait("the event", |arrived| {
        arrived.events.iter().any(|(_, e)| e.structure().is_some_and(|s| s.name() == "from-outside"))
    });
    let eos = gst::event::Eos::new();
    let seqnum = eos.seqnum();
    assert!(player.element.send_event(eos));
    player.sink.release();
    player.sink.wait_eos();
    assert!(player.numbers().len() < 10, "{:?}", player.numbers());
    assert_eq!(player.events(gst::EventType::Eos)[0].1.seqnum(), seqnum);
}

#[test]
fn a_downstream_that_fails_is_an_error_and_one_that_has_enough_is_the_end() {
    let dir = recording(0..60);
    let player = Player::idle(dir.path(), &[]);
    player.sink.answer(Some(gst::FlowError::Error));
    player.element.set_state(gst::State::Playing).unwrap();
    assert_eq!(player.error().message(), "Internal data stream error.");
    player.sink.wait_eos();
    let player = Player::idle(dir.path(), &[]);
    player.sink.answer(Some(gst::FlowError::Eos));
    player.element.set_state(gst::State::Playing).unwrap();
    player.sink.wait_eos();
    assert!(player.bus.pop_filtered(&[gst::MessageType::Error]).is_none());
}

#[test]
fn what_is_blocked_downstream_does_not_keep_it_from_stopping() {
    let dir = recording(0..60);
    let player = Player::idle(dir.path(), &[]);
    player.sink.hold_after(5);
    player.element.set_state(gst::State::Playing).unwrap();
    player.sink.wait_buffers(5);
    let start = std::time::Instant::now();
    player.element.set_state(gst::State::Null).unwrap();
    assert!(start.elapsed() < std::time::Duration::from_millis(500), "{:?}", start.elapsed());
}

#[test]
fn an_empty_recording_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    Rig::new(dir.path(), &KEPT).stop();
    let player = Player::new(dir.path(), &[]);
    player.sink.wait_eos();
    let kinds: Vec<_> = player.sink.events().iter().map(|(_, e)| e.type_()).collect();
    assert_eq!(kinds, [gst::EventType::StreamStart, gst::EventType::Segment, gst::EventType::Eos]);
}
