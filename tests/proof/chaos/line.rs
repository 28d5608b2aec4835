//! One `diskbuffer` between upstream and a sink with moods, and the threads that disturb it: flushes and seeks, state changes,
//! properties, actions, queries; and one that reads `stats` all the time.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::common::h264_caps;
use crate::streams::Random;

use super::accounts::Accounts;
use super::disk::Disk;
use super::feeder::Feed;
use super::oracle::{Oracle, unit};
use super::sink::{Mood, Sink};
use super::watch::{took, violation};

/// What a change of state may take on a loaded machine, with a disk that may be slow.
pub const STATE_LIMIT: Duration = Duration::from_secs(20);
/// What was broken is whole again, and everything has to arrive.
pub const SETTLE: Duration = Duration::from_secs(60);
/// With less memory there may be nothing to resume from while the disk fails.
const ONE_GOP: u64 = 600_000;
/// Above twice what an element may hold: one list.
const MEMORY_SLACK: u64 = 1 << 20;
/// An action that waits for the disk.
const ACTION_LIMIT: Duration = Duration::from_secs(90);

/// What an element is told, and what it may do.
#[derive(Debug, Clone)]
pub struct Setup {
    pub name: &'static str,
    /// Numbers of its units begin here.
    pub base: u64,
    pub durability: &'static str,
    leaky: &'static str,
    /// Nothing may be given up while the disk works.
    lossless: bool,
    explicit: bool,
    properties: Vec<(&'static str, String)>,
    memory: u64,
}

const NAMES: [&str; 4] = ["north", "south", "east", "west"];

fn pick<T: Copy>(random: &mut Random, from: &[T]) -> T {
    from[(random.bits() % from.len() as u64) as usize]
}

impl Setup {
    pub fn random(random: &mut Random, index: usize, durability: &'static str) -> Self {
        let leaky = pick(random, &["no", "no", "no", "upstream", "downstream", "thin"]);
        let lossless = leaky == "no" && random.chance(0.8);
        let explicit = random.chance(0.25);
        let memory = pick(random, &[ONE_GOP, 2_000_000, 8 << 20]);
        let mut properties = vec![
            ("max-memory-bytes", memory.to_string()),
            ("persist", pick(random, &["always", "always", "spill"]).to_owned()),
            ("spill-after", (random.bits() % 500 * 1_000_000).to_string()),
            ("retry-interval", "5000000".to_owned()),
            ("retry-max-interval", "40000000".to_owned()),
            ("stall-timeout", "100000000".to_owned()),
            ("timestamp-mode", pick(random, &["continuous", "original", "restamp"]).to_owned()),
            // The memtable is an eighth of it.
            ("max-size-bytes", pick(random, &[8u64 << 20, 24 << 20, 0]).to_string()),
        ];
        if leaky != "no" || random.chance(0.3) {
            properties.push(("max-size-buffers", (20 + random.bits() % 300).to_string()));
        }
        if !lossless && random.chance(0.3) {
            properties.push(("flush-mode", "discard".to_owned()));
        }
        if random.chance(0.2) {
            properties.push(("retention-bytes", "2000000".to_owned()));
        }
        Self {
            name: NAMES[index],
            base: index as u64 * 1_000_000_000,
            durability,
            leaky,
            lossless,
            explicit,
            properties,
            memory,
        }
    }
}

/// Everything around one element.
pub struct Line {
    setup: Setup,
    element: gst::Element,
    feed: Feed,
    sink: Sink,
    sinkpad: gst::Pad,
    accounts: Accounts,
    /// It is being started: an error says that the disk does not let it.
    starting: AtomicBool,
    over: AtomicBool,
    memory_peak: AtomicU64,
    disk: Disk,
}

fn stats_of(element: &gst::Element) -> gst::Structure {
    element.property("stats")
}

impl Line {
    pub fn new(setup: Setup, location: &Path, disk: &Disk) -> Arc<Self> {
        let element = gst::ElementFactory::make("diskbuffer").build().unwrap();
        element.set_property("location", location.to_str().unwrap());
        element.set_property("stream-name", setup.name);
        element.set_property("add-position-meta", true);
        element.set_property_from_str("durability", setup.durability);
        element.set_property_from_str("leaky", setup.leaky);
        element.set_property_from_str("ack-mode", if setup.explicit { "explicit" } else { "push" });
        for (name, value) in &setup.properties {
            element.set_property_from_str(name, value);
        }
        let oracle = Oracle::new(setup.name);
        if setup.leaky == "thin" {
            oracle.thin();
        }
        let sink = Sink::new(oracle);
        let feed = Feed::new(setup.name, &sink, setup.leaky == "no");
        let sinkpad = sink.pad();
        feed.source.link(&element.static_pad("sink").unwrap()).unwrap();
        element.static_pad("src").unwrap().link(&sinkpad).unwrap();
        let accounts = Accounts::new(setup.name, setup.lossless, disk);
        let line = Arc::new(Self {
            accounts,
            setup,
            element,
            feed,
            sink,
            sinkpad,
            starting: AtomicBool::new(false),
            over: AtomicBool::new(false),
            memory_peak: AtomicU64::new(0),
            disk: disk.clone(),
        });
        let bus = gst::Bus::new();
        let weak = Arc::downgrade(&line);
        bus.set_sync_handler(move |_, message| {
            if let Some(line) = weak.upgrade() {
                line.hear(message);
            }
            gst::BusSyncReply::Drop
        });
        line.element.set_bus(Some(&bus));
        line
    }

    fn hear(&self, message: &gst::Message) {
        match message.view() {
            gst::MessageView::Error(error) => self.failed(error),
            // While downstream is on probation delivery begins anew after a drop.
            _ if message.has_name("diskbuffer-dropped") => self.sink.oracle.reason(),
            _ => {}
        }
    }

    fn failed(&self, error: &gst::message::Error) {
        if !(self.starting.load(Ordering::SeqCst) && self.disk.is_faulty()) {
            violation(format!("{}: {} {:?}", self.setup.name, error.error(), error.debug()));
        }
    }

    /// Tries until the disk lets it.
    pub fn play(&self) {
        let since = Instant::now();
        self.sink.activated();
        self.starting.store(true, Ordering::SeqCst);
        let goes = |state| self.element.set_state(state).is_ok();
        while !(goes(gst::State::Ready) && {
            self.accounts.opened(&stats_of(&self.element));
            goes(gst::State::Playing)
        }) {
            if !self.disk.is_faulty() || self.over.load(Ordering::SeqCst) && since.elapsed() > SETTLE {
                return violation(format!("{}: it does not start", self.setup.name));
            }
            let _ = self.element.set_state(gst::State::Null);
            std::thread::sleep(Duration::from_millis(20));
        }
        self.starting.store(false, Ordering::SeqCst);
        self.feed.comes_up();
    }

    fn timed_state(&self, what: &'static str, state: gst::State) {
        let since = Instant::now();
        let result = self.element.set_state(state);
        if result.is_err() {
            violation(format!("{}: {what}: {result:?}", self.setup.name));
        }
        if self.sink.listens_since(since) {
            let what = if self.disk.is_faulty() {
                what
            } else {
                match state {
                    gst::State::Ready => "stop with a disk that works",
                    gst::State::Null => "close with a disk that works",
                    _ => "pause or play with a disk that works",
                }
            };
            took(what, since.elapsed(), STATE_LIMIT);
        }
    }

    fn change_states(&self, mut random: Random) {
        while !self.over.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(random.bits() % 600));
            match random.bits() % 8 {
                0..4 => {
                    self.timed_state("pause", gst::State::Paused);
                    std::thread::sleep(Duration::from_millis(random.bits() % 50));
                    self.timed_state("play", gst::State::Playing);
                }
                kind => {
                    self.feed.goes_down();
                    self.timed_state("stop", gst::State::Ready);
                    self.accounts.add("a stop", &stats_of(&self.element));
                    // Without a log what a failing disk does not take at the end is gone.
                    if kind > 5 && self.setup.durability != "none" {
                        self.timed_state("close", gst::State::Null);
                    }
                    std::thread::sleep(Duration::from_millis(random.bits() % 50));
                    self.play();
                }
            }
        }
    }

    fn change_moods(&self, mut random: Random) {
        while !self.over.load(Ordering::SeqCst) {
            self.sink.set_mood(Mood::random(&mut random, !self.setup.lossless));
            std::thread::sleep(Duration::from_millis(random.bits() % 300));
            if random.chance(0.3) {
                self.sink.set_mood(Mood::Takes);
                self.sinkpad.push_event(gst::event::Reconfigure::new());
            }
        }
    }

    fn disturb(&self, mut random: Random) {
        let oracle = &self.sink.oracle;
        while !self.over.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(random.bits() % 100));
            match random.bits() % 16 {
                0 => _ = self.feed.flush(random.chance(0.5)),
                1 => {
                    let flags = gst::SeekFlags::FLUSH;
                    let (none, time) = (gst::SeekType::None, gst::ClockTime::ZERO);
                    let seek = gst::event::Seek::new(1.0, flags, gst::SeekType::Set, time, none, time);
                    self.sinkpad.push_event(seek);
                }
                2 | 3 => {
                    oracle.reason();
                    self.element.emit_by_name::<bool>("rewind", &[]);
                }
                4 if !self.setup.lossless => {
                    oracle.purge();
                    let since = Instant::now();
                    if random.chance(0.5) {
                        self.element.emit_by_name::<bool>("clear", &[]);
                    } else if let Some(position) = self.sink.position() {
                        let from = position.saturating_sub(random.bits() % 30);
                        let to = from + random.bits() % 60;
                        self.element.emit_by_name::<bool>("purge", &[&from, &to]);
                    }
                    took("purge", since.elapsed(), ACTION_LIMIT);
                }
                5..9 => self.set_something(&mut random),
                9 => _ = self.sinkpad.push_event(gst::event::Reconfigure::new()),
                10 => _ = self.sinkpad.peer_query(&mut gst::query::Latency::new()),
                11 => _ = self.sinkpad.peer_query(&mut gst::query::Position::new(gst::Format::Time)),
                12 => _ = self.feed.source.peer_query(&mut gst::query::Caps::new(None)),
                13 => _ = self.feed.source.peer_query(&mut gst::query::AcceptCaps::new(&h264_caps())),
                _ => {
                    let qos = gst::event::Qos::new(gst::QOSType::Underflow, 1.0, 0, gst::ClockTime::ZERO);
                    self.sinkpad.push_event(qos);
                }
            }
        }
    }

    fn set_something(&self, random: &mut Random) {
        let set = |name: &str, value: &str| self.element.set_property_from_str(name, value);
        match random.bits() % 6 {
            0 if self.setup.leaky != "no" => {
                self.sink.oracle.thin();
                set("leaky", pick(random, &["upstream", "downstream", "thin"]));
            }
            0 | 1 if !self.setup.lossless => {
                // Less than what waits, perhaps: then a resume may begin within a GOP.
                self.sink.oracle.purge();
                let memory = pick(random, &[0, 50_000, ONE_GOP, self.setup.memory]);
                set("max-memory-bytes", &memory.to_string());
            }
            2 if self.setup.properties.iter().any(|(name, _)| *name == "max-size-buffers") => {
                set("max-size-buffers", &(20 + random.bits() % 300).to_string());
            }
            2 | 3 => set("persist", pick(random, &["always", "spill"])),
            4 => set("spill-after", &(random.bits() % 500 * 1_000_000).to_string()),
            _ => set("catch-up-rate", pick(random, &["0", "0", "30", "3000"])),
        }
    }

    /// Reads the counters all the time, and acknowledges.
    fn monitor(&self) {
        while !self.over.load(Ordering::SeqCst) {
            self.look();
            std::thread::sleep(Duration::from_millis(4));
        }
    }

    fn look(&self) -> gst::Structure {
        let stats = stats_of(&self.element);
        self.accounts.check(&stats);
        let memory = stats.get::<u64>("memory-bytes").unwrap();
        self.memory_peak.fetch_max(memory, Ordering::Relaxed);
        if memory > 2 * self.setup.memory + MEMORY_SLACK {
            violation(format!("{}: {memory} bytes are held in memory: {stats}", self.setup.name));
        }
        if let Some(position) = self.sink.position().filter(|_| self.setup.explicit) {
            self.element.emit_by_name::<bool>("acknowledge", &[&position]);
        }
        stats
    }

    pub fn start(self: &Arc<Self>, seed: u64) -> Threads {
        let random = |kind: u64| Random::new(seed.wrapping_mul(31).wrapping_add(self.setup.base).wrapping_add(kind));
        let thread = |work: fn(&Self, Random), kind: u64| {
            let (line, random) = (self.clone(), random(kind));
            std::thread::spawn(move || work(&line, random))
        };
        let feeder = self.feed.start(random(1), self.setup.base);
        let others = vec![
            thread(Self::change_states, 2),
            thread(Self::change_moods, 3),
            thread(Self::disturb, 4),
            thread(|line, _| line.monitor(), 5),
        ];
        Threads { feeder, others }
    }

    /// All that is at random ends; everything works.
    pub fn calm(&self, threads: Threads) -> (u64, i32) {
        self.over.store(true, Ordering::SeqCst);
        self.feed.stop();
        let calm = || {
            self.sink.set_mood(Mood::Takes);
            self.element.set_property("catch-up-rate", 0f64);
        };
        calm();
        let ends = threads.join(|| _ = self.look());
        // A mood may have come after.
        calm();
        self.sinkpad.push_event(gst::event::Reconfigure::new());
        ends
    }

    fn wait(&self, what: &str, mut done: impl FnMut(&gst::Structure) -> bool) {
        let since = Instant::now();
        loop {
            let stats = self.look();
            if done(&stats) {
                return;
            }
            if since.elapsed() > SETTLE {
                return violation(format!("{}: {what}: {stats}", self.setup.name));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Everything that was accepted and not told to be given up has to arrive.
    pub fn settle(&self, next: u64, caps: i32) {
        let drained =
            |stats: &gst::Structure| ["pending", "queued"].into_iter().all(|name| stats.get::<u64>(name) == Ok(0));
        // Downstream may have had enough of the stream before.
        self.feed.source.set_active(false).unwrap();
        self.feed.source.set_active(true).unwrap();
        self.feed.begin_stream(caps);
        self.wait("the backlog is not delivered", drained);
        self.wait("the disk is not used", |stats| stats.get::<&str>("status") != Ok("storage-fault"));
        let last = (next + super::oracle::GOP).next_multiple_of(super::oracle::GOP);
        self.sink.oracle.offer(last..last + 1, caps, false);
        if let Err(flow) = self.feed.source.push(unit(last)) {
            violation(format!("{}: {flow:?} for the last one", self.setup.name));
        }
        self.wait("the last one does not arrive", |_| self.sink.oracle.has_arrived(last));
        self.wait("it is not live", |stats| stats.get::<&str>("status") == Ok("live") && drained(stats));
        let (accepted, missing) = self.sink.oracle.missing();
        let (taken, repeats) = self.sink.oracle.taken();
        let told = self.accounts.close(self.setup.durability, &missing, &stats_of(&self.element));
        println!(
            "{}: {accepted} accepted, {taken} taken, {repeats} repeats, {} missing, {told} given up, peak {} of {} bytes",
            self.setup.name,
            missing.len(),
            self.memory_peak.load(Ordering::Relaxed),
            self.setup.memory,
        );
        let _ = self.feed.source.set_active(false);
        self.timed_state("stop", gst::State::Ready);
        self.timed_state("close", gst::State::Null);
        self.element.set_bus(None::<&gst::Bus>);
    }
}

/// What disturbs, and what feeds.
pub struct Threads {
    pub feeder: JoinHandle<(u64, i32)>,
    pub others: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Where the feeder ended, which may wait for what `meanwhile` does. A panic in one of them was told already.
    pub fn join(self, meanwhile: impl Fn()) -> (u64, i32) {
        while !self.feeder.is_finished() || !self.others.iter().all(JoinHandle::is_finished) {
            meanwhile();
            std::thread::sleep(Duration::from_millis(2));
        }
        self.others.into_iter().for_each(|thread| _ = thread.join());
        self.feeder.join().unwrap_or_default()
    }
}
