//! Everything arrives at its place and as it was, from memory and from the disk: events, changes of caps, buffer lists,
//! buffers of odd shapes.

use gst::prelude::*;

use crate::common::*;
use crate::trace::*;

/// What was pushed and what arrived.
struct Passage {
    rig: Rig,
    input: Trace,
    output: Trace,
}

impl Passage {
    fn begin(location: &std::path::Path, way: Way) -> Self {
        let sink = Sink::default();
        if way.holds() {
            sink.hold_after(0);
        }
        let rig = Rig::with_sink(location, way.properties(), sink);
        accept_any_caps(&rig.sinkpad);
        let (input, output) = (Trace::of(&rig.source), Trace::of(&rig.sinkpad));
        Self { rig, input, output }
    }

    fn end(self, way: Way) -> Vec<Passing> {
        self.rig.eos();
        if way == Way::Backlog {
            assert_eq!(self.rig.stat("memory-bytes"), 0, "the disk is to be read");
        }
        self.rig.sink.release();
        self.rig.sink.wait_eos();
        let output = self.output.get();
        assert_same(&format!("{way:?}"), &self.input.get(), &output);
        until("all is acknowledged", || self.rig.stat("pending") == 0);
        self.rig.check_accounts();
        output
    }
}

/// A pad without a template accepts nothing but its first caps.
fn accept_any_caps(pad: &gst::Pad) {
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM | gst::PadProbeType::PUSH, |_, info| {
        if let Some(gst::PadProbeData::Query(query)) = &mut info.data
            && let gst::QueryViewMut::AcceptCaps(query) = query.view_mut()
        {
            query.set_result(true);
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
}

/// Pushes what `feed` pushes into a stream of H.264, and compares; what arrived.
fn arrives_by(way: Way, feed: impl Fn(&Rig)) -> Vec<Passing> {
    let temp = tempfile::tempdir().unwrap();
    let passage = Passage::begin(temp.path(), way);
    passage.rig.start_stream("s", &h264_caps());
    feed(&passage.rig);
    passage.end(way)
}

/// The same by each way.
fn arrives(feed: impl Fn(&Rig)) -> Vec<Vec<Passing>> {
    Way::ALL.into_iter().map(|way| arrives_by(way, &feed)).collect()
}

/// Where events of a type arrived, as the number of buffers before each, and what they say.
fn places(arrived: &[Passing], kind: &str) -> Vec<(usize, String)> {
    let mut before = 0;
    let mut found = Vec::new();
    for passing in arrived {
        match passing {
            Passing::Buffer(..) => before += 1,
            Passing::Event(said) if said.starts_with(&format!("{kind} ")) => found.push((before, said.clone())),
            _ => {}
        }
    }
    found
}

fn push_frames(rig: &Rig, range: std::ops::Range<u64>) {
    range.for_each(|i| rig.push(frame(i, 5, 500)));
}

/// Pushes `event` behind frame 7 of 20.
fn event_in_the_middle(event: impl Fn() -> gst::Event, kind: &str) {
    let arrived = arrives(|rig| {
        push_frames(rig, 0..7);
        assert!(rig.source.push_event(event()));
        push_frames(rig, 7..20);
    });
    for arrived in arrived {
        assert_eq!(places(&arrived, kind).last(), Some(&(7, said(&event()))));
    }
}

fn structure(name: &str) -> gst::Structure {
    gst::Structure::builder(name)
        .field("door", 3i32)
        .field("text", "a \"b\", c; d=(int)5")
        .field("at", 5_000_000_000u64)
        .field("ratio", gst::Fraction::new(4, 3))
        .field("sizes", gst::Array::new([1i32, -2]))
        .field("inner", gst::Structure::builder("inner").field("x", 0.5f64).build())
        .build()
}

#[test]
fn a_custom_event_arrives_at_its_place() {
    event_in_the_middle(|| gst::event::CustomDownstream::new(structure("alarm")), "custom-downstream");
}

#[test]
fn a_sticky_custom_event_arrives_at_its_place() {
    event_in_the_middle(|| gst::event::CustomDownstreamSticky::new(structure("zone")), "custom-downstream-sticky");
}

#[test]
fn a_custom_event_for_both_directions_arrives_at_its_place() {
    event_in_the_middle(|| gst::event::CustomBoth::new(structure("both")), "custom-both");
}

#[test]
fn a_gap_arrives_at_its_place() {
    let gap =
        || gst::event::Gap::builder(gst::ClockTime::from_mseconds(280)).duration(gst::ClockTime::from_mseconds(5));
    event_in_the_middle(|| gap().build(), "gap");
    event_in_the_middle(|| gap().gap_flags(gst::GapFlags::DATA).build(), "gap");
}

#[test]
fn tags_arrive_at_their_place() {
    for scope in [gst::TagScope::Stream, gst::TagScope::Global] {
        let tags = || {
            let mut tags = gst::TagList::new();
            let list = tags.make_mut();
            list.set_scope(scope);
            list.add::<gst::tags::Title>(&"gate, \"north\" ü", gst::TagMergeMode::Append);
            list.add::<gst::tags::Bitrate>(&2_000_000, gst::TagMergeMode::Append);
            list.add::<gst::tags::DateTime>(&gst::DateTime::from_ymd(2024, 2, 29).unwrap(), gst::TagMergeMode::Append);
            list.add::<gst::tags::GeoLocationLatitude>(&52.520_008, gst::TagMergeMode::Append);
            tags
        };
        event_in_the_middle(|| gst::event::Tag::new(tags()), "tag");
    }
}

#[test]
fn a_segment_arrives_at_its_place() {
    let segment = || {
        let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
        segment.set_start(gst::ClockTime::from_mseconds(100));
        segment.set_stop(gst::ClockTime::from_seconds(70));
        segment.set_time(gst::ClockTime::from_seconds(3));
        segment.set_base(gst::ClockTime::from_mseconds(280));
        segment.set_position(gst::ClockTime::from_mseconds(110));
        segment
    };
    event_in_the_middle(|| gst::event::Segment::new(&segment()), "segment");
    let backwards = || {
        let mut segment = segment();
        segment.set_rate(-1.0);
        segment.set_applied_rate(2.0);
        segment.set_flags(gst::SegmentFlags::RESET | gst::SegmentFlags::SKIP);
        segment
    };
    event_in_the_middle(|| gst::event::Segment::new(&backwards()), "segment");
}

#[test]
fn a_second_stream_start_arrives_at_its_place() {
    init();
    let group = gst::GroupId::next();
    let start = || gst::event::StreamStart::builder("other").group_id(group).flags(gst::StreamFlags::SPARSE).build();
    let arrived = arrives(|rig| {
        push_frames(rig, 0..7);
        assert!(rig.source.push_event(start()));
        assert!(rig.source.push_event(gst::event::Caps::new(&h264_caps())));
        assert!(rig.source.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new())));
        push_frames(rig, 7..20);
    });
    for arrived in arrived {
        assert_eq!(places(&arrived, "stream-start").last(), Some(&(7, said(&start()))));
    }
}

#[test]
fn caps_change_in_mid_stream_at_their_place() {
    init();
    let codec_data = gst::Buffer::from_slice([1u8, 66, 0, 30, 0xFF, 0xE0, 0]);
    let caps = [
        gst::Caps::builder("video/x-h264").field("stream-format", "avc").field("codec_data", codec_data).build(),
        h264_caps(),
        gst::Caps::builder("audio/x-raw")
            .field("format", "S16LE")
            .field("channel-mask", gst::Bitmask::new(3))
            .field("streamheader", gst::Array::new([gst::Buffer::from_slice([7u8; 40])]))
            .build(),
        gst::Caps::builder("video/x-raw").features(["meta:GstVideoOverlayComposition"]).field("width", 64i32).build(),
    ];
    let arrived = arrives(|rig| {
        push_frames(rig, 0..4);
        for (i, caps) in (1..).zip(&caps) {
            assert!(rig.source.push_event(gst::event::Caps::new(caps)));
            push_frames(rig, 4 * i..4 * i + 4);
        }
    });
    for arrived in arrived {
        let at: Vec<_> = places(&arrived, "caps").into_iter().map(|(at, _)| at).collect();
        assert_eq!(at, [0, 4, 8, 12, 16]);
    }
}

#[test]
fn many_events_between_two_buffers_keep_their_order() {
    arrives(|rig| {
        for i in 0..30 {
            push_frames(rig, i..i + 1);
            let numbered = |name: &str| gst::Structure::builder(name).field("number", i).build();
            let zone = gst::Structure::builder(if i % 2 == 0 { "even" } else { "odd" }).field("number", i).build();
            let mut tags = gst::TagList::new();
            tags.make_mut().add::<gst::tags::TrackNumber>(&(i as u32 + 1), gst::TagMergeMode::Append);
            let at = gst::ClockTime::from_nseconds(i * FRAME);
            for event in [
                gst::event::CustomDownstream::new(numbered("before")),
                gst::event::CustomDownstreamSticky::new(zone),
                gst::event::Gap::builder(at).duration(gst::ClockTime::from_mseconds(1)).build(),
                gst::event::Tag::new(tags),
                gst::event::CustomDownstream::new(numbered("after")),
            ] {
                assert!(rig.source.push_event(event));
            }
        }
    });
}

/// The disk is read while buffers and events are being written, which lie apart there. Several at a time, for a reader that
/// is held up sees the difference.
#[test]
fn events_do_not_overtake_buffers_that_are_being_written() {
    let feed = |rig: &Rig| {
        for i in 0..10_000 {
            rig.push(frame(i, 50, 100));
            if i % 25 == 0 {
                let zone = gst::Structure::builder("zone").field("number", i).build();
                assert!(rig.source.push_event(gst::event::CustomDownstreamSticky::new(zone)));
            }
        }
    };
    std::thread::scope(|scope| {
        (0..16).for_each(|_| drop(scope.spawn(|| arrives_by(Way::Disk, feed))));
    });
}

#[test]
fn an_event_out_of_band_overtakes_what_waits() {
    let temp = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    sink.hold_after(0);
    let rig = Rig::with_sink(temp.path(), &[], sink);
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..10);
    assert!(rig.source.push_event(gst::event::CustomDownstreamOob::new(structure("now"))));
    let seen = rig.sink.events().into_iter().find(|(_, e)| e.type_() == gst::EventType::CustomDownstreamOob);
    assert_eq!(seen.unwrap().0, 0);
}

#[test]
fn buffer_lists_keep_their_boundaries() {
    let arrived = arrives(|rig| {
        let mut next = 0;
        for size in [2, 7, 1, 300, 3] {
            let list: gst::BufferList = (next..next + size).map(|i| frame(i, 5, 400)).collect();
            next += size;
            assert_eq!(rig.source.push_list(list), Ok(gst::FlowSuccess::Ok));
            push_frames(rig, next..next + 1);
            next += 1;
            assert!(rig.source.push_event(gst::event::CustomDownstream::new(structure("between"))));
        }
    });
    for arrived in arrived {
        let sizes = arrived.iter().filter_map(|passing| match passing {
            Passing::List(sizes) => Some(sizes.len()),
            _ => None,
        });
        assert_eq!(sizes.collect::<Vec<_>>(), [2, 7, 1, 300, 3]);
    }
}

/// 20 buffers, the middle one made by `odd` out of an ordinary one.
fn odd_buffer(odd: impl Fn(&mut gst::BufferRef)) {
    arrives(|rig| {
        for i in 0..20 {
            let mut buffer = frame(i, 5, 3000);
            if i == 10 {
                odd(buffer.get_mut().unwrap());
            }
            rig.push(buffer);
        }
    });
}

#[test]
fn several_memories_arrive_as_the_same_bytes() {
    odd_buffer(|buffer| {
        let whole = buffer.memory(0).unwrap();
        buffer.append_memory(whole.share(1000..1500));
        buffer.prepend_memory(gst::Memory::from_slice([1u8, 2, 3]));
        buffer.append_memory(gst::Memory::with_size(0));
        assert_eq!(buffer.n_memory(), 4);
    });
    // More than a buffer has room for in itself.
    odd_buffer(|buffer| (0..15u8).for_each(|i| buffer.append_memory(gst::Memory::from_slice([i; 7]))));
}

#[test]
fn part_of_a_memory_arrives_as_that_part() {
    odd_buffer(|buffer| buffer.set_size(1000));
    odd_buffer(|buffer| buffer.resize(100..2000).unwrap());
}

#[test]
fn an_empty_buffer_arrives() {
    odd_buffer(|buffer| buffer.remove_all_memory());
    odd_buffer(|buffer| buffer.set_size(0));
}

#[test]
fn a_buffer_without_times_arrives_without_times() {
    odd_buffer(|buffer| {
        buffer.set_pts(None);
        buffer.set_dts(None);
        buffer.set_duration(None);
        buffer.set_offset(gst::ffi::GST_BUFFER_OFFSET_NONE);
        buffer.set_offset_end(gst::ffi::GST_BUFFER_OFFSET_NONE);
    });
    odd_buffer(|buffer| buffer.set_dts(None));
    odd_buffer(|buffer| buffer.set_pts(None));
}

#[test]
fn times_beyond_the_usual_arrive() {
    let late = gst::ClockTime::from_nseconds(u64::MAX - 1);
    odd_buffer(|buffer| {
        buffer.set_pts(late);
        buffer.set_dts(gst::ClockTime::ZERO);
        buffer.set_duration(gst::ClockTime::ZERO);
        buffer.set_offset(0);
        buffer.set_offset_end(u64::MAX - 1);
    });
}

#[test]
fn every_flag_arrives() {
    for flag in gst::BufferFlags::all().iter() {
        odd_buffer(|buffer| buffer.set_flags(flag));
    }
    odd_buffer(|buffer| buffer.set_flags(gst::BufferFlags::all()));
}

/// A library's own flags lie above those of every buffer: video has its fields there.
#[test]
fn flags_of_media_libraries_arrive() {
    let interlaced = gst_video::VideoBufferFlags::INTERLACED | gst_video::VideoBufferFlags::TFF;
    odd_buffer(|buffer| {
        MediaFlags(interlaced.bits()).put_on(buffer);
        assert_ne!(MediaFlags::of(buffer), MediaFlags(0));
    });
}

#[test]
fn buffers_of_a_pool_go_back_to_it() {
    init();
    let pool = gst::BufferPool::new();
    let mut config = pool.config();
    config.set_params(None, 100, 2, 2);
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();
    let arrived = arrives(|rig| {
        for i in 0..20u8 {
            // Waits for ever when the two buffers do not come back.
            let mut buffer = pool.acquire_buffer(None).unwrap();
            let inner = buffer.get_mut().unwrap();
            inner.set_pts(gst::ClockTime::from_nseconds(u64::from(i) * FRAME));
            inner.map_writable().unwrap().fill(i);
            rig.push(buffer);
        }
    });
    assert!(arrived.iter().all(|arrived| arrived.iter().filter(|p| matches!(p, Passing::Buffer(..))).count() == 20));
}

/// What downstream gets while it keeps up is what was pushed, not a copy.
#[test]
fn memory_is_shared_while_downstream_keeps_up() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(temp.path(), &[]);
    let (sender, receiver) = std::sync::mpsc::channel();
    rig.sinkpad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let _ = sender.send(info.buffer().unwrap().peek_memory(0).as_ptr() as usize);
        gst::PadProbeReturn::Ok
    });
    rig.start_stream("s", &h264_caps());
    for i in 0..10 {
        let buffer = frame(i, 5, 1000);
        let memory = buffer.peek_memory(0).as_ptr() as usize;
        rig.push(buffer);
        assert_eq!(receiver.recv_timeout(PATIENCE), Ok(memory));
    }
}

#[test]
fn memory_that_cannot_be_read_is_refused_with_advice() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(temp.path(), &[]);
    let nvmm = gst::Caps::builder("video/x-h264").features(["memory:NVMM"]).build();
    let accepted = rig.source.peer_query_caps(None);
    assert!(!accepted.is_empty());
    let offered = rig.source.peer_query_caps(Some(&nvmm));
    assert!(offered.is_empty(), "{offered}");
    rig.start_stream("s", &nvmm);
    assert_eq!(rig.source.push(frame(0, 5, 100)), Err(gst::FlowError::NotNegotiated));
    let message = rig.bus.timed_pop_filtered(gst::ClockTime::from_seconds(5), &[gst::MessageType::Error]);
    let message = message.expect("an error message");
    let gst::MessageView::Error(error) = message.view() else { unreachable!() };
    let text = error.error().to_string();
    assert!(text.contains("memory:NVMM") && text.contains("after the encoder"), "{text}");
}

#[test]
fn streams_keep_their_groups_through_an_outage() {
    init();
    let temp = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    sink.answer(Some(gst::FlowError::Error));
    let rig = Rig::with_sink(temp.path(), &[], sink);
    let groups = [gst::GroupId::next(), gst::GroupId::next()];
    for (i, group) in (0..).zip(groups) {
        let start = gst::event::StreamStart::builder(&i.to_string()).group_id(group).build();
        assert!(rig.source.push_event(start));
        assert!(rig.source.push_event(gst::event::Caps::new(&h264_caps())));
        assert!(rig.source.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new())));
        push_frames(&rig, 10 * i..10 * i + 10);
    }
    rig.message("diskbuffer-outage");
    rig.sink.answer(None);
    rig.sink.wait_buffers(20);
    for (i, group) in (0..).zip(groups) {
        let starts: Vec<_> = rig.sink.events().into_iter().map(|(_, event)| event).collect();
        let mut starts = starts.iter().filter_map(|event| match event.view() {
            gst::EventView::StreamStart(start) if start.stream_id() == i.to_string() => Some(start.group_id()),
            _ => None,
        });
        assert!(starts.all(|found| found == Some(group)));
    }
}
