//! How fast a sender's clock runs against ours, from stamps and arrivals.
//!
//! Delay x = arrival - stamp is the difference of the clocks plus what the way took. The way is one-sided: packets come late,
//! never early, so the least delay of a stretch of time says more than its mean (1/n against 1/sqrt(n) for exponential
//! jitter). So stamps are cut into blocks; each keeps the sample of least delay, the one of most, and the mean. At most 32
//! blocks are kept; when they are full, neighbours merge and a block becomes twice as long, up to the window.
//!
//! Through the minima goes a Theil-Sen line (the median of the slopes of all pairs: nearly a third of the blocks may be
//! wrong), through those of one, two or four neighbours, whichever agree best. Where noise has two sides, as when stamps
//! themselves are noisy (the mean lies midway between least and most), minima know less than means, and a Huber line goes
//! through the means instead. The offset is the lower envelope, or that line. The confidence is half of the width of the
//! interval that holds the truth in 95 of 100 cases: from the ranks of the slopes (Sen), or from the residuals of the
//! means. It is stated for noise that has no memory from block to block.
//!
//! Sources: Moon, Skelly, Towsley, "Estimation and removal of clock skew from network delay measurements" (1999);
//! Sen, "Estimates of the regression coefficient based on Kendall's tau" (1968); Huber, "Robust statistics" (1981).
//!
//! Delays that change for good (another route) are told from drift by their suddenness: three blocks in a row off the line by
//! the same amount move the older ones there. Units: stamps and arrivals ns, rate ppm (positive: the sender's clock is slow,
//! a stamped second takes longer here). A sample costs O(1), a block 496 slopes; nothing is allocated.

use super::Ns;
use super::spread::MAD_TO_SIGMA;

const BLOCKS: usize = 32;
const SLOPES: usize = BLOCKS * (BLOCKS - 1) / 2;
/// Fewer say nothing about their spread.
const FEWEST: usize = 5;
const FIRST_BLOCK: f64 = 1e9;
/// Where the mean lies between least and most, from which on noise has two sides.
const TWO_SIDED: f64 = 0.4;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Our seconds in a stamped second, less one, in millionths.
    pub ppm: f64,
    /// The truth is that near to `ppm` in 95 of 100 cases.
    pub confidence_ppm: f64,
    /// Least arrival minus stamp (the usual one, if noise has two sides), at the newest stamp.
    pub offset: Ns,
    /// Mean time by which arrivals lie behind that, over about 300 frames.
    pub jitter: Ns,
    /// Stamps that the line rests on.
    pub span: Ns,
}

/// A stretch of samples: positions are ns since the origin.
#[derive(Debug, Clone, Copy, Default)]
struct Block {
    /// The sample of least delay.
    at: f64,
    least: f64,
    /// The one of most.
    most_at: f64,
    most: f64,
    mean_at: f64,
    mean: f64,
    count: f64,
}

impl Block {
    fn merged(self, other: Self, slope: f64) -> Self {
        let count = self.count + other.count;
        let mix = |a: f64, b: f64| (a * self.count + b * other.count) / count;
        let lower = if self.least - slope * self.at <= other.least - slope * other.at { self } else { other };
        let upper = if self.most - slope * self.most_at >= other.most - slope * other.most_at { self } else { other };
        Self {
            at: lower.at,
            least: lower.least,
            most_at: upper.most_at,
            most: upper.most,
            mean_at: mix(self.mean_at, other.mean_at),
            mean: mix(self.mean, other.mean),
            count,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Line {
    slope: f64,
    /// Half of the 95 % interval.
    confidence: f64,
    /// Delay at position `at`.
    level: f64,
    at: f64,
    /// Median distance of the points from the line.
    spread: f64,
    two_sided: bool,
}

impl Line {
    fn delay(&self, at: f64) -> f64 {
        self.level + self.slope * (at - self.at)
    }
}

#[derive(Debug, Clone)]
pub struct Drift {
    window: f64,
    /// Stamp and arrival that positions and delays count from.
    origin: Option<(Ns, Ns)>,
    blocks: [Block; BLOCKS],
    len: usize,
    length: f64,
    /// The block being filled, and where it began.
    open: Block,
    begun: f64,
    newest: f64,
    line: Option<Line>,
    /// Delay at the origin: what drift is counted from. Fixed once the window has left the origin.
    start: f64,
    start_fixed: bool,
    /// By how much the last blocks, in a row, were off.
    off: [f64; 3],
    off_count: usize,
    jitter: f64,
    count: f64,
    reordered: bool,
}

impl Drift {
    /// `window`: the longest stretch of stamps that the line rests on.
    pub fn new(window: Ns) -> Self {
        Self {
            window: window.as_f64().max(32.0 * FIRST_BLOCK),
            origin: None,
            blocks: [Block::default(); BLOCKS],
            len: 0,
            length: FIRST_BLOCK,
            open: Block::default(),
            begun: 0.0,
            newest: 0.0,
            line: None,
            start: 0.0,
            start_fixed: false,
            off: [0.0; 3],
            off_count: 0,
            jitter: 0.0,
            count: 0.0,
            reordered: false,
        }
    }

    /// Stamps are PTS in decode order: what scatters them is no noise, and only the lower envelope means something.
    pub fn set_reordered(&mut self, reordered: bool) {
        self.reordered = reordered;
    }

    /// Takes a stamp that belongs to the model. Stamps may go back a little (B-frames).
    pub fn push(&mut self, stamp: Ns, arrival: Ns) {
        let (stamp0, arrival0) = *self.origin.get_or_insert((stamp, arrival));
        let at = (stamp - stamp0).as_f64();
        let delay = (arrival - arrival0).as_f64() - at;
        if self.open.count > 0.0 && at - self.begun >= self.length {
            self.close();
        }
        if self.open.count == 0.0 {
            self.begun = at;
        }
        self.newest = self.newest.max(at);
        let sample = Block { at, least: delay, most_at: at, most: delay, mean_at: at, mean: delay, count: 1.0 };
        self.open = if self.open.count == 0.0 { sample } else { self.open.merged(sample, self.slope()) };

        self.count += 1.0;
        let above = (delay - self.delay(at)).max(0.0);
        self.jitter += (above - self.jitter) / self.count.min(300.0);
    }

    /// Whether the first second is over: from then on the least delay is known well enough.
    pub fn has_level(&self) -> bool {
        self.len > 0
    }

    pub fn is_empty(&self) -> bool {
        self.origin.is_none()
    }

    /// Least arrival minus stamp at this stamp; 0 before the first sample.
    pub fn offset_at(&self, stamp: Ns) -> Ns {
        let Some((stamp0, arrival0)) = self.origin else { return Ns::ZERO };
        arrival0 - stamp0 + Ns::from_f64(self.delay((stamp - stamp0).as_f64()))
    }

    /// By how much the sender's clock has lost against ours since its first stamp; 0 while nothing is known.
    pub fn lost_at(&self, stamp: Ns) -> Ns {
        match (self.origin, &self.line) {
            (Some((stamp0, _)), Some(line)) => Ns::from_f64(line.delay((stamp - stamp0).as_f64()) - self.start),
            _ => Ns::ZERO,
        }
    }

    /// Nothing before some seconds have been seen.
    pub fn estimate(&self) -> Option<Estimate> {
        let (line, (stamp0, _)) = (self.line?, self.origin?);
        Some(Estimate {
            ppm: line.slope * 1e6,
            confidence_ppm: line.confidence * 1e6,
            offset: self.offset_at(stamp0 + Ns::from_f64(self.newest)),
            jitter: self.jitter(),
            span: Ns::from_f64(self.blocks[self.len - 1].at - self.blocks[0].at),
        })
    }

    pub fn jitter(&self) -> Ns {
        Ns::from_f64(self.jitter)
    }

    fn slope(&self) -> f64 {
        self.line.map_or(0.0, |line| line.slope)
    }

    fn delay(&self, at: f64) -> f64 {
        if let Some(line) = &self.line {
            return line.delay(at);
        }
        // Too early for a line: the least of the last blocks.
        let recent = self.blocks[..self.len].iter().rev().take(2).map(|block| block.least);
        let least = recent.fold(f64::INFINITY, f64::min);
        if self.open.count > 0.0 {
            least.min(self.open.least)
        } else if least.is_finite() {
            least
        } else {
            0.0
        }
    }

    fn close(&mut self) {
        let block = std::mem::take(&mut self.open);
        self.watch_level(block);
        if self.len == BLOCKS {
            if self.length * BLOCKS as f64 <= self.window {
                self.merge();
            } else {
                self.forget(1);
            }
        }
        self.blocks[self.len] = block;
        self.len += 1;
        let stale = self.blocks[..self.len].iter().take_while(|old| block.at - old.at > self.window).count();
        self.forget(stale);
        self.line = fit(&self.blocks[..self.len], self.reordered).or(self.line);
        if let Some(line) = self.line.filter(|_| !self.start_fixed) {
            self.start = line.delay(0.0);
        }
    }

    fn merge(&mut self) {
        let slope = self.slope();
        for i in 0..BLOCKS / 2 {
            self.blocks[i] = self.blocks[2 * i].merged(self.blocks[2 * i + 1], slope);
        }
        self.len = BLOCKS / 2;
        self.length *= 2.0;
    }

    fn forget(&mut self, count: usize) {
        if count > 0 {
            self.blocks.copy_within(count..self.len, 0);
            self.len -= count;
            self.start_fixed = true;
        }
    }

    /// Another route, not another rate: the older blocks move to where the last three lie.
    fn watch_level(&mut self, block: Block) {
        let Some(line) = self.line.filter(|_| self.len >= 2 * FEWEST) else { return };
        let (at, delay) = if line.two_sided { (block.mean_at, block.mean) } else { (block.at, block.least) };
        let off = delay - line.delay(at);
        let same_side = self.off_count == 0 || off.signum() == self.off[0].signum();
        if off.abs() < (10.0 * line.spread).max(3e6) || !same_side {
            self.off_count = 0;
            return;
        }
        self.off[self.off_count] = off;
        self.off_count += 1;
        if self.off_count < self.off.len() {
            return;
        }
        self.off_count = 0;
        self.off.sort_unstable_by(f64::total_cmp);
        let (low, shift, high) = (self.off[0], self.off[1], self.off[2]);
        if high - low > shift.abs() / 2.0 {
            return;
        }
        // The two before this one lie there already.
        let older = self.len - 2;
        for block in &mut self.blocks[..older] {
            block.least += shift;
            block.most += shift;
            block.mean += shift;
        }
        self.start += shift;
        self.start_fixed = true;
    }
}

/// The line through the minima, or through the means if noise has two sides.
fn fit(blocks: &[Block], reordered: bool) -> Option<Line> {
    if blocks.len() < FEWEST {
        return None;
    }
    let (mut slope, mut confidence) = theil_sen(blocks)?;
    let mut merged = [Block::default(); BLOCKS];
    merged[..blocks.len()].copy_from_slice(blocks);
    let mut len = blocks.len();
    while len >= 16 {
        for i in 0..len / 2 {
            merged[i] = merged[2 * i].merged(merged[2 * i + 1], slope);
        }
        len /= 2;
        if let Some(coarser) = theil_sen(&merged[..len]).filter(|coarser| coarser.1 < confidence) {
            (slope, confidence) = coarser;
        }
    }
    let two_sided = !reordered && is_two_sided(blocks, slope);
    if two_sided {
        (slope, confidence) = huber(blocks)?;
    }
    let at = blocks[blocks.len() - 1].at;
    let mut levels = [0.0; BLOCKS];
    let levels = &mut levels[..blocks.len()];
    for (level, block) in levels.iter_mut().zip(blocks) {
        let (x, y) = if two_sided { (block.mean_at, block.mean) } else { (block.at, block.least) };
        *level = y + slope * (at - x);
    }
    let level = median(levels);
    levels.iter_mut().for_each(|value| *value = (*value - level).abs());
    Some(Line { slope, confidence, level, at, spread: median(levels), two_sided })
}

/// Whether means lie near to midway from least to most: at a quarter for 30 samples of exponential noise, lower for more.
fn is_two_sided(blocks: &[Block], slope: f64) -> bool {
    let mut shares = [0.0; BLOCKS];
    let mut count = 0;
    for block in blocks.iter().filter(|block| block.count >= 8.0) {
        let least = block.least - slope * block.at;
        let range = block.most - slope * block.most_at - least;
        if range > 0.0 {
            shares[count] = (block.mean - slope * block.mean_at - least) / range;
            count += 1;
        }
    }
    count >= FEWEST && median(&mut shares[..count]) > TWO_SIDED
}

/// Least squares through the means, where what is far off weighs less; and half of its 95 % interval.
fn huber(blocks: &[Block]) -> Option<(f64, f64)> {
    let mut weights = [1.0; BLOCKS];
    let mut found = None;
    for _ in 0..8 {
        let weighted = || blocks.iter().zip(weights).map(|(block, weight)| (block.mean_at, block.mean, weight));
        let sum: f64 = weighted().map(|(_, _, w)| w).sum();
        let x0 = weighted().map(|(x, _, w)| w * x).sum::<f64>() / sum;
        let y0 = weighted().map(|(_, y, w)| w * y).sum::<f64>() / sum;
        let xx: f64 = weighted().map(|(x, _, w)| w * (x - x0) * (x - x0)).sum();
        if xx <= 0.0 {
            return found;
        }
        let slope = weighted().map(|(x, y, w)| w * (x - x0) * (y - y0)).sum::<f64>() / xx;
        let size = |x: f64, y: f64| (y - y0 - slope * (x - x0)).abs();
        let square: f64 = weighted().map(|(x, y, w)| w * size(x, y).powi(2)).sum();
        found = Some((slope, 1.96 * (square / (blocks.len() as f64 - 2.0) / xx).sqrt()));
        let mut sizes = [0.0; BLOCKS];
        sizes.iter_mut().zip(blocks).for_each(|(value, block)| *value = size(block.mean_at, block.mean));
        let mut sorted = sizes;
        let bound = 2.0 * MAD_TO_SIGMA * median(&mut sorted[..blocks.len()]);
        weights = sizes.map(|size| if size > bound { bound / size } else { 1.0 });
    }
    found
}

/// Theil and Sen's slope, and half of its 95 % interval.
fn theil_sen(blocks: &[Block]) -> Option<(f64, f64)> {
    let mut slopes = [0.0; SLOPES];
    let mut count = 0;
    for (i, a) in blocks.iter().enumerate() {
        for b in &blocks[i + 1..] {
            if b.at > a.at {
                slopes[count] = (b.least - a.least) / (b.at - a.at);
                count += 1;
            }
        }
    }
    let slopes = &mut slopes[..count];
    if count < FEWEST {
        return None;
    }
    slopes.sort_unstable_by(f64::total_cmp);
    let n = blocks.len() as f64;
    let width = 1.96 * (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
    let low = ((count as f64 - width) / 2.0).floor().max(0.0) as usize;
    let high = (((count as f64 + width) / 2.0).ceil() as usize + 1).min(count - 1);
    let slope = (slopes[(count - 1) / 2] + slopes[count / 2]) / 2.0;
    Some((slope, (slopes[high] - slope).max(slope - slopes[low])))
}

fn median(values: &mut [f64]) -> f64 {
    let middle = (values.len() - 1) / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}
