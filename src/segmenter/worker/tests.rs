//! Which worker gets which window, and when upstream waits: without threads, step by step.

use gst::prelude::*;

use super::pool::{Begun, Branch, Limits, Next, Phase, Pool};
use super::{Worker, gops::Gops};
use crate::media::keyframe::Source;
use crate::timeline::Ns;
use crate::windowing::Ids;

const CAPS: &str = "video/x-vp8";

/// A pool of linked workers whose tasks are the test.
struct Rig {
    pool: Pool,
    peers: Vec<gst::Pad>,
}

impl Rig {
    fn new(workers: u32) -> Self {
        gst::init().unwrap();
        let mut rig = Self { pool: Pool::default(), peers: Vec::new() };
        (0..workers).for_each(|index| rig.add(index));
        let stream = gst::event::StreamStart::builder("stream").group_id(gst::GroupId::next()).build();
        rig.event(stream);
        rig.event(gst::event::Caps::new(&CAPS.parse().unwrap()));
        rig.event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        rig
    }

    fn add(&mut self, index: u32) {
        let pad = gst::Pad::builder(gst::PadDirection::Src).name(format!("worker_{index}")).build();
        let peer = gst::Pad::new(gst::PadDirection::Sink);
        pad.link(&peer).unwrap();
        let mut branch = Branch::new(Worker::new(index, pad));
        branch.phase = Phase::Running;
        self.pool.branches.insert(index, branch);
        self.peers.push(peer);
    }

    fn event(&mut self, event: gst::Event) {
        if let gst::EventView::Caps(caps) = event.view() {
            self.pool.gops.configure(Source::Auto, 1 << 20);
            self.pool.gops.set_caps(caps.caps_owned(), true);
        }
        self.pool.event(&event);
    }

    fn begin(&mut self, id: i64) -> Begun {
        let start = gst::event::CustomDownstream::new(gst::Structure::new_empty("start"));
        self.pool.begin(id, Ns::from_millis(id * 100), Some(Ns::from_millis(id * 100 + 100)), start)
    }

    fn end(&mut self, id: i64) {
        self.pool.end(id, gst::event::CustomDownstream::new(gst::Structure::new_empty("end")));
    }

    fn push(&mut self, ms: u64, key: bool, ids: Ids) {
        self.pool.buffer(&frame(ms, key), ids);
    }

    /// A step of a worker's task; what it would push.
    fn step(&mut self, index: u32) -> Option<String> {
        let Next::Push { events, buffer } = self.pool.next(index) else { return None };
        let events = events.iter().map(|event| match event.structure() {
            Some(structure) if event.type_() == gst::EventType::CustomDownstream => structure.name().to_string(),
            _ => event.type_().name().to_string(),
        });
        let buffer = buffer.map(|buffer| {
            let aside = buffer.flags().contains(gst::BufferFlags::DECODE_ONLY);
            let first = buffer.flags().contains(gst::BufferFlags::DISCONT);
            let (first, aside) = (if first { "!" } else { "" }, if aside { "*" } else { "" });
            format!("{first}{}{aside}", buffer.pts().unwrap().mseconds())
        });
        let said: Vec<_> = events.chain(buffer).collect();
        self.pool.pushed(index, Ok(gst::FlowSuccess::Ok));
        Some(said.join(" "))
    }

    fn all(&mut self, index: u32) -> String {
        let mut said = Vec::new();
        while let Some(step) = self.step(index) {
            said.push(step);
        }
        said.join(" ")
    }
}

fn frame(ms: u64, key: bool) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_slice([0u8; 10]);
    let inner = buffer.make_mut();
    inner.set_pts(gst::ClockTime::from_mseconds(ms));
    inner.set_duration(gst::ClockTime::from_mseconds(10));
    if !key {
        inner.set_flags(gst::BufferFlags::DELTA_UNIT);
    }
    buffer
}

#[test]
fn a_window_is_an_epoch_with_its_lead_in() {
    let mut rig = Rig::new(1);
    rig.push(70, true, Ids::NONE);
    rig.push(80, false, Ids::NONE);
    rig.begin(1);
    rig.push(100, false, Ids::one(1));
    rig.push(120, false, Ids::NONE);
    rig.push(110, false, Ids::one(1));
    rig.push(130, false, Ids::NONE);
    rig.end(1);
    let head = "stream-start caps segment start !70* 80* 100 120* 110 end stream-start gap";
    assert_eq!(rig.all(0), head);
    rig.begin(2);
    rig.push(200, true, Ids::one(2));
    rig.end(2);
    assert_eq!(rig.all(0), "caps segment start !200 end stream-start gap", "the STREAM_START has come already");
}

#[test]
fn workers_get_windows_in_turn() {
    let mut rig = Rig::new(3);
    for (id, worker) in [(1, 0), (2, 1), (3, 2), (4, 0)] {
        rig.begin(id);
        rig.push(100 * id as u64, true, Ids::one(id));
        rig.end(id);
        let said: Vec<_> = (0..3).map(|index| rig.all(index)).collect();
        let with: Vec<_> = said.iter().map(|said| said.contains("start !")).collect();
        assert_eq!(with, [worker == 0, worker == 1, worker == 2], "{said:?}");
        assert!(said.iter().all(|said| said.ends_with("gap")), "those without a window hear of it: {said:?}");
    }
}

#[test]
fn who_is_done_first_takes_the_window_that_waited_longest() {
    let mut rig = Rig::new(2);
    for id in 1..=4 {
        assert_eq!(rig.begin(id), Begun::Queued);
        rig.push(100 * id as u64, true, Ids::one(id));
        rig.end(id);
    }
    let busy = |rig: &mut Rig| while rig.step(1).is_some_and(|said| !said.contains("end")) {};
    busy(&mut rig);
    assert!(rig.all(1).contains("!300"), "3 waited longer than 4");
    assert_eq!(rig.all(0).matches('!').count(), 1, "1 was its own; nothing is left");
}

#[test]
fn upstream_waits_only_for_somebody_who_can_go_on() {
    let mut rig = Rig::new(1);
    rig.pool.limits = Limits { bytes: 25, time: 0 };
    rig.begin(1);
    rig.begin(2);
    let both = Ids::between(1, 2);
    for ms in [100, 110, 120] {
        rig.push(ms, true, both);
    }
    assert!(rig.pool.is_full());
    while rig.step(0).is_some() {}
    assert!(!rig.pool.is_full(), "the worker waits for more of window 1");
    rig.end(1);
    assert!(rig.pool.is_full());
    while rig.step(0).is_some() {}
    assert!(!rig.pool.is_full());
}

#[test]
fn a_window_without_room_is_left_out_as_a_whole() {
    let mut rig = Rig::new(1);
    (rig.pool.drops, rig.pool.limits) = (true, Limits { bytes: 25, time: 0 });
    assert_eq!([1, 2, 3].map(|id| rig.begin(id)), [Begun::Queued, Begun::Queued, Begun::Dropped]);
    for ms in [100, 110, 120] {
        rig.push(ms, true, Ids::between(1, 3));
        assert!(!rig.pool.is_full());
    }
    [1, 2, 3].into_iter().for_each(|id| rig.end(id));
    assert_eq!(rig.pool.take_lost(), [1, 2]);
    assert_eq!(rig.all(0), "stream-start caps segment start !100 110 120 end stream-start gap");
}

#[test]
fn a_worker_that_fails_loses_its_window_only() {
    let mut rig = Rig::new(2);
    rig.begin(1);
    rig.push(100, true, Ids::one(1));
    rig.step(0);
    assert_eq!(rig.pool.pushed(0, Err(gst::FlowError::Error)), Some(gst::FlowError::Error));
    assert_eq!(rig.pool.take_lost(), [1]);
    assert_eq!(rig.pool.flow(), Some(Ok(gst::FlowSuccess::Ok)));
    rig.push(110, false, Ids::one(1));
    rig.end(1);
    for id in [2, 3] {
        rig.begin(id);
        rig.push(100 * id as u64, true, Ids::one(id));
        rig.end(id);
    }
    let said = rig.all(1);
    assert!(!said.contains("110") && said.contains("!200 end") && said.contains("!300 end"), "{said}");
    rig.pool.pushed(1, Err(gst::FlowError::Eos));
    assert_eq!(rig.pool.flow(), Some(Err(gst::FlowError::Error)));
    assert_eq!(rig.begin(4), Begun::Nobody);
}

#[test]
fn a_worker_that_comes_takes_what_waits() {
    let mut rig = Rig::new(1);
    rig.begin(1);
    rig.begin(2);
    rig.push(100, true, Ids::between(1, 2));
    rig.add(7);
    assert!(rig.all(7).contains("start !100"));
}

#[test]
fn eos_comes_behind_the_last_window_on_each_worker() {
    let mut rig = Rig::new(2);
    rig.begin(1);
    rig.push(100, true, Ids::one(1));
    rig.end(1);
    rig.event(gst::event::Eos::new());
    assert!(rig.all(0).ends_with("end stream-start gap eos"));
    assert!(rig.all(1).ends_with("stream-start caps segment eos"), "it gets what a sink needs");
}

#[test]
fn the_segment_begins_with_the_window_and_keeps_running_time() {
    let mut rig = Rig::new(1);
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_start(gst::ClockTime::from_seconds(10));
    segment.set_time(gst::ClockTime::from_seconds(3));
    segment.set_base(gst::ClockTime::from_seconds(100));
    segment.set_stop(gst::ClockTime::from_seconds(60));
    rig.event(gst::event::Segment::new(&segment));
    let own = |start: i64| {
        let head = rig.pool.stickies.head(Some(Ns::from_secs(start)), None);
        let events = head.events("worker_0", false);
        let found = events.iter().find_map(|event| match event.view() {
            gst::EventView::Segment(segment) => segment.segment().downcast_ref::<gst::ClockTime>().cloned(),
            _ => None,
        });
        found.unwrap()
    };
    let at = gst::ClockTime::from_seconds(15);
    let later = own(104);
    assert_eq!(later.start(), Some(gst::ClockTime::from_seconds(14)));
    for own in [own(104), own(0), own(-5)] {
        assert_eq!(
            (own.to_running_time(at), own.to_stream_time(at)),
            (segment.to_running_time(at), segment.to_stream_time(at))
        );
    }
}

#[test]
fn what_is_kept_of_a_gop_is_bounded() {
    gst::init().unwrap();
    let mut gops = Gops::default();
    gops.configure(Source::Auto, 45);
    gops.set_caps(CAPS.parse().unwrap(), true);
    let mut warnings = 0;
    for ms in (0..100).step_by(10) {
        let picture = gops.look(&frame(ms, ms == 0));
        warnings += u32::from(gops.add(picture));
    }
    assert_eq!(warnings, 1);
    let next = gops.look(&frame(100, false));
    assert!(gops.lead_in(None, &next).is_none());
    let key = gops.look(&frame(110, true));
    assert!(gops.lead_in(None, &key).is_some_and(|lead_in| lead_in.is_empty()));
    gops.add(key);
    let next = gops.look(&frame(120, false));
    assert_eq!(gops.lead_in(None, &next).map(|lead_in| lead_in.len()), Some(1));
}
