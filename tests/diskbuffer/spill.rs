//! `persist=spill`: memory first, the disk when it has to be.

use gst::prelude::*;

use crate::common::*;

const GOP: u64 = 10;

fn push_frames(rig: &Rig, range: std::ops::Range<u64>) {
    range.for_each(|i| rig.push(frame(i, GOP, 1000)));
}

fn numbers(rig: &Rig) -> Vec<u64> {
    rig.sink.buffers().iter().map(number).collect()
}

fn held() -> Sink {
    let sink = Sink::default();
    sink.hold_after(0);
    sink
}

#[test]
fn a_healthy_stream_never_touches_the_disk() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(temp.path(), &[("persist", "spill"), ("spill-after", "60000000000")]);
    rig.start_stream("s", &h264_caps());
    for i in 0..100 {
        push_frames(&rig, i..i + 1);
        rig.sink.wait_buffers(i as usize + 1);
        rig.check_accounts();
    }
    rig.eos();
    rig.sink.wait_eos();
    until("all is counted", || rig.stat("bypassed") == 100);
    assert_eq!((rig.stat("stored"), rig.stat("queued"), rig.stat("memory-bytes") <= 10_100), (0, 0, true));
    rig.stop();
    rig.check_accounts();
    let rig = Rig::new(temp.path(), &[]);
    assert_eq!(rig.stat("received"), 100, "counted over a restart");
    rig.check_accounts();
}

#[test]
fn what_waits_too_long_is_stored_although_nothing_comes() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::with_sink(temp.path(), &[("persist", "spill"), ("spill-after", "50000000")], held());
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..25);
    until("it is stored", || rig.stat("stored") == 25);
    assert_eq!(rig.stat("queued"), 0);
    rig.check_accounts();
    rig.sink.release();
    rig.sink.wait_buffers(25);
    assert_eq!(numbers(&rig), (0..25).collect::<Vec<_>>(), "once each");
    until("all is counted", || rig.stat("delivered") == 25);
    rig.check_accounts();
}

#[test]
fn a_full_memory_is_stored() {
    let temp = tempfile::tempdir().unwrap();
    let limits = [("persist", "spill"), ("spill-after", "60000000000"), ("max-memory-bytes", "20000")];
    let rig = Rig::with_sink(temp.path(), &limits, held());
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..200);
    assert!(rig.stat("stored") >= 180 && rig.stat("memory-bytes") <= 20_000, "{}", rig.stat("stored"));
    rig.check_accounts();
    rig.sink.release();
    rig.sink.wait_buffers(200);
    assert_eq!(numbers(&rig), (0..200).collect::<Vec<_>>());
    until("all is counted", || rig.stat("delivered") + rig.stat("bypassed") == 200);
    rig.check_accounts();
}

#[test]
fn an_outage_goes_back_to_a_keyframe_that_was_never_stored() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(temp.path(), &[("persist", "spill"), ("spill-after", "30000000")]);
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..25);
    rig.sink.wait_buffers(25);
    until("25 are delivered", || rig.stat("bypassed") == 25);
    rig.sink.answer(Some(gst::FlowError::Error));
    push_frames(&rig, 25..40);
    rig.message("diskbuffer-outage");
    until("the outage is stored, from the keyframe on", || rig.stat("queued") == 0);
    rig.check_accounts();
    assert_eq!((rig.stat("stored"), rig.stat("delivered"), rig.stat("bypassed")), (20, 5, 20));
    rig.sink.answer(None);
    rig.sink.wait_buffers(25 + 20);
    assert_eq!(numbers(&rig)[25..], (20..40).collect::<Vec<_>>());
    let seen = rig.sink.buffers();
    assert!(seen[25].flags.contains(gst::BufferFlags::DISCONT));
    assert_eq!(seen[25].data, [sps(), pps(), see(&frame(20, GOP, 1000)).data].concat(), "with its parameter sets");
    let caps = rig.sink.events().iter().any(|(at, e)| *at == 25 && e.type_() == gst::EventType::Caps);
    assert!(caps, "caps that were never stored are in force again");
    until("all is counted", || rig.stat("pending") == 0);
    rig.check_accounts();
}

#[test]
fn a_stop_stores_what_waits() {
    let temp = tempfile::tempdir().unwrap();
    let spill = [("persist", "spill"), ("spill-after", "60000000000")];
    let rig = Rig::with_sink(temp.path(), &spill, held());
    rig.start_stream("first", &h264_caps());
    push_frames(&rig, 0..25);
    assert_eq!(rig.stat("stored"), 0);
    rig.stop();
    rig.check_accounts();
    let rig = Rig::new(temp.path(), &spill);
    rig.sink.wait_buffers(25);
    assert_eq!(numbers(&rig), (0..25).collect::<Vec<_>>());
    let id = rig.sink.events().iter().find_map(|(_, e)| match e.view() {
        gst::EventView::StreamStart(e) => Some(e.stream_id().to_owned()),
        _ => None,
    });
    assert_eq!(id.as_deref(), Some("first"));
    rig.start_stream("second", &h264_caps());
    push_frames(&rig, 0..10);
    rig.sink.wait_buffers(35);
    until("all is counted", || rig.stat("delivered") + rig.stat("bypassed") == 35);
    rig.check_accounts();
}

/// The head of the stream was delivered from memory and is stored as the state before the first record that is, which a purge
/// takes with all that lies before it.
#[test]
fn a_purge_of_what_is_stored_first_leaves_the_head_of_the_stream() {
    let temp = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    sink.hold_after(13);
    // Kept for replay, so that the purge reaches back to what was never stored.
    let spill = [("persist", "spill"), ("spill-after", "60000000000"), ("retention-bytes", "1000000")];
    let rig = Rig::with_sink(temp.path(), &[&spill[..], &[("add-position-meta", "true")]].concat(), sink);
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..13);
    until("13 are delivered", || rig.stat("bypassed") == 13);
    push_frames(&rig, 13..40);
    rig.sink.wait_held();
    rig.element.set_property_from_str("spill-after", "0");
    until("the rest is stored, from the keyframe on", || rig.stat("queued") == 0);
    assert_eq!(rig.stat("stored"), 30);
    let last_of_gop = rig.sink.positions()[12] + 7;
    assert!(rig.element.emit_by_name::<bool>("purge", &[&0u64, &last_of_gop]));
    rig.stop();
    let rig = Rig::new(temp.path(), &spill);
    until("everything is counted", || rig.stat("pending") == 0);
    assert_eq!((numbers(&rig), rig.stat("lost")), ((20..40).collect::<Vec<_>>(), 0));
    rig.check_accounts();
    let begins = |kind| rig.sink.events().iter().any(|(at, e)| *at == 0 && e.type_() == kind);
    assert!([gst::EventType::StreamStart, gst::EventType::Caps, gst::EventType::Segment].into_iter().all(begins));
}

/// Caps change while nothing is stored, and again while what is stored waits.
#[test]
fn caps_keep_their_places() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(temp.path(), &[("persist", "spill"), ("spill-after", "30000000")]);
    let wide = |width: i32| {
        let mut caps = h264_caps();
        caps.make_mut().set("width", width);
        caps
    };
    rig.start_stream("s", &wide(1));
    push_frames(&rig, 0..10);
    rig.sink.wait_buffers(10);
    rig.source.push_event(gst::event::Caps::new(&wide(2)));
    push_frames(&rig, 10..25);
    rig.sink.wait_buffers(25);
    until("all is delivered", || rig.stat("bypassed") == 25);
    rig.sink.answer(Some(gst::FlowError::Flushing));
    push_frames(&rig, 25..30);
    rig.message("diskbuffer-outage");
    rig.source.push_event(gst::event::Caps::new(&wide(3)));
    push_frames(&rig, 30..40);
    until("it is stored", || rig.stat("queued") == 0);
    rig.sink.answer(None);
    rig.sink.wait_buffers(25 + 20);
    let mut caps: Vec<_> = rig
        .sink
        .events()
        .iter()
        .filter_map(|(at, e)| match e.view() {
            gst::EventView::Caps(e) => Some((*at, e.caps().structure(0).unwrap().get::<i32>("width").unwrap())),
            _ => None,
        })
        .collect();
    caps.dedup();
    assert_eq!(caps, [(0, 1), (10, 2), (25, 2), (35, 3)]);
    assert_eq!(numbers(&rig)[25..], (20..40).collect::<Vec<_>>());
}
