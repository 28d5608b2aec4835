//! What the tests of playing share: a recording with known capture times, and `diskbuffersrc` before a sink of ours.

use std::path::Path;

use gst::prelude::*;

use crate::common::*;

/// Capture time of the first frame, ns since 1970: 2026-01-01.
pub const T0: u64 = 1_767_225_600_000_000_000;
pub const GOP: u64 = 25;
pub const SECOND: u64 = 1_000_000_000;

/// Keeps everything that was delivered.
pub const KEPT: [(&str, &str); 1] = [("retention-time", "1000000000000000")];

/// The same frame with the time of its capture on it.
pub fn captured(mut buffer: gst::Buffer, utc: u64) -> gst::Buffer {
    let unix = gst::Caps::new_empty_simple("timestamp/x-unix");
    let at = gst::ClockTime::from_nseconds(utc);
    gst::ReferenceTimestampMeta::add(buffer.make_mut(), &unix, at, gst::ClockTime::NONE);
    buffer
}

/// When a frame was captured.
pub fn utc(number: u64) -> u64 {
    T0 + number * FRAME
}

pub fn push(rig: &Rig, frames: std::ops::Range<u64>) {
    frames.for_each(|n| rig.push(captured(frame(n, GOP, 100), utc(n))));
}

/// A `diskbuffer` that has recorded these frames and goes on running.
pub fn recorder(location: &Path, frames: std::ops::Range<u64>) -> Rig {
    let rig = Rig::new(location, &KEPT);
    rig.start_stream("camera", &h264_caps());
    let count = frames.end - frames.start;
    push(&rig, frames);
    rig.sink.wait_buffers(count as usize);
    rig
}

/// A recording that nobody writes any more.
pub fn recording(frames: std::ops::Range<u64>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    recorder(dir.path(), frames).stop();
    dir
}

/// `diskbuffersrc` before a sink of ours.
pub struct Player {
    pub element: gst::Element,
    pub sink: Sink,
    pub sinkpad: gst::Pad,
    pub bus: gst::Bus,
}

impl Player {
    /// Not started.
    pub fn idle(location: &Path, properties: &[(&str, &str)]) -> Self {
        init();
        let element = gst::ElementFactory::make("diskbuffersrc").build().unwrap();
        element.set_property("location", location.to_str().unwrap());
        for (name, value) in properties {
            element.set_property_from_str(name, value);
        }
        let sink = Sink::default();
        let sinkpad = sink.pad();
        element.static_pad("src").unwrap().link(&sinkpad).unwrap();
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        Self { element, sink, sinkpad, bus }
    }

    pub fn new(location: &Path, properties: &[(&str, &str)]) -> Self {
        let player = Self::idle(location, properties);
        player.element.set_state(gst::State::Playing).unwrap();
        player
    }

    /// Plays to the end; the numbers of the frames that came.
    pub fn play(location: &Path, properties: &[(&str, &str)]) -> Vec<u64> {
        let player = Self::new(location, properties);
        player.sink.wait_eos();
        player.numbers()
    }

    pub fn numbers(&self) -> Vec<u64> {
        self.sink.buffers().iter().map(number).collect()
    }

    pub fn error(&self) -> gst::glib::Error {
        let patience = gst::ClockTime::from_seconds(PATIENCE.as_secs());
        let message = self.bus.timed_pop_filtered(patience, &[gst::MessageType::Error]).expect("no error");
        match message.view() {
            gst::MessageView::Error(e) => e.error(),
            _ => unreachable!(),
        }
    }

    pub fn message(&self, name: &str) -> gst::Structure {
        message(&self.bus, name)
    }

    pub fn stat(&self, name: &str) -> u64 {
        self.element.property::<gst::Structure>("stats").get(name).unwrap()
    }

    pub fn status(&self) -> String {
        self.element.property::<gst::Structure>("stats").get("status").unwrap()
    }

    pub fn seek(&self, flags: gst::SeekFlags, start: u64) -> bool {
        self.element.seek_simple(flags, gst::ClockTime::from_nseconds(start)).is_ok()
    }

    /// Events of a type, with the number of buffers that came before.
    pub fn events(&self, kind: gst::EventType) -> Vec<(usize, gst::Event)> {
        self.sink.events().into_iter().filter(|(_, e)| e.type_() == kind).collect()
    }

    pub fn segments(&self) -> Vec<gst::FormattedSegment<gst::ClockTime>> {
        let segments = self.events(gst::EventType::Segment).into_iter();
        segments
            .map(|(_, event)| match event.view() {
                gst::EventView::Segment(e) => e.segment().downcast_ref::<gst::ClockTime>().unwrap().clone(),
                _ => unreachable!(),
            })
            .collect()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.element.set_state(gst::State::Null);
        self.element.set_bus(None::<&gst::Bus>);
    }
}
