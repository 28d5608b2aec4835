//! GObject glue: pads that come and go, properties, state changes, time.
//!
//! Locks: `settings`, then `state`, then what a pad has of its own; each is held for a moment, none across a push, a
//! query, a signal or a message. The bells of a [`Port`] belong to `state`.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::FrameSyncPad;
use super::align::State;
use super::messages::Messages;
use super::properties::ELEMENT;
use super::settings::{Mode, Settings, Status};
use super::stream::{Port, Stream};
use crate::bell::Bell;
use crate::timeline::Ns;

pub static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("framesync", gst::DebugColorFlags::empty(), Some("Puts streams on one timeline"))
});

pub struct FrameSync {
    /// Replaced as a whole: a snapshot costs no copy.
    settings: Mutex<Arc<Settings>>,
    state: Mutex<State>,
    /// What time is counted from where no clock counts.
    born: Instant,
    /// Running time passes.
    playing: AtomicBool,
    last_running: AtomicI64,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What time it is: running time while PLAYING, and time that always passes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    running: Option<Ns>,
    /// Running time when it last was known.
    last: Ns,
    elapsed: Ns,
}

/// What progress leaves to be done without the lock.
#[must_use]
pub(super) struct After {
    alarm: Option<Ns>,
    messages: Messages,
}

impl Now {
    /// Running time for live streams, which arrive when they were taken.
    pub fn of(self, live: bool) -> Ns {
        if live { self.running.unwrap_or(self.last) } else { self.elapsed }
    }
}

impl FrameSync {
    pub(super) fn settings(&self) -> Arc<Settings> {
        lock(&self.settings).clone()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Changes what is set on the element, or says that a pad has changed.
    pub(super) fn change_settings(&self, change: impl FnOnce(&mut Settings)) {
        let settings = {
            let mut settings = lock(&self.settings);
            let changed = Arc::make_mut(&mut *settings);
            change(changed);
            changed.generation += 1;
            settings.clone()
        };
        // Sets, and who waits for room, may have waited for that.
        let mut state = self.state();
        self.refresh(&mut state, &settings);
        state.look();
    }

    /// Gives streams the settings that are in force, unless newer ones are there already.
    pub(super) fn refresh(&self, state: &mut State, settings: &Settings) {
        if state.generation >= settings.generation {
            return;
        }
        state.generation = settings.generation;
        for stream in state.streams.values_mut() {
            stream.settings = Arc::new(stream.port.sink.imp().settings(&settings.streams));
        }
    }

    pub(super) fn now(&self) -> Now {
        let obj = self.obj();
        let running = obj.clock().zip(obj.base_time()).filter(|_| self.playing.load(Ordering::Acquire));
        let running = running.map(|(clock, base)| Ns::from(clock.time().nseconds()) - Ns::from(base.nseconds()));
        if let Some(running) = running {
            self.last_running.store(running.0, Ordering::Relaxed);
        }
        let last = Ns(self.last_running.load(Ordering::Relaxed));
        let elapsed = i64::try_from(self.born.elapsed().as_nanos()).unwrap_or(i64::MAX);
        Now { running, last, elapsed: Ns(elapsed) }
    }

    /// Has the pipeline ask again.
    pub(super) fn latency_changed(&self) {
        let obj = self.obj();
        let _ = obj.post_message(gst::message::Latency::builder().src(&*obj).build());
    }

    /// Makes what can be made by now, lets go of the lock, and tells those concerned.
    pub(super) fn advance(&self, mut state: MutexGuard<'_, State>, settings: &Settings, now: Now) {
        let after = self.progress(&mut state, settings, now);
        drop(state);
        self.follow(after);
    }

    /// The part of it under the lock.
    pub(super) fn progress(&self, state: &mut State, settings: &Settings, now: Now) -> After {
        self.refresh(state, settings);
        state.due = false;
        let live = state.live;
        let deadline = state.advance(settings, now.of(live), now.running.is_none());
        let messages = std::mem::take(&mut state.messages);
        let alarm = state.alarm.as_ref().map(|(at, _)| *at);
        // While paused no time comes: PLAYING looks anew.
        let waits = live && now.running.is_some();
        let sooner = deadline.filter(|deadline| waits && alarm.is_none_or(|at| at > *deadline));
        // What is overdue already has been looked at: no sooner than in a while.
        After { alarm: sooner.map(|deadline| deadline.max(now.of(live) + Ns::from_millis(1))), messages }
    }

    /// The part without it.
    pub(super) fn follow(&self, After { alarm, messages }: After) {
        if let Some(at) = alarm {
            self.set_alarm(at);
        }
        for message in messages {
            gst::info!(CAT, imp = self, "{message}");
            let obj = self.obj();
            let _ = obj.post_message(gst::message::Element::builder(message).src(&*obj).build());
        }
    }

    /// Has the clock wake a task at this running time.
    fn set_alarm(&self, at: Ns) {
        let obj = self.obj();
        let Some((clock, base)) = obj.clock().zip(obj.base_time()) else { return };
        let time = base + gst::ClockTime::from_nseconds(at.0.max(0).unsigned_abs());
        let id = clock.new_single_shot_id(time);
        let before = {
            let mut state = self.state();
            // Another thread may have asked for an earlier one meanwhile.
            if !state.running || state.alarm.as_ref().is_some_and(|(set, _)| *set <= at) {
                return;
            }
            state.alarm.replace((at, id.clone()))
        };
        if let Some((_, before)) = before {
            before.unschedule();
        }
        let weak = obj.downgrade();
        let rang = move |_: &gst::Clock, _: Option<gst::ClockTime>, _: &gst::ClockId| {
            if let Some(obj) = weak.upgrade() {
                obj.imp().alarm_rang(at);
            }
        };
        if id.wait_async(rang).is_err() {
            self.alarm_rang(at);
        }
    }

    fn alarm_rang(&self, at: Ns) {
        let mut state = self.state();
        if state.alarm.as_ref().is_some_and(|(set, _)| *set == at) {
            state.alarm = None;
        }
        state.look();
    }

    /// What was asked of the clock counts from a base time that is over.
    fn silence(&self) {
        let alarm = self.state().alarm.take();
        if let Some((_, id)) = alarm {
            id.unschedule();
        }
    }

    pub(super) fn port(&self, index: u32) -> Option<Arc<Port>> {
        self.state().streams.get(&index).map(|stream| stream.port.clone())
    }

    fn ports(&self) -> Vec<Arc<Port>> {
        self.state().streams.values().map(|stream| stream.port.clone()).collect()
    }

    pub(super) fn stats(&self, pad: &gst::Pad) -> Option<gst::Structure> {
        let state = self.state();
        state.streams.values().find(|stream| stream.port.sink.upcast_ref::<gst::Pad>() == pad).map(Stream::stats)
    }

    fn status(&self) -> Status {
        let state = self.state();
        if !state.running {
            Status::Stopped
        } else if state.streams.values().all(|stream| stream.counters.input == 0) {
            Status::Waiting
        } else if state.is_unlocked() {
            Status::Unlocked
        } else {
            Status::Locked
        }
    }

    fn sink_pad(&self, template: &gst::PadTemplate, index: u32) -> FrameSyncPad {
        gst::PadBuilder::<FrameSyncPad>::from_template(template)
            .name(format!("sink_{index}"))
            .flags(gst::PadFlags::PROXY_CAPS)
            .chain_function(move |pad, parent, buffer| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |imp| imp.sink_chain(pad, index, buffer),
                )
            })
            .event_function(move |pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.sink_event(pad, index, event))
            })
            .query_function(move |pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.sink_query(pad, query))
            })
            .iterate_internal_links_function(move |_pad, parent| {
                let links = || gst::Iterator::from_vec(Vec::new());
                Self::catch_panic_pad_function(parent, links, |imp| {
                    gst::Iterator::from_vec(imp.port(index).map(|port| port.src.clone()).into_iter().collect())
                })
            })
            .build()
    }

    fn src_pad(&self, template: &gst::PadTemplate, index: u32) -> gst::Pad {
        let weak = self.obj().downgrade();
        gst::Pad::builder_from_template(template)
            .name(format!("src_{index}"))
            .flags(gst::PadFlags::PROXY_CAPS)
            .activatemode_function(move |pad, _parent, mode, active| {
                // A pad that is new is activated before it has a parent.
                let Some(obj) = weak.upgrade() else { return Err(gst::loggable_error!(CAT, "the element is gone")) };
                Self::catch_panic_pad_function(
                    Some(obj.upcast_ref()),
                    || Err(gst::loggable_error!(CAT, "source activation panicked")),
                    |imp| imp.src_activatemode(pad, index, mode, active),
                )
            })
            .event_function(move |pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_event(pad, index, event))
            })
            .query_function(move |pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_query(pad, index, query))
            })
            .iterate_internal_links_function(move |_pad, parent| {
                let links = || gst::Iterator::from_vec(Vec::new());
                Self::catch_panic_pad_function(parent, links, |imp| {
                    let sink = imp.port(index).map(|port| port.sink.clone().upcast::<gst::Pad>());
                    gst::Iterator::from_vec(sink.into_iter().collect())
                })
            })
            .build()
    }
}

#[glib::object_subclass]
impl ObjectSubclass for FrameSync {
    const NAME: &'static str = "GstFrameSync";
    type Type = super::FrameSync;
    type ParentType = gst::Element;
    type Interfaces = (gst::ChildProxy,);

    fn new() -> Self {
        Self {
            settings: Mutex::default(),
            state: Mutex::default(),
            born: Instant::now(),
            playing: AtomicBool::new(false),
            last_running: AtomicI64::new(0),
        }
    }
}

impl ObjectImpl for FrameSync {
    fn properties() -> &'static [glib::ParamSpec] {
        &ELEMENT
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        self.change_settings(|settings| settings.set(pspec.name(), value));
        if pspec.name() == "latency" {
            self.latency_changed();
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "status" => self.status().to_value(),
            name => self.settings().get(name).unwrap_or_else(|| unreachable!("GObject asks for known properties")),
        }
    }
}

impl GstObjectImpl for FrameSync {}

impl ChildProxyImpl for FrameSync {
    fn child_by_index(&self, index: u32) -> Option<glib::Object> {
        let state = self.state();
        state.streams.values().nth(index as usize).map(|stream| stream.port.sink.clone().upcast())
    }

    fn children_count(&self) -> u32 {
        u32::try_from(self.state().streams.len()).unwrap_or(u32::MAX)
    }
}

impl ElementImpl for FrameSync {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Frame synchronizer",
                "Generic",
                "Puts streams on one timeline, and frames of the same moment into sets",
                "the gst-plugin-streambuffer contributors",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let any = gst::Caps::new_any();
            let (sink, request) = (gst::PadDirection::Sink, gst::PadPresence::Request);
            let sink = gst::PadTemplate::with_gtype("sink_%u", sink, request, &any, FrameSyncPad::static_type());
            let src = gst::PadTemplate::new("src_%u", gst::PadDirection::Src, gst::PadPresence::Sometimes, &any);
            [sink, src].into_iter().flatten().collect()
        });
        &TEMPLATES
    }

    fn request_new_pad(
        &self,
        template: &gst::PadTemplate,
        name: Option<&str>,
        _caps: Option<&gst::Caps>,
    ) -> Option<gst::Pad> {
        let obj = self.obj();
        let asked = match name.filter(|name| *name != template.name_template()) {
            Some(name) => Some(name.strip_prefix("sink_")?.parse::<u32>().ok()?),
            None => None,
        };
        let source = obj.pad_template("src_%u")?;
        let settings = self.settings();
        let port = {
            let mut state = self.state();
            let free = |index: &u32| !state.streams.contains_key(index);
            let index = match asked {
                Some(asked) => Some(asked).filter(free)?,
                None => (0..).find(free)?,
            };
            let port = Arc::new(Port {
                index,
                name: format!("sink_{index}"),
                sink: self.sink_pad(template, index),
                src: self.src_pad(&source, index),
                item: Bell::default(),
                room: Bell::default(),
                idle: Bell::default(),
            });
            let mut stream = Stream::new(port.clone());
            stream.settings = Arc::new(settings.streams.clone());
            state.streams.insert(index, stream);
            port
        };
        if obj.current_state() > gst::State::Ready || obj.pending_state() > gst::State::Ready {
            let _ = port.src.set_active(true);
            let _ = port.sink.set_active(true);
        }
        if obj.add_pad(&port.sink).and_then(|()| obj.add_pad(&port.src)).is_err() {
            gst::warning!(CAT, imp = self, "No stream {}: the element has pads of these names", port.name);
            let _ = port.src.set_active(false);
            let _ = port.sink.set_active(false);
            let _ = obj.remove_pad(&port.sink);
            self.state().streams.remove(&port.index);
            return None;
        }
        obj.child_added(&port.sink, &port.name);
        gst::debug!(CAT, imp = self, "New stream {}", port.name);
        Some(port.sink.clone().upcast())
    }

    fn release_pad(&self, pad: &gst::Pad) {
        let port = self.ports().into_iter().find(|port| port.sink.upcast_ref::<gst::Pad>() == pad);
        let Some(port) = port else { return };
        gst::debug!(CAT, imp = self, "Stream {} goes", port.name);
        self.unblock(std::slice::from_ref(&port));
        let _ = port.src.set_active(false);
        let _ = port.sink.set_active(false);
        let (settings, now) = (self.settings(), self.now());
        {
            let mut state = self.state();
            let live = state.live;
            state.leave(port.index, now.of(live));
            if let Some(stream) = state.streams.get_mut(&port.index) {
                stream.live = None;
            }
            state.look_live();
            // Others may have waited for it.
            self.advance(state, &settings, now);
            if live && settings.mode == Mode::Align {
                // Its latency was part of the answer.
                self.latency_changed();
            }
        }
        let obj = self.obj();
        obj.child_removed(&port.sink, &port.name);
        let _ = obj.remove_pad(&port.src);
        let _ = obj.remove_pad(&port.sink);
        // The number is free once its pads are gone.
        self.state().streams.remove(&port.index);
    }

    fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::ReadyToPaused => self.state().begin(),
            // The base time has been set by now.
            gst::StateChange::PausedToPlaying => self.playing.store(true, Ordering::Release),
            gst::StateChange::PlayingToPaused => {
                self.now();
                self.playing.store(false, Ordering::Release);
                self.silence();
            }
            gst::StateChange::PausedToReady => {
                self.state().running = false;
                self.silence();
                self.unblock(&self.ports());
            }
            _ => {}
        }
        let success = self.parent_change_state(transition)?;
        match transition {
            gst::StateChange::PausedToPlaying => self.state().look(),
            gst::StateChange::PausedToReady => {
                let mut state = self.state();
                for stream in state.streams.values_mut() {
                    // Keeps the figures of the run.
                    stream.held.clear();
                    stream.frames_held = 0;
                    stream.queue.clear();
                    stream.last = None;
                }
            }
            _ => {}
        }
        Ok(success)
    }
}
