//! A `framesync` between pads of the test, on a clock of the test: what comes out is seen event by event.

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::common;

pub const MS: u64 = 1_000_000;
/// How often alarms are looked at while nothing comes.
const LOOK: Duration = Duration::from_millis(20);

/// What left a source pad.
#[derive(Debug)]
pub enum Out {
    Buffer(gst::Buffer),
    Event(gst::Event),
}

/// What the meta says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetMark {
    pub id: u64,
    pub spread: u64,
    pub complete: bool,
    pub interpolated: bool,
}

pub fn mark(buffer: &gst::BufferRef) -> Option<SetMark> {
    let meta = gst::meta::CustomMeta::from_buffer(buffer, "framesync-set").ok()?;
    let fields = meta.structure();
    Some(SetMark {
        id: fields.get("set-id").unwrap(),
        spread: fields.get("spread").unwrap(),
        complete: fields.get("complete").unwrap(),
        interpolated: fields.get("interpolated").unwrap(),
    })
}

pub struct Port {
    /// Pushes into the element.
    pub src: gst::Pad,
    pub sink: gst::Pad,
    /// The element's own.
    pub pad: gst::Pad,
    pub out: Receiver<Out>,
    clock: gst_check::TestClock,
    /// Events that went upstream.
    pub up: Receiver<gst::Event>,
}

pub struct Rig {
    pub element: gst::Element,
    pub clock: gst_check::TestClock,
    pub bus: gst::Bus,
    pub live: bool,
}

impl Rig {
    /// Still in NULL.
    pub fn new(live: bool) -> Self {
        common::init();
        let element = gst::ElementFactory::make("framesync").build().unwrap();
        let clock = gst_check::TestClock::new();
        element.set_clock(Some(&clock)).unwrap();
        element.set_base_time(gst::ClockTime::ZERO);
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        Self { element, clock, bus, live }
    }

    pub fn aligned(live: bool) -> Self {
        let rig = Self::new(live);
        rig.element.set_property_from_str("mode", "align");
        rig
    }

    pub fn play(&self) {
        self.element.set_state(gst::State::Playing).unwrap();
    }

    /// A stream with its first events; the element has to play.
    pub fn stream(&self, caps: &str) -> Port {
        let port = self.pads();
        port.begin(caps);
        port
    }

    pub fn pads(&self) -> Port {
        self.pads_of(self.live, 0, None)
    }

    /// What upstream answers to LATENCY, in ms.
    pub fn pads_of(&self, live: bool, least: u64, most: Option<u64>) -> Port {
        let pad = self.element.request_pad_simple("sink_%u").unwrap();
        let src = pad.name().replace("sink", "src");
        let ms = gst::ClockTime::from_mseconds;
        let (to_up, up) = channel();
        let peer = gst::Pad::builder(gst::PadDirection::Src)
            .query_function(move |pad, parent, query| match query.view_mut() {
                gst::QueryViewMut::Latency(latency) => {
                    latency.set(live, ms(least), most.map(ms));
                    true
                }
                _ => gst::Pad::query_default(pad, parent, query),
            })
            .event_function(move |_, _, event| to_up.send(event).is_ok())
            .build();
        let (sender, out) = channel();
        let events = sender.clone();
        let (always, any) = (gst::PadPresence::Always, gst::Caps::new_any());
        let template = gst::PadTemplate::new("sink", gst::PadDirection::Sink, always, &any).unwrap();
        let sink = gst::Pad::builder_from_template(&template)
            .chain_function(move |_, _, buffer| {
                let _ = sender.send(Out::Buffer(buffer));
                Ok(gst::FlowSuccess::Ok)
            })
            .event_function(move |_, _, event| events.send(Out::Event(event)).is_ok())
            .build();
        sink.set_active(true).unwrap();
        peer.set_active(true).unwrap();
        self.element.static_pad(&src).unwrap().link(&sink).unwrap();
        peer.link(&pad).unwrap();
        Port { src: peer, sink, pad, out, clock: self.clock.clone(), up }
    }

    pub fn at(&self, ms: u64) {
        self.at_ns(ms * MS);
    }

    pub fn at_ns(&self, ns: u64) {
        self.clock.set_time(gst::ClockTime::from_nseconds(ns));
    }

    /// Lets the alarms of the clock ring that are due by then.
    pub fn ring(&self, ms: u64) {
        self.ring_ns(ms * MS);
    }

    pub fn ring_ns(&self, ns: u64) {
        let until = gst::ClockTime::from_nseconds(ns);
        ring_until(&self.clock, until);
        if self.clock.time() < until {
            self.clock.set_time(until);
        }
    }

    pub fn message(&self, name: &str) -> gst::Structure {
        common::message(&self.bus, name)
    }
}

fn ring_until(clock: &gst_check::TestClock, until: gst::ClockTime) {
    while let Some(next) = clock.peek_next_pending_id().map(|id| id.time()) {
        if next > until {
            break;
        }
        if clock.time() < next {
            clock.set_time(next);
        }
        clock.process_next_clock_id();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.element.set_state(gst::State::Null).unwrap();
        self.element.set_bus(None);
    }
}

impl Port {
    pub fn begin(&self, caps: &str) {
        assert!(self.src.push_event(gst::event::StreamStart::new(self.pad.name().as_str())));
        assert!(self.src.push_event(gst::event::Caps::new(&caps.parse().unwrap())));
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        assert!(self.src.push_event(gst::event::Segment::new(&segment)));
    }

    /// First events where the stream may be refused already.
    pub fn begin_again(&self) {
        self.src.push_event(gst::event::StreamStart::new(self.pad.name().as_str()));
        self.src.push_event(gst::event::Caps::new(&gst::Caps::new_empty_simple("video/x-raw")));
        self.src.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    }

    pub fn push(&self, pts: Option<u64>) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.push_with(pts, None)
    }

    pub fn push_with(&self, pts: Option<u64>, dts: Option<u64>) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.push_number(0, pts, dts)
    }

    /// With a number to be known by.
    pub fn push_number(
        &self,
        number: u64,
        pts: Option<u64>,
        dts: Option<u64>,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mut buffer = gst::Buffer::from_slice([1u8; 4]);
        let inner = buffer.make_mut();
        inner.set_offset(number);
        inner.set_pts(pts.map(gst::ClockTime::from_nseconds));
        inner.set_dts(dts.map(gst::ClockTime::from_nseconds));
        self.src.push(buffer)
    }

    pub fn push_ms(&self, ms: u64) {
        self.push(Some(ms * MS)).unwrap();
    }

    pub fn eos(&self) {
        assert!(self.src.push_event(gst::event::Eos::new()));
    }

    pub fn next(&self) -> Out {
        let begun = Instant::now();
        loop {
            if let Ok(out) = self.out.recv_timeout(LOOK) {
                return out;
            }
            assert!(begun.elapsed() < common::PATIENCE, "nothing comes out");
            // An alarm that was set for what is past meanwhile rings at once with any clock but this.
            ring_until(&self.clock, self.clock.time());
        }
    }

    /// The next buffer, whatever events come before it.
    pub fn buffer(&self) -> gst::Buffer {
        loop {
            match self.next() {
                Out::Buffer(buffer) => return buffer,
                Out::Event(event) => assert_ne!(event.type_(), gst::EventType::Eos, "the stream ended"),
            }
        }
    }

    pub fn pts(&self) -> u64 {
        self.buffer().pts().unwrap().nseconds()
    }

    pub fn event(&self, kind: gst::EventType) -> gst::Event {
        loop {
            match self.next() {
                Out::Event(event) if event.type_() == kind => return event,
                Out::Event(_) => {}
                Out::Buffer(buffer) => panic!("{buffer:?} instead of {kind:?}"),
            }
        }
    }

    /// What comes until EOS.
    pub fn rest(&self) -> Vec<gst::Buffer> {
        let mut buffers = Vec::new();
        loop {
            match self.next() {
                Out::Buffer(buffer) => buffers.push(buffer),
                Out::Event(event) if event.type_() == gst::EventType::Eos => return buffers,
                Out::Event(_) => {}
            }
        }
    }

    /// Nothing is there, nor on its way.
    pub fn is_silent(&self) -> bool {
        let buffer = |out: Out| matches!(out, Out::Buffer(_));
        let pause = Duration::from_millis(50);
        while let Ok(out) = self.out.recv_timeout(pause) {
            if buffer(out) {
                return false;
            }
        }
        true
    }

    pub fn stats(&self) -> gst::Structure {
        self.pad.property("stats")
    }
}
