//! Properties of `diskbuffer`: their values, their documentation, and the enums that appear in `gst-inspect-1.0`.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use gst::glib;
use gst::prelude::*;

use crate::media::keyframe::Source;
use crate::store::{Durability as StoreDurability, StoreOptions};

/// What happens to buffers when a limit is reached.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstDiskBufferLeaky")]
pub enum Leaky {
    #[default]
    #[enum_value(name = "No: block upstream until there is room", nick = "no")]
    No = 0,
    #[enum_value(name = "Upstream: drop new buffers, up to the next keyframe that fits", nick = "upstream")]
    Upstream = 1,
    #[enum_value(name = "Downstream: drop the oldest GOPs", nick = "downstream")]
    Downstream = 2,
}

/// What a stored buffer survives.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstDiskBufferDurability")]
pub enum Durability {
    #[enum_value(name = "None: an orderly stop only, no write-ahead log", nick = "none")]
    None = 0,
    #[default]
    #[enum_value(name = "Crash: the end of the process in any way, kill -9 included", nick = "crash")]
    Crash = 1,
}

/// When a buffer counts as delivered.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstDiskBufferAckMode")]
pub enum AckMode {
    #[default]
    #[enum_value(name = "Push: when downstream has returned OK for it", nick = "push")]
    Push = 0,
}

/// How the running time of stored epochs goes out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstDiskBufferTimestampMode")]
pub enum TimestampMode {
    #[enum_value(name = "Original: segments as they came in", nick = "original")]
    Original = 0,
    #[default]
    #[enum_value(
        name = "Continuous: each epoch follows the one before, by the base of its segments",
        nick = "continuous"
    )]
    Continuous = 1,
}

/// What a flush from upstream does to the backlog.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstDiskBufferFlushMode")]
pub enum FlushMode {
    #[default]
    #[enum_value(name = "Keep: it stays, a new epoch begins", nick = "keep")]
    Keep = 0,
    #[enum_value(name = "Discard: it is dropped", nick = "discard")]
    Discard = 1,
}

/// What tells a keyframe.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstDiskBufferKeyframeDetection")]
pub enum KeyframeDetection {
    #[default]
    #[enum_value(name = "Auto: the bitstream of parsed H.264 and H.265, flags otherwise", nick = "auto")]
    Auto = 0,
    #[enum_value(name = "Flags: buffers without DELTA_UNIT", nick = "flags")]
    Flags = 1,
    #[enum_value(name = "Bitstream: NAL units; flags for formats other than H.264 and H.265", nick = "bitstream")]
    Bitstream = 2,
}

impl KeyframeDetection {
    pub fn source(self) -> Source {
        match self {
            KeyframeDetection::Auto | KeyframeDetection::Bitstream => Source::Auto,
            KeyframeDetection::Flags => Source::Flags,
        }
    }
}

/// What the element is doing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstDiskBufferStatus")]
pub enum Status {
    #[default]
    #[enum_value(name = "Stopped: not running", nick = "stopped")]
    Stopped = 0,
    #[enum_value(name = "Starting: nothing was delivered yet", nick = "starting")]
    Starting = 1,
    #[enum_value(name = "Live: downstream keeps up, buffers go through memory", nick = "live")]
    Live = 2,
    #[enum_value(name = "Stalled: downstream has not taken a buffer for 2 s, data spools", nick = "stalled")]
    Stalled = 3,
    #[enum_value(name = "Outage: downstream refuses, data spools, delivery is retried", nick = "outage")]
    Outage = 4,
    #[enum_value(name = "Catching up: the backlog is being read from the disk", nick = "catching-up")]
    CatchingUp = 5,
    #[enum_value(name = "Storage fault: the disk refuses, buffers pass from memory only", nick = "storage-fault")]
    StorageFault = 6,
}

/// The enums of the properties, for the documentation of the plugin.
#[cfg(feature = "v1_18")]
pub fn enum_types() -> [glib::Type; 7] {
    [
        Leaky::static_type(),
        Durability::static_type(),
        AckMode::static_type(),
        TimestampMode::static_type(),
        FlushMode::static_type(),
        KeyframeDetection::static_type(),
        Status::static_type(),
    ]
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub location: Option<PathBuf>,
    pub stream_name: String,
    pub max_size_buffers: u32,
    pub max_size_bytes: u64,
    pub max_size_time: u64,
    pub min_free_bytes: u64,
    pub leaky: Leaky,
    pub durability: Durability,
    pub max_memory_bytes: u64,
    pub ack_mode: AckMode,
    pub replay_overlap: u64,
    pub timestamp_mode: TimestampMode,
    pub flush_mode: FlushMode,
    pub keyframe_detection: KeyframeDetection,
    pub lock_timeout: u64,
}

const DEFAULT_STREAM_NAME: &str = "default";
const SECOND: u64 = 1_000_000_000;

impl Default for Settings {
    fn default() -> Self {
        Self {
            location: None,
            stream_name: DEFAULT_STREAM_NAME.into(),
            max_size_buffers: 0,
            max_size_bytes: 0,
            max_size_time: 0,
            min_free_bytes: 1 << 30,
            leaky: Leaky::default(),
            durability: Durability::default(),
            max_memory_bytes: 8 << 20,
            ack_mode: AckMode::default(),
            replay_overlap: 0,
            timestamp_mode: TimestampMode::default(),
            flush_mode: FlushMode::default(),
            keyframe_detection: KeyframeDetection::default(),
            lock_timeout: 15 * SECOND,
        }
    }
}

impl Settings {
    /// The directory to use: the property, else one below systemd's state directory.
    pub fn resolved_location(&self) -> Option<PathBuf> {
        self.location.clone().or_else(|| {
            let dirs = std::env::var_os("STATE_DIRECTORY")?;
            let first = std::env::split_paths(&dirs).next().filter(|p| !p.as_os_str().is_empty())?;
            Some(first.join("streambuffer"))
        })
    }

    pub fn store_options(&self) -> StoreOptions {
        StoreOptions {
            durability: match self.durability {
                Durability::None => StoreDurability::None,
                Durability::Crash => StoreDurability::Crash,
            },
            min_free_bytes: self.min_free_bytes,
            limit_bytes: self.max_size_bytes,
            lock_timeout: Duration::from_nanos(self.lock_timeout),
            // Until there is a property for it.
            recovery: crate::store::RecoveryMode::Fail,
            ..StoreOptions::default()
        }
    }

    /// Sets one of the writable properties. The type was checked by GObject.
    pub fn set(&mut self, name: &str, value: &glib::Value) {
        fn get<'a, T: glib::value::FromValue<'a>>(value: &'a glib::Value) -> T {
            value.get::<T>().unwrap_or_else(|_| unreachable!("GObject checks the type of a property"))
        }
        match name {
            "location" => self.location = get::<Option<String>>(value).filter(|l| !l.is_empty()).map(Into::into),
            "stream-name" => {
                self.stream_name = get::<Option<String>>(value).unwrap_or_else(|| DEFAULT_STREAM_NAME.into());
            }
            "max-size-buffers" => self.max_size_buffers = get(value),
            "max-size-bytes" => self.max_size_bytes = get(value),
            "max-size-time" => self.max_size_time = get(value),
            "min-free-bytes" => self.min_free_bytes = get(value),
            "leaky" => self.leaky = get(value),
            "durability" => self.durability = get(value),
            "max-memory-bytes" => self.max_memory_bytes = get(value),
            "ack-mode" => self.ack_mode = get(value),
            "replay-overlap" => self.replay_overlap = get(value),
            "timestamp-mode" => self.timestamp_mode = get(value),
            "flush-mode" => self.flush_mode = get(value),
            "keyframe-detection" => self.keyframe_detection = get(value),
            "lock-timeout" => self.lock_timeout = get(value),
            _ => {}
        }
    }

    pub fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "location" => self.location.as_ref().map(|l| l.to_string_lossy().into_owned()).to_value(),
            "stream-name" => self.stream_name.to_value(),
            "max-size-buffers" => self.max_size_buffers.to_value(),
            "max-size-bytes" => self.max_size_bytes.to_value(),
            "max-size-time" => self.max_size_time.to_value(),
            "min-free-bytes" => self.min_free_bytes.to_value(),
            "leaky" => self.leaky.to_value(),
            "durability" => self.durability.to_value(),
            "max-memory-bytes" => self.max_memory_bytes.to_value(),
            "ack-mode" => self.ack_mode.to_value(),
            "replay-overlap" => self.replay_overlap.to_value(),
            "timestamp-mode" => self.timestamp_mode.to_value(),
            "flush-mode" => self.flush_mode.to_value(),
            "keyframe-detection" => self.keyframe_detection.to_value(),
            "lock-timeout" => self.lock_timeout.to_value(),
            _ => return None,
        })
    }
}

pub static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let default = Settings::default();
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
            .blurb("What is dropped when the buffer is full: nothing, new buffers or old ones; whole GOPs")
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("durability", default.durability)
            .nick("Durability")
            .blurb("What an accepted buffer survives; elements that share a store share this setting")
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
            "replay-overlap",
            "Replay overlap (ns)",
            "Media time in ns sent again after an outage or a restart, for sinks that return OK for what they then lose \
             (sockets). Repeats start at a keyframe in any case",
            default.replay_overlap,
        )
        .mutable_ready()
        .build(),
        glib::ParamSpecEnum::builder_with_default("timestamp-mode", default.timestamp_mode)
            .nick("Timestamp mode")
            .blurb(
                "Running time of what was recorded by earlier runs. Continuous suits network sinks, muxers and files \
                 that do not synchronise to the clock: a sink that does stays behind by the backlog for ever",
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
});
