//! A `segmenter` between pads of the test, on a clock of the test.

use std::sync::{Arc, Condvar, Mutex};

use gst::prelude::*;

use super::common;
use super::played::{Item, Record, Seen, buffers, field};

pub const MS: u64 = 1_000_000;

/// What arrived at a pad of the test, and a gate that keeps it from returning.
#[derive(Default)]
pub struct Arrived {
    pub record: Mutex<Record>,
    changed: Condvar,
    gate: Mutex<Gate>,
    opened: Condvar,
}

#[derive(Default)]
struct Gate {
    closed: bool,
    waiting: bool,
    flushing: bool,
}

impl Arrived {
    fn pass(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.changed.notify_all();
        let mut gate = self.gate.lock().unwrap();
        while gate.closed && !gate.flushing {
            gate.waiting = true;
            self.opened.notify_all();
            gate = self.opened.wait(gate).unwrap();
        }
        gate.waiting = false;
        if gate.flushing { Err(gst::FlowError::Flushing) } else { Ok(gst::FlowSuccess::Ok) }
    }

    pub fn close(&self) {
        self.gate.lock().unwrap().closed = true;
    }

    pub fn open(&self) {
        self.gate.lock().unwrap().closed = false;
        self.opened.notify_all();
    }

    /// Until a push stands before the closed gate.
    pub fn wait_blocked(&self) {
        let gate = self.gate.lock().unwrap();
        let (gate, _) = self.opened.wait_timeout_while(gate, common::PATIENCE, |gate| !gate.waiting).unwrap();
        assert!(gate.waiting, "nothing is pushed");
    }

    /// Nothing waits at the gate, and all is refused.
    pub fn flush(&self, flushing: bool) {
        self.gate.lock().unwrap().flushing = flushing;
        self.opened.notify_all();
    }

    pub fn wait(&self, what: &str, mut done: impl FnMut(&[Item]) -> bool) {
        let record = self.record.lock().unwrap();
        let (record, _) =
            self.changed.wait_timeout_while(record, common::PATIENCE, |record| !done(&record.items)).unwrap();
        assert!(done(&record.items), "{what}: {:?}", record.items);
    }
}

pub struct Port {
    /// Pushes into the element.
    pub peer: gst::Pad,
    /// The element's own.
    pub sink: gst::Pad,
    pub arrived: Arc<Arrived>,
    /// Events that came up to the pad that pushes.
    pub upstream: Arc<Mutex<Vec<gst::Event>>>,
    /// Takes what leaves.
    pub out: gst::Pad,
}

pub struct Rig {
    pub element: gst::Element,
    pub bus: gst::Bus,
    live: bool,
}

impl Rig {
    /// In NULL, with properties as in gst-launch.
    pub fn new(properties: &str) -> Self {
        Self::with(properties, false)
    }

    pub fn live(properties: &str) -> Self {
        Self::with(properties, true)
    }

    fn with(properties: &str, live: bool) -> Self {
        common::init();
        let element = gst::ElementFactory::make("segmenter").build().unwrap();
        for property in properties.split_whitespace() {
            let (name, value) = property.split_once('=').unwrap();
            element.set_property_from_str(name, value);
        }
        let clock = gst_check::TestClock::new();
        element.set_clock(Some(&clock)).unwrap();
        element.set_base_time(gst::ClockTime::ZERO);
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        Self { element, bus, live }
    }

    pub fn play(self) -> Self {
        self.element.set_state(gst::State::Playing).unwrap();
        self
    }

    /// The pads `sink` and `src`.
    pub fn main(&self) -> Port {
        let pads = (self.element.static_pad("sink").unwrap(), self.element.static_pad("src").unwrap());
        self.link(pads.0, pads.1)
    }

    /// A further stream.
    pub fn further(&self) -> Port {
        let sink = self.element.request_pad_simple("sink_%u").unwrap();
        let src = self.element.static_pad(&sink.name().replace("sink", "src")).unwrap();
        self.link(sink, src)
    }

    fn link(&self, sink: gst::Pad, src: gst::Pad) -> Port {
        let (live, upstream) = (self.live, Arc::new(Mutex::new(Vec::new())));
        let up = upstream.clone();
        let peer = gst::Pad::builder(gst::PadDirection::Src)
            .query_function(move |pad, parent, query| match query.view_mut() {
                gst::QueryViewMut::Latency(latency) => {
                    latency.set(live, gst::ClockTime::ZERO, gst::ClockTime::NONE);
                    true
                }
                _ => gst::Pad::query_default(pad, parent, query),
            })
            .event_function(move |_, _, event| {
                up.lock().unwrap().push(event);
                true
            })
            .build();
        let arrived = Arc::new(Arrived::default());
        let (by_buffer, by_list, by_event) = (arrived.clone(), arrived.clone(), arrived.clone());
        let template =
            gst::PadTemplate::new("in", gst::PadDirection::Sink, gst::PadPresence::Always, &gst::Caps::new_any());
        let out = gst::Pad::builder_from_template(&template.unwrap())
            .name("in")
            .chain_function(move |_, _, buffer| {
                by_buffer.record.lock().unwrap().buffer(&buffer);
                by_buffer.pass()
            })
            .chain_list_function(move |_, _, list| {
                by_list.record.lock().unwrap().list(&list);
                by_list.pass()
            })
            .event_function(move |_, _, event| {
                match event.type_() {
                    gst::EventType::FlushStart => by_event.flush(true),
                    gst::EventType::FlushStop => by_event.flush(false),
                    _ => {}
                }
                by_event.record.lock().unwrap().event(&event);
                by_event.changed.notify_all();
                true
            })
            .build();
        out.set_active(true).unwrap();
        peer.set_active(true).unwrap();
        src.link(&out).unwrap();
        peer.link(&sink).unwrap();
        Port { peer, sink, arrived, upstream, out }
    }

    pub fn messages(&self) -> Vec<gst::Structure> {
        std::iter::from_fn(|| self.bus.pop_filtered(&[gst::MessageType::Element]))
            .filter_map(|message| message.structure().map(ToOwned::to_owned))
            .collect()
    }

    /// Messages of windows that closed since the last time.
    pub fn closed(&self) -> Vec<gst::Structure> {
        self.messages().into_iter().filter(|s| s.name() == "segmenter-window-closed").collect()
    }

    pub fn closed_ids(&self) -> Vec<u64> {
        self.closed().iter().map(|s| field(s, "window-id")).collect()
    }

    /// The sentences of warnings and errors so far.
    pub fn sentences(&self) -> Vec<String> {
        let kinds = [gst::MessageType::Warning, gst::MessageType::Error];
        std::iter::from_fn(|| self.bus.pop_filtered(&kinds))
            .map(|message| match message.view() {
                gst::MessageView::Warning(warning) => warning.error().to_string(),
                gst::MessageView::Error(error) => error.error().to_string(),
                _ => unreachable!(),
            })
            .collect()
    }

    pub fn stat(&self, name: &str) -> u64 {
        self.element.property::<gst::Structure>("stats").get(name).unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.element.set_state(gst::State::Null).unwrap();
        self.element.set_bus(None);
    }
}

/// A buffer with these stamps, in ms.
pub fn buffer(pts: u64, dts: Option<u64>, duration: u64) -> gst::Buffer {
    let mut buffer = gst::Buffer::from_slice([7u8; 10]);
    let inner = buffer.make_mut();
    inner.set_pts(gst::ClockTime::from_mseconds(pts));
    inner.set_dts(dts.map(gst::ClockTime::from_mseconds));
    inner.set_duration(gst::ClockTime::from_mseconds(duration));
    buffer
}

pub const RAW_25: &str = "video/x-raw,format=GRAY8,width=4,height=2,framerate=25/1";
pub const H264: &str = "video/x-h264,framerate=25/1,width=16,height=16";
pub const AUDIO: &str = "audio/mpeg,mpegversion=4";

impl Port {
    pub fn begin(&self, caps: &str) {
        self.begin_with(caps, &gst::FormattedSegment::<gst::ClockTime>::new());
    }

    pub fn begin_with(&self, caps: &str, segment: &gst::FormattedSegment<impl gst::format::FormattedValueIntrinsic>) {
        assert!(self.peer.push_event(gst::event::StreamStart::new(self.sink.name().as_str())));
        assert!(self.peer.push_event(gst::event::Caps::new(&caps.parse().unwrap())));
        assert!(self.peer.push_event(gst::event::Segment::new(segment)));
    }

    pub fn push(&self, pts: u64) {
        self.peer.push(buffer(pts, None, 40)).unwrap();
    }

    /// Each 40 ms, from up to before, in ms.
    pub fn push_span(&self, from: u64, to: u64) {
        (from..to).step_by(40).for_each(|pts| self.push(pts));
    }

    pub fn push_delta(&self, pts: u64, dts: u64) {
        let mut buffer = buffer(pts, Some(dts), 40);
        buffer.make_mut().set_flags(gst::BufferFlags::DELTA_UNIT);
        self.peer.push(buffer).unwrap();
    }

    pub fn eos(&self) {
        assert!(self.peer.push_event(gst::event::Eos::new()));
    }

    pub fn items(&self) -> Vec<Item> {
        self.arrived.record.lock().unwrap().items.clone()
    }

    pub fn wait_eos(&self) {
        self.arrived.wait("EOS", |items| {
            items.iter().any(|item| matches!(item, Item::Event(event) if event.type_() == gst::EventType::Eos))
        });
    }

    pub fn wait_buffers(&self, count: usize) {
        self.arrived.wait("buffers", |items| buffers(items).len() >= count);
    }

    /// PTS in ms and windows of all that arrived.
    pub fn windows(&self) -> Vec<(u64, Vec<u64>)> {
        buffers(&self.items()).iter().map(|seen| (seen.pts / MS, seen.ids.clone().unwrap_or_default())).collect()
    }

    pub fn seen(&self) -> Vec<Seen> {
        buffers(&self.items()).into_iter().cloned().collect()
    }

    /// Ids of windows that ended, in order.
    pub fn ended(&self) -> Vec<u64> {
        let ids = self.items();
        ids.iter()
            .filter_map(|item| match item {
                Item::End(s) => Some(field(s, "window-id")),
                _ => None,
            })
            .collect()
    }
}
