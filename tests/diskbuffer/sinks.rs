//! Sinks that fail for real, restarted as an application would, and receivers that decode: no picture
//! is missing. Each picture shows its number; pictures may repeat at the seams.
//!
//! A socket loses what it had accepted when its peer goes away, so the tests use `replay-overlap`, and keep what is on its way
//! below it: the overlap a user sets has to be longer than what the connection can hold.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_video::prelude::*;

use crate::common::*;
use crate::servers::*;

const GOP: u32 = 10;
/// Pictures that have to arrive.
const PICTURES: usize = 400;
/// A live stream does not end with the last of them: the last bytes of a connection may stay in a muxer.
const MORE: usize = 60;
/// Pictures that may be on their way.
const WINDOW: usize = 60;
/// The same while nobody receives; less than the overlap.
const BACKLOG: usize = 110;
const OVERLAP: u64 = 125 * FRAME;

/// Squares of a picture: a row with the bits of its number, and one with them inverted.
const SQUARE: usize = 16;
const BITS: usize = 16;
const WIDTH: usize = SQUARE * BITS;

fn draw(number: usize, luma: &mut [u8]) {
    for (y, line) in luma.chunks_mut(WIDTH).take(2 * SQUARE).enumerate() {
        for (bit, square) in line.chunks_mut(SQUARE).enumerate() {
            let set = (number >> bit) & 1 == 1;
            square.fill(if set == (y < SQUARE) { 235 } else { 16 });
        }
    }
}

/// `None` for a picture that is damaged.
fn read(sample: &gst::Sample) -> Option<usize> {
    let info = gst_video::VideoInfo::from_caps(sample.caps()?).ok()?;
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(sample.buffer()?, &info).ok()?;
    let (luma, stride) = (frame.plane_data(0).ok()?, frame.plane_stride()[0] as usize);
    let bright = |row: usize, bit: usize| luma[(row * SQUARE + SQUARE / 2) * stride + bit * SQUARE + SQUARE / 2] > 125;
    let bit = |bit| (bright(0, bit) != bright(1, bit)).then(|| usize::from(bright(0, bit)) << bit);
    (0..BITS).map(bit).sum()
}

/// Numbered pictures, encoded.
struct Film {
    caps: gst::Caps,
    units: Vec<gst::Buffer>,
}

fn film(stream_format: &str) -> Film {
    init();
    let text = format!(
        "videotestsrc pattern=black num-buffers={} ! video/x-raw,format=I420,width={WIDTH},height={},framerate=25/1 \
         ! identity name=picture ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max={GOP} threads=1 \
         ! h264parse ! video/x-h264,stream-format={stream_format},alignment=au ! appsink name=units sync=false",
        PICTURES + MORE,
        2 * SQUARE,
    );
    let pipeline = gst::parse::launch(&text).unwrap().downcast::<gst::Pipeline>().unwrap();
    let next = Mutex::new(0);
    let pad = pipeline.by_name("picture").unwrap().static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer_mut() {
            let mut next = next.lock().unwrap();
            draw(*next, &mut buffer.make_mut().map_writable().unwrap());
            *next += 1;
        }
        gst::PadProbeReturn::Ok
    });
    let sink = pipeline.by_name("units").and_downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut film = Film { caps: gst::Caps::new_empty(), units: Vec::new() };
    while let Ok(sample) = sink.pull_sample() {
        film.caps = sample.caps_owned().unwrap();
        film.units.push(sample.buffer_owned().unwrap());
    }
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(film.units.len(), PICTURES + MORE);
    film
}

/// Numbers of the pictures that were decoded, over all connections.
#[derive(Clone, Default)]
struct Decoded(Arc<Mutex<BTreeSet<usize>>>);

impl Decoded {
    /// The newest, plus one.
    fn progress(&self) -> usize {
        self.0.lock().unwrap().last().map_or(0, |last| last + 1)
    }

    fn assert_complete(&self) {
        let seen = self.0.lock().unwrap();
        let missing: Vec<_> = (0..PICTURES).filter(|i| !seen.contains(i)).collect();
        assert!(missing.is_empty(), "pictures {missing:?} never arrived");
    }
}

/// The receiver's decoder, for the bytes of one connection.
struct Decoder {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
}

impl Decoder {
    fn new(demuxer: &str, decoded: &Decoded) -> Self {
        let text = format!(
            "appsrc name=bytes ! {demuxer} h264parse ! avdec_h264 output-corrupt=false max-threads=1 ! videoconvert \
             ! video/x-raw,format=I420 ! appsink name=pictures sync=false async=false"
        );
        let pipeline = gst::parse::launch(&text).unwrap().downcast::<gst::Pipeline>().unwrap();
        let source = pipeline.by_name("bytes").and_downcast::<gst_app::AppSrc>().unwrap();
        let sink = pipeline.by_name("pictures").and_downcast::<gst_app::AppSink>().unwrap();
        let decoded = decoded.clone();
        let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            if let Some(number) = read(&sample) {
                decoded.0.lock().unwrap().insert(number);
            }
            Ok(gst::FlowSuccess::Ok)
        });
        sink.set_callbacks(callbacks.build());
        pipeline.set_state(gst::State::Playing).unwrap();
        Self { pipeline, source }
    }

    fn push(&self, bytes: &[u8]) {
        let _ = self.source.push_buffer(gst::Buffer::from_slice(bytes.to_vec()));
    }
}

impl Drop for Decoder {
    /// Decodes what is left first: a connection may end anywhere.
    fn drop(&mut self) {
        let _ = self.source.end_of_stream();
        let patience = gst::ClockTime::from_seconds(PATIENCE.as_secs());
        let ends = [gst::MessageType::Eos, gst::MessageType::Error];
        let _ = self.pipeline.bus().and_then(|bus| bus.timed_pop_filtered(patience, &ends));
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// What goes away and comes back.
trait Receiver {
    /// Takes what has arrived.
    fn poll(&mut self);
    fn progress(&self) -> usize;
    /// Goes away, when that is due; true while it is away.
    fn trouble(&mut self, noticed: u32, fed: usize) -> bool;
    /// How often it went away.
    fn absences(&self) -> u32;
}

/// The part of an application that restarts a sink, and the muxer before it: a muxer writes its header once.
struct Uplink {
    elements: Vec<gst::Element>,
    /// When to try again; `None` while it runs.
    due: Option<Instant>,
    failures: u32,
}

impl Uplink {
    const RETRY: Duration = Duration::from_millis(250);

    fn new(elements: Vec<gst::Element>) -> Self {
        elements.iter().for_each(|element| _ = element.set_locked_state(true));
        Self { elements, due: Some(Instant::now()), failures: 0 }
    }

    fn watch(&mut self, bus: &gst::Bus) {
        if let Some(message) = bus.timed_pop_filtered(gst::ClockTime::from_mseconds(2), &[gst::MessageType::Error]) {
            let own = message
                .src()
                .is_some_and(|src| self.elements.iter().any(|element| src == element || src.has_as_ancestor(element)));
            assert!(own, "{message:?}");
            if self.due.is_none() {
                self.failures += 1;
                self.down(bus);
            }
        }
        if self.due.is_some_and(|due| due <= Instant::now()) {
            self.due = None;
            let started = self.elements.iter().try_for_each(|element| element.set_state(gst::State::Playing).map(drop));
            if started.is_err() {
                self.down(bus);
            }
        }
    }

    fn down(&mut self, bus: &gst::Bus) {
        self.elements.iter().for_each(|element| _ = element.set_state(gst::State::Null));
        while bus.pop_filtered(&[gst::MessageType::Error]).is_some() {}
        self.due = Some(Instant::now() + Self::RETRY);
    }
}

/// Stops the pipeline when a test fails.
struct Stop(gst::Pipeline);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.iterate_recurse().into_iter().flatten().for_each(|element| _ = element.set_locked_state(false));
        let _ = self.0.set_state(gst::State::Null);
    }
}

/// Sends the film through `tail` until all pictures are received.
fn play(film: &Film, tail: &str, receiver: &mut dyn Receiver) {
    play_prepared(film, tail, receiver, |_| {});
}

fn play_prepared(film: &Film, tail: &str, receiver: &mut dyn Receiver, prepare: fn(&gst::Pipeline)) {
    let temp = tempfile::tempdir().unwrap();
    let text = format!(
        "diskbuffer name=buffer location=\"{}\" replay-overlap={OVERLAP} ! {tail} sync=false async=false",
        temp.path().display()
    );
    let pipeline = gst::parse::launch(&text).unwrap().downcast::<gst::Pipeline>().unwrap();
    let buffer = pipeline.by_name("buffer").unwrap();
    for (name, value) in [("retry-interval", 50_000_000u64), ("retry-max-interval", 400_000_000)] {
        if buffer.find_property(name).is_some() {
            buffer.set_property(name, value);
        }
    }
    let elements: Vec<_> = ["mux", "sink"].iter().filter_map(|name| pipeline.by_name(name)).collect();
    for element in &elements {
        // The application restarts it. Not in 1.20.
        if element.find_property("auto-reconnect").is_some() {
            element.set_property("auto-reconnect", false);
        }
    }
    prepare(&pipeline);
    let mut uplink = Uplink::new(elements);
    let _stop = Stop(pipeline.clone());
    let source = gst::Pad::builder(gst::PadDirection::Src).build();
    source.link(&buffer.static_pad("sink").unwrap()).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    source.set_active(true).unwrap();
    source.push_event(gst::event::StreamStart::new("film"));
    source.push_event(gst::event::Caps::new(&film.caps));
    source.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    let bus = pipeline.bus().unwrap();
    let (start, mut fed, mut away) = (Instant::now(), 0, false);
    while receiver.progress() < PICTURES {
        assert!(start.elapsed() < PATIENCE, "{} of {fed} arrived; {}", receiver.progress(), stats(&buffer));
        let until = receiver.progress() + if away { BACKLOG } else { WINDOW };
        if fed < until.min(film.units.len()) {
            // Nothing downstream is ever upstream's business.
            assert_eq!(source.push(film.units[fed].clone()), Ok(gst::FlowSuccess::Ok));
            fed += 1;
        }
        uplink.watch(&bus);
        receiver.poll();
        away = receiver.trouble(uplink.failures, fed);
    }
    let stats = stats(&buffer);
    source.set_active(false).unwrap();
    uplink.down(&bus);
    pipeline.set_state(gst::State::Null).unwrap();
    // The last one may come too late to be noticed.
    assert!(receiver.absences() > 0 && uplink.failures + 1 >= receiver.absences(), "{} failures", uplink.failures);
    let get = |name: &str| stats.get::<u64>(name).unwrap();
    // A sink that never works for long is one outage.
    assert!(stats.get::<u32>("outages").unwrap() > 0, "{stats}");
    assert_eq!((get("lost"), get("dropped"), get("rejected")), (0, 0, 0), "{stats}");
}

fn stats(buffer: &gst::Element) -> gst::Structure {
    buffer.property("stats")
}

/// A TCP server that resets the connection in the middle of the data: some was accepted by the sink and is lost.
struct Resetting {
    listener: TcpListener,
    connection: Option<(TcpStream, Decoder)>,
    decoded: Decoded,
    /// Progress at which it resets.
    at: Vec<usize>,
    resets: u32,
}

impl Resetting {
    fn new(at: Vec<usize>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener, connection: None, decoded: Decoded::default(), at, resets: 0 }
    }

    fn is_due(&self) -> bool {
        self.at.first().is_some_and(|at| self.decoded.progress() >= *at)
    }
}

impl Receiver for Resetting {
    fn poll(&mut self) {
        if let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true).unwrap();
            self.connection = Some((stream, Decoder::new("", &self.decoded)));
        }
        // Before a reset it lets the data pile up.
        if self.is_due() {
            return;
        }
        let Some((stream, decoder)) = &mut self.connection else { return };
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes) {
            Ok(0) => self.connection = None,
            Ok(n) => decoder.push(&bytes[..n]),
            Err(err) if err.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.connection = None,
        }
    }

    fn progress(&self) -> usize {
        self.decoded.progress()
    }

    fn trouble(&mut self, _noticed: u32, fed: usize) -> bool {
        if self.is_due() && self.connection.is_some() && fed >= self.decoded.progress() + WINDOW {
            let mut unread = [0; 1];
            self.at[0] += 1;
            if self.connection.as_ref().is_some_and(|(stream, _)| stream.peek(&mut unread).is_ok_and(|n| n > 0)) {
                // A socket that is closed with unread data resets its connection.
                self.connection = None;
                self.resets += 1;
                self.at.remove(0);
            }
        }
        // The sink learns of it from the next that it sends.
        self.resets > 0 && self.connection.is_none()
    }

    fn absences(&self) -> u32 {
        self.resets
    }
}

fn tcp_resets(at: Vec<usize>) {
    let count = at.len();
    let mut receiver = Resetting::new(at);
    let port = receiver.listener.local_addr().unwrap().port();
    play(&film("byte-stream"), &format!("tcpclientsink name=sink host=127.0.0.1 port={port}"), &mut receiver);
    receiver.connection = None;
    assert_eq!(receiver.resets as usize, count);
    receiver.decoded.assert_complete();
}

#[test]
fn a_tcp_peer_that_resets_gets_every_picture() {
    tcp_resets(vec![60, 150, 240, 330]);
}

/// How a server ends.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Orderly,
    Killed,
}

/// Runs a server, stops it and starts it again; decodes what it records while it does.
struct Recording<S: Server> {
    server: S,
    directory: tempfile::TempDir,
    process: Option<Process>,
    runs: u32,
    file: Option<(File, Decoder)>,
    decoded: Decoded,
    /// Progress at which it goes away, and how.
    at: Vec<(usize, End)>,
    absences: u32,
    /// Pictures fed when it went.
    gone_at: usize,
}

impl<S: Server> Recording<S> {
    fn new(server: S, at: Vec<(usize, End)>) -> Self {
        let mut recording = Self {
            server,
            directory: tempfile::tempdir().unwrap(),
            process: None,
            runs: 0,
            file: None,
            decoded: Decoded::default(),
            at,
            absences: 0,
            gone_at: 0,
        };
        recording.start();
        recording
    }

    fn run_directory(&self) -> PathBuf {
        self.directory.path().join(self.runs.to_string())
    }

    fn start(&mut self) {
        self.runs += 1;
        std::fs::create_dir(self.run_directory()).unwrap();
        self.process = Some(self.server.start(&self.run_directory()));
    }

    fn end_of_recording(&mut self) {
        self.read();
        self.file = None;
    }

    /// Reads what was recorded up to now.
    fn read(&mut self) {
        if self.file.is_none() {
            let recorded = |path: &PathBuf| path.extension().is_some_and(|e| e == "flv" || e == "ts");
            let mut entries = std::fs::read_dir(self.run_directory()).unwrap().flatten().map(|entry| entry.path());
            let Some(path) = entries.find(recorded) else { return };
            self.file = Some((File::open(path).unwrap(), Decoder::new(self.server.demuxer(), &self.decoded)));
        }
        let Some((file, decoder)) = &mut self.file else { return };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        if !bytes.is_empty() {
            decoder.push(&bytes);
        }
    }
}

impl<S: Server> Receiver for Recording<S> {
    fn poll(&mut self) {
        if self.process.is_some() {
            self.read();
        }
    }

    fn progress(&self) -> usize {
        self.decoded.progress()
    }

    fn trouble(&mut self, noticed: u32, fed: usize) -> bool {
        match (&mut self.process, self.at.first().copied()) {
            (Some(process), Some((at, end))) if self.decoded.progress() >= at => {
                if end == End::Orderly {
                    process.interrupt();
                }
                self.process = None;
                self.end_of_recording();
                self.at.remove(0);
                self.absences += 1;
                self.gone_at = fed;
            }
            // Some more is fed while it is away and the sender knows.
            (None, _) if noticed >= self.absences && fed >= self.gone_at + 20 => self.start(),
            _ => {}
        }
        self.process.is_none()
    }

    fn absences(&self) -> u32 {
        self.absences
    }
}

impl<S: Server> Recording<S> {
    fn finish(mut self) {
        self.process = None;
        self.end_of_recording();
        assert!(self.at.is_empty());
        self.decoded.assert_complete();
    }
}

/// GStreamer 1.22: a flush takes the socket of a calling `srtsink` out of the set that it polls; from then on it returns OK and
/// sends nothing. What an application can do about it: a probe that keeps flushes from the sink.
fn keep_flushes_from_the_sink(pipeline: &gst::Pipeline) {
    let pad = pipeline.by_name("sink").unwrap().static_pad("sink").unwrap();
    // Not Drop: with that GStreamer 1.22 releases an event that the bindings have released already.
    pad.add_probe(gst::PadProbeType::EVENT_FLUSH, |_, _| gst::PadProbeReturn::Handled);
}

fn srt_listener_leaves(at: Vec<(usize, End)>, prepare: fn(&gst::Pipeline)) {
    let port = free_port();
    let mut receiver = Recording::new(Srt { port }, at);
    let tail = format!("mpegtsmux name=mux alignment=7 ! srtsink name=sink uri=srt://127.0.0.1:{port}?mode=caller");
    play_prepared(&film("byte-stream"), &tail, &mut receiver, prepare);
    receiver.finish();
}

#[test]
fn an_srt_listener_that_leaves_and_comes_back_gets_every_picture() {
    srt_listener_leaves(vec![(120, End::Orderly), (260, End::Orderly)], keep_flushes_from_the_sink);
}

#[test]
fn an_srt_sink_goes_on_sending_when_it_is_resumed() {
    srt_listener_leaves(vec![(120, End::Orderly)], |_| {});
}

fn nginx_leaves(at: Vec<(usize, End)>) {
    let Some(nginx) = Nginx::find() else { return };
    let tail = format!(
        "flvmux name=mux streamable=true ! rtmp2sink name=sink location=rtmp://127.0.0.1:{}/live/film",
        nginx.port
    );
    let mut receiver = Recording::new(nginx, at);
    play(&film("avc"), &tail, &mut receiver);
    receiver.finish();
}

#[test]
fn an_rtmp_server_that_leaves_and_comes_back_gets_every_picture() {
    nginx_leaves(vec![(120, End::Killed), (260, End::Orderly)]);
}

/// For `scripts/soak`.
mod soak {
    use super::*;

    #[test]
    #[ignore = "long"]
    fn a_tcp_peer_that_resets_again_and_again_gets_every_picture() {
        (0..8).for_each(|round| tcp_resets((1..6).map(|i| 55 * i + round).collect()));
    }

    #[test]
    #[ignore = "long"]
    fn an_srt_listener_that_leaves_again_and_again_gets_every_picture() {
        for round in 0..5 {
            let at = (1..4).map(|i| (90 * i + round, End::Orderly)).collect();
            srt_listener_leaves(at, keep_flushes_from_the_sink);
        }
    }

    #[test]
    #[ignore = "long"]
    fn an_rtmp_server_that_is_killed_again_and_again_gets_every_picture() {
        (0..4).for_each(|round| nginx_leaves((1..8).map(|i| (45 * i + round, End::Killed)).collect()));
    }
}
