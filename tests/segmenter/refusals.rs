//! What cannot be is refused with a sentence that says what to set.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gst::prelude::*;

use super::ends::Ends;
use super::played::parse;
use super::rig::{MS, RAW_25, Rig};

/// The error of an element that refuses to start.
fn refused(properties: &str) -> String {
    let rig = Rig::new(properties);
    assert!(rig.element.set_state(gst::State::Paused).is_err(), "{properties} was taken");
    let sentences = rig.sentences();
    assert_eq!(sentences.len(), 1, "{properties}: {sentences:?}");
    sentences.into_iter().next().unwrap()
}

#[test]
fn settings_that_cannot_be_together_are_refused_with_what_to_set() {
    for (properties, names) in [
        ("strategy=fixed duration=0", "duration"),
        ("strategy=sliding hop=0", "hop"),
        ("strategy=sliding duration=0", "duration"),
        ("strategy=keyframe min-duration=2000000000 max-duration=1000000000", "max-duration"),
        ("strategy=adaptive duration=0 target-complexity=0", "target-complexity"),
        ("strategy=event pre-roll=0 post-roll=0", "post-roll"),
        ("strategy=scene output=buffer-lists", "max-duration"),
        ("strategy=sliding duration=2000000000 hop=1000000000 output=buffer-lists", "hop"),
        ("min-quality=0.5 quality-policy=drop", "buffer-lists"),
        ("strategy=fixed duration=-5", "duration"),
        ("strategy=scene min-duration=-7", "min-duration"),
    ] {
        let sentence = refused(properties);
        assert!(sentence.contains(names), "{properties}: {sentence}");
        assert!(sentence.contains("set") || sentence.contains("Set"), "{properties}: {sentence}");
    }
}

#[test]
fn an_unknown_strategy_is_refused_by_gst_launch() {
    super::common::init();
    let refused = gst::parse::launch("fakesrc ! segmenter strategy=lunar ! fakesink").unwrap_err();
    assert!(refused.to_string().contains("lunar") && refused.to_string().contains("strategy"), "{refused}");
}

/// The error of a pipeline that gets going and cannot go on.
fn fails(description: &str) -> String {
    let pipeline = parse(description);
    let _ = pipeline.set_state(gst::State::Playing);
    let patience = gst::ClockTime::from_seconds(60);
    let message = pipeline.bus().unwrap().timed_pop_filtered(patience, &[gst::MessageType::Error]).unwrap();
    let gst::MessageView::Error(error) = message.view() else { unreachable!() };
    let source = error.src().map(|source| source.name().to_string());
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(source.as_deref(), Some("s"), "{error:?}");
    error.error().to_string()
}

#[test]
fn pixels_are_wanted_where_there_are_none() {
    let encoded =
        "videotestsrc num-buffers=5 ! jpegenc ! segmenter name=s strategy=scene scene-method=pixels ! fakesink";
    assert!(fails(encoded).contains("scene-method=auto"));
    let raw = "videotestsrc num-buffers=5 ! segmenter name=s strategy=scene scene-method=coded-size ! fakesink";
    assert!(fails(raw).contains("scene-method=auto"));
    let sound = "audiotestsrc num-buffers=5 ! segmenter name=s strategy=adaptive ! fakesink";
    assert!(fails(sound).contains("needs video"));
    let format = "videotestsrc num-buffers=5 ! video/x-raw,format=v308 ! segmenter name=s strategy=scene ! fakesink";
    assert!(fails(format).contains("videoconvert"));
}

#[test]
fn who_hears_of_a_refusal_may_ask_the_element_at_once() {
    let mut ends = Ends::new(&[("strategy", "scene"), ("scene-method", "pixels")]);
    let (element, answered) = (ends.element.clone(), Arc::new(AtomicBool::new(false)));
    let answers = answered.clone();
    ends.bus.set_sync_handler(move |_, message| {
        if message.type_() == gst::MessageType::Error {
            let mut query = gst::query::Latency::new();
            answers.store(element.static_pad("src").unwrap().query(&mut query), Ordering::Relaxed);
        }
        gst::BusSyncReply::Pass
    });
    let source = ends.source("sink");
    source.add_probe(gst::PadProbeType::QUERY_UPSTREAM, |_, info| {
        if let Some(gst::QueryViewMut::Latency(latency)) = info.query_mut().map(gst::QueryRef::view_mut) {
            latency.set(false, gst::ClockTime::ZERO, None);
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
    ends.play();
    source.push_event(gst::event::StreamStart::new("video"));
    source.push_event(gst::event::Caps::new(&super::common::h264_caps()));
    ends.bus.unset_sync_handler();
    assert!(answered.load(Ordering::Relaxed));
}

const NVMM: &str = "video/x-raw(memory:NVMM),format=NV12,width=64,height=64,framerate=25/1";

#[test]
fn device_memory_passes_where_no_pixels_are_needed_and_is_refused_where_they_are() {
    for strategy in ["fixed", "sliding", "keyframe"] {
        let rig = Rig::new(&format!("strategy={strategy} duration=1000000000")).play();
        let port = rig.main();
        port.begin(NVMM);
        port.push_span(0, 2000);
        port.eos();
        assert_eq!(port.seen().len(), 50, "{strategy}");
        assert!(rig.sentences().is_empty());
    }
    for strategy in ["scene", "adaptive"] {
        let rig = Rig::new(&format!("strategy={strategy}")).play();
        let port = rig.main();
        port.peer.push_event(gst::event::StreamStart::new("one"));
        port.peer.push_event(gst::event::Caps::new(&NVMM.parse().unwrap()));
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        port.peer.push_event(gst::event::Segment::new(&segment));
        assert_eq!(port.peer.push(super::rig::buffer(0, None, 40)), Err(gst::FlowError::NotNegotiated));
        let sentence = rig.sentences().join(" ");
        assert!(sentence.contains("NVMM") && sentence.contains("fixed") && sentence.contains(strategy), "{sentence}");
    }
}

#[test]
fn what_has_no_time_or_plays_backwards_passes_without_windows_and_says_so() {
    let rig = Rig::new("duration=1000000000").play();
    let port = rig.main();
    port.begin_with(RAW_25, &gst::FormattedSegment::<gst::format::Bytes>::new());
    port.push_span(0, 400);
    let mut backwards = gst::FormattedSegment::<gst::ClockTime>::new();
    backwards.set_rate(-1.0);
    backwards.set_stop(gst::ClockTime::from_nseconds(5000 * MS));
    port.peer.push_event(gst::event::Segment::new(&backwards));
    port.push_span(400, 800);
    assert_eq!(port.windows().len(), 20);
    assert!(port.windows().iter().all(|(_, ids)| ids.is_empty()));
    let sentences = rig.sentences();
    assert_eq!(sentences.len(), 2, "{sentences:?}");
    assert!(sentences[0].contains("TIME") && sentences[1].contains("rate"), "{sentences:?}");
}

#[test]
fn splits_of_windows_on_a_grid_are_refused_with_a_warning() {
    let rig = Rig::new("duration=1000000000").play();
    let port = rig.main();
    port.begin(RAW_25);
    port.push_span(0, 400);
    rig.element.emit_by_name::<()>("split-now", &[]);
    let sentences = rig.sentences();
    assert!(sentences.len() == 1 && sentences[0].contains("strategy"), "{sentences:?}");
}
