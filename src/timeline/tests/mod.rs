//! Synthetic and recorded streams, and what must hold for them. Figures are printed: `cargo test timeline -- --nocapture`.
//!
//! Recorded stamps lie beside the repository in `../shared/timestamps`; without them those tests say so and prove nothing.

use std::path::Path;

use super::Ns;

mod clocks;
mod fills;
mod formats;
mod guarantees;
mod lines;
mod matching;
#[path = "../../../fuzz/src/stamps.rs"]
mod stamps;

/// SplitMix64: the same numbers everywhere, for ever.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    pub fn normal(&mut self, sigma: f64) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        sigma * radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

pub fn millis(ms: f64) -> Ns {
    Ns::from_f64(ms * 1e6)
}

/// Columns of seconds since 1970, exact to the microsecond.
pub fn recorded<const N: usize>(name: &str, columns: [usize; N]) -> Option<Vec<[Ns; N]>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/timestamps").join(name);
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("{name} is not on this machine: nothing was proved with it");
        return None;
    };
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        columns.map(|column| {
            let (seconds, rest) = fields[column].split_once('.').unwrap();
            let rest: i64 = format!("{rest:0<9}").parse().unwrap();
            Ns(seconds.parse::<i64>().unwrap() * 1_000_000_000 + rest)
        })
    };
    Some(lines.map(row).collect())
}

/// The value below which this share of all lies.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}
