//! An application with both elements. It forwards a camera through `diskbuffersink`, tells what happens on the way, and replays
//! the last seconds from the same recording with `diskbuffersrc` while the camera goes on.
//!
//! Usage: `camera --location DIR --sink "flvmux streamable=true ! rtmp2sink location=rtmp://server/live/key"
//! [--input rtsp://camera/]`. Then, on standard input: a number replays that many seconds into `replay-1.mkv` and so on, `s` shows
//! the counters, `q` ends. So do SIGINT and SIGTERM. Without an input the picture is generated.
//!
//! An application has nothing to do for outages: the sink inside fails and comes back, the pipeline plays on. What an ERROR
//! message still can be about is the camera, the disk, or settings.

#[path = "shared/stop.rs"]
mod stop;

use std::error::Error;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use clap::Parser;
use gst::prelude::*;

#[derive(Parser)]
#[command(about = "Forwards a camera through outages, and replays the last seconds on demand")]
struct Arguments {
    /// Directory of the recording.
    #[arg(long)]
    location: PathBuf,
    /// Where the stream goes, in the syntax of gst-launch-1.0; without it, it is only recorded.
    #[arg(long)]
    sink: Option<String>,
    /// An rtsp:// address with H.264; without it a generated picture.
    #[arg(long)]
    input: Option<String>,
    /// Seconds that stay on disk for replays.
    #[arg(long, default_value_t = 3600)]
    keep: u64,
    /// Directory that replays are written to.
    #[arg(long, default_value = ".")]
    replays: PathBuf,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    gst::init()?;
    let stop = stop::flag();

    let source = match &arguments.input {
        Some(_) => "rtspsrc name=input protocols=tcp ! application/x-rtp,media=video ! rtph264depay",
        None => {
            "videotestsrc is-live=true pattern=ball ! video/x-raw,width=640,height=360 ! x264enc tune=zerolatency key-int-max=30"
        }
    };
    let pipeline = launch(&format!("{source} ! h264parse ! diskbuffersink name=buffer"))?;
    if let (Some(input), Some(address)) = (pipeline.by_name("input"), &arguments.input) {
        input.set_property("location", address);
    }
    let buffer = pipeline.by_name("buffer").ok_or("no diskbuffersink in the pipeline")?;
    buffer.set_property("location", path_text(&arguments.location)?);
    buffer.set_property("retention-time", gst::ClockTime::from_seconds(arguments.keep).nseconds());
    buffer.set_property("sink-description", &arguments.sink);

    let commands = commands();
    let mut replays = Vec::new();
    let mut ending = false;
    let end = || pipeline.send_event(gst::event::Eos::new());
    play(&pipeline)?;
    println!("camera: playing; a number replays that many seconds, s shows the counters, q ends");
    let bus = pipeline.bus().ok_or("a pipeline has a bus")?;
    loop {
        if let Some(message) = bus.timed_pop(gst::ClockTime::from_mseconds(50)) {
            match message.view() {
                gst::MessageView::Eos(..) => break,
                gst::MessageView::Error(error) => return Err(describe(error).into()),
                gst::MessageView::Warning(warning) => println!("camera: {}", warning.error()),
                gst::MessageView::Element(element) => element.structure().into_iter().for_each(tell),
                _ => (),
            }
        }
        if stop.swap(false, Ordering::Relaxed) && !ending {
            ending = end();
        }
        match commands.try_recv().as_deref() {
            Ok("") | Err(_) => (),
            Ok("q") if !ending => ending = end(),
            Ok("s") => println!("camera: {}", buffer.property::<gst::Structure>("stats")),
            Ok(text) => match text.parse() {
                Ok(seconds) => {
                    let file = arguments.replays.join(format!("replay-{}.mkv", replays.len() + 1));
                    replays.push(Replay::start(&arguments.location, seconds, &file)?);
                }
                Err(_) => println!("camera: {text}? A number of seconds, s, or q"),
            },
        }
        for replay in &mut replays {
            replay.watch()?;
        }
    }
    while replays.iter().any(|replay| replay.pipeline.is_some()) {
        replays.iter_mut().try_for_each(Replay::watch)?;
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    pipeline.set_state(gst::State::Null)?;
    println!("camera: ended; what the receiver has not got is sent at the next start");
    Ok(())
}

/// The last seconds, on their way into a file.
struct Replay {
    pipeline: Option<gst::Pipeline>,
    pictures: Arc<AtomicU64>,
    file: PathBuf,
}

impl Replay {
    /// Reads the store that this process is writing: it is shared, not opened twice.
    fn start(location: &Path, seconds: u64, file: &Path) -> Result<Self, Box<dyn Error>> {
        let pipeline = launch("diskbuffersrc name=source ! h264parse ! matroskamux ! filesink name=file")?;
        let element = |name: &str| pipeline.by_name(name).ok_or_else(|| format!("no element {name}"));
        let source = element("source")?;
        source.set_property("location", path_text(location)?);
        source.set_property("start", format!("-{seconds}s"));
        element("file")?.set_property("location", path_text(file)?);
        let pictures = Arc::new(AtomicU64::new(0));
        let pad = source.static_pad("src").ok_or("a source has a pad")?;
        pad.add_probe(gst::PadProbeType::BUFFER, {
            let pictures = Arc::clone(&pictures);
            move |_, _| {
                pictures.fetch_add(1, Ordering::Relaxed);
                gst::PadProbeReturn::Ok
            }
        });
        play(&pipeline)?;
        Ok(Self { pipeline: Some(pipeline), pictures, file: file.to_owned() })
    }

    /// Reports when it has ended. One that fails does not concern the camera.
    fn watch(&mut self) -> Result<(), Box<dyn Error>> {
        let Some(pipeline) = &self.pipeline else { return Ok(()) };
        let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
        let Some(message) = pipeline.bus().and_then(|bus| bus.pop_filtered(&kinds)) else { return Ok(()) };
        let file = self.file.display();
        match message.view() {
            gst::MessageView::Error(error) => println!("camera: no {file}: {}", describe(error)),
            _ => println!("camera: {file} has {} pictures", self.pictures.load(Ordering::Relaxed)),
        }
        pipeline.set_state(gst::State::Null)?;
        self.pipeline = None;
        Ok(())
    }
}

/// Lines of standard input, without blanks around them.
fn commands() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        std::io::stdin().lock().lines().map_while(Result::ok).try_for_each(|line| sender.send(line.trim().to_owned()))
    });
    receiver
}

/// One line for an element message, without the levels that each has.
fn tell(message: &gst::StructureRef) {
    if !message.name().starts_with("diskbuffer") {
        return;
    }
    let fields = message.iter().filter(|(name, _)| !name.as_str().starts_with("level-"));
    let fields: Vec<_> = fields
        .map(|(name, value)| match value.get::<String>() {
            Ok(text) => format!("{name}: {text}"),
            Err(_) => format!("{name}: {}", value.serialize().map(|text| text.to_string()).unwrap_or_default()),
        })
        .collect();
    println!("camera: {} {}", message.name(), fields.join(", "));
}

fn launch(description: &str) -> Result<gst::Pipeline, Box<dyn Error>> {
    let pipeline = gst::parse::launch(description)?.downcast::<gst::Pipeline>();
    pipeline.map_err(|_| "the description is not a pipeline".into())
}

fn play(pipeline: &gst::Pipeline) -> Result<(), Box<dyn Error>> {
    let Err(error) = pipeline.set_state(gst::State::Playing) else { return Ok(()) };
    // What the element that refused to start said.
    let message = pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
    let reason = match message.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Error(message)) => describe(message),
        _ => error.to_string(),
    };
    let _ = pipeline.set_state(gst::State::Null);
    Err(reason.into())
}

fn describe(error: &gst::message::Error) -> String {
    format!("{} ({})", error.error(), error.debug().unwrap_or_default())
}

fn path_text(path: &Path) -> Result<&str, Box<dyn Error>> {
    path.to_str().ok_or_else(|| "the path is not UTF-8".into())
}
