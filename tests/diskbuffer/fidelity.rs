//! A pipeline with the element shows what it shows without: pictures, sound, times, events.

use std::path::Path;
use std::sync::{Arc, Mutex};

use gst::prelude::*;

use crate::common::*;
use crate::trace::*;

/// What a sink got: PTS, duration, size and checksum of the memory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    pts: Option<gst::ClockTime>,
    duration: Option<gst::ClockTime>,
    size: usize,
    checksum: u32,
}

fn note_frames(pad: &gst::Pad) -> Arc<Mutex<Vec<Frame>>> {
    let frames: Arc<Mutex<Vec<Frame>>> = Default::default();
    let notes = frames.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer() {
            let map = buffer.map_readable().unwrap();
            notes.lock().unwrap().push(Frame {
                pts: buffer.pts(),
                duration: buffer.duration(),
                size: map.len(),
                checksum: crc32c::crc32c(&map),
            });
        }
        gst::PadProbeReturn::Ok
    });
    frames
}

/// A pipeline that the element can be put into.
struct Line<'a> {
    /// What is stored.
    head: &'a str,
    /// What is made of it; empty for nothing.
    tail: &'a str,
}

impl Line<'_> {
    /// Plays to the end without the element (no `way`) or with it, and compares what goes into it with what comes out.
    fn play(&self, way: Option<Way>) -> Vec<Frame> {
        let temp = tempfile::tempdir().unwrap();
        let buffer = if way.is_some() { "! diskbuffer name=buffer" } else { "" };
        let tail = if self.tail.is_empty() { String::new() } else { format!("! {}", self.tail) };
        let text = format!("{} {buffer} {tail} ! fakesink name=sink sync=false enable-last-sample=false", self.head);
        let pipeline = gst::parse::launch(&text).unwrap().downcast::<gst::Pipeline>().unwrap();
        let frames = note_frames(&pipeline.by_name("sink").unwrap().static_pad("sink").unwrap());
        let traces = way.map(|way| {
            let buffer = pipeline.by_name("buffer").unwrap();
            buffer.set_property("location", temp.path().to_str().unwrap());
            way.properties().iter().for_each(|(name, value)| buffer.set_property_from_str(name, value));
            let (input, output) = (buffer.static_pad("sink").unwrap(), buffer.static_pad("src").unwrap());
            let traces = (way, Trace::of(&input), Trace::of(&output));
            if way.holds() {
                Barrier::at(&output).open_at_eos_of(&input);
            }
            traces
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        wait_for_eos(&pipeline);
        pipeline.set_state(gst::State::Null).unwrap();
        if let Some((way, input, output)) = traces {
            let input = input.get();
            assert!(matches!(input.last(), Some(Passing::Event(said)) if said.starts_with("eos")));
            assert_same(&format!("{way:?}: {}", self.head), &input, &output.get());
        }
        std::mem::take(&mut *frames.lock().unwrap())
    }

    /// The same frames without the element and by each way through it, all at the same time; how many.
    fn check(&self, ways: &[Way]) -> usize {
        init();
        std::thread::scope(|scope| {
            let played: Vec<_> = ways.iter().map(|way| (way, scope.spawn(|| self.play(Some(*way))))).collect();
            let expected = self.play(None);
            assert!(!expected.is_empty());
            for (way, frames) in played {
                let frames = frames.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                assert_same(&format!("{way:?}: {} ! {}", self.head, self.tail), &expected, &frames);
            }
            expected.len()
        })
    }
}

/// The pictures of a clip, as access units with length fields and as a byte stream, and its sound.
fn check_clip(name: &str, pictures: usize) {
    let Some(clip) = clip(name) else { return };
    let source = format!("filesrc location=\"{}\" ! qtdemux name=demux", clip.display());
    let avc = Line {
        head: &format!("{source} demux.video_0 ! h264parse ! video/x-h264,stream-format=avc"),
        tail: "avdec_h264",
    };
    assert_eq!(avc.check(&[Way::Memory, Way::Backlog]), pictures);
    let byte_stream = Line {
        head: &format!("{source} demux.video_0 ! h264parse ! video/x-h264,stream-format=byte-stream,alignment=au"),
        tail: "avdec_h264",
    };
    assert_eq!(byte_stream.check(&[Way::Backlog]), pictures);
    let sound = Line { head: &format!("{source} demux.audio_0 ! aacparse"), tail: "avdec_aac" };
    assert!(sound.check(&Way::ALL) > pictures);
}

#[test]
fn bbb_is_decoded_as_without_the_element() {
    check_clip("bbb_64s.mp4", 1525);
}

#[test]
fn a_clip_with_b_frames_is_decoded_as_without_the_element() {
    check_clip("concat_ccby_b3.mp4", 1246);
}

#[test]
fn a_clip_without_b_frames_is_decoded_as_without_the_element() {
    check_clip("concat_ccby_nob.mp4", 1246);
}

const PICTURES: &str =
    "videotestsrc num-buffers=60 pattern=ball ! video/x-raw,format=I420,width=160,height=120,framerate=25/1";

#[test]
fn h264_from_an_encoder_comes_through() {
    let head = format!("{PICTURES} ! x264enc key-int-max=20 bframes=2 ! h264parse");
    assert_eq!(Line { head: &head, tail: "avdec_h264" }.check(&Way::ALL), 60);
}

#[test]
fn jpeg_comes_through() {
    assert_eq!(Line { head: &format!("{PICTURES} ! jpegenc"), tail: "jpegdec" }.check(&Way::ALL), 60);
}

#[test]
fn raw_i420_comes_through() {
    assert_eq!(Line { head: PICTURES, tail: "" }.check(&Way::ALL), 60);
}

#[test]
fn vp8_comes_through() {
    let head = format!("{PICTURES} ! vp8enc deadline=0 threads=1 keyframe-max-dist=20 auto-alt-ref=true");
    assert!(Line { head: &head, tail: "vp8dec" }.check(&Way::ALL) >= 60);
}

/// To its end.
fn play(line: &str) {
    let pipeline = gst::parse::launch(line).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    wait_for_eos(&pipeline);
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn aac_comes_through() {
    init();
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("ticks.aac");
    let ticks =
        "audiotestsrc num-buffers=100 wave=ticks ! audioconvert ! avenc_aac ! aacparse ! audio/mpeg,stream-format=adts";
    play(&format!("{ticks} ! filesink location=\"{}\"", file.display()));
    // Encoded once: two encoders need not agree on every bit.
    let head = format!("filesrc location=\"{}\" ! aacparse", file.display());
    assert!(Line { head: &head, tail: "avdec_aac" }.check(&Way::ALL) > 90);
}

/// Not a multiple of the block size, and no two blocks the same.
fn write_noise(path: &Path) -> Vec<u8> {
    let mut noise = 0x9E37_79B9_7F4A_7C15u64;
    let mut bytes = Vec::new();
    while bytes.len() < 300_003 {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        bytes.push((noise >> 24) as u8);
    }
    std::fs::write(path, &bytes).unwrap();
    bytes
}

#[test]
fn bytes_without_caps_come_through() {
    let temp = tempfile::tempdir().unwrap();
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    let noise = write_noise(&from);
    let head = format!("filesrc blocksize=4096 location=\"{}\"", from.display());
    assert_eq!(Line { head: &head, tail: "" }.check(&Way::ALL), 300_003usize.div_ceil(4096));
    let store = temp.path().join("store");
    let text = format!(
        "{head} ! diskbuffer max-memory-bytes=0 location=\"{}\" ! filesink location=\"{}\"",
        store.display(),
        to.display()
    );
    play(&text);
    assert!(std::fs::read(&to).unwrap() == noise, "the file is another one");
}
