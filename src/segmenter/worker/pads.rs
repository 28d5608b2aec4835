//! Worker pads as the element has them: pads that come and go, tasks, what the reference stream brings, warnings.

use std::sync::Arc;

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::super::imp::{CAT, Segmenter};
use super::super::line::{Key, Passing, Port};
use super::super::settings::WorkerPolicy;
use super::super::tell::{Ending, Opening};
use super::{Begun, Came, Limits, Trouble, WorkerSettings};
use crate::windowing::WindowId;

impl Segmenter {
    /// A pad from the template `worker_%u`.
    pub(in crate::segmenter) fn request_worker(
        &self,
        template: &gst::PadTemplate,
        name: Option<&str>,
    ) -> Option<gst::Pad> {
        let obj = self.obj();
        let asked = match name.filter(|name| *name != template.name_template()) {
            Some(name) => Some(name.strip_prefix("worker_")?.parse::<u32>().ok()?),
            None => None,
        };
        self.configure_workers();
        let worker = self.workers.add(asked, |index| self.worker_pad(template, index))?;
        if obj.current_state() > gst::State::Ready || obj.pending_state() > gst::State::Ready {
            let _ = worker.pad.set_active(true);
        }
        if obj.add_pad(&worker.pad).is_err() {
            self.workers.remove(&worker);
            return None;
        }
        gst::debug!(CAT, imp = self, "New worker {}", worker.pad.name());
        Some(worker.pad.clone())
    }

    /// False if it is no worker pad.
    pub(in crate::segmenter) fn release_worker(&self, pad: &gst::Pad) -> bool {
        let Some(worker) = self.workers.worker(pad) else { return false };
        gst::debug!(CAT, imp = self, "Worker {} goes", pad.name());
        self.workers.unblock(&worker);
        let _ = pad.set_active(false);
        let lost = self.workers.remove(&worker);
        self.tell_lost(&lost, Some(&pad.name()), "released");
        let _ = self.obj().remove_pad(pad);
        true
    }

    fn worker_pad(&self, template: &gst::PadTemplate, index: u32) -> gst::Pad {
        let weak = self.obj().downgrade();
        gst::Pad::builder_from_template(template)
            .name(format!("worker_{index}"))
            .flags(gst::PadFlags::PROXY_CAPS)
            .activatemode_function(move |pad, _parent, mode, active| {
                // A pad that is new is activated before it has a parent.
                let Some(obj) = weak.upgrade() else { return Err(gst::loggable_error!(CAT, "the element is gone")) };
                Self::catch_panic_pad_function(
                    Some(obj.upcast_ref()),
                    || Err(gst::loggable_error!(CAT, "worker activation panicked")),
                    |imp| imp.worker_activatemode(pad, index, mode, active),
                )
            })
            .event_function(move |pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.worker_src_event(pad, index, event))
            })
            .query_function(move |pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.worker_query(pad, query))
            })
            .iterate_internal_links_function(move |_pad, parent| {
                let links = || gst::Iterator::from_vec(Vec::new());
                Self::catch_panic_pad_function(parent, links, |imp| {
                    let sink = imp.worker_stream().map(|port| port.sink.clone());
                    gst::Iterator::from_vec(sink.into_iter().collect())
                })
            })
            .build()
    }

    /// The stream that workers get: the reference, or what will be.
    pub(in crate::segmenter) fn worker_stream(&self) -> Option<Arc<Port>> {
        let core = self.core();
        let chosen = core.reference.and_then(|key| core.lines.get(&key));
        let linked = || core.lines.values().find(|line| line.port.sink.is_linked());
        chosen.or_else(linked).or(core.lines.get(&Key::Main)).map(|line| line.port.clone())
    }

    fn worker_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        match self.worker_stream() {
            Some(port) => self.src_query(pad, port.key, query),
            None => false,
        }
    }

    fn worker_activatemode(
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
            self.workers.stop(index);
            pad.stop_task()?;
            return Ok(());
        }
        self.workers.activate(index);
        self.start_worker_task(pad, index).map_err(|err| gst::loggable_error!(CAT, "{err}"))
    }

    fn start_worker_task(&self, pad: &gst::Pad, index: u32) -> Result<(), gst::glib::BoolError> {
        let weak = self.obj().downgrade();
        crate::task::start(pad, move || {
            let Some(obj) = weak.upgrade() else { return };
            let imp = obj.imp();
            if let Some(trouble) = imp.workers.step(index) {
                imp.tell_trouble(&trouble);
            }
        })
    }

    fn worker_src_event(&self, pad: &gst::Pad, index: u32, event: gst::Event) -> bool {
        let key = self.worker_stream().map_or(Key::Main, |port| port.key);
        if self.trigger_event(key, &event) {
            return true;
        }
        if event.type_() == gst::EventType::Reconfigure && self.workers.reconfigure(index) {
            let _ = self.start_worker_task(pad, index);
        }
        gst::Pad::event_default(pad, Some(&*self.obj()), event)
    }

    /// A worker takes nothing any more: its window is told, the others go on.
    fn tell_trouble(&self, trouble: &Trouble) {
        let Trouble { worker, error, lost, last } = trouble;
        match error {
            // Not an error of anybody.
            gst::FlowError::Flushing | gst::FlowError::Eos | gst::FlowError::NotLinked => {
                gst::info!(CAT, imp = self, "{worker} takes nothing any more ({error:?})");
            }
            _ if *last => gst::element_imp_error!(
                self,
                gst::StreamError::Failed,
                ("What is linked to {worker} takes no data ({error:?}), and no other worker is left: see its own message")
            ),
            _ => gst::element_imp_warning!(
                self,
                gst::StreamError::Failed,
                ("What is linked to {worker} takes no data ({error:?}), other workers go on: see its own message")
            ),
        }
        let reason = match error {
            gst::FlowError::Flushing => "flushing",
            gst::FlowError::Eos => "eos",
            gst::FlowError::NotLinked => "not-linked",
            _ => "error",
        };
        self.tell_lost(lost, Some(worker), reason);
    }

    /// These windows reached no worker, or not to their end.
    fn tell_lost(&self, windows: &[WindowId], worker: Option<&str>, reason: &str) {
        let obj = self.obj();
        for id in windows {
            gst::warning!(CAT, imp = self, "Window {id} did not reach {} ({reason})", worker.unwrap_or("a worker"));
            let mut message = gst::Structure::builder("segmenter-window-lost")
                .field("window-id", id.cast_unsigned())
                .field("reason", reason)
                .build();
            if let Some(worker) = worker {
                message.set("worker", worker);
            }
            let _ = obj.post_message(gst::message::Element::builder(message).src(&*obj).build());
        }
    }

    fn configure_workers(&self) {
        let settings = self.settings();
        self.workers.configure(WorkerSettings {
            limits: Limits { bytes: settings.max_worker_bytes, time: settings.max_worker_time },
            drops: settings.worker_policy == WorkerPolicy::DropWindow,
            keyframes: settings.keyframe_detection.source(),
        });
    }

    /// READY to PAUSED, before pads are activated.
    pub(in crate::segmenter) fn start_workers(&self) {
        self.configure_workers();
        self.workers.start_flow();
    }

    /// PAUSED to READY, before pads are deactivated: nobody waits any more, blocked pushes are freed.
    pub(in crate::segmenter) fn stop_workers(&self) {
        self.workers.stop_flow();
        for worker in self.workers.workers() {
            self.workers.unblock(&worker);
        }
        self.workers.forget();
    }

    /// Before anything of the reference stream leaves. Sticky events are on its source pad as of there: workers may come when
    /// they have passed, and before the first buffer no stream is the reference.
    pub(in crate::segmenter) fn serve_workers(&self, port: &Port) {
        if self.workers.is_empty() || self.workers.serves(port.key) {
            return;
        }
        let mut stickies = Vec::new();
        port.src.sticky_events_foreach(|event| {
            stickies.push(event.clone());
            std::ops::ControlFlow::Continue(gst::EventForeachAction::Keep)
        });
        self.workers.serve(port.key);
        stickies.iter().for_each(|event| self.worker_event(event));
    }

    /// A window begins on the reference stream; its first buffer follows. All that follows is called by the thread that
    /// pushes the reference stream, without locks, in the order in which things leave.
    pub(in crate::segmenter) fn worker_window_begins(&self, window: &Opening) {
        if self.workers.is_empty() {
            return;
        }
        // Further triggers prolong a window of events.
        let end = window.end_running.filter(|_| window.triggers == 0);
        match self.workers.begin(window.id.cast_signed(), window.start_running, end, window.event()) {
            Begun::Queued => {}
            Begun::Nobody => gst::debug!(CAT, imp = self, "No worker is linked for window {}", window.id),
            Begun::Dropped => self.tell_lost(&[window.id.cast_signed()], None, "no-room"),
        }
    }

    /// A buffer of the reference stream with its windows, also if it is in none. None: there are no workers.
    pub(in crate::segmenter) fn worker_buffer(
        &self,
        passing: &Passing,
    ) -> Option<Result<gst::FlowSuccess, gst::FlowError>> {
        if self.workers.is_empty() {
            return None;
        }
        // A late one came when its window was over.
        let Came { flow, lost, noticed } = self.workers.buffer(&passing.frame.buffer, passing.windows);
        self.tell_lost(&lost, None, "no-room");
        if noticed.no_lead_in {
            gst::info!(CAT, imp = self, "A window for workers begins without the keyframe before: it is not there");
        }
        if noticed.gop_too_large {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::NoSpaceLeft,
                ("A GOP is larger than max-worker-bytes: windows that begin within it reach workers without the pictures before \
                  that decoders need. Set max-worker-bytes higher, or have the encoder make keyframes more often")
            );
        }
        Some(flow)
    }

    pub(in crate::segmenter) fn worker_window_ends(&self, ending: &Ending) {
        if !self.workers.is_empty() {
            self.workers.end(ending.window.id.cast_signed(), ending.event());
        }
    }

    /// A serialized event of the reference stream in its place, EOS and sticky ones among them.
    pub(in crate::segmenter) fn worker_event(&self, event: &gst::Event) {
        if self.workers.is_empty() {
            return;
        }
        let inter_coded = match event.view() {
            gst::EventView::Caps(caps) => {
                super::super::frames::Kind::of(caps.caps()) == super::super::frames::Kind::InterCoded
            }
            _ => false,
        };
        self.workers.event(event, inter_coded);
    }

    /// The reference stream is flushed (by another thread): what is under way ends.
    pub(in crate::segmenter) fn worker_flush_start(&self, event: &gst::Event) {
        self.workers.flush_start(event);
    }

    pub(in crate::segmenter) fn worker_flush_stop(&self, event: &gst::Event) {
        self.configure_workers();
        self.workers.flush_stop(event);
        for worker in self.workers.workers().iter().filter(|worker| worker.pad.is_active()) {
            let _ = self.start_worker_task(&worker.pad, worker.index);
        }
    }
}
