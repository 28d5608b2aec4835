//! Flushes and seeks from places where they hurt: the element's own threads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use gst::prelude::*;

use crate::common::*;

const GOP: u64 = 10;

fn flush(source: &gst::Pad) {
    source.push_event(gst::event::FlushStart::new());
    source.push_event(gst::event::FlushStop::new(true));
    source.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
}

/// The sink seeks from its chain function, which runs in the element's streaming thread; upstream flushes at once.
#[test]
fn a_seek_from_the_streaming_thread_neither_hangs_nor_leaks() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(temp.path(), &[]);
    let source = rig.source.downgrade();
    // What upstream does with the seek, in the thread that sends it.
    let seeked = Arc::new(AtomicBool::new(false));
    let (once, done) = (AtomicBool::new(false), seeked.clone());
    rig.sinkpad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let at = info.buffer().map_or(0, |buffer| buffer.offset());
        if let Some(source) = source.upgrade().filter(|_| at == 15 && !once.swap(true, Ordering::SeqCst)) {
            flush(&source);
            done.store(true, Ordering::SeqCst);
        }
        gst::PadProbeReturn::Ok
    });
    rig.start_stream("s", &h264_caps());
    (0..30).for_each(|i| _ = rig.source.push(frame(i, GOP, 1000)));
    until("the seek", || seeked.load(Ordering::SeqCst));
    (30..60).for_each(|i| rig.push(frame(i, GOP, 1000)));
    rig.eos();
    rig.sink.wait_eos();
    assert_eq!(rig.sink.buffers().last().map(number), Some(59));
    assert_eq!(rig.element.property::<gst::Structure>("stats").get::<u32>("outages"), Ok(0), "a flush is no outage");
    rig.check_accounts();
    rig.stop();
    let weak = rig.element.downgrade();
    drop(rig);
    assert!(weak.upgrade().is_none(), "the element is leaked");
}

#[test]
fn a_handler_of_overrun_may_flush() {
    let temp = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    sink.hold_after(0);
    let properties = [("max-size-buffers", "5"), ("flush-mode", "discard")];
    let rig = Rig::with_sink(temp.path(), &properties, sink);
    rig.start_stream("s", &h264_caps());
    let source = rig.source.downgrade();
    let (tell, told) = mpsc::channel();
    rig.element.connect("overrun", false, move |_| {
        if let Some(source) = source.upgrade() {
            flush(&source);
        }
        let _ = tell.send(());
        None
    });
    // In a thread of its own, so that a deadlock fails the test instead of hanging it.
    let source = rig.source.clone();
    std::thread::spawn(move || (0..8).for_each(|i| _ = source.push(frame(i, GOP, 1000))));
    assert_eq!(told.recv_timeout(PATIENCE), Ok(()));
    until("it goes on", || rig.stat("received") == 8);
    rig.check_accounts();
}

/// The streaming task is held between the decision to push a buffer and the push itself while a flush passes.
#[test]
fn what_was_on_its_way_before_a_flush_does_not_arrive_behind_it() {
    let temp = tempfile::tempdir().unwrap();
    let rig = Rig::new(temp.path(), &[]);
    let (reached, at_push) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let held = AtomicBool::new(false);
    let released = std::sync::Mutex::new(released);
    rig.element.static_pad("src").unwrap().add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if info.buffer().is_some_and(|buffer| buffer.offset() == 15) && !held.swap(true, Ordering::SeqCst) {
            reached.send(()).unwrap();
            released.lock().unwrap().recv().unwrap();
        }
        gst::PadProbeReturn::Ok
    });
    rig.start_stream("s", &h264_caps());
    (0..20).for_each(|i| rig.push(frame(i, GOP, 1000)));
    at_push.recv_timeout(PATIENCE).unwrap();
    let source = rig.source.clone();
    let flushing = std::thread::spawn(move || flush(&source));
    // Time for a flush that does not wait to get past the buffer.
    std::thread::sleep(std::time::Duration::from_millis(100));
    release.send(()).unwrap();
    flushing.join().unwrap();
    (20..30).for_each(|i| rig.push(frame(i, GOP, 1000)));
    rig.eos();
    rig.sink.wait_eos();
    let place = |kind| rig.sink.events().into_iter().filter(move |(_, e)| e.type_() == kind).map(|(at, _)| at);
    let flushed = place(gst::EventType::FlushStop).next().unwrap();
    assert!(place(gst::EventType::Segment).any(|at| at == flushed), "a buffer follows the flush without a segment");
    let numbers: Vec<_> = rig.sink.buffers().iter().map(number).collect();
    assert_eq!(numbers, (0..15).chain(10..30).collect::<Vec<_>>());
    rig.check_accounts();
}
