//! Parameter sets: found, kept while they are in force, handed out where they are missing.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Bits, Codec, Framing, Inspection, h265};

/// A parameter set in the data inspected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSet {
    pub kind: SetKind,
    pub id: u8,
    /// Bytes of the NAL unit with its header, without start code or length field.
    pub range: Range<usize>,
}

/// Ordered as they have to be sent: each refers only to kinds before it. The numbers are on disk
/// ([`ParameterSets::to_bytes`]), so they stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetKind {
    Vps = 0,
    Sps = 1,
    SpsExtension = 2,
    SubsetSps = 3,
    Pps = 4,
}

impl SetKind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Vps, Self::Sps, Self::SpsExtension, Self::SubsetSps, Self::Pps]
            .into_iter()
            .find(|&kind| kind as u8 == byte)
    }
}

/// The parameter sets in force: the last NAL unit seen of each kind and id. Of one codec only: begin
/// anew when the caps change.
///
/// A set replaces the one of its kind and id and leaves all others alone. So when an SPS changes, the
/// PPSs that refer to it stay. An encoder that changes its SPS as a rule sends the PPSs again with it;
/// dropping one that was not sent again could cost the picture, keeping a stale one costs a few bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParameterSets {
    sets: BTreeMap<(SetKind, u8), Box<[u8]>>,
}

impl ParameterSets {
    /// Takes over the sets that [`inspect`](super::inspect) found in `data`; true when something changed.
    ///
    /// A set of more than 65,535 bytes is ignored: avcC and hvcC have 16 bits for the length, and the
    /// largest one that makes sense (a PPS with a slice group map) is smaller.
    pub fn update(&mut self, data: &[u8], inspection: &Inspection) -> bool {
        let mut changed = false;
        for set in &inspection.sets {
            let key = (set.kind, set.id);
            let nal = data.get(set.range.clone()).unwrap_or_default();
            let known = self.sets.get(&key).is_some_and(|known| **known == *nal);
            if !known && !nal.is_empty() && nal.len() <= usize::from(u16::MAX) {
                self.sets.insert(key, nal.into());
                changed = true;
            }
        }
        changed
    }

    /// The sets that an access unit needs at its [`insertion_offset`](super::insertion_offset), framed and in order of
    /// transmission: those it does not carry, and before them, carried or not, all that they may refer
    /// to. For an access unit with its SPS but without its PPS that is both: h264parse drops a PPS that
    /// comes before its SPS, and nothing is decoded. Empty if nothing is missing.
    ///
    /// Call [`update`](Self::update) with the access unit first, so that what is repeated equals what
    /// it carries. A set too long for the length field is left out: no stream framed so can carry it.
    pub fn missing_from(&self, inspection: &Inspection, framing: Framing) -> Vec<u8> {
        let carried = |&(kind, id): &(SetKind, u8)| inspection.sets.iter().any(|set| (set.kind, set.id) == (kind, id));
        let mut out = Vec::new();
        if let Some(&(last, _)) = self.sets.keys().rfind(|key| !carried(key)) {
            for (key, nal) in &self.sets {
                if key.0 < last || !carried(key) {
                    framing.push(&mut out, nal);
                }
            }
        }
        out
    }

    /// For the disk: of each set its kind and id (a byte each), length (16 bits, big endian), NAL unit.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (&(kind, id), nal) in &self.sets {
            // Always fits: neither update nor from_bytes lets a longer one in.
            if let Ok(length) = u16::try_from(nal.len()) {
                out.extend([kind as u8, id]);
                out.extend(length.to_be_bytes());
                out.extend(nal.iter());
            }
        }
        out
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote; None for anything it could not have written.
    pub fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let mut sets = BTreeMap::new();
        while !bytes.is_empty() {
            let (&[kind, id, high, low], rest) = bytes.split_first_chunk()?;
            let (nal, rest) = rest.split_at_checked(u16::from_be_bytes([high, low]).into())?;
            let key = (SetKind::from_byte(kind)?, id);
            let ascending = sets.last_key_value().is_none_or(|(last, _)| *last < key);
            if nal.is_empty() || !ascending {
                return None;
            }
            sets.insert(key, nal.into());
            bytes = rest;
        }
        Some(Self { sets })
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }
}

/// Id of a parameter set; None if it cannot be read or is out of its range.
pub(super) fn set_id(codec: Codec, kind: SetKind, nal: &[u8]) -> Option<u8> {
    let header = if codec == Codec::H264 { 1 } else { 2 };
    let mut bits = Bits::new(nal.get(header..)?);
    let (id, max) = match (codec, kind) {
        // H.264 7.3.2.1.1, with which a subset SPS begins too: profile, constraint flags, level.
        (Codec::H264, SetKind::Sps | SetKind::SubsetSps) => {
            bits.skip(24)?;
            (bits.ue()?, 31)
        }
        // 7.3.2.1.2
        (Codec::H264, SetKind::SpsExtension) => (bits.ue()?, 31),
        // 7.3.2.2
        (Codec::H264, SetKind::Pps) => (bits.ue()?, 255),
        // H.265 7.3.2.1
        (Codec::H265, SetKind::Vps) => (bits.bits(4)?, 15),
        // 7.3.2.2.1: VPS id, sps_max_sub_layers_minus1, sps_temporal_id_nesting_flag.
        (Codec::H265, SetKind::Sps) => {
            bits.skip(4)?;
            let sub_layers = bits.bits(3).filter(|&minus1| minus1 <= 6)?;
            bits.skip(1)?;
            h265::skip_profile_tier_level(&mut bits, sub_layers)?;
            (bits.ue()?, 15)
        }
        // 7.3.2.3.1
        (Codec::H265, SetKind::Pps) => (bits.ue()?, 63),
        _ => return None,
    };
    u8::try_from(id).ok().filter(|&id| id <= max)
}
