//! Event mode: clips around triggers, from a keyframe on, on one stream and on several, and what silence costs. Real clips where
//! there are any (`../shared/media`), else generated ones. Time is that of the stream: nothing waits.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gst::prelude::*;

use super::common::{self, FRAME, Sink, frame, h264_caps, number};
use super::ends::{Ends, MS, begin, eos, uint, windows};
use super::played::{parse, source};

const SECOND: u64 = 1_000 * MS;
/// Frames of made-up H.264 in a second, and from keyframe to keyframe.
const RATE: u64 = 25;
const GOP: u64 = 25;

const CLIPS: [(&str, &str); 3] = [("strategy", "event"), ("pre-roll", "2000000000"), ("post-roll", "3000000000")];

fn camera(properties: &[(&str, &str)]) -> (Ends, gst::Pad, Sink) {
    let mut ends = Ends::new(&[&CLIPS[..], properties].concat());
    let (source, sink) = (ends.source("sink"), ends.sink("src"));
    ends.play();
    begin(&source, &h264_caps());
    (ends, source, sink)
}

fn push(source: &gst::Pad, numbers: std::ops::Range<u64>) {
    for number in numbers {
        source.push(frame(number, GOP, 100)).unwrap();
    }
}

fn trigger(element: &gst::Element, time: u64, name: Option<&str>) -> bool {
    element.emit_by_name("trigger", &[&time, &Vec::<String>::new(), &name])
}

/// First and last frame of each clip, by number.
fn clips(sink: &Sink) -> Vec<(u64, u64)> {
    let ends = |window: &super::ends::Window| {
        let numbers: Vec<_> = window.buffers.iter().map(number).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
        (numbers[0], numbers[numbers.len() - 1])
    };
    windows(sink).iter().map(ends).collect()
}

#[test]
fn a_clip_begins_at_the_keyframe_before_the_pre_roll_and_ends_with_the_post_roll() {
    let (ends, source, sink) = camera(&[]);
    push(&source, 0..215);
    // 8.5 s: from 6.5 s, whose keyframe is at 6 s, to 11.5 s.
    assert!(trigger(&ends.element, 8_500 * MS, Some("door")));
    push(&source, 215..500);
    eos(&source);
    sink.wait_eos();
    assert_eq!(clips(&sink), [(150, 287)]);
    let clip = &windows(&sink)[0];
    assert_eq!(clip.name.as_deref(), Some("door"));
    assert!(clip.buffers[0].flags.contains(gst::BufferFlags::DISCONT));
    let closed = ends.message("segmenter-window-closed");
    assert_eq!((uint(&closed, "start"), uint(&closed, "end")), (6_500 * MS, 11_500 * MS));
    assert_eq!((uint(&closed, "triggers"), closed.get::<bool>("complete")), (1, Ok(true)));
    assert_eq!(closed.get::<&str>("reason"), Ok("event"));
}

#[test]
fn without_a_time_a_trigger_is_now_and_one_for_later_waits() {
    let (ends, source, sink) = camera(&[]);
    push(&source, 0..251);
    assert!(trigger(&ends.element, u64::MAX, None), "now, which is 10 s");
    assert!(trigger(&ends.element, 20 * SECOND, None));
    push(&source, 251..1000);
    eos(&source);
    sink.wait_eos();
    assert_eq!(clips(&sink), [(200, 324), (450, 574)]);
}

#[test]
fn triggers_whose_clips_overlap_make_one() {
    let (ends, source, sink) = camera(&[]);
    push(&source, 0..250);
    for (at, name) in [(9, "first"), (12, "second"), (13, "third"), (30, "other")] {
        assert!(trigger(&ends.element, at * SECOND, Some(name)));
    }
    push(&source, 250..1000);
    eos(&source);
    sink.wait_eos();
    assert_eq!(clips(&sink), [(175, 399), (700, 824)]);
    let closed = ends.messages("segmenter-window-closed");
    let said: Vec<_> = closed.iter().map(|s| (s.get::<&str>("name").unwrap(), uint(s, "triggers"))).collect();
    assert_eq!(said, [("first", 3), ("other", 1)]);
}

#[test]
fn between_clips_there_are_gaps_so_that_receivers_go_on() {
    let (ends, source, sink) = camera(&[]);
    push(&source, 0..500);
    assert!(sink.buffers().is_empty());
    let gaps = |sink: &Sink| {
        let events = sink.events();
        let gap = |(_, event): &(usize, gst::Event)| match event.view() {
            gst::EventView::Gap(gap) => Some((gap.get().0.nseconds(), gap.get().1.map_or(0, |d| d.nseconds()))),
            _ => None,
        };
        events.iter().filter_map(gap).collect::<Vec<_>>()
    };
    let before = gaps(&sink);
    assert!(before.len() > 10 && before[0].0 == 0, "{before:?}");
    assert!(before.windows(2).all(|pair| pair[0].0 + pair[0].1 == pair[1].0), "one behind the other: {before:?}");
    let (at, length) = before[before.len() - 1];
    assert!(at + length >= 16 * SECOND, "what nobody can ask for any more: {at} {length}");
    assert!(trigger(&ends.element, 20 * SECOND, None));
    push(&source, 500..700);
    eos(&source);
    sink.wait_eos();
    assert_eq!(clips(&sink), [(450, 574)]);
    assert!(gaps(&sink).iter().any(|(at, length)| at + length == 18 * SECOND), "up to the clip");
}

#[test]
fn what_of_the_pre_roll_is_gone_is_said() {
    let (ends, source, sink) = camera(&[]);
    push(&source, 0..500);
    assert!(trigger(&ends.element, 5 * SECOND, Some("gone")));
    assert!(trigger(&ends.element, 18 * SECOND, Some("late")));
    push(&source, 500..600);
    eos(&source);
    sink.wait_eos();
    let clips = windows(&sink);
    assert_eq!(clips.iter().map(|clip| clip.name.as_deref()).collect::<Vec<_>>(), [Some("late")]);
    let first = number(&clips[0].buffers[0]);
    assert!(first > 16 * RATE && first.is_multiple_of(GOP), "a keyframe, later than asked: {first}");
    let closed = ends.messages("segmenter-window-closed");
    let said: Vec<_> = closed.iter().map(|s| (s.get::<&str>("name").unwrap(), uint(s, "frames") > 0)).collect();
    assert_eq!(said, [("gone", false), ("late", true)]);
    assert!(closed.iter().all(|s| !s.get::<bool>("complete").unwrap()));
}

/// Payload that knows how much of it there is.
struct Tracked {
    data: Vec<u8>,
    live: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Tracked {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.live.fetch_sub(self.data.len(), Ordering::Relaxed);
    }
}

#[test]
fn four_hours_of_silence_stay_within_the_bound_and_end_in_a_whole_clip() {
    const BOUND: usize = 300_000;
    const SIZE: usize = 1_000;
    let (ends, source, sink) = camera(&[("max-ring-bytes", "300000"), ("pre-roll", "5000000000")]);
    let (live, mut most) = (Arc::new(AtomicUsize::new(0)), 0);
    let count = 4 * 3600 * RATE;
    let push = |number: u64| {
        let made = frame(number, GOP, 0);
        let mut data = made.map_readable().unwrap().to_vec();
        data.resize(SIZE, 0xFF);
        live.fetch_add(data.len(), Ordering::Relaxed);
        let mut buffer = gst::Buffer::from_slice(Tracked { data, live: live.clone() });
        made.copy_into(buffer.make_mut(), gst::BUFFER_COPY_METADATA, ..).unwrap();
        source.push(buffer).unwrap();
    };
    for number in 0..count {
        push(number);
        most = most.max(live.load(Ordering::Relaxed));
    }
    // 5 s and a GOP are 150 frames.
    assert!((150 * SIZE..BOUND).contains(&most), "{most} bytes were held");
    assert!(sink.buffers().is_empty());
    assert!(trigger(&ends.element, u64::MAX, Some("at last")));
    (count..count + 4 * RATE).for_each(push);
    eos(&source);
    sink.wait_eos();
    let (first, last) = clips(&sink)[0];
    // Now was the last frame, 40 ms before.
    assert_eq!((first, last), (count - 6 * RATE, count - 1 + 3 * RATE - 1));
}

#[test]
fn a_ring_too_small_for_the_pre_roll_holds_whole_gops_and_says_so() {
    let (ends, source, sink) = camera(&[("max-ring-bytes", "3000")]);
    push(&source, 0..490);
    let patience = gst::ClockTime::from_seconds(60);
    let warning = ends.bus.timed_pop_filtered(patience, &[gst::MessageType::Warning]).unwrap();
    let gst::MessageView::Warning(warning) = warning.view() else { unreachable!() };
    assert!(warning.error().message().contains("max-ring-bytes"), "{}", warning.error());
    assert!(trigger(&ends.element, u64::MAX, None));
    push(&source, 490..600);
    eos(&source);
    sink.wait_eos();
    assert_eq!(clips(&sink)[0].0, 475, "the keyframe that was left");
    assert!(!ends.message("segmenter-window-closed").get::<bool>("complete").unwrap());
}

/// Eight cameras beside the one on `sink`, whose keyframes lie apart.
struct Cameras {
    ends: Ends,
    sources: BTreeMap<u64, gst::Pad>,
    sinks: BTreeMap<u64, Sink>,
}

impl Cameras {
    fn new() -> Self {
        let mut ends = Ends::new(&CLIPS);
        let mut cameras = (BTreeMap::new(), BTreeMap::new());
        for n in 0..=8u64 {
            let (sink, src) =
                if n == 0 { ("sink".into(), "src".into()) } else { (format!("sink_{n}"), format!("src_{n}")) };
            cameras.0.insert(n, ends.source(&sink));
            cameras.1.insert(n, ends.sink(&src));
        }
        ends.play();
        cameras.0.values().for_each(|source| begin(source, &h264_caps()));
        Self { ends, sources: cameras.0, sinks: cameras.1 }
    }

    /// Each for itself: nothing that one does waits for another.
    fn push(&self, numbers: std::ops::Range<u64>) {
        for at in numbers {
            for (n, source) in &self.sources {
                let mut buffer = frame(at + n, GOP, 100);
                let inner = buffer.make_mut();
                inner.set_pts(gst::ClockTime::from_nseconds(at * FRAME));
                inner.set_dts(gst::ClockTime::from_nseconds(at * FRAME));
                source.push(buffer).unwrap();
            }
        }
    }

    fn finish(&self) -> BTreeMap<u64, Vec<(u64, u64)>> {
        self.sources.values().for_each(eos);
        self.sinks.values().for_each(Sink::wait_eos);
        // Times of first and last frame of each clip.
        let ends = |sink: &Sink| {
            let ends = |window: super::ends::Window| {
                let at = |seen: &common::Seen| seen.pts.unwrap() / FRAME;
                assert!(!window.buffers[0].flags.contains(gst::BufferFlags::DELTA_UNIT));
                (at(&window.buffers[0]), at(&window.buffers[window.buffers.len() - 1]))
            };
            windows(sink).into_iter().map(ends).collect()
        };
        self.sinks.iter().map(|(n, sink)| (*n, ends(sink))).collect()
    }
}

/// The keyframe of camera `n` at or before this frame.
fn key_before(n: u64, at: u64) -> u64 {
    (at + n) / GOP * GOP - n
}

#[test]
fn what_camera_three_sees_cuts_clips_of_the_cameras_it_names() {
    let cameras = Cameras::new();
    cameras.push(0..300);
    let names = gst::Array::new((1..=8).map(|n| format!("sink_{n}")));
    let seen = gst::Structure::builder("segmenter-trigger").field("streams", names).field("name", "person").build();
    // From what analyses camera 3, behind its source pad: now.
    let peer = cameras.ends.element.static_pad("src_3").unwrap().peer().unwrap();
    assert!(peer.push_event(gst::event::CustomUpstream::new(seen)));
    cameras.push(300..500);
    let clips = cameras.finish();
    assert!(clips[&0].is_empty(), "it was not named");
    for n in 1..=8 {
        // 299 is the newest: 2 s before it, 3 s behind it.
        assert_eq!(clips[&n], [(key_before(n, 249), 299 + 75 - 1)], "camera {n}");
    }
    let closed = cameras.ends.message("segmenter-window-closed");
    assert_eq!(closed.get::<&str>("name"), Ok("person"));
    let streams = closed.get::<gst::Array>("streams").unwrap();
    let with: Vec<_> = streams.iter().filter(|s| uint(&s.get::<gst::Structure>().unwrap(), "frames") > 0).collect();
    assert_eq!(with.len(), 8);
}

#[test]
fn a_trigger_comes_from_upstream_too_and_without_names_means_all() {
    let cameras = Cameras::new();
    cameras.push(0..255);
    let seen = gst::Structure::builder("segmenter-trigger").field("time", 10 * SECOND).build();
    assert!(cameras.sources[&5].push_event(gst::event::CustomDownstreamOob::new(seen)));
    cameras.push(255..400);
    for (n, clips) in cameras.finish() {
        assert_eq!(clips, [(key_before(n, 200), 324)], "camera {n}");
    }
}

#[test]
fn a_label_triggers_until_it_is_gone() {
    let (ends, source, sink) = camera(&[("trigger-label", "person")]);
    for number in 0..1000 {
        let mut buffer = frame(number, GOP, 100);
        let label = match number {
            400..500 => "person",
            _ => "tree",
        };
        gst_video::VideoRegionOfInterestMeta::add(buffer.make_mut(), label, (1, 2, 3, 4));
        source.push(buffer).unwrap();
    }
    eos(&source);
    sink.wait_eos();
    assert_eq!(clips(&sink), [(350, 499 + 75 - 1)], "from 2 s before the first to 3 s behind the last");
    assert_eq!(windows(&sink)[0].name.as_deref(), Some("person"));
    drop(ends);
}

#[test]
fn triggers_are_refused_where_there_is_nothing_for_them() {
    let mut ends = Ends::new(&[("strategy", "fixed")]);
    let source = ends.source("sink");
    let sink = ends.sink("src");
    ends.play();
    begin(&source, &h264_caps());
    assert!(!trigger(&ends.element, 0, None));
    // It may be for an element behind.
    let seen = gst::Structure::new_empty("segmenter-trigger");
    assert!(source.push_event(gst::event::CustomDownstream::new(seen)));
    let passed = |(_, event): &(usize, gst::Event)| event.structure().is_some_and(|s| s.name() == "segmenter-trigger");
    assert!(sink.events().iter().any(passed));
    let (ends, ..) = camera(&[]);
    assert!(!trigger(&ends.element, u64::MAX, None), "there is no now yet");
    let nobody = vec!["sink_9".to_string()];
    assert!(!ends.element.emit_by_name::<bool>("trigger", &[&SECOND, &nobody, &None::<String>]));
}

#[test]
fn a_clip_of_a_real_stream_decodes_from_its_first_frame() {
    for clip in ["bbb_64s.mp4", "concat_ccby_b3.mp4"] {
        let decode = "avdec_h264 output-corrupt=false ! video/x-raw,format=I420 ! fakesink name=out sync=false";
        let sums = |line: &str, at: Option<u64>| {
            let pipeline = parse(line);
            let frames = Arc::new(std::sync::Mutex::new(Vec::<(u64, u64)>::new()));
            let into = frames.clone();
            let out = pipeline.by_name("out").unwrap().static_pad("sink").unwrap();
            out.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
                if let Some(buffer) = info.buffer() {
                    let mut hasher = DefaultHasher::new();
                    buffer.map_readable().unwrap().hash(&mut hasher);
                    into.lock().unwrap().push((buffer.pts().unwrap().nseconds(), hasher.finish()));
                }
                gst::PadProbeReturn::Ok
            });
            pipeline.set_state(gst::State::Paused).unwrap();
            if let Some(at) = at {
                assert!(trigger(&pipeline.by_name("s").unwrap(), at, None));
            }
            pipeline.set_state(gst::State::Playing).unwrap();
            common::wait_for_eos(&pipeline);
            pipeline.set_state(gst::State::Null).unwrap();
            std::mem::take(&mut *frames.lock().unwrap())
        };
        let source = source(clip);
        let whole: BTreeMap<_, _> = sums(&format!("{source} ! {decode}"), None).into_iter().collect();
        let at = 7_300 * MS;
        let events = "segmenter name=s strategy=event pre-roll=2000000000 post-roll=1500000000";
        let clip_frames = sums(&format!("{source} ! {events} ! {decode}"), Some(at));
        let wrong = clip_frames.iter().filter(|(pts, sum)| whole.get(pts) != Some(sum)).count();
        assert_eq!(wrong, 0, "{clip}: of {} frames", clip_frames.len());
        let first = clip_frames.iter().map(|(pts, _)| *pts).min().unwrap();
        let last = clip_frames.iter().map(|(pts, _)| *pts).max().unwrap();
        assert!(first <= at - 2_000 * MS + 84 * MS, "{clip}: the first is {first}");
        assert!((at + 1_400 * MS..at + 1_600 * MS + 84 * MS).contains(&last), "{clip}: the last is {last}");
        let inside = whole.keys().filter(|pts| (first..=last).contains(*pts)).count();
        assert!(clip_frames.len() >= inside - 3, "{clip}: {} of {inside}", clip_frames.len());
    }
}
