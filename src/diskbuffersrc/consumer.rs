//! The consumer that an element is: its name is taken, its cursor put where playing begins, what it lost is told.

use std::sync::Arc;
use std::time::Instant;

use gst::subclass::prelude::*;

use super::delivery::{Delivery, RETRY, Trouble};
use super::imp::{CAT, DiskBufferSrc, Session, lock};
use super::place::Place;
use super::range::{self, Start};
use super::state::{Beginning, Origin};
use crate::store::{CursorRecord, Sequence, StoreError};

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
        Ok(())
    }

    /// A consumer that has never stood anywhere stands where it begins. One that is told to go ahead skips what lies between;
    /// one that goes on where it stood may find that it is not there any more.
    pub(super) fn settle_cursor(
        &self,
        session: &Session,
        beginning: &Beginning,
        position: Sequence,
    ) -> Result<(), StoreError> {
        let Some(consumer) = session.consumer() else { return Ok(()) };
        let reader = &session.reader;
        let known = self.state().cursor;
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
                None
            }
        };
        if let Some(cursor) = moved {
            self.state().cursor = Some(cursor);
            consumer.advance(cursor);
            // From now on what lies behind is kept for it.
            if let Err(err) = consumer.renew() {
                gst::warning!(CAT, imp = self, "Where the consumer stands cannot be saved now: {err}");
            }
        }
        Ok(())
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
        d.sync = position;
        if lost.buffers > 0 {
            self.note_lost(lost);
            self.tell_overrun(from, position - 1, lost);
        }
        Ok(())
    }
}
