//! Serialized events as records and back.
//!
//! Sticky events are state: each has a slot, a later one of the same slot replaces it, and STREAM_START ends what GStreamer's
//! pads end with it. The others pass once. An event whose content cannot be written down (a message, caps with a pointer in
//! them) passes from memory only and leaves a mark.

mod objects;

use bitcode::{Decode, Encode};
use gst::glib::translate::{IntoGlib, IntoGlibPtr, ToGlibPtr, from_glib_full};

use crate::media::nal::ParameterSets;
use crate::media::{clock_time, text};
use crate::store::{Clears, Slot};

/// What an event becomes in the log.
#[derive(Debug, Clone)]
pub struct Coded {
    pub place: Place,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Once,
    State { slot: Slot, clears: Clears },
}

/// The running-time domain of what follows: first of all state.
const DOMAIN_RANK: u32 = 0;
/// Parameter sets in force: after every event.
const SETS_RANK: u32 = u32::MAX;

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
enum Stored {
    StreamStart {
        id: String,
        flags: u32,
        group: Option<u32>,
        stream: Option<objects::Stream>,
    },
    Caps(String),
    Segment(StoredSegment),
    Tag(objects::Tags),
    Collection(objects::Collection),
    Toc(objects::Toc),
    Gap {
        timestamp: u64,
        duration: Option<u64>,
        flags: u32,
    },
    Eos,
    StreamGroupDone,
    /// Everything that is a type and a structure.
    Structure {
        kind: u32,
        structure: String,
        running_time_offset: i64,
    },
    /// Not storable.
    Mark(String),
    Domain(u64),
    ParameterSets(Vec<u8>),
}

/// The fields of a `GstSegment`, in units of its format; `None` is GStreamer's -1.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
struct StoredSegment {
    format: i32,
    flags: u32,
    rate: f64,
    applied_rate: f64,
    base: u64,
    offset: u64,
    start: u64,
    stop: u64,
    time: u64,
    position: u64,
    duration: u64,
}

/// What a stored event says.
#[derive(Debug, Clone)]
pub enum Decoded {
    Event(gst::Event),
    Domain(u64),
    ParameterSets(ParameterSets),
    /// An event that was not storable, or that this GStreamer cannot make.
    Nothing,
}

/// Codes an event for the log. `None` for events that do not belong there.
pub fn encode(event: &gst::EventRef) -> Coded {
    let stored = to_stored(event);
    let place = match stored {
        // It says nothing for later, whatever its type.
        Stored::Mark(_) | Stored::Eos => Place::Once,
        _ => match slot(event) {
            Some(slot) => Place::State { slot, clears: clears(event) },
            None => Place::Once,
        },
    };
    Coded { place, bytes: bitcode::encode(&stored) }
}

/// A domain begins: all state before it ends, after a flush only the segment.
pub fn encode_domain(domain: u64, flushed: bool) -> Coded {
    let clears = if flushed { Clears::Ranks(vec![rank(gst::EventType::Segment)]) } else { Clears::All };
    let slot = Slot { rank: DOMAIN_RANK, name: String::new() };
    Coded { place: Place::State { slot, clears }, bytes: bitcode::encode(&Stored::Domain(domain)) }
}

pub fn encode_sets(sets: &ParameterSets) -> Coded {
    let slot = Slot { rank: SETS_RANK, name: String::new() };
    let bytes = bitcode::encode(&Stored::ParameterSets(sets.to_bytes()));
    Coded { place: Place::State { slot, clears: Clears::Nothing }, bytes }
}

pub fn decode(bytes: &[u8]) -> Decoded {
    match bitcode::decode::<Stored>(bytes) {
        Ok(Stored::Domain(domain)) => Decoded::Domain(domain),
        Ok(Stored::ParameterSets(bytes)) => {
            ParameterSets::from_bytes(&bytes).map_or(Decoded::Nothing, Decoded::ParameterSets)
        }
        Ok(stored) => from_stored(stored).map_or(Decoded::Nothing, Decoded::Event),
        Err(_) => Decoded::Nothing,
    }
}

/// Where a sticky event belongs; the order of slots is the order in which they are sent.
pub fn slot(event: &gst::EventRef) -> Option<Slot> {
    if !event.is_sticky() {
        return None;
    }
    let name = match event.structure() {
        Some(structure) if event.is_sticky_multi() => structure.name().to_string(),
        _ => String::new(),
    };
    Some(Slot { rank: rank(event.type_()), name })
}

/// The rank of a sticky event's slot.
pub fn rank(kind: gst::EventType) -> u32 {
    kind.into_glib() as u32
}

/// Ranks of the slots that end with this event, as on GStreamer's pads; parameter sets end with their caps.
pub fn clears(event: &gst::EventRef) -> Clears {
    match event.type_() {
        gst::EventType::StreamStart => {
            let ended = [gst::EventType::Tag, gst::EventType::Toc, gst::EventType::StreamGroupDone];
            Clears::Ranks(ended.into_iter().map(rank).collect())
        }
        gst::EventType::Caps => Clears::Ranks(vec![SETS_RANK]),
        _ => Clears::Nothing,
    }
}

fn to_stored(event: &gst::EventRef) -> Stored {
    let mark = || Stored::Mark(event.type_().name().to_string());
    match event.view() {
        gst::EventView::StreamStart(e) => Stored::StreamStart {
            id: e.stream_id().to_owned(),
            flags: e.stream_flags().bits(),
            group: group_id(event),
            stream: e.stream().and_then(|stream| objects::Stream::of(&stream)),
        },
        gst::EventView::Caps(e) => text::of_caps(e.caps()).map_or_else(mark, Stored::Caps),
        gst::EventView::Segment(e) => Stored::Segment(StoredSegment::from(e.segment())),
        gst::EventView::Tag(e) => Stored::Tag(objects::Tags::of(e.tag())),
        gst::EventView::Gap(e) => {
            let (timestamp, duration) = e.get();
            #[cfg(feature = "v1_20")]
            let flags = e.gap_flags().bits();
            #[cfg(not(feature = "v1_20"))]
            let flags = 0;
            Stored::Gap { timestamp: timestamp.nseconds(), duration: duration.map(gst::ClockTime::nseconds), flags }
        }
        gst::EventView::Eos(_) => Stored::Eos,
        gst::EventView::StreamGroupDone(_) => Stored::StreamGroupDone,
        gst::EventView::StreamCollection(e) => {
            objects::Collection::of(&e.stream_collection()).map_or_else(mark, Stored::Collection)
        }
        gst::EventView::Toc(e) => {
            let (toc, updated) = e.toc();
            Stored::Toc(objects::Toc::of(toc, updated))
        }
        gst::EventView::SinkMessage(_) => mark(),
        _ => {
            let structure = match event.structure().map(text::of_structure) {
                Some(None) => return mark(),
                Some(Some(text)) => text,
                None => String::new(),
            };
            Stored::Structure { kind: rank(event.type_()), structure, running_time_offset: event.running_time_offset() }
        }
    }
}

fn from_stored(stored: Stored) -> Option<gst::Event> {
    Some(match stored {
        Stored::StreamStart { id, flags, group, stream } => {
            let mut builder =
                gst::event::StreamStart::builder(text::clean(&id)?).flags(gst::StreamFlags::from_bits_truncate(flags));
            if let Some(stream) = stream {
                builder = builder.stream(stream.stream());
            }
            with_group_id(&builder.build(), group)
        }
        Stored::Caps(caps) => gst::event::Caps::new(&text::caps(&caps).filter(|caps| caps.is_fixed())?),
        Stored::Segment(segment) => segment.event()?,
        Stored::Tag(tags) => gst::event::Tag::new(tags.list()?),
        Stored::Collection(collection) => collection.event(),
        Stored::Toc(toc) => toc.event()?,
        Stored::Gap { timestamp, duration, flags } => {
            let duration = duration.and_then(clock_time);
            let builder = gst::event::Gap::builder(clock_time(timestamp)?);
            let builder = match duration {
                Some(duration) => builder.duration(duration),
                None => builder,
            };
            #[cfg(feature = "v1_20")]
            let builder = match flags {
                0 => builder,
                flags => builder.gap_flags(gst::GapFlags::from_bits_truncate(flags)),
            };
            #[cfg(not(feature = "v1_20"))]
            let _ = flags;
            builder.build()
        }
        Stored::Eos => gst::event::Eos::new(),
        Stored::StreamGroupDone => gst::event::StreamGroupDone::new(gst::GroupId::next()),
        Stored::Structure { kind, structure, running_time_offset } => {
            let structure = if structure.is_empty() { None } else { Some(text::structure(&structure)?) };
            let mut event = with_structure(kind, structure)?;
            event.make_mut().set_running_time_offset(running_time_offset);
            event
        }
        Stored::Mark(_) | Stored::Domain(_) | Stored::ParameterSets(_) => return None,
    })
}

fn tag_list(text: &str) -> Option<gst::TagList> {
    let text = text::clean(text).filter(|text| text.starts_with("taglist"))?;
    // SAFETY: the text is a C string for the time of the call; what is returned is ours.
    unsafe {
        let list = gst::ffi::gst_tag_list_new_from_string(text.to_glib_none().0);
        (!list.is_null()).then(|| from_glib_full(list))
    }
}

/// An event of any type that consists of its structure.
fn with_structure(kind: u32, structure: Option<gst::Structure>) -> Option<gst::Event> {
    let structure = structure.map_or(std::ptr::null_mut(), |s| s.into_glib_ptr());
    // SAFETY: the function takes the structure, which nobody else holds, and any type, and returns a new event.
    unsafe {
        let event = gst::ffi::gst_event_new_custom(kind as gst::ffi::GstEventType, structure);
        (!event.is_null()).then(|| from_glib_full(event))
    }
}

impl From<&gst::Segment> for StoredSegment {
    fn from(segment: &gst::Segment) -> Self {
        // SAFETY: a valid segment, read while it is borrowed.
        let raw = unsafe { &*ToGlibPtr::<*const gst::ffi::GstSegment>::to_glib_none(segment).0 };
        Self {
            format: raw.format,
            flags: raw.flags,
            rate: raw.rate,
            applied_rate: raw.applied_rate,
            base: raw.base,
            offset: raw.offset,
            start: raw.start,
            stop: raw.stop,
            time: raw.time,
            position: raw.position,
            duration: raw.duration,
        }
    }
}

impl StoredSegment {
    fn event(&self) -> Option<gst::Event> {
        // SAFETY: the segment is initialised by GStreamer before its fields are set; the event copies it.
        unsafe {
            let mut raw = std::mem::MaybeUninit::<gst::ffi::GstSegment>::zeroed();
            gst::ffi::gst_segment_init(raw.as_mut_ptr(), self.format);
            let mut raw = raw.assume_init();
            raw.flags = self.flags;
            raw.rate = self.rate;
            raw.applied_rate = self.applied_rate;
            raw.base = self.base;
            raw.offset = self.offset;
            raw.start = self.start;
            raw.stop = self.stop;
            raw.time = self.time;
            raw.position = self.position;
            raw.duration = self.duration;
            let event = gst::ffi::gst_event_new_segment(&raw);
            (!event.is_null()).then(|| from_glib_full(event))
        }
    }
}

/// The number of the group that a STREAM_START names.
pub fn group_id(event: &gst::EventRef) -> Option<u32> {
    if event.type_() != gst::EventType::StreamStart {
        return None;
    }
    let mut group = 0;
    // SAFETY: a valid STREAM_START, which is only read, and a place for the number.
    let found = unsafe { gst::ffi::gst_event_parse_group_id(event.as_mut_ptr(), &mut group) };
    (found != gst::glib::ffi::GFALSE).then_some(group)
}

/// The same STREAM_START of another group. Stored numbers mean something only in the process that gave them.
pub fn with_group_id(event: &gst::Event, group: Option<u32>) -> gst::Event {
    let mut event = event.copy();
    if let (Some(group), Some(event)) = (group, event.get_mut())
        && event.type_() == gst::EventType::StreamStart
    {
        // SAFETY: a valid STREAM_START that nobody else holds.
        unsafe { gst::ffi::gst_event_set_group_id(event.as_mut_ptr(), group) };
    }
    event
}

/// A group that is not used yet.
pub fn next_group_id() -> u32 {
    // SAFETY: has no preconditions.
    unsafe { gst::ffi::gst_util_group_id_next() }
}

/// The same SEGMENT, with its running time later by `offset` ns.
pub fn later(event: &gst::Event, offset: i64) -> gst::Event {
    if let gst::EventView::Segment(e) = event.view()
        && offset != 0
        && let Some(segment) = e.segment().downcast_ref::<gst::ClockTime>()
    {
        let mut segment = segment.clone();
        // Earlier than its base allows cuts off the front; what cannot be shifted at all stays.
        if segment.offset_running_time(offset).is_ok() {
            return gst::event::Segment::builder(&segment).seqnum(event.seqnum()).build();
        }
    }
    event.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(event: &gst::Event) -> (gst::Event, Place) {
        let coded = encode(event);
        match decode(&coded.bytes) {
            Decoded::Event(event) => (event, coded.place),
            other => panic!("{event:?} came back as {other:?}"),
        }
    }

    fn same_structure(event: &gst::Event) -> Place {
        let (back, place) = through(event);
        assert_eq!(back.type_(), event.type_());
        let text = |e: &gst::Event| e.structure().map(|s| s.to_string());
        assert_eq!(text(&back), text(event));
        place
    }

    #[test]
    fn stored_events_come_back_equal() {
        gst::init().unwrap();
        let caps = gst::Caps::builder("video/x-h264")
            .field("stream-format", "avc")
            .field("framerate", gst::Fraction::new(30, 1))
            .field("codec_data", gst::Buffer::from_slice([1u8, 2, 3]))
            .build();
        let (back, _) = through(&gst::event::Caps::new(&caps));
        match back.view() {
            gst::EventView::Caps(e) => assert_eq!(*e.caps(), *caps),
            _ => panic!(),
        }
        let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
        segment.set_start(gst::ClockTime::from_seconds(5));
        segment.set_base(gst::ClockTime::from_seconds(2));
        segment.set_rate(2.0);
        same_structure(&gst::event::Segment::new(&segment));
        let bytes = gst::FormattedSegment::<gst::format::Bytes>::new();
        same_structure(&gst::event::Segment::new(&bytes));
        let mut tags = gst::TagList::new();
        tags.make_mut().add::<gst::tags::Title>(&"gate, \"north\"", gst::TagMergeMode::Append);
        tags.make_mut().set_scope(gst::TagScope::Global);
        same_structure(&gst::event::Tag::new(tags));
        same_structure(
            &gst::event::Gap::builder(gst::ClockTime::from_seconds(3)).duration(gst::ClockTime::SECOND).build(),
        );
        let structure = gst::Structure::builder("alarm").field("door", 3i32).field("name", "a b").build();
        assert_eq!(same_structure(&gst::event::CustomDownstream::new(structure.clone())), Place::Once);
        let place = same_structure(&gst::event::CustomDownstreamSticky::new(structure));
        assert!(matches!(place, Place::State { slot, .. } if slot.name == "alarm"));
        same_structure(&gst::event::Protection::new("a-b-c", &gst::Buffer::from_slice([9u8; 4])));
    }

    #[test]
    fn a_stream_start_keeps_its_group_until_it_gets_another() {
        gst::init().unwrap();
        let event = gst::event::StreamStart::builder("cam/1")
            .flags(gst::StreamFlags::SPARSE)
            .group_id(gst::GroupId::next())
            .build();
        let (back, _) = through(&event);
        match (back.view(), event.view()) {
            (gst::EventView::StreamStart(a), gst::EventView::StreamStart(b)) => {
                assert_eq!((a.stream_id(), a.stream_flags()), ("cam/1", gst::StreamFlags::SPARSE));
                assert!(a.group_id().is_some() && a.group_id() == b.group_id());
                let other = with_group_id(&back, Some(next_group_id()));
                assert!(group_id(&other).is_some() && group_id(&other) != group_id(&back));
            }
            _ => panic!(),
        }
    }

    #[test]
    fn slots_sort_as_events_are_sent() {
        gst::init().unwrap();
        let events = [
            gst::event::StreamStart::new("a"),
            gst::event::Caps::new(&gst::Caps::new_empty_simple("video/x-h264")),
            gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()),
            gst::event::Tag::new(gst::TagList::new()),
        ];
        let slots: Vec<_> = events.iter().map(|e| slot(e).unwrap()).collect();
        assert!(slots.is_sorted());
        assert!(slots.iter().all(|s| s.rank > DOMAIN_RANK && s.rank < SETS_RANK));
        assert_eq!(slot(&gst::event::Gap::new(gst::ClockTime::ZERO, None)), None);
    }

    #[test]
    fn what_cannot_be_written_leaves_a_mark() {
        gst::init().unwrap();
        let message = gst::message::Eos::new();
        let coded = encode(&gst::event::SinkMessage::new("note", &message));
        assert_eq!(coded.place, Place::Once);
        assert!(matches!(decode(&coded.bytes), Decoded::Nothing));
        assert!(matches!(decode(b"garbage"), Decoded::Nothing));
    }

    #[test]
    fn only_the_base_of_a_segment_moves() {
        gst::init().unwrap();
        let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
        segment.set_start(gst::ClockTime::from_seconds(5));
        let event = gst::event::Segment::new(&segment);
        match later(&event, 7_000_000_000).view() {
            gst::EventView::Segment(e) => {
                let moved = e.segment().downcast_ref::<gst::ClockTime>().unwrap();
                assert_eq!((moved.start(), moved.base()), (segment.start(), Some(gst::ClockTime::from_seconds(7))));
            }
            _ => panic!(),
        }
    }

    #[test]
    fn collections_come_back_stream_by_stream() {
        gst::init().unwrap();
        let caps = gst::Caps::builder("video/x-h264").field("codec_data", gst::Buffer::from_slice([1u8, 2])).build();
        let video = gst::Stream::new(Some("cam/v"), Some(&caps), gst::StreamType::VIDEO, gst::StreamFlags::SELECT);
        let mut tags = gst::TagList::new();
        tags.make_mut().add::<gst::tags::LanguageCode>(&"de", gst::TagMergeMode::Append);
        let audio = gst::Stream::new(Some("cam/a"), None, gst::StreamType::AUDIO, gst::StreamFlags::empty());
        audio.set_tags(Some(&tags));
        let streams = [video, audio];
        let collection = gst::StreamCollection::builder(Some("cam")).streams(streams.clone()).build();
        let (back, place) = through(&gst::event::StreamCollection::new(&collection));
        assert!(matches!(place, Place::State { .. }));
        let gst::EventView::StreamCollection(back) = back.view() else { panic!() };
        let back = back.stream_collection();
        assert_eq!((back.upstream_id().as_deref(), back.len()), (Some("cam"), 2));
        let content = |stream: &gst::Stream| {
            let tags = stream.tags().map(|tags| tags.to_string());
            (stream.stream_id(), stream.caps(), stream.stream_type(), stream.stream_flags(), tags)
        };
        assert!(back.iter().map(|stream| content(&stream)).eq(streams.iter().map(content)));
    }

    #[test]
    fn tables_of_contents_come_back_with_their_parts() {
        gst::init().unwrap();
        let entry = |kind, uid: &str, parts: &[gst::TocEntry]| {
            let mut entry = gst::TocEntry::new(kind, uid);
            let entry_ref = entry.make_mut();
            entry_ref.set_start_stop_times(uid.len() as i64, 99);
            entry_ref.set_loop(gst::TocLoopType::PingPong, 2);
            let mut tags = gst::TagList::new();
            tags.make_mut().add::<gst::tags::Title>(&uid, gst::TagMergeMode::Append);
            entry_ref.set_tags(tags);
            parts.iter().for_each(|part| entry_ref.append_sub_entry(part.copy()));
            entry
        };
        let (edition, chapter) = (gst::TocEntryType::Edition, gst::TocEntryType::Chapter);
        let deep = entry(chapter, "1.2", &[entry(chapter, "1.2.1", &[])]);
        let first = entry(edition, "1", &[entry(chapter, "1.1", &[]), deep, entry(chapter, "1.3", &[])]);
        let mut toc = gst::Toc::new(gst::TocScope::Global);
        toc.make_mut().append_entry(first);
        toc.make_mut().append_entry(entry(edition, "2", &[]));
        let (back, place) = through(&gst::event::Toc::new(&toc, true));
        assert!(matches!(place, Place::State { .. }));
        let gst::EventView::Toc(back) = back.view() else { panic!() };

        fn lines(entries: &[gst::TocEntry], level: usize, into: &mut Vec<String>) {
            for entry in entries {
                let tags = entry.tags().map(|tags| tags.to_string());
                let (times, repeats) = (entry.start_stop_times(), entry.loop_());
                into.push(format!("{level} {:?} {} {times:?} {repeats:?} {tags:?}", entry.entry_type(), entry.uid()));
                lines(&entry.sub_entries(), level + 1, into);
            }
        }
        let listed = |toc: &gst::TocRef| {
            let mut all = Vec::new();
            lines(&toc.entries(), 0, &mut all);
            (toc.scope(), all)
        };
        let (toc_back, updated) = back.toc();
        assert!(updated);
        assert_eq!(listed(toc_back), listed(&toc));
        assert_eq!(listed(&toc).1.len(), 6);
    }
}
