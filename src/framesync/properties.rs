//! The properties of `framesync` and its pads as `gst-inspect-1.0` shows them: nick, blurb, unit, range, default.

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

use super::settings::{
    Fill, Mode, OutlierPolicy, Policy, Settings, Source, Status, StreamSettings, TimestampEpoch, TimestampFormat,
};

/// Those that the element has as defaults and each sink pad of its own.
fn of_streams() -> Vec<glib::ParamSpec> {
    let default = StreamSettings::default();
    vec![
        glib::ParamSpecEnum::builder_with_default("timestamp-source", Source::default())
            .nick("Timestamp source")
            .blurb("Where the time of a frame is read from")
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("timestamp-format", TimestampFormat::default())
            .nick("Timestamp format")
            .blurb("What timestamps mean: unit, epoch and wrap together")
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("timestamp-epoch", TimestampEpoch::default())
            .nick("Timestamp epoch")
            .blurb("Where timestamps count from, if not as timestamp-format says")
            .mutable_playing()
            .build(),
        gst::ParamSpecFraction::builder("timestamp-unit")
            .nick("Timestamp unit (s)")
            .blurb("Seconds in a tick of the timestamps, such as 1/90000 (0/1 = as timestamp-format says)")
            .minimum(gst::Fraction::new(0, 1))
            .maximum(gst::Fraction::new(i32::MAX, 1))
            .default_value(default.unit)
            .mutable_playing()
            .build(),
        glib::ParamSpecInt::builder("wrap-bits")
            .nick("Wrap (bits)")
            .blurb("Bits of the count that timestamps carry: 0 (all), 32 or 33 (-1 = as timestamp-format says)")
            .minimum(-1)
            .maximum(33)
            .default_value(default.wrap_bits)
            .mutable_playing()
            .build(),
        glib::ParamSpecString::builder("timestamp-field")
            .nick("Timestamp field")
            .blurb("For timestamp-source=meta-field: name of the GstCustomMeta, a slash, name of its integer field")
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("policy", Policy::default())
            .nick("Policy")
            .blurb("How frames get into sets (mode=align)")
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("outlier-policy", OutlierPolicy::default())
            .nick("Outlier policy")
            .blurb("What is done with timestamps that cannot be true")
            .mutable_playing()
            .build(),
        glib::ParamSpecInt64::builder("offset")
            .nick("Offset (ns)")
            .blurb("Added to all times of the stream, in ns; takes effect at once, without going backwards")
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("max-slew-ppm")
            .nick("Maximum slew (ppm)")
            .blurb("How fast the correction for drift may change, in millionths of the time that passes")
            .maximum(500_000)
            .default_value(default.max_slew_ppm)
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("fill", Fill::default())
            .nick("Fill")
            .blurb("What a stream gives to a set that goes out without a frame of it (mode=align)")
            .mutable_playing()
            .build(),
    ]
}

pub static ELEMENT: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let default = Settings::default();
    let time = |name, nick, blurb, default: u64| {
        glib::ParamSpecUInt64::builder(name)
            .nick(nick)
            .blurb(blurb)
            .maximum(i64::MAX as u64)
            .default_value(default)
            .mutable_playing()
            .build()
    };
    let mut all = vec![
        glib::ParamSpecEnum::builder_with_default("mode", Mode::default())
            .nick("Mode")
            .blurb("Whether streams are only put on running time, or leave as sets of frames of the same moment")
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("reference")
            .nick("Reference")
            .blurb(
                "Name of the sink pad each frame of which makes a set, or \"clock\" for a set each reference-interval \
                 (NULL = the frames choose: least span)",
            )
            .mutable_playing()
            .build(),
        time(
            "reference-interval",
            "Reference interval (ns)",
            "For reference=clock: running time from set to set, in ns, at least 1 ms",
            default.reference_interval,
        ),
        time(
            "latency",
            "Latency (ns)",
            "Live: how long a frame waits for others, after its time and the latency of what is upstream, in ns. Part of \
             the answer to LATENCY queries with mode=align, and for streams that are placed by their arrival",
            default.latency,
        ),
        time(
            "max-interval",
            "Maximum interval (ns)",
            "How far a frame may be from the one that its set is made for, in ns (0 = any distance; with \
             reference=clock half of the interval)",
            default.max_interval,
        ),
        time(
            "stream-timeout",
            "Stream timeout (ns)",
            "A stream that has been silent for that long is not waited for until it comes back, in ns (0 = it is)",
            default.stream_timeout,
        ),
        glib::ParamSpecUInt::builder("min-streams")
            .nick("Minimum of streams")
            .blurb("Sets of fewer streams, of those that run, do not go out (0 = complete sets only)")
            .default_value(default.min_streams)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("max-held-buffers")
            .nick("Maximum of held buffers",)
            .blurb(
                "Buffers of one stream that may wait for others, for decoders with few of them: live, the set goes out \
                 then; else upstream waits",
            )
            .minimum(1)
            .default_value(default.max_held_buffers)
            .mutable_playing()
            .build(),
        glib::ParamSpecBoolean::builder("snap")
            .nick("Snap")
            .blurb("Frames of a set that are the only one of their stream get the time of the set as PTS (not inter-coded)")
            .default_value(default.snap)
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("status", Status::default())
            .nick("Status")
            .blurb("Whether streams are on one timeline")
            .read_only()
            .build(),
    ];
    all.extend(of_streams());
    all
});

pub static PAD: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let mut all = of_streams();
    all.push(
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("What came of the stream: counters, drift and its confidence (ppm), offset and jitter (ns), format")
            .read_only()
            .build(),
    );
    all
});
