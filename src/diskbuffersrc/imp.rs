//! GObject glue: the pad, properties, the URI handler, state changes.
//!
//! Locks: `settings`, `session`, `state`, each taken alone and for a moment. None is held across a push, a query, a signal, a
//! message or a disk access. What the task knows is its own.

use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::delivery::Delivery;
use super::place::Place;
use super::properties::PROPERTIES;
use super::range;
use super::settings::Settings;
use super::state::{Activity, Beginning, State, Tip};
use super::timeline::Timeline;
use super::uri::SCHEME;
use crate::media::meta;
use crate::store::{Consumer, ReaderOptions, StoreError, StreamReader};

pub static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("diskbuffersrc", gst::DebugColorFlags::empty(), Some("Plays what a disk buffer holds"))
});

/// How long a step that is under way may take to end by itself when the element stops.
const GRACE: Duration = Duration::from_millis(20);
/// How long it may take after downstream was flushed.
const FLUSH_GRACE: Duration = Duration::from_millis(400);

/// How often, and after which pause, a store that cannot be read is tried again before that is an error.
const OPEN_TRIES: u32 = 8;
const OPEN_PAUSE: Duration = Duration::from_millis(50);

/// The stream while the element is READY or above.
pub struct Session {
    pub reader: StreamReader,
    pub start: Place,
    pub stop: Option<Place>,
    /// While it runs.
    pub consumer: Mutex<Option<Arc<Consumer>>>,
}

impl Session {
    pub fn consumer(&self) -> Option<Arc<Consumer>> {
        lock(&self.consumer).clone()
    }
}

pub struct DiskBufferSrc {
    pub(super) srcpad: gst::Pad,
    /// Replaced as a whole: a snapshot costs no copy.
    settings: Mutex<Arc<Settings>>,
    session: Mutex<Option<Arc<Session>>>,
    state: Mutex<State>,
    /// The task has something to do.
    pub(super) wake: Condvar,
    /// The step that was under way has ended.
    pub(super) idle: Condvar,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DiskBufferSrc {
    pub(super) fn settings(&self) -> Arc<Settings> {
        lock(&self.settings).clone()
    }

    pub(super) fn session(&self) -> Option<Arc<Session>> {
        lock(&self.session).clone()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Changes the state and has the task look at it.
    pub(super) fn change<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let result = f(&mut self.state());
        self.wake.notify_all();
        result
    }

    /// Opens the stream; nothing is read but what it takes to know that it is there.
    fn open(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings();
        let unreadable = |err| gst::error_msg!(gst::ResourceError::Settings, ("{err}"));
        let start = settings.start_place().map_err(unreadable)?;
        let stop = settings.stop_place().map_err(unreadable)?;
        let Some(location) = settings.resolved_location() else {
            return Err(gst::error_msg!(
                gst::ResourceError::Settings,
                ("No location: set the property \"location\" to the directory of a store")
            ));
        };
        let options = ReaderOptions { reference: meta::captured_at, ..ReaderOptions::default() };
        let mut tries = OPEN_TRIES;
        let reader = loop {
            match StreamReader::open(&location, settings.stream_name.as_deref(), &options) {
                Ok(reader) => break reader,
                // Its writer may be opening or closing it.
                Err(err) if tries > 0 && may_pass(&err) => {
                    gst::debug!(CAT, imp = self, "Trying again: {err}");
                    tries -= 1;
                    std::thread::sleep(OPEN_PAUSE);
                }
                Err(err) => return Err(error_message(&err)),
            }
        };
        gst::info!(
            CAT,
            imp = self,
            "Opened {} stream \"{}\" ({}): positions {} to {}",
            location.display(),
            reader.stream_name(),
            if reader.is_shared() { "shared" } else { "of another process, or of nobody" },
            reader.first(),
            reader.end().sequence
        );
        let seek = self.state().next.take();
        *self.state() = State { next: seek, ..State::default() };
        let session = Session { reader, start, stop, consumer: Mutex::default() };
        *lock(&self.session) = Some(Arc::new(session));
        Ok(())
    }

    /// Fixes what stream time counts from, and without follow where playing ends.
    fn begin_run(&self) -> Result<(), gst::ErrorMessage> {
        let Some(session) = self.session() else { return Ok(()) };
        let follow = self.settings().follow;
        let reader = &session.reader;
        let look = || {
            reader.refresh()?;
            let end = reader.end();
            Ok((range::origin(reader)?, end, range::tip(reader, Tip::default())?))
        };
        let (origin, end, tip) = look().map_err(|err: StoreError| error_message(&err))?;
        let mut state = self.state();
        let next = state.next.take();
        *state = State {
            activity: Activity::Paused,
            timeline: origin.map(|origin| Timeline { origin }),
            end: (!follow).then_some(end),
            tip,
            next: Some(next.unwrap_or_else(Beginning::start)),
            ..State::default()
        };
        Ok(())
    }

    /// Waits until the step that is under way has ended; from within it there is nothing to wait for.
    pub(super) fn wait_for_step(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut state = self.state();
        while state.busy && state.thread != Some(std::thread::current().id()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.idle.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Frees a task that is blocked in a push: it cannot be joined before.
    fn unblock(&self) {
        self.change(|state| state.stopping = true);
        if self.wait_for_step(GRACE) {
            return;
        }
        gst::debug!(CAT, imp = self, "Flushing downstream to end a push");
        self.srcpad.push_event(gst::event::FlushStart::new());
        if self.wait_for_step(FLUSH_GRACE) {
            self.srcpad.push_event(gst::event::FlushStop::new(false));
        }
    }

    fn end_run(&self) {
        let Some(session) = self.session() else { return };
        // Saves its cursor, which takes the disk.
        let consumer = lock(&session.consumer).take();
        drop(consumer);
        self.report();
        let mut state = self.state();
        *state = State { current: state.current, last_error: state.last_error.take(), ..State::default() };
    }

    fn is_live(&self) -> bool {
        self.settings().follow
    }
}

/// Whether what went wrong may be over in a moment.
pub(super) fn may_pass(err: &StoreError) -> bool {
    matches!(err, StoreError::Away { .. } | StoreError::Io { .. } | StoreError::Database { .. })
}

/// What a pipeline is told of it.
pub(super) fn error_message(err: &StoreError) -> gst::ErrorMessage {
    let domain = match err {
        StoreError::NoStore { .. } | StoreError::NoStream { .. } => gst::ResourceError::NotFound,
        StoreError::ConsumerInUse { .. } | StoreError::Locked { .. } => gst::ResourceError::Busy,
        StoreError::Conflict { .. } => gst::ResourceError::Settings,
        _ => gst::ResourceError::OpenRead,
    };
    gst::error_msg!(domain, ("{err}"))
}

#[glib::object_subclass]
impl ObjectSubclass for DiskBufferSrc {
    const NAME: &'static str = "GstDiskBufferSrc";
    type Type = super::DiskBufferSrc;
    type ParentType = gst::Element;
    type Interfaces = (gst::URIHandler,);

    fn with_class(class: &Self::Class) -> Self {
        let template = class.pad_template("src").unwrap_or_else(|| unreachable!("the class has this pad template"));
        let srcpad = gst::Pad::builder_from_template(&template)
            .activatemode_function(|pad, parent, mode, active| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::loggable_error!(CAT, "source activation panicked")),
                    |imp| imp.src_activatemode(pad, mode, active),
                )
            })
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_event(pad, event))
            })
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_query(pad, query))
            })
            .build();
        Self {
            srcpad,
            settings: Mutex::default(),
            session: Mutex::default(),
            state: Mutex::default(),
            wake: Condvar::new(),
            idle: Condvar::new(),
        }
    }
}

impl DiskBufferSrc {
    fn src_activatemode(&self, pad: &gst::Pad, mode: gst::PadMode, active: bool) -> Result<(), gst::LoggableError> {
        if mode != gst::PadMode::Push {
            return Err(gst::loggable_error!(CAT, "Only push mode is possible"));
        }
        self.change(|state| {
            state.stopping = !active;
            state.thread = None;
        });
        if !active {
            pad.stop_task()?;
            return Ok(());
        }
        let weak = self.obj().downgrade();
        let mut delivery = Delivery::default();
        pad.start_task(move || {
            if let Some(obj) = weak.upgrade() {
                obj.imp().step(&mut delivery);
            }
        })?;
        Ok(())
    }
}

impl ObjectImpl for DiskBufferSrc {
    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        obj.set_element_flags(gst::ElementFlags::SOURCE);
        // Fails only for pads of the same name.
        let _ = obj.add_pad(&self.srcpad);
    }

    fn properties() -> &'static [glib::ParamSpec] {
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        Arc::make_mut(&mut *lock(&self.settings)).set(pspec.name(), value);
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "current-position" => self.state().current.to_value(),
            "status" => self.state().status().to_value(),
            "stats" => self.stats().to_value(),
            name => self.settings().get(name).unwrap_or_else(|| unreachable!("GObject asks for known properties")),
        }
    }

    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(|| {
            let acknowledge = glib::subclass::Signal::builder("acknowledge")
                .param_types([u64::static_type()])
                .return_type::<bool>()
                .action()
                .run_last()
                .class_handler(|values| {
                    let element = values.first().and_then(|value| value.get::<super::DiskBufferSrc>().ok());
                    let position = values.get(1).and_then(|value| value.get::<u64>().ok());
                    let done = element.zip(position).is_some_and(|(element, at)| element.imp().acknowledge(at));
                    Some(done.to_value())
                })
                .build();
            vec![acknowledge]
        });
        &SIGNALS
    }
}

impl GstObjectImpl for DiskBufferSrc {}

impl URIHandlerImpl for DiskBufferSrc {
    const URI_TYPE: gst::URIType = gst::URIType::Src;

    fn protocols() -> &'static [&'static str] {
        &[SCHEME]
    }

    fn uri(&self) -> Option<String> {
        self.settings().uri()
    }

    fn set_uri(&self, uri: &str) -> Result<(), glib::Error> {
        if self.obj().current_state() > gst::State::Ready {
            let text = "The URI cannot be changed while the element runs: set its state to READY first";
            return Err(glib::Error::new(gst::URIError::BadState, text));
        }
        Arc::make_mut(&mut *lock(&self.settings))
            .set_uri(uri)
            .map_err(|err| glib::Error::new(gst::URIError::BadUri, &err.to_string()))
    }
}

impl ElementImpl for DiskBufferSrc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Disk buffer source",
                "Source",
                "Plays what a disk buffer holds, from a position or a time, following or not",
                "the gst-plugin-streambuffer contributors",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let any = gst::Caps::new_any();
            gst::PadTemplate::new("src", gst::PadDirection::Src, gst::PadPresence::Always, &any).into_iter().collect()
        });
        &TEMPLATES
    }

    fn send_event(&self, event: gst::Event) -> bool {
        self.application_event(event)
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        self.src_query(&self.srcpad, query)
    }

    fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        let tell = |result: Result<(), gst::ErrorMessage>| {
            result.map_err(|err| {
                gst::error!(CAT, imp = self, "{err}");
                self.post_error_message(err);
                gst::StateChangeError
            })
        };
        match transition {
            gst::StateChange::NullToReady => tell(self.open())?,
            gst::StateChange::ReadyToPaused => tell(self.begin_run())?,
            gst::StateChange::PausedToPlaying => self.change(|state| state.activity = Activity::Playing),
            gst::StateChange::PlayingToPaused => self.change(|state| state.activity = Activity::Paused),
            gst::StateChange::PausedToReady => self.unblock(),
            _ => {}
        }
        let success = self.parent_change_state(transition)?;
        match transition {
            gst::StateChange::ReadyToPaused | gst::StateChange::PlayingToPaused if self.is_live() => {
                return Ok(gst::StateChangeSuccess::NoPreroll);
            }
            gst::StateChange::PausedToReady => self.end_run(),
            gst::StateChange::ReadyToNull => {
                let session = lock(&self.session).take();
                drop(session);
            }
            _ => {}
        }
        Ok(success)
    }
}
