//! Events among buffers: segments and rates, seeks, streams that begin anew, streams that nobody takes.

use gst::prelude::*;

use super::common;
use super::rig::{MS, Out, Port, Rig, mark};

const RAW: &str = "video/x-raw";

type TimeSegment = gst::FormattedSegment<gst::ClockTime>;

fn ms(ms: u64) -> gst::ClockTime {
    gst::ClockTime::from_mseconds(ms)
}

fn no_timeout(rig: &Rig) {
    rig.element.set_property("stream-timeout", 0u64);
}

/// Sends a segment, as what came first.
fn begin_with(port: &Port, caps: &str, segment: &TimeSegment) {
    port.src.push_event(gst::event::StreamStart::new("stream"));
    port.src.push_event(gst::event::Caps::new(&caps.parse().unwrap()));
    port.src.push_event(gst::event::Segment::new(segment));
}

fn from(start: u64, time: u64, base: u64) -> TimeSegment {
    let mut segment = TimeSegment::new();
    segment.set_start(ms(start));
    segment.set_time(ms(time));
    segment.set_base(ms(base));
    segment
}

/// Running and stream time (ms) of each buffer until EOS, by the segments that went out, and these.
fn times(port: &Port) -> (Vec<(u64, u64)>, Vec<gst::event::Segment<gst::Event>>) {
    let (mut seen, mut segments) = (Vec::new(), Vec::new());
    let mut segment = TimeSegment::new();
    loop {
        match port.next() {
            Out::Event(event) => match event.view() {
                gst::EventView::Segment(view) => {
                    segment = view.segment().downcast_ref().cloned().unwrap();
                    segments.push(view.to_owned());
                }
                gst::EventView::Eos(_) => return (seen, segments),
                _ => {}
            },
            Out::Buffer(buffer) => {
                let pts = buffer.pts().unwrap();
                let times = (segment.to_running_time(pts), segment.to_stream_time(pts));
                seen.push((times.0.unwrap().mseconds(), times.1.unwrap().mseconds()));
            }
        }
    }
}

#[test]
fn stream_time_survives_and_a_new_segment_says_where_it_goes_on() {
    let rig = Rig::new(false);
    rig.play();
    let port = rig.pads();
    begin_with(&port, RAW, &from(10_000, 10_000, 0));
    (0..3).for_each(|i| port.push_ms(10_000 + 40 * i));
    // A loop: running time goes on, stream time begins again.
    port.src.push_event(gst::event::Segment::new(&from(0, 0, 120)));
    (0..3).for_each(|i| port.push_ms(40 * i));
    port.eos();
    let (seen, segments) = times(&port);
    assert_eq!(seen, [(0, 10_000), (40, 10_040), (80, 10_080), (120, 0), (160, 40), (200, 80)]);
    assert_eq!(segments.len(), 2);
}

#[test]
fn seqnums_and_flags_of_segments_go_on() {
    let rig = Rig::new(false);
    rig.play();
    let port = rig.pads();
    let mut segment = from(0, 0, 0);
    segment.set_flags(gst::SegmentFlags::TRICKMODE | gst::SegmentFlags::TRICKMODE_KEY_UNITS | gst::SegmentFlags::RESET);
    port.src.push_event(gst::event::StreamStart::new("stream"));
    let seqnum = gst::Seqnum::next();
    port.src.push_event(gst::event::Segment::builder(&segment).seqnum(seqnum).build());
    port.push_ms(0);
    // The same once more is not worth a word.
    port.src.push_event(gst::event::Segment::builder(&segment).seqnum(seqnum).build());
    port.push_ms(40);
    port.eos();
    let (_, segments) = times(&port);
    assert_eq!(segments.len(), 1);
    assert_eq!(segments[0].seqnum(), seqnum);
    let flags = segments[0].segment().flags();
    assert_eq!(flags, gst::SegmentFlags::TRICKMODE | gst::SegmentFlags::TRICKMODE_KEY_UNITS);
}

#[test]
fn a_rate_is_applied_and_stream_time_stays() {
    for rate in [2.0, 0.5] {
        let rig = Rig::new(false);
        rig.play();
        let port = rig.pads();
        let mut segment = from(10_000, 10_000, 500);
        segment.set_rate(rate);
        begin_with(&port, RAW, &segment);
        for i in 0..5u64 {
            let mut buffer = gst::Buffer::new();
            buffer.make_mut().set_pts(ms(10_000 + 40 * i));
            buffer.make_mut().set_duration(ms(40));
            port.src.push(buffer).unwrap();
            let out = port.buffer();
            assert_eq!(out.duration(), Some(gst::ClockTime::from_nseconds((40e6 / rate) as u64)));
        }
        let sent = rig.element.static_pad("src_0").unwrap().sticky_event::<gst::event::Segment>(0).unwrap();
        let out = sent.segment().downcast_ref::<gst::ClockTime>().unwrap().clone();
        assert_eq!((out.rate(), out.applied_rate()), (1.0, rate));
        // The last one: 160 ms of stream after 10 s.
        let last = ms(500) + gst::ClockTime::from_nseconds((160e6 / rate) as u64);
        let stamp = out.start().unwrap() + last - out.base().unwrap();
        assert_eq!(out.to_running_time(stamp), Some(last));
        assert_eq!(out.to_stream_time(stamp), Some(ms(10_160)));
    }
}

#[test]
fn decoded_frames_go_backwards_and_running_time_forwards() {
    let rig = Rig::new(false);
    rig.play();
    let port = rig.pads();
    let mut segment = from(0, 0, 0);
    segment.set_rate(-1.0);
    segment.set_stop(ms(400));
    begin_with(&port, RAW, &segment);
    for i in (0..10u64).rev() {
        let mut buffer = gst::Buffer::new();
        buffer.make_mut().set_pts(ms(40 * i));
        buffer.make_mut().set_duration(ms(40));
        port.src.push(buffer).unwrap();
    }
    port.eos();
    let (seen, segments) = times(&port);
    assert_eq!(seen.iter().map(|seen| seen.0).collect::<Vec<_>>(), (0..10).map(|i| 40 * i).collect::<Vec<_>>());
    assert_eq!(segments[0].segment().applied_rate(), -1.0);
    assert!(seen.windows(2).all(|pair| pair[0].1 - pair[1].1 == 40), "{seen:?}");
}

#[test]
fn encoded_video_refuses_to_go_backwards() {
    let rig = Rig::new(false);
    rig.play();
    let (coded, raw) = (rig.stream("video/x-h264"), rig.stream(RAW));
    [&coded, &raw].iter().for_each(|port| port.push_ms(0));
    let seek = |rate| {
        let (set, flags) = (gst::SeekType::Set, gst::SeekFlags::FLUSH);
        gst::event::Seek::new(rate, flags, set, gst::ClockTime::ZERO, set, ms(1000))
    };
    for (port, rate, passes) in [(&coded, -1.0, false), (&coded, 2.0, true), (&raw, -1.0, true)] {
        assert_eq!(port.sink.push_event(seek(rate)), passes, "{rate}");
        assert_eq!(port.up.try_iter().any(|event| event.type_() == gst::EventType::Seek), passes);
    }
}

#[test]
fn behind_another_stream_start_there_is_a_segment_again() {
    let rig = Rig::new(false);
    rig.play();
    let port = rig.stream(RAW);
    port.push_ms(0);
    port.eos();
    port.event(gst::EventType::Segment);
    port.rest();
    port.src.push_event(gst::event::StreamStart::new("another"));
    port.src.push_event(gst::event::Caps::new(&gst::Caps::new_empty_simple(RAW)));
    port.src.push_event(gst::event::Segment::new(&from(0, 0, 40)));
    port.push_ms(0);
    for kind in [gst::EventType::StreamStart, gst::EventType::Caps, gst::EventType::Segment] {
        port.event(kind);
    }
    assert_eq!(port.pts(), 40 * MS);
}

#[test]
fn segment_done_waits_for_nobody() {
    let rig = Rig::aligned(false);
    no_timeout(&rig);
    rig.play();
    let ports = [rig.stream(RAW), rig.stream(RAW)];
    for round in 0..3 {
        for i in 0..5 {
            ports[0].push_ms(40 * i);
            ports[1].push_ms(40 * i + 3);
        }
        for port in &ports {
            port.src.push_event(gst::event::SegmentDone::new(ms(200)));
        }
        for port in &ports {
            let first = port.buffer();
            assert!(mark(&first).unwrap().complete, "round {round}");
            (0..4).for_each(|_| drop(port.buffer()));
            port.event(gst::EventType::SegmentDone);
            port.src.push_event(gst::event::Segment::new(&from(0, 0, 200 * (round + 1))));
        }
    }
}

#[test]
fn frames_that_wait_for_their_order_go_when_caps_change_to_what_has_none() {
    let rig = Rig::aligned(false);
    no_timeout(&rig);
    rig.play();
    let port = rig.stream("video/x-h264");
    port.push_with(Some(120 * MS), Some(0)).unwrap();
    port.push_with(Some(80 * MS), Some(40 * MS)).unwrap();
    port.src.push_event(gst::event::Caps::new(&gst::Caps::new_empty_simple(RAW)));
    port.push_ms(160);
    port.push_ms(200);
    assert_eq!([port.pts(), port.pts()].map(|pts| pts / MS), [120, 80]);
    port.event(gst::EventType::Caps);
    assert_eq!(port.pts() / MS, 160);
}

#[test]
fn what_nobody_takes_goes_on_once_it_is_linked() {
    let rig = Rig::new(false);
    rig.play();
    let port = rig.stream(RAW);
    let src = rig.element.static_pad("src_0").unwrap();
    src.unlink(&port.sink).unwrap();
    common::until("upstream is told", || port.push(Some(0)) == Err(gst::FlowError::NotLinked));
    // What piles up meanwhile is what a pad would keep.
    for i in 0..1000u32 {
        let mut tags = gst::TagList::new();
        tags.make_mut().add::<gst::tags::Bitrate>(&i, gst::TagMergeMode::Append);
        port.src.push_event(gst::event::Tag::new(tags));
        port.src.push_event(gst::event::Gap::new(ms(40), ms(40)));
    }
    while port.out.try_recv().is_ok() {}
    src.link(&port.sink).unwrap();
    assert_eq!(port.push(Some(80 * MS)), Ok(gst::FlowSuccess::Ok));
    let mut tags = 0;
    let buffer = loop {
        match port.next() {
            Out::Buffer(buffer) => break buffer,
            Out::Event(event) => tags += u32::from(event.type_() == gst::EventType::Tag),
        }
    };
    assert_eq!(buffer.pts(), Some(ms(80)));
    assert!(buffer.flags().contains(gst::BufferFlags::DISCONT));
    assert_eq!(tags, 1);
}

#[test]
fn the_end_of_a_stream_that_nobody_takes_is_told_when_it_is_linked() {
    let rig = Rig::new(false);
    rig.play();
    let port = rig.stream(RAW);
    let src = rig.element.static_pad("src_0").unwrap();
    src.unlink(&port.sink).unwrap();
    common::until("upstream is told", || port.push(Some(0)) == Err(gst::FlowError::NotLinked));
    port.eos();
    src.link(&port.sink).unwrap();
    port.event(gst::EventType::Eos);
}

#[test]
fn a_seek_of_all_streams_begins_running_time_anew() {
    for reference in [None, Some("clock")] {
        let rig = Rig::aligned(false);
        no_timeout(&rig);
        rig.element.set_property("reference", reference);
        rig.element.set_property_from_str("timestamp-format", "epoch-millis");
        rig.play();
        let ports = [rig.stream(RAW), rig.stream(RAW)];
        let send = |port: &Port, from: u64| {
            for i in 0..10 {
                port.push(Some(1_700_000_000_000 + from + 40 * i)).unwrap();
            }
        };
        ports.iter().for_each(|port| send(port, 10_000));
        ports.iter().for_each(|port| assert_eq!(port.pts(), 0));
        // One after the other, as two sources do.
        let seek = gst::Seqnum::next();
        for port in &ports {
            port.src.push_event(gst::event::FlushStart::builder().seqnum(seek).build());
            port.src.push_event(gst::event::FlushStop::builder(true).seqnum(seek).build());
            while !matches!(port.next(), Out::Event(event) if event.type_() == gst::EventType::FlushStop) {}
            port.src.push_event(gst::event::Segment::builder(&TimeSegment::new()).seqnum(seek).build());
            send(port, 2000);
        }
        for port in &ports {
            port.eos();
        }
        for port in &ports {
            let out = port.rest();
            let pts: Vec<_> = out.iter().map(|buffer| buffer.pts().unwrap().mseconds()).collect();
            assert_eq!(pts, (0..10).map(|i| 40 * i).collect::<Vec<u64>>(), "{reference:?}");
            assert!(out.iter().all(|buffer| mark(buffer).unwrap().complete), "{reference:?}");
        }
    }
}

#[test]
fn stream_starts_keep_their_group() {
    let rig = Rig::new(false);
    rig.play();
    let port = rig.pads();
    let group = gst::GroupId::next();
    port.src.push_event(gst::event::StreamStart::builder("stream").group_id(group).build());
    let event = port.event(gst::EventType::StreamStart);
    let gst::EventView::StreamStart(start) = event.view() else { unreachable!() };
    assert_eq!((start.group_id(), start.stream_id()), (Some(group), "stream"));
}
