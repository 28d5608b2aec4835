//! What a buffer of H.264 or H.265 holds: random access points and parameter sets.
//!
//! Whoever keeps access units on disk must later start again at one from which a decoder needs nothing
//! that came before. [`inspect`] says for each buffer whether it is such a point, whether it is a
//! leading picture that cannot be decoded after one, and which parameter sets it carries.
//! [`ParameterSets`] remembers the sets in force and hands out those that a resume point lacks.
//!
//! Promises:
//! - Reading stops at the first slice (VCL NAL unit). Parameter sets and SEI come before it (H.264
//!   7.4.1.2.3, H.265 7.4.2.4.4), so of a large access unit only the first bytes are touched.
//! - Nothing is allocated for a buffer without parameter sets.
//! - Any input gives an answer. A NAL unit whose length points past the end of the data ends the
//!   reading, and what was found before it counts; one with its forbidden bit set is passed over.
//!
//! It never decodes, never judges whether a parameter set is valid beyond its id, and never looks past
//! the base layer: sets with `nuh_layer_id` > 0 are not kept, slices of other layers or views are no
//! sync points.
//!
//! A buffer is one access unit, or one NAL unit (`alignment=nal`). With the latter only the first slice
//! of a picture is a sync point, and what a recovery point SEI in a buffer of its own said has to be told to
//! [`inspect_head`] with the buffers that follow. First is the slice with macroblock 0, so pictures in
//! arbitrary slice order (H.264 Baseline) may go unnoticed. Of a field pair the first field is the sync
//! point; the second refers to it.

mod h264;
mod h265;
mod sets;

#[cfg(test)]
mod tests;

pub use self::sets::{ParameterSet, ParameterSets, SetKind};
pub use crate::media::bits::Framing;
use crate::media::bits::{Bits, Units};
use crate::store::Sync;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    H264,
    H265,
}

/// What a buffer holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    /// Whether decoding can start here.
    ///
    /// `Closed`: nothing that follows refers back. H.264 IDR; H.265 IDR, BLA_W_RADL and BLA_N_LP, which
    /// no RASL picture may follow (7.4.2.2).
    ///
    /// `Open`: only pictures that precede it in output order may refer back. H.265 CRA and BLA_W_LP, the
    /// two that may have RASL pictures; those of a BLA are useless even in the middle of a stream, so
    /// they have to go as well. H.264 intra pictures with a recovery point SEI whose
    /// `recovery_frame_cnt` is 0 (D.2.8).
    ///
    /// That SEI alone is not enough: in an intra refresh it stands on a P picture, and recovery takes
    /// many frames. Nor is an I slice alone: encoders put one on a scene cut, and P pictures after it may
    /// still refer to what was before.
    pub sync: Sync,
    /// H.265 RASL picture: refers back before the random access point it belongs to. H.264 does not mark
    /// such pictures, so this is always false there: [`Detector`](crate::media::keyframe::Detector) goes by PTS.
    pub leading: bool,
    /// A slice was found, of the base layer or another.
    pub has_picture: bool,
    /// H.264: frames that decoding takes to be right from here on, by a recovery point SEI before the
    /// slice, here or in buffers before. More than 0 in an intra refresh: such a point is no sync point.
    pub recovery_frames: Option<u32>,
    /// H.264: an intra picture that neither is an IDR picture nor has a recovery point SEI in this buffer.
    /// Where it is a sync point all the same, decoders need that SEI to start.
    pub unmarked: bool,
    /// Parameter sets before the first slice, in the order of the data.
    pub sets: Vec<ParameterSet>,
}

/// Reads a buffer up to its first slice.
pub fn inspect(codec: Codec, framing: Framing, data: &[u8]) -> Inspection {
    read(codec, framing, None, data, data.len()).0
}

/// The same for a buffer of `total` bytes of which only the `head` is at hand; `None` if that is not enough.
///
/// `recovery_frames` is what buffers without a picture before this one said ([`Inspection::recovery_frames`]).
pub fn inspect_head(
    codec: Codec,
    framing: Framing,
    recovery_frames: Option<u32>,
    head: &[u8],
    total: usize,
) -> Option<Inspection> {
    let (found, complete) = read(codec, framing, recovery_frames, head, total);
    complete.then_some(found)
}

/// Bytes of a slice that are more than what is read of it.
const SLICE_START: usize = 32;

/// Also whether `data` was enough to know all.
fn read(codec: Codec, framing: Framing, recovery_frames: Option<u32>, data: &[u8], total: usize) -> (Inspection, bool) {
    let mut found = Inspection {
        sync: Sync::None,
        leading: false,
        has_picture: false,
        recovery_frames,
        unmarked: false,
        sets: Vec::new(),
    };
    let mut complete = data.len() == total;
    let mut marked = false;
    let mut units = Units::new(framing, data, total);
    while let Some(nal) = units.next() {
        match role(codec, nal) {
            Role::Slice => {
                found.has_picture = true;
                complete |= nal.len() >= SLICE_START;
                match codec {
                    Codec::H264 => {
                        let start = h264::start(nal);
                        found.sync = h264::sync(start, found.recovery_frames);
                        found.unmarked = start == Some(h264::Start::Intra) && !marked;
                    }
                    Codec::H265 => {
                        found.sync = h265::sync(nal).unwrap_or_default();
                        found.leading = h265::is_leading(nal);
                    }
                }
                break;
            }
            Role::Set(kind) => {
                let range = units.range();
                let nal = data.get(range.clone()).unwrap_or_default();
                if let Some(id) = sets::set_id(codec, kind, nal) {
                    found.sets.push(ParameterSet { kind, id, range });
                }
            }
            Role::Sei => {
                let frames = h264::recovery_frames(nal);
                marked |= frames.is_some();
                found.recovery_frames = [found.recovery_frames, frames].into_iter().flatten().min();
            }
            // What was said before was of another picture.
            Role::Delimiter => found.recovery_frames = None,
            Role::Other => {}
        }
    }
    (found, complete)
}

/// A recovery point SEI for an intra picture that lacks one ([`Inspection::unmarked`]).
pub const RECOVERY_POINT: &[u8] = &h264::RECOVERY_POINT;

/// Offset in `data` at which parameter sets have to be inserted: just after a leading access unit
/// delimiter, which must stay the first NAL unit (H.264 7.4.1.2.3, H.265 7.4.2.4.4), else 0.
pub fn insertion_offset(codec: Codec, framing: Framing, data: &[u8]) -> usize {
    let mut units = Units::new(framing, data, data.len());
    match units.next().map(|nal| role(codec, nal)) {
        Some(Role::Delimiter) => units.range().end,
        _ => 0,
    }
}

/// What a NAL unit is to us (Table 7-1 of both specifications).
enum Role {
    Slice,
    Set(SetKind),
    Sei,
    Delimiter,
    Other,
}

fn role(codec: Codec, nal: &[u8]) -> Role {
    match codec {
        Codec::H264 => match h264::unit_type(nal) {
            // 19 to 21: auxiliary pictures, other layers and views; they follow the primary picture.
            Some(1..=5 | 19..=21) => Role::Slice,
            Some(6) => Role::Sei,
            Some(7) => Role::Set(SetKind::Sps),
            Some(8) => Role::Set(SetKind::Pps),
            Some(9) => Role::Delimiter,
            Some(13) => Role::Set(SetKind::SpsExtension),
            Some(15) => Role::Set(SetKind::SubsetSps),
            _ => Role::Other,
        },
        // No SEI: the NAL unit type says what H.264 needs a recovery point for.
        Codec::H265 => match h265::unit_type(nal) {
            // The others up to 31 are reserved: decoders pass over them (7.4.2.2).
            Some(0..=9 | 16..=21) => Role::Slice,
            Some(32) if h265::is_base_layer(nal) => Role::Set(SetKind::Vps),
            Some(33) if h265::is_base_layer(nal) => Role::Set(SetKind::Sps),
            Some(34) if h265::is_base_layer(nal) => Role::Set(SetKind::Pps),
            Some(35) => Role::Delimiter,
            _ => Role::Other,
        },
    }
}
