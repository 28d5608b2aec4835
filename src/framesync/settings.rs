//! What can be set on `framesync` and on its pads. Values are declarative: the order in which they are set does not
//! matter.

use std::collections::BTreeSet;

use gst::glib;
use gst::prelude::*;

use crate::timeline::Ns;
use crate::timeline::format::{Epoch, Format, Unit, Wrap};
use crate::timeline::line::Policy as LinePolicy;
use crate::timeline::sets::Join;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstFrameSyncMode")]
pub enum Mode {
    #[default]
    #[enum_value(name = "Normalize: each stream for itself, onto running time", nick = "normalize")]
    Normalize = 0,
    #[enum_value(name = "Align: frames of the same moment leave together, as sets", nick = "align")]
    Align = 1,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstFrameSyncTimestampSource")]
pub enum Source {
    #[default]
    #[enum_value(name = "PTS and DTS of the buffers", nick = "pts")]
    Pts = 0,
    #[enum_value(name = "GstReferenceTimestampMeta with Unix or NTP time", nick = "reference-meta")]
    ReferenceMeta = 1,
    #[enum_value(name = "A field of a GstCustomMeta, see timestamp-field (GStreamer 1.20)", nick = "meta-field")]
    MetaField = 2,
    #[enum_value(name = "When buffers arrive", nick = "arrival")]
    Arrival = 3,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstFrameSyncTimestampFormat")]
pub enum TimestampFormat {
    #[default]
    #[enum_value(
        name = "Nanoseconds in the stream's segment, as GStreamer's own elements make them",
        nick = "pipeline"
    )]
    Pipeline = 0,
    #[enum_value(name = "Whole seconds since 1970", nick = "epoch-seconds")]
    EpochSeconds = 1,
    #[enum_value(name = "Milliseconds since 1970", nick = "epoch-millis")]
    EpochMillis = 2,
    #[enum_value(name = "HLS, MPEG-TS: 1/90000 s, 33 bits, from the stream's own zero", nick = "hls")]
    Hls = 3,
    #[enum_value(name = "RTMP: 1/1000 s, 32 bits, from the stream's own zero", nick = "rtmp")]
    Rtmp = 4,
    #[enum_value(name = "Whole seconds from the stream's own zero", nick = "relative-seconds")]
    RelativeSeconds = 5,
    #[enum_value(name = "Found out: a reference meta, else how fast live stamps grow", nick = "auto")]
    Auto = 6,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstFrameSyncTimestampEpoch")]
pub enum TimestampEpoch {
    #[default]
    #[enum_value(name = "As timestamp-format says", nick = "format")]
    Format = 0,
    #[enum_value(name = "1970", nick = "unix")]
    Unix = 1,
    #[enum_value(name = "1900", nick = "ntp")]
    Ntp = 2,
    #[enum_value(name = "The stream's own zero", nick = "stream-start")]
    StreamStart = 3,
    #[enum_value(name = "Running time of the pipeline", nick = "pipeline")]
    Pipeline = 4,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstFrameSyncPolicy")]
pub enum Policy {
    #[default]
    #[enum_value(name = "One frame a set, each in one set only", nick = "one")]
    One = 0,
    #[enum_value(name = "The frame nearest to the set, again if need be", nick = "nearest")]
    Nearest = 1,
    #[enum_value(name = "All frames since the set before", nick = "all-since")]
    AllSince = 2,
}

impl Policy {
    pub fn join(self) -> Join {
        match self {
            Self::One => Join::One,
            Self::Nearest => Join::Nearest,
            Self::AllSince => Join::AllSince,
        }
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstFrameSyncOutlierPolicy")]
pub enum OutlierPolicy {
    #[default]
    #[enum_value(name = "Correct: to where cadence has it", nick = "correct")]
    Correct = 0,
    #[enum_value(name = "Drop the buffer, unless its stream is inter-coded", nick = "drop")]
    Drop = 1,
    #[enum_value(name = "Pass: as it says", nick = "pass")]
    Pass = 2,
}

impl OutlierPolicy {
    pub fn line(self) -> LinePolicy {
        match self {
            Self::Correct => LinePolicy::Correct,
            Self::Drop => LinePolicy::Drop,
            Self::Pass => LinePolicy::Pass,
        }
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstFrameSyncFill")]
pub enum Fill {
    #[enum_value(name = "Nothing", nick = "none")]
    None = 0,
    #[default]
    #[enum_value(name = "A GAP event", nick = "gap")]
    Gap = 1,
    #[enum_value(name = "The last frame again; a GAP event in inter-coded streams", nick = "last")]
    Last = 2,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstFrameSyncStatus")]
pub enum Status {
    #[default]
    #[enum_value(name = "Stopped: not running", nick = "stopped")]
    Stopped = 0,
    #[enum_value(name = "Waiting: nothing has come yet", nick = "waiting")]
    Waiting = 1,
    #[enum_value(name = "Locked: streams are on one timeline", nick = "locked")]
    Locked = 2,
    #[enum_value(name = "Unlocked: times of streams cannot be related, they pass independently", nick = "unlocked")]
    Unlocked = 3,
}

fn get<'a, T: glib::value::FromValue<'a>>(value: &'a glib::Value) -> T {
    value.get::<T>().unwrap_or_else(|_| unreachable!("GObject checks the type of a property"))
}

/// What each pad may have of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamSettings {
    pub source: Source,
    pub format: TimestampFormat,
    pub epoch: TimestampEpoch,
    /// 0/1: as the format says.
    pub unit: gst::Fraction,
    /// -1: as the format says.
    pub wrap_bits: i32,
    pub field: Option<String>,
    pub policy: Policy,
    pub outlier_policy: OutlierPolicy,
    pub offset: i64,
    pub max_slew_ppm: u32,
    pub fill: Fill,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            source: Source::default(),
            format: TimestampFormat::default(),
            epoch: TimestampEpoch::default(),
            unit: gst::Fraction::new(0, 1),
            wrap_bits: -1,
            field: None,
            policy: Policy::default(),
            outlier_policy: OutlierPolicy::default(),
            offset: 0,
            max_slew_ppm: 2000,
            fill: Fill::default(),
        }
    }
}

impl StreamSettings {
    /// Sets one of the properties that pads have too. Their type was checked by GObject.
    pub fn set(&mut self, name: &str, value: &glib::Value) {
        match name {
            "timestamp-source" => self.source = get(value),
            "timestamp-format" => self.format = get(value),
            "timestamp-epoch" => self.epoch = get(value),
            "timestamp-unit" => self.unit = get(value),
            "timestamp-field" => self.field = get::<Option<String>>(value).filter(|text| !text.trim().is_empty()),
            "wrap-bits" => {
                let bits = get(value);
                if bits == -1 || u32::try_from(bits).is_ok_and(|bits| Wrap::from_bits(bits).is_ok()) {
                    self.wrap_bits = bits;
                } else {
                    gst::warning!(super::imp::CAT, "wrap-bits={bits} is ignored: timestamps wrap at 0, 32 or 33 bits");
                }
            }
            "policy" => self.policy = get(value),
            "outlier-policy" => self.outlier_policy = get(value),
            "offset" => self.offset = get(value),
            "max-slew-ppm" => self.max_slew_ppm = get(value),
            "fill" => self.fill = get(value),
            _ => {}
        }
    }

    pub fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "timestamp-source" => self.source.to_value(),
            "timestamp-format" => self.format.to_value(),
            "timestamp-epoch" => self.epoch.to_value(),
            "timestamp-unit" => self.unit.to_value(),
            "timestamp-field" => self.field.to_value(),
            "wrap-bits" => self.wrap_bits.to_value(),
            "policy" => self.policy.to_value(),
            "outlier-policy" => self.outlier_policy.to_value(),
            "offset" => self.offset.to_value(),
            "max-slew-ppm" => self.max_slew_ppm.to_value(),
            "fill" => self.fill.to_value(),
            _ => return None,
        })
    }

    /// The format that stamps are read in; none where it has to be found out.
    pub fn format(&self) -> Option<Format> {
        let mut format = match (self.source, self.format) {
            (Source::ReferenceMeta, _) => {
                return Some(Format { unit: Unit::NANOSECOND, wrap: Wrap::Never, epoch: Epoch::Unix });
            }
            (_, TimestampFormat::Auto) if self.is_as_format() => return None,
            (_, TimestampFormat::Pipeline | TimestampFormat::Auto) => Format::PIPELINE,
            (_, TimestampFormat::EpochSeconds) => Format::EPOCH_SECONDS,
            (_, TimestampFormat::EpochMillis) => Format::EPOCH_MILLIS,
            (_, TimestampFormat::Hls) => Format::HLS,
            (_, TimestampFormat::Rtmp) => Format::RTMP,
            (_, TimestampFormat::RelativeSeconds) => Format::RELATIVE_SECONDS,
        };
        if let (Ok(numerator), Ok(denominator)) = (self.unit.numer().try_into(), self.unit.denom().try_into())
            && let Ok(unit) = Unit::new(numerator, denominator)
        {
            format.unit = unit;
        }
        if let Some(wrap) = u32::try_from(self.wrap_bits).ok().and_then(|bits| Wrap::from_bits(bits).ok()) {
            format.wrap = wrap;
        }
        match self.epoch {
            TimestampEpoch::Format => {}
            TimestampEpoch::Unix => format.epoch = Epoch::Unix,
            TimestampEpoch::Ntp => format.epoch = Epoch::Ntp,
            TimestampEpoch::StreamStart => format.epoch = Epoch::StreamStart,
            TimestampEpoch::Pipeline => format.epoch = Epoch::Pipeline,
        }
        Some(format)
    }

    fn is_as_format(&self) -> bool {
        self.unit.numer() == 0 && self.wrap_bits < 0 && self.epoch == TimestampEpoch::Format
    }
}

/// What a pad has of its own; the rest is the element's.
#[derive(Debug, Default)]
pub struct Own {
    values: StreamSettings,
    names: BTreeSet<String>,
}

impl Own {
    pub fn set(&mut self, name: &str, value: &glib::Value) {
        self.values.set(name, value);
        self.names.insert(name.to_string());
    }

    pub fn over(&self, defaults: &StreamSettings) -> StreamSettings {
        let mut settings = defaults.clone();
        for (name, value) in self.names.iter().filter_map(|name| Some((name, self.values.get(name)?))) {
            settings.set(name, &value);
        }
        settings
    }
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub mode: Mode,
    /// Name of a sink pad, `clock`, or nothing.
    pub reference: Option<String>,
    pub reference_interval: u64,
    pub latency: u64,
    pub max_interval: u64,
    pub stream_timeout: u64,
    pub min_streams: u32,
    pub max_held_buffers: u32,
    pub snap: bool,
    pub streams: StreamSettings,
    /// Counts changes, also of what pads have of their own.
    pub generation: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            reference: None,
            reference_interval: 40_000_000,
            latency: 200_000_000,
            max_interval: 0,
            stream_timeout: 2_000_000_000,
            min_streams: 1,
            max_held_buffers: 256,
            snap: false,
            streams: StreamSettings::default(),
            generation: 1,
        }
    }
}

impl Settings {
    pub fn set(&mut self, name: &str, value: &glib::Value) {
        match name {
            "mode" => self.mode = get(value),
            "reference" => self.reference = get::<Option<String>>(value).filter(|text| !text.trim().is_empty()),
            "reference-interval" => self.reference_interval = get(value),
            "latency" => self.latency = get(value),
            "max-interval" => self.max_interval = get(value),
            "stream-timeout" => self.stream_timeout = get(value),
            "min-streams" => self.min_streams = get(value),
            "max-held-buffers" => self.max_held_buffers = get(value),
            "snap" => self.snap = get(value),
            name => self.streams.set(name, value),
        }
    }

    pub fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "mode" => self.mode.to_value(),
            "reference" => self.reference.to_value(),
            "reference-interval" => self.reference_interval.to_value(),
            "latency" => self.latency.to_value(),
            "max-interval" => self.max_interval.to_value(),
            "stream-timeout" => self.stream_timeout.to_value(),
            "min-streams" => self.min_streams.to_value(),
            "max-held-buffers" => self.max_held_buffers.to_value(),
            "snap" => self.snap.to_value(),
            name => return self.streams.get(name),
        })
    }

    /// 0 means none.
    pub fn bound(ns: u64) -> Option<Ns> {
        (ns > 0).then(|| Ns::from(ns))
    }
}
