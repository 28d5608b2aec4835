//! Windows by time: which frames are in them, on real clips where there are any (`../shared/media`), else on made-up
//! H.264 with B-frames.

use std::collections::BTreeSet;

use super::played::{Item, Played, Seen, check_order, check_spans, field, play, source};

const MS: u64 = 1_000_000;
const CLIPS: [&str; 3] = ["bbb_64s.mp4", "concat_ccby_b3.mp4", "concat_ccby_nob.mp4"];

/// floor(t / hop) and the windows before it that reach that far, by nothing but the definition.
fn expected(time: u64, duration: u64, hop: u64) -> Vec<u64> {
    (0..=time / hop).filter(|id| id * hop <= time && time < id * hop + duration).collect()
}

fn reordered(buffers: &[&Seen]) -> bool {
    buffers.windows(2).any(|pair| pair[1].pts < pair[0].pts)
}

/// Messages tell what the buffers say.
fn check_closed(played: &Played) {
    let buffers = played.buffers("src");
    let mut told = BTreeSet::new();
    for message in &played.closed {
        let id = field(message, "window-id");
        assert!(told.insert(id), "window {id} is closed twice");
        let inside: Vec<_> = buffers.iter().filter(|seen| seen.ids.iter().flatten().any(|of| *of == id)).collect();
        assert_eq!(field(message, "frames"), inside.len() as u64, "{message}");
        assert_eq!(field(message, "bytes"), inside.iter().map(|seen| seen.size as u64).sum::<u64>());
        assert!(message.get::<bool>("complete").unwrap(), "{message}");
        let (start, end) = (field(message, "start"), field(message, "end"));
        assert!(inside.iter().all(|seen| (start..end).contains(&seen.stream_time.unwrap())), "{message}");
    }
    let seen: BTreeSet<_> = buffers.iter().flat_map(|seen| seen.ids.iter().flatten().copied()).collect();
    assert_eq!(told, seen);
    let ids: Vec<_> = played.closed.iter().map(|message| field(message, "window-id")).collect();
    assert!(ids.is_sorted(), "{ids:?}");
}

#[test]
fn every_frame_is_in_the_windows_that_its_pts_says() {
    let mut with_b_frames = false;
    for clip in CLIPS {
        for (settings, duration, hop) in [
            ("strategy=fixed duration=1000000000", 1000, 1000),
            ("strategy=sliding duration=3000000000 hop=1000000000", 3000, 1000),
            ("strategy=sliding duration=700000000 hop=1700000000", 700, 1700),
        ] {
            let played = play(&format!("{} ! segmenter name=s {settings} ! fakesink", source(clip)));
            let buffers = played.buffers("src");
            assert!(buffers.len() > 200);
            with_b_frames |= reordered(&buffers);
            for seen in &buffers {
                let wanted = expected(seen.stream_time.unwrap(), duration * MS, hop * MS);
                assert_eq!(seen.ids.clone().unwrap_or_default(), wanted, "{clip} {settings} {seen:?}");
                assert!(!seen.late);
            }
            check_spans(played.items("src"));
            check_closed(&played);
        }
    }
    assert!(with_b_frames);
}

#[test]
fn windows_of_b_frames_overlap_in_decode_order() {
    let played = play(&format!("{} ! segmenter name=s duration=1000000000 ! fakesink", source("concat_ccby_b3.mp4")));
    let mut open = 0;
    let mut most = 0;
    for item in played.items("src") {
        match item {
            Item::Start(_) => open += 1,
            Item::End(_) => open -= 1,
            _ => {}
        }
        most = most.max(open);
    }
    assert_eq!(most, 2);
}

/// The first keyframe at or after each multiple of `duration`; with 0 each keyframe.
fn begin_at_keyframes(buffers: &[&Seen], duration: u64) -> Vec<u64> {
    let mut keyframes: Vec<_> = buffers.iter().filter(|seen| seen.keyframe).map(|s| s.stream_time.unwrap()).collect();
    keyframes.sort_unstable();
    let mut starts = Vec::new();
    for time in keyframes {
        if duration == 0 || starts.last().is_none_or(|last| time / duration > last / duration) {
            starts.push(time);
        }
    }
    starts
}

#[test]
fn keyframe_windows_begin_at_keyframes() {
    for clip in CLIPS {
        for (settings, duration) in [
            ("strategy=keyframe duration=0", 0),
            ("strategy=keyframe duration=5000000000", 5000 * MS),
            ("strategy=fixed align-to-keyframe=true duration=5000000000", 5000 * MS),
        ] {
            // In one of them pictures that the container calls keyframes are none by the bitstream.
            let detection = if clip == CLIPS[0] { "flags" } else { "auto" };
            let played = play(&format!(
                "{} ! segmenter name=s {settings} keyframe-detection={detection} ! fakesink",
                source(clip)
            ));
            let buffers = played.buffers("src");
            let starts = begin_at_keyframes(&buffers, duration);
            for seen in &buffers {
                let time = seen.stream_time.unwrap();
                let Some(start) = starts.iter().rev().find(|start| **start <= time) else { continue };
                let id = start.checked_div(duration).unwrap_or(*start);
                assert_eq!(seen.ids, Some(vec![id]), "{clip} {settings} {seen:?}");
            }
            check_order(played.items("src"));
            assert_eq!(played.closed.len(), starts.len(), "{clip} {settings}");
        }
    }
}

#[test]
fn windows_by_utc_begin_at_full_seconds_of_capture() {
    // Captured half a second after a full second since 1970.
    let begun = 1_700_000_000_500_000_000u64;
    let pipeline = super::played::parse(&format!(
        "{} ! segmenter name=s time-base=utc duration=1000000000 ! fakesink",
        source("concat_ccby_b3.mp4")
    ));
    let element = super::played::segmenter(&pipeline);
    let caps = gst::Caps::new_empty_simple("timestamp/x-unix");
    use gst::prelude::*;
    element.static_pad("sink").unwrap().add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
            let segment = pad.sticky_event::<gst::event::Segment>(0).unwrap();
            let segment = segment.segment().downcast_ref::<gst::ClockTime>().unwrap();
            let at = gst::ClockTime::from_nseconds(begun) + segment.to_running_time(buffer.pts()).unwrap();
            gst::ReferenceTimestampMeta::add(buffer.make_mut(), &caps, at, None);
        }
        gst::PadProbeReturn::Ok
    });
    let records = super::played::watch_all(&pipeline);
    let played = super::played::finish(&pipeline, &records);
    for seen in played.buffers("src") {
        let id = (begun + seen.running_time.unwrap()) / (1000 * MS);
        assert_eq!(seen.ids, Some(vec![id]), "{seen:?}");
    }
    for message in &played.closed {
        let start = field(message, "window-id") * 1000 * MS;
        assert_eq!(message.get::<i64>("start-utc").unwrap().unsigned_abs(), start);
        assert_eq!(field(message, "start-running-time"), start.saturating_sub(begun));
    }
    check_order(played.items("src"));
}

#[test]
fn ids_are_the_same_in_two_runs_and_after_a_seek() {
    use gst::prelude::*;
    for settings in
        ["duration=1000000000", "strategy=keyframe duration=0", "strategy=sliding duration=2000000000 hop=500000000"]
    {
        let Some(path) = super::common::clip("concat_ccby_b3.mp4") else { return };
        let description = format!(
            "filesrc location={} ! qtdemux ! h264parse ! segmenter name=s {settings} ! fakesink name=sink",
            path.display()
        );
        let key = |seen: &Seen| (seen.pts, seen.ids.clone());
        let first: Vec<_> = play(&description).buffers("src").into_iter().map(key).collect();
        let again: Vec<_> = play(&description).buffers("src").into_iter().map(key).collect();
        assert_eq!(first, again);

        let pipeline = super::played::parse(&description);
        pipeline.set_state(gst::State::Paused).unwrap();
        pipeline.state(gst::ClockTime::from_seconds(60)).0.unwrap();
        let records = super::played::watch_all(&pipeline);
        let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT;
        pipeline.seek_simple(flags, gst::ClockTime::from_seconds(20)).unwrap();
        let played = super::played::finish(&pipeline, &records);
        let after: Vec<_> = played.buffers("src").into_iter().map(key).collect();
        assert!(after.len() > 100 && after.len() < first.len());
        assert!(after.iter().all(|seen| first.contains(seen)), "{settings}");
        check_order(played.items("src"));
    }
}

#[test]
fn with_a_rate_windows_stay_in_stream_time() {
    use gst::prelude::*;
    let Some(path) = super::common::clip("concat_ccby_nob.mp4") else { return };
    let pipeline = super::played::parse(&format!(
        "filesrc location={} ! qtdemux ! h264parse ! segmenter name=s duration=1000000000 ! fakesink",
        path.display()
    ));
    pipeline.set_state(gst::State::Paused).unwrap();
    pipeline.state(gst::ClockTime::from_seconds(60)).0.unwrap();
    let records = super::played::watch_all(&pipeline);
    let (begin, end) = (gst::ClockTime::ZERO, gst::ClockTime::NONE);
    pipeline.seek(3.0, gst::SeekFlags::FLUSH, gst::SeekType::Set, begin, gst::SeekType::None, end).unwrap();
    let played = super::played::finish(&pipeline, &records);
    assert!(played.buffers("src").len() > 1000);
    for seen in played.buffers("src") {
        assert_eq!(seen.ids, Some(vec![seen.stream_time.unwrap() / (1000 * MS)]), "{seen:?}");
    }
}
