//! Synthetic and recorded streams, and what must hold for them. Figures are printed: `cargo test timeline -- --nocapture`.
//!
//! Recorded stamps lie beside the repository in `../shared/timestamps`; without them those tests say so and prove nothing.

use super::Ns;

mod clocks;
mod fills;
mod formats;
mod guarantees;
mod lines;
mod matching;
#[path = "../../../fuzz/src/stamps.rs"]
mod stamps;
#[path = "../../../tests/shared/streams.rs"]
mod streams;

pub use streams::{Random, percentile};

pub fn millis(ms: f64) -> Ns {
    Ns(streams::millis(ms))
}

pub fn recorded<const N: usize>(name: &str, columns: [usize; N]) -> Option<Vec<[Ns; N]>> {
    let rows = streams::recorded(name, columns)?;
    Some(rows.into_iter().map(|row| row.map(Ns)).collect())
}
