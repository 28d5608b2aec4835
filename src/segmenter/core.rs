//! What is known of all streams, under one lock: the windows, the lines, and what is to be told.
//!
//! Deciding and pushing are apart: here decisions become things that can leave a line; who pushes takes them from there
//! without the lock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use gst::prelude::*;

use super::frames::{Kind, Seen};
use super::line::{Frame, Incoming, Key, Line, Passing, Pending, Phase};
use super::mapping::{Clockwork, Mapping};
use super::settings::{LatePolicy, Output, QualityPolicy, Settings, Strategy, TimeBase};
use super::tell::{self, Ending, Opening};
use crate::timeline::Ns;
use crate::windowing::{ConfigError, Decision, Expected, Ids, Reason, StreamId, Windows};

/// What goes to the application, or upstream, once the lock is free.
#[derive(Debug)]
pub enum Word {
    Message(gst::Structure),
    Warning(String),
    /// A keyframe is wanted at this running time.
    Keyframe(Ns),
}

#[derive(Default)]
pub struct Core {
    /// Of this run.
    pub settings: Arc<Settings>,
    /// None: the element does not run.
    pub windows: Option<Windows>,
    pub lines: BTreeMap<Key, Line>,
    pub reference: Option<Key>,
    pub mapping: Mapping,
    pub words: VecDeque<Word>,
    /// Somebody is telling them.
    pub telling: bool,
    pub closed: u64,
    /// Reused from buffer to buffer.
    decisions: Vec<Decision>,
    /// Whose number is its place.
    streams: Vec<Key>,
    /// The last window start that a keyframe was asked for.
    asked: Option<Ns>,
    /// What the reference had brought when it was waited for in vain.
    pub lapsed: Option<u64>,
    /// That the ring is too small has been said.
    said_short: bool,
}

impl Core {
    /// A run begins. Refuses settings that cannot be, with a sentence.
    pub fn begin(&mut self, settings: Arc<Settings>) -> Result<(), ConfigError> {
        self.windows = Some(Windows::new(&settings.config())?);
        self.mapping = Mapping::new(settings.time_base);
        self.settings = settings;
        self.streams.clear();
        self.reference = None;
        self.asked = None;
        self.lapsed = None;
        self.said_short = false;
        self.closed = 0;
        self.words.clear();
        let several = self.lines.len() > 1;
        for line in self.lines.values_mut() {
            line.stream = None;
            line.live = None;
            line.clockwork = None;
            line.expected = Expected::default();
            line.reordered = false;
            line.feeder = None;
            line.counters = super::line::Counters::default();
            line.clear();
            line.ready.clear();
            line.phase = Phase::Running;
            line.flow = Ok(gst::FlowSuccess::Ok);
            if line.port.key == Key::Main {
                // Others may have to flow for it to flow: a muxer waits for both, and so may a thread that brings both.
                line.tasked = several;
            }
        }
        Ok(())
    }

    /// Whether there is something to tell, and nobody who does.
    pub fn has_news(&self) -> bool {
        !self.telling && !self.words.is_empty()
    }

    /// All that is linked takes part as soon as one stream has data; who comes later joins.
    pub fn join(&mut self, key: Key) {
        if self.lines.get(&key).is_none_or(|line| line.stream.is_some()) {
            return;
        }
        let Some(windows) = &mut self.windows else { return };
        for (of, line) in &mut self.lines {
            if line.stream.is_none() && (*of == key || line.port.sink.is_linked()) && line.phase == Phase::Running {
                let stream = windows.add_stream();
                line.stream = Some(stream);
                windows.set_expected(stream, line.expected);
                windows.set_reordered(stream, line.reordered);
                if self.streams.len() <= stream.index() {
                    self.streams.resize(stream.index() + 1, *of);
                }
                self.streams[stream.index()] = *of;
            }
        }
        self.choose_reference();
    }

    /// The first of those that take part, once.
    fn choose_reference(&mut self) {
        if self.reference.is_some() {
            return;
        }
        let first = self.lines.iter().find_map(|(key, line)| Some((*key, line.stream?)));
        let Some((key, stream)) = first else { return };
        self.reference = Some(key);
        self.lapsed = None;
        self.mapping.forget_segments();
        if let Some(clockwork) = self.lines.get(&key).and_then(|line| line.clockwork) {
            self.mapping.push(clockwork);
        }
        if let Some(windows) = &mut self.windows {
            windows.set_reference(stream, &mut self.decisions);
        }
        self.apply();
    }

    /// The stream goes for good.
    pub fn leave(&mut self, key: Key) {
        let stream = self.lines.get_mut(&key).and_then(|line| line.stream.take());
        if let (Some(stream), Some(windows)) = (stream, &mut self.windows) {
            windows.remove_stream(stream, &mut self.decisions);
        }
        self.apply();
        if self.reference == Some(key) {
            self.reference = None;
            self.choose_reference();
        }
        self.advance_all();
    }

    /// Tells the windows what came in, as far as everything needed is known.
    pub fn advance(&mut self, key: Key) {
        let placeable = self.reference == Some(key) || self.mapping.is_ready() || !self.is_reference_to_come(key);
        self.advance_as(key, placeable);
    }

    /// Whether a segment of the reference is worth waiting for; live streams mostly share theirs.
    fn is_reference_to_come(&self, key: Key) -> bool {
        let live = self.lines.get(&key).is_some_and(|line| line.live == Some(true));
        let reference = self.reference.and_then(|key| self.lines.get(&key));
        !live && reference.is_some_and(|reference| reference.phase != Phase::Ended)
    }

    /// As [`advance`](Self::advance), where the reference is waited for no longer: it may never come.
    pub fn advance_alone(&mut self, key: Key) {
        self.advance_as(key, true);
    }

    fn advance_as(&mut self, key: Key, placeable: bool) {
        while let Some(line) = self.lines.get_mut(&key) {
            match line.incoming.front() {
                None | Some(Incoming::Frame(_, None)) => break,
                Some(Incoming::Frame(..)) if !placeable => break,
                Some(_) => {}
            }
            match line.incoming.pop_front() {
                Some(Incoming::Frame(frame, Some(seen))) => self.push(key, frame, seen),
                Some(Incoming::Frame(frame, None) | Incoming::Unwindowed(frame)) => {
                    line.pending.push_back(Pending::Unwindowed(frame));
                }
                Some(Incoming::Event(event)) => self.pass(key, event),
                None => break,
            }
        }
        if let Some(line) = self.lines.get_mut(&key) {
            line.release();
            if !line.ready.is_empty() {
                line.port.item.notify_all();
            }
        }
    }

    pub fn advance_all(&mut self) {
        let keys: Vec<_> = self.lines.keys().copied().collect();
        keys.into_iter().for_each(|key| self.advance(key));
    }

    fn push(&mut self, key: Key, frame: Frame, seen: Seen) {
        let (Some(line), Some(windows)) = (self.lines.get_mut(&key), &mut self.windows) else { return };
        let (Some(stream), Some(clockwork)) = (line.stream, seen.clockwork) else {
            line.pending.push_back(Pending::Unwindowed(frame));
            return;
        };
        if let Some(utc) = seen.utc {
            self.mapping.captured(utc, clockwork.running(seen.stamp));
        }
        let time = self.mapping.of_stamp(&clockwork, seen.stamp, seen.utc);
        let position = seen.dts.map(|dts| match (self.mapping.base(), seen.utc) {
            // Decoding keeps its distance from capture.
            (TimeBase::Utc, Some(utc)) => utc - (clockwork.running(seen.stamp) - clockwork.running(dts)),
            _ => self.mapping.of_stamp(&clockwork, dts, None),
        });
        let serial = windows.push(
            crate::windowing::Frame {
                stream,
                time,
                position,
                duration: seen.duration,
                keyframe: seen.keyframe,
                corrupted: seen.corrupted,
                gap: seen.gap,
                size: seen.size,
                complexity: seen.scored.complexity,
                exposure: seen.scored.exposure,
                cut: seen.scored.cut,
                cut_at: seen.scored.cut_at.map(|at| self.mapping.of_stamp(&clockwork, at, None)),
            },
            &mut self.decisions,
        );
        line.pending.push_back(Pending::Frame(serial, frame));
        self.apply();
    }

    /// A serialized event, in its place.
    fn pass(&mut self, key: Key, event: gst::Event) {
        use gst::EventView as View;
        let Some(line) = self.lines.get_mut(&key) else { return };
        let stream = line.stream;
        let clockwork = line.clockwork;
        match event.view() {
            View::Segment(segment) => {
                let new = segment.segment().downcast_ref::<gst::ClockTime>().and_then(Clockwork::new);
                line.clockwork = new;
                self.segment(key, clockwork, new);
            }
            View::StreamStart(_) => {
                if line.phase == Phase::Ended {
                    line.phase = Phase::Running;
                    self.restart(stream);
                } else if self.mapping.base() == TimeBase::Stream {
                    self.restart(stream);
                }
            }
            View::Caps(caps) => {
                line.expected = expected(caps.caps(), Kind::of(caps.caps()));
                line.reordered = crate::media::keyframe::reorders(caps.caps());
                if let (Some(stream), Some(windows)) = (stream, &mut self.windows) {
                    windows.set_expected(stream, line.expected);
                    windows.set_reordered(stream, line.reordered);
                }
            }
            View::Gap(gap) => {
                let (at, duration) = gap.get();
                if let (Some(stream), Some(clockwork), Some(windows)) = (stream, clockwork, &mut self.windows) {
                    let at = Ns::from(at.nseconds());
                    let duration = duration.map_or(Ns::ZERO, |duration| Ns::from(duration.nseconds()));
                    let begin = self.mapping.of_stamp(&clockwork, at, None);
                    let end = self.mapping.of_stamp(&clockwork, at + duration, None);
                    windows.gap(stream, begin, end - begin, &mut self.decisions);
                    self.apply();
                }
            }
            View::Eos(_) => {
                line.phase = Phase::Ended;
                if let (Some(stream), Some(windows)) = (stream, &mut self.windows) {
                    windows.eos(stream, &mut self.decisions);
                    self.apply();
                }
                if self.reference == Some(key) && !self.mapping.is_ready() {
                    let others: Vec<_> = self.lines.keys().copied().filter(|other| *other != key).collect();
                    others.into_iter().for_each(|other| self.advance(other));
                }
            }
            _ => {}
        }
        if let Some(line) = self.lines.get_mut(&key) {
            line.pending.push_back(Pending::Event(event));
        }
    }

    fn segment(&mut self, key: Key, old: Option<Clockwork>, new: Option<Clockwork>) {
        let Some(new) = new else { return };
        if self.reference == Some(key) {
            self.mapping.push(new);
        }
        let stream = self.lines.get(&key).and_then(|line| line.stream);
        let latest = stream.and_then(|stream| self.windows.as_ref()?.latest(stream));
        let begin = self.mapping.of_stamp(&new, new.start(), None);
        if old.is_some_and(|old| old != new) && latest.is_some_and(|latest| begin < latest) {
            self.restart(stream);
        }
        if self.reference == Some(key) {
            let others: Vec<_> = self.lines.keys().copied().filter(|other| *other != key).collect();
            others.into_iter().for_each(|other| self.advance(other));
        }
    }

    fn restart(&mut self, stream: Option<StreamId>) {
        if let (Some(stream), Some(windows)) = (stream, &mut self.windows)
            && windows.latest(stream).is_some()
        {
            windows.restart(stream, Reason::Segment, &mut self.decisions);
            self.apply();
        }
    }

    /// Everything of the stream that has not left is gone.
    pub fn flush(&mut self, key: Key) {
        let Some(line) = self.lines.get_mut(&key) else { return };
        line.clear();
        line.clockwork = None;
        line.phase = Phase::Running;
        line.flow = Ok(gst::FlowSuccess::Ok);
        if let (Some(stream), Some(windows)) = (line.stream, &mut self.windows) {
            windows.flush(stream, &mut self.decisions);
        }
        self.apply();
        // The shares that ended with it are nobody's business downstream.
        if let Some(line) = self.lines.get_mut(&key) {
            line.clear();
        }
        if self.reference == Some(key) {
            self.mapping.forget_segments();
        }
    }

    /// The run ends: what is open is told as it stands.
    pub fn end(&mut self) {
        for key in self.lines.keys().copied().collect::<Vec<_>>() {
            self.flush(key);
            if let Some(line) = self.lines.get_mut(&key) {
                line.phase = Phase::Flushing;
                line.ready.clear();
                line.stream = None;
            }
        }
        self.windows = None;
    }

    /// Does what was asked of the windows.
    pub fn with_windows<T>(&mut self, ask: impl FnOnce(&mut Windows, &Mapping, &mut Vec<Decision>) -> T) -> Option<T> {
        let answer = ask(self.windows.as_mut()?, &self.mapping, &mut self.decisions);
        self.apply();
        Some(answer)
    }

    /// Decisions become things that leave.
    fn apply(&mut self) {
        let mut decisions = std::mem::take(&mut self.decisions);
        let lists = self.settings.output == Output::BufferLists;
        let grid = matches!(self.settings.strategy, Strategy::Fixed | Strategy::Sliding);
        for decision in decisions.drain(..) {
            match decision {
                // Ids are uint64: on a grid nothing is told of windows that begin before the origin.
                Decision::Open { window, .. } | Decision::Share { window, .. } if grid && window.id < 0 => {}
                Decision::Closed(summary) if grid && summary.window.id < 0 => {}
                Decision::Open { stream, window } => {
                    let opening = Arc::new(Opening::new(&window, &self.mapping));
                    let is_reference = self.key(stream) == self.reference;
                    if let Some(line) = self.line(stream) {
                        line.begin(opening, lists);
                    }
                    if is_reference && self.settings.send_keyframe_requests {
                        self.ask_for_keyframe(window.start);
                    }
                }
                Decision::Frame { stream, serial, windows, late, keep } => {
                    let Some(line) = self.line(stream) else { continue };
                    let Some(frame) = line.decided(serial) else { continue };
                    line.counters.late += u64::from(late);
                    let late = late && self.settings.late_policy != LatePolicy::Count;
                    let Some(line) = self.line(stream) else { continue };
                    let windows = if grid { told(windows) } else { windows };
                    if keep {
                        line.emit(Passing { frame, windows, late, discont: false });
                    } else {
                        line.counters.dropped += 1;
                        line.discont = true;
                        line.discard(&frame);
                    }
                }
                Decision::Forget { stream, before, short } => {
                    if let Some(line) = self.line(stream) {
                        line.forget(before);
                    }
                    if short && !std::mem::replace(&mut self.said_short, true) {
                        let sentence = "max-ring-bytes is too small for pre-roll: windows begin later than it says. Set \
                                        max-ring-bytes higher, or pre-roll lower";
                        self.words.push_back(Word::Warning(sentence.into()));
                    }
                }
                Decision::Share { stream, window, figures, reason, complete, poor } => {
                    let window = Opening::new(&window, &self.mapping);
                    let keep = !poor || self.settings.quality_policy != QualityPolicy::Drop;
                    if let Some(line) = self.line(stream) {
                        line.end(Ending { window, figures, reason, complete, poor }, keep);
                    }
                }
                Decision::Closed(summary) => {
                    self.closed += 1;
                    let name = |stream: StreamId| {
                        let key = self.streams.get(stream.index())?;
                        self.lines.get(key).map(|line| line.port.name.as_str())
                    };
                    let message = tell::closed(&summary, &self.mapping, name);
                    self.words.push_back(Word::Message(message));
                }
            }
        }
        self.decisions = decisions;
        for line in self.lines.values_mut() {
            line.release();
            if line.tasked && !line.ready.is_empty() {
                line.port.item.notify_all();
            }
        }
    }

    fn key(&self, stream: StreamId) -> Option<Key> {
        self.streams.get(stream.index()).copied()
    }

    fn line(&mut self, stream: StreamId) -> Option<&mut Line> {
        self.lines.get_mut(self.streams.get(stream.index())?)
    }

    fn ask_for_keyframe(&mut self, after: Ns) {
        let Some(next) = self.windows.as_ref().and_then(|windows| windows.next_start(after)) else { return };
        if self.asked.is_none_or(|asked| asked < next) {
            self.asked = Some(next);
            self.words.push_back(Word::Keyframe(self.mapping.to_running(next)));
        }
    }
}

/// Those that do not begin before the origin.
fn told(windows: Ids) -> Ids {
    match (windows.first(), windows.last()) {
        (Some(first), Some(last)) if first < 0 => Ids::between(0, last),
        _ => windows,
    }
}

/// What is missing is told from this.
fn expected(caps: &gst::CapsRef, kind: Kind) -> Expected {
    let rate = caps.structure(0).and_then(|s| s.get::<gst::Fraction>("framerate").ok());
    let rate = rate.and_then(|rate| {
        let numerator = u32::try_from(rate.numer()).ok().filter(|n| *n > 0)?;
        Some((numerator, u32::try_from(rate.denom()).ok().filter(|n| *n > 0)?))
    });
    match (kind, rate) {
        (Kind::Audio, _) => Expected::Coverage,
        (Kind::Other, _) => Expected::Nothing,
        // NAL units are more than frames.
        (_, Some(_)) if caps.structure(0).and_then(|s| s.get::<&str>("alignment").ok()) == Some("nal") => {
            Expected::Nothing
        }
        (_, Some((numerator, denominator))) => Expected::Rate(numerator, denominator),
        (_, None) => Expected::Cadence,
    }
}
