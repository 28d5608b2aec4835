//! What downstream answers, and what follows from it: the cursor moves, an outage begins or ends, what is told of it.
//!
//! What is accepted moves the cursor. After an outage downstream is on probation first. What is refused begins an outage, in
//! which delivery is tried again with growing pauses; before anything was accepted, not linked and not negotiated are errors
//! as everywhere.

use std::time::{Duration, Instant};

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::delivery::{Attempt, Delivery};
use super::imp::{CAT, DiskBuffer, Session};
use super::joint::{Moment, Seam};
use super::managed::{Hold, Trust};
use super::pace::Pace;
use super::settings::{OnUnnegotiable, Settings};
use super::state::State;
use crate::media::buffer::Facts;
use crate::store::{Cause, Mark, Sequence, Sync, Totals};

/// How long downstream has to accept before it is believed.
pub(super) const PROBATION: Duration = Duration::from_millis(150);
/// Records that only a downstream takes that works: a `queue` whose sink is away takes one or two.
const WORKING: usize = 8;
/// How often the level is told while draining.
const DRAIN_REPORT: Duration = Duration::from_secs(1);

/// A `queue` whose sink is away takes a buffer after each flush and loses it: what it accepts counts when it has gone on
/// accepting for a while.
#[derive(Default)]
pub(super) struct Probation {
    /// The first acceptance.
    pub since: Option<Instant>,
    pub passed: Vec<Passed>,
}

pub(super) struct Draining {
    pub from: u64,
    /// When the level was told, and the bytes then.
    pub told: Instant,
    pub bytes: u64,
}

/// A record that downstream has, or several that follow each other.
#[derive(Debug, Clone, Copy)]
pub struct Passed {
    pub at: Sequence,
    pub next: Sequence,
    /// Sums before it, if it is stored.
    pub before: Totals,
    pub adds: Totals,
    /// It was stored when it was taken; else memory knows whether it is now.
    pub stored: bool,
    /// Of the first, if that is a buffer.
    pub facts: Option<Facts>,
    pub pts: Option<u64>,
    /// Running-time domain.
    pub domain: Option<u64>,
    /// It was left out.
    pub dropped: bool,
}

impl Passed {
    /// There is nobody to acknowledge it.
    pub fn is_silent(&self) -> bool {
        self.dropped || self.adds.buffers == 0
    }

    pub fn moment(&self) -> Option<Moment> {
        let time = self.facts.and_then(|facts| facts.running_time);
        self.domain.zip(time).map(|(domain, time)| Moment { domain, time })
    }

    pub fn sync(&self) -> Sync {
        self.facts.map_or(Sync::None, |facts| facts.sync)
    }

    /// Takes in the record that follows.
    pub fn extend(&mut self, other: &Passed) {
        self.next = other.next;
        self.adds = self.adds.plus(other.adds);
        // What was lost between the two shows in the sums of the second.
        if other.stored && self.stored {
            let gap = other.before.since(self.before.plus(self.adds).since(other.adds));
            self.before = self.before.plus(gap);
        }
    }
}

impl DiskBuffer {
    pub(super) fn finish(
        &self,
        d: &mut Delivery,
        session: &Session,
        result: Result<gst::FlowSuccess, gst::FlowError>,
        passed: &[Passed],
    ) {
        match result {
            Ok(_) => {
                Self::note_given(d);
                self.passed(d, session, passed, true);
            }
            Err(flow) => self.refused(d, flow),
        }
    }

    /// Counts what downstream has let in; `accepted` says whether it had to take it itself.
    pub(super) fn passed(&self, d: &mut Delivery, session: &Session, passed: &[Passed], accepted: bool) {
        if let Some(probation) = &mut d.probation {
            probation.passed.extend_from_slice(passed);
            let first = accepted && probation.since.is_none();
            if first {
                probation.since = Some(Instant::now());
            }
            let trusted = {
                let mut state = self.state();
                state.pushing = None;
                if accepted {
                    state.count_accepted(passed);
                }
                let level = state.level();
                if let Some(outage) = state.outage.as_mut().filter(|_| first) {
                    outage.waited = level;
                }
                let long = probation.since.is_some_and(|since| accepted && since.elapsed() >= PROBATION);
                // What failed while it was held has to prove itself again.
                state.trust == Trust::Confirmed || (long && state.hold != Hold::Failed)
            };
            self.item_del.ring();
            if trusted {
                self.trust(d, session);
            }
            return;
        }
        d.media = passed.iter().fold(d.media, |sum, item| sum.saturating_add(item.adds.time));
        if self.count_passed(&d.settings, session, passed, accepted) {
            d.attempts = 0;
        }
        if accepted {
            self.accepted(d);
        }
    }

    /// Downstream is back for good.
    pub(super) fn trust(&self, d: &mut Delivery, session: &Session) {
        if let Some(probation) = d.probation.take() {
            // It was counted as accepted when it came.
            self.count_passed(&d.settings, session, &probation.passed, false);
            d.attempts = 0;
            d.attempt = Attempt::Plain;
            self.accepted(d);
        }
        {
            let mut state = self.state();
            if d.children == state.children {
                state.trust = Trust::Given;
            }
        }
        self.item_del.ring();
    }

    /// With everything delivered, what is still missing was not to be read.
    pub(super) fn settle_accounts(&self, d: &Delivery, session: &Session) {
        let lost = {
            let mut state = self.state();
            if d.probation.is_some() || d.position < state.end.sequence || !state.is_owed() {
                return;
            }
            let end = state.end;
            let lost = state.cursor.lose_pending(end.totals);
            state.cursor.position = state.cursor.position.max(end.sequence);
            session.stream.set_cursor(state.cursor);
            lost
        };
        self.item_del.ring();
        gst::warning!(CAT, imp = self, "{} buffers, {} bytes could not be read: lost", lost.buffers, lost.bytes);
    }

    /// Counts what downstream has taken: it is acknowledged with that, or waits for it. False when it had it already.
    fn count_passed(&self, settings: &Settings, session: &Session, passed: &[Passed], accepted: bool) -> bool {
        let (overgrown, progress, crossed) = {
            let mut state = self.state();
            state.pushing = None;
            if accepted {
                state.count_accepted(passed);
            }
            let before = (state.cursor.position, state.sent_until);
            let mut cut = false;
            for item in passed {
                state.sent_until = state.sent_until.max(item.next);
                state.sending_from = state.sending_from.max(item.next);
                if !state.explicit || item.next <= state.cursor.position {
                    cut |= acknowledge_one(&mut state, item);
                } else if state.given_up_in_flight(item.at).is_some() {
                    // Purged on its way: nobody has to acknowledge it.
                } else if !state.sent.push(*item) {
                    state.counters.replayed.add(item.adds);
                }
            }
            if state.explicit {
                let done = state.acknowledged_until.saturating_sub(1);
                let mut acknowledged = state.sent.acknowledge(done);
                acknowledged.extend(state.sent.leading_silent());
                for item in acknowledged {
                    cut |= acknowledge_one(&mut state, &item);
                }
            }
            state.dropped_in_flight.clear();
            self.cursor_moved(&mut state, session);
            let level = state.level();
            let progress = (state.cursor.position, state.sent_until) != before;
            (cut, progress, state.watermark.update(settings, level))
        };
        self.item_del.ring();
        if overgrown {
            self.warn_overgrown();
        }
        if let Some(crossed) = crossed {
            self.tell_watermark(crossed);
        }
        progress
    }

    fn cursor_moved(&self, state: &mut State, session: &Session) {
        state.settle_resume();
        let position = state.cursor.position;
        state.tail.acknowledge(position);
        self.release(state, session);
        session.stream.set_cursor(state.cursor);
        state.tell_resume();
    }

    /// Everything up to `position` has arrived where it belongs (`ack-mode=explicit`). False when it was not sent.
    pub(super) fn acknowledge(&self, position: Sequence) -> bool {
        let Some(session) = self.session() else { return false };
        let mut overgrown = false;
        {
            let mut state = self.state();
            if position < state.cursor.position {
                return true;
            }
            // Downstream may acknowledge before its push returns.
            let on_its_way = state.taken_until != Sequence::MAX && position < state.taken_until;
            if !state.explicit || (position >= state.sent_until && !on_its_way) {
                return false;
            }
            state.acknowledged_until = state.acknowledged_until.max(position + 1);
            for item in state.sent.acknowledge(position) {
                overgrown |= acknowledge_one(&mut state, &item);
            }
            self.cursor_moved(&mut state, &session);
            if state.is_owed() {
                self.item_add.ring();
            }
        }
        self.item_del.ring();
        if overgrown {
            self.warn_overgrown();
        }
        true
    }

    fn warn_overgrown(&self) {
        gst::element_imp_warning!(
            self,
            gst::StreamError::Format,
            ("No keyframe for 30 s or 64 MiB: a resume may start without one. Set the encoder's keyframe interval")
        );
    }

    /// Gives up a record that cannot be delivered.
    pub(super) fn give_up(&self, session: &Session, item: &Passed) {
        {
            let mut state = self.state();
            state.pushing = None;
            state.dropped_in_flight.clear();
            state.sent_until = state.sent_until.max(item.next);
            state.sending_from = state.sending_from.max(item.next);
            if item.next > state.cursor.position {
                let item = Passed { dropped: true, ..*item };
                if state.explicit && !state.sent.is_empty() {
                    // Its turn comes with that of what was sent before.
                    state.sent.push(item);
                } else {
                    acknowledge_one(&mut state, &item);
                }
                self.cursor_moved(&mut state, session);
            }
        }
        self.item_del.ring();
    }

    /// Downstream has taken a buffer.
    pub(super) fn accepted(&self, d: &mut Delivery) {
        let (ended, level, from_disk, unsent) = {
            let mut state = self.state();
            state.delivered = true;
            state.counters.last_delivered_at = crate::store::wall_clock();
            // A push that ends while downstream is being given up ends no outage.
            let ended = if state.hold == Hold::Failed { None } else { state.outage.take() };
            if let Some(outage) = &ended {
                state.counters.outage_time += outage.since.elapsed();
            }
            (ended, state.level(), state.from_disk, state.level().since(state.sent.waiting()))
        };
        d.not_before = Pace::next(&mut d.pace, Instant::now, d.media, unsent.time, d.settings.catch_up_rate);
        let resumed = ended.is_some();
        if let Some(outage) = ended {
            let time = outage.since.elapsed();
            gst::info!(
                CAT,
                imp = self,
                "Downstream takes data again after {:.1} s; {} buffers, {} bytes waited, {} buffers are left",
                time.as_secs_f64(),
                outage.waited.buffers.max(level.buffers),
                outage.waited.bytes.max(level.bytes),
                level.buffers
            );
            self.tell("diskbuffer-resumed", |b| b.field("outage-time", time.as_nanos() as u64));
        }
        // Whoever was told of the outage is told of its end too, however little waited.
        if from_disk || resumed {
            self.tell_draining(d, level);
        }
    }

    pub(super) fn tell_draining(&self, d: &mut Delivery, level: Totals) {
        let now = Instant::now();
        let begun = Draining { from: level.buffers.max(1), told: now, bytes: level.bytes };
        let draining = d.draining.get_or_insert(begun);
        draining.from = draining.from.max(level.buffers);
        if now >= draining.told + DRAIN_REPORT {
            let took = now.saturating_duration_since(draining.told).as_secs_f64();
            let speed = draining.bytes.saturating_sub(level.bytes) as f64 / took;
            // ns; without end when more comes in than goes out.
            let eta = if speed > 0.0 { (level.bytes as f64 / speed * 1e9) as u64 } else { u64::MAX };
            (draining.told, draining.bytes) = (now, level.bytes);
            let percent = 100 - (level.buffers * 100 / draining.from).min(100);
            self.state().drain_eta = eta;
            self.tell("diskbuffer-draining", |b| b.field("percent", percent as u32).field("eta", eta));
        }
    }

    pub(super) fn tell_drained(&self, d: &mut Delivery) {
        if d.draining.take().is_some() {
            self.state().drain_eta = 0;
            gst::info!(CAT, imp = self, "The backlog is delivered");
            self.tell("diskbuffer-drained", |b| b);
        }
    }

    /// Downstream has not taken a buffer.
    pub(super) fn refused(&self, d: &mut Delivery, flow: gst::FlowError) {
        let manager = self.manager();
        let (answer, first) = {
            let mut state = self.state();
            state.pushing = None;
            state.dropped_in_flight.clear();
            if state.flow.is_err() || d.generation != state.generation {
                // We are being stopped, or were flushed: the cursor has not moved, nothing is lost.
                drop(state);
                self.item_del.ring();
                return;
            }
            let in_order = matches!(state.hold, Hold::InOrder | Hold::AtBoundary);
            let taken_away = in_order && flow == gst::FlowError::Flushing;
            if state.hold == Hold::Failed || taken_away {
                // Whoever holds it does that.
                state.hold = Hold::Failed;
                state.set_next(Seam::Resume);
                drop(state);
                self.item_del.ring();
                return;
            }
            let answer = match Answer::to(flow, &state, d, d.settings.on_unnegotiable) {
                // Another downstream may take it.
                Answer::LeaveOut if manager.is_some() && d.child.has_data() => Answer::Ask,
                Answer::LeaveOut => Answer::LeaveOut,
                _ if manager.is_some() => Answer::Ask,
                answer => answer,
            };
            if answer == Answer::Stop {
                state.flow = Err(flow);
            }
            if answer == Answer::Ask {
                state.hold = Hold::Failed;
                state.set_next(Seam::Resume);
            }
            let first = matches!(answer, Answer::Wait | Answer::Ask) && state.begin_outage();
            (answer, first)
        };
        self.item_del.ring();
        match answer {
            Answer::Stop if flow == gst::FlowError::Eos => {}
            Answer::Stop => {
                if flow == gst::FlowError::NotNegotiated {
                    gst::element_imp_error!(
                        self,
                        gst::StreamError::Format,
                        ("Downstream does not take the caps of what is stored, see on-unnegotiable: {:?}", d.caps)
                    );
                } else {
                    gst::element_imp_error!(
                        self,
                        gst::StreamError::Failed,
                        ("Internal data stream error."),
                        ["streaming stopped, reason {flow}"]
                    );
                }
                self.srcpad.push_event(gst::event::Eos::new());
            }
            Answer::LeaveOut => {
                // It comes again, and is left out then.
                self.begin_refusal(d);
                let position = {
                    let state = self.state();
                    state.sent_until.max(state.cursor.position)
                };
                d.rewind(position.min(d.position));
            }
            Answer::Ask => {
                gst::info!(CAT, imp = self, "Downstream refuses data ({flow:?}); it is kept");
                if first {
                    self.tell_outage(&flow.to_string());
                }
                if let Some(manager) = manager {
                    manager.refused(&self.obj(), flow);
                }
            }
            Answer::Wait => {
                let probation = d.probation.take().filter(|probation| probation.since.is_some());
                let buffers = |probation: Probation| probation.passed.iter().filter(|p| p.facts.is_some()).count();
                let taken = probation.map_or(0, buffers);
                if first {
                    gst::warning!(CAT, imp = self, "Downstream refuses data ({flow:?}); it is kept and tried again");
                    self.tell_outage(&flow.to_string());
                } else if taken == 0 && d.attempt == Attempt::Plain {
                    d.attempt = Attempt::Flushing;
                    d.retry_at = Some(Instant::now());
                    return;
                }
                if taken >= WORKING {
                    // It did come back, for a moment.
                    d.attempts = 0;
                }
                d.attempt = Attempt::Plain;
                self.retry_later(d);
            }
        }
    }

    pub(super) fn retry_later(&self, d: &mut Delivery) {
        d.retry_at = Some(Instant::now() + Self::pause(d));
    }

    /// How long to wait before the next attempt.
    pub(super) fn pause(d: &mut Delivery) -> Duration {
        let Settings { retry_interval, retry_max_interval, .. } = *d.settings;
        let longest = Duration::from_nanos(retry_max_interval.max(retry_interval));
        let first = Duration::from_nanos(retry_interval);
        let pause = first.saturating_mul(1 << d.attempts.min(20)).min(longest);
        d.attempts += 1;
        // Forty cameras must not come back in step.
        let spread = 0.75 + 0.5 * jitter();
        pause.mul_f64(spread)
    }
}

/// What follows from a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// It is over, with an error unless it is the end of the stream.
    Stop,
    /// An outage.
    Wait,
    /// An outage that the manager sees to.
    Ask,
    /// What has these caps is left out.
    LeaveOut,
}

impl Answer {
    fn to(flow: gst::FlowError, state: &State, d: &Delivery, policy: OnUnnegotiable) -> Self {
        let begun = state.delivered || state.outage.is_some();
        match flow {
            gst::FlowError::Eos => Answer::Stop,
            gst::FlowError::NotLinked if !begun => Answer::Stop,
            // Recorded by an earlier run, or after downstream had taken something else: nobody upstream can mend it.
            gst::FlowError::NotNegotiated if begun || d.is_before(state.began) => match policy {
                OnUnnegotiable::Hold => Answer::Wait,
                // With the caps that come in now everything would be left out, for ever.
                OnUnnegotiable::Skip if !d.is_before(state.began) && d.caps == state.caps => Answer::Wait,
                OnUnnegotiable::Skip => Answer::LeaveOut,
                OnUnnegotiable::Error => Answer::Stop,
            },
            gst::FlowError::NotNegotiated => Answer::Stop,
            _ => Answer::Wait,
        }
    }
}

/// Whether a record is stored by now, and the sums before it if it is.
fn place(state: &State, item: &Passed) -> (bool, Totals) {
    if item.stored {
        (true, item.before)
    } else {
        // Stored in the meantime: right behind what was delivered before.
        (state.tail.is_stored(item.at), state.cursor.totals)
    }
}

/// What it adds that is not stored: several records that were put together may be in part.
fn unstored_of(state: &State, item: &Passed, stored: bool) -> Totals {
    match stored {
        true if item.next - item.at > 1 => state.tail.unstored_within(item.at..item.next),
        true => Totals::default(),
        false => item.adds,
    }
}

/// The cursor passes what was left out.
fn give_up(state: &mut State, item: &Passed, stored: bool, before: Totals) {
    let unstored = unstored_of(state, item, stored);
    if stored {
        let after = before.plus(item.adds.since(unstored));
        state.cursor.skip(Mark { sequence: item.at, totals: before }, Cause::Lost);
        state.cursor.skip(Mark { sequence: item.next, totals: after }, Cause::Dropped);
    }
    if !stored || unstored.buffers > 0 {
        state.tail.leave_out(item.at..item.next);
        state.cursor.ledger.rejected.add(unstored);
        state.cursor.position = item.next;
        state.cursor.resume = item.next;
    }
    let from = Mark { sequence: item.next, totals: state.passed };
    state.resume.restart(from);
}

impl State {
    /// Downstream has taken these, for the first time or again.
    fn count_accepted(&mut self, passed: &[Passed]) {
        let buffers = passed.iter().filter(|item| !item.dropped && item.facts.is_some());
        buffers.for_each(|item| self.counters.accepted.add(item.adds));
        if self.joint.is_some()
            && let Some(at) = passed.iter().rev().filter(|item| item.sync() != Sync::None).find_map(Passed::moment)
        {
            self.note_given(at);
        }
    }
}

/// True when the GOP has become too long to be kept.
pub(super) fn acknowledge_one(state: &mut State, item: &Passed) -> bool {
    if let Some(range) = state.given_up_in_flight(item.at) {
        // It went out all the same.
        if item.at < range.stored {
            state.cursor.pass_given_up(item.next - 1, item.adds, range.cause);
        } else {
            let ledger = &mut state.cursor.ledger;
            ledger.bypassed.add(item.adds);
            ledger.rejected.subtract(item.adds);
            if let Some(storing) = state.storing.as_mut().filter(|storing| storing.range.contains(&item.at)) {
                storing.delivered.insert(item.at);
            }
        }
        return false;
    }
    if item.next <= state.cursor.position {
        state.counters.replayed.add(item.adds);
        // A repeat: the resume point is where it was, or it would run ahead of the cursor.
        return false;
    }
    let (stored, before) = place(state, item);
    if item.dropped {
        give_up(state, item, stored, before);
        return false;
    }
    let unstored = unstored_of(state, item, stored);
    if stored {
        let after = before.plus(item.adds.since(unstored));
        state.cursor.pass(Mark { sequence: item.next - 1, totals: before }, after);
    }
    if !stored || unstored.buffers > 0 {
        // Nothing that is stored stands behind what is not: what is still pending could not be read.
        let end = state.end.totals;
        state.cursor.lose_pending(end);
        state.cursor.ledger.bypassed.add(unstored);
        state.cursor.position = item.next;
    }
    let from = Mark { sequence: item.at, totals: state.passed };
    state.passed = state.passed.plus(item.adds);
    let Some(facts) = &item.facts else { return false };
    let after = Mark { sequence: item.next, totals: state.passed };
    state.resume.acknowledged(from, after, facts, item.pts, item.moment())
}

/// Between 0 and 1; need not be good, only different in each process and element.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(0u8) >> 11) as f64 / (1u64 << 53) as f64
}
