//! Who says that a buffer has arrived: downstream's OK, or the application.

use gst::prelude::*;

use crate::common::*;

const GOP: u64 = 10;

fn push_frames(rig: &Rig, range: std::ops::Range<u64>) {
    range.for_each(|i| rig.push(frame(i, GOP, 1000)));
}

fn numbers(rig: &Rig) -> Vec<u64> {
    rig.sink.buffers().iter().map(number).collect()
}

fn explicit(location: &std::path::Path) -> Rig {
    Rig::new(location, &[("ack-mode", "explicit"), ("add-position-meta", "true")])
}

fn acknowledge(rig: &Rig, position: u64) -> bool {
    rig.element.emit_by_name("acknowledge", &[&position])
}

/// Sends frames from 0 on, which arrive; their positions.
fn send(rig: &Rig, count: usize) -> Vec<u64> {
    rig.start_stream("s", &h264_caps());
    push_frames(rig, 0..count as u64);
    rig.sink.wait_buffers(count);
    rig.sink.positions()
}

#[test]
fn only_what_is_acknowledged_is_not_sent_again() {
    let temp = tempfile::tempdir().unwrap();
    let rig = explicit(temp.path());
    let positions = send(&rig, 35);
    assert_eq!((rig.stat("delivered"), rig.stat("pending")), (0, 35));
    assert!(!acknowledge(&rig, positions[34] + 1), "it was not sent");
    assert!(acknowledge(&rig, positions[22]));
    assert_eq!((rig.stat("delivered"), rig.stat("acknowledged-position")), (23, positions[22]));
    assert!(acknowledge(&rig, positions[3]), "known already");
    rig.check_accounts();
    rig.stop();
    let rig = explicit(temp.path());
    rig.sink.wait_buffers(15);
    assert_eq!(numbers(&rig), (20..35).collect::<Vec<_>>(), "from the keyframe before the first unacknowledged");
    let last = *rig.sink.positions().last().unwrap();
    until("all is sent", || acknowledge(&rig, last));
    until("all is counted", || rig.stat("delivered") == 35);
    rig.check_accounts();
    assert_eq!((rig.stat("delivered"), rig.stat("pending"), rig.stat("replayed")), (35, 0, 3));
    rig.stop();
    let rig = explicit(temp.path());
    send(&rig, 5);
    assert_eq!(numbers(&rig), [0, 1, 2, 3, 4], "nothing is owed");
}

/// What is left of it downstream has, but not behind what it was sent last.
#[test]
fn a_repeat_that_is_acknowledged_as_a_whole_is_followed_by_a_keyframe() {
    let temp = tempfile::tempdir().unwrap();
    let rig = explicit(temp.path());
    let positions = send(&rig, 35);
    assert!(acknowledge(&rig, positions[22]));
    rig.sink.hold_after(3);
    assert!(rig.element.emit_by_name::<bool>("rewind", &[]));
    rig.sink.wait_held();
    assert!(acknowledge(&rig, positions[34]));
    rig.sink.release();
    rig.sink.wait_buffers(44);
    push_frames(&rig, 35..40);
    rig.sink.wait("the last one", |arrived| arrived.buffers.last().map(number) == Some(39));
    assert_eq!(numbers(&rig)[35..], [20, 21, 22, 23, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39]);
    assert!(rig.sink.buffers()[39].flags.contains(gst::BufferFlags::DISCONT));
    rig.check_accounts();
}

/// 20 frames that nobody has acknowledged; 10 more are known by their numbers and not there.
fn store_without_its_end(temp: &std::path::Path) -> std::path::PathBuf {
    let (store, copied) = (temp.join("store"), temp.join("copy"));
    let rig = explicit(&store);
    send(&rig, 20);
    rig.stop();
    drop(rig);
    let unlogged = [("ack-mode", "explicit"), ("durability", "none"), ("sync-interval", "20000000")];
    let writer = Rig::new(&store, &unlogged);
    writer.start_stream("s", &h264_caps());
    push_frames(&writer, 20..30);
    // What was pushed is known by its number soon, and on the disk when the writer ends.
    until("the numbers are noted", || {
        let _ = std::fs::remove_dir_all(&copied);
        copy_store(&store, &copied);
        explicit(&copied).stat("received") == 30
    });
    copied
}

#[test]
fn what_is_missing_at_the_end_is_lost_when_the_rest_is_acknowledged() {
    let temp = tempfile::tempdir().unwrap();
    let rig = explicit(&store_without_its_end(temp.path()));
    rig.sink.wait_buffers(20);
    assert_eq!((numbers(&rig), rig.stat("lost")), ((0..20).collect(), 0));
    let last = *rig.sink.positions().last().unwrap();
    until("all is sent", || acknowledge(&rig, last));
    until("nothing is waited for", || rig.stat("pending") == 0);
    rig.check_accounts();
    assert_eq!((rig.stat("delivered"), rig.stat("lost")), (20, 10));
}

#[test]
fn what_is_missing_before_what_is_in_memory_alone_is_lost() {
    let temp = tempfile::tempdir().unwrap();
    let spills =
        [("persist", "spill"), ("spill-after", "60000000000"), ("ack-mode", "explicit"), ("add-position-meta", "true")];
    let rig = Rig::new(&store_without_its_end(temp.path()), &spills);
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 40..45);
    rig.sink.wait_buffers(25);
    let last = *rig.sink.positions().last().unwrap();
    until("all is sent", || acknowledge(&rig, last));
    // The last one may be acknowledged before its push has returned.
    until("nothing is waited for", || rig.stat("pending") + rig.stat("queued") == 0);
    rig.check_accounts();
    assert_eq!((rig.stat("delivered"), rig.stat("bypassed"), rig.stat("lost")), (20, 5, 10));
}

#[test]
fn an_event_from_downstream_acknowledges() {
    let temp = tempfile::tempdir().unwrap();
    let rig = explicit(temp.path());
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..20);
    rig.eos();
    rig.sink.wait_eos();
    let last = *rig.sink.positions().last().unwrap();
    let structure = gst::Structure::builder("diskbuffer-ack").field("position", last).build();
    assert!(rig.sinkpad.push_event(gst::event::CustomUpstream::new(structure)));
    assert_eq!((rig.stat("delivered"), rig.stat("pending")), (20, 0));
    rig.check_accounts();
    rig.stop();
    let rig = explicit(temp.path());
    send(&rig, 3);
    assert_eq!(numbers(&rig), [0, 1, 2], "the end of stream behind the last buffer is not owed either");
}

#[test]
fn an_outage_sends_again_what_is_not_acknowledged() {
    let temp = tempfile::tempdir().unwrap();
    let rig = explicit(temp.path());
    let positions = send(&rig, 35);
    acknowledge(&rig, positions[14]);
    rig.sink.answer(Some(gst::FlowError::Error));
    push_frames(&rig, 35..40);
    rig.message("diskbuffer-outage");
    rig.sink.answer(None);
    rig.sink.wait_buffers(35 + 30);
    assert_eq!(numbers(&rig)[35..], (10..40).collect::<Vec<_>>());
    let again = rig.sink.positions();
    assert_eq!(again[35..60], positions[10..35], "a position never changes");
    let replayed = rig.sink.replayed();
    assert!(replayed[..35].iter().all(|r| !r) && replayed[35..60].iter().all(|r| *r), "{replayed:?}");
    assert!(!replayed[60..].iter().any(|r| *r));
    until("all is sent", || acknowledge(&rig, again[64]));
    until("all is counted", || rig.stat("delivered") == 40);
    rig.check_accounts();
    assert_eq!((rig.stat("delivered"), rig.stat("pending"), rig.stat("replayed")), (40, 0, 25));
}

/// As a handler of a sink's "handoff" does.
#[test]
fn downstream_may_acknowledge_before_its_push_returns() {
    let temp = tempfile::tempdir().unwrap();
    let rig = explicit(temp.path());
    let element = rig.element.downgrade();
    rig.sinkpad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let buffer = info.buffer().unwrap();
        let meta = gst::meta::CustomMeta::from_buffer(buffer, "diskbuffer-position").unwrap();
        let position: u64 = meta.structure().get("position").unwrap();
        assert!(element.upgrade().unwrap().emit_by_name::<bool>("acknowledge", &[&position]));
        gst::PadProbeReturn::Ok
    });
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..30);
    until("all is acknowledged", || rig.stat("delivered") == 30);
    rig.check_accounts();
}

#[test]
fn rewind_sends_again_what_is_not_acknowledged() {
    let temp = tempfile::tempdir().unwrap();
    let rig = explicit(temp.path());
    assert!(rig.element.emit_by_name::<bool>("rewind", &[]));
    send(&rig, 25);
    acknowledge(&rig, rig.sink.positions()[11]);
    assert!(rig.element.emit_by_name::<bool>("rewind", &[]));
    rig.sink.wait_buffers(25 + 15);
    assert_eq!(numbers(&rig)[25..], (10..25).collect::<Vec<_>>());
    rig.stop();
    assert!(!rig.element.emit_by_name::<bool>("rewind", &[]), "it does not run");
    rig.check_accounts();
}

#[test]
fn limits_count_what_is_not_acknowledged() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(
        temp.path(),
        &[("ack-mode", "explicit"), ("max-size-buffers", "30"), ("leaky", "downstream"), ("add-position-meta", "true")],
    );
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..60);
    rig.sink.wait("the last", |arrived| arrived.buffers.last().map(number) == Some(59));
    rig.check_accounts();
    // What was dropped while it was on its way, and taken all the same, counts as delivered.
    let gone = rig.stat("dropped") + rig.stat("delivered");
    assert!(rig.stat("dropped") > 20 && gone >= 30, "unacknowledged data is given up: {}, {gone}", rig.stat("dropped"));
    let last = *rig.sink.positions().last().unwrap();
    until("the last is sent", || acknowledge(&rig, last));
    // It may be acknowledged before its push has returned.
    until("nothing is waited for", || rig.stat("pending") == 0);
    rig.check_accounts();
    assert_eq!(rig.stat("delivered") + rig.stat("dropped"), 60);
}

/// What is on its way again is acknowledged from the first time meanwhile, and may be gone where delivery has not come yet.
fn acknowledgements_overtake(persist: &str) {
    let temp = tempfile::tempdir().unwrap();
    let settings =
        [("ack-mode", "explicit"), ("add-position-meta", "true"), ("persist", persist), ("spill-after", "60000000000")];
    let rig = Rig::new(temp.path(), &settings);
    let wide = |width: i32| {
        let mut caps = h264_caps();
        caps.make_mut().set("width", width);
        caps
    };
    rig.start_stream("s", &wide(1));
    push_frames(&rig, 0..10);
    rig.source.push_event(gst::event::Caps::new(&wide(2)));
    push_frames(&rig, 10..30);
    rig.sink.wait_buffers(30);
    rig.sink.hold_after(2);
    assert!(rig.element.emit_by_name::<bool>("rewind", &[]));
    rig.sink.wait_held();
    assert_eq!(rig.sink.buffers().len(), 32);
    let positions = rig.sink.positions();
    until("it was sent", || acknowledge(&rig, positions[14]));
    rig.sink.release();
    rig.sink.wait("the last", |arrived| arrived.buffers.len() > 32 && arrived.buffers.last().map(number) == Some(29));
    let again = numbers(&rig)[30..].to_vec();
    let behind: Vec<_> = again.iter().copied().skip_while(|number| *number < 10).collect();
    assert_eq!(behind, (10..30).collect::<Vec<_>>(), "{again:?}");
    let at = numbers(&rig).len() - 20;
    assert!(rig.sink.buffers()[at].flags.contains(gst::BufferFlags::DISCONT));
    let mut caps =
        rig.sink.events().into_iter().filter(|(place, _)| *place <= at).filter_map(|(_, event)| match event.view() {
            gst::EventView::Caps(e) => e.caps().structure(0).unwrap().get::<i32>("width").ok(),
            _ => None,
        });
    assert_eq!(caps.next_back(), Some(2), "what was acknowledged stays in force");
    until("all is acknowledged", || acknowledge(&rig, positions[29]) && rig.stat("pending") + rig.stat("queued") == 0);
    rig.check_accounts();
}

#[test]
fn acknowledgements_overtake_what_is_sent_again_from_the_disk() {
    acknowledgements_overtake("always");
}

#[test]
fn acknowledgements_overtake_what_is_sent_again_from_memory() {
    acknowledgements_overtake("spill");
}
