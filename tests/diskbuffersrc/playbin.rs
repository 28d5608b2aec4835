//! `diskbuffer://` in players.

use gst::prelude::*;

use crate::common::*;
use crate::player::*;

fn patience() -> gst::ClockTime {
    gst::ClockTime::from_seconds(PATIENCE.as_secs())
}

/// Records a real clip, or a generated one, as if each frame had been captured at its time after T0; its length in ns.
fn record_clip(location: &std::path::Path) -> u64 {
    init();
    let source = match clip("bbb_64s.mp4") {
        Some(clip) => format!("filesrc location={} ! qtdemux ! h264parse", clip.display()),
        None => {
            "videotestsrc num-buffers=1500 ! video/x-raw,width=64,height=64,framerate=25/1 ! x264enc key-int-max=25 \
                 speed-preset=ultrafast ! h264parse"
                .to_owned()
        }
    };
    let pipeline = gst::parse::launch(&format!(
        "{source} ! diskbuffer name=buffer location={} retention-time=1000000000000000 ! fakesink",
        location.display()
    ))
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    let end = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let latest = end.clone();
    let pad = pipeline.by_name("buffer").unwrap().static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
            let segment = pad.sticky_event::<gst::event::Segment>(0).unwrap();
            let segment = segment.segment().downcast_ref::<gst::ClockTime>().unwrap().clone();
            let at = segment.to_stream_time(buffer.pts()).unwrap().nseconds();
            let until = at + buffer.duration().unwrap_or_default().nseconds();
            latest.fetch_max(until, std::sync::atomic::Ordering::Relaxed);
            *buffer = captured(buffer.clone(), T0 + at);
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    wait_for_eos(&pipeline);
    pipeline.set_state(gst::State::Null).unwrap();
    end.load(std::sync::atomic::Ordering::Relaxed)
}

#[test]
fn a_player_plays_a_recording_by_its_uri_and_seeks() {
    let dir = tempfile::tempdir().unwrap();
    let length = record_clip(dir.path());
    let uri = format!("diskbuffer://{}", dir.path().display());
    for player in ["playbin", "playbin3"] {
        let Ok(playbin) = gst::ElementFactory::make(player).build() else { continue };
        let sink = gst::ElementFactory::make("fakesink").property("sync", false).build().unwrap();
        sink.set_property("enable-last-sample", true);
        playbin.set_property("uri", &uri);
        playbin.set_property("video-sink", &sink);
        let pipeline = playbin.downcast::<gst::Pipeline>().unwrap();
        pipeline.set_state(gst::State::Paused).unwrap();
        let prerolled = pipeline.state(patience());
        assert_eq!(prerolled.0, Ok(gst::StateChangeSuccess::Success), "{player}");
        let duration = pipeline.query_duration::<gst::ClockTime>().unwrap().nseconds();
        assert!(duration.abs_diff(length) < SECOND / 10, "{player}: {duration} and {length}");
        for at in [30 * SECOND + SECOND / 3, 5 * SECOND, length - 3 * SECOND] {
            let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
            pipeline.seek_simple(flags, gst::ClockTime::from_nseconds(at)).unwrap();
            assert_eq!(pipeline.state(patience()).0, Ok(gst::StateChangeSuccess::Success), "{player}");
            let position = pipeline.query_position::<gst::ClockTime>().unwrap().nseconds();
            assert!(position.abs_diff(at) <= SECOND / 10, "{player}: {position} after a seek to {at}");
            let sample = sink.property::<Option<gst::Sample>>("last-sample").unwrap();
            let caps = sample.caps().unwrap().structure(0).unwrap().name().to_string();
            assert_eq!(caps, "video/x-raw", "{player}: it is decoded");
            let segment = sample.segment().unwrap().downcast_ref::<gst::ClockTime>().unwrap().clone();
            let shown = segment.to_stream_time(sample.buffer().unwrap().pts()).unwrap().nseconds();
            assert!(shown.abs_diff(at) <= SECOND / 10, "{player}: {shown} is shown after a seek to {at}");
        }
        pipeline.set_state(gst::State::Playing).unwrap();
        wait_for_eos(&pipeline);
        pipeline.set_state(gst::State::Null).unwrap();
    }
}
