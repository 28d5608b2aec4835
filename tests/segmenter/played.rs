//! What a pipeline with a `segmenter` named `s` gave: everything that left its source pads, and its messages.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use gst::prelude::*;

use super::common;

#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// As stamped, ns.
    pub pts: u64,
    pub dts: Option<u64>,
    pub duration: Option<u64>,
    pub keyframe: bool,
    pub size: usize,
    pub running_time: Option<u64>,
    pub stream_time: Option<u64>,
    /// None without the meta.
    pub ids: Option<Vec<u64>>,
    pub late: bool,
    /// Which push it came in.
    pub push: usize,
}

#[derive(Debug, Clone)]
pub enum Item {
    Buffer(Seen),
    Start(gst::Structure),
    End(gst::Structure),
    Event(gst::Event),
}

/// `ids` and `late` of the meta.
pub fn meta(buffer: &gst::BufferRef) -> Option<(Vec<u64>, bool)> {
    let meta = gst::meta::CustomMeta::from_buffer(buffer, "segmenter-windows").ok()?;
    let ids: gst::Array = meta.structure().get("ids").unwrap();
    Some((ids.iter().map(|id| id.get().unwrap()).collect(), meta.structure().get("late").unwrap()))
}

#[derive(Default)]
pub struct Record {
    pub items: Vec<Item>,
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    pushes: usize,
}

impl Record {
    pub fn buffer(&mut self, buffer: &gst::BufferRef) {
        self.pushes += 1;
        self.add(buffer);
    }

    pub fn list(&mut self, list: &gst::BufferListRef) {
        self.pushes += 1;
        list.iter().for_each(|buffer| self.add(buffer));
    }

    fn add(&mut self, buffer: &gst::BufferRef) {
        let meta = meta(buffer);
        let time = |of: &dyn Fn(&gst::FormattedSegment<gst::ClockTime>) -> Option<gst::ClockTime>| {
            self.segment.as_ref().and_then(of).map(gst::ClockTime::nseconds)
        };
        self.items.push(Item::Buffer(Seen {
            pts: buffer.pts().map_or(u64::MAX, gst::ClockTime::nseconds),
            dts: buffer.dts().map(gst::ClockTime::nseconds),
            duration: buffer.duration().map(gst::ClockTime::nseconds),
            keyframe: !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
            size: buffer.size(),
            running_time: time(&|segment| segment.to_running_time(buffer.pts())),
            stream_time: time(&|segment| segment.to_stream_time(buffer.pts())),
            late: meta.as_ref().is_some_and(|(_, late)| *late),
            ids: meta.map(|(ids, _)| ids),
            push: self.pushes,
        }));
    }

    pub fn event(&mut self, event: &gst::Event) {
        if let gst::EventView::Segment(segment) = event.view() {
            self.segment = segment.segment().downcast_ref().cloned();
        }
        let structure = event.structure().map(|s| (s.name().as_str(), s));
        self.items.push(match structure {
            Some(("segmenter-window-start", s)) => Item::Start(s.to_owned()),
            Some(("segmenter-window-end", s)) => Item::End(s.to_owned()),
            _ => Item::Event(event.clone()),
        });
    }
}

pub type Shared = Arc<Mutex<Record>>;

/// Writes down what leaves a pad.
pub fn watch(pad: &gst::Pad) -> Shared {
    let record = Shared::default();
    let into = record.clone();
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(kinds, move |_, info| {
        let mut record = into.lock().unwrap();
        match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => record.buffer(buffer),
            Some(gst::PadProbeData::BufferList(list)) => record.list(list),
            Some(gst::PadProbeData::Event(event)) => record.event(event),
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
    record
}

pub struct Played {
    pub pads: BTreeMap<String, Vec<Item>>,
    pub closed: Vec<gst::Structure>,
}

/// Parses, watches every source pad of `s`, and runs to EOS.
pub fn play(description: &str) -> Played {
    let pipeline = parse(description);
    let records = watch_all(&pipeline);
    finish(&pipeline, &records)
}

pub fn parse(description: &str) -> gst::Pipeline {
    common::init();
    gst::parse::launch(description).unwrap().downcast().unwrap()
}

pub fn segmenter(pipeline: &gst::Pipeline) -> gst::Element {
    pipeline.by_name("s").unwrap()
}

pub fn watch_all(pipeline: &gst::Pipeline) -> BTreeMap<String, Shared> {
    let pads = segmenter(pipeline).src_pads();
    pads.iter().map(|pad| (pad.name().to_string(), watch(pad))).collect()
}

pub fn finish(pipeline: &gst::Pipeline, records: &BTreeMap<String, Shared>) -> Played {
    let closed = Arc::new(Mutex::new(Vec::new()));
    let into = closed.clone();
    pipeline.bus().unwrap().set_sync_handler(move |_, message| {
        if let Some(s) = message.structure().filter(|s| s.name() == "segmenter-window-closed") {
            into.lock().unwrap().push(s.to_owned());
        }
        gst::BusSyncReply::Pass
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    common::wait_for_eos(pipeline);
    pipeline.set_state(gst::State::Null).unwrap();
    pipeline.bus().unwrap().unset_sync_handler();
    let pads = records.iter().map(|(name, record)| (name.clone(), std::mem::take(&mut record.lock().unwrap().items)));
    let closed = std::mem::take(&mut *closed.lock().unwrap());
    Played { pads: pads.collect(), closed }
}

impl Played {
    pub fn items(&self, pad: &str) -> &[Item] {
        &self.pads[pad]
    }

    pub fn buffers(&self, pad: &str) -> Vec<&Seen> {
        buffers(self.items(pad))
    }
}

pub fn buffers(items: &[Item]) -> Vec<&Seen> {
    items
        .iter()
        .filter_map(|item| match item {
            Item::Buffer(seen) => Some(seen),
            _ => None,
        })
        .collect()
}

pub fn field(s: &gst::StructureRef, name: &str) -> u64 {
    let value = s.value(name).unwrap();
    value.get::<u64>().unwrap_or_else(|_| value.get::<u32>().unwrap().into())
}

/// Each window is announced before its first buffer, and ends after its last; the end counts what was in it.
pub fn check_order(items: &[Item]) {
    check(items, true);
}

/// The same where flags and bitstream do not agree on keyframes (bbb_64s.mp4).
pub fn check_spans(items: &[Item]) {
    check(items, false);
}

fn check(items: &[Item], by_flags: bool) {
    let mut open: BTreeMap<u64, (u64, u64, u64)> = BTreeMap::new();
    let mut ended = Vec::new();
    for item in items {
        match item {
            Item::Start(s) => {
                let id = field(s, "window-id");
                assert!(!ended.contains(&id), "window {id} begins again");
                assert!(open.insert(id, (0, 0, 0)).is_none(), "window {id} begins twice");
            }
            Item::Buffer(seen) if !seen.late => {
                for id in seen.ids.iter().flatten() {
                    let count = open.get_mut(id).unwrap_or_else(|| panic!("{seen:?} outside of its window"));
                    count.0 += 1;
                    count.1 += u64::from(seen.keyframe);
                    count.2 += seen.size as u64;
                }
            }
            Item::End(s) => {
                let id = field(s, "window-id");
                let (frames, keyframes, bytes) = open.remove(&id).unwrap_or_else(|| panic!("window {id} ends unbegun"));
                assert_eq!((field(s, "frames"), field(s, "bytes")), (frames, bytes), "{s}");
                assert!(!by_flags || field(s, "keyframes") == keyframes, "{keyframes} keyframes in {s}");
                ended.push(id);
            }
            Item::Buffer(_) | Item::Event(_) => {}
        }
    }
    assert!(open.is_empty(), "windows that do not end: {open:?}");
}

/// Two seconds of H.264 with B-frames where there are no clips.
pub fn generated(frames: u32) -> String {
    format!(
        "videotestsrc num-buffers={frames} ! video/x-raw,width=160,height=120,framerate=24/1 ! \
         x264enc bframes=3 b-adapt=false key-int-max=48 speed-preset=ultrafast threads=1 ! h264parse"
    )
}

/// A clip from the container on, or what is made up.
pub fn source(clip: &str) -> String {
    match common::clip(clip) {
        Some(path) => format!("filesrc location={} ! qtdemux ! h264parse", path.display()),
        None => generated(300),
    }
}
