//! A `diskbuffer` whose downstream somebody else looks after: a bin that restarts or rebuilds what it delivers to.
//!
//! With a [`Manager`] the element never tries again by itself. Each refusal, end of stream and not linked included, holds it
//! and goes to the manager; so does what must not reach the present downstream (see [`Boundary`]). Held, the element
//! goes on storing, answers flushes, state changes and actions, and pushes nothing until [`DiskBuffer::release`].
//!
//! How a manager exchanges downstream:
//!
//! 1. [`hold`](DiskBuffer::hold) each member: with a reason when downstream has failed, without one when it is to be closed in
//!    order. Does not wait.
//! 2. In order: [`wait_until_idle`](DiskBuffer::wait_until_idle), then give the peer an end of stream, and wait for downstream's own
//!    end of stream. If it fails in that, `hold` with a reason makes it a failure.
//!    After a failure: set downstream to NULL, which ends a push that is under way; how that push ends is not a refusal.
//! 3. Link what is new to the source pad, start it.
//! 4. [`release`](DiskBuffer::release): after a failure delivery begins anew at the resume point, else right where it stopped, or at
//!    the keyframe before; beside other streams with what belongs to the keyframe of the one that leads, see [`super::joint`].
//!    Either way downstream gets its sticky events and DISCONT, never a flush, and is on probation for 150 ms.
//!
//! An outage lasts from the first refusal or `hold` with a reason until a downstream is trusted again; what fails in between
//! belongs to the same outage.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gst::subclass::prelude::*;

use super::DiskBuffer;
use super::delivery::Delivery;
use super::imp;
use super::imp::CAT;
use super::joint::{Membership, Seam};
use super::state::{Outage, State};
use super::tail::{Content, Item};
use crate::store::{Count, Sequence, StoreError, Sync, Totals};

/// Looks after what a [`DiskBuffer`] delivers to. Called from the delivery task, outside any push and with no lock held: what it
/// calls may hold, release, stop and exchange downstream at once, but must not wait for this element's own change of state.
pub(crate) trait Manager: Send + std::marker::Sync {
    /// Downstream has refused data, and `member` is held. Not called for a push that ends while it is held for a failure, nor
    /// for one that is flushed while it is held.
    fn refused(&self, member: &DiskBuffer, flow: gst::FlowError);

    /// What comes next is not for the present downstream, and `member` is held right before it. Once per boundary.
    fn boundary(&self, member: &DiskBuffer, boundary: Boundary);

    /// Downstream has taken the end of stream that nothing has followed yet. What it was given may be lost until its own end of
    /// stream comes out of it: then say [`DiskBuffer::confirm`]. Should data follow after all, [`Boundary::Ended`] tells.
    fn delivered_eos(&self, member: &DiskBuffer);
}

/// What lies between two downstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Boundary {
    /// Another epoch: running time counts anew (`set_boundaries`).
    Epoch,
    /// Other caps than those of the data that it was given (`set_boundaries`).
    Caps,
    /// It has had its end of stream, and takes nothing any more.
    Ended,
}

/// Whether delivery runs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    #[default]
    Released,
    /// Goes on where it stopped.
    InOrder,
    /// The same, and there something new begins.
    AtBoundary,
    /// Begins anew at the resume point.
    Failed,
}

/// What is to be thought of what downstream has accepted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    #[default]
    Given,
    /// It counts when it has gone on accepting for a while.
    Probation,
    /// The manager knows that it has arrived.
    Confirmed,
}

/// What the present downstream has had.
#[derive(Debug, Default)]
pub(super) enum Child {
    #[default]
    Fresh,
    Given {
        domain: Option<u64>,
        caps: Option<gst::Caps>,
    },
    /// Its end of stream.
    Ended,
}

/// How delivery gets on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// What downstream has accepted in this run of the element, repeats included. Only grows.
    pub accepted: Count,
    /// A push has been under way since then.
    pub pushing_since: Option<Instant>,
    /// What was not sent yet. With nothing here and no push under way the element has nothing to give: a muxer that waits for
    /// this pad is starved, not stuck.
    pub waiting: Totals,
    /// The present downstream has accepted something and is believed.
    pub trusted: bool,
    /// The live end of stream was delivered, and nothing has followed.
    pub ended: bool,
    pub held: bool,
}

impl Progress {
    /// Nothing is left to be given to downstream.
    pub fn is_starved(&self) -> bool {
        self.pushing_since.is_none() && self.waiting.buffers == 0
    }
}

impl DiskBuffer {
    /// Puts `manager` in charge of downstream. To be called in NULL.
    pub(crate) fn set_manager(&self, manager: Option<Arc<dyn Manager>>) {
        self.imp().set_manager(manager);
    }

    /// Whether another epoch and other caps are boundaries. For downstreams that take one of each, as muxers and files.
    pub(crate) fn set_boundaries(&self, wanted: bool) {
        self.imp().set_boundaries(wanted);
    }

    /// Has delivery stop at its next step; in any state, for the next run too. A `reason` says that downstream has failed: an
    /// outage begins with that text, unless one has begun, and [`DiskBuffer::release`] will go back to the resume point. Without
    /// one delivery will go on where it stops, unless it is held for a failure already.
    pub(crate) fn hold(&self, reason: Option<&str>) {
        self.imp().hold(reason);
    }

    /// Waits for the push that was under way when the element was held; false when it takes longer than `timeout`. After that
    /// nothing is pushed until the release. From within the delivery task there is nothing to wait for.
    pub(crate) fn wait_until_idle(&self, timeout: Duration) -> bool {
        self.imp().wait_for_push(timeout)
    }

    /// Ends the stream of the present downstream, and of it alone: the pads of this element stay open. To be called while the
    /// element is held and idle, from a thread that may block as long as downstream does. False when downstream did not take it.
    #[cfg(test)]
    pub(crate) fn push_eos(&self) -> bool {
        use gst::prelude::*;
        let peer = self.imp().srcpad.peer();
        peer.is_some_and(|peer| peer.send_event(gst::event::Eos::new()))
    }

    /// Lets delivery go on to a new downstream. Nothing happens when the element is not held.
    pub(crate) fn release(&self) {
        self.imp().release_hold();
    }

    /// All that downstream has accepted has arrived: its own end of stream came out. It is trusted at once. Returns when that
    /// is accounted for, or after `timeout`; from within the delivery task at once.
    pub(crate) fn confirm(&self, timeout: Duration) {
        self.imp().confirm(timeout);
    }

    pub(crate) fn progress(&self) -> Progress {
        self.imp().progress()
    }
}

impl Child {
    /// It has taken data.
    pub(super) fn has_data(&self) -> bool {
        matches!(self, Child::Given { .. })
    }
}

impl imp::DiskBuffer {
    fn hold(&self, reason: Option<&str>) {
        let begins = {
            let mut state = self.state();
            // It may not even have begun with the one that is taken away.
            if reason.is_some() || (state.hold == Hold::Released && state.exchanged != state.children) {
                state.set_next(Seam::Resume);
            }
            match reason {
                Some(_) => state.hold = Hold::Failed,
                None if state.hold == Hold::Released => state.hold = Hold::InOrder,
                None => {}
            }
            reason.filter(|_| state.begin_outage())
        };
        self.item_add.ring();
        self.item_del.ring();
        if let Some(reason) = begins {
            gst::warning!(CAT, imp = self, "Downstream has failed: {reason}; data is kept");
            self.tell_outage(reason);
        }
    }

    fn release_hold(&self) {
        {
            let mut state = self.state();
            match std::mem::take(&mut state.hold) {
                Hold::Released => return,
                // What a failure before it asks for is still owed until delivery has begun.
                Hold::InOrder | Hold::AtBoundary => {}
                Hold::Failed => {
                    state.generation += 1;
                    state.resend = true;
                }
            }
            state.children += 1;
            if let Some(joint) = &state.joint {
                joint.released();
            }
            state.trust = Trust::Probation;
        }
        self.item_add.ring();
    }

    fn confirm(&self, timeout: Duration) {
        let mut state = self.state();
        if state.trust != Trust::Probation {
            return;
        }
        state.trust = Trust::Confirmed;
        self.item_add.ring();
        if state.thread != Some(std::thread::current().id()) {
            let waiting = |state: &mut State| state.trust == Trust::Confirmed && state.flow.is_ok();
            drop(self.item_del.wait_timeout_while(state, timeout, waiting));
        }
    }

    fn progress(&self) -> Progress {
        let state = self.state();
        Progress {
            accepted: state.counters.accepted,
            pushing_since: state.pushing,
            waiting: state.level().since(state.sent.waiting()),
            trusted: state.trust == Trust::Given && state.outage.is_none() && state.delivered,
            ended: state.live_eos.is_some() && state.eos_sent == state.live_eos,
            held: state.hold != Hold::Released,
        }
    }

    /// What the present downstream must not be given.
    pub(super) fn boundary_before(&self, d: &Delivery, item: &Item) -> Option<Boundary> {
        match (&d.child, &item.content) {
            (Child::Fresh, _) | (_, Content::Nothing) => None,
            (Child::Ended, _) => self.manager().is_some().then_some(Boundary::Ended),
            (Child::Given { domain, caps }, content) => {
                if !self.wants_boundaries() || self.manager().is_none() {
                    return None;
                }
                let next = if let Content::Domain(next) = content { Some(*next) } else { d.domain };
                if domain.is_some() && next.is_some() && *domain != next {
                    return Some(Boundary::Epoch);
                }
                let next = match content {
                    Content::Event(event) => match event.view() {
                        gst::EventView::Caps(e) => Some(e.caps_owned()),
                        _ => return None,
                    },
                    Content::Buffer { .. } => d.caps.clone(),
                    _ => return None,
                };
                (next != *caps).then_some(Boundary::Caps)
            }
        }
    }

    /// Stops before `item`, which comes first when delivery goes on.
    pub(super) fn stop_before(&self, d: &mut Delivery, item: Item, boundary: Boundary) {
        d.held = Some(item);
        let new = {
            let mut state = self.state();
            state.pushing = None;
            let new = state.flow.is_ok() && d.generation == state.generation && state.hold == Hold::Released;
            if new {
                state.hold = Hold::AtBoundary;
                state.set_next(Seam::Here);
            }
            new
        };
        self.item_del.ring();
        if let Some(manager) = self.manager().filter(|_| new) {
            gst::info!(CAT, imp = self, "Held before what is not for the present downstream: {boundary:?}");
            manager.boundary(&self.obj(), boundary);
        }
    }

    /// Downstream was exchanged and delivery goes on: the old one was closed in order, so that it has what it took.
    pub(super) fn renew(&self, d: &mut Delivery, session: &imp::Session) {
        if d.probation.as_ref().is_some_and(|probation| probation.since.is_some()) {
            self.trust(d, session);
        }
        self.state().trust = Trust::Probation;
        match self.keyframe_before(d, session) {
            Ok(None) => {}
            Ok(Some(keyframe)) => {
                d.begin_at = Some(keyframe);
                return self.begin(d, session, false);
            }
            Err(err) => {
                // In a while, from the resume point: where it stands the new one could not decode anything.
                self.cannot_read(&err);
                self.state().resend = true;
                return self.retry_later(d);
            }
        }
        self.tell_going_on(session, d.children, stands_at(d));
        d.probation = Some(Default::default());
        d.sticky.values_mut().for_each(|sticky| sticky.sent = false);
        d.start = super::delivery::Start::Discont;
        d.leading = Default::default();
    }

    /// Where delivery has to go back to for a new downstream to begin at a keyframe; `None` when it may go on where it stands.
    fn keyframe_before(&self, d: &Delivery, session: &imp::Session) -> Result<Option<Sequence>, StoreError> {
        if d.held.as_ref().is_some_and(|item| !matches!(item.content, Content::Buffer { .. })) {
            // What comes is the first of an epoch or of its caps.
            return Ok(None);
        }
        let position = stands_at(d);
        let (resume, end, leader) = {
            let state = self.state();
            let leader = state.joint.as_ref().and_then(Membership::goes_back_to);
            (state.cursor.resume, state.end.sequence, leader)
        };
        if let Some(leader) = leader {
            return self.with_keyframe(session, resume..position, leader);
        }
        let (mut keyframe, mut keyframes, mut depends) = (None, 0, false);
        self.walk(session, resume..position, |found| {
            match found.sync {
                Sync::None => depends = true,
                _ => {
                    keyframe = Some(found.sequence);
                    keyframes += 1;
                }
            }
            ControlFlow::Continue(())
        })?;
        // With nothing there to look at, where all are keyframes the next one will be.
        let goes_on = if position < end { self.decodable_at(session, position) } else { keyframes > 1 && !depends };
        Ok(keyframe.filter(|_| !goes_on))
    }

    /// The present downstream has taken data.
    pub(super) fn note_given(d: &mut Delivery) {
        let known = matches!(&d.child, Child::Given { domain, caps } if *domain == d.domain && *caps == d.caps);
        if !known {
            d.child = Child::Given { domain: d.domain, caps: d.caps.clone() };
        }
    }

    pub(super) fn tell_outage(&self, reason: &str) {
        self.tell("diskbuffer-outage", |b| b.field("reason", reason));
    }
}

/// What comes next, or after this.
fn stands_at(d: &Delivery) -> Sequence {
    match (&d.held, d.chunk.front()) {
        (Some(item), _) => item.sequence,
        (None, Some(record)) => record.sequence,
        (None, None) => d.position,
    }
}

impl State {
    /// True when no outage had begun.
    pub(super) fn begin_outage(&mut self) -> bool {
        let begins = self.outage.is_none();
        if begins {
            self.counters.outages += 1;
            self.outage = Some(Outage { since: Instant::now(), waited: Totals::default() });
        }
        begins
    }
}
