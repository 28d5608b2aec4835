//! Triggers of event mode: by action, by custom event, by the label of a region of interest.

use gst::glib;

use super::frames::Look;
use super::imp::Segmenter;
use super::line::Key;

/// The action `trigger`.
pub fn signals() -> Vec<glib::subclass::Signal> {
    Vec::new()
}

impl Segmenter {
    /// Whether it was the event `segmenter-trigger`, which goes no further. From any pad, in any direction.
    pub(super) fn trigger_event(&self, _key: Key, _event: &gst::Event) -> bool {
        false
    }

    /// Each buffer, before it is told to the windows.
    pub(super) fn trigger_buffer(&self, _key: Key, _look: &Look, _buffer: &gst::BufferRef) {}
}
