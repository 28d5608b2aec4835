//! The consumer that an element is: its name is taken, its cursor put where playing begins, what it lost is told.

use std::sync::Arc;
use std::time::Instant;

use gst::subclass::prelude::*;

use super::delivery::{Delivery, RETRY, Trouble};
use super::imp::{CAT, DiskBufferSrc, Session, lock};
use super::overlap::Kept;
use super::place::Place;
use super::range::{self, Start};
use super::state::{Beginning, Origin, Tip};
use super::timeline::Playing;
use crate::store::{Consumer, CursorRecord, Mark, StoreError};

impl DiskBufferSrc {
    /// Becomes the consumer; waits for another user of the name to let go.
    pub(super) fn take_consumer(&self, d: &Delivery, session: &Session) -> Result<(), Trouble> {
        let Some(name) = &d.settings.consumer else { return Ok(()) };
        if session.consumer().is_some() {
            return Ok(());
        }
        let deadline = Instant::now() + d.settings.lock_timeout();
        let mut told = false;
        let consumer = loop {
            match session.reader.consumer(name, d.settings.lease()) {
                Ok(consumer) => break consumer,
                Err(err @ StoreError::ConsumerInUse { .. }) => {
                    if Instant::now() >= deadline {
                        return Err(err.into());
                    }
                    if !std::mem::replace(&mut told, true) {
                        gst::info!(CAT, imp = self, "Waiting for the consumer: {err}");
                    }
                    if !self.pause(RETRY) {
                        return Err(Trouble::Interrupted);
                    }
                }
                Err(err) => return Err(err.into()),
            }
        };
        let cursor = consumer.position();
        gst::info!(
            CAT,
            imp = self,
            "Consumer \"{name}\" {}",
            cursor.map_or("is new".to_owned(), |cursor| format!("stands at position {}", cursor.position))
        );
        *lock(&session.consumer) = Some(Arc::new(consumer));
        let mut state = self.state();
        state.cursor = cursor;
        state.acks.reset(cursor.map_or(0, |cursor| cursor.position));
        let at = cursor.map(|cursor| Mark { sequence: cursor.resume, totals: cursor.totals });
        state.kept = Kept::new(at.unwrap_or_default(), d.settings.overlap());
        Ok(())
    }

    /// A consumer that has never stood anywhere stands where it begins. One that is told to go ahead skips what lies between;
    /// one that goes on where it stood may find that it is not there any more.
    pub(super) fn settle_cursor(
        &self,
        d: &Delivery,
        session: &Session,
        beginning: &Beginning,
        at: Mark,
    ) -> Result<(), Trouble> {
        let Some(consumer) = session.consumer() else { return Ok(()) };
        let reader = &session.reader;
        let known = self.state().cursor;
        let position = at.sequence;
        let goes_on = beginning.origin == Origin::Properties && session.start == Place::Cursor;
        let moved = match known {
            None => Some(reader.cursor_at(position)?),
            Some(cursor) if !goes_on && position > cursor.position => {
                Some(CursorRecord { ledger: cursor.ledger, ..reader.cursor_at(position)? })
            }
            Some(cursor) => {
                let first = reader.first();
                let lost = reader.totals_at(first)?.since(cursor.totals);
                if cursor.position < first && lost.buffers > 0 && goes_on {
                    self.note_lost(lost);
                    self.tell_overrun(cursor.position, first - 1, lost);
                }
                // With another overlap than before it may be another.
                goes_on.then_some(CursorRecord { resume: position.min(cursor.position), ..cursor })
            }
        };
        if let Some(cursor) = moved {
            {
                let mut state = self.state();
                state.cursor = Some(cursor);
                state.kept = Kept::new(at, d.settings.overlap());
            }
            consumer.advance(cursor);
            // From now on what lies behind is kept for it.
            if let Err(err) = consumer.renew() {
                gst::warning!(CAT, imp = self, "Where the consumer stands cannot be saved now: {err}");
            }
            if known.is_none() && beginning.origin == Origin::Properties && reader.first() > position {
                // It went before it was known that somebody wants it, so it is not lost.
                self.state().cursor = None;
                return Err(Trouble::Interrupted);
            }
        }
        Ok(())
    }

    /// The store was deleted and another one made in its place, where numbers begin anew: so does playing, and the consumer.
    pub(super) fn begin_anew(&self, d: &mut Delivery, session: &Session) {
        if !d.settings.follow {
            let text = "The store was deleted and made anew while it was played: play it again";
            return self.fail(d, gst::error_msg!(gst::ResourceError::Read, ("{text}")));
        }
        let text = "The store was deleted and made anew: playing goes on at its beginning";
        gst::element_imp_warning!(self, gst::ResourceError::Read, ("{text}"));
        let consumer = lock(&session.consumer).take();
        if let Some(Err(err)) = consumer.and_then(Arc::into_inner).map(Consumer::forget) {
            gst::warning!(CAT, imp = self, "Where the consumer stood cannot be removed: {err}");
        }
        d.sent.clear();
        d.sent_domain = None;
        self.change(|state| {
            let playing = Playing { start: None, ..state.playing.clone() };
            (state.cursor, state.tip) = (None, Tip::default());
            state.acks.reset(0);
            state.next.get_or_insert(Beginning {
                origin: Origin::Anew,
                until: None,
                playing,
                seqnum: d.beginning.seqnum,
                resets: false,
                lead: None,
            });
        });
    }

    /// What was to be delivered next is not there any more.
    pub(super) fn note_overrun(&self, d: &mut Delivery, session: &Session) -> Result<(), StoreError> {
        let reader = &session.reader;
        let first = reader.first();
        if d.position >= first {
            return Ok(());
        }
        let from = d.expected.unwrap_or(d.position);
        let position = match range::decodable(reader, first)? {
            Start::At(position) | Start::Undecided(position) => position.max(first),
        };
        let totals = reader.totals_at(position)?;
        let lost = totals.since(d.totals);
        d.position = position;
        d.totals = totals;
        let state = reader.state_at(position)?;
        let (domain, recorded) = (d.domain, d.recorded.take());
        let in_force = (d.segment.take(), d.has_segment);
        self.enter_state(d, state);
        if d.domain == domain && d.recorded == recorded {
            // Within an epoch time goes on: what is missing shows as a gap.
            (d.segment, d.has_segment) = in_force;
        }
        (d.begins, d.gap, d.expected) = (true, true, Some(position));
        (d.sync, d.open) = (position, None);
        if lost.buffers > 0 {
            self.note_lost(lost);
            self.tell_overrun(from, position - 1, lost);
        }
        Ok(())
    }
}
