//! The sink pads: what comes is looked at without the lock, then told to the windows in its order.

use std::sync::PoisonError;

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::core::Core;
use super::frames::{self, Timing};
use super::imp::{CAT, Segmenter, lock};
use super::line::{Frame, Incoming, Key, Line, Port};
use super::pixels;
use super::settings::{Output, Settings, Strategy, TimeBase};
use super::waiting::Waiting;
use crate::timeline::Ns;

/// Where streams come from one thread, one that waits would keep the others from coming: it may take that much more.
const STRETCH: u64 = 4;

/// A buffer was taken in.
#[derive(Debug, Clone, Copy)]
struct Admitted {
    /// A task pushes; else who brought it does.
    tasked: bool,
}

type Flow = Result<gst::FlowSuccess, gst::FlowError>;

impl Segmenter {
    pub(super) fn sink_chain(&self, key: Key, buffer: gst::Buffer) -> Flow {
        let port = self.port(key).ok_or(gst::FlowError::Flushing)?;
        let admitted = self.admit(&port, buffer, 0)?;
        self.forward(&port, admitted)
    }

    pub(super) fn sink_chain_list(&self, key: Key, list: gst::BufferList) -> Flow {
        let port = self.port(key).ok_or(gst::FlowError::Flushing)?;
        let number = self.next_list();
        // Buffers of a list of ours alone are taken out as they are.
        let mut last = None;
        for buffer in list.iter_owned() {
            last = Some(self.admit(&port, buffer, number)?);
        }
        last.map_or(Ok(gst::FlowSuccess::Ok), |admitted| self.forward(&port, admitted))
    }

    fn admit(&self, port: &Port, buffer: gst::Buffer, list: u64) -> Result<Admitted, gst::FlowError> {
        let mut look = lock(&port.look);
        if !look.greeted {
            look.greeted = true;
            drop(look);
            self.greet(port);
            look = lock(&port.look);
        }
        let windowed = look.timing == Timing::Windowed;
        let unsaid = (!windowed && !std::mem::replace(&mut look.said, true)).then_some(look.timing);
        let looked = if windowed { look.look(&buffer) } else { None };
        let more: Vec<_> = std::iter::from_fn(|| look.more()).collect();
        let clockwork = look.clockwork;
        drop(look);
        let running = looked.zip(clockwork).map(|(looked, clockwork)| clockwork.running(looked.at));
        self.trigger_buffer(port.key, clockwork, &buffer);

        let mut core = self.core();
        if windowed && core.lines.get(&port.key).is_some_and(|line| line.stream.is_none()) {
            core.join(port.key);
        }
        let line = core.lines.get_mut(&port.key).ok_or(gst::FlowError::Flushing)?;
        line.open()?;
        let frame = Frame { buffer, keyframe: looked.is_none_or(|looked| looked.keyframe), list, running };
        match looked {
            Some(looked) => {
                line.arrives(Incoming::Frame(frame, None));
                looked.known.into_iter().chain(more).for_each(|seen| line.scored(seen));
            }
            None => line.arrives(Incoming::Unwindowed(frame)),
        }
        core.advance(port.key);
        let admitted = Admitted { tasked: core.lines.get(&port.key).is_some_and(|line| line.tasked) };
        let news = core.has_news();
        drop(core);
        if let Some(timing) = unsaid {
            self.say_unwindowed(port, timing);
        }
        if news {
            self.tell();
        }
        Ok(admitted)
    }

    /// Before the first buffer of a run.
    fn greet(&self, port: &Port) {
        let mut query = gst::query::Latency::new();
        let known = port.sink.peer_query(&mut query);
        let live = known && query.result().0;
        let wall = self.wall();
        let mut core = self.core();
        if let Some(wall) = wall.filter(|_| live || core.mapping.base() == TimeBase::Utc) {
            core.mapping.set_wall(wall);
        }
        if let Some(line) = core.lines.get_mut(&port.key) {
            line.live = Some(live);
        }
        core.join(port.key);
        let any = core.lines.values().any(|line| line.live == Some(true));
        core.with_windows(|windows, _, _| windows.set_live(any));
    }

    /// Says once for each segment why no windows are made of it.
    fn say_unwindowed(&self, port: &Port, timing: Timing) {
        let why = match timing {
            Timing::Windowed => return,
            Timing::Unknown => "it has no SEGMENT",
            Timing::NotInTime => "its SEGMENT is not in TIME: put a parser or a demuxer before the element",
            Timing::Backwards => "it plays backwards: set a rate above 0 for windows",
        };
        gst::element_imp_warning!(
            self,
            gst::StreamError::Format,
            ("The stream of {} passes without windows, as {why}", port.name)
        );
    }

    /// What can leave leaves, or upstream waits.
    fn forward(&self, port: &Port, admitted: Admitted) -> Flow {
        if admitted.tasked { self.wait_for_room(port) } else { self.drain(port, false) }
    }

    fn wait_for_room(&self, port: &Port) -> Flow {
        let mut since = None;
        let mut core = self.core();
        loop {
            let line = core.lines.get(&port.key).ok_or(gst::FlowError::Flushing)?;
            line.open()?;
            let flow = line.flow;
            if !is_full(line, &core, 1) {
                return flow;
            }
            let event = core.settings.strategy == Strategy::Event;
            let starving = |other: &Line| {
                other.port.key != port.key && other.stream.is_some() && other.open().is_ok() && other.starves(event)
            };
            if core.lines.values().any(starving) && !is_full(line, &core, STRETCH) {
                return flow;
            }
            let idle = line.ready.is_empty() && !line.busy;
            let waiting = if idle { core.wait_for_reference(port.key, &mut since) } else { Waiting::ForOthers };
            core = match waiting {
                Waiting::InVain if self.go_on_alone(&mut core, port) => continue,
                Waiting::InVain | Waiting::ForOthers => port.room.wait(core).unwrap_or_else(PoisonError::into_inner),
                Waiting::AtMost(left) => port.room.wait_timeout(core, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    /// Goes by what is known of the reference. Whether that made a difference.
    fn go_on_alone(&self, core: &mut Core, port: &Port) -> bool {
        if !core.mapping.is_ready() && core.lines.get(&port.key).is_some_and(Line::is_unplaced) {
            gst::debug!(CAT, obj = port.sink, "Placed in time without the segment of the reference");
            core.advance_alone(port.key);
            return true;
        }
        let done = core.give_up_waiting(port.key);
        if done {
            gst::debug!(CAT, obj = port.sink, "Decided without the reference, which brings nothing");
        }
        done
    }

    pub(super) fn sink_event(&self, pad: &gst::Pad, key: Key, event: gst::Event) -> bool {
        use gst::EventView as View;
        gst::log!(CAT, obj = pad, "Event {event:?}");
        let Some(port) = self.port(key) else { return false };
        if self.trigger_event(key, &event) {
            return true;
        }
        match event.view() {
            View::FlushStart(_) => return self.flush_start(&port, event),
            View::FlushStop(_) => return self.flush_stop(&port, event),
            _ if !event.is_serialized() => return port.src.push_event(event),
            _ => {}
        }
        let mut refused = None;
        {
            let mut look = lock(&port.look);
            let is_break = matches!(
                event.type_(),
                gst::EventType::Caps
                    | gst::EventType::Segment
                    | gst::EventType::StreamStart
                    | gst::EventType::Gap
                    | gst::EventType::Eos
            );
            if is_break {
                while let Some(seen) = look.finish() {
                    let mut core = self.core();
                    if let Some(line) = core.lines.get_mut(&key) {
                        line.scored(seen);
                    }
                }
            }
            match event.view() {
                View::Segment(segment) => look.set_segment(segment.segment()),
                View::Caps(caps) => {
                    let (settings, reference) = self.role(&port);
                    refused = look.set_caps(caps.caps(), &settings, reference).err();
                }
                _ => {}
            }
        }
        if let Some(sentence) = refused {
            if let Some(line) = self.core().lines.get_mut(&key) {
                line.flow = Err(gst::FlowError::NotNegotiated);
            }
            gst::element_imp_error!(self, gst::StreamError::WrongType, ("{sentence}"));
            return false;
        }
        {
            let mut core = self.core();
            let Some(line) = core.lines.get_mut(&key) else { return false };
            let caps = matches!(event.view(), View::Caps(_));
            if caps && line.flow == Err(gst::FlowError::NotNegotiated) {
                line.flow = Ok(gst::FlowSuccess::Ok);
            }
            line.arrives(Incoming::Event(event));
            if line.open().is_err() && line.phase == super::line::Phase::Flushing {
                line.clear();
            } else {
                core.advance(key);
            }
        }
        self.tell();
        let tasked = self.core().lines.get(&key).is_some_and(|line| line.tasked);
        if !tasked {
            let _ = self.drain(&port, true);
        }
        true
    }

    /// Settings of this run, and whether the stream is, or will be, the one that decides.
    fn role(&self, port: &Port) -> (std::sync::Arc<Settings>, bool) {
        let core = self.core();
        let first = core
            .reference
            .or_else(|| core.lines.iter().find(|(_, line)| line.port.sink.is_linked()).map(|(key, _)| *key));
        (core.settings.clone(), first.is_none_or(|first| first == port.key))
    }

    fn flush_start(&self, port: &Port, event: gst::Event) -> bool {
        let (tasked, reference) = {
            let mut core = self.core();
            let reference = core.reference == Some(port.key);
            let Some(line) = core.lines.get_mut(&port.key) else { return false };
            line.phase = super::line::Phase::Flushing;
            line.wake();
            (line.tasked, reference)
        };
        if reference {
            self.worker_flush_start(&event);
        }
        let done = port.src.push_event(event);
        if tasked {
            let _ = port.src.pause_task();
        }
        done
    }

    fn flush_stop(&self, port: &Port, event: gst::Event) -> bool {
        lock(&port.look).reset();
        let (tasked, reference) = {
            let mut core = self.core();
            let reference = core.reference == Some(port.key);
            core.flush(port.key);
            (core.lines.get(&port.key).is_some_and(|line| line.tasked), reference)
        };
        self.tell();
        if reference {
            self.worker_flush_stop(&event);
        }
        let done = port.src.push_event(event);
        if tasked
            && port.src.is_active()
            && let Err(err) = self.start_task(&port.src, port.key)
        {
            gst::error!(CAT, imp = self, "The task of {} cannot go on: {err}", port.name);
        }
        done
    }

    pub(super) fn sink_query(&self, pad: &gst::Pad, key: Key, query: &mut gst::QueryRef) -> bool {
        if query.is_serialized() {
            // Those have their place among buffers, and pools must not starve for what is held here.
            let held = {
                let core = self.core();
                let settings = &core.settings;
                let tasked = core.lines.get(&key).is_none_or(|line| line.tasked);
                let workers = !self.workers.is_empty();
                tasked || workers || settings.output == Output::BufferLists || settings.strategy == Strategy::Event
            };
            if held {
                return false;
            }
        }
        let done = gst::Pad::query_default(pad, Some(&*self.obj()), query);
        if let gst::QueryViewMut::Caps(caps) = query.view_mut() {
            self.narrow(key, caps);
        }
        done
    }

    /// Where pixels are looked at upstream is told which can be.
    fn narrow(&self, key: Key, query: &mut gst::query::Caps) {
        let Some(answer) = query.result_owned().filter(|caps| !caps.is_any()) else { return };
        // Settings of the run that is, or is to come.
        if !frames::reads_pixels(&self.settings()) || !self.port(key).is_some_and(|port| self.role(&port).1) {
            return;
        }
        let readable = pixels::readable(&answer);
        if !readable.is_empty() {
            query.set_result(&readable);
        }
    }
}

fn is_full(line: &Line, core: &Core, stretch: u64) -> bool {
    let settings = &core.settings;
    let event = settings.strategy == Strategy::Event;
    // What is kept as pre-roll, or until a window is complete, has bounds of its own.
    if settings.output == Output::BufferLists && !line.holds_back(stretch) {
        return false;
    }
    let level = if event { line.leaving() } else { line.level };
    let span = level.newest.zip(level.oldest).map_or(Ns::ZERO, |(newest, oldest)| newest - oldest);
    let over = |value: u64, bound: u64| bound > 0 && value >= bound.saturating_mul(stretch);
    over(level.buffers as u64, settings.max_size_buffers.into())
        || over(level.bytes, settings.max_size_bytes)
        || over(span.0.max(0).unsigned_abs(), settings.max_size_time)
}
