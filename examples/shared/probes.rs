//! Pad probes of `sender`: what makes a stream live, its pictures unique, and its content known.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;

/// Appends each access unit to `path` once it is certain that `pad`'s element accepted it: when the next one or EOS
/// arrives, the call that handed it over has returned. After SIGKILL the last accepted unit may be missing.
pub fn write_truth(pad: &gst::Pad, path: &Path) -> Result<(), Box<dyn Error>> {
    let mut file = File::create(path)?;
    let mut handed_over: Option<gst::Buffer> = None;
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    probe(pad, mask, move |_, info| {
        let arriving = match &info.data {
            Some(gst::PadProbeData::Buffer(unit)) => Some(unit.clone()),
            Some(gst::PadProbeData::Event(event)) if event.type_() == gst::EventType::Eos => None,
            _ => return gst::PadProbeReturn::Ok,
        };
        let accepted = std::mem::replace(&mut handed_over, arriving);
        if let Some(data) = accepted.and_then(|unit| unit.into_mapped_buffer_readable().ok())
            && let Err(error) = file.write_all(&data)
        {
            // Without the truth the run proves nothing.
            eprintln!("sender: cannot write the truth: {error}");
            std::process::exit(1);
        }
        gst::PadProbeReturn::Ok
    });
    Ok(())
}

/// Drops what lies before `skip` (wrapping at the end of a clip), and then up to an IDR picture: what follows decodes by itself.
/// The pad carries AVC, whole access units.
pub fn start_at(pad: &gst::Pad, skip: gst::ClockTime) {
    let mut skip_to: Option<gst::ClockTime> = None;
    let mut started = false;
    probe(pad, gst::PadProbeType::BUFFER, move |pad, info| {
        let Some(unit) = info.buffer().filter(|_| !started) else { return gst::PadProbeReturn::Ok };
        let skip_to = *skip_to.get_or_insert_with(|| match pad.peer_query_duration::<gst::ClockTime>() {
            Some(duration) if !duration.is_zero() => {
                gst::ClockTime::from_nseconds(skip.nseconds() % duration.nseconds())
            }
            _ => skip,
        });
        started = unit.dts_or_pts() >= Some(skip_to) && unit.map_readable().is_ok_and(|data| holds_idr(&data));
        // Not Drop: with that GStreamer 1.22 releases a buffer that the bindings have released already.
        if started { gst::PadProbeReturn::Ok } else { gst::PadProbeReturn::Handled }
    });
}

/// Whether an access unit in AVC form (NAL units, each after its length in four bytes) holds a slice of an IDR picture.
fn holds_idr(mut unit: &[u8]) -> bool {
    const IDR_SLICE: u8 = 5;
    while let Some((length, rest)) = unit.split_first_chunk::<4>() {
        if rest.first().is_some_and(|header| header & 0x1f == IDR_SLICE) {
            return true;
        }
        unit = rest.get(u32::from_be_bytes(*length) as usize..).unwrap_or_default();
    }
    false
}

/// Lets a clip through at the speed of its timestamps, as a camera would deliver it.
pub fn pace(pad: &gst::Pad) {
    let mut origin: Option<(gst::ClockTime, Instant)> = None;
    probe(pad, gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(time) = info.buffer().and_then(|buffer| buffer.dts_or_pts()) {
            let (first, started) = *origin.get_or_insert_with(|| (time, Instant::now()));
            let due = started + Duration::from(time.saturating_sub(first));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        gst::PadProbeReturn::Ok
    });
}

/// Draws `mark` and the number of the picture as two rows of black and white squares: no two pictures are equal.
pub fn draw_counter(pad: &gst::Pad, mark: u32) {
    const SQUARE: usize = 16;
    const WIDTH: usize = 640;
    let mut number = 0_u32;
    probe(pad, gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer_mut()
            && let Ok(mut picture) = buffer.make_mut().map_writable()
        {
            for (row, value) in [mark, number].into_iter().enumerate() {
                for line in picture.chunks_mut(WIDTH).skip(row * SQUARE).take(SQUARE) {
                    for (bit, square) in line.chunks_mut(SQUARE).take(32).enumerate() {
                        square.fill(if value >> (31 - bit) & 1 == 1 { 235 } else { 16 });
                    }
                }
            }
            number += 1;
        }
        gst::PadProbeReturn::Ok
    });
}

/// A pad probe with state: serialized data arrives from one thread at a time.
fn probe(
    pad: &gst::Pad,
    mask: gst::PadProbeType,
    callback: impl FnMut(&gst::Pad, &mut gst::PadProbeInfo) -> gst::PadProbeReturn + Send + 'static,
) {
    let callback = Mutex::new(callback);
    pad.add_probe(mask, move |pad, info| {
        let mut callback = callback.lock().unwrap_or_else(PoisonError::into_inner);
        callback(pad, info)
    });
}
