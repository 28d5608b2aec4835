//! Events, latency, states.

use gst::prelude::*;

use super::rig::{MS, Out, Rig};

#[test]
fn caps_and_other_events_keep_their_places_among_buffers() {
    let rig = Rig::aligned(false);
    rig.element.set_property("stream-timeout", 0u64);
    rig.play();
    let (one, two) = (rig.stream("video/x-raw"), rig.stream("video/x-raw"));
    one.push_ms(0);
    one.src.push_event(gst::event::Caps::new(&gst::Caps::new_empty_simple("video/x-bayer")));
    one.push_ms(40);
    let text = gst::Structure::new_empty("something");
    one.src.push_event(gst::event::CustomDownstream::new(text));
    one.eos();
    [0, 40].into_iter().for_each(|ms| two.push_ms(ms));
    two.eos();
    let mut seen = Vec::new();
    loop {
        match one.next() {
            Out::Buffer(_) => seen.push("buffer".to_string()),
            Out::Event(event) => {
                seen.push(event.type_().name().to_string());
                if event.type_() == gst::EventType::Eos {
                    break;
                }
            }
        }
    }
    let expected = ["stream-start", "caps", "segment", "buffer", "caps", "buffer", "custom-downstream", "eos"];
    assert_eq!(seen, expected);
}

#[test]
fn a_gap_says_that_there_is_nothing_to_wait_for() {
    let rig = Rig::aligned(false);
    rig.element.set_property("stream-timeout", 0u64);
    rig.element.set_property("max-interval", 20 * MS);
    rig.play();
    let (one, two) = (rig.stream("video/x-raw"), rig.stream("video/x-raw"));
    one.push_ms(0);
    two.push_ms(0);
    one.push_ms(40);
    assert_eq!(one.pts(), 0);
    two.buffer();
    let gap = gst::event::Gap::builder(gst::ClockTime::from_mseconds(40)).duration(gst::ClockTime::from_seconds(1));
    two.src.push_event(gap.build());
    assert_eq!(one.pts(), 40 * MS);
    let gap = two.event(gst::EventType::Gap);
    let gst::EventView::Gap(gap) = gap.view() else { unreachable!() };
    assert_eq!(gap.get(), (gst::ClockTime::from_mseconds(40), Some(gst::ClockTime::from_seconds(1))));
}

#[test]
fn a_flush_loses_no_sticky_event_that_had_not_gone_out() {
    let rig = Rig::aligned(false);
    rig.element.set_property("stream-timeout", 0u64);
    rig.play();
    // Never sends: everything behind the first frame of the other is held.
    let _two = rig.pads();
    let one = rig.stream("video/x-raw");
    one.push_ms(0);
    one.src.push_event(gst::event::Caps::new(&gst::Caps::new_empty_simple("video/x-bayer")));
    one.src.push_event(gst::event::FlushStart::new());
    one.src.push_event(gst::event::FlushStop::new(true));
    one.event(gst::EventType::FlushStop);
    // The first ones too, unless they were out before.
    loop {
        let caps = one.event(gst::EventType::Caps);
        let gst::EventView::Caps(caps) = caps.view() else { unreachable!() };
        if caps.caps().structure(0).is_some_and(|s| s.name() == "video/x-bayer") {
            break;
        }
    }
}

fn latency(pad: &gst::Pad) -> (bool, u64) {
    let mut query = gst::query::Latency::new();
    assert!(pad.peer_query(&mut query));
    let (live, least, _) = query.result();
    (live, least.mseconds())
}

#[test]
fn latency_is_what_sets_wait() {
    for (live, mode, format, expected) in [
        (true, "align", "pipeline", (true, 300)),
        (true, "normalize", "pipeline", (true, 0)),
        (true, "normalize", "rtmp", (true, 300)),
        (false, "align", "pipeline", (false, 0)),
    ] {
        let rig = Rig::new(live);
        rig.element.set_property_from_str("mode", mode);
        rig.element.set_property_from_str("timestamp-format", format);
        rig.element.set_property("latency", 300 * MS);
        rig.play();
        let port = rig.stream("video/x-raw");
        assert_eq!(latency(&port.sink), expected, "{mode} {format}");
    }
}

#[test]
fn a_stream_downstream_refuses_stops_alone() {
    let rig = Rig::aligned(false);
    rig.element.set_property("stream-timeout", 0u64);
    rig.play();
    let (one, two) = (rig.stream("video/x-raw"), rig.stream("video/x-raw"));
    let src = rig.element.static_pad("src_1").unwrap();
    src.unlink(&two.sink).unwrap();
    let mut refused = false;
    for i in 0..30 {
        one.push_ms(40 * i);
        if !refused {
            refused = two.push(Some(40 * i * MS)) == Err(gst::FlowError::NotLinked);
        }
    }
    super::common::until("upstream is told", || two.push(Some(2000 * MS)) == Err(gst::FlowError::NotLinked));
    one.eos();
    assert_eq!(one.rest().len(), 30);
}

#[test]
fn a_blocked_sink_does_not_hold_up_stopping_or_releasing() {
    use std::sync::mpsc::channel;
    use std::time::{Duration, Instant};

    let rig = Rig::new(false);
    rig.play();
    let port = rig.stream("video/x-raw");
    let (held, holding) = channel();
    let src = rig.element.static_pad("src_0").unwrap();
    // As a sink that waits: a flush frees it.
    src.add_probe(gst::PadProbeType::BLOCK | gst::PadProbeType::BUFFER, move |_, _| {
        let _ = held.send(());
        gst::PadProbeReturn::Ok
    });
    let pusher = port.src.clone();
    let thread = std::thread::spawn(move || {
        let mut flow = Ok(gst::FlowSuccess::Ok);
        for i in 0..100u64 {
            let mut buffer = gst::Buffer::new();
            buffer.make_mut().set_pts(gst::ClockTime::from_mseconds(40 * i));
            flow = pusher.push(buffer);
            if flow.is_err() {
                break;
            }
        }
        flow
    });
    holding.recv_timeout(Duration::from_secs(60)).unwrap();
    let start = Instant::now();
    rig.element.release_request_pad(&port.pad);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(thread.join().unwrap().is_err());
}

#[test]
fn it_runs_again_after_ready() {
    let rig = Rig::aligned(false);
    rig.play();
    let port = rig.stream("video/x-raw");
    for _ in 0..3 {
        port.push_ms(0);
        port.push_ms(40);
        port.eos();
        assert_eq!(port.rest().len(), 2);
        rig.element.set_state(gst::State::Ready).unwrap();
        rig.element.set_state(gst::State::Playing).unwrap();
        port.begin("video/x-raw");
        // A run of its own.
        assert_eq!(port.stats().get::<u64>("in").unwrap(), 0);
        assert_eq!(rig.element.property_value("status").serialize().unwrap(), "waiting");
    }
}

#[test]
fn while_paused_the_clock_is_not_asked_for_anything() {
    let rig = Rig::aligned(true);
    rig.element.set_property("latency", 100 * MS);
    rig.play();
    let (one, _two) = (rig.stream("video/x-raw"), rig.stream("video/x-raw"));
    rig.at(1000);
    one.push_ms(1000);
    assert_eq!(rig.clock.peek_id_count(), 1);
    rig.element.set_state(gst::State::Paused).unwrap();
    assert_eq!(rig.clock.peek_id_count(), 0);
    // What comes meanwhile asks for nothing either.
    rig.at(5000);
    one.push_ms(1040);
    assert!(one.is_silent());
    assert_eq!(rig.clock.peek_id_count(), 0);
    // Running time goes on where it stood.
    rig.element.set_base_time(gst::ClockTime::from_mseconds(4000));
    rig.play();
    super::common::until("the clock is asked", || rig.clock.peek_id_count() == 1);
    rig.ring(5099);
    assert!(one.is_silent());
    rig.ring(5100);
    assert_eq!(one.pts(), 1000 * MS);
}

#[test]
fn who_waits_behind_many_segments_is_told_when_they_are_gone() {
    let rig = Rig::aligned(true);
    rig.play();
    let (one, two) = (rig.stream("video/x-raw"), rig.stream("video/x-raw"));
    let (held, holding) = std::sync::mpsc::channel();
    let src = rig.element.static_pad("src_0").unwrap();
    let probe = src.add_probe(gst::PadProbeType::BLOCK | gst::PadProbeType::BUFFER, move |_, _| {
        let _ = held.send(());
        gst::PadProbeReturn::Ok
    });
    one.push_ms(0);
    two.push_ms(0);
    holding.recv_timeout(super::common::PATIENCE).unwrap();
    let pusher = one.src.clone();
    let thread = std::thread::spawn(move || {
        for _ in 0..20 {
            pusher.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        }
        let mut buffer = gst::Buffer::new();
        buffer.make_mut().set_pts(gst::ClockTime::from_mseconds(40));
        assert!(pusher.push(buffer).is_ok());
    });
    super::common::until("two came in", || one.stats().get::<u64>("in").unwrap() == 2);
    src.remove_probe(probe.unwrap());
    super::common::until("upstream goes on", || thread.is_finished());
}
