//! One element between a pad that pushes and a pad that counts, blocks, or writes down when what arrived.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::Outcome;
use crate::payload::Payloads;

/// What the sink does, and what it has seen.
#[derive(Default)]
pub struct Counter {
    blocked: Mutex<bool>,
    changed: Condvar,
    bytes: AtomicU64,
}

impl Counter {
    pub fn block(&self, blocked: bool) {
        *self.blocked.lock().unwrap_or_else(PoisonError::into_inner) = blocked;
        self.changed.notify_all();
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Waits until so many bytes have arrived.
    pub fn wait(&self, bytes: u64, patience: Duration) -> Outcome<()> {
        let start = Instant::now();
        while self.bytes() < bytes {
            if start.elapsed() > patience {
                return Err(format!("{} of {bytes} bytes arrived in {patience:?}", self.bytes()).into());
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }

    fn take(&self, buffer: &gst::BufferRef) {
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        while *blocked {
            blocked = self.changed.wait(blocked).unwrap_or_else(PoisonError::into_inner);
        }
        drop(blocked);
        self.bytes.fetch_add(buffer.size() as u64, Ordering::AcqRel);
    }
}

pub struct Pipe {
    pub element: Option<gst::Element>,
    pub counter: Arc<Counter>,
    source: Option<gst::Pad>,
    _sink: gst::Pad,
}

impl Pipe {
    /// `element` stays in NULL; without one the pads are linked to each other.
    pub fn new(
        element: Option<gst::Element>,
        arrived: impl Fn(&gst::BufferRef) + Send + Sync + 'static,
    ) -> Outcome<Self> {
        let counter = Arc::new(Counter::default());
        let count = counter.clone();
        let sink = gst::Pad::builder(gst::PadDirection::Sink)
            .chain_function(move |_, _, buffer| {
                count.take(&buffer);
                arrived(&buffer);
                Ok(gst::FlowSuccess::Ok)
            })
            .event_function(|_, _, _| true)
            .build();
        sink.set_active(true)?;
        let source = gst::Pad::builder(gst::PadDirection::Src).build();
        let mut feeds = true;
        match &element {
            Some(element) => {
                match element.static_pad("sink") {
                    Some(into) => drop(source.link(&into)?),
                    None => feeds = false,
                }
                if let Some(out) = element.static_pad("src") {
                    out.link(&sink)?;
                }
            }
            None => drop(source.link(&sink)?),
        }
        Ok(Self { element, counter, source: feeds.then_some(source), _sink: sink })
    }

    pub fn start(&self, format: gst::Format) -> Outcome<()> {
        if let Some(element) = &self.element {
            element.set_state(gst::State::Playing)?;
        }
        let Some(source) = &self.source else { return Ok(()) };
        source.set_active(true)?;
        source.push_event(gst::event::StreamStart::new("camera"));
        source.push_event(gst::event::Caps::new(&Payloads::caps()));
        let mut segment = gst::Segment::new();
        segment.set_format(format);
        source.push_event(gst::event::Segment::new(&segment));
        Ok(())
    }

    pub fn push(&self, buffer: gst::Buffer) -> Outcome<()> {
        let source = self.source.as_ref().ok_or("nothing can be pushed here")?;
        source.push(buffer).map(drop).map_err(|flow| format!("the element returned {flow}").into())
    }

    pub fn eos(&self) {
        if let Some(source) = &self.source {
            source.push_event(gst::event::Eos::new());
        }
    }

    pub fn stop(&self) -> Outcome<()> {
        self.counter.block(false);
        if let Some(element) = &self.element {
            element.set_state(gst::State::Null)?;
        }
        Ok(())
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

pub fn make(kind: &str, properties: &[(&str, &str)]) -> Outcome<gst::Element> {
    let element = gst::ElementFactory::make(kind).build().map_err(|_| format!("the element {kind} is not there"))?;
    for (name, value) in properties {
        element.set_property_from_str(name, value);
    }
    Ok(element)
}

pub fn diskbuffer(location: &Path, properties: &[(&str, &str)]) -> Outcome<gst::Element> {
    let element = make("diskbuffer", properties)?;
    element.set_property("location", location.to_str().ok_or("the path is not text")?);
    Ok(element)
}
