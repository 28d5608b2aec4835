//! gst-launch-1.0 as a process: it never ends because of its sink, and what it sends is complete.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::*;

/// The plugin beside the test.
fn plugin_path() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().parent().unwrap().to_owned()
}

struct Launch(Child);

impl Launch {
    fn new(registry: &std::path::Path, line: &[&str]) -> Self {
        let child = Command::new("gst-launch-1.0")
            .args(line)
            .env("GST_PLUGIN_PATH", plugin_path())
            .env("GST_REGISTRY", registry)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Its output, when it has ended.
    fn output(&mut self) -> (bool, String) {
        let start = Instant::now();
        while self.runs() {
            assert!(start.elapsed() < PATIENCE, "gst-launch-1.0 does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (self.0.wait().unwrap().success(), text)
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sequence numbers in a row of text lines, as a receiver sees them.
fn picture_timestamps(bytes: &[u8]) -> BTreeSet<u64> {
    // PES headers of PID 65, the first stream of mpegtsmux: the PTS tells the picture.
    let mut found = BTreeSet::new();
    for packet in bytes.chunks_exact(188) {
        let pid = (u16::from(packet[1]) & 0x1F) << 8 | u16::from(packet[2]);
        let starts = packet[1] & 0x40 != 0;
        let skip = if packet[3] & 0x20 != 0 { 1 + usize::from(packet[4]) } else { 0 };
        let Some(payload) = packet.get(4 + skip..) else { continue };
        if pid < 0x20
            || pid == 0x1FFF
            || !starts
            || payload.len() < 14
            || payload[..3] != [0, 0, 1]
            || payload[7] & 0x80 == 0
        {
            continue;
        }
        let b = |at: usize| u64::from(payload[at]);
        found.insert((b(9) >> 1 & 7) << 30 | b(10) << 22 | (b(11) >> 1) << 15 | b(12) << 7 | b(13) >> 1);
    }
    found
}

#[test]
fn gst_launch_outlives_its_receiver() {
    let temp = tempfile::tempdir().unwrap();
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    const PICTURES: u64 = 200;
    let location = format!("location={}", temp.path().join("store").display());
    let sink = format!("sink-description=mpegtsmux ! tcpclientsink host=127.0.0.1 port={port}");
    let number = format!("num-buffers={PICTURES}");
    let line = [
        "videotestsrc",
        "is-live=true",
        &number,
        "!",
        "video/x-raw,width=64,height=64,framerate=25/1",
        "!",
        "x264enc",
        "tune=zerolatency",
        "key-int-max=10",
        "!",
        "h264parse",
        "!",
        "diskbuffersink",
        &location,
        &sink,
        "retry-interval=50000000",
        "retry-max-interval=200000000",
        "eos-timeout=20000000000",
    ];
    let mut launch = Launch::new(&temp.path().join("registry"), &line);
    // Nobody listens yet.
    std::thread::sleep(Duration::from_millis(1000));
    assert!(launch.runs(), "{}", launch.output().1);
    let mut seen = BTreeSet::new();
    for round in 0..4 {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let (mut connection, _) = listener.accept().unwrap();
        connection.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let (mut bytes, start) = (Vec::new(), Instant::now());
        loop {
            let mut part = [0; 65536];
            match connection.read(&mut part) {
                Ok(0) => break,
                Ok(n) => bytes.extend_from_slice(&part[..n]),
                Err(_) => {}
            }
            // The last one stays.
            if round < 3 && start.elapsed() > Duration::from_millis(1200) {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "the last connection does not end");
        }
        drop((connection, listener));
        seen.extend(picture_timestamps(&bytes));
        if round < 3 {
            assert!(launch.runs(), "{}", launch.output().1);
        }
    }
    let (success, text) = launch.output();
    assert!(success && text.contains("Got EOS"), "{text}");
    // mpegtsmux begins each stream with its own offset; running time goes on.
    assert!(seen.len() as u64 >= PICTURES, "{} of {PICTURES} pictures", seen.len());
}

#[test]
fn gst_launch_says_what_is_wrong_with_a_description() {
    let temp = tempfile::tempdir().unwrap();
    let location = format!("location={}", temp.path().join("store").display());
    let line =
        ["videotestsrc", "!", "x264enc", "!", "diskbuffersink", &location, "sink-description=nosuchmux ! nosuchsink"];
    let (success, text) = Launch::new(&temp.path().join("registry"), &line).output();
    assert!(!success && text.contains("\"nosuchmux\"") && text.contains("install"), "{text}");
}
