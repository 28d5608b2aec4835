//! `diskbuffersink` in a pipeline of its own, fed from pads of the test.

use std::path::Path;
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::common::*;
use crate::faulty::Faults;

pub const GOP: u64 = 10;

pub struct Station {
    pub pipeline: gst::Pipeline,
    pub bin: gst::Element,
    pub bus: gst::Bus,
    pub sources: Vec<gst::Pad>,
    pub faults: Faults,
}

/// Before this nobody has to wait in a test.
pub const QUICK: &[(&str, &str)] = &[("retry-interval", "10000000"), ("retry-max-interval", "40000000")];

impl Station {
    /// With `faultysink` in it, in NULL. `name` tells the tests apart.
    pub fn faulty(name: &str, location: &Path, properties: &[(&str, &str)]) -> Self {
        Self::new(name, location, &format!("faultysink about={name}"), &["video"], properties)
    }

    pub fn new(name: &str, location: &Path, sink: &str, pads: &[&str], properties: &[(&str, &str)]) -> Self {
        init();
        let faults = Faults::new(name);
        let pipeline = gst::Pipeline::new();
        let bin = gst::ElementFactory::make("diskbuffersink").build().unwrap();
        bin.set_property("location", location.to_str().unwrap());
        if !sink.is_empty() {
            bin.set_property("sink-description", sink);
        }
        for (name, value) in QUICK.iter().chain(properties) {
            bin.set_property_from_str(name, value);
        }
        pipeline.add(&bin).unwrap();
        let mut station = Self { bus: pipeline.bus().unwrap(), pipeline, bin, sources: Vec::new(), faults };
        pads.iter().for_each(|pad| station.add_pad(pad));
        station
    }

    pub fn add_pad(&mut self, name: &str) {
        let source = gst::Pad::builder(gst::PadDirection::Src).build();
        source.link(&self.bin.request_pad_simple(name).unwrap()).unwrap();
        self.sources.push(source);
    }

    pub fn play(&self) {
        let before = Instant::now();
        assert_eq!(self.pipeline.set_state(gst::State::Playing), Ok(gst::StateChangeSuccess::Success));
        assert!(before.elapsed() < Duration::from_secs(5), "PLAYING waits for nobody");
        self.sources.iter().for_each(|source| source.set_active(true).unwrap());
    }

    pub fn playing(self) -> Self {
        self.play();
        self
    }

    pub fn start_stream(&self, caps: &gst::Caps) {
        start(&self.sources[0], "s", caps);
    }

    pub fn push(&self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            assert_eq!(self.sources[0].push(frame(number, GOP, 2000)), Ok(gst::FlowSuccess::Ok));
        }
    }

    pub fn eos(&self) {
        for source in &self.sources {
            assert!(source.push_event(gst::event::Eos::new()));
        }
    }

    /// Waits for an element message; errors of the pipeline and its end come first.
    pub fn message(&self, name: &str) -> gst::Structure {
        let patience = gst::ClockTime::from_seconds(PATIENCE.as_secs());
        let types = [gst::MessageType::Element, gst::MessageType::Error, gst::MessageType::Eos];
        loop {
            let message = self.bus.timed_pop_filtered(patience, &types);
            let message = message.unwrap_or_else(|| panic!("no message {name}"));
            match message.view() {
                gst::MessageView::Element(_) => {}
                other => panic!("{other:?} before {name}"),
            }
            if let Some(s) = message.structure().filter(|s| s.name() == name) {
                return s.to_owned();
            }
        }
    }

    pub fn wait_eos(&self) {
        wait_for_eos(&self.pipeline);
    }

    /// The text of the error that the pipeline gets.
    pub fn error(&self) -> String {
        let patience = gst::ClockTime::from_seconds(PATIENCE.as_secs());
        let message = self.bus.timed_pop_filtered(patience, &[gst::MessageType::Error]).expect("no error");
        let gst::MessageView::Error(error) = message.view() else { unreachable!() };
        error.error().message().to_string()
    }

    pub fn stats(&self) -> gst::Structure {
        self.bin.property("stats")
    }

    pub fn stat(&self, name: &str) -> u64 {
        self.stats().get(name).unwrap()
    }

    pub fn count(&self, name: &str) -> u32 {
        self.stats().get(name).unwrap()
    }

    pub fn stop(&self) -> Duration {
        let before = Instant::now();
        self.sources.iter().for_each(|source| _ = source.set_active(false));
        self.pipeline.set_state(gst::State::Null).unwrap();
        before.elapsed()
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What has to come before data.
pub fn start(source: &gst::Pad, id: &str, caps: &gst::Caps) {
    let group = gst::GroupId::next();
    assert!(source.push_event(gst::event::StreamStart::builder(id).group_id(group).build()));
    assert!(source.push_event(gst::event::Caps::new(caps)));
    assert!(source.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new())));
}

/// Each of them is there, and what is repeated begins at a keyframe and goes on without a gap.
pub fn assert_complete(taken: &[u64], numbers: std::ops::Range<u64>) {
    let seen: std::collections::BTreeSet<u64> = taken.iter().copied().collect();
    let missing: Vec<u64> = numbers.filter(|number| !seen.contains(number)).collect();
    assert!(missing.is_empty(), "{missing:?} never arrived: {taken:?}");
    for pair in taken.windows(2) {
        assert!(pair[1] == pair[0] + 1 || pair[1].is_multiple_of(GOP), "{pair:?} in {taken:?}");
    }
}
