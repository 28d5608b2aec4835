//! Where a decoder can start: from the flags of buffers, or from the bitstream when it can be read.
//!
//! H.264 and H.265 are read when buffers are access units or NAL units by their caps. Of other codecs (VP8, VP9, AV1, JPEG,
//! audio) the flags are believed, also where they lie: an encoder of those that marks every buffer DELTA_UNIT, or none, needs
//! a parser behind it. The same holds for H.264 and H.265 whose caps lack the stream format or the alignment: put
//! `h264parse` or `h265parse` before the element.

use crate::media::nal::{self, Codec, Framing, Inspection, ParameterSets};
use crate::store::Sync;

/// What decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// The bitstream of H.264 and H.265, flags otherwise.
    #[default]
    Auto,
    Flags,
}

/// What is known of a buffer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Verdict {
    pub sync: Sync,
    /// Shown before the open sync point that it follows, and perhaps referring back before it.
    pub leading: bool,
    /// The parameter sets in force are others now.
    pub sets_changed: bool,
    /// H.264 intra refresh: from here on decoding takes so many frames to be right. No sync point.
    #[allow(dead_code)]
    pub recovery_frames: Option<u32>,
}

/// Looks at the buffers of one stream; begins anew with its caps.
#[derive(Debug, Default)]
pub struct Detector {
    source: Source,
    stream: Option<(Codec, Framing)>,
    sets: ParameterSets,
    /// Flags say nothing of leading pictures, which may follow in this codec.
    reorders: bool,
    /// Said by a recovery point SEI whose picture has not come yet (`alignment=nal`).
    recovery_frames: Option<u32>,
    /// Buffers are NAL units, of which the first of a picture may be the only one with a PTS.
    by_unit: bool,
    /// With those, the last PTS.
    pts: Option<gst::ClockTime>,
    /// PTS of the open sync point that leading pictures may follow.
    open: Option<gst::ClockTime>,
}

/// Parameter sets and SEI seldom take more: of scattered memory no more is put together to find the first slice.
const HEAD: usize = 4096;

impl Detector {
    pub fn new(source: Source, caps: Option<&gst::CapsRef>) -> Self {
        let stream = caps.and_then(bitstream);
        let by_unit = caps.and_then(|caps| caps.structure(0)?.get("alignment").ok()) == Some("nal");
        Self { source, stream, reorders: caps.is_some_and(reorders), by_unit, ..Self::default() }
    }

    /// As if the caps had said so, a NAL unit in each buffer.
    #[allow(dead_code)]
    pub fn reading(source: Source, codec: Codec, framing: Framing) -> Self {
        Self { source, stream: Some((codec, framing)), by_unit: true, ..Self::default() }
    }

    pub fn sets(&self) -> &ParameterSets {
        &self.sets
    }

    pub fn inspect(&mut self, flags: gst::BufferFlags, pts: Option<gst::ClockTime>, payload: &[&[u8]]) -> Verdict {
        let by_flags = match flags.contains(gst::BufferFlags::DELTA_UNIT) {
            true => Sync::None,
            false if self.reorders => Sync::Open,
            false => Sync::Closed,
        };
        let Some((codec, framing)) = self.stream else {
            return Verdict { sync: by_flags, leading: self.is_leading(by_flags, pts), ..Verdict::default() };
        };
        if flags.contains(gst::BufferFlags::DISCONT) {
            self.recovery_frames = None;
        }
        let pts = if self.by_unit { pts.or(self.pts) } else { pts };
        self.pts = pts;
        let (found, sets_changed) = self.look(codec, framing, payload);
        let recovery_frames = found.recovery_frames;
        self.recovery_frames = recovery_frames.filter(|_| !found.has_picture);
        let sync = match self.source {
            Source::Auto => found.sync,
            Source::Flags => by_flags,
        };
        let by_time = self.is_leading(sync, pts);
        // H.265 says which pictures refer back; those that do not are worth keeping.
        let leading = if codec == Codec::H265 { found.leading } else { by_time };
        Verdict { sync, leading, sets_changed, recovery_frames: recovery_frames.filter(|&frames| frames > 0) }
    }

    /// What the payload holds, and whether it changed the sets in force. Of scattered memory only the beginning is put
    /// together.
    fn look(&mut self, codec: Codec, framing: Framing, payload: &[&[u8]]) -> (Inspection, bool) {
        let mut try_head = |data: &[u8], total| {
            let found = nal::inspect_head(codec, framing, self.recovery_frames, data, total)?;
            let sets_changed = !found.sets.is_empty() && self.sets.update(data, &found);
            Some((found, sets_changed))
        };
        let first = payload.first().copied().unwrap_or_default();
        let total = payload.iter().map(|part| part.len()).sum();
        if let Some(known) = try_head(first, total) {
            return known;
        }
        let mut head = Vec::with_capacity(HEAD);
        for part in payload {
            head.extend_from_slice(&part[..part.len().min(HEAD - head.len())]);
        }
        if let Some(known) = try_head(&head, total) {
            return known;
        }
        let whole = payload.concat();
        try_head(&whole, whole.len()).unwrap_or_else(|| (nal::inspect(codec, framing, &[]), false))
    }

    /// By time: presented before the open sync point that was last.
    fn is_leading(&mut self, sync: Sync, pts: Option<gst::ClockTime>) -> bool {
        match sync {
            Sync::Closed => self.open = None,
            Sync::Open => self.open = pts,
            Sync::None => return self.open.is_some_and(|open| pts.is_some_and(|pts| pts < open)),
        }
        false
    }
}

/// Pictures that follow a keyframe may be shown before it, and refer to what was before it, and nothing says so.
pub fn reorders(caps: &gst::CapsRef) -> bool {
    caps.structure(0).is_some_and(|s| match s.name().as_str() {
        "video/x-h264" | "video/x-h265" | "video/x-h266" | "video/x-wmv" => true,
        // MPEG-1, -2 and -4 part 2.
        "video/mpeg" => true,
        _ => false,
    })
}

/// Codec and framing when single NAL units or access units can be told apart in each buffer.
pub fn bitstream(caps: &gst::CapsRef) -> Option<(Codec, Framing)> {
    let s = caps.structure(0)?;
    let codec = match s.name().as_str() {
        "video/x-h264" => Codec::H264,
        "video/x-h265" => Codec::H265,
        _ => return None,
    };
    let framing = match s.get::<&str>("stream-format").ok()? {
        // Without alignment a buffer may begin anywhere.
        "byte-stream" if s.has_field("alignment") => Framing::ByteStream,
        "avc" | "avc3" | "hvc1" | "hev1" => Framing::Length(length_size(codec, s)),
        _ => return None,
    };
    Some((codec, framing))
}

/// Size of the NAL length field, from the configuration record (ISO/IEC 14496-15 5.3.3.1 and 8.3.3.1).
fn length_size(codec: Codec, s: &gst::StructureRef) -> u8 {
    let at = match codec {
        Codec::H264 => 4,
        Codec::H265 => 21,
    };
    s.get::<gst::Buffer>("codec_data")
        .ok()
        .and_then(|data| data.map_readable().ok()?.as_slice().get(at).copied())
        .map_or(4, |byte| (byte & 3) + 1)
}

/// A sync point with what it lacks in front, for a decoder that begins there: parameter sets in force, and for an intra
/// picture of H.264 the recovery point SEI, which may have come in a buffer of its own. `None` when it lacks nothing.
pub fn with_sets(caps: &gst::CapsRef, sets: &ParameterSets, buffer: &gst::BufferRef) -> Option<gst::Buffer> {
    let (codec, framing) = bitstream(caps)?;
    let map = buffer.map_readable().ok()?;
    let found = nal::inspect(codec, framing, &map);
    let mut missing = sets.missing_from(&found, framing);
    if found.unmarked {
        framing.push(&mut missing, nal::RECOVERY_POINT);
    }
    let at = nal::insertion_offset(codec, framing, &map);
    drop(map);
    if missing.is_empty() {
        return None;
    }
    super::buffer::insert(buffer, at, missing).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS: [u8; 6] = [0x67, 66, 0, 30, 0x80, 0x80];
    const PPS: [u8; 2] = [0x68, 0xC0];
    const IDR: [u8; 3] = [0x65, 0xB8, 0x40];
    const P: [u8; 3] = [0x41, 0x9A, 0x40];

    fn annex_b(units: &[&[u8]]) -> Vec<u8> {
        units.iter().flat_map(|nal| [&[0, 0, 0, 1], *nal].concat()).collect()
    }

    fn h264() -> gst::Caps {
        gst::init().unwrap();
        gst::Caps::builder("video/x-h264").field("stream-format", "byte-stream").field("alignment", "au").build()
    }

    #[test]
    fn the_bitstream_counts_where_flags_lie() {
        let mut detector = Detector::new(Source::Auto, Some(&h264()));
        let key = annex_b(&[&SPS, &PPS, &IDR]);
        let delta = annex_b(&[&P]);
        assert_eq!(detector.inspect(gst::BufferFlags::DELTA_UNIT, None, &[&key]).sync, Sync::Closed);
        assert_eq!(detector.inspect(gst::BufferFlags::empty(), None, &[&delta]).sync, Sync::None);
        let mut detector = Detector::new(Source::Flags, Some(&h264()));
        assert_eq!(detector.inspect(gst::BufferFlags::empty(), None, &[&delta]).sync, Sync::Open);
    }

    #[test]
    fn scattered_memory_is_read_as_one() {
        let mut detector = Detector::new(Source::Auto, Some(&h264()));
        let key = annex_b(&[&SPS, &PPS, &IDR]);
        let (a, b) = key.split_at(13);
        let verdict = detector.inspect(gst::BufferFlags::DELTA_UNIT, None, &[a, b]);
        assert_eq!((verdict.sync, verdict.sets_changed), (Sync::Closed, true));
        assert!(!detector.inspect(gst::BufferFlags::DELTA_UNIT, None, &[&key]).sets_changed);
    }

    #[test]
    fn without_a_known_bitstream_flags_count() {
        gst::init().unwrap();
        let chunks = gst::Caps::builder("video/x-h264").field("stream-format", "byte-stream").build();
        let vp8 = gst::Caps::new_empty_simple("video/x-vp8");
        for (caps, sync) in [(None, Sync::Closed), (Some(vp8), Sync::Closed), (Some(chunks), Sync::Open)] {
            let mut detector = Detector::new(Source::Auto, caps.as_deref());
            assert_eq!(detector.inspect(gst::BufferFlags::empty(), None, &[]).sync, sync);
            assert_eq!(detector.inspect(gst::BufferFlags::DELTA_UNIT, None, &[b"x"]).sync, Sync::None);
        }
    }

    #[test]
    fn a_keyframe_gets_the_sets_it_lacks() {
        let caps = h264();
        let mut detector = Detector::new(Source::Auto, Some(&caps));
        detector.inspect(gst::BufferFlags::empty(), None, &[&annex_b(&[&SPS, &PPS, &IDR])]);
        let bare = gst::Buffer::from_slice(annex_b(&[&IDR]));
        let complete = with_sets(&caps, detector.sets(), &bare).unwrap();
        assert_eq!(complete.map_readable().unwrap().as_slice(), annex_b(&[&SPS, &PPS, &IDR]));
        assert!(with_sets(&caps, detector.sets(), &complete).is_none());
    }

    const I: [u8; 3] = [0x41, 0xB8, 0x40];
    const RECOVERY: [u8; 5] = [0x06, 6, 1, 0xC4, 0x80];
    const REFRESH: [u8; 5] = [0x06, 6, 1, 0b0101_0010, 0x80];
    const DELIMITER: [u8; 2] = [0x09, 0xF0];

    fn nal_units(stream_format: &str) -> gst::Caps {
        gst::init().unwrap();
        gst::Caps::builder("video/x-h264").field("stream-format", stream_format).field("alignment", "nal").build()
    }

    fn at(ns: u64) -> Option<gst::ClockTime> {
        Some(gst::ClockTime::from_nseconds(ns))
    }

    /// Verdicts on NAL units that come one by one.
    fn one_by_one(units: &[(u64, &[u8])]) -> Vec<Verdict> {
        let mut detector = Detector::new(Source::Auto, Some(&nal_units("byte-stream")));
        let look =
            |&(pts, unit): &(u64, &[u8])| detector.inspect(gst::BufferFlags::DELTA_UNIT, at(pts), &[&annex_b(&[unit])]);
        units.iter().map(look).collect()
    }

    #[test]
    fn a_recovery_point_in_a_buffer_of_its_own_counts_for_the_next_picture_only() {
        let units: [(u64, &[u8]); 6] = [(1, &DELIMITER), (1, &RECOVERY), (1, &PPS), (1, &I), (2, &I), (3, &P)];
        let syncs: Vec<_> = one_by_one(&units).iter().map(|verdict| verdict.sync).collect();
        assert_eq!(syncs, [Sync::None, Sync::None, Sync::None, Sync::Open, Sync::None, Sync::None]);
        let lost = one_by_one(&[(1, &RECOVERY), (2, &DELIMITER), (2, &I)]);
        assert!(lost.iter().all(|verdict| verdict.sync == Sync::None));
    }

    #[test]
    fn a_discontinuity_ends_what_was_said_before() {
        let mut detector = Detector::new(Source::Auto, Some(&nal_units("byte-stream")));
        detector.inspect(gst::BufferFlags::empty(), None, &[&annex_b(&[&RECOVERY])]);
        assert_eq!(detector.inspect(gst::BufferFlags::DISCONT, None, &[&annex_b(&[&I])]).sync, Sync::None);
    }

    #[test]
    fn a_gradual_refresh_is_told_and_no_sync_point() {
        let verdicts = one_by_one(&[(1, &REFRESH), (1, &I), (2, &P)]);
        let told: Vec<_> = verdicts.iter().map(|verdict| (verdict.sync, verdict.recovery_frames)).collect();
        assert_eq!(told, [(Sync::None, Some(1)), (Sync::None, Some(1)), (Sync::None, None)]);
    }

    #[test]
    fn leading_pictures_are_those_shown_before_an_open_point_and_after_it() {
        let later_slice = [0x41, 0x4A, 0xC0];
        let units: [(u64, &[u8]); 10] = [
            (8, &P),
            (20, &RECOVERY),
            (20, &I),
            (20, &later_slice),
            (12, &P),
            (16, &PPS),
            (16, &P),
            (24, &P),
            (30, &IDR),
            (28, &P),
        ];
        let leading: Vec<_> = one_by_one(&units).iter().map(|verdict| verdict.leading).collect();
        assert_eq!(leading, [false, false, false, false, true, true, true, false, false, false]);
    }

    #[test]
    fn by_flags_a_keyframe_may_have_leading_pictures() {
        gst::init().unwrap();
        let caps = gst::Caps::builder("video/mpeg").field("mpegversion", 2i32).build();
        let mut detector = Detector::new(Source::Auto, Some(&caps));
        let delta = gst::BufferFlags::DELTA_UNIT;
        assert_eq!(detector.inspect(gst::BufferFlags::empty(), at(9), &[]).sync, Sync::Open);
        assert!(detector.inspect(delta, at(7), &[]).leading);
        assert!(!detector.inspect(delta, at(12), &[]).leading);
    }

    #[test]
    fn an_intra_picture_gets_the_recovery_point_it_lacks() {
        for (caps, framing) in [(nal_units("byte-stream"), Framing::ByteStream), (nal_units("avc"), Framing::Length(4))]
        {
            let framed = |units: &[&[u8]]| {
                let mut data = Vec::new();
                units.iter().for_each(|unit| framing.push(&mut data, unit));
                data
            };
            let mut detector = Detector::new(Source::Auto, Some(&caps));
            for unit in [&SPS[..], &PPS, &RECOVERY] {
                detector.inspect(gst::BufferFlags::empty(), None, &[&framed(&[unit])]);
            }
            assert_eq!(detector.inspect(gst::BufferFlags::empty(), None, &[&framed(&[&I])]).sync, Sync::Open);
            let bare = gst::Buffer::from_slice(framed(&[&I]));
            let complete = with_sets(&caps, detector.sets(), &bare).unwrap();
            assert_eq!(complete.map_readable().unwrap().as_slice(), framed(&[&SPS, &PPS, &RECOVERY, &I]));
            assert!(with_sets(&caps, detector.sets(), &complete).is_none());
        }
    }

    #[test]
    fn memory_scattered_anyhow_says_the_same() {
        let slice = [&IDR[..], &[7; 6000]].concat();
        let long_message = [&[0x06, 5, 255, 255, 255, 255][..], &[9; 5000]].concat();
        for units in
            [&[&SPS[..], &PPS, &slice][..], &[&SPS, &PPS, &RECOVERY, &I], &[&SPS, &long_message, &PPS, &slice], &[&P]]
        {
            for (framing, format) in [(Framing::ByteStream, "byte-stream"), (Framing::Length(4), "avc")] {
                let mut data = Vec::new();
                units.iter().for_each(|unit| framing.push(&mut data, unit));
                let caps = nal_units(format);
                let look = |parts: &[&[u8]]| {
                    let mut detector = Detector::new(Source::Auto, Some(&caps));
                    let verdict = detector.inspect(gst::BufferFlags::DELTA_UNIT, None, parts);
                    (verdict.sync, verdict.sets_changed, detector.sets().clone())
                };
                let whole = look(&[&data]);
                for step in [1, 2, 3, 7, 29, 1000, 5000] {
                    assert_eq!(look(&data.chunks(step).collect::<Vec<_>>()), whole, "{format} {step}");
                }
            }
        }
    }
}
