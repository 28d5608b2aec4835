//! Sinks that do not come back from where they are: nobody waits for them.

use std::time::Duration;

use gst::prelude::*;

use crate::common::*;
use crate::faulty::*;
use crate::station::*;

/// What a change of state may take.
const SOON: Duration = Duration::from_millis(500);
/// The element alone knows its limits; this machine is shared.
const SLACK: Duration = Duration::from_millis(500);

/// Threads that belong to the element of this name.
fn threads_of(name: &str) -> usize {
    let mut found = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let comm = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        found += usize::from(comm.starts_with(name));
    }
    found
}

#[test]
fn a_blocked_push_ends_with_the_pipeline() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("blocked", temp.path(), &[]).playing();
    station.start_stream(&h264_caps());
    station.faults.mood(Mood::Blocks);
    station.push(0..20);
    until("a push is blocked", || station.faults.tell(|told| told.caps.len()) > 0);
    let took = station.stop();
    assert!(took < SOON + SLACK, "{took:?}");
    station.faults.mood(Mood::Takes);
    station.play();
    station.start_stream(&h264_caps());
    station.push(20..30);
    station.faults.wait_for(0..30);
}

#[test]
fn a_push_that_never_returns_holds_nobody_up() {
    let temp = tempfile::tempdir().unwrap();
    let mut station = Station::faulty("never", temp.path(), &[("restart-timeout", "200000000")]);
    station.bin.set_property("name", "never");
    station.play();
    station.start_stream(&h264_caps());
    station.push(0..20);
    station.faults.wait_for(0..20);
    station.faults.mood(Mood::NeverReturns);
    station.push(20..40);
    station.message("diskbuffersink-error");
    let took = station.stop();
    assert!(took < SOON + SLACK, "{took:?}");
    station.faults.mood(Mood::Takes);
    until("its threads end when it returns", || threads_of("never:") == 0);
    station.play();
    station.start_stream(&h264_caps());
    station.push(40..50);
    station.faults.wait_for(0..50);
    station.sources.clear();
}

#[test]
fn a_sink_that_does_not_stop_is_replaced() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("wedged", temp.path(), &[]).playing();
    station.start_stream(&h264_caps());
    station.push(0..20);
    station.faults.wait_for(0..20);
    station.faults.tell(|told| told.stop_blocks = true);
    station.faults.mood(Mood::Fails);
    station.push(20..40);
    station.message("diskbuffersink-error");
    station.faults.mood(Mood::Takes);
    // After ten seconds.
    station.message("diskbuffersink-restarted");
    station.faults.wait_for(0..40);
    assert_eq!(station.faults.tell(|told| told.stops), 0, "the first is still at it");
    assert_complete(&station.faults.numbers(), 0..40);
    let took = station.stop();
    assert!(took < SOON + SLACK, "{took:?}");
    station.faults.tell(|told| told.stop_blocks = false);
    station.faults.wait("both are gone", |told| told.stops == 2);
}

#[test]
fn a_sink_that_does_not_start_is_replaced() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("connecting", temp.path(), &[("restart-timeout", "300000000")]);
    station.faults.tell(|told| told.start_blocks = true);
    station.play();
    station.start_stream(&h264_caps());
    station.push(0..20);
    let message = station.message("diskbuffersink-error");
    let text = message.get::<gst::glib::Error>("error").unwrap().to_string();
    assert!(text.contains("does not start"), "{text}");
    // The first is left alone after ten seconds; the second finds somebody.
    station.faults.wait("another one", |told| told.starts == 2);
    station.faults.tell(|told| told.start_blocks = false);
    station.faults.wait_for(0..20);
    let took = station.stop();
    assert!(took < SOON + SLACK, "{took:?}");
}

#[test]
fn a_sink_that_does_not_start_holds_no_state_change_up() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("slow-start", temp.path(), &[]);
    station.faults.tell(|told| told.start_blocks = true);
    station.play();
    station.start_stream(&h264_caps());
    station.push(0..20);
    station.faults.wait("it is at it", |told| told.starts == 1);
    let took = station.stop();
    assert!(took < SOON + SLACK, "{took:?}");
    station.faults.tell(|told| told.start_blocks = false);
    station.play();
    station.faults.wait_for(0..20);
}

#[test]
fn an_element_of_the_application_that_does_not_stop_is_waited_for() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::new("waited-for", temp.path(), "", &["video"], &[]);
    let sink = gst::ElementFactory::make("faultysink").property("about", "waited-for").build().unwrap();
    station.bin.set_property("sink", &sink);
    station.play();
    station.start_stream(&h264_caps());
    station.faults.tell(|told| told.stop_blocks = true);
    station.faults.mood(Mood::Fails);
    station.push(0..20);
    station.message("diskbuffersink-error");
    station.faults.mood(Mood::Takes);
    let patience = gst::ClockTime::from_seconds(PATIENCE.as_secs());
    // The failure itself is told first.
    for part in ["The sink has failed", "waited for"] {
        let warning = station.bus.timed_pop_filtered(patience, &[gst::MessageType::Warning]).expect("no warning");
        let gst::MessageView::Warning(warning) = warning.view() else { unreachable!() };
        assert!(warning.error().message().contains(part), "{}", warning.error());
    }
    station.faults.tell(|told| told.stop_blocks = false);
    station.faults.wait_for(0..20);
}

#[test]
fn states_go_up_and_down_with_data() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("states", temp.path(), &[]);
    let mut next = 0;
    for round in 0..20 {
        station.faults.mood(Mood::Takes);
        station.play();
        station.start_stream(&h264_caps());
        station.push(next..next + 10);
        next += 10;
        match round % 4 {
            0 => station.faults.wait_for(0..next),
            1 => {
                station.pipeline.set_state(gst::State::Paused).unwrap();
                station.push(next..next + 10);
                next += 10;
                station.pipeline.set_state(gst::State::Playing).unwrap();
            }
            2 => drop(station.pipeline.set_state(gst::State::Ready)),
            _ => station.faults.mood(Mood::Fails),
        }
        let took = station.stop();
        assert!(took < SOON + SLACK, "{took:?}");
    }
    station.faults.mood(Mood::Takes);
    station.play();
    station.start_stream(&h264_caps());
    station.push(next..next + 10);
    station.faults.wait_for(0..next + 10);
}

#[test]
fn paused_delivers_nothing_and_waits_for_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let station =
        Station::faulty("paused", temp.path(), &[("restart-timeout", "100000000"), ("eos-timeout", "100000000")]);
    assert_eq!(station.pipeline.set_state(gst::State::Paused), Ok(gst::StateChangeSuccess::Success));
    station.sources[0].set_active(true).unwrap();
    station.start_stream(&h264_caps());
    station.push(0..20);
    station.eos();
    // Several times the timeouts.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(station.count("child-errors"), 0);
    assert_eq!(station.faults.numbers(), Vec::<u64>::new());
    station.pipeline.set_state(gst::State::Playing).unwrap();
    station.wait_eos();
    assert_complete(&station.faults.numbers(), 0..20);
}
