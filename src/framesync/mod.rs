//! `framesync` puts streams on one timeline. Cameras and servers stamp in their own units, from their own zero, with
//! clocks that drift and now and then say nonsense; what leaves here has PTS and DTS in nanoseconds of running time,
//! corrected and never going backwards. With `mode=align` frames of the same moment leave together, as sets.
//!
//! Each request pad `sink_%u` has a `src_%u` beside it, with a queue of 16 buffers and a task of its own; pads may
//! come and go while the element runs. Any caps, any memory: payload is never touched or mapped. With one stream no
//! pad has to be named in gst-launch. What is set on the element holds for all pads, unless a pad says otherwise
//! (`sink_1::offset=20000000`).
//!
//! ## What timestamps mean
//!
//! `timestamp-format` says it in one word: `pipeline` (the default: what GStreamer's demuxers make), `epoch-seconds`,
//! `epoch-millis`, `hls` (1/90000 s, 33 bits), `rtmp` (1/1000 s, 32 bits), `relative-seconds`. All but `pipeline` are
//! integers in PTS and DTS, as bridges and appsrc put them there. `timestamp-unit`, `timestamp-epoch` and `wrap-bits`
//! change one part of it each. Counts that wrap go on, in both directions. Where many frames share a stamp, order and
//! cadence spread them.
//!
//! `auto` takes a GstReferenceTimestampMeta if there is one, else it finds out from how fast live stamps grow. Until
//! it knows, arrival serves, and buffers are marked as interpolated; what it decided is in the log and in `stats`.
//! What is not live gives no evidence and is taken as `pipeline`.
//!
//! `timestamp-source` may name another place than PTS: `reference-meta` (capture time, Unix or NTP), `meta-field` (an
//! integer in a GstCustomMeta, with `timestamp-field=meta-name/field-name`), or `arrival`.
//!
//! ## Where streams are placed
//!
//! Running time stays running time. Times since 1970 or 1900 get one addend for all streams, fixed by the first
//! buffer of any of them: equal stamps come out equal. A live stream that lies more than 10 s from that is no
//! relative: it is placed by its own arrivals, passes for itself, and `status` becomes `unlocked`. A zero of a
//! stream's own is placed at its least arrival if it is live, else at running time 0. `offset` is added, also while
//! running.
//!
//! Running times of a live stream that lie more than 10 s from its arrivals are no relatives either.
//!
//! The segment that goes out is in TIME, from 0 (later where DTS begins below that); stream time is that of the first
//! buffer, and a new one goes out where upstream's says something else. Its rate is 1: another rate is applied to stamps and
//! durations, and said as applied rate. Sound is not stretched for it, nor resampled for drift. Played backwards, decoded
//! frames pass as others do; seeks backwards are refused for encoded video.
//!
//! ## What is corrected
//!
//! Drift of a live sender's clock, by at most `max-slew-ppm`; missing stamps, by cadence; outliers, as
//! `outlier-policy` says. A stream that jumps and stays there begins an epoch that goes on where the last one stood.
//! Nothing stops for bad stamps: a stream without any is placed by arrival.
//!
//! ## Sets
//!
//! With `mode=align`, each set has one frame of each stream, of least span; each frame is in one set, and sets never
//! cross. `max-interval` bounds how far a frame may be from the others. `reference` makes a set for each frame of one
//! pad, or, as `clock`, each `reference-interval`. With `policy=nearest` a stream gives the frame nearest to a set,
//! again if need be; with `all-since` all its frames since the set before (30 fps with 10 Hz lidar and an IMU).
//!
//! Live, a frame waits for others until its time, plus the latency of what is upstream, plus `latency`; then the set
//! goes out with what is there. Not live, it waits for data, EOS, or a GAP that reaches beyond `max-interval`
//! (without that bound, any later frame may be the partner). What is missing is filled in as `fill` says. A stream
//! silent for `stream-timeout` is not waited for until it comes back; nor is one that ended, or whose pad went. Sets
//! of fewer than `min-streams` do not go out. When one stream holds `max-held-buffers`, live the set goes out, else
//! upstream waits.
//!
//! Frames that are in no set are dropped, as are late ones. Not so in inter-coded streams (any encoded video that is
//! not known to be intra only), which are marked, never dropped, repeated or reordered, nor in sound, of which one buffer
//! is in each set, or all with `policy=all-since`. When 64 frames in a row find no other, or come late, `status` is
//! `unlocked`, and frames pass in sets of their own, or without.
//!
//! ## What receivers are told
//!
//! GstCustomMeta `framesync-set` (`set-id` uint64, `spread` uint64 in ns, `complete`, `interpolated` booleans) on
//! each buffer of a set, and with `set-id` 2^64-1 on buffers outside of sets whose time was made up. Built for less
//! than GStreamer 1.20, a serialized event of that name goes before the buffer. With `snap=true` frames of a set
//! share one PTS, for aggregators such as nvstreammux that know no other sign of it; DTS moves along.
//!
//! Sink pads have `stats`: `in`, `out`, `late`, `outliers`, `jumps`, `gaps`, `duplicates`, `interpolated` (uint64),
//! `drift-ppm` (positive: the sender's clock is slow), `drift-confidence-ppm` (half width of the 95 % interval;
//! infinite until known, and where streams are not live), `offset` and `jitter` (int64, ns), `epoch` (uint), `format`
//! (string). They count from READY to READY, and stay readable until the next run.
//!
//! Element messages:
//!
//! - `framesync-epoch`: `pad`, `epoch` (uint), `step` (int64, ns), `running-time` (uint64): stamps jumped by that much;
//! - `framesync-outlier`: `pad`, `kind` (outlier, backwards), `running-time`, `count` (since the message before); at
//!   most one a second and stream;
//! - `framesync-drift`: `pad`, `drift-ppm`, `drift-confidence-ppm`, `jitter`: known for the first time, or noticeably
//!   changed;
//! - `framesync-set-incomplete`: `set-id`, `running-time`, `missing` (array of sink pads), `count`: when others are
//!   missing than before, else once a second.
//!
//! ## Latency and flow
//!
//! Live, LATENCY answers with `latency` on top of upstream's in `mode=align` (there with the most of all streams),
//! and for streams that are not on running time already. Streams that are not live wait for live ones. Flushes, caps
//! changes, EOS, SEGMENT_DONE and errors concern their own stream: a loop waits for nobody, and what nobody takes goes on
//! once it is linked. ALLOCATION and DRAIN are answered with no: upstream takes buffers of its own.
//!
//! ## Example
//!
//! ```text
//! gst-launch-1.0 appsrc name=bridge ! framesync timestamp-format=rtmp ! h264parse ! matroskamux ! filesink location=out.mkv
//! gst-launch-1.0 framesync name=f mode=align latency=300000000 sink_1::offset=-20000000 \
//!     rtspsrc location=rtsp://a ! decodebin ! f.sink_0  f.src_0 ! queue ! mix.sink_0 \
//!     rtspsrc location=rtsp://b ! decodebin ! f.sink_1  f.src_1 ! queue ! mix.sink_1 \
//!     compositor name=mix sink_1::xpos=640 ! videoconvert ! autovideosink
//! ```

use gst::glib;
use gst::prelude::*;

mod align;
mod imp;
mod input;
mod mark;
mod messages;
mod output;
mod pad;
mod placing;
mod properties;
mod settings;
mod stamps;
mod stream;

glib::wrapper! {
    /// The `framesync` element.
    pub struct FrameSync(ObjectSubclass<imp::FrameSync>) @extends gst::Element, gst::Object,
        @implements gst::ChildProxy;
}

glib::wrapper! {
    /// A sink pad of it, with properties of its own.
    pub struct FrameSyncPad(ObjectSubclass<pad::PadImp>) @extends gst::Pad, gst::Object;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    #[cfg(feature = "v1_18")]
    {
        for api in [
            settings::Mode::static_type(),
            settings::Source::static_type(),
            settings::TimestampFormat::static_type(),
            settings::TimestampEpoch::static_type(),
            settings::Policy::static_type(),
            settings::OutlierPolicy::static_type(),
            settings::Fill::static_type(),
            settings::Status::static_type(),
            FrameSyncPad::static_type(),
        ] {
            api.mark_as_plugin_api(gst::PluginAPIFlags::empty());
        }
    }
    mark::register();
    gst::Element::register(Some(plugin), "framesync", gst::Rank::NONE, FrameSync::static_type())
}
