//! The source pads: a task for each, the segment that goes out, queries and events from downstream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gst::glib;
use gst::glib::translate::from_glib_none;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::align::{LOOK, State};
use super::imp::{CAT, FrameSync};
use super::mark::{self, Mark};
use super::settings::Mode;
use super::stamps::Content;
use super::stream::{Frame, Item, Phase, Port, Stream};
use crate::timeline::Ns;
use crate::timeline::format::{Epoch, Format};

/// How long a step that is under way may take to end by itself when a stream stops.
const GRACE: Duration = Duration::from_millis(20);
/// How long it may take after downstream was flushed.
const FLUSH_GRACE: Duration = Duration::from_millis(400);

/// What the task has taken to push.
struct Taken {
    port: Arc<Port>,
    item: Item,
    /// To be pushed before it.
    segment: Option<gst::Event>,
    lift: Ns,
}

impl Taken {
    /// From the queue, if there is something to push. Segments that came only say what goes out.
    fn next(stream: &mut Stream, port: &Arc<Port>) -> Option<Self> {
        // Where downstream refused the task waits: for a flush, or for what is linked anew.
        while stream.flow.is_ok() {
            let item = stream.queue.pop_front()?;
            port.room.ring();
            match item {
                Item::Event(event) if event.type_() == gst::EventType::Segment => came(stream, event),
                item => {
                    let segment = begin(stream, &item);
                    stream.busy = true;
                    let lift = stream.outgoing.lift.unwrap_or(Ns::ZERO);
                    return Some(Self { port: port.clone(), item, segment, lift });
                }
            }
        }
        None
    }
}

fn clock_time(time: Ns) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(time.0.max(0).unsigned_abs())
}

impl FrameSync {
    /// No data passes any more, and nobody waits.
    pub(super) fn stop_flow(&self, index: u32) {
        if let Some(stream) = self.state().streams.get_mut(&index) {
            stream.phase = Phase::Flushing;
            stream.port.item.ring();
            stream.port.room.ring();
        }
    }

    /// Waits until the step that is under way has ended; from within it there is nothing to wait for.
    pub(super) fn wait_for_step(&self, port: &Port, deadline: Instant) -> bool {
        let mut state = self.state();
        let busy = |state: &State| {
            let stream = state.streams.get(&port.index).filter(|stream| std::ptr::eq(&*stream.port, port));
            stream.is_some_and(|stream| stream.busy && stream.thread != Some(std::thread::current().id()))
        };
        while busy(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = port.idle.wait_timeout(state, left).0;
        }
        true
    }

    /// Frees tasks that are blocked in a push: they cannot be joined before.
    pub(super) fn unblock(&self, ports: &[Arc<Port>]) {
        ports.iter().for_each(|port| self.stop_flow(port.index));
        let deadline = Instant::now() + GRACE;
        let blocked: Vec<_> = ports.iter().filter(|port| !self.wait_for_step(port, deadline)).collect();
        for port in &blocked {
            gst::debug!(CAT, obj = port.src, "Flushing downstream to end a push");
            port.src.push_event(gst::event::FlushStart::new());
        }
        let deadline = Instant::now() + FLUSH_GRACE;
        for port in blocked {
            if self.wait_for_step(port, deadline) {
                port.src.push_event(gst::event::FlushStop::new(false));
            }
        }
    }

    pub(super) fn src_activatemode(
        &self,
        pad: &gst::Pad,
        index: u32,
        mode: gst::PadMode,
        active: bool,
    ) -> Result<(), gst::LoggableError> {
        if mode != gst::PadMode::Push {
            return Err(gst::loggable_error!(CAT, "Only push mode is possible"));
        }
        if !active {
            self.stop_flow(index);
            pad.stop_task()?;
            return Ok(());
        }
        if let Some(stream) = self.state().streams.get_mut(&index) {
            stream.phase = Phase::Running;
            stream.flow = Ok(gst::FlowSuccess::Ok);
        }
        self.start_task(pad, index).map_err(|err| gst::loggable_error!(CAT, "{err}"))
    }

    pub(super) fn start_task(&self, pad: &gst::Pad, index: u32) -> Result<(), glib::BoolError> {
        // SAFETY: the field belongs to the lock that is held; the task gets a reference of its own.
        let there: Option<gst::Task> = {
            let _lock = pad.object_lock();
            unsafe { from_glib_none((*pad.as_ptr()).task) }
        };
        if let Some(task) = there {
            // To hand a paused one another closure leaks that.
            return task.start();
        }
        let weak = self.obj().downgrade();
        pad.start_task(move || {
            if let Some(obj) = weak.upgrade() {
                obj.imp().step(index);
            }
        })
    }

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
            let (due, patience) = (state.due, state.patience);
            let Some(stream) = state.streams.get_mut(&index).filter(|s| !s.is_flushing()) else {
                drop(state);
                self.pause(index);
                return None;
            };
            let port = stream.port.clone();
            if let Some(taken) = Taken::next(stream, &port) {
                stream.thread = Some(std::thread::current().id());
                return Some(taken);
            }
            let mut over = false;
            match patience {
                _ if due => {}
                Some(patience) => {
                    let waits = state.streams.values().any(|stream| stream.frames_held > 0);
                    (state, over) = port.item.wait_timeout(state, if waits { LOOK } else { patience });
                }
                None => state = port.item.wait(state),
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
            return Taken::next(stream, &port);
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
                    stream.port.item.ring();
                }
            }
            gst::EventView::Qos(qos) => {
                let settings = self.state().streams.get(&index).map(|stream| stream.settings.clone());
                let Some(settings) = settings.filter(|settings| settings.format() == Some(Format::PIPELINE)) else {
                    // Upstream counts from elsewhere.
                    return true;
                };
                let (kind, proportion, diff, at) = qos.get();
                if let Some(at) = at.filter(|_| settings.offset != 0) {
                    // In its running time.
                    let at = clock_time(Ns::from(at.nseconds()) - Ns(settings.offset));
                    let event = gst::event::Qos::builder(kind, proportion, diff).timestamp(at).seqnum(event.seqnum());
                    return gst::Pad::event_default(pad, Some(&*self.obj()), event.build());
                }
            }
            gst::EventView::Seek(seek) if seek.get().0 < 0.0 => {
                let content = self.state().streams.get(&index).map(|stream| stream.content);
                if content == Some(Content::InterCoded) {
                    gst::warning!(CAT, obj = pad, "Encoded video cannot be played backwards here: decode it before");
                    return false;
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
        let (mut any, mut least) = (false, gst::ClockTime::ZERO);
        // How much more than its least each can bear.
        let mut slack = gst::ClockTime::NONE;
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
                let more = max.map(|max| max.saturating_sub(min));
                slack = more.into_iter().chain(slack).min();
            }
            let mut state = self.state();
            if let Some(stream) = state.streams.get_mut(&port.index)
                && known
            {
                stream.live = Some(live);
                stream.upstream_latency = Ns::from(min.nseconds());
                state.look_live();
            }
        }
        if any && (align || by_arrival) {
            let own = gst::ClockTime::from_nseconds(settings.latency);
            least = least.saturating_add(own);
        }
        // What one stream has less of latency than another is held here.
        let most = slack.map(|slack| least.saturating_add(slack));
        gst::debug!(CAT, imp = self, "Latency: live {any}, {least} to {most:?}");
        answer.set(any, least, most);
        asked
    }
}

/// The segment, before the first thing that has a time, and where what came in says something else from here on.
fn begin(stream: &mut Stream, item: &Item) -> Option<gst::Event> {
    let first = match item {
        Item::Frame(frame, _) => frame.dts.map_or(frame.pts, |dts| dts.min(frame.pts)),
        Item::Gap { at, .. } => *at,
        Item::Event(event) if event.type_() == gst::EventType::Eos => Ns::ZERO,
        Item::Event(event) => {
            // Behind it a stream has all of its first events again.
            stream.outgoing.due |= event.type_() == gst::EventType::StreamStart;
            return None;
        }
    };
    if stream.outgoing.lift.is_some() && !stream.outgoing.due {
        return None;
    }
    stream.outgoing.due = false;
    // DTS may lie before zero, which a stamp cannot.
    let below = first.min(Ns::ZERO).abs();
    let lift = Ns::from_secs(below.0 / Ns::SECOND.0 + i64::from(below.0 % Ns::SECOND.0 > 0));
    let lift = *stream.outgoing.lift.get_or_insert(lift);
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_start(clock_time(lift));
    segment.set_time(gst::ClockTime::ZERO);
    let came = stream.outgoing.came.as_ref();
    if let Some((_, came)) = came {
        let rate = came.rate() * came.applied_rate();
        segment.set_applied_rate(rate);
        segment.set_flags(came.flags() - gst::SegmentFlags::RESET);
        if let Item::Frame(frame, _) = item
            && let Some(pts) = frame.buffer.pts()
        {
            let length = frame.buffer.duration().filter(|_| came.rate() < 0.0).unwrap_or(gst::ClockTime::ZERO);
            // Backwards from nowhere is no place.
            let placed = came.rate() > 0.0 || came.stop().is_some();
            if let Some(time) =
                Some(came).filter(|_| placed).and_then(|came| came.to_stream_time(pts.saturating_add(length)))
            {
                place(&mut segment, frame.pts, Ns::from(time.nseconds()), lift);
            }
        }
    }
    segment.set_position(segment.start());
    let event = gst::event::Segment::builder(&segment);
    Some(match came {
        Some((came, _)) => event.seqnum(came.seqnum()).build(),
        None => event.build(),
    })
}

/// Has this running time be that stream time.
fn place(segment: &mut gst::FormattedSegment<gst::ClockTime>, running: Ns, time: Ns, lift: Ns) {
    let rate = segment.applied_rate();
    if rate < 0.0 {
        // Backwards stream time counts from the stop: that is where it is 0.
        let stop = running + Ns::from_f64(time.as_f64() / -rate);
        segment.set_stop(clock_time(stop + lift));
        return;
    }
    let zero = time - Ns::from_f64(running.as_f64() * rate);
    if zero < Ns::ZERO {
        // The segment begins where stream time does.
        let base = (running - Ns::from_f64(time.as_f64() / rate)).max(Ns::ZERO);
        segment.set_base(clock_time(base));
        segment.set_start(clock_time(lift + base));
    }
    segment.set_time(clock_time(zero));
}

/// A segment that came in: one goes out when what it says is new.
fn came(stream: &mut Stream, event: gst::Event) {
    let gst::EventView::Segment(view) = event.view() else { return };
    let Some(segment) = view.segment().downcast_ref::<gst::ClockTime>().cloned() else { return };
    let same = |(before, old): &(gst::Event, gst::FormattedSegment<gst::ClockTime>)| {
        let zero = |s: &gst::FormattedSegment<gst::ClockTime>| {
            let [base, time] = [s.base(), s.time()].map(|time| time.map_or(0, |time| i128::from(time.nseconds())));
            // Stream time less running time, where both pass alike.
            time - base
        };
        let rates = (segment.rate(), segment.applied_rate()) == (old.rate(), old.applied_rate());
        before.seqnum() == event.seqnum() && rates && segment.flags() == old.flags() && zero(&segment) == zero(old)
    };
    let same = stream.outgoing.came.as_ref().is_some_and(same);
    stream.outgoing.due |= !same && stream.outgoing.lift.is_some();
    stream.outgoing.came = Some((event, segment));
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
