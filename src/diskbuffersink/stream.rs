//! One stream of the bin: a ghost pad, the `diskbuffer` behind it, and what that tells the control thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use gst::glib;
use gst::prelude::*;

use super::control::{Event, Events};
use super::fitting::{Media, Wanted};
use super::settings::{FORWARDED, Settings};
use crate::diskbuffer::DiskBuffer;
use crate::diskbuffer::joint::JointCursor;
use crate::diskbuffer::managed::{Boundary, Manager};
use crate::diskbuffer::queries::storable;

#[derive(Clone)]
pub struct Stream {
    pub pad: gst::GhostPad,
    pub buffer: DiskBuffer,
    /// Upstream has ended it.
    ended: Arc<Ended>,
    /// What the child takes here, also while there is none: caps that are decided on meanwhile have to suit it.
    accepts: Accepts,
}

#[derive(Default)]
struct Ended {
    now: AtomicBool,
    times: AtomicU64,
}

type Accepts = Arc<Mutex<Option<gst::Caps>>>;

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
    pub fn new(name: &str, template: &gst::PadTemplate, settings: &Settings, events: &Events) -> Self {
        let buffer: DiskBuffer = glib::Object::builder().property("name", name).build();
        buffer.set_manager(Some(Arc::new(Reporter(events.clone()))));
        for property in FORWARDED.iter() {
            if let Some(value) = settings.for_stream(property, name) {
                buffer.set_property_from_value(property, &value);
            }
        }
        let accepts = Accepts::default();
        let known = accepts.clone();
        let pad = gst::GhostPad::builder_from_template(template)
            .name(name)
            .query_function(move |pad, parent, query| {
                let answered = gst::Pad::query_default(pad, parent, query);
                if let gst::QueryViewMut::Caps(query) = query.view_mut()
                    && let Some(caps) = known.lock().unwrap_or_else(PoisonError::into_inner).clone()
                    && let Some(result) = query.result_owned()
                {
                    query.set_result(&storable(result.intersect_with_mode(&caps, gst::CapsIntersectMode::First)));
                }
                answered
            })
            .build();
        let stream = Self { pad, buffer, ended: Arc::default(), accepts };
        stream.watch(events);
        stream
    }

    /// The streams of one sink have one cursor; what is only recorded has no use for that. To be called in NULL.
    pub fn join(&self, joint: Option<&Arc<JointCursor>>) {
        self.buffer.join(joint, self.pad.name() == "video");
    }

    /// In the bin: adding an element to one unlinks it.
    pub fn connect(&self) -> Result<(), glib::BoolError> {
        self.pad.set_target(self.buffer.static_pad("sink").as_ref())
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
            if ended.now.swap(is_end, Ordering::AcqRel) != is_end {
                ended.times.fetch_add(u64::from(is_end), Ordering::AcqRel);
                events.send(Event::Look);
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// The child takes these.
    pub fn set_accepts(&self, caps: gst::Caps) {
        let caps = Some(caps).filter(|caps| !caps.is_any() && !caps.is_empty());
        *self.accepts.lock().unwrap_or_else(PoisonError::into_inner) = caps;
    }

    pub fn name(&self) -> String {
        self.pad.name().into()
    }

    pub fn has_ended(&self) -> bool {
        self.ended.now.load(Ordering::Acquire)
    }

    /// How often it has.
    pub fn ends(&self) -> u64 {
        self.ended.times.load(Ordering::Acquire)
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
