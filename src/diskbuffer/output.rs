//! What goes out: sticky events in force, places in time, and how output begins after anything but a plain continuation.
//!
//! Sticky events are remembered and sent before what they apply to; those of an epoch that follows another wait until its
//! first buffer shows where it lies in time. The first buffer of a resumption gets DISCONT and the parameter sets it lacks.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{LazyLock, Mutex, PoisonError};

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::delivery::{Delivery, Start, Sticky};
use super::imp::{CAT, DiskBuffer, Session};
use super::outcome::Passed;
use super::push::Pending;
use super::settings::TimestampMode;
use crate::media::buffer::Facts;
use crate::media::event;
use crate::media::nal::ParameterSets;
use crate::media::{position, reference};
use crate::store::domains::same_run;

impl DiskBuffer {
    pub(super) fn enter_domain(&self, d: &mut Delivery, domain: u64) {
        if d.domain == Some(domain) {
            return;
        }
        if d.domain.is_some_and(|before| same_run(before, domain)) {
            // A flush: what pads keep over one stays.
            d.sticky.retain(|_, sticky| sticky.event.type_() != gst::EventType::Segment);
        } else {
            d.sticky.clear();
        }
        d.domain = Some(domain);
        d.offset = match d.settings.timestamp_mode {
            TimestampMode::Original => Some(0),
            TimestampMode::Continuous => d
                .offsets
                .get(&domain)
                .copied()
                .or_else(|| self.domain().map_or(Some(0), |run| Some(run.offset(domain)? as i64))),
            // What goes out as it comes in keeps its time.
            TimestampMode::Restamp => {
                (d.start == Start::Continuing && d.sent.is_none() && self.is_live(domain)).then_some(0)
            }
        };
    }

    fn is_live(&self, domain: u64) -> bool {
        self.domain().is_none_or(|run| same_run(run.number(), domain))
    }

    /// By how much the epoch that begins with the running time `first` has to be later.
    fn settle(&self, d: &Delivery, domain: u64, first: u64) -> i64 {
        let later = |until: u64| until as i64 - first as i64;
        // Another stream may have begun the epoch before this one had come that far.
        let behind_sent = d.sent.map_or(i64::MIN, later);
        if d.settings.timestamp_mode == TimestampMode::Restamp {
            let now = self.obj().current_running_time().map_or(0, gst::ClockTime::nseconds);
            return later(now).max(behind_sent);
        }
        let offset = self.domain().map_or(0, |run| run.settle(domain, first)) as i64;
        offset.max(behind_sent)
    }

    /// Puts a sticky event in force; it is sent with [`Self::send_sticky`].
    pub(super) fn remember(&self, d: &mut Delivery, event: gst::Event) {
        let Some(slot) = event::slot(&event) else { return };
        if let crate::store::Clears::Ranks(ranks) = event::clears(&event) {
            d.sticky.retain(|slot, _| !ranks.contains(&slot.rank));
            if event.type_() == gst::EventType::Caps {
                d.sets = ParameterSets::default();
            }
        }
        match event.view() {
            gst::EventView::Caps(e) => d.caps = Some(e.caps_owned()),
            gst::EventView::Segment(e) => d.segment = e.segment().downcast_ref::<gst::ClockTime>().cloned(),
            _ => {}
        }
        d.sticky.insert(slot, Sticky { event, sent: false });
    }

    /// Sends the sticky events that are new, in their order. `first` is the running time of what follows.
    pub(super) fn send_sticky(&self, d: &mut Delivery, session: &Session, first: Option<i64>) {
        let offset = match (d.offset, d.domain) {
            (Some(offset), _) => offset,
            (None, Some(domain)) => {
                let first = u64::try_from(first.unwrap_or(0)).unwrap_or(0);
                let offset = self.settle(d, domain, first);
                d.offset = Some(offset);
                d.offsets.insert(domain, offset);
                offset
            }
            (None, None) => 0,
        };
        if d.sticky.values().all(|sticky| sticky.sent) {
            return;
        }
        self.offset.store(offset, Ordering::Relaxed);
        let live = self.domain().map_or(0, |run| run.number());
        let domain = d.domain;
        for sticky in d.sticky.values_mut().filter(|sticky| !sticky.sent) {
            sticky.sent = true;
            let event = match sticky.event.type_() {
                gst::EventType::Segment => event::later(&sticky.event, offset),
                gst::EventType::StreamStart => match domain {
                    Some(domain) if !same_run(domain, live) => replayed_group(session, domain, &sticky.event),
                    _ => sticky.event.clone(),
                },
                _ => sticky.event.clone(),
            };
            // A pad does not send the same event again.
            let event = if d.begun > 1 { event.copy() } else { event };
            gst::debug!(CAT, imp = self, "Sending {event:?}");
            self.srcpad.push_event(event);
        }
    }

    /// What goes out for a buffer: usually itself. `None` for leading pictures that cannot be decoded.
    pub(super) fn prepare(&self, d: &mut Delivery, session: &Session, item: Pending) -> Option<gst::Buffer> {
        let Pending { mut buffer, facts, passed } = item;
        self.send_sticky(d, session, facts.running_time);
        if d.leading.leaves_out(&facts, buffer.pts()) {
            gst::debug!(CAT, imp = self, "Leaving out a leading picture: {buffer:?}");
            return None;
        }
        let resumes = std::mem::take(&mut d.start) == Start::Discont;
        if resumes {
            self.send_gap(d, &buffer);
        }
        // What was dropped at the entrance is missing here too.
        let after_gap = std::mem::take(&mut d.after_gap) && buffer.flags().contains(gst::BufferFlags::DISCONT);
        if resumes || after_gap {
            buffer = d.leading.begin(&facts, d.caps.as_ref(), &d.sets, buffer);
        }
        if d.settings.add_reference_timestamp_meta || d.settings.add_position_meta {
            self.say_where(d, session, &passed, &facts, buffer.make_mut());
        }
        let end = buffer.pts().or(buffer.dts()).map(|t| t.saturating_add(buffer.duration().unwrap_or_default()));
        if let Some(end) = end {
            d.last_end = d.last_end.max(Some(end)).filter(|_| d.segment.is_some());
            self.note_sent(d, end);
        }
        Some(buffer)
    }

    /// Puts capture time and position on a buffer.
    fn say_where(&self, d: &Delivery, session: &Session, passed: &Passed, facts: &Facts, buffer: &mut gst::BufferRef) {
        let (captured_at, synced) = match (reference::utc(buffer), facts.arrival) {
            (Some(at), _) => (at, true),
            (None, Some(arrival)) => session.stream.captured_at(arrival, facts.captured_at),
            (None, None) => (facts.captured_at, session.stream.store().is_clock_synced()),
        };
        if d.settings.add_reference_timestamp_meta {
            reference::attach(buffer, captured_at);
        }
        if d.settings.add_position_meta {
            let replayed = {
                let state = self.state();
                passed.at < state.sent_until.max(state.cursor.position)
            };
            position::attach(buffer, passed.at, replayed, captured_at, synced);
        }
    }

    /// Dropped data shows downstream as a gap up to where it goes on.
    fn send_gap(&self, d: &mut Delivery, next: &gst::BufferRef) {
        if std::mem::take(&mut d.gap)
            && d.segment.is_some()
            && let (Some(from), Some(to)) = (d.last_end, next.pts())
            && to > from
        {
            self.srcpad.push_event(gst::event::Gap::builder(from).duration(to - from).build());
        }
    }

    fn note_sent(&self, d: &mut Delivery, end: gst::ClockTime) {
        let Some(segment) = &d.segment else { return };
        self.set_position(segment.to_stream_time(end));
        if let Some(time) = segment.to_running_time(end) {
            let until = time.nseconds().saturating_add_signed(d.offset.unwrap_or(0));
            // Before it is accepted: a repeat keeps its place in time anyway.
            d.sent = d.sent.max(Some(until));
            if let Some(run) = &d.run {
                run.sent(until);
            }
        }
    }
}

pub(super) fn running_time(
    segment: Option<&gst::FormattedSegment<gst::ClockTime>>,
    time: Option<gst::ClockTime>,
) -> Option<i64> {
    i64::try_from(segment?.to_running_time(time?)?.nseconds()).ok()
}

/// The STREAM_START of an earlier run with a group of this process: the same for the streams that were a group then.
fn replayed_group(session: &Session, domain: u64, event: &gst::Event) -> gst::Event {
    /// By store, domain and stored group.
    type Groups = HashMap<(PathBuf, u64, u32), u32>;
    static GROUPS: LazyLock<Mutex<Groups>> = LazyLock::new(Default::default);
    let group = event::group_id(event).map(|stored| {
        let key = (session.stream.store().location().to_owned(), domain, stored);
        *GROUPS.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert_with(event::next_group_id)
    });
    event::with_group_id(event, group)
}
