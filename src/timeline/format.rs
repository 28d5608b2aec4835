//! What the integers that a stream carries as stamps mean, and how they are unwrapped.
//!
//! A stamp is a count of ticks; a tick is a fraction of a second; the count may be cut to 32 or 33 bits; it counts from an
//! epoch. All arithmetic is in integers of 128 bits, so that a stamp comes out exact to the tick (nanoseconds are rounded
//! down, as `gst_util_uint64_scale` does).
//!
//! Unwrapping takes the whole count nearest to the last accepted one, in either direction: a stamp below the last one is
//! as good as one above it, so that B-frames around a wrap, and below zero in the first GOP, come out right. Arrival has a
//! say only where more than half a wrap has passed (13 h of 33 bits at 90 kHz): a camera that was off for the night.

use thiserror::Error;

use super::Ns;

/// Seconds from 1900, where NTP counts from, to 1970.
const NTP_TO_UNIX: i128 = 2_208_988_800;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FormatError {
    #[error("A timestamp unit needs a numerator and a denominator above 0, such as 1/1000 for milliseconds.")]
    Unit,
    #[error("Timestamps wrap at 0 (not at all), 32 or 33 bits, not at {0}.")]
    Wrap(u32),
}

/// Seconds in a tick, as a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Unit {
    numerator: u32,
    denominator: u32,
}

impl Unit {
    pub const NANOSECOND: Self = Self { numerator: 1, denominator: 1_000_000_000 };
    pub const MICROSECOND: Self = Self { numerator: 1, denominator: 1_000_000 };
    pub const MILLISECOND: Self = Self { numerator: 1, denominator: 1000 };
    pub const MPEG: Self = Self { numerator: 1, denominator: 90_000 };
    pub const SECOND: Self = Self { numerator: 1, denominator: 1 };

    pub fn new(numerator: u32, denominator: u32) -> Result<Self, FormatError> {
        if numerator == 0 || denominator == 0 {
            return Err(FormatError::Unit);
        }
        Ok(Self { numerator, denominator })
    }

    pub fn numerator(self) -> u32 {
        self.numerator
    }

    pub fn denominator(self) -> u32 {
        self.denominator
    }

    /// How long one tick is, at least 1 ns.
    pub fn tick(self) -> Ns {
        self.span(1).max(Ns(1))
    }

    /// Ticks as a span of time.
    pub fn span(self, ticks: i128) -> Ns {
        Ns::from_i128(self.nanos(ticks))
    }

    fn nanos(self, ticks: i128) -> i128 {
        // 2^64 ticks of 2^32 s fit with room to spare; what is beyond is not a stamp.
        let ticks = ticks.clamp(-(1 << 65), 1 << 65);
        (ticks * i128::from(self.numerator)).saturating_mul(1_000_000_000).div_euclid(i128::from(self.denominator))
    }

    /// A span in ticks, rounded to the nearest.
    pub fn ticks(self, span: Ns) -> i128 {
        let scale = i128::from(self.numerator) * 1_000_000_000;
        (i128::from(span.0) * i128::from(self.denominator) + scale / 2).div_euclid(scale)
    }
}

/// How many bits of the count a stamp carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Wrap {
    #[default]
    Never,
    Bits32,
    Bits33,
}

impl Wrap {
    pub fn from_bits(bits: u32) -> Result<Self, FormatError> {
        match bits {
            0 => Ok(Self::Never),
            32 => Ok(Self::Bits32),
            33 => Ok(Self::Bits33),
            bits => Err(FormatError::Wrap(bits)),
        }
    }

    pub fn bits(self) -> u32 {
        match self {
            Self::Never => 0,
            Self::Bits32 => 32,
            Self::Bits33 => 33,
        }
    }
}

/// Where stamps count from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Epoch {
    /// 1970: streams with it share a timeline as they are.
    Unix,
    /// 1900; given out as since 1970.
    Ntp,
    /// The stream's own zero: only arrival tells where that is.
    StreamStart,
    /// Running time of the pipeline.
    Pipeline,
}

impl Epoch {
    /// Whether stamps of two streams can be compared as they are.
    pub fn is_shared(self) -> bool {
        self != Self::StreamStart
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Format {
    pub unit: Unit,
    pub wrap: Wrap,
    pub epoch: Epoch,
}

impl Format {
    pub const PIPELINE: Self = Self { unit: Unit::NANOSECOND, wrap: Wrap::Never, epoch: Epoch::Pipeline };
    pub const EPOCH_SECONDS: Self = Self { unit: Unit::SECOND, wrap: Wrap::Never, epoch: Epoch::Unix };
    pub const EPOCH_MILLIS: Self = Self { unit: Unit::MILLISECOND, wrap: Wrap::Never, epoch: Epoch::Unix };
    pub const HLS: Self = Self { unit: Unit::MPEG, wrap: Wrap::Bits33, epoch: Epoch::StreamStart };
    pub const RTMP: Self = Self { unit: Unit::MILLISECOND, wrap: Wrap::Bits32, epoch: Epoch::StreamStart };
    pub const RELATIVE_SECONDS: Self = Self { unit: Unit::SECOND, wrap: Wrap::Never, epoch: Epoch::StreamStart };

    /// The presets by the nick of `timestamp-format`.
    pub const PRESETS: [(&'static str, Self); 6] = [
        ("pipeline", Self::PIPELINE),
        ("epoch-seconds", Self::EPOCH_SECONDS),
        ("epoch-millis", Self::EPOCH_MILLIS),
        ("hls", Self::HLS),
        ("rtmp", Self::RTMP),
        ("relative-seconds", Self::RELATIVE_SECONDS),
    ];

    pub fn preset(name: &str) -> Option<Self> {
        Self::PRESETS.iter().find(|(nick, _)| *nick == name).map(|(_, format)| *format)
    }

    /// Whether this count, cut or not, is within 146 years of the epoch: beyond that nothing was taken, and nanoseconds end.
    pub fn is_sane(self, raw: u64) -> bool {
        self.wrap != Wrap::Never || self.time(raw.into()).abs() < Ns(1 << 62)
    }

    /// The preset that this is, if it is one.
    pub fn nick(self) -> Option<&'static str> {
        Self::PRESETS.iter().find(|(_, format)| *format == self).map(|(nick, _)| *nick)
    }

    /// Since the epoch, for NTP since 1970.
    pub fn time(self, ticks: i128) -> Ns {
        let nanos = self.unit.nanos(ticks);
        let shift = if self.epoch == Epoch::Ntp { NTP_TO_UNIX * 1_000_000_000 } else { 0 };
        Ns::from_i128(nanos.saturating_sub(shift))
    }
}

/// Gives the whole count of stamps whose upper bits are cut off.
#[derive(Debug, Clone)]
pub struct Unwrapper {
    format: Format,
    last: Option<(i128, Option<Ns>)>,
}

impl Unwrapper {
    pub fn new(format: Format) -> Self {
        Self { format, last: None }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// The whole count, nearest to the last accepted one. The first one is taken as it is.
    pub fn unwrap(&self, raw: u64, arrival: Option<Ns>) -> i128 {
        let bits = self.format.wrap.bits();
        if bits == 0 {
            return raw.into();
        }
        let (wrap, raw) = (1i128 << bits, i128::from(raw & ((1 << bits) - 1)));
        let Some((last, before)) = self.last else { return raw };
        let mut step = (raw - last).rem_euclid(wrap);
        if step >= wrap / 2 {
            step -= wrap;
        }
        if let (Some(now), Some(before)) = (arrival, before) {
            let passed = self.format.unit.ticks(now - before);
            if passed >= wrap / 2 {
                let turns = (passed - step + wrap / 2).div_euclid(wrap);
                // Believed only where it agrees: after a pause stamps go on as if nothing had been.
                let slack = passed / 1024 + self.format.unit.ticks(Ns::from_secs(10));
                if (step + turns * wrap - passed).abs() <= slack {
                    step += turns * wrap;
                }
            }
        }
        last + step
    }

    /// What comes next is near to this.
    pub fn accept(&mut self, ticks: i128, arrival: Option<Ns>) {
        self.last = Some((ticks, arrival));
    }

    pub fn push(&mut self, raw: u64, arrival: Option<Ns>) -> i128 {
        let ticks = self.unwrap(raw, arrival);
        self.accept(ticks, arrival);
        ticks
    }
}
