//! One `diskbuffersink` in a pipeline, with a sink in it that fails, blocks and cannot be reached, while the pipeline is
//! stopped and started and upstream flushes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::faulty::{Faults, Mood};
use crate::streams::Random;

use super::accounts::Accounts;
use super::disk::Disk;
use super::feeder::Feed;
use super::line::{SETTLE, STATE_LIMIT, Threads};
use super::oracle::{GOP, Oracle, unit};
use super::sink::Sink;
use super::watch::{took, violation};

const NAME: &str = "bin";
const BASE: u64 = 7_000_000_000;

pub struct Bin {
    pipeline: gst::Pipeline,
    element: gst::Element,
    feed: Feed,
    oracle: Oracle,
    faults: Faults,
    accounts: Accounts,
    durability: &'static str,
    disk: Disk,
    starting: AtomicBool,
    over: AtomicBool,
}

impl Bin {
    pub fn new(location: &Path, durability: &'static str, disk: &Disk) -> Arc<Self> {
        let faults = Faults::new(NAME);
        let pipeline = gst::Pipeline::new();
        let element = gst::ElementFactory::make("diskbuffersink").build().unwrap();
        for (name, value) in [
            ("location", location.to_str().unwrap()),
            ("stream-name", NAME),
            ("durability", durability),
            ("sink-description", &format!("faultysink about={NAME}")),
            ("retry-interval", "10000000"),
            ("retry-max-interval", "40000000"),
            ("restart-timeout", "300000000"),
            ("eos-timeout", "200000000"),
            ("replay-overlap", "0"),
            ("replay-overlap-bytes", "0"),
        ] {
            element.set_property_from_str(name, value);
        }
        pipeline.add(&element).unwrap();
        let oracle = Oracle::new(NAME);
        oracle.data_only();
        // Never linked: the feeder asks it what upstream may be told.
        let feed = Feed::new(NAME, &Sink::new(oracle.clone()), true);
        feed.source.link(&element.request_pad_simple("video").unwrap()).unwrap();
        let accounts = Accounts::new(NAME, true, disk);
        let bin = Arc::new(Self {
            pipeline,
            element,
            feed,
            oracle,
            faults,
            accounts,
            durability,
            disk: disk.clone(),
            starting: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&bin);
        bin.pipeline.bus().unwrap().set_sync_handler(move |_, message| {
            if let (gst::MessageView::Error(error), Some(bin)) = (message.view(), weak.upgrade())
                && !(bin.starting.load(Ordering::SeqCst) && bin.disk.is_faulty())
            {
                violation(format!("{NAME}: {} {:?}", error.error(), error.debug()));
            }
            gst::BusSyncReply::Drop
        });
        bin
    }

    fn stats(&self) -> gst::Structure {
        self.element.property("stats")
    }

    /// Tries until the disk lets it.
    pub fn play(&self) {
        self.starting.store(true, Ordering::SeqCst);
        let since = Instant::now();
        let goes = |state| self.pipeline.set_state(state).is_ok();
        while !(goes(gst::State::Ready) && {
            self.accounts.opened(&self.stats());
            goes(gst::State::Playing)
        }) {
            if !self.disk.is_faulty() || since.elapsed() > SETTLE {
                return violation(format!("{NAME}: it does not start"));
            }
            let _ = self.pipeline.set_state(gst::State::Null);
            std::thread::sleep(Duration::from_millis(20));
        }
        self.starting.store(false, Ordering::SeqCst);
        self.feed.comes_up();
    }

    fn timed_state(&self, what: &'static str, state: gst::State) {
        let since = Instant::now();
        if self.pipeline.set_state(state).is_err() {
            violation(format!("{NAME}: {what}"));
        }
        took(what, since.elapsed(), STATE_LIMIT);
    }

    fn change_states(&self, mut random: Random) {
        while !self.over.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(200 + random.bits() % 1200));
            match random.bits() % 4 {
                0 => _ = self.feed.flush(random.chance(0.5)),
                1 => {
                    self.timed_state("pause of a bin", gst::State::Paused);
                    self.timed_state("play of a bin", gst::State::Playing);
                }
                kind => {
                    self.feed.goes_down();
                    self.timed_state("stop of a bin", gst::State::Ready);
                    self.accounts.add("a stop", &self.stats());
                    if kind == 3 && self.durability != "none" {
                        self.timed_state("close of a bin", gst::State::Null);
                    }
                    self.play();
                }
            }
        }
    }

    fn change_moods(&self, mut random: Random) {
        use gst::FlowError::{Eos, Error, Flushing};
        while !self.over.load(Ordering::SeqCst) {
            let mood = match random.bits() % 10 {
                0 => Mood::Fails,
                1 => Mood::FailsSilently,
                2 => Mood::Answers(if random.chance(0.5) { Flushing } else { Eos }),
                3 => Mood::Answers(Error),
                4 => Mood::Blocks,
                _ => Mood::Takes,
            };
            self.faults.tell(|told| {
                (told.mood, told.takes) = (mood, (random.bits() % 10) as usize);
                told.unreachable = random.chance(0.1);
            });
            std::thread::sleep(Duration::from_millis(random.bits() % 400));
        }
    }

    /// Compares what the instances have taken.
    fn look(&self, instance: &mut usize) {
        for (by, seen) in self.faults.tell(|told| std::mem::take(&mut told.taken)) {
            if by != std::mem::replace(instance, by) {
                self.oracle.reason();
                self.oracle.begins_anew();
            }
            self.oracle.take(&seen, None);
        }
        self.accounts.check(&self.stats());
    }

    fn monitor(&self) {
        let mut instance = 0;
        while !self.over.load(Ordering::SeqCst) {
            self.look(&mut instance);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn start(self: &Arc<Self>, seed: u64) -> Threads {
        let random = |kind: u64| Random::new(seed.wrapping_mul(37).wrapping_add(BASE).wrapping_add(kind));
        let thread = |work: fn(&Self, Random), kind: u64| {
            let (bin, random) = (self.clone(), random(kind));
            std::thread::spawn(move || work(&bin, random))
        };
        let others =
            vec![thread(Self::change_states, 2), thread(Self::change_moods, 3), thread(|bin, _| bin.monitor(), 4)];
        Threads { feeder: self.feed.start(random(1), BASE), others }
    }

    pub fn calm(&self, threads: Threads) -> (u64, i32) {
        self.over.store(true, Ordering::SeqCst);
        self.feed.stop();
        let calm = || {
            self.faults.tell(|told| {
                told.unreachable = false;
                (told.mood, told.takes) = (Mood::Takes, 0);
            });
        };
        calm();
        let ends = threads.join(|| {});
        calm();
        ends
    }

    /// Everything that was accepted and not told to be given up has to arrive.
    pub fn settle(&self, next: u64, caps: i32) {
        self.feed.source.set_active(false).unwrap();
        self.feed.source.set_active(true).unwrap();
        self.feed.begin_stream(caps);
        let last = (next + GOP).next_multiple_of(GOP);
        self.oracle.offer(last..last + 1, caps, false);
        if let Err(flow) = self.feed.source.push(unit(last)) {
            violation(format!("{NAME}: {flow:?} for the last one"));
        }
        let (since, mut instance) = (Instant::now(), usize::MAX);
        while !self.oracle.has_arrived(last)
            || ["pending", "queued"].into_iter().any(|name| self.stats().get::<u64>(name) != Ok(0))
        {
            self.look(&mut instance);
            if since.elapsed() > SETTLE {
                violation(format!("{NAME}: not everything is delivered: {}", self.stats()));
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let (accepted, missing) = self.oracle.missing();
        let (taken, repeats) = self.oracle.taken();
        let told = self.accounts.close(self.durability, &missing, &self.stats());
        let (starts, missing) = (self.faults.tell(|told| told.starts), missing.len());
        println!(
            "{NAME}: {accepted} accepted, {taken} taken, {repeats} repeats, {missing} missing, {told} given up, {starts} starts"
        );
        let _ = self.feed.source.set_active(false);
        self.timed_state("stop of a bin", gst::State::Null);
    }
}
