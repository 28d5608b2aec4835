//! The source pads: a task for each, the segment that goes out, queries and events from downstream.

use std::sync::Arc;
use std::time::Duration;

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::imp::{CAT, FrameSync};
use super::mark::{self, Mark};
use super::settings::Mode;
use super::stream::{Frame, Item, Port, SegmentFacts, Stream};
use crate::timeline::Ns;
use crate::timeline::format::{Epoch, Format};

/// How often streams that are not live are looked at for silence.
const LOOK: Duration = Duration::from_millis(100);

/// What the task has taken to push.
struct Taken {
    port: Arc<Port>,
    item: Item,
    /// To be pushed before it.
    segment: Option<gst::Event>,
    lift: Ns,
}

impl Taken {
    fn new(stream: &mut Stream, port: Arc<Port>, item: Item) -> Self {
        let segment = begin(stream, &item);
        stream.busy = true;
        port.room.ring();
        Self { port, item, segment, lift: stream.lift.unwrap_or(Ns::ZERO) }
    }
}

fn clock_time(time: Ns) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(time.0.max(0).unsigned_abs())
}

impl FrameSync {
    /// One step of the task of a source pad.
    pub(super) fn step(&self, index: u32) {
        let mut next = self.next_item(index);
        while let Some(taken) = next {
            next = self.push(taken);
        }
    }

    /// Answers with what comes next, if there is something already.
    fn push(&self, Taken { port, item, segment, lift }: Taken) -> Option<Taken> {
        if let Some(segment) = segment {
            port.src.push_event(segment);
        }
        let frames = u64::from(matches!(item, Item::Frame(..)));
        let flow = match item {
            Item::Frame(frame, mark) => {
                #[cfg(not(feature = "v1_20"))]
                if let Some(mark) = mark {
                    port.src.push_event(mark::event(mark));
                }
                port.src.push(finish(frame, mark, lift))
            }
            Item::Event(event) => {
                port.src.push_event(event);
                Ok(gst::FlowSuccess::Ok)
            }
            Item::Gap { at, duration } => {
                let gap = gst::event::Gap::builder(clock_time(at + lift)).duration(duration.map(clock_time));
                port.src.push_event(gap.build());
                Ok(gst::FlowSuccess::Ok)
            }
        };
        self.pushed(port, frames, flow)
    }

    /// Waits for something to push; none when the task has to pause.
    fn next_item(&self, index: u32) -> Option<Taken> {
        let mut state = self.state();
        loop {
            let (due, live) = (state.due, state.live);
            let Some(stream) = state.streams.get_mut(&index).filter(|s| !s.is_flushing() && s.flow.is_ok()) else {
                drop(state);
                self.pause(index);
                return None;
            };
            let port = stream.port.clone();
            if let Some(item) = stream.queue.pop_front() {
                stream.thread = Some(std::thread::current().id());
                return Some(Taken::new(stream, port, item));
            }
            let looks = !live && state.streams.values().any(|stream| stream.frames_held > 0);
            let mut over = false;
            if !due && looks {
                (state, over) = port.item.wait_timeout(state, LOOK);
            } else if !due {
                state = port.item.wait(state);
            }
            if due || over {
                drop(state);
                let settings = self.settings();
                let now = self.now();
                self.advance(self.state(), &settings, now);
                state = self.state();
            }
        }
    }

    fn pause(&self, index: u32) {
        if let Some(port) = self.port(index) {
            let _ = port.src.pause_task();
        } else if let Some(pad) = self.obj().static_pad(&format!("src_{index}")) {
            let _ = pad.pause_task();
        }
    }

    fn pushed(&self, port: Arc<Port>, frames: u64, flow: Result<gst::FlowSuccess, gst::FlowError>) -> Option<Taken> {
        let mut state = self.state();
        let live = state.live;
        let stream = state.streams.get_mut(&port.index)?;
        stream.busy = false;
        // What a flush or a refusal met has not gone out.
        stream.counters.output += if flow.is_ok() { frames } else { 0 };
        stream.port.idle.ring();
        if stream.is_flushing() {
            return None;
        }
        let Err(err) = flow else {
            let item = stream.queue.pop_front()?;
            return Some(Taken::new(stream, port, item));
        };
        gst::debug!(CAT, obj = port.src, "Downstream answers {err:?}");
        stream.flow = Err(err);
        stream.keep_sticky();
        port.room.ring();
        drop(state);
        // Others do not wait for it.
        let (settings, now) = (self.settings(), self.now());
        let mut state = self.state();
        state.leave(port.index, now.of(live));
        self.advance(state, &settings, now);
        if matches!(err, gst::FlowError::Error | gst::FlowError::NotNegotiated | gst::FlowError::NotSupported) {
            gst::element_imp_error!(
                self,
                gst::StreamError::Failed,
                ("What is linked to {} takes no data ({err:?}): see its own message", port.src.name())
            );
        }
        None
    }

    pub(super) fn src_event(&self, pad: &gst::Pad, index: u32, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Reconfigure(_) => {
                let mut state = self.state();
                let stream = state.streams.get_mut(&index);
                let again =
                    stream.filter(|stream| stream.flow == Err(gst::FlowError::NotLinked) && !stream.is_flushing());
                if let Some(stream) = again {
                    // Linked now: sticky events are on the pad.
                    stream.flow = Ok(gst::FlowSuccess::Ok);
                    stream.discont = true;
                    drop(state);
                    let _ = self.start_task(pad, index);
                }
            }
            gst::EventView::Qos(_) => {
                let state = self.state();
                let ours = state.streams.get(&index).and_then(|stream| stream.settings.format());
                if ours != Some(Format::PIPELINE) {
                    // Upstream counts from elsewhere.
                    return true;
                }
            }
            _ => {}
        }
        gst::Pad::event_default(pad, Some(&*self.obj()), event)
    }

    pub(super) fn src_query(&self, pad: &gst::Pad, index: u32, query: &mut gst::QueryRef) -> bool {
        match query.view_mut() {
            gst::QueryViewMut::Latency(latency) => self.latency(index, latency),
            _ => gst::Pad::query_default(pad, Some(&*self.obj()), query),
        }
    }

    /// In sets each stream waits for all others; else each for itself.
    fn latency(&self, index: u32, answer: &mut gst::query::Latency) -> bool {
        let settings = self.settings();
        let align = settings.mode == Mode::Align;
        let (ports, by_arrival) = {
            let mut state = self.state();
            self.refresh(&mut state, &settings);
            let ports: Vec<_> = state.streams.values().map(|stream| stream.port.clone()).collect();
            let of_stream = state.streams.get(&index).map(|stream| stream.settings.clone());
            // Nothing of a sender's zero is known but by arrival, which jitters.
            let epoch = of_stream.and_then(|settings| settings.format()).map(|format| format.epoch);
            (ports, epoch != Some(Epoch::Pipeline))
        };
        let (mut any, mut least, mut most) = (false, gst::ClockTime::ZERO, gst::ClockTime::NONE);
        let mut asked = false;
        for port in ports.iter().filter(|port| align || port.index == index) {
            let mut query = gst::query::Latency::new();
            let known = port.sink.peer_query(&mut query);
            asked |= known && port.index == index;
            let (live, min, max) = query.result();
            let live = live && known;
            if live {
                any = true;
                least = least.max(min);
                most = most.map_or(max, |most| Some(max.map_or(most, |max| max.min(most))));
            }
            let mut state = self.state();
            if let Some(stream) = state.streams.get_mut(&port.index)
                && known
            {
                stream.live = Some(live);
                stream.upstream_latency = Ns::from(min.nseconds());
                state.has_live(live);
            }
        }
        if any && (align || by_arrival) {
            let own = gst::ClockTime::from_nseconds(settings.latency);
            least += own;
            most = most.map(|most| most + own);
        }
        gst::debug!(CAT, imp = self, "Latency: live {any}, {least} to {most:?}");
        answer.set(any, least, most);
        asked
    }
}

/// The segment, before the first thing that has a time.
fn begin(stream: &mut Stream, item: &Item) -> Option<gst::Event> {
    let first = match item {
        Item::Frame(frame, _) => frame.dts.map_or(frame.pts, |dts| dts.min(frame.pts)),
        Item::Gap { at, .. } => *at,
        Item::Event(event) if event.type_() == gst::EventType::Eos => Ns::ZERO,
        Item::Event(_) => return None,
    };
    if stream.lift.is_some() {
        return None;
    }
    // DTS may lie before zero, which a stamp cannot.
    let below = first.min(Ns::ZERO).abs();
    let lift = Ns::from_secs(below.0 / Ns::SECOND.0 + i64::from(below.0 % Ns::SECOND.0 > 0));
    stream.lift = Some(lift);
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_start(clock_time(lift));
    segment.set_position(clock_time(lift));
    let event = match stream.facts {
        Some(SegmentFacts { applied_rate, seqnum, stream_time }) => {
            segment.set_time(clock_time(stream_time));
            segment.set_applied_rate(applied_rate);
            gst::event::Segment::builder(&segment).seqnum(seqnum).build()
        }
        None => {
            segment.set_time(gst::ClockTime::ZERO);
            gst::event::Segment::new(&segment)
        }
    };
    Some(event)
}

/// The buffer with its new stamps; payload is shared, whoever else has it.
fn finish(frame: Frame, mark: Option<Mark>, lift: Ns) -> gst::Buffer {
    let mut buffer = frame.buffer;
    let inner = buffer.make_mut();
    inner.set_pts(clock_time(frame.pts + lift));
    inner.set_dts(frame.dts.map(|dts| clock_time(dts + lift)));
    if let Some(duration) = frame.duration {
        inner.set_duration(duration.map(clock_time));
    }
    if frame.discont {
        inner.set_flags(gst::BufferFlags::DISCONT);
    }
    #[cfg(feature = "v1_20")]
    if let Some(mark) = mark {
        mark::attach(inner, mark);
    }
    #[cfg(not(feature = "v1_20"))]
    let _ = mark;
    buffer
}
