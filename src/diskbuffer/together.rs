//! What a member of a bin does for the others: it begins where they can all begin, and drops what one of them has dropped.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use gst::subclass::prelude::*;

use super::DiskBuffer;
use super::giving_up::with;
use super::imp;
use super::imp::{CAT, Session};
use super::joint::{JointCursor, Limit, Membership, Moment, Report, Seam};
use super::managed::Hold;
use super::state::{Activity, State};
use super::tail::Content;
use crate::media::buffer::Facts;
use crate::media::event::{self, Decoded};
use crate::store::{Body, Cause, CursorRecord, Mark, Sequence, StoreError, Sync, Totals};

const CHUNK_RECORDS: usize = 256;
const CHUNK_BYTES: usize = 1 << 20;
/// What comes in another order than it is shown in is not further apart than this, in ns.
const REORDERED: i64 = 2_000_000_000;
/// The stretch may change while it is looked at.
const ATTEMPTS: usize = 3;

/// A buffer that was stored or waits in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub sequence: Sequence,
    /// Sums before it; unknown in memory.
    before: Totals,
    pub sync: Sync,
    at: Option<Moment>,
}

impl Found {
    fn mark(&self) -> Mark {
        Mark { sequence: self.sequence, totals: self.before }
    }
}

impl DiskBuffer {
    /// Shares its cursor with the other members of `joint`. The one that `leads` is the one whose keyframes count: the video. To be
    /// called in NULL; it is left with `None`, or with the element.
    pub(crate) fn join(&self, joint: Option<&Arc<JointCursor>>, leads: bool) {
        let membership = joint.map(|joint| Membership::new(joint, leads));
        // The one that it replaces has a lock of its own.
        let old = std::mem::replace(&mut self.imp().state().joint, membership);
        drop(old);
    }
}

impl State {
    /// Moves the resume point as far as this stream and the others beside it allow.
    pub(super) fn settle_resume(&mut self) {
        let limit = match &self.joint {
            Some(joint) => joint.report(self.report()),
            None => Limit::Own,
        };
        if self.joint.is_some() && (self.hold != Hold::Released || self.exchanged != self.children) {
            // Where it begins again is where the others do, and they may have come further meanwhile.
            return;
        }
        // What is being sent again comes as a whole, whatever the others have done meanwhile.
        let sent = if self.explicit { Sequence::MAX } else { self.sending_from };
        if let Some(at) = self.resume.settle(limit, sent) {
            self.cursor.resume = self.cursor.resume.max(at);
        }
    }

    /// Where delivery begins with the next downstream.
    pub(super) fn set_next(&self, seam: Seam) {
        if let Some(joint) = &self.joint {
            joint.set_next(seam);
        }
    }

    /// Delivery goes on to the downstream after so many exchanges: who has to know, if there was none since, and whether that
    /// one has failed already.
    fn take_up(&mut self, children: u64) -> Option<(&Membership, bool)> {
        self.exchanged = children;
        let joint = self.joint.as_ref().filter(|_| children == self.children)?;
        Some((joint, self.hold == Hold::Failed))
    }

    /// Downstream has taken a sync point of this time.
    pub(super) fn note_given(&self, at: Moment) {
        if let Some(joint) = &self.joint {
            joint.given(at);
        }
    }

    /// The cursor is on its way to the disk.
    pub(super) fn tell_resume(&self) {
        // While downstream is being exchanged the cursor stays behind.
        if let Some(joint) = self.joint.as_ref().filter(|_| self.resume.from() == Some(self.cursor.resume)) {
            joint.moved(self.resume.at());
        }
    }

    pub(super) fn report(&self) -> Report {
        Report {
            own: self.resume.own_at(),
            pending: self.level().buffers > 0,
            ended: self.live_eos.is_some() && self.eos_sent == self.live_eos,
        }
    }

    /// A buffer comes: the first that waits is what this stream needs, before anything of it is delivered.
    pub(super) fn note_arrival(&mut self, facts: &Facts) {
        if self.joint.is_some() && self.level().buffers == 0 {
            let at = self.domain.zip(facts.running_time).map(|(domain, time)| Moment { domain, time });
            self.resume.begins_with(at);
        }
    }

    /// What arrives or goes has to be known to the others.
    pub(super) fn note_pending(&self) {
        if let Some(joint) = &self.joint {
            joint.tell(self.report());
        }
    }
}

impl imp::DiskBuffer {
    /// Where a member begins when any of them is owed something; `None` when nobody is, or the element is alone.
    pub(super) fn begin_together(
        &self,
        session: &Session,
        resend: bool,
    ) -> Result<Option<(CursorRecord, Sequence)>, StoreError> {
        let (cursor, end, pending, needed, beginning) = {
            let state = self.state();
            let pending = state.level().buffers > 0;
            let Some(joint) = &state.joint else { return Ok(None) };
            if !(pending || resend || joint.is_owed()) {
                return Ok(None);
            }
            (state.cursor, state.end.sequence, pending, joint.needed(), joint.beginning())
        };
        let delivered = cursor.resume..cursor.position;
        if !pending
            && let Some(begins) = beginning.or(needed)
            && let Some(newest) = self.newest_sync(session, delivered.clone())?
            && newest.at.is_some_and(|at| begins.is_long_after(at))
        {
            // Its time is long over: there is nothing to begin with.
            return Ok(Some((cursor, end)));
        }
        let found = match beginning {
            Some(beginning) => self.sync_at_or_before(session, delivered, beginning)?,
            None => None,
        };
        Ok(Some((cursor, found.map_or(cursor.resume, |found| found.sequence).min(end))))
    }

    /// Where a member that has sent up to the end of `sent`, and can go back to its beginning, has to begin to have what belongs
    /// to the leader's keyframe at `keyframe`; `None` when that is where it stands, or later.
    pub(super) fn with_keyframe(
        &self,
        session: &Session,
        sent: Range<Sequence>,
        keyframe: Moment,
    ) -> Result<Option<Sequence>, StoreError> {
        let next = self.first_from(session, sent.end)?;
        if next.is_some_and(|next| next.sync != Sync::None && next.at.is_some_and(|at| at <= keyframe)) {
            return Ok(None);
        }
        let Some(found) = self.sync_at_or_before(session, sent.clone(), keyframe)? else {
            // A leader that stands where it has for long has nothing to do with what comes now.
            let first = self.first_from(session, sent.start)?.and_then(|first| first.at);
            let over = keyframe != Moment::FIRST && first.is_some_and(|at| at.is_long_after(keyframe));
            return Ok(Some(sent.start).filter(|start| *start < sent.end && !over));
        };
        let over = found.at.is_some_and(|at| keyframe.is_long_after(at));
        if over && self.newest_sync(session, sent)?.is_none_or(|newest| newest.sequence == found.sequence) {
            return Ok(None);
        }
        Ok(Some(found.sequence))
    }

    /// Delivery begins at `position`: the others have to know when that is.
    pub(super) fn tell_beginning(&self, session: &Session, children: u64, position: Sequence) {
        let at = self.moment_if_leading(session, position);
        if let Some((joint, failed)) = self.state().take_up(children) {
            joint.begins(at, failed);
        }
    }

    /// Delivery goes on where it stopped, at `position`.
    pub(super) fn tell_going_on(&self, session: &Session, children: u64, position: Sequence) {
        let at = self.moment_if_leading(session, position);
        if let Some((joint, failed)) = self.state().take_up(children) {
            joint.goes_on(at, failed);
        }
    }

    fn moment_if_leading(&self, session: &Session, position: Sequence) -> Option<Moment> {
        let leads = self.state().joint.as_ref().is_some_and(Membership::leads);
        if leads { self.moment_at(session, position) } else { None }
    }

    /// The time of the first buffer at or after `sequence`.
    pub(super) fn moment_at(&self, session: &Session, sequence: Sequence) -> Option<Moment> {
        let first = self.first_from(session, sequence).unwrap_or_else(|err| {
            gst::debug!(CAT, imp = self, "The time at position {sequence} cannot be read: {err}");
            None
        });
        first.and_then(|first| first.at)
    }

    /// The first buffer at or after `sequence`.
    fn first_from(&self, session: &Session, sequence: Sequence) -> Result<Option<Found>, StoreError> {
        let mut first = None;
        self.walk(session, sequence..Sequence::MAX, |found| {
            first = Some(found);
            ControlFlow::Break(())
        })?;
        Ok(first)
    }

    /// The last sync point of `range`.
    fn newest_sync(&self, session: &Session, range: Range<Sequence>) -> Result<Option<Found>, StoreError> {
        let mut last = None;
        self.walk(session, range, |found| {
            last = Some(found).filter(|found| found.sync != Sync::None).or(last);
            ControlFlow::Continue(())
        })?;
        Ok(last)
    }

    /// The last sync point of `range` at or before `moment`.
    pub(super) fn sync_at_or_before(
        &self,
        session: &Session,
        range: Range<Sequence>,
        moment: Moment,
    ) -> Result<Option<Found>, StoreError> {
        let mut last = None;
        self.walk(session, range, |found| {
            let Some(at) = found.at else { return ControlFlow::Continue(()) };
            if at <= moment && found.sync != Sync::None {
                last = Some(found);
            }
            let past = at > moment && (found.sync != Sync::None || at.since(moment) > REORDERED);
            if past { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(last)
    }

    /// Visits the buffers of `range`, on the disk and in memory; ends early when the element is stopped or flushed.
    pub(super) fn walk(
        &self,
        session: &Session,
        range: Range<Sequence>,
        mut visit: impl FnMut(Found) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let first_unstored = self.state().tail.first_unstored();
        let stored_end = first_unstored.unwrap_or(Sequence::MAX);
        let mut domain = None;
        for value in session.stream.state_at(range.start.min(stored_end))?.values() {
            if let Decoded::Domain(number) = event::decode(value) {
                domain = Some(number);
            }
        }
        let moment = |domain: Option<u64>, time: Option<i64>| Some(Moment { domain: domain?, time: time? });
        let mut at = range.start;
        while at < range.end.min(stored_end) {
            let chunk = session.stream.read(at, CHUNK_RECORDS, CHUNK_BYTES)?;
            for record in chunk.records.iter().take_while(|record| record.sequence < range.end.min(stored_end)) {
                let (sequence, before) = (record.sequence, record.before);
                match &record.body {
                    Body::Buffer(header) => {
                        let at = moment(domain, header.running_time);
                        if visit(Found { sequence, before, sync: header.sync, at }).is_break() {
                            return Ok(());
                        }
                    }
                    Body::State { .. } => {
                        if let Decoded::Domain(number) = event::decode(record.payload.as_ref()) {
                            domain = Some(number);
                        }
                    }
                    Body::Event | Body::Snapshot(_) => {}
                }
            }
            match chunk.next {
                Some(next) if !self.state().closing => at = next,
                _ => break,
            }
        }
        let waiting: Vec<_> = {
            let state = self.state();
            let buffers = state.tail.unstored().take_while(|item| item.sequence < range.end);
            let said = buffers.map(|item| match &item.content {
                Content::Domain(number) => (item.sequence, Some(*number), None),
                Content::Buffer { facts, .. } => (item.sequence, None, Some((facts.sync, facts.running_time))),
                _ => (item.sequence, None, None),
            });
            said.collect()
        };
        for (sequence, number, buffer) in waiting {
            domain = number.or(domain);
            if let Some((sync, time)) = buffer.filter(|_| sequence >= range.start) {
                let found = Found { sequence, before: Totals::default(), sync, at: moment(domain, time) };
                if visit(found).is_break() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// What lies before `sequence` was dropped here: the others have no use for theirs.
    pub(super) fn others_drop(&self, session: &Session, sequence: Sequence) {
        if self.state().joint.is_none() {
            return;
        }
        let moment = self.moment_at(session, sequence);
        let mut state = self.state();
        state.resume.note(sequence, moment);
        if let (Some(moment), Some(joint)) = (moment, &state.joint) {
            joint.dropped(moment);
        }
    }

    /// What the others need may have changed since this stream moved last.
    pub(super) fn keep_up_with_others(&self, session: &Session) {
        let due = {
            let mut state = self.state();
            let Some(joint) = &state.joint else { return };
            if session.stream.is_cursor_saved() {
                joint.saved();
            }
            if state.activity != Activity::Stopped {
                state.settle_resume();
                session.stream.set_cursor(state.cursor);
                state.tell_resume();
            }
            state.joint.as_ref().is_some_and(Membership::drop_is_due)
        };
        if due {
            self.drop_with_others(session);
        }
    }

    /// Drops what another member has dropped.
    pub(super) fn drop_with_others(&self, session: &Session) {
        let to = self.state().joint.as_mut().and_then(Membership::take_drop);
        let Some(to) = to else { return };
        // What memory alone holds has no sums.
        if !self.spool_all(session) && self.state().tail.has_unstored() {
            return gst::debug!(CAT, imp = self, "The disk refuses: nothing is dropped with the others");
        }
        for _ in 0..ATTEMPTS {
            let (from, end, cuts) = {
                let state = self.state();
                (state.cursor.position, state.end.sequence, session.stream.cuts())
            };
            let (mark, at) = match self.sync_at_or_before(session, from..end, to) {
                Ok(Some(found)) if found.sequence > from => (found.mark(), found.at),
                Ok(_) => return,
                Err(err) => return gst::warning!(CAT, imp = self, "The backlog cannot be read: {err}"),
            };
            let (from, (dropped, rejected)) = {
                let mut state = self.settled_state();
                if state.spooling || session.stream.cuts() != cuts {
                    continue;
                }
                if mark.sequence <= state.cursor.position {
                    return;
                }
                let from = state.cursor.position;
                let dropped = state.drop_until(&session.stream, mark, Cause::Dropped);
                state.resume.note(mark.sequence, at);
                session.stream.set_cursor(state.cursor);
                state.note_pending();
                (from, dropped)
            };
            self.item_add.ring();
            self.item_del.ring();
            self.tell_dropped("dropped with another stream", from, mark.sequence - 1, with(dropped, rejected));
            return;
        }
    }
}
