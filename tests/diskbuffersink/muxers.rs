//! Muxers inside: each instance writes a stream of its own, and together they have every frame.

use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gst::prelude::*;

use crate::common::*;
use crate::faulty::*;
use crate::station::*;

/// Hashes of what is coded: slices of pictures, frames of audio. Nothing that a parser adds or takes away.
#[derive(Debug, Clone, Default)]
struct Content(Arc<Mutex<Coded>>);

#[derive(Debug, Default)]
struct Coded {
    pictures: Vec<u64>,
    sounds: Vec<u64>,
    /// Running time of the first picture, and of each frame of audio.
    first: Option<gst::ClockTime>,
    times: Vec<Option<gst::ClockTime>>,
}

fn hash(data: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    hasher.finish()
}

/// The coded slices of an access unit with start codes.
fn slices(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let starts: Vec<usize> =
        data.windows(3).enumerate().filter(|(_, w)| *w == [0, 0, 1]).map(|(at, _)| at + 3).collect();
    let mut ends: Vec<usize> = starts.iter().skip(1).map(|start| start - 3).collect();
    ends.push(data.len());
    starts.into_iter().zip(ends).filter_map(move |(start, end)| {
        let mut nal = &data[start..end];
        while let [rest @ .., 0] = nal {
            nal = rest;
        }
        matches!(nal.first()? & 0x1F, 1 | 5).then_some(nal)
    })
}

impl Content {
    fn note(&self, video: bool, buffer: &gst::BufferRef, time: Option<gst::ClockTime>) {
        let map = buffer.map_readable().unwrap();
        let mut content = self.0.lock().unwrap();
        if video {
            content.pictures.extend(slices(&map).map(hash));
            content.first = content.first.or(time);
        } else {
            content.sounds.push(hash(&map));
            content.times.push(time);
        }
    }

    /// Everything that passes this pad.
    fn watch(&self, pad: &gst::Pad, video: bool) {
        let content = self.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let segment = pad.sticky_event::<gst::event::Segment>(0);
            let segment = segment.and_then(|event| event.segment().downcast_ref::<gst::ClockTime>().cloned());
            let time = |buffer: &gst::Buffer| segment.as_ref()?.to_running_time(buffer.pts()?);
            info.buffer().inspect(|buffer| content.note(video, buffer, time(buffer)));
            gst::PadProbeReturn::Ok
        });
    }

    fn pictures(&self) -> usize {
        self.0.lock().unwrap().pictures.len()
    }

    /// Frames of audio that `mpegtsmux ! filesink` and `tsdemux` alone (1.22) lose: those that begin before the first picture,
    /// and, in every second run, one more.
    fn lead_of_mpegts(&self) -> usize {
        let content = self.0.lock().unwrap();
        content.times.iter().take_while(|time| **time < content.first).count() + 1
    }

    fn assert_in(&self, parts: &[Content]) {
        self.assert_in_after(0, parts);
    }

    /// Without so many frames of audio at the beginning.
    fn assert_in_after(&self, lead: usize, parts: &[Content]) {
        let own = self.0.lock().unwrap();
        let (mut pictures, mut sounds) = (BTreeSet::new(), BTreeSet::new());
        for part in parts {
            let part = part.0.lock().unwrap();
            pictures.extend(part.pictures.iter().copied());
            sounds.extend(part.sounds.iter().copied());
        }
        let missing = |own: &[u64], all: &BTreeSet<u64>| -> Vec<usize> {
            own.iter().enumerate().filter(|(_, hash)| !all.contains(hash)).map(|(at, _)| at).collect()
        };
        assert!(!own.pictures.is_empty() && lead < own.sounds.len() / 2, "{lead} of {}", own.sounds.len());
        assert_eq!(
            (missing(&own.pictures, &pictures), missing(&own.sounds[lead..], &sounds)),
            (vec![], vec![]),
            "pictures and audio that are missing"
        );
    }
}

const VIDEO: &str = "h264parse config-interval=-1 ! video/x-h264,stream-format=byte-stream,alignment=au";
const AUDIO: &str = "aacparse ! audio/mpeg,stream-format=raw";

/// What a demuxer finds in a file; a file that ends anywhere is no error.
fn read_file(path: &Path, demuxer: &str, with_audio: bool) -> Content {
    let audio = if with_audio {
        format!("d. ! queue ! {AUDIO} ! fakesink name=audio async=false sync=false")
    } else {
        String::new()
    };
    let text = format!(
        "filesrc location=\"{}\" ! {demuxer} name=d d. ! queue ! {VIDEO} ! fakesink name=video async=false sync=false {audio}",
        path.display()
    );
    let pipeline = gst::parse::launch(&text).unwrap().downcast::<gst::Pipeline>().unwrap();
    let content = Content::default();
    for (name, video) in [("video", true), ("audio", false)] {
        if let Some(sink) = pipeline.by_name(name) {
            content.watch(&sink.static_pad("sink").unwrap(), video);
        }
    }
    pipeline.set_state(gst::State::Playing).unwrap();
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = pipeline.bus().unwrap().timed_pop_filtered(gst::ClockTime::from_seconds(20), &ends);
    assert!(end.is_some(), "{demuxer} does not end");
    pipeline.set_state(gst::State::Null).unwrap();
    content
}

/// The bytes of each instance, as a file.
fn instances(faults: &Faults, directory: &Path) -> Vec<std::path::PathBuf> {
    let taken = faults.tell(|told| told.taken.clone());
    let ids: BTreeSet<usize> = taken.iter().map(|(instance, _)| *instance).collect();
    ids.into_iter()
        .map(|id| {
            let bytes: Vec<u8> =
                taken.iter().filter(|(instance, _)| *instance == id).flat_map(|(_, seen)| seen.data.clone()).collect();
            let path = directory.join(format!("instance-{id}"));
            std::fs::write(&path, bytes).unwrap();
            path
        })
        .collect()
}

/// Picture and sound, live, with the frames that go in.
fn camera(sink: &str, location: &Path, frames: u32) -> (gst::Pipeline, Content) {
    init();
    let samples = frames / 25 * 48_000 / 1024;
    let text = format!(
        "diskbuffersink name=d location=\"{}\" retry-interval=10000000 retry-max-interval=40000000 \
         videotestsrc is-live=true num-buffers={frames} ! video/x-raw,width=64,height=64,framerate=25/1 \
         ! x264enc tune=zerolatency key-int-max=10 threads=1 ! {VIDEO} ! identity name=video ! h264parse ! d.video \
         audiotestsrc is-live=true wave=white-noise num-buffers={samples} ! audio/x-raw,rate=48000,channels=1 ! voaacenc \
         ! {AUDIO} ! identity name=audio ! aacparse ! d.audio_0",
        location.display()
    );
    let pipeline = gst::parse::launch(&text).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.by_name("d").unwrap().set_property("sink-description", sink);
    let content = Content::default();
    for (name, video) in [("video", true), ("audio", false)] {
        content.watch(&pipeline.by_name(name).unwrap().static_pad("src").unwrap(), video);
    }
    (pipeline, content)
}

fn video_and_audio(name: &str, muxer: &str, demuxer: &str) {
    let temp = tempfile::tempdir().unwrap();
    init();
    let faults = Faults::new(name);
    let (pipeline, sent) = camera(&format!("{muxer} ! faultysink about={name}"), &temp.path().join("store"), 100);
    pipeline.set_state(gst::State::Playing).unwrap();
    for round in 1..=3 {
        until("pictures are sent", || sent.pictures() >= round * 20);
        faults.mood(Mood::Fails);
        std::thread::sleep(Duration::from_millis(100));
        faults.mood(Mood::Takes);
    }
    wait_for_eos(&pipeline);
    let stats: gst::Structure = pipeline.by_name("d").unwrap().property("stats");
    pipeline.set_state(gst::State::Null).unwrap();
    assert!(stats.get::<u32>("restarts").unwrap() >= 3, "{stats}");
    assert_eq!(stats.get::<u64>("pending").unwrap(), 0, "{stats}");
    let parts: Vec<Content> =
        instances(&faults, temp.path()).iter().map(|path| read_file(path, demuxer, true)).collect();
    assert!(parts.len() >= 2);
    let lead = if demuxer == "tsdemux" { sent.lead_of_mpegts() } else { 0 };
    sent.assert_in_after(lead, &parts);
}

#[test]
fn matroska_has_every_picture_and_sound_over_restarts() {
    video_and_audio("matroska", "matroskamux streamable=true", "matroskademux");
}

#[test]
fn mpegts_has_every_picture_and_sound_over_restarts() {
    video_and_audio("mpegts", "mpegtsmux", "tsdemux");
}

#[test]
fn flv_has_every_picture_and_sound_over_restarts() {
    video_and_audio("flv", "flvmux streamable=true", "flvdemux");
}

/// Pushes frames of which each keyframe can be decoded alone.
fn push_decodable(station: &Station, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let mut buffer = frame(number, GOP, 2000);
        if number % GOP == 0 {
            let data = [sps(), pps(), buffer.map_readable().unwrap().to_vec()].concat();
            let mut complete = gst::Buffer::from_slice(data);
            buffer.copy_into(complete.make_mut(), gst::BUFFER_COPY_METADATA, ..).unwrap();
            buffer = complete;
        }
        assert_eq!(station.sources[0].push(buffer), Ok(gst::FlowSuccess::Ok));
    }
}

fn caps(width: i32) -> gst::Caps {
    let mut caps = h264_caps();
    caps.make_mut().set("width", width);
    caps
}

#[test]
fn other_caps_get_another_muxer() {
    let temp = tempfile::tempdir().unwrap();
    let station =
        Station::new("other-caps", temp.path(), "mpegtsmux ! faultysink about=other-caps", &["video"], &[]).playing();
    for (part, width) in [64, 128, 64].into_iter().enumerate() {
        let part = part as u64;
        if part == 0 {
            station.start_stream(&caps(width));
        } else {
            assert!(station.sources[0].push_event(gst::event::Caps::new(&caps(width))));
        }
        push_decodable(&station, part * 20..part * 20 + 20);
    }
    station.eos();
    station.wait_eos();
    let files = instances(&station.faults, temp.path());
    assert_eq!(files.len(), 3, "one for each kind of caps");
    assert_eq!((station.count("child-errors"), station.stat("pending")), (0, 0));
    assert_eq!(station.faults.tell(|told| told.eos), 3, "each is closed in order");
    let mut seen = 0;
    for (part, file) in files.iter().enumerate() {
        let found = read_file(file, "tsdemux", false).pictures();
        assert!(found >= 20, "{found} pictures in part {part}");
        seen += found;
    }
    assert!(seen >= 60);
}

#[test]
fn each_run_gets_a_muxer_of_its_own() {
    let temp = tempfile::tempdir().unwrap();
    for run in 0..2 {
        let station = Station::new("runs", temp.path(), "mpegtsmux ! faultysink about=runs", &["video"], &[]);
        station.faults.tell(|told| told.unreachable = true);
        station.play();
        station.start_stream(&h264_caps());
        push_decodable(&station, run * 20..run * 20 + 20);
        until("all is stored", || station.stat("pending") == run * 20 + 20);
    }
    let station = Station::new("runs", temp.path(), "mpegtsmux ! faultysink about=runs", &["video"], &[]);
    station.faults.tell(|told| told.unreachable = false);
    station.play();
    station.start_stream(&h264_caps());
    push_decodable(&station, 40..60);
    station.eos();
    station.wait_eos();
    let files = instances(&station.faults, temp.path());
    let counts: Vec<usize> = files.iter().map(|file| read_file(file, "tsdemux", false).pictures()).collect();
    assert_eq!(counts, [20, 20, 20]);
}

/// Has an element inside the child fail.
fn break_child(bin: &gst::Element, factory: &str) {
    let bin = bin.downcast_ref::<gst::Bin>().unwrap();
    let element =
        bin.iterate_recurse().into_iter().flatten().find(|e| e.factory().is_some_and(|f| f.name() == factory));
    gst::element_error!(element.expect(factory), gst::ResourceError::Write, ("told to fail by a test"));
}

#[test]
fn splitmuxsink_goes_on_with_its_numbers() {
    let temp = tempfile::tempdir().unwrap();
    let files = temp.path().join("files");
    std::fs::create_dir(&files).unwrap();
    let sink = format!(
        "splitmuxsink muxer-factory=matroskamux max-size-time=400000000 location=\"{}/%05d.mkv\"",
        files.display()
    );
    let (pipeline, sent) = camera(&sink, &temp.path().join("store"), 100);
    pipeline.set_state(gst::State::Playing).unwrap();
    let bin = pipeline.by_name("d").unwrap();
    for round in 1..=3u32 {
        until("pictures are sent", || sent.pictures() >= round as usize * 22);
        break_child(&bin, "splitmuxsink");
        until("it is restarted", || bin.property::<gst::Structure>("stats").get::<u32>("restarts").unwrap() >= round);
    }
    wait_for_eos(&pipeline);
    pipeline.set_state(gst::State::Null).unwrap();
    let mut paths: Vec<_> = std::fs::read_dir(&files).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    println!("{paths:?}");
    let parts: Vec<Content> = paths
        .iter()
        .filter(|path| std::fs::metadata(path).unwrap().len() > 0)
        .map(|path| read_file(path, "matroskademux", true))
        .collect();
    sent.assert_in(&parts);
}

#[test]
fn a_file_is_gone_on_with() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("out.ts");
    let sink = format!("mpegtsmux ! filesink location=\"{}\" buffer-mode=unbuffered", file.display());
    let (pipeline, sent) = camera(&sink, &temp.path().join("store"), 75);
    pipeline.set_state(gst::State::Playing).unwrap();
    let bin = pipeline.by_name("d").unwrap();
    until("pictures are sent", || sent.pictures() >= 30);
    break_child(&bin, "filesink");
    wait_for_eos(&pipeline);
    pipeline.set_state(gst::State::Null).unwrap();
    sent.assert_in_after(sent.lead_of_mpegts(), &[read_file(&file, "tsdemux", true)]);
}

#[test]
fn a_muxer_that_waits_for_audio_is_not_restarted() {
    let temp = tempfile::tempdir().unwrap();
    let sink = "mpegtsmux ! faultysink about=no-audio";
    let properties = [("restart-timeout", "200000000"), ("eos-timeout", "200000000")];
    let station = Station::new("no-audio", temp.path(), sink, &["video", "audio_0"], &properties).playing();
    station.start_stream(&h264_caps());
    station.push(0..200);
    let patience = gst::ClockTime::from_seconds(PATIENCE.as_secs());
    let warning = station.bus.timed_pop_filtered(patience, &[gst::MessageType::Warning]).expect("no warning");
    let gst::MessageView::Warning(warning) = warning.view() else { unreachable!() };
    assert!(warning.error().message().contains("audio_0"), "{}", warning.error());
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!((station.count("child-errors"), station.faults.tell(|told| told.starts)), (0, 1));
}
