//! What settings do, beyond limits and acknowledgement.

use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::common::*;

const GOP: u64 = 10;

fn push_frames(rig: &Rig, range: std::ops::Range<u64>) {
    range.for_each(|i| rig.push(frame(i, GOP, 1000)));
}

fn numbers(rig: &Rig) -> Vec<u64> {
    rig.sink.buffers().iter().map(number).collect()
}

fn wide(width: i32) -> gst::Caps {
    let mut caps = h264_caps();
    caps.make_mut().set("width", width);
    caps
}

/// Refuses data whose caps have this width.
fn refuse_width(sink: &Sink, width: i32) {
    sink.refuse(move |caps| caps.structure(0).unwrap().get::<i32>("width") == Ok(width));
}

/// A backlog of three epochs by caps, of which the second is refused.
fn backlog(location: &std::path::Path, policy: &str) -> Rig {
    let rig = Rig::with_sink(location, &[], {
        let sink = Sink::default();
        sink.hold_after(0);
        sink
    });
    rig.start_stream("s", &wide(1));
    push_frames(&rig, 0..20);
    rig.source.push_event(gst::event::Caps::new(&wide(2)));
    push_frames(&rig, 20..40);
    rig.source.push_event(gst::event::Caps::new(&wide(3)));
    push_frames(&rig, 40..60);
    rig.stop();
    let sink = Sink::default();
    refuse_width(&sink, 2);
    Rig::with_sink(location, &[("on-unnegotiable", policy), ("retry-interval", "20000000")], sink)
}

#[test]
fn a_stored_epoch_that_downstream_refuses_is_held() {
    let temp = tempfile::tempdir().unwrap();
    let rig = backlog(temp.path(), "hold");
    rig.message("diskbuffer-outage");
    assert_eq!(numbers(&rig), (0..20).collect::<Vec<_>>());
    rig.check_accounts();
    rig.sink.refuse(|_| false);
    rig.sink.wait("the rest", |arrived| arrived.buffers.last().map(number) == Some(59));
    assert_eq!(numbers(&rig), (0..60).collect::<Vec<_>>());
}

#[test]
fn a_stored_epoch_that_downstream_refuses_is_left_out() {
    let temp = tempfile::tempdir().unwrap();
    let rig = backlog(temp.path(), "skip");
    let dropped = rig.message("diskbuffer-dropped");
    rig.sink.wait_buffers(40);
    assert_eq!(numbers(&rig), (0..20).chain(40..60).collect::<Vec<_>>());
    assert_eq!((dropped.get::<&str>("reason"), dropped.get::<u64>("buffers")), (Ok("on-unnegotiable=skip"), Ok(20)));
    assert!(rig.sink.buffers()[20].flags.contains(gst::BufferFlags::DISCONT));
    until("all is counted", || rig.stat("pending") == 0);
    rig.check_accounts();
    assert_eq!((rig.stat("delivered"), rig.stat("dropped")), (40, 20));
}

/// What was sent before and waits for its acknowledgement is neither sent again nor counted as lost.
#[test]
fn what_is_left_out_waits_for_what_was_sent_before_it() {
    let temp = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    refuse_width(&sink, 2);
    let settings = [("on-unnegotiable", "skip"), ("ack-mode", "explicit"), ("add-position-meta", "true")];
    let rig = Rig::with_sink(temp.path(), &settings, sink);
    rig.start_stream("s", &wide(1));
    push_frames(&rig, 0..15);
    rig.sink.wait_buffers(15);
    rig.sink.hold_after(0);
    push_frames(&rig, 15..20);
    rig.source.push_event(gst::event::Caps::new(&wide(2)));
    push_frames(&rig, 20..40);
    rig.source.push_event(gst::event::Caps::new(&wide(3)));
    push_frames(&rig, 40..50);
    rig.sink.release();
    rig.sink.wait_buffers(30);
    assert_eq!(numbers(&rig), (0..20).chain(40..50).collect::<Vec<_>>());
    rig.check_accounts();
    assert_eq!((rig.stat("delivered"), rig.stat("dropped"), rig.stat("lost")), (0, 0, 0));
    let positions = rig.sink.positions();
    let acknowledge = |at: usize| rig.element.emit_by_name::<bool>("acknowledge", &[&positions[at]]);
    until("it is sent", || acknowledge(19));
    assert_eq!((rig.stat("delivered"), rig.stat("dropped"), rig.stat("lost")), (20, 20, 0));
    until("it is sent", || acknowledge(29) && rig.stat("delivered") == 30);
    assert_eq!((rig.stat("pending"), rig.stat("dropped"), rig.stat("replayed")), (0, 20, 0));
    rig.check_accounts();
}

#[test]
fn a_stored_epoch_that_downstream_refuses_is_an_error() {
    let temp = tempfile::tempdir().unwrap();
    let rig = backlog(temp.path(), "error");
    let patience = gst::ClockTime::from_seconds(PATIENCE.as_secs());
    let message = rig.bus.timed_pop_filtered(patience, &[gst::MessageType::Error]).unwrap();
    let gst::MessageView::Error(err) = message.view() else { panic!() };
    assert!(err.error().matches(gst::StreamError::Format), "{err:?}");
    rig.stop();
    let rig = Rig::new(temp.path(), &[]);
    rig.sink.wait("the rest", |arrived| arrived.buffers.last().map(number) == Some(59));
}

#[test]
fn watermarks_are_told_with_hysteresis() {
    let temp = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    sink.hold_after(0);
    let limits = [("max-size-buffers", "100"), ("high-watermark", "0.5"), ("low-watermark", "0.2")];
    let rig = Rig::with_sink(temp.path(), &limits, sink);
    let signals = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let told = signals.clone();
    rig.element.connect("watermark", false, move |values| {
        told.lock().unwrap().push(values[1].get::<bool>().unwrap());
        None
    });
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..60);
    let message = rig.message("diskbuffer-watermark");
    assert_eq!((message.get::<bool>("above"), message.get::<&str>("limit")), (Ok(true), Ok("max-size-buffers")));
    rig.sink.release();
    rig.sink.wait_buffers(60);
    let message = rig.message("diskbuffer-watermark");
    assert_eq!((message.get::<bool>("above"), message.get::<u64>("level-buffers")), (Ok(false), Ok(20)));
    assert_eq!(*signals.lock().unwrap(), [true, false]);
}

#[test]
fn the_pause_between_attempts_is_as_set() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(temp.path(), &[("retry-interval", "1000000"), ("retry-max-interval", "2000000")]);
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..5);
    rig.sink.wait_buffers(5);
    rig.sink.answer(Some(gst::FlowError::Error));
    push_frames(&rig, 5..6);
    let flushes =
        |arrived: &Arrived| arrived.events.iter().filter(|e| e.1.type_() == gst::EventType::FlushStop).count();
    rig.sink.wait("a hundred attempts", |arrived| flushes(arrived) >= 100);
    rig.sink.answer(None);
    rig.message("diskbuffer-resumed");
}

#[test]
fn a_stall_is_told_after_the_time_that_is_set() {
    let temp = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    sink.hold_after(0);
    let rig = Rig::with_sink(temp.path(), &[("stall-timeout", "1000000")], sink);
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..3);
    let status = || {
        let value = rig.element.property_value("status");
        gst::glib::EnumValue::from_value(&value).unwrap().1.nick().to_owned()
    };
    until("it is stalled", || status() == "stalled");
    rig.sink.release();
    rig.sink.wait_buffers(3);
    until("it is live", || status() == "live");
}

/// Six seconds of backlog at twenty times real time take at least 0.3 s less what counts as live.
#[test]
fn catching_up_keeps_to_its_rate() {
    let temp = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    sink.hold_after(0);
    let rig = Rig::with_sink(temp.path(), &[("catch-up-rate", "20.0")], sink);
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..150);
    let start = Instant::now();
    rig.sink.release();
    rig.sink.wait_buffers(150);
    assert!(start.elapsed() >= Duration::from_millis(250), "{:?}", start.elapsed());
}

#[test]
fn a_burst_is_stamped_anew_by_one_constant_shift() {
    let temp = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    sink.hold_after(0);
    let rig = Rig::with_sink(temp.path(), &[], sink);
    rig.start_stream("first", &h264_caps());
    push_frames(&rig, 100..140);
    rig.stop();
    let rig = Rig::idle(Some(temp.path()), &[("timestamp-mode", "restamp")], Sink::default());
    let clock = gst_check::TestClock::new();
    clock.set_time(gst::ClockTime::from_seconds(1000));
    rig.element.set_clock(Some(&clock)).unwrap();
    rig.element.set_base_time(gst::ClockTime::from_seconds(998));
    rig.element.set_state(gst::State::Playing).unwrap();
    rig.source.set_active(true).unwrap();
    rig.sink.wait_buffers(40);
    let times = rig.sink.running_times();
    let expected: Vec<_> = (0..40).map(|i| Some(2_000_000_000 + i * FRAME)).collect();
    assert_eq!(times, expected, "from 4 s back to the 2 s that it is now");
    rig.start_stream("second", &h264_caps());
    push_frames(&rig, 0..5);
    rig.sink.wait_buffers(45);
    let end = 2_000_000_000 + 40 * FRAME;
    assert_eq!(rig.sink.running_times()[40], Some(end), "time does not go back");
    assert_eq!(rig.sink.buffers()[0].pts, Some(100 * FRAME), "PTS stays as recorded");
}

/// Downstream's running time is later than upstream's by the backlog.
#[test]
fn running_times_of_upstream_events_are_translated() {
    let temp = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    sink.hold_after(0);
    let rig = Rig::with_sink(temp.path(), &[], sink);
    rig.start_stream("first", &h264_caps());
    push_frames(&rig, 0..50);
    rig.stop();
    let rig = Rig::new(temp.path(), &[]);
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let told = seen.clone();
    rig.source.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
        if let Some(gst::PadProbeData::Event(event)) = &info.data {
            told.lock().unwrap().push(event.clone());
        }
        gst::PadProbeReturn::Ok
    });
    rig.sink.wait_buffers(50);
    rig.start_stream("second", &h264_caps());
    push_frames(&rig, 0..5);
    rig.sink.wait_buffers(55);
    assert_eq!(rig.sink.running_times()[50], Some(50 * FRAME), "behind the backlog");
    let at = gst::ClockTime::from_nseconds(53 * FRAME);
    let qos = gst::event::Qos::builder(gst::QOSType::Underflow, 0.5, -5).timestamp(at).build();
    until("the stream is live", || {
        rig.sinkpad.push_event(qos.clone());
        !seen.lock().unwrap().is_empty()
    });
    let key_unit = gst_video::UpstreamForceKeyUnitEvent::builder().running_time(at).build();
    rig.sinkpad.push_event(key_unit);
    let seen = seen.lock().unwrap();
    let gst::EventView::Qos(e) = seen[0].view() else { panic!("{seen:?}") };
    assert_eq!(e.get().3, Some(gst::ClockTime::from_nseconds(3 * FRAME)));
    let e = gst_video::UpstreamForceKeyUnitEvent::parse(seen.last().unwrap()).unwrap();
    assert_eq!(e.running_time, Some(gst::ClockTime::from_nseconds(3 * FRAME)));
}

#[test]
fn stats_hold_what_programs_rely_on() {
    let temp = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    sink.hold_after(0);
    let rig = Rig::with_sink(temp.path(), &[("durability", "power")], sink);
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..20);
    let stats = rig.element.property::<gst::Structure>("stats");
    let counts = [
        "received",
        "stored",
        "bypassed",
        "queued",
        "rejected",
        "delivered",
        "pending",
        "dropped",
        "expired",
        "purged",
        "lost",
        "replayed",
    ];
    for name in counts {
        assert!(stats.get::<u64>(name).is_ok() && stats.get::<u64>(format!("{name}-bytes")).is_ok(), "{name}: {stats}");
    }
    for name in ["outage-time", "drain-eta", "disk-bytes", "memory-bytes", "acknowledged-position"] {
        assert!(stats.get::<u64>(name).is_ok(), "{name}: {stats}");
    }
    assert!(stats.get::<u32>("outages").is_ok() && stats.get::<i64>("last-delivered-at").is_ok());
    assert!(stats.get::<f64>("commit-latency-p99").unwrap() > 0.0, "{stats}");
    assert_eq!(stats.get::<f64>("keyframe-ratio"), Ok(0.1));
    assert!(stats.get::<i64>("last-received-at").unwrap() > 0 && stats.get::<&str>("last-error") == Ok(""));
    assert!(stats.get::<&str>("status").is_ok());
    let (durable, age) = (rig.stat("durable-position"), rig.stat("oldest-pending-age"));
    assert!(durable >= 20 && age > 0, "{stats}");
    until("it grows older", || rig.stat("oldest-pending-age") > age);
    rig.sink.release();
    rig.sink.wait_buffers(20);
    until("nothing is pending", || rig.stat("pending") == 0 && rig.stat("oldest-pending-age") == 0);
}
