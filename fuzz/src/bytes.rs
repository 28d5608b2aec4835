//! Numbers out of arbitrary bytes.

/// Gives 0 when there are no more.
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn one(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// Small and large ones, and those at the ends.
    pub fn number(&mut self) -> u64 {
        let kind = self.one();
        let mut read = |bytes: u32| (0..bytes).fold(0, |sum, _| sum << 8 | u64::from(self.one()));
        match kind % 8 {
            0 => 0,
            1 => u64::MAX,
            2 => i64::MAX as u64,
            3 => read(8),
            4 => read(5),
            5 => read(4) * 1000,
            _ => u64::from(kind) * 10_000_000,
        }
    }

    pub fn maybe(&mut self) -> Option<u64> {
        (!self.one().is_multiple_of(3)).then(|| self.number())
    }

    pub fn of<T: Copy>(&mut self, choice: &[T]) -> T {
        choice[usize::from(self.one()) % choice.len()]
    }
}
