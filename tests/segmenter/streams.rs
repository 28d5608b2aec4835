//! Several streams, cut at the same running times.

use std::collections::BTreeMap;

use gst::prelude::*;

use super::played::{Played, check_order, field, play};
use super::rig::{AUDIO, MS, RAW_25, Rig, buffer};

fn streams(message: &gst::StructureRef) -> BTreeMap<String, gst::Structure> {
    let streams: gst::Array = message.get("streams").unwrap();
    streams
        .iter()
        .map(|stream| {
            let stream: gst::Structure = stream.get().unwrap();
            (stream.get::<String>("pad").unwrap(), stream)
        })
        .collect()
}

/// Two cameras and sound, 6 s.
fn cameras(settings: &str) -> Played {
    play(&format!(
        "segmenter name=s {settings} \
         videotestsrc num-buffers=180 ! video/x-raw,width=32,height=32,framerate=30/1 ! s.sink  s.src ! fakesink async=false \
         videotestsrc num-buffers=150 ! video/x-raw,width=32,height=32,framerate=25/1 ! s.sink_0  s.src_0 ! fakesink async=false \
         audiotestsrc num-buffers=281 samplesperbuffer=1024 ! audio/x-raw,rate=48000 ! s.sink_1  s.src_1 ! fakesink async=false"
    ))
}

#[test]
fn two_cameras_and_sound_have_equal_windows_in_running_time() {
    for (settings, unit) in [
        ("duration=1000000000", 1000 * MS),
        ("duration=1000000000 time-base=running", 1000 * MS),
        ("strategy=keyframe duration=2000000000", 2000 * MS),
    ] {
        let played = cameras(settings);
        for pad in ["src", "src_0", "src_1"] {
            check_order(played.items(pad));
            for seen in played.buffers(pad) {
                assert_eq!(seen.ids, Some(vec![seen.running_time.unwrap() / unit]), "{settings} {pad} {seen:?}");
            }
        }
        assert_eq!(played.closed.len(), 6000 * MS as usize / unit as usize, "{settings}");
        for message in &played.closed {
            assert!(message.get::<bool>("complete").unwrap(), "{message}");
            let streams = streams(message);
            assert_eq!(streams.keys().collect::<Vec<_>>(), ["sink", "sink_0", "sink_1"]);
            for (name, src) in [("sink", "src"), ("sink_0", "src_0"), ("sink_1", "src_1")] {
                let id = field(message, "window-id");
                let inside = played.buffers(src).iter().filter(|seen| seen.ids == Some(vec![id])).count() as u64;
                assert_eq!(field(&streams[name], "frames"), inside, "{message}");
                assert_eq!(field(&streams[name], "missing"), 0, "{message}");
            }
            let sum: u64 = streams.values().map(|stream| field(stream, "frames")).sum();
            assert_eq!(field(message, "frames"), sum);
        }
    }
}

#[test]
fn contents_of_the_reference_cut_the_others() {
    // Keyframes each 17 frames of 25 in a second.
    let played = play(
        "segmenter name=s strategy=keyframe duration=0 \
         videotestsrc num-buffers=150 ! video/x-raw,width=64,height=64,framerate=25/1 ! \
           x264enc key-int-max=17 option-string=scenecut=0 bframes=2 threads=1 speed-preset=ultrafast ! h264parse ! \
           s.sink  s.src ! fakesink async=false \
         audiotestsrc num-buffers=281 samplesperbuffer=1024 ! audio/x-raw,rate=48000 ! s.sink_0  s.src_0 ! fakesink async=false",
    );
    let video = played.buffers("src");
    let mut starts: Vec<_> = video.iter().filter(|seen| seen.keyframe).map(|seen| seen.running_time.unwrap()).collect();
    starts.sort_unstable();
    assert!(starts.len() > 8);
    for seen in played.buffers("src_0") {
        let at = seen.running_time.unwrap();
        let nth = starts.partition_point(|start| *start <= at);
        let ids = seen.ids.clone().unwrap_or_default();
        let Some(nth) = nth.checked_sub(1) else { continue };
        assert_eq!(ids.len(), 1, "{seen:?}");
        // Windows have the same starts in stream time, shifted by a constant.
        let id_of_video = video.iter().find(|of| of.running_time == Some(starts[nth])).unwrap().ids.clone().unwrap();
        assert_eq!(ids, id_of_video, "{seen:?}");
    }
    check_order(played.items("src_0"));
    assert!(played.closed.iter().all(|message| message.get::<bool>("complete").unwrap()));
}

#[test]
fn both_streams_of_one_demuxer_reach_one_muxer() {
    // Windows that are collected are longer than what queues hold otherwise.
    for settings in [
        "duration=1000000000",
        "strategy=keyframe duration=0",
        "strategy=adaptive target-complexity=3",
        "output=buffer-lists duration=1000000000",
        "output=buffer-lists duration=9000000000",
        "output=buffer-lists duration=20000000",
    ] {
        let Some(path) = super::common::clip("concat_ccby_b3.mp4") else { return };
        let played = play(&format!(
            "filesrc location={} ! qtdemux name=d  segmenter name=s {settings} \
             d.video_0 ! h264parse ! s.sink  s.src ! m.video_0 \
             d.audio_0 ! aacparse ! s.sink_0  s.src_0 ! m.audio_0  matroskamux name=m ! fakesink async=false",
            path.display()
        ));
        for pad in ["src", "src_0"] {
            check_order(played.items(pad));
            assert!(played.buffers(pad).len() > 1000, "{settings} {pad}");
        }
        assert!(played.closed.iter().all(|message| message.get::<bool>("complete").unwrap()), "{settings}");
    }
}

#[test]
fn a_live_stream_that_stalls_holds_the_others_no_longer_than_the_bound() {
    let rig = Rig::live("duration=1000000000 allowed-lateness=500000000").play();
    let (one, two) = (rig.main(), rig.further());
    one.begin(RAW_25);
    two.begin(RAW_25);
    one.push(0);
    two.push(0);
    one.push_span(40, 1480);
    two.push_span(40, 400);
    assert!(rig.closed().is_empty());
    one.push_span(1480, 1600);
    let closed = rig.closed();
    assert_eq!(closed.len(), 1);
    assert!(!closed[0].get::<bool>("complete").unwrap());
    let of = streams(&closed[0]);
    assert_eq!((field(&of["sink"], "frames"), field(&of["sink_0"], "frames")), (25, 10));
    assert!(of["sink"].get::<bool>("complete").unwrap() && !of["sink_0"].get::<bool>("complete").unwrap());
    // It comes back: late for the window that is closed, in time for the next.
    two.push(800);
    two.push_span(1000, 1200);
    two.wait_buffers(16);
    let seen = two.seen();
    assert!(seen[10].late && seen[10].ids == Some(vec![0]));
    assert!(!seen[11].late && seen[11].ids == Some(vec![1]));
    one.wait_buffers(40);
}

#[test]
fn streams_that_are_not_live_are_waited_for() {
    let rig = Rig::new("duration=1000000000").play();
    let (one, two) = (rig.main(), rig.further());
    one.begin(RAW_25);
    two.begin(RAW_25);
    one.push_span(0, 4880);
    two.push_span(0, 800);
    assert!(rig.closed().is_empty());
    let gap =
        gst::event::Gap::builder(gst::ClockTime::from_mseconds(800)).duration(gst::ClockTime::from_mseconds(1700));
    two.peer.push_event(gap.build());
    assert_eq!(rig.closed_ids(), [0, 1]);
    two.eos();
    assert_eq!(rig.closed_ids(), [2, 3]);
    one.eos();
    let last = rig.closed();
    assert_eq!((last.len(), last[0].get::<&str>("reason").unwrap()), (1, "eos"));
    two.wait_eos();
    check_order(&two.items());
}

#[test]
fn the_end_of_one_stream_is_not_the_end_of_the_other_in_either_order() {
    for first in [true, false] {
        let rig = Rig::new("strategy=keyframe duration=1000000000").play();
        let (one, two) = (rig.main(), rig.further());
        one.begin(RAW_25);
        two.begin(AUDIO);
        one.push_span(0, 1500);
        two.push_span(0, 1500);
        let (ends, goes_on) = if first { (&one, &two) } else { (&two, &one) };
        ends.eos();
        ends.wait_eos();
        assert_eq!(ends.peer.push(buffer(9000, None, 40)), Err(gst::FlowError::Eos));
        goes_on.push_span(1520, 3000);
        goes_on.eos();
        goes_on.wait_eos();
        assert_eq!(goes_on.seen().len(), 75, "{first}");
        check_order(&one.items());
        check_order(&two.items());
        let closed = rig.closed();
        assert_eq!(closed.last().unwrap().get::<&str>("reason").unwrap(), "eos");
    }
}

#[test]
fn pads_come_and_go_while_playing() {
    let rig = Rig::new("duration=1000000000").play();
    let one = rig.main();
    one.begin(RAW_25);
    one.push_span(0, 1520);
    assert_eq!(rig.closed_ids(), [0]);
    let two = rig.further();
    two.begin(RAW_25);
    two.push_span(1520, 2520);
    one.push_span(1520, 2520);
    two.wait_buffers(25);
    let closed = rig.closed();
    assert_eq!(closed.len(), 1);
    assert_eq!(streams(&closed[0]).len(), 2, "{}", closed[0]);
    one.push_span(2520, 4520);
    assert!(rig.closed().is_empty(), "the other stream is waited for");
    rig.element.release_request_pad(&two.sink);
    assert_eq!(rig.closed_ids(), [2, 3]);
    assert!(rig.element.static_pad("src_0").is_none());
    // The number is free again.
    let three = rig.further();
    assert_eq!(three.sink.name(), "sink_0");
    one.push_span(4520, 5520);
    one.eos();
    one.wait_eos();
    check_order(&one.items());
}

#[test]
fn without_the_pad_sink_the_first_further_stream_is_the_reference() {
    let rig = Rig::new("strategy=keyframe duration=0").play();
    let (one, two) = (rig.further(), rig.further());
    // What is linked counts, not who is first.
    two.begin(AUDIO);
    one.begin(super::rig::H264);
    for pts in (0..2000u64).step_by(40) {
        let mut frame = buffer(pts, Some(pts), 40);
        if pts % 400 != 0 {
            frame.make_mut().set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        one.peer.push(frame).unwrap();
        two.peer.push(buffer(pts + 10, None, 40)).unwrap();
    }
    one.eos();
    two.eos();
    one.wait_eos();
    two.wait_eos();
    for (pts, ids) in two.windows() {
        assert_eq!(ids, [pts / 400 * 400 * MS]);
    }
    assert_eq!(one.ended(), [0, 400 * MS, 800 * MS, 1200 * MS, 1600 * MS]);
}

#[test]
fn a_reference_that_ends_without_data_holds_nobody() {
    for strategy in ["strategy=fixed", "strategy=keyframe", "strategy=adaptive"] {
        let rig = Rig::new(&format!("{strategy} duration=1000000000")).play();
        let (one, two) = (rig.main(), rig.further());
        two.begin(AUDIO);
        two.push_span(0, 1200);
        one.peer.push_event(gst::event::StreamStart::new("one"));
        one.eos();
        two.push_span(1200, 2400);
        two.eos();
        two.wait_eos();
        assert_eq!(two.seen().len(), 60, "{strategy}");
        check_order(&two.items());
    }
}

#[test]
fn a_queue_that_is_full_makes_upstream_wait_unless_others_starve() {
    let rig = Rig::new("duration=1000000000 max-size-buffers=5").play();
    let two = rig.further();
    two.begin(RAW_25);
    two.arrived.close();
    let peer = two.peer.clone();
    let (sender, receiver) = std::sync::mpsc::channel();
    let pusher = std::thread::spawn(move || {
        for pts in (0..1000u64).step_by(40) {
            peer.push(buffer(pts, None, 40)).unwrap();
            sender.send(pts).unwrap();
        }
    });
    two.arrived.wait_blocked();
    // One is being pushed, five wait, of which the last keeps upstream.
    let patience = std::time::Duration::from_secs(60);
    let taken: Vec<_> = (0..5).map(|_| receiver.recv_timeout(patience).unwrap()).collect();
    assert_eq!(taken.len(), 5);
    assert!(receiver.recv_timeout(std::time::Duration::from_millis(50)).is_err(), "nothing waits");
    two.arrived.open();
    pusher.join().unwrap();
    two.wait_buffers(25);
}

#[test]
fn one_thread_that_brings_the_other_stream_first_is_not_kept_for_ever() {
    let rig = Rig::new("strategy=keyframe duration=0 max-size-buffers=5").play();
    let (one, two) = (rig.main(), rig.further());
    for port in [&one, &two] {
        port.begin(RAW_25);
    }
    one.push(0);
    // Far more than may wait, before the reference goes on.
    two.push_span(0, 4000);
    one.push_span(40, 4000);
    one.eos();
    two.eos();
    one.wait_eos();
    two.wait_eos();
    assert_eq!((one.seen().len(), two.seen().len()), (100, 100));
    check_order(&one.items());
    check_order(&two.items());
}

#[test]
fn when_the_reference_goes_the_next_stream_decides() {
    let rig = Rig::new("strategy=keyframe duration=0").play();
    let (one, two) = (rig.further(), rig.further());
    let push = |port: &super::rig::Port, pts: u64, each: u64| {
        let mut frame = buffer(pts, Some(pts), 40);
        if !pts.is_multiple_of(each) {
            frame.make_mut().set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        port.peer.push(frame).unwrap();
    };
    for port in [&one, &two] {
        port.begin(super::rig::H264);
    }
    for pts in (0..2000u64).step_by(40) {
        push(&one, pts, 400);
        push(&two, pts, 1000);
    }
    rig.element.release_request_pad(&one.sink);
    (2000..4000u64).step_by(40).for_each(|pts| push(&two, pts, 1000));
    two.eos();
    two.wait_eos();
    assert_eq!(two.seen().len(), 100);
    check_order(&two.items());
    let windows = two.windows();
    assert_eq!(windows.iter().find(|(pts, _)| *pts == 1400).unwrap().1, [1200 * MS]);
    assert_eq!(windows.iter().find(|(pts, _)| *pts == 3480).unwrap().1, [3000 * MS]);
}

/// 2 s, a keyframe each 400 ms.
fn push_groups(port: &super::rig::Port) {
    for pts in (0..2000u64).step_by(40) {
        let mut frame = buffer(pts, Some(pts), 40);
        if !pts.is_multiple_of(400) {
            frame.make_mut().set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        port.peer.push(frame).unwrap();
    }
}

#[test]
fn windows_end_before_the_eos_that_came_long_before_the_reference() {
    for settings in ["output=buffers", "output=buffer-lists max-duration=10000000000"] {
        let rig = Rig::new(&format!("strategy=keyframe duration=0 {settings}")).play();
        let (one, two) = (rig.main(), rig.further());
        one.begin(super::rig::H264);
        two.begin(AUDIO);
        two.push_span(0, 2000);
        two.eos();
        push_groups(&one);
        one.eos();
        one.wait_eos();
        two.wait_eos();
        assert_eq!(two.ended(), [0, 400 * MS, 800 * MS, 1200 * MS, 1600 * MS], "{settings}");
        check_order(&two.items());
        assert_eq!(two.seen().len(), 50);
    }
}

#[test]
fn a_reference_of_another_thread_is_waited_for_however_late_it_begins() {
    for begun in [true, false] {
        let rig = Rig::new("strategy=keyframe duration=0 max-size-buffers=5").play();
        let (one, two) = (rig.main(), rig.further());
        if begun {
            one.begin(super::rig::H264);
        }
        two.begin(AUDIO);
        let peer = two.peer.clone();
        let (sender, receiver) = std::sync::mpsc::channel();
        let pusher = std::thread::spawn(move || {
            for pts in (0..2000u64).step_by(40) {
                peer.push(buffer(pts, None, 40)).unwrap();
                sender.send(pts).unwrap();
            }
        });
        // Four times as many may wait, of which the last keeps upstream.
        let patience = std::time::Duration::from_secs(60);
        (0..19).for_each(|_| assert!(receiver.recv_timeout(patience).is_ok()));
        assert!(receiver.recv_timeout(std::time::Duration::from_millis(50)).is_err(), "nothing waits");
        if !begun {
            one.begin(super::rig::H264);
        }
        push_groups(&one);
        pusher.join().unwrap();
        one.eos();
        two.eos();
        two.wait_eos();
        for (pts, ids) in two.windows() {
            assert_eq!(ids, [pts / 400 * 400 * MS], "{pts} {begun}");
        }
        check_order(&two.items());
    }
}

/// Long before it goes on without the reference.
#[test]
fn waiting_for_the_reference_ends_with_a_flush_and_with_the_element() {
    for flush in [true, false] {
        let rig = Rig::new("strategy=keyframe duration=0 max-size-buffers=5").play();
        let (one, two) = (rig.main(), rig.further());
        one.begin(super::rig::H264);
        two.begin(AUDIO);
        let peer = two.peer.clone();
        let (sender, receiver) = std::sync::mpsc::channel();
        let pusher = std::thread::spawn(move || {
            let flow = (0..2000u64).step_by(40).find_map(|pts| {
                let flow = peer.push(buffer(pts, None, 40)).err();
                sender.send(flow).unwrap();
                flow
            });
            flow.unwrap()
        });
        let patience = std::time::Duration::from_secs(60);
        (0..19).for_each(|_| assert_eq!(receiver.recv_timeout(patience), Ok(None)));
        assert!(receiver.recv_timeout(std::time::Duration::from_millis(50)).is_err(), "nothing waits");
        if flush {
            two.peer.push_event(gst::event::FlushStart::new());
        } else {
            rig.element.set_state(gst::State::Null).unwrap();
        }
        let flow = receiver.recv_timeout(std::time::Duration::from_secs(5));
        assert_eq!(flow, Ok(Some(gst::FlowError::Flushing)), "{flush}");
        assert_eq!(pusher.join().unwrap(), gst::FlowError::Flushing);
    }
}
