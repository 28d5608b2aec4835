//! What passes a pad, written down so that two pads can be compared, and the ways data takes through the element.

use std::sync::{Arc, Condvar, Mutex};

use gst::prelude::*;

use crate::common::*;

/// From where the element delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Downstream keeps up: what it gets never left memory.
    Memory,
    /// Memory is given up at once: the disk is read while it is being written.
    Disk,
    /// The same, and downstream takes nothing before upstream has ended.
    Backlog,
}

impl Way {
    pub const ALL: [Way; 3] = [Way::Memory, Way::Disk, Way::Backlog];

    pub fn properties(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Way::Memory => &[],
            Way::Disk | Way::Backlog => &[("max-memory-bytes", "0")],
        }
    }

    /// Whether data waits for upstream to end.
    pub fn holds(self) -> bool {
        self == Way::Backlog
    }
}

/// Something serialized.
#[derive(Clone, PartialEq, Eq)]
pub enum Passing {
    Buffer(Seen, MediaFlags),
    /// Sizes of its buffers, which follow.
    List(Vec<usize>),
    Event(String),
}

/// Buffer flags that a media library defines, which the bindings do not show: the fields of interlaced video, for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaFlags(pub u32);

impl MediaFlags {
    const MASK: u32 = !(gst::ffi::GST_BUFFER_FLAG_LAST - 1);

    pub fn of(buffer: &gst::BufferRef) -> Self {
        // SAFETY: the field of a valid buffer, read while it is borrowed.
        Self(unsafe { (*buffer.as_ptr()).mini_object.flags } & Self::MASK)
    }

    pub fn put_on(self, buffer: &mut gst::BufferRef) {
        // SAFETY: the field of a valid buffer that is borrowed alone.
        unsafe { (*buffer.as_mut_ptr()).mini_object.flags |= self.0 & Self::MASK };
    }
}

impl std::fmt::Debug for Passing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Passing::Buffer(seen, media) => {
                let Seen { pts, dts, duration, offsets, flags, data } = seen;
                write!(
                    f,
                    "buffer pts {pts:?} dts {dts:?} duration {duration:?} offsets {offsets:?} {flags:?} {media:x?}"
                )?;
                write!(f, " {} bytes, crc {:08x}", data.len(), crc32c::crc32c(data))
            }
            Passing::List(sizes) => write!(f, "list of {sizes:?}"),
            Passing::Event(said) => write!(f, "event {said}"),
        }
    }
}

/// What an event says, but for its number.
pub fn said(event: &gst::EventRef) -> String {
    let structure = event.structure().map(|structure| {
        let mut structure = structure.to_owned();
        // An object, which has no text.
        structure.remove_field("stream");
        structure.to_string()
    });
    format!("{} {}", event.type_(), structure.unwrap_or_default())
}

#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<Vec<Passing>>>);

impl Trace {
    pub fn of(pad: &gst::Pad) -> Self {
        let trace = Self::default();
        let notes = trace.0.clone();
        let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST | gst::PadProbeType::EVENT_DOWNSTREAM;
        pad.add_probe(mask, move |_, info| {
            let mut notes = notes.lock().unwrap();
            let buffer = |b: &gst::BufferRef| Passing::Buffer(see(b), MediaFlags::of(b));
            match &info.data {
                Some(gst::PadProbeData::Buffer(b)) => notes.push(buffer(b)),
                Some(gst::PadProbeData::BufferList(list)) => {
                    notes.push(Passing::List(list.iter().map(gst::BufferRef::size).collect()));
                    notes.extend(list.iter().map(buffer));
                }
                Some(gst::PadProbeData::Event(e)) if e.is_serialized() => notes.push(Passing::Event(said(e))),
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
        trace
    }

    pub fn get(&self) -> Vec<Passing> {
        self.0.lock().unwrap().clone()
    }
}

/// The same in the same order; else shows where they part.
pub fn assert_same<T: PartialEq + std::fmt::Debug>(what: &str, expected: &[T], got: &[T]) {
    if let Some(i) = (0..expected.len().max(got.len())).find(|i| expected.get(*i) != got.get(*i)) {
        panic!(
            "{what}: they part at {i} of {} and {}\n  expected: {:?}\n       got: {:?}",
            expected.len(),
            got.len(),
            expected.get(i),
            got.get(i)
        );
    }
}

/// Keeps a pad's streaming thread at its first buffer until it is opened.
#[derive(Clone, Default)]
pub struct Barrier(Arc<(Mutex<bool>, Condvar)>);

impl Barrier {
    pub fn at(pad: &gst::Pad) -> Self {
        let barrier = Self::default();
        let inner = barrier.clone();
        pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, _| {
            let open = inner.0.0.lock().unwrap();
            let (open, _) = inner.0.1.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap();
            assert!(*open, "the barrier stays closed");
            gst::PadProbeReturn::Ok
        });
        barrier
    }

    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Opens when the stream that comes in at the pad has ended.
    pub fn open_at_eos_of(&self, pad: &gst::Pad) {
        let barrier = self.clone();
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if info.event().is_some_and(|event| event.type_() == gst::EventType::Eos) {
                barrier.open();
            }
            gst::PadProbeReturn::Ok
        });
    }
}
