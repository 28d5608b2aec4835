//! How a window begins on a worker pad: an epoch of its own, with the sticky events that are in force.

use std::collections::BTreeMap;

use crate::media::event;
use crate::store::{Clears, Slot};
use crate::timeline::Ns;

/// The sticky events of the stream, in the order in which they are sent.
#[derive(Debug, Default)]
pub struct Stickies {
    events: BTreeMap<Slot, gst::Event>,
}

impl Stickies {
    pub fn keep(&mut self, event: &gst::Event) {
        // Streams of a collection have other names than the ones that come out here.
        if matches!(event.type_(), gst::EventType::Eos | gst::EventType::StreamCollection) {
            return;
        }
        let Some(slot) = event::slot(event) else { return };
        if let Clears::Ranks(ranks) = event::clears(event) {
            self.events.retain(|slot, _| !ranks.contains(&slot.rank));
        }
        self.events.insert(slot, event.clone());
    }

    /// As a flush does on pads.
    pub fn flush(&mut self) {
        let segment = event::rank(gst::EventType::Segment);
        self.events.retain(|slot, _| slot.rank != segment);
    }

    pub fn clear(&mut self) {
        self.events.clear();
    }

    fn segment(&self) -> Option<gst::FormattedSegment<gst::ClockTime>> {
        self.events.values().find_map(|event| match event.view() {
            gst::EventView::Segment(segment) => segment.segment().downcast_ref::<gst::ClockTime>().cloned(),
            _ => None,
        })
    }

    /// What is in force now, for a window from one running time to another.
    pub fn head(&self, start: Option<Ns>, end: Option<Ns>) -> Head {
        let segment = self.segment();
        let place = |running: Option<Ns>| {
            let running = running.and_then(|running| u64::try_from(running.0).ok())?;
            segment.as_ref()?.position_from_running_time(gst::ClockTime::from_nseconds(running))
        };
        // A window that begins before the stream does begins with it.
        let start = place(start).max(segment.as_ref().and_then(|segment| segment.start()));
        Head { events: self.events.values().cloned().collect(), start, stop: place(end) }
    }
}

/// The beginning of an epoch.
#[derive(Debug, Clone)]
pub struct Head {
    events: Vec<gst::Event>,
    /// PTS; with it the segment begins.
    pub start: Option<gst::ClockTime>,
    /// PTS with which it ends; none to leave its end as it is.
    pub stop: Option<gst::ClockTime>,
}

impl Head {
    /// The events for a worker of this name. `started`: it has got its STREAM_START.
    pub fn events(&self, worker: &str, started: bool) -> Vec<gst::Event> {
        let seqnum = gst::Seqnum::next();
        let wanted = self.events.iter().filter(|event| !started || event.type_() != gst::EventType::StreamStart);
        wanted.map(|event| self.own(event, worker, seqnum)).collect()
    }

    /// The STREAM_START of the next epoch.
    pub fn stream_start(&self, worker: &str) -> Option<gst::Event> {
        let event = self.events.iter().find(|event| event.type_() == gst::EventType::StreamStart)?;
        Some(self.own(event, worker, gst::Seqnum::next()))
    }

    fn own(&self, event: &gst::Event, worker: &str, seqnum: gst::Seqnum) -> gst::Event {
        match event.view() {
            gst::EventView::StreamStart(start) => {
                let id = format!("{}/{worker}", start.stream_id());
                let mut builder = gst::event::StreamStart::builder(&id).flags(start.stream_flags()).seqnum(seqnum);
                if let Some(group) = start.group_id() {
                    builder = builder.group_id(group);
                }
                builder.build()
            }
            gst::EventView::Segment(segment) => {
                let known = segment.segment().downcast_ref::<gst::ClockTime>();
                let Some((segment, start)) = known.zip(self.start) else { return event.clone() };
                gst::event::Segment::builder(&part(segment, start, self.stop)).seqnum(seqnum).build()
            }
            // The same event would not pass a second time.
            gst::EventView::Caps(caps) => gst::event::Caps::builder(&caps.caps_owned()).seqnum(seqnum).build(),
            _ => event.clone(),
        }
    }
}

/// A part of the segment: running and stream time of what is in it stay what they are.
fn part(
    segment: &gst::FormattedSegment<gst::ClockTime>,
    start: gst::ClockTime,
    stop: Option<gst::ClockTime>,
) -> gst::FormattedSegment<gst::ClockTime> {
    let times = (segment.to_running_time(start), segment.to_stream_time(start));
    let (Some(running), Some(time)) = times else { return segment.clone() };
    let mut own = segment.clone();
    own.set_offset(gst::ClockTime::ZERO);
    own.set_start(start);
    own.set_position(start);
    own.set_base(running);
    own.set_time(time);
    if let Some(stop) = stop.filter(|stop| *stop > start) {
        own.set_stop(segment.stop().map_or(stop, |end| end.min(stop)));
    }
    own
}
