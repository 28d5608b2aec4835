//! Several sources of one store in one pipeline: what was captured together is played together.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use gst::prelude::*;

use crate::common::*;
use crate::player::*;

/// Two packets of sound while one frame is shown.
const PACKET: u64 = FRAME / 2;
const STREAMS: [&str; 2] = ["default", "default.audio_0"];

fn video_caps() -> gst::Caps {
    gst::Caps::builder("video/x-vp8")
        .field("width", 320)
        .field("height", 240)
        .field("framerate", gst::Fraction::new(25, 1))
        .build()
}

fn audio_caps() -> gst::Caps {
    gst::Caps::builder("audio/mpeg")
        .field("mpegversion", 1)
        .field("layer", 3)
        .field("rate", 48_000)
        .field("channels", 1)
        .build()
}

/// Its number is in its first bytes, its timestamps count from elsewhere than those of the video.
fn packet(number: u64) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_mut_slice(number.to_be_bytes().repeat(4));
    let pts = gst::ClockTime::from_nseconds(7 * SECOND + number * PACKET);
    {
        let buffer = buffer.get_mut().unwrap();
        buffer.set_pts(pts);
        buffer.set_duration(gst::ClockTime::from_nseconds(PACKET));
        buffer.set_offset(number);
    }
    captured(buffer, T0 + number * PACKET)
}

fn picture(number: u64) -> gst::Buffer {
    let numbered = frame(number, GOP, 100);
    let mut buffer = gst::Buffer::from_mut_slice(number.to_be_bytes().repeat(4));
    numbered.copy_into(buffer.get_mut().unwrap(), gst::BUFFER_COPY_METADATA, ..).unwrap();
    captured(buffer, utc(number))
}

/// Pictures of some frames, and the sound to them; the sound begins `late` packets later.
fn record(location: &Path, frames: std::ops::Range<u64>, late: u64) {
    let rigs = STREAMS.map(|name| Rig::new(location, &[KEPT[0], ("stream-name", name)]));
    let [video, audio] = &rigs;
    video.start_stream("video", &video_caps());
    audio.start_stream("audio", &audio_caps());
    for n in frames.clone() {
        video.push(picture(n));
        for packet_number in [2 * n, 2 * n + 1].into_iter().filter(|m| *m >= 2 * frames.start + late) {
            audio.push(packet(packet_number));
        }
    }
    video.sink.wait_buffers((frames.end - frames.start) as usize);
    audio.sink.wait_buffers((2 * (frames.end - frames.start) - late) as usize);
    rigs.iter().for_each(Rig::stop);
}

/// Two runs of the writer, ten seconds of each, a minute apart.
fn recorded() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    record(dir.path(), 0..250, 5);
    record(dir.path(), 1750..2000, 3);
    dir
}

fn sources(pipeline: &gst::Pipeline, location: &Path, properties: &[(&str, &str)]) -> [gst::Element; 2] {
    STREAMS.map(|name| {
        let source = gst::ElementFactory::make("diskbuffersrc").build().unwrap();
        source.set_property("location", location.to_str().unwrap());
        source.set_property("stream-name", name);
        properties.iter().for_each(|(name, value)| source.set_property_from_str(name, value));
        pipeline.add(&source).unwrap();
        source
    })
}

fn run(pipeline: &gst::Pipeline) {
    pipeline.set_state(gst::State::Playing).unwrap();
    wait_end(pipeline);
    pipeline.set_state(gst::State::Null).unwrap();
}

fn wait_end(pipeline: &gst::Pipeline) {
    let patience = gst::ClockTime::from_seconds(PATIENCE.as_secs());
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(patience, &kinds).expect("no end");
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
}

/// Numbers and running times, in ns.
type Times = Arc<Mutex<BTreeMap<u64, u64>>>;

/// Takes note of the number and the running time of each buffer.
fn watch(pad: &gst::Pad) -> Times {
    let times = Times::default();
    let noted = times.clone();
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_FLUSH, move |pad, info| {
        match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => {
                let number = u64::from_be_bytes(buffer.map_readable().unwrap()[..8].try_into().unwrap());
                let segment = pad.sticky_event::<gst::event::Segment>(0).unwrap();
                let segment = segment.segment().downcast_ref::<gst::ClockTime>().unwrap().clone();
                let running = segment.to_running_time(buffer.pts().unwrap());
                if let Some(running) = running {
                    noted.lock().unwrap().insert(number, running.nseconds());
                }
            }
            Some(gst::PadProbeData::Event(event)) if event.type_() == gst::EventType::FlushStop => {
                noted.lock().unwrap().clear();
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
    times
}

/// Frames and packets that were captured at the same moment have the same time; as many frames as there are.
fn check(video: &Times, audio: &Times, within: u64) -> (Vec<u64>, Vec<u64>) {
    let (video, audio) = (video.lock().unwrap(), audio.lock().unwrap());
    let mut pairs = 0;
    for (frame, shown) in video.iter() {
        if let Some(heard) = audio.get(&(2 * frame)) {
            assert!(shown.abs_diff(*heard) <= within, "frame {frame} at {shown}, its sound at {heard}");
            pairs += 1;
        }
    }
    assert!(pairs + 20 > video.len(), "{pairs} of {}", video.len());
    (video.keys().copied().collect(), audio.keys().copied().collect())
}

fn play(location: &Path, properties: &[(&str, &str)]) -> (Times, Times) {
    let pipeline = gst::Pipeline::new();
    let [video, audio] = sources(&pipeline, location, properties).map(|source| {
        let sink = gst::ElementFactory::make("fakesink").property("sync", false).build().unwrap();
        pipeline.add(&sink).unwrap();
        source.link(&sink).unwrap();
        watch(&source.static_pad("src").unwrap())
    });
    run(&pipeline);
    (video, audio)
}

#[test]
fn sound_and_pictures_of_a_time_go_into_one_file_in_time() {
    init();
    let dir = recorded();
    let file = dir.path().with_extension("mkv");
    let pipeline = gst::Pipeline::new();
    let mux = gst::ElementFactory::make("matroskamux").build().unwrap();
    let sink = gst::ElementFactory::make("filesink").property("location", file.to_str().unwrap()).build().unwrap();
    pipeline.add_many([&mux, &sink]).unwrap();
    mux.link(&sink).unwrap();
    let properties = [("start", "2026-01-01T00:00:02.5Z"), ("stop", "2026-01-01T00:01:15Z")];
    for (source, pad) in sources(&pipeline, dir.path(), &properties).iter().zip(["video_%u", "audio_%u"]) {
        let queue = gst::ElementFactory::make("queue").build().unwrap();
        pipeline.add(&queue).unwrap();
        source.link(&queue).unwrap();
        queue.link_pads(Some("src"), &mux, Some(pad)).unwrap();
    }
    run(&pipeline);
    let pipeline = gst::Pipeline::new();
    let source = gst::ElementFactory::make("filesrc").property("location", file.to_str().unwrap()).build().unwrap();
    let demux = gst::ElementFactory::make("matroskademux").build().unwrap();
    pipeline.add_many([&source, &demux]).unwrap();
    source.link(&demux).unwrap();
    let (video, audio) = (Times::default(), Times::default());
    let streams = [("video", video.clone()), ("audio", audio.clone())];
    let weak = pipeline.downgrade();
    demux.connect_pad_added(move |_, pad| {
        let pipeline = weak.upgrade().unwrap();
        let queue = gst::ElementFactory::make("queue").build().unwrap();
        let sink = gst::ElementFactory::make("fakesink").build().unwrap();
        pipeline.add_many([&queue, &sink]).unwrap();
        queue.link(&sink).unwrap();
        pad.link(&queue.static_pad("sink").unwrap()).unwrap();
        sink.sync_state_with_parent().unwrap();
        queue.sync_state_with_parent().unwrap();
        let times = &streams.iter().find(|(name, _)| pad.name().starts_with(name)).unwrap().1;
        let (seen, times) = (watch(pad), times.clone());
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if let Some(gst::PadProbeData::Event(event)) = &info.data
                && event.type_() == gst::EventType::Eos
            {
                times.lock().unwrap().extend(seen.lock().unwrap().iter());
            }
            gst::PadProbeReturn::Ok
        });
    });
    run(&pipeline);
    std::fs::remove_file(&file).unwrap();
    // Times in a file are whole milliseconds.
    let (frames, packets) = check(&video, &audio, 2_000_000);
    assert_eq!(frames, (50..250).chain(1750..1875).collect::<Vec<_>>());
    assert_eq!(packets, (100..500).chain(3503..3750).collect::<Vec<_>>());
    let times = video.lock().unwrap();
    assert!(times[&50] < 50_000_000, "it begins at once: {}", times[&50]);
    let between = times[&1750] - times[&249];
    assert!((SECOND..SECOND + 200_000_000).contains(&between), "the minute between is not shown: {between}");
}

#[test]
fn any_start_is_in_time() {
    init();
    let dir = recorded();
    for (start, frame, first_packet) in [
        ("earliest", 0, 5),
        ("2026-01-01T00:00:00", 0, 5),
        ("2026-01-01T00:00:04.9", 100, 200),
        ("2026-01-01T00:01:10.03", 1750, 3503),
        ("latest", 1975, 3950),
    ] {
        let (video, audio) = play(dir.path(), &[("start", start)]);
        let (frames, packets) = check(&video, &audio, 0);
        assert_eq!((frames[0], packets[0]), (frame, first_packet), "{start}");
        let first = video.lock().unwrap()[&frame].min(audio.lock().unwrap()[&first_packet]);
        assert_eq!(first, 0, "{start}");
    }
}

#[test]
fn seeks_are_in_time() {
    init();
    let dir = recorded();
    let flush = gst::SeekFlags::FLUSH;
    let key = flush | gst::SeekFlags::KEY_UNIT;
    for (flags, to, frame, packet) in [
        (flush | gst::SeekFlags::ACCURATE, 2_500_000_000, 63, 125),
        (key | gst::SeekFlags::SNAP_BEFORE, 2_500_000_000, 50, 100),
        (key | gst::SeekFlags::SNAP_AFTER, 2_500_000_000, 75, 150),
        (key | gst::SeekFlags::SNAP_NEAREST, 2_900_000_000, 75, 150),
    ] {
        let pipeline = gst::Pipeline::new();
        let [video, audio] = sources(&pipeline, dir.path(), &[]).map(|source| {
            let sink = gst::ElementFactory::make("fakesink").property("sync", true).build().unwrap();
            pipeline.add(&sink).unwrap();
            source.link(&sink).unwrap();
            watch(&source.static_pad("src").unwrap())
        });
        pipeline.set_state(gst::State::Paused).unwrap();
        pipeline.state(gst::ClockTime::from_seconds(PATIENCE.as_secs())).0.unwrap();
        let nanoseconds = gst::ClockTime::from_nseconds;
        let stop = nanoseconds(to + SECOND);
        pipeline.seek(1.0, flags, gst::SeekType::Set, nanoseconds(to), gst::SeekType::Set, stop).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        wait_end(&pipeline);
        pipeline.set_state(gst::State::Null).unwrap();
        let (frames, packets) = check(&video, &audio, 0);
        assert_eq!((frames[0], packets[0]), (frame, packet), "{flags:?}");
        let first = *audio.lock().unwrap().values().min().unwrap();
        assert_eq!(first, 0, "{flags:?}");
    }
}

#[test]
fn live_ones_are_in_time() {
    init();
    let dir = recorded();
    let pipeline = gst::Pipeline::new();
    let properties = [("start", "2026-01-01T00:01:18.5"), ("stop", "2026-01-01T00:01:20"), ("follow", "true")];
    let sources = sources(&pipeline, dir.path(), &properties);
    let [video, audio] = sources.clone().map(|source| {
        let sink = gst::ElementFactory::make("fakesink").property("sync", false).build().unwrap();
        pipeline.add(&sink).unwrap();
        source.link(&sink).unwrap();
        watch(&source.static_pad("src").unwrap())
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    until("all of it", || video.lock().unwrap().len() == 50 && audio.lock().unwrap().len() == 100);
    sources.iter().for_each(|source| assert!(source.send_event(gst::event::Eos::new())));
    wait_end(&pipeline);
    pipeline.set_state(gst::State::Null).unwrap();
    check(&video, &audio, 0);
}
