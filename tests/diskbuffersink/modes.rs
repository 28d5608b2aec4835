//! `persist=spill` and `ack-mode=explicit` inside the bin.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gst::prelude::*;

use crate::common::*;
use crate::faulty::*;
use crate::station::*;

#[test]
fn what_waits_in_memory_arrives_when_the_sink_is_back() {
    let temp = tempfile::tempdir().unwrap();
    let spill = [("persist", "spill"), ("spill-after", "60000000000")];
    let station = Station::faulty("spill", temp.path(), &spill).playing();
    station.start_stream(&h264_caps());
    station.push(0..25);
    station.faults.wait_for(0..25);
    for round in 0..3 {
        let next = 25 + round * 20;
        station.faults.mood(Mood::Fails);
        station.push(next..next + 20);
        station.message("diskbuffersink-error");
        station.faults.mood(Mood::Takes);
        station.faults.wait_for(0..next + 20);
    }
    station.eos();
    station.wait_eos();
    assert_complete(&station.faults.numbers(), 0..85);
    assert_eq!((station.stat("stored"), station.stat("pending"), station.stat("lost")), (0, 0, 0));
}

#[test]
fn what_waits_in_memory_is_stored_for_the_next_run() {
    let temp = tempfile::tempdir().unwrap();
    let spill = [("persist", "spill"), ("spill-after", "60000000000")];
    let station = Station::faulty("spill-runs", temp.path(), &spill);
    station.faults.tell(|told| told.unreachable = true);
    station.play();
    station.start_stream(&h264_caps());
    station.push(0..33);
    station.message("diskbuffersink-error");
    drop(station);
    let station = Station::faulty("spill-runs", temp.path(), &spill);
    station.faults.tell(|told| told.unreachable = false);
    station.play();
    station.start_stream(&h264_caps());
    station.push(40..50);
    station.faults.wait_for(40..50);
    assert_complete(&station.faults.numbers(), 0..33);
}

/// A child that acknowledges the frames below a number.
fn acknowledging(station: &Station) -> Arc<AtomicU64> {
    let below = Arc::new(AtomicU64::new(0));
    station.pipeline.connect_deep_element_added({
        let below = below.clone();
        move |_, _, element| {
            if element.factory().is_none_or(|factory| factory.name() != "faultysink") {
                return;
            }
            let below = below.clone();
            element.static_pad("sink").unwrap().add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
                let Some(buffer) = info.buffer().filter(|buffer| buffer.offset() < below.load(Ordering::SeqCst)) else {
                    return gst::PadProbeReturn::Ok;
                };
                let meta = gst::meta::CustomMeta::from_buffer(buffer, "diskbuffer-position").unwrap();
                let position = meta.structure().get::<u64>("position").unwrap();
                let ack = gst::Structure::builder("diskbuffer-ack").field("position", position).build();
                assert!(pad.push_event(gst::event::CustomUpstream::new(ack)));
                gst::PadProbeReturn::Ok
            });
        }
    });
    below
}

#[test]
fn what_the_child_has_not_acknowledged_is_sent_again() {
    let temp = tempfile::tempdir().unwrap();
    let explicit = [
        ("ack-mode", "explicit"),
        ("add-position-meta", "true"),
        ("replay-overlap", "0"),
        ("replay-overlap-bytes", "0"),
        ("eos-timeout", "2000000000"),
    ];
    let station = Station::faulty("explicit", temp.path(), &explicit);
    let below = acknowledging(&station);
    below.store(13, Ordering::SeqCst);
    station.play();
    station.start_stream(&h264_caps());
    station.push(0..25);
    station.faults.wait_for(0..25);
    until("the first are acknowledged", || station.stat("pending") == 12);
    station.faults.mood(Mood::Fails);
    station.push(25..30);
    station.message("diskbuffersink-error");
    station.faults.mood(Mood::Takes);
    station.faults.wait_for(0..30);
    let again: Vec<u64> = station.faults.numbers().into_iter().skip(25).collect();
    assert_eq!(again, (10..30).collect::<Vec<_>>(), "from the keyframe before");
    assert_eq!(station.stat("pending"), 17);
    below.store(u64::MAX, Ordering::SeqCst);
    station.push(30..31);
    until("everything is acknowledged", || station.stat("pending") == 0);
    below.store(0, Ordering::SeqCst);
    // The end of the stream waits for nobody who does not acknowledge; what he leaves is there for the next run.
    station.push(31..35);
    station.eos();
    station.wait_eos();
    assert_eq!((station.stat("pending"), station.stat("lost")), (4, 0));
    drop(station);
    let station = Station::faulty("explicit", temp.path(), &explicit);
    let taken = station.faults.numbers().len();
    station.play();
    station.start_stream(&h264_caps());
    station.push(40..41);
    station.faults.wait_for(40..41);
    assert_eq!(station.faults.numbers()[taken..], [30, 31, 32, 33, 34, 40]);
}
