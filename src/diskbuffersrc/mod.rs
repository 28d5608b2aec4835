//! `diskbuffersrc` plays what a `diskbuffer` or a `diskbuffersink` has stored: from the beginning, from a time or a position, up to
//! a time, or on and on as it is written; from several places at once, in the process that writes and in any other. It reads:
//! the store stays as it is, but for the small files in which consumers remember where they stand. What the writer holds in
//! memory alone (`persist=spill`) is not seen; with `durability=none` another process sees data late.
//!
//! ## Where it begins and ends
//!
//! `start` and `stop` take the same forms:
//!
//! - `earliest`, `latest` (the last sync point), `cursor` (where the `consumer` stands; without one, where the `diskbuffer`
//!   that writes stands);
//! - a position: an integer up to 10^15, as `add-position-meta` and element messages tell it;
//! - a time: ISO 8601 with or without zone (then UTC) and fraction, `2026-01-31T13:45:00.5Z`, `2026-01-31 14:45+01:00`, or ns
//!   since 1970, an integer above 10^15;
//! - a time before now: `-30s`, `-5m`, `-1h30m`, `-500ms`, also of a recording that nobody writes any more.
//!
//! Playing begins at the last sync point captured at or before the start, and what begins a GOP before the stop is delivered
//! to the end of that GOP: exactly the GOPs that cover [start, stop). A place outside of what is held is clamped, with a warning
//! in the log and the element message `diskbuffersrc-clamped`. Without `stop` the end is that of what was held when the
//! element went to PAUSED.
//!
//! ## Following
//!
//! With `follow=true` it goes on with what is written, as a live source: nothing comes before PLAYING, the change to PAUSED
//! answers NO_PREROLL, and new data is delivered 20 to 50 ms after it was stored. Running time begins when the first buffer goes
//! out. What begins further back (`start=-30s`) is played at its own pace by a sink that synchronises to the clock, so that it
//! stays that far behind; one that does not catches up. It goes on when the writer stops and starts again, also while the store
//! cannot be read for a while (status `away`), and ends with `stop` or when the application sends EOS.
//!
//! ## Time
//!
//! Stream time is the time of capture, counted from that of the earliest record that was held when the element went to
//! PAUSED. Capture time is what a GstReferenceTimestampMeta (`timestamp/x-unix`, `timestamp/x-ntp`) said, else the time of
//! arrival, corrected for steps of the clock. A recording made faster than real time should bring reference timestamps along:
//! else it has the length of the time that recording it took.
//!
//! Each epoch (a run of the writer, a SEGMENT in it) gets its own STREAM_START, CAPS, SEGMENT and other sticky events; those
//! that downstream has are not repeated. PTS and DTS stay as recorded. The segment's `time` puts the first buffer of the epoch
//! where it was captured, its `base` lets running time go on without a jump; in a live pipeline an epoch does not begin before
//! the current running time. Within an epoch times keep the distances of their PTS. A stored end of stream that another epoch
//! follows ends its epoch only. Each stream counts from its own earliest record: streams of one store that are played together
//! have to be aligned by their capture times (`add-reference-timestamp-meta`). Epochs in other formats than TIME, and buffers without timestamps, come as they were recorded:
//! seeks find them by capture time.
//!
//! The first buffer after a start, a seek or a gap is a keyframe with DISCONT and the parameter sets that it lacks; leading
//! pictures that refer to what lies before it are left out. Missing records show as a GAP event. Buffer lists come as lists.
//!
//! ## Seeks
//!
//! In TIME, flushing or not, also before the element runs: to the exact time (the default and `ACCURATE`: data comes from the
//! keyframe before, the segment begins where it was asked for, so decoders cut) or to a keyframe (`KEY_UNIT` with `SNAP_BEFORE`,
//! `SNAP_AFTER`, `SNAP_NEAREST`), with a stop, with any rate above 0 (`TRICKMODE_KEY_UNITS` delivers keyframes only), as `SEGMENT`
//! seeks. A seek that does not flush waits for nothing: it takes effect after the push that is under way. Refused: reverse,
//! changes of the rate without a seek, other formats. What can be sought grows while following, and its beginning moves as
//! data is removed.
//!
//! ## Consumers
//!
//! With `consumer` the store remembers what was delivered under that name, and the next start goes on there, at the keyframe
//! before the first buffer that was not. A buffer is delivered when its push returned OK or, with `ack-mode=explicit`, when the
//! application says so: by the action `acknowledge(position: uint64) -> bool`, or by an upstream event `diskbuffer-ack` (custom,
//! `position` uint64) from an element behind this one. A position acknowledges all before it too.
//!
//! The writer keeps what a consumer still needs until the consumer has not been heard of for `lease-time`, and no longer than
//! its limits allow. A reader that was overtaken by the removal, consumer or not, goes on at the oldest keyframe that is there
//! and posts `diskbuffersrc-overrun`. A name has one user at a time, whatever the process: another one waits up to
//! `lock-timeout`.
//!
//! ## URI
//!
//! `diskbuffer:///var/spool/cam1?stream-name=video&start=-30s&stop=...&follow=true&consumer=x`: the path is the location, the
//! query sets properties by their names, percent-encoded. Players take it: `gst-play-1.0 diskbuffer:///var/spool/cam1`.
//!
//! ## Element messages
//!
//! `diskbuffersrc-clamped` (`property`, `asked`, `used` strings: a time or a position), `diskbuffersrc-overrun` (`from`, `to`: positions,
//! both included; `buffers`, `bytes` uint64).
//!
//! ## Why it is no GstBaseSrc
//!
//! The base class sends a STREAM_START and a SEGMENT of its own, when it begins and after each seek, and knows one segment per
//! playback. A recording has one per epoch, at its place among buffers that come as lists. What the base class does is done
//! here: live semantics, flushing and non-flushing seeks with their sequence numbers, SEGMENT_DONE, EOS and events sent to the
//! element, errors of downstream.
//!
//! ## Example
//!
//! ```text
//! gst-launch-1.0 diskbuffersrc location=/var/spool/cam1 start=2026-01-31T13:45:00Z stop=2026-01-31T13:50:00Z ! h264parse ! \
//! mp4mux ! filesink location=five-minutes.mp4
//! gst-launch-1.0 -e diskbuffersrc location=/var/spool/cam1 follow=true consumer=uploader ! h264parse ! \
//! mpegtsmux alignment=7 ! srtsink uri=srt://server:7001
//! ```

use gst::glib;
use gst::prelude::*;

mod acks;
mod consumer;
mod delivery;
mod imp;
mod messages;
mod output;
mod place;
mod properties;
mod push;
mod queries;
mod range;
mod seek;
mod settings;
mod state;
mod timeline;
mod uri;

glib::wrapper! {
    /// The `diskbuffersrc` element.
    pub struct DiskBufferSrc(ObjectSubclass<imp::DiskBufferSrc>) @extends gst::Element, gst::Object,
        @implements gst::URIHandler;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    #[cfg(feature = "v1_18")]
    settings::Status::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(Some(plugin), "diskbuffersrc", gst::Rank::PRIMARY, DiskBufferSrc::static_type())
}
