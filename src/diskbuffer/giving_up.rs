//! Giving up stored data: the oldest GOPs but for their keyframes, what is too old, what has to be forgotten.
//!
//! What is on its way to downstream is never thinned. It may be dropped, expired or purged; if downstream takes it all the
//! same it counts as delivered.

use std::time::Duration;

use gst::subclass::prelude::*;

use super::imp::{CAT, DiskBuffer, Session};
use super::managed::Trust;
use super::settings::Settings;
use super::state::{Full, InFlight, State};
use crate::store::{Cause, Count, GivenUp, Plan, Sequence, Totals};

/// Delivery may come into what was to be thinned.
const ATTEMPTS: u32 = 5;
/// How long a read of the disk is waited for.
const READ_PATIENCE: Duration = Duration::from_millis(50);

impl DiskBuffer {
    /// Thins the oldest GOPs to their keyframes until the rest fits. False when there is nothing to thin.
    pub(super) fn thin_oldest(&self, session: &Session, settings: &Settings, reason: Full) -> bool {
        // What memory alone holds cannot be thinned.
        if !self.spool_all(session) {
            return false;
        }
        for _ in 0..ATTEMPTS {
            let (from, end, totals) = {
                let state = self.state();
                // What was sent counts with the sums that it had then.
                let from = state.taken_until.max(state.sent_until).max(state.cursor.position);
                (from, state.end, state.cursor.totals)
            };
            if from == Sequence::MAX {
                // The disk is being read; in a moment it is not.
                let reading = |state: &mut State| state.taken_until == Sequence::MAX && state.flow.is_ok();
                drop(self.item_del.wait_timeout_while(self.state(), READ_PATIENCE, reading));
                continue;
            }
            let enough = |gone: Totals| State::fits_from(settings, end.totals, totals.plus(gone));
            match session.stream.plan_thin(from, enough) {
                Ok(Some(plan)) => {
                    if let Some(done) = self.carry_out_thinning(session, plan) {
                        let (range, reason) = (done.range(), format!("{}, thinned", reason.reason()));
                        self.tell_dropped(&reason, range.start, range.end - 1, done.totals);
                        return true;
                    }
                }
                Ok(None) => return false,
                Err(err) => {
                    gst::warning!(CAT, imp = self, "The backlog cannot be thinned: {err}");
                    self.state().last_error = Some(err.to_string());
                    return false;
                }
            }
        }
        false
    }

    fn carry_out_thinning(&self, session: &Session, plan: Plan) -> Option<GivenUp> {
        let mut state = self.settled_state();
        let range = plan.range();
        // What is just being stored is in the sums of the disk and not yet in ours.
        if state.spooling || state.taken_until > range.start {
            return None;
        }
        let mut cursor = state.cursor;
        let done = session.stream.commit(plan, &mut cursor)?;
        state.cursor = cursor;
        // Memory holds what is not there any more; the disk has to be asked.
        state.tail.forget_stored_until(range.end);
        drop(state);
        self.item_del.ring();
        Some(done)
    }

    /// Gives up what is older than `max_age`.
    pub(super) fn expire(&self, session: &Session, max_age: Duration) {
        let cuts = session.stream.cuts();
        let to = match session.stream.expired_until(max_age) {
            Ok(Some(to)) => to,
            Ok(None) => return,
            // A disk that cannot be read now is asked again.
            Err(err) => return gst::debug!(CAT, imp = self, "The age of the backlog cannot be read: {err}"),
        };
        let (from, expired) = {
            let mut state = self.settled_state();
            if state.spooling || session.stream.cuts() != cuts {
                // The sums have changed, or are about to: in the next round.
                return;
            }
            let from = state.cursor.position;
            let expired = if to.sequence > from {
                state.drop_until(&session.stream, to, Cause::Expired).0
            } else {
                // Delivered, and kept for a resume.
                state.cursor.skip(to, Cause::Expired)
            };
            session.stream.set_cursor(state.cursor);
            (from, expired)
        };
        if expired.buffers > 0 {
            self.item_add.ring();
            self.item_del.ring();
            self.tell_dropped("max-age", from, to.sequence - 1, expired);
            self.others_drop(session, to.sequence);
        }
    }

    /// Purges positions `from` to `to`, both included, delivered or not; returns when the bytes are gone from the disk. False
    /// when the disk refuses: they are erased later then.
    pub(super) fn purge(&self, from: Sequence, to: Sequence) -> bool {
        let Some(session) = self.session() else { return false };
        // What memory alone holds is forgotten by way of the disk, so that the accounts stay whole.
        if !self.spool_all(&session) && self.state().tail.holds_unstored(from, to) {
            return false;
        }
        let mut at = from;
        let mut purged = Totals::default();
        let erased = loop {
            match session.stream.plan_purge(at..to.saturating_add(1)) {
                Ok(Some(plan)) => {
                    if let Some(done) = self.carry_out_purge(&session, plan) {
                        at = done.to.sequence;
                        purged = purged.plus(done.totals);
                    }
                }
                Ok(None) => break session.stream.erase(),
                Err(err) => break Err(err),
            }
        };
        self.item_add.ring();
        self.item_del.ring();
        if purged.buffers > 0 {
            self.tell_dropped("purged", from, to.min(at.saturating_sub(1)), purged);
        }
        match erased {
            Ok(()) => true,
            Err(err) => {
                gst::element_imp_warning!(self, gst::ResourceError::Write, ("Purged data is not erased yet: {err}"));
                false
            }
        }
    }

    fn carry_out_purge(&self, session: &Session, plan: Plan) -> Option<GivenUp> {
        let mut state = self.settled_state();
        if state.spooling {
            return None;
        }
        let range = plan.range();
        let mut cursor = state.cursor;
        let done = session.stream.commit(plan, &mut cursor)?;
        state.cursor = cursor;
        // After an outage what downstream has taken is not counted yet.
        let uncounted = state.outage.is_some() || state.trust == Trust::Probation;
        if (state.pushing.is_some() || uncounted) && state.taken_until > range.start {
            let from = range.start.max(state.cursor.position);
            state.dropped_in_flight.push(InFlight { from, stored: range.end, to: range.end, cause: Cause::Purged });
        }
        state.tail.forget_stored_until(range.end);
        state.sent.forget(done.from, done.to);
        // What was read ahead is not to be sent; what was sent is not to be sent again.
        if uncounted {
            state.generation += 1;
        } else {
            state.read_again = true;
        }
        session.stream.set_cursor(state.cursor);
        Some(done)
    }
}

/// What was dropped on the disk and in memory alone.
pub(super) fn with(stored: Totals, unstored: Count) -> Totals {
    stored.plus(Totals { buffers: unstored.buffers, bytes: unstored.bytes, time: 0 })
}
