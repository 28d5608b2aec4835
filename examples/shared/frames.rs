//! Decoding shared by `receiver` and `report`: an H.264 byte stream in, one checksum per decoded picture out.
//!
//! Both sides of the comparison go through the same decoder with the same settings, so that equal checksums mean
//! equal pictures. Pictures that the decoder knows to be damaged are left out: they were not received.

use std::error::Error;
use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};

use gst::prelude::*;
use gst_video::prelude::*;

/// Stands at the head of a connection in the receiver's list of checksums.
pub const CONNECTION: &str = "connection";

/// `source` (gst-launch syntax, giving an H.264 byte stream) followed by the decoder; `on_picture` gets the checksum of
/// each picture in display order, from the streaming thread.
pub fn pipeline(
    source: &str,
    mut on_picture: impl FnMut(u64) + Send + 'static,
) -> Result<gst::Pipeline, Box<dyn Error>> {
    let description = format!(
        "{source} ! h264parse ! avdec_h264 output-corrupt=false max-threads=1 \
         ! videoconvert ! video/x-raw,format=I420 ! appsink name=pictures sync=false"
    );
    let pipeline = gst::parse::launch(&description)?
        .downcast::<gst::Pipeline>()
        .map_err(|_| "the description is not a pipeline")?;
    let appsink =
        pipeline.by_name("pictures").and_downcast::<gst_app::AppSink>().ok_or("no appsink in the pipeline")?;
    appsink.set_callbacks(
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                on_picture(checksum(&sample).ok_or(gst::FlowError::Error)?);
                Ok(gst::FlowSuccess::Ok)
            })
            .build(),
    );
    Ok(pipeline)
}

/// Waits until the stream of `pipeline` ended or `stop` is set, then shuts the pipeline down.
pub fn finish(pipeline: &gst::Pipeline, stop: &AtomicBool) -> Result<(), Box<dyn Error>> {
    let bus = pipeline.bus().ok_or("a pipeline has a bus")?;
    let mut result = Ok(());
    while !stop.load(Ordering::Relaxed) {
        let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
        match bus.timed_pop_filtered(gst::ClockTime::from_mseconds(100), &kinds) {
            None => continue,
            Some(message) => {
                if let gst::MessageView::Error(error) = message.view() {
                    result = Err(format!("{} ({})", error.error(), error.debug().unwrap_or_default()).into());
                }
                break;
            }
        }
    }
    pipeline.set_state(gst::State::Null)?;
    result
}

/// Checksum of the visible part of all planes; padding at the ends of lines does not count.
fn checksum(sample: &gst::Sample) -> Option<u64> {
    let info = gst_video::VideoInfo::from_caps(sample.caps()?).ok()?;
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(sample.buffer()?, &info).ok()?;
    let mut hasher = DefaultHasher::new();
    for plane in 0..frame.n_planes() {
        // In I420 a plane holds one component of one byte a sample, and planes and components have the same index.
        let width = frame.comp_width(plane) as usize;
        let height = frame.comp_height(plane) as usize;
        let stride = frame.plane_stride()[plane as usize] as usize;
        for line in frame.plane_data(plane).ok()?.chunks(stride).take(height) {
            hasher.write(line.get(..width)?);
        }
    }
    Some(hasher.finish())
}
