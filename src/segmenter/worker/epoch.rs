//! One window on its way to a worker pad: its head, the lead-in, data, its end, in the order in which they are pushed.
//!
//! Of an inter-coded stream a window gets, besides its own pictures, those that a decoder needs for them, flagged DECODE_ONLY: the
//! lead-in from the keyframe before, and pictures of other windows that come before one of its own in decode order. Pictures of
//! others are held back until it is known that one of its own follows.
//!
//! Decoders look at the segment rather than at the flag. So what comes before the window ends with its beginning, and where the end
//! is known ahead, the segment ends there.

use std::collections::VecDeque;

use super::gops::{Gops, Picture};
use super::head::{Head, Stickies};
use crate::media::beginning::Leading;
use crate::media::nal::ParameterSets;
use crate::store::Sync;
use crate::timeline::Ns;
use crate::windowing::WindowId;

/// What a worker's task pushes in one step.
#[derive(Debug)]
pub enum Item {
    Head(Head),
    Event(gst::Event),
    Buffer(gst::Buffer),
    /// Behind the window: what is still on its way downstream has to come out.
    Tail {
        end: gst::Event,
        head: Head,
        until: Option<gst::ClockTime>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Open,
    /// There was no room: it takes nothing any more, and its end says so.
    Cut,
    /// Its end is in the queue.
    Ended,
}

#[derive(Debug)]
struct Queued {
    item: Item,
    /// Bytes of a buffer.
    bytes: u64,
    /// PTS or DTS of it or of the buffer before.
    at: Option<gst::ClockTime>,
}

#[derive(Debug)]
pub struct Epoch {
    pub id: WindowId,
    pub state: State,
    /// Number of the worker that has it.
    pub owner: Option<u32>,
    /// Running times.
    start: Ns,
    end: Option<Ns>,
    /// Goes before its first buffer.
    event: gst::Event,
    /// Since its first buffer.
    head: Option<Head>,
    queue: VecDeque<Queued>,
    bytes: u64,
    at: Option<gst::ClockTime>,
    /// Pictures of other windows since the last of its own.
    held: Vec<Picture>,
    leading: Leading,
    /// Where its last picture ends, PTS.
    until: Option<gst::ClockTime>,
    /// Downstream has all that it can use of it.
    sated: bool,
}

impl Epoch {
    /// Running times; the end if it is known ahead. `event` goes before its first buffer.
    pub fn new(id: WindowId, start: Ns, end: Option<Ns>, event: gst::Event) -> Self {
        Self {
            id,
            state: State::Open,
            owner: None,
            start,
            end,
            event,
            head: None,
            queue: VecDeque::new(),
            bytes: 0,
            at: None,
            held: Vec::new(),
            leading: Leading::default(),
            until: None,
            sated: false,
        }
    }

    fn add(&mut self, item: Item) {
        let bytes = match &item {
            Item::Buffer(buffer) => {
                self.at = buffer.dts_or_pts().or(self.at);
                buffer.size() as u64
            }
            _ => 0,
        };
        self.bytes += bytes;
        self.queue.push_back(Queued { item, bytes, at: self.at });
    }

    pub fn pop(&mut self) -> Option<Item> {
        let Queued { item, bytes, .. } = self.queue.pop_front()?;
        self.bytes -= bytes;
        Some(item)
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes and time that wait.
    pub fn level(&self) -> (u64, gst::ClockTime) {
        let ends = self.queue.front().and_then(|first| first.at).zip(self.queue.back().and_then(|last| last.at));
        (self.bytes, ends.map_or(gst::ClockTime::ZERO, |(first, last)| last.saturating_sub(first)))
    }

    pub fn event(&mut self, event: &gst::Event) {
        if self.state != State::Open || self.head.is_none() {
            // Of what is before its first buffer, that is in force then.
            return;
        }
        if event.type_() == gst::EventType::Caps {
            // Nothing that comes refers to what was before.
            self.held.clear();
        }
        self.add(Item::Event(event.clone()));
    }

    /// A buffer of the stream, whether it is of this window or not. False when the lead-in that it needs is not there.
    pub fn picture(&mut self, picture: &Picture, member: bool, gops: &Gops, stickies: &Stickies) -> bool {
        if self.state != State::Open || self.sated {
            return true;
        }
        let inter_coded = gops.is_inter_coded();
        if !member {
            if inter_coded && self.head.is_some() {
                if picture.facts.sync == Sync::Closed {
                    self.held.clear();
                }
                self.held.push(picture.clone());
            }
            return true;
        }
        let mut complete = true;
        let first = self.head.is_none();
        if first {
            // Sound is not cut: what a buffer has beyond the end would be in no window.
            let mut head = stickies.head(Some(self.start), self.end.filter(|_| inter_coded));
            let lead_in = gops.lead_in(head.start, picture);
            complete = lead_in.is_some();
            self.held = lead_in.unwrap_or_default();
            // Clips of events begin with the keyframe before.
            head.start = head.start.zip(picture.buffer.pts()).map(|(start, pts)| start.min(pts)).or(head.start);
            (self.at, self.until) = (head.start, head.start);
            self.add(Item::Head(head.clone()));
            self.add(Item::Event(self.event.clone()));
            self.head = Some(head);
        }
        let begins = self.held.is_empty();
        for (at, other) in std::mem::take(&mut self.held).into_iter().enumerate() {
            self.put(&other, false, first && at == 0, gops);
        }
        self.put(picture, true, first && begins, gops);
        complete
    }

    /// `first`: what a decoder gets before it.
    fn put(&mut self, picture: &Picture, member: bool, first: bool, gops: &Gops) {
        let Picture { buffer, facts, sets } = picture;
        let mut buffer = buffer.clone();
        if first {
            let none = ParameterSets::default();
            buffer = self.leading.begin(facts, gops.caps(), sets.as_deref().unwrap_or(&none), buffer);
        } else if self.leading.leaves_out(facts, buffer.pts()) && !member {
            return;
        }
        if member {
            let end = buffer.pts().map(|pts| pts + buffer.duration().unwrap_or_default());
            self.until = self.until.max(end);
        } else {
            let start = self.head.as_ref().and_then(|head| head.start);
            let buffer = buffer.make_mut();
            buffer.set_flags(gst::BufferFlags::DECODE_ONLY);
            if let Some(left) = start.zip(buffer.pts()).and_then(|(start, pts)| start.checked_sub(pts)) {
                // A part of it would be shown.
                buffer.set_duration(buffer.duration().unwrap_or_default().min(left));
            }
        }
        self.add(Item::Buffer(buffer));
    }

    /// It has had buffers.
    pub fn has_begun(&self) -> bool {
        self.head.is_some()
    }

    /// Where its end was known, decoders say EOS when they are past it. Then downstream needs no more of it: true.
    pub fn sate(&mut self) -> bool {
        if self.head.as_ref().is_none_or(|head| head.stop.is_none()) {
            return false;
        }
        self.sated = true;
        self.held.clear();
        let bytes = &mut self.bytes;
        self.queue.retain(|queued| {
            *bytes -= queued.bytes;
            !matches!(queued.item, Item::Buffer(_))
        });
        true
    }

    /// Nothing more comes. `end`: the event that says so.
    pub fn end(&mut self, mut end: gst::Event) {
        if self.state == State::Cut {
            end.make_mut().structure_mut().set("complete", false);
        }
        self.held.clear();
        self.state = State::Ended;
        if let Some(head) = self.head.clone() {
            self.add(Item::Tail { end, head, until: self.until });
        }
    }

    /// Takes nothing any more.
    pub fn cut(&mut self) {
        self.held.clear();
        self.state = State::Cut;
    }
}
