//! Access units of H.264 from clips and encoders, what is in them, and the pictures that they show.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Once};

use gst::prelude::*;

thread_local! {
    /// What libav complained about on this thread.
    static COMPLAINTS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn listen_to_libav() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        gst::log::set_threshold_for_name("libav", gst::DebugLevel::Warning);
        gst::log::add_log_function(|category, level, _, _, _, _, message| {
            if category.name() == "libav" && level <= gst::DebugLevel::Warning {
                let said = message.get().map(|text| text.to_string()).unwrap_or_default();
                COMPLAINTS.with_borrow_mut(|complaints| complaints.push(said));
            }
        });
    });
}

/// Checksums of pictures by PTS.
pub type Pictures = BTreeMap<u64, u32>;

/// Every complaint is a failure. Of open GOPs libav complains whoever begins in the middle of the stream, and GStreamer 1.22
/// then loses the keyframe unless libav has threads: there the pictures have to be proof enough.
pub fn decode(what: &str, open: bool, passing: impl IntoIterator<Item = Result<gst::Buffer, gst::Event>>) -> Pictures {
    listen_to_libav();
    COMPLAINTS.take();
    let decoder = gst::ElementFactory::make("avdec_h264").build().unwrap();
    decoder.set_property("output-corrupt", false);
    decoder.set_property("max-errors", 0i32);
    if open {
        decoder.set_property_from_str("thread-type", "frame");
    }
    decoder.set_property("max-threads", if open { 2i32 } else { 1 });
    let bus = gst::Bus::new();
    decoder.set_bus(Some(&bus));
    let pictures: Arc<Mutex<Pictures>> = Default::default();
    let wrong: Arc<Mutex<Vec<String>>> = Default::default();
    let (taken, found) = (pictures.clone(), wrong.clone());
    let source = gst::Pad::builder(gst::PadDirection::Src).build();
    // Without a template a pad takes no caps but its first.
    let any = gst::Caps::new_any();
    let template = gst::PadTemplate::new("sink", gst::PadDirection::Sink, gst::PadPresence::Always, &any).unwrap();
    let sink = gst::Pad::builder_from_template(&template)
        .chain_function(move |_, _, buffer| {
            let checksum = crc32c::crc32c(&buffer.map_readable().unwrap());
            let before = taken.lock().unwrap().insert(buffer.pts().unwrap().nseconds(), checksum);
            if before.is_some() || buffer.flags().contains(gst::BufferFlags::CORRUPTED) {
                found.lock().unwrap().push(format!("{:?} {:?} {before:?} {checksum}", buffer.pts(), buffer.flags()));
            }
            Ok(gst::FlowSuccess::Ok)
        })
        .event_function(|_, _, _| true)
        .query_function(gst::Pad::query_default)
        .build();
    source.link(&decoder.static_pad("sink").unwrap()).unwrap();
    decoder.static_pad("src").unwrap().link(&sink).unwrap();
    sink.set_active(true).unwrap();
    decoder.set_state(gst::State::Playing).unwrap();
    source.set_active(true).unwrap();
    for item in passing {
        match item {
            Ok(buffer) => {
                let pts = buffer.pts();
                assert_eq!(source.push(buffer), Ok(gst::FlowSuccess::Ok), "{what}, at {pts:?}");
                let complaints = COMPLAINTS.take();
                assert!(open || complaints.is_empty(), "{what}, at {pts:?}: {complaints:?}");
            }
            Err(event) => _ = source.push_event(event),
        }
    }
    source.push_event(gst::event::Eos::new());
    let complaints = COMPLAINTS.take();
    assert!(open || complaints.is_empty(), "{what}, at the end: {complaints:?}");
    let wrong = wrong.lock().unwrap().clone();
    assert!(wrong.is_empty(), "{what}: {wrong:?}");
    let told = bus.pop_filtered(&[gst::MessageType::Error, gst::MessageType::Warning]);
    assert!(told.is_none(), "{what}: {told:?}");
    decoder.set_state(gst::State::Null).unwrap();
    decoder.set_bus(None::<&gst::Bus>);
    std::mem::take(&mut *pictures.lock().unwrap())
}

/// The first `count` buffers of what this gives, with their numbers as offsets. The end of `head` has to be encoded.
pub fn encoded(head: &str, count: usize) -> (gst::Caps, Vec<gst::Buffer>) {
    let pipeline = gst::parse::launch(&format!("{head} ! appsink name=units sync=false")).unwrap();
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let sink = pipeline.by_name("units").and_downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut caps = None;
    let mut units = Vec::new();
    while units.len() < count
        && let Ok(sample) = sink.pull_sample()
    {
        caps = sample.caps_owned();
        let mut unit = sample.buffer_owned().unwrap();
        let number = units.len() as u64;
        let buffer = unit.make_mut();
        buffer.set_offset(number);
        buffer.set_offset_end(number + 1);
        buffer.unset_flags(gst::BufferFlags::DISCONT);
        units.push(unit);
    }
    pipeline.set_state(gst::State::Null).unwrap();
    (caps.unwrap_or_else(|| panic!("{head} gives nothing")), units)
}

/// The same of H.264, a buffer for each access unit.
pub fn access_units(head: &str, stream_format: &str, count: usize) -> (gst::Caps, Vec<gst::Buffer>) {
    let caps = format!("video/x-h264,stream-format={stream_format},alignment=au");
    encoded(&format!("{head} ! h264parse ! {caps}"), count)
}

/// The video of a file as it is stored there.
pub fn video_of(path: &std::path::Path) -> String {
    format!("filesrc location=\"{}\" ! qtdemux name=demux demux.video_0", path.display())
}

/// The first two bytes of each NAL unit.
pub fn nal_units(data: &[u8], stream_format: &str) -> Vec<[u8; 2]> {
    let mut found = Vec::new();
    let mut at = 0;
    while at + 6 <= data.len() {
        if stream_format == "avc" {
            found.push([data[at + 4], data[at + 5]]);
            at += 4 + u32::from_be_bytes(data[at..at + 4].try_into().unwrap()) as usize;
        } else {
            if data[at..at + 3] == [0, 0, 1] {
                found.push([data[at + 3], data[at + 4]]);
            }
            at += 1;
        }
    }
    found
}

/// A slice of an IDR picture.
pub fn is_idr(unit: &[u8; 2]) -> bool {
    unit[0] & 31 == 5
}

/// Or a recovery point: an intra picture without may be referred over by what follows it.
pub fn is_start(unit: &[u8; 2]) -> bool {
    is_idr(unit) || (unit[0] & 31 == 6 && unit[1] == 6)
}
