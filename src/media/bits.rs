//! The bytes and bits of NAL units: start codes, emulation prevention, Exp-Golomb codes.
//!
//! Everything here is bounded by the slice it is given and answers None past its end; nothing allocates.

/// Position of the first `00 00 01` at or after `from`. Looks at every third byte as long as it is above 1.
pub(crate) fn find_start_code(data: &[u8], mut from: usize) -> Option<usize> {
    loop {
        match data.get(from..from + 3)? {
            [0, 0, 1] => return Some(from),
            [_, _, 0] => from += 1,
            _ => from += 3,
        }
    }
}

/// Reads a NAL unit after its header, without emulation prevention bytes (H.264 7.3.1, H.265 7.3.1.1). Whatever
/// lies past the end of the NAL unit is None.
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
        Self {
            bytes,
            zeros: 0,
            current: 0,
            left: 0,
        }
    }

    /// The next whole byte.
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (mut byte, mut rest) = self.bytes.split_first()?;
        if self.zeros >= 2 {
            match byte {
                // Cannot occur within a NAL unit: a start code or trailing zeros.
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

    /// The next `count` bits, 32 at most.
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

    /// Unsigned Exp-Golomb code, ue(v) (H.264 9.1, H.265 9.2), below 2^32 - 1.
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

    /// Type or size of an SEI message (H.264 7.3.2.3.1): 255 for each leading 0xff, plus the byte that ends them.
    pub(crate) fn sei_number(&mut self) -> Option<u32> {
        let mut number = 0u32;
        loop {
            let byte = self.byte()?;
            number = number.saturating_add(byte.into());
            if byte != 0xff {
                return Some(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_codes_are_found_at_every_offset() {
        for before in 0..9 {
            for filler in [0, 1, 2, 0xff] {
                let mut data = vec![filler; before];
                data.extend([0, 0, 1, 9]);
                let expected = (0..).find(|&at| data[at..].starts_with(&[0, 0, 1]));
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
    fn exp_golomb_codes_are_those_of_the_tables() {
        // 0, 1, 2, 3, 7 are 1, 010, 011, 00100, 0001000
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
