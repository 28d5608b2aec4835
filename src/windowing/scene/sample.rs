//! The same few thousand samples of every frame, whatever its size and format.
//!
//! Luma is averaged on a grid of 64x36 cells, chroma on 32x18, each cell from eight pixels in
//! each of two rows, spread evenly over it: noise of single pixels is averaged away. A value is the sum of its sixteen
//! pixels in 8-bit codes: 0 to 4080, so that deeper formats and dark frames keep steps below one code. RGB becomes
//! BT.601 in video range after averaging.

use super::picture::{Component, Components, Picture};

pub const COLUMNS: usize = 64;
pub const ROWS: usize = 36;
pub const CHROMA_COLUMNS: usize = COLUMNS / 2;
pub const CHROMA_ROWS: usize = ROWS / 2;
/// Pixels of a cell along a row.
const ACROSS: usize = 8;
/// Rows of a cell. Few: what costs is to fetch them from memory.
const DOWN: usize = 2;
/// One 8-bit code.
pub const CODE: u32 = (ACROSS * DOWN) as u32;
const NEUTRAL: u16 = 128 * CODE as u16;

/// What is kept of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub luma: [[u16; COLUMNS]; ROWS],
    /// Cb and Cr.
    pub chroma: [[[u16; CHROMA_COLUMNS]; CHROMA_ROWS]; 2],
}

impl Default for Sample {
    fn default() -> Self {
        Self { luma: [[0; COLUMNS]; ROWS], chroma: [[[NEUTRAL; CHROMA_COLUMNS]; CHROMA_ROWS]; 2] }
    }
}

/// Geometry of a component: as long as it stays, so do the places that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Shape {
    width: usize,
    height: usize,
    pixel_stride: usize,
}

/// Places along a row and down the rows.
#[derive(Debug, Clone)]
struct Places<const C: usize, const R: usize> {
    shape: Shape,
    /// Bytes from the start of a row.
    x: [[usize; ACROSS]; C],
    y: [[usize; DOWN]; R],
}

impl<const C: usize, const R: usize> Places<C, R> {
    fn new() -> Self {
        Self { shape: Shape::default(), x: [[0; ACROSS]; C], y: [[0; DOWN]; R] }
    }

    fn fit(&mut self, component: &Component) {
        let &Component { width, height, pixel_stride, .. } = component;
        let shape = Shape { width, height, pixel_stride };
        if self.shape == shape {
            return;
        }
        self.shape = shape;
        for (cell, taps) in self.x.iter_mut().enumerate() {
            for (tap, x) in taps.iter_mut().enumerate() {
                *x = place(cell * ACROSS + tap, C * ACROSS, width) * pixel_stride;
            }
        }
        for (cell, taps) in self.y.iter_mut().enumerate() {
            for (tap, y) in taps.iter_mut().enumerate() {
                *y = place(cell * DOWN + tap, R * DOWN, height);
            }
        }
    }

    fn read(&mut self, component: &Component, into: &mut [[u16; C]; R]) {
        self.fit(component);
        let deep = component.depth > 8;
        let bytes = if deep { 2 } else { 1 };
        let length = (component.width - 1) * component.pixel_stride + bytes;
        for (cells, rows) in into.iter_mut().zip(&self.y) {
            let mut sums = [0u32; C];
            for row in rows {
                let start = component.offset + row * component.row_stride;
                let line = &component.data[start..start + length];
                if deep {
                    for (sum, taps) in sums.iter_mut().zip(&self.x) {
                        for &x in taps {
                            *sum += u32::from(u16::from_le_bytes([line[x], line[x + 1]]));
                        }
                    }
                } else {
                    for (sum, taps) in sums.iter_mut().zip(&self.x) {
                        for &x in taps {
                            *sum += u32::from(line[x]);
                        }
                    }
                }
            }
            for (cell, sum) in cells.iter_mut().zip(sums) {
                // Bits above the depth of a broken ten-bit sample must not leave the scale.
                *cell = (sum >> (component.depth - 8)).min(255 * CODE) as u16;
            }
        }
    }
}

/// The middle of a tap's share of the pixels.
fn place(tap: usize, taps: usize, length: usize) -> usize {
    // In 128 bits no length overflows.
    ((2 * tap as u128 + 1) * length as u128 / (2 * taps as u128)) as usize
}

/// Reads frames. What it holds is fixed in size.
#[derive(Debug, Clone)]
pub struct Sampler {
    luma: Places<COLUMNS, ROWS>,
    chroma: Places<CHROMA_COLUMNS, CHROMA_ROWS>,
    rgb: [[[u16; COLUMNS]; ROWS]; 3],
}

impl Default for Sampler {
    fn default() -> Self {
        Self { luma: Places::new(), chroma: Places::new(), rgb: [[[0; COLUMNS]; ROWS]; 3] }
    }
}

impl Sampler {
    pub fn read(&mut self, picture: &Picture, into: &mut Sample) {
        match &picture.components {
            Components::Gray(luma) => {
                self.luma.read(luma, &mut into.luma);
                into.chroma = [[[NEUTRAL; CHROMA_COLUMNS]; CHROMA_ROWS]; 2];
            }
            Components::Yuv([y, cb, cr]) => {
                self.luma.read(y, &mut into.luma);
                self.chroma.read(cb, &mut into.chroma[0]);
                self.chroma.read(cr, &mut into.chroma[1]);
            }
            Components::Rgb(components) => {
                for (component, cells) in components.iter().zip(&mut self.rgb) {
                    self.luma.read(component, cells);
                }
                self.convert(into);
            }
        }
    }

    /// Integer BT.601, as in ITU-R BT.601-7 section 2.5 scaled to 8 bits of fraction.
    fn convert(&self, into: &mut Sample) {
        let [r, g, b] = &self.rgb;
        for (row, cells) in into.luma.iter_mut().enumerate() {
            for (column, cell) in cells.iter_mut().enumerate() {
                let [r, g, b] = [r, g, b].map(|c| u32::from(c[row][column]));
                *cell = (16 * CODE + ((66 * r + 129 * g + 25 * b + 128) >> 8)) as u16;
            }
        }
        for row in 0..CHROMA_ROWS {
            for column in 0..CHROMA_COLUMNS {
                let [r, g, b] = [r, g, b].map(|c| {
                    let of = |y: usize, x: usize| i32::from(c[2 * row + y][2 * column + x]);
                    of(0, 0) + of(0, 1) + of(1, 0) + of(1, 1)
                });
                let neutral = i32::from(NEUTRAL);
                into.chroma[0][row][column] = (neutral + ((112 * b - 38 * r - 74 * g + 512) >> 10)) as u16;
                into.chroma[1][row][column] = (neutral + ((112 * r - 94 * g - 18 * b + 512) >> 10)) as u16;
            }
        }
    }
}
