//! One stream of the bin: a ghost pad, the `diskbuffer` behind it, and what that tells the control thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gst::glib;
use gst::prelude::*;

use super::control::{Event, Events};
use super::fitting::{Media, Wanted};
use super::settings::{FORWARDED, Settings};
use crate::diskbuffer::DiskBuffer;
use crate::diskbuffer::managed::{Boundary, Manager};

#[derive(Clone)]
pub struct Stream {
    pub pad: gst::GhostPad,
    pub buffer: DiskBuffer,
    /// Upstream has ended it.
    pub ended: Arc<AtomicBool>,
}

/// Tells the control thread.
struct Reporter(Events);

impl Manager for Reporter {
    fn refused(&self, member: &DiskBuffer, flow: gst::FlowError) {
        self.0.send(Event::Refused(member.clone(), flow));
    }

    fn boundary(&self, member: &DiskBuffer, boundary: Boundary) {
        self.0.send(Event::Boundary(member.clone(), boundary));
    }

    fn delivered_eos(&self, _member: &DiskBuffer) {
        self.0.send(Event::Look);
    }
}

impl Stream {
    pub fn new(name: &str, template: &gst::PadTemplate, settings: &Settings, events: &Events) -> Option<Self> {
        let buffer: DiskBuffer = glib::Object::builder().property("name", name).build();
        buffer.set_manager(Some(Arc::new(Reporter(events.clone()))));
        for property in FORWARDED.iter() {
            if let Some(value) = settings.for_stream(property, name) {
                buffer.set_property_from_value(property, &value);
            }
        }
        let target = buffer.static_pad("sink")?;
        let pad = gst::GhostPad::builder_from_template_with_target(template, &target).ok()?.name(name).build();
        let stream = Self { pad, buffer, ended: Arc::default() };
        stream.watch(events);
        Some(stream)
    }

    /// Looks out for the end of the stream.
    fn watch(&self, events: &Events) {
        let (ended, events) = (self.ended.clone(), events.clone());
        let types = gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::EVENT_FLUSH;
        self.pad.add_probe(types, move |_, info| {
            let is_end = match info.event().map(|event| event.type_()) {
                Some(gst::EventType::Eos) => true,
                Some(gst::EventType::FlushStop | gst::EventType::StreamStart) => false,
                _ => return gst::PadProbeReturn::Ok,
            };
            if ended.swap(is_end, Ordering::AcqRel) != is_end {
                events.send(Event::Look);
            }
            gst::PadProbeReturn::Ok
        });
    }

    pub fn name(&self) -> String {
        self.pad.name().into()
    }

    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The caps that come in, or what upstream says it may send.
    fn caps(&self) -> Option<gst::Caps> {
        self.pad
            .current_caps()
            .or_else(|| Some(self.pad.peer_query_caps(None)))
            .filter(|caps| !caps.is_any() && !caps.is_empty())
    }

    /// What the child has to have a place for.
    pub fn wanted(&self) -> Wanted {
        let caps = self.caps();
        let name = self.name();
        let media = if name == "video" {
            Media::Video
        } else if name.starts_with("audio_") {
            Media::Audio
        } else {
            caps.as_ref().map_or(Media::Unknown, |caps| Media::of(caps))
        };
        Wanted { name, media, caps }
    }
}
