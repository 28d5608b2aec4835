//! Storing later what memory alone holds: with `persist=spill`, and what came while the disk refused.
//!
//! In order, oldest first, so that a record in memory alone never stands before one on the disk. One thread at a time: the
//! streaming thread, the store's own, or the one that stops the element. Nobody waits for another.

use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use gst::subclass::prelude::*;

use super::imp::{CAT, DiskBuffer, Session};
use super::state::{State, change_state};
use super::storing::Storing;
use super::tail::{Content, Item, memory_limit};
use crate::media::buffer;
use crate::media::event::Place;
use crate::store::{Body, NewRecord, StoreError};

/// What is stored at a time.
const BATCH_BYTES: u64 = 1 << 20;
const BATCH_RECORDS: usize = 256;
/// How soon a disk that refuses is asked again.
pub(super) const RETRY: Duration = Duration::from_millis(250);
/// Somebody else may be at it each time.
const ATTEMPTS: u32 = 3;
/// How long a batch that is being stored is waited for.
const PATIENCE: Duration = Duration::from_millis(400);

impl DiskBuffer {
    /// Stores what memory alone holds. `Ok` when nothing is left, or when somebody else is at it.
    pub(super) fn spool(&self, session: &Session) -> Result<(), StoreError> {
        if std::mem::replace(&mut self.state().spooling, true) {
            return Ok(());
        }
        let mut result = Ok(());
        while result.is_ok() {
            let Some(items) = Self::next_batch(&mut self.state()) else { break };
            result = self.store_batch(session, &items);
        }
        let settings = self.settings();
        let change = {
            let mut state = self.state();
            state.spooling = false;
            state.tail.shrink(memory_limit(&settings));
            state.spool_at = result.is_err().then(|| Instant::now() + RETRY);
            session.stream.set_cursor(state.cursor);
            match &result {
                Ok(()) => Self::note_fault(&mut state, None),
                Err(error) => Self::note_fault(&mut state, Some(error)),
            }
        };
        self.item_del.ring();
        if let Some(change) = change {
            self.tell_storage(change);
        }
        result
    }

    /// Has what memory alone holds stored, also what somebody else is at; false when the disk does not take it now.
    pub(super) fn spool_all(&self, session: &Session) -> bool {
        for _ in 0..ATTEMPTS {
            {
                let state = self.settled_state();
                if state.spooling || !state.tail.has_unstored() {
                    // A disk that hangs is not waited for again.
                    return !state.spooling;
                }
            }
            if self.spool(session).is_err() {
                return false;
            }
        }
        let state = self.state();
        !state.spooling && !state.tail.has_unstored()
    }

    /// A few of the oldest records that are nowhere else, whole lists only.
    pub(super) fn next_batch(state: &mut State) -> Option<Vec<Item>> {
        let mut items = Vec::new();
        let mut bytes = 0;
        let mut inside_list = false;
        for item in state.tail.unstored() {
            if !inside_list && (bytes >= BATCH_BYTES || items.len() >= BATCH_RECORDS) {
                break;
            }
            bytes += item.adds.bytes;
            inside_list = matches!(&item.content, Content::Buffer { facts, .. } if facts.list_remaining > 1);
            items.push(item.clone());
        }
        state.storing = Some(Storing::new(items.first()?.sequence..items.last()?.sequence + 1));
        Some(items)
    }

    pub(super) fn store_batch(&self, session: &Session, items: &[Item]) -> Result<(), StoreError> {
        let mut maps = Vec::with_capacity(items.len());
        for item in items {
            let map = match &item.content {
                // It was mapped when it came.
                Content::Buffer { buffer, .. } => buffer.map_readable().ok(),
                _ => None,
            };
            maps.push(map);
        }
        let payloads: Vec<[&[u8]; 1]> = items
            .iter()
            .zip(&maps)
            .map(|(item, map)| match (map, &item.coded) {
                (Some(map), _) => [map.as_slice()],
                (None, Some(coded)) => [coded.bytes.as_slice()],
                (None, None) => [[].as_slice()],
            })
            .collect();
        let records: Vec<_> = items
            .iter()
            .zip(&payloads)
            .map(|(item, payload)| NewRecord { body: body(item), payload, advance: item.adds.time })
            .collect();
        let first = items.first().map_or(0, |item| item.sequence);
        let appended = session.stream.append_late(first, &records);
        {
            let mut state = self.state();
            state.stored(items, appended.as_ref().ok().copied());
            session.stream.settle(state.cursor);
        }
        // Delivery may wait for it.
        self.item_add.ring();
        self.item_del.ring();
        appended.map(|_| ())
    }

    /// The state while nobody is storing what memory alone holds: what waits may be given up. A disk that hangs is not
    /// waited for.
    pub(super) fn settled_state(&self) -> MutexGuard<'_, State> {
        let busy = |state: &mut State| state.spooling;
        self.item_del.wait_timeout_while(self.state(), PATIENCE, busy)
    }

    /// The run is over: what memory alone holds is stored, if the disk takes it.
    pub(super) fn spool_rest(&self, session: &Session) {
        drop(self.settled_state());
        if let Err(err) = self.spool(session) {
            gst::debug!(CAT, imp = self, "The disk refuses to the last: {err}");
        }
    }

    /// Gives up delivered records that only a resume would need; state that they changed stays in force.
    pub(super) fn release(&self, state: &mut State, session: &Session) {
        if state.tail.has_unstored() && !state.spooling {
            let resume = state.cursor.resume;
            change_state(&session.stream, &state.tail.release(resume), None);
        }
    }
}

fn body(item: &Item) -> Body {
    match (&item.content, item.coded.as_deref().map(|coded| &coded.place)) {
        (Content::Buffer { buffer, facts }, _) => Body::Buffer(buffer::header(buffer, facts, &mut |_| {})),
        (_, Some(Place::State { slot, clears })) => Body::State { slot: slot.clone(), clears: clears.clone() },
        _ => Body::Event,
    }
}
