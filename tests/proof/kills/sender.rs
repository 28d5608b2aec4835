//! The process that is killed: feeds every stream of a store at once and takes what comes out.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver as Channel, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::journal::{self, Journal, Stats, Told};
use super::plan::{DURABILITIES, PERSISTS, Plan, Round, StreamPlan};
use super::receiver::{Receiver, State};
use super::reel::{self, RUN, Reel, is_marked};
use crate::common::*;
use crate::pictures::decode;
use crate::victims::tell;

pub const ROUND: &str = "STREAMBUFFER_TEST_ROUND";
pub const AT: &str = "STREAMBUFFER_TEST_RUN";
pub const PLACE: &str = "STREAMBUFFER_TEST_PLACE";
pub const REELS: &str = "STREAMBUFFER_TEST_REELS";

/// Between two of what is fed after the burst.
const PAUSE: Duration = Duration::from_millis(2);
const LOOK: Duration = Duration::from_millis(10);
/// The process tells that it runs.
pub const BEAT: Duration = Duration::from_millis(20);
/// Of the drained output, for a decoder.
const PICTURES: usize = 150;

pub fn store(place: &Path) -> std::path::PathBuf {
    place.join("store")
}

/// One `diskbuffer` with its ends.
struct Lane {
    stream: usize,
    /// Links do not hold it.
    _pad: gst::Pad,
    rig: Rig,
    reel: Arc<Reel>,
    plan: StreamPlan,
    journal: Arc<Journal>,
    receiver: Arc<Receiver>,
    acknowledged: Mutex<Option<Channel<(u64, u64)>>>,
}

impl Lane {
    fn new(place: &Path, reels: &Path, round: &Round, run: u64, stream: usize, plan: &Plan) -> Self {
        let (kind, number) = round.streams()[stream];
        let reel = Arc::new(Reel::load(&reels.join(format!("reel-{kind}-{number}"))).unwrap());
        let journal = Arc::new(Journal::open(&journal::path(place, run, stream)));
        let (drains, durability, process_memory) = (plan.drains, DURABILITIES[plan.durability], round.process_memory());
        let plan = plan.streams[stream].clone();
        let name = format!("stream-{stream}");
        let ack_mode = if plan.explicit { "explicit" } else { "push" };
        let numbers = [process_memory, plan.memory, plan.spill_after, plan.retry].map(|number| number.to_string());
        let properties = [
            ("stream-name", name.as_str()),
            ("durability", durability),
            ("sync-interval", "100000000"),
            ("persist", PERSISTS[plan.persist]),
            ("ack-mode", ack_mode),
            ("add-position-meta", "true"),
            ("process-memory-bytes", &numbers[0]),
            ("max-memory-bytes", &numbers[1]),
            ("spill-after", &numbers[2]),
            ("retry-interval", &numbers[3]),
        ];
        let rig = Rig::idle(Some(&store(place)), &properties, Sink::default());
        let (acknowledges, acknowledged) = channel();
        let receiver = Arc::new(Receiver {
            stream,
            reel: reel.clone(),
            journal: journal.clone(),
            behaviour: plan.behaviour,
            acknowledges: plan.explicit.then(|| Mutex::new(acknowledges)),
            keep: if drains && reel.is_video() { PICTURES } else { 0 },
            state: Mutex::new(State::default()),
            ended: Condvar::new(),
        });
        let src = rig.element.static_pad("src").unwrap();
        src.unlink(&rig.sinkpad).unwrap();
        let pad = receiver.pad();
        src.link(&pad).unwrap();
        Self { stream, _pad: pad, rig, reel, plan, journal, receiver, acknowledged: Mutex::new(Some(acknowledged)) }
    }

    fn start(&self) {
        self.rig.element.set_state(gst::State::Playing).unwrap();
        self.rig.source.set_active(true).unwrap();
        self.look();
    }

    /// Checks the sums and tells some.
    fn look(&self) -> Stats {
        let stats = self.rig.element.property::<gst::Structure>("stats");
        for suffix in ["", "-bytes"] {
            let get = |name: &str| stats.get::<u64>(&format!("{name}{suffix}")).unwrap();
            let sum = |names: &[&str]| names.iter().map(|name| get(name)).sum::<u64>();
            let received = sum(&["stored", "bypassed", "queued", "rejected"]);
            let stored = sum(&["delivered", "pending", "dropped", "expired", "purged", "lost"]);
            let given_up = sum(&["rejected", "dropped", "expired", "purged"]);
            if (get("received"), get("stored"), 0) != (received, stored, given_up) {
                tell(&format!("wrong stream {}: the sums do not hold: {stats}", self.stream));
            }
        }
        let get = |name: &str| stats.get::<u64>(name).unwrap();
        let told = Stats {
            received: get("received"),
            queued: get("queued"),
            durable: get("durable-position"),
            delivered: get("delivered"),
            bypassed: get("bypassed"),
            lost: get("lost"),
        };
        self.journal.tell(Told::Stats(told));
        while let Some(message) = self.rig.bus.pop_filtered(&[gst::MessageType::Error]) {
            tell(&format!("wrong stream {}: {message:?}", self.stream));
        }
        told
    }

    fn begin(&self, run: u64) {
        for event in reel::beginning(&self.reel, self.stream, run) {
            assert!(self.rig.source.push_event(event));
        }
    }

    fn feed(&self, run: u64) {
        self.begin(run);
        let mut burst = self.plan.burst;
        let mut number = run * RUN;
        while number < run * RUN + RUN / 2 {
            let first = number;
            let mut list = gst::BufferList::new();
            let together = self.reel.together(first);
            for event in self.reel.events(first) {
                assert!(self.rig.source.push_event(event));
            }
            if is_marked(first) {
                self.journal.tell(Told::AcceptedMark(first));
            }
            while number < first + together {
                list.make_mut().add(self.reel.buffer(number));
                number += 1;
            }
            let bytes: usize = list.iter().map(|buffer| buffer.size()).sum();
            let taken = match list.get_owned(0) {
                Some(buffer) if together == 1 => {
                    drop(list);
                    self.rig.source.push(buffer)
                }
                _ => self.rig.source.push_list(list),
            };
            if taken != Ok(gst::FlowSuccess::Ok) {
                return tell(&format!("wrong stream {}: chain gives {taken:?} at {first}", self.stream));
            }
            (first..number).for_each(|number| self.journal.tell(Told::Accepted(number)));
            // Small ones cost too.
            burst = burst.saturating_sub(bytes as u64 + 1000);
            if burst == 0 {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Acknowledges every few units, some time after they came.
    fn acknowledge(&self, over: &AtomicBool) {
        let Some(came) = self.acknowledged.lock().unwrap().take().filter(|_| self.plan.explicit) else { return };
        let mut latest = None;
        // Late, or nobody would notice what counts too early.
        let mut waiting = VecDeque::new();
        while !over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(3));
            let now = Instant::now();
            waiting.extend(came.try_iter().map(|pair| (now, pair)));
            let due =
                waiting.iter().take_while(|(came, _): &&(Instant, _)| came.elapsed() >= self.plan.acknowledged_after);
            let due = due.count();
            latest = latest.max(waiting.drain(..due).map(|(_, pair)| pair).max());
            if let Some((number, position)) = latest {
                self.journal.tell(Told::Acknowledging(number));
                if self.rig.element.emit_by_name::<bool>("acknowledge", &[&position]) {
                    self.journal.tell(Told::Acknowledged(number));
                    latest = None;
                }
            }
        }
    }

    /// Everything has come out and is accounted for.
    fn finish(&self) {
        {
            let state = self.receiver.state.lock().unwrap();
            let state = self.receiver.ended.wait_timeout_while(state, PATIENCE, |state| !state.eos).unwrap().0;
            assert!(state.eos, "stream {} does not end", self.stream);
        }
        let start = std::time::Instant::now();
        while self.rig.stat("pending") + self.rig.stat("queued") > 0 {
            assert!(
                start.elapsed() < PATIENCE,
                "stream {} is not drained: {}",
                self.stream,
                self.rig.element.property::<gst::Structure>("stats")
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        self.look();
        let kept = std::mem::take(&mut self.receiver.state.lock().unwrap().kept);
        let units: Vec<_> = kept.iter().flatten().map(|unit| unit.pts()).collect();
        if !units.is_empty() {
            let shown = decode(&format!("stream {}", self.stream), self.reel.is_open(), kept);
            let unseen: Vec<_> = units.iter().flatten().filter(|pts| !shown.contains_key(&pts.nseconds())).collect();
            assert!(unseen.is_empty(), "stream {}: of {} never shown: {unseen:?}", self.stream, units.len());
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What is killed, and at last drains the store.
pub fn run() {
    let (Some(round), Some(run)) = (variable(ROUND), variable(AT)) else { return };
    let (place, reels) = (variable(PLACE).unwrap(), variable(REELS).unwrap());
    let (round, run, place) = (Round::parse(&round), run.parse().unwrap(), Path::new(&place));
    let panics = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(&format!("wrong {panic}").replace('\n', " "));
        panics(panic);
    }));
    init();
    let plan = round.plan(run);
    let streams = 0..plan.streams.len();
    let lanes: Vec<_> = streams.map(|stream| Lane::new(place, Path::new(&reels), &round, run, stream, &plan)).collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                lanes[0].journal.tell(Told::Beat);
                std::thread::sleep(BEAT);
            }
        });
        // Delivery tells from here on.
        tell("ready");
        lanes.iter().for_each(Lane::start);
        for lane in &lanes {
            scope.spawn(|| lane.acknowledge(&over));
            if plan.drains {
                lane.begin(run);
                lane.rig.eos();
            } else {
                scope.spawn(|| lane.feed(run));
            }
        }
        if plan.drains {
            // Joined when the scope ends, whatever fails here.
            let finished =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lanes.iter().for_each(Lane::finish)));
            over.store(true, Ordering::Relaxed);
            finished.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        } else {
            loop {
                std::thread::sleep(LOOK);
                lanes.iter().for_each(|lane| _ = lane.look());
            }
        }
    });
}
