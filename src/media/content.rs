//! What a record is to an element: a buffer, an event, a change of what is in force.

use crate::media::buffer::{self, Facts};
use crate::media::event::{self, Decoded};
use crate::media::nal::ParameterSets;
use crate::store::{Arrival, Body, Payload};

#[derive(Debug, Clone)]
pub enum Content {
    Buffer {
        buffer: gst::Buffer,
        facts: Facts,
    },
    Event(gst::Event),
    /// What follows counts its running time from another zero.
    Domain(u64),
    /// The parameter sets in force.
    Sets(ParameterSets),
    /// All that is in force from here on, in its order: some of it changed by what was never stored.
    State(Vec<Vec<u8>>),
    /// Has its place in the order and nothing to say.
    Nothing,
}

impl Content {
    /// What was stored. `lost` is told the names of metas that cannot be made here.
    pub fn of(body: Body, payload: Payload, arrival: Arrival, lost: &mut impl FnMut(&str)) -> Self {
        match body {
            Body::Buffer(header) => {
                let facts = Facts {
                    sync: header.sync,
                    leading: header.leading,
                    list_remaining: header.list_remaining,
                    running_time: header.running_time,
                    captured_at: header.captured_at,
                    arrival: Some(arrival),
                };
                Content::Buffer { buffer: buffer::restore(&header, payload, lost), facts }
            }
            Body::Event | Body::State { .. } => Content::of_event(payload.as_ref()),
            Body::Snapshot(state) => Content::State(state.into_iter().map(|(_, value)| value).collect()),
        }
    }

    /// What the value of an event or of a state says.
    pub fn of_event(value: &[u8]) -> Self {
        match event::decode(value) {
            Decoded::Event(event) => Content::Event(event),
            Decoded::Domain(domain) => Content::Domain(domain),
            Decoded::ParameterSets(sets) => Content::Sets(sets),
            Decoded::Nothing => Content::Nothing,
        }
    }
}
