//! Room for what comes in: waited for or made, as `leaky` says.
//!
//! Whole GOPs are dropped, the oldest or the newest. With `leaky=no` upstream waits; every wait ends with a flush, a state
//! change, or a limit that is raised.

use std::sync::Arc;
use std::time::Duration;

use gst::subclass::prelude::*;

use super::giving_up::with;
use super::imp::{CAT, DiskBuffer, Session, Signal};
use super::ingest::Dropped;
use super::settings::{Leaky, Settings};
use super::state::{Full, State};
use super::tail::memory_limit;
use crate::store::{Cause, Sync};

/// How often a full disk is looked at again.
const DISK_POLL: Duration = Duration::from_millis(500);
/// How long the space of dropped data may take to come back.
const SETTLE: Duration = Duration::from_millis(200);

/// Room for a buffer, or none.
pub(super) enum Room {
    Store,
    Drop(Full),
}

impl DiskBuffer {
    /// Waits for room or makes it, as `leaky` says.
    pub(super) fn make_room(
        &self,
        session: &Session,
        settings: &Arc<Settings>,
        dropping: Option<&Dropped>,
        sync: Sync,
    ) -> Result<Room, gst::FlowError> {
        let mut told = false;
        // Limits may change while waiting.
        let mut settings = settings.clone();
        loop {
            let store = session.stream.store();
            let reason = {
                let limit = memory_limit(&settings).saturating_mul(2);
                // A disk that is slower than upstream sets the pace, whoever stores.
                let behind =
                    |state: &mut State| state.spooling && state.flow.is_ok() && state.tail.unstored_bytes() > limit;
                let state = self.item_del.wait_timeout_while(self.state(), Duration::MAX, behind);
                state.flow?;
                state.full(&settings, store.is_low())
            };
            let Some(reason) = reason else {
                // Once dropping has begun it goes on to the next keyframe.
                return Ok(match dropping {
                    Some(dropped) if sync == Sync::None && !dropped.is_enough() => Room::Drop(dropped.reason),
                    _ => Room::Store,
                });
            };
            if !std::mem::replace(&mut told, true) {
                gst::debug!(CAT, imp = self, "Full: {} reached", reason.reason());
                self.emit(Signal::Overrun);
                settings = self.settings();
                continue;
            }
            match settings.leaky {
                Leaky::Upstream => return Ok(Room::Drop(reason)),
                // What is not on the disk cannot be traded for space there.
                Leaky::Downstream | Leaky::Thin if reason == Full::Memory => return Ok(Room::Drop(reason)),
                // Near the floor there is no room for what would stay.
                Leaky::Thin if reason != Full::Disk && self.thin_oldest(session, &settings, reason) => {}
                Leaky::Downstream | Leaky::Thin => {
                    // With a disk that does not work nothing gets better by trying again.
                    match self.drop_oldest(session, &settings, reason) {
                        None => return Ok(Room::Drop(reason)),
                        Some(false) if sync == Sync::None => return Ok(Room::Drop(reason)),
                        Some(_) => {}
                    }
                }
                Leaky::No => {
                    let state = self.state();
                    state.flow?;
                    if state.full(&settings, store.is_low()).is_some() {
                        // Nobody tells when other users of the disk make room.
                        let (guard, _) = self.item_del.wait_timeout(state, DISK_POLL);
                        drop(guard);
                        match reason {
                            Full::Disk => store.refresh_space(),
                            Full::Memory if session.stream.probe() => _ = self.spool(session),
                            _ => {}
                        }
                    }
                    settings = self.settings();
                }
            }
        }
    }

    /// Drops the oldest GOPs until the rest fits. False when not even the newest keyframe can stay; `None` when the disk
    /// cannot tell where one begins.
    fn drop_oldest(&self, session: &Session, settings: &Settings, reason: Full) -> Option<bool> {
        // What memory alone holds has no index.
        if !self.spool_all(session) {
            return None;
        }
        let (cursor, end, cuts) = {
            let state = self.state();
            (state.cursor, state.end, session.stream.cuts())
        };
        // For the disk's sake one step at a time: it says by itself when it has enough.
        let next = session.stream.first_sync(cursor.position, |totals| State::fits_from(settings, end.totals, totals));
        let (to, kept) = match next {
            Ok(Some(mark)) => (mark, true),
            Ok(None) => (end, false),
            Err(err) => {
                gst::warning!(CAT, imp = self, "The backlog cannot be read: {err}");
                self.state().last_error = Some(err.to_string());
                return None;
            }
        };
        let (from, (dropped, rejected)) = {
            let mut state = self.settled_state();
            if state.spooling {
                return None;
            }
            // Delivery may have come further meanwhile.
            if to.sequence <= state.cursor.position || session.stream.cuts() != cuts {
                return Some(true);
            }
            let from = state.cursor.position;
            let dropped = state.drop_until(&session.stream, to, Cause::Dropped);
            session.stream.set_cursor(state.cursor);
            (from, dropped)
        };
        self.item_add.ring();
        self.tell_dropped(reason.reason(), from, to.sequence - 1, with(dropped, rejected));
        if kept {
            self.others_drop(session, to.sequence);
        }
        if reason == Full::Disk {
            self.let_disk_settle(session);
        }
        Some(kept)
    }

    /// The space of what was dropped comes back within a moment; without it more would be dropped than is needed.
    fn let_disk_settle(&self, session: &Session) {
        let state = self.state();
        let flushing = |state: &mut State| state.flow.is_ok();
        drop(self.item_del.wait_timeout_while(state, SETTLE, flushing));
        session.stream.store().refresh_space();
    }
}
