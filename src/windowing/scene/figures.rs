//! Exposure and complexity of a frame, from the samples that were taken for its score.
//!
//! - `exposure`, 0 to 1: the share of cells that are neither crushed to black nor blown out: luma, in 8-bit codes, of
//!   20 to 235 inclusive (video black is 16, video white 235).
//! - `detail`: mean absolute difference of neighbouring cells, to the right and below, in 8-bit luma codes.
//! - `change`: mean absolute difference of each cell from the same cell of the frame before, in 8-bit luma codes; 0 in
//!   the first frame.
//! - Complexity is the sum of detail and change, in 8-bit luma codes. It does not depend on the size of the frame.

use super::sample::{CODE, COLUMNS, ROWS, Sample};
use super::score::difference;

const BLACK: u16 = 20 * CODE as u16;
const WHITE: u16 = 235 * CODE as u16;
const CELLS: u32 = (COLUMNS * ROWS) as u32;

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Figures {
    pub exposure: f32,
    pub detail: f32,
    pub change: f32,
}

impl Figures {
    pub fn complexity(&self) -> f32 {
        self.detail + self.change
    }
}

pub fn of(sample: &Sample, previous: Option<&Sample>) -> Figures {
    let rows = &sample.luma;
    let exposed: u32 = rows.iter().map(exposed).sum();
    let across: u32 = rows.iter().map(|row| difference(&row[1..], &row[..COLUMNS - 1])).sum();
    let down: u32 = rows.iter().zip(&rows[1..]).map(|(above, below)| difference(above, below)).sum();
    let change: u32 =
        previous.map_or(0, |previous| rows.iter().zip(&previous.luma).map(|(a, b)| difference(a, b)).sum());
    // Each direction has its own number of neighbours.
    let mean = |sum: u32, of: usize| sum as f32 / (of as u32 * CODE) as f32;
    Figures {
        exposure: exposed as f32 / CELLS as f32,
        detail: (mean(across, ROWS * (COLUMNS - 1)) + mean(down, (ROWS - 1) * COLUMNS)) / 2.0,
        change: mean(change, CELLS as usize),
    }
}

fn exposed(row: &[u16; COLUMNS]) -> u32 {
    row.iter().map(|cell| u32::from((BLACK..=WHITE).contains(cell))).sum()
}
