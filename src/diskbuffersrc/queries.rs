//! Queries: what can be asked of a recording.

use gst::subclass::prelude::*;

use super::imp::{CAT, DiskBufferSrc};
use super::range;

/// How late a buffer shows up at most in a live pipeline: between two looks at the store, in this process and in another.
const LATENCY: gst::ClockTime = gst::ClockTime::from_mseconds(50);
const LATENCY_OTHER: gst::ClockTime = gst::ClockTime::from_mseconds(200);

impl DiskBufferSrc {
    /// How much can be played, as stream time; it grows while following.
    pub(super) fn duration(&self) -> Option<gst::ClockTime> {
        let (timeline, tip) = {
            let state = self.state();
            (state.timeline?, state.tip)
        };
        let tip = match self.session().filter(|_| self.settings().follow) {
            Some(session) => {
                let newer = range::tip(&session.reader, tip)
                    .inspect_err(|err| gst::debug!(CAT, imp = self, "The end cannot be read now: {err}"))
                    .unwrap_or(tip);
                let mut state = self.state();
                if newer.sequence > state.tip.sequence {
                    state.tip = newer;
                }
                newer
            }
            None => tip,
        };
        tip.utc.map(|utc| timeline.stream_time(utc))
    }

    /// Where what can be sought begins: it moves as data goes.
    fn earliest(&self) -> gst::ClockTime {
        let Some(timeline) = self.state().timeline else { return gst::ClockTime::ZERO };
        let origin = self.session().and_then(|session| range::origin(&session.reader).ok().flatten());
        origin.map_or(gst::ClockTime::ZERO, |origin| timeline.stream_time(origin))
    }

    pub(super) fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        let settings = self.settings();
        match query.view_mut() {
            gst::QueryViewMut::Position(q) if q.format() == gst::Format::Time => {
                let position = self.state().position;
                position.inspect(|position| q.set(*position)).is_some()
            }
            gst::QueryViewMut::Duration(q) if q.format() == gst::Format::Time => {
                self.duration().inspect(|duration| q.set(*duration)).is_some()
            }
            gst::QueryViewMut::Seeking(q) => {
                if q.format() == gst::Format::Time {
                    let range = self.duration().map(|duration| (self.earliest(), duration));
                    match range {
                        Some((start, end)) => q.set(true, start, end),
                        None => q.set(false, gst::ClockTime::NONE, gst::ClockTime::NONE),
                    }
                } else {
                    let nothing = gst::GenericFormattedValue::new(q.format(), -1);
                    q.set(false, nothing, nothing);
                }
                true
            }
            gst::QueryViewMut::Segment(q) => {
                let (segment, playing) = {
                    let state = self.state();
                    (state.segment.clone(), state.playing.clone())
                };
                let start = segment.as_ref().and_then(|segment| segment.to_stream_time(segment.start()?));
                let stop = playing.stop.or_else(|| self.duration());
                q.set(playing.rate, start.or(playing.start), stop);
                true
            }
            gst::QueryViewMut::Latency(q) => {
                let shared = self.session().is_none_or(|session| session.reader.is_shared());
                let min = if shared { LATENCY } else { LATENCY_OTHER };
                // What is late waits on the disk: there is no most.
                q.set(settings.follow, if settings.follow { min } else { gst::ClockTime::ZERO }, gst::ClockTime::NONE);
                true
            }
            gst::QueryViewMut::Uri(q) => match settings.uri() {
                Some(uri) => {
                    q.set_uri(uri.as_str());
                    true
                }
                None => false,
            },
            gst::QueryViewMut::Scheduling(q) => {
                q.set(gst::SchedulingFlags::SEQUENTIAL, 1, -1, 0);
                q.add_scheduling_modes([gst::PadMode::Push]);
                true
            }
            gst::QueryViewMut::Formats(q) => {
                q.set([gst::Format::Time]);
                true
            }
            gst::QueryViewMut::Caps(q) => {
                let caps = self.state().caps.clone().unwrap_or_else(gst::Caps::new_any);
                let caps = match q.filter() {
                    Some(filter) => filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First),
                    None => caps,
                };
                q.set_result(&caps);
                true
            }
            _ => gst::Pad::query_default(pad, Some(&*self.obj()), query),
        }
    }
}
