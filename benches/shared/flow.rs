//! Made-up live frames through an element between pads of our own, as fast as it takes them, on a clock of our own. Nothing of it
//! allocates with Rust's allocator once it runs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gst::prelude::*;

/// What the frames go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Through {
    /// One pad to the next.
    Nothing,
    /// An element of this kind for each stream, with room for as many buffers as `framesync` has.
    Each(&'static str),
    /// One `framesync` in this mode for all.
    FrameSync(&'static str),
}

/// Of a frame; streams lie a millisecond apart.
const INTERVAL: u64 = 33_333_333;
/// Frames of a stream that may still be waiting for others.
const WAITING: u64 = 2;

/// More than the element's queue.
const KEPT: usize = 64;

struct Lane {
    src: gst::Pad,
    arrived: Arc<AtomicU64>,
    _sink: gst::Pad,
}

pub struct Flow {
    elements: Vec<gst::Element>,
    clock: gst_check::TestClock,
    lanes: Vec<Lane>,
    frames: u64,
    /// Whether a reference to each buffer is kept for a while, so that the element has to copy what it changes.
    pub shared: bool,
    kept: VecDeque<gst::Buffer>,
}

impl Flow {
    pub fn new(through: Through, streams: usize) -> Self {
        let mut flow = Self {
            elements: Vec::new(),
            clock: gst_check::TestClock::new(),
            lanes: Vec::new(),
            frames: 0,
            shared: false,
            kept: VecDeque::with_capacity(2 * KEPT),
        };
        for index in 0..streams {
            let (into, out_of) = match through {
                Through::Nothing => (None, None),
                Through::Each(kind) => {
                    let element = flow.element(kind);
                    if kind == "queue" {
                        element.set_property("max-size-buffers", 16u32);
                        element.set_property("max-size-bytes", 0u32);
                        element.set_property("max-size-time", 0u64);
                    }
                    (element.static_pad("sink"), element.static_pad("src"))
                }
                Through::FrameSync(mode) => {
                    if index == 0 {
                        flow.element("framesync").set_property_from_str("mode", mode);
                    }
                    let element = &flow.elements[0];
                    (element.request_pad_simple("sink_%u"), element.static_pad(&format!("src_{index}")))
                }
            };
            flow.lanes.push(Lane::new(into, out_of, index));
        }
        flow
    }

    fn element(&mut self, kind: &str) -> &gst::Element {
        let element = gst::ElementFactory::make(kind).build().expect("the element is there");
        element.set_clock(Some(&self.clock)).expect("it takes the clock");
        element.set_base_time(gst::ClockTime::ZERO);
        element.set_state(gst::State::Playing).expect("it plays");
        self.elements.push(element);
        &self.elements[self.elements.len() - 1]
    }

    /// Pushes so many frames of each stream, and waits until all have arrived but those that wait for later ones.
    pub fn push(&mut self, frames: u64) {
        for _ in 0..frames {
            for (index, lane) in self.lanes.iter().enumerate() {
                let pts = 1_000_000_000 + self.frames * INTERVAL + index as u64 * 1_000_000;
                // One-sided jitter of some ms, the same in each run.
                let late = (self.frames * 7919 + index as u64 * 104_729) % 997 * 3000;
                // What arrives is never older than what arrived.
                let now = gst::ClockTime::from_nseconds(pts + 20_000_000 + late).max(self.clock.time());
                self.clock.set_time(now);
                let mut buffer = gst::Buffer::new();
                buffer.make_mut().set_pts(gst::ClockTime::from_nseconds(pts));
                if self.shared {
                    self.kept.truncate(KEPT - 1);
                    self.kept.push_front(buffer.clone());
                }
                lane.src.push(buffer).expect("the buffer is taken");
            }
            self.frames += 1;
        }
        let due = self.frames.saturating_sub(WAITING);
        while self.lanes.iter().any(|lane| lane.arrived.load(Ordering::Acquire) < due) {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        for element in &self.elements {
            let _ = element.set_state(gst::State::Null);
        }
    }
}

impl Lane {
    fn new(into: Option<gst::Pad>, out_of: Option<gst::Pad>, index: usize) -> Self {
        let src = gst::Pad::builder(gst::PadDirection::Src)
            .query_function(|pad, parent, query| match query.view_mut() {
                gst::QueryViewMut::Latency(latency) => {
                    latency.set(true, gst::ClockTime::ZERO, gst::ClockTime::NONE);
                    true
                }
                _ => gst::Pad::query_default(pad, parent, query),
            })
            .build();
        let arrived = Arc::new(AtomicU64::new(0));
        let count = arrived.clone();
        let sink = gst::Pad::builder(gst::PadDirection::Sink)
            .chain_function(move |_, _, buffer| {
                drop(buffer);
                count.fetch_add(1, Ordering::Release);
                Ok(gst::FlowSuccess::Ok)
            })
            .event_function(|_, _, _| true)
            .build();
        sink.set_active(true).and_then(|()| src.set_active(true)).expect("pads can be activated");
        out_of.as_ref().unwrap_or(&src).link(&sink).expect("pads can be linked");
        if let Some(into) = into {
            src.link(&into).expect("pads can be linked");
        }
        src.push_event(gst::event::StreamStart::new(&format!("camera/{index}")));
        src.push_event(gst::event::Caps::new(&gst::Caps::new_empty_simple("video/x-raw")));
        src.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        Self { src, arrived, _sink: sink }
    }
}
