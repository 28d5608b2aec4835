//! A `segmenter` between pads of the test: sources that push, sinks that write down, can be held, and answer as told.

use gst::prelude::*;

use super::common::{self, Sink};

pub const MS: u64 = 1_000_000;

pub struct Ends {
    pub element: gst::Element,
    pub bus: gst::Bus,
    peers: Vec<gst::Pad>,
}

impl Ends {
    /// Still in NULL.
    pub fn new(properties: &[(&str, &str)]) -> Self {
        common::init();
        let element = gst::ElementFactory::make("segmenter").build().unwrap();
        for (name, value) in properties {
            element.set_property_from_str(name, value);
        }
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        Self { element, bus, peers: Vec::new() }
    }

    pub fn play(&self) {
        self.element.set_state(gst::State::Playing).unwrap();
    }

    /// A sink on a source pad that is there, or a worker pad that is made for it.
    pub fn sink(&mut self, name: &str) -> Sink {
        let sink = Sink::default();
        self.link(name, sink.pad());
        sink
    }

    pub fn link(&mut self, name: &str, peer: gst::Pad) -> gst::Pad {
        let pad = self.element.static_pad(name).or_else(|| self.element.request_pad_simple(name)).unwrap();
        pad.link(&peer).unwrap();
        self.peers.push(peer);
        pad
    }

    /// A source linked to a sink pad, which is made if it is not there.
    pub fn source(&mut self, name: &str) -> gst::Pad {
        let source = gst::Pad::builder(gst::PadDirection::Src).build();
        let pad = self.element.static_pad(name).or_else(|| self.element.request_pad_simple(name)).unwrap();
        source.link(&pad).unwrap();
        source.set_active(true).unwrap();
        self.peers.push(source.clone());
        source
    }

    pub fn message(&self, name: &str) -> gst::Structure {
        common::message(&self.bus, name)
    }

    /// All element messages of this name that have been posted.
    pub fn messages(&self, name: &str) -> Vec<gst::Structure> {
        let mut all = Vec::new();
        while let Some(message) = self.bus.pop() {
            all.extend(message.structure().filter(|s| s.name() == name).map(|s| s.to_owned()));
        }
        all
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.peers.iter().for_each(|pad| drop(pad.set_active(false)));
        self.element.set_state(gst::State::Null).unwrap();
        self.element.set_bus(None);
    }
}

/// The first events of a stream.
pub fn begin(source: &gst::Pad, caps: &gst::Caps) {
    let stream = gst::event::StreamStart::builder(&source.name()).group_id(gst::GroupId::next()).build();
    assert!(source.push_event(stream));
    assert!(source.push_event(gst::event::Caps::new(caps)));
    assert!(source.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new())));
}

pub fn eos(source: &gst::Pad) {
    source.push_event(gst::event::Eos::new());
}

pub fn uint(s: &gst::StructureRef, name: &str) -> u64 {
    let value = s.value(name).unwrap_or_else(|_| panic!("{s} has no {name}"));
    value.get::<u64>().unwrap_or_else(|_| value.get::<u32>().unwrap().into())
}

/// What a sink saw of one window.
#[derive(Debug, Clone, Default)]
pub struct Window {
    pub id: u64,
    pub name: Option<String>,
    pub buffers: Vec<common::Seen>,
    pub end: Option<gst::Structure>,
    /// Events since the window before.
    pub head: Vec<gst::EventType>,
}

impl Window {
    /// Those that are shown.
    pub fn shown(&self) -> Vec<&common::Seen> {
        let aside = gst::BufferFlags::DECODE_ONLY;
        self.buffers.iter().filter(|seen| !seen.flags.contains(aside)).collect()
    }
}

/// The windows that a sink saw, in order; buffers outside of them are refused.
pub fn windows(sink: &Sink) -> Vec<Window> {
    // As of one moment, while more arrives.
    let (mut buffers, mut events) = (Vec::new(), Vec::new());
    sink.wait("something", |arrived| {
        (buffers, events) = (arrived.buffers.clone(), arrived.events.clone());
        true
    });
    let mut all: Vec<Window> = Vec::new();
    let (mut open, mut from, mut head) = (false, 0, Vec::new());
    for (at, event) in events {
        let fields = event.structure().map(|s| (s.name().to_string(), s.to_owned()));
        match fields {
            Some((name, s)) if name == "segmenter-window-start" => {
                assert!(!open, "windows overlap on one pad");
                assert_eq!(from, at, "buffers outside of windows");
                let head = std::mem::take(&mut head);
                all.push(Window {
                    id: uint(&s, "window-id"),
                    name: s.get::<Option<String>>("name").ok().flatten(),
                    head,
                    ..Window::default()
                });
                open = true;
            }
            Some((name, s)) if name == "segmenter-window-end" => {
                let window = all.last_mut().filter(|_| open).expect("an end without a start");
                window.buffers = buffers[from..at].to_vec();
                window.end = Some(s);
                (open, from) = (false, at);
            }
            _ => head.push(event.type_()),
        }
    }
    if let Some(window) = all.last_mut().filter(|_| open) {
        window.buffers = buffers[from..].to_vec();
    }
    all
}
