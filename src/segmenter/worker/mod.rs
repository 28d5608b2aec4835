//! Worker pads: each gets whole windows of the reference stream.

use gst::subclass::prelude::*;

use super::imp::Segmenter;
use super::line::Passing;
use super::tell::{Ending, Opening};

/// What the element keeps of its worker pads.
#[derive(Default)]
pub struct Workers {}

impl Segmenter {
    /// A pad from the template `worker_%u`.
    pub(super) fn request_worker(&self, _template: &gst::PadTemplate, _name: Option<&str>) -> Option<gst::Pad> {
        let _ = (&self.workers, self.obj());
        None
    }

    /// False if it is no worker pad.
    pub(super) fn release_worker(&self, _pad: &gst::Pad) -> bool {
        false
    }

    /// READY to PAUSED, before pads are activated.
    pub(super) fn start_workers(&self) {}

    /// PAUSED to READY, before pads are deactivated: nobody waits any more, blocked pushes are freed.
    pub(super) fn stop_workers(&self) {}

    /// A window begins on the reference stream; its first buffer follows. All that follows is called by the thread that
    /// pushes the reference stream, without locks, in the order in which things leave.
    pub(super) fn worker_window_begins(&self, _window: &std::sync::Arc<Opening>) {}

    /// A buffer of the reference stream with its windows, also if it is in none. None: there are no workers.
    pub(super) fn worker_buffer(&self, _passing: &Passing) -> Option<Result<gst::FlowSuccess, gst::FlowError>> {
        None
    }

    pub(super) fn worker_window_ends(&self, _ending: &Ending) {}

    /// A serialized event of the reference stream in its place, EOS and sticky ones among them.
    pub(super) fn worker_event(&self, _event: &gst::Event) {}

    /// The reference stream is flushed (by another thread): what is under way ends.
    pub(super) fn worker_flush_start(&self, _event: &gst::Event) {}

    pub(super) fn worker_flush_stop(&self, _event: &gst::Event) {}
}
