//! Worker pads: which window goes where, that each of them can be decoded, and what happens when a worker is slow, stuck, fails,
//! comes or goes. Real clips where there are any (`../shared/media`), else generated ones.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::camera::{Camera, PER_WINDOW, check_whole, ids, wait_windows};
use super::common::{self, Sink, frame, h264_caps, number};
use super::ends::{MS, begin, eos, uint, windows};
use super::played::{parse, source};

#[test]
fn each_window_is_an_epoch_that_can_be_decoded_from_its_first_buffer() {
    let mut camera = Camera::new(&[]);
    let sink = camera.ends.sink("worker_0");
    camera.play();
    camera.source.push_event(gst::event::Tag::new(gst::TagList::new()));
    camera.windows(4);
    eos(&camera.source);
    sink.wait_eos();
    let all = windows(&sink);
    assert_eq!(ids(&all), [0, 1, 2, 3]);
    check_whole(&all);
    use gst::EventType as Type;
    let first = all[0].head.iter().filter(|kind| **kind != Type::Gap);
    assert_eq!(first.copied().collect::<Vec<_>>(), [Type::StreamStart, Type::Caps, Type::Segment, Type::Tag]);
    for window in &all[1..] {
        assert_eq!(window.head, [Type::StreamStart, Type::Gap, Type::Caps, Type::Segment, Type::Tag]);
    }
    for window in &all {
        let first = &window.buffers[0];
        // Parameter sets came once, with frame 0.
        assert!(first.data.starts_with(&[common::sps(), common::pps()].concat()), "window {}", window.id);
        assert!(!first.flags.contains(gst::BufferFlags::DELTA_UNIT));
        assert_eq!(number(first), window.id * PER_WINDOW / 10 * 10, "the keyframe before");
        let discont = window.buffers.iter().map(|seen| seen.flags.contains(gst::BufferFlags::DISCONT));
        assert_eq!(discont.filter(|discont| *discont).count(), 1);
        assert!(first.flags.contains(gst::BufferFlags::DISCONT));
    }
    let running = sink.running_times();
    for (seen, running) in sink.buffers().iter().zip(running) {
        let aside = seen.flags.contains(gst::BufferFlags::DECODE_ONLY);
        assert_eq!(running, seen.pts.filter(|_| !aside), "running time is that of the stream");
    }
}

/// PTS and content of frames.
type Frames = BTreeMap<u64, u64>;

fn note(frames: &Arc<Mutex<Vec<(u64, u64)>>>, pad: &gst::Pad) {
    let into = frames.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer() {
            let mut hasher = DefaultHasher::new();
            buffer.map_readable().unwrap().hash(&mut hasher);
            into.lock().unwrap().push((buffer.pts().unwrap().nseconds(), hasher.finish()));
        }
        gst::PadProbeReturn::Ok
    });
}

fn decoded(pipeline: &gst::Pipeline) -> Vec<(u64, u64)> {
    let frames = Arc::default();
    for sink in pipeline.iterate_sinks().into_iter().flatten() {
        note(&frames, &sink.static_pad("sink").unwrap());
    }
    pipeline.set_state(gst::State::Playing).unwrap();
    common::wait_for_eos(pipeline);
    pipeline.set_state(gst::State::Null).unwrap();
    std::mem::take(&mut *frames.lock().unwrap())
}

#[test]
fn four_workers_decode_what_one_decoder_does() {
    // With one thread avdec_h264 loses the picture at which it begins, if that is no IDR picture.
    const DECODE: &str = "avdec_h264 output-corrupt=false ! video/x-raw,format=I420 ! fakesink sync=false";
    // Neither clip has keyframes where windows begin; the first has open GOPs, the second B-frames that are referred to.
    for (clip, duration, format) in [
        ("bbb_64s.mp4", 7_300 * MS, "byte-stream"),
        ("concat_ccby_b3.mp4", 1_300 * MS, "byte-stream"),
        ("concat_ccby_b3.mp4", 3_700 * MS, "avc"),
    ] {
        let source = format!("{} ! video/x-h264,stream-format={format},alignment=au", source(clip));
        let whole: Frames = decoded(&parse(&format!("{source} ! {DECODE}"))).into_iter().collect();
        let workers: String = (0..4).map(|n| format!(" s.worker_{n} ! {DECODE} async=false")).collect();
        let by_workers = decoded(&parse(&format!("{source} ! segmenter name=s duration={duration}{workers}")));
        assert_eq!(by_workers.len(), whole.len(), "{clip}: each frame once");
        let wrong: Vec<_> = by_workers.iter().filter(|(pts, sum)| whole.get(pts) != Some(sum)).collect();
        assert!(wrong.is_empty(), "{clip}, {format}: {} of {} differ: {:?}", wrong.len(), whole.len(), &wrong[..1]);
    }
}

#[test]
fn sinks_of_workers_that_have_no_window_yet_preroll() {
    // The first window alone is more than may wait.
    let description = format!(
        "{} ! segmenter name=s duration=8000000000 max-worker-bytes=10000 s.worker_0 ! avdec_h264 ! fakesink \
         s.worker_1 ! avdec_h264 ! fakesink s.worker_2 ! fakesink",
        source("concat_ccby_nob.mp4")
    );
    let pipeline = parse(&description);
    pipeline.set_state(gst::State::Paused).unwrap();
    let (result, ..) = pipeline.state(gst::ClockTime::from_seconds(60));
    assert_eq!(result, Ok(gst::StateChangeSuccess::Success));
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn windows_of_workers_become_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = |n: u32| directory.path().join(format!("{n}.mkv"));
    let workers: String = (0..2)
        .map(|n| format!(" s.worker_{n} ! matroskamux ! filesink async=false location={}", path(n).display()))
        .collect();
    let source = source("concat_ccby_nob.mp4");
    let line = format!("{source} ! segmenter name=s strategy=keyframe duration=3000000000{workers}");
    let pipeline = parse(&line);
    pipeline.set_state(gst::State::Playing).unwrap();
    common::wait_for_eos(&pipeline);
    pipeline.set_state(gst::State::Null).unwrap();
    let frames = |line: &str| decoded(&parse(&format!("{line} ! avdec_h264 ! fakesink sync=false")));
    let whole: Vec<_> = frames(&source).into_iter().map(|(_, sum)| sum).collect();
    let mut both: Vec<_> = (0..2)
        .flat_map(|n| frames(&format!("filesrc location={} ! matroskademux ! h264parse", path(n).display())))
        .collect();
    both.sort_unstable();
    assert_eq!(both.into_iter().map(|(_, sum)| sum).collect::<Vec<_>>(), whole, "in the order of their times");
}

#[test]
fn messages_keep_the_order_of_windows_whoever_is_slow() {
    let mut camera = Camera::new(&[]);
    let sinks: Vec<_> = (0..2).map(|n| camera.ends.sink(&format!("worker_{n}"))).collect();
    sinks[0].hold_after(5);
    camera.play();
    camera.windows(6);
    wait_windows(&sinks[1], 4);
    sinks[0].release();
    eos(&camera.source);
    sinks.iter().for_each(Sink::wait_eos);
    let closed = camera.ends.messages("segmenter-window-closed");
    assert_eq!(closed.iter().map(|s| uint(s, "window-id")).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert!(closed.iter().all(|s| uint(s, "frames") == PER_WINDOW && s.get::<bool>("complete").unwrap()));
    let by: Vec<_> = sinks.iter().map(|sink| ids(&windows(sink))).collect();
    assert_eq!(by, [vec![0], vec![1, 2, 3, 4, 5]]);
    sinks.iter().for_each(|sink| check_whole(&windows(sink)));
}

#[test]
fn upstream_waits_when_workers_have_no_room() {
    let mut camera = Camera::new(&[("max-worker-bytes", "5000")]);
    let sink = camera.ends.sink("worker_0");
    sink.hold_after(2);
    camera.play();
    let source = camera.source.clone();
    let pushed = Arc::new(Mutex::new(0));
    let count = pushed.clone();
    let thread = std::thread::spawn(move || {
        for n in 0..3 * PER_WINDOW {
            source.push(frame(n, 10, 200)).unwrap();
            *count.lock().unwrap() += 1;
        }
        eos(&source);
    });
    common::until("the queue is full", || *pushed.lock().unwrap() >= 20);
    std::thread::sleep(Duration::from_millis(50));
    let passed = *pushed.lock().unwrap();
    sink.release();
    // As much for the worker as for the window that waits for it.
    assert!(passed <= 2 * (5000 / 200) + 3, "{passed} passed");
    sink.wait_eos();
    thread.join().unwrap();
    let all = windows(&sink);
    assert_eq!(ids(&all), [0, 1, 2]);
    check_whole(&all);
}

#[test]
fn a_window_without_room_is_left_out_and_told() {
    let mut camera = Camera::new(&[("worker-policy", "drop-window")]);
    let sink = camera.ends.sink("worker_0");
    sink.hold_after(2);
    camera.play();
    camera.windows(4);
    camera.push().unwrap();
    let lost = camera.ends.message("segmenter-window-lost");
    assert_eq!((uint(&lost, "window-id"), lost.get::<&str>("reason").unwrap()), (2, "no-room"));
    sink.release();
    wait_windows(&sink, 2);
    eos(&camera.source);
    sink.wait_eos();
    let all = windows(&sink);
    assert_eq!(ids(&all[..2]), [0, 1]);
    check_whole(&all[..2]);
}

#[test]
fn a_worker_that_fails_costs_its_window_and_the_last_one_the_stream() {
    let mut camera = Camera::new(&[]);
    let sinks: Vec<_> = (0..2).map(|n| camera.ends.sink(&format!("worker_{n}"))).collect();
    sinks[0].hold_after(3);
    camera.play();
    sinks[0].answer(Some(gst::FlowError::Error));
    camera.windows(1);
    sinks[0].release();
    let lost = camera.ends.message("segmenter-window-lost");
    assert_eq!((uint(&lost, "window-id"), lost.get::<&str>("worker").unwrap()), (0, "worker_0"));
    camera.windows(3);
    wait_windows(&sinks[1], 2);
    sinks[1].answer(Some(gst::FlowError::Error));
    common::until("upstream is told", || camera.push() == Err(gst::FlowError::Error));
    let all = windows(&sinks[1]);
    assert_eq!(ids(&all)[..2], [1, 2]);
    let found = camera.ends.bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &[gst::MessageType::Error]);
    assert!(found.is_some());
}

#[test]
fn a_stuck_worker_holds_up_neither_stopping_nor_flushing_nor_its_release() {
    for act in ["stop", "flush", "release"] {
        let mut camera = Camera::new(&[("max-worker-bytes", "3000")]);
        let sink = camera.ends.sink("worker_0");
        sink.hold_after(2);
        camera.play();
        let source = camera.source.clone();
        let thread = std::thread::spawn(move || (0..200).find_map(|n| source.push(frame(n, 10, 200)).err()));
        sink.wait_buffers(2);
        let start = Instant::now();
        let element = &camera.ends.element;
        match act {
            "stop" => drop(element.set_state(gst::State::Null).unwrap()),
            "flush" => {
                camera.source.push_event(gst::event::FlushStart::new());
                sink.release();
                camera.source.push_event(gst::event::FlushStop::new(true));
            }
            _ => element.release_request_pad(&element.static_pad("worker_0").unwrap()),
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{act} took {:?}", start.elapsed());
        let end = thread.join().unwrap();
        match act {
            "release" => assert_eq!(end, Some(gst::FlowError::NotLinked)),
            _ => assert_eq!(end, Some(gst::FlowError::Flushing), "{act}"),
        }
        if act == "flush" {
            let before = sink.buffers().len();
            let segment = gst::FormattedSegment::<gst::ClockTime>::new();
            camera.source.push_event(gst::event::Segment::new(&segment));
            camera.next = 0;
            camera.windows(1);
            sink.wait(&format!("the window after {act}"), |arrived| arrived.buffers.len() >= before + 25);
            let after = &sink.buffers()[before..];
            assert!(after[0].flags.contains(gst::BufferFlags::DISCONT));
        }
    }
}

#[test]
fn workers_come_and_go_while_it_runs() {
    let mut camera = Camera::new(&[]);
    let first = camera.ends.sink("worker_0");
    camera.play();
    camera.windows(1);
    let second = camera.ends.sink("worker_%u");
    camera.windows(3);
    wait_windows(&second, 1);
    let ended = |sink: &Sink| windows(sink).iter().filter(|window| window.end.is_some()).count();
    common::until("all windows that are over, whoever has them", || ended(&first) + ended(&second) == 3);
    let element = camera.ends.element.clone();
    element.release_request_pad(&element.static_pad("worker_1").unwrap());
    camera.windows(2);
    eos(&camera.source);
    first.wait_eos();
    let of_first = windows(&first);
    let of_second: Vec<_> = windows(&second).into_iter().filter(|window| window.end.is_some()).collect();
    assert_eq!(of_second[0].id, 1, "the one that came takes the next window");
    check_whole(&of_first);
    check_whole(&of_second);
    // One that the released worker was in the middle of, or was to begin, is lost, and that is told.
    let lost = camera.ends.messages("segmenter-window-lost");
    let mut all: Vec<_> = lost.iter().map(|s| uint(s, "window-id")).collect();
    assert!(all.is_empty() || all == [3], "{all:?}");
    all.extend(ids(&of_first));
    all.extend(ids(&of_second));
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3, 4, 5], "each once");
    assert!(element.request_pad_simple("worker_1").is_some(), "its number is free");
    assert!(element.request_pad_simple("worker_0").is_none());
}

#[test]
fn after_eos_and_after_ready_it_begins_anew() {
    let mut camera = Camera::new(&[]);
    let sink = camera.ends.sink("worker_0");
    camera.play();
    let mut expected = Vec::new();
    for round in 0..3 {
        if round == 2 {
            camera.ends.element.set_state(gst::State::Ready).unwrap();
            camera.ends.element.set_state(gst::State::Playing).unwrap();
        }
        if round > 0 {
            begin(&camera.source, &h264_caps());
        }
        camera.next = 0;
        camera.windows(2);
        eos(&camera.source);
        sink.wait("the end of each", |arrived| {
            let ends = arrived.events.iter().filter(|(_, event)| event.type_() == gst::EventType::Eos);
            ends.count() > round
        });
        expected.extend([0, 1]);
    }
    let all = windows(&sink);
    assert_eq!(ids(&all), expected);
    check_whole(&all);
}

#[test]
fn a_decoder_that_is_past_the_end_of_a_window_gets_the_next_one() {
    let mut camera = Camera::new(&[]);
    let sink = Sink::default();
    let pad = sink.pad();
    // As decoders answer to what lies behind their segment, and to all that follows.
    let over = Arc::new(Mutex::new(false));
    let (start, refuses) = (over.clone(), over.clone());
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if info.event().is_some_and(|event| event.type_() == gst::EventType::StreamStart) {
            *start.lock().unwrap() = false;
        }
        gst::PadProbeReturn::Ok
    });
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let late = info.buffer().is_some_and(|buffer| buffer.offset() % PER_WINDOW >= 20 && buffer.offset() < 100);
        let aside = info.buffer().is_some_and(|buffer| buffer.flags().contains(gst::BufferFlags::DECODE_ONLY));
        *refuses.lock().unwrap() |= late && !aside;
        if !*refuses.lock().unwrap() {
            return gst::PadProbeReturn::Ok;
        }
        info.flow_res = Err(gst::FlowError::Eos);
        gst::PadProbeReturn::Handled
    });
    camera.ends.link("worker_0", pad);
    camera.play();
    camera.windows(3);
    eos(&camera.source);
    sink.wait_eos();
    let all = windows(&sink);
    assert_eq!(ids(&all), [0, 1, 2]);
    assert!(
        all.iter().all(|window| window.shown().len() == 20),
        "{:?}",
        all.iter().map(|w| w.shown().len()).collect::<Vec<_>>()
    );
    assert!(camera.ends.messages("segmenter-window-lost").is_empty());
}

#[test]
fn overlapping_windows_reach_one_worker_one_after_the_other() {
    let mut camera = Camera::new(&[]);
    for (name, value) in [("strategy", "sliding"), ("duration", "2000000000"), ("hop", "1000000000")] {
        camera.ends.element.set_property_from_str(name, value);
    }
    // Far less than what overlaps: it must not come to a stop.
    camera.ends.element.set_property("max-worker-bytes", 1000u64);
    let sink = camera.ends.sink("worker_0");
    camera.play();
    camera.windows(5);
    eos(&camera.source);
    sink.wait_eos();
    let all = windows(&sink);
    assert_eq!(ids(&all), [0, 1, 2, 3, 4]);
    for window in &all {
        let first = window.id * PER_WINDOW;
        let until = (first + 2 * PER_WINDOW).min(5 * PER_WINDOW);
        assert_eq!(
            window.shown().iter().map(|seen| number(seen)).collect::<Vec<_>>(),
            (first..until).collect::<Vec<_>>()
        );
    }
}

#[test]
fn raw_video_has_no_lead_in() {
    let line = "videotestsrc num-buffers=50 ! video/x-raw,width=32,height=32,framerate=25/1 ! \
                segmenter name=s strategy=sliding duration=400000000 hop=300000000 s.worker_0 ! fakesink sync=false";
    let pipeline = parse(line);
    let frames = decoded(&pipeline);
    let expected: u64 =
        (0..50u64).map(|n| (0..=n * 40 / 300).filter(|id| n * 40 < id * 300 + 400).count() as u64).sum();
    assert_eq!(frames.len() as u64, expected);
}
