//! Any sequence of states, flushes, seeks and queries: nothing hangs, nothing is left behind.

use std::fs::File;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::common::*;

const STATES: [gst::State; 4] = [gst::State::Null, gst::State::Ready, gst::State::Paused, gst::State::Playing];
/// What a flush or a state change may take.
const PROMPT: Duration = Duration::from_millis(500);

/// Each state from each state, three times over, and back.
fn walk() -> impl Iterator<Item = gst::State> {
    let pairs = STATES.into_iter().flat_map(|from| STATES.into_iter().flat_map(move |to| [from, to]));
    pairs.cycle().take(3 * 2 * STATES.len().pow(2)).chain([gst::State::Null])
}

fn bare_element(location: Option<&Path>) -> gst::Element {
    init();
    let element = gst::ElementFactory::make("diskbuffer").build().unwrap();
    element.set_property("location", location.and_then(Path::to_str));
    element
}

/// The store is not open any more: its lock is free.
fn assert_closed(location: &Path) {
    File::open(location.join("LOCK")).unwrap().try_lock().unwrap();
}

/// Gives the last reference away. A bin's own thread, which continues a state change, may hold one for a moment longer.
fn assert_finalized(object: impl IsA<gst::Object>) {
    let weak = object.downgrade();
    drop(object);
    until("somebody still holds the object", || weak.upgrade().is_none());
}

/// A machine that is busy with other tests may be late once: at least one of some rounds is as prompt as promised.
fn assert_prompt(what: &str, round: impl FnMut(usize) -> Duration) {
    let times: Vec<_> = (0..5).map(round).collect();
    assert!(times.iter().any(|time| *time < PROMPT), "{what}: {times:?}");
}

fn timed(f: impl FnOnce()) -> Duration {
    let start = Instant::now();
    f();
    start.elapsed()
}

/// Tells of each buffer that begins to be pushed into the pad.
fn announce_pushes(pad: &gst::Pad) -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let _ = sender.send(());
        gst::PadProbeReturn::Ok
    });
    receiver
}

#[test]
fn elements_come_and_go() {
    (0..200).for_each(|_| assert_finalized(bare_element(None)));
    let temp = tempfile::tempdir().unwrap();
    for state in STATES.into_iter().cycle().take(20) {
        let element = bare_element(Some(temp.path()));
        element.set_state(state).unwrap();
        element.set_state(gst::State::Null).unwrap();
        assert_finalized(element);
        if state != gst::State::Null {
            assert_closed(temp.path());
        }
    }
}

#[test]
fn any_sequence_of_states_is_possible() {
    let temp = tempfile::tempdir().unwrap();
    let element = bare_element(Some(temp.path()));
    for state in walk() {
        assert_eq!(element.set_state(state), Ok(gst::StateChangeSuccess::Success), "to {state:?}");
        assert_eq!(element.current_state(), state);
    }
    assert_closed(temp.path());
    assert_finalized(element);
}

#[test]
fn without_a_location_no_sequence_of_states_gets_beyond_null() {
    let element = bare_element(None);
    for state in walk() {
        assert_eq!(element.set_state(state).is_ok(), state == gst::State::Null, "to {state:?}");
        assert_eq!(element.current_state(), gst::State::Null);
    }
    assert_finalized(element);
}

/// Data flows whenever it can, and soon meets the limit.
fn pipeline_with(location: Option<&Path>) -> gst::Pipeline {
    init();
    let text = "videotestsrc ! video/x-raw,width=64,height=48,framerate=100/1 ! diskbuffer name=buffer max-size-buffers=30 \
                ! fakesink name=sink sync=true";
    let pipeline = gst::parse::launch(text).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.by_name("buffer").unwrap().set_property("location", location.and_then(Path::to_str));
    pipeline
}

fn settle(pipeline: &gst::Pipeline) {
    let patience = gst::ClockTime::from_seconds(PATIENCE.as_secs());
    let (result, state, pending) = pipeline.state(patience);
    assert!(result.is_ok(), "{state:?}, {pending:?} to come: {:?}", pipeline.bus().unwrap().pop());
}

#[test]
fn any_sequence_of_states_is_possible_while_data_flows() {
    let temp = tempfile::tempdir().unwrap();
    let pipeline = pipeline_with(Some(temp.path()));
    let pushes = announce_pushes(&pipeline.by_name("sink").unwrap().static_pad("sink").unwrap());
    for state in walk() {
        pipeline.set_state(state).unwrap();
        settle(&pipeline);
        if state >= gst::State::Paused {
            pushes.try_iter().for_each(drop);
        }
        if state == gst::State::Playing {
            pushes.recv_timeout(PATIENCE).expect("data flows");
        }
    }
    assert_closed(temp.path());
    assert_finalized(pipeline);
}

#[test]
fn states_may_change_before_the_change_before_is_complete() {
    let temp = tempfile::tempdir().unwrap();
    let pipeline = pipeline_with(Some(temp.path()));
    for state in walk() {
        pipeline.set_state(state).unwrap();
    }
    assert_closed(temp.path());
    pipeline.set_state(gst::State::Playing).unwrap();
    settle(&pipeline);
    pipeline.set_state(gst::State::Null).unwrap();
    assert_closed(temp.path());
    assert_finalized(pipeline);
}

#[test]
fn a_pipeline_without_a_location_does_not_start_and_says_so() {
    let pipeline = pipeline_with(None);
    for state in [gst::State::Ready, gst::State::Paused, gst::State::Playing] {
        assert!(pipeline.set_state(state).is_err());
        let errors = pipeline.bus().unwrap().iter_filtered(&[gst::MessageType::Error]).count();
        assert_eq!(errors, 1);
        pipeline.set_state(gst::State::Null).unwrap();
    }
    assert_finalized(pipeline);
}

#[test]
fn the_element_stops_while_downstream_blocks() {
    assert_prompt("from PLAYING to NULL", |round| {
        let temp = tempfile::tempdir().unwrap();
        let sink = Sink::default();
        sink.hold_after(round);
        let rig = Rig::with_sink(temp.path(), &[], sink);
        let pushes = announce_pushes(&rig.sinkpad);
        rig.start_stream("s", &h264_caps());
        (0..10).for_each(|i| rig.push(frame(i, 1, 500)));
        (0..=round).for_each(|_| pushes.recv_timeout(PATIENCE).unwrap());
        let time = timed(|| rig.stop());
        assert_closed(temp.path());
        // What downstream did not take is still there.
        rig.sink.release();
        rig.element.set_state(gst::State::Playing).unwrap();
        rig.sink.wait_buffers(10);
        assert_eq!(rig.sink.buffers().iter().map(number).collect::<Vec<_>>(), Vec::from_iter(0..10));
        time
    });
}

/// A source that pushes until it is refused, in front of an element that is full, before a sink that takes nothing.
struct Blocked {
    rig: Rig,
    pusher: std::thread::JoinHandle<(u64, gst::FlowError)>,
}

impl Blocked {
    fn new(location: &Path) -> Self {
        let sink = Sink::default();
        sink.hold_after(0);
        let rig = Rig::with_sink(location, &[("max-size-buffers", "1")], sink);
        let (sender, overrun) = mpsc::channel();
        rig.element.connect("overrun", false, move |_| {
            let _ = sender.send(());
            None
        });
        rig.start_stream("s", &h264_caps());
        let source = rig.source.clone();
        let pusher =
            std::thread::spawn(move || (0..).find_map(|i| Some((i, source.push(frame(i, 5, 500)).err()?))).unwrap());
        overrun.recv_timeout(PATIENCE).unwrap();
        Self { rig, pusher }
    }
}

#[test]
fn the_element_stops_while_upstream_waits_for_room() {
    assert_prompt("from PLAYING to NULL", |_| {
        let temp = tempfile::tempdir().unwrap();
        let blocked = Blocked::new(temp.path());
        let time = timed(|| {
            blocked.rig.element.set_state(gst::State::Null).unwrap();
            assert_eq!(blocked.pusher.join().unwrap(), (1, gst::FlowError::Flushing));
        });
        assert_closed(temp.path());
        time
    });
}

fn flush(rig: &Rig) {
    assert!(rig.source.push_event(gst::event::FlushStart::new()));
    assert!(rig.source.push_event(gst::event::FlushStop::new(true)));
}

fn new_segment(rig: &Rig, start: u64) {
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_start(gst::ClockTime::from_nseconds(start * FRAME));
    assert!(rig.source.push_event(gst::event::Segment::new(&segment)));
}

#[test]
fn a_flush_ends_the_wait_for_room() {
    assert_prompt("flush", |_| {
        let temp = tempfile::tempdir().unwrap();
        let Blocked { rig, pusher } = Blocked::new(temp.path());
        let time = timed(|| {
            assert!(rig.source.push_event(gst::event::FlushStart::new()));
            assert_eq!(pusher.join().unwrap(), (1, gst::FlowError::Flushing));
        });
        assert_eq!(rig.source.push(frame(2, 5, 500)), Err(gst::FlowError::Flushing));
        assert!(rig.source.push_event(gst::event::FlushStop::new(true)));
        rig.sink.release();
        new_segment(&rig, 5);
        (5..10).for_each(|i| rig.push(frame(i, 5, 500)));
        rig.eos();
        rig.sink.wait_eos();
        let numbers: Vec<_> = rig.sink.buffers().iter().map(number).collect();
        assert_eq!(numbers, [0, 5, 6, 7, 8, 9], "what was accepted before the flush stays");
        time
    });
}

/// Three of ten frames are delivered when a flush comes, then ten others follow; numbers of what arrived.
fn flushed_in_the_middle(flush_mode: &str) -> (Rig, tempfile::TempDir, Vec<u64>) {
    let temp = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    sink.hold_after(3);
    let rig = Rig::with_sink(temp.path(), &[("flush-mode", flush_mode)], sink);
    let pushes = announce_pushes(&rig.sinkpad);
    rig.start_stream("s", &h264_caps());
    (0..10).for_each(|i| rig.push(frame(i, 5, 500)));
    (0..4).for_each(|_| pushes.recv_timeout(PATIENCE).unwrap());
    flush(&rig);
    rig.sink.release();
    new_segment(&rig, 100);
    (100..110).for_each(|i| rig.push(frame(i, 5, 500)));
    rig.eos();
    rig.sink.wait_eos();
    until("all is acknowledged", || rig.stat("pending") == 0);
    rig.check_accounts();
    let numbers = rig.sink.buffers().iter().map(number).collect();
    (rig, temp, numbers)
}

#[test]
fn a_flush_keeps_the_backlog_when_told_so() {
    let (rig, _temp, numbers) = flushed_in_the_middle("keep");
    // A decoder that was flushed needs a keyframe.
    let expected: Vec<_> = (0..3).chain(0..10).chain(100..110).collect();
    assert_eq!(numbers, expected);
    assert_eq!((rig.stat("dropped"), rig.stat("delivered")), (0, 20));
}

#[test]
fn a_flush_empties_the_backlog_when_told_so() {
    let (rig, _temp, numbers) = flushed_in_the_middle("discard");
    let expected: Vec<_> = (0..3).chain(100..110).collect();
    assert_eq!(numbers, expected);
    assert_eq!((rig.stat("dropped"), rig.stat("delivered")), (7, 13));
    let dropped = rig.message("diskbuffer-dropped");
    assert_eq!(dropped.get::<&str>("reason"), Ok("flush-mode=discard"));
    assert_eq!(dropped.get::<u64>("buffers"), Ok(7));
}

/// Upstream does not send them again.
#[test]
fn caps_stay_in_force_over_a_flush_and_a_restart() {
    let temp = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    sink.hold_after(3);
    let rig = Rig::with_sink(temp.path(), &[("flush-mode", "discard")], sink);
    rig.start_stream("camera", &h264_caps());
    let mut tags = gst::TagList::new();
    tags.make_mut().add::<gst::tags::Title>(&"gate", gst::TagMergeMode::Append);
    assert!(rig.source.push_event(gst::event::Tag::new(tags.clone())));
    (0..10).for_each(|i| rig.push(frame(i, 5, 500)));
    flush(&rig);
    new_segment(&rig, 100);
    for i in 100..110 {
        // Only the bitstream tells the keyframes.
        let mut buffer = frame(i, 5, 500);
        buffer.get_mut().unwrap().set_flags(gst::BufferFlags::DELTA_UNIT);
        rig.push(buffer);
    }
    rig.stop();
    let rig = Rig::new(temp.path(), &[]);
    rig.sink.wait_buffers(10);
    let first = &rig.sink.buffers()[0];
    assert_eq!(number(first), 100);
    assert!(first.data.starts_with(&[sps(), pps()].concat()), "parameter sets of before the flush");
    let before: Vec<_> = rig.sink.events().into_iter().filter(|(at, _)| *at == 0).map(|(_, event)| event).collect();
    let found = |kind: gst::EventType| before.iter().find(|e| e.type_() == kind).unwrap_or_else(|| panic!("no {kind}"));
    let gst::EventView::StreamStart(start) = found(gst::EventType::StreamStart).view() else { unreachable!() };
    assert_eq!(start.stream_id(), "camera");
    let gst::EventView::Caps(caps) = found(gst::EventType::Caps).view() else { unreachable!() };
    assert_eq!(caps.caps_owned(), h264_caps());
    let gst::EventView::Segment(segment) = found(gst::EventType::Segment).view() else { unreachable!() };
    assert_eq!(segment.segment().start().value(), 100 * FRAME as i64);
    let gst::EventView::Tag(tag) = found(gst::EventType::Tag).view() else { unreachable!() };
    assert_eq!(tag.tag_owned(), tags);
}

/// Ten seconds of video with a keyframe each second.
fn write_clip(path: &Path) {
    init();
    let text = format!(
        "videotestsrc num-buffers=250 ! video/x-raw,width=64,height=48,framerate=25/1 ! x264enc key-int-max=25 \
         speed-preset=ultrafast ! h264parse ! mp4mux ! filesink location=\"{}\"",
        path.display()
    );
    let pipeline = gst::parse::launch(&text).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    wait_for_eos(&pipeline);
    pipeline.set_state(gst::State::Null).unwrap();
}

/// Seeks in PAUSED and PLAYING; the PTS at which output began after each in PAUSED, and the target.
fn seek_around(flush_mode: &str) -> Vec<(gst::ClockTime, gst::ClockTime)> {
    let temp = tempfile::tempdir().unwrap();
    let clip = temp.path().join("clip.mp4");
    write_clip(&clip);
    let text = format!(
        "filesrc location=\"{}\" ! qtdemux ! h264parse ! diskbuffer flush-mode={flush_mode} location=\"{}\" \
         ! fakesink name=sink",
        clip.display(),
        temp.path().join("store").display()
    );
    let pipeline = gst::parse::launch(&text).unwrap().downcast::<gst::Pipeline>().unwrap();
    let sink = pipeline.by_name("sink").unwrap();
    let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT;
    let mut begun = Vec::new();
    pipeline.set_state(gst::State::Paused).unwrap();
    settle(&pipeline);
    for second in [3, 8, 0, 5, 9, 1, 1] {
        let target = gst::ClockTime::from_seconds(second);
        pipeline.seek_simple(flags, target).unwrap();
        settle(&pipeline);
        let sample = sink.property::<gst::Sample>("last-sample");
        let stream_time = sample.segment().unwrap().downcast_ref::<gst::ClockTime>().unwrap();
        begun.push((target, stream_time.to_stream_time(sample.buffer().unwrap().pts()).unwrap()));
    }
    pipeline.set_state(gst::State::Playing).unwrap();
    for second in [2, 7, 4, 9] {
        pipeline.seek_simple(flags, gst::ClockTime::from_seconds(second)).unwrap();
    }
    // A sink that waits for the clock would take as long as the backlog.
    sink.set_property("sync", false);
    wait_for_eos(&pipeline);
    pipeline.set_state(gst::State::Null).unwrap();
    assert_closed(&temp.path().join("store"));
    begun
}

#[test]
fn after_a_seek_that_discards_output_begins_at_the_target() {
    for (target, begun) in seek_around("discard") {
        assert!(begun <= target && target - begun < gst::ClockTime::SECOND, "{target} was asked for, got {begun}");
    }
}

#[test]
fn after_a_seek_that_keeps_output_goes_on_with_the_backlog() {
    for (_, begun) in seek_around("keep") {
        assert_eq!(begun, gst::ClockTime::ZERO);
    }
}

/// Answers latency queries as a live source.
fn answer_latency(source: &gst::Pad, min: gst::ClockTime, max: Option<gst::ClockTime>) {
    source.add_probe(gst::PadProbeType::QUERY_UPSTREAM | gst::PadProbeType::PUSH, move |_, info| {
        if let Some(gst::PadProbeData::Query(query)) = &mut info.data
            && let gst::QueryViewMut::Latency(query) = query.view_mut()
        {
            query.set(true, min, max);
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
}

#[test]
fn latency_is_that_of_upstream_and_what_the_element_may_hold() {
    let (min, second) = (gst::ClockTime::from_mseconds(40), gst::ClockTime::SECOND);
    for (limit, upstream, expected) in [
        ("0", Some(min), None),
        ("0", None, None),
        ("1000000000", Some(min), Some(min + second)),
        ("1000000000", None, None),
    ] {
        let temp = tempfile::tempdir().unwrap();
        let rig = Rig::new(temp.path(), &[("max-size-time", limit)]);
        answer_latency(&rig.source, min, upstream);
        let mut query = gst::query::Latency::new();
        assert!(rig.sinkpad.peer_query(&mut query));
        assert_eq!(query.result(), (true, min, expected), "limit {limit}, upstream {upstream:?}");
    }
}

#[test]
fn position_is_that_of_what_was_delivered() {
    let temp = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    sink.hold_after(5);
    let rig = Rig::with_sink(temp.path(), &[], sink);
    let pushes = announce_pushes(&rig.sinkpad);
    let position = || {
        let mut query = gst::query::Position::new(gst::Format::Time);
        rig.sinkpad.peer_query(&mut query).then(|| query.result().value() as u64)
    };
    assert_eq!(position(), None, "nothing was delivered");
    rig.start_stream("s", &h264_caps());
    (0..20).for_each(|i| rig.push(frame(i, 5, 500)));
    (0..6).for_each(|_| pushes.recv_timeout(PATIENCE).unwrap());
    let at = position().unwrap();
    assert!((5 * FRAME..=6 * FRAME).contains(&at), "{at}");
    rig.sink.release();
    rig.sink.wait_buffers(20);
    assert_eq!(position(), Some(20 * FRAME));
}

#[test]
fn duration_and_seeking_are_asked_of_upstream() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(temp.path(), &[]);
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let notes = asked.clone();
    rig.source.add_probe(gst::PadProbeType::QUERY_UPSTREAM | gst::PadProbeType::PUSH, move |_, info| {
        if let Some(gst::PadProbeData::Query(query)) = &info.data {
            notes.lock().unwrap().push(query.type_());
        }
        gst::PadProbeReturn::Ok
    });
    rig.sinkpad.peer_query(gst::query::Duration::new(gst::Format::Time).query_mut());
    rig.sinkpad.peer_query(gst::query::Seeking::new(gst::Format::Time).query_mut());
    assert_eq!(*asked.lock().unwrap(), [gst::QueryType::Duration, gst::QueryType::Seeking]);
}
