//! A raw frame, described by where its samples lie: enough to read any pixel of the usual formats, nothing more.
//!
//! A [`Picture`] borrows the bytes of a frame and checks its geometry once: what [`Picture::new`] returned is read
//! without going out of bounds, and a frame that is shorter than its caps say is an error, never a panic. Samples of
//! more than 8 bits are read byte by byte: no alignment is asked for.

/// Raw formats that are read, named as GStreamer names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    I420,
    Yv12,
    Y42b,
    Y444,
    Nv12,
    Nv21,
    Gray8,
    Yuy2,
    Uyvy,
    Rgb,
    Bgr,
    Rgbx,
    Bgrx,
    Xrgb,
    Xbgr,
    Rgba,
    Bgra,
    Argb,
    Abgr,
    P010Le,
    I420TenLe,
    Gray16Le,
}

use PixelFormat as F;

impl PixelFormat {
    /// All of them, with the name that caps give them.
    pub const ALL: [(Self, &'static str); 22] = [
        (F::I420, "I420"),
        (F::Yv12, "YV12"),
        (F::Y42b, "Y42B"),
        (F::Y444, "Y444"),
        (F::Nv12, "NV12"),
        (F::Nv21, "NV21"),
        (F::Gray8, "GRAY8"),
        (F::Yuy2, "YUY2"),
        (F::Uyvy, "UYVY"),
        (F::Rgb, "RGB"),
        (F::Bgr, "BGR"),
        (F::Rgbx, "RGBx"),
        (F::Bgrx, "BGRx"),
        (F::Xrgb, "xRGB"),
        (F::Xbgr, "xBGR"),
        (F::Rgba, "RGBA"),
        (F::Bgra, "BGRA"),
        (F::Argb, "ARGB"),
        (F::Abgr, "ABGR"),
        (F::P010Le, "P010_10LE"),
        (F::I420TenLe, "I420_10LE"),
        (F::Gray16Le, "GRAY16_LE"),
    ];

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(format, _)| *format)
    }

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(format, _)| *format == self).map_or("", |(_, name)| name)
    }

    /// Where the components lie. Positions of packed formats are bytes inside a pixel.
    const fn layout(self) -> Layout {
        use Layout::{Gray, Packed422, Planar, Rgb, SemiPlanar};
        match self {
            F::I420 => Planar { x: 1, y: 1, cb: 1, cr: 2, depth: 8 },
            F::Yv12 => Planar { x: 1, y: 1, cb: 2, cr: 1, depth: 8 },
            F::I420TenLe => Planar { x: 1, y: 1, cb: 1, cr: 2, depth: 10 },
            F::Y42b => Planar { x: 1, y: 0, cb: 1, cr: 2, depth: 8 },
            F::Y444 => Planar { x: 0, y: 0, cb: 1, cr: 2, depth: 8 },
            F::Nv12 => SemiPlanar { cb: 0, cr: 1, depth: 8 },
            F::Nv21 => SemiPlanar { cb: 1, cr: 0, depth: 8 },
            // Ten bits at the top of sixteen.
            F::P010Le => SemiPlanar { cb: 0, cr: 1, depth: 16 },
            F::Gray8 => Gray { depth: 8 },
            F::Gray16Le => Gray { depth: 16 },
            F::Yuy2 => Packed422 { y: 0, cb: 1, cr: 3 },
            F::Uyvy => Packed422 { y: 1, cb: 0, cr: 2 },
            F::Rgb => Rgb { r: 0, g: 1, b: 2, pixel: 3 },
            F::Bgr => Rgb { r: 2, g: 1, b: 0, pixel: 3 },
            F::Rgbx | F::Rgba => Rgb { r: 0, g: 1, b: 2, pixel: 4 },
            F::Bgrx | F::Bgra => Rgb { r: 2, g: 1, b: 0, pixel: 4 },
            F::Xrgb | F::Argb => Rgb { r: 1, g: 2, b: 3, pixel: 4 },
            F::Xbgr | F::Abgr => Rgb { r: 3, g: 2, b: 1, pixel: 4 },
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Layout {
    /// `x`, `y`: how often chroma is halved. `cb`, `cr`: planes.
    Planar {
        x: u32,
        y: u32,
        cb: usize,
        cr: usize,
        depth: u32,
    },
    /// 4:2:0, chroma interleaved in the second plane.
    SemiPlanar {
        cb: usize,
        cr: usize,
        depth: u32,
    },
    Gray {
        depth: u32,
    },
    /// Two pixels in four bytes.
    Packed422 {
        y: usize,
        cb: usize,
        cr: usize,
    },
    Rgb {
        r: usize,
        g: usize,
        b: usize,
        pixel: usize,
    },
}

/// The bytes of one plane, and the bytes from one row to the next.
#[derive(Debug, Clone, Copy)]
pub struct Plane<'a> {
    pub data: &'a [u8],
    pub stride: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    #[error("a frame of {width}x{height} pixels has nothing to look at")]
    Empty { width: usize, height: usize },
    #[error("{format} has {expected} planes, the frame has {found}")]
    Planes { format: &'static str, expected: usize, found: usize },
    #[error("plane {plane} has {stride} bytes a row, its pixels take {needed}")]
    Stride { plane: usize, stride: usize, needed: usize },
    #[error("plane {plane} has {found} bytes, its pixels take {needed}")]
    Short { plane: usize, found: usize, needed: usize },
}

/// One component of a frame: samples of one or two bytes at regular distances.
#[derive(Debug, Clone, Copy)]
pub struct Component<'a> {
    pub(super) data: &'a [u8],
    pub(super) offset: usize,
    pub(super) row_stride: usize,
    pub(super) pixel_stride: usize,
    pub(super) width: usize,
    pub(super) height: usize,
    /// Bits of a sample; above 8, a sample is two bytes, little endian.
    pub(super) depth: u32,
}

#[derive(Debug, Clone, Copy)]
pub enum Components<'a> {
    Gray(Component<'a>),
    /// Y, Cb, Cr.
    Yuv([Component<'a>; 3]),
    Rgb([Component<'a>; 3]),
}

/// A frame that can be read.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    pub(super) components: Components<'a>,
}

impl<'a> Picture<'a> {
    /// `planes` in GStreamer's order of planes (in YV12, V comes second). More planes than the format has are an error.
    pub fn new(format: PixelFormat, width: usize, height: usize, planes: &[Plane<'a>]) -> Result<Self, PictureError> {
        if width == 0 || height == 0 {
            return Err(PictureError::Empty { width, height });
        }
        let layout = format.layout();
        let expected = match layout {
            Layout::Planar { .. } => 3,
            Layout::SemiPlanar { .. } => 2,
            Layout::Gray { .. } | Layout::Packed422 { .. } | Layout::Rgb { .. } => 1,
        };
        if planes.len() != expected {
            return Err(PictureError::Planes { format: format.name(), expected, found: planes.len() });
        }
        let at = |plane: usize, offset, pixel_stride, width, height, depth| {
            component(planes, plane, offset, pixel_stride, (width, height), depth)
        };
        let half = |length: usize| length.div_ceil(2);
        let components = match layout {
            Layout::Planar { x, y, cb, cr, depth } => {
                let bytes = if depth > 8 { 2 } else { 1 };
                let (w, h) = (if x == 1 { half(width) } else { width }, if y == 1 { half(height) } else { height });
                Components::Yuv([
                    at(0, 0, bytes, width, height, depth)?,
                    at(cb, 0, bytes, w, h, depth)?,
                    at(cr, 0, bytes, w, h, depth)?,
                ])
            }
            Layout::SemiPlanar { cb, cr, depth } => {
                let bytes = if depth > 8 { 2 } else { 1 };
                let (w, h) = (half(width), half(height));
                Components::Yuv([
                    at(0, 0, bytes, width, height, depth)?,
                    at(1, cb * bytes, 2 * bytes, w, h, depth)?,
                    at(1, cr * bytes, 2 * bytes, w, h, depth)?,
                ])
            }
            Layout::Gray { depth } => Components::Gray(at(0, 0, if depth > 8 { 2 } else { 1 }, width, height, depth)?),
            Layout::Packed422 { y, cb, cr } => Components::Yuv([
                at(0, y, 2, width, height, 8)?,
                at(0, cb, 4, half(width), height, 8)?,
                at(0, cr, 4, half(width), height, 8)?,
            ]),
            Layout::Rgb { r, g, b, pixel } => Components::Rgb([
                at(0, r, pixel, width, height, 8)?,
                at(0, g, pixel, width, height, 8)?,
                at(0, b, pixel, width, height, 8)?,
            ]),
        };
        Ok(Self { components })
    }
}

fn component<'a>(
    planes: &[Plane<'a>],
    plane: usize,
    offset: usize,
    pixel_stride: usize,
    (width, height): (usize, usize),
    depth: u32,
) -> Result<Component<'a>, PictureError> {
    let Plane { data, stride } = planes[plane];
    let bytes = if depth > 8 { 2 } else { 1 };
    // Widths and heights come from caps: they may be anything, and so may their product.
    let row = (width - 1).saturating_mul(pixel_stride).saturating_add(offset + bytes);
    if stride < row {
        return Err(PictureError::Stride { plane, stride, needed: row });
    }
    let needed = (height - 1).saturating_mul(stride).saturating_add(row);
    if data.len() < needed {
        return Err(PictureError::Short { plane, found: data.len(), needed });
    }
    Ok(Component { data, offset, row_stride: stride, pixel_stride, width, height, depth })
}
