//! How different two frames are, 0 to 1, after the motion between them has been taken out.
//!
//! Blocks of 8x6 cells are looked for in the other frame within 6 columns and 4 rows (a tenth of the frame), as a video encoder does;
//! what remains is set against the texture of the blocks, as x264's scene-cut decision sets the cost of inter against
//! intra prediction (J. Garrett-Glaser, x264, `slicetype.c`): residue / (residue + texture + noise). So the
//! distance depends neither on contrast nor on the level of light: 0 for what only moved, above one half for what has nothing in common.

use super::sample::{CHROMA_COLUMNS, CHROMA_ROWS, CODE, COLUMNS, ROWS, Sample};

const BLOCK_COLUMNS: usize = 8;
const BLOCK_ROWS: usize = 6;
const BLOCKS_X: usize = COLUMNS / BLOCK_COLUMNS;
const BLOCKS_Y: usize = ROWS / BLOCK_ROWS;
pub const BLOCKS: usize = BLOCKS_X * BLOCKS_Y;
const CHROMA_BLOCK_COLUMNS: usize = CHROMA_COLUMNS / BLOCKS_X;
const CHROMA_BLOCK_ROWS: usize = CHROMA_ROWS / BLOCKS_Y;
const REACH_X: isize = 6;
const REACH_Y: isize = 4;
/// Chroma is sampled at a quarter of luma's places, in two components: together they weigh as much as luma.
const CHROMA_WEIGHT: u32 = 2;
/// Differences of that many codes a cell mean nothing.
const NOISE: u32 = 2;
const BLOCK_NOISE: u32 = NOISE * CODE * (BLOCK_COLUMNS * BLOCK_ROWS) as u32;

/// Sum of differences from the mean, of each block.
pub type Texture = [u32; BLOCKS];

fn blocks() -> impl Iterator<Item = (usize, usize)> {
    (0..BLOCKS_Y).flat_map(|y| (0..BLOCKS_X).map(move |x| (x, y)))
}

fn spread<const C: usize, const W: usize>(cells: &[[u16; C]], x: usize) -> u32 {
    let rows = || cells.iter().map(|row| &row[x..x + W]);
    let sum: u32 = rows().flatten().map(|&v| u32::from(v)).sum();
    let mean = (sum / (W * cells.len()) as u32) as u16;
    rows().flatten().map(|&v| u32::from(v.abs_diff(mean))).sum()
}

pub fn texture(sample: &Sample, into: &mut Texture) {
    for ((x, y), texture) in blocks().zip(into) {
        let rows = &sample.luma[y * BLOCK_ROWS..(y + 1) * BLOCK_ROWS];
        *texture = spread::<COLUMNS, BLOCK_COLUMNS>(rows, x * BLOCK_COLUMNS);
        for plane in &sample.chroma {
            let rows = &plane[y * CHROMA_BLOCK_ROWS..(y + 1) * CHROMA_BLOCK_ROWS];
            *texture += CHROMA_WEIGHT * spread::<CHROMA_COLUMNS, CHROMA_BLOCK_COLUMNS>(rows, x * CHROMA_BLOCK_COLUMNS);
        }
    }
}

/// Sum of absolute differences of two blocks, given their upper left cells.
#[inline]
fn residue<const C: usize, const W: usize, const H: usize>(
    a: &[[u16; C]],
    (ax, ay): (usize, usize),
    b: &[[u16; C]],
    (bx, by): (usize, usize),
) -> u32 {
    let mut columns = [0u16; W];
    for (a, b) in a[ay..ay + H].iter().zip(&b[by..by + H]) {
        let a: &[u16; W] = a[ax..ax + W].try_into().unwrap_or(&[0; W]);
        let b: &[u16; W] = b[bx..bx + W].try_into().unwrap_or(&[0; W]);
        for ((sum, a), b) in columns.iter_mut().zip(a).zip(b) {
            // Six rows of at most 4080 each fit.
            *sum += a.abs_diff(*b);
        }
    }
    columns.iter().map(|&sum| u32::from(sum)).sum()
}

fn chroma_residue(a: &Sample, b: &Sample, (x, y): (usize, usize), (bx, by): (usize, usize)) -> u32 {
    let from = (x * CHROMA_BLOCK_COLUMNS, y * CHROMA_BLOCK_ROWS);
    let sum = |plane: usize| {
        residue::<CHROMA_COLUMNS, CHROMA_BLOCK_COLUMNS, CHROMA_BLOCK_ROWS>(
            &a.chroma[plane],
            from,
            &b.chroma[plane],
            (bx / 2, by / 2),
        )
    };
    CHROMA_WEIGHT * (sum(0) + sum(1))
}

/// Whether motion is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Motion {
    Ignore,
    Search,
}

pub fn distance(a: (&Sample, &Texture), b: (&Sample, &Texture), motion: Motion) -> f32 {
    let (mut left, mut all) = (0u64, 0u64);
    for (block, (x, y)) in blocks().enumerate() {
        let texture = u32::midpoint(a.1[block], b.1[block]);
        let at = (x * BLOCK_COLUMNS, y * BLOCK_ROWS);
        let luma = |to| residue::<COLUMNS, BLOCK_COLUMNS, BLOCK_ROWS>(&a.0.luma, at, &b.0.luma, to);
        let mut best = (luma(at), at);
        if motion == Motion::Search && best.0 > BLOCK_NOISE / 2 {
            let range = |from: usize, reach: isize, last: usize| {
                from.saturating_add_signed(-reach)..=from.saturating_add_signed(reach).min(last)
            };
            for by in range(at.1, REACH_Y, ROWS - BLOCK_ROWS) {
                for bx in range(at.0, REACH_X, COLUMNS - BLOCK_COLUMNS) {
                    let here = luma((bx, by));
                    if here < best.0 {
                        best = (here, (bx, by));
                    }
                }
            }
        }
        let residue = best.0 + chroma_residue(a.0, b.0, (x, y), best.1);
        left += u64::from(residue);
        all += u64::from(residue + texture + BLOCK_NOISE);
    }
    left as f32 / all as f32
}
