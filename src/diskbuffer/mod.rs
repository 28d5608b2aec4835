//! `diskbuffer` is a queue on disk. Each encoded buffer, with its events at their places, is stored before upstream goes on,
//! and delivered from memory while downstream keeps up. When downstream blocks or fails the stream goes on spooling; when it
//! takes data again, and when the process starts again after any kind of end, what was not delivered follows in order,
//! starting at a keyframe, and then the live stream.
//!
//! ## What it does when
//!
//! - **Downstream keeps up** (status `live`): buffers go through memory, untouched, with all their metas. The disk sees each
//!   once, in its log, and forgets what was delivered. With `persist=spill` it sees none.
//! - **Downstream blocks** (`stalled` after `stall-timeout`): upstream is served on, memory stays bounded by
//!   `max-memory-bytes`, the rest is on disk. Nothing is sent twice.
//! - **Downstream fails** (`outage`): a push that returns an error, FLUSHING while this element runs, or after a first OK
//!   NOT_LINKED or NOT_NEGOTIATED. Upstream does not notice. Delivery is tried again after `retry-interval`, then twice as
//!   long up to `retry-max-interval`. Each time downstream gets its sticky events again and data from the keyframe at or
//!   before the first buffer that it had not accepted, further back by `replay-overlap` and `replay-overlap-bytes`, with DISCONT; if it refuses that too
//!   it is flushed and tried once more. What it takes then counts when it has gone on taking for 150 ms: a `queue`
//!   whose sink is away takes a buffer after each flush and loses it.
//! - **Downstream refuses the caps of what is stored**: `on-unnegotiable` waits, leaves it out, or posts an error.
//! - **The process ends**, `kill -9` included, and starts again with the same `location`: the same, with the stream's
//!   own stream-start, caps and segment (`catching-up`), then the live stream as a new epoch. `catch-up-rate` limits the speed.
//! - **It is full** (limits, free-space floor): `leaky` decides. Drops are whole GOPs, announced as a GAP event, a
//!   message and a warning. `thin` keeps their keyframes as long as there is room for those. `max-age` bounds how long
//!   anything stays. Watermarks tell before it is full.
//! - **The disk refuses** (`storage-fault`: full, removed, read-only, failing): buffers stay in memory and are delivered from
//!   there; the element goes on asking, and stores what waits as soon as the disk takes it. With memory full, `leaky`
//!   decides.
//! - **The store is damaged** when it is opened: `recovery` says whether to go on with what can be read, to fail, or to start
//!   empty.
//! - **End of stream** is delivered after the backlog. If the process ends before, the end of stream becomes a boundary.
//!
//! The element has to stand after the encoder or the parser, and before muxers and network sinks. Put `h264parse` or
//! `h265parse` before it. An upstream element cannot catch a sink's error message, so an application has to keep the pipeline
//! alive when a sink posts one: set the sink to NULL and back, `diskbuffer` does the rest.
//!
//! ## What a socket has accepted
//!
//! OK from a network sink says that the kernel has the data, not that the peer has it: a TCP connection on loopback had accepted
//! 4.3 MB that its peer never read. What lay there when the connection broke is gone. So `replay-overlap` (media time) and
//! `replay-overlap-bytes` (payload) have a resume begin earlier, whichever of them reaches further back; the bytes reach back 60 s of
//! media at most, for a slow stream would send again what arrived minutes ago. 5 s and 5 MiB are right for TCP with
//! ordinary socket buffers. Whoever receives sees the overlap twice: `add-position-meta` tells.
//!
//! ## Acknowledgement
//!
//! With `ack-mode=push` a buffer is delivered when downstream returned OK. With `explicit` it is delivered when the application
//! says so: by the action `acknowledge` with a position, or by an upstream event `diskbuffer-ack` (custom, `position`
//! uint64) from an element behind this one. A position acknowledges all before it too. `add-position-meta` puts positions on
//! buffers: they grow, and never name another payload, also after a restart.
//!
//! ## Time
//!
//! With `timestamp-mode=continuous` a later epoch follows the one before it in running time, by the base of its segments;
//! PTS and DTS stay as recorded. This is for consumers that do not synchronise to the clock (network sinks, muxers, files).
//! A sink that does would be behind by the length of the backlog for ever: for those, `restamp` has what was held up begin
//! at the running time at which it goes out, with one shift for the whole burst. Upstream events that carry running time
//! (QoS, force-key-unit) are translated back.
//!
//! Capture times survive a clock that is set: a machine without a battery boots in 1970 and jumps when NTP answers. What was
//! recorded before the jump is corrected when it is delivered; ages go by elapsed time.
//!
//! ## Signals
//!
//! As `queue`: `overrun` when full, `underrun` when everything was delivered, `running` and `pushing` when delivery goes on.
//! `watermark` with true above the high one and with false at the low one.
//!
//! ## Actions
//!
//! - `acknowledge(position: uint64) -> bool`: see above; false for a position that was not sent.
//! - `rewind() -> bool`: sends again what is not acknowledged, from a keyframe.
//! - `clear() -> bool`: forgets everything that is stored; returns when the bytes are gone from the disk.
//! - `purge(from: uint64, to: uint64) -> bool`: the same for the positions from `from` to `to`. Changes of caps and tags stay in
//!   force. What the file system keeps in freed blocks is out of reach. May take seconds: not from a streaming thread.
//!
//! ## Element messages
//!
//! `diskbuffer-outage` (`reason`), `diskbuffer-resumed` (`outage-time`), `diskbuffer-draining` (`percent`, `eta`), `diskbuffer-drained`,
//! `diskbuffer-watermark` (`above`, `fraction`, `limit`), `diskbuffer-dropped` (`reason`, `buffers`, `bytes`, `time`, `first-position`,
//! `last-position`), `diskbuffer-storage` (`state`: fault, ok, damaged; `reason`; for damage also `first-position`, `last-position`,
//! `buffers`, `bytes`), `diskbuffer-clock` (`step` in ns, `now`, `clock-synced`), each with `level-buffers`, `level-bytes`,
//! `level-time`. Times in ns.
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
#[cfg(test)]
#[allow(dead_code)]
#[path = "../../tests/diskbuffer/common.rs"]
mod common;
mod delivery;
mod giving_up;
mod imp;
mod ingest;
pub(crate) mod joint;
pub(crate) mod managed;
#[cfg(test)]
mod managed_tests;
mod outcome;
mod output;
mod pace;
pub(crate) mod properties;
mod push;
pub(crate) mod queries;
mod resume;
mod room;
#[cfg(test)]
mod seam_tests;
mod sent;
pub(crate) mod settings;
mod spool;
#[cfg(test)]
mod spool_tests;
mod state;
mod stats;
mod storing;
mod tail;
mod tender;
mod together;
#[cfg(test)]
mod together_tests;
mod watermark;

pub(crate) use resume::Overlap;
pub(crate) use settings::AckMode;

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
