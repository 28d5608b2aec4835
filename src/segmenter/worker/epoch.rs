//! One window on its way to a worker pad: its head, the lead-in, data, its end, in the order in which they are pushed.
//!
//! Of an inter-coded stream a window gets, besides its own pictures, those that a decoder needs for them, flagged DECODE_ONLY: the
//! lead-in from the keyframe before, and pictures of other windows that come before one of its own in decode order. Pictures of
//! others are held back until it is known that one of its own follows.

use std::collections::VecDeque;

use super::gops::{Gops, Picture};
use super::head::Head;
use crate::media::beginning::Leading;
use crate::media::nal::ParameterSets;
use crate::store::Sync;
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
    head: Head,
    queue: VecDeque<Queued>,
    bytes: u64,
    at: Option<gst::ClockTime>,
    /// Pictures of other windows since the last of its own.
    held: Vec<Picture>,
    begun: bool,
    leading: Leading,
    /// Where its last picture ends, PTS.
    until: Option<gst::ClockTime>,
}

impl Epoch {
    /// `start`: the event that goes before its first buffer.
    pub fn new(id: WindowId, head: Head, start: gst::Event) -> Self {
        let mut epoch = Self {
            id,
            state: State::Open,
            owner: None,
            head: head.clone(),
            queue: VecDeque::new(),
            bytes: 0,
            at: head.start,
            held: Vec::new(),
            begun: false,
            leading: Leading::default(),
            until: head.start,
        };
        epoch.add(Item::Head(head));
        epoch.add(Item::Event(start));
        epoch
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
        if self.state != State::Open {
            return;
        }
        if event.type_() == gst::EventType::Caps {
            // Nothing that comes refers to what was before.
            self.held.clear();
        }
        self.add(Item::Event(event.clone()));
    }

    /// A buffer of the stream, whether it is of this window or not. False when the lead-in that it needs is not there.
    pub fn picture(&mut self, picture: &Picture, member: bool, gops: &Gops) -> bool {
        if self.state != State::Open {
            return true;
        }
        if !gops.is_inter_coded() {
            if member {
                self.put(picture, true, gops);
            }
            return true;
        }
        if !member {
            if self.begun {
                if picture.facts.sync == Sync::Closed {
                    self.held.clear();
                }
                self.held.push(picture.clone());
            }
            return true;
        }
        let mut complete = true;
        if !self.begun {
            let lead_in = gops.lead_in(self.head.start, picture);
            complete = lead_in.is_some();
            self.held = lead_in.unwrap_or_default();
        }
        for other in std::mem::take(&mut self.held) {
            self.put(&other, false, gops);
        }
        self.put(picture, true, gops);
        complete
    }

    fn put(&mut self, picture: &Picture, member: bool, gops: &Gops) {
        let Picture { buffer, facts, sets } = picture;
        let mut buffer = buffer.clone();
        if !self.begun {
            self.begun = true;
            let none = ParameterSets::default();
            buffer = self.leading.begin(facts, gops.caps(), sets.as_deref().unwrap_or(&none), buffer);
        } else if self.leading.leaves_out(facts, buffer.pts()) && !member {
            return;
        }
        if member {
            let end = buffer.pts().map(|pts| pts + buffer.duration().unwrap_or_default());
            self.until = self.until.max(end);
        } else {
            buffer.make_mut().set_flags(gst::BufferFlags::DECODE_ONLY);
        }
        self.add(Item::Buffer(buffer));
    }

    /// Nothing more comes. `end`: the event that says so.
    pub fn end(&mut self, mut end: gst::Event) {
        if self.state == State::Cut {
            end.make_mut().structure_mut().set("complete", false);
        }
        self.held.clear();
        self.state = State::Ended;
        self.add(Item::Tail { end, head: self.head.clone(), until: self.until });
    }

    /// Takes nothing any more.
    pub fn cut(&mut self) {
        self.held.clear();
        self.state = State::Cut;
    }
}
