//! What can be set on `diskbuffer`: the values, and the enums that appear in `gst-inspect-1.0`.

use std::path::PathBuf;
use std::time::Duration;

use gst::glib;
use gst::prelude::*;

use super::resume::Overlap;
use crate::media::keyframe::Source;
use crate::store::{Durability as StoreDurability, RecoveryMode, Retention, StoreOptions};

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
    #[enum_value(name = "Thin: of the oldest GOPs keep the keyframes, then drop the oldest", nick = "thin")]
    Thin = 3,
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
    #[enum_value(
        name = "Interval: as crash; a power cut costs at most what came within sync-interval",
        nick = "interval"
    )]
    Interval = 2,
    #[enum_value(name = "Power: power cuts; each buffer is synced to the disk before upstream goes on", nick = "power")]
    Power = 3,
}

/// What is done about a store that cannot be read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstDiskBufferRecovery")]
pub enum Recovery {
    #[default]
    #[enum_value(name = "Salvage: set the bad part aside, tell what is missing, go on with the rest", nick = "salvage")]
    Salvage = 0,
    #[enum_value(name = "Fail: an error, and the store stays as it is", nick = "fail")]
    Fail = 1,
    #[enum_value(name = "Reset: delete it and start empty; a newer format is set aside", nick = "reset")]
    Reset = 2,
}

/// When a buffer counts as delivered.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstDiskBufferAckMode")]
pub enum AckMode {
    #[default]
    #[enum_value(name = "Push: when downstream has returned OK for it", nick = "push")]
    Push = 0,
    #[enum_value(
        name = "Explicit: when the application says so, by the action \"acknowledge\" or the upstream event diskbuffer-ack",
        nick = "explicit"
    )]
    Explicit = 1,
}

/// When a buffer is stored.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstDiskBufferPersist")]
pub enum Persist {
    #[default]
    #[enum_value(name = "Always: before upstream goes on", nick = "always")]
    Always = 0,
    #[enum_value(
        name = "Spill: once it waits longer than spill-after, memory is full, or the element stops; spares flash",
        nick = "spill"
    )]
    Spill = 1,
}

/// What happens to a stored epoch whose caps downstream refuses.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstDiskBufferOnUnnegotiable")]
pub enum OnUnnegotiable {
    #[default]
    #[enum_value(name = "Hold: as an outage, until downstream takes it", nick = "hold")]
    Hold = 0,
    #[enum_value(name = "Skip: it is left out, reported as dropped", nick = "skip")]
    Skip = 1,
    #[enum_value(name = "Error: the element posts an error", nick = "error")]
    Error = 2,
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
    #[enum_value(
        name = "Restamp: what was held up begins at the running time at which it goes out, one shift per burst",
        nick = "restamp"
    )]
    Restamp = 2,
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
    #[enum_value(name = "Stalled: downstream has not taken a buffer for stall-timeout, data spools", nick = "stalled")]
    Stalled = 3,
    #[enum_value(name = "Outage: downstream refuses, data spools, delivery is retried", nick = "outage")]
    Outage = 4,
    #[enum_value(name = "Catching up: the backlog is being read from the disk", nick = "catching-up")]
    CatchingUp = 5,
    #[enum_value(
        name = "Storage fault: the disk refuses, buffers stay in memory until it takes them",
        nick = "storage-fault"
    )]
    StorageFault = 6,
}

/// The enums of the properties, for the documentation of the plugin.
#[cfg(feature = "v1_18")]
pub fn enum_types() -> [glib::Type; 10] {
    [
        Leaky::static_type(),
        Durability::static_type(),
        AckMode::static_type(),
        Persist::static_type(),
        Recovery::static_type(),
        OnUnnegotiable::static_type(),
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
    pub replay_overlap_bytes: u64,
    pub timestamp_mode: TimestampMode,
    pub flush_mode: FlushMode,
    pub keyframe_detection: KeyframeDetection,
    pub high_watermark: f64,
    pub low_watermark: f64,
    pub persist: Persist,
    pub spill_after: u64,
    pub process_memory_bytes: u64,
    pub stall_timeout: u64,
    pub retry_interval: u64,
    pub retry_max_interval: u64,
    pub on_unnegotiable: OnUnnegotiable,
    pub catch_up_rate: f64,
    pub add_position_meta: bool,
    pub add_reference_timestamp_meta: bool,
    pub max_age: u64,
    pub retention_time: u64,
    pub retention_bytes: u64,
    pub sync_interval: u64,
    pub recovery: Recovery,
    pub lock_timeout: u64,
}

pub const DEFAULT_STREAM_NAME: &str = "default";
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
            replay_overlap_bytes: 0,
            timestamp_mode: TimestampMode::default(),
            flush_mode: FlushMode::default(),
            keyframe_detection: KeyframeDetection::default(),
            high_watermark: 0.9,
            low_watermark: 0.7,
            persist: Persist::default(),
            spill_after: SECOND,
            process_memory_bytes: 128 << 20,
            stall_timeout: 2 * SECOND,
            retry_interval: SECOND / 5,
            retry_max_interval: 10 * SECOND,
            on_unnegotiable: OnUnnegotiable::default(),
            catch_up_rate: 0.0,
            add_position_meta: false,
            add_reference_timestamp_meta: false,
            max_age: 0,
            retention_time: 0,
            retention_bytes: 0,
            sync_interval: SECOND,
            recovery: Recovery::default(),
            lock_timeout: 15 * SECOND,
        }
    }
}

impl Settings {
    /// The directory to use: the property, else one below systemd's state directory.
    pub fn resolved_location(&self) -> Option<PathBuf> {
        crate::location::resolve(self.location.as_deref())
    }

    pub fn overlap(&self) -> Overlap {
        Overlap { time: self.replay_overlap, bytes: self.replay_overlap_bytes }
    }

    pub fn store_options(&self) -> StoreOptions {
        StoreOptions {
            durability: match self.durability {
                Durability::None => StoreDurability::None,
                Durability::Crash => StoreDurability::Crash,
                Durability::Interval => StoreDurability::Interval,
                Durability::Power => StoreDurability::Power,
            },
            sync_interval: Duration::from_nanos(self.sync_interval),
            min_free_bytes: self.min_free_bytes,
            process_memory_bytes: self.process_memory_bytes,
            limit_bytes: self.max_size_bytes,
            lock_timeout: Duration::from_nanos(self.lock_timeout),
            recovery: match self.recovery {
                Recovery::Salvage => RecoveryMode::Salvage,
                Recovery::Fail => RecoveryMode::Fail,
                Recovery::Reset => RecoveryMode::Reset,
            },
            ..StoreOptions::default()
        }
    }

    pub fn retention(&self) -> Retention {
        Retention {
            time: Duration::from_nanos(self.retention_time),
            bytes: self.retention_bytes,
            total_bytes: self.max_size_bytes,
            max_age: Duration::from_nanos(self.max_age),
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
            "replay-overlap-bytes" => self.replay_overlap_bytes = get(value),
            "timestamp-mode" => self.timestamp_mode = get(value),
            "flush-mode" => self.flush_mode = get(value),
            "keyframe-detection" => self.keyframe_detection = get(value),
            "high-watermark" => self.high_watermark = get(value),
            "low-watermark" => self.low_watermark = get(value),
            "persist" => self.persist = get(value),
            "spill-after" => self.spill_after = get(value),
            "process-memory-bytes" => self.process_memory_bytes = get(value),
            "stall-timeout" => self.stall_timeout = get(value),
            "retry-interval" => self.retry_interval = get(value),
            "retry-max-interval" => self.retry_max_interval = get(value),
            "on-unnegotiable" => self.on_unnegotiable = get(value),
            "catch-up-rate" => self.catch_up_rate = get(value),
            "add-position-meta" => self.add_position_meta = get(value),
            "add-reference-timestamp-meta" => self.add_reference_timestamp_meta = get(value),
            "max-age" => self.max_age = get(value),
            "retention-time" => self.retention_time = get(value),
            "retention-bytes" => self.retention_bytes = get(value),
            "sync-interval" => self.sync_interval = get(value),
            "recovery" => self.recovery = get(value),
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
            "replay-overlap-bytes" => self.replay_overlap_bytes.to_value(),
            "timestamp-mode" => self.timestamp_mode.to_value(),
            "flush-mode" => self.flush_mode.to_value(),
            "keyframe-detection" => self.keyframe_detection.to_value(),
            "high-watermark" => self.high_watermark.to_value(),
            "low-watermark" => self.low_watermark.to_value(),
            "persist" => self.persist.to_value(),
            "spill-after" => self.spill_after.to_value(),
            "process-memory-bytes" => self.process_memory_bytes.to_value(),
            "stall-timeout" => self.stall_timeout.to_value(),
            "retry-interval" => self.retry_interval.to_value(),
            "retry-max-interval" => self.retry_max_interval.to_value(),
            "on-unnegotiable" => self.on_unnegotiable.to_value(),
            "catch-up-rate" => self.catch_up_rate.to_value(),
            "add-position-meta" => self.add_position_meta.to_value(),
            "add-reference-timestamp-meta" => self.add_reference_timestamp_meta.to_value(),
            "max-age" => self.max_age.to_value(),
            "retention-time" => self.retention_time.to_value(),
            "retention-bytes" => self.retention_bytes.to_value(),
            "sync-interval" => self.sync_interval.to_value(),
            "recovery" => self.recovery.to_value(),
            "lock-timeout" => self.lock_timeout.to_value(),
            _ => return None,
        })
    }
}
