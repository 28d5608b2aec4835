//! Panels with lines over time, as a PNG: no fonts, no screen needed.

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster_width};
use plotters::prelude::*;

#[path = "letters.rs"]
mod letters;

use letters::Lettered;

pub const WIDTH: u32 = 1200;
const PANEL: u32 = 420;
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 96, 20),
    RGBColor(44, 140, 60),
    RGBColor(180, 50, 60),
    RGBColor(120, 90, 170),
    RGBColor(110, 80, 70),
];

/// Values of one camera: seconds, value.
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    /// What it should be, where that is known.
    pub truth: Option<f64>,
}

pub struct Panel {
    pub title: String,
    /// With its unit.
    pub axis: String,
    pub series: Vec<Series>,
    /// Values that are shown in any case.
    pub range: (f64, f64),
}

pub fn write(path: &Path, title: &str, panels: &[Panel]) -> Result<(), Box<dyn Error>> {
    let height = 60 + PANEL * panels.len() as u32;
    let mut pixels = vec![255; (WIDTH * height * 3) as usize];
    {
        let backend = Lettered(BitMapBackend::with_buffer(&mut pixels, (WIDTH, height)));
        let area = backend.into_drawing_area();
        let large = TextStyle::from(("mono", 24)).color(&BLACK);
        area.draw_text(title, &large, (24, 18)).map_err(text)?;
        let (_, rest) = area.split_vertically(60);
        for (area, panel) in rest.split_evenly((panels.len(), 1)).iter().zip(panels) {
            draw(area, panel).map_err(text)?;
        }
        area.present().map_err(text)?;
    }
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(path)?), WIDTH, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(())
}

fn text(err: impl std::fmt::Display) -> Box<dyn Error> {
    err.to_string().into()
}

type Area<'a> = DrawingArea<Lettered<BitMapBackend<'a>>, plotters::coord::Shift>;

fn draw(area: &Area, panel: &Panel) -> Result<(), String> {
    let text = |err: DrawingAreaErrorKind<_>| err.to_string();
    let all = || panel.series.iter().flat_map(|series| &series.points);
    let last = all().map(|point| point.0).fold(1.0, f64::max);
    let low = all().map(|point| point.1).fold(panel.range.0, f64::min);
    let high = all().map(|point| point.1).fold(panel.range.1, f64::max);
    let margin = (high - low) * 0.06;
    let small = || TextStyle::from(("mono", 16)).color(&RGBColor(60, 60, 60));
    area.draw_text(&panel.title, &TextStyle::from(("mono", 20)).color(&BLACK), (24, 6)).map_err(text)?;
    let mut chart = ChartBuilder::on(area)
        .margin_top(64)
        .margin_right(24)
        .margin_left(16)
        .x_label_area_size(56)
        .y_label_area_size(92)
        .build_cartesian_2d(0.0..last, low - margin..high + margin)
        .map_err(text)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(220, 220, 220))
        .axis_style(RGBColor(90, 90, 90))
        .x_labels(11)
        .y_labels(9)
        .label_style(small())
        .axis_desc_style(small())
        .x_desc("running time, s")
        .y_desc(&panel.axis)
        .draw()
        .map_err(text)?;
    let mut left = 116;
    for (series, colour) in panel.series.iter().zip(COLOURS.iter().cycle()) {
        if let Some(truth) = series.truth {
            let dashes = DashedLineSeries::new([(0.0, truth), (last, truth)], 8, 6, colour.mix(0.7).into());
            chart.draw_series(dashes).map_err(text)?;
        }
        let line = LineSeries::new(series.points.iter().copied(), ShapeStyle::from(*colour).stroke_width(2));
        chart.draw_series(line).map_err(text)?;
        // The legend, above the panel.
        area.draw(&Rectangle::new([(left, 42), (left + 24, 46)], colour.filled())).map_err(text)?;
        area.draw_text(&series.name, &small(), (left + 32, 36)).map_err(text)?;
        left += 32
            + (series.name.chars().count() * get_raster_width(FontWeight::Regular, RasterHeight::Size16)) as i32
            + 32;
    }
    Ok(())
}
