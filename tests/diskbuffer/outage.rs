//! Downstream goes away and comes back.

use gst::prelude::*;

use crate::common::*;

const GOP: u64 = 10;

fn push_frames(rig: &Rig, range: std::ops::Range<u64>) {
    range.for_each(|i| rig.push(frame(i, GOP, 2000)));
}

/// Until upstream hears of it.
fn push_until(rig: &Rig, answer: gst::FlowError) {
    let mut number = 0;
    until("upstream hears of it", || {
        number += 1;
        rig.source.push(frame(number, GOP, 100)) == Err(answer)
    });
}

fn numbers(rig: &Rig) -> Vec<u64> {
    rig.sink.buffers().iter().map(number).collect()
}

fn status(rig: &Rig) -> String {
    let value = rig.element.property_value("status");
    gst::glib::EnumValue::from_value(&value).unwrap().1.nick().to_owned()
}

/// The outage begins at frame 25, in the middle of a GOP, and ends after 60.
fn outage_with(answer: gst::FlowError) {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(temp.path(), &[]);
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..25);
    rig.sink.wait_buffers(25);
    until("25 are acknowledged", || rig.stat("delivered") == 25);
    rig.sink.answer(Some(answer));
    push_frames(&rig, 25..60);
    let message = rig.message("diskbuffer-outage");
    assert!(message.has_field("reason"), "{message}");
    assert_eq!(status(&rig), "outage");
    rig.check_accounts();
    assert_eq!(rig.stat("pending"), 35);
    let events_before = rig.sink.events().len();
    rig.sink.answer(None);
    rig.message("diskbuffer-resumed");
    rig.sink.wait_buffers(25 + 40);
    // Repeated from the keyframe before the first that was refused.
    assert_eq!(numbers(&rig), (0..25).chain(20..60).collect::<Vec<_>>());
    let seen = rig.sink.buffers();
    assert!(seen[25].flags.contains(gst::BufferFlags::DISCONT));
    assert_eq!(seen[25].data, [sps(), pps(), see(&frame(20, GOP, 2000)).data].concat());
    use gst::EventType::{Caps, Segment, StreamStart};
    let events: Vec<_> = rig.sink.events().split_off(events_before).into_iter().map(|(_, e)| e.type_()).collect();
    assert!(events.ends_with(&[StreamStart, Caps, Segment]), "{events:?}");
    let times = rig.sink.running_times();
    assert_eq!(
        times[25..35],
        times[20..30].iter().cloned().take(5).chain(times[30..35].iter().cloned()).collect::<Vec<_>>()
    );
    assert_eq!(times[25], Some(20 * FRAME), "a repeat keeps its place in time");
    push_frames(&rig, 60..70);
    rig.sink.wait_buffers(75);
    rig.eos();
    rig.sink.wait_eos();
    until("all is counted", || rig.stat("pending") == 0);
    rig.message("diskbuffer-drained");
    rig.check_accounts();
    assert_eq!((rig.stat("delivered"), rig.stat("replayed"), rig.stat("lost")), (70, 5, 0));
    assert_eq!(status(&rig), "live");
}

#[test]
fn an_error_downstream_is_an_outage() {
    outage_with(gst::FlowError::Error);
}

#[test]
fn a_flushing_sink_is_an_outage() {
    outage_with(gst::FlowError::Flushing);
}

#[test]
fn caps_refused_after_the_first_buffer_are_an_outage() {
    outage_with(gst::FlowError::NotNegotiated);
}

#[test]
fn an_unlinked_sink_can_be_replaced_by_another() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(temp.path(), &[]);
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..25);
    rig.sink.wait_buffers(25);
    until("25 are acknowledged", || rig.stat("delivered") == 25);
    let src = rig.element.static_pad("src").unwrap();
    src.unlink(&rig.sinkpad).unwrap();
    push_frames(&rig, 25..40);
    rig.message("diskbuffer-outage");
    let other = Sink::default();
    let pad = other.pad();
    src.link(&pad).unwrap();
    other.wait_buffers(20);
    assert_eq!(other.buffers().iter().map(number).collect::<Vec<_>>(), (20..40).collect::<Vec<_>>());
    assert_eq!(other.events().iter().filter(|(at, e)| *at == 0 && e.is_sticky()).count(), 3);
}

#[test]
fn refused_before_anything_was_accepted_is_an_error_as_everywhere() {
    for (answer, expected) in [
        (gst::FlowError::NotNegotiated, gst::FlowError::NotNegotiated),
        (gst::FlowError::NotLinked, gst::FlowError::NotLinked),
    ] {
        let temp = tempfile::tempdir().unwrap();
        let rig = Rig::new(temp.path(), &[]);
        rig.sink.answer(Some(answer));
        rig.start_stream("s", &h264_caps());
        push_until(&rig, expected);
        assert!(rig.bus.pop_filtered(&[gst::MessageType::Error]).is_some());
    }
}

#[test]
fn a_sink_that_is_away_at_the_start_gets_everything() {
    let temp = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    sink.answer(Some(gst::FlowError::Flushing));
    let rig = Rig::with_sink(temp.path(), &[], sink);
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..50);
    rig.message("diskbuffer-outage");
    rig.sink.answer(None);
    rig.sink.wait_buffers(50);
    assert_eq!(numbers(&rig), (0..50).collect::<Vec<_>>());
}

#[test]
fn end_of_stream_from_downstream_goes_upstream() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(temp.path(), &[]);
    rig.sink.answer(Some(gst::FlowError::Eos));
    rig.start_stream("s", &h264_caps());
    push_until(&rig, gst::FlowError::Eos);
}

#[test]
fn a_blocked_sink_is_stalled_and_nothing_is_sent_twice() {
    let temp = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    sink.hold_after(5);
    let rig = Rig::with_sink(temp.path(), &[("max-memory-bytes", "10000")], sink);
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..100);
    rig.sink.wait_buffers(5);
    until("stalled", || status(&rig) == "stalled");
    assert!(rig.stat("memory-bytes") <= 10_000);
    assert_eq!(rig.element.property::<u32>("current-level-buffers"), 95);
    rig.sink.release();
    rig.sink.wait_buffers(100);
    assert_eq!(numbers(&rig), (0..100).collect::<Vec<_>>());
    until("live again", || status(&rig) == "live");
    assert_eq!(rig.stat("replayed"), 0);
    rig.check_accounts();
}

#[test]
fn the_overlap_is_sent_again() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(temp.path(), &[("replay-overlap", &(20 * FRAME).to_string())]);
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..65);
    rig.sink.wait_buffers(65);
    until("65 are acknowledged", || rig.stat("delivered") == 65);
    rig.sink.answer(Some(gst::FlowError::Error));
    push_frames(&rig, 65..70);
    rig.message("diskbuffer-outage");
    rig.sink.answer(None);
    rig.sink.wait_buffers(65 + 30);
    // 20 frames before 65, and back to the keyframe.
    assert_eq!(numbers(&rig), (0..65).chain(40..70).collect::<Vec<_>>());
}

#[test]
fn an_epoch_boundary_inside_an_outage_is_kept() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(temp.path(), &[]);
    rig.start_stream("a", &h264_caps());
    push_frames(&rig, 0..15);
    rig.sink.wait_buffers(15);
    rig.sink.answer(Some(gst::FlowError::Error));
    push_frames(&rig, 15..20);
    rig.message("diskbuffer-outage");
    rig.start_stream("b", &h264_caps());
    push_frames(&rig, 0..20);
    rig.sink.answer(None);
    rig.eos();
    rig.sink.wait_eos();
    assert_eq!(numbers(&rig), (0..15).chain(10..20).chain(0..20).collect::<Vec<_>>());
    let starts: Vec<_> =
        rig.sink.events().iter().filter(|(_, e)| e.type_() == gst::EventType::StreamStart).map(|(at, _)| *at).collect();
    assert_eq!(starts.first(), Some(&0));
    assert_eq!(starts.last(), Some(&25));
}

#[test]
fn leading_pictures_of_an_open_gop_are_left_out_only_when_delivered_before() {
    let stream = open_gop_stream();
    // Cut before each buffer in turn.
    for cut in 1..stream.len() {
        let temp = tempfile::tempdir().unwrap();
        let rig = Rig::new(temp.path(), &[]);
        rig.start_stream("s", &h264_caps());
        stream[..cut].iter().for_each(|s| rig.push(s.2.clone()));
        rig.sink.wait_buffers(cut);
        until("acknowledged", || rig.stat("delivered") == cut as u64);
        rig.sink.answer(Some(gst::FlowError::Error));
        stream[cut..].iter().for_each(|s| rig.push(s.2.clone()));
        rig.message("diskbuffer-outage");
        rig.sink.answer(None);
        rig.eos();
        rig.sink.wait_eos();
        let again: Vec<_> = numbers(&rig).split_off(cut).into_iter().map(|n| n as usize).collect();
        let start = again[0];
        assert!(start <= cut, "cut {cut}: {again:?}");
        assert!((cut..stream.len()).all(|i| again.contains(&i)), "cut {cut}: something is lost: {again:?}");
        assert!([0, 1, 7].contains(&start), "cut {cut}: begins at a keyframe: {again:?}");
        // Nothing that refers back before the start.
        let first_pts = stream[start].0;
        for i in &again {
            let (pts, leading, _) = stream[*i];
            assert!(!(start > 0 && leading && pts < first_pts), "cut {cut}: {again:?}");
        }
    }
}

#[test]
fn a_queue_whose_sink_is_away_swallows_nothing() {
    let temp = tempfile::tempdir().unwrap();
    init();
    let pipeline = gst::Pipeline::new();
    let make = |name: &str| gst::ElementFactory::make(name).build().unwrap();
    let (buffer, queue, fakesink) = (make("diskbuffer"), make("queue"), make("fakesink"));
    buffer.set_property("location", temp.path().to_str().unwrap());
    fakesink.set_property("async", false);
    pipeline.add_many([&buffer, &queue, &fakesink]).unwrap();
    gst::Element::link_many([&buffer, &queue, &fakesink]).unwrap();
    let seen = std::sync::Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
    let arrived = seen.clone();
    fakesink.static_pad("sink").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &info.data {
            arrived.lock().unwrap().insert(buffer.offset());
        }
        gst::PadProbeReturn::Ok
    });
    let source = gst::Pad::builder(gst::PadDirection::Src).build();
    source.link(&buffer.static_pad("sink").unwrap()).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    source.set_active(true).unwrap();
    source.push_event(gst::event::StreamStart::new("s"));
    source.push_event(gst::event::Caps::new(&h264_caps()));
    source.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    let push = |range: std::ops::Range<u64>| range.for_each(|i| _ = source.push(frame(i, GOP, 2000)).unwrap());
    push(0..25);
    until("the first arrive", || seen.lock().unwrap().len() == 25);
    let stat = |name: &str| buffer.property::<gst::Structure>("stats").get::<u64>(name).unwrap();
    until("and are counted", || stat("delivered") == 25);
    fakesink.set_locked_state(true);
    fakesink.set_state(gst::State::Null).unwrap();
    // Live: the queue takes one, finds its sink away, and refuses the next.
    let bus = pipeline.bus().unwrap();
    let outage = |message: gst::Message| message.structure().is_some_and(|s| s.name() == "diskbuffer-outage");
    let next = (25..200).find(|i| {
        push(*i..*i + 1);
        let wait = gst::ClockTime::from_mseconds(20);
        bus.timed_pop_filtered(wait, &[gst::MessageType::Element]).is_some_and(outage)
    });
    push(next.unwrap() + 1..200);
    // Each retry is a chance for the queue to take some more.
    let retries = std::time::Instant::now();
    until("some retries", || retries.elapsed() > std::time::Duration::from_millis(1500));
    assert!(stat("delivered") < 60, "what the queue takes while its sink is away does not count");
    fakesink.set_locked_state(false);
    fakesink.sync_state_with_parent().unwrap();
    until("everything arrives", || seen.lock().unwrap().len() == 200);
    until("and is counted", || stat("delivered") == 200);
    source.set_active(false).unwrap();
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn an_outage_at_the_end_of_the_stream_ends_with_it() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(temp.path(), &[]);
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..15);
    rig.sink.wait_buffers(15);
    rig.sink.answer(Some(gst::FlowError::Error));
    push_frames(&rig, 15..16);
    rig.eos();
    rig.message("diskbuffer-outage");
    rig.sink.answer(None);
    rig.sink.wait_eos();
    rig.message("diskbuffer-resumed");
    until("all is counted", || rig.stat("pending") == 0);
    assert_eq!(status(&rig), "live");
    rig.stop();
    let rig = Rig::new(temp.path(), &[]);
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..1);
    rig.sink.wait_buffers(1);
    assert_eq!(numbers(&rig), [0], "nothing is left to repeat");
}

#[test]
fn a_new_stream_follows_an_end_of_stream_from_downstream() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(temp.path(), &[]);
    rig.sink.answer(Some(gst::FlowError::Eos));
    rig.start_stream("a", &h264_caps());
    push_until(&rig, gst::FlowError::Eos);
    rig.sink.answer(None);
    rig.start_stream("b", &h264_caps());
    push_frames(&rig, 100..110);
    rig.sink.wait("the new stream", |arrived| arrived.buffers.last().is_some_and(|b| b.offsets.0 == 109));
}

/// As a sink does whose segment has a stop: it has had enough until another segment comes.
#[test]
fn what_downstream_has_had_enough_of_is_not_sent_again_before_a_new_segment() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(temp.path(), &[]);
    let (answering, segments) = (rig.sink.clone(), std::sync::atomic::AtomicU32::new(0));
    rig.sinkpad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if info.event().is_some_and(|event| event.type_() == gst::EventType::Segment) {
            let new = segments.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0;
            answering.answer((!new).then_some(gst::FlowError::Eos));
        }
        gst::PadProbeReturn::Ok
    });
    rig.start_stream("a", &h264_caps());
    push_until(&rig, gst::FlowError::Eos);
    rig.start_stream("b", &h264_caps());
    push_frames(&rig, 100..110);
    rig.eos();
    rig.sink.wait_eos();
    assert_eq!(numbers(&rig), (100..110).collect::<Vec<_>>());
    rig.check_accounts();
}
