//! Where a decoder can start: from the flags of buffers, or from the bitstream when it can be read.

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
    pub leading: bool,
    /// The parameter sets in force are others now.
    pub sets_changed: bool,
}

/// Looks at the buffers of one stream; begins anew with its caps.
#[derive(Debug, Default)]
pub struct Detector {
    source: Source,
    stream: Option<(Codec, Framing)>,
    sets: ParameterSets,
}

impl Detector {
    pub fn new(source: Source, caps: Option<&gst::CapsRef>) -> Self {
        Self { source, stream: caps.and_then(bitstream), sets: ParameterSets::default() }
    }

    pub fn sets(&self) -> &ParameterSets {
        &self.sets
    }

    pub fn inspect(&mut self, flags: gst::BufferFlags, payload: &[&[u8]]) -> Verdict {
        let by_flags = if flags.contains(gst::BufferFlags::DELTA_UNIT) { Sync::None } else { Sync::Closed };
        let Some((codec, framing)) = self.stream else {
            return Verdict { sync: by_flags, ..Verdict::default() };
        };
        let merged;
        let data = match payload {
            [] => &[],
            [data] => *data,
            parts => {
                merged = parts.concat();
                merged.as_slice()
            }
        };
        let found = nal::inspect(codec, framing, data);
        let sets_changed = !found.sets.is_empty() && self.sets.update(data, &found);
        let sync = match self.source {
            Source::Auto => found.sync,
            Source::Flags => by_flags,
        };
        Verdict { sync, leading: found.leading, sets_changed }
    }
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

/// The access unit with the parameter sets in front that it lacks; `None` when it lacks none.
pub fn with_sets(caps: &gst::CapsRef, sets: &ParameterSets, buffer: &gst::BufferRef) -> Option<gst::Buffer> {
    if sets.is_empty() {
        return None;
    }
    let (codec, framing) = bitstream(caps)?;
    let map = buffer.map_readable().ok()?;
    let found: Inspection = nal::inspect(codec, framing, &map);
    let missing = sets.missing_from(&found, framing);
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
        assert_eq!(detector.inspect(gst::BufferFlags::DELTA_UNIT, &[&key]).sync, Sync::Closed);
        assert_eq!(detector.inspect(gst::BufferFlags::empty(), &[&delta]).sync, Sync::None);
        let mut detector = Detector::new(Source::Flags, Some(&h264()));
        assert_eq!(detector.inspect(gst::BufferFlags::empty(), &[&delta]).sync, Sync::Closed);
    }

    #[test]
    fn scattered_memory_is_read_as_one() {
        let mut detector = Detector::new(Source::Auto, Some(&h264()));
        let key = annex_b(&[&SPS, &PPS, &IDR]);
        let (a, b) = key.split_at(13);
        let verdict = detector.inspect(gst::BufferFlags::DELTA_UNIT, &[a, b]);
        assert_eq!((verdict.sync, verdict.sets_changed), (Sync::Closed, true));
        assert!(!detector.inspect(gst::BufferFlags::DELTA_UNIT, &[&key]).sets_changed);
    }

    #[test]
    fn without_a_known_bitstream_flags_count() {
        gst::init().unwrap();
        let chunks = gst::Caps::builder("video/x-h264").field("stream-format", "byte-stream").build();
        for caps in [None, Some(gst::Caps::new_empty_simple("video/x-vp8")), Some(chunks)] {
            let mut detector = Detector::new(Source::Auto, caps.as_deref());
            assert_eq!(detector.inspect(gst::BufferFlags::empty(), &[]).sync, Sync::Closed);
            assert_eq!(detector.inspect(gst::BufferFlags::DELTA_UNIT, &[b"x"]).sync, Sync::None);
        }
    }

    #[test]
    fn a_keyframe_gets_the_sets_it_lacks() {
        let caps = h264();
        let mut detector = Detector::new(Source::Auto, Some(&caps));
        detector.inspect(gst::BufferFlags::empty(), &[&annex_b(&[&SPS, &PPS, &IDR])]);
        let bare = gst::Buffer::from_slice(annex_b(&[&IDR]));
        let complete = with_sets(&caps, detector.sets(), &bare).unwrap();
        assert_eq!(complete.map_readable().unwrap().as_slice(), annex_b(&[&SPS, &PPS, &IDR]));
        assert!(with_sets(&caps, detector.sets(), &complete).is_none());
    }
}
