//! The pad's task: one step after the other, each without a lock while it reads or pushes.
//!
//! A step begins anew (a start or a seek), reads a chunk, delivers a record, sends what the application wants to be sent, or
//! ends the stream. Waits end at once when the pad is deactivated, flushed, sought, or told to end.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::imp::{CAT, DiskBufferSrc, Session, error_message, may_pass};
use super::range::{self, Held, Start};
use super::settings::Settings;
use super::state::{Activity, Beginning, Origin, Phase, State, Until};
use super::timeline::{First, Timeline};
use crate::diskbuffer::Overlap;
use crate::media::beginning::Leading;
use crate::media::nal::ParameterSets;
use crate::store::{Mark, Record, Sequence, StateMap, StoreError, Totals};

/// What is read from the disk at a time.
const CHUNK_RECORDS: usize = 256;
const CHUNK_BYTES: usize = 1 << 20;
/// How often it is looked for more: in the process that writes, and in another one.
const POLL: Duration = Duration::from_millis(20);
const POLL_OTHER: Duration = Duration::from_millis(40);
/// Pause before a store that cannot be read is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(100);

/// What the task knows; it alone touches it.
pub struct Delivery {
    pub settings: Arc<Settings>,
    /// Where the next read begins.
    pub position: Sequence,
    /// Sums before the next record that is delivered.
    pub totals: Totals,
    /// Where to begin shows when something is there.
    pub undecided: bool,
    /// After the last record since playing began.
    pub expected: Option<Sequence>,
    /// Records are missing before the next one.
    pub missing: bool,
    pub chunk: VecDeque<Record>,
    /// State in force in the recording, and as it was sent downstream.
    pub in_force: StateMap,
    pub sent: StateMap,
    pub domain: Option<u64>,
    pub sent_domain: Option<u64>,
    pub sets: ParameterSets,
    pub caps: Option<gst::Caps>,
    /// The segment of the epoch, as recorded.
    pub recorded: Option<gst::Segment>,
    /// As it was sent; `None` before.
    pub segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    /// A segment was sent for this epoch, of whatever format.
    pub has_segment: bool,
    /// Events of an epoch of which nothing was sent yet.
    pub held: Vec<gst::Event>,
    /// Where the first gap of them lies.
    pub held_gap: Option<First>,
    /// The next buffer begins anew.
    pub begins: bool,
    pub leading: Leading,
    pub gap: bool,
    /// Where the last buffer ends, as a timestamp.
    pub last_end: Option<gst::ClockTime>,
    /// Running time at which what was sent ends.
    pub running: gst::ClockTime,
    /// Nothing went out since running time began.
    pub fresh: bool,
    pub beginning: Beginning,
    pub until: Until,
    /// The last sync point that was delivered with its leading pictures: a consumer that came back there would not get them.
    pub sync: Sequence,
    /// One whose leading pictures may follow, and its PTS.
    pub open: Option<(Sequence, Option<gst::ClockTime>)>,
    pub group: u32,
    /// Since when the store cannot be read.
    pub away: Option<Instant>,
    /// It is over with what is being delivered.
    pub over: bool,
    /// That the writer keeps no log.
    pub told_behind: bool,
    /// The end went downstream.
    pub ended: bool,
    /// When the duration was told, and the end of what was held then.
    pub told: Option<(Instant, Sequence)>,
    /// Which store is being played.
    pub created: u64,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            settings: Arc::default(),
            position: 0,
            totals: Totals::default(),
            undecided: false,
            expected: None,
            missing: false,
            chunk: VecDeque::new(),
            in_force: StateMap::new(),
            sent: StateMap::new(),
            domain: None,
            sent_domain: None,
            sets: ParameterSets::default(),
            caps: None,
            recorded: None,
            segment: None,
            has_segment: false,
            held: Vec::new(),
            held_gap: None,
            begins: false,
            leading: Leading::default(),
            gap: false,
            last_end: None,
            running: gst::ClockTime::ZERO,
            fresh: true,
            beginning: Beginning::start(),
            until: Until::End,
            sync: 0,
            open: None,
            group: crate::media::event::next_group_id(),
            away: None,
            over: false,
            told_behind: false,
            ended: false,
            told: None,
            created: 0,
        }
    }
}

/// What to do next.
enum Step {
    Stop,
    Begin(Box<Beginning>),
    Send(gst::Event),
    Read,
    Deliver(Box<Record>),
    /// The application wants the end.
    End(gst::Seqnum),
}

/// How a search for the beginning went wrong.
pub(super) enum Trouble {
    /// Something else is wanted meanwhile.
    Interrupted,
    Store(StoreError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Trouble::Store(error)
    }
}

impl DiskBufferSrc {
    /// One round of the task.
    pub(super) fn step(&self, d: &mut Delivery) {
        let step = self.next_step(d);
        let Some(session) = self.session() else {
            let _ = self.srcpad.pause_task();
            return;
        };
        d.settings = self.settings();
        match step {
            Step::Stop => {
                gst::debug!(CAT, imp = self, "Pausing the task");
                let _ = self.srcpad.pause_task();
            }
            Step::Begin(beginning) => self.begin(d, &session, *beginning),
            // Where the epoch lies shows with its first buffer.
            Step::Send(event) if !d.has_segment => d.held.push(event),
            Step::Send(event) => {
                self.srcpad.push_event(event);
            }
            Step::Read => self.read(d, &session),
            Step::Deliver(record) => self.deliver(d, &session, *record),
            Step::End(seqnum) => self.end(d, Some(seqnum)),
        }
    }

    fn next_step(&self, d: &mut Delivery) -> Step {
        let mut state = self.state();
        state.busy = false;
        state.thread = Some(std::thread::current().id());
        self.idle.notify_all();
        let step = loop {
            if state.stopping {
                return Step::Stop;
            }
            let may_run = !state.flushing && (!d.settings.follow || state.activity == Activity::Playing);
            if !state.flushing
                && let Some(seqnum) = state.eos.take()
            {
                break Step::End(seqnum);
            }
            if may_run && let Some(beginning) = state.next.take() {
                state.phase = Phase::Playing;
                break Step::Begin(Box::new(beginning));
            }
            let plays = matches!(state.phase, Phase::Playing | Phase::Waiting | Phase::Away);
            if may_run && plays {
                break match (state.events.pop_front(), d.chunk.pop_front()) {
                    (Some(event), record) => {
                        record.into_iter().for_each(|record| d.chunk.push_front(record));
                        Step::Send(event)
                    }
                    (None, Some(record)) => Step::Deliver(Box::new(record)),
                    (None, None) => Step::Read,
                };
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        state.busy = true;
        step
    }

    /// Waits, but not longer than something else is wanted; false then.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.state();
        let waits_for_playing = |state: &State| state.activity != Activity::Playing && state.phase == Phase::Waiting;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if state.is_interrupted() || !state.events.is_empty() || waits_for_playing(&state) {
                return false;
            }
            if left.is_zero() {
                return true;
            }
            state = self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn begin(&self, d: &mut Delivery, session: &Session, mut beginning: Beginning) {
        match self.find_beginning(d, session, &mut beginning) {
            Ok(()) => d.away = None,
            Err(Trouble::Interrupted) => self.begin_later(beginning),
            Err(Trouble::Store(err)) if self.may_retry(d, &err) => {
                if self.pause(RETRY) || self.state().next.is_none() {
                    self.begin_later(beginning);
                }
            }
            Err(Trouble::Store(err)) => self.fail(d, error_message(&err)),
        }
    }

    /// Unless something else is wanted meanwhile.
    fn begin_later(&self, beginning: Beginning) {
        self.state().next.get_or_insert(beginning);
    }

    fn find_beginning(&self, d: &mut Delivery, session: &Session, beginning: &mut Beginning) -> Result<(), Trouble> {
        let reader = &session.reader;
        self.take_consumer(d, session)?;
        reader.refresh()?;
        let created = reader.created();
        let origin = self.settle_timeline(session)?;
        let (known, cursor, ends, company) = {
            let state = self.state();
            (state.tip, state.cursor, state.end, state.company.clone())
        };
        let tip = match ends {
            // What is played was fixed when it began.
            Some(_) if beginning.origin != Origin::Properties => known,
            _ => range::tip(reader, known)?,
        };
        let ends = ends.map(|end| if beginning.origin == Origin::Properties { reader.end() } else { end });
        // Only a consumer is sent anything again.
        let (cursor, overlap) = match cursor {
            Some(cursor) => (Some(cursor.position), d.settings.overlap()),
            None if d.settings.consumer.is_some() => (None, Overlap::default()),
            None => (Some(reader.cursor().position), Overlap::default()),
        };
        let held = Held { origin, tip, cursor, overlap };
        let mut clamped = Vec::new();
        let until = match (beginning.until, beginning.origin) {
            (Some(until), _) => until,
            (None, Origin::At(_) | Origin::Anew) => self.state().until,
            (None, Origin::Properties) => {
                let (until, told) = range::until(reader, session.stop, &held, d.settings.follow)?;
                clamped.extend(told);
                until
            }
        };
        let start = match beginning.origin {
            Origin::At(position) => Start::At(position),
            Origin::Anew => range::decodable(reader, reader.first())?,
            Origin::Properties => {
                let (start, told) = range::start(reader, session.start, &held)?;
                clamped.extend(told);
                beginning.lead = match &company {
                    Some(company) => self.lead_of_start(company, reader, start)?,
                    None => None,
                };
                match &beginning.lead {
                    Some(lead) => lead.begin(reader, start)?,
                    None => start,
                }
            }
        };
        let (Start::At(position) | Start::Undecided(position)) = start;
        let state_map = reader.state_at(position)?;
        let totals = reader.totals_at(position)?;
        self.settle_cursor(d, session, beginning, Mark { sequence: position, totals })?;
        gst::debug!(CAT, imp = self, "Playing begins at position {position} of {}, until {until:?}", tip.sequence);
        let after_end = std::mem::take(&mut d.ended) && !beginning.resets;
        if after_end {
            // A pad that saw the end takes data again after a STREAM_START.
            d.sent.clear();
        }
        d.created = created;
        d.position = position;
        d.totals = totals;
        d.undecided = matches!(start, Start::Undecided(_));
        d.expected = Some(position);
        d.missing = false;
        d.chunk.clear();
        d.held.clear();
        d.held_gap = None;
        d.begins = true;
        d.leading = Leading::default();
        d.gap = false;
        d.last_end = None;
        d.over = false;
        d.sync = position;
        d.open = None;
        if beginning.resets {
            d.running = gst::ClockTime::ZERO;
            d.fresh = true;
        }
        d.beginning = beginning.clone();
        d.group = company.map_or(d.group, |company| company.group);
        d.until = until;
        self.enter_state(d, state_map);
        {
            let mut state = self.state();
            (state.tip, state.end) = (tip, ends);
            state.until = until;
            state.playing = beginning.playing.clone();
            state.position = beginning.playing.start;
            state.at = Mark { sequence: position, totals };
        }
        clamped.iter().for_each(|clamped| self.tell_clamped(clamped));
        Ok(())
    }

    /// What stream time counts from, if there is anything.
    fn settle_timeline(&self, session: &Session) -> Result<Option<i64>, StoreError> {
        if let Some(timeline) = self.state().timeline {
            return Ok(Some(timeline.origin));
        }
        let company = self.state().company.clone();
        let origin = match company {
            Some(company) => self.common_origin(&company, &session.reader)?,
            None => range::origin(&session.reader)?,
        };
        self.state().timeline = origin.map(|origin| Timeline { origin });
        Ok(origin)
    }

    fn read(&self, d: &mut Delivery, session: &Session) {
        match self.try_read(d, session) {
            Ok(()) => {
                if d.away.take().is_some() {
                    gst::info!(CAT, imp = self, "The store can be read again");
                }
            }
            Err(err) if self.may_retry(d, &err) => {
                self.pause(RETRY);
            }
            Err(err) => self.fail(d, error_message(&err)),
        }
    }

    fn try_read(&self, d: &mut Delivery, session: &Session) -> Result<(), StoreError> {
        let reader = &session.reader;
        self.tell_duration(d, session);
        let limit = self.state().end.map(|end| end.sequence);
        if limit.is_some_and(|limit| d.position >= limit) {
            self.end(d, None);
            return Ok(());
        }
        if d.position >= reader.end().sequence {
            reader.refresh()?;
        }
        if reader.created() != d.created {
            self.begin_anew(d, session);
            return Ok(());
        }
        if d.position >= reader.end().sequence {
            return self.wait_for_more(d, session, limit.is_some());
        }
        if std::mem::take(&mut d.undecided) {
            match range::decodable(reader, d.position)? {
                Start::At(position) => {
                    self.settle_timeline(session)?;
                    d.totals = reader.totals_at(position)?;
                    let state = reader.state_at(position)?;
                    self.enter_state(d, state);
                    (d.position, d.expected, d.sync) = (position, Some(position), position);
                }
                Start::Undecided(_) => {
                    d.undecided = true;
                    return self.wait_for_more(d, session, limit.is_some());
                }
            }
        }
        self.note_overrun(d, session)?;
        let chunk = reader.read(d.position, CHUNK_RECORDS, CHUNK_BYTES)?;
        if let (Some(first), Some(last)) = (chunk.damaged.first(), chunk.damaged.last()) {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Read,
                ("{} damaged records at positions {first} to {last} are left out", chunk.damaged.len())
            );
        }
        let before = d.position;
        // Not up to the end as it is now: what came since was not read.
        d.position = chunk.next.unwrap_or(chunk.end.min(limit.unwrap_or(Sequence::MAX)).max(before));
        d.chunk = chunk.records.into();
        if let Some(limit) = limit {
            d.chunk.retain(|record| record.sequence < limit);
        }
        if d.chunk.is_empty() && d.position == before {
            return self.wait_for_more(d, session, limit.is_some());
        }
        self.state().phase = Phase::Playing;
        Ok(())
    }

    /// Everything that is stored was delivered.
    fn wait_for_more(&self, d: &mut Delivery, session: &Session, ends: bool) -> Result<(), StoreError> {
        if ends {
            self.end(d, None);
            return Ok(());
        }
        self.release_gaps(d);
        let first = {
            let mut state = self.state();
            let first = state.phase != Phase::Waiting;
            state.phase = Phase::Waiting;
            first
        };
        if first {
            gst::debug!(CAT, imp = self, "Everything that is stored was delivered up to position {}", d.position);
        }
        if session.reader.is_behind() && !std::mem::replace(&mut d.told_behind, true) {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Read,
                ("The writer keeps no log (durability=none): another process sees its data late, in large pieces")
            );
        }
        self.pause(if session.reader.is_shared() { POLL } else { POLL_OTHER });
        Ok(())
    }

    /// Whether a store that could not be read is tried again: for ever while following, else for as long as a start waits.
    fn may_retry(&self, d: &mut Delivery, err: &StoreError) -> bool {
        // For that it has waited already.
        let in_use = matches!(err, StoreError::ConsumerInUse { .. });
        let passing = !in_use && (d.settings.follow || may_pass(err));
        let since = *d.away.get_or_insert_with(|| {
            gst::warning!(CAT, imp = self, "The store cannot be read now, trying again: {err}");
            Instant::now()
        });
        let mut state = self.state();
        state.last_error = Some(err.to_string());
        let retried = passing && (d.settings.follow || since.elapsed() < d.settings.lock_timeout());
        if retried {
            state.phase = Phase::Away;
        }
        retried
    }
}
