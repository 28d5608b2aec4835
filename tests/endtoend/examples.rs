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
    /// `None` on a machine without the packages for it, which `scripts/test` installs.
    fn start() -> Option<Self> {
        let mut command = Command::new(path("tests/rtsp-server.py"));
        let child = command.args(["--video", PICTURES]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
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
