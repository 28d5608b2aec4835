//! Full: what blocks, what is dropped, what is told.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use gst::prelude::*;

use crate::common::*;

const GOP: u64 = 10;
/// Larger than the distance of index entries: each keyframe has one.
const SIZE: usize = 120_000;

fn held(location: &std::path::Path, after: usize, properties: &[(&str, &str)]) -> Rig {
    let sink = Sink::default();
    sink.hold_after(after);
    let rig = Rig::with_sink(location, properties, sink);
    rig.start_stream("s", &h264_caps());
    rig
}

fn numbers(rig: &Rig) -> Vec<u64> {
    rig.sink.buffers().iter().map(number).collect()
}

/// Pushes from a thread of its own; tells each that was accepted.
fn push_in_background(rig: &Rig, range: std::ops::Range<u64>) -> mpsc::Receiver<Result<u64, gst::FlowError>> {
    let (tell, told) = mpsc::channel();
    let source = rig.source.clone();
    std::thread::spawn(move || {
        for i in range {
            let result = source.push(frame(i, GOP, 1000));
            let stop = result.is_err();
            let _ = tell.send(result.map(|_| i));
            if stop {
                break;
            }
        }
    });
    told
}

#[test]
fn full_blocks_until_there_is_room() {
    for (limit, value) in [("max-size-buffers", 20), ("max-size-bytes", 20 * 1008), ("max-size-time", 19 * FRAME)] {
        let temp = tempfile::tempdir().unwrap();
        let rig = held(temp.path(), 0, &[(limit, &value.to_string())]);
        let overruns = Arc::new(AtomicU32::new(0));
        let count = overruns.clone();
        rig.element.connect("overrun", false, move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            None
        });
        let told = push_in_background(&rig, 0..40);
        until("overrun", || overruns.load(Ordering::Relaxed) == 1);
        let accepted = told.try_iter().count();
        assert!((20..=21).contains(&accepted), "{limit}: {accepted}");
        rig.sink.release();
        rig.sink.wait_buffers(40);
        assert_eq!(numbers(&rig), (0..40).collect::<Vec<_>>(), "{limit}");
        rig.check_accounts();
    }
}

#[test]
fn a_limit_that_is_raised_lets_upstream_go_on() {
    let temp = tempfile::tempdir().unwrap();
    let rig = held(temp.path(), 0, &[("max-size-buffers", "5")]);
    let overruns = Arc::new(AtomicU32::new(0));
    let count = overruns.clone();
    rig.element.connect("overrun", false, move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        None
    });
    let told = push_in_background(&rig, 0..10);
    for expected in 0..5 {
        assert_eq!(told.recv_timeout(PATIENCE), Ok(Ok(expected)));
    }
    until("overrun", || overruns.load(Ordering::Relaxed) == 1);
    // The limit is looked at once more before the wait begins: it is to change within it.
    std::thread::sleep(Duration::from_millis(50));
    rig.element.set_property("max-size-buffers", 0u32);
    for expected in 5..10 {
        assert_eq!(told.recv_timeout(PATIENCE), Ok(Ok(expected)));
    }
}

#[test]
fn a_full_buffer_can_be_stopped() {
    let temp = tempfile::tempdir().unwrap();
    let rig = held(temp.path(), 0, &[("max-size-buffers", "5")]);
    let told = push_in_background(&rig, 0..10);
    for _ in 0..5 {
        told.recv_timeout(PATIENCE).unwrap().unwrap();
    }
    rig.element.set_state(gst::State::Null).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE), Ok(Err(gst::FlowError::Flushing)));
}

#[test]
fn leaky_upstream_drops_new_gops_whole() {
    let temp = tempfile::tempdir().unwrap();
    let rig = held(temp.path(), 0, &[("leaky", "upstream"), ("max-size-buffers", "25")]);
    (0..40).for_each(|i| rig.push(frame(i, GOP, 1000)));
    assert_eq!((rig.stat("stored"), rig.stat("rejected")), (25, 15));
    rig.sink.release();
    rig.sink.wait_buffers(25);
    // In the middle of a GOP there is room again, but nothing to start with.
    (45..60).for_each(|i| rig.push(frame(i, GOP, 1000)));
    let dropped = rig.message("diskbuffer-dropped");
    assert_eq!(dropped.get::<String>("reason").unwrap(), "max-size-buffers");
    assert_eq!(dropped.get::<u64>("buffers").unwrap(), 20);
    rig.eos();
    rig.sink.wait_eos();
    assert_eq!(numbers(&rig), (0..25).chain(50..60).collect::<Vec<_>>());
    assert!(rig.sink.buffers()[25].flags.contains(gst::BufferFlags::DISCONT));
    let gaps: Vec<_> = rig
        .sink
        .events()
        .iter()
        .filter_map(|(at, e)| match e.view() {
            gst::EventView::Gap(g) => Some((*at, g.get())),
            _ => None,
        })
        .collect();
    let time = |n| gst::ClockTime::from_nseconds(n * FRAME);
    assert_eq!(gaps, [(25, (time(25), Some(time(25))))]);
    rig.check_accounts();
}

#[test]
fn leaky_downstream_drops_the_oldest_gops_whole() {
    let temp = tempfile::tempdir().unwrap();
    let rig = held(temp.path(), 5, &[("leaky", "downstream"), ("max-size-buffers", "30")]);
    rig.push(frame(0, GOP, SIZE));
    (1..5).for_each(|i| rig.push(frame(i, GOP, SIZE)));
    rig.sink.wait_buffers(5);
    (5..100).for_each(|i| rig.push(frame(i, GOP, SIZE)));
    let dropped = rig.message("diskbuffer-dropped");
    assert_eq!(dropped.get::<String>("reason").unwrap(), "max-size-buffers");
    assert!(rig.element.property::<u32>("current-level-buffers") <= 30);
    rig.check_accounts();
    rig.eos();
    rig.sink.release();
    rig.sink.wait_eos();
    let seen = numbers(&rig);
    // One that was being pushed goes out, whichever it was; then the newest GOPs that fit.
    let held = seen.windows(2).rposition(|w| w[1] != w[0] + 1).map_or(0, |at| at + 1);
    let (kept, rest) = seen.split_at(held);
    assert_eq!(kept[..5], (0..5).collect::<Vec<_>>());
    assert!(kept.len() <= 6, "{seen:?}");
    assert_eq!(rest[0] % GOP, 0, "{rest:?}");
    assert_eq!(rest, (rest[0]..100).collect::<Vec<_>>());
    assert!(rest.len() >= 20, "not more than needed is dropped: {rest:?}");
    let buffers = rig.sink.buffers();
    assert!(buffers[held].flags.contains(gst::BufferFlags::DISCONT));
    assert!(buffers[held].data.starts_with(&[sps(), pps()].concat()), "parameter sets come again");
    let mut gaps = rig.sink.events().into_iter().filter(|(_, e)| e.type_() == gst::EventType::Gap);
    assert_eq!(gaps.next_back().map(|(at, _)| at), Some(held));
    until("all is counted", || rig.stat("pending") == 0);
    rig.check_accounts();
    assert_eq!(rig.stat("delivered") as usize, seen.len());
    assert_eq!(rig.stat("dropped") as usize, 100 - seen.len());
}

#[test]
fn dropped_data_leaves_the_disk_while_the_sink_is_blocked() {
    let temp = tempfile::tempdir().unwrap();
    let properties = [("leaky", "downstream"), ("max-size-bytes", "16000000")];
    let rig = held(temp.path(), 1, &properties);
    (0..1500).for_each(|i| rig.push(frame(i, GOP, SIZE)));
    assert!(rig.element.property::<u64>("current-level-bytes") <= 16_200_000);
    until("the disk is given back", || rig.stat("disk-bytes") < 64_000_000);
    rig.check_accounts();
}

#[test]
fn a_large_backlog_leaves_the_disk_when_drained() {
    let temp = tempfile::tempdir().unwrap();
    let rig = held(temp.path(), 0, &[]);
    (0..2500).for_each(|i| rig.push(frame(i, GOP, SIZE)));
    assert!(rig.stat("disk-bytes") > 300_000_000);
    rig.sink.wait("the first", |_| true);
    rig.sink.release();
    rig.sink.wait_buffers(2500);
    until("the disk is given back", || rig.stat("disk-bytes") < 128_000_000);
}

#[test]
fn below_the_free_space_floor_nothing_is_stored() {
    let temp = tempfile::tempdir().unwrap();
    // More than any disk has: a quarter of it is kept.
    let properties = [("min-free-bytes", "18446744073709551615"), ("leaky", "upstream")];
    let rig = held(temp.path(), 0, &properties);
    let stat = rustix::fs::statvfs(temp.path()).unwrap();
    let low = stat.f_bavail < stat.f_blocks / 4;
    (0..5).for_each(|i| rig.push(frame(i, GOP, 1000)));
    // With nothing undelivered one is always taken.
    assert_eq!(rig.stat("stored"), if low { 1 } else { 5 });
}

#[test]
fn a_stream_without_keyframes_is_not_dropped_for_ever() {
    let temp = tempfile::tempdir().unwrap();
    let rig = held(temp.path(), 0, &[("leaky", "upstream"), ("max-size-buffers", "10")]);
    // One keyframe only, and the bound of 64 MiB comes before the next.
    let gop = 10_000;
    (0..10).for_each(|i| rig.push(frame(i, gop, SIZE)));
    rig.push(frame(10, gop, SIZE));
    rig.sink.release();
    rig.sink.wait_buffers(10);
    let mut number = 11;
    until("something is taken again", || {
        rig.push(frame(number, gop, 4 << 20));
        number += 1;
        rig.stat("stored") > 10
    });
    assert!((17..40).contains(&number), "{number}");
    rig.check_accounts();
}

#[test]
fn accounts_hold_while_upstream_is_blocked() {
    let temp = tempfile::tempdir().unwrap();
    let rig = held(temp.path(), 0, &[("max-size-buffers", "5")]);
    let told = push_in_background(&rig, 0..10);
    for _ in 0..5 {
        told.recv_timeout(PATIENCE).unwrap().unwrap();
    }
    rig.check_accounts();
    rig.source.push_event(gst::event::FlushStart::new());
    assert_eq!(told.recv_timeout(PATIENCE), Ok(Err(gst::FlowError::Flushing)));
    rig.check_accounts();
}
