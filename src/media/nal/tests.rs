use super::Codec::{H264, H265};
use super::Framing::{ByteStream, Length};
use super::SetKind::{Pps, Sps, SpsExtension, SubsetSps, Vps};
use super::*;

const FRAMINGS: [Framing; 3] = [ByteStream, Length(2), Length(4)];
/// Number of bits that stands for ue(v).
const UE: u32 = u32::MAX;
/// recovery_frame_cnt 0, exact_match_flag 1
const RECOVERY: (u32, &[u8]) = (6, &[0b1100_0100]);
/// slice_type: all slices of the picture are I.
const I_SLICE: u64 = 7;

type Nal = Vec<u8>;

/// Writes fields of so many bits, trailing bits and emulation prevention bytes behind a header.
fn nal(header: &[u8], fields: &[(u32, u64)]) -> Nal {
    let mut bits = Vec::new();
    for &(count, value) in fields.iter().chain(&[(1, 1)]) {
        let (count, value) = match count {
            UE => (2 * (value + 1).ilog2() + 1, value + 1),
            _ => (count, value),
        };
        let bit = |at| value.checked_shr(at).unwrap_or(0) & 1;
        bits.extend((0..count).rev().map(bit));
    }
    bits.resize(bits.len().next_multiple_of(8), 0);
    let mut nal = header.to_vec();
    for bits in bits.chunks(8) {
        let byte = bits.iter().fold(0, |byte, &bit| byte << 1 | bit as u8);
        if byte <= 3 && nal.ends_with(&[0, 0]) {
            nal.push(3);
        }
        nal.push(byte);
    }
    nal
}

fn slice(header: u8, first_mb: u64, slice_type: u64) -> Nal {
    nal(&[header], &[(UE, first_mb), (UE, slice_type), (UE, 0), (32, 0xdead_beef)])
}

fn idr() -> Nal {
    slice(0x65, 0, I_SLICE)
}

fn sps(id: u64) -> Nal {
    nal(&[0x67], &[(24, 0x4d_0028), (UE, id), (UE, 0), (32, 0x1234_5678)])
}

fn pps(id: u64) -> Nal {
    nal(&[0x68], &[(UE, id), (UE, 0), (16, 0xabcd)])
}

/// One SEI NAL unit with several messages.
fn sei(messages: &[(u32, &[u8])]) -> Nal {
    let mut fields = Vec::new();
    for &(kind, payload) in messages {
        for number in [u64::from(kind), payload.len() as u64] {
            fields.extend((0..number / 255).map(|_| (8, 255)));
            fields.push((8, number % 255));
        }
        fields.extend(payload.iter().map(|&byte| (8, byte.into())));
    }
    nal(&[0x06], &fields)
}

/// First slice segment of an H.265 picture.
fn h265_slice(kind: u8) -> Nal {
    nal(&[kind << 1, 1], &[(1, 1), (32, 0x4ead_beef)])
}

fn vps(id: u64) -> Nal {
    nal(&[0x40, 1], &[(4, id), (28, 0xc01_ffff)])
}

/// Sub-layer i has a profile if bit 2i of `present` is set, and a level if bit 2i + 1 is.
fn h265_sps(id: u64, sub_layers: u32, present: u64) -> Nal {
    let mut fields = vec![(4, 0), (3, sub_layers.into()), (1, 1), (8, 0x21), (88, 93)];
    fields.extend((0..2 * sub_layers).map(|bit| (1, present >> bit & 1)));
    if sub_layers > 0 {
        fields.push((2 * (8 - sub_layers), 0));
    }
    for bit in (0..2 * sub_layers).filter(|bit| present >> bit & 1 == 1) {
        fields.push(if bit % 2 == 0 { (88, 0) } else { (8, 0xff) });
    }
    fields.extend([(UE, id), (UE, 1), (24, 0x77_7777)]);
    nal(&[0x42, 1], &fields)
}

fn h265_pps(id: u64) -> Nal {
    nal(&[0x44, 1], &[(UE, id), (UE, 0), (16, 0xabcd)])
}

fn framed(framing: Framing, nals: &[Nal]) -> Vec<u8> {
    let mut data = Vec::new();
    nals.iter().for_each(|nal| framing.push(&mut data, nal));
    data
}

/// Inspects the NAL units in all framings, which must agree in all but the ranges.
fn inspected(codec: Codec, nals: &[Nal]) -> Inspection {
    let [first, .., last] = FRAMINGS.map(|framing| {
        let data = framed(framing, nals);
        let mut found = inspect(codec, framing, &data);
        for set in &mut found.sets {
            assert!(nals.iter().any(|nal| data[set.range.clone()] == nal[..]));
            set.range = 0..0;
        }
        found
    });
    assert_eq!(first, last);
    last
}

fn sync(codec: Codec, nals: &[Nal]) -> Sync {
    let found = inspected(codec, nals);
    assert!(found.has_picture);
    found.sync
}

fn ids(codec: Codec, nals: &[Nal]) -> Vec<(SetKind, u8)> {
    let found = inspected(codec, nals);
    found.sets.iter().map(|set| (set.kind, set.id)).collect()
}

#[test]
fn h264_idr_is_closed() {
    assert_eq!(sync(H264, &[idr()]), Sync::Closed);
    let delimiter = vec![0x09, 0xf0];
    assert_eq!(sync(H264, &[delimiter, sps(0), pps(0), sei(&[RECOVERY]), idr()]), Sync::Closed);
}

#[test]
fn h264_recovery_point_on_an_intra_picture_is_open() {
    for slice_type in 0..10 {
        let intra = [2, 4, 7, 9].contains(&slice_type);
        let expected = if intra { Sync::Open } else { Sync::None };
        let slice = slice(0x41, 0, slice_type);
        assert_eq!(sync(H264, &[sei(&[RECOVERY]), slice]), expected, "{slice_type}");
    }
}

#[test]
fn h264_intra_picture_without_recovery_point_is_none() {
    let slice = slice(0x41, 0, I_SLICE);
    assert_eq!(sync(H264, std::slice::from_ref(&slice)), Sync::None);
    let other_message = sei(&[(5, &[6, 1, 0b1100_0100])]);
    assert_eq!(sync(H264, &[sps(0), pps(0), other_message, slice]), Sync::None);
}

#[test]
fn h264_gradual_recovery_is_none() {
    // recovery_frame_cnt 1 and 29, and a message without payload
    for payload in [&[0b0101_0010][..], &[0b0000_1111, 0b0100_0100], &[]] {
        let sei = sei(&[(6, payload)]);
        assert_eq!(sync(H264, &[sei, slice(0x41, 0, I_SLICE)]), Sync::None);
    }
}

#[test]
fn h264_recovery_point_is_found_among_other_messages() {
    let long = [0; 700];
    let among = sei(&[(1, &[0, 0, 1]), (5, &long), (300, &[6, 1]), RECOVERY, (0, &[9])]);
    assert_eq!(sync(H264, &[among, slice(0x41, 0, I_SLICE)]), Sync::Open);
    let two_units = [sei(&[RECOVERY]), sei(&[(1, &[0])]), slice(0x41, 0, I_SLICE)];
    assert_eq!(sync(H264, &two_units), Sync::Open);
}

#[test]
fn only_the_first_slice_of_a_picture_is_a_sync_point() {
    assert_eq!(sync(H264, &[slice(0x65, 1200, I_SLICE)]), Sync::None);
    assert_eq!(sync(H264, &[sei(&[RECOVERY]), slice(0x41, 1, I_SLICE)]), Sync::None);
    for kind in 16..=21 {
        let later = nal(&[kind << 1, 1], &[(1, 0), (31, 0x1bad_cafe)]);
        assert_eq!(sync(H265, &[later]), Sync::None);
    }
}

#[test]
fn nal_units_other_than_slices_are_no_picture() {
    for nal in [sei(&[RECOVERY]), sps(0), vec![0x09, 0xf0], vec![0x0a], vec![0x0c, 0x80]] {
        let found = inspected(H264, &[nal]);
        assert_eq!((found.sync, found.has_picture), (Sync::None, false));
    }
}

#[test]
fn h264_slices_of_other_kinds_are_no_sync_points() {
    for kind in [3, 4, 19, 20, 21] {
        let slice = slice(0x60 | kind, 0, I_SLICE);
        assert_eq!(sync(H264, &[sei(&[RECOVERY]), slice]), Sync::None, "type {kind}");
    }
    let prefix_unit = vec![0x6e, 0x40, 0x80];
    assert_eq!(sync(H264, &[prefix_unit, idr()]), Sync::Closed);
}

#[test]
fn h265_nal_unit_types_tell_sync_and_leading() {
    for kind in 0..32 {
        let known = matches!(kind, 0..=9 | 16..=21);
        let expected = match kind {
            16 | 21 => Sync::Open,
            17..=20 => Sync::Closed,
            _ => Sync::None,
        };
        let nals = [vec![0x46, 1, 0x50], h265_slice(kind)];
        let found = inspected(H265, &nals);
        assert_eq!((found.sync, found.has_picture), (expected, known), "type {kind}");
        let followed = [&nals[..], &[h265_slice(19)]].concat();
        assert_eq!(sync(H265, &followed), if known { expected } else { Sync::Closed }, "type {kind}");
        assert_eq!(inspected(H265, &nals).leading, kind == 8 || kind == 9, "type {kind}");
    }
}

#[test]
fn h265_layers_above_the_base_are_not_looked_at() {
    let (mut idr, mut pps) = (h265_slice(19), h265_pps(0));
    idr[1] |= 1 << 3;
    pps[0] |= 1;
    assert_eq!(sync(H265, &[idr]), Sync::None);
    assert_eq!(ids(H265, &[pps]), []);
}

#[test]
fn damaged_headers_are_passed_over() {
    let mut forbidden = slice(0x65, 5, I_SLICE);
    forbidden[0] |= 0x80;
    assert_eq!(sync(H264, &[forbidden, idr()]), Sync::Closed);
    let mut forbidden = h265_slice(1);
    forbidden[1] = 0;
    assert_eq!(sync(H265, &[forbidden, h265_slice(19)]), Sync::Closed);
}

#[test]
fn h264_sets_are_listed_up_to_the_first_slice() {
    let extension = nal(&[0x6d], &[(UE, 3), (UE, 0)]);
    let subset = nal(&[0x6f], &[(24, 0x76_0028), (UE, 5), (8, 0x55)]);
    let found = ids(H264, &[sps(3), extension, subset, pps(0), pps(255), idr(), pps(9)]);
    assert_eq!(found, [(Sps, 3), (SpsExtension, 3), (SubsetSps, 5), (Pps, 0), (Pps, 255)]);
}

#[test]
fn h265_sets_are_listed_with_any_sub_layers() {
    let found = ids(H265, &[vps(2), h265_sps(15, 0, 0), h265_pps(63), h265_slice(21)]);
    assert_eq!(found, [(Vps, 2), (Sps, 15), (Pps, 63)]);
    for sub_layers in 0..=6 {
        for present in 0..1 << (2 * sub_layers) {
            let found = ids(H265, &[h265_sps(11, sub_layers, present)]);
            assert_eq!(found, [(Sps, 11)], "{sub_layers} {present:b}");
        }
    }
}

#[test]
fn ids_out_of_range_are_ignored() {
    assert_eq!(ids(H264, &[sps(32), pps(256), sps(31)]), [(Sps, 31)]);
    assert_eq!(ids(H265, &[h265_sps(16, 0, 0), h265_pps(64), h265_sps(0, 7, 0)]), []);
}

#[test]
fn emulation_prevention_before_an_id_is_removed() {
    let zeros = nal(&[0x67], &[(24, 0), (UE, 5), (8, 0xff)]);
    assert_eq!(zeros[..6], [0x67, 0, 0, 3, 0, 0x37]);
    assert_eq!(ids(H264, &[zeros]), [(Sps, 5)]);
    assert!(h265_sps(4, 0, 0).windows(3).any(|bytes| bytes == [0, 0, 3]));
    assert_eq!(ids(H265, &[h265_sps(4, 0, 0)]), [(Sps, 4)]);
}

#[test]
fn a_length_past_the_end_keeps_what_was_found() {
    let mut data = framed(Length(4), &[sps(0), idr()]);
    data.pop();
    let found = inspect(H264, Length(4), &data);
    assert_eq!((found.sync, found.has_picture, found.sets.len()), (Sync::None, false, 1));
}

/// An open random access point with all that may come before the slice, a delimiter first.
fn access_units() -> [(Codec, Vec<Nal>); 2] {
    let sei = sei(&[(1, &[0; 9]), RECOVERY]);
    let h264 = [vec![0x09, 0x10], sps(0), pps(0), pps(1), sei, slice(0x41, 0, I_SLICE)];
    let sps = h265_sps(0, 2, 15);
    let h265 = [vec![0x46, 1, 0x10], vps(0), sps, h265_pps(0), h265_slice(21)];
    [(H264, h264.to_vec()), (H265, h265.to_vec())]
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
        ((state >> 11) % below) as u8
    };
    let headers = [0x67, 0x68, 6, 0x65, 0x41, 0x6d, 0x6f, 9, 0x40, 0x42, 0x44, 0x46, 0x2a];
    let mut sets = 0;
    for _ in 0..20_000 {
        let mut data = Vec::new();
        for _ in 0..random(24) {
            let header = headers[usize::from(random(headers.len() as u64))];
            match random(4) {
                0 => data.extend([0, 0, 1, header, random(3)]),
                1 => data.extend([0, 0, 0, random(12), header, 1]),
                2 => data.extend([0, 0, 3]),
                _ => data.push(random(256)),
            }
        }
        for codec in [H264, H265] {
            for framing in [ByteStream, Length(1), Length(2), Length(3), Length(4)] {
                let found = inspect(codec, framing, &data);
                assert!(found.sets.iter().all(|set| !data[set.range.clone()].is_empty()));
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

fn update(sets: &mut ParameterSets, codec: Codec, nals: &[Nal]) -> bool {
    let data = framed(ByteStream, nals);
    sets.update(&data, &inspect(codec, ByteStream, &data))
}

fn in_force(codec: Codec, nals: &[Nal]) -> ParameterSets {
    let mut sets = ParameterSets::default();
    update(&mut sets, codec, nals);
    sets
}

#[test]
fn update_keeps_the_last_of_each_and_tells_of_changes() {
    let mut sets = ParameterSets::default();
    let mut other = sps(0);
    other[1] = 0x64;
    assert!(!update(&mut sets, H264, &[idr()]));
    assert!(sets.is_empty());
    assert!(update(&mut sets, H264, &[sps(0), pps(0), idr()]));
    assert!(!update(&mut sets, H264, &[sps(0), pps(0), idr()]));
    assert!(!update(&mut sets, H264, &[pps(0)]));
    assert!(update(&mut sets, H264, &[pps(1)]));
    assert!(update(&mut sets, H264, std::slice::from_ref(&other)));
    assert_eq!(sets, in_force(H264, &[pps(1), other, pps(0)]), "PPSs outlive their SPS");
}

#[test]
fn sets_that_no_stream_can_carry_are_left_out() {
    let long = [pps(0), vec![7; 400]].concat();
    let sets = in_force(H264, &[sps(0), long, [pps(1), vec![7; 65_536]].concat()]);
    let bare = inspected(H264, &[idr()]);
    assert_eq!(sets.missing_from(&bare, Length(1)), framed(Length(1), &[sps(0)]));
    assert!(sets.missing_from(&bare, Length(0)).is_empty());
    assert!(sets.missing_from(&bare, Length(4)).len() < 500);
}

#[test]
fn missing_sets_come_in_order_of_transmission() {
    let all = [vps(0), h265_sps(0, 0, 0), h265_pps(0), h265_pps(1), h265_slice(21)];
    let (sets, slice) = all.split_at(4);
    let mut shuffled = sets.to_vec();
    shuffled.reverse();
    let known = in_force(H265, &shuffled);
    for framing in FRAMINGS {
        let missing = |nals| known.missing_from(&inspected(H265, nals), framing);
        assert_eq!(missing(slice), framed(framing, sets));
        assert_eq!(missing(&all[1..]), framed(framing, &all[..1]));
        assert!(missing(&all).is_empty());
    }
}

#[test]
fn a_missing_pps_brings_its_sps_with_it() {
    let sets = in_force(H264, &[sps(0), pps(0), pps(1)]);
    let found = inspected(H264, &[sps(0), pps(0), idr()]);
    assert_eq!(sets.missing_from(&found, Length(4)), framed(Length(4), &[sps(0), pps(1)]));
}

#[test]
fn sets_are_inserted_after_the_delimiter() {
    for (codec, nals) in access_units() {
        let (delimiter, rest) = nals.split_at(1);
        let bare = [&delimiter[0], &nals[nals.len() - 1]].map(Clone::clone);
        for framing in FRAMINGS {
            let mut data = framed(framing, &bare);
            let offset = insertion_offset(codec, framing, &data);
            assert_eq!(data[..offset], framed(framing, delimiter));
            assert_eq!(insertion_offset(codec, framing, &data[..offset]), offset);
            assert_eq!(insertion_offset(codec, framing, &framed(framing, rest)), 0);

            let known = in_force(codec, rest);
            let missing = known.missing_from(&inspect(codec, framing, &data), framing);
            data.splice(offset..offset, missing);
            let completed = inspect(codec, framing, &data);
            assert!(completed.has_picture);
            assert!(known.missing_from(&completed, framing).is_empty());
        }
    }
}

#[test]
fn sets_survive_the_disk() {
    let sets = in_force(H265, &[vps(0), h265_sps(0, 3, 5), h265_pps(0), h265_pps(7)]);
    assert_eq!(ParameterSets::from_bytes(&sets.to_bytes()), Some(sets));
    let none = ParameterSets::default();
    assert!(none.to_bytes().is_empty());
    assert_eq!(ParameterSets::from_bytes(&[]), Some(none));
}

#[test]
fn malformed_bytes_are_refused() {
    let bytes = in_force(H264, &[sps(0), pps(0)]).to_bytes();
    let (first, second) = bytes.split_at(4 + sps(0).len());
    for length in (1..bytes.len()).filter(|&length| length != first.len()) {
        assert_eq!(ParameterSets::from_bytes(&bytes[..length]), None, "cut at {length}");
    }
    let (unknown_kind, empty) = ([5, 0, 0, 1, 0x67], [1, 0, 0, 0]);
    let (twice, unordered) = ([first, first].concat(), [second, first].concat());
    for bad in [&unknown_kind[..], &empty, &twice, &unordered] {
        assert_eq!(ParameterSets::from_bytes(bad), None);
    }
}
