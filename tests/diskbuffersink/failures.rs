//! The sink fails: it is restarted, every buffer arrives, and the pipeline does not notice.

use gst::prelude::*;

use crate::common::*;
use crate::faulty::*;
use crate::station::*;

/// Fails with `mood` after 25 buffers, three times, and works again.
fn fails_and_comes_back(name: &str, mood: Mood) {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty(name, temp.path(), &[]).playing();
    station.start_stream(&h264_caps());
    station.push(0..25);
    station.faults.wait_for(0..25);
    station.faults.mood(mood);
    station.push(25..60);
    let mut failures = Vec::new();
    for _ in 0..3 {
        let message = station.message("diskbuffersink-error");
        failures.push(message.get::<u32>("failures").unwrap());
        assert!(message.get::<u64>("retry-in").unwrap() < 60_000_000, "{message}");
        assert!(message.get::<gst::glib::Error>("error").is_ok(), "{message}");
    }
    assert_eq!(failures, [1, 2, 3]);
    station.faults.mood(Mood::Takes);
    let message = station.message("diskbuffersink-restarted");
    assert!(message.get::<u32>("restarts").unwrap() >= 3, "{message}");
    station.faults.wait_for(0..60);
    station.push(60..80);
    station.eos();
    station.wait_eos();
    assert_complete(&station.faults.numbers(), 0..80);
    assert_eq!((station.stat("delivered"), station.stat("pending"), station.stat("lost")), (80, 0, 0));
    assert!(station.count("restarts") >= 3 && station.count("child-errors") >= 3);
}

#[test]
fn an_error_message_restarts_the_sink() {
    fails_and_comes_back("error-message", Mood::Fails);
}

#[test]
fn a_refusal_without_a_message_restarts_the_sink() {
    fails_and_comes_back("silent", Mood::FailsSilently);
}

#[test]
fn flushing_without_a_message_restarts_the_sink() {
    fails_and_comes_back("flushing", Mood::Answers(gst::FlowError::Flushing));
}

#[test]
fn an_end_that_nobody_asked_for_restarts_the_sink() {
    fails_and_comes_back("ends", Mood::Answers(gst::FlowError::Eos));
}

#[test]
fn not_negotiated_after_data_restarts_the_sink() {
    fails_and_comes_back("renegotiates", Mood::Answers(gst::FlowError::NotNegotiated));
}

#[test]
fn the_message_has_the_original_error() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("original", temp.path(), &[]).playing();
    station.start_stream(&h264_caps());
    station.faults.mood(Mood::Fails);
    station.push(0..5);
    let message = station.message("diskbuffersink-error");
    let error = message.get::<gst::glib::Error>("error").unwrap();
    assert_eq!((error.message(), error.kind()), ("The peer has gone", Some(gst::ResourceError::Write)));
    assert!(message.get::<String>("debug").unwrap().contains("as told by a test"), "{message}");
    assert!(message.get::<String>("source").unwrap().contains("faultysink"), "{message}");
    assert_eq!(station.stats().get::<String>("last-error").unwrap(), "The peer has gone");
    assert!(message.get::<u32>("level-buffers").is_ok(), "{message}");
}

#[test]
fn an_error_before_the_first_buffer_is_an_outage() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("before-first", temp.path(), &[]);
    station.faults.mood(Mood::Fails);
    station.play();
    station.start_stream(&h264_caps());
    station.push(0..30);
    station.message("diskbuffersink-error");
    station.message("diskbuffersink-error");
    station.faults.mood(Mood::Takes);
    station.push(30..40);
    station.faults.wait_for(0..40);
    assert_complete(&station.faults.numbers(), 0..40);
}

#[test]
fn it_starts_with_a_sink_that_cannot_be_reached_and_spools() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("unreachable", temp.path(), &[]);
    station.faults.tell(|told| told.unreachable = true);
    station.play();
    station.start_stream(&h264_caps());
    station.push(0..50);
    let message = station.message("diskbuffersink-error");
    assert_eq!(message.get::<gst::glib::Error>("error").unwrap().message(), "Nobody is there");
    until("all is stored", || station.stat("pending") == 50);
    let status = gst::glib::EnumValue::from_value(&station.bin.property_value("status")).unwrap().1.nick().to_owned();
    assert_eq!(status, "outage");
    assert_eq!(station.bin.property::<u32>("current-level-buffers"), 50);
    station.faults.tell(|told| told.unreachable = false);
    station.message("diskbuffersink-restarted");
    station.faults.wait_for(0..50);
    assert_complete(&station.faults.numbers(), 0..50);
}

#[test]
fn what_waited_goes_out_after_a_restart_of_the_process() {
    let temp = tempfile::tempdir().unwrap();
    {
        let station = Station::faulty("yesterday", temp.path(), &[]);
        station.faults.tell(|told| told.unreachable = true);
        station.play();
        station.start_stream(&h264_caps());
        station.push(0..30);
        until("all is stored", || station.stat("pending") == 30);
    }
    let station = Station::faulty("today", temp.path(), &[]).playing();
    station.start_stream(&h264_caps());
    station.push(30..40);
    station.faults.wait_for(0..40);
    assert_complete(&station.faults.numbers(), 0..40);
}

#[test]
fn max_retries_ends_in_the_original_error() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("gives-up", temp.path(), &[("max-retries", "3")]).playing();
    station.start_stream(&h264_caps());
    station.push(0..10);
    until("they are believed to have arrived", || station.stat("delivered") == 10);
    station.faults.mood(Mood::Fails);
    station.push(10..20);
    let text = station.error();
    assert!(text.contains("The peer has gone") && text.contains("4 failures"), "{text}");
    assert_eq!(station.faults.tell(|told| told.starts), 4, "the first and three more");
    // Upstream is still served.
    station.push(20..30);
    assert_eq!(station.stat("pending"), 20);
}

#[test]
fn a_success_in_between_counts_the_retries_anew() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("recovers", temp.path(), &[("max-retries", "2")]).playing();
    station.start_stream(&h264_caps());
    for round in 0..5 {
        station.faults.mood(Mood::Fails);
        station.push(round * 10..round * 10 + 10);
        station.message("diskbuffersink-error");
        station.faults.mood(Mood::Takes);
        station.message("diskbuffersink-restarted");
    }
    station.faults.wait_for(0..50);
}

#[test]
fn a_description_that_never_took_what_comes_is_an_error() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("wrong", temp.path(), &[]);
    station.faults.mood(Mood::Answers(gst::FlowError::NotNegotiated));
    station.play();
    station.start_stream(&h264_caps());
    station.push(0..10);
    let text = station.error();
    assert!(text.contains("video/x-h264") && text.contains("\"video\""), "{text}");
}

#[test]
fn a_sink_that_takes_nothing_is_restarted() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("stalls", temp.path(), &[("restart-timeout", "300000000")]).playing();
    station.start_stream(&h264_caps());
    station.push(0..20);
    station.faults.wait_for(0..20);
    station.faults.mood(Mood::Blocks);
    station.push(20..40);
    let message = station.message("diskbuffersink-error");
    let text = message.get::<gst::glib::Error>("error").unwrap().to_string();
    assert!(text.contains("restart-timeout"), "{text}");
    station.faults.mood(Mood::Takes);
    station.faults.wait_for(0..40);
    assert_complete(&station.faults.numbers(), 0..40);
}

#[test]
fn a_sink_without_anything_to_take_is_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("idles", temp.path(), &[("restart-timeout", "250000000")]).playing();
    station.start_stream(&h264_caps());
    station.push(0..20);
    station.faults.wait_for(0..20);
    // Several times the timeout.
    std::thread::sleep(std::time::Duration::from_millis(1000));
    station.push(20..40);
    station.faults.wait_for(0..40);
    assert_eq!((station.faults.tell(|told| told.starts), station.count("child-errors")), (1, 0));
}

#[test]
fn the_pipeline_sees_no_change_of_state_and_no_clock() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("quiet", temp.path(), &[]).playing();
    station.start_stream(&h264_caps());
    for round in 0..5 {
        station.faults.mood(Mood::Fails);
        station.push(round * 20..round * 20 + 20);
        station.message("diskbuffersink-error");
        station.faults.mood(Mood::Takes);
        station.message("diskbuffersink-restarted");
    }
    let own = [station.pipeline.upcast_ref::<gst::Object>(), station.bin.upcast_ref()];
    // `message` has let these pass by: what matters is that none follows, and where the pipeline stands.
    station.faults.mood(Mood::Fails);
    let watched: std::sync::Arc<std::sync::Mutex<Vec<String>>> = Default::default();
    let seen = watched.clone();
    let watch: Vec<gst::Object> = own.iter().map(|o| (*o).clone()).collect();
    station.bus.set_sync_handler(move |_, message| {
        use gst::MessageType as T;
        let unwanted = matches!(
            message.type_(),
            T::Error
                | T::Eos
                | T::AsyncStart
                | T::AsyncDone
                | T::StateDirty
                | T::ClockLost
                | T::NewClock
                | T::RequestState
        );
        let changed = message.type_() == T::StateChanged && message.src().is_some_and(|src| watch.contains(src));
        if unwanted || changed {
            seen.lock().unwrap().push(format!("{message:?}"));
        }
        gst::BusSyncReply::Pass
    });
    station.push(100..120);
    station.message("diskbuffersink-error");
    station.faults.mood(Mood::Takes);
    station.message("diskbuffersink-restarted");
    station.bus.unset_sync_handler();
    assert_eq!(*watched.lock().unwrap(), Vec::<String>::new());
    let (result, state, pending) = station.pipeline.state(gst::ClockTime::ZERO);
    assert_eq!(
        (result, state, pending),
        (Ok(gst::StateChangeSuccess::Success), gst::State::Playing, gst::State::VoidPending)
    );
}

#[test]
fn an_element_of_the_application_goes_to_null_and_back() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::new("application", temp.path(), "", &["video"], &[]);
    let sink = gst::ElementFactory::make("faultysink").property("about", "application").build().unwrap();
    station.bin.set_property("sink", &sink);
    station.play();
    station.start_stream(&h264_caps());
    station.push(0..20);
    station.faults.wait_for(0..20);
    station.faults.mood(Mood::Fails);
    station.push(20..40);
    station.message("diskbuffersink-error");
    station.faults.mood(Mood::Takes);
    station.message("diskbuffersink-restarted");
    station.faults.wait_for(0..40);
    station.stop();
    assert!(sink.parent().is_none() && sink.current_state() == gst::State::Null, "it is given back");
    assert!(station.faults.tell(|told| told.starts) >= 2);
    // And again with the same.
    station.play();
    start(&station.sources[0], "s", &h264_caps());
    station.push(40..50);
    station.faults.wait_for(0..50);
}
