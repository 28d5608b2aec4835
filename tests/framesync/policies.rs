//! Who is in a set, when it goes out without somebody, and what is made up.

use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::common;
use super::rig::{MS, Out, Port, Rig, mark};

const RAW: &str = "video/x-raw";

/// PTS in ms by set.
fn sets(port: &Port) -> BTreeMap<u64, Vec<u64>> {
    let mut sets = BTreeMap::<u64, Vec<u64>>::new();
    for buffer in port.rest() {
        sets.entry(mark(&buffer).map_or(u64::MAX, |mark| mark.id)).or_default().push(buffer.pts().unwrap().mseconds());
    }
    sets
}

#[test]
fn a_clock_makes_a_set_each_interval_from_what_is_nearest() {
    let rig = Rig::aligned(false);
    rig.element.set_property("reference", "clock");
    rig.element.set_property("reference-interval", 100 * MS);
    rig.element.set_property("snap", true);
    rig.element.set_property("stream-timeout", 0u64);
    rig.play();
    let (one, two) = (rig.stream(RAW), rig.stream(RAW));
    for ms in 0..1000 {
        if ms % 40 == 0 {
            one.push_ms(ms);
        }
        if ms % 25 == 3 {
            two.push_ms(ms);
        }
    }
    one.eos();
    two.eos();
    let (one, two) = (sets(&one), sets(&two));
    assert_eq!(one.keys().collect::<Vec<_>>(), two.keys().collect::<Vec<_>>());
    // Snapped to the ticks.
    let ticks: Vec<_> = one.values().map(|pts| pts[0]).collect();
    assert_eq!(ticks, (0..=10).map(|i| 100 * i).collect::<Vec<u64>>());
    assert_eq!(one, two);
}

#[test]
fn sets_of_too_few_streams_do_not_go_out() {
    for (least, out) in [(0u32, [10, 10, 10]), (3, [10, 10, 10]), (2, [20, 20, 10]), (1, [20, 20, 10])] {
        let rig = Rig::aligned(false);
        rig.element.set_property("min-streams", least);
        rig.element.set_property("max-interval", 10 * MS);
        rig.element.set_property("stream-timeout", 0u64);
        rig.play();
        let ports = [rig.stream(RAW), rig.stream(RAW), rig.stream(RAW)];
        for i in 0..20u64 {
            ports[0].push_ms(40 * i);
            ports[1].push_ms(40 * i + 2);
            if i % 2 == 0 {
                ports[2].push_ms(40 * i + 5);
            } else {
                let gap = gst::event::Gap::builder(gst::ClockTime::from_mseconds(40 * i));
                ports[2].src.push_event(gap.duration(gst::ClockTime::from_mseconds(39)).build());
            }
        }
        ports.iter().for_each(|port| port.eos());
        let counts: Vec<usize> = ports.iter().map(|port| port.rest().len()).collect();
        assert_eq!(counts, out, "min-streams={least}");
    }
}

#[test]
fn where_nothing_is_to_fill_in_nothing_comes() {
    let rig = Rig::aligned(true);
    rig.element.set_property("latency", 100 * MS);
    rig.element.set_property_from_str("fill", "none");
    rig.play();
    let (one, two) = (rig.stream(RAW), rig.stream(RAW));
    rig.at(1000);
    one.push_ms(1000);
    two.push_ms(1000);
    one.buffer();
    two.buffer();
    rig.at(1040);
    one.push_ms(1040);
    rig.ring(1140);
    one.buffer();
    assert!(two.out.recv_timeout(Duration::from_millis(50)).is_err());
}

#[test]
fn what_is_made_up_for_a_sink_that_takes_nothing_is_bounded() {
    for fill in ["gap", "last"] {
        let rig = Rig::aligned(true);
        rig.element.set_property("latency", 10 * MS);
        rig.element.set_property_from_str("fill", fill);
        rig.play();
        let (one, two) = (rig.stream(RAW), rig.stream(RAW));
        rig.at(1000);
        one.push_ms(1000);
        two.push_ms(1000);
        two.buffer();
        let (held, holding) = channel();
        let src = rig.element.static_pad("src_1").unwrap();
        let kinds = gst::PadProbeType::BLOCK | gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        let probe = src.add_probe(kinds, move |_, _| {
            let _ = held.send(());
            gst::PadProbeReturn::Ok
        });
        for i in 1..500 {
            rig.ring(1000 + 40 * i);
            one.push_ms(1000 + 40 * i);
            rig.ring(1015 + 40 * i);
            assert_eq!(one.pts(), (960 + 40 * i) * MS, "{fill}");
        }
        holding.recv_timeout(common::PATIENCE).unwrap();
        src.remove_probe(probe.unwrap());
        one.eos();
        two.eos();
        let (mut filled, mut last) = (0, 0);
        loop {
            let at = match two.next() {
                Out::Event(event) => match event.view() {
                    gst::EventView::Gap(gap) => gap.get().0.nseconds(),
                    gst::EventView::Eos(_) => break,
                    _ => continue,
                },
                Out::Buffer(buffer) => buffer.pts().unwrap().nseconds(),
            };
            assert!(at >= last, "{fill}");
            (filled, last) = (filled + 1, at);
        }
        assert!((10..100).contains(&filled), "{fill}: {filled}");
    }
}

#[test]
fn sound_is_never_left_out_repeated_or_moved() {
    let rig = Rig::aligned(false);
    rig.element.set_property("snap", true);
    rig.element.set_property("stream-timeout", 0u64);
    rig.play();
    let (video, audio, since) = (rig.pads(), rig.pads(), rig.pads());
    since.pad.set_property_from_str("policy", "all-since");
    video.begin(RAW);
    audio.begin("audio/x-raw,format=S16LE,rate=48000,channels=2,layout=interleaved");
    since.begin("audio/mpeg,mpegversion=4");
    for ms in 0..2000 {
        if ms % 40 == 0 {
            video.push_ms(ms);
        }
        if ms % 20 == 0 {
            audio.push_ms(ms);
            since.push_ms(ms);
        }
    }
    [&video, &audio, &since].iter().for_each(|port| port.eos());
    let pts = |buffers: &[gst::Buffer]| buffers.iter().map(|b| b.pts().unwrap().mseconds()).collect::<Vec<_>>();
    assert_eq!(video.rest().len(), 50);
    let (audio, since) = (audio.rest(), since.rest());
    let all: Vec<u64> = (0..2000).step_by(20).collect();
    assert_eq!(pts(&audio), all);
    assert_eq!(pts(&since), all);
    // One in each set, and the last when there was no video any more; or all of them.
    assert_eq!(audio.iter().filter(|buffer| mark(buffer).is_some()).count(), 51);
    assert!(since.iter().filter(|buffer| mark(buffer).is_some()).count() >= 99);
    assert!(audio.iter().skip(1).all(|buffer| !buffer.flags().contains(gst::BufferFlags::DISCONT)));
}

#[test]
fn not_live_few_buffers_are_held_and_upstream_waits() {
    let rig = Rig::aligned(false);
    rig.element.set_property("stream-timeout", 0u64);
    rig.element.set_property("max-held-buffers", 4u32);
    rig.play();
    let (one, two) = (rig.stream(RAW), rig.stream(RAW));
    let src = one.src.clone();
    let (sent, sending) = channel();
    let thread = std::thread::spawn(move || {
        for i in 0..10u64 {
            let mut buffer = gst::Buffer::new();
            buffer.make_mut().set_pts(gst::ClockTime::from_mseconds(40 * i));
            src.push(buffer).unwrap();
            sent.send(i).unwrap();
        }
    });
    (0..3).for_each(|i| assert_eq!(sending.recv_timeout(common::PATIENCE), Ok(i)));
    // The fourth is in, its push waits.
    common::until("four came in", || one.stats().get::<u64>("in").unwrap() == 4);
    assert!(sending.recv_timeout(Duration::from_millis(50)).is_err());
    assert!(one.is_silent());
    (0..10).for_each(|i| two.push_ms(40 * i));
    thread.join().unwrap();
    assert_eq!(one.pts(), 0);
}

#[test]
fn upstream_goes_on_once_more_may_be_held() {
    let rig = Rig::aligned(false);
    rig.element.set_property("stream-timeout", 0u64);
    rig.element.set_property("max-held-buffers", 2u32);
    rig.play();
    let (one, _two) = (rig.stream(RAW), rig.stream(RAW));
    let src = one.src.clone();
    let thread = std::thread::spawn(move || (0..2).for_each(|_| assert!(src.push(gst::Buffer::new()).is_ok())));
    common::until("two came in", || one.stats().get::<u64>("in").unwrap() == 2);
    assert!(one.is_silent() && !thread.is_finished());
    rig.element.set_property("max-held-buffers", 3u32);
    common::until("upstream goes on", || thread.is_finished());
}

#[test]
fn an_offset_that_is_made_less_puts_no_dts_above_its_pts() {
    let rig = Rig::new(false);
    rig.play();
    let port = rig.stream("video/x-h264");
    let order = [0u64, 3, 1, 2, 6, 4, 5, 9, 7, 8, 12, 10, 11];
    let mut last = None;
    for (i, place) in order.into_iter().enumerate() {
        if i == 6 {
            port.pad.set_property("offset", -(200 * MS as i64));
        }
        port.push_with(Some((1080 + 40 * place) * MS), Some((1000 + 40 * i as u64) * MS)).unwrap();
        let out = port.buffer();
        assert!(out.pts() >= out.dts(), "{i}: {out:?}");
        assert!(out.dts() >= last, "{i}");
        last = out.dts();
    }
}

#[test]
fn a_pad_that_goes_while_the_state_changes_stops_nobody() {
    for _ in 0..20 {
        let rig = Rig::aligned(false);
        rig.play();
        let (one, two) = (rig.stream(RAW), rig.stream(RAW));
        one.push_ms(0);
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| rig.element.set_state(gst::State::Ready).unwrap());
            scope.spawn(|| rig.element.release_request_pad(&two.pad));
            scope.spawn(|| rig.element.release_request_pad(&one.pad));
        });
        assert!(start.elapsed() < common::PATIENCE / 4);
        assert_eq!(rig.element.pads().len(), 0);
        rig.play();
        let three = rig.stream(RAW);
        three.push_ms(0);
        three.eos();
        assert_eq!(three.rest().len(), 1);
    }
}

#[test]
fn a_pad_that_comes_while_others_run_is_waited_for_from_then_on() {
    let rig = Rig::aligned(true);
    rig.element.set_property("latency", 500 * MS);
    rig.play();
    let one = rig.stream(RAW);
    for i in 0..5 {
        rig.ring(1000 + 40 * i);
        one.push_ms(1000 + 40 * i);
        assert!(mark(&one.buffer()).unwrap().complete);
    }
    let two = rig.stream(RAW);
    for i in 5..10 {
        rig.ring(1000 + 40 * i);
        one.push_ms(1000 + 40 * i);
        two.push_ms(1000 + 40 * i);
        let marks = [mark(&one.buffer()).unwrap(), mark(&two.buffer()).unwrap()];
        assert_eq!(marks[0], marks[1]);
        assert!(marks[0].complete);
    }
}

#[test]
fn few_held_buffers_leave_frames_to_find_their_order() {
    let rig = Rig::aligned(false);
    rig.element.set_property("max-held-buffers", 1u32);
    rig.play();
    let port = rig.stream("video/x-h264");
    let src = port.src.clone();
    let thread = std::thread::spawn(move || {
        for (i, pts) in [80, 240, 160, 120, 200, 400, 320].into_iter().enumerate() {
            let mut buffer = gst::Buffer::new();
            buffer.make_mut().set_pts(gst::ClockTime::from_mseconds(pts));
            buffer.make_mut().set_dts(gst::ClockTime::from_mseconds(40 * i as u64));
            assert!(src.push(buffer).is_ok());
        }
    });
    common::until("all came in", || thread.is_finished());
    port.eos();
    assert_eq!(port.rest().len(), 7);
}
