//! GObject glue: pads, properties, state changes.
//!
//! Locks: `settings`, `streams`, `counters`, `numbering`, `latency`, `thread`, each taken alone and for a moment; none is held
//! across a state change, a message, a link or a property of a child. What the child does is the business of the control thread;
//! a state change of the bin asks it and waits for a bounded time.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::CAT;
use super::control::{Control, Event, Events};
use super::instance::Recipe;
use super::numbering::{Numbering, Written};
use super::settings::{FORWARDED, PROPERTIES, Settings};
use super::stats::Counters;
use super::stream::Stream;
use crate::diskbuffer::joint::JointCursor;

/// How long the change to READY waits for the child to go to NULL; what takes longer goes on by itself.
const STOP_GRACE: Duration = Duration::from_millis(250);
/// How long putting a child together may take: it may have to load plugins.
const BUILD_GRACE: Duration = Duration::from_secs(30);

/// Where the control thread's end of the channel is.
enum Thread {
    Idle(mpsc::Receiver<Event>),
    Running(JoinHandle<mpsc::Receiver<Event>>),
    /// It is being started or ended.
    Changing,
}

pub struct DiskBufferSink {
    settings: Mutex<Settings>,
    streams: Mutex<Vec<Stream>>,
    counters: Mutex<Counters>,
    numbering: Mutex<Numbering>,
    latency: Mutex<Option<gst::ClockTime>>,
    joint: Arc<JointCursor>,
    events: Events,
    thread: Mutex<Thread>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DiskBufferSink {
    pub(super) fn streams(&self) -> Vec<Stream> {
        lock(&self.streams).clone()
    }

    pub(super) fn counters(&self) -> Counters {
        lock(&self.counters).clone()
    }

    pub(super) fn count_failure(&self, text: &str) {
        let mut counters = lock(&self.counters);
        counters.errors = counters.errors.saturating_add(1);
        counters.last_error = Some(text.to_owned());
    }

    pub(super) fn count_restart(&self) {
        let mut counters = lock(&self.counters);
        counters.restarts = counters.restarts.saturating_add(1);
    }

    pub(super) fn numbering(&self) -> Numbering {
        lock(&self.numbering).clone()
    }

    pub(super) fn learn(&self, written: &Written, took_data: bool) {
        lock(&self.numbering).learn(written, took_data);
    }

    /// As the pipeline has distributed it, for a child that synchronises.
    pub(super) fn latency(&self) -> Option<gst::ClockTime> {
        *lock(&self.latency)
    }

    pub(super) fn sync(&self) -> bool {
        lock(&self.settings).sync
    }

    pub(super) fn max_retries(&self) -> u32 {
        lock(&self.settings).max_retries
    }

    pub(super) fn eos_timeout(&self) -> Option<Duration> {
        lock(&self.settings).eos_timeout()
    }

    pub(super) fn restart_timeout(&self) -> Option<Duration> {
        lock(&self.settings).restart_timeout()
    }

    /// The first pause and the longest.
    pub(super) fn retry_intervals(&self) -> (Duration, Duration) {
        let settings = lock(&self.settings);
        let of = Duration::from_nanos;
        (of(settings.buffer.retry_interval), of(settings.buffer.retry_max_interval))
    }

    /// NULL to READY: what is to be the child is checked, and looked after from now on.
    fn prepare(&self) -> Result<(), gst::ErrorMessage> {
        let settings = lock(&self.settings).clone();
        settings.check()?;
        let joint = (!settings.only_records()).then_some(&self.joint);
        self.streams().iter().for_each(|stream| stream.join(joint));
        let recipe = match (settings.description, settings.sink) {
            (Some(text), _) => Recipe::Description(text),
            (None, Some(element)) => Recipe::Element(element),
            (None, None) => Recipe::Nothing,
        };
        let prepared = match &recipe {
            Recipe::Description(_) => Some(recipe.make(&[])?),
            _ => None,
        };
        let Thread::Idle(receiver) = std::mem::replace(&mut *lock(&self.thread), Thread::Changing) else {
            return Ok(());
        };
        while receiver.try_recv().is_ok() {}
        let control = Control::new(&self.obj(), self.events.clone(), recipe, prepared);
        let name = format!("{}:control", self.obj().name());
        let thread = std::thread::Builder::new().name(name).spawn(move || control.run(receiver));
        let handle =
            thread.map_err(|err| gst::error_msg!(gst::CoreError::Thread, ("No thread can be started: {err}")))?;
        *lock(&self.thread) = Thread::Running(handle);
        Ok(())
    }

    /// To NULL: nobody looks after the child any more.
    fn finish(&self) {
        let thread = std::mem::replace(&mut *lock(&self.thread), Thread::Changing);
        *lock(&self.thread) = match thread {
            Thread::Running(handle) => {
                self.events.send(Event::Quit);
                match handle.join() {
                    Ok(receiver) => Thread::Idle(receiver),
                    Err(_) => {
                        gst::error!(CAT, imp = self, "The control thread has panicked");
                        Thread::Changing
                    }
                }
            }
            thread => thread,
        };
    }

    /// READY to PAUSED: a child, not started by anything that it waits for.
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let (reply, answer) = mpsc::channel();
        self.events.send(Event::Start(reply));
        let slow = |_| Err(gst::error_msg!(gst::CoreError::Failed, ("The child cannot be built: it takes too long")));
        answer.recv_timeout(BUILD_GRACE).unwrap_or_else(slow)
    }

    /// PAUSED to READY: the child goes to NULL, which ends what is being pushed into it.
    fn stop(&self) {
        let (reply, answer) = mpsc::channel();
        self.events.send(Event::Stop(reply));
        if answer.recv_timeout(STOP_GRACE).is_err() {
            gst::info!(CAT, imp = self, "The child takes its time to stop: it is left to itself");
        }
    }

    fn fail(&self, err: gst::ErrorMessage) -> gst::StateChangeError {
        gst::error!(CAT, imp = self, "{err}");
        self.post_error_message(err);
        gst::StateChangeError
    }
}

#[glib::object_subclass]
impl ObjectSubclass for DiskBufferSink {
    const NAME: &'static str = "GstDiskBufferSink";
    type Type = super::DiskBufferSink;
    type ParentType = gst::Bin;

    fn new() -> Self {
        let (events, receiver) = Events::new();
        Self {
            settings: Mutex::default(),
            streams: Mutex::default(),
            counters: Mutex::default(),
            numbering: Mutex::default(),
            latency: Mutex::default(),
            joint: Arc::default(),
            events,
            thread: Mutex::new(Thread::Idle(receiver)),
        }
    }
}

impl ObjectImpl for DiskBufferSink {
    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        // Whatever the child is at the moment.
        obj.set_suppressed_flags(gst::ElementFlags::SINK | gst::ElementFlags::SOURCE);
        obj.set_element_flags(gst::ElementFlags::SINK);
    }

    fn properties() -> &'static [glib::ParamSpec] {
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let name = pspec.name();
        let settings = {
            let mut settings = lock(&self.settings);
            settings.set(name, value);
            settings.clone()
        };
        // What keeps a recording depends on there being no sink.
        let also = matches!(name, "sink" | "sink-description" | "retention-bytes").then_some("retention-time");
        let forwarded = FORWARDED.iter().find(|forwarded| **forwarded == name).copied();
        for stream in self.streams() {
            for property in forwarded.iter().chain(&also) {
                if let Some(value) = settings.for_stream(property, &stream.name()) {
                    stream.buffer.set_property_from_value(property, &value);
                }
            }
        }
        self.events.send(Event::Look);
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "current-level-buffers" => self.level::<u32>("current-level-buffers").to_value(),
            "current-level-bytes" => self.level::<u64>("current-level-bytes").to_value(),
            "current-level-time" => self.level::<u64>("current-level-time").to_value(),
            "status" => self.status().to_value(),
            "stats" => self.stats().to_value(),
            name => lock(&self.settings).get(name).unwrap_or_else(|| unreachable!("GObject asks for known properties")),
        }
    }
}

impl GstObjectImpl for DiskBufferSink {}

impl ElementImpl for DiskBufferSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Disk buffer sink",
                "Sink/Generic/Bin",
                "Keeps encoded streams on disk and delivers them to a sink that it restarts, through outages and restarts",
                "the gst-plugin-streambuffer contributors",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        &super::pads::TEMPLATES
    }

    fn request_new_pad(
        &self,
        template: &gst::PadTemplate,
        name: Option<&str>,
        _caps: Option<&gst::Caps>,
    ) -> Option<gst::Pad> {
        let taken: BTreeSet<String> = self.streams().iter().map(Stream::name).collect();
        let name = super::pads::name(template, name, &taken)?;
        let settings = lock(&self.settings).clone();
        let stream = Stream::new(&name, template, &settings, &self.events);
        let obj = self.obj();
        stream.buffer.hold(None);
        stream.join((!settings.only_records()).then_some(&self.joint));
        let added = obj.add(&stream.buffer).and_then(|()| stream.connect());
        if added.and_then(|()| stream.buffer.sync_state_with_parent()).is_err() {
            // It has posted why.
            let _ = stream.buffer.set_state(gst::State::Null);
            let _ = obj.remove(&stream.buffer);
            return None;
        }
        let pad = stream.pad.clone();
        let _ = pad.set_active(obj.current_state() >= gst::State::Paused);
        lock(&self.streams).push(stream);
        if let Err(err) = obj.add_pad(&pad) {
            gst::error!(CAT, imp = self, "{err}");
            lock(&self.streams).retain(|stream| stream.pad != pad);
            return None;
        }
        self.events.send(Event::Joined);
        Some(pad.upcast())
    }

    fn release_pad(&self, pad: &gst::Pad) {
        let stream = {
            let mut streams = lock(&self.streams);
            let at = streams.iter().position(|stream| stream.pad.upcast_ref::<gst::Pad>() == pad);
            at.map(|at| streams.remove(at))
        };
        let Some(stream) = stream else { return };
        let obj = self.obj();
        // Before anything that would flush the child on its way down. Below READY nobody answers, and there is no child.
        if obj.current_state() > gst::State::Null {
            let (reply, answer) = mpsc::channel();
            self.events.send(Event::Left(stream.buffer.clone(), reply));
            let _ = answer.recv_timeout(STOP_GRACE);
        }
        let _ = pad.set_active(false);
        let _ = obj.remove_pad(pad);
        stream.buffer.set_locked_state(true);
        let _ = stream.buffer.set_state(gst::State::Null);
        let _ = obj.remove(&stream.buffer);
    }

    fn send_event(&self, event: gst::Event) -> bool {
        if let gst::EventView::Latency(latency) = event.view() {
            let latency = latency.latency();
            *lock(&self.latency) = Some(latency);
            self.events.send(Event::Latency(latency));
            return true;
        }
        if event.is_downstream() {
            return self.parent_send_event(event);
        }
        // As sinks do; the child may keep whoever sends it an event.
        self.streams().iter().filter(|stream| stream.pad.push_event(event.clone())).count() > 0
    }

    fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::NullToReady => self.prepare().map_err(|err| self.fail(err))?,
            gst::StateChange::ReadyToPaused => self.start().map_err(|err| self.fail(err))?,
            gst::StateChange::PlayingToPaused => self.events.send(Event::Target(gst::State::Paused)),
            gst::StateChange::PausedToReady => self.stop(),
            _ => {}
        }
        let success = match self.parent_change_state(transition) {
            Ok(success) => success,
            Err(err) => {
                match transition {
                    gst::StateChange::NullToReady => self.finish(),
                    gst::StateChange::ReadyToPaused => self.stop(),
                    _ => {}
                }
                return Err(err);
            }
        };
        match transition {
            gst::StateChange::ReadyToPaused => self.events.send(Event::Open),
            gst::StateChange::PausedToPlaying => self.events.send(Event::Target(gst::State::Playing)),
            gst::StateChange::ReadyToNull => self.finish(),
            _ => {}
        }
        Ok(success)
    }
}

impl BinImpl for DiskBufferSink {}
