//! Pushing a record, what downstream answers, and how playing ends.
//!
//! A list goes out as the list that came in. What downstream has taken moves the consumer's cursor, or waits for its
//! acknowledgement.

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::acks::Pushed;
use super::delivery::Delivery;
use super::imp::{CAT, DiskBufferSrc, Session};
use super::output::Pending;
use super::state::{Phase, State};
use crate::diskbuffer::AckMode;
use crate::store::{Body, CursorRecord, Mark, Pass, Record};

impl DiskBufferSrc {
    pub(super) fn deliver(&self, d: &mut Delivery, session: &Session, record: Record) {
        let Some(first) = self.take_record(d, session, record) else { return };
        if self.is_over(d, &first) {
            return self.end(d, None);
        }
        let mut items = vec![first];
        let mut listed = items[0].facts.list_remaining;
        let is_list = listed > 0;
        while listed > 1
            && let Some(next) = self.take_listed(d, session, listed - 1)
        {
            listed -= 1;
            items.push(next);
        }
        let mut buffers = Vec::with_capacity(items.len());
        for item in &mut items {
            if let Some(buffer) = self.prepare(d, item) {
                self.note_sent(d, &buffer);
                buffers.push(buffer);
            }
            self.note_passed(d, item);
        }
        self.expect_acknowledgement(d, &items);
        let result = match (buffers.len(), is_list) {
            (0, _) => Ok(gst::FlowSuccess::Ok),
            (1, false) => buffers.pop().map_or(Ok(gst::FlowSuccess::Ok), |buffer| self.srcpad.push(buffer)),
            _ => self.srcpad.push_list(buffers.into_iter().collect::<gst::BufferList>()),
        };
        match result {
            Ok(_) => {
                self.accepted(d, session, &items);
                if d.over {
                    self.end(d, None);
                }
            }
            Err(flow) => self.refused(d, flow),
        }
    }

    /// The next buffer of the list that is being gathered, with `remaining` to go, itself included; `None` when a crash or a
    /// drop has cut the list short.
    fn take_listed(&self, d: &mut Delivery, session: &Session, remaining: u32) -> Option<Pending> {
        loop {
            if d.chunk.is_empty() {
                let limit = self.state().end.map_or(u64::MAX, |end| end.sequence);
                let chunk = session.reader.read(d.position, remaining as usize, usize::MAX).ok()?;
                d.position = chunk.next.filter(|next| *next > d.position)?;
                d.chunk = chunk.records.into_iter().filter(|record| record.sequence < limit).collect();
            }
            let next = d.chunk.front()?;
            let follows = d.expected.is_none_or(|expected| expected == next.sequence);
            let belongs = match &next.body {
                Body::Buffer(header) => follows && header.list_remaining == remaining,
                // Parameter sets stand between the buffers of a list.
                Body::State { slot, .. } => follows && slot.rank == u32::MAX,
                Body::Event | Body::Snapshot(_) => false,
            };
            if !belongs {
                return None;
            }
            let record = d.chunk.pop_front()?;
            if let Some(item) = self.take_record(d, session, record) {
                if self.is_over(d, &item) {
                    d.over = true;
                    return None;
                }
                return Some(item);
            }
        }
    }

    /// Downstream may acknowledge before its push returns.
    fn expect_acknowledgement(&self, d: &Delivery, items: &[Pending]) {
        if d.settings.consumer.is_some() && d.settings.ack_mode == AckMode::Explicit {
            let mut state = self.state();
            items.iter().for_each(|item| state.acks.wait(pushed(d, item)));
        }
    }

    /// Downstream has taken them.
    fn accepted(&self, d: &Delivery, session: &Session, items: &[Pending]) {
        let Some(last) = items.last() else { return };
        let explicit = d.settings.ack_mode == AckMode::Explicit;
        let moved = {
            let mut state = self.state();
            state.phase = Phase::Playing;
            state.current = last.sequence;
            state.captured_at = last.captured.0;
            for item in items {
                state.delivered = state.delivered.plus(item.after.since(item.before));
                if !explicit || d.settings.consumer.is_none() {
                    state.acks.note(item.sequence);
                    pass(&mut state, &pushed(d, item));
                }
            }
            state.cursor.filter(|_| !explicit)
        };
        self.save(session, moved);
    }

    fn save(&self, session: &Session, cursor: Option<CursorRecord>) {
        if let (Some(cursor), Some(consumer)) = (cursor, session.consumer()) {
            consumer.advance(cursor);
        }
    }

    /// Everything up to `position` has arrived where it belongs (`ack-mode=explicit`). False when it was not pushed.
    pub(super) fn acknowledge(&self, position: u64) -> bool {
        let Some(session) = self.session() else { return false };
        if self.settings().ack_mode != AckMode::Explicit {
            return false;
        }
        let moved = {
            let mut state = self.state();
            let Some(done) = state.acks.acknowledge(position) else { return false };
            done.iter().for_each(|pushed| pass(&mut state, pushed));
            state.cursor.filter(|_| !done.is_empty())
        };
        self.save(&session, moved);
        true
    }

    /// An upstream event `diskbuffer-ack` with the field `position`; false when it is another event.
    pub(super) fn acknowledged_by(&self, event: &gst::EventRef) -> bool {
        let Some(structure) = event.structure().filter(|s| s.name() == "diskbuffer-ack") else { return false };
        match structure.get::<u64>("position") {
            Ok(position) => {
                if !self.acknowledge(position) {
                    gst::warning!(CAT, imp = self, "Position {position} was acknowledged, but not sent");
                }
            }
            Err(err) => gst::warning!(CAT, imp = self, "diskbuffer-ack needs position (uint64): {err}"),
        }
        true
    }

    fn refused(&self, d: &mut Delivery, flow: gst::FlowError) {
        gst::debug!(CAT, imp = self, "Downstream answers {flow}");
        match flow {
            // What ends it begins anew; nothing was accepted, so nothing is lost.
            gst::FlowError::Flushing => self.state().phase = Phase::Flushed,
            gst::FlowError::Eos => self.end(d, None),
            _ => {
                let text = gst::error_msg!(
                    gst::StreamError::Failed,
                    ("Internal data stream error."),
                    ["streaming stopped, reason {flow}"]
                );
                self.fail(d, text);
            }
        }
    }

    /// Everything that was asked for is delivered, or, with a number, the application wants the end.
    pub(super) fn end(&self, d: &mut Delivery, asked: Option<gst::Seqnum>) {
        d.chunk.clear();
        d.held.clear();
        if asked.is_some() && std::mem::replace(&mut d.ended, true) {
            // It was ended before.
            return;
        }
        let position = {
            let mut state = self.state();
            state.phase = Phase::Ended;
            state.position
        };
        if d.beginning.is_segment() && asked.is_none() {
            let (obj, seqnum) = (self.obj(), d.beginning.seqnum);
            // What begins next follows without a break.
            let done = gst::message::SegmentDone::builder(position).src(&*obj).seqnum(seqnum).build();
            let _ = obj.post_message(done);
            self.srcpad.push_event(gst::event::SegmentDone::builder(position).seqnum(seqnum).build());
            return;
        }
        gst::debug!(CAT, imp = self, "The end at {position:?}");
        d.ended = true;
        self.send_in_force_at_end(d);
        let seqnum = asked.unwrap_or(d.beginning.seqnum);
        self.srcpad.push_event(gst::event::Eos::builder().seqnum(seqnum).build());
    }

    /// A stream has a beginning before it has an end.
    fn send_in_force_at_end(&self, d: &mut Delivery) {
        if !d.has_segment {
            self.send_in_force(d, None);
        }
    }

    /// Nothing more can be delivered.
    pub(super) fn fail(&self, d: &mut Delivery, error: gst::ErrorMessage) {
        gst::error!(CAT, imp = self, "{error}");
        {
            let mut state = self.state();
            state.phase = Phase::Ended;
            state.last_error = Some(error.to_string());
        }
        d.chunk.clear();
        self.post_error_message(error);
        d.ended = true;
        self.send_in_force_at_end(d);
        self.srcpad.push_event(gst::event::Eos::builder().seqnum(d.beginning.seqnum).build());
    }
}

fn pushed(d: &Delivery, item: &Pending) -> Pushed {
    Pushed { last: item.sequence, sync: d.sync, before: item.before, after: item.after }
}

/// The consumer has it.
fn pass(state: &mut State, pushed: &Pushed) {
    let Some(cursor) = &mut state.cursor else { return };
    if let Pass::New { .. } = cursor.pass(Mark { sequence: pushed.last, totals: pushed.before }, pushed.after) {
        cursor.resume = cursor.resume.max(pushed.sync.min(cursor.position));
    }
}
