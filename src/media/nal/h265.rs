//! H.265: NAL unit headers, random access pictures, what stands before the id of a parameter set.

use super::Bits;
use crate::store::Sync;

/// `nal_unit_type` of H.265 (7.3.1.2); None if the forbidden bit is set or `nuh_temporal_id_plus1` is 0.
pub(super) fn unit_type(nal: &[u8]) -> Option<u8> {
    let (&[first, second], _) = nal.split_first_chunk()?;
    (first & 0x80 == 0 && second & 0x07 != 0).then_some(first >> 1)
}

/// `nuh_layer_id` is 0.
pub(super) fn is_base_layer(nal: &[u8]) -> bool {
    matches!(nal, [first, second, ..] if first & 1 == 0 && second & 0xf8 == 0)
}

/// A RASL picture (7.4.2.2): refers to pictures before the random access point that it belongs to.
pub(super) fn is_leading(nal: &[u8]) -> bool {
    matches!(unit_type(nal), Some(8 | 9))
}

/// By the slice segment header, H.265 7.3.6.1.
pub(super) fn sync(nal: &[u8]) -> Option<Sync> {
    let first_slice_segment_in_pic_flag = Bits::new(nal.get(2..)?).bits(1)?;
    match unit_type(nal)? {
        _ if first_slice_segment_in_pic_flag == 0 || !is_base_layer(nal) => None,
        // BLA_W_LP, CRA
        16 | 21 => Some(Sync::Open),
        17..=20 => Some(Sync::Closed),
        _ => None,
    }
}

/// `profile_tier_level(1, sub_layers)`, H.265 7.3.3.
pub(super) fn skip_profile_tier_level(bits: &mut Bits, sub_layers: u32) -> Option<()> {
    const PROFILE: u32 = 88;
    const LEVEL: u32 = 8;
    bits.skip(PROFILE + LEVEL)?;
    let mut size = 0;
    for _ in 0..sub_layers {
        size += bits.bits(1)? * PROFILE;
        size += bits.bits(1)? * LEVEL;
    }
    if sub_layers > 0 {
        // The flags are padded up to the eighth sub-layer.
        bits.skip(2 * (8 - sub_layers))?;
    }
    bits.skip(size)
}
