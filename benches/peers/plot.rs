//! Bars in groups, as a PNG.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster_width};
use plotters::prelude::*;

use crate::Outcome;
use crate::letters::Lettered;

const SIZE: (u32, u32) = (1200, 560);
const COLOURS: [RGBColor; 8] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 96, 20),
    RGBColor(150, 150, 150),
    RGBColor(120, 90, 170),
    RGBColor(44, 140, 60),
    RGBColor(200, 170, 40),
    RGBColor(180, 50, 60),
    RGBColor(110, 80, 70),
];
/// The same peer has the same colour in all plots; the others take what is left.
const KNOWN: [(&str, usize); 5] = [
    ("diskbuffer", 0),
    ("durability=crash", 0),
    ("RocksDB, a put a record", 1),
    ("queue (in memory)", 5),
    ("queue", 5),
];
/// Width of the bars of a group; the rest lies between groups.
const FILLED: f64 = 0.84;

pub struct Bars {
    pub title: String,
    /// With its unit.
    pub axis: String,
    pub groups: Vec<String>,
    /// A name, and a value for each group.
    pub series: Vec<(String, Vec<Option<f64>>)>,
}

fn colours(bars: &Bars) -> Vec<RGBColor> {
    let known = |name: &str| KNOWN.iter().find(|known| known.0 == name).map(|known| known.1);
    let mut left = (0..COLOURS.len()).filter(|at| KNOWN.iter().all(|known| known.1 != *at)).cycle();
    let names = bars.series.iter().map(|(name, _)| name);
    names.map(|name| COLOURS[known(name).or_else(|| left.next()).unwrap_or(0)]).collect()
}

fn text(err: impl std::fmt::Display) -> Box<dyn std::error::Error + Send + Sync> {
    err.to_string().into()
}

/// On a logarithmic axis: what is compared lies up to a thousand times apart.
pub fn write(path: &Path, bars: &Bars) -> Outcome<()> {
    let mut pixels = vec![255; (SIZE.0 * SIZE.1 * 3) as usize];
    draw(BitMapBackend::with_buffer(&mut pixels, SIZE), bars)?;
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(path)?), SIZE.0, SIZE.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(())
}

fn draw(backend: BitMapBackend, bars: &Bars) -> Outcome<()> {
    let area = Lettered(backend).into_drawing_area();
    let values =
        || bars.series.iter().flat_map(|(_, values)| values.iter().flatten().copied()).filter(|value| *value > 0.0);
    let low = 10f64.powf(values().fold(f64::INFINITY, f64::min).log10().floor());
    let high = values().fold(low * 2.0, f64::max) * 2.0;
    let small = || TextStyle::from(("mono", 16)).color(&RGBColor(60, 60, 60));
    area.draw_text(&bars.title, &TextStyle::from(("mono", 20)).color(&BLACK), (24, 14)).map_err(text)?;
    let count = bars.groups.len();
    let mut chart = ChartBuilder::on(&area)
        .margin_top(96)
        .margin_right(24)
        .margin_left(16)
        .x_label_area_size(40)
        .y_label_area_size(92)
        .build_cartesian_2d(0.0..count as f64, (low..high).log_scale())
        .map_err(text)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(220, 220, 220))
        .axis_style(RGBColor(90, 90, 90))
        .x_labels(0)
        .label_style(small())
        .axis_desc_style(small())
        .y_desc(&bars.axis)
        .y_label_formatter(&|value| format!("{value}"))
        .draw()
        .map_err(text)?;
    let colours = colours(bars);
    let width = FILLED / bars.series.len() as f64;
    for (at, ((_, values), colour)) in bars.series.iter().zip(&colours).enumerate() {
        let drawn = values.iter().enumerate().filter_map(|(group, value)| {
            let left = group as f64 + (1.0 - FILLED) / 2.0 + at as f64 * width;
            let top = value.filter(|value| *value > low)?;
            Some(Rectangle::new([(left, low), (left + width * 0.92, top)], colour.filled()))
        });
        chart.draw_series(drawn).map_err(text)?;
    }
    let letter = get_raster_width(FontWeight::Regular, RasterHeight::Size16) as i32;
    let middles: Vec<i32> = (0..count).map(|group| chart.backend_coord(&(group as f64 + 0.5, low)).0).collect();
    for (group, middle) in bars.groups.iter().zip(middles) {
        let left = middle - letter * group.chars().count() as i32 / 2;
        area.draw_text(group, &small(), (left, SIZE.1 as i32 - 30)).map_err(text)?;
    }
    // The legend, in two lines if need be.
    let (mut left, mut top) = (116, 46);
    for ((name, _), colour) in bars.series.iter().zip(&colours) {
        let long = letter * name.chars().count() as i32 + 56;
        if left + long > SIZE.0 as i32 {
            (left, top) = (116, top + 22);
        }
        area.draw(&Rectangle::new([(left, top + 2), (left + 16, top + 14)], colour.filled())).map_err(text)?;
        area.draw_text(name, &small(), (left + 24, top)).map_err(text)?;
        left += long;
    }
    area.present().map_err(text)?;
    Ok(())
}
