//! What the streams share, and how sets are made of it: frames go to the matcher by token, sets come back and decide
//! what becomes of what is held.
//!
//! Inter-coded streams are held in decode order and given to the matcher in order of PTS: a frame goes there once DTS
//! has reached its PTS, as nothing can come below it any more.

use std::collections::BTreeMap;
use std::time::Duration;

use super::mark::Mark;
use super::messages::{Incomplete, Messages};
use super::settings::{Fill, Mode, Policy, Settings};
use super::stamps::Content;
use super::stream::{Entry, Fate, Frame, Phase, Stream};
use crate::timeline::Ns;
use crate::timeline::matcher::{Matcher, MatcherConfig, Push, Reference, Set};

/// Frames in a row that found no set, or came late, until streams are taken to be unrelated.
const UNLOCKED: u32 = 64;

/// With more frames in wait for their order, DTS says nothing of it: no picture buffer is as large.
const REORDER: usize = 32;

/// How often streams that are not live are looked at for silence, while something waits for them.
pub const LOOK: Duration = Duration::from_millis(100);
/// The longest time between two looks.
const LONGEST: Duration = Duration::from_secs(1);

pub struct State {
    pub streams: BTreeMap<u32, Stream>,
    matcher: Matcher<u64>,
    /// Streams by their number in the matcher.
    slots: Vec<Option<u32>>,
    set: Set<u64>,
    /// Added to times since 1970, once a stream has fixed it.
    pub shared: Option<Ns>,
    /// The seek that running time has begun with.
    seek: Option<gst::Seqnum>,
    pub live: bool,
    /// Time counts from elsewhere since then: nobody has been silent in it.
    anew: bool,
    pub running: bool,
    incomplete: Incomplete,
    /// Frames in a row that no set took, because `min-streams` did not allow one.
    refused: u32,
    unlocked: bool,
    pub messages: Messages,
    /// Of the settings that streams have.
    pub generation: u64,
    /// A deadline has passed, or something was set: the next task that is free looks.
    pub due: bool,
    /// Not live: how long a task that has nothing to do waits until it looks for silence.
    pub patience: Option<Duration>,
    /// The deadline that the clock was asked to wake for.
    pub alarm: Option<(Ns, gst::SingleShotClockId)>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            streams: BTreeMap::new(),
            matcher: Matcher::new(MatcherConfig::default()),
            slots: Vec::new(),
            set: Set::default(),
            shared: None,
            seek: None,
            live: false,
            anew: false,
            running: false,
            incomplete: Incomplete::default(),
            refused: 0,
            unlocked: false,
            messages: Messages::new(),
            generation: 0,
            due: false,
            patience: None,
            alarm: None,
        }
    }
}

impl State {
    /// A run begins.
    pub fn begin(&mut self) {
        self.matcher = Matcher::new(MatcherConfig::default());
        self.slots.clear();
        self.shared = None;
        self.live = false;
        self.running = true;
        self.incomplete = Incomplete::default();
        self.refused = 0;
        self.unlocked = false;
        for stream in self.streams.values_mut() {
            stream.reset();
            stream.queue.clear();
            stream.live = None;
            stream.has_caps = false;
            stream.counters = super::stream::Counters::default();
            stream.told = super::messages::Told::default();
        }
    }

    /// Has a task that is free see what can be made by now, and those who wait for room whether there is.
    pub fn look(&mut self) {
        self.due = true;
        for stream in self.streams.values() {
            stream.port.item.ring();
            stream.port.room.ring();
        }
    }

    pub fn is_unlocked(&self) -> bool {
        let unrelated = |stream: &Stream| {
            stream.late_in_row > UNLOCKED || stream.placer.as_ref().is_some_and(super::placing::Placer::is_unrelated)
        };
        self.unlocked || self.matcher.is_unlocked() || self.streams.values().any(unrelated)
    }

    /// One stream that is live makes all of it live.
    pub fn look_live(&mut self) {
        let live = self.streams.values().any(|stream| stream.live == Some(true));
        self.anew |= live != self.live;
        self.live = live;
    }

    /// The latency of what is upstream: the most of all.
    pub fn upstream_latency(&self) -> Ns {
        let live = self.streams.values().filter(|stream| stream.live == Some(true));
        live.map(|stream| stream.upstream_latency).max().unwrap_or(Ns::ZERO)
    }

    fn configure(&mut self, settings: &Settings) {
        let reference = match settings.reference.as_deref() {
            None => Reference::None,
            Some("clock") => Reference::Clock {
                period: Ns::from(settings.reference_interval).max(Ns::from_millis(1)),
                phase: Ns::ZERO,
            },
            // A reference that is silent, or gone, stops nobody.
            Some(name) => self
                .streams
                .values()
                .find(|stream| stream.port.name == name && stream.settings.policy == Policy::One)
                .and_then(|stream| Some((stream, stream.slot?)))
                .filter(|(stream, slot)| {
                    let gone = stream.phase != Phase::Running || self.matcher.is_stopped(*slot);
                    !gone || self.matcher.held(*slot) > 0
                })
                .map_or(Reference::None, |(_, slot)| Reference::Stream(slot)),
        };
        let latency = Ns::from(settings.latency) + self.upstream_latency();
        self.matcher.set_config(MatcherConfig {
            reference,
            latency: self.live.then_some(latency),
            max_interval: Settings::bound(settings.max_interval),
            stream_timeout: Settings::bound(settings.stream_timeout),
            min_streams: if self.unlocked { 1 } else { settings.min_streams as usize },
            max_held: if self.live { settings.max_held_buffers as usize } else { 0 },
        });
    }

    /// Streams that run take part in sets, also before their first frame: others wait for it.
    pub fn join(&mut self, now: Ns) {
        for (&index, stream) in &mut self.streams {
            if stream.slot.is_some() || stream.phase != Phase::Running || stream.flow.is_err() {
                continue;
            }
            let slot = self.matcher.add(stream.settings.policy.join(), Ns::ZERO, now);
            self.slots.resize(self.slots.len().max(slot + 1), None);
            self.slots[slot] = Some(index);
            stream.slot = Some(slot);
        }
    }

    /// A stream leaves the sets: flush, or its pad goes.
    pub fn leave(&mut self, index: u32, now: Ns) {
        let slot = self.streams.get_mut(&index).and_then(|stream| stream.slot.take());
        if let Some(slot) = slot {
            self.matcher.remove(slot);
            self.slots[slot] = None;
            // Where time begins anew, nothing of before counts.
            if self.slots.iter().flatten().all(|index| self.streams.get(index).is_none_or(|s| s.frames_held == 0)) {
                self.matcher.clear(now);
            }
        }
    }

    /// After a flush of a stream. All flushes of a seek have one number, and are one new beginning of running time.
    pub fn time_begins_anew(&mut self, seek: Option<gst::Seqnum>, now: Ns) {
        let alone = self.streams.values().all(|stream| stream.placer.is_none());
        let sought = !self.live && seek.is_some() && self.seek != seek;
        if alone || sought {
            self.shared = None;
        }
        if sought {
            // What others hold is of the time before: no partner for what comes.
            self.streams.values_mut().for_each(Stream::pass_all);
            self.matcher.clear(now);
        }
        self.seek = seek.or(self.seek);
    }

    /// A frame that has its place in time.
    pub fn admit(&mut self, index: u32, frame: Frame, mode: Mode, now: Ns) {
        let Some(stream) = self.streams.get_mut(&index) else { return };
        let unrelated = stream.placer.as_ref().is_some_and(super::placing::Placer::is_unrelated);
        if mode == Mode::Normalize || unrelated {
            stream.add(Entry::Frame(frame, Fate::Out(None)));
            stream.release();
            return;
        }
        if std::mem::take(&mut stream.round_over) {
            stream.pass_all();
            stream.matched = None;
            self.leave(index, now);
        }
        let Some(stream) = self.streams.get_mut(&index) else { return };
        let (token, pts, dts) = (frame.token, frame.pts, frame.dts);
        stream.add(Entry::Frame(frame, Fate::Waiting));
        self.join(now);
        let Some(stream) = self.streams.get_mut(&index) else { return };
        if stream.content == Content::InterCoded {
            let at = stream.reordered.partition_point(|(before, _)| *before <= pts);
            stream.reordered.insert(at, (pts, token));
            self.settle(index, dts.unwrap_or(pts), now);
        } else {
            self.offer(index, pts, token, now);
        }
    }

    /// Inter-coded: nothing below `until` comes any more.
    pub fn settle(&mut self, index: u32, until: Ns, now: Ns) {
        loop {
            let Some(stream) = self.streams.get_mut(&index) else { return };
            match stream.reordered.first() {
                Some(&(pts, token)) if pts <= until || stream.reordered.len() > REORDER => {
                    stream.reordered.remove(0);
                    self.offer(index, pts, token, now);
                }
                _ => return,
            }
        }
    }

    fn offer(&mut self, index: u32, pts: Ns, token: u64, now: Ns) {
        let Some(stream) = self.streams.get_mut(&index) else { return };
        let Some(slot) = stream.slot else { return };
        // Without DTS, PTS that went back has no set.
        if stream.content == Content::InterCoded && stream.matched.is_some_and(|last| pts < last) {
            stream.decide(token, Fate::Out(None));
            return;
        }
        stream.matched = Some(stream.matched.map_or(pts, |last| last.max(pts)));
        match self.matcher.push(slot, pts, token, now) {
            Push::Held => stream.late_in_row = 0,
            Push::Late(token) => {
                stream.counters.late += 1;
                stream.late_in_row = stream.late_in_row.saturating_add(1);
                // Always late is no relative: a clock that stands still.
                let fate = if stream.late_in_row > UNLOCKED { Fate::Out(None) } else { stream.alone() };
                stream.decide(token, fate);
            }
            Push::Refused(token) => {
                let fate = stream.alone();
                stream.decide(token, fate);
            }
            // Nobody to ride along with, for long.
            Push::Replaced(token) => stream.decide(token, Fate::Out(None)),
        }
    }

    /// How many frames of this stream wait for others.
    pub fn waiting(&self, index: u32) -> usize {
        let slot = self.streams.get(&index).and_then(|stream| stream.slot);
        slot.map_or(0, |slot| self.matcher.held(slot))
    }

    /// Nothing comes of this stream before `until`.
    pub fn gap(&mut self, index: u32, until: Ns, now: Ns) {
        self.settle(index, until, now);
        if let Some(slot) = self.streams.get(&index).and_then(|stream| stream.slot) {
            self.matcher.gap(slot, until, now);
        }
    }

    /// Nothing comes of this stream any more.
    pub fn end(&mut self, index: u32, now: Ns) {
        self.settle(index, Ns::MAX, now);
        if let Some(slot) = self.streams.get(&index).and_then(|stream| stream.slot) {
            self.matcher.end(slot);
        }
    }

    /// Makes the sets that can be made by now. Answers when to be called again even if nothing comes.
    /// `paused`: nobody is expected to send.
    pub fn advance(&mut self, settings: &Settings, now: Ns, paused: bool) -> Option<Ns> {
        if settings.mode == Mode::Normalize {
            self.dissolve(now);
            return None;
        }
        let timed = settings.stream_timeout > 0 && !self.live;
        self.patience = timed.then(|| (Duration::from_nanos(settings.stream_timeout) / 2).clamp(LOOK, LONGEST));
        // Upstream that waits for room is not silent; nor is one that is paused, unless downstream waits to preroll.
        let all = paused && !self.streams.values().any(Stream::starves) || std::mem::take(&mut self.anew);
        for stream in self.streams.values() {
            let excused = all || stream.blocked;
            if let Some(slot) = stream.slot {
                self.matcher.set_patient(slot, stream.live != Some(true));
            }
            if let Some(slot) = stream.slot.filter(|_| excused) {
                self.matcher.gap(slot, Ns::MIN, now);
            }
        }
        let mut set = std::mem::take(&mut self.set);
        loop {
            self.configure(settings);
            let some = self.matcher.pop(now, &mut set);
            for member in &set.skipped {
                let related = self.refused < UNLOCKED;
                if let Some(stream) = self.stream_at(member.stream) {
                    let fate = if related { stream.alone() } else { Fate::Out(None) };
                    stream.decide(member.frame, fate);
                    self.refused = self.refused.saturating_add(1);
                }
            }
            if !some {
                break;
            }
            self.take(&set, settings, now);
        }
        self.set = set;
        self.lock_or_not(settings);
        self.pass_leftovers();
        for stream in self.streams.values_mut() {
            stream.release();
            if stream.phase != Phase::Flushing {
                stream.port.room.ring();
            }
        }
        self.matcher.deadline()
    }

    /// Sets are not asked for any more: what waits for others goes on.
    fn dissolve(&mut self, now: Ns) {
        self.patience = None;
        for slot in 0..self.slots.len() {
            let Some(index) = self.slots[slot] else { continue };
            self.leave(index, now);
            if let Some(stream) = self.streams.get_mut(&index) {
                stream.pass_all();
                stream.release();
                stream.port.room.ring();
            }
        }
    }

    fn stream_at(&mut self, slot: usize) -> Option<&mut Stream> {
        let index = self.slots.get(slot).copied().flatten()?;
        self.streams.get_mut(&index)
    }

    fn take(&mut self, set: &Set<u64>, settings: &Settings, now: Ns) {
        let spread = set.spread.0.max(0).unsigned_abs();
        let mark = Mark { id: set.id, spread, complete: set.complete, interpolated: false };
        for member in &set.members {
            let Some(stream) = self.stream_at(member.stream) else { continue };
            if member.again {
                stream.release();
                stream.repeat(mark, set.at);
                continue;
            }
            let snaps =
                settings.snap && stream.content == Content::Frames && stream.settings.policy != Policy::AllSince;
            let fate = if snaps { Fate::Snapped(mark, set.at) } else { Fate::Out(Some(mark)) };
            stream.decide(member.frame, fate);
        }
        if set.members.len() > 1 {
            self.refused = 0;
        }
        let mut missing = Vec::new();
        for (slot, index) in self.slots.iter().enumerate() {
            let Some((index, stream)) = index.and_then(|index| Some((index, self.streams.get_mut(&index)?))) else {
                continue;
            };
            let there = set.members.iter().any(|member| member.stream == slot);
            if there || stream.settings.policy != Policy::One || stream.phase != Phase::Running || stream.is_over() {
                continue;
            }
            missing.push((index, stream.port.name.clone()));
            fill(stream, mark, set.at);
        }
        if !set.complete && !missing.is_empty() {
            self.incomplete.tell(set.id, set.at, &missing, now, &mut self.messages);
        }
    }

    /// Where complete sets are asked for and none comes, streams cannot be related: they pass.
    fn lock_or_not(&mut self, settings: &Settings) {
        let unlocked = self.refused >= UNLOCKED;
        if unlocked != self.unlocked {
            self.unlocked = unlocked;
            self.configure(settings);
        }
    }

    /// Frames that no set can be made for any more.
    fn pass_leftovers(&mut self) {
        let in_sets = |stream: &&Stream| stream.slot.is_some();
        let ones = self.streams.values().filter(in_sets).filter(|stream| stream.settings.policy == Policy::One);
        let alone = ones.clone().all(|stream| stream.is_over() && stream.frames_held == 0);
        let over = self.streams.values().filter(in_sets).all(Stream::is_over);
        if alone || over {
            self.streams.values_mut().filter(|stream| stream.slot.is_some()).for_each(Stream::pass_all);
        }
    }
}

/// What the stream gives to a set that goes out without it.
fn fill(stream: &mut Stream, mark: Mark, at: Ns) {
    // What is held comes before it.
    let behind = stream.held.iter().any(|entry| matches!(entry, Entry::Frame(_, Fate::Waiting)));
    if behind || !stream.has_caps {
        return;
    }
    stream.release();
    let filled = stream.settings.fill == Fill::Last && stream.repeat(mark, at);
    if !filled && stream.settings.fill != Fill::None {
        let duration = stream.placer.as_ref().and_then(super::placing::Placer::cadence);
        stream.leave_gap(at, duration);
    }
}
