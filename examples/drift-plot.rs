//! Shows what `framesync` finds out about the clocks of cameras, and how well it corrects them: samples the `stats` of its sink pads
//! and writes a PNG.
//!
//! Usage: `drift-plot [--drift PPM,PPM...] [--jitter MS] [--seconds S] [--output FILE]` for cameras that are made up, whose drift is known:
//! ten minutes of them take some seconds, on a clock that runs as fast as they do. `drift-plot --launch "..."` for real ones, for as long
//! as `--seconds` says, with any pipeline that has a `framesync` in it:
//!
//! ```text
//! drift-plot --seconds 600 --launch "rtspsrc location=rtsp://a ! rtph264depay ! h264parse ! framesync ! fakesink sync=true"
//! ```
//!
//! The upper panel has `drift-ppm`, once it is known to 100 ppm; for made-up cameras beside the truth, dashed. The lower one has for
//! these by how much stamps that left are off the moment the picture was taken; for real ones, where nobody knows that moment, by how
//! much the sender's stamps have moved against their arrival since the beginning, which is what is corrected.

#[path = "shared/chart.rs"]
mod chart;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;
use gst::prelude::*;

use chart::{Panel, Series};

#[derive(Parser)]
#[command(about = "Plots drift of cameras' clocks and what is left of it, as framesync sees it")]
struct Arguments {
    /// Drift of the made-up cameras in ppm; positive: the camera's clock is slow.
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true, default_values_t = [-100.0, 20.0, 150.0])]
    drift: Vec<f64>,
    /// Mean delay of the network above its least, in ms.
    #[arg(long, default_value_t = 5.0)]
    jitter: f64,
    /// How long they run: 600 without --launch, else 60.
    #[arg(long)]
    seconds: Option<u64>,
    /// The picture.
    #[arg(long, default_value = "drift.png")]
    output: PathBuf,
    /// A pipeline with a framesync, as gst-launch-1.0 takes it.
    #[arg(long)]
    launch: Option<String>,
}

/// One stream, as it is sampled.
#[derive(Default)]
struct Camera {
    name: String,
    /// Seconds, and ppm or ms.
    drift: Vec<(f64, f64)>,
    error: Vec<(f64, f64)>,
    truth: Option<f64>,
    confidence: f64,
}

impl Camera {
    fn sample(&mut self, pad: &gst::Pad, seconds: f64) -> Option<i64> {
        let stats = pad.property::<Option<gst::Structure>>("stats")?;
        self.confidence = stats.get("drift-confidence-ppm").ok()?;
        // Infinite until something is known, and vague for some seconds more.
        if self.confidence < 100.0 {
            self.drift.push((seconds, stats.get("drift-ppm").ok()?));
        }
        stats.get("offset").ok()
    }

    /// 95 of 100 errors of the second half are less, in ms.
    fn usual_error(&self) -> f64 {
        let mut late: Vec<f64> = self.error[self.error.len() / 2..].iter().map(|point| point.1.abs()).collect();
        late.sort_by(f64::total_cmp);
        late.get(late.len() * 95 / 100).copied().unwrap_or(0.0)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    gst::init()?;
    let cameras = match &arguments.launch {
        Some(line) => real(line, arguments.seconds.unwrap_or(60))?,
        None => made_up(&arguments.drift, arguments.jitter, arguments.seconds.unwrap_or(600))?,
    };
    for camera in &cameras {
        let drift = camera.drift.last().map_or(f64::NAN, |point| point.1);
        print!("{}: drift {drift:.1} +-{:.1} ppm", camera.name, camera.confidence);
        match camera.truth {
            Some(truth) => println!(" (it is {truth} ppm), error {:.2} ms in 95 of 100", camera.usual_error()),
            None => println!(),
        }
    }
    plot(&arguments.output, arguments.launch.is_none(), &cameras)
}

/// Cameras with one-sided jitter at 30 fps, through a framesync on a clock of our own.
fn made_up(drift: &[f64], jitter: f64, seconds: u64) -> Result<Vec<Camera>, Box<dyn Error>> {
    const INTERVAL: u64 = 33_333_333;
    const BEGIN: u64 = 1_000_000_000;
    let element = gst::ElementFactory::make("framesync").build().map_err(|_| NO_PLUGIN)?;
    let clock = gst_check::TestClock::new();
    element.set_clock(Some(&clock))?;
    element.set_base_time(gst::ClockTime::ZERO);
    element.set_state(gst::State::Playing)?;
    let mut lanes = Vec::new();
    for (index, ppm) in drift.iter().enumerate() {
        let camera =
            Camera { name: format!("camera {}, {ppm:+} ppm", index + 1), truth: Some(*ppm), ..Camera::default() };
        lanes.push((Lane::new(&element, index)?, camera));
    }
    let mut noise = 0x9e37_79b9_7f4a_7c15u64;
    let mut uniform = || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        (noise >> 11) as f64 / (1u64 << 53) as f64
    };
    // Arrival, camera, and when the picture was taken.
    let mut frames = Vec::new();
    for index in 0..lanes.len() {
        let mut arrival = 0;
        for frame in 0..seconds * 30 {
            let taken = BEGIN + frame * INTERVAL + index as u64 * 7_000_000;
            let late = -(1.0 - uniform()).ln() * jitter * 1e6;
            // Packets do not overtake each other.
            arrival = (taken + 20_000_000 + late as u64).max(arrival + 1);
            frames.push((arrival, index, taken));
        }
    }
    frames.sort_unstable();
    for (number, (arrival, index, taken)) in frames.into_iter().enumerate() {
        let (lane, camera) = &mut lanes[index];
        clock.set_time(gst::ClockTime::from_nseconds(arrival));
        let ppm = camera.truth.unwrap_or(0.0);
        let stamp = BEGIN + ((taken - BEGIN) as f64 / (1.0 + ppm * 1e-6)) as u64;
        let out = lane.push(stamp)?;
        let now = (taken - BEGIN) as f64 / 1e9;
        camera.error.push((now, (out as f64 - taken as f64) / 1e6));
        if number % 20 == 0 {
            for (lane, camera) in &mut lanes {
                camera.sample(&lane.pad, now);
            }
        }
    }
    element.set_state(gst::State::Null)?;
    Ok(lanes.into_iter().map(|(_, camera)| camera).collect())
}

const NO_PLUGIN: &str =
    "GStreamer does not find framesync; set GST_PLUGIN_PATH to the directory of libgststreambuffer.so";

/// The pads on both sides of a stream.
struct Lane {
    src: gst::Pad,
    pad: gst::Pad,
    _sink: gst::Pad,
    out: std::sync::mpsc::Receiver<Option<gst::ClockTime>>,
}

impl Lane {
    fn new(element: &gst::Element, index: usize) -> Result<Self, Box<dyn Error>> {
        let pad = element.request_pad_simple("sink_%u").ok_or("framesync has no more pads")?;
        let src = gst::Pad::builder(gst::PadDirection::Src)
            .query_function(|pad, parent, query| match query.view_mut() {
                gst::QueryViewMut::Latency(latency) => {
                    latency.set(true, gst::ClockTime::ZERO, gst::ClockTime::NONE);
                    true
                }
                _ => gst::Pad::query_default(pad, parent, query),
            })
            .build();
        let (sender, out) = std::sync::mpsc::channel();
        let sink = gst::Pad::builder(gst::PadDirection::Sink)
            .chain_function(move |_, _, buffer| {
                sender.send(buffer.pts()).map_err(|_| gst::FlowError::Eos)?;
                Ok(gst::FlowSuccess::Ok)
            })
            .event_function(|_, _, _| true)
            .build();
        sink.set_active(true)?;
        src.set_active(true)?;
        element.static_pad(&format!("src_{index}")).ok_or("framesync has no source pad")?.link(&sink)?;
        src.link(&pad)?;
        src.push_event(gst::event::StreamStart::new(&format!("camera/{index}")));
        src.push_event(gst::event::Caps::new(&gst::Caps::new_empty_simple("video/x-raw")));
        src.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        Ok(Self { src, pad, _sink: sink, out })
    }

    /// Answers with the stamp that left.
    fn push(&self, stamp: u64) -> Result<u64, Box<dyn Error>> {
        let mut buffer = gst::Buffer::new();
        buffer.make_mut().set_pts(gst::ClockTime::from_nseconds(stamp));
        self.src.push(buffer)?;
        let out = self.out.recv_timeout(Duration::from_secs(10))?;
        Ok(out.ok_or("a buffer without PTS left framesync")?.nseconds())
    }
}

/// A pipeline as it is, in real time.
fn real(line: &str, seconds: u64) -> Result<Vec<Camera>, Box<dyn Error>> {
    let pipeline = gst::parse::launch(line)?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().map_err(|_| "one element is no pipeline")?;
    let kind = |element: &gst::Element| element.factory().is_some_and(|factory| factory.name() == "framesync");
    let element = pipeline.iterate_recurse().into_iter().flatten().find(kind).ok_or("the pipeline has no framesync")?;
    let bus = pipeline.bus().ok_or("a pipeline has a bus")?;
    let cameras: Arc<Mutex<Vec<Camera>>> = Arc::default();
    let begin = Instant::now();
    let mut first = std::collections::HashMap::new();
    pipeline.set_state(gst::State::Playing)?;
    let outcome = loop {
        let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
        match bus.timed_pop_filtered(gst::ClockTime::SECOND, &kinds).as_ref().map(|message| message.view()) {
            Some(gst::MessageView::Error(err)) => break Err(err.error().to_string().into()),
            Some(_) => break Ok(()),
            None => {}
        }
        let now = begin.elapsed().as_secs_f64();
        let mut cameras = cameras.lock().unwrap_or_else(PoisonError::into_inner);
        for pad in element.sink_pads() {
            let name = pad.name().to_string();
            if !cameras.iter().any(|camera| camera.name == name) {
                cameras.push(Camera { name: name.clone(), ..Camera::default() });
            }
            let Some(camera) = cameras.iter_mut().find(|camera| camera.name == name) else { continue };
            if let Some(offset) = camera.sample(&pad, now).filter(|_| camera.confidence.is_finite()) {
                let begun = *first.entry(name).or_insert(offset);
                camera.error.push((now, (offset - begun) as f64 / 1e6));
            }
        }
        if now >= seconds as f64 {
            break Ok(());
        }
    };
    pipeline.set_state(gst::State::Null)?;
    let cameras = std::mem::take(&mut *cameras.lock().unwrap_or_else(PoisonError::into_inner));
    outcome.map(|()| cameras)
}

fn plot(path: &Path, known: bool, cameras: &[Camera]) -> Result<(), Box<dyn Error>> {
    let series = |points: fn(&Camera) -> &Vec<(f64, f64)>, truth: bool| {
        let one = |camera: &Camera| Series {
            name: camera.name.clone(),
            points: points(camera).clone(),
            truth: camera.truth.filter(|_| truth),
        };
        cameras.iter().map(one).collect()
    };
    let truths = || cameras.iter().filter_map(|camera| camera.truth);
    let drift = Panel {
        title: if known { "Drift as estimated (dashed: as it is)" } else { "Drift as estimated" }.into(),
        axis: "drift, ppm".into(),
        series: series(|camera| &camera.drift, true),
        range: (truths().fold(-20.0, f64::min), truths().fold(20.0, f64::max)),
    };
    let error = Panel {
        title: if known { "Error of corrected timestamps" } else { "What drift has come to since the beginning" }
            .into(),
        axis: if known { "error, ms" } else { "moved against arrival, ms" }.into(),
        series: series(|camera| &camera.error, false),
        range: (-1.0, 1.0),
    };
    chart::write(path, "framesync: clocks of cameras", &[drift, error])?;
    println!("written to {}", path.display());
    Ok(())
}
