//! As gst-launch uses it.

use gst::prelude::*;

use super::common;

fn run(description: &str) -> gst::Pipeline {
    common::init();
    let pipeline = gst::parse::launch(description).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    common::wait_for_eos(&pipeline);
    pipeline
}

fn stats(pipeline: &gst::Pipeline, pad: &str) -> gst::Structure {
    let element = pipeline.by_name("f").unwrap();
    element.static_pad(pad).unwrap().property("stats")
}

#[test]
fn one_stream_needs_no_pad_names() {
    let pipeline = run("videotestsrc num-buffers=30 ! framesync name=f timestamp-format=pipeline ! fakesink");
    assert_eq!(stats(&pipeline, "sink_0").get::<u64>("out").unwrap(), 30);
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn pads_have_properties_of_their_own_before_they_exist() {
    let pipeline = run("framesync name=f mode=align offset=1000000 sink_1::offset=5000000 sink_1::policy=nearest \
         videotestsrc num-buffers=10 ! f.sink_0 f.src_0 ! fakesink \
         videotestsrc num-buffers=10 ! f.sink_1 f.src_1 ! fakesink");
    let element = pipeline.by_name("f").unwrap();
    let proxy = element.dynamic_cast_ref::<gst::ChildProxy>().unwrap();
    let offset = |name: &str| proxy.child_property::<i64>(name);
    assert_eq!((offset("sink_0::offset"), offset("sink_1::offset")), (1_000_000, 5_000_000));
    assert_eq!(proxy.children_count(), 2);
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn several_streams_preroll_into_a_compositor() {
    let pipeline = run("framesync name=f mode=align \
         videotestsrc num-buffers=30 ! video/x-raw,width=64,height=48,framerate=30/1 ! f.sink_0 f.src_0 ! mix.sink_0 \
         videotestsrc num-buffers=30 ! video/x-raw,width=64,height=48,framerate=30/1 ! f.sink_1 f.src_1 ! mix.sink_1 \
         compositor name=mix sink_1::xpos=64 ! fakesink sync=true");
    for pad in ["sink_0", "sink_1"] {
        assert_eq!(stats(&pipeline, pad).get::<u64>("out").unwrap(), 30);
    }
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn live_streams_meet_in_real_time() {
    let pipeline = run("framesync name=f mode=align latency=100000000 \
         videotestsrc is-live=true num-buffers=20 ! video/x-raw,framerate=50/1 ! f.sink_0 f.src_0 ! fakesink sync=true \
         videotestsrc is-live=true num-buffers=20 ! video/x-raw,framerate=50/1 ! f.sink_1 f.src_1 ! fakesink sync=true");
    for pad in ["sink_0", "sink_1"] {
        assert!(stats(&pipeline, pad).get::<u64>("out").unwrap() >= 18);
    }
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_whole_clip_with_b_frames_stays_as_it_is() {
    let Some(clip) =
        std::fs::read_dir(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/media")).ok().and_then(
            |dir| dir.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "mp4")),
        )
    else {
        eprintln!("no clip is on this machine: this test did not run");
        return;
    };
    let pipeline =
        run(&format!("filesrc location={} ! qtdemux ! framesync name=f mode=align ! fakesink", clip.display()));
    let stats = stats(&pipeline, "sink_0");
    assert!(stats.get::<u64>("in").unwrap() > 0);
    assert_eq!(stats.get::<u64>("in").unwrap(), stats.get::<u64>("out").unwrap());
    pipeline.set_state(gst::State::Null).unwrap();
}
