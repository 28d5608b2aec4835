//! Sets of frames.

use gst::prelude::*;

use super::common;
use super::rig::{MS, Out, Rig, mark};

const RAW: &str = "video/x-raw";

#[test]
fn frames_of_the_same_moment_share_a_set() {
    let rig = Rig::aligned(false);
    rig.play();
    let (one, two) = (rig.stream(RAW), rig.stream(RAW));
    for i in 0..50u64 {
        one.push_ms(40 * i);
        // Every tenth is missing.
        if i % 10 != 5 {
            two.push_ms(40 * i + 7);
        }
    }
    one.eos();
    two.eos();
    let (one, two) = (one.rest(), two.rest());
    let mut pairs = 0;
    for buffer in &two {
        let set = mark(buffer).unwrap();
        let partner = one.iter().find(|other| mark(other).unwrap().id == set.id).unwrap();
        assert_eq!(buffer.pts().unwrap() - partner.pts().unwrap(), gst::ClockTime::from_mseconds(7));
        assert_eq!((set.spread, set.complete), (7 * MS, true));
        pairs += 1;
    }
    assert_eq!(pairs, 45);
}

#[test]
fn not_live_a_frame_waits_for_the_other_stream() {
    let rig = Rig::aligned(false);
    rig.element.set_property("stream-timeout", 0u64);
    rig.play();
    let (one, two) = (rig.stream(RAW), rig.stream(RAW));
    one.push_ms(0);
    assert!(one.is_silent());
    two.push_ms(3);
    one.push_ms(40);
    two.push_ms(43);
    assert_eq!((one.pts(), two.pts()), (0, 3 * MS));
}

#[test]
fn live_a_set_goes_out_at_its_deadline_and_a_gap_stands_for_what_is_missing() {
    let rig = Rig::aligned(true);
    rig.element.set_property("latency", 100 * MS);
    rig.element.set_property("stream-timeout", 0u64);
    rig.play();
    let (one, two) = (rig.stream(RAW), rig.stream(RAW));
    for i in 0..5 {
        rig.at(1000 + 40 * i);
        one.push_ms(1000 + 40 * i);
        two.push_ms(1000 + 40 * i);
        assert!(mark(&one.buffer()).unwrap().complete);
        two.buffer();
    }
    rig.at(1200);
    one.push_ms(1200);
    rig.ring(1299);
    assert!(one.is_silent());
    rig.ring(1300);
    let alone = one.buffer();
    assert!(!mark(&alone).unwrap().complete);
    let gap = two.event(gst::EventType::Gap);
    let gst::EventView::Gap(gap) = gap.view() else { unreachable!() };
    assert_eq!(gap.get().0, gst::ClockTime::from_mseconds(1200));
    let told = rig.message("framesync-set-incomplete");
    assert_eq!(told.get::<u64>("set-id").unwrap(), mark(&alone).unwrap().id);
    let missing = told.get::<gst::Array>("missing").unwrap();
    assert_eq!(missing.as_slice()[0].get::<&str>().unwrap(), "sink_1");

    // Late for its set.
    rig.at(1310);
    two.push_ms(1200);
    assert!(two.is_silent());
    assert_eq!(two.stats().get::<u64>("late").unwrap(), 1);
}

#[test]
fn the_last_frame_fills_in_where_that_is_asked_for() {
    let rig = Rig::aligned(true);
    rig.element.set_property("latency", 100 * MS);
    rig.play();
    let (one, two) = (rig.stream(RAW), rig.stream(RAW));
    two.pad.set_property_from_str("fill", "last");
    rig.at(1000);
    one.push_ms(1000);
    two.push_ms(1003);
    rig.ring(1100);
    one.buffer();
    let first = two.buffer();
    rig.at(1100);
    one.push_ms(1100);
    rig.ring(1200);
    let set = mark(&one.buffer()).unwrap();
    let again = two.buffer();
    assert_eq!(again.pts(), Some(gst::ClockTime::from_mseconds(1100)));
    assert_eq!(mark(&again).unwrap().id, set.id);
    assert!(mark(&again).unwrap().interpolated);
    // The same memory: nothing was copied.
    assert_eq!(again.peek_memory(0).as_ptr(), first.peek_memory(0).as_ptr());
}

#[test]
fn snapped_frames_share_one_pts() {
    let rig = Rig::aligned(false);
    rig.element.set_property("snap", true);
    rig.play();
    let (one, two) = (rig.stream(RAW), rig.stream(RAW));
    for i in 0..10 {
        one.push_ms(40 * i + 5);
        two.push_ms(40 * i);
    }
    one.eos();
    two.eos();
    let pts = |buffers: Vec<gst::Buffer>| buffers.iter().map(|b| b.pts().unwrap().mseconds()).collect::<Vec<_>>();
    let (one, two) = (pts(one.rest()), pts(two.rest()));
    assert_eq!(one, two);
    assert_eq!(one, (0..10).map(|i| 40 * i).collect::<Vec<u64>>());
}

#[test]
fn lidar_and_imu_ride_along_with_the_camera() {
    let rig = Rig::aligned(false);
    rig.play();
    let (camera, lidar, imu) = (rig.pads(), rig.pads(), rig.pads());
    lidar.pad.set_property_from_str("policy", "nearest");
    imu.pad.set_property_from_str("policy", "all-since");
    for port in [&camera, &lidar, &imu] {
        port.begin("application/x-sensor");
    }
    for ms in (0..400u64).step_by(5) {
        imu.push_ms(ms);
        if ms % 40 == 0 {
            camera.push_ms(ms);
        }
        if ms % 100 == 0 {
            lidar.push_ms(ms);
        }
    }
    for port in [&camera, &lidar, &imu] {
        port.eos();
    }
    let (camera, lidar, imu) = (camera.rest(), lidar.rest(), imu.rest());
    assert_eq!(camera.len(), 10);
    // One in each set, the same one again where it is the nearest.
    let sets = |buffers: &[gst::Buffer]| buffers.iter().filter_map(|b| mark(b).map(|m| m.id)).collect::<Vec<_>>();
    assert_eq!(sets(&lidar), sets(&camera));
    assert_eq!(imu.len(), 80);
    let of_second: Vec<_> = imu.iter().filter(|b| mark(b).is_some_and(|m| m.id == 1)).collect();
    assert_eq!(of_second.len(), 8);
}

#[test]
fn a_reference_makes_a_set_for_each_of_its_frames() {
    let rig = Rig::aligned(false);
    rig.element.set_property("reference", "sink_1");
    rig.element.set_property("max-interval", 20 * MS);
    rig.play();
    let (fast, slow) = (rig.stream(RAW), rig.stream(RAW));
    for i in 0..40u64 {
        fast.push_ms(25 * i);
        if i % 4 == 0 {
            slow.push_ms(25 * i + 3);
        }
    }
    fast.eos();
    slow.eos();
    let (fast, slow) = (fast.rest(), slow.rest());
    assert_eq!(slow.len(), 10);
    let pts: Vec<_> = slow.iter().map(|b| b.pts().unwrap().mseconds() - 3).collect();
    let with = |b: &&gst::Buffer| slow.iter().any(|s| mark(s).unwrap().id == mark(b).unwrap().id);
    let partners: Vec<_> = fast.iter().filter(with).map(|b| b.pts().unwrap().mseconds()).collect();
    assert_eq!(partners, pts);
}

#[test]
fn encoded_frames_are_marked_never_dropped_nor_reordered() {
    let rig = Rig::aligned(false);
    rig.play();
    let (raw, coded) = (rig.stream(RAW), rig.stream("video/x-h264"));
    let order = [0u64, 3, 1, 2, 6, 4, 5, 9, 7, 8];
    for (i, place) in order.into_iter().enumerate() {
        coded.push_with(Some((80 + 40 * place) * MS), Some(40 * i as u64 * MS)).unwrap();
        if i % 2 == 0 {
            raw.push_ms(80 + 40 * i as u64);
        }
    }
    raw.eos();
    coded.eos();
    let (raw, coded) = (raw.rest(), coded.rest());
    let places: Vec<_> = coded.iter().map(|b| (b.pts().unwrap().mseconds() - 80) / 40).collect();
    assert_eq!(places, order);
    for frame in raw.iter().filter(|frame| mark(frame).unwrap().complete) {
        let partner = coded.iter().find(|b| mark(b).map(|m| m.id) == mark(frame).map(|m| m.id)).unwrap();
        assert_eq!(partner.pts(), frame.pts());
    }
    assert_eq!(raw.iter().filter(|frame| mark(frame).unwrap().complete).count(), 5);
}

#[test]
fn a_stream_that_ends_stops_nobody() {
    let rig = Rig::aligned(false);
    rig.element.set_property("stream-timeout", 0u64);
    rig.element.set_property("reference", "sink_1");
    rig.play();
    let (one, two) = (rig.stream(RAW), rig.stream(RAW));
    for i in 0..20u64 {
        if i < 5 {
            two.push_ms(40 * i);
        } else if i == 5 {
            two.eos();
        }
        one.push_ms(40 * i);
    }
    assert_eq!(two.rest().len(), 5);
    one.eos();
    assert_eq!(one.rest().len(), 20);
}

#[test]
fn a_silent_stream_is_not_waited_for() {
    let rig = Rig::aligned(true);
    rig.element.set_property("latency", 1000 * MS);
    rig.element.set_property("stream-timeout", 200 * MS);
    rig.play();
    let (one, two) = (rig.stream(RAW), rig.stream(RAW));
    for i in 0..50u64 {
        rig.ring(1000 + 40 * i);
        one.push_ms(1000 + 40 * i);
        if i < 10 {
            two.push_ms(1000 + 40 * i);
        }
    }
    // The clock stands at 2960: with the latency alone, nothing above 1960 would be out.
    let mut last = 0;
    while last < 2960 {
        last = one.pts() / MS;
    }
    assert_eq!(last, 2960);
}

#[test]
fn pads_come_and_go_while_others_run() {
    let rig = Rig::aligned(false);
    rig.element.set_property("stream-timeout", 0u64);
    rig.play();
    let (one, two) = (rig.stream(RAW), rig.stream(RAW));
    one.push_ms(0);
    two.push_ms(0);
    one.push_ms(40);
    two.push_ms(40);
    assert_eq!((one.pts(), two.pts()), (0, 0));
    rig.element.release_request_pad(&two.pad);
    assert!(rig.element.static_pad("src_1").is_none());
    one.push_ms(80);
    one.push_ms(120);
    assert_eq!(one.pts(), 40 * MS);
    assert_eq!(one.pts(), 80 * MS);
    let three = rig.stream(RAW);
    assert_eq!(three.pad.name(), "sink_1");
    one.push_ms(160);
    three.push_ms(163);
    one.push_ms(200);
    three.push_ms(203);
    one.eos();
    three.eos();
    let (one, three) = (one.rest(), three.rest());
    assert_eq!(three.len(), 2);
    let id = mark(&three[0]).unwrap().id;
    let partner = one.iter().find(|b| mark(b).unwrap().id == id).unwrap();
    assert_eq!(partner.pts().unwrap().mseconds(), 160);
}

#[test]
fn clocks_an_hour_apart_cannot_be_related_and_both_streams_flow() {
    let rig = Rig::aligned(true);
    rig.element.set_property_from_str("timestamp-format", "epoch-millis");
    rig.play();
    let (one, two) = (rig.stream(RAW), rig.stream(RAW));
    for i in 0..20u64 {
        rig.ring(1000 + 40 * i);
        one.push(Some(1_700_000_000_000 + 40 * i)).unwrap();
        two.push(Some(1_700_003_600_000 + 40 * i)).unwrap();
    }
    rig.ring(3000);
    for port in [&one, &two] {
        for i in 0..20u64 {
            assert_eq!(port.pts(), (1000 + 40 * i) * MS);
        }
    }
    assert_eq!(rig.element.property_value("status").serialize().unwrap(), "unlocked");
}

#[test]
fn a_flush_of_all_streams_begins_anew() {
    let rig = Rig::aligned(false);
    rig.play();
    let ports = [rig.stream(RAW), rig.stream(RAW)];
    let round = || {
        for i in 0..5 {
            ports.iter().for_each(|port| port.push_ms(40 * i));
        }
    };
    round();
    for port in &ports {
        assert!(port.src.push_event(gst::event::FlushStart::new()));
        assert!(port.src.push_event(gst::event::FlushStop::new(true)));
    }
    for port in &ports {
        while !matches!(port.next(), Out::Event(event) if event.type_() == gst::EventType::FlushStop) {}
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        port.src.push_event(gst::event::Segment::new(&segment));
    }
    round();
    for port in &ports {
        port.eos();
        let pts: Vec<_> = port.rest().iter().map(|b| b.pts().unwrap().mseconds()).collect();
        assert_eq!(pts, [0, 40, 80, 120, 160]);
    }
}

#[test]
fn few_buffers_are_held_where_few_are_allowed() {
    let rig = Rig::aligned(true);
    rig.element.set_property("latency", 10_000 * MS);
    rig.element.set_property("stream-timeout", 0u64);
    rig.element.set_property("max-held-buffers", 4u32);
    rig.play();
    let (one, _two) = (rig.stream(RAW), rig.stream(RAW));
    for i in 0..10 {
        rig.at(1000 + 40 * i);
        one.push_ms(1000 + 40 * i);
    }
    for i in 0..7 {
        assert_eq!(one.pts(), (1000 + 40 * i) * MS);
    }
    assert!(one.is_silent());
    common::until("three are held", || one.stats().get::<u64>("out").unwrap() == 7);
}

#[test]
fn a_stream_that_never_begins_does_not_hold_up_preroll() {
    let rig = Rig::aligned(false);
    rig.element.set_property("stream-timeout", 100 * MS);
    rig.element.set_state(gst::State::Paused).unwrap();
    let (one, _two) = (rig.stream(RAW), rig.stream(RAW));
    one.push_ms(0);
    assert_eq!(one.pts(), 0);
}

#[test]
fn who_is_paused_is_not_silent() {
    let rig = Rig::aligned(false);
    rig.play();
    let (one, two) = (rig.stream(RAW), rig.stream(RAW));
    one.push_ms(0);
    two.push_ms(0);
    assert_eq!((one.pts(), two.pts()), (0, 0));
    rig.element.set_state(gst::State::Paused).unwrap();
    // As a sink that has its preroll.
    let (held, holding) = std::sync::mpsc::channel();
    let block = gst::PadProbeType::BLOCK | gst::PadProbeType::DATA_DOWNSTREAM;
    let src = rig.element.static_pad("src_0").unwrap();
    let probe = src.add_probe(block, move |_, _| {
        let _ = held.send(());
        gst::PadProbeReturn::Ok
    });
    one.push_ms(40);
    two.push_ms(40);
    holding.recv_timeout(super::common::PATIENCE).unwrap();
    one.push_ms(80);
    // What is set is looked at, at once.
    for ms in [2, 1] {
        rig.element.set_property("stream-timeout", ms * MS);
        assert!(one.is_silent());
    }
    src.remove_probe(probe.unwrap());
    rig.element.set_property("stream-timeout", 0u64);
    rig.play();
    two.push_ms(80);
    for port in [&one, &two] {
        assert_eq!(port.pts(), 40 * MS);
        assert!(mark(&port.buffer()).unwrap().complete);
    }
}

#[test]
fn a_mode_that_is_set_while_running_leaves_nothing_behind() {
    let rig = Rig::aligned(false);
    rig.element.set_property("stream-timeout", 0u64);
    rig.play();
    let (one, two) = (rig.stream(RAW), rig.stream(RAW));
    one.push_ms(0);
    assert!(one.is_silent());
    rig.element.set_property_from_str("mode", "normalize");
    one.push_ms(40);
    assert_eq!((one.pts(), one.pts()), (0, 40 * MS));
    rig.element.set_property_from_str("mode", "align");
    one.push_ms(80);
    two.push_ms(80);
    assert_eq!((one.pts(), two.pts()), (80 * MS, 80 * MS));
}

#[test]
fn a_stream_that_stops_with_a_frame_in_wait_stops_nobody() {
    let rig = Rig::aligned(false);
    rig.element.set_property("stream-timeout", 100 * MS);
    rig.play();
    let (one, two) = (rig.stream(RAW), rig.stream(RAW));
    two.push_ms(7);
    one.push_ms(40);
    one.push_ms(80);
    assert_eq!((one.pts(), two.pts(), one.pts()), (40 * MS, 7 * MS, 80 * MS));
}
