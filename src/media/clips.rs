//! Proof on real streams: from each sync point that is found, with what it gets in front and without its leading pictures,
//! a decoder gives the frames that it gives for the whole stream.
//!
//! Real clips lie beside the repository in `../shared/media`; without them those tests say so and prove nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use gst::prelude::*;

use crate::media::bits::Units;
use crate::media::keyframe::{Detector, Source, Verdict, bitstream, with_sets};
use crate::media::nal::ParameterSets;
use crate::store::Sync;

struct Stream {
    caps: gst::Caps,
    buffers: Vec<gst::Buffer>,
}

fn clip(name: &str) -> Option<PathBuf> {
    gst::init().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/media").join(name);
    if !path.exists() {
        eprintln!("{name} is not on this machine: nothing was proved with it");
    }
    path.exists().then_some(path)
}

fn missing(elements: &[&str]) -> bool {
    gst::init().unwrap();
    let missing = elements.iter().find(|name| gst::ElementFactory::find(name).is_none());
    if let Some(name) = missing {
        eprintln!("{name} is not on this machine: nothing was proved with it");
    }
    missing.is_some()
}

/// Runs a pipeline up to its appsink named `out`, at most to so many buffers.
fn pull(description: &str, feed: Option<&Stream>, most: usize) -> Stream {
    let pipeline = gst::parse::launch(description).unwrap().downcast::<gst::Pipeline>().unwrap();
    let out = pipeline.by_name("out").unwrap().downcast::<gst_app::AppSink>().unwrap();
    out.set_sync(false);
    if let Some(feed) = feed {
        let source = pipeline.by_name("in").unwrap().downcast::<gst_app::AppSrc>().unwrap();
        source.set_format(gst::Format::Time);
        source.set_max_bytes(u64::MAX);
        source.set_caps(Some(&feed.caps));
        pipeline.set_state(gst::State::Paused).unwrap();
        for buffer in &feed.buffers {
            source.push_buffer(buffer.clone()).unwrap();
        }
        source.end_of_stream().unwrap();
    }
    // What fails says so on the bus.
    let _ = pipeline.set_state(gst::State::Playing);
    let mut stream = Stream { caps: gst::Caps::new_empty(), buffers: Vec::new() };
    while stream.buffers.len() < most
        && let Ok(sample) = out.pull_sample()
    {
        stream.caps = sample.caps_owned().unwrap();
        stream.buffers.push(sample.buffer_owned().unwrap());
    }
    if let Some(error) = pipeline.bus().unwrap().pop_filtered(&[gst::MessageType::Error]) {
        panic!("{description}: {error:?}");
    }
    pipeline.set_state(gst::State::Null).unwrap();
    stream
}

/// PTS and content of each frame.
fn decoded(stream: &Stream, decoder: &str) -> Vec<(u64, u64)> {
    let description =
        format!("appsrc name=in ! {decoder} output-corrupt=false ! video/x-raw,format=I420 ! appsink name=out");
    let frame = |buffer: &gst::Buffer| {
        let mut hasher = DefaultHasher::new();
        buffer.map_readable().unwrap().hash(&mut hasher);
        (buffer.pts().unwrap().nseconds(), hasher.finish())
    };
    pull(&description, Some(&joined(stream)), usize::MAX).buffers.iter().map(frame).collect()
}

/// The same stream in a buffer per NAL unit, as payloaders and network sources give it.
fn split(stream: &Stream) -> Stream {
    let mut caps = stream.caps.clone();
    caps.make_mut().set("alignment", "nal");
    let (_, framing) = bitstream(&caps).unwrap();
    let mut buffers = Vec::new();
    for buffer in &stream.buffers {
        let map = buffer.map_readable().unwrap();
        let mut units = Units::new(framing, &map, map.len());
        while units.next().is_some() {
            let mut data = Vec::new();
            framing.push(&mut data, &map[units.range()]);
            let mut unit = gst::Buffer::from_slice(data);
            buffer.copy_into(unit.make_mut(), gst::BufferCopyFlags::TIMESTAMPS, ..).unwrap();
            buffers.push(unit);
        }
    }
    Stream { caps, buffers }
}

/// Access units again: what has the same PTS.
fn joined(stream: &Stream) -> Stream {
    let mut caps = stream.caps.clone();
    caps.make_mut().set("alignment", "au");
    // The same, but that decoders do not know it.
    if caps.structure(0).unwrap().get("stream-format") == Ok("avc3") {
        caps.make_mut().set("stream-format", "avc");
    }
    let mut buffers: Vec<gst::Buffer> = Vec::new();
    for buffer in &stream.buffers {
        match buffers.last_mut() {
            Some(last) if last.pts() == buffer.pts() => last.append(buffer.clone()),
            _ => buffers.push(buffer.clone()),
        }
    }
    Stream { caps, buffers }
}

/// Verdicts on a stream whose flags say nothing.
fn verdicts(stream: &Stream) -> (Vec<Verdict>, Vec<ParameterSets>) {
    let mut detector = Detector::new(Source::Auto, Some(&stream.caps));
    let look = |buffer: &gst::Buffer| {
        let map = buffer.map_readable().unwrap();
        let verdict = detector.inspect(gst::BufferFlags::DELTA_UNIT, buffer.pts(), &[&map]);
        (verdict, detector.sets().clone())
    };
    stream.buffers.iter().map(look).unzip()
}

/// What goes out when output begins at a sync point, up to `most` access units.
fn output_from(stream: &Stream, verdicts: &[Verdict], sets: &ParameterSets, at: usize, most: usize) -> Stream {
    let mut leading = verdicts[at].sync == Sync::Open;
    let mut buffers: Vec<gst::Buffer> = Vec::new();
    let mut access_units = 0;
    for (at, (buffer, verdict)) in stream.buffers.iter().zip(verdicts).enumerate().skip(at) {
        access_units += usize::from(at == 0 || stream.buffers[at - 1].pts() != buffer.pts());
        if access_units > most {
            break;
        }
        leading &= buffers.is_empty() || verdict.sync == Sync::None;
        if leading && verdict.leading {
            continue;
        }
        let complete = if buffers.is_empty() { with_sets(&stream.caps, sets, buffer) } else { None };
        let mut buffer = complete.unwrap_or_else(|| buffer.clone());
        // What no decoder should need.
        buffer.make_mut().unset_flags(gst::BufferFlags::HEADER);
        buffers.push(buffer);
    }
    Stream { caps: stream.caps.clone(), buffers }
}

/// Number of closed and open sync points and of leading buffers. Decodes so many access units from each sync point on.
fn prove(stream: &Stream, decoder: &str, most: usize) -> [usize; 3] {
    let (verdicts, sets) = verdicts(stream);
    let whole: BTreeMap<u64, u64> = decoded(stream, decoder).into_iter().collect();
    for at in (0..stream.buffers.len()).filter(|&at| verdicts[at].sync != Sync::None) {
        let part = output_from(stream, &verdicts, &sets[at], at, most);
        let stamps: BTreeSet<u64> = part.buffers.iter().map(|buffer| buffer.pts().unwrap().nseconds()).collect();
        let expected: Vec<_> = stamps.iter().map(|pts| (*pts, whole[pts])).collect();
        assert_eq!(expected[0].0, stream.buffers[at].pts().unwrap().nseconds(), "the sync point is shown first");
        assert_eq!(decoded(&part, decoder), expected, "from buffer {at} of {}", stream.caps);
    }
    let count = |wanted: &dyn Fn(&Verdict) -> bool| verdicts.iter().filter(|&verdict| wanted(verdict)).count();
    [
        count(&|verdict| verdict.sync == Sync::Closed),
        count(&|verdict| verdict.sync == Sync::Open),
        count(&|verdict| verdict.leading),
    ]
}

const FORMATS: [(&str, bool); 5] =
    [("avc", false), ("byte-stream", false), ("avc3", false), ("byte-stream", true), ("avc", true)];

fn h264(clip: &Path, format: (&str, bool), most: usize) -> Stream {
    let source = format!("filesrc location=\"{}\" ! qtdemux ! h264parse", clip.display());
    let caps = format!("video/x-h264,stream-format={},alignment=au", format.0);
    let stream = pull(&format!("{source} ! {caps} ! appsink name=out"), None, most);
    if format.1 { split(&stream) } else { stream }
}

#[test]
fn h264_decodes_from_the_sync_points_of_real_clips() {
    let byte_stream = ("byte-stream", true);
    for (name, format) in
        [("bbb_64s.mp4", byte_stream), ("concat_ccby_b3.mp4", ("avc", false)), ("concat_ccby_nob.mp4", byte_stream)]
    {
        let Some(clip) = clip(name) else { continue };
        let [closed, open, _] = prove(&h264(&clip, format, 110), "avdec_h264", 12);
        assert!(closed + open > 1, "{name} {format:?}");
    }
}

/// All of it in all framings.
#[test]
#[ignore = "takes minutes"]
fn h264_decodes_from_every_sync_point_of_real_clips() {
    for (name, known) in [("bbb_64s.mp4", Some([13, 11])), ("concat_ccby_b3.mp4", None), ("concat_ccby_nob.mp4", None)]
    {
        let Some(clip) = clip(name) else { continue };
        let source = format!("filesrc location=\"{}\" ! qtdemux ! video/x-h264 ! appsink name=out", clip.display());
        let by_index = pull(&source, None, usize::MAX);
        let delta = |buffer: &&gst::Buffer| !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let marked = by_index.buffers.iter().filter(delta).count();
        for format in FORMATS {
            let stream = h264(&clip, format, usize::MAX);
            let [closed, open, leading] = prove(&stream, "avdec_h264", 90);
            println!("{name} {format:?}: {closed} closed, {open} open, {leading} leading of {}", stream.buffers.len());
            assert_eq!(closed + open, marked, "{name} {format:?}");
            assert!(known.is_none_or(|known| known == [closed, open]));
        }
    }
}

fn encoded(codec: &str, encoder: &str, options: &str, format: (&str, bool)) -> Stream {
    let source =
        "videotestsrc pattern=ball num-buffers=60 ! video/x-raw,format=I420,width=192,height=128,framerate=25/1";
    let caps = format!("video/x-{codec},stream-format={},alignment=au", format.0);
    let encoder = format!("{encoder} option-string=\"{options}\" ! {codec}parse");
    let stream = pull(&format!("{source} ! {encoder} ! {caps} ! appsink name=out"), None, usize::MAX);
    if format.1 { split(&stream) } else { stream }
}

const X264: &str = "x264enc speed-preset=veryfast key-int-max=12";
const X264_GOP: &str = "min-keyint=12:scenecut=0:bframes=3:b-adapt=0:b-pyramid=normal";

#[test]
fn h264_decodes_from_the_sync_points_of_open_gops_in_slices() {
    if missing(&["x264enc", "h264parse", "avdec_h264"]) {
        return;
    }
    for format in FORMATS {
        let stream = encoded("h264", X264, &format!("{X264_GOP}:open-gop=1:slices=3"), format);
        let [closed, open, leading] = prove(&stream, "avdec_h264", 60);
        assert_eq!([closed, open], [1, 4], "{format:?}");
        let slices = if format.1 { 3 } else { 1 };
        assert!(leading >= 4 * 2 * slices, "{format:?}: {leading} leading");
    }
}

#[test]
fn an_intra_refresh_has_no_sync_points_but_says_how_long_it_takes() {
    if missing(&["x264enc", "h264parse"]) {
        return;
    }
    for format in FORMATS {
        let stream = encoded("h264", X264, "intra-refresh=1:bframes=0", format);
        let (verdicts, _) = verdicts(&stream);
        let syncs: Vec<_> = verdicts.iter().map(|verdict| verdict.sync).filter(|&sync| sync != Sync::None).collect();
        assert_eq!(syncs, [Sync::Closed], "{format:?}");
        assert!(verdicts.iter().any(|verdict| verdict.recovery_frames.is_some_and(|frames| frames > 1)), "{format:?}");
    }
}

#[test]
fn interlaced_h264_decodes_from_its_sync_points() {
    if missing(&["x264enc", "h264parse", "avdec_h264"]) {
        return;
    }
    let stream = encoded("h264", X264, &format!("{X264_GOP}:open-gop=1:tff=1"), ("byte-stream", false));
    let [closed, open, _] = prove(&stream, "avdec_h264", 40);
    assert_eq!([closed, open], [1, 4]);
}

const X265: &str = "x265enc speed-preset=ultrafast";
const X265_GOP: &str = "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0:b-pyramid=1:log-level=none";

#[test]
fn h265_decodes_from_the_sync_points_of_open_gops() {
    if missing(&["x265enc", "h265parse", "avdec_h265"]) {
        return;
    }
    for format in [("byte-stream", false), ("hvc1", false), ("hev1", false), ("byte-stream", true), ("hev1", true)] {
        let stream = encoded("h265", X265, &format!("{X265_GOP}:open-gop=1:slices=2"), format);
        let [closed, open, leading] = prove(&stream, "avdec_h265", 40);
        assert_eq!([closed, open], [1, 4], "{format:?}");
        assert!(leading >= 4 * 2, "{format:?}: {leading} RASL pictures");
    }
}

#[test]
fn h265_leading_pictures_that_can_be_decoded_stay() {
    if missing(&["x265enc", "h265parse", "avdec_h265"]) {
        return;
    }
    let stream = encoded("h265", X265, &format!("{X265_GOP}:open-gop=0:radl=2"), ("byte-stream", false));
    let (verdicts, sets) = verdicts(&stream);
    assert!(verdicts.iter().all(|verdict| verdict.sync != Sync::Open && !verdict.leading));
    let whole: BTreeMap<u64, u64> = decoded(&stream, "avdec_h265").into_iter().collect();
    let points: Vec<usize> = (0..verdicts.len()).filter(|&at| verdicts[at].sync != Sync::None).collect();
    assert!(points.len() >= 4, "{points:?}");
    for at in points {
        let frames = decoded(&output_from(&stream, &verdicts, &sets[at], at, 30), "avdec_h265");
        assert_eq!(frames.len(), 30.min(verdicts.len() - at));
        assert!(frames.iter().all(|(pts, frame)| whole[pts] == *frame));
    }
}
