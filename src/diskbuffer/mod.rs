//! `diskbuffer` is a queue on disk. Each encoded buffer, with its events at their places, is stored before upstream goes on,
//! and delivered from memory while downstream keeps up. When downstream blocks or fails the stream goes on spooling; when it
//! takes data again, and when the process starts again after any kind of end, what was not delivered follows in order,
//! starting at a keyframe, and then the live stream.
//!
//! ## What it does when
//!
//! - **Downstream keeps up** (status `live`): buffers go through memory, untouched, with all their metas. The disk sees each
//!   once, in its log, and forgets what was delivered.
//! - **Downstream blocks** (`stalled` after 2 s): upstream is served on, memory stays bounded by `max-memory-bytes`,
//!   the rest is on disk. Nothing is sent twice.
//! - **Downstream fails** (`outage`): a push that returns an error, FLUSHING while this element runs, or after a first OK
//!   NOT_LINKED or NOT_NEGOTIATED. Upstream does not notice. Delivery is tried again after 200 ms, then twice as long up to
//!   10 s. Then downstream is flushed, gets its sticky events again and data from the keyframe at or before the first buffer
//!   that it had not accepted, further back by `replay-overlap`. What it takes then counts when it has gone on taking for
//!   150 ms: a `queue` whose sink is away takes a buffer after each flush and loses it.
//! - **The process ends**, `kill -9` included, and starts again with the same `location`: the same, with the stream's
//!   own stream-start, caps and segment (`catching-up`), then the live stream as a new epoch.
//! - **It is full** (limits, free-space floor): `leaky` decides. Drops are whole GOPs, announced as a GAP event, a
//!   message and a warning.
//! - **End of stream** is delivered after the backlog. If the process ends before, the end of stream becomes a boundary.
//!
//! The element has to stand after the encoder or the parser, and before muxers and network sinks. Put `h264parse` or
//! `h265parse` before it. An upstream element cannot catch a sink's error message, so an application has to keep the pipeline
//! alive when a sink posts one: set the sink to NULL and back, `diskbuffer` does the rest.
//!
//! ## Time
//!
//! With `timestamp-mode=continuous` a later epoch follows the one before it in running time, by the base of its segments;
//! PTS and DTS stay as recorded. This is for consumers that do not synchronise to the clock (network sinks, muxers, files).
//! A sink that does would be behind by the length of the backlog for ever.
//!
//! ## Signals
//!
//! As `queue`: `overrun` when full, `underrun` when everything was delivered, `running` and `pushing` when delivery goes on.
//!
//! ## Element messages
//!
//! `diskbuffer-outage` (`reason`), `diskbuffer-resumed` (`outage-time`), `diskbuffer-draining` (`percent`), `diskbuffer-drained`,
//! `diskbuffer-dropped` (`reason`, `buffers`, `bytes`, `time`, `first-position`, `last-position`), `diskbuffer-storage` (`state`,
//! `reason`), each with `level-buffers`, `level-bytes`, `level-time`.
//!
//! ## Example
//!
//! ```text
//! gst-launch-1.0 rtspsrc location=rtsp://camera/ ! rtph264depay ! h264parse ! \
//! diskbuffer location=/var/spool/cam1 ! mpegtsmux alignment=7 ! srtsink uri=srt://server:7001
//! ```
//!

use gst::glib;
use gst::prelude::*;

mod actions;
mod delivery;
mod giving_up;
mod imp;
mod ingest;
mod outcome;
mod output;
mod pace;
mod properties;
mod push;
mod queries;
mod resume;
mod sent;
mod settings;
mod spool;
mod state;
mod stats;
mod tail;
mod tender;
mod watermark;

glib::wrapper! {
    /// The `diskbuffer` element.
    pub struct DiskBuffer(ObjectSubclass<imp::DiskBuffer>) @extends gst::Element, gst::Object;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    #[cfg(feature = "v1_18")]
    for type_ in settings::enum_types() {
        type_.mark_as_plugin_api(gst::PluginAPIFlags::empty());
    }
    gst::Element::register(Some(plugin), "diskbuffer", gst::Rank::NONE, DiskBuffer::static_type())
}
