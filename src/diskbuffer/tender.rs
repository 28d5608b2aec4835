//! What has to be done although neither upstream nor downstream stirs: the store's own thread comes by for it.

use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::imp::DiskBuffer;
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
    /// Stores what has waited in memory for long enough.
    fn tend(&self) -> Option<Duration> {
        let session = self.session()?;
        let settings = self.settings();
        let due = self.state().spool_due(&settings, Instant::now());
        if due {
            let _ = self.spool(&session);
        }
        let waiting = self.state().tail.has_unstored();
        let wanted = Duration::from_nanos(settings.spill_after / 2).max(SHORTEST);
        Some(if waiting { wanted.min(INTERVAL) } else { INTERVAL })
    }
}
