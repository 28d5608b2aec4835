//! NAL units as bytes and bits: framing, emulation prevention, Exp-Golomb codes.
//!
//! Everything here is bounded by the slice it is given: past the end the answer is None, whatever the
//! bytes say. Nothing allocates but [`Framing::push`]. What NAL units mean is left to `nal`.

use std::ops::Range;

/// How NAL units are delimited in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Start codes (Annex B of H.264 and H.265): `stream-format=byte-stream`.
    ByteStream,
    /// A big-endian length of 1 to 4 bytes before each NAL unit: avc, avc3, hvc1, hev1. With any
    /// other size nothing is found and nothing is written.
    Length(u8),
}

impl Framing {
    /// Appends a NAL unit behind a 4-byte start code or its length; nothing if that does not fit the
    /// length field.
    pub(crate) fn push(self, out: &mut Vec<u8>, nal: &[u8]) {
        match self {
            Self::ByteStream => out.extend([0, 0, 0, 1]),
            Self::Length(size @ 1..=4) => {
                let length = (nal.len() as u64).to_be_bytes();
                match length.split_at_checked(length.len() - usize::from(size)) {
                    Some((high, low)) if high.iter().all(|&byte| byte == 0) => out.extend(low),
                    _ => return,
                }
            }
            Self::Length(_) => return,
        }
        out.extend(nal);
    }
}

/// Walks the NAL units of a buffer, empty ones left out. A length field that is cut off or points past
/// the end of the data ends the walk. In a byte stream the end of a NAL unit is looked for only when it
/// is needed, since that means going through all of it.
pub(crate) struct Units<'a> {
    framing: Framing,
    data: &'a [u8],
    /// Bytes of the buffer, of which `data` may be only the beginning.
    total: usize,
    /// Where the search for the next NAL unit begins.
    at: usize,
    /// Start of the current NAL unit.
    start: usize,
}

impl<'a> Units<'a> {
    pub(crate) fn new(framing: Framing, data: &'a [u8], total: usize) -> Self {
        Self { framing, data, total: total.max(data.len()), at: 0, start: 0 }
    }

    /// The next NAL unit, the last perhaps cut off where only the beginning of the buffer is at hand. In a
    /// byte stream this slice goes on to the end of the data, so read it with [`Bits`], which stop at the
    /// next start code.
    pub(crate) fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let nal = match self.framing {
                Framing::ByteStream => {
                    self.start = find_start_code(self.data, self.at)? + 3;
                    self.at = self.start;
                    self.data.get(self.start..)?
                }
                Framing::Length(size @ 1..=4) => {
                    let (field, rest) = self.data.get(self.at..)?.split_at_checked(size.into())?;
                    let length = field.iter().fold(0, |all, &byte| all << 8 | u64::from(byte));
                    let length = usize::try_from(length).ok()?;
                    self.start = self.at + field.len();
                    self.at = self.start.checked_add(length).filter(|&end| end <= self.total)?;
                    rest.get(..length).unwrap_or(rest)
                }
                Framing::Length(_) => return None,
            };
            // Two zeros begin a start code or trailing zeros, never a NAL unit of either codec.
            if !matches!(nal, [] | [0] | [0, 0, ..]) {
                return Some(nal);
            }
        }
    }

    /// Bytes of the current NAL unit, without the zeros that may follow it in a byte stream (B.1).
    pub(crate) fn range(&mut self) -> Range<usize> {
        if self.framing == Framing::ByteStream {
            self.at = find_start_code(self.data, self.start).unwrap_or(self.data.len());
            let nal = self.data.get(self.start..self.at).unwrap_or_default();
            let last = nal.iter().rposition(|&byte| byte != 0);
            return self.start..self.start + last.map_or(0, |last| last + 1);
        }
        self.start..self.at
    }
}

/// Position of the first `00 00 01` at or after `from`. As long as every third byte is above 1, no
/// other is compared.
fn find_start_code(data: &[u8], mut from: usize) -> Option<usize> {
    loop {
        match data.get(from..from + 3)? {
            [0, 0, 1] => return Some(from),
            [_, _, 0] => from += 1,
            _ => from += 3,
        }
    }
}

/// Reads the payload of a NAL unit without its emulation prevention bytes (H.264 7.3.1, H.265 7.3.1.1).
#[derive(Clone)]
pub(crate) struct Bits<'a> {
    bytes: &'a [u8],
    /// Zero bytes just read, for `00 00 03`.
    zeros: u8,
    current: u8,
    /// Bits of `current` not read yet.
    left: u32,
}

impl<'a> Bits<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, zeros: 0, current: 0, left: 0 }
    }

    /// The next whole byte; bits left of the one before are kept for [`bits`](Self::bits).
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (mut byte, mut rest) = self.bytes.split_first()?;
        if self.zeros >= 2 {
            match byte {
                // Cannot be within a NAL unit: a start code or trailing zeros.
                0..=2 => return None,
                3 => {
                    (byte, rest) = rest.split_first()?;
                    self.zeros = 0;
                }
                _ => {}
            }
        }
        self.bytes = rest;
        self.zeros = if *byte == 0 { self.zeros + 1 } else { 0 };
        Some(*byte)
    }

    /// The next `count` bits; of more than 32 the last 32.
    pub(crate) fn bits(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            if self.left == 0 {
                self.current = self.byte()?;
                self.left = 8;
            }
            self.left -= 1;
            value = value << 1 | u32::from(self.current >> self.left & 1);
        }
        Some(value)
    }

    pub(crate) fn skip(&mut self, count: u32) -> Option<()> {
        self.bits(count).map(drop)
    }

    /// Unsigned Exp-Golomb code, ue(v) (H.264 9.1, H.265 9.2), up to 2^32 - 2.
    pub(crate) fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bits(1)? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1 << zeros) - 1 + self.bits(zeros)?)
    }
}

#[cfg(test)]
mod tests {
    use super::Framing::{ByteStream, Length};
    use super::*;

    /// Start and end of each NAL unit.
    fn ranges(framing: Framing, data: &[u8]) -> Vec<(usize, usize)> {
        let mut units = Units::new(framing, data, data.len());
        let next = || units.next().map(|_| units.range());
        std::iter::from_fn(next).map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn start_codes_are_found_at_every_offset() {
        for before in 0..9 {
            for filler in [0, 1, 2, 0xff] {
                let mut data = vec![filler; before];
                data.extend([0, 0, 1, 9]);
                let expected = data.windows(3).position(|bytes| bytes == [0, 0, 1]);
                assert_eq!(find_start_code(&data, 0), expected, "{data:?}");
                assert_eq!(find_start_code(&data, before + 1), None);
            }
        }
        for data in [&[][..], &[0], &[0, 0], &[0, 0, 0, 0], &[1, 0, 1, 0, 0]] {
            assert_eq!(find_start_code(data, 0), None);
            assert_eq!(find_start_code(data, 100), None);
        }
    }

    #[test]
    fn byte_streams_may_have_short_start_codes_zeros_and_empty_units() {
        assert_eq!(ranges(ByteStream, &[0, 0, 1, 7, 8, 0, 0, 0, 1, 9]), [(3, 5), (9, 10)]);
        assert_eq!(ranges(ByteStream, &[0, 0, 0, 0, 0, 1, 7, 0, 0, 0, 0, 0]), [(6, 7)]);
        assert_eq!(ranges(ByteStream, &[0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 7]), [(10, 11)]);
        for nothing in [&[][..], &[7, 8, 9], &[0, 0, 1], &[0, 0, 1, 0], &[0, 0, 1, 0, 0, 0]] {
            assert_eq!(ranges(ByteStream, nothing), []);
        }
    }

    #[test]
    fn lengths_may_be_zero_cut_off_or_too_large() {
        assert_eq!(ranges(Length(1), &[0, 2, 7, 8, 0, 1, 9]), [(2, 4), (6, 7)]);
        assert_eq!(ranges(Length(2), &[0, 1, 7, 0]), [(2, 3)]);
        assert_eq!(ranges(Length(3), &[0, 0, 1, 7, 0, 0, 3, 8, 9]), [(3, 4)]);
        assert_eq!(ranges(Length(4), &[0, 0, 0, 1, 7, 0xff, 0xff, 0xff, 0xff, 8]), [(4, 5)]);
        for size in [0, 5, 255] {
            assert_eq!(ranges(Length(size), &[1; 300]), []);
        }
    }

    #[test]
    fn what_is_pushed_is_found_again() {
        for framing in [ByteStream, Length(1), Length(2), Length(3), Length(4)] {
            let mut data = Vec::new();
            framing.push(&mut data, &[7; 255]);
            framing.push(&mut data, &[8; 256]);
            let expected = if framing == Length(1) { 1 } else { 2 };
            assert_eq!(ranges(framing, &data).len(), expected, "{framing:?}");
        }
        let mut data = Vec::new();
        Length(0).push(&mut data, &[7]);
        Length(5).push(&mut data, &[7]);
        assert!(data.is_empty());
    }

    #[test]
    fn exp_golomb_codes_are_those_of_the_tables() {
        // 1 010 011 00100 0001000
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0001, 0b0000_0000]);
        let values: Vec<_> = (0..6).map(|_| bits.ue()).collect();
        assert_eq!(values, [Some(0), Some(1), Some(2), Some(3), Some(7), None]);
        let largest = [0, 0, 3, 0, 1, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(Bits::new(&largest).ue(), Some(u32::MAX - 1));
        assert_eq!(Bits::new(&[0, 0, 3, 0, 0, 3, 0x80, 0, 0, 3, 0]).ue(), None);
    }

    #[test]
    fn emulation_prevention_bytes_are_left_out() {
        let read = |bytes: &[u8]| {
            let mut bits = Bits::new(bytes);
            std::iter::from_fn(|| bits.byte()).collect::<Vec<_>>()
        };
        assert_eq!(read(&[0, 0, 3, 1, 5]), [0, 0, 1, 5]);
        assert_eq!(read(&[0, 0, 3, 0, 0, 3, 3]), [0, 0, 0, 0, 3]);
        assert_eq!(read(&[0, 3, 0, 3, 4]), [0, 3, 0, 3, 4]);
        assert_eq!(read(&[7, 0, 0, 3]), [7, 0, 0]);
    }

    #[test]
    fn reading_ends_at_the_next_start_code() {
        let mut bits = Bits::new(&[7, 0, 0, 1, 0x67]);
        assert_eq!(bits.bits(24), Some(0x070000));
        assert_eq!(bits.bits(1), None);
        assert_eq!(bits.byte(), None);
    }
}
