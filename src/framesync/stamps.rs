//! What a buffer says about its time, as `timestamp-source` has it. Payload is never looked at.

use super::settings::{Source, StreamSettings, TimestampFormat};
use crate::media::reference;
use crate::timeline::Ns;
use crate::timeline::format::Format;

/// Running times may be below zero (DTS before the first PTS); counts may not.
pub const BIAS: i64 = 1 << 52;

/// What a buffer carries.
#[derive(Debug, Clone, Copy, Default)]
pub struct Carried {
    /// The integers in PTS and DTS.
    pub pts: Option<u64>,
    pub dts: Option<u64>,
    /// The same as running time, above [`BIAS`]; without a TIME segment as they are.
    pub running_pts: Option<u64>,
    pub running_dts: Option<u64>,
    /// Ns since 1970, from a reference timestamp meta.
    pub utc: Option<u64>,
    pub field: Option<u64>,
}

/// Running time of a stamp in this segment, also where the segment has not begun.
pub fn running(segment: Option<&gst::FormattedSegment<gst::ClockTime>>, stamp: gst::ClockTime) -> Ns {
    // Backwards from nowhere is no place either.
    let placed = segment.filter(|segment| segment.rate() > 0.0 || segment.stop().is_some());
    let Some(segment) = placed else { return Ns::from(stamp.nseconds()) };
    match segment.to_running_time_full(stamp) {
        Some(gst::Signed::Positive(time)) => Ns::from(time.nseconds()),
        Some(gst::Signed::Negative(time)) => Ns::ZERO - Ns::from(time.nseconds()),
        None => Ns::from(stamp.nseconds()),
    }
}

fn biased(time: Ns) -> u64 {
    (time + Ns(BIAS)).0.max(0).unsigned_abs()
}

impl Carried {
    pub fn read(
        buffer: &gst::BufferRef,
        segment: Option<&gst::FormattedSegment<gst::ClockTime>>,
        settings: &StreamSettings,
    ) -> Self {
        let wants_utc = settings.source == Source::ReferenceMeta || settings.format == TimestampFormat::Auto;
        let utc = if wants_utc { reference::utc(buffer).and_then(|at| u64::try_from(at).ok()) } else { None };
        let field = match (settings.source, &settings.field) {
            (Source::MetaField, Some(path)) => field(buffer, path),
            _ => None,
        };
        // Played backwards, frames begin with their end.
        let backwards = segment.is_some_and(|segment| segment.rate() < 0.0);
        let length = buffer.duration().filter(|_| backwards).unwrap_or(gst::ClockTime::ZERO);
        let running =
            |stamp: Option<gst::ClockTime>| stamp.map(|stamp| biased(running(segment, stamp.saturating_add(length))));
        Self {
            pts: buffer.pts().map(gst::ClockTime::nseconds),
            dts: buffer.dts().map(gst::ClockTime::nseconds),
            running_pts: running(buffer.pts()),
            running_dts: running(buffer.dts()),
            utc,
            field,
        }
    }

    /// PTS and DTS as counts of this format.
    pub fn stamps(&self, source: Source, format: Format) -> (Option<u64>, Option<u64>) {
        match source {
            Source::Pts if format == Format::PIPELINE => (self.running_pts, self.running_dts),
            Source::Pts => (self.pts, self.dts),
            Source::ReferenceMeta => {
                // Decoding keeps its distance from capture.
                let dts = match (self.utc, self.running_pts, self.running_dts) {
                    (Some(utc), Some(pts), Some(dts)) => (utc + dts).checked_sub(pts),
                    _ => None,
                };
                (self.utc, dts)
            }
            Source::MetaField => (self.field, None),
            Source::Arrival => (None, None),
        }
    }
}

/// `meta-name/field-name`.
#[cfg(feature = "v1_20")]
fn field(buffer: &gst::BufferRef, path: &str) -> Option<u64> {
    let (name, field) = path.split_once('/')?;
    let meta = gst::meta::CustomMeta::from_buffer(buffer, name).ok()?;
    let value = meta.structure().value(field).ok()?;
    value
        .get::<u64>()
        .ok()
        .or_else(|| value.get::<i64>().ok().and_then(|n| n.try_into().ok()))
        .or_else(|| value.get::<u32>().ok().map(Into::into))
        .or_else(|| value.get::<i32>().ok().and_then(|n| n.try_into().ok()))
}

#[cfg(not(feature = "v1_20"))]
fn field(_buffer: &gst::BufferRef, _path: &str) -> Option<u64> {
    None
}

/// How buffers of a stream depend on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Content {
    /// Each for itself: may be left out, or given again.
    #[default]
    Frames,
    /// In order, but each is missed where it is left out: sound.
    Continuous,
    /// On others, and not in their order. Encoded video that is not known to be intra only counts as that, also in packets.
    InterCoded,
}

impl Content {
    pub fn of(caps: &gst::CapsRef) -> Self {
        const INTRA: [&str; 4] = ["video/x-raw", "video/x-bayer", "video/x-prores", "video/x-dnxhd"];
        match caps.structure(0).map(|s| s.name().as_str()) {
            Some("application/x-rtp") => Self::InterCoded,
            Some(name) if name.starts_with("audio/") => Self::Continuous,
            Some(name) if name.starts_with("video/") && !INTRA.contains(&name) => Self::InterCoded,
            _ => Self::Frames,
        }
    }
}
