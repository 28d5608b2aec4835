//! Descriptions, pads and properties: what goes where, and what is said when it does not.

use gst::prelude::*;

use crate::common::*;
use crate::faulty::*;
use crate::station::*;

/// The error of a description with these pads.
fn refused(description: &str, pads: &[&str]) -> String {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::new("refused", temp.path(), description, pads, &[]);
    assert!(station.pipeline.set_state(gst::State::Paused).is_err(), "{description}");
    station.error()
}

#[test]
fn bad_descriptions_say_what_to_do() {
    for (description, parts) in [
        ("nosuchsink location=x", ["\"nosuchsink\"", "install"]),
        ("fakesink colour=red", ["colour", "gst-inspect-1.0 fakesink"]),
        ("queue ! ! fakesink", ["syntax error", "separated by"]),
        ("fakesink sync=perhaps", ["sync", "gst-inspect"]),
        ("audiotestsrc ! fakesink", ["no input", "\"video\""]),
        ("h264parse ! aacparse ! fakesink", ["link", "between"]),
    ] {
        let text = refused(description, &["video"]);
        assert!(parts.iter().all(|part| text.contains(part)), "{description}: {text}");
    }
    let text = refused("queue ! fakesink", &["video", "audio_0"]);
    assert!(text.contains("\"audio_0\"") && text.contains("mpegtsmux"), "{text}");
}

#[test]
fn a_description_and_a_sink_are_one_too_many() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::new("both", temp.path(), "fakesink", &["video"], &[]);
    station.bin.set_property("sink", gst::ElementFactory::make("fakesink").build().unwrap());
    assert!(station.pipeline.set_state(gst::State::Ready).is_err());
    assert!(station.error().contains("one of them"));
}

#[test]
fn without_a_location_the_error_comes_through() {
    init();
    let bin = gst::ElementFactory::make("diskbuffersink").property("sink-description", "fakesink").build().unwrap();
    let bus = gst::Bus::new();
    bin.set_bus(Some(&bus));
    let _pad = bin.request_pad_simple("video").unwrap();
    if std::env::var_os("STATE_DIRECTORY").is_none() {
        assert!(bin.set_state(gst::State::Paused).is_err());
        let message = bus.pop_filtered(&[gst::MessageType::Error]).expect("no error");
        let gst::MessageView::Error(error) = message.view() else { unreachable!() };
        assert!(error.error().message().contains("location"), "{}", error.error());
    }
    bin.set_state(gst::State::Null).unwrap();
    bin.set_bus(None::<&gst::Bus>);
}

#[test]
fn properties_reach_each_stream_now_and_later() {
    let temp = tempfile::tempdir().unwrap();
    let mut station = Station::new("reach", temp.path(), "fakesink", &["video"], &[("max-size-bytes", "1000000")]);
    let proxy = |name: &str| station.bin.downcast_ref::<gst::Bin>().unwrap().by_name(name).unwrap();
    let video = proxy("video");
    assert_eq!(video.property::<u64>("max-size-bytes"), 1_000_000);
    assert_eq!(video.property::<String>("stream-name"), "default");
    assert_eq!(video.property::<u64>("replay-overlap"), 5_000_000_000);
    station.bin.set_property("stream-name", "cam");
    station.bin.set_property("retention-time", 7u64);
    station.add_pad("audio_0");
    let audio = station.bin.downcast_ref::<gst::Bin>().unwrap().by_name("audio_0").unwrap();
    for (element, name) in [(&video, "cam"), (&audio, "cam.audio_0")] {
        assert_eq!(element.property::<String>("stream-name"), name);
        assert_eq!(element.property::<u64>("retention-time"), 7);
        assert_eq!(element.property::<u64>("max-size-bytes"), 1_000_000);
    }
    let child = station.bin.dynamic_cast_ref::<gst::ChildProxy>().unwrap();
    child.set_child_property("audio_0::max-size-time", 5u64);
    assert_eq!(audio.property::<u64>("max-size-time"), 5);
    // All that diskbuffer has.
    let buffer = gst::ElementFactory::make("diskbuffer").build().unwrap();
    for spec in buffer.list_properties() {
        assert!(station.bin.find_property(spec.name()).is_some(), "{}", spec.name());
    }
}

#[test]
fn statistics_are_sums_with_each_stream_beside() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::new("sums", temp.path(), "", &["video", "sink_0"], &[]).playing();
    for source in &station.sources {
        start(source, "s", &h264_caps());
    }
    station.push(0..30);
    for number in 0..20 {
        station.sources[1].push(frame(number, GOP, 1000)).unwrap();
    }
    let stats = station.stats();
    assert_eq!((stats.get::<u64>("received").unwrap(), station.stat("stored")), (50, 50));
    let streams = stats.get::<gst::Array>("streams").unwrap();
    let each: Vec<_> = streams
        .iter()
        .map(|stream| {
            let stream = stream.get::<gst::Structure>().unwrap();
            (stream.get::<String>("pad").unwrap(), stream.get::<u64>("received").unwrap())
        })
        .collect();
    assert_eq!(each, [("video".to_owned(), 30), ("sink_0".to_owned(), 20)]);
}

#[test]
fn without_a_sink_it_records_and_keeps_everything() {
    let temp = tempfile::tempdir().unwrap();
    {
        let station = Station::new("records", temp.path(), "", &["video"], &[]).playing();
        let buffer = station.bin.downcast_ref::<gst::Bin>().unwrap().by_name("video").unwrap();
        assert_eq!(buffer.property::<u64>("retention-time"), u64::MAX);
        station.start_stream(&h264_caps());
        station.push(0..100);
        station.eos();
        station.wait_eos();
        assert_eq!(station.stat("delivered"), 100);
        // A sink, or a limit of its own, ends that.
        station.bin.set_property("retention-bytes", 5000u64);
        assert_eq!(buffer.property::<u64>("retention-time"), 0);
    }
    let records = std::fs::read_dir(temp.path()).unwrap().count();
    assert!(records > 0);
}

#[test]
fn recording_with_spill_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::new("spill", temp.path(), "", &["video"], &[("persist", "spill")]);
    assert!(station.pipeline.set_state(gst::State::Paused).is_err());
    assert!(station.error().contains("persist=always"));
}

#[test]
fn a_pad_that_comes_later_gets_a_place() {
    let temp = tempfile::tempdir().unwrap();
    let sink = "mpegtsmux ! faultysink about=later";
    let mut station = Station::new("later", temp.path(), sink, &["video"], &[]).playing();
    station.start_stream(&h264_caps());
    station.push(0..20);
    until("the muxer has it", || station.stat("delivered") == 20);
    station.add_pad("sink_0");
    station.sources[1].set_active(true).unwrap();
    start(&station.sources[1], "t", &h264_caps());
    for number in 20..60 {
        station.push(number..number + 1);
        station.sources[1].push(frame(number, GOP, 1000)).unwrap();
    }
    station.eos();
    station.wait_eos();
    assert_eq!((station.stat("pending"), station.count("child-errors")), (0, 0));
    assert_eq!(station.faults.tell(|told| told.starts), 2);
}

#[test]
fn a_pad_that_goes_leaves_the_others_running() {
    let temp = tempfile::tempdir().unwrap();
    let sink = "mpegtsmux ! faultysink about=goes";
    let mut station = Station::new("goes", temp.path(), sink, &["video", "sink_0"], &[]).playing();
    start(&station.sources[0], "s", &h264_caps());
    start(&station.sources[1], "t", &h264_caps());
    for number in 0..30 {
        station.push(number..number + 1);
        station.sources[1].push(frame(number, GOP, 1000)).unwrap();
    }
    until("the muxer has most of it", || station.stat("delivered") > 40);
    let gone = station.sources.remove(1);
    let pad = gone.peer().unwrap();
    gone.unlink(&pad).unwrap();
    station.bin.release_request_pad(&pad);
    assert!(station.bin.static_pad("sink_0").is_none());
    station.push(30..80);
    station.eos();
    station.wait_eos();
    assert_eq!((station.stat("pending"), station.count("child-errors")), (0, 0), "{}", station.stats());
    assert_eq!(station.faults.tell(|told| told.starts), 1);
}

#[test]
fn names_of_pads_are_not_given_twice() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::new("names", temp.path(), "", &["video", "audio_0", "sink_3"], &[]);
    assert_eq!(station.bin.pads().len(), 3);
    assert_eq!(station.bin.request_pad_simple("audio_%u").unwrap().name(), "audio_1");
}

#[test]
fn the_sink_decides_on_caps_also_while_it_is_away() {
    let temp = tempfile::tempdir().unwrap();
    let sink = "mpegtsmux ! faultysink about=caps-away";
    let station = Station::new("caps-away", temp.path(), sink, &["video"], &[]);
    station.faults.tell(|told| told.unreachable = true);
    station.play();
    station.message("diskbuffersink-error");
    let caps = station.bin.static_pad("video").unwrap().query_caps(None);
    let avc = gst::Caps::builder("video/x-h264").field("stream-format", "avc").field("alignment", "au").build();
    assert!(caps.can_intersect(&h264_caps()) && !caps.can_intersect(&avc), "{caps}");
}

#[test]
fn sinks_inside_do_not_synchronise_unless_told() {
    let temp = tempfile::tempdir().unwrap();
    let sink = "tee name=t ! queue ! fakesink sync=true t. ! queue ! fakesink async=true";
    for (told, sync) in [(None, false), (Some(("sync", "true")), true)] {
        let properties: Vec<_> = told.into_iter().collect();
        let station =
            Station::new("syncs", &temp.path().join(sync.to_string()), sink, &["video"], &properties).playing();
        let bin = station.bin.downcast_ref::<gst::Bin>().unwrap();
        let sinks: Vec<_> = bin
            .iterate_recurse()
            .into_iter()
            .flatten()
            .filter(|e| e.factory().is_some_and(|f| f.name() == "fakesink"))
            .collect();
        assert_eq!(sinks.len(), 2);
        assert!(sinks.iter().all(|s| s.property::<bool>("sync") == sync && !s.property::<bool>("async")));
    }
}

#[test]
fn it_can_be_asked_for_everything_in_every_state() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("asked", temp.path(), &[]);
    let ask = || {
        for spec in station.bin.list_properties() {
            if spec.flags().contains(gst::glib::ParamFlags::READABLE) {
                let _ = station.bin.property_value(spec.name());
            }
        }
        let _ = station.pipeline.query_position::<gst::ClockTime>();
        let _ = station.pipeline.query(&mut gst::query::Latency::new());
    };
    for state in [gst::State::Ready, gst::State::Paused, gst::State::Playing, gst::State::Ready, gst::State::Null] {
        ask();
        station.pipeline.set_state(state).unwrap();
        ask();
    }
    station.faults.mood(Mood::Takes);
}
