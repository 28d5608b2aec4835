//! GObject glue: pads that come and go, properties, actions, state changes.
//!
//! Locks: what a port looks at ([`Port::look`], held by the thread upstream of it while it looks at a buffer), then
//! `settings`, then `core`; each for a moment, none across a push, a query, a signal or a message. The condition
//! variables of a [`Port`] belong to `core`. What workers lock is theirs, see [`super::worker`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::core::Core;
use super::line::{Key, Line, Phase, Port};
use super::properties::ELEMENT;
use super::settings::Settings;
use super::trigger::Triggers;
use super::worker::Workers;
use crate::timeline::Ns;

pub static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("segmenter", gst::DebugColorFlags::empty(), Some("Cuts streams into windows"))
});

/// How long a step that is under way may take to end by itself when a stream stops.
const GRACE: Duration = Duration::from_millis(20);
/// How long it may take after downstream was flushed.
const FLUSH_GRACE: Duration = Duration::from_millis(400);

pub struct Segmenter {
    /// Replaced as a whole: a snapshot costs no copy.
    settings: Mutex<Arc<Settings>>,
    core: Mutex<Core>,
    pub(super) workers: Workers,
    pub(super) triggers: Triggers,
    lists: AtomicU64,
    marks: AtomicBool,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Segmenter {
    pub(super) fn settings(&self) -> Arc<Settings> {
        lock(&self.settings).clone()
    }

    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }

    /// A number for the next list that comes in.
    pub(super) fn next_list(&self) -> u64 {
        self.lists.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether buffers get the meta.
    pub(super) fn marks(&self) -> bool {
        self.marks.load(Ordering::Relaxed)
    }

    pub(super) fn port(&self, key: Key) -> Option<Arc<Port>> {
        self.core().lines.get(&key).map(|line| line.port.clone())
    }

    pub(super) fn ports(&self) -> Vec<Arc<Port>> {
        self.core().lines.values().map(|line| line.port.clone()).collect()
    }

    /// UTC at running time 0, as far as there is a clock.
    pub(super) fn wall(&self) -> Option<Ns> {
        let obj = self.obj();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
        let now = Ns::from(u64::try_from(now.as_nanos()).ok()?);
        let playing = obj.current_state() == gst::State::Playing;
        let running = obj
            .clock()
            .zip(obj.base_time())
            .filter(|_| playing)
            .map_or(Ns::ZERO, |(clock, base)| Ns::from(clock.time().nseconds()) - Ns::from(base.nseconds()));
        Some(now - running)
    }

    fn add_line(&self, key: Key, sink: gst::Pad, src: gst::Pad) -> Arc<Port> {
        let port = Arc::new(Port {
            key,
            name: key.sink_name(),
            sink,
            src,
            look: Mutex::default(),
            item: Condvar::new(),
            room: Condvar::new(),
            idle: Condvar::new(),
        });
        self.core().lines.insert(key, Line::new(port.clone()));
        port
    }

    fn stats(&self) -> gst::Structure {
        let core = self.core();
        let open = core.windows.as_ref().map_or(0, |windows| windows.open().count() as u64);
        let streams = core.lines.values().map(|line| {
            let counters = &line.counters;
            gst::Structure::builder("stream")
                .field("pad", &line.port.name)
                .field("buffers", counters.buffers)
                .field("bytes", counters.bytes)
                .field("late", counters.late)
                .field("dropped", counters.dropped)
                .field("unwindowed", counters.unwindowed)
                .field("waiting", line.level.buffers as u64)
                .build()
                .to_send_value()
        });
        let sum =
            |of: fn(&super::line::Counters) -> u64| core.lines.values().map(|line| of(&line.counters)).sum::<u64>();
        gst::Structure::builder("segmenter-stats")
            .field("windows", core.closed)
            .field("open", open)
            .field("buffers", sum(|counters| counters.buffers))
            .field("late", sum(|counters| counters.late))
            .field("dropped", sum(|counters| counters.dropped))
            .field("streams", gst::Array::from_values(streams))
            .build()
    }

    /// Waits until the push that is under way has ended; from within it there is nothing to wait for.
    fn wait_for_step(&self, port: &Port, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut core = self.core();
        let busy = |core: &Core| {
            let line = core.lines.get(&port.key).filter(|line| std::ptr::eq(&*line.port, port));
            line.is_some_and(|line| line.busy && line.thread != Some(std::thread::current().id()))
        };
        while busy(&core) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            core = port.idle.wait_timeout(core, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Frees a push that blocks: a task cannot be joined before.
    fn unblock(&self, port: &Port) {
        if let Some(line) = self.core().lines.get_mut(&port.key) {
            line.phase = Phase::Flushing;
            line.wake();
        }
        if self.wait_for_step(port, GRACE) {
            return;
        }
        gst::debug!(CAT, obj = port.src, "Flushing downstream to end a push");
        port.src.push_event(gst::event::FlushStart::new());
        if self.wait_for_step(port, FLUSH_GRACE) {
            port.src.push_event(gst::event::FlushStop::new(false));
        }
    }

    /// READY to PAUSED. Refuses settings that cannot be.
    fn begin(&self) -> Result<(), gst::StateChangeError> {
        let settings = self.settings();
        let refused = self.core().begin(settings.clone()).err();
        if let Some(refused) = refused {
            gst::element_imp_error!(self, gst::LibraryError::Settings, ("{refused}"));
            return Err(gst::StateChangeError);
        }
        self.marks.store(settings.add_window_meta, Ordering::Relaxed);
        for port in self.ports() {
            *lock(&port.look) = Default::default();
        }
        self.triggers.clear();
        self.start_workers();
        Ok(())
    }
}

#[glib::object_subclass]
impl ObjectSubclass for Segmenter {
    const NAME: &'static str = "GstSegmenter";
    type Type = super::Segmenter;
    type ParentType = gst::Element;

    fn new() -> Self {
        Self {
            settings: Mutex::default(),
            core: Mutex::default(),
            workers: Workers::default(),
            triggers: Triggers::default(),
            lists: AtomicU64::new(0),
            marks: AtomicBool::new(true),
        }
    }
}

impl ObjectImpl for Segmenter {
    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        let (Some(sink), Some(src)) = (obj.pad_template("sink"), obj.pad_template("src")) else { return };
        let port = self.add_line(Key::Main, Self::sink_pad(&sink, Key::Main), self.src_pad(&src, Key::Main));
        let _ = obj.add_pad(&port.sink);
        let _ = obj.add_pad(&port.src);
    }

    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(super::actions::signals);
        &SIGNALS
    }

    fn properties() -> &'static [glib::ParamSpec] {
        &ELEMENT
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        Arc::make_mut(&mut *lock(&self.settings)).set(pspec.name(), value);
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "stats" => self.stats().to_value(),
            name => self.settings().get(name).unwrap_or_else(|| unreachable!("GObject asks for known properties")),
        }
    }
}

impl GstObjectImpl for Segmenter {}

impl ElementImpl for Segmenter {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Segmenter",
                "Generic",
                "Cuts streams into windows by time, keyframe, content or event, and tells everyone where they are",
                "the gst-plugin-streambuffer contributors",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            use gst::{PadDirection as Direction, PadPresence as Presence};
            let any = gst::Caps::new_any();
            [
                gst::PadTemplate::new("sink", Direction::Sink, Presence::Always, &any),
                gst::PadTemplate::new("src", Direction::Src, Presence::Always, &any),
                gst::PadTemplate::new("sink_%u", Direction::Sink, Presence::Request, &any),
                gst::PadTemplate::new("src_%u", Direction::Src, Presence::Sometimes, &any),
                gst::PadTemplate::new("worker_%u", Direction::Src, Presence::Request, &any),
            ]
            .into_iter()
            .flatten()
            .collect()
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
        if template.name_template() == "worker_%u" {
            return self.request_worker(template, name);
        }
        let asked = match name.filter(|name| *name != template.name_template()) {
            Some(name) => Some(name.strip_prefix("sink_")?.parse::<u32>().ok()?),
            None => None,
        };
        let source = obj.pad_template("src_%u")?;
        let key = {
            let core = self.core();
            let free = |index: &u32| !core.lines.contains_key(&Key::Further(*index));
            Key::Further(match asked {
                Some(asked) => Some(asked).filter(free)?,
                None => (0..).find(free)?,
            })
        };
        let port = self.add_line(key, Self::sink_pad(template, key), self.src_pad(&source, key));
        if obj.current_state() > gst::State::Ready || obj.pending_state() > gst::State::Ready {
            let _ = port.src.set_active(true);
            let _ = port.sink.set_active(true);
        }
        if obj.add_pad(&port.sink).and_then(|()| obj.add_pad(&port.src)).is_err() {
            self.core().lines.remove(&key);
            return None;
        }
        self.let_main_run();
        gst::debug!(CAT, imp = self, "New stream {}", port.name);
        Some(port.sink.clone())
    }

    fn release_pad(&self, pad: &gst::Pad) {
        if self.release_worker(pad) {
            return;
        }
        let port = self.ports().into_iter().find(|port| port.sink == *pad && port.key != Key::Main);
        let Some(port) = port else { return };
        gst::debug!(CAT, imp = self, "Stream {} goes", port.name);
        self.unblock(&port);
        let _ = port.src.set_active(false);
        let _ = port.sink.set_active(false);
        self.core().leave(port.key);
        self.tell();
        let obj = self.obj();
        let _ = obj.remove_pad(&port.src);
        let _ = obj.remove_pad(&port.sink);
        // The number is free once its pads are gone.
        self.core().lines.remove(&port.key);
    }

    fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::NullToReady => {
                // As early as it can be said.
                if let Err(refused) = self.settings().config().check() {
                    gst::element_imp_error!(self, gst::LibraryError::Settings, ("{refused}"));
                    return Err(gst::StateChangeError);
                }
            }
            gst::StateChange::ReadyToPaused => self.begin()?,
            gst::StateChange::PausedToReady => {
                // The thread of the reference may wait for one of them.
                self.stop_workers();
                for port in self.ports() {
                    self.unblock(&port);
                }
            }
            _ => {}
        }
        let success = self.parent_change_state(transition)?;
        if transition == gst::StateChange::PausedToReady {
            self.core().end();
            self.tell();
        }
        Ok(success)
    }
}
