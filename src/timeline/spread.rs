//! Median and median absolute deviation of the last N values, renewed at every N/4 of them: O(1) amortised, no allocation.

/// Median absolute deviation to standard deviation, for a normal distribution.
pub const MAD_TO_SIGMA: f64 = 1.4826;

#[derive(Debug, Clone)]
pub struct Spread<const N: usize> {
    ring: [i64; N],
    len: usize,
    next: usize,
    stale: usize,
    median: i64,
    mad: i64,
}

impl<const N: usize> Default for Spread<N> {
    fn default() -> Self {
        Self { ring: [0; N], len: 0, next: 0, stale: 0, median: 0, mad: 0 }
    }
}

impl<const N: usize> Spread<N> {
    pub fn push(&mut self, value: i64) {
        self.ring[self.next] = value;
        self.next = (self.next + 1) % N;
        self.len = (self.len + 1).min(N);
        self.stale += 1;
        if self.stale >= N / 4 || self.len <= N / 4 {
            self.renew();
        }
    }

    fn renew(&mut self) {
        self.stale = 0;
        let mut sorted = self.ring;
        let sorted = &mut sorted[..self.len];
        self.median = middle(sorted);
        for value in &mut *sorted {
            *value = value.saturating_sub(self.median).saturating_abs();
        }
        self.mad = middle(sorted);
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn median(&self) -> i64 {
        self.median
    }

    /// Median distance from the median.
    pub fn mad(&self) -> i64 {
        self.mad
    }
}

/// The median, the lower one of two; reorders.
fn middle(values: &mut [i64]) -> i64 {
    match values.len() {
        0 => 0,
        len => *values.select_nth_unstable((len - 1) / 2).1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wild_value_moves_neither_median_nor_deviation() {
        let mut spread = Spread::<64>::default();
        (0..64).for_each(|i| spread.push(if i == 40 { i64::MIN } else { 100 + i % 3 }));
        assert_eq!(spread.median(), 101);
        assert_eq!(spread.mad(), 1);
    }

    #[test]
    fn old_values_are_forgotten() {
        let mut spread = Spread::<16>::default();
        (0..16).for_each(|_| spread.push(1));
        (0..16).for_each(|_| spread.push(9));
        assert_eq!((spread.median(), spread.mad(), spread.len()), (9, 0, 16));
    }
}
