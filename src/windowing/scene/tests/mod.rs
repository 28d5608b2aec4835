//! Pictures made for tests, shared by what is tested.

mod cuts;
mod encoded;
mod formats;

use super::picture::{Picture, PixelFormat, Plane};

pub const WIDTH: usize = 192;
pub const HEIGHT: usize = 108;

/// Planes of 8-bit 4:2:0: what other formats are made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Yuv {
    pub y: Vec<u8>,
    pub cb: Vec<u8>,
    pub cr: Vec<u8>,
}

fn hash(seed: u32, x: i32, y: i32) -> f32 {
    let mut h =
        seed.wrapping_mul(0x9e37_79b9) ^ (x as u32).wrapping_mul(0x85eb_ca6b) ^ (y as u32).wrapping_mul(0xc2b2_ae35);
    for _ in 0..2 {
        h ^= h >> 15;
        h = h.wrapping_mul(0x2c1b_3c6d);
    }
    (h >> 8) as f32 / (1 << 24) as f32 - 0.5
}

/// Value noise: hashes at the corners of squares, linear between them.
fn noise(seed: u32, x: i32, y: i32, square: i32) -> f32 {
    let (column, row) = (x.div_euclid(square), y.div_euclid(square));
    let (fx, fy) = (x.rem_euclid(square) as f32 / square as f32, y.rem_euclid(square) as f32 / square as f32);
    let across = |row| hash(seed, column, row) * (1.0 - fx) + hash(seed, column + 1, row) * fx;
    across(row) * (1.0 - fy) + across(row + 1) * fy
}

impl Yuv {
    pub fn flat(y: u8) -> Self {
        let chroma = vec![128; WIDTH / 2 * HEIGHT / 2];
        Self { y: vec![y; WIDTH * HEIGHT], cb: chroma.clone(), cr: chroma }
    }

    /// A scene, looked at from `x`, `y`.
    pub fn scene(seed: u32, x: i32, y: i32) -> Self {
        let plane = |seed, width: usize, height: usize, scale: i32, level: f32, contrast: f32| {
            (0..width * height)
                .map(|at| {
                    let (x, y) = ((at % width) as i32 + x / scale, (at / width) as i32 + y / scale);
                    let value: f32 = [(64, 1.0), (24, 0.7), (9, 0.5)]
                        .iter()
                        .map(|(square, part)| noise(seed, x, y, square / scale) * part)
                        .sum();
                    (level + contrast * value).clamp(16.0, 235.0) as u8
                })
                .collect()
        };
        let level = 110.0 + 60.0 * hash(seed, 1, 2);
        Self {
            y: plane(seed, WIDTH, HEIGHT, 1, level, 150.0),
            cb: plane(seed + 1000, WIDTH / 2, HEIGHT / 2, 2, 128.0, 50.0),
            cr: plane(seed + 2000, WIDTH / 2, HEIGHT / 2, 2, 128.0, 50.0),
        }
    }

    pub fn map(mut self, luma: impl Fn(f32) -> f32, colour: f32) -> Self {
        self.y.iter_mut().for_each(|v| *v = luma(f32::from(*v)) as u8);
        for plane in [&mut self.cb, &mut self.cr] {
            plane.iter_mut().for_each(|v| *v = (128.0 + (f32::from(*v) - 128.0) * colour) as u8);
        }
        self
    }

    /// Light, 1 as it is, 0 black.
    pub fn lit(self, light: f32) -> Self {
        self.map(|v| 16.0 + (v - 16.0) * light, light)
    }

    pub fn mix(mut self, other: &Self, part: f32) -> Self {
        for (a, b) in [(&mut self.y, &other.y), (&mut self.cb, &other.cb), (&mut self.cr, &other.cr)] {
            a.iter_mut().zip(b).for_each(|(a, b)| *a = (f32::from(*a) * (1.0 - part) + f32::from(*b) * part) as u8);
        }
        self
    }

    /// The bytes of a frame of that format, plane by plane, each with its stride, rows padded.
    pub fn to(&self, format: PixelFormat) -> Vec<(Vec<u8>, usize)> {
        use PixelFormat as F;
        const HALF: usize = WIDTH / 2;
        let pad = 5;
        let rows = |plane: &[u8], width: usize, repeat: usize, f: &dyn Fn(&[u8]) -> Vec<u8>| {
            let mut bytes = Vec::new();
            let mut stride = 0;
            for row in plane.chunks(width) {
                for _ in 0..repeat {
                    let row = f(row);
                    stride = row.len() + pad;
                    bytes.extend_from_slice(&row);
                    bytes.extend_from_slice(&[0xaa; 5]);
                }
            }
            (bytes, stride)
        };
        let same = |row: &[u8]| row.to_vec();
        let wide = |row: &[u8]| row.iter().flat_map(|&v| [v, v]).collect::<Vec<u8>>();
        let sixteen = |row: &[u8]| row.iter().flat_map(|&v| [0, v]).collect::<Vec<u8>>();
        let ten = |row: &[u8]| row.iter().flat_map(|&v| (u16::from(v) << 2).to_le_bytes()).collect::<Vec<u8>>();
        let zip = |a: &[u8], b: &[u8]| a.iter().zip(b).flat_map(|(&a, &b)| [a, b]).collect::<Vec<u8>>();
        let y = || rows(&self.y, WIDTH, 1, &same);
        let (cb, cr) = (&self.cb, &self.cr);
        let packed = |luma_first: bool| {
            let mut bytes = Vec::new();
            for (row, luma) in self.y.chunks(WIDTH).enumerate() {
                let at = row / 2 * HALF;
                let chroma = zip(&cb[at..at + HALF], &cr[at..at + HALF]);
                bytes.extend(if luma_first { zip(luma, &chroma) } else { zip(&chroma, luma) });
                bytes.extend([0xaa; 5]);
            }
            vec![(bytes, 2 * WIDTH + pad)]
        };
        let rgb = |order: [Option<usize>; 4], pixel: usize| {
            let mut bytes = Vec::new();
            for row in 0..HEIGHT {
                for x in 0..WIDTH {
                    let at = row / 2 * HALF + x / 2;
                    let colour = to_rgb(self.y[row * WIDTH + x], cb[at], cr[at]);
                    bytes.extend(order[..pixel].iter().map(|part| part.map_or(0x55, |part| colour[part])));
                }
                bytes.extend([0xaa; 5]);
            }
            vec![(bytes, pixel * WIDTH + pad)]
        };
        let (r, g, b) = (Some(0), Some(1), Some(2));
        match format {
            F::I420 => vec![y(), rows(cb, HALF, 1, &same), rows(cr, HALF, 1, &same)],
            F::Yv12 => vec![y(), rows(cr, HALF, 1, &same), rows(cb, HALF, 1, &same)],
            F::Y42b => vec![y(), rows(cb, HALF, 2, &same), rows(cr, HALF, 2, &same)],
            F::Y444 => vec![y(), rows(cb, HALF, 2, &wide), rows(cr, HALF, 2, &wide)],
            F::Nv12 => vec![y(), rows(&zip(cb, cr), WIDTH, 1, &same)],
            F::Nv21 => vec![y(), rows(&zip(cr, cb), WIDTH, 1, &same)],
            F::P010Le => vec![rows(&self.y, WIDTH, 1, &sixteen), rows(&zip(cb, cr), WIDTH, 1, &sixteen)],
            F::I420TenLe => {
                vec![rows(&self.y, WIDTH, 1, &ten), rows(cb, HALF, 1, &ten), rows(cr, HALF, 1, &ten)]
            }
            F::Gray8 => vec![y()],
            F::Gray16Le => vec![rows(&self.y, WIDTH, 1, &sixteen)],
            F::Yuy2 => packed(true),
            F::Uyvy => packed(false),
            F::Rgb => rgb([r, g, b, None], 3),
            F::Bgr => rgb([b, g, r, None], 3),
            F::Rgbx | F::Rgba => rgb([r, g, b, None], 4),
            F::Bgrx | F::Bgra => rgb([b, g, r, None], 4),
            F::Xrgb | F::Argb => rgb([None, r, g, b], 4),
            F::Xbgr | F::Abgr => rgb([None, b, g, r], 4),
        }
    }
}

/// BT.601 in video range.
fn to_rgb(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let (y, cb, cr) = (1.164 * (f32::from(y) - 16.0), f32::from(cb) - 128.0, f32::from(cr) - 128.0);
    [y + 1.596 * cr, y - 0.392 * cb - 0.813 * cr, y + 2.017 * cb].map(|v| v.round().clamp(0.0, 255.0) as u8)
}

pub fn picture(format: PixelFormat, planes: &[(Vec<u8>, usize)]) -> Picture<'_> {
    let planes: Vec<Plane> = planes.iter().map(|(data, stride)| Plane { data, stride: *stride }).collect();
    Picture::new(format, WIDTH, HEIGHT, &planes).expect("a whole frame")
}
