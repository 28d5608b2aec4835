//! What has to be done although neither upstream nor downstream stirs: the store's own thread comes by for it.

use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::imp::{DiskBuffer, Session};
use crate::store::Tender;

/// How often it is looked in at the latest.
const INTERVAL: Duration = Duration::from_secs(1);
/// Never more often than this.
const SHORTEST: Duration = Duration::from_millis(20);

/// Holds no reference: an element can go while the store is open.
pub(super) struct ElementTender(glib::WeakRef<super::DiskBuffer>);

impl ElementTender {
    pub fn new(element: &super::DiskBuffer) -> Self {
        Self(element.downgrade())
    }
}

impl Tender for ElementTender {
    fn tend(&self) -> Option<Duration> {
        self.0.upgrade().and_then(|element| element.imp().tend())
    }
}

impl DiskBuffer {
    /// Stores what has waited in memory for long enough, gives up what is too old, tells what the store has seen.
    fn tend(&self) -> Option<Duration> {
        let session = self.session()?;
        let settings = self.settings();
        let due = self.state().spool_due(&settings, Instant::now(), session.stream.store().is_low());
        if due {
            let _ = self.spool(&session);
        }
        self.watch_disk(&session);
        if settings.max_age > 0 {
            self.expire(&session, Duration::from_nanos(settings.max_age));
        }
        self.keep_up_with_others(&session);
        let known = self.state().clock_steps;
        for step in session.stream.store().clock_steps(known) {
            self.state().clock_steps = step.number;
            self.tell_clock(step);
        }
        for incident in session.stream.take_incidents() {
            self.tell_incident(&incident);
        }
        let waiting = self.state().tail.has_unstored();
        let wanted = Duration::from_nanos(settings.spill_after / 2).max(SHORTEST);
        Some(if waiting { wanted.min(INTERVAL) } else { INTERVAL })
    }

    /// A disk that refuses shows also when no data comes.
    fn watch_disk(&self, session: &Session) {
        let fault = session.stream.store().fault();
        let change = {
            let mut state = self.state();
            match &fault {
                Some(error) if state.fault.is_none() => Self::note_fault(&mut state, Some(error)),
                None if state.fault.is_some() && !state.tail.has_unstored() => Self::note_fault(&mut state, None),
                _ => None,
            }
        };
        if let Some(change) = change {
            self.item_del.ring();
            self.tell_storage(change);
        }
    }
}
