//! Upstream: a thread that feeds one element at changing rates, single buffers, lists and events, through flushes, restarts
//! and ends of stream; it skips to a keyframe after each. What upstream is told is checked here: OK, FLUSHING when somebody
//! flushes or stops, EOS when downstream gave EOS, and nothing else.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::streams::Random;

use super::oracle::{GOP, is_key, unit};
use super::sink::Sink;
use super::watch::{took, violation};

/// What a push may take when there is room; the machine has other things to do, and the disk may be slow.
const PUSH_LIMIT: Duration = Duration::from_secs(15);
/// What it may take until a push that waits returns.
const UNBLOCK_LIMIT: Duration = Duration::from_secs(8);

#[derive(Default)]
struct Control {
    /// Who wants the feeder to stand still.
    parks: u32,
    parked: bool,
    /// The element does not run.
    down: bool,
    /// Raised by all that makes it return FLUSHING.
    disturbances: u64,
    restarts: u64,
    flushes: u64,
    stop: bool,
}

/// Held by those who disturb.
#[derive(Clone)]
pub struct Feed {
    pub name: &'static str,
    pub source: gst::Pad,
    pub sink: Sink,
    control: Arc<(Mutex<Control>, Condvar)>,
    /// Upstream may have to wait for room.
    may_block: bool,
}

/// The thread's own.
struct Feeder {
    feed: Feed,
    random: Random,
    next: u64,
    caps: i32,
    restarts: u64,
    flushes: u64,
    ends: u64,
    /// What a stream begins with has to be sent, again if nobody took it.
    begins: bool,
}

impl Feed {
    pub fn new(name: &'static str, sink: &Sink, may_block: bool) -> Self {
        let upstream: Arc<OnceLock<Feed>> = Arc::default();
        let seeked = upstream.clone();
        // As a demuxer does it, in the thread that seeks.
        let source = gst::Pad::builder(gst::PadDirection::Src)
            .event_function(move |_, _, event| {
                let seek = event.type_() == gst::EventType::Seek;
                seek && seeked.get().is_some_and(|feed| feed.flush(true))
            })
            .build();
        let feed = Self { name, source, sink: sink.clone(), control: Arc::default(), may_block };
        upstream.get_or_init(|| feed.clone());
        // Or the end of a flush that comes first would not get through.
        feed.source.set_active(true).unwrap();
        feed
    }

    fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.0.lock().unwrap()
    }

    fn change<R>(&self, change: impl FnOnce(&mut Control) -> R) -> R {
        let result = change(&mut self.lock());
        self.control.1.notify_all();
        result
    }

    /// The element is about to stop: from now on it may answer FLUSHING.
    pub fn goes_down(&self) {
        self.sink.oracle.reason();
        self.change(|control| (control.down, control.disturbances) = (true, control.disturbances + 1));
    }

    pub fn comes_up(&self) {
        self.change(|control| (control.down, control.restarts) = (false, control.restarts + 1));
    }

    pub fn stop(&self) {
        self.change(|control| control.stop = true);
    }

    /// As a seek does it. False when the element is down.
    pub fn flush(&self, reset: bool) -> bool {
        let since = Instant::now();
        if self.change(|control| {
            let may = !control.down && control.parks == 0;
            if may {
                control.parks += 1;
                control.disturbances += 1;
            }
            !may
        }) {
            return false;
        }
        self.sink.oracle.reason();
        self.source.push_event(gst::event::FlushStart::new());
        {
            let control = self.lock();
            let parked = self.control.1.wait_timeout_while(control, UNBLOCK_LIMIT, |control| !control.parked);
            if parked.unwrap().1.timed_out() {
                violation(format!("{}: a push does not return when it is flushed", self.name));
            }
        }
        self.source.push_event(gst::event::FlushStop::new(reset));
        self.change(|control| (control.parks, control.flushes) = (control.parks - 1, control.flushes + 1));
        if self.sink.listens_since(since) {
            took("flush", since.elapsed(), UNBLOCK_LIMIT);
        }
        true
    }

    pub fn start(&self, random: Random, base: u64) -> std::thread::JoinHandle<(u64, i32)> {
        let feed = self.clone();
        let feeder =
            Feeder { feed, random, next: base, caps: 64, restarts: u64::MAX, flushes: 0, ends: 0, begins: true };
        std::thread::spawn(move || feeder.run())
    }

    pub fn begin_stream(&self, caps: i32) -> bool {
        let group = gst::GroupId::next();
        let caps = gst::Caps::builder("video/x-h264")
            .field("stream-format", "byte-stream")
            .field("alignment", "au")
            .field("width", caps)
            .build();
        self.source.push_event(gst::event::StreamStart::builder(self.name).group_id(group).build())
            && self.source.push_event(gst::event::Caps::new(&caps))
            && self.segment()
    }

    fn segment(&self) -> bool {
        self.source.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()))
    }
}

impl Feeder {
    fn run(mut self) -> (u64, i32) {
        while let Some(disturbances) = self.ready() {
            self.act(disturbances);
            if self.random.chance(0.3) {
                std::thread::sleep(Duration::from_micros(self.random.bits() % 8000));
            } else if self.random.chance(0.01) {
                std::thread::sleep(Duration::from_millis(self.random.bits() % 200));
            }
        }
        (self.next, self.caps)
    }

    /// Waits until the element runs; how often it was disturbed until then. `None` when it is over.
    fn ready(&mut self) -> Option<u64> {
        loop {
            let (restarts, flushes, disturbances) = {
                let mut control = self.feed.lock();
                while !control.stop && (control.parks > 0 || control.down) {
                    control.parked = true;
                    self.feed.control.1.notify_all();
                    control = self.feed.control.1.wait(control).unwrap();
                }
                control.parked = false;
                if control.stop {
                    control.parked = true;
                    self.feed.control.1.notify_all();
                    return None;
                }
                (control.restarts, control.flushes, control.disturbances)
            };
            let begun = if restarts != self.restarts || self.begins {
                if restarts != self.restarts {
                    self.feed.source.set_active(false).unwrap();
                    self.feed.source.set_active(true).unwrap();
                }
                self.skip();
                self.begins = !self.feed.begin_stream(self.caps);
                !self.begins
            } else if flushes != self.flushes {
                self.skip();
                self.feed.segment()
            } else {
                return Some(disturbances);
            };
            if begun {
                (self.restarts, self.flushes) = (restarts, flushes);
            } else if !self.is_excused(disturbances) {
                violation(format!("{}: a stream cannot begin", self.feed.name));
                return None;
            }
        }
    }

    fn is_excused(&self, disturbances: u64) -> bool {
        let control = self.feed.lock();
        control.down || control.parks > 0 || control.disturbances != disturbances
    }

    /// What follows begins with a keyframe.
    fn skip(&mut self) {
        self.next = self.next.next_multiple_of(GOP);
    }

    fn act(&mut self, disturbances: u64) {
        match self.random.bits() % 64 {
            0 => {
                self.feed.source.push_event(gst::event::Eos::new());
                std::thread::sleep(Duration::from_millis(self.random.bits() % 60));
                self.begins = true;
            }
            1 => {
                self.caps += 1;
                self.begins = true;
            }
            2 => {
                let mut query = gst::query::Allocation::new(None, false);
                self.feed.source.peer_query(&mut query);
            }
            3 => {
                self.feed.source.peer_query(&mut gst::query::Drain::new());
            }
            4 => {
                let mut tags = gst::TagList::new();
                let title = self.next.to_string();
                tags.make_mut().add::<gst::tags::Title>(&title.as_str(), gst::TagMergeMode::Append);
                self.feed.source.push_event(gst::event::Tag::new(tags));
            }
            5..14 => {
                let count = 1 + self.random.bits() % 8;
                self.push(self.next..self.next + count, disturbances);
            }
            _ => self.push(self.next..self.next + 1, disturbances),
        }
    }

    fn push(&mut self, units: Range<u64>, disturbances: u64) {
        let marked = !is_key(units.start) && self.random.chance(0.1) && {
            let mark = gst::Structure::builder("mark").field("at", units.start).build();
            self.feed.source.push_event(gst::event::CustomDownstream::new(mark))
        };
        let listed = units.end - units.start > 1;
        let oracle = self.feed.sink.oracle.clone();
        oracle.offer(units.clone(), self.caps, marked);
        let since = Instant::now();
        let result = if listed {
            self.feed.source.push_list(units.clone().map(unit).collect::<gst::BufferList>())
        } else {
            self.feed.source.push(unit(units.start))
        };
        if self.feed.may_block {
            took("chain that may wait for room", since.elapsed(), Duration::MAX);
        } else {
            took("chain", since.elapsed(), PUSH_LIMIT);
        }
        let name = self.feed.name;
        match result {
            Ok(_) => return self.next = units.end,
            Err(gst::FlowError::Flushing) if self.is_excused(disturbances) => {}
            Err(gst::FlowError::Eos) if self.feed.sink.ends() > self.ends => {
                self.ends = self.feed.sink.ends();
                self.begins = true;
            }
            Err(flow) => violation(format!("{name}: {flow:?} for {units:?}")),
        }
        oracle.take_back(units);
        self.skip();
    }
}
