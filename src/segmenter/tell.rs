//! How receivers are told of windows: serialized events around a stream's share, a meta on each buffer, a message when
//! a window is closed. Fields are listed in the documentation of the element.

use std::sync::Arc;

use gst::prelude::*;

use super::line::Passing;
use super::mapping::Mapping;
use crate::timeline::Ns;
use crate::windowing::{Figures, Ids, Reason, Summary, Window};

#[cfg(feature = "v1_20")]
pub const META: &str = "segmenter-windows";
pub const START: &str = "segmenter-window-start";
pub const END: &str = "segmenter-window-end";
pub const CLOSED: &str = "segmenter-window-closed";

/// A window as it is told when it begins. Times in ns, `NONE` where they are not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    pub id: u64,
    /// Window time.
    pub start: Ns,
    pub end: Option<Ns>,
    pub start_running: Ns,
    pub end_running: Option<Ns>,
    /// -1 where it is not known.
    pub start_utc: i64,
    pub name: Option<Arc<str>>,
    pub triggers: u32,
}

/// The end of a stream's share of a window.
#[derive(Debug, Clone)]
pub struct Ending {
    pub window: Opening,
    pub figures: Figures,
    pub reason: Reason,
    pub complete: bool,
    pub poor: bool,
}

/// As uint64, in ns.
fn unsigned(time: Ns) -> u64 {
    time.0.max(0).unsigned_abs()
}

fn or_none(time: Option<Ns>) -> u64 {
    time.map_or(super::settings::NONE, unsigned)
}

impl Opening {
    pub fn new(window: &Window, mapping: &Mapping) -> Self {
        Self {
            id: window.id.max(0).cast_unsigned(),
            start: window.start,
            end: window.end,
            start_running: mapping.to_running(window.start),
            end_running: window.end.map(|end| mapping.to_running(end)),
            start_utc: mapping.to_utc(window.start),
            name: window.name.clone(),
            triggers: window.triggers,
        }
    }

    /// What start, end and message have in common.
    fn fields(&self, name: &str) -> gst::Structure {
        let mut fields = gst::Structure::builder(name)
            .field("window-id", self.id)
            .field("start", unsigned(self.start))
            .field("end", or_none(self.end))
            .field("start-running-time", unsigned(self.start_running))
            .field("end-running-time", or_none(self.end_running))
            .field("start-utc", self.start_utc)
            .build();
        if let Some(name) = &self.name {
            fields.set("name", &**name);
        }
        if self.triggers > 0 {
            fields.set("triggers", self.triggers);
        }
        fields
    }

    pub fn event(&self) -> gst::Event {
        gst::event::CustomDownstream::new(self.fields(START))
    }
}

fn set_figures(fields: &mut gst::StructureRef, figures: &Figures) {
    fields.set("frames", figures.frames);
    fields.set("keyframes", figures.keyframes);
    fields.set("late", figures.late);
    fields.set("missing", figures.missing);
    fields.set("bytes", figures.bytes);
    fields.set("quality", figures.quality);
    fields.set("complexity", figures.complexity);
}

impl Ending {
    pub fn event(&self) -> gst::Event {
        let mut fields = self.window.fields(END);
        set_figures(&mut fields, &self.figures);
        fields.set("reason", self.reason.as_str());
        fields.set("complete", self.complete);
        if self.poor {
            fields.set("poor", true);
        }
        gst::event::CustomDownstream::new(fields)
    }
}

/// The message of a window that is closed. `name` tells the sink pad of a stream.
pub fn closed<'a>(
    summary: &Summary,
    mapping: &Mapping,
    name: impl Fn(crate::windowing::StreamId) -> Option<&'a str>,
) -> gst::Structure {
    let mut fields = Opening::new(&summary.window, mapping).fields(CLOSED);
    set_figures(&mut fields, &summary.figures);
    fields.set("reason", summary.reason.as_str());
    fields.set("complete", summary.complete);
    if summary.poor {
        fields.set("poor", true);
    }
    let streams = summary.streams.iter().map(|stream| {
        let mut of_stream = gst::Structure::builder("stream").field("pad", name(stream.stream).unwrap_or("")).build();
        set_figures(&mut of_stream, &stream.figures);
        of_stream.set("complete", stream.complete);
        of_stream.to_send_value()
    });
    fields.set("streams", gst::Array::from_values(streams));
    fields
}

/// Registers the meta; once per process, when the plugin is loaded.
pub fn register() {
    #[cfg(feature = "v1_20")]
    if !gst::meta::CustomMeta::is_registered(META) {
        gst::meta::CustomMeta::register_simple(META);
    }
}

/// Puts the windows of a buffer on it, in the place of those that it has.
#[cfg(feature = "v1_20")]
pub fn mark(buffer: &mut gst::BufferRef, windows: Ids, late: bool) {
    use gst::meta::CustomMeta;
    let fill = |meta: &mut CustomMeta| {
        let fields = meta.mut_structure();
        let ids = windows.iter().map(|id| id.max(0).cast_unsigned().to_send_value());
        fields.set("ids", gst::Array::from_values(ids));
        fields.set("late", late);
    };
    if let Ok(mut meta) = CustomMeta::from_mut_buffer(buffer, META) {
        fill(&mut meta);
    } else if let Ok(mut meta) = CustomMeta::add(buffer, META) {
        fill(&mut meta);
    }
}

#[cfg(not(feature = "v1_20"))]
pub fn mark(_buffer: &mut gst::BufferRef, _windows: Ids, _late: bool) {}

/// The buffer with the meta, if it is in a window: a shallow copy only where others hold it too.
pub fn marked(passing: &mut Passing, wanted: bool) {
    if wanted && cfg!(feature = "v1_20") && !passing.windows.is_empty() {
        mark(passing.frame.buffer.make_mut(), passing.windows, passing.late);
    }
}
