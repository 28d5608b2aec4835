//! The process whose writes are recorded: it feeds streams into a store and delivers from it, and notes what it was promised.
//!
//! Notes, each made before anybody could act on it: `push UNIT` before a unit is handed over and `ok UNIT` when that returned;
//! `sent UNIT POSITION` when the sink is shown it; `done UNIT` when the sink is about to take it, or to acknowledge it and all
//! before it; `durable STREAM POSITION` after `stats` have told it; `end` when the store was closed in order.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gst::prelude::*;

use super::log::mark;
use crate::common::*;

const TASK: &str = "STREAMBUFFER_TEST_POWER";
const LOCATION: &str = "STREAMBUFFER_TEST_LOCATION";
/// Numbers of a stream, and of a run of it, begin at a multiple of these.
const STREAM: u64 = 1_000_000_000;
pub const RUN: u64 = 1_000_000;
pub const GOP: u64 = 5;
const SESSIONS: u64 = 2;
/// The store, below what is recorded.
pub const STORE: &str = "above/store";

/// A unit of a stream, with its number in it.
pub fn unit(number: u64) -> gst::Buffer {
    // Some larger than what an extent holds of small ones.
    let size = if number % 50 == 33 { 150_000 } else { 500 + (number * 131 % 9000) as usize };
    frame(number, GOP, size)
}

pub fn number_of(stream: u64, run: u64, at: u64) -> u64 {
    stream * STREAM + run * RUN + at
}

pub fn stream_of(unit: u64) -> u64 {
    unit / STREAM
}

/// What is fed, and how.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub durability: &'static str,
    pub streams: u64,
    /// Units of a stream in a session.
    pub units: u64,
    /// Between two units of a stream, in us.
    pub pause: u64,
    /// That a sync takes at least, in us.
    pub sync: u64,
}

impl Scenario {
    pub fn properties(&self, stream: u64) -> Vec<(&'static str, String)> {
        vec![
            ("stream-name", format!("s{stream}")),
            ("durability", self.durability.to_owned()),
            ("sync-interval", "60000000".to_owned()),
            // Makes small extents.
            ("process-memory-bytes", "8388608".to_owned()),
            ("max-memory-bytes", "300000".to_owned()),
            ("min-free-bytes", "1".to_owned()),
            ("add-position-meta", "true".to_owned()),
            ("ack-mode", if behaviour(stream) == Behaviour::Acknowledges { "explicit" } else { "push" }.to_owned()),
        ]
    }

    pub fn to_words(&self) -> String {
        let Self { durability, streams, units, pause, sync } = self;
        format!("{durability} {streams} {units} {pause} {sync}")
    }

    fn from_words(words: &str) -> Self {
        let words: Vec<_> = words.split(' ').collect();
        let number = |at: usize| words[at].parse().unwrap();
        let known = ["none", "crash", "interval", "power"];
        let durability = known.into_iter().find(|name| *name == words[0]).unwrap();
        Self { durability, streams: number(1), units: number(2), pause: number(3), sync: number(4) }
    }
}

/// Of the sink of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    /// Takes everything.
    Takes,
    /// Refuses for more than half of the time.
    Refuses,
    /// Never takes anything in the first session.
    Stalls,
    /// Takes everything and acknowledges some of it. Comes with the second session.
    Acknowledges,
}

fn behaviour(stream: u64) -> Behaviour {
    [Behaviour::Takes, Behaviour::Refuses, Behaviour::Stalls, Behaviour::Acknowledges][stream as usize % 4]
}

fn first_session(stream: u64) -> u64 {
    u64::from(behaviour(stream) == Behaviour::Acknowledges)
}

/// A stream that is fed.
struct Feed {
    rig: Rig,
    stream: u64,
    behaviour: Behaviour,
    /// The sink takes what comes.
    willing: Arc<AtomicBool>,
    /// Unit and position that may be acknowledged.
    sent: Arc<(AtomicU64, AtomicU64)>,
}

impl Feed {
    fn start(location: &Path, scenario: &Scenario, stream: u64, run: u64) -> Self {
        let behaviour = behaviour(stream);
        let refuses = behaviour == Behaviour::Refuses || behaviour == Behaviour::Stalls;
        let willing = Arc::new(AtomicBool::new(!refuses));
        let sent = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
        let (takes, shown) = (willing.clone(), sent.clone());
        let any = gst::Caps::new_any();
        let template = gst::PadTemplate::new("sink", gst::PadDirection::Sink, gst::PadPresence::Always, &any).unwrap();
        let pad = gst::Pad::builder_from_template(&template)
            .chain_function(move |_, _, buffer| {
                let meta = gst::meta::CustomMeta::from_buffer(&buffer, "diskbuffer-position").unwrap();
                let position: u64 = meta.structure().get("position").unwrap();
                let unit = buffer.offset();
                mark(&format!("sent {unit} {position}"));
                if !takes.load(Ordering::Relaxed) {
                    return Err(gst::FlowError::Error);
                }
                if behaviour == Behaviour::Acknowledges {
                    shown.0.store(unit, Ordering::Relaxed);
                    shown.1.store(position, Ordering::Release);
                } else {
                    mark(&format!("done {unit}"));
                }
                Ok(gst::FlowSuccess::Ok)
            })
            .event_function(|_, _, _| true)
            .build();
        pad.set_active(true).unwrap();
        let properties = scenario.properties(stream);
        let properties: Vec<_> = properties.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let rig = Rig::idle(Some(location), &properties, Sink::default());
        let src = rig.element.static_pad("src").unwrap();
        src.unlink(&rig.sinkpad).unwrap();
        src.link(&pad).unwrap();
        rig.element.set_state(gst::State::Playing).unwrap();
        rig.source.set_active(true).unwrap();
        rig.start_stream(&format!("s{stream} {run}"), &h264_caps());
        Self { rig, stream, behaviour, willing, sent }
    }

    fn feed(&self, scenario: &Scenario, run: u64) {
        for at in 0..scenario.units {
            let number = number_of(self.stream, run, at);
            mark(&format!("push {number}"));
            self.rig.push(unit(number));
            mark(&format!("ok {number}"));
            if at % 5 == 4 {
                mark(&format!("durable {} {}", self.stream, self.rig.stat("durable-position")));
            }
            if self.behaviour == Behaviour::Acknowledges && at % 8 == 7 {
                let position = self.sent.1.load(Ordering::Acquire);
                mark(&format!("done-until {} {position}", self.stream));
                self.rig.element.emit_by_name::<bool>("acknowledge", &[&position]);
            }
            if at == scenario.units * 6 / 10 && (self.behaviour == Behaviour::Refuses || run > 0) {
                self.willing.store(true, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_micros(scenario.pause));
        }
    }
}

/// What the process does.
fn feed(location: &Path, scenario: &Scenario) {
    init();
    for session in 0..SESSIONS {
        let here = (0..scenario.streams).filter(|stream| first_session(*stream) <= session);
        let feeds: Vec<_> = here.map(|stream| Feed::start(location, scenario, stream, session)).collect();
        std::thread::scope(|scope| {
            for feed in &feeds {
                scope.spawn(|| feed.feed(scenario, session));
            }
        });
        // Files go, cursors are saved.
        std::thread::sleep(Duration::from_millis(150));
        drop(feeds);
        mark("end");
    }
}

/// Not a test by itself.
#[test]
fn child() {
    let (Ok(task), Some(location)) = (std::env::var(TASK), std::env::var_os(LOCATION)) else { return };
    feed(Path::new(&location), &Scenario::from_words(&task));
}

/// A process under the recorder.
pub struct Recording {
    child: Child,
    pub root: PathBuf,
    pub log: PathBuf,
    pub scenario: Scenario,
}

impl Recording {
    /// Begins, in a directory that nobody else uses.
    pub fn start(directory: &Path, recorder: &Path, scenario: Scenario) -> Self {
        let root = directory.join("disk");
        std::fs::create_dir_all(&root).unwrap();
        let log = directory.join("record");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "power::feeder::child", "--nocapture"])
            .env(TASK, scenario.to_words())
            .env(LOCATION, root.join(STORE))
            .env("LD_PRELOAD", recorder)
            .env("POWER_ROOT", &root)
            .env("POWER_LOG", &log)
            .env("POWER_DELAY", scenario.sync.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, root, log, scenario }
    }

    /// Until the process has ended in order.
    pub fn wait(&mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{:?}: {status}", self.scenario);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
