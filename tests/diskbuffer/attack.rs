//! Programs that were written to break it; each shows one thing that went wrong, or could.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::common::*;

const GOP: u64 = 10;
const TASK: &str = "STREAMBUFFER_TEST_ATTACK";
const LOCATION: &str = "STREAMBUFFER_TEST_ATTACK_LOCATION";

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

fn acknowledge(rig: &Rig, position: u64) -> bool {
    rig.element.emit_by_name("acknowledge", &[&position])
}

/// All is sent, none acknowledged; sent again, downstream blocks at the first.
fn sent_and_rewound(location: &Path, count: u64) -> Rig {
    let rig = Rig::new(location, &[("ack-mode", "explicit"), ("add-position-meta", "true")]);
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..count);
    rig.sink.wait_buffers(count as usize);
    until("all is sent", || rig.element.property_value("status").serialize().unwrap() == "live");
    rig.sink.hold_after(1);
    assert!(rig.element.emit_by_name::<bool>("rewind", &[]));
    rig.sink.wait_buffers(count as usize + 1);
    rig
}

/// What was thinned meanwhile is not acknowledged a second time.
#[test]
fn an_acknowledgement_after_thinning_counts_each_once() {
    let temp = tempfile::tempdir().unwrap();
    let rig = sent_and_rewound(temp.path(), 600);
    let last = rig.sink.positions()[599];
    rig.element.set_property_from_str("leaky", "thin");
    rig.element.set_property("max-size-buffers", 500u32);
    push_frames(&rig, 600..610);
    rig.check_accounts();
    assert!(rig.stat("dropped") > 0);
    assert!(acknowledge(&rig, last));
    rig.check_accounts();
    assert_eq!(rig.stat("delivered") + rig.stat("dropped"), 600);
    rig.sink.release();
    rig.sink.wait("the last", |arrived| arrived.buffers.last().map(number) == Some(609));
    let last = *rig.sink.positions().last().unwrap();
    until("the last is sent", || acknowledge(&rig, last) && rig.stat("pending") == 0);
    rig.check_accounts();
    assert_eq!(rig.stat("lost"), 0);
}

fn assert_decodable(rig: &Rig, from: usize) {
    let seen = rig.sink.buffers();
    for (at, pair) in seen.windows(2).enumerate().skip(from) {
        let (before, after) = (number(&pair[0]), number(&pair[1]));
        if after != before + 1 {
            assert!(after.is_multiple_of(GOP), "{at}: {after} after {before} is no keyframe");
            assert!(pair[1].flags.contains(gst::BufferFlags::DISCONT), "{at}: {after} after {before} has no DISCONT");
        }
    }
}

/// What is dropped while it is being sent again is not sent on.
#[test]
fn a_drop_while_sending_again_shows() {
    let temp = tempfile::tempdir().unwrap();
    let rig = sent_and_rewound(temp.path(), 600);
    rig.element.set_property_from_str("leaky", "downstream");
    rig.element.set_property("max-size-buffers", 100u32);
    push_frames(&rig, 600..610);
    rig.check_accounts();
    assert!(rig.stat("dropped") > 0);
    rig.sink.release();
    rig.sink.wait("the last", |arrived| arrived.buffers.last().map(number) == Some(609));
    assert_decodable(&rig, 600);
    let again = numbers(&rig).len() - 600;
    assert!(again < 200, "{again} were sent again although all but 100 were dropped");
    let last = *rig.sink.positions().last().unwrap();
    until("the last is sent", || acknowledge(&rig, last) && rig.stat("pending") == 0);
    rig.check_accounts();
    assert_eq!(rig.stat("lost"), 0);
}

fn backlog(location: &Path, count: u64) {
    let rig = Rig::with_sink(location, &[], held());
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..count);
    rig.stop();
}

#[test]
fn a_speed_limit_that_is_lifted_holds_nothing_back() {
    let temp = tempfile::tempdir().unwrap();
    backlog(temp.path(), 100);
    let rig = Rig::new(temp.path(), &[("catch-up-rate", "0.0001")]);
    rig.sink.wait_buffers(2);
    rig.element.set_property("catch-up-rate", 0f64);
    rig.sink.wait_buffers(100);
}

#[test]
fn the_lowest_speed_is_no_panic() {
    let temp = tempfile::tempdir().unwrap();
    backlog(temp.path(), 100);
    for rate in [1e-15, 1e-25, f64::MIN_POSITIVE, f64::MAX] {
        let rig = Rig::idle(Some(temp.path()), &[], Sink::default());
        rig.element.set_property("catch-up-rate", rate);
        rig.element.set_state(gst::State::Playing).unwrap();
        rig.sink.wait_buffers(1);
        until("it goes on or waits", || rig.stat("delivered") > 0);
        std::thread::sleep(Duration::from_millis(20));
        let error = rig.bus.pop_filtered(&[gst::MessageType::Error]);
        assert!(error.is_none(), "{rate}: {error:?}");
        let since = Instant::now();
        rig.stop();
        assert!(since.elapsed() < Duration::from_millis(1500), "{rate}: {:?}", since.elapsed());
    }
}

/// Nobody acknowledges yet: the limit holds all the same.
#[test]
fn the_speed_limit_holds_without_acknowledgements() {
    let temp = tempfile::tempdir().unwrap();
    backlog(temp.path(), 500);
    let rig = Rig::new(temp.path(), &[("catch-up-rate", "2.0"), ("ack-mode", "explicit")]);
    let since = Instant::now();
    rig.sink.wait_buffers(50);
    std::thread::sleep(Duration::from_millis(100));
    let (arrived, elapsed) = (rig.sink.buffers().len() as f64, since.elapsed().as_secs_f64());
    // 25 a second in real time.
    assert!(arrived <= 5.0 + 25.0 * 2.0 * (elapsed + 0.5), "{arrived} in {elapsed} s");
}

/// A purge that does not end at a keyframe leaves nothing that cannot be decoded unannounced.
#[test]
fn a_purge_within_a_gop_shows() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::with_sink(temp.path(), &[("add-position-meta", "true")], held());
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..60);
    rig.sink.hold_after(1);
    rig.sink.release();
    rig.sink.wait_buffers(60);
    let positions = rig.sink.positions();
    rig.stop();
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::with_sink(temp.path(), &[], held());
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..60);
    assert!(rig.element.emit_by_name::<bool>("purge", &[&positions[23], &positions[27]]));
    assert!(rig.element.emit_by_name::<bool>("purge", &[&positions[40], &positions[49]]));
    rig.sink.release();
    rig.sink.wait("the last", |arrived| arrived.buffers.last().map(number) == Some(59));
    until("all is counted", || rig.stat("pending") == 0);
    rig.check_accounts();
    assert_eq!(rig.stat("lost"), 0);
    let seen = rig.sink.buffers();
    for pair in seen.windows(2) {
        let (before, after) = (number(&pair[0]), number(&pair[1]));
        let discont = pair[1].flags.contains(gst::BufferFlags::DISCONT);
        assert!(after <= before + 1 || discont, "{after} after {before} has no DISCONT");
    }
}

/// Nothing has failed: what was sent is not sent again.
#[test]
fn a_purge_repeats_nothing() {
    for mode in ["push", "explicit"] {
        let temp = tempfile::tempdir().unwrap();
        let rig = Rig::new(temp.path(), &[("ack-mode", mode), ("add-position-meta", "true")]);
        rig.start_stream("s", &h264_caps());
        push_frames(&rig, 0..15);
        rig.sink.wait_buffers(15);
        rig.sink.hold_after(0);
        push_frames(&rig, 15..40);
        let last = rig.sink.positions()[14];
        assert!(rig.element.emit_by_name::<bool>("purge", &[&(last + 6), &(last + 15)]));
        rig.sink.release();
        rig.sink.wait("the last", |arrived| arrived.buffers.last().map(number) == Some(39));
        assert_eq!(numbers(&rig), (0..20).chain(30..40).collect::<Vec<_>>(), "{mode}");
        assert_decodable(&rig, 0);
        until("all is counted", || {
            let last = *rig.sink.positions().last().unwrap();
            acknowledge(&rig, last);
            rig.stat("pending") == 0
        });
        rig.check_accounts();
        assert_eq!((rig.stat("purged"), rig.stat("lost")), (10, 0), "{mode}");
    }
}

/// As a monitor does that reads the counters while somebody else restarts the element.
#[test]
fn readers_of_the_counters_do_not_keep_the_store() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::idle(Some(temp.path()), &[("lock-timeout", "0")], Sink::default());
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (element, stop) = (rig.element.clone(), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    element.property::<gst::Structure>("stats");
                }
            })
        })
        .collect();
    let mut failed = 0;
    for _ in 0..40 {
        failed += u32::from(rig.element.set_state(gst::State::Paused).is_err());
        rig.element.set_state(gst::State::Null).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    assert_eq!(failed, 0, "of 40 starts");
}

/// The store's thread stores what waits while the oldest has to go.
#[test]
fn dropping_while_memory_is_being_stored_loses_no_count() {
    for round in 0..20 {
        let temp = tempfile::tempdir().unwrap();
        let properties =
            [("persist", "spill"), ("spill-after", "1000000"), ("leaky", "downstream"), ("max-size-buffers", "40")];
        let rig = Rig::with_sink(temp.path(), &properties, held());
        rig.start_stream("s", &h264_caps());
        let since = Instant::now();
        let mut i = 0;
        while since.elapsed() < Duration::from_millis(300) {
            push_frames(&rig, i..i + 10);
            i += 10;
            rig.check_accounts();
        }
        rig.sink.release();
        rig.sink.wait("the last", |arrived| arrived.buffers.last().map(number) == Some(i - 1));
        until("all is counted", || rig.stat("pending") + rig.stat("queued") == 0);
        rig.check_accounts();
        assert_eq!(rig.stat("lost"), 0, "round {round}");
        let arrived = rig.sink.buffers().len() as u64;
        assert_eq!(arrived + rig.stat("dropped") + rig.stat("rejected"), i, "round {round}");
    }
}

/// What the tests of `tender` cannot wait for: an action out of a message that the store's own thread posts.
#[test]
fn an_action_out_of_a_message_returns() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::with_sink(temp.path(), &[("max-age", "200000000")], held());
    let (sender, receiver) = std::sync::mpsc::channel();
    let element = rig.element.downgrade();
    rig.bus.set_sync_handler(move |_, message| {
        if message.structure().is_some_and(|s| s.name() == "diskbuffer-dropped" && s.get("reason") == Ok("max-age"))
            && let Some(element) = element.upgrade()
        {
            let since = Instant::now();
            let done = element.emit_by_name::<bool>("clear", &[]);
            let _ = sender.send((since.elapsed(), done));
        }
        gst::BusSyncReply::Drop
    });
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..30);
    let (took, done) = receiver.recv_timeout(PATIENCE).unwrap();
    println!("clear took {took:?}: {done}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    rig.bus.unset_sync_handler();
}

/// Lets this process write no file any more, as a disk that refuses.
fn refuse_the_disk(refuse: bool) {
    let limit = if refuse { "--fsize=0:unlimited" } else { "--fsize=unlimited:unlimited" };
    let pid = std::process::id().to_string();
    assert!(Command::new("prlimit").args([limit, "--pid", &pid]).status().unwrap().success());
}

/// Not tests by themselves: each runs in a process of its own, which ignores SIGXFSZ.
#[test]
fn child() {
    let (Ok(task), Some(location)) = (std::env::var(TASK), std::env::var_os(LOCATION)) else { return };
    let location = Path::new(&location);
    match task.as_str() {
        "full" => full_without_a_disk(location, "downstream"),
        "full thin" => full_without_a_disk(location, "thin"),
        "clear" => clear_without_a_disk(location),
        "return" => a_disk_that_returns(location),
        _ => unreachable!(),
    }
    println!("done");
}

fn in_a_child(task: &str) {
    let temp = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec timeout 50 \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "attack::child", "--nocapture"])
        .env(TASK, task)
        .env(LOCATION, temp.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("done"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

fn full_without_a_disk(location: &Path, leaky: &str) {
    let rig = Rig::with_sink(location, &[("leaky", leaky), ("max-size-buffers", "30")], held());
    rig.start_stream("s", &h264_caps());
    push_frames(&rig, 0..15);
    refuse_the_disk(true);
    let since = Instant::now();
    push_frames(&rig, 15..100);
    println!("pushed in {:?}", since.elapsed());
    rig.check_accounts();
    refuse_the_disk(false);
    rig.sink.release();
    until("all is counted", || rig.stat("pending") + rig.stat("queued") == 0);
    push_frames(&rig, 100..110);
    rig.sink.wait("the last", |arrived| arrived.buffers.last().map(number) == Some(109));
    until("all is counted", || rig.stat("pending") + rig.stat("queued") == 0);
    rig.check_accounts();
    assert_eq!(rig.stat("lost"), 0);
}

#[test]
fn a_full_buffer_without_a_disk_does_not_hold_upstream() {
    in_a_child("full");
}

#[test]
fn a_full_buffer_to_be_thinned_without_a_disk_does_not_hold_upstream() {
    in_a_child("full thin");
}

fn clear_without_a_disk(location: &Path) {
    let rig = Rig::with_sink(location, &[], held());
    rig.start_stream("s", &h264_caps());
    refuse_the_disk(true);
    push_frames(&rig, 0..30);
    let cleared = rig.element.emit_by_name::<bool>("clear", &[]);
    let left = rig.stat("pending") + rig.stat("queued");
    rig.check_accounts();
    assert!(!cleared || left == 0, "{left} are left");
    refuse_the_disk(false);
}

#[test]
fn to_clear_without_a_disk_clears_or_says_so() {
    in_a_child("clear");
}

/// The disk refuses and returns again and again, memory is short, a resume needs long GOPs.
fn a_disk_that_returns(location: &Path) {
    let rig = Rig::new(location, &[("max-memory-bytes", "5000"), ("leaky", "downstream")]);
    rig.start_stream("s", &h264_caps());
    let mut i = 0;
    for _ in 0..12 {
        refuse_the_disk(true);
        for _ in 0..60 {
            rig.push(frame(i, 50, 1000));
            i += 1;
            rig.check_accounts();
        }
        refuse_the_disk(false);
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(300) {
            rig.push(frame(i, 50, 1000));
            i += 1;
            rig.check_accounts();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    until("the disk is back", || rig.stat("queued") == 0 && rig.stat("pending") == 0);
    rig.check_accounts();
    assert_eq!(rig.stat("lost"), 0);
}

#[test]
fn a_disk_that_comes_and_goes_keeps_the_accounts() {
    in_a_child("return");
}
