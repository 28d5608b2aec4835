//! Ends of streams: the bin's own EOS, with sinks that take everything, and with sinks that do not.

use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::common::*;
use crate::faulty::*;
use crate::station::*;

#[test]
fn eos_comes_when_the_sink_has_everything() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("eos", temp.path(), &[]).playing();
    station.start_stream(&h264_caps());
    station.push(0..50);
    station.eos();
    station.wait_eos();
    assert_eq!(station.faults.numbers(), (0..50).collect::<Vec<_>>());
    assert_eq!((station.stat("pending"), station.faults.tell(|told| told.eos)), (0, 1));
    station.stop();
    // Nothing of it comes again.
    let station = Station::faulty("eos", temp.path(), &[]).playing();
    assert_eq!(station.stat("pending"), 0);
}

#[test]
fn eos_with_a_sink_that_cannot_be_reached_leaves_the_backlog() {
    let temp = tempfile::tempdir().unwrap();
    {
        let station = Station::faulty("leaves", temp.path(), &[("eos-timeout", "300000000")]);
        station.faults.tell(|told| told.unreachable = true);
        station.play();
        station.start_stream(&h264_caps());
        station.push(0..50);
        let before = Instant::now();
        station.eos();
        let message = station.message("diskbuffersink-eos-timeout");
        assert_eq!(message.get::<u32>("level-buffers").unwrap(), 50);
        station.wait_eos();
        assert!(before.elapsed() >= Duration::from_millis(300));
    }
    let station = Station::faulty("leaves", temp.path(), &[]);
    station.faults.tell(|told| told.unreachable = false);
    station.play();
    station.faults.wait_for(0..50);
}

#[test]
fn eos_waits_for_ever_when_it_is_told_to() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("for-ever", temp.path(), &[("eos-timeout", "-1")]);
    assert_eq!(station.bin.property::<u64>("eos-timeout"), u64::MAX);
    station.faults.tell(|told| told.unreachable = true);
    station.play();
    station.start_stream(&h264_caps());
    station.push(0..50);
    station.eos();
    for _ in 0..20 {
        station.message("diskbuffersink-error");
    }
    station.faults.tell(|told| told.unreachable = false);
    station.wait_eos();
    assert_complete(&station.faults.numbers(), 0..50);
}

#[test]
fn eos_waits_as_long_as_there_is_progress() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("slow", temp.path(), &[("eos-timeout", "400000000")]);
    station.faults.mood(Mood::Blocks);
    station.play();
    station.start_stream(&h264_caps());
    station.push(0..30);
    station.eos();
    let before = Instant::now();
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(30));
        station.faults.tell(|told| told.takes += 1);
    }
    station.wait_eos();
    assert!(before.elapsed() > Duration::from_millis(800));
    assert_eq!(station.faults.numbers(), (0..30).collect::<Vec<_>>());
}

#[test]
fn a_failure_at_the_end_does_not_cut_it_short() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("last", temp.path(), &[]).playing();
    station.start_stream(&h264_caps());
    station.faults.tell(|told| (told.mood, told.takes) = (Mood::Fails, 25));
    station.push(0..40);
    station.eos();
    station.message("diskbuffersink-error");
    station.message("diskbuffersink-error");
    station.faults.mood(Mood::Takes);
    station.wait_eos();
    assert_complete(&station.faults.numbers(), 0..40);
    assert_eq!(station.stat("pending"), 0);
}

#[test]
fn an_end_without_data_is_an_end() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("empty", temp.path(), &[("eos-timeout", "500000000")]).playing();
    station.start_stream(&h264_caps());
    station.eos();
    station.wait_eos();
}

#[test]
fn another_stream_after_the_end_gets_another_sink() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("again", temp.path(), &[]).playing();
    for epoch in 0..3 {
        station.start_stream(&h264_caps());
        station.push(epoch * 20..epoch * 20 + 20);
        station.eos();
        station.wait_eos();
        // A flush ends the end, as a seek does.
        assert!(station.sources[0].push_event(gst::event::FlushStart::new()));
        assert!(station.sources[0].push_event(gst::event::FlushStop::new(true)));
    }
    assert_complete(&station.faults.numbers(), 0..60);
    assert_eq!(station.count("child-errors"), 0);
}

#[test]
fn a_hundred_outages_in_a_row_leave_nothing_behind() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("hundred", temp.path(), &[]).playing();
    station.start_stream(&h264_caps());
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let mut chance = 1u64;
    let mut next = 0;
    let mut early = None;
    for round in 0..100 {
        station.faults.mood([Mood::Fails, Mood::FailsSilently, Mood::Answers(gst::FlowError::Eos)][round % 3]);
        station.faults.tell(|told| told.unreachable = round % 5 == 0);
        station.push(next..next + 20);
        next += 20;
        station.message("diskbuffersink-error");
        chance = chance.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        std::thread::sleep(Duration::from_millis((chance >> 33) % 60));
        station.faults.tell(|told| told.unreachable = false);
        station.faults.mood(Mood::Takes);
        station.message("diskbuffersink-restarted");
        if round == 20 {
            early = Some((count("task"), count("fd")));
        }
    }
    station.faults.wait_for(0..next);
    assert_complete(&station.faults.numbers(), 0..next);
    // Other tests come and go meanwhile: their threads are not counted on.
    let own = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.map(|t| std::fs::read_to_string(t.path().join("comm")).unwrap_or_default());
        names.filter(|name| name.starts_with(&*station.bin.name())).count()
    };
    until("threads of old children end", || own() <= 3);
    println!("threads and files after 20 outages {early:?}, after 100 ({}, {})", count("task"), count("fd"));
    station.eos();
    station.wait_eos();
}
