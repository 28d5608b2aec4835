//! What downstream answers, and what follows from it: the cursor moves, an outage begins or ends, what is told of it.
//!
//! What is accepted moves the cursor. After an outage downstream is on probation first. What is refused begins an outage, in
//! which delivery is tried again with growing pauses; before anything was accepted, not linked and not negotiated are errors
//! as everywhere.

use std::time::{Duration, Instant};

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::delivery::{Delivery, Place};
use super::imp::{CAT, DiskBuffer, Session};
use super::state::{Outage, State};
use super::tail::Item;
use crate::media::buffer::Facts;
use crate::store::{Mark, Totals};

/// Pause after the first refusal; doubled up to the longest.
const RETRY: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How long downstream has to accept before it is believed.
pub(super) const PROBATION: Duration = Duration::from_millis(150);
/// How often the level is told while draining.
const DRAIN_REPORT: Duration = Duration::from_secs(1);

/// A `queue` whose sink is away takes a buffer after each flush and loses it: what it accepts counts when it has gone on
/// accepting for a while.
#[derive(Default)]
pub(super) struct Probation {
    /// The first acceptance.
    pub since: Option<Instant>,
    pub passed: Vec<Passed>,
    pub unstored: Vec<Item>,
}

pub(super) struct Draining {
    pub from: u64,
    pub told: Instant,
}

#[derive(Clone, Copy)]
pub(super) struct Passed {
    pub mark: Place,
    pub facts: Option<Facts>,
    pub pts: Option<u64>,
    pub size: u64,
}

impl DiskBuffer {
    pub(super) fn finish(
        &self,
        d: &mut Delivery,
        session: &Session,
        result: Result<gst::FlowSuccess, gst::FlowError>,
        passed: &[Passed],
        unstored: Vec<Item>,
    ) {
        match result {
            Ok(_) => self.passed(d, session, passed, unstored, true),
            Err(flow) => {
                d.give_back_all(self, unstored);
                self.refused(d, flow);
            }
        }
    }

    /// Counts what downstream has let in; `accepted` says whether it had to take it itself.
    pub(super) fn passed(
        &self,
        d: &mut Delivery,
        session: &Session,
        passed: &[Passed],
        unstored: Vec<Item>,
        accepted: bool,
    ) {
        if let Some(probation) = &mut d.probation {
            probation.passed.extend_from_slice(passed);
            probation.unstored.extend(unstored);
            let since = probation.since.filter(|since| accepted && since.elapsed() >= PROBATION);
            if accepted && probation.since.is_none() {
                probation.since = Some(Instant::now());
            }
            self.state().pushing = None;
            self.item_del.notify_all();
            if since.is_some() {
                self.trust(d, session);
            }
            return;
        }
        if self.acknowledge(session, passed) {
            d.attempts = 0;
        }
        if accepted {
            self.accepted(d);
        }
    }

    /// Downstream is back for good.
    pub(super) fn trust(&self, d: &mut Delivery, session: &Session) {
        if let Some(probation) = d.probation.take() {
            self.acknowledge(session, &probation.passed);
            d.attempts = 0;
            self.accepted(d);
        }
    }

    /// With everything delivered, what is still missing was not to be read.
    pub(super) fn settle_accounts(&self, d: &Delivery, session: &Session) {
        let lost = {
            let mut state = self.state();
            if d.probation.is_some() || d.position < state.end.sequence || state.level().buffers == 0 {
                return;
            }
            let lost = state.level();
            state.cursor.ledger.lost.add(lost);
            state.cursor.position = state.end.sequence;
            state.cursor.totals = state.end.totals;
            session.stream.set_cursor(state.cursor);
            lost
        };
        self.item_del.notify_all();
        gst::warning!(CAT, imp = self, "{} buffers, {} bytes could not be read: lost", lost.buffers, lost.bytes);
    }

    /// Moves the cursor past what downstream has. False when it had it already.
    pub(super) fn acknowledge(&self, session: &Session, passed: &[Passed]) -> bool {
        let (overgrown, progress) = {
            let mut state = self.state();
            state.pushing = None;
            let before = state.cursor.position;
            let mut cut = false;
            for item in passed {
                cut |= acknowledge_one(&mut state, item);
            }
            state.dropped_in_flight = None;
            session.stream.set_cursor(state.cursor);
            (cut, state.cursor.position > before)
        };
        self.item_del.notify_all();
        if overgrown {
            gst::element_imp_warning!(
                self,
                gst::StreamError::Format,
                ("No keyframe for 30 s or 64 MiB: a resume may start without one. Set the encoder's keyframe interval")
            );
        }
        progress
    }

    /// Downstream has taken a buffer.
    pub(super) fn accepted(&self, d: &mut Delivery) {
        let (ended, level, from_disk) = {
            let mut state = self.state();
            state.delivered = true;
            state.counters.last_delivered_at = crate::store::wall_clock();
            let ended = state.outage.take();
            if let Some(outage) = &ended {
                state.counters.outage_time += outage.since.elapsed();
            }
            (ended, state.level(), state.from_disk)
        };
        if let Some(outage) = ended {
            let time = outage.since.elapsed();
            gst::info!(
                CAT,
                imp = self,
                "Downstream takes data again after {:.1} s; backlog {} buffers, {} bytes",
                time.as_secs_f64(),
                level.buffers,
                level.bytes
            );
            self.tell("diskbuffer-resumed", |b| b.field("outage-time", time.as_nanos() as u64));
        }
        if from_disk {
            self.tell_draining(d, level);
        }
    }

    pub(super) fn tell_draining(&self, d: &mut Delivery, level: Totals) {
        let now = Instant::now();
        let draining = d.draining.get_or_insert(Draining { from: level.buffers.max(1), told: now });
        draining.from = draining.from.max(level.buffers);
        if now >= draining.told + DRAIN_REPORT {
            draining.told = now;
            let percent = 100 - (level.buffers * 100 / draining.from).min(100);
            self.tell("diskbuffer-draining", |b| b.field("percent", percent as u32));
        }
    }

    pub(super) fn tell_drained(&self, d: &mut Delivery) {
        if d.draining.take().is_some() {
            gst::info!(CAT, imp = self, "The backlog is delivered");
            self.tell("diskbuffer-drained", |b| b);
        }
    }

    /// Downstream has not taken a buffer.
    pub(super) fn refused(&self, d: &mut Delivery, flow: gst::FlowError) {
        let (fatal, first) = {
            let mut state = self.state();
            state.pushing = None;
            state.dropped_in_flight = None;
            if state.flow.is_err() || d.generation != state.generation {
                // We are being stopped, or were flushed: the cursor has not moved, nothing is lost.
                drop(state);
                self.item_del.notify_all();
                return;
            }
            let refuses_us = matches!(flow, gst::FlowError::NotLinked | gst::FlowError::NotNegotiated);
            let fatal = flow == gst::FlowError::Eos || (refuses_us && !state.delivered && state.outage.is_none());
            if fatal {
                state.flow = Err(flow);
            }
            let first = !fatal && state.outage.is_none();
            if first {
                state.counters.outages += 1;
                state.outage = Some(Outage { since: Instant::now() });
            }
            (fatal, first)
        };
        if fatal {
            self.item_del.notify_all();
            if flow != gst::FlowError::Eos {
                gst::element_imp_error!(
                    self,
                    gst::StreamError::Failed,
                    ("Internal data stream error."),
                    ["streaming stopped, reason {flow}"]
                );
                self.srcpad.push_event(gst::event::Eos::new());
            }
            return;
        }
        if first {
            gst::warning!(CAT, imp = self, "Downstream refuses data ({flow}); it is kept and delivery tried again");
            self.tell("diskbuffer-outage", |b| b.field("reason", flow.to_string()));
        }
        d.flush_first = true;
        self.retry_later(d);
    }

    pub(super) fn retry_later(&self, d: &mut Delivery) {
        let pause = RETRY.saturating_mul(1 << d.attempts.min(10)).min(RETRY_MAX);
        d.attempts += 1;
        // Forty cameras must not come back in step.
        let spread = 0.75 + 0.5 * jitter();
        d.retry_at = Some(Instant::now() + pause.mul_f64(spread));
        self.state().pushing = None;
    }
}

/// True when the GOP has become too long to be kept.
fn acknowledge_one(state: &mut State, item: &Passed) -> bool {
    let (before, after, stored) = item.mark;
    let next = before.sequence + 1;
    let one = after.since(before.totals);
    if !stored && item.facts.is_some() {
        let one = Totals { buffers: 1, bytes: item.size, time: 0 };
        state.unstored_out.subtract(one);
        state.counters.bypassed.add(one);
    }
    if next <= state.cursor.position {
        let dropped = state.dropped_in_flight.as_ref().is_some_and(|range| range.contains(&before.sequence));
        let ledger = &mut state.cursor.ledger;
        if dropped && stored {
            // It went out all the same.
            ledger.delivered.add(one);
            ledger.dropped.subtract(one);
        } else {
            state.counters.replayed.add(one);
        }
        // A repeat: the resume point is where it was, or it would run ahead of the cursor.
        return false;
    }
    // What the sums skip was stored and is not there any more.
    let missing = before.totals.since(state.cursor.totals);
    state.cursor.ledger.lost.add(missing);
    state.cursor.ledger.delivered.add(one);
    state.cursor.position = next;
    state.cursor.totals = after;
    let Some(facts) = &item.facts else { return false };
    let after = Mark { sequence: next, totals: after };
    let resumption = state.resume.acknowledged(before, after, facts, item.pts);
    state.cursor.resume = state.cursor.resume.max(resumption.at);
    resumption.cut
}

/// Between 0 and 1; need not be good, only different in each process and element.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(0u8) >> 11) as f64 / (1u64 << 53) as f64
}
