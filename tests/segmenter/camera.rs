//! Made-up H.264 whose frames are numbered, for workers, and what is asked of the windows that they got.

use gst::prelude::*;

use super::common::{Sink, frame, h264_caps, number};
use super::ends::{Ends, Window, begin};

/// Made-up H.264 of 25 frames a second, a window each second, a keyframe each 10 frames.
pub struct Camera {
    pub ends: Ends,
    pub source: gst::Pad,
    pub next: u64,
}

pub const PER_WINDOW: u64 = 25;

impl Camera {
    pub fn new(properties: &[(&str, &str)]) -> Self {
        let mut ends = Ends::new(&[&[("strategy", "fixed"), ("duration", "1000000000")], properties].concat());
        let source = ends.source("sink");
        Self { ends, source, next: 0 }
    }

    pub fn play(&mut self) {
        self.ends.play();
        begin(&self.source, &h264_caps());
    }

    pub fn push(&mut self) -> Result<gst::FlowSuccess, gst::FlowError> {
        let buffer = frame(self.next, 10, 200);
        self.next += 1;
        self.source.push(buffer)
    }

    pub fn windows(&mut self, count: u64) {
        for _ in 0..count * PER_WINDOW {
            self.push().unwrap();
        }
    }
}

pub fn ids(windows: &[Window]) -> Vec<u64> {
    windows.iter().map(|window| window.id).collect()
}

/// Each window, by frame numbers: what is shown is what its time says.
pub fn check_whole(all: &[Window]) {
    for window in all {
        let shown: Vec<_> = window.shown().iter().map(|seen| number(seen)).collect();
        let first = window.id * PER_WINDOW;
        assert_eq!(shown, (first..first + PER_WINDOW).collect::<Vec<_>>(), "window {}", window.id);
    }
}

pub fn wait_windows(sink: &Sink, count: usize) {
    sink.wait(&format!("{count} windows"), |arrived| {
        let is_end = |event: &gst::Event| event.structure().is_some_and(|s| s.name() == "segmenter-window-end");
        arrived.events.iter().filter(|(_, event)| is_end(event)).count() >= count
    });
}
