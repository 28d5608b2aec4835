//! Servers that come and go, and what they recorded each time.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::until;
use crate::servers::{Process, Server};

#[derive(Clone, Copy)]
pub enum End {
    Orderly,
    Killed,
    /// For as long as it is away it keeps its connections and reads nothing; then it is killed.
    Frozen,
}

/// A server and what it recorded: a directory for each time that it was there.
pub struct Place<'a> {
    server: &'a dyn Server,
    directory: PathBuf,
    process: Option<Process>,
    visits: usize,
}

impl<'a> Place<'a> {
    pub fn new(server: &'a dyn Server, directory: &Path) -> Self {
        Self { server, directory: directory.into(), process: None, visits: 0 }
    }

    fn visit(&self, number: usize) -> PathBuf {
        self.directory.join(format!("visit-{number}"))
    }

    pub fn open(&mut self) {
        self.visits += 1;
        let directory = self.visit(self.visits);
        std::fs::create_dir(&directory).unwrap();
        self.process = Some(self.server.start(&directory));
    }

    pub fn signal(&self, name: &str) {
        self.process.as_ref().unwrap().signal(name);
    }

    pub fn close(&mut self, end: End) {
        let Some(mut process) = self.process.take() else { return };
        if let End::Orderly = end {
            process.interrupt();
        }
    }

    /// In the order in which they were made.
    fn recordings_of(&self, visit: usize) -> Vec<PathBuf> {
        let recorded = |path: &PathBuf| path.extension().is_some_and(|e| e == "flv" || e == "ts" || e == "h264");
        let entries = std::fs::read_dir(self.visit(visit)).unwrap().flatten().map(|entry| entry.path());
        let mut paths: Vec<_> = entries.filter(recorded).collect();
        paths.sort();
        paths
    }

    pub fn recordings(&self) -> Vec<PathBuf> {
        (1..=self.visits).flat_map(|visit| self.recordings_of(visit)).collect()
    }

    /// Bytes of this visit so far.
    pub fn received(&self) -> u64 {
        self.recordings_of(self.visits).iter().map(|path| path.metadata().map_or(0, |metadata| metadata.len())).sum()
    }
}

/// `tcpserversrc` in another process.
pub struct Tcp {
    pub port: u16,
}

impl Server for Tcp {
    fn start(&self, directory: &Path) -> Process {
        let mut process = Process(
            Command::new("gst-launch-1.0")
                .args(["-q", "tcpserversrc", "host=127.0.0.1", &format!("port={}", self.port), "!"])
                .args(["filesink", "buffer-mode=unbuffered", "location=received.h264"])
                .current_dir(directory)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
        );
        // A sender that was waiting may be connected before anybody looks, and then nobody listens any more.
        let own = format!(":{:04X}", self.port);
        until("the TCP server listens", || {
            assert_eq!(process.0.try_wait().unwrap(), None, "gst-launch-1.0 has ended");
            let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
            sockets
                .lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>())
                .any(|fields| matches!(&fields[..], [_, local, _, "01" | "0A", ..] if local.ends_with(&own)))
        });
        process
    }

    fn demuxer(&self) -> &'static str {
        ""
    }
}
