//! Each of `examples/` as a user runs it, with an RTSP server that stands for the camera and receivers that are killed once.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::PATIENCE;
use crate::film::Film;
use crate::places::{End, Place};
use crate::sender::Sender;
use crate::servers::{Nginx, Process, Server, Srt, free_port};
use crate::verdict;

const PICTURES: &str = "videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=30/1 \
    ! x264enc tune=zerolatency key-int-max=30 threads=1 ! video/x-h264,profile=constrained-baseline ! h264parse";
const PICTURES_PER_SECOND: f64 = 30.0;
/// More than any of these runs takes.
const LONGEST: usize = 3000;

/// What the camera sends to each client, from its beginning.
fn film() -> Film {
    Film::of_pictures(&PICTURES.replace("videotestsrc ", &format!("videotestsrc num-buffers={LONGEST} ")))
}

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

struct Camera {
    address: String,
    _process: Process,
}

impl Camera {
    fn start() -> Option<Self> {
        Self::with(PICTURES)
    }

    /// `None` on a machine without the packages for it, which `scripts/test` installs.
    fn with(pictures: &str) -> Option<Self> {
        let mut command = Command::new(path("tests/rtsp-server.py"));
        let child = command.args(["--video", pictures]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut process = Process(child);
        let mut address = String::new();
        BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut address).unwrap();
        if address.is_empty() {
            assert!(std::env::var_os("CI").is_none(), "there is no RTSP server to test with");
            eprintln!("gir1.2-gst-rtsp-server-1.0 is not on this machine: this test did not run; scripts/test gets it");
            return None;
        }
        Some(Self { address: address.trim().into(), _process: process })
    }
}

/// A script of `examples/`, with a backlog in `directory`.
fn start(script: &str, directory: &Path, arguments: &[&str]) -> Sender {
    let mut command = Command::new(path("examples").join(script));
    command.args(arguments).arg(directory.join("spool")).stdin(Stdio::null());
    Sender::run(script, directory, command)
}

fn check(what: &str, film: &Film, recordings: &[PathBuf], demuxer: &str, at_least: Duration) {
    let seen: Vec<_> = recordings.iter().map(|path| film.recognise(path, demuxer)).collect();
    let until = verdict::unbroken(what, &seen).until;
    assert!(until as f64 > at_least.as_secs_f64() * PICTURES_PER_SECOND, "{what}: {until} pictures arrived");
}

/// Runs a script that sends to `server`, which is killed once; then interrupts the script.
fn forward(script: &str, server: &dyn Server, receiver: &str, options: &[&str]) {
    let Some(camera) = Camera::start() else { return };
    let temp = tempfile::tempdir().unwrap();
    let mut place = Place::new(server, temp.path());
    place.open();
    let mut sender = start(script, temp.path(), &[&[&camera.address, receiver], options].concat());
    sender.until("the first server gets something", PATIENCE, |_| place.received() > 0);
    let started = Instant::now();
    sender.run_on(Duration::from_secs(2));
    place.close(End::Killed);
    sender.run_on(Duration::from_secs(2));
    place.open();
    sender.until("the second server gets something", PATIENCE, |_| place.received() > 0);
    sender.run_on(Duration::from_secs(2));
    let lasted = started.elapsed() - Duration::from_secs(1);
    sender.interrupt();
    sender.finish(PATIENCE);
    place.close(End::Orderly);
    check(script, &film(), &place.recordings(), server.demuxer(), lasted);
}

#[test]
fn rtsp_to_srt_sends_everything() {
    let server = Srt { port: free_port() };
    forward("rtsp-to-srt.sh", &server, &format!("srt://127.0.0.1:{}", server.port), &[]);
}

#[test]
fn rtsp_to_rtmp_sends_everything() {
    let Some(nginx) = Nginx::find() else { return };
    forward("rtsp-to-rtmp.sh", &nginx, &format!("rtmp://127.0.0.1:{}/live/camera", nginx.port), &["--sound"]);
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[test]
fn rtsp_to_files_overwrites_nothing_when_it_is_started_again() {
    let Some(camera) = Camera::start() else { return };
    let (temp, film) = (tempfile::tempdir().unwrap(), film());
    let directory = temp.path().join("files");
    let run = || {
        let mut sender = start("rtsp-to-files.sh", temp.path(), &[&camera.address, directory.to_str().unwrap()]);
        let before = if directory.exists() { files(&directory) } else { Vec::new() };
        let grows = || {
            let all = if directory.exists() { files(&directory) } else { Vec::new() };
            let new = all.iter().filter(|path| !before.contains(path));
            new.map(|path| path.metadata().map_or(0, |metadata| metadata.len())).sum::<u64>()
        };
        sender.until("there is a file", PATIENCE, |_| grows() > 0);
        sender.run_on(Duration::from_secs(3));
        sender.interrupt();
        sender.finish(PATIENCE);
    };
    run();
    let first = files(&directory);
    let contents: Vec<_> = first.iter().map(|path| std::fs::read(path).unwrap()).collect();
    check("rtsp-to-files.sh", &film, &first, "matroskademux", Duration::from_secs(2));
    run();
    let mut second = files(&directory);
    second.retain(|path| !first.contains(path));
    assert_eq!(first.iter().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>(), contents);
    // Before what the camera sends the second time there may be what was sent again of the first.
    let seen: Vec<_> = second.iter().map(|path| film.recognise(path, "matroskademux")).collect();
    let again = seen.iter().rposition(|recording| recording.first() == Some(&Some(0))).unwrap();
    let until = verdict::unbroken("rtsp-to-files.sh, second start", &seen[again..]).until;
    assert!(until as f64 > 2.0 * PICTURES_PER_SECOND, "{until} pictures arrived");
}

#[test]
fn rtsp_to_two_serves_files_while_the_receiver_is_away() {
    let Some(camera) = Camera::start() else { return };
    let temp = tempfile::tempdir().unwrap();
    let server = Srt { port: free_port() };
    let mut place = Place::new(&server, temp.path());
    let directory = temp.path().join("files");
    let receiver = format!("srt://127.0.0.1:{}", server.port);
    let arguments = [&camera.address, &receiver, directory.to_str().unwrap()];
    let mut sender = start("rtsp-to-two.sh", temp.path(), &arguments);
    let stored = || files(&directory).iter().map(|path| path.metadata().map_or(0, |m| m.len())).sum::<u64>();
    sender.until("there is a file", PATIENCE, |_| directory.exists() && stored() > 0);
    let started = Instant::now();
    place.open();
    sender.until("the receiver gets something", PATIENCE, |_| place.received() > 0);
    sender.run_on(Duration::from_secs(2));
    place.close(End::Killed);
    sender.run_on(Duration::from_secs(1));
    place.open();
    sender.until("the receiver gets something again", PATIENCE, |_| place.received() > 0);
    sender.run_on(Duration::from_secs(2));
    let lasted = started.elapsed() - Duration::from_secs(1);
    sender.interrupt();
    sender.finish(PATIENCE);
    place.close(End::Orderly);
    let film = film();
    check("rtsp-to-two.sh, receiver", &film, &place.recordings(), server.demuxer(), lasted / 2);
    check("rtsp-to-two.sh, files", &film, &files(&directory), "matroskademux", lasted);
}

/// A ball that is where the time of day has it, in all cameras of a machine.
const BALL: &str = "videotestsrc is-live=true pattern=ball motion=hsweep animation-mode=wall-time \
    ! video/x-raw,format=I420,width=320,height=180,framerate=15/1 \
    ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 threads=1 bitrate=1000 ! h264parse";

/// Where the ball is, in the left or the right half of a grey picture; none without one.
fn ball(picture: &[u8], left: usize) -> Option<f64> {
    let bright = picture.chunks_exact(1280).flat_map(|row| row[left..left + 640].iter().enumerate());
    let (sum, count) =
        bright.filter(|(_, grey)| **grey > 128).fold((0, 0), |(sum, count), (x, _)| (sum + x, count + 1));
    (count > 100).then(|| sum as f64 / count as f64)
}

#[test]
fn two_cameras_are_side_by_side_at_the_same_moment() {
    let (Some(one), Some(two)) = (Camera::with(BALL), Camera::with(BALL)) else { return };
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("pictures");
    let sink = format!("videoconvert ! video/x-raw,format=GRAY8 ! filesink buffer-mode=2 location={}", file.display());
    let mut command = Command::new(path("examples/two-cameras-side-by-side.sh"));
    command.args([&one.address, &two.address, &sink]).stdin(Stdio::null());
    let mut sender = Sender::run("two-cameras-side-by-side.sh", temp.path(), command);
    let size = 1280 * 360;
    // Pictures in which both cameras are new: compositor shows an old one again where a machine is too slow.
    let both = || {
        let pictures = std::fs::read(&file).unwrap_or_default();
        let places = pictures.chunks_exact(size).map(|picture| (ball(picture, 0), ball(picture, 640)));
        let places: Vec<_> = places.filter_map(|(left, right)| left.zip(right)).collect();
        let new = places.windows(2).filter(|pair| pair[0].0 != pair[1].0 && pair[0].1 != pair[1].1);
        new.map(|pair| ((pair[1].0 - pair[1].1).abs(), (pair[1].0 - pair[0].0).abs())).collect::<Vec<_>>()
    };
    sender.until("pictures of both cameras are there", PATIENCE, |_| both().len() >= 30);
    sender.interrupt();
    sender.finish(PATIENCE);
    let (mut apart, mut steps): (Vec<f64>, Vec<f64>) = both().into_iter().unzip();
    apart.sort_by(f64::total_cmp);
    steps.sort_by(f64::total_cmp);
    let (apart, step) = (apart[apart.len() / 2], steps[steps.len() / 2]);
    println!("the ball moves {step:.1} pixels a picture, and is {apart:.1} pixels apart in the two");
    assert!(step > 1.0 && apart <= 1.5 * step, "{apart} pixels apart, {step} a picture");
}

#[test]
fn cameras_reach_a_muxer_in_sets() {
    let script = path("examples/cameras-to-nvstreammux.sh");
    let printed = Command::new(&script).args(["--print", "rtsp://a/1", "rtsp://a/2", "rtsp://a/3"]).output().unwrap();
    let line = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    assert!(line.starts_with("gst-launch-1.0 ") && line.contains("nvstreammux name=muxer batch-size=3"), "{line}");
    assert!((0..3).all(|camera| line.contains(&format!("muxer.sink_{camera} "))), "{line}");

    let (Some(one), Some(two)) = (Camera::start(), Camera::start()) else { return };
    let temp = tempfile::tempdir().unwrap();
    let mut command = Command::new(script);
    command
        .args(["--try", &one.address, &two.address])
        .env("REST", "fakesink name=rest silent=false")
        .stdin(Stdio::null());
    command.env("VERBOSE", "yes");
    let mut sender = Sender::run("cameras-to-nvstreammux.sh", temp.path(), command);
    // One line for each buffer, with its PTS: those of a set have the same.
    let pairs = |sender: &Sender| {
        let mut times = std::collections::HashMap::new();
        let output = sender.output();
        for line in output.lines().filter(|line| line.contains("chain   ***")) {
            let time = line.split_once("pts: ").and_then(|(_, rest)| rest.split(',').next()).unwrap_or("none");
            *times.entry(time.to_string()).or_insert(0) += 1;
        }
        (times.values().filter(|count| **count == 2).count(), times.len())
    };
    sender.until("both cameras are at the muxer", PATIENCE, |sender| pairs(sender).0 >= 30);
    sender.interrupt();
    sender.finish(PATIENCE);
}

#[test]
fn drift_is_plotted_and_told() {
    let built = std::env::current_exe().unwrap().with_file_name("../examples/drift-plot");
    assert!(built.exists(), "{} is not there; build it with 'cargo build --release --examples'", built.display());
    let temp = tempfile::tempdir().unwrap();
    let picture = temp.path().join("drift.png");
    let mut command = Command::new(built);
    command.args(["--seconds", "120", "--drift", "-100,150", "--output"]).arg(&picture).stdin(Stdio::null());
    let output = Sender::run("drift-plot", temp.path(), command).finish(PATIENCE);
    let told: Vec<(f64, f64)> = output
        .lines()
        .filter_map(|line| {
            let (drift, truth) = line.split_once(": drift ")?.1.split_once(" (it is ")?;
            Some((drift.split(' ').next()?.parse().ok()?, truth.split(' ').next()?.parse().ok()?))
        })
        .collect();
    assert_eq!(told.len(), 2, "{output}");
    assert!(told.iter().all(|(drift, truth)| (drift - truth).abs() < 10.0), "{told:?}");

    let decoder = png::Decoder::new(BufReader::new(std::fs::File::open(picture).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert!(info.width >= 800 && info.height >= 600, "{info:?}");
    let ink = pixels.chunks_exact(3).filter(|pixel| pixel.iter().any(|value| *value < 128)).count();
    assert!(ink > 5000, "{ink} pixels of ink");
}

/// An application: while its receiver is away it is asked for the last seconds.
fn application(name: &str, mut command: Command) {
    let Some(camera) = Camera::start() else { return };
    let (temp, film) = (tempfile::tempdir().unwrap(), film());
    let server = Srt { port: free_port() };
    let mut place = Place::new(&server, temp.path());
    let sink = format!("mpegtsmux alignment=7 ! srtsink uri=srt://127.0.0.1:{}", server.port);
    command.args(["--input", &camera.address, "--sink", &sink, "--location"]).arg(temp.path().join("store"));
    command.arg("--replays").arg(temp.path()).stdin(Stdio::piped());
    let mut sender = Sender::run(name, temp.path(), command);
    let replay = temp.path().join("replay-1.mkv");
    sender.run_on(Duration::from_secs(4));
    let mut input = sender.child().stdin.take().unwrap();
    writeln!(input, "2").unwrap();
    sender.until("the replay is there", PATIENCE, |sender| {
        sender.output().lines().any(|line| line.contains("replay-1.mkv") && !line.contains("no "))
    });
    place.open();
    sender.until("the receiver gets something", PATIENCE, |_| place.received() > 0);
    sender.run_on(Duration::from_secs(2));
    writeln!(input, "q").unwrap();
    sender.finish(PATIENCE);
    place.close(End::Orderly);
    check(name, &film, &place.recordings(), server.demuxer(), Duration::from_secs(5));
    // Two seconds, and what is before them to the keyframe.
    let seen = film.recognise(&replay, "matroskademux");
    let first = seen.first().copied().flatten().unwrap_or_else(|| panic!("{name}: nothing was replayed"));
    assert!(seen.iter().zip(first..).all(|(number, due)| *number == Some(due)), "{name}: {seen:?}");
    assert!((45..=110).contains(&seen.len()) && first.is_multiple_of(30), "{name}: {first} and {} more", seen.len());
}

#[test]
fn an_application_in_rust_forwards_and_replays() {
    let built = std::env::current_exe().unwrap().with_file_name("../examples/camera");
    assert!(built.exists(), "{} is not there; build it with 'cargo build --release --examples'", built.display());
    application("camera", Command::new(built));
}

#[test]
fn an_application_in_python_forwards_and_replays() {
    application("camera.py", Command::new(path("examples/camera.py")));
}
