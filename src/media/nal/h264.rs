//! H.264: NAL unit headers, slice headers as far as they tell where decoding can start, recovery points.

use super::Bits;
use crate::store::Sync;

/// A recovery point SEI NAL unit (7.3.2.3, D.1.8) that says: everything from here on can be decoded exactly.
/// `recovery_frame_cnt` 0, `exact_match_flag` 1, `broken_link_flag` 0, `changing_slice_group_idc` 0.
pub(super) const RECOVERY_POINT: [u8; 5] = [0x06, 6, 1, 0b1100_0100, 0x80];

/// `nal_unit_type` of H.264 (7.3.1); None if the forbidden bit is set.
pub(super) fn unit_type(nal: &[u8]) -> Option<u8> {
    let &header = nal.first()?;
    (header & 0x80 == 0).then_some(header & 0x1f)
}

/// What the first slice of a picture says (7.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Idr,
    /// I or SI slice of another picture.
    Intra,
    Other,
}

/// `None` for a slice that is not the first of its picture, or that cannot be read.
pub(super) fn start(nal: &[u8]) -> Option<Start> {
    // Not those of partitions B and C and of other layers, which begin otherwise.
    let kind = unit_type(nal).filter(|kind| matches!(kind, 1 | 2 | 5))?;
    let mut bits = Bits::new(nal.get(1..)?);
    let first_mb_in_slice = bits.ue()?;
    let slice_type = bits.ue()?;
    match (kind, slice_type) {
        _ if first_mb_in_slice != 0 => None,
        (5, _) => Some(Start::Idr),
        // I or SI; from 5 on of all slices of the picture (Table 7-6).
        (_, 2 | 4 | 7 | 9) => Some(Start::Intra),
        _ => Some(Start::Other),
    }
}

/// Whether decoding can start at a picture, before which a recovery point said that it takes so many frames.
pub(super) fn sync(start: Option<Start>, recovery_frames: Option<u32>) -> Sync {
    match start {
        Some(Start::Idr) => Sync::Closed,
        Some(Start::Intra) if recovery_frames == Some(0) => Sync::Open,
        _ => Sync::None,
    }
}

/// `recovery_frame_cnt` of a recovery point in an SEI NAL unit (7.3.2.3, D.1.8), the lowest if there are several.
pub(super) fn recovery_frames(nal: &[u8]) -> Option<u32> {
    let mut bits = Bits::new(nal.get(1..)?);
    let mut found = None;
    loop {
        // Behind the last message the trailing bits read as a type that no size follows.
        let (Some(payload_type), Some(payload_size)) = (sei_number(&mut bits), sei_number(&mut bits)) else {
            return found;
        };
        if payload_type == 6
            && let Some(frames) = bits.clone().ue().filter(|&frames| fits(frames, payload_size))
        {
            found = Some(found.map_or(frames, |before: u32| before.min(frames)));
        }
        for _ in 0..payload_size {
            if bits.byte().is_none() {
                return found;
            }
        }
    }
}

/// Below `MaxFrameNum`, and its code does not go on behind the message.
fn fits(frames: u32, payload_size: u32) -> bool {
    frames < 1 << 16 && 2 * (frames + 1).ilog2() < payload_size.saturating_mul(8)
}

/// Type or size of an SEI message (H.264 7.3.2.3.1): the sum of bytes up to the first that is not 255.
fn sei_number(bits: &mut Bits) -> Option<u32> {
    let mut number = 0u32;
    loop {
        let byte = bits.byte()?;
        number = number.saturating_add(byte.into());
        if byte != 255 {
            return Some(number);
        }
    }
}
