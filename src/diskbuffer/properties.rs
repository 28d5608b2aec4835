//! The properties of `diskbuffer` as `gst-inspect-1.0` shows them: nick, blurb, unit, range, default.

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

use super::settings::{DEFAULT_STREAM_NAME, Settings, Status};

pub static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| specs(&Settings::default()));

/// A class of its own needs specs of its own.
pub fn specs(default: &Settings) -> Vec<glib::ParamSpec> {
    let fraction = |name, nick, blurb, default: f64| {
        glib::ParamSpecDouble::builder(name).nick(nick).blurb(blurb).minimum(0.0).maximum(1.0).default_value(default)
    };
    let u64_property = |name, nick, blurb, default: u64| {
        glib::ParamSpecUInt64::builder(name).nick(nick).blurb(blurb).default_value(default)
    };
    vec![
        glib::ParamSpecString::builder("location")
            .nick("Location")
            .blurb(
                "Directory of the store, made when missing (mode 0700) and used by this plugin alone; elements of one \
                 process may share it. Without it, \"streambuffer\" below systemd's $STATE_DIRECTORY; without that it is \
                 required",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("stream-name")
            .nick("Stream name")
            .blurb("Name of the stream inside the store; each element that shares a store needs one of its own")
            .default_value(Some(DEFAULT_STREAM_NAME))
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("max-size-buffers")
            .nick("Maximum backlog (buffers)")
            .blurb("Undelivered buffers at which the buffer is full (0 = no limit)")
            .default_value(default.max_size_buffers)
            .mutable_playing()
            .build(),
        u64_property(
            "max-size-bytes",
            "Maximum backlog (bytes)",
            "Undelivered payload bytes at which the buffer is full (0 = no limit)",
            default.max_size_bytes,
        )
        .mutable_playing()
        .build(),
        u64_property(
            "max-size-time",
            "Maximum backlog (ns)",
            "Undelivered media time in ns at which the buffer is full (0 = no limit)",
            default.max_size_time,
        )
        .mutable_playing()
        .build(),
        u64_property(
            "max-age",
            "Maximum age (ns)",
            "Nothing older than this stays, delivered or not, also of streams that no element has any more and of what was \
             set aside, in ns of elapsed time: steps of the clock do not count (0 = no limit)",
            default.max_age,
        )
        .mutable_playing()
        .build(),
        u64_property(
            "retention-time",
            "Retention (ns)",
            "How long delivered data is kept for replay, in ns; limits and the free-space floor come first (0 = none, \
             unless retention-bytes says otherwise)",
            default.retention_time,
        )
        .mutable_playing()
        .build(),
        u64_property(
            "retention-bytes",
            "Retention (bytes)",
            "Payload bytes of delivered data that are kept for replay at most (0 = no bound of its own)",
            default.retention_bytes,
        )
        .mutable_playing()
        .build(),
        u64_property(
            "min-free-bytes",
            "Free-space floor (bytes)",
            "Bytes that stay free on the file system: with less the buffer is full. At most a quarter of the file \
             system is kept, at least what the store needs to open again",
            default.min_free_bytes,
        )
        .mutable_ready()
        .build(),
        glib::ParamSpecEnum::builder_with_default("leaky", default.leaky)
            .nick("Leaky")
            .blurb("What is dropped when the buffer is full: nothing, new GOPs, the oldest GOPs, or of those all but the keyframes")
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("durability", default.durability)
            .nick("Durability")
            .blurb("What an accepted buffer survives; elements that share a store share this setting")
            .mutable_ready()
            .build(),
        u64_property(
            "sync-interval",
            "Sync interval (ns)",
            "How often durability=interval syncs the log to the disk, in ns; elements that share a store share this setting",
            default.sync_interval,
        )
        .mutable_ready()
        .build(),
        u64_property(
            "max-memory-bytes",
            "Memory for recent buffers (bytes)",
            "Payload bytes of the newest undelivered buffers that are kept in memory, so that a downstream that keeps \
             up is served without reading the disk",
            default.max_memory_bytes,
        )
        .mutable_playing()
        .build(),
        glib::ParamSpecEnum::builder_with_default("ack-mode", default.ack_mode)
            .nick("Acknowledgement")
            .blurb("When a buffer counts as delivered and is not sent again")
            .mutable_ready()
            .build(),
        u64_property(
            "process-memory-bytes",
            "Memory of all elements (bytes)",
            "Bytes of memory that the elements of this process and their stores may use together; max-memory-bytes holds \
             as far as there is room in it",
            default.process_memory_bytes,
        )
        .mutable_ready()
        .build(),
        fraction(
            "high-watermark",
            "High watermark",
            "Fraction of any backlog limit at which a diskbuffer-watermark message and the signal watermark tell that it \
             fills up",
            default.high_watermark,
        )
        .mutable_playing()
        .build(),
        fraction(
            "low-watermark",
            "Low watermark",
            "Fraction of every backlog limit to which the level has to fall before the message and the signal tell that \
             there is room again",
            default.low_watermark,
        )
        .mutable_playing()
        .build(),
        glib::ParamSpecEnum::builder_with_default("persist", default.persist)
            .nick("Persist")
            .blurb(
                "Which buffers are stored: all, or those that downstream does not take soon. With spill a crash loses what was \
                 not stored yet",
            )
            .mutable_ready()
            .build(),
        u64_property(
            "spill-after",
            "Spill after (ns)",
            "How long a buffer may wait in memory before it is stored with persist=spill, in ns",
            default.spill_after,
        )
        .mutable_playing()
        .build(),
        u64_property(
            "replay-overlap",
            "Replay overlap (ns)",
            "Media time in ns sent again after an outage or a restart, for sinks that return OK for what they then lose \
             (sockets). Repeats start at a keyframe in any case",
            default.replay_overlap,
        )
        .mutable_ready()
        .build(),
        u64_property(
            "replay-overlap-bytes",
            "Replay overlap (bytes)",
            "Payload bytes sent again after an outage or a restart, for sockets that had accepted them; replay-overlap or this, \
             whichever reaches further back, this at most 60 s of media",
            default.replay_overlap_bytes,
        )
        .mutable_ready()
        .build(),
        u64_property(
            "stall-timeout",
            "Stall timeout (ns)",
            "How long a push may take in PLAYING before the status says stalled, in ns; a stall is never a reason to send \
             anything again",
            default.stall_timeout,
        )
        .mutable_playing()
        .build(),
        u64_property(
            "retry-interval",
            "Retry interval (ns)",
            "Pause before the first new attempt in an outage, in ns; doubled from attempt to attempt, with a quarter of \
             random spread",
            default.retry_interval,
        )
        .mutable_playing()
        .build(),
        u64_property(
            "retry-max-interval",
            "Longest retry interval (ns)",
            "Longest pause between attempts in an outage, in ns",
            default.retry_max_interval,
        )
        .mutable_playing()
        .build(),
        glib::ParamSpecEnum::builder_with_default("on-unnegotiable", default.on_unnegotiable)
            .nick("On unnegotiable")
            .blurb("What happens to stored data whose caps downstream refuses")
            .mutable_playing()
            .build(),
        glib::ParamSpecDouble::builder("catch-up-rate")
            .nick("Catch-up rate")
            .blurb("Speed limit while the backlog is delivered, as a multiple of real time (0 = as fast as downstream takes it)")
            .minimum(0.0)
            .default_value(default.catch_up_rate)
            .mutable_playing()
            .build(),
        glib::ParamSpecBoolean::builder("add-position-meta")
            .nick("Add position meta")
            .blurb(
                "Put a custom meta \"diskbuffer-position\" on each buffer: position (uint64) for deduplication and \
                 acknowledgement, replayed (bool), captured-at (int64, ns since 1970), clock-synced (bool). Needs GStreamer 1.20",
            )
            .default_value(default.add_position_meta)
            .mutable_playing()
            .build(),
        glib::ParamSpecBoolean::builder("add-reference-timestamp-meta")
            .nick("Add reference timestamp meta")
            .blurb("Put the capture time on each buffer as a GstReferenceTimestampMeta with caps timestamp/x-unix")
            .default_value(default.add_reference_timestamp_meta)
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("timestamp-mode", default.timestamp_mode)
            .nick("Timestamp mode")
            .blurb(
                "Running time of what was recorded by earlier runs. Continuous suits network sinks, muxers and files \
                 that do not synchronise to the clock: a sink that does stays behind by the backlog for ever. Restamp suits \
                 those: what was held up is late by the outage, not too late",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("flush-mode", default.flush_mode)
            .nick("Flush mode")
            .blurb("What a flush from upstream, as by a seek, does to the backlog")
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("keyframe-detection", default.keyframe_detection)
            .nick("Keyframe detection")
            .blurb("What tells where a decoder can start; some hardware encoders mark every buffer as delta unit")
            .mutable_ready()
            .build(),
        glib::ParamSpecEnum::builder_with_default("recovery", default.recovery)
            .nick("Recovery")
            .blurb("What is done about a store that cannot be read; what is set aside lies in \"aside\" below location")
            .mutable_ready()
            .build(),
        u64_property(
            "lock-timeout",
            "Lock timeout (ns)",
            "How long the change to READY waits for another process to let go of the store, in ns: rolling updates \
             overlap",
            default.lock_timeout,
        )
        .mutable_ready()
        .build(),
        glib::ParamSpecUInt::builder("current-level-buffers")
            .nick("Current backlog (buffers)")
            .blurb("Undelivered buffers")
            .read_only()
            .build(),
        u64_property("current-level-bytes", "Current backlog (bytes)", "Undelivered payload bytes", 0)
            .read_only()
            .build(),
        u64_property("current-level-time", "Current backlog (ns)", "Undelivered media time in ns", 0)
            .read_only()
            .build(),
        glib::ParamSpecEnum::builder_with_default("status", Status::default())
            .nick("Status")
            .blurb("What the element is doing")
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb(
                "Counters of buffers, each also with -bytes: received = stored + bypassed + queued + rejected, stored = \
                 delivered + pending + dropped + expired + purged + lost; stored and what became of it count from the \
                 stream's beginning. Times in ns, clock times in ns since 1970",
            )
            .read_only()
            .build(),
    ]
}
