//! The source pad's task: takes records from memory or disk, in order, and pushes them.
//!
//! Promises: order of arrival; after anything but a plain continuation output begins at a sync point, with the sticky events as
//! of there, DISCONT, the parameter sets it needs, and without leading pictures that refer back. A record counts as delivered
//! when the push has returned OK. No lock is held across a push.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::imp::{CAT, DiskBuffer, Session, Signal};
use super::joint::Membership;
use super::managed::{Child, Hold, Trust};
use super::outcome::{Draining, PROBATION, Probation};
use super::pace::Pace;
use super::push::{Refused, from_record};
use super::settings::Settings;
use super::state::State;
use super::tail::{Content, Item};
use crate::media::beginning::Leading;
use crate::media::event::{self, Decoded};
use crate::media::nal::ParameterSets;
use crate::store::{Body, Domain, Record, Sequence, Slot, StateMap, StoreError, Sync};

/// What is read from the disk at a time. Less costs more seeks, more is out of the processor's caches before it goes out: with
/// 4 MiB a drain takes a fifth more processor time.
const CHUNK_RECORDS: usize = 1024;
const CHUNK_BYTES: usize = 1 << 20;

/// What the task knows; it alone touches it.
#[derive(Default)]
pub struct Delivery {
    pub(super) generation: u64,
    pub(super) position: Sequence,
    /// After the last record since delivery began.
    pub(super) expected: Option<Sequence>,
    /// Records are missing before the next one.
    pub(super) missing: bool,
    /// Taken and not delivered yet: it comes first.
    pub(super) held: Option<Item>,
    /// Read ahead.
    pub(super) chunk: VecDeque<Record>,
    pub(super) sticky: BTreeMap<Slot, Sticky>,
    pub(super) domain: Option<u64>,
    /// Of the domain; `None` until something of it shows where it begins.
    pub(super) offset: Option<i64>,
    /// Of the domains that were sent: a repeat keeps its place in time.
    pub(super) offsets: HashMap<u64, i64>,
    pub(super) sets: ParameterSets,
    pub(super) caps: Option<gst::Caps>,
    pub(super) segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    pub(super) start: Start,
    pub(super) leading: Leading,
    pub(super) retry_at: Option<Instant>,
    pub(super) attempts: u32,
    /// Latest running time sent, in ns.
    pub(super) sent: Option<u64>,
    /// Where the last buffer ends, as a timestamp.
    pub(super) last_end: Option<gst::ClockTime>,
    pub(super) gap: bool,
    /// The last that went out was a GAP.
    pub(super) after_gap: bool,
    idle: bool,
    /// The pipeline's running time.
    pub(super) run: Option<Arc<Domain>>,
    /// What has passed since downstream was flushed and is not trusted yet.
    pub(super) probation: Option<Probation>,
    /// How downstream is tried, or will be when it is time.
    pub(super) attempt: Attempt,
    pub(super) draining: Option<Draining>,
    /// Caps that downstream refuses: what has them is left out (`on-unnegotiable=skip`).
    pub(super) refused_caps: Option<Refused>,
    /// Not before, for the sake of `catch-up-rate` or of a disk that cannot be read now.
    pub(super) not_before: Option<Instant>,
    pub(super) pace: Option<Pace>,
    /// Media time that downstream has accepted, in ns, repeats included.
    pub(super) media: u64,
    /// How often delivery began.
    pub(super) begun: u64,
    /// As of the state.
    pub(super) children: u64,
    pub(super) child: Child,
    /// Where delivery is to begin.
    pub(super) begin_at: Option<Sequence>,
    /// As of this round.
    pub(super) settings: Arc<Settings>,
}

impl Delivery {
    /// Goes on at `position`, nothing else changed.
    pub(super) fn rewind(&mut self, position: Sequence) {
        self.position = position;
        self.held = None;
        self.chunk.clear();
        self.expected = None;
        self.missing = false;
    }

    /// Forgets what was read ahead, nothing else.
    fn read_again(&mut self) {
        let held = self.held.take().map(|item| item.sequence);
        let first = held.or(self.chunk.front().map(|record| record.sequence));
        self.position = first.unwrap_or(self.position);
        self.chunk.clear();
    }

    /// Whether `sequence` follows what went before.
    pub(super) fn follows(&self, sequence: Sequence) -> bool {
        self.expected.is_none_or(|expected| expected == sequence)
    }

    /// What is being delivered lies before `sequence`.
    pub(super) fn is_before(&self, sequence: Sequence) -> bool {
        self.position <= sequence
    }

    /// What has to stand before any buffer is in force.
    pub(super) fn has_head(&self) -> bool {
        let known = |kind| self.sticky.values().any(|sticky| sticky.event.type_() == kind);
        known(gst::EventType::StreamStart) && known(gst::EventType::Segment)
    }

    /// Nothing is at hand.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_none() && self.chunk.is_empty()
    }
}

pub(super) struct Sticky {
    pub event: gst::Event,
    pub sent: bool,
}

/// How a downstream that refuses is tried. A latched `queue` takes nothing before it is flushed, and says so at once; a sink
/// that works again needs no flush, and `srtsink` calling a listener (GStreamer 1.22) sends nothing any more after one.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    #[default]
    Plain,
    Flushing,
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
    /// Begin at the cursor, after a flush of downstream or without.
    Begin {
        flush: bool,
    },
    Deliver(Fetched),
    /// Everything was delivered.
    Empty,
    /// It is acknowledged too, and something is still owed.
    Settle,
    /// There is something again.
    Running,
    /// Downstream has accepted for long enough.
    Trust,
    /// Go on where it stopped, to another downstream.
    Renew,
    /// Another stream was dropped from.
    DropWithOthers,
}

/// Where delivery begins.
struct Beginning {
    position: Sequence,
    /// Of the log.
    end: Sequence,
    sticky: StateMap,
    /// What memory alone holds before the position.
    unstored: Vec<Content>,
    /// What was being sent again is acknowledged: downstream has all of it, but not behind what it was sent last.
    broken_off: bool,
}

/// Where the next record is.
pub(super) enum Fetched {
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
        let step = self.next_step(d);
        d.settings = self.settings();
        match step {
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
            Step::Settle => self.settle_accounts(d, &session),
            Step::Running => {
                self.emit(Signal::Running);
                self.emit(Signal::Pushing);
            }
            Step::Trust => self.trust(d, &session),
            Step::Renew => self.renew(d, &session),
            Step::DropWithOthers => self.drop_with_others(&session),
            Step::Deliver(Fetched::Memory(item)) => self.deliver_item(d, &session, item),
            Step::Deliver(Fetched::ReadAhead(record)) => self.deliver_item(d, &session, from_record(record)),
            Step::Deliver(Fetched::Disk { until }) => _ = self.read(d, &session, until),
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
                state = self.item_add.wait(state);
                continue;
            }
            if state.awaits_storing() {
                state = self.item_add.wait(state);
                continue;
            }
            state.skip();
            if state.trust == Trust::Confirmed {
                if d.probation.as_ref().is_some_and(|probation| probation.since.is_some()) {
                    return Step::Trust;
                }
                state.trust = Trust::Given;
                self.item_del.ring();
            }
            if state.hold != Hold::Released {
                state = self.item_add.wait(state);
                continue;
            }
            if state.joint.as_ref().is_some_and(Membership::drop_is_due) {
                return Step::DropWithOthers;
            }
            if d.children != state.children {
                d.children = state.children;
                d.child = Child::Fresh;
                d.retry_at = None;
                if d.generation == state.generation {
                    return Step::Renew;
                }
            }
            if let Some(retry_at) = d.retry_at {
                let now = Instant::now();
                if now < retry_at {
                    let wait = retry_at - now;
                    state = self.item_add.wait_timeout(state, wait).0;
                    continue;
                }
                d.retry_at = None;
                d.generation = state.generation;
                return Step::Begin { flush: d.attempt == Attempt::Flushing };
            }
            if d.generation != state.generation {
                d.generation = state.generation;
                d.retry_at = None;
                d.begin_at = None;
                return Step::Begin { flush: false };
            }
            if std::mem::take(&mut state.read_again) {
                d.read_again();
            }
            if d.is_empty() && d.position >= state.end.sequence {
                state.from_disk = false;
                if let Some(since) = d.probation.as_ref().and_then(|probation| probation.since) {
                    let left = PROBATION.saturating_sub(since.elapsed());
                    if left.is_zero() {
                        return Step::Trust;
                    }
                    state = self.item_add.wait_timeout(state, left).0;
                    continue;
                }
                if !d.idle {
                    d.idle = true;
                    return Step::Empty;
                }
                if d.probation.is_none() && state.is_owed() {
                    return Step::Settle;
                }
                state = self.item_add.wait(state);
                continue;
            }
            if d.idle {
                d.idle = false;
                return Step::Running;
            }
            if d.position < state.cursor.resume {
                // What is being sent again was acknowledged meanwhile, and what it said of the state may be gone.
                return Step::Begin { flush: false };
            }
            if std::mem::take(&mut state.rate_changed) {
                (d.not_before, d.pace) = (None, None);
            }
            if let Some(left) = d.not_before.and_then(|at| at.checked_duration_since(Instant::now())) {
                state = self.item_add.wait_timeout(state, left).0;
                continue;
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
        let may = state.flow.is_ok() && state.hold == Hold::Released;
        if may {
            state.pushing = Some(Instant::now());
        }
        may
    }

    pub(super) fn end_pushing(&self) {
        self.state().pushing = None;
        self.item_del.ring();
    }

    /// Reads ahead. False when the disk does not let it: in a while it is asked again, for what comes next.
    pub(super) fn read(&self, d: &mut Delivery, session: &Session, until: Sequence) -> bool {
        // What is read now may not be thinned meanwhile.
        self.state().taken_until = Sequence::MAX;
        let read = session.stream.read(d.position, CHUNK_RECORDS, CHUNK_BYTES);
        let taken = match &read {
            Ok(chunk) => chunk.next.unwrap_or(d.position).min(until),
            Err(_) => d.position,
        };
        self.state().taken_until = taken;
        self.item_del.ring();
        match read {
            Ok(chunk) => {
                if let (Some(first), Some(last)) = (chunk.damaged.first(), chunk.damaged.last()) {
                    gst::element_imp_warning!(
                        self,
                        gst::ResourceError::Read,
                        ("{} damaged records at positions {first} to {last} are left out", chunk.damaged.len())
                    );
                }
                // What memory holds may be nowhere else.
                let mut records = chunk.records;
                records.truncate(records.partition_point(|record| record.sequence < until));
                d.chunk = records.into();
                if d.chunk.is_empty() {
                    d.position = chunk.next.unwrap_or(until).min(until);
                }
            }
            Err(err) => {
                self.cannot_read(&err);
                d.not_before = Some(Instant::now() + Self::pause(d));
                return false;
            }
        }
        true
    }

    /// Where to go on, and the state in force there; `None` when that has changed while the disk was read.
    fn find_beginning(&self, d: &Delivery, session: &Session) -> Result<Option<Beginning>, StoreError> {
        let overlap = !d.settings.overlap().is_none();
        let (cursor, end, again, broken_off) = {
            let state = self.state();
            let (cursor, end) = (state.cursor, state.end.sequence);
            let nothing_left = cursor.position >= end;
            // With nothing left for it, what is new still begins at a keyframe.
            (cursor, end, state.resend && (overlap || nothing_left), nothing_left && state.is_repeating())
        };
        let together = self.begin_together(session, again)?;
        let (cursor, together) = together.map_or((cursor, None), |(cursor, position)| (cursor, Some(position)));
        let position = if let Some(position) = d.begin_at.filter(|position| *position >= cursor.resume) {
            position
        } else if let Some(position) = together {
            position
        } else if again || broken_off {
            cursor.resume
        } else if cursor.position >= end {
            end
        } else if !overlap && self.decodable_at(session, cursor.position) {
            cursor.position
        } else {
            cursor.resume
        };
        // What memory alone holds is not part of the log's account.
        let (first_unstored, unstored) = {
            let state = self.state();
            let before = state.tail.unstored().take_while(|item| item.sequence < position);
            (state.tail.first_unstored(), before.map(|item| item.content.clone()).collect())
        };
        let known = first_unstored.map_or(position, |first| first.min(position));
        let sticky = session.stream.state_at(known)?;
        let state = self.state();
        let same = (state.cursor.position, state.cursor.resume) == (cursor.position, cursor.resume)
            && (state.tail.first_unstored() == first_unstored || first_unstored.is_none());
        Ok(same.then_some(Beginning { position, end, sticky, unstored, broken_off }))
    }

    /// Sets delivery to where it has to go on, with the state in force there.
    pub(super) fn begin(&self, d: &mut Delivery, session: &Session, flush: bool) {
        d.probation = None;
        d.begun += 1;
        d.run = self.domain();
        if flush && self.start_pushing() {
            self.srcpad.push_event(gst::event::FlushStart::new());
            self.srcpad.push_event(gst::event::FlushStop::new(false));
            self.end_pushing();
        }
        let (began, gap, doubtful) = {
            let mut state = self.state();
            let doubtful = state.outage.is_some() || state.trust == Trust::Probation;
            (state.began, std::mem::take(&mut state.gap), doubtful)
        };
        if doubtful {
            d.probation = Some(Probation::default());
        }
        let found = loop {
            match self.find_beginning(d, session) {
                Ok(Some(found)) => break found,
                // Acknowledged, dropped or stored meanwhile.
                Ok(None) => {}
                Err(err) => {
                    d.gap |= gap;
                    self.cannot_read(&err);
                    return self.retry_later(d);
                }
            }
        };
        let Beginning { position, end, mut sticky, unstored, broken_off } = found;
        if position == began {
            // Nothing is owed of earlier runs, so what they left in force is none of ours.
            sticky.clear();
        }
        gst::debug!(CAT, imp = self, "Delivery begins at position {position}, log ends at {end}");
        self.tell_beginning(session, d.children, position);
        d.rewind(position);
        d.begin_at = None;
        // What is not there any more leaves a gap here too.
        d.expected = Some(position);
        {
            let mut state = self.state();
            state.resend = false;
            state.taken_until = position;
            state.sending_from = position;
        }
        d.sticky.clear();
        d.domain = None;
        d.offset = None;
        d.sets = ParameterSets::default();
        d.gap |= gap;
        d.refused_caps = None;
        d.not_before = None;
        d.pace = None;
        // To a downstream that is not the first of this run even its beginning is a repeat.
        let exchanged = d.children > 0 && d.begun > 1 && matches!(d.child, Child::Fresh);
        let fresh = (position >= end || position == began) && !flush && !d.gap && !exchanged && !broken_off;
        d.start = if fresh { Start::Continuing } else { Start::Discont };
        d.leading = Leading::default();
        self.enter_state(d, sticky.into_values());
        for content in unstored {
            match content {
                Content::Domain(domain) => self.enter_domain(d, domain),
                Content::Sets(sets) => d.sets = sets,
                // An end of stream is sent at its place only.
                Content::Event(event) if event.type_() != gst::EventType::Eos => self.remember(d, event),
                Content::Event(_) => {}
                Content::Buffer { .. } | Content::State(_) | Content::Nothing => {}
            }
        }
    }

    /// Puts all of this in force.
    pub(super) fn enter_state(&self, d: &mut Delivery, values: impl IntoIterator<Item = Vec<u8>>) {
        for value in values {
            match event::decode(&value) {
                Decoded::Domain(domain) => self.enter_domain(d, domain),
                Decoded::ParameterSets(sets) => d.sets = sets,
                Decoded::Event(event) => self.remember(d, event),
                Decoded::Nothing => {}
            }
        }
    }

    /// Says so once per fault.
    pub(super) fn cannot_read(&self, err: &StoreError) {
        let text = err.to_string();
        let known = self.state().last_error.replace(text.clone()) == Some(text);
        if !known {
            gst::element_imp_warning!(self, gst::ResourceError::Read, ("The backlog cannot be read: {err}"));
        }
    }

    /// Whether the first buffer from `position` on can be decoded without anything before it.
    pub(super) fn decodable_at(&self, session: &Session, position: Sequence) -> bool {
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
}

/// The record at the position, from what was read ahead or from memory; else the disk has to be asked.
pub(super) fn fetch(d: &mut Delivery, state: &mut State) -> Fetched {
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
            d.position = item.sequence + 1;
            state.taken_until = d.position;
            Fetched::Memory(item)
        }
        None => {
            state.from_disk = true;
            // Not what is being written just now: the state does not know it yet.
            Fetched::Disk { until: state.tail.first().unwrap_or(Sequence::MAX).min(state.end.sequence) }
        }
    }
}
