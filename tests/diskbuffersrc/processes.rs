//! Following and consuming in a process that does not write.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::common::*;
use crate::player::*;

const LOCATION: &str = "STREAMBUFFER_TEST_FOLLOWED";
const PROPERTIES: &str = "STREAMBUFFER_TEST_PROPERTIES";

/// Not a test by itself: plays, and tells of each frame.
#[test]
fn child() {
    let Some(location) = std::env::var_os(LOCATION) else { return };
    let properties = std::env::var(PROPERTIES).unwrap();
    let properties: Vec<_> = properties.split_whitespace().filter_map(|property| property.split_once('=')).collect();
    let player = Player::idle(Path::new(&location), &properties);
    let pad = player.element.static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &info.data {
            let mut out = std::io::stdout().lock();
            out.write_all(format!("frame {}\n", buffer.offset()).as_bytes()).unwrap();
        }
        gst::PadProbeReturn::Ok
    });
    player.element.set_state(gst::State::Playing).unwrap();
    player.sink.wait_eos();
    player.element.set_state(gst::State::Null).unwrap();
    std::io::stdout().write_all(b"end\n").unwrap();
}

/// A process that plays.
struct Other {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
    frames: Vec<u64>,
}

impl Other {
    fn new(location: &Path, properties: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["processes::child", "--exact", "--nocapture"])
            .env(LOCATION, location)
            .env(PROPERTIES, properties)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        Self { child, lines, frames: Vec::new() }
    }

    fn wait_frames(&mut self, count: usize) {
        while self.frames.len() < count {
            let line =
                self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{} frames came", self.frames.len()));
            self.frames.extend(line.split_once("frame ").and_then(|(_, number)| number.parse::<u64>().ok()));
        }
    }

    /// What came until it ended by itself.
    fn end(mut self) -> Vec<u64> {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.frames.extend(line.split_once("frame ").and_then(|(_, number)| number.parse::<u64>().ok()));
            if line == "end" {
                break;
            }
        }
        assert!(self.child.wait().unwrap().success());
        std::mem::take(&mut self.frames)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn another_process_follows_across_restarts_of_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let rig = recorder(dir.path(), 0..50);
    let mut other = Other::new(dir.path(), "follow=true stop=2026-01-01T00:00:06Z");
    other.wait_frames(50);
    let mut slowest = Duration::ZERO;
    for n in 50..75 {
        let start = Instant::now();
        push(&rig, n..n + 1);
        other.wait_frames(n as usize + 1);
        slowest = slowest.max(start.elapsed());
    }
    // A loaded machine is slower; a poll of seconds would be a fault.
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    rig.stop();
    drop(rig);
    let rig = recorder(dir.path(), 75..125);
    other.wait_frames(125);
    rig.stop();
    drop(rig);
    let _rig = recorder(dir.path(), 125..175);
    assert_eq!(other.end(), (0..150).collect::<Vec<_>>());
}

#[test]
fn a_consumer_in_another_process_holds_what_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &[]);
    rig.start_stream("camera", &h264_caps());
    push(&rig, 0..5);
    let properties = "follow=true consumer=far stop=2026-01-01T00:00:04Z";
    let mut other = Other::new(dir.path(), properties);
    other.wait_frames(5);
    // The writer looks for consumers of other processes once a second, and says nothing of it.
    std::thread::sleep(Duration::from_millis(1500));
    push(&rig, 5..60);
    other.wait_frames(60);
    // Killed in the middle of a GOP: it goes on at its keyframe, however far the writer is.
    other.child.kill().unwrap();
    other.child.wait().unwrap();
    push(&rig, 60..2000);
    rig.sink.wait_buffers(2000);
    let frames = Other::new(dir.path(), properties).end();
    assert!(!frames.is_empty(), "nothing was kept for it");
    assert!([0, 25, 50].contains(&frames[0]), "{}", frames[0]);
    assert_eq!(frames, (frames[0]..100).collect::<Vec<_>>());
}
