//! The source pad's task: takes records from memory or disk, in order, and pushes them.
//!
//! Promises: order of arrival; after anything but a plain continuation output begins at a sync point, with the sticky events as
//! of there, DISCONT, the parameter sets it needs, and without leading pictures that refer back. A record counts as delivered
//! when the push has returned OK. No lock is held across a push.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::imp::{CAT, DiskBuffer, Session, Signal};
use super::outcome::{Draining, PROBATION, Passed, Probation};
use super::output::running_time;
use super::state::State;
use super::tail::{Content, Item};
use crate::media::buffer::{self, Facts};
use crate::media::event::{self, Decoded};
use crate::media::nal::ParameterSets;
use crate::store::{Body, Domain, Mark, Record, Sequence, Slot, Sync, Totals};

/// What is read from the disk at a time.
const CHUNK_RECORDS: usize = 256;
const CHUNK_BYTES: usize = 1 << 20;
/// What the task knows; it alone touches it.
#[derive(Default)]
pub struct Delivery {
    pub(super) generation: u64,
    pub(super) position: Sequence,
    /// Taken and not delivered yet: it comes first.
    held: Option<Item>,
    /// Read ahead.
    chunk: VecDeque<Record>,
    pub(super) sticky: BTreeMap<Slot, Sticky>,
    pub(super) domain: Option<u64>,
    /// Of the domain; `None` until something of it shows where it begins.
    pub(super) offset: Option<u64>,
    /// Of the domains that were sent: a repeat keeps its place in time.
    pub(super) offsets: HashMap<u64, u64>,
    pub(super) sets: ParameterSets,
    pub(super) caps: Option<gst::Caps>,
    pub(super) segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    pub(super) start: Start,
    /// Leading pictures before this PTS are left out.
    pub(super) skip_before: Option<gst::ClockTime>,
    pub(super) retry_at: Option<Instant>,
    pub(super) attempts: u32,
    /// Latest running time sent, in ns.
    pub(super) sent: Option<u64>,
    /// Where the last buffer ends, as a timestamp.
    pub(super) last_end: Option<gst::ClockTime>,
    pub(super) gap: bool,
    idle: bool,
    /// The pipeline's running time.
    pub(super) run: Option<Arc<Domain>>,
    /// What has passed since downstream was flushed and is not trusted yet.
    pub(super) probation: Option<Probation>,
    /// A retry begins with a flush of downstream.
    pub(super) flush_first: bool,
    /// State that is nowhere else, once delivered: a rewind needs it again.
    volatile: Vec<Item>,
    pub(super) draining: Option<Draining>,
}

impl Delivery {
    /// Returns to memory what is nowhere else and was let in on probation only.
    fn give_back(&mut self, imp: &DiskBuffer) {
        if let Some(probation) = self.probation.take() {
            put_back(imp, probation.unstored);
        }
    }

    /// The same, and what was refused after it.
    pub(super) fn give_back_all(&mut self, imp: &DiskBuffer, refused: Vec<Item>) {
        put_back(imp, refused);
        self.give_back(imp);
    }

    /// Remembers state that the disk refused, and all that comes after such state: the log's own account of it has a hole.
    /// What is before `resume` and was replaced is not needed any more.
    fn keep_volatile(&mut self, item: &Item, resume: Sequence) {
        let slot = |content: &Content| match content {
            Content::Event(event) => event::slot(event),
            _ => None,
        };
        let same_kind = |a: &Content, b: &Content| std::mem::discriminant(a) == std::mem::discriminant(b);
        let new = slot(&item.content);
        let is_state = new.is_some() || matches!(item.content, Content::Domain(_) | Content::Sets(_));
        if !is_state || (item.stored && self.volatile.is_empty()) {
            return;
        }
        let replaced = |old: &Item| same_kind(&old.content, &item.content) && slot(&old.content) == new;
        self.volatile.retain(|old| !(old.sequence < resume && replaced(old)));
        self.volatile.push(item.clone());
    }

    /// Nothing is at hand.
    fn is_empty(&self) -> bool {
        self.held.is_none() && self.chunk.is_empty()
    }
}

pub(super) struct Sticky {
    pub event: gst::Event,
    pub sent: bool,
}

/// How output begins.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// It goes on.
    #[default]
    Continuing,
    /// The next buffer begins anew.
    Discont,
}

/// What to do next. Lives for one round on the stack: a box would cost an allocation a buffer.
#[allow(clippy::large_enum_variant)]
enum Step {
    Stop,
    /// Begin at the cursor; after a refusal downstream is flushed first.
    Begin {
        flush: bool,
    },
    Deliver(Fetched),
    /// Everything was delivered.
    Empty,
    /// There is something again.
    Running,
    /// Downstream has accepted for long enough.
    Trust,
}

/// Where the next record is.
enum Fetched {
    Memory(Item),
    ReadAhead(Record),
    /// On the disk, up to what memory holds.
    Disk {
        until: Sequence,
    },
}

impl DiskBuffer {
    /// One round of the task.
    pub(super) fn deliver(&self, d: &mut Delivery) {
        let Some(session) = self.session() else {
            let _ = self.srcpad.pause_task();
            return;
        };
        match self.next_step(d) {
            Step::Stop => {
                gst::debug!(CAT, imp = self, "Pausing delivery");
                let _ = self.srcpad.pause_task();
            }
            Step::Begin { flush } => self.begin(d, &session, flush),
            Step::Empty => {
                self.settle_accounts(d, &session);
                self.tell_drained(d);
                self.emit(Signal::Underrun);
            }
            Step::Running => {
                self.emit(Signal::Running);
                self.emit(Signal::Pushing);
            }
            Step::Trust => self.trust(d, &session),
            Step::Deliver(Fetched::Memory(item)) => self.deliver_item(d, &session, item),
            Step::Deliver(Fetched::ReadAhead(record)) => self.deliver_item(d, &session, from_record(record)),
            Step::Deliver(Fetched::Disk { until }) => self.read(d, &session, until),
        }
    }

    fn next_step(&self, d: &mut Delivery) -> Step {
        let mut state = self.state();
        if state.thread.is_none() {
            state.thread = Some(std::thread::current().id());
        }
        loop {
            if state.stopping {
                return Step::Stop;
            }
            if state.flow.is_err() {
                // Flushing, or over: what ends it makes delivery begin again.
                state = self.item_add.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if let Some(retry_at) = d.retry_at {
                let now = Instant::now();
                if now < retry_at {
                    let wait = retry_at - now;
                    state = self.item_add.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
                    continue;
                }
                d.retry_at = None;
                d.generation = state.generation;
                return Step::Begin { flush: std::mem::take(&mut d.flush_first) };
            }
            if d.generation != state.generation {
                d.generation = state.generation;
                d.retry_at = None;
                return Step::Begin { flush: false };
            }
            if d.is_empty() && d.position >= state.end.sequence {
                state.from_disk = false;
                if let Some(since) = d.probation.as_ref().and_then(|probation| probation.since) {
                    let left = PROBATION.saturating_sub(since.elapsed());
                    if left.is_zero() {
                        return Step::Trust;
                    }
                    state = self.item_add.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                    continue;
                }
                if !d.idle {
                    d.idle = true;
                    return Step::Empty;
                }
                state = self.item_add.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if d.idle {
                d.idle = false;
                return Step::Running;
            }
            let fetched = fetch(d, &mut state);
            if !matches!(fetched, Fetched::Disk { .. }) {
                state.pushing = Some(Instant::now());
            }
            return Step::Deliver(fetched);
        }
    }

    /// Nobody else may flush downstream until it is over; false when it is not the time.
    fn start_pushing(&self) -> bool {
        let mut state = self.state();
        let may = state.flow.is_ok();
        if may {
            state.pushing = Some(Instant::now());
        }
        may
    }

    fn end_pushing(&self) {
        self.state().pushing = None;
        self.item_del.notify_all();
    }

    fn read(&self, d: &mut Delivery, session: &Session, until: Sequence) {
        match session.stream.read(d.position, CHUNK_RECORDS, CHUNK_BYTES) {
            Ok(chunk) => {
                if let (Some(first), Some(last)) = (chunk.damaged.first(), chunk.damaged.last()) {
                    gst::element_imp_warning!(
                        self,
                        gst::ResourceError::Read,
                        ("{} damaged records at positions {first} to {last} are left out", chunk.damaged.len())
                    );
                }
                // What memory holds may be nowhere else.
                d.chunk = chunk.records.into_iter().filter(|record| record.sequence < until).collect();
                if d.chunk.is_empty() {
                    d.position = chunk.next.unwrap_or(until).min(until);
                }
            }
            Err(err) => {
                self.state().last_error = Some(err.to_string());
                gst::element_imp_warning!(self, gst::ResourceError::Read, ("The backlog cannot be read: {err}"));
                self.retry_later(d);
            }
        }
    }

    /// Sets delivery to where it has to go on, with the state in force there.
    fn begin(&self, d: &mut Delivery, session: &Session, flush: bool) {
        d.give_back(self);
        d.run = self.domain();
        if flush && self.start_pushing() {
            self.srcpad.push_event(gst::event::FlushStart::new());
            self.srcpad.push_event(gst::event::FlushStop::new(false));
            self.end_pushing();
        }
        let (cursor, end, began, gap, outage) = {
            let mut state = self.state();
            let gap = std::mem::take(&mut state.gap);
            (state.cursor, state.end.sequence, state.began, gap, state.outage.is_some())
        };
        if outage {
            d.probation = Some(Probation::default());
        }
        let position = if cursor.position >= end {
            end
        } else if self.settings().replay_overlap == 0 && self.decodable_at(session, cursor.position) {
            cursor.position
        } else {
            cursor.resume
        };
        let sticky = match session.stream.state_at(position) {
            // Nothing is owed of earlier runs, so what they left in force is none of ours.
            Ok(_) if position == began => Default::default(),
            Ok(state) => state,
            Err(err) => {
                self.state().last_error = Some(err.to_string());
                gst::element_imp_warning!(self, gst::ResourceError::Read, ("The backlog cannot be read: {err}"));
                return self.retry_later(d);
            }
        };
        gst::debug!(CAT, imp = self, "Delivery begins at position {position}, log ends at {end}");
        d.position = position;
        let held = d.held.take().filter(|item| !item.stored);
        put_back(self, held.into_iter().collect());
        d.chunk.clear();
        d.sticky.clear();
        d.domain = None;
        d.offset = None;
        d.sets = ParameterSets::default();
        d.gap |= gap;
        let fresh = (position >= end || position == began) && !flush && !d.gap;
        d.start = if fresh { Start::Continuing } else { Start::Discont };
        d.skip_before = None;
        for (_, value) in sticky {
            match event::decode(&value) {
                Decoded::Domain(domain) => self.enter_domain(d, domain),
                Decoded::ParameterSets(sets) => d.sets = sets,
                Decoded::Event(event) => self.remember(d, event),
                Decoded::Nothing => {}
            }
        }
        let (before, after) = std::mem::take(&mut d.volatile).into_iter().partition(|item| item.sequence < position);
        d.volatile = before;
        // They come again at their place.
        put_back(self, Vec::into_iter(after).filter(|item: &Item| !item.stored).collect());
        for item in d.volatile.clone() {
            match item.content {
                Content::Domain(domain) => self.enter_domain(d, domain),
                Content::Sets(sets) => d.sets = sets,
                Content::Event(event) => self.remember(d, event),
                Content::Buffer { .. } | Content::Nothing => {}
            }
        }
    }

    /// Whether the first buffer from `position` on can be decoded without anything before it.
    fn decodable_at(&self, session: &Session, position: Sequence) -> bool {
        if let Some(sync) = self.state().tail.sync_at(position) {
            return sync == Sync::Closed;
        }
        let mut at = position;
        loop {
            let Ok(chunk) = session.stream.read(at, 16, CHUNK_BYTES) else { return false };
            for record in &chunk.records {
                if let Body::Buffer(header) = &record.body {
                    return header.sync == Sync::Closed;
                }
            }
            match chunk.next {
                Some(next) => at = next,
                // Nothing but events: nothing to decode.
                None => return true,
            }
        }
    }

    fn deliver_item(&self, d: &mut Delivery, session: &Session, item: Item) {
        let mark = (Mark { sequence: item.sequence, totals: item.before }, item.after, item.stored);
        let resume = self.state().cursor.resume;
        d.keep_volatile(&item, resume);
        let mut eos = false;
        match item.content {
            Content::Nothing => {}
            Content::Domain(domain) => self.enter_domain(d, domain),
            Content::Sets(sets) => d.sets = sets,
            Content::Event(event) => {
                let is_eos = event.type_() == gst::EventType::Eos;
                let again = (!item.stored).then(|| Item { content: Content::Event(event.clone()), ..item_of(mark) });
                match self.deliver_event(d, session, item.sequence, event) {
                    Ok(pushed) => eos = is_eos && pushed,
                    Err(flow) => {
                        if let Some(again) = again {
                            self.state().tail.put_back(again);
                        }
                        return self.refused(d, flow);
                    }
                }
            }
            Content::Buffer { buffer, facts } => {
                let first = Pending { mark, facts, buffer };
                return if facts.list_remaining > 0 {
                    self.deliver_list(d, session, first)
                } else {
                    self.deliver_buffer(d, session, first)
                };
            }
        }
        let passed = Passed { mark, facts: None, pts: None, size: 0 };
        self.passed(d, session, &[passed], Vec::new(), eos);
    }

    fn deliver_event(
        &self,
        d: &mut Delivery,
        session: &Session,
        at: Sequence,
        event: gst::Event,
    ) -> Result<bool, gst::FlowError> {
        if event.is_sticky() && event.type_() != gst::EventType::Eos {
            self.remember(d, event);
            // As soon as its place in time is known: sinks preroll on it.
            if d.offset.is_some() && (at >= self.state().began || d.start == Start::Continuing) {
                self.send_sticky(d, session, None);
            }
            return Ok(false);
        }
        if event.type_() == gst::EventType::Eos {
            let mine = self.state().live_eos == Some(at);
            if !mine {
                gst::debug!(CAT, imp = self, "An end of stream that was followed by another stream ends an epoch");
                return Ok(false);
            }
        }
        let first = match event.view() {
            gst::EventView::Gap(e) => running_time(d.segment.as_ref(), Some(e.timestamp())),
            _ => None,
        };
        self.send_sticky(d, session, first);
        let eos = event.type_() == gst::EventType::Eos;
        gst::debug!(CAT, imp = self, "Pushing {event:?}");
        let accepted = self.srcpad.push_event(event);
        let refused = !accepted && if eos { self.srcpad.is_linked() } else { self.is_away() };
        if refused { Err(gst::FlowError::Flushing) } else { Ok(true) }
    }

    /// Downstream was there and cannot take anything now: it has not refused the event, it has not seen it.
    fn is_away(&self) -> bool {
        let gone = self.srcpad.peer().is_none_or(|peer| peer.pad_flags().contains(gst::PadFlags::FLUSHING));
        let state = self.state();
        gone && (state.delivered || state.outage.is_some())
    }

    fn deliver_buffer(&self, d: &mut Delivery, session: &Session, item: Pending) {
        let passed = item.passed();
        let unstored = item.unstored();
        let result = match self.prepare(d, session, item) {
            Some(buffer) => self.srcpad.push(buffer),
            None => Ok(gst::FlowSuccess::Ok),
        };
        self.finish(d, session, result, &[passed], unstored.into_iter().collect());
    }

    /// Pushes the list that begins with this buffer.
    fn deliver_list(&self, d: &mut Delivery, session: &Session, first: Pending) {
        let mut remaining = first.facts.list_remaining - 1;
        let mut pending = vec![first];
        while remaining > 0
            && let Some(next) = self.fetch_listed(d, session, remaining)
        {
            remaining -= 1;
            pending.push(next);
        }
        let passed: Vec<_> = pending.iter().map(Pending::passed).collect();
        let unstored = pending.iter().filter_map(Pending::unstored).collect();
        let ready: gst::BufferList = pending.into_iter().filter_map(|item| self.prepare(d, session, item)).collect();
        let result = if ready.is_empty() { Ok(gst::FlowSuccess::Ok) } else { self.srcpad.push_list(ready) };
        self.finish(d, session, result, &passed, unstored);
    }

    /// The next buffer of the list that is being gathered, with `remaining` to go; `None` when a crash or a drop has cut the
    /// list short.
    fn fetch_listed(&self, d: &mut Delivery, session: &Session, remaining: u32) -> Option<Pending> {
        loop {
            let fetched = {
                let mut state = self.state();
                if state.flow.is_err() || (d.is_empty() && d.position >= state.end.sequence) {
                    return None;
                }
                fetch(d, &mut state)
            };
            let item = match fetched {
                Fetched::Memory(item) => item,
                Fetched::ReadAhead(record) => from_record(record),
                Fetched::Disk { until } => {
                    self.read(d, session, until);
                    if d.retry_at.is_some() {
                        return None;
                    }
                    continue;
                }
            };
            let mark = (Mark { sequence: item.sequence, totals: item.before }, item.after, item.stored);
            match item.content {
                Content::Buffer { buffer, facts } if facts.list_remaining == remaining => {
                    return Some(Pending { mark, facts, buffer });
                }
                Content::Sets(sets) => d.sets = sets,
                _ => {
                    d.held = Some(item);
                    return None;
                }
            }
        }
    }
}

/// A record and what is known when it has passed.
pub(super) type Place = (Mark, Totals, bool);

pub(super) struct Pending {
    mark: Place,
    pub facts: Facts,
    pub buffer: gst::Buffer,
}

impl Pending {
    fn passed(&self) -> Passed {
        Passed {
            mark: self.mark,
            facts: Some(self.facts),
            pts: self.buffer.pts().map(gst::ClockTime::nseconds),
            size: self.buffer.size() as u64,
        }
    }

    /// A copy of what a refusal would lose.
    fn unstored(&self) -> Option<Item> {
        let content = || Content::Buffer { buffer: self.buffer.clone(), facts: self.facts };
        (!self.mark.2).then(|| Item { content: content(), ..item_of(self.mark) })
    }
}

fn put_back(imp: &DiskBuffer, items: Vec<Item>) {
    let mut state = imp.state();
    for item in items.into_iter().rev() {
        if let Some(one) = item.unstored() {
            state.unstored_out.subtract(one);
        }
        state.tail.put_back(item);
    }
}

fn item_of((at, after, stored): Place) -> Item {
    Item { sequence: at.sequence, before: at.totals, after, stored, content: Content::Nothing }
}

/// The record at the position, from what was read ahead or from memory; else the disk has to be asked.
fn fetch(d: &mut Delivery, state: &mut State) -> Fetched {
    if let Some(item) = d.held.take() {
        return Fetched::Memory(item);
    }
    if let Some(record) = d.chunk.pop_front() {
        d.position = record.sequence + 1;
        return Fetched::ReadAhead(record);
    }
    match state.tail.take(d.position) {
        Some(item) => {
            state.from_disk = false;
            if let Some(one) = item.unstored() {
                state.unstored_out.add(one);
            }
            d.position = item.sequence + 1;
            Fetched::Memory(item)
        }
        None => {
            state.from_disk = true;
            // Not what is being written just now: the state does not know it yet.
            Fetched::Disk { until: state.tail.first().unwrap_or(Sequence::MAX).min(state.end.sequence) }
        }
    }
}

fn from_record(record: Record) -> Item {
    let after = record.after();
    let (sequence, before) = (record.sequence, record.before);
    let content = match record.body {
        Body::Buffer(header) => {
            let facts = Facts {
                sync: header.sync,
                leading: header.leading,
                list_remaining: header.list_remaining,
                running_time: header.running_time,
                captured_at: header.captured_at,
            };
            Content::Buffer { buffer: buffer::restore(&header, record.payload, &mut |_| {}), facts }
        }
        Body::Event | Body::State { .. } => match event::decode(record.payload.as_ref()) {
            Decoded::Event(event) => Content::Event(event),
            Decoded::Domain(domain) => Content::Domain(domain),
            Decoded::ParameterSets(sets) => Content::Sets(sets),
            Decoded::Nothing => Content::Nothing,
        },
        Body::Snapshot(_) => Content::Nothing,
    };
    Item { sequence, before, after, stored: true, content }
}
