//! How different two frames are, 0 to 1, after the motion between them has been taken out.
//!
//! Blocks of 8x6 cells are looked for in the other frame within 6 columns and 4 rows (a tenth of the frame), as a
//! video encoder does; what remains is set against the texture of the blocks, as x264's scene-cut decision sets the
//! cost of inter against intra prediction (J. Garrett-Glaser, x264, `slicetype.c`): residue / (residue + texture +
//! noise). So the distance depends neither on contrast nor on the level of light: 0 for what only moved, above one
//! half for what has nothing in common.
//!
//! It is a trimmed mean: the third of the blocks that changed most is left out, so that a title, a wipe that has
//! begun or an object that passes does not speak for the frame. Blocks without anything to see do not count.

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
const NOISE: u32 = 1;
/// The residue of a block counts up to so many times its texture: a title or a wipe over part of the frame does not
/// outweigh the rest.
const MOST: u32 = 3;
/// Texture counts up to so many times the mean: the edges of black bars are no texture of the picture.
const RICH: u32 = 2;
const BLOCK_NOISE: u32 = NOISE * CODE * (BLOCK_COLUMNS * BLOCK_ROWS) as u32;

/// Correlation of luma from which on a change of light is considered.
const ALIKE: f32 = 0.7;

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

/// Sums over quarters of blocks, at each place. The differences of the four add up to at most that of the blocks, so most
/// places of a search are left out without a look at their cells (successive elimination: W. Li, E. Salari, IEEE Trans.
/// Image Processing 4(1), 1995, and its refinements by parts of blocks).
struct Quarters([[u16; COLUMNS + LANES]; ROWS]);

const QUARTER_COLUMNS: usize = BLOCK_COLUMNS / 2;
const QUARTER_ROWS: usize = BLOCK_ROWS / 2;
/// At least the places of a search in a row, which are looked at together.
const LANES: usize = 16;
const _: () = assert!(LANES > 2 * REACH_X as usize);

impl Quarters {
    fn of(luma: &[[u16; COLUMNS]; ROWS]) -> Self {
        let mut sums = [[0; COLUMNS + LANES]; ROWS];
        for (rows, sums) in luma.windows(QUARTER_ROWS).zip(&mut sums) {
            let mut columns = [0u16; COLUMNS];
            for row in rows {
                columns.iter_mut().zip(row).for_each(|(sum, v)| *sum += v);
            }
            // Twelve cells of at most 4080 fit.
            for (sum, columns) in sums.iter_mut().zip(columns.windows(QUARTER_COLUMNS)) {
                *sum = columns.iter().sum();
            }
        }
        Self(sums)
    }

    fn at(&self, (x, y): (usize, usize)) -> [u16; 4] {
        let (right, below) = (x + QUARTER_COLUMNS, y + QUARTER_ROWS);
        [self.0[y][x], self.0[y][right], self.0[below][x], self.0[below][right]]
    }

    /// What a block with these quarters differs at least, from that at `x` and from each behind it.
    fn least(&self, of: [u16; 4], (x, y): (usize, usize)) -> [u16; LANES] {
        let (right, below) = (x + QUARTER_COLUMNS, y + QUARTER_ROWS);
        let mut least = [0u16; LANES];
        for (own, (x, y)) in of.into_iter().zip([(x, y), (right, y), (x, below), (right, below)]) {
            let there: &[u16; LANES] = self.0[y][x..x + LANES].try_into().unwrap_or(&[0; LANES]);
            for (least, there) in least.iter_mut().zip(there) {
                *least = least.saturating_add(own.abs_diff(*there));
            }
        }
        least
    }
}

/// Where a block of one frame, at a place, is found in another: what still differs there, and the place. Of several the
/// place itself, then the first.
fn search(
    (a, of): (&Sample, [u16; 4]),
    (b, quarters): (&Sample, &Quarters),
    at: (usize, usize),
    mut best: (u32, (usize, usize)),
) -> (u32, (usize, usize)) {
    let range = |from: usize, reach: isize, last: usize| {
        from.saturating_add_signed(-reach)..=from.saturating_add_signed(reach).min(last)
    };
    let across = range(at.0, REACH_X, COLUMNS - BLOCK_COLUMNS);
    for y in range(at.1, REACH_Y, ROWS - BLOCK_ROWS) {
        let least = quarters.least(of, (*across.start(), y));
        for (x, least) in across.clone().zip(least) {
            if u32::from(least) < best.0 {
                let here = residue::<COLUMNS, BLOCK_COLUMNS, BLOCK_ROWS>(&a.luma, at, &b.luma, (x, y));
                if here < best.0 {
                    best = (here, (x, y));
                }
            }
        }
    }
    best
}

/// Whether motion is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Motion {
    Ignore,
    Search,
}

pub fn distance(a: (&Sample, &Texture), b: (&Sample, &Texture), motion: Motion) -> f32 {
    let both = |block: usize| u32::midpoint(a.1[block], b.1[block]);
    let high = RICH * (0..BLOCKS).map(both).sum::<u32>() / BLOCKS as u32;
    // Residue and texture of blocks in which there is something to see.
    let mut seen = [(0u32, 0u32); BLOCKS];
    let mut count = 0;
    let mut quarters = None;
    for (block, (x, y)) in blocks().enumerate() {
        let texture = both(block).min(high);
        let at = (x * BLOCK_COLUMNS, y * BLOCK_ROWS);
        let luma = |to| residue::<COLUMNS, BLOCK_COLUMNS, BLOCK_ROWS>(&a.0.luma, at, &b.0.luma, to);
        let mut best = (luma(at), at);
        if motion == Motion::Search && best.0 > BLOCK_NOISE / 2 {
            let (of_a, of_b) = quarters.get_or_insert_with(|| (Quarters::of(&a.0.luma), Quarters::of(&b.0.luma)));
            best = search((a.0, of_a.at(at)), (b.0, of_b), at, best);
        }
        let residue = (best.0 + chroma_residue(a.0, b.0, (x, y), best.1)).min(MOST * (texture + BLOCK_NOISE));
        if residue + texture > BLOCK_NOISE / 2 {
            seen[count] = (residue, texture + BLOCK_NOISE);
            count += 1;
        }
    }
    let seen = &mut seen[..count];
    seen.sort_unstable_by(|a, b| (u64::from(a.0) * u64::from(b.1)).cmp(&(u64::from(b.0) * u64::from(a.1))));
    let calm = &seen[..(count * 2).div_ceil(3)];
    let (left, texture) = calm.iter().fold((0, 0), |sum, block| (sum.0 + block.0, sum.1 + block.1));
    let blank = (BLOCKS / 8).saturating_sub(count) as u32 * BLOCK_NOISE;
    if left == 0 { 0.0 } else { left as f32 / (left + texture + blank) as f32 }
}

/// Frame `a` under the light of frame `b`, if a change of light may be what happened between them: if the one is much
/// like the other up to gain and offset (least squares over all cells), and not equally lit anyway.
pub fn relight(a: &Sample, b: &Sample, into: (&mut Sample, &mut Texture)) -> bool {
    let fit = Fit::of(&a.luma, &b.luma);
    if fit.correlation < ALIKE || (fit.gain - 1.0).abs() < 0.05 && (fit.to - fit.from).abs() < 2.0 * CODE as f32 {
        return false;
    }
    fit.apply(&a.luma, &mut into.0.luma);
    for ((a, b), into) in a.chroma.iter().zip(&b.chroma).zip(&mut into.0.chroma) {
        Fit::of(a, b).apply(a, into);
    }
    texture(into.0, into.1);
    true
}

/// Standard deviation of luma below which a frame is blank, in cells' units.
const BLANK: f64 = CODE as f64;

/// A frame of one colour: black, or the middle of a flash.
pub fn is_blank(sample: &Sample) -> bool {
    Fit::of(&sample.luma, &sample.luma).variance < BLANK * BLANK
}

/// How much more contrast `b` has than `a`, if it shows the same picture.
pub fn contrast(a: &Sample, b: &Sample) -> Option<f32> {
    let fit = Fit::of(&a.luma, &b.luma);
    (fit.correlation >= ALIKE).then_some(fit.gain)
}

/// Line through the values of two planes.
struct Fit {
    /// Means.
    from: f32,
    to: f32,
    gain: f32,
    correlation: f32,
    /// Of the values it starts from.
    variance: f64,
}

impl Fit {
    fn of<const C: usize, const R: usize>(a: &[[u16; C]; R], b: &[[u16; C]; R]) -> Self {
        let (mut sum_a, mut sum_b, mut aa, mut bb, mut ab) = (0u64, 0u64, 0u64, 0u64, 0u64);
        for (a, b) in a.iter().zip(b) {
            // A row's products fit in 32 bits: 64 of at most 4080 squared.
            let mut row = [0u32; 5];
            for (&a, &b) in a.iter().zip(b) {
                let (a, b) = (u32::from(a), u32::from(b));
                for (sum, value) in row.iter_mut().zip([a, b, a * a, b * b, a * b]) {
                    *sum += value;
                }
            }
            for (sum, row) in [&mut sum_a, &mut sum_b, &mut aa, &mut bb, &mut ab].into_iter().zip(row) {
                *sum += u64::from(row);
            }
        }
        let count = (C * R) as f64;
        let covariance = |products: u64, a: u64, b: u64| products as f64 - a as f64 * b as f64 / count;
        let (var_a, var_b, cov) =
            (covariance(aa, sum_a, sum_a), covariance(bb, sum_b, sum_b), covariance(ab, sum_a, sum_b));
        let (gain, correlation) =
            if var_a > 0.0 && var_b > 0.0 { (cov / var_a, cov / (var_a * var_b).sqrt()) } else { (1.0, 0.0) };
        let mean = |sum: u64| (sum as f64 / count) as f32;
        Self {
            from: mean(sum_a),
            to: mean(sum_b),
            gain: gain as f32,
            correlation: correlation as f32,
            variance: var_a / count,
        }
    }

    fn apply<const C: usize, const R: usize>(&self, a: &[[u16; C]; R], into: &mut [[u16; C]; R]) {
        let top = (255 * CODE) as f32;
        for (a, into) in a.iter().flatten().zip(into.iter_mut().flatten()) {
            *into = (self.gain * (f32::from(*a) - self.from) + self.to).clamp(0.0, top) as u16;
        }
    }
}

/// Sum of absolute differences.
pub fn difference(a: &[u16], b: &[u16]) -> u32 {
    a.iter().zip(b).map(|(a, b)| u32::from(a.abs_diff(*b))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waves of some length, moved, with some noise: from pictures to nothing but noise.
    fn sample(seed: u64, moved: (usize, usize), noise: u64) -> Sample {
        let mut state = seed | 1;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut sample = Sample::default();
        for (y, row) in sample.luma.iter_mut().enumerate() {
            for (x, cell) in row.iter_mut().enumerate() {
                let (x, y) = ((x + moved.0) as f64, (y + moved.1) as f64);
                let wave = (x * 0.21).sin() + (y * 0.33).sin() + ((x + 2.0 * y) * 0.11).cos();
                *cell = ((wave + 3.0) * 500.0) as u16 + (random() % (noise + 1)) as u16;
            }
        }
        sample
    }

    #[test]
    fn a_search_finds_what_a_look_at_every_place_finds() {
        for (seed, noise) in [0, 5, 200, 1000].into_iter().enumerate() {
            let seed = seed as u64 + 1;
            let (a, b) = (sample(seed, (0, 0), noise), sample(seed + 9, (seed as usize + 1, 3), noise));
            let (of_a, of_b) = (Quarters::of(&a.luma), Quarters::of(&b.luma));
            for (x, y) in blocks() {
                let at = (x * BLOCK_COLUMNS, y * BLOCK_ROWS);
                let luma = |to| residue::<COLUMNS, BLOCK_COLUMNS, BLOCK_ROWS>(&a.luma, at, &b.luma, to);
                let mut best = (luma(at), at);
                for y in at.1.saturating_sub(4)..=(at.1 + 4).min(ROWS - BLOCK_ROWS) {
                    for x in at.0.saturating_sub(6)..=(at.0 + 6).min(COLUMNS - BLOCK_COLUMNS) {
                        best = if luma((x, y)) < best.0 { (luma((x, y)), (x, y)) } else { best };
                    }
                }
                assert_eq!(search((&a, of_a.at(at)), (&b, &of_b), at, (luma(at), at)), best, "{at:?}, noise {noise}");
            }
        }
    }
}
