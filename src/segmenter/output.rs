//! The source pads: what can leave is pushed without the lock, by the thread that brought it or by a task.

use std::sync::{Arc, PoisonError};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::core::Word;
use super::imp::{CAT, Segmenter};
use super::line::{Key, Out, Passing, Phase, Port};
use super::tell;
use crate::timeline::Ns;

type Flow = Result<gst::FlowSuccess, gst::FlowError>;

impl Segmenter {
    /// Pushes all that can leave, in the thread of a sink pad. Events go on behind what downstream refuses.
    pub(super) fn drain(&self, port: &Port, all: bool) -> Flow {
        let mut flow = Ok(gst::FlowSuccess::Ok);
        loop {
            let (out, reference) = {
                let mut core = self.core();
                let reference = core.reference == Some(port.key);
                let line = core.lines.get_mut(&port.key).ok_or(gst::FlowError::Flushing)?;
                if line.phase == Phase::Flushing {
                    return Err(gst::FlowError::Flushing);
                }
                match line.take() {
                    Some(out) => {
                        line.busy = true;
                        line.thread = Some(std::thread::current().id());
                        (out, reference)
                    }
                    None => return flow,
                }
            };
            let pushed = self.deliver(port, out, reference);
            {
                let mut core = self.core();
                if let Some(line) = core.lines.get_mut(&port.key) {
                    line.busy = false;
                    line.port.idle.notify_all();
                    line.port.item.notify_all();
                }
            }
            if pushed.is_err() {
                flow = pushed;
                if !all {
                    return flow;
                }
            }
        }
    }

    /// One step of the task of a source pad.
    pub(super) fn step(&self, key: Key) {
        let Some((port, out, reference)) = self.next(key) else { return };
        let flow = self.deliver(&port, out, reference);
        self.pushed(&port, flow);
    }

    /// Waits for something to push; none when the task has to pause.
    fn next(&self, key: Key) -> Option<(Arc<Port>, Out, bool)> {
        let mut core = self.core();
        loop {
            let reference = core.reference == Some(key);
            let Some(line) = core.lines.get_mut(&key).filter(|line| line.phase != Phase::Flushing && line.flow.is_ok())
            else {
                let port = core.lines.get(&key).map(|line| line.port.clone());
                drop(core);
                let pad = port.map(|port| port.src.clone()).or_else(|| self.obj().static_pad(&key.src_name()));
                let _ = pad.map(|pad| pad.pause_task());
                return None;
            };
            let port = line.port.clone();
            if !line.busy
                && let Some(out) = line.take()
            {
                line.busy = true;
                line.thread = Some(std::thread::current().id());
                port.room.notify_all();
                return Some((port, out, reference));
            }
            // Who brings several streams may wait for room, in this one or another, which now has to be thought of
            // anew.
            core.lines.values().for_each(|line| line.port.room.notify_all());
            core = port.item.wait(core).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn pushed(&self, port: &Port, flow: Flow) {
        let mut core = self.core();
        let Some(line) = core.lines.get_mut(&port.key) else { return };
        line.busy = false;
        line.port.idle.notify_all();
        let Err(err) = flow else { return };
        if line.phase == Phase::Flushing {
            return;
        }
        gst::debug!(CAT, obj = port.src, "Downstream answers {err:?}");
        line.flow = Err(err);
        line.clear();
        line.wake();
        // Others do not wait for it.
        core.leave(port.key);
        if let Some(line) = core.lines.get_mut(&port.key) {
            line.clear();
        }
        drop(core);
        self.tell();
        if matches!(err, gst::FlowError::Error | gst::FlowError::NotNegotiated | gst::FlowError::NotSupported) {
            gst::element_imp_error!(
                self,
                gst::StreamError::Failed,
                ("What is linked to {} takes no data ({err:?}): see its own message", port.src.name())
            );
        }
    }

    fn deliver(&self, port: &Port, out: Out, reference: bool) -> Flow {
        if reference {
            self.serve_workers(port);
        }
        match out {
            Out::Start(opening) => {
                if reference {
                    self.worker_window_begins(&opening);
                }
                port.src.push_event(opening.event());
                Ok(gst::FlowSuccess::Ok)
            }
            Out::Frame(mut passing) => {
                let by_workers = self.finish(&mut passing, reference);
                combine(port.src.push(passing.frame.buffer), by_workers)
            }
            Out::List(frames) => {
                let mut list = gst::BufferList::new_sized(frames.len());
                let mut by_workers = None;
                {
                    let list = list.make_mut();
                    for mut passing in frames {
                        let flow = self.finish(&mut passing, reference);
                        by_workers = by_workers.filter(|flow: &Flow| flow.is_err()).or(flow);
                        list.add(passing.frame.buffer);
                    }
                }
                if list.is_empty() {
                    return Ok(gst::FlowSuccess::Ok);
                }
                combine(port.src.push_list(list), by_workers)
            }
            Out::End(ending) => {
                if reference {
                    self.worker_window_ends(&ending);
                }
                port.src.push_event(ending.event());
                Ok(gst::FlowSuccess::Ok)
            }
            Out::Event(event) => {
                if reference {
                    self.worker_event(&event);
                }
                port.src.push_event(event);
                Ok(gst::FlowSuccess::Ok)
            }
        }
    }

    /// The last that is done to a buffer before it leaves.
    fn finish(&self, passing: &mut Passing, reference: bool) -> Option<Flow> {
        tell::marked(passing, self.marks());
        if passing.discont && !passing.frame.buffer.flags().contains(gst::BufferFlags::DISCONT) {
            passing.frame.buffer.make_mut().set_flags(gst::BufferFlags::DISCONT);
        }
        if reference { self.worker_buffer(passing) } else { None }
    }

    /// Posts messages and sends requests that decisions brought about, in their order, whoever does it.
    pub(super) fn tell(&self) {
        let mut core = self.core();
        if core.telling {
            return;
        }
        core.telling = true;
        while let Some(word) = core.words.pop_front() {
            drop(core);
            let obj = self.obj();
            match word {
                Word::Message(message) => {
                    gst::debug!(CAT, imp = self, "{message}");
                    let _ = obj.post_message(gst::message::Element::builder(message).src(&*obj).build());
                }
                Word::Warning(sentence) => {
                    gst::element_imp_warning!(self, gst::ResourceError::NoSpaceLeft, ("{sentence}"));
                }
                Word::Keyframe(running) => self.ask_for_keyframe(running),
            }
            core = self.core();
        }
        core.telling = false;
    }

    fn ask_for_keyframe(&self, running: Ns) {
        gst::debug!(CAT, imp = self, "A keyframe is wanted at {} ns", running.0);
        let Ok(at) = u64::try_from(running.0) else { return };
        for port in self.ports() {
            if !port.sink.is_linked() || super::imp::lock(&port.look).kind == super::frames::Kind::Audio {
                continue;
            }
            let event = gst_video::UpstreamForceKeyUnitEvent::builder()
                .running_time(gst::ClockTime::from_nseconds(at))
                .all_headers(true)
                .build();
            port.sink.push_event(event);
        }
    }

    pub(super) fn start_task(&self, pad: &gst::Pad, key: Key) -> Result<(), glib::BoolError> {
        let weak = self.obj().downgrade();
        crate::task::start(pad, move || {
            if let Some(obj) = weak.upgrade() {
                obj.imp().step(key);
            }
        })
    }

    /// With further streams `sink` gets a task too: a muxer, or a thread that brings several streams, waits for all.
    pub(super) fn let_main_run(&self) {
        let start = {
            let mut core = self.core();
            let wanted = core.lines.len() > 1 && core.windows.is_some();
            let Some(line) = core.lines.get_mut(&Key::Main) else { return };
            let start = wanted && !line.tasked;
            line.tasked |= wanted;
            start.then(|| line.port.clone())
        };
        if let Some(port) = start
            && port.src.is_active()
        {
            let _ = self.start_task(&port.src, Key::Main);
        }
    }

    pub(super) fn src_activatemode(
        &self,
        pad: &gst::Pad,
        key: Key,
        mode: gst::PadMode,
        active: bool,
    ) -> Result<(), gst::LoggableError> {
        if mode != gst::PadMode::Push {
            return Err(gst::loggable_error!(CAT, "Only push mode is possible"));
        }
        let tasked = {
            let mut core = self.core();
            let Some(line) = core.lines.get_mut(&key) else { return Ok(()) };
            line.phase = if active { Phase::Running } else { Phase::Flushing };
            line.flow = Ok(gst::FlowSuccess::Ok);
            line.wake();
            line.tasked
        };
        if !active {
            pad.stop_task()?;
        } else if tasked {
            self.start_task(pad, key).map_err(|err| gst::loggable_error!(CAT, "{err}"))?;
        }
        Ok(())
    }

    pub(super) fn src_event(&self, pad: &gst::Pad, key: Key, event: gst::Event) -> bool {
        if self.trigger_event(key, &event) {
            return true;
        }
        if let gst::EventView::Reconfigure(_) = event.view() {
            let mut core = self.core();
            if let Some(line) = core.lines.get_mut(&key)
                && line.tasked
                && line.flow == Err(gst::FlowError::NotLinked)
                && line.phase != Phase::Flushing
            {
                // Linked now: sticky events are on the pad.
                line.flow = Ok(gst::FlowSuccess::Ok);
                line.discont = true;
                drop(core);
                let _ = self.start_task(pad, key);
            }
        }
        gst::Pad::event_default(pad, Some(&*self.obj()), event)
    }

    pub(super) fn src_query(&self, pad: &gst::Pad, key: Key, query: &mut gst::QueryRef) -> bool {
        match query.view_mut() {
            gst::QueryViewMut::Latency(latency) => self.latency(key, latency),
            _ => gst::Pad::query_default(pad, Some(&*self.obj()), query),
        }
    }

    /// What strategy=scene has to see of what follows: two frames; encoded, two that others are predicted from, and
    /// what lies between them.
    fn look_ahead(&self, settings: &super::settings::Settings) -> gst::ClockTime {
        if settings.strategy != super::settings::Strategy::Scene {
            return gst::ClockTime::ZERO;
        }
        let reference = self.core().reference.unwrap_or(Key::Main);
        let Some(port) = self.port(reference) else { return gst::ClockTime::ZERO };
        let look = super::imp::lock(&port.look);
        let frames: u64 = if look.kind.is_encoded_video() { 12 } else { 2 };
        let rate = look.framerate.unwrap_or(gst::Fraction::new(25, 1));
        let (numerator, denominator) = (u64::from(rate.numer().unsigned_abs()), u64::from(rate.denom().unsigned_abs()));
        gst::ClockTime::from_nseconds((frames * 1_000_000_000).saturating_mul(denominator) / numerator.max(1))
    }

    /// Windows that leave as lists, and the pre-roll, come that much later.
    pub(super) fn latency(&self, key: Key, answer: &mut gst::query::Latency) -> bool {
        let Some(port) = self.port(key) else { return false };
        let mut query = gst::query::Latency::new();
        if !port.sink.peer_query(&mut query) {
            return false;
        }
        let (live, mut least, mut most) = query.result();
        let settings = self.settings();
        let own = settings.own_latency() + self.look_ahead(&settings);
        if live && own > gst::ClockTime::ZERO {
            least += own;
            most = most.map(|most| most + own);
        }
        gst::debug!(CAT, imp = self, "Latency: live {live}, {least} to {most:?}");
        answer.set(live, least, most);
        true
    }
}

/// With workers `src` need not be linked.
fn combine(by_src: Flow, by_workers: Option<Flow>) -> Flow {
    match (by_src, by_workers) {
        (Err(gst::FlowError::NotLinked), Some(flow)) => flow,
        (flow, _) => flow,
    }
}
