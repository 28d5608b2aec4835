//! `diskbuffersink` is a sink that does not fail: a [`diskbuffer`](crate::diskbuffer) for each of its pads, and behind them any
//! sink, or a muxer and a sink, that it restarts when they fail. Upstream gets OK, the pipeline stays PLAYING, and what the
//! sink did not take waits on the disk, also over a restart of the process.
//!
//! ## What it does when
//!
//! - **It starts**: PAUSED and PLAYING are reached at once, also when the sink cannot be reached. Data spools from the first buffer.
//! - **The sink fails** (an error message, an error from a push, an end of stream that nobody has sent, a change of state that
//!   fails): an element message tells, the streams are held, the child goes to NULL. After `retry-interval`, then twice as long
//!   up to `retry-max-interval`, it is built anew and goes on at a keyframe, further back by `replay-overlap` and
//!   `replay-overlap-bytes` (5 s and 5 MiB here: what a socket has accepted is not delivered). After `max-retries` failures in a
//!   row the element posts the error after all. That a description does not take what it is given from the beginning (not
//!   negotiated) is an error at once: no restart mends it.
//! - **The sink stalls**: nothing is taken for `restart-timeout` in PLAYING, although something waits: as a failure. A muxer
//!   that waits for a pad on which nothing comes in is not restarted: a warning says which pad.
//! - **The sink does not return** from its change to NULL: after 10 s it is left to itself, with a warning, and another one is
//!   built. An element given by `sink` cannot be replaced: it is waited for. No state change of the pipeline waits for either.
//! - **There is a muxer inside**: it gets one epoch and one kind of caps. Before others it is closed by an end of stream, as long as
//!   `eos-timeout` allows, and a new one begins.
//! - **End of stream**: posted when the sink has taken everything and has posted its own. When it makes no progress for
//!   `eos-timeout` the element posts EOS all the same, with a warning, and what is left is sent by the next start.
//! - **The sink acknowledges** (`ack-mode=explicit`): it sends `diskbuffer-ack` upstream. What it has not acknowledged is sent
//!   again by the next child, from the keyframe before. The end of the stream does not wait for it; the next start sends it.
//! - **It has no sink**: neither `sink-description` nor `sink` is set. It records: everything stays until `retention-time`,
//!   `retention-bytes`, `max-size-bytes`, `max-age` or the free-space floor ends it, for any number of `diskbuffersrc`.
//!
//! ## Pads and streams
//!
//! `video` for one video stream, `audio_%u`, and `sink_%u` for anything. Each pad is a stream in the store at `location`: `video`
//! is `stream-name` ("default"), the others have the name of the pad behind it: "default.audio_0". Two `diskbuffersink` with one
//! store need different names of streams.
//!
//! The elements inside are children `video`, `audio_0`, ... (GstChildProxy): `video::max-size-bytes=1000000000` sets for one what
//! the property `max-size-bytes` sets for all, also for those that are made later. Set it after the one for all.
//!
//! A pad may be requested while the element runs: the child is closed and built anew with a place for it. A pad may be
//! released: the child gets its end of stream there, and what was not delivered of it stays in the store.
//!
//! ## The sink
//!
//! `sink-description` is what follows after the last "!" of a gst-launch-1.0 line: `tcpclientsink host=a port=5000`,
//! `mpegtsmux alignment=7 ! srtsink uri=srt://a:7001`, `splitmuxsink location=%05d.mp4`. Each pad goes to a sink pad that is not
//! linked, else to one that a muxer gives on request for video, audio, or the media type of the caps. An element inside with the
//! name of a pad gets that pad. Sinks inside are `async=false`, and `sync=false` unless the property `sync` says otherwise.
//! What has a property `auto-reconnect` (`srtsink`) gets false unless the description sets it: connecting again by itself, it would
//! swallow data without a word. An element given by `sink` keeps what it has.
//!
//! A child that is built anew goes on with the numbers of `splitmuxsink` and appends to the file of `filesink`. That holds within
//! one process: choose a `location` with the time in it for files that a restart must not touch.
//!
//! ## Time
//!
//! See `diskbuffer`. Sinks that synchronise (`sync=true`) and files of several streams want `timestamp-mode=restamp` or
//! `original`; the default suits everything that takes data as fast as it can.
//!
//! ## Element messages
//!
//! | message | fields |
//! |---|---|
//! | `diskbuffersink-error` | `error` (GError), `reason` (its text), `debug`, `source` (path of the element) strings, `failures` uint in a row, `retry-in` uint64 in ns (the largest value: never) |
//! | `diskbuffersink-restarted` | `restarts` uint in all, `after` uint64: ns since the first of the failures |
//! | `diskbuffersink-eos-timeout` | |
//!
//! The first failure of an outage is a WARNING too, with the child's error in it, and so is any other reason that follows; the end of
//! the outage is an INFO: gst-launch-1.0 prints both.
//!
//! Each also has `level-buffers`, `level-bytes`, `level-time`: what waits. Those of `diskbuffer` come from the elements inside. Errors,
//! ends of stream, clocks, latency and preroll of the child do not reach the pipeline; its other messages do.
//!
//! ## Statistics
//!
//! `stats` has the fields of `diskbuffer`, summed over the streams (the largest for ages, times and `disk-bytes`), `restarts` and
//! `child-errors` uint, `last-error` string, and `streams`: an array of what each stream says, with its `pad`.
//!
//! ## Example
//!
//! ```text
//! gst-launch-1.0 rtspsrc location=rtsp://camera/ ! rtph264depay ! h264parse ! \
//! diskbuffersink location=/var/spool/cam1 sink-description="flvmux streamable=true ! rtmp2sink location=rtmp://server/live/cam1"
//! ```
//!

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

mod closing;
mod control;
mod description;
mod failure;
mod fitting;
mod imp;
mod input;
mod instance;
mod messages;
mod numbering;
mod pads;
mod restart;
mod settings;
mod shell;
mod stats;
mod stream;
mod watch;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("diskbuffersink", gst::DebugColorFlags::empty(), Some("Sink that keeps data and restarts"))
});

glib::wrapper! {
    /// The `diskbuffersink` element.
    pub struct DiskBufferSink(ObjectSubclass<imp::DiskBufferSink>)
        @extends gst::Bin, gst::Element, gst::Object,
        @implements gst::ChildProxy;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "diskbuffersink", gst::Rank::NONE, DiskBufferSink::static_type())
}
