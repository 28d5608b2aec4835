//! The near end of the demo: a live H.264 stream through `diskbuffer` to a receiver over TCP.
//!
//! It shows what an application has to do so that outages stay invisible to the camera side: the sink's state is
//! locked, an ERROR that comes from the sink takes only the sink down, and the sink is started again until the receiver
//! takes the connection. `diskbuffer` keeps accepting meanwhile, and replays once its pushes succeed.
//!
//! Each access unit that `diskbuffer` accepted is also appended to a file, the truth that `report` compares with.
//!
//! Usage: `sender --location DIR --truth FILE --port PORT [--input clip.mp4|rtsp://...] [--skip SECONDS]
//! [--seconds SECONDS] [--mark N] [--buffer "queue ..."]`. It ends after `--seconds`, at the end of the clip, or at
//! SIGTERM/SIGINT, each time with an EOS that the sink gets after the backlog; a second signal ends it at once.

#[path = "shared/probes.rs"]
mod probes;
#[path = "shared/stop.rs"]
mod stop;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use gst::prelude::*;

/// Pause between attempts to reach the receiver.
const RETRY: Duration = Duration::from_millis(500);

#[derive(Parser)]
#[command(about = "Sends a live H.264 stream through diskbuffer to a TCP receiver")]
struct Arguments {
    /// Directory of the backlog.
    #[arg(long)]
    location: PathBuf,
    /// File that gets every accepted access unit.
    #[arg(long)]
    truth: PathBuf,
    /// The receiver's TCP port on 127.0.0.1.
    #[arg(long)]
    port: u16,
    /// A clip with H.264 video, played at its own speed, or an rtsp:// address; without it a generated picture.
    #[arg(long)]
    input: Option<String>,
    /// Starts this far into the clip, wrapping at its end, with the next IDR picture.
    #[arg(long, default_value_t = 0)]
    skip: u64,
    /// Sends EOS after this time.
    #[arg(long)]
    seconds: Option<u64>,
    /// Number shown in the generated picture, so that no two runs send equal pictures.
    #[arg(long, default_value_t = 1)]
    mark: u32,
    /// Element to use in place of diskbuffer, for comparison.
    #[arg(long)]
    buffer: Option<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    gst::init()?;
    let stop = stop::flag();

    let input = arguments.input.as_deref();
    let buffer = arguments.buffer.as_deref().unwrap_or("diskbuffer replay-overlap=5000000000");
    let description = format!(
        "{} ! h264parse name=parse ! video/x-h264,stream-format=byte-stream,alignment=au ! {buffer} name=buffer \
         ! tcpclientsink name=sink host=127.0.0.1 port={} sync=false async=false",
        source(input),
        arguments.port
    );
    let pipeline = gst::parse::launch(&description)?
        .downcast::<gst::Pipeline>()
        .map_err(|_| "the description is not a pipeline")?;
    let element = |name: &str| pipeline.by_name(name).ok_or_else(|| format!("no element {name}"));
    let pad = |name: &str, pad: &str| element(name)?.static_pad(pad).ok_or_else(|| format!("{name} has no pad {pad}"));

    let buffer = element("buffer")?;
    if buffer.has_property("location") {
        buffer.set_property("location", path_text(&arguments.location)?);
    }
    probes::write_truth(&pad("buffer", "sink")?, &arguments.truth)?;
    match input {
        None => probes::draw_counter(&pad("picture", "src")?, arguments.mark),
        Some(address) => {
            element("input")?.set_property("location", address);
            probes::start_at(&pad("parse", "sink")?, gst::ClockTime::from_seconds(arguments.skip));
            if !is_camera(address) {
                probes::pace(&pad("parse", "sink")?);
            }
        }
    }

    let mut link = Link::new(element("sink")?);
    pipeline.set_state(gst::State::Playing).map_err(|error| start_error(&pipeline, error))?;
    let result = run(&pipeline, &buffer, &mut link, stop, arguments.seconds);
    pipeline.set_state(gst::State::Null)?;
    link.down();
    result
}

fn is_camera(input: &str) -> bool {
    input.starts_with("rtsp://")
}

/// Source of an H.264 stream in gst-launch syntax; addresses are set as properties, which needs no quoting.
fn source(input: Option<&str>) -> &'static str {
    match input {
        None => {
            "videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=640,height=360,framerate=30/1 \
             ! identity name=picture ! x264enc tune=zerolatency speed-preset=veryfast key-int-max=30 bitrate=1000"
        }
        Some(address) if is_camera(address) => {
            "rtspsrc name=input latency=200 ! application/x-rtp,media=video ! rtph264depay \
             ! h264parse ! video/x-h264,stream-format=avc,alignment=au"
        }
        Some(_) => {
            "filesrc name=input ! parsebin ! video/x-h264 ! h264parse ! video/x-h264,stream-format=avc,alignment=au"
        }
    }
}

/// Runs until the sink has seen EOS, with one line of levels a second.
fn run(
    pipeline: &gst::Pipeline,
    buffer: &gst::Element,
    link: &mut Link,
    stop: &AtomicBool,
    seconds: Option<u64>,
) -> Result<(), Box<dyn Error>> {
    let bus = pipeline.bus().ok_or("a pipeline has a bus")?;
    let started = Instant::now();
    let mut next_line = started;
    let mut ending = false;
    loop {
        if stop.swap(false, Ordering::Relaxed) {
            if ending {
                return Err("stopped before the backlog was delivered".into());
            }
            ending = end(buffer);
        }
        if !ending && seconds.is_some_and(|seconds| started.elapsed() >= Duration::from_secs(seconds)) {
            ending = end(buffer);
        }
        let mut message = bus.timed_pop(gst::ClockTime::from_mseconds(50));
        while let Some(current) = message {
            match current.view() {
                gst::MessageView::Eos(..) => {
                    println!("sender: EOS delivered, {}", levels(buffer));
                    return Ok(());
                }
                gst::MessageView::Error(error) if link.owns(error.src()) => link.failed(&error.error()),
                gst::MessageView::Error(error) => return Err(describe(error).into()),
                gst::MessageView::Warning(warning) => println!("sender: warning: {}", warning.error()),
                _ => (),
            }
            message = bus.pop();
        }
        link.retry();
        if Instant::now() >= next_line {
            next_line += Duration::from_secs(1);
            println!("level: {}", levels(buffer));
        }
    }
}

/// Ends the stream at the buffer's sink pad: works for every source, and what the source still sends is refused as EOS.
fn end(buffer: &gst::Element) -> bool {
    println!("sender: ending, {}", levels(buffer));
    buffer.static_pad("sink").is_some_and(|pad| pad.send_event(gst::event::Eos::new()))
}

fn levels(buffer: &gst::Element) -> String {
    let number = |name: &str| {
        let value = buffer.property_value(name).transform::<u64>();
        value.ok().and_then(|value| value.get::<u64>().ok()).unwrap_or_default()
    };
    let status = match buffer.has_property("status") {
        true => buffer.property_value("status").serialize().map_or_else(|_| "unknown".into(), |nick| nick.to_string()),
        false => "none".into(),
    };
    let (buffers, kilobytes) = (number("current-level-buffers"), number("current-level-bytes") / 1000);
    format!("{buffers} buffers, {kilobytes} kB, status={status}")
}

/// The sink and whether it has a connection. Its state is locked: the pipeline neither starts it nor waits for it.
struct Link {
    sink: gst::Element,
    connection: Connection,
}

enum Connection {
    Up,
    /// Without a receiver; the next attempt is due at this time.
    Down(Instant),
}

impl Link {
    fn new(sink: gst::Element) -> Self {
        sink.set_locked_state(true);
        Self { sink, connection: Connection::Down(Instant::now()) }
    }

    fn owns(&self, source: Option<&gst::Object>) -> bool {
        source.is_some_and(|source| source == self.sink.upcast_ref::<gst::Object>())
    }

    /// The sink reported an error. One that arrives while the sink is down belongs to an attempt that failed.
    fn failed(&mut self, reason: &gst::glib::Error) {
        if let Connection::Up = self.connection {
            println!("sender: connection lost: {reason}");
            self.down();
        }
    }

    /// Tries to connect when an attempt is due: `tcpclientsink` connects as it leaves NULL.
    fn retry(&mut self) {
        let Connection::Down(due) = self.connection else { return };
        if Instant::now() < due {
            return;
        }
        match self.sink.set_state(gst::State::Playing) {
            Ok(_) => {
                println!("sender: connected");
                self.connection = Connection::Up;
            }
            Err(_) => self.down(),
        }
    }

    fn down(&mut self) {
        // NULL closes the socket; it cannot fail in a way that anything could be done about.
        let _ = self.sink.set_state(gst::State::Null);
        self.connection = Connection::Down(Instant::now() + RETRY);
    }
}

fn path_text(path: &Path) -> Result<&str, Box<dyn Error>> {
    path.to_str().ok_or_else(|| "the path is not UTF-8".into())
}

/// What the element that refused to start said.
fn start_error(pipeline: &gst::Pipeline, error: gst::StateChangeError) -> Box<dyn Error> {
    let message = pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
    match message.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Error(message)) => describe(message).into(),
        _ => error.into(),
    }
}

fn describe(error: &gst::message::Error) -> String {
    format!("{} ({})", error.error(), error.debug().unwrap_or_default())
}
