//! What goes out for a record: events of its epoch that downstream does not have, its place in time, how output begins anew.
//!
//! Sticky events are sent when something of their epoch is: then it shows where the epoch lies in time. Those that downstream
//! has already are not sent again.

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::delivery::Delivery;
use super::imp::{CAT, DiskBufferSrc, Session};
use super::state::Until;
use super::timeline::{self, First};
use super::together::Moment;
use crate::media::buffer::Facts;
use crate::media::content::Content;
use crate::media::{event, position, reference};
use crate::store::domains::same_run;
use crate::store::record::apply;
use crate::store::{Arrival, Body, Clears, Mark, Record, Sequence, Slot, StateMap, Sync, Totals};

/// In a live pipeline an epoch does not begin later than this behind the clock.
const LATE: gst::ClockTime = gst::ClockTime::from_mseconds(200);

/// Events that wait for the first buffer of their epoch.
const MOST_HELD: usize = 64;

/// A buffer on its way out.
pub(super) struct Pending {
    pub sequence: Sequence,
    pub before: Totals,
    pub after: Totals,
    pub facts: Facts,
    /// ns since 1970, and whether that clock was synchronised.
    pub captured: (i64, bool),
    pub buffer: gst::Buffer,
}

impl DiskBufferSrc {
    /// A record as a buffer; takes note of everything else that a record can be, and of what is missing before it.
    pub(super) fn take_record(&self, d: &mut Delivery, session: &Session, record: Record) -> Option<Pending> {
        let (sequence, before, after, arrival) = (record.sequence, record.before, record.after(), record.arrival);
        d.missing |= d.expected.is_some_and(|expected| expected != sequence);
        d.expected = Some(sequence + 1);
        match &record.body {
            Body::State { slot, clears } => {
                let (slot, clears) = (slot.clone(), clears.clone());
                self.change_state_in_force(d, &slot, &clears, record.payload.as_ref());
                return None;
            }
            Body::Buffer(header) => {
                let captured = session.reader.captured_at(header, arrival);
                let content = Content::of(record.body, record.payload, arrival, &mut |name| {
                    gst::debug!(CAT, imp = self, "Nobody here knows the meta {name}: left out");
                });
                let Content::Buffer { buffer, facts } = content else { return None };
                return Some(Pending { sequence, before, after, facts, captured, buffer });
            }
            Body::Snapshot(state) => {
                // What is missing was of this run already.
                let missing = d.missing;
                self.change_to_state(d, state.iter().cloned().collect());
                d.missing |= missing;
                return None;
            }
            Body::Event => {}
        }
        if let Content::Event(event) = Content::of(record.body, record.payload, arrival, &mut |_| {}) {
            self.take_event(d, session, event, arrival);
        }
        None
    }

    /// Puts the state of a place in force.
    pub(super) fn enter_state(&self, d: &mut Delivery, state: StateMap) {
        d.in_force.clear();
        d.domain = None;
        d.sets = Default::default();
        d.caps = None;
        d.recorded = None;
        d.segment = None;
        d.has_segment = false;
        for value in state.values() {
            self.note_state(d, value);
        }
        d.in_force = state;
    }

    /// What a state says to us.
    fn note_state(&self, d: &mut Delivery, value: &[u8]) {
        match Content::of_event(value) {
            Content::Domain(domain) => d.domain = Some(domain),
            Content::Sets(sets) => d.sets = sets,
            Content::Event(event) => match event.view() {
                gst::EventView::Caps(e) => d.caps = Some(e.caps_owned()),
                gst::EventView::Segment(e) => d.recorded = Some(e.segment().clone()),
                _ => {}
            },
            Content::Buffer { .. } | Content::State(_) | Content::Nothing => {}
        }
    }

    /// Some of what is in force was changed by what was never stored.
    fn change_to_state(&self, d: &mut Delivery, state: StateMap) {
        let ended: Vec<_> = d.in_force.keys().filter(|slot| !state.contains_key(slot)).cloned().collect();
        for slot in ended {
            self.change_state_in_force(d, &slot, &Clears::Nothing, &[]);
        }
        for (slot, value) in &state {
            if d.in_force.get(slot) != Some(value) {
                self.change_state_in_force(d, slot, &Clears::Nothing, value);
            }
        }
    }

    /// A change of what is in force; its epoch may be another one.
    fn change_state_in_force(&self, d: &mut Delivery, slot: &Slot, clears: &Clears, value: &[u8]) {
        let before = d.domain;
        let content = Content::of_event(value);
        if let Content::Domain(domain) = content {
            self.end_epoch(d);
            // Between two runs numbers are left out.
            d.missing &= before.is_some_and(|before| same_run(before, domain));
            (d.segment, d.has_segment, d.last_end) = (None, false, None);
            d.recorded = None;
            if !before.is_some_and(|before| same_run(before, domain)) {
                (d.caps, d.sets) = (None, Default::default());
            }
        }
        apply(&mut d.in_force, slot, clears, value);
        match content {
            Content::Domain(domain) => d.domain = Some(domain),
            Content::Sets(sets) => d.sets = sets,
            Content::Event(event) => match event.view() {
                gst::EventView::Segment(e) => {
                    self.end_epoch(d);
                    d.recorded = Some(e.segment().clone());
                    (d.segment, d.has_segment, d.last_end) = (None, false, None);
                }
                gst::EventView::Caps(e) => {
                    d.caps = Some(e.caps_owned());
                    d.sets = Default::default();
                }
                // Downstream forgets with it what it had.
                gst::EventView::StreamStart(_) => d.sent.clear(),
                _ if d.has_segment => self.send_in_force(d, None),
                _ => {}
            },
            Content::Buffer { .. } | Content::State(_) | Content::Nothing => {}
        }
    }

    /// An event at its place, once.
    fn take_event(&self, d: &mut Delivery, session: &Session, event: gst::Event, arrival: Arrival) {
        match event.view() {
            // What follows it is another epoch; what does not is followed by our own.
            gst::EventView::Eos(_) => {
                gst::debug!(CAT, imp = self, "A stored end of stream ends an epoch");
                return;
            }
            gst::EventView::Gap(_) if d.beginning.is_key_units() => return,
            gst::EventView::Gap(e) if d.has_segment => {
                let (at, duration) = e.get();
                d.last_end = duration.map(|duration| at.saturating_add(duration));
                self.note_place(d, at, duration);
            }
            gst::EventView::Gap(e) if d.held_gap.is_none() => {
                let timeline = self.state().timeline;
                let captured = timeline.zip(session.reader.arrived_at(arrival));
                let captured = captured.map(|(timeline, utc)| timeline.stream_time(utc)).unwrap_or_default();
                d.held_gap = Some(First { at: Some(e.get().0), captured, recorded: None });
            }
            _ => {}
        }
        if d.has_segment {
            gst::debug!(CAT, imp = self, "Pushing {event:?}");
            self.srcpad.push_event(event);
        } else {
            d.held.push(event);
            if d.held.len() > MOST_HELD {
                self.release_gaps(d);
            }
        }
    }

    /// Gaps wait for a buffer that says where their epoch lies. None is near: then they say so, for a stream may have nothing
    /// else for long.
    pub(super) fn release_gaps(&self, d: &mut Delivery) {
        if let Some(first) = d.held_gap.take()
            && !d.has_segment
        {
            self.send_in_force(d, Some(first));
            self.send_held(d);
        }
    }

    /// Nothing more comes of an epoch: what was held back for its first buffer goes out.
    pub(super) fn end_epoch(&self, d: &mut Delivery) {
        self.release_gaps(d);
        if !d.held.is_empty() {
            self.send_in_force(d, None);
            self.send_held(d);
        }
    }

    fn send_held(&self, d: &mut Delivery) {
        for event in std::mem::take(&mut d.held) {
            gst::debug!(CAT, imp = self, "Pushing {event:?}");
            self.srcpad.push_event(event);
        }
    }

    /// Sends what downstream does not have of what is in force, in order. `first` is what follows, with its timestamp.
    pub(super) fn send_in_force(&self, d: &mut Delivery, first: Option<First>) {
        if let (Some(domain), Some(sent)) = (d.domain, d.sent_domain)
            && !same_run(domain, sent)
        {
            d.sent.clear();
        }
        d.sent_domain = d.domain.or(d.sent_domain);
        let mut segment = (!d.has_segment).then(|| self.next_segment(d, first));
        let segment_rank = event::rank(gst::EventType::Segment);
        let mut events = Vec::new();
        let mut has_start = false;
        for (slot, value) in &d.in_force {
            let known = d.sent.get(slot) == Some(value);
            has_start |= slot.rank == event::rank(gst::EventType::StreamStart);
            if slot.rank >= segment_rank
                && let Some(segment) = segment.take()
            {
                events.push(segment);
            }
            if known || slot.rank == segment_rank {
                continue;
            }
            match Content::of_event(value) {
                Content::Event(event) if event.type_() == gst::EventType::StreamStart => {
                    events.push(event::with_group_id(&event, Some(d.group)));
                }
                Content::Event(event) => events.push(event),
                _ => {}
            }
        }
        events.extend(segment);
        if !has_start && d.sent.is_empty() && self.srcpad.sticky_event::<gst::event::StreamStart>(0).is_none() {
            let id = self.srcpad.create_stream_id(&*self.obj(), None);
            let start = gst::event::StreamStart::builder(&id).build();
            events.insert(0, event::with_group_id(&start, Some(d.group)));
        }
        d.sent = d.in_force.clone();
        for event in events {
            let event = match event.type_() {
                gst::EventType::StreamStart | gst::EventType::Segment => with_seqnum(event, d.beginning.seqnum),
                _ => event,
            };
            if let gst::EventView::Caps(e) = event.view() {
                self.state().caps = Some(e.caps_owned());
            }
            gst::debug!(CAT, imp = self, "Sending {event:?}");
            self.srcpad.push_event(event);
        }
    }

    /// The segment of the epoch in force. Of another format than TIME it goes out as recorded.
    fn next_segment(&self, d: &mut Delivery, first: Option<First>) -> gst::Event {
        d.has_segment = true;
        let recorded = match &d.recorded {
            Some(recorded) => match recorded.downcast_ref::<gst::ClockTime>() {
                Some(time) => time.clone(),
                None => {
                    self.state().segment = None;
                    return gst::event::Segment::new(recorded);
                }
            },
            None => gst::FormattedSegment::new(),
        };
        let at = recorded.start().unwrap_or_default();
        // Without data of its own it goes on where playing is.
        let captured = d.beginning.playing.start.or(self.state().position).unwrap_or_default();
        let first = first.unwrap_or(First { at: Some(at), captured, recorded: None });
        let mut segment = timeline::segment(&recorded, first, gst::ClockTime::ZERO, &d.beginning.playing);
        segment.set_base(self.base(d, first, &segment));
        // It is exact where playing begins; later epochs are whole.
        d.beginning.playing.start = None;
        d.fresh = false;
        d.segment = Some(segment.clone());
        self.state().segment = Some(segment.clone());
        gst::event::Segment::new(&segment)
    }

    /// Where running time goes on.
    fn base(&self, d: &Delivery, first: First, segment: &gst::FormattedSegment<gst::ClockTime>) -> gst::ClockTime {
        let now = d.settings.follow.then(|| self.obj().current_running_time()).flatten();
        let own = match now {
            // What is shown as it comes must not come too late for the clock.
            Some(now) if d.fresh || d.running + LATE < now => d.running.max(now),
            _ => d.running,
        };
        let timeline = self.state().timeline;
        let (Some(lead), Some(timeline)) = (&d.beginning.lead, timeline) else { return own };
        let (time, start) = (segment.time().unwrap_or(first.captured), segment.start());
        let into = first.at.zip(start).map_or(0, |(at, start)| start.nseconds() as i64 - at.nseconds() as i64);
        let at = Moment {
            domain: d.domain,
            recorded: first.recorded.map(|recorded| recorded.saturating_add(into)),
            captured: timeline.utc(time),
        };
        lead.place(at, own, segment.rate()).max(d.running)
    }

    /// Whether playing is over before this buffer.
    pub(super) fn is_over(&self, d: &Delivery, item: &Pending) -> bool {
        item.facts.sync != Sync::None
            && match d.until {
                Until::End => false,
                Until::Time(utc) => item.captured.0 >= utc,
                Until::Position(position) => item.sequence >= position,
            }
    }

    /// What goes out for a buffer: usually itself. `None` for what is left out.
    pub(super) fn prepare(&self, d: &mut Delivery, item: &mut Pending) -> Option<gst::Buffer> {
        let mut buffer = std::mem::replace(&mut item.buffer, gst::Buffer::new());
        let facts = &item.facts;
        let key_units = d.beginning.is_key_units();
        if (key_units && facts.sync == Sync::None) || d.leading.leaves_out(facts, buffer.pts()) {
            gst::trace!(CAT, imp = self, "Leaving out {buffer:?}");
            let mut state = self.state();
            state.left_out = state.left_out.plus(item.after.since(item.before));
            return None;
        }
        if std::mem::take(&mut d.missing) && !key_units {
            // Thinned, purged or damaged.
            (d.begins, d.gap) = (true, true);
        }
        note_sync(d, item.sequence, facts, buffer.pts());
        let captured = self.state().timeline.map(|timeline| timeline.stream_time(item.captured.0));
        let first = captured.map(|captured| First {
            at: buffer.pts().or(buffer.dts()),
            captured,
            recorded: facts.running_time,
        });
        if d.held_gap.take().is_some() {
            // Nothing lies before the first buffer that a gap could follow.
            d.held.retain(|event| event.type_() != gst::EventType::Gap);
        }
        self.send_in_force(d, first);
        self.send_held(d);
        if std::mem::take(&mut d.begins) || key_units {
            self.send_gap(d, &buffer);
            buffer = d.leading.begin(facts, d.caps.as_ref(), &d.sets, buffer);
        }
        if d.settings.add_reference_timestamp_meta {
            reference::attach(buffer.make_mut(), item.captured.0);
        }
        if d.settings.add_position_meta {
            let replayed = self.state().acks.is_repeat(item.sequence);
            position::attach(buffer.make_mut(), item.sequence, replayed, item.captured.0, item.captured.1);
        }
        Some(buffer)
    }

    /// What is missing shows downstream as a gap up to where it goes on.
    fn send_gap(&self, d: &mut Delivery, next: &gst::BufferRef) {
        if std::mem::take(&mut d.gap)
            && d.segment.is_some()
            && let (Some(from), Some(to)) = (d.last_end, next.pts())
            && to > from
        {
            self.srcpad.push_event(gst::event::Gap::builder(from).duration(to - from).build());
        }
    }

    /// Takes note of where a buffer lies that goes out.
    pub(super) fn note_sent(&self, d: &mut Delivery, buffer: &gst::BufferRef) {
        let Some(at) = buffer.pts().or(buffer.dts()) else { return };
        let end = at.saturating_add(buffer.duration().unwrap_or_default());
        d.last_end = d.last_end.max(Some(end));
        self.note_place(d, at, buffer.duration());
    }

    /// Takes note of how far playing is.
    fn note_place(&self, d: &mut Delivery, at: gst::ClockTime, duration: Option<gst::ClockTime>) {
        let end = at.saturating_add(duration.unwrap_or_default());
        let Some(segment) = &d.segment else { return };
        let clipped = segment.stop().map_or(end, |stop| end.min(stop));
        if let Some(running) = segment.to_running_time(clipped) {
            d.running = d.running.max(running);
        }
        let Some(position) = segment.to_stream_time(clipped) else { return };
        let timeline = {
            let mut state = self.state();
            state.position = Some(position);
            state.timeline
        };
        if let (Some(lead), Some(timeline)) = (&d.beginning.lead, timeline) {
            lead.note_sent(d.domain, d.running, timeline.utc(position));
        }
    }

    /// Where the task goes on behind a buffer.
    pub(super) fn note_passed(&self, d: &mut Delivery, item: &Pending) {
        let lost = item.before.since(d.totals);
        d.totals = item.after;
        let mut state = self.state();
        state.lost = state.lost.plus(lost);
        state.at = Mark { sequence: item.sequence + 1, totals: item.after };
    }
}

/// Takes note of where a resume could begin.
fn note_sync(d: &mut Delivery, sequence: Sequence, facts: &Facts, pts: Option<gst::ClockTime>) {
    let is_behind = |key: Option<gst::ClockTime>| !facts.leading && pts.zip(key).is_none_or(|(pts, key)| pts > key);
    if let Some((open, _)) = d.open.take_if(|(_, key)| facts.sync != Sync::None || is_behind(*key)) {
        d.sync = open;
    }
    match facts.sync {
        Sync::Open => d.open = Some((sequence, pts)),
        Sync::Closed => d.sync = sequence,
        Sync::None => {}
    }
}

fn with_seqnum(mut event: gst::Event, seqnum: gst::Seqnum) -> gst::Event {
    event.make_mut().set_seqnum(seqnum);
    event
}
