//! A `diskbuffer` with a manager: what is told, what a hold stops, where delivery goes on.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::DiskBuffer;
use super::common::{FRAME, PATIENCE, Rig, Seen, Sink, frame, h264_caps, number, until};
use super::managed::{Boundary, Manager};

const GOP: u64 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Refused(gst::FlowError),
    Boundary(Boundary),
    DeliveredEos,
}

#[derive(Default)]
pub(super) struct Log {
    told: Mutex<Vec<Told>>,
    more: Condvar,
}

impl Log {
    fn add(&self, told: Told) {
        self.told.lock().unwrap().push(told);
        self.more.notify_all();
    }

    pub(super) fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    pub(super) fn wait(&self, count: usize) -> Vec<Told> {
        let told = self.told.lock().unwrap();
        let (told, timeout) = self.more.wait_timeout_while(told, PATIENCE, |told| told.len() < count).unwrap();
        assert!(!timeout.timed_out(), "told: {told:?}");
        told.clone()
    }
}

impl Manager for Log {
    fn refused(&self, _: &DiskBuffer, flow: gst::FlowError) {
        self.add(Told::Refused(flow));
    }

    fn boundary(&self, _: &DiskBuffer, boundary: Boundary) {
        self.add(Told::Boundary(boundary));
    }

    fn delivered_eos(&self, _: &DiskBuffer) {
        self.add(Told::DeliveredEos);
    }
}

/// The element with a manager, and how its downstream is exchanged.
struct Managed {
    rig: Rig,
    element: DiskBuffer,
    log: Arc<Log>,
    downstream: gst::Pad,
}

impl Managed {
    fn new(location: &Path, properties: &[(&str, &str)]) -> Self {
        let rig = Rig::idle(Some(location), properties, Sink::default());
        let element = rig.element.clone().downcast::<DiskBuffer>().unwrap();
        let log = Arc::new(Log::default());
        element.set_manager(Some(log.clone()));
        let downstream = rig.sinkpad.clone();
        Self { rig, element, log, downstream }
    }

    fn play(&self) {
        self.rig.element.set_state(gst::State::Playing).unwrap();
        self.rig.source.set_active(true).unwrap();
    }

    fn playing(location: &Path, properties: &[(&str, &str)]) -> Self {
        let this = Self::new(location, properties);
        this.play();
        this.rig.start_stream("stream", &h264_caps());
        this
    }

    fn push(&self, numbers: impl IntoIterator<Item = u64>) {
        numbers.into_iter().for_each(|n| self.rig.push(frame(n, GOP, 200)));
    }

    /// What comes next goes to another sink.
    fn exchange(&mut self) -> Sink {
        let srcpad = self.element.static_pad("src").unwrap();
        srcpad.unlink(&self.downstream).unwrap();
        self.downstream.set_active(false).unwrap();
        let sink = Sink::default();
        self.downstream = sink.pad();
        srcpad.link(&self.downstream).unwrap();
        sink
    }

    fn wait_trusted(&self) {
        until("downstream is trusted", || self.element.progress().trusted);
    }

    fn outages(&self) -> u32 {
        self.rig.element.property::<gst::Structure>("stats").get("outages").unwrap()
    }

    fn outage_messages(&self) -> usize {
        let named = |m: &gst::Message| m.structure().is_some_and(|s| s.name() == "diskbuffer-outage");
        self.rig.bus.iter().filter(named).count()
    }
}

fn numbers(sink: &Sink) -> Vec<u64> {
    sink.buffers().iter().map(number).collect()
}

fn types(sink: &Sink) -> Vec<gst::EventType> {
    sink.events().iter().map(|(_, event)| event.type_()).collect()
}

fn discont(seen: Option<&Seen>) -> bool {
    seen.is_some_and(|seen| seen.flags.contains(gst::BufferFlags::DISCONT))
}

fn other_caps() -> gst::Caps {
    let mut caps = h264_caps();
    caps.make_mut().set("width", 128i32);
    caps
}

const BEGIN: [gst::EventType; 3] = [gst::EventType::StreamStart, gst::EventType::Caps, gst::EventType::Segment];

#[test]
fn a_refusal_goes_to_the_manager_and_a_new_downstream_begins_at_the_keyframe() {
    for flow in [gst::FlowError::Error, gst::FlowError::Eos, gst::FlowError::NotLinked, gst::FlowError::NotNegotiated] {
        let dir = tempfile::tempdir().unwrap();
        let mut managed = Managed::playing(dir.path(), &[]);
        managed.push(0..8);
        managed.rig.sink.wait_buffers(8);
        managed.rig.sink.answer(Some(flow));
        managed.push(8..10);
        assert_eq!(managed.log.wait(1), [Told::Refused(flow)]);
        assert!(managed.element.progress().held && managed.element.wait_until_idle(Duration::ZERO));
        // Further failures are part of the same outage.
        managed.element.hold(Some("the connection is gone"));
        managed.push(10..12);
        let sink = managed.exchange();
        managed.element.release();
        sink.wait_buffers(7);
        managed.wait_trusted();
        assert_eq!(numbers(&sink), (5..12).collect::<Vec<_>>(), "{flow:?}");
        assert!(discont(sink.buffers().first()));
        assert_eq!(types(&sink)[..3], BEGIN, "no flush, sticky events first");
        assert_eq!(managed.log.told().len(), 1);
        assert_eq!(managed.outage_messages(), 1);
        assert_eq!((managed.rig.stat("pending"), managed.rig.stat("replayed")), (0, 3));
        assert_eq!(managed.element.progress().accepted.buffers, 8 + 7);
        managed.rig.check_accounts();
    }
}

#[test]
fn refused_from_the_first_buffer_on_is_no_error() {
    for flow in [gst::FlowError::NotLinked, gst::FlowError::NotNegotiated, gst::FlowError::Eos] {
        let dir = tempfile::tempdir().unwrap();
        let mut managed = Managed::new(dir.path(), &[]);
        managed.rig.sink.answer(Some(flow));
        managed.play();
        managed.rig.start_stream("stream", &h264_caps());
        managed.push(0..3);
        assert_eq!(managed.log.wait(1), [Told::Refused(flow)]);
        managed.push(3..5);
        let sink = managed.exchange();
        managed.element.release();
        sink.wait_buffers(5);
        assert_eq!(numbers(&sink), [0, 1, 2, 3, 4]);
        let errors = managed.rig.bus.iter().filter(|m| m.type_() == gst::MessageType::Error).count();
        assert_eq!(errors, 0);
    }
}

#[test]
fn a_hold_before_the_start_spools_from_the_first_buffer() {
    let dir = tempfile::tempdir().unwrap();
    let managed = Managed::new(dir.path(), &[]);
    managed.element.hold(None);
    managed.play();
    managed.rig.start_stream("stream", &h264_caps());
    managed.push(0..7);
    assert_eq!(managed.rig.stat("pending"), 7);
    managed.element.hold(Some("no route to host"));
    assert_eq!(managed.rig.message("diskbuffer-outage").get::<String>("reason").unwrap(), "no route to host");
    assert_eq!(managed.rig.sink.events().len(), 0);
    managed.element.release();
    managed.rig.sink.wait_buffers(7);
    managed.rig.message("diskbuffer-resumed");
    assert_eq!(managed.outages(), 1);
}

#[test]
fn a_push_that_ends_while_it_is_held_for_a_failure_is_no_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let mut managed = Managed::playing(dir.path(), &[]);
    managed.rig.sink.hold_after(6);
    managed.push(0..8);
    managed.rig.sink.wait_held();
    assert!(managed.element.progress().pushing_since.is_some());
    managed.element.hold(Some("no progress"));
    assert!(!managed.element.wait_until_idle(Duration::ZERO));
    // As a change to NULL does.
    managed.rig.sinkpad.send_event(gst::event::FlushStart::new());
    assert!(managed.element.wait_until_idle(PATIENCE));
    let sink = managed.exchange();
    managed.element.release();
    sink.wait_buffers(3);
    managed.wait_trusted();
    assert_eq!(numbers(&sink), [5, 6, 7]);
    assert_eq!(managed.log.told(), []);
    assert_eq!(managed.outages(), 1);
}

#[test]
fn held_in_order_it_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let mut managed = Managed::playing(dir.path(), &[("replay-overlap", "5000000000")]);
    managed.push(0..5);
    managed.rig.sink.wait_buffers(5);
    managed.element.hold(None);
    assert!(managed.element.wait_until_idle(PATIENCE));
    managed.push(5..8);
    assert!(managed.element.push_eos());
    managed.rig.sink.wait_eos();
    let sink = managed.exchange();
    managed.element.release();
    sink.wait_buffers(3);
    managed.wait_trusted();
    assert_eq!(numbers(&sink), [5, 6, 7]);
    assert!(discont(sink.buffers().first()));
    assert_eq!(types(&sink)[..3], BEGIN);
    assert_eq!((managed.outages(), managed.rig.stat("replayed")), (0, 0));
    assert_eq!(managed.log.told(), []);
}

#[test]
fn held_in_order_within_a_gop_it_goes_back_to_the_keyframe() {
    for waiting in [0, 2] {
        let dir = tempfile::tempdir().unwrap();
        let mut managed = Managed::playing(dir.path(), &[("replay-overlap", "5000000000")]);
        managed.push(0..7);
        managed.rig.sink.wait_buffers(7);
        managed.element.hold(None);
        assert!(managed.element.wait_until_idle(PATIENCE));
        managed.push(7..7 + waiting);
        let sink = managed.exchange();
        managed.element.release();
        managed.push(7 + waiting..12);
        sink.wait_buffers(7);
        managed.wait_trusted();
        assert_eq!(numbers(&sink), (5..12).collect::<Vec<_>>());
        assert!(discont(sink.buffers().first()));
        assert_eq!((managed.outages(), managed.rig.stat("replayed")), (0, 2));
    }
}

#[test]
fn a_keyframe_that_cannot_be_looked_for_now_is_looked_for_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut managed = Managed::playing(dir.path(), &[]);
    managed.push(0..7);
    managed.rig.sink.wait_buffers(7);
    until("everything is counted", || managed.rig.stat("pending") == 0);
    managed.element.hold(None);
    assert!(managed.element.wait_until_idle(PATIENCE));
    let sink = managed.exchange();
    let session = managed.element.imp().session().unwrap();
    session.stream.store().while_away(|| {
        managed.element.release();
        let stats = || managed.rig.element.property::<gst::Structure>("stats");
        until("it was looked for", || !stats().get::<&str>("last-error").unwrap().is_empty());
    });
    managed.push(7..12);
    sink.wait_buffers(7);
    assert_eq!(numbers(&sink), (5..12).collect::<Vec<_>>());
    assert!(discont(sink.buffers().first()));
}

#[test]
fn what_was_closed_in_vain_begins_at_the_resume_point() {
    let dir = tempfile::tempdir().unwrap();
    let mut managed = Managed::playing(dir.path(), &[("replay-overlap", "200000000")]);
    managed.push(0..12);
    managed.rig.sink.wait_buffers(12);
    until("everything is counted", || managed.rig.stat("pending") == 0);
    managed.element.hold(None);
    assert!(managed.element.wait_until_idle(PATIENCE));
    managed.element.hold(Some("the file could not be closed"));
    let sink = managed.exchange();
    managed.element.release();
    sink.wait_buffers(7);
    assert_eq!(numbers(&sink), (5..12).collect::<Vec<_>>(), "although everything was accepted");
}

#[test]
fn other_caps_are_a_boundary_and_the_same_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut managed = Managed::playing(dir.path(), &[]);
    managed.element.set_boundaries(true);
    managed.push(0..5);
    managed.rig.source.push_event(gst::event::Caps::new(&h264_caps()));
    managed.push(5..10);
    managed.rig.sink.wait_buffers(10);
    managed.rig.source.push_event(gst::event::Caps::new(&other_caps()));
    managed.push(10..15);
    assert_eq!(managed.log.wait(1), [Told::Boundary(Boundary::Caps)]);
    assert_eq!(managed.rig.sinkpad.current_caps(), Some(h264_caps()));
    assert!(managed.element.push_eos());
    let old = std::mem::take(&mut managed.rig.sink);
    let sink = managed.exchange();
    managed.element.release();
    sink.wait_buffers(5);
    managed.wait_trusted();
    assert_eq!((numbers(&old), numbers(&sink)), ((0..10).collect(), (10..15).collect()));
    assert_eq!(types(&sink)[..3], BEGIN);
    assert_eq!(managed.downstream.current_caps(), Some(other_caps()));
    assert_eq!(managed.log.told().len(), 1);
    managed.rig.check_accounts();
}

#[test]
fn without_boundaries_caps_and_epochs_go_through() {
    let dir = tempfile::tempdir().unwrap();
    let managed = Managed::playing(dir.path(), &[]);
    managed.push(0..5);
    managed.rig.source.push_event(gst::event::Caps::new(&other_caps()));
    managed.push(5..10);
    managed.rig.sink.wait_buffers(10);
    assert_eq!(managed.log.told(), []);
}

#[test]
fn an_epoch_is_a_boundary() {
    let dir = tempfile::tempdir().unwrap();
    let first = Managed::new(dir.path(), &[]);
    first.element.hold(None);
    first.play();
    first.rig.start_stream("stream", &h264_caps());
    first.push(0..5);
    drop(first);
    let mut managed = Managed::new(dir.path(), &[]);
    managed.element.set_boundaries(true);
    managed.play();
    managed.rig.start_stream("stream", &h264_caps());
    managed.push(5..8);
    assert_eq!(managed.log.wait(1), [Told::Boundary(Boundary::Epoch)]);
    assert_eq!(numbers(&managed.rig.sink), [0, 1, 2, 3, 4]);
    let sink = managed.exchange();
    managed.element.release();
    sink.wait_buffers(3);
    assert_eq!(numbers(&sink), [5, 6, 7]);
    let segments = types(&sink).iter().filter(|t| **t == gst::EventType::Segment).count();
    assert_eq!(segments, 1, "none of the old epoch");
    assert!(sink.running_times()[0] >= Some(5 * FRAME), "behind the old epoch");
}

#[test]
fn a_failure_behind_a_boundary_may_lead_back_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut managed = Managed::playing(dir.path(), &[("replay-overlap", "10000000000")]);
    managed.element.set_boundaries(true);
    managed.push(0..5);
    managed.rig.source.push_event(gst::event::Caps::new(&other_caps()));
    managed.push(5..7);
    managed.log.wait(1);
    let second = managed.exchange();
    managed.element.release();
    second.wait_buffers(2);
    managed.wait_trusted();
    managed.element.hold(Some("gone"));
    let third = managed.exchange();
    managed.element.release();
    assert_eq!(managed.log.wait(2)[1], Told::Boundary(Boundary::Caps), "at the same place again");
    assert_eq!(numbers(&third), [0, 1, 2, 3, 4]);
    let fourth = managed.exchange();
    managed.element.release();
    fourth.wait_buffers(2);
    assert_eq!(numbers(&fourth), [5, 6]);
}

#[test]
fn an_end_of_stream_is_told_and_what_follows_it_is_a_boundary() {
    let dir = tempfile::tempdir().unwrap();
    let mut managed = Managed::playing(dir.path(), &[]);
    managed.push(0..5);
    managed.rig.eos();
    assert_eq!(managed.log.wait(1), [Told::DeliveredEos]);
    assert!(managed.element.progress().ended);
    managed.element.confirm(PATIENCE);
    managed.rig.start_stream("next", &h264_caps());
    managed.push(5..7);
    assert_eq!(managed.log.wait(2)[1], Told::Boundary(Boundary::Ended));
    assert!(!managed.element.progress().ended);
    let sink = managed.exchange();
    managed.element.release();
    sink.wait_buffers(2);
    assert_eq!((numbers(&managed.rig.sink), numbers(&sink)), ((0..5).collect(), vec![5, 6]));
}

#[test]
fn an_end_of_stream_that_did_not_arrive_is_sent_again_with_what_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut managed = Managed::playing(dir.path(), &[]);
    managed.push(0..8);
    managed.rig.eos();
    managed.log.wait(1);
    until("everything is counted", || managed.rig.stat("pending") == 0);
    managed.element.hold(Some("the file could not be closed"));
    let sink = managed.exchange();
    managed.element.release();
    sink.wait_eos();
    assert_eq!(numbers(&sink), [5, 6, 7]);
    assert_eq!(managed.log.wait(2), [Told::DeliveredEos; 2]);
}

#[test]
fn what_has_arrived_is_not_sent_again_after_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    {
        let managed = Managed::new(dir.path(), &[]);
        managed.element.hold(Some("not there yet"));
        managed.play();
        managed.rig.start_stream("stream", &h264_caps());
        managed.push(0..5);
        managed.rig.eos();
        managed.element.release();
        managed.log.wait(1);
        // The probation is far from over.
        managed.element.confirm(PATIENCE);
        assert!(managed.element.progress().trusted);
        managed.rig.stop();
    }
    let managed = Managed::playing(dir.path(), &[]);
    assert_eq!(managed.rig.stat("pending"), 0);
    managed.push(5..6);
    managed.rig.sink.wait_buffers(1);
    assert_eq!(numbers(&managed.rig.sink), [5]);
}

#[test]
fn a_flush_while_held_changes_what_comes_and_releases_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut managed = Managed::playing(dir.path(), &[("flush-mode", "discard")]);
    managed.push(0..3);
    managed.rig.sink.wait_buffers(3);
    managed.element.hold(Some("gone"));
    assert!(managed.element.wait_until_idle(PATIENCE));
    managed.push(3..5);
    let sink = managed.exchange();
    managed.rig.source.push_event(gst::event::FlushStart::new());
    managed.rig.source.push_event(gst::event::FlushStop::new(true));
    managed.rig.start_stream("stream", &h264_caps());
    managed.push(5..7);
    assert_eq!((managed.rig.stat("pending"), sink.buffers().len()), (2, 0));
    managed.element.release();
    sink.wait_buffers(2);
    assert_eq!(numbers(&sink), [5, 6]);
}

#[test]
fn a_hold_survives_changes_of_state_and_never_blocks_them() {
    let dir = tempfile::tempdir().unwrap();
    let managed = Managed::playing(dir.path(), &[]);
    managed.push(0..3);
    managed.rig.sink.wait_buffers(3);
    managed.element.hold(Some("gone"));
    managed.push(3..5);
    for state in [gst::State::Ready, gst::State::Playing, gst::State::Null, gst::State::Playing] {
        managed.rig.element.set_state(state).unwrap();
    }
    assert!(managed.element.progress().held);
    assert_eq!(managed.rig.sink.buffers().len(), 3);
    managed.element.release();
    managed.rig.sink.wait_buffers(8);
    assert_eq!(numbers(&managed.rig.sink), [0, 1, 2, 0, 1, 2, 3, 4]);
}

#[test]
fn released_while_it_stops_it_stops() {
    let dir = tempfile::tempdir().unwrap();
    let managed = Managed::playing(dir.path(), &[]);
    managed.push(0..3);
    for _ in 0..20 {
        managed.element.hold(Some("gone"));
        let (element, stopped) = (managed.element.clone(), managed.rig.element.clone());
        let releasing = std::thread::spawn(move || element.release());
        stopped.set_state(gst::State::Ready).unwrap();
        releasing.join().unwrap();
        stopped.set_state(gst::State::Playing).unwrap();
    }
    until("the three are delivered", || managed.rig.stat("pending") == 0);
}

#[test]
fn purged_while_held_it_is_not_sent() {
    let dir = tempfile::tempdir().unwrap();
    let mut managed = Managed::playing(dir.path(), &[]);
    managed.element.set_boundaries(true);
    managed.push(0..5);
    managed.rig.source.push_event(gst::event::Caps::new(&other_caps()));
    managed.push(5..10);
    managed.log.wait(1);
    assert!(managed.element.emit_by_name::<bool>("clear", &[]));
    managed.push(10..12);
    let sink = managed.exchange();
    managed.element.release();
    sink.wait_buffers(2);
    managed.wait_trusted();
    assert_eq!(numbers(&sink), [10, 11]);
    managed.rig.check_accounts();
}

#[test]
fn what_a_failure_asks_for_is_owed_through_an_exchange_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut managed = Managed::playing(dir.path(), &[("replay-overlap", "200000000")]);
    // Delivery is kept from going on when it has delivered everything.
    let (reached, at) = std::sync::mpsc::channel();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    managed.push(0..12);
    managed.rig.sink.wait_buffers(12);
    until("everything is counted", || managed.rig.stat("pending") == 0);
    managed.element.connect("underrun", false, move |_| {
        let _ = reached.send(());
        let _ = gone.lock().unwrap().recv();
        None
    });
    managed.push(12..13);
    at.recv_timeout(PATIENCE).unwrap();
    managed.element.hold(Some("gone"));
    drop(managed.exchange());
    managed.element.release();
    managed.element.hold(None);
    assert!(managed.element.wait_until_idle(PATIENCE));
    let sink = managed.exchange();
    managed.element.release();
    drop(go);
    sink.wait_buffers(8);
    assert_eq!(numbers(&sink), (5..13).collect::<Vec<_>>(), "although everything was accepted");
}
