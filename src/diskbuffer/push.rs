//! Pushing one record: a buffer, a list, an event at its place.
//!
//! A list goes out as the list that came in. An end of stream goes out when nothing has followed it; an earlier one only
//! ends its epoch.

use std::collections::BTreeMap;

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::delivery::{Delivery, Fetched, Start, Sticky, fetch};
use super::imp::{CAT, DiskBuffer, Session};
use super::managed::Child;
use super::outcome::Passed;
use super::output::running_time;
use super::tail::{Content, Item};
use crate::media::buffer::Facts;
use crate::media::event;
use crate::media::nal::ParameterSets;
use crate::store::domains::same_run;
use crate::store::{Record, Sequence, Slot, Totals};

/// Caps that downstream has refused, and what was left out because of them.
pub(super) struct Refused {
    pub caps: Option<gst::Caps>,
    pub first: Sequence,
    pub last: Sequence,
    pub left_out: Totals,
}

/// A buffer on its way out.
pub(super) struct Pending {
    pub passed: Passed,
    pub facts: Facts,
    pub buffer: gst::Buffer,
}

impl Pending {
    fn new(item: &Item, buffer: gst::Buffer, facts: Facts, domain: Option<u64>) -> Self {
        let pts = buffer.pts().map(gst::ClockTime::nseconds);
        Self { passed: Passed { facts: Some(facts), pts, domain, ..passed(item) }, facts, buffer }
    }
}

fn passed(item: &Item) -> Passed {
    Passed {
        at: item.sequence,
        next: item.sequence + 1,
        before: item.before,
        adds: item.adds,
        stored: item.stored,
        facts: None,
        pts: None,
        domain: None,
        dropped: false,
    }
}

impl DiskBuffer {
    pub(super) fn deliver_item(&self, d: &mut Delivery, session: &Session, mut item: Item) {
        if let Some(boundary) = self.boundary_before(d, &item) {
            return self.stop_before(d, item, boundary);
        }
        let mut accepted = false;
        let mut ended = false;
        d.missing |= !d.follows(item.sequence);
        d.expected = Some(item.sequence + 1);
        match std::mem::replace(&mut item.content, Content::Nothing) {
            Content::Nothing => {}
            Content::Domain(domain) => {
                // Between two runs numbers are left out.
                d.missing &= d.domain.is_some_and(|before| same_run(before, domain));
                self.end_refusal(d);
                self.enter_domain(d, domain);
            }
            Content::Sets(sets) => d.sets = sets,
            Content::State(values) => {
                // What is missing before it may be the beginning of another run, which memory alone had.
                let before = d.domain;
                self.end_refusal(d);
                let known = std::mem::take(&mut d.sticky);
                d.sets = ParameterSets::default();
                self.enter_state(d, values);
                if d.domain == before {
                    keep_sent(d, known);
                }
            }
            Content::Event(event) => {
                if let gst::EventView::Caps(e) = event.view()
                    && d.refused_caps.as_ref().is_some_and(|refused| refused.caps.as_deref() != Some(e.caps()))
                {
                    self.end_refusal(d);
                }
                let eos = event.type_() == gst::EventType::Eos;
                match self.deliver_event(d, session, item.sequence, event) {
                    Ok(pushed) => {
                        accepted = eos && pushed;
                        ended = accepted;
                    }
                    Err(flow) => return self.refused(d, flow),
                }
            }
            Content::Buffer { .. } if d.missing && !d.has_head() => {
                // It is counted as lost with what is missing.
                gst::warning!(CAT, imp = self, "Leaving out {}: the start of its stream is lost", item.sequence);
                return self.end_pushing();
            }
            Content::Buffer { buffer, facts } => {
                if std::mem::take(&mut d.missing) {
                    // Thinned, purged or damaged.
                    d.start = Start::Discont;
                    d.gap = true;
                }
                let first = Pending::new(&item, buffer, facts, d.domain);
                return if d.refused_caps.is_some() {
                    self.leave_out(d, session, &first);
                } else if facts.list_remaining > 0 {
                    self.deliver_list(d, session, first);
                } else {
                    self.deliver_buffer(d, session, first);
                };
            }
        }
        self.passed(d, session, &[passed(&item)], accepted);
        if ended {
            self.ended(d, item.sequence);
        }
    }

    fn deliver_event(
        &self,
        d: &mut Delivery,
        session: &Session,
        at: Sequence,
        event: gst::Event,
    ) -> Result<bool, gst::FlowError> {
        if event.is_sticky() && event.type_() != gst::EventType::Eos {
            self.remember(d, event);
            // As soon as its place in time is known: sinks preroll on it.
            if d.offset.is_some() && (at >= self.state().began || d.start == Start::Continuing) {
                self.send_sticky(d, session, None);
            }
            return Ok(false);
        }
        if event.type_() == gst::EventType::Eos {
            let mine = self.state().live_eos == Some(at);
            if !mine {
                gst::debug!(CAT, imp = self, "An end of stream that was followed by another stream ends an epoch");
                return Ok(false);
            }
            self.end_refusal(d);
        }
        let first = match event.view() {
            gst::EventView::Gap(e) => running_time(d.segment.as_ref(), Some(e.timestamp())),
            _ => None,
        };
        d.after_gap = event.type_() == gst::EventType::Gap;
        self.send_sticky(d, session, first);
        let eos = event.type_() == gst::EventType::Eos;
        gst::debug!(CAT, imp = self, "Pushing {event:?}");
        let accepted = self.srcpad.push_event(event);
        let needed = self.srcpad.is_linked() || self.manager().is_some();
        let refused = !accepted && if eos { needed } else { self.is_away() };
        if refused { Err(gst::FlowError::Flushing) } else { Ok(true) }
    }

    /// The live end of stream has gone out.
    fn ended(&self, d: &mut Delivery, at: Sequence) {
        d.child = Child::Ended;
        {
            let mut state = self.state();
            state.eos_sent = Some(at);
            state.settle_resume();
        }
        if let Some(manager) = self.manager() {
            manager.delivered_eos(&self.obj());
        }
    }

    /// Downstream was there and cannot take anything now: it has not refused the event, it has not seen it.
    fn is_away(&self) -> bool {
        let gone = self.srcpad.peer().is_none_or(|peer| peer.pad_flags().contains(gst::PadFlags::FLUSHING));
        let state = self.state();
        gone && (state.delivered || state.outage.is_some())
    }

    fn deliver_buffer(&self, d: &mut Delivery, session: &Session, item: Pending) {
        let passed = item.passed;
        let result = match self.prepare(d, session, item) {
            Some(buffer) => self.srcpad.push(buffer),
            None => Ok(gst::FlowSuccess::Ok),
        };
        self.finish(d, session, result, &[passed]);
    }

    /// Pushes the list that begins with this buffer.
    fn deliver_list(&self, d: &mut Delivery, session: &Session, first: Pending) {
        let mut remaining = first.facts.list_remaining - 1;
        let mut pending = vec![first];
        while remaining > 0
            && let Some(next) = self.fetch_listed(d, session, remaining)
        {
            remaining -= 1;
            pending.push(next);
        }
        let passed: Vec<_> = pending.iter().map(|item| item.passed).collect();
        let ready: gst::BufferList = pending.into_iter().filter_map(|item| self.prepare(d, session, item)).collect();
        let result = if ready.is_empty() { Ok(gst::FlowSuccess::Ok) } else { self.srcpad.push_list(ready) };
        self.finish(d, session, result, &passed);
    }

    /// The next buffer of the list that is being gathered, with `remaining` to go; `None` when a crash or a drop has cut the
    /// list short.
    fn fetch_listed(&self, d: &mut Delivery, session: &Session, remaining: u32) -> Option<Pending> {
        loop {
            let fetched = {
                let mut state = self.state();
                if state.flow.is_err() || (d.is_empty() && d.position >= state.end.sequence) {
                    return None;
                }
                fetch(d, &mut state)
            };
            let mut item = match fetched {
                Fetched::Memory(item) => item,
                Fetched::ReadAhead(record) => from_record(record),
                Fetched::Disk { until } => {
                    if !self.read(d, session, until) {
                        return None;
                    }
                    continue;
                }
            };
            let follows = d.follows(item.sequence);
            match std::mem::replace(&mut item.content, Content::Nothing) {
                Content::Buffer { buffer, facts } if follows && facts.list_remaining == remaining => {
                    d.expected = Some(item.sequence + 1);
                    return Some(Pending::new(&item, buffer, facts, d.domain));
                }
                Content::Sets(sets) if follows => {
                    d.expected = Some(item.sequence + 1);
                    d.sets = sets;
                }
                content => {
                    d.held = Some(Item { content, ..item });
                    return None;
                }
            }
        }
    }

    /// Downstream does not take the caps in force, and is not to be waited for.
    pub(super) fn begin_refusal(&self, d: &mut Delivery) {
        gst::warning!(CAT, imp = self, "Downstream refuses {:?}: what has these caps is left out", d.caps);
        d.refused_caps =
            Some(Refused { caps: d.caps.clone(), first: Sequence::MAX, last: 0, left_out: Totals::default() });
    }

    /// Gives up a buffer whose caps downstream refuses.
    fn leave_out(&self, d: &mut Delivery, session: &Session, item: &Pending) {
        let adds = item.passed.adds;
        if let Some(refused) = &mut d.refused_caps {
            refused.first = refused.first.min(item.passed.at);
            refused.last = item.passed.at;
            refused.left_out = refused.left_out.plus(adds);
        }
        d.start = Start::Discont;
        d.gap = true;
        self.give_up(session, &item.passed);
    }

    /// Other caps follow, or nothing: says what was left out.
    fn end_refusal(&self, d: &mut Delivery) {
        if let Some(refused) = d.refused_caps.take().filter(|refused| refused.left_out.buffers > 0) {
            self.tell_dropped("on-unnegotiable=skip", refused.first, refused.last, refused.left_out);
        }
    }
}

/// What is in force as before needs not be sent again.
fn keep_sent(d: &mut Delivery, known: BTreeMap<Slot, Sticky>) {
    for (slot, old) in known {
        if let Some(new) = d.sticky.get_mut(&slot)
            && event::encode(&old.event).bytes == event::encode(&new.event).bytes
        {
            *new = old;
        }
    }
}

pub(super) fn from_record(record: Record) -> Item {
    let (sequence, before, after, arrival) = (record.sequence, record.before, record.after(), record.arrival);
    let content = Content::of(record.body, record.payload, arrival, &mut |name| {
        gst::debug!(CAT, "Nobody here knows the meta {name}: left out");
    });
    let adds = after.since(before);
    Item { sequence, before, adds, stored: true, arrived: None, coded: None, left_out: false, content }
}
