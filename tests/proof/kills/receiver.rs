//! Downstream of one stream: takes, blocks or refuses, and looks at each unit that it takes.
//!
//! Payload, times, flags, what is in force and the event before it have to be those of the unit that its number names. Order and
//! what is missing show in the journal.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use gst::prelude::*;

use super::journal::{Journal, Told};
use super::plan::Behaviour;
use super::reel::{InForce, RUN, Reel, is_marked, place_of};
use crate::common::PATIENCE;
use crate::pictures::nal_units;
use crate::victims::tell;

pub struct Receiver {
    pub stream: usize,
    pub reel: Arc<Reel>,
    pub journal: Arc<Journal>,
    pub behaviour: Behaviour,
    /// Number and position of what has to be acknowledged.
    pub acknowledges: Option<Mutex<Sender<(u64, u64)>>>,
    /// For a decoder, this many.
    pub keep: usize,
    pub state: Mutex<State>,
    pub ended: Condvar,
}

#[derive(Default)]
pub struct State {
    calls: u64,
    previous: Option<u64>,
    /// The one before was not taken.
    refused: bool,
    marked: Option<u64>,
    stream: Option<String>,
    caps: Option<gst::Caps>,
    start: Option<u64>,
    tag: Option<String>,
    /// Checked for what has the same.
    checked: Option<(InForce, bool)>,
    pub eos: bool,
    pub kept: Vec<Result<gst::Buffer, gst::Event>>,
    kept_units: usize,
}

impl Receiver {
    pub fn pad(self: &Arc<Self>) -> gst::Pad {
        // Without a template a pad takes no caps but its first.
        let any = gst::Caps::new_any();
        let template = gst::PadTemplate::new("sink", gst::PadDirection::Sink, gst::PadPresence::Always, &any).unwrap();
        let (chain, list, event) = (self.clone(), self.clone(), self.clone());
        let pad = gst::Pad::builder_from_template(&template)
            .chain_function(move |_, _, buffer| chain.take(&[buffer.as_ref()]))
            .chain_list_function(move |_, _, buffers| list.take(&buffers.iter().collect::<Vec<_>>()))
            .event_function(move |_, _, e| {
                event.event(e);
                true
            })
            .query_function(gst::Pad::query_default)
            .build();
        pad.set_active(true).unwrap();
        pad
    }

    /// All of them or none.
    fn take(&self, buffers: &[&gst::BufferRef]) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mut state = self.state.lock().unwrap();
        state.calls += 1;
        let refusal = match self.behaviour {
            Behaviour::Takes => None,
            Behaviour::Slow(us) => {
                std::thread::sleep(Duration::from_micros(us));
                None
            }
            Behaviour::Blocks(after) if state.calls > after => {
                drop(state);
                std::thread::sleep(PATIENCE);
                return Err(gst::FlowError::Flushing);
            }
            Behaviour::Blocks(_) => None,
            Behaviour::Refuses => Some(gst::FlowError::Error),
            Behaviour::NowAndThen(every) if state.calls.is_multiple_of(every) => {
                let kinds = [gst::FlowError::Error, gst::FlowError::Flushing];
                Some(kinds[(state.calls / every % 2) as usize])
            }
            Behaviour::NowAndThen(_) => None,
        };
        if let Some(refusal) = refusal {
            state.refused = true;
            state.marked = None;
            self.journal.tell(Told::Refused(buffers.first().map_or(0, |buffer| buffer.offset())));
            return Err(refusal);
        }
        for buffer in buffers {
            if let Err(wrong) = self.look(&mut state, buffer) {
                tell(&format!("wrong stream {}: {wrong}", self.stream));
            }
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn look(&self, state: &mut State, buffer: &gst::BufferRef) -> Result<(), String> {
        let number = buffer.offset();
        if number == u64::MAX || place_of(number) > RUN / 2 {
            return Err(format!("what has the number {number}?"));
        }
        let meta = gst::meta::CustomMeta::from_buffer(buffer, "diskbuffer-position").map_err(|err| err.to_string())?;
        let position = meta.structure().get("position").map_err(|err| err.to_string())?;
        let discont = buffer.flags().contains(gst::BufferFlags::DISCONT);
        let previous = state.previous.replace(number);
        let resumed = std::mem::take(&mut state.refused) || previous.is_none_or(|previous| previous + 1 != number);
        let looked = self
            .unit(number, buffer, discont)
            .and_then(|()| self.in_force(state, number))
            .and_then(|()| mark_before(&self.reel, state.marked.take(), number, resumed, discont));
        if state.kept_units < self.keep {
            state.kept_units += 1;
            let mut copy = gst::Buffer::from_slice(buffer.map_readable().unwrap().to_vec());
            buffer
                .copy_into(copy.make_mut(), gst::BufferCopyFlags::TIMESTAMPS | gst::BufferCopyFlags::FLAGS, ..)
                .unwrap();
            state.kept.push(Ok(copy));
        }
        self.journal.tell(Told::Delivered { number, position, discont });
        if let Some(acknowledges) = &self.acknowledges {
            let _ = acknowledges.lock().unwrap().send((number, position));
        }
        looked
    }

    fn unit(&self, number: u64, buffer: &gst::BufferRef, discont: bool) -> Result<(), String> {
        let unit = self.reel.unit(number);
        let [pts, dts] = self.reel.times(number);
        let ns = |time: Option<gst::ClockTime>| time.map(gst::ClockTime::nseconds);
        let times = (ns(buffer.pts()), ns(buffer.dts()), ns(buffer.duration()), buffer.offset_end());
        if times != (pts, dts, unit.duration, number + 1) {
            return Err(format!("{number} has other times: {times:?}"));
        }
        if buffer.flags() - gst::BufferFlags::DISCONT - gst::BufferFlags::TAG_MEMORY != unit.flags {
            return Err(format!("{number} has {:?} instead of {:?}", buffer.flags(), unit.flags));
        }
        let data = buffer.map_readable().map_err(|err| err.to_string())?;
        if data.as_slice() != unit.data && !(discont && with_parameter_sets(&unit.data, &data)) {
            return Err(format!("{number} has other data, {} bytes instead of {}", data.len(), unit.data.len()));
        }
        Ok(())
    }

    fn in_force(&self, state: &mut State, number: u64) -> Result<(), String> {
        let expected = self.reel.in_force(self.stream, number);
        if state.checked.as_ref().is_some_and(|(checked, changed)| !changed && *checked == expected) {
            return Ok(());
        }
        let State { stream: Some(stream), caps: Some(caps), start: Some(start), tag: Some(tag), .. } = &*state else {
            return Err(format!("{number} lacks stream-start, caps, segment or tags"));
        };
        let found = InForce { stream: stream.clone(), caps: caps.clone(), start: *start, tag: tag.clone() };
        if found != expected {
            return Err(format!("{number} has {found:?} in force instead of {expected:?}"));
        }
        state.checked = Some((expected, false));
        Ok(())
    }

    fn event(&self, event: gst::Event) {
        let mut state = self.state.lock().unwrap();
        let mut wrong = None;
        match event.view() {
            gst::EventView::StreamStart(e) => {
                (state.caps, state.start, state.tag) = (None, None, None);
                state.stream = Some(e.stream_id().to_string());
            }
            gst::EventView::Caps(e) => state.caps = Some(e.caps_owned()),
            gst::EventView::Segment(e) => {
                let ns = |time: Option<gst::ClockTime>| time.map(gst::ClockTime::nseconds);
                match e.segment().downcast_ref::<gst::ClockTime>() {
                    Some(segment)
                        if ns(segment.start()) == ns(segment.time())
                            && segment.stop().is_none()
                            && (segment.rate(), segment.applied_rate()) == (1.0, 1.0) =>
                    {
                        state.start = ns(segment.start());
                    }
                    _ => wrong = Some(format!("{:?}", e.segment())),
                }
            }
            gst::EventView::Tag(e) => state.tag = e.tag().get::<gst::tags::Title>().map(|title| title.get().to_owned()),
            gst::EventView::Eos(_) => {
                state.eos = true;
                self.ended.notify_all();
            }
            gst::EventView::CustomDownstream(_) => {
                state.marked = event.structure().and_then(|mark| mark.get("at").ok());
                self.journal.tell(Told::DeliveredMark(state.marked.unwrap_or(u64::MAX)));
            }
            _ => {}
        }
        if let Some(wrong) = wrong {
            tell(&format!("wrong stream {}: {wrong}", self.stream));
        }
        if let Some((_, changed)) = &mut state.checked {
            *changed = true;
        }
        let stays =
            matches!(event.type_(), gst::EventType::StreamStart | gst::EventType::Caps | gst::EventType::Segment);
        if stays && state.kept_units < self.keep {
            state.kept.push(Err(event));
        }
    }
}

/// Whether the event that was seen last belongs where it was.
fn mark_before(reel: &Reel, marked: Option<u64>, number: u64, resumed: bool, discont: bool) -> Result<(), String> {
    match marked {
        Some(mark) if mark == number => Ok(()),
        // What it belonged to was left out, or is not there to be repeated.
        Some(mark) if mark < number && (reel.unit(mark).leading || (resumed && discont)) => Ok(()),
        Some(mark) => Err(format!("{number} follows the event before {mark}")),
        None if is_marked(number) && !resumed && !discont => Err(format!("{number} lacks its event")),
        None => Ok(()),
    }
}

/// The same, with parameter sets put in somewhere.
fn with_parameter_sets(unit: &[u8], data: &[u8]) -> bool {
    let Some(more) = data.len().checked_sub(unit.len()).filter(|more| *more > 0) else { return false };
    let same = unit.iter().zip(data).take_while(|(a, b)| a == b).count();
    let is_set = |nal: &[u8; 2]| matches!(nal[0] & 31, 7 | 8);
    let others =
        |data: &[u8]| -> Vec<_> { nal_units(data, "byte-stream").into_iter().filter(|nal| !is_set(nal)).collect() };
    data[same + more..] == unit[same..] && others(data) == others(unit)
}
