//! A sink pad that does what a sink may do, by its mood.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::common::see;
use crate::streams::Random;

use super::oracle::Oracle;
use super::watch::violation;

#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub enum Mood {
    #[default]
    Takes,
    /// Each buffer takes that long.
    Slow(Duration),
    Answers(gst::FlowError),
    /// Until it is flushed or the mood changes.
    Blocks,
    /// Flushed or not; until then, or until the mood changes.
    Deaf(Instant),
    /// Caps of one kind in three.
    RefusesCaps,
}

impl Mood {
    /// Not `EOS` where nothing may be given up: what waits then is dropped.
    pub fn random(random: &mut Random, may_end: bool) -> Self {
        use gst::FlowError::{Eos, Error, Flushing, NotLinked, NotNegotiated};
        match random.bits() % 16 {
            0..5 => Mood::Takes,
            5 | 6 => Mood::Slow(Duration::from_millis(1 + random.bits() % 20)),
            7 | 8 => Mood::Answers(Error),
            9 => Mood::Answers(Flushing),
            10 => Mood::Answers(if random.chance(0.5) { NotNegotiated } else { NotLinked }),
            11 if may_end => Mood::Answers(Eos),
            11 | 12 => Mood::RefusesCaps,
            13 => Mood::Deaf(Instant::now() + Duration::from_millis(50 + random.bits() % 600)),
            _ => Mood::Blocks,
        }
    }
}

#[derive(Default)]
struct State {
    mood: Mood,
    flushing: bool,
    /// What it has taken since the element was started: before the first, some refusals are errors of the pipeline.
    taken: u64,
    /// Ends of stream that it has returned.
    ends: u64,
    /// When it was last deaf.
    deaf_until: Option<Instant>,
    /// Of the last that it has taken.
    position: Option<u64>,
}

/// Cheap to clone: all are the same sink.
#[derive(Clone)]
pub struct Sink {
    pub oracle: Oracle,
    state: Arc<(Mutex<State>, Condvar)>,
}

fn kind(caps: &gst::CapsRef) -> Option<i32> {
    caps.structure(0)?.get("width").ok()
}

fn caps_of(pad: &gst::Pad) -> Option<i32> {
    pad.current_caps().and_then(|caps| kind(&caps))
}

fn is_refused(caps: Option<i32>) -> bool {
    caps.is_some_and(|caps| caps % 3 == 0)
}

impl Sink {
    pub fn new(oracle: Oracle) -> Self {
        Self { oracle, state: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap()
    }

    pub fn set_mood(&self, mood: Mood) {
        let mut state = self.lock();
        if let Mood::Deaf(until) = mood {
            state.deaf_until = Some(until);
        }
        state.mood = mood;
        self.state.1.notify_all();
    }

    /// Another run of the element begins.
    pub fn activated(&self) {
        self.lock().taken = 0;
    }

    pub fn ends(&self) -> u64 {
        self.lock().ends
    }

    pub fn position(&self) -> Option<u64> {
        self.lock().position
    }

    /// It ends its waits when it is flushed, and did since `since`.
    pub fn listens_since(&self, since: Instant) -> bool {
        self.lock().deaf_until.is_none_or(|until| until < since)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        self.state.1.wait_timeout(state, time).unwrap().0
    }

    /// What it answers.
    fn answer(&self, pad: &gst::Pad) -> Result<(), gst::FlowError> {
        let came = Instant::now();
        let mut state = self.lock();
        loop {
            if let Mood::Deaf(until) = state.mood
                && let Some(left) = until.checked_duration_since(Instant::now())
            {
                state = self.wait(state, left);
                continue;
            }
            if state.flushing {
                return Err(gst::FlowError::Flushing);
            }
            let answer = match state.mood {
                Mood::Takes | Mood::Deaf(_) => Ok(()),
                Mood::Slow(time) => match time.checked_sub(came.elapsed()) {
                    Some(left) => {
                        state = self.wait(state, left);
                        continue;
                    }
                    None => Ok(()),
                },
                Mood::Blocks => {
                    state = self.wait(state, Duration::from_secs(1));
                    continue;
                }
                // A pipeline that was never negotiated or linked is in error.
                Mood::RefusesCaps if state.taken > 0 && is_refused(caps_of(pad)) => Err(gst::FlowError::NotNegotiated),
                Mood::Answers(gst::FlowError::NotNegotiated | gst::FlowError::NotLinked) if state.taken == 0 => Ok(()),
                Mood::RefusesCaps => Ok(()),
                Mood::Answers(flow) => Err(flow),
            };
            if answer == Err(gst::FlowError::Eos) {
                state.ends += 1;
            }
            state.taken += u64::from(answer.is_ok());
            return answer;
        }
    }

    fn event(&self, event: &gst::Event) -> bool {
        match event.view() {
            gst::EventView::FlushStart(_) => {
                self.lock().flushing = true;
                self.state.1.notify_all();
            }
            gst::EventView::FlushStop(_) => {
                self.lock().flushing = false;
                self.oracle.begins_anew();
            }
            gst::EventView::StreamStart(_) => self.oracle.begins_anew(),
            gst::EventView::Eos(_) => self.oracle.ends(),
            gst::EventView::Caps(caps) => {
                let state = self.lock();
                let refused = state.mood == Mood::RefusesCaps && state.taken > 0 && is_refused(kind(caps.caps()));
                drop(state);
                if refused {
                    self.oracle.reason();
                }
                return !refused;
            }
            gst::EventView::CustomDownstream(event) => {
                let at = event.structure().filter(|mark| mark.name() == "mark").and_then(|mark| mark.get("at").ok());
                match at {
                    Some(at) => self.oracle.mark(at),
                    None => violation(format!("nobody has sent {event:?}")),
                }
            }
            _ => {}
        }
        true
    }

    fn note_position(&self, buffer: &gst::BufferRef) {
        let meta = gst::meta::CustomMeta::from_buffer(buffer, "diskbuffer-position");
        if let Some(position) = meta.ok().and_then(|meta| meta.structure().get("position").ok()) {
            self.lock().position = Some(position);
        }
    }

    fn refused(&self, flow: gst::FlowError) -> gst::FlowError {
        self.oracle.reason();
        flow
    }

    pub fn pad(&self) -> gst::Pad {
        let (chain, list, event) = (self.clone(), self.clone(), self.clone());
        let any = gst::Caps::new_any();
        let template = gst::PadTemplate::new("sink", gst::PadDirection::Sink, gst::PadPresence::Always, &any).unwrap();
        let pad = gst::Pad::builder_from_template(&template)
            .chain_function(move |pad, _, buffer| {
                chain.answer(pad).map_err(|flow| chain.refused(flow))?;
                chain.oracle.take(&see(&buffer), caps_of(pad));
                chain.note_position(&buffer);
                Ok(gst::FlowSuccess::Ok)
            })
            .chain_list_function(move |pad, _, buffers| {
                list.answer(pad).map_err(|flow| list.refused(flow))?;
                let seen: Vec<_> = buffers.iter().map(see).collect();
                list.oracle.take_list(&seen, caps_of(pad));
                buffers.iter().for_each(|buffer| list.note_position(buffer));
                Ok(gst::FlowSuccess::Ok)
            })
            .event_function(move |_, _, e| event.event(&e))
            .build();
        pad.set_active(true).unwrap();
        pad
    }
}
