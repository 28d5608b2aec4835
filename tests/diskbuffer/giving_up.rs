//! Stored data that is given up: thinned, too old, purged.

use gst::prelude::*;

use crate::common::*;

const GOP: u64 = 10;

fn push_frames(rig: &Rig, range: std::ops::Range<u64>) {
    range.for_each(|i| rig.push(frame(i, GOP, 1000)));
}

fn numbers(rig: &Rig) -> Vec<u64> {
    rig.sink.buffers().iter().map(number).collect()
}

fn held(location: &std::path::Path, properties: &[(&str, &str)]) -> Rig {
    let sink = Sink::default();
    sink.hold_after(0);
    Rig::with_sink(location, properties, sink)
}

/// Purges by the position of the first buffer, which is known.
fn purge(rig: &Rig, from: u64, to: u64) -> bool {
    rig.element.emit_by_name("purge", &[&from, &to])
}

fn files_hold(location: &std::path::Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(location).unwrap().flatten().any(|entry| match entry.path() {
        path if path.is_dir() => files_hold(&path, bytes),
        path => std::fs::read(path).unwrap_or_default().windows(bytes.len()).any(|window| window == bytes),
    })
}

/// Bytes that are in this frame only.
fn mark(number: u64) -> Vec<u8> {
    see(&frame(number, GOP, 1000)).data[500..540].to_vec()
}

#[test]
fn purged_bytes_are_nowhere_on_the_disk() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(temp.path(), &[("ack-mode", "explicit"), ("add-position-meta", "true")]);
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..60);
    rig.sink.wait_buffers(60);
    let positions = rig.sink.positions();
    until("it is all sent", || rig.element.emit_by_name::<bool>("acknowledge", &[&positions[4]]));
    assert!(files_hold(temp.path(), &mark(25)) && files_hold(temp.path(), &mark(45)));
    assert!(purge(&rig, positions[20], positions[39]));
    for number in 20..40 {
        assert!(!files_hold(temp.path(), &mark(number)), "{number} is still there");
    }
    assert!(files_hold(temp.path(), &mark(45)));
    rig.check_accounts();
    assert_eq!((rig.stat("purged"), rig.stat("delivered"), rig.stat("pending")), (20, 5, 35));
    let told = rig.message("diskbuffer-dropped");
    assert_eq!((told.get::<&str>("reason"), told.get::<u64>("buffers")), (Ok("purged"), Ok(20)));
    rig.stop();
    let rig = Rig::new(temp.path(), &[]);
    rig.sink.wait_buffers(40);
    assert_eq!(numbers(&rig), (0..20).chain(40..60).collect::<Vec<_>>());
    until("all is counted", || rig.stat("pending") == 0);
    rig.check_accounts();
    assert_eq!(rig.stat("lost"), 0);
}

#[test]
fn what_is_purged_while_it_is_pushed_counts_once_whatever_is_purged_next() {
    let temp = tempfile::tempdir().unwrap();
    let before = held(temp.path(), &[]);
    before.start_stream("s", &h264_caps());
    push_frames(&before, 0..30);
    before.stop();
    drop(before);
    // Read ahead as a whole.
    let sink = Sink::default();
    sink.hold_after(5);
    let rig = Rig::with_sink(temp.path(), &[("add-position-meta", "true")], sink);
    rig.sink.wait_held();
    let at = rig.sink.positions()[4] + 1;
    assert!(purge(&rig, at, at + 2) && purge(&rig, at + 10, at + 12));
    rig.sink.release();
    rig.sink.wait_buffers(25);
    until("everything is counted", || rig.stat("pending") == 0);
    rig.check_accounts();
    assert_eq!((rig.stat("purged"), rig.stat("delivered")), (5, 25));
}

#[test]
fn clear_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let rig = held(temp.path(), &[]);
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..50);
    assert!(rig.element.emit_by_name::<bool>("clear", &[]));
    for number in 1..50 {
        assert!(!files_hold(temp.path(), &mark(number)), "{number} is still there");
    }
    assert_eq!(rig.stat("pending"), 0);
    rig.check_accounts();
    rig.sink.release();
    push_frames(&rig, 50..60);
    rig.sink.wait("the rest", |arrived| arrived.buffers.last().map(number) == Some(59));
    until("all is counted", || rig.stat("pending") == 0);
    rig.check_accounts();
    let caps = rig.sink.events().iter().any(|(_, e)| e.type_() == gst::EventType::Caps);
    assert!(caps, "caps stay in force");
    assert_eq!(rig.stat("lost"), 0);
}

#[test]
fn thinning_keeps_the_keyframes_of_the_oldest_gops() {
    let temp = tempfile::tempdir().unwrap();
    let rig = held(temp.path(), &[("leaky", "thin"), ("max-size-buffers", "50")]);
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..100);
    rig.check_accounts();
    assert!(rig.element.property::<u32>("current-level-buffers") <= 50);
    rig.sink.release();
    rig.sink.wait("the last", |arrived| arrived.buffers.last().map(number) == Some(99));
    until("all is counted", || rig.stat("pending") == 0);
    rig.check_accounts();
    let numbers = numbers(&rig);
    let thinned: Vec<_> = numbers.windows(2).filter(|w| w[1] != w[0] + 1).collect();
    assert!(!thinned.is_empty() && thinned.iter().all(|w| w[1].is_multiple_of(GOP)), "{numbers:?}");
    // 0 was on its way, with its GOP.
    for key in (0..100).step_by(10) {
        assert!(numbers.contains(&key), "keyframe {key} is not there: {numbers:?}");
    }
    assert_eq!(numbers.len() as u64 + rig.stat("dropped"), 100);
    assert_eq!((rig.stat("lost"), rig.stat("delivered")), (0, numbers.len() as u64));
}

#[test]
fn when_keyframes_alone_are_too_many_the_oldest_go() {
    let temp = tempfile::tempdir().unwrap();
    let rig = held(temp.path(), &[("leaky", "thin"), ("max-size-buffers", "20")]);
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..500);
    rig.check_accounts();
    assert!(rig.element.property::<u32>("current-level-buffers") <= 20);
    rig.stop();
    let rig = Rig::new(temp.path(), &[]);
    rig.sink.wait("the last", |arrived| arrived.buffers.last().map(number) == Some(499));
    until("all is counted", || rig.stat("pending") == 0);
    rig.check_accounts();
    let numbers = numbers(&rig);
    assert!(numbers.len() <= 20 && numbers[0].is_multiple_of(GOP), "{numbers:?}");
    assert_eq!(rig.stat("lost"), 0);
}

#[test]
fn what_is_too_old_goes_although_nothing_stirs() {
    let temp = tempfile::tempdir().unwrap();
    let rig = held(temp.path(), &[("max-age", "300000000")]);
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..30);
    until("it is expired", || rig.stat("expired") > 0 && rig.stat("pending") == 0);
    rig.check_accounts();
    let told = rig.message("diskbuffer-dropped");
    assert_eq!(told.get::<&str>("reason"), Ok("max-age"));
    rig.sink.release();
    push_frames(&rig, 30..40);
    rig.sink.wait("the rest", |arrived| arrived.buffers.last().map(number) == Some(39));
    until("all is counted", || rig.stat("pending") == 0);
    rig.check_accounts();
}
