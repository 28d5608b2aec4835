//! Between GStreamer and the store: buffers, events and what can be seen in a bitstream, as records.
//!
//! What goes in comes out equal (payload, timestamps, offsets, flags, sticky and custom events); what cannot be written
//! down says so and passes from memory only.

pub mod beginning;
pub(crate) mod bits;
pub mod buffer;
#[cfg(test)]
mod clips;
pub mod content;
pub mod event;
pub mod keyframe;
pub mod meta;
pub mod nal;
pub mod position;
pub mod reference;
mod text;

/// GStreamer's -1 is no time.
fn clock_time(ns: u64) -> Option<gst::ClockTime> {
    (ns != gst::ffi::GST_CLOCK_TIME_NONE).then(|| gst::ClockTime::from_nseconds(ns))
}
