//! What the tests share: the plugin, pipelines that end by themselves, clips, made-up streams.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, Once};
use std::time::{Duration, Instant};

use gst::prelude::*;

/// Long enough for a loaded machine; nothing waits for it unless something is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        gst::init().unwrap();
        gststreambuffer::plugin_register_static().unwrap();
    });
}

/// A real clip; `None` on a machine without them.
pub fn clip(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/media").join(name);
    if !path.exists() {
        eprintln!("{name} is not on this machine: this part of the test did not run");
    }
    path.exists().then_some(path)
}

/// Waits for a condition that no event announces.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn wait_for_eos(pipeline: &gst::Pipeline) {
    let bus = pipeline.bus().unwrap();
    let patience = gst::ClockTime::from_seconds(PATIENCE.as_secs());
    match bus.timed_pop_filtered(patience, &[gst::MessageType::Eos, gst::MessageType::Error]) {
        Some(message) => {
            if let gst::MessageView::Error(err) = message.view() {
                panic!("{}: {:?}", err.error(), err.debug());
            }
        }
        None => panic!("the pipeline does not end"),
    }
}

/// The next element message of this name.
pub fn message(bus: &gst::Bus, name: &str) -> gst::Structure {
    let patience = gst::ClockTime::from_seconds(PATIENCE.as_secs());
    loop {
        let message = bus.timed_pop_filtered(patience, &[gst::MessageType::Element]);
        let message = message.unwrap_or_else(|| panic!("no message {name}"));
        if let Some(s) = message.structure().filter(|s| s.name() == name) {
            return s.to_owned();
        }
    }
}

/// As a process that is killed now leaves it.
pub fn copy_store(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().unwrap().is_dir() {
            true => copy_store(&path, &target),
            false if entry.file_name() == "ballast" => {}
            false => _ = std::fs::copy(&path, &target).unwrap(),
        }
    }
}

/// A buffer as far as it must survive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub pts: Option<u64>,
    pub dts: Option<u64>,
    pub duration: Option<u64>,
    pub offsets: (u64, u64),
    pub flags: gst::BufferFlags,
    pub data: Vec<u8>,
}

pub fn see(buffer: &gst::BufferRef) -> Seen {
    Seen {
        pts: buffer.pts().map(gst::ClockTime::nseconds),
        dts: buffer.dts().map(gst::ClockTime::nseconds),
        duration: buffer.duration().map(gst::ClockTime::nseconds),
        offsets: (buffer.offset(), buffer.offset_end()),
        flags: buffer.flags() - gst::BufferFlags::TAG_MEMORY,
        data: buffer.map_readable().unwrap().to_vec(),
    }
}

/// What arrived at a sink, and a gate that can keep it from returning.
#[derive(Default)]
pub struct Arrived {
    pub buffers: Vec<Seen>,
    /// Running time of each, from the segment in force.
    pub running_times: Vec<Option<u64>>,
    pub events: Vec<(usize, gst::Event)>,
    segment: Option<gst::Segment>,
    pub lists: Vec<usize>,
    /// Position and whether it is a repeat, where buffers say so.
    pub positions: Vec<(u64, bool)>,
}

#[derive(Clone, Default)]
pub struct Sink {
    pub arrived: Arc<(Mutex<Arrived>, Condvar)>,
    gate: Arc<(Mutex<Gate>, Condvar)>,
    refuses: Arc<Mutex<Option<Refuses>>>,
}

type Refuses = Box<dyn Fn(&gst::CapsRef) -> bool + Send>;

#[derive(Default)]
struct Gate {
    /// Buffers that may pass; `None` for all.
    passes: Option<usize>,
    /// The streaming thread waits at it.
    held: bool,
    flushing: bool,
    answer: Option<gst::FlowError>,
}

impl Sink {
    /// Holds the streaming thread at the buffer after the next `passes` ones.
    pub fn hold_after(&self, passes: usize) {
        self.gate.0.lock().unwrap().passes = Some(passes);
        self.gate.1.notify_all();
    }

    /// Until the streaming thread is held.
    pub fn wait_held(&self) {
        let gate = self.gate.0.lock().unwrap();
        let waited = self.gate.1.wait_timeout_while(gate, PATIENCE, |gate| !gate.held).unwrap();
        assert!(!waited.1.timed_out(), "nothing comes to be held");
    }

    pub fn release(&self) {
        self.gate.0.lock().unwrap().passes = None;
        self.gate.1.notify_all();
    }

    /// Answers each buffer with this from now on.
    pub fn answer(&self, answer: Option<gst::FlowError>) {
        self.gate.0.lock().unwrap().answer = answer;
    }

    /// Answers data with caps of which `refuses` is true with not negotiated.
    pub fn refuse(&self, refuses: impl Fn(&gst::CapsRef) -> bool + Send + 'static) {
        *self.refuses.lock().unwrap() = Some(Box::new(refuses));
    }

    fn check_caps(&self, pad: &gst::Pad) -> Result<(), gst::FlowError> {
        let refuses = self.refuses.lock().unwrap();
        match (&*refuses, pad.current_caps()) {
            (Some(refuses), Some(caps)) if refuses(&caps) => Err(gst::FlowError::NotNegotiated),
            _ => Ok(()),
        }
    }

    fn pass(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mut gate = self.gate.0.lock().unwrap();
        loop {
            if gate.flushing {
                return Err(gst::FlowError::Flushing);
            }
            match &mut gate.passes {
                Some(0) => {
                    gate.held = true;
                    self.gate.1.notify_all();
                    gate = self.gate.1.wait(gate).unwrap();
                    gate.held = false;
                }
                Some(n) => {
                    *n -= 1;
                    break;
                }
                None => break,
            }
        }
        gate.answer.map_or(Ok(gst::FlowSuccess::Ok), Err)
    }

    fn take(&self, buffer: &gst::BufferRef) {
        let mut arrived = self.arrived.0.lock().unwrap();
        let time = arrived
            .segment
            .as_ref()
            .and_then(|s| s.downcast_ref::<gst::ClockTime>())
            .and_then(|s| s.to_running_time(buffer.dts_or_pts()?))
            .map(gst::ClockTime::nseconds);
        arrived.running_times.push(time);
        arrived.buffers.push(see(buffer));
        if let Ok(meta) = gst::meta::CustomMeta::from_buffer(buffer, "diskbuffer-position") {
            let get = |name: &str| meta.structure().value(name).unwrap().to_owned();
            arrived.positions.push((get("position").get().unwrap(), get("replayed").get().unwrap()));
        }
        drop(arrived);
        self.arrived.1.notify_all();
    }

    /// A pad that takes everything.
    pub fn pad(&self) -> gst::Pad {
        let (chain, list, event) = (self.clone(), self.clone(), self.clone());
        // Without a template a pad takes no caps but its first.
        let any = gst::Caps::new_any();
        let template = gst::PadTemplate::new("sink", gst::PadDirection::Sink, gst::PadPresence::Always, &any).unwrap();
        let pad = gst::Pad::builder_from_template(&template)
            .chain_function(move |pad, _, buffer| {
                chain.check_caps(pad)?;
                let ok = chain.pass()?;
                chain.take(&buffer);
                Ok(ok)
            })
            .chain_list_function(move |_, _, buffers| {
                let ok = list.pass()?;
                list.arrived.0.lock().unwrap().lists.push(buffers.len());
                buffers.iter().for_each(|buffer| list.take(buffer));
                Ok(ok)
            })
            .event_function(move |_, _, e| {
                match e.view() {
                    gst::EventView::FlushStart(_) => {
                        event.gate.0.lock().unwrap().flushing = true;
                        event.gate.1.notify_all();
                    }
                    gst::EventView::FlushStop(_) => event.gate.0.lock().unwrap().flushing = false,
                    _ => {}
                }
                let mut arrived = event.arrived.0.lock().unwrap();
                if let gst::EventView::Segment(s) = e.view() {
                    arrived.segment = Some(s.segment().clone());
                }
                let at = arrived.buffers.len();
                arrived.events.push((at, e));
                drop(arrived);
                event.arrived.1.notify_all();
                true
            })
            .query_function(gst::Pad::query_default)
            .build();
        pad.set_active(true).unwrap();
        pad
    }

    pub fn wait(&self, what: &str, mut done: impl FnMut(&Arrived) -> bool) {
        let arrived = self.arrived.0.lock().unwrap();
        let (arrived, timeout) =
            self.arrived.1.wait_timeout_while(arrived, PATIENCE, |arrived| !done(arrived)).unwrap();
        assert!(!timeout.timed_out(), "{what}: {} buffers arrived", arrived.buffers.len());
    }

    pub fn wait_buffers(&self, count: usize) {
        self.wait(&format!("{count} buffers"), |arrived| arrived.buffers.len() >= count);
    }

    pub fn wait_eos(&self) {
        self.wait("end of stream", |arrived| arrived.events.iter().any(|(_, e)| e.type_() == gst::EventType::Eos));
    }

    pub fn buffers(&self) -> Vec<Seen> {
        self.arrived.0.lock().unwrap().buffers.clone()
    }

    pub fn positions(&self) -> Vec<u64> {
        self.arrived.0.lock().unwrap().positions.iter().map(|p| p.0).collect()
    }

    pub fn replayed(&self) -> Vec<bool> {
        self.arrived.0.lock().unwrap().positions.iter().map(|p| p.1).collect()
    }

    pub fn running_times(&self) -> Vec<Option<u64>> {
        self.arrived.0.lock().unwrap().running_times.clone()
    }

    pub fn events(&self) -> Vec<(usize, gst::Event)> {
        self.arrived.0.lock().unwrap().events.clone()
    }
}

/// `diskbuffer` between a pad of ours and a sink of ours.
pub struct Rig {
    pub element: gst::Element,
    pub source: gst::Pad,
    pub sink: Sink,
    pub sinkpad: gst::Pad,
    pub bus: gst::Bus,
}

impl Rig {
    pub fn new(location: &Path, properties: &[(&str, &str)]) -> Self {
        Self::with_sink(location, properties, Sink::default())
    }

    /// Not started.
    pub fn idle(location: Option<&Path>, properties: &[(&str, &str)], sink: Sink) -> Self {
        init();
        let element = gst::ElementFactory::make("diskbuffer").build().unwrap();
        if let Some(location) = location {
            element.set_property("location", location.to_str().unwrap());
        }
        for (name, value) in properties {
            element.set_property_from_str(name, value);
        }
        let source = gst::Pad::builder(gst::PadDirection::Src).build();
        let sinkpad = sink.pad();
        source.link(&element.static_pad("sink").unwrap()).unwrap();
        element.static_pad("src").unwrap().link(&sinkpad).unwrap();
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        Self { element, source, sink, sinkpad, bus }
    }

    pub fn with_sink(location: &Path, properties: &[(&str, &str)], sink: Sink) -> Self {
        let rig = Self::idle(Some(location), properties, sink);
        rig.element.set_state(gst::State::Playing).unwrap();
        rig.source.set_active(true).unwrap();
        rig
    }

    pub fn start_stream(&self, id: &str, caps: &gst::Caps) {
        let group = gst::GroupId::next();
        assert!(self.source.push_event(gst::event::StreamStart::builder(id).group_id(group).build()));
        assert!(self.source.push_event(gst::event::Caps::new(caps)));
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        assert!(self.source.push_event(gst::event::Segment::new(&segment)));
    }

    pub fn push(&self, buffer: gst::Buffer) {
        assert_eq!(self.source.push(buffer), Ok(gst::FlowSuccess::Ok));
    }

    pub fn eos(&self) {
        self.source.push_event(gst::event::Eos::new());
    }

    pub fn stat(&self, name: &str) -> u64 {
        self.element.property::<gst::Structure>("stats").get(name).unwrap()
    }

    pub fn message(&self, name: &str) -> gst::Structure {
        message(&self.bus, name)
    }

    /// The identities between the counters.
    pub fn check_accounts(&self) {
        let stats = self.element.property::<gst::Structure>("stats");
        for suffix in ["", "-bytes"] {
            let get = |name: &str| stats.get::<u64>(&format!("{name}{suffix}")).unwrap();
            let sum = |names: &[&str]| names.iter().map(|n| get(n)).sum::<u64>();
            assert_eq!(get("received"), sum(&["stored", "bypassed", "queued", "rejected"]), "{stats}");
            let parts = ["delivered", "pending", "dropped", "expired", "purged", "lost"];
            assert_eq!(get("stored"), sum(&parts), "{stats}");
        }
    }

    pub fn stop(&self) {
        let _ = self.source.set_active(false);
        self.element.set_state(gst::State::Null).unwrap();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.source.set_active(false);
        let _ = self.element.set_state(gst::State::Null);
        // Messages hold their sender, which holds the bus.
        self.element.set_bus(None::<&gst::Bus>);
    }
}

pub const FRAME: u64 = 40_000_000;

pub fn h264_caps() -> gst::Caps {
    gst::Caps::builder("video/x-h264")
        .field("stream-format", "byte-stream")
        .field("alignment", "au")
        .field("width", 64i32)
        .field("height", 64i32)
        .build()
}

fn start_code(nal: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 1], nal].concat()
}

pub fn sps() -> Vec<u8> {
    start_code(&[0x67, 66, 0, 30, 0x80, 0x80])
}

pub fn pps() -> Vec<u8> {
    start_code(&[0x68, 0xC0])
}

/// A made-up H.264 access unit, keyframe every `gop`, with its number and noise in it. Parameter sets only in the first.
pub fn frame(number: u64, gop: u64, size: usize) -> gst::Buffer {
    let key = number.is_multiple_of(gop);
    let mut data = Vec::with_capacity(size + 64);
    if number == 0 {
        data.extend(sps());
        data.extend(pps());
    }
    data.extend(start_code(if key { &[0x65, 0xB8, 0x40] } else { &[0x41, 0x9A, 0x40] }));
    data.extend_from_slice(&number.to_be_bytes());
    let mut noise = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while data.len() < size {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        // Never part of a start code.
        data.extend(noise.to_be_bytes().map(|byte| byte | 0x80));
    }
    let mut buffer = gst::Buffer::from_mut_slice(data);
    {
        let buffer = buffer.get_mut().unwrap();
        buffer.set_pts(gst::ClockTime::from_nseconds(number * FRAME));
        buffer.set_dts(gst::ClockTime::from_nseconds(number * FRAME));
        buffer.set_duration(gst::ClockTime::from_nseconds(FRAME));
        buffer.set_offset(number);
        buffer.set_offset_end(number + 1);
        if !key {
            buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        if number % 7 == 3 {
            buffer.set_flags(gst::BufferFlags::MARKER);
        }
    }
    buffer
}

/// The number inside a made-up frame.
pub fn number(seen: &Seen) -> u64 {
    seen.offsets.0
}

/// Pictures in coding order: an open keyframe K is followed by pictures that are shown before it.
pub fn open_gop_stream() -> Vec<(u64, bool, gst::Buffer)> {
    // (presentation, kind): K at 3 with leading 1, 2; K at 9 with leading 7, 8.
    let order =
        [(0, 'I'), (3, 'K'), (1, 'b'), (2, 'b'), (4, 'p'), (5, 'p'), (6, 'p'), (9, 'K'), (7, 'b'), (8, 'b'), (10, 'p')];
    order
        .iter()
        .enumerate()
        .map(|(i, (pts, kind))| {
            let nal: &[&[u8]] = match kind {
                'I' => &[&[0x67, 66, 0, 30, 0x80, 0x80], &[0x68, 0xC0], &[0x65, 0xB8, 0x40]],
                // Recovery point SEI, recovery_frame_cnt 0, before an I slice.
                'K' => &[&[6, 6, 1, 0xC4, 0x80], &[0x41, 0xB8, 0x40]],
                _ => &[&[0x41, 0x9A, 0x40]],
            };
            let data: Vec<u8> = nal.iter().flat_map(|nal| [&[0, 0, 0, 1], *nal].concat()).collect();
            let mut buffer = gst::Buffer::from_mut_slice(data);
            let b = buffer.get_mut().unwrap();
            b.set_pts(gst::ClockTime::from_nseconds((pts + 2) * FRAME));
            b.set_dts(gst::ClockTime::from_nseconds(i as u64 * FRAME));
            b.set_offset(i as u64);
            (*pts, *kind == 'b', buffer)
        })
        .collect()
}
