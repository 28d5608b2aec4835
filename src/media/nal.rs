//! What a buffer of H.264 or H.265 holds: random access points and parameter sets.
//!
//! Whoever keeps access units on disk must later start again at one from which a decoder needs nothing
//! that came before. [`inspect`] says for each buffer whether it is such a point, whether it is a leading
//! picture that cannot be decoded after one, and which parameter sets it carries. [`ParameterSets`]
//! remembers the sets in force and hands out those that a resume point lacks.
//!
//! Promises:
//! - Reading stops at the first slice (VCL NAL unit). Parameter sets and SEI come before it (H.264
//!   7.4.1.2.3, H.265 7.4.2.4.4), so of a large access unit only the first bytes are touched.
//! - Nothing is allocated for a buffer without parameter sets.
//! - Any input gives an answer. A length field that is cut off or points past the end of the data ends the
//!   reading, and what was found before it counts; a NAL unit with its forbidden bit set is passed over.
//!
//! It never decodes, never judges whether a parameter set is valid beyond its id, and never looks past the
//! base layer: sets with `nuh_layer_id` > 0 are not kept, slices of other layers or views are no sync points.
//!
//! A buffer is one access unit, or one NAL unit (`alignment=nal`). In the latter case only the first slice of a
//! picture is a sync point, and of H.264 only IDR pictures are: a recovery point SEI travels in a buffer of
//! its own, which has no picture, and the I slice after it no longer shows that it is one.
//! First means macroblock 0, so pictures in arbitrary slice order (H.264 Baseline) may go unnoticed.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::media::bits::{Bits, find_start_code};
use crate::store::Sync;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    H264,
    H265,
}

/// How NAL units are delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Start codes (Annex B of both specifications): `stream-format=byte-stream`.
    ByteStream,
    /// A big-endian length of 1 to 4 bytes before each NAL unit: avc, avc3, hvc1, hev1. With any other size
    /// nothing is found and nothing is framed.
    Length(u8),
}

/// What a buffer holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    /// Whether decoding can start here.
    ///
    /// `Closed`: H.264 IDR; H.265 IDR, BLA_W_RADL and BLA_N_LP, which no RASL picture may follow.
    ///
    /// `Open`: pictures after it in decoding order may refer back, but all precede it in output order. H.265
    /// CRA and BLA_W_LP, the two that RASL pictures may be associated with (7.4.2.2); a decoder drops those of a
    /// BLA by itself, but they are as useless as those of a CRA, so both are called alike. H.264 intra
    /// picture with a recovery point SEI whose `recovery_frame_cnt` is 0 (D.2.8). The SEI alone is not
    /// enough: with periodic intra refresh it stands on a P picture and recovery takes many frames. Nor is
    /// an I slice alone: encoders put one on a scene cut, and P pictures after it may still refer to what
    /// was before.
    pub sync: Sync,
    /// H.265 RASL picture: refers to pictures before the random access point it is associated with. H.264 does
    /// not mark such pictures, so always false there.
    pub leading: bool,
    /// A slice was found, be it of the base layer or another.
    pub has_picture: bool,
    /// Parameter sets before the first slice, as they come.
    pub sets: Vec<ParameterSet>,
}

/// Where a parameter set lies in the data inspected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSet {
    pub kind: SetKind,
    pub id: u8,
    /// Bytes of the NAL unit, with its header, without start code, length field and trailing zeros.
    pub range: Range<usize>,
}

/// Ordered as they have to be sent: each refers only to kinds before it. The numbers are stored on disk
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
    const ALL: [Self; 5] = [
        Self::Vps,
        Self::Sps,
        Self::SpsExtension,
        Self::SubsetSps,
        Self::Pps,
    ];
}

/// What a NAL unit is to us (Table 7-1 of both specifications).
enum Role {
    Slice,
    Set(SetKind),
    Sei,
    Delimiter,
    Other,
}

/// Reads a buffer up to its first slice.
pub fn inspect(codec: Codec, framing: Framing, data: &[u8]) -> Inspection {
    let mut found = Inspection {
        sync: Sync::None,
        leading: false,
        has_picture: false,
        sets: Vec::new(),
    };
    let mut recovery_point = false;
    let mut units = Units::new(framing, data);
    while let Some(nal) = units.next() {
        match role(codec, nal) {
            Role::Slice => {
                found.has_picture = true;
                match codec {
                    Codec::H264 => {
                        found.sync = h264_sync(nal, recovery_point).unwrap_or(Sync::None)
                    }
                    Codec::H265 => {
                        found.sync = h265_sync(nal).unwrap_or(Sync::None);
                        found.leading = matches!(h265_type(nal), Some(8 | 9));
                    }
                }
                break;
            }
            Role::Set(kind) => {
                let range = units.range();
                let id = data
                    .get(range.clone())
                    .and_then(|nal| set_id(codec, kind, nal));
                if let Some(id) = id {
                    found.sets.push(ParameterSet { kind, id, range });
                }
            }
            Role::Sei => recovery_point |= holds_recovery_point(nal).is_some(),
            Role::Delimiter | Role::Other => {}
        }
    }
    found
}

/// Offset in `data` at which parameter sets have to be inserted: just after a leading access unit delimiter,
/// which must stay the first NAL unit (H.264 7.4.1.2.3, H.265 7.4.2.4.4), else 0.
pub fn insertion_offset(codec: Codec, framing: Framing, data: &[u8]) -> usize {
    let mut units = Units::new(framing, data);
    match units.next().map(|nal| role(codec, nal)) {
        Some(Role::Delimiter) => units.range().end,
        _ => 0,
    }
}

/// The parameter sets in force: the last NAL unit seen of each kind and id.
///
/// A set replaces the one of its kind and id and leaves all others alone. So when an SPS changes, the PPSs that
/// refer to it stay: both specifications let them, an encoder that sends a new SPS sends its PPSs again in the
/// same access unit, and to drop one that was still needed would cost the picture, while a stale one costs a few
/// bytes. Sets of one codec only: begin anew when the caps change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParameterSets {
    sets: BTreeMap<(SetKind, u8), Box<[u8]>>,
}

impl ParameterSets {
    /// Takes over the sets that [`inspect`] found in `data`; true when something changed.
    ///
    /// A set longer than 65,535 bytes is ignored: avcC and hvcC have 16 bits for the length, and the largest
    /// set that makes sense (a PPS with a slice group map) is smaller.
    pub fn update(&mut self, data: &[u8], inspection: &Inspection) -> bool {
        let mut changed = false;
        for set in &inspection.sets {
            let Some(nal) = data.get(set.range.clone()) else {
                continue;
            };
            let key = (set.kind, set.id);
            let known = self.sets.get(&key).is_some_and(|kept| **kept == *nal);
            if !known && !nal.is_empty() && nal.len() <= usize::from(u16::MAX) {
                self.sets.insert(key, nal.into());
                changed = true;
            }
        }
        changed
    }

    /// The sets that an access unit needs in front of it (at [`insertion_offset`]), framed and in order of
    /// transmission: those it does not carry, and the ones these may refer to, carried or not. An access unit
    /// that brings its SPS but not its PPS gets both: parsers drop a PPS that arrives before its SPS.
    /// Empty if nothing is missing. Call [`update`](Self::update) with the access unit first, so that what is
    /// repeated equals what it carries.
    ///
    /// A set too long for the length field is left out: no stream framed that way can carry it.
    pub fn missing_from(&self, inspection: &Inspection, framing: Framing) -> Vec<u8> {
        let missing = |&(kind, id): &(SetKind, u8)| {
            !inspection
                .sets
                .iter()
                .any(|set| set.kind == kind && set.id == id)
        };
        let mut out = Vec::new();
        if let Some(&(last, _)) = self.sets.keys().rfind(|key| missing(key)) {
            for (key, nal) in &self.sets {
                if key.0 < last || missing(key) {
                    push_framed(&mut out, framing, nal);
                }
            }
        }
        out
    }

    /// For the disk: per set its kind and id (a byte each), its length (16 bits, big endian) and the NAL unit.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (&(kind, id), nal) in &self.sets {
            // Always fits: neither update nor from_bytes lets longer ones in.
            let Ok(length) = u16::try_from(nal.len()) else {
                continue;
            };
            out.extend([kind as u8, id]);
            out.extend(length.to_be_bytes());
            out.extend(nal.iter());
        }
        out
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote; None for anything it could not have written.
    pub fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let mut sets = BTreeMap::new();
        while !bytes.is_empty() {
            let (&[kind, id, high, low], rest) = bytes.split_first_chunk()?;
            let (nal, rest) = rest.split_at_checked(u16::from_be_bytes([high, low]).into())?;
            let kind = SetKind::ALL
                .into_iter()
                .find(|known| *known as u8 == kind)?;
            let ascending = sets
                .last_key_value()
                .is_none_or(|(last, _)| *last < (kind, id));
            if nal.is_empty() || !ascending {
                return None;
            }
            sets.insert((kind, id), nal.into());
            bytes = rest;
        }
        Some(Self { sets })
    }

    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }
}

fn push_framed(out: &mut Vec<u8>, framing: Framing, nal: &[u8]) {
    match framing {
        Framing::ByteStream => out.extend([0, 0, 0, 1]),
        Framing::Length(size @ 1..=4) => {
            let length = (nal.len() as u64).to_be_bytes();
            let Some((high, low)) = length.split_at_checked(length.len() - usize::from(size))
            else {
                return;
            };
            if high.iter().any(|&byte| byte != 0) {
                return;
            }
            out.extend(low);
        }
        Framing::Length(_) => return,
    }
    out.extend(nal);
}

fn role(codec: Codec, nal: &[u8]) -> Role {
    match codec {
        Codec::H264 => match h264_type(nal) {
            // 19 to 21 belong to auxiliary pictures and to other layers and views, and follow the primary picture.
            Some(1..=5 | 19..=21) => Role::Slice,
            Some(6) => Role::Sei,
            Some(7) => Role::Set(SetKind::Sps),
            Some(8) => Role::Set(SetKind::Pps),
            Some(9) => Role::Delimiter,
            Some(13) => Role::Set(SetKind::SpsExtension),
            Some(15) => Role::Set(SetKind::SubsetSps),
            _ => Role::Other,
        },
        // SEI is of no use here: H.265 says in the NAL unit type what H.264 needs a recovery point for.
        Codec::H265 => match h265_type(nal) {
            Some(0..=31) => Role::Slice,
            Some(_) if !h265_base_layer(nal) => Role::Other,
            Some(32) => Role::Set(SetKind::Vps),
            Some(33) => Role::Set(SetKind::Sps),
            Some(34) => Role::Set(SetKind::Pps),
            Some(35) => Role::Delimiter,
            _ => Role::Other,
        },
    }
}

/// `nal_unit_type` of H.264 (7.3.1); None if the forbidden bit is set.
fn h264_type(nal: &[u8]) -> Option<u8> {
    nal.first()
        .filter(|&&header| header & 0x80 == 0)
        .map(|header| header & 0x1f)
}

/// `nal_unit_type` of H.265 (7.3.1.2); None if the forbidden bit is set or the temporal id is the forbidden one.
fn h265_type(nal: &[u8]) -> Option<u8> {
    let (&[first, second], _) = nal.split_first_chunk()?;
    (first & 0x80 == 0 && second & 0x07 != 0).then_some(first >> 1)
}

/// `nuh_layer_id` is 0.
fn h265_base_layer(nal: &[u8]) -> bool {
    matches!(nal, [first, second, ..] if first & 1 == 0 && second & 0xf8 == 0)
}

/// Slice header, H.264 7.3.3.
fn h264_sync(nal: &[u8], recovery_point: bool) -> Option<Sync> {
    let kind = h264_type(nal)?;
    // Partitions B and C begin with a slice id, other layers have headers of their own.
    if !matches!(kind, 1 | 2 | 5) {
        return None;
    }
    let mut bits = Bits::new(nal.get(1..)?);
    let first_mb_in_slice = bits.ue()?;
    let slice_type = bits.ue()?;
    if first_mb_in_slice != 0 {
        return None;
    }
    // I, SI, and the values saying that all slices of the picture are of this type (Table 7-6).
    let intra = matches!(slice_type, 2 | 4 | 7 | 9);
    match kind {
        5 => Some(Sync::Closed),
        _ if recovery_point && intra => Some(Sync::Open),
        _ => None,
    }
}

/// Slice segment header, H.265 7.3.6.1: its first bit is `first_slice_segment_in_pic_flag`.
fn h265_sync(nal: &[u8]) -> Option<Sync> {
    let kind = h265_type(nal)?;
    let first = Bits::new(nal.get(2..)?).bits(1)? == 1;
    if !first || !h265_base_layer(nal) {
        return None;
    }
    match kind {
        16 | 21 => Some(Sync::Open),
        17..=20 => Some(Sync::Closed),
        _ => None,
    }
}

/// Some if one of the messages of an H.264 SEI NAL unit (7.3.2.3.1) is a recovery point (`payloadType` 6,
/// D.1.8) with `recovery_frame_cnt` 0.
fn holds_recovery_point(nal: &[u8]) -> Option<()> {
    let mut bits = Bits::new(nal.get(1..)?);
    loop {
        // Ends in None: the trailing bits read as a type that no size follows.
        let payload_type = bits.sei_number()?;
        let payload_size = bits.sei_number()?;
        let mut payload = bits.clone();
        // A 0 is a single bit, so a payload of one byte cannot be overrun.
        if payload_type == 6 && payload_size > 0 && payload.ue() == Some(0) {
            return Some(());
        }
        for _ in 0..payload_size {
            bits.byte()?;
        }
    }
}

/// Id of a parameter set; None if it cannot be read or is out of its range.
fn set_id(codec: Codec, kind: SetKind, nal: &[u8]) -> Option<u8> {
    let header = match codec {
        Codec::H264 => 1,
        Codec::H265 => 2,
    };
    let mut bits = Bits::new(nal.get(header..)?);
    let (id, max) = match (codec, kind) {
        // H.264 7.3.2.1.1: profile_idc, constraint flags, level_idc. A subset SPS begins with the same.
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
        // 7.3.2.2.1: VPS id, sps_max_sub_layers_minus1, nesting flag
        (Codec::H265, SetKind::Sps) => {
            bits.skip(4)?;
            let sub_layers = bits.bits(3).filter(|&more| more <= 6)?;
            bits.skip(1)?;
            skip_profile_tier_level(&mut bits, sub_layers)?;
            (bits.ue()?, 15)
        }
        // 7.3.2.3.1
        (Codec::H265, SetKind::Pps) => (bits.ue()?, 63),
        _ => return None,
    };
    u8::try_from(id).ok().filter(|&id| id <= max)
}

/// `profile_tier_level(1, sub_layers)`, H.265 7.3.3.
fn skip_profile_tier_level(bits: &mut Bits, sub_layers: u32) -> Option<()> {
    const PROFILE: u32 = 88;
    const LEVEL: u32 = 8;
    bits.skip(PROFILE + LEVEL)?;
    let mut size = 0;
    for _ in 0..sub_layers {
        size += bits.bits(1)? * PROFILE;
        size += bits.bits(1)? * LEVEL;
    }
    if sub_layers > 0 {
        // reserved_zero_2bits up to the eighth sub-layer
        bits.skip(2 * (8 - sub_layers))?;
    }
    bits.skip(size)
}

/// Walks the NAL units of a buffer. In a byte stream the end of a NAL unit is looked for only when it is
/// needed, since that means going through all of it.
struct Units<'a> {
    framing: Framing,
    data: &'a [u8],
    /// Where the search for the next NAL unit begins.
    at: usize,
    /// Start of the current NAL unit.
    start: usize,
}

impl<'a> Units<'a> {
    fn new(framing: Framing, data: &'a [u8]) -> Self {
        Self {
            framing,
            data,
            at: 0,
            start: 0,
        }
    }

    /// The next NAL unit that is not empty; in a byte stream up to the end of the data, so that it has to
    /// be read with [`Bits`], which stop at the next start code.
    fn next(&mut self) -> Option<&'a [u8]> {
        match self.framing {
            Framing::ByteStream => loop {
                self.start = find_start_code(self.data, self.at)? + 3;
                self.at = self.start;
                let nal = self.data.get(self.start..)?;
                // Two zeros begin a start code or trailing zeros, never a header.
                if !matches!(nal, [] | [0] | [0, 0, ..]) {
                    return Some(nal);
                }
            },
            Framing::Length(size @ 1..=4) => loop {
                let (field, rest) = self.data.get(self.at..)?.split_at_checked(size.into())?;
                let length = field
                    .iter()
                    .fold(0, |length, &byte| length << 8 | u64::from(byte));
                let nal = rest.get(..usize::try_from(length).ok()?)?;
                self.start = self.at + field.len();
                self.at = self.start + nal.len();
                if !nal.is_empty() {
                    return Some(nal);
                }
            },
            Framing::Length(_) => None,
        }
    }

    /// Bytes of the current NAL unit, without the zeros that may follow it in a byte stream (B.1).
    fn range(&mut self) -> Range<usize> {
        if self.framing == Framing::ByteStream {
            self.at = find_start_code(self.data, self.start).unwrap_or(self.data.len());
            let nal = self.data.get(self.start..self.at).unwrap_or_default();
            let length = nal
                .iter()
                .rposition(|&byte| byte != 0)
                .map_or(0, |last| last + 1);
            return self.start..self.start + length;
        }
        self.start..self.at
    }
}

#[cfg(test)]
mod tests {
    use super::Codec::{H264, H265};
    use super::Framing::{ByteStream, Length};
    use super::*;

    const FRAMINGS: [Framing; 5] = [ByteStream, Length(1), Length(2), Length(3), Length(4)];

    /// Bits of an RBSP.
    #[derive(Clone, Default)]
    struct Rbsp(Vec<bool>);

    impl Rbsp {
        fn u(mut self, count: u32, value: u64) -> Self {
            self.0
                .extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
            self
        }

        fn ue(self, value: u64) -> Self {
            let length = (value + 1).ilog2();
            self.u(length, 0).u(length + 1, value + 1)
        }

        /// Adds trailing bits, emulation prevention and the header.
        fn nal(self, header: &[u8]) -> Vec<u8> {
            let mut bits = self.u(1, 1).0;
            bits.resize(bits.len().next_multiple_of(8), false);
            let mut nal = header.to_vec();
            for byte in bits
                .chunks(8)
                .map(|byte| byte.iter().fold(0, |all, &bit| all << 1 | u8::from(bit)))
            {
                if byte <= 3 && nal.ends_with(&[0, 0]) {
                    nal.push(3);
                }
                nal.push(byte);
            }
            nal
        }
    }

    fn rbsp() -> Rbsp {
        Rbsp::default()
    }

    fn h264_slice(header: u8, first_mb: u64, slice_type: u64) -> Vec<u8> {
        rbsp()
            .ue(first_mb)
            .ue(slice_type)
            .ue(0)
            .u(32, 0xdead_beef)
            .nal(&[header])
    }

    fn idr() -> Vec<u8> {
        h264_slice(0x65, 0, 7)
    }

    fn sps(id: u64) -> Vec<u8> {
        rbsp()
            .u(24, 0x4d_0028)
            .ue(id)
            .ue(0)
            .u(32, 0x1234_5678)
            .nal(&[0x67])
    }

    fn pps(id: u64) -> Vec<u8> {
        rbsp().ue(id).ue(0).u(16, 0xabcd).nal(&[0x68])
    }

    /// One SEI NAL unit with a message for each type and payload.
    fn sei(messages: &[(u64, &[u8])]) -> Vec<u8> {
        let number = |bits: Rbsp, value: u64| {
            (0..value / 255)
                .fold(bits, |bits, _| bits.u(8, 255))
                .u(8, value % 255)
        };
        messages
            .iter()
            .fold(rbsp(), |bits, (kind, payload)| {
                let bits = number(number(bits, *kind), payload.len() as u64);
                payload
                    .iter()
                    .fold(bits, |bits, &byte| bits.u(8, byte.into()))
            })
            .nal(&[0x06])
    }

    /// recovery_frame_cnt 0, exact_match_flag 1
    const RECOVERY: (u64, &[u8]) = (6, &[0b1100_0100]);

    /// First slice segment of an H.265 picture.
    fn h265_slice(kind: u8) -> Vec<u8> {
        rbsp().u(1, 1).u(32, 0x4ead_beef).nal(&[kind << 1, 1])
    }

    fn vps(id: u64) -> Vec<u8> {
        rbsp().u(4, id).u(28, 0xc01_ffff).nal(&[0x40, 1])
    }

    /// Sub-layer i has a profile if bit 2i of `present` is set, a level if bit 2i + 1 is.
    fn h265_sps(id: u64, sub_layers: u32, present: u32) -> Vec<u8> {
        let mut bits = rbsp()
            .u(4, 0)
            .u(3, sub_layers.into())
            .u(1, 1)
            .u(32, 0x0160_0000)
            .u(64, 93);
        for layer in 0..sub_layers {
            bits = bits.u(1, (present >> (2 * layer) & 1).into());
            bits = bits.u(1, (present >> (2 * layer + 1) & 1).into());
        }
        if sub_layers > 0 {
            bits = bits.u(2 * (8 - sub_layers), 0);
        }
        for layer in 0..sub_layers {
            bits = bits.u(88 * (present >> (2 * layer) & 1), 0);
            bits = bits.u(8 * (present >> (2 * layer + 1) & 1), 0xff);
        }
        bits.ue(id).ue(1).u(24, 0x77_7777).nal(&[0x42, 1])
    }

    fn h265_pps(id: u64) -> Vec<u8> {
        rbsp().ue(id).ue(0).u(16, 0xabcd).nal(&[0x44, 1])
    }

    fn framed(framing: Framing, nals: &[Vec<u8>]) -> Vec<u8> {
        let mut data = Vec::new();
        for nal in nals {
            push_framed(&mut data, framing, nal);
        }
        data
    }

    /// Inspects the NAL units in every framing that can hold them and expects the same but for the ranges.
    fn inspected(codec: Codec, nals: &[Vec<u8>]) -> Inspection {
        let data = framed(ByteStream, nals);
        let found = inspect(codec, ByteStream, &data);
        for framing in FRAMINGS
            .into_iter()
            .filter(|&f| f != Length(1) || nals.iter().all(|nal| nal.len() < 256))
        {
            let other_data = framed(framing, nals);
            let other = inspect(codec, framing, &other_data);
            assert_eq!(
                (other.sync, other.leading),
                (found.sync, found.leading),
                "{framing:?}"
            );
            assert_eq!(other.has_picture, found.has_picture);
            assert_eq!(other.sets.len(), found.sets.len());
            for (set, expected) in other.sets.iter().zip(&found.sets) {
                assert_eq!((set.kind, set.id), (expected.kind, expected.id));
                assert_eq!(other_data[set.range.clone()], data[expected.range.clone()]);
            }
        }
        found
    }

    fn sync(codec: Codec, nals: &[Vec<u8>]) -> Sync {
        inspected(codec, nals).sync
    }

    fn ids(inspection: &Inspection) -> Vec<(SetKind, u8)> {
        inspection
            .sets
            .iter()
            .map(|set| (set.kind, set.id))
            .collect()
    }

    #[test]
    fn h264_idr_is_closed() {
        assert_eq!(sync(H264, &[idr()]), Sync::Closed);
        assert_eq!(
            sync(
                H264,
                &[vec![0x09, 0xf0], sps(0), pps(0), sei(&[RECOVERY]), idr()]
            ),
            Sync::Closed
        );
        assert_eq!(sync(H264, &[h264_slice(0x41, 0, 5)]), Sync::None);
    }

    #[test]
    fn h264_recovery_point_on_an_intra_picture_is_open() {
        for (slice_type, expected) in (0..10).zip([0, 0, 1, 0, 1, 0, 0, 1, 0, 1]) {
            let expected = if expected == 1 {
                Sync::Open
            } else {
                Sync::None
            };
            let slice = h264_slice(0x41, 0, slice_type);
            assert_eq!(
                sync(H264, &[sei(&[RECOVERY]), slice]),
                expected,
                "slice_type {slice_type}"
            );
        }
    }

    #[test]
    fn h264_intra_picture_without_recovery_point_is_none() {
        assert_eq!(sync(H264, &[h264_slice(0x41, 0, 7)]), Sync::None);
        assert_eq!(
            sync(
                H264,
                &[
                    sps(0),
                    pps(0),
                    sei(&[(5, &[6, 1, 0x80])]),
                    h264_slice(0x41, 0, 7)
                ]
            ),
            Sync::None
        );
    }

    #[test]
    fn h264_gradual_recovery_is_none() {
        // recovery_frame_cnt 1 and 30, and an empty payload
        for payload in [&[0b0101_0010][..], &[0b0000_1111, 0b1100_0010], &[]] {
            assert_eq!(
                sync(H264, &[sei(&[(6, payload)]), h264_slice(0x41, 0, 7)]),
                Sync::None
            );
        }
    }

    #[test]
    fn h264_recovery_point_is_found_among_other_messages() {
        let slice = h264_slice(0x41, 0, 7);
        let long = [0; 700];
        let among = sei(&[
            (1, &[0, 0, 1]),
            (5, &long),
            (300, &[6, 1]),
            RECOVERY,
            (0, &[9]),
        ]);
        assert_eq!(sync(H264, &[among, slice.clone()]), Sync::Open);
        assert_eq!(
            sync(H264, &[sei(&[RECOVERY]), sei(&[(1, &[0])]), slice.clone()]),
            Sync::Open
        );
        let inside_another = sei(&[(5, &[6, 1, 0b1100_0100])]);
        assert_eq!(sync(H264, &[inside_another, slice]), Sync::None);
    }

    #[test]
    fn only_the_first_slice_of_a_picture_is_a_sync_point() {
        let later = inspected(H264, &[h264_slice(0x65, 1200, 7)]);
        assert_eq!((later.sync, later.has_picture), (Sync::None, true));
        for kind in 16..=21 {
            let later = inspected(
                H265,
                &[rbsp().u(1, 0).u(31, 0x1bad_cafe).nal(&[kind << 1, 1])],
            );
            assert_eq!((later.sync, later.has_picture), (Sync::None, true));
        }
    }

    #[test]
    fn buffers_without_slices_have_no_picture() {
        for nal in [
            sei(&[RECOVERY]),
            sps(0),
            vec![0x09, 0xf0],
            vec![0x0a],
            vec![0x0c, 0xff, 0x80],
        ] {
            let alone = inspected(H264, &[nal]);
            assert_eq!((alone.sync, alone.has_picture), (Sync::None, false));
        }
    }

    #[test]
    fn h264_slices_of_other_kinds_are_pictures_without_sync() {
        for kind in [2, 3, 4, 19, 20, 21] {
            let found = inspected(H264, &[h264_slice(0x60 | kind, 0, 7)]);
            assert_eq!(
                (found.sync, found.has_picture),
                (Sync::None, true),
                "type {kind}"
            );
        }
        // A prefix NAL unit stands before the slices of a base view.
        assert_eq!(sync(H264, &[vec![0x6e, 0x40, 0x80], idr()]), Sync::Closed);
    }

    #[test]
    fn h265_nal_types_tell_sync_and_leading() {
        for kind in 0..32 {
            let found = inspected(H265, &[vec![0x46, 1, 0x50], h265_slice(kind)]);
            let expected = match kind {
                16 | 21 => Sync::Open,
                17..=20 => Sync::Closed,
                _ => Sync::None,
            };
            assert_eq!(found.sync, expected, "type {kind}");
            assert_eq!(found.leading, kind == 8 || kind == 9, "type {kind}");
            assert!(found.has_picture);
        }
    }

    #[test]
    fn h265_other_layers_are_no_sync_points_and_their_sets_are_not_kept() {
        let mut idr = h265_slice(19);
        idr[1] |= 1 << 3;
        let mut pps = h265_pps(0);
        pps[0] |= 1;
        let found = inspected(H265, &[pps, idr]);
        assert_eq!(
            (found.sync, found.has_picture, found.sets),
            (Sync::None, true, vec![])
        );
    }

    #[test]
    fn damaged_headers_are_passed_over() {
        let mut bad = idr();
        bad[0] |= 0x80;
        assert_eq!(sync(H264, &[bad.clone(), idr()]), Sync::Closed);
        assert!(!inspected(H264, &[bad]).has_picture);
        let mut bad = h265_slice(19);
        bad[1] = 0;
        assert!(!inspected(H265, &[bad]).has_picture);
    }

    #[test]
    fn h264_sets_are_listed_with_kind_and_id() {
        let extension = rbsp().ue(3).ue(0).nal(&[0x6d]);
        let subset = rbsp().u(24, 0x76_0028).ue(5).u(8, 0x55).nal(&[0x6f]);
        let found = inspected(
            H264,
            &[sps(3), extension, subset, pps(0), pps(255), idr(), pps(9)],
        );
        let expected = [
            (SetKind::Sps, 3),
            (SetKind::SpsExtension, 3),
            (SetKind::SubsetSps, 5),
            (SetKind::Pps, 0),
            (SetKind::Pps, 255),
        ];
        assert_eq!(ids(&found), expected, "and nothing after the slice");
    }

    #[test]
    fn h265_sps_id_is_found_behind_the_sub_layers() {
        for sub_layers in 0..=6 {
            for present in 0..1 << (2 * sub_layers) {
                let found = inspected(H265, &[h265_sps(11, sub_layers, present)]);
                assert_eq!(
                    ids(&found),
                    [(SetKind::Sps, 11)],
                    "{sub_layers} {present:b}"
                );
            }
        }
        let found = inspected(
            H265,
            &[vps(2), h265_sps(15, 0, 0), h265_pps(63), h265_slice(21)],
        );
        assert_eq!(
            ids(&found),
            [(SetKind::Vps, 2), (SetKind::Sps, 15), (SetKind::Pps, 63)]
        );
    }

    #[test]
    fn ids_out_of_range_are_ignored() {
        assert_eq!(
            ids(&inspected(H264, &[sps(32), pps(256), sps(31)])),
            [(SetKind::Sps, 31)]
        );
        assert!(
            inspected(H265, &[h265_sps(16, 0, 0), h265_pps(64), h265_sps(0, 7, 0)])
                .sets
                .is_empty()
        );
    }

    #[test]
    fn emulation_prevention_before_an_id_is_removed() {
        // profile_idc and level_idc 0, then id 5 as 00110
        let zeros = rbsp().u(24, 0).ue(5).u(8, 0xff).nal(&[0x67]);
        assert_eq!(zeros[..6], [0x67, 0, 0, 3, 0, 0x37]);
        assert_eq!(ids(&inspected(H264, &[zeros])), [(SetKind::Sps, 5)]);
        assert!(h265_sps(4, 0, 0).windows(3).any(|bytes| bytes == [0, 0, 3]));
        assert_eq!(
            ids(&inspected(H265, &[h265_sps(4, 0, 0)])),
            [(SetKind::Sps, 4)]
        );
    }

    #[test]
    fn byte_streams_may_have_short_start_codes_zeros_and_empty_units() {
        let mut data = vec![0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1];
        let first = data.len()..data.len() + sps(1).len();
        data.extend(sps(1));
        data.extend([0, 0, 0, 0, 0, 1]);
        let second = data.len()..data.len() + pps(2).len();
        data.extend(pps(2));
        let sets_only = inspect(H264, ByteStream, &[&data[..], &[0, 0, 0]].concat());
        let found = inspect(H264, ByteStream, &[&data[..], &[0, 0, 1], &idr()].concat());
        let ranges: Vec<_> = found.sets.iter().map(|set| set.range.clone()).collect();
        assert_eq!((found.sync, ranges), (Sync::Closed, vec![first, second]));
        assert_eq!(sets_only.sets, found.sets);
        assert_eq!(
            inspect(H264, ByteStream, &[0, 0, 1, 0, 0, 0]),
            inspect(H264, ByteStream, &[])
        );
    }

    #[test]
    fn lengths_may_be_zero_cut_off_or_too_large() {
        let with_empty = [
            &[0, 0][..],
            &framed(Length(2), &[sps(0)]),
            &[0, 0],
            &framed(Length(2), &[idr()]),
        ]
        .concat();
        let found = inspect(H264, Length(2), &with_empty);
        assert_eq!((found.sync, found.sets.len()), (Sync::Closed, 1));
        let set = framed(Length(4), &[sps(0)]);
        for broken in [&[0, 0][..], &[0, 0, 0, 9, 0x65, 0x88], &[0xff; 9]] {
            let found = inspect(H264, Length(4), &[&set, broken].concat());
            assert_eq!((found.has_picture, found.sets.len()), (false, 1));
        }
        for size in [0, 5, 255] {
            assert!(!inspect(H264, Length(size), &with_empty).has_picture);
        }
    }

    fn access_units() -> [(Codec, Vec<Vec<u8>>); 2] {
        let h264 = vec![
            vec![0x09, 0x10],
            sps(0),
            pps(0),
            pps(1),
            sei(&[(1, &[0; 9]), RECOVERY]),
            h264_slice(0x41, 0, 7),
        ];
        [
            (H264, h264),
            (
                H265,
                vec![
                    vec![0x46, 1, 0x10],
                    vps(0),
                    h265_sps(0, 2, 15),
                    h265_pps(0),
                    h265_slice(21),
                ],
            ),
        ]
    }

    #[test]
    fn every_prefix_of_an_access_unit_gives_an_answer() {
        for (codec, nals) in access_units() {
            for framing in FRAMINGS {
                let data = framed(framing, &nals);
                let whole = inspect(codec, framing, &data);
                assert_eq!(whole.sync, Sync::Open);
                for length in 0..data.len() {
                    let part = inspect(codec, framing, &data[..length]);
                    assert!(part.sets.len() <= whole.sets.len());
                    assert!(insertion_offset(codec, framing, &data[..length]) <= length);
                    if framing != ByteStream {
                        assert_eq!(part.sets, whole.sets[..part.sets.len()]);
                        assert!(!part.has_picture);
                    }
                }
            }
        }
    }

    #[test]
    fn random_bytes_give_an_answer() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) % below
        };
        let headers = [
            0x67, 0x68, 0x06, 0x65, 0x41, 0x6d, 0x6f, 0x09, 0x40, 0x42, 0x44, 0x46, 0x2a, 0x12,
        ];
        let mut sets = 0;
        for _ in 0..20_000 {
            let mut data = Vec::new();
            for _ in 0..random(24) {
                match random(4) {
                    0 => data.extend([0, 0, 1, headers[random(14) as usize], random(3) as u8]),
                    1 => data.extend([0, 0, 0, random(12) as u8, headers[random(14) as usize], 1]),
                    2 => data.extend([0, 0, 3]),
                    _ => data.push(random(256) as u8),
                }
            }
            for codec in [H264, H265] {
                for framing in FRAMINGS {
                    let found = inspect(codec, framing, &data);
                    assert!(
                        found
                            .sets
                            .iter()
                            .all(|set| !data[set.range.clone()].is_empty())
                    );
                    assert!(found.has_picture || found.sync == Sync::None && !found.leading);
                    assert!(insertion_offset(codec, framing, &data) <= data.len());
                    sets += found.sets.len();
                }
            }
            if let Some(read) = ParameterSets::from_bytes(&data) {
                assert_eq!(read.to_bytes(), data);
            }
        }
        assert!(sets > 1_000, "the inputs should reach the parsers: {sets}");
    }

    /// The sets after each of these access units in turn.
    fn in_force(codec: Codec, units: &[&[Vec<u8>]]) -> ParameterSets {
        let mut sets = ParameterSets::default();
        for nals in units {
            let data = framed(ByteStream, nals);
            sets.update(&data, &inspect(codec, ByteStream, &data));
        }
        sets
    }

    #[test]
    fn update_keeps_the_last_of_each_and_tells_of_changes() {
        let mut sets = ParameterSets::default();
        let mut update = |nals: &[Vec<u8>]| {
            let data = framed(Length(4), nals);
            sets.update(&data, &inspect(H264, Length(4), &data))
        };
        let mut other = sps(0);
        other[1] = 0x64;
        assert!(!update(&[idr()]));
        assert!(update(&[sps(0), pps(0), idr()]));
        assert!(!update(&[sps(0), pps(0), idr()]));
        assert!(!update(&[pps(0)]));
        assert!(update(&[pps(1)]));
        assert!(update(std::slice::from_ref(&other)));
        assert!(!sets.is_empty());
        assert_eq!(
            sets,
            in_force(H264, &[&[pps(1), other, pps(0)]]),
            "the PPSs outlive their SPS"
        );
    }

    #[test]
    fn sets_no_stream_can_carry_are_not_kept() {
        let huge = rbsp().ue(0).u(32, 0xffff_ffff).nal(&[0x68]).repeat(20_000);
        assert!(in_force(H264, &[&[huge]]).is_empty());
        let long = pps(0).into_iter().chain([7; 400]).collect::<Vec<_>>();
        let sets = in_force(H264, &[&[sps(0), long]]);
        let bare = inspected(H264, &[idr()]);
        assert_eq!(
            sets.missing_from(&bare, Length(1)),
            framed(Length(1), &[sps(0)])
        );
        assert!(sets.missing_from(&bare, Length(0)).is_empty());
    }

    #[test]
    fn missing_sets_come_in_order_of_transmission() {
        let sets = in_force(
            H265,
            &[
                &[h265_pps(1), h265_pps(0), h265_sps(0, 0, 0)],
                &[vps(0), h265_slice(19)],
            ],
        );
        let all = [vps(0), h265_sps(0, 0, 0), h265_pps(0), h265_pps(1)];
        let bare = inspected(H265, &[h265_slice(21)]);
        for framing in FRAMINGS {
            assert_eq!(sets.missing_from(&bare, framing), framed(framing, &all));
            let complete = inspected(H265, &[&all[..], &[h265_slice(21)]].concat());
            assert!(sets.missing_from(&complete, framing).is_empty());
        }
        let without_vps = inspected(H265, &[&all[1..], &[h265_slice(21)]].concat());
        assert_eq!(
            sets.missing_from(&without_vps, Length(4)),
            framed(Length(4), &all[..1])
        );
        assert!(
            ParameterSets::default()
                .missing_from(&bare, ByteStream)
                .is_empty()
        );
    }

    #[test]
    fn a_missing_pps_brings_its_sps_with_it() {
        let sets = in_force(H264, &[&[sps(0), pps(0), pps(1)]]);
        let found = inspected(H264, &[sps(0), pps(0), idr()]);
        assert_eq!(
            sets.missing_from(&found, Length(4)),
            framed(Length(4), &[sps(0), pps(1)])
        );
    }

    #[test]
    fn sets_are_inserted_after_the_delimiter() {
        for (codec, nals) in access_units() {
            let (delimiter, rest) = (&nals[..1], &nals[1..]);
            for framing in FRAMINGS {
                let data = framed(framing, &nals);
                let offset = insertion_offset(codec, framing, &data);
                assert_eq!(data[..offset], framed(framing, delimiter));
                assert_eq!(insertion_offset(codec, framing, &data[..offset]), offset);
                assert_eq!(insertion_offset(codec, framing, &framed(framing, rest)), 0);
                assert_eq!(insertion_offset(codec, framing, &[]), 0);
            }
            let sets = in_force(codec, &[rest]);
            let slice = &nals[nals.len() - 1..];
            let mut data = framed(ByteStream, &[delimiter, slice].concat());
            let offset = insertion_offset(codec, ByteStream, &data);
            let missing = sets.missing_from(&inspect(codec, ByteStream, &data), ByteStream);
            data.splice(offset..offset, missing);
            let found = inspect(codec, ByteStream, &data);
            assert!(sets.missing_from(&found, ByteStream).is_empty());
            assert_eq!(insertion_offset(codec, ByteStream, &data), offset);
        }
    }

    #[test]
    fn sets_survive_the_disk() {
        let sets = in_force(
            H265,
            &[&[vps(0), h265_sps(0, 3, 5), h265_pps(0), h265_pps(7)]],
        );
        let bytes = sets.to_bytes();
        assert_eq!(ParameterSets::from_bytes(&bytes), Some(sets));
        assert_eq!(
            ParameterSets::from_bytes(&[]),
            Some(ParameterSets::default())
        );
        assert!(ParameterSets::default().to_bytes().is_empty());
    }

    #[test]
    fn malformed_bytes_are_refused() {
        let bytes = in_force(H264, &[&[sps(0), pps(0)]]).to_bytes();
        let first = 4 + sps(0).len();
        for length in (1..bytes.len()).filter(|&length| length != first) {
            assert_eq!(
                ParameterSets::from_bytes(&bytes[..length]),
                None,
                "cut at {length}"
            );
        }
        let unknown_kind = [5, 0, 0, 1, 0x67];
        let empty = [1, 0, 0, 0];
        let twice = [&bytes[..first], &bytes[..first]].concat();
        let unordered = [&bytes[first..], &bytes[..first]].concat();
        for bad in [&unknown_kind[..], &empty, &twice, &unordered] {
            assert_eq!(ParameterSets::from_bytes(bad), None);
        }
    }
}
