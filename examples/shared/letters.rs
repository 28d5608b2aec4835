//! Text in pictures without fonts: letters that are pictures themselves.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use plotters::prelude::*;
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingErrorKind};

/// Writes with letters that are pictures.
pub struct Lettered<B>(pub B);

fn raster_height(size: f64) -> RasterHeight {
    match size as u32 {
        0..=17 => RasterHeight::Size16,
        18..=21 => RasterHeight::Size20,
        _ => RasterHeight::Size24,
    }
}

impl<B: DrawingBackend> DrawingBackend for Lettered<B> {
    type ErrorType = B::ErrorType;

    fn get_size(&self) -> (u32, u32) {
        self.0.get_size()
    }

    fn ensure_prepared(&mut self) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.0.ensure_prepared()
    }

    fn present(&mut self) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.0.present()
    }

    fn draw_pixel(&mut self, at: BackendCoord, colour: BackendColor) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.0.draw_pixel(at, colour)
    }

    fn draw_line<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.0.draw_line(from, to, style)
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        style: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Self::ErrorType>> {
        let height = raster_height(style.size());
        let width = text.chars().count() * get_raster_width(FontWeight::Regular, height);
        Ok((width as u32, height.val() as u32))
    }

    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        at: BackendCoord,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        let (width, height) = self.estimate_text_size(text, style)?;
        let anchor = style.anchor();
        let left = match anchor.h_pos {
            HPos::Left => 0,
            HPos::Center => -(width as i32) / 2,
            HPos::Right => -(width as i32),
        };
        let top = match anchor.v_pos {
            VPos::Top => 0,
            VPos::Center => -(height as i32) / 2,
            VPos::Bottom => -(height as i32),
        };
        let (size, colour) = (raster_height(style.size()), style.color());
        let step = get_raster_width(FontWeight::Regular, size) as i32;
        for (letter, x) in text.chars().zip((left..).step_by(step as usize)) {
            let Some(raster) = get_raster(letter, FontWeight::Regular, size) else { continue };
            for (row, y) in raster.rows().zip(top..) {
                for (ink, x) in row.iter().zip(x..).filter(|(ink, _)| **ink > 0) {
                    let (x, y) = style.transform().transform(x, y);
                    let alpha = colour.alpha * f64::from(*ink) / 255.0;
                    self.0.draw_pixel((at.0 + x, at.1 + y), BackendColor { alpha, ..colour })?;
                }
            }
        }
        Ok(())
    }
}
