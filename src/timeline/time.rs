//! A moment or a span in nanoseconds, signed. Arithmetic saturates: no stamp that a stream may carry makes it panic or
//! wrap. What the origin is depends on where it stands: 1970, the start of a stream, or running time.

use std::ops::{Add, AddAssign, Sub, SubAssign};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ns(pub i64);

impl Ns {
    pub const ZERO: Self = Self(0);
    pub const MIN: Self = Self(i64::MIN);
    pub const MAX: Self = Self(i64::MAX);
    pub const SECOND: Self = Self(1_000_000_000);

    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// The nearest that there is, 0 for what is not a number.
    pub fn from_f64(ns: f64) -> Self {
        Self(ns.round() as i64)
    }

    pub fn from_i128(ns: i128) -> Self {
        Self(ns.clamp(i64::MIN.into(), i64::MAX.into()) as i64)
    }

    pub fn as_f64(self) -> f64 {
        self.0 as f64
    }

    pub fn abs(self) -> Self {
        Self(self.0.saturating_abs())
    }

    /// Multiplies by a fraction; the denominator must not be 0.
    pub fn scale(self, numerator: i64, denominator: i64) -> Self {
        Self::from_i128(i128::from(self.0) * i128::from(numerator) / i128::from(denominator))
    }
}

impl From<u64> for Ns {
    fn from(ns: u64) -> Self {
        Self(i64::try_from(ns).unwrap_or(i64::MAX))
    }
}

impl Add for Ns {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Ns {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl AddAssign for Ns {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Ns {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}
