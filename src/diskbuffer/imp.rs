//! GObject glue: pads, properties, signals, state changes.
//!
//! Locks, in the order in which they may be taken, each for a moment:
//! `settings`, `state`, that of the joint cursor. `session`, `ingest`, `domain`, `position` and `manager` are taken alone. None is held across a push, a query, a
//! signal, a message or a disk access. What `ingest` holds belongs to the sink pad's streaming thread, which takes it out
//! while it works.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::delivery::Delivery;
use super::ingest::Ingest;
use super::joint::Moment;
use super::managed::Manager;
use super::properties::PROPERTIES;
use super::resume::Resume;
use super::settings::{AckMode, Settings};
use super::state::{Activity, State};
use super::tail::MemoryShare;
use super::tender::ElementTender;
use crate::bell::Bell;
use crate::store::{Count, Domain, Mark, Store, StoreError, Stream, Totals};

pub static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("diskbuffer", gst::DebugColorFlags::empty(), Some("Durable queue on disk"))
});

/// How long a push that is under way may take to end by itself when the element stops.
const GRACE: Duration = Duration::from_millis(20);
/// How long it may take after downstream was flushed.
const FLUSH_GRACE: Duration = Duration::from_millis(400);

/// How long whoever reads counters or tends the stream may take to let go of it, and how often that is looked at.
const USERS_GRACE: Duration = Duration::from_millis(400);
const USERS_POLL: Duration = Duration::from_millis(1);

/// As those of `queue`.
#[derive(Debug, Clone, Copy)]
pub enum Signal {
    Overrun,
    Underrun,
    Running,
    Pushing,
}

pub(super) const SIGNAL_NAMES: [&str; 4] = ["overrun", "underrun", "running", "pushing"];

/// The store while the element is READY or above.
pub struct Session {
    pub stream: Stream,
    _share: MemoryShare,
}

pub struct DiskBuffer {
    pub(super) sinkpad: gst::Pad,
    pub(super) srcpad: gst::Pad,
    /// Replaced as a whole: a snapshot costs no copy.
    settings: Mutex<Arc<Settings>>,
    session: Mutex<Option<Arc<Session>>>,
    /// The one before, while somebody still uses it.
    closed: Mutex<Weak<Session>>,
    ingest: Mutex<Ingest>,
    state: Mutex<State>,
    /// Delivery has something to do.
    pub(super) item_add: Bell,
    /// There may be room, or the push that was under way has ended.
    pub(super) item_del: Bell,
    domain: Mutex<Option<Arc<Domain>>>,
    /// By how much running time is later downstream than upstream, in ns.
    pub(super) offset: AtomicI64,
    /// Stream time of what was sent last.
    position: Mutex<Option<gst::ClockTime>>,
    manager: Mutex<Option<Arc<dyn Manager>>>,
    /// What is not for the present downstream is to be told.
    boundaries: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DiskBuffer {
    pub(super) fn settings(&self) -> Arc<Settings> {
        lock(&self.settings).clone()
    }

    pub(super) fn session(&self) -> Option<Arc<Session>> {
        lock(&self.session).clone()
    }

    /// Runs `f` with what only the sink pad's streaming thread uses. No lock is held meanwhile.
    pub(super) fn with_ingest<R>(&self, f: impl FnOnce(&mut Ingest) -> R) -> R {
        let mut ingest = std::mem::take(&mut *lock(&self.ingest));
        let (flushes, resets) = std::mem::take(&mut self.state().flushes);
        if flushes > 0 {
            ingest.flush(resets);
            if let Some(domain) = self.domain() {
                domain.flushed(ingest.flushes());
            }
        }
        let result = f(&mut ingest);
        *lock(&self.ingest) = ingest;
        result
    }

    /// The running-time domain of this run.
    pub(super) fn domain(&self) -> Option<Arc<Domain>> {
        lock(&self.domain).clone()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn position(&self) -> Option<gst::ClockTime> {
        *lock(&self.position)
    }

    pub(super) fn set_position(&self, position: Option<gst::ClockTime>) {
        *lock(&self.position) = position;
    }

    pub(super) fn manager(&self) -> Option<Arc<dyn Manager>> {
        lock(&self.manager).clone()
    }

    pub(super) fn set_manager(&self, manager: Option<Arc<dyn Manager>>) {
        *lock(&self.manager) = manager;
    }

    pub(super) fn wants_boundaries(&self) -> bool {
        self.boundaries.load(Ordering::Relaxed)
    }

    pub(super) fn set_boundaries(&self, wanted: bool) {
        self.boundaries.store(wanted, Ordering::Relaxed);
    }

    /// Emits a signal without arguments, if anybody listens.
    pub(super) fn emit(&self, signal: Signal) {
        static IDS: LazyLock<Vec<Option<glib::subclass::SignalId>>> = LazyLock::new(|| {
            let class = super::DiskBuffer::static_type();
            SIGNAL_NAMES.iter().map(|name| glib::subclass::SignalId::lookup(name, class)).collect()
        });
        let obj = self.obj();
        if let Some(Some(id)) = IDS.get(signal as usize)
            && glib::signal::signal_has_handler_pending(&*obj, *id, None, false)
        {
            obj.emit::<()>(*id, &[]);
        }
    }

    /// Ends every wait; chain and delivery return at once until it is undone.
    pub(super) fn set_flushing(&self, flushing: bool) {
        self.state().flow = if flushing { Err(gst::FlowError::Flushing) } else { Ok(gst::FlowSuccess::Ok) };
        self.item_add.ring();
        self.item_del.ring();
    }

    /// Starts the task; it waits through flushes and ends when the pad is deactivated.
    fn start_delivery(&self) -> Result<(), glib::BoolError> {
        let weak = self.obj().downgrade();
        let mut delivery = Delivery::default();
        self.srcpad.start_task(move || {
            if let Some(obj) = weak.upgrade() {
                obj.imp().deliver(&mut delivery);
            }
        })
    }

    /// Tells the pipelines of a process apart: elements of one have the same ancestor.
    fn pipeline_id(&self) -> u64 {
        let mut top = self.obj().clone().upcast::<gst::Object>();
        while let Some(parent) = top.parent() {
            top = parent;
        }
        top.as_ptr() as u64
    }

    fn open(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings();
        let Some(location) = settings.resolved_location() else {
            return Err(gst::error_msg!(
                gst::ResourceError::Settings,
                ("No location: set the property \"location\" to a directory for the stored data")
            ));
        };
        // A purge of the run before may still be at it.
        let closed = std::mem::take(&mut *lock(&self.closed));
        Self::wait_until(settings.store_options().lock_timeout, || closed.strong_count() == 0);
        let stream = Store::open(&location, &settings.store_options())
            .and_then(|store| store.stream(&settings.stream_name))
            .map_err(|err| {
                let domain = match &err {
                    StoreError::Locked { .. } | StoreError::StreamInUse { .. } => gst::ResourceError::Busy,
                    StoreError::NoSpace { .. } => gst::ResourceError::NoSpaceLeft,
                    StoreError::Conflict { .. } => gst::ResourceError::Settings,
                    _ => gst::ResourceError::OpenReadWrite,
                };
                gst::error_msg!(domain, ("{err}"))
            })?;
        let (end, cursor) = (stream.end(), stream.cursor());
        let pending = end.totals.since(cursor.totals);
        gst::info!(
            CAT,
            imp = self,
            "Opened {} stream \"{}\": backlog {} buffers, {} bytes",
            location.display(),
            stream.name(),
            pending.buffers,
            pending.bytes
        );
        let mut state = self.state();
        let State { hold, children, exchanged, trust, joint, .. } = std::mem::take(&mut *state);
        *state = State { end, cursor, hold, children, exchanged, trust, joint, ..State::default() };
        if let Some(joint) = &state.joint {
            joint.open(pending.buffers > 0);
        }
        let ledger = cursor.ledger;
        state.counters.received.add(end.totals);
        state.counters.received = state.counters.received.plus(ledger.bypassed).plus(ledger.rejected);
        drop(state);
        let tender = ElementTender::new(&self.obj());
        let session = Arc::new(Session { stream, _share: MemoryShare::new() });
        *lock(&self.session) = Some(session.clone());
        session.stream.set_retention(settings.retention());
        session.stream.set_tender(Arc::new(tender));
        for incident in session.stream.take_incidents() {
            self.tell_incident(&incident);
        }
        Ok(())
    }

    /// A run of the element begins: what is in the log is of earlier ones.
    fn begin_run(&self) {
        let Some(session) = self.session() else { return };
        lock(&self.ingest).reset();
        *lock(&self.domain) = Some(session.stream.store().join_domain(self.pipeline_id()));
        self.offset.store(0, Ordering::Relaxed);
        self.set_position(None);
        let settings = self.settings();
        let mut state = self.state();
        state.closing = false;
        state.explicit = settings.ack_mode == AckMode::Explicit;
        state.sent.clear();
        state.sent_until = 0;
        state.sending_from = 0;
        state.taken_until = 0;
        state.acknowledged_until = 0;
        state.passed = Totals::default();
        state.caps = None;
        state.domain = None;
        state.began = state.end.sequence;
        state.delivered = false;
        state.from_disk = false;
        state.outage = None;
        state.resend = false;
        state.live_eos = None;
        state.eos_sent = None;
        state.counters.accepted = Count::default();
        state.pushing = None;
        state.dropped_in_flight.clear();
        (state.gap, state.skip_to) = (false, None);
        state.flushes = (0, 0);
        state.generation += 1;
        let (owed, leads) = state.joint.as_ref().map_or((false, true), |joint| (joint.is_owed(), joint.leads()));
        if state.cursor.position >= state.end.sequence && !owed {
            // Nothing is owed: a resume has no business in what earlier runs have delivered.
            state.cursor.resume = state.cursor.position;
        }
        let from = Mark { sequence: state.cursor.resume, totals: state.passed };
        let (cursor, end) = (state.cursor, state.end.sequence);
        let together = state.joint.is_some();
        drop(state);
        // The others have to know how far back this one reaches, and what it needs.
        let mut at = None;
        if together && cursor.resume < end {
            let unreadable = (cursor.resume < cursor.position).then_some(Moment::FIRST);
            at = self.moment_at(&session, cursor.resume).or(unreadable);
        }
        let overlap = settings.overlap();
        let mut state = self.state();
        // Until here nobody else may move the resume point.
        state.activity = Activity::Paused;
        state.resume = if leads { Resume::new(from, at, overlap) } else { Resume::following(from, at, overlap) };
        if let Some(joint) = &state.joint {
            joint.begin(state.report(), at);
        }
        drop(state);
        session.stream.set_cursor(cursor);
    }

    /// Waits until the push that is under way has returned; from within it there is nothing to wait for.
    pub(super) fn wait_for_push(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut state = self.state();
        while state.pushing.is_some() && state.thread != Some(std::thread::current().id()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.item_del.wait_timeout(state, left).0;
        }
        true
    }

    /// Frees a task that is blocked in a push: it cannot be joined before.
    fn unblock(&self) {
        self.state().closing = true;
        self.set_flushing(true);
        if self.wait_for_push(GRACE) {
            return;
        }
        gst::debug!(CAT, imp = self, "Flushing downstream to end a push");
        self.srcpad.push_event(gst::event::FlushStart::new());
        if self.wait_for_push(FLUSH_GRACE) {
            // Downstream may go on with somebody else's data.
            self.srcpad.push_event(gst::event::FlushStop::new(false));
        }
    }

    /// Waits until nobody else has the session: who starts the element again must not find its stream in use.
    fn wait_for_users(session: &Arc<Session>) {
        Self::wait_until(USERS_GRACE, || Arc::strong_count(session) == 1);
    }

    fn wait_until(time: Duration, done: impl Fn() -> bool) {
        let deadline = Instant::now() + time;
        while !done() && Instant::now() < deadline {
            std::thread::sleep(USERS_POLL);
        }
    }

    fn end_run(&self) {
        let Some(session) = self.session() else { return };
        let dropped = lock(&self.ingest).take_dropped();
        if let Some((reason, dropped)) = dropped {
            let at = self.state().end.sequence;
            self.tell_dropped(reason, at, at, dropped);
        }
        // In order: what was stored before it is delivered before it.
        if self.state().tail.has_unstored() {
            self.spool_rest(&session);
        }
        let gone = {
            let mut state = self.settled_state();
            state.activity = Activity::Stopped;
            state.pushing = None;
            state.sent.clear();
            if let Some(joint) = &state.joint {
                joint.end();
            }
            let end = state.tail.end();
            let gone = state.forget_until(&session.stream, end);
            session.stream.set_cursor(state.cursor);
            gone
        };
        *lock(&self.domain) = None;
        if gone.buffers > 0 {
            gst::warning!(CAT, imp = self, "{} buffers that the disk refused were not delivered: lost", gone.buffers);
        }
        self.report();
        if !session.stream.save_cursor() {
            gst::warning!(CAT, imp = self, "The disk does not take the cursor now: delivered data may be repeated");
        }
    }
}

#[glib::object_subclass]
impl ObjectSubclass for DiskBuffer {
    const NAME: &'static str = "GstDiskBuffer";
    type Type = super::DiskBuffer;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Self {
        let template =
            |name: &str| class.pad_template(name).unwrap_or_else(|| unreachable!("the class has this pad template"));
        let sinkpad = gst::Pad::builder_from_template(&template("sink"))
            .activatemode_function(|pad, parent, mode, active| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::loggable_error!(CAT, "sink activation panicked")),
                    |imp| imp.sink_activatemode(pad, mode, active),
                )
            })
            .chain_function(|_, parent, buffer| {
                Self::catch_panic_pad_function(parent, || Err(gst::FlowError::Error), |imp| imp.sink_chain(buffer))
            })
            .chain_list_function(|_, parent, list| {
                Self::catch_panic_pad_function(parent, || Err(gst::FlowError::Error), |imp| imp.sink_chain_list(list))
            })
            .event_function(|pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.sink_event(pad, event))
            })
            .query_function(|pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.sink_query(pad, query))
            })
            .build();
        let srcpad = gst::Pad::builder_from_template(&template("src"))
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
            sinkpad,
            srcpad,
            settings: Mutex::default(),
            session: Mutex::default(),
            closed: Mutex::default(),
            ingest: Mutex::default(),
            state: Mutex::default(),
            item_add: Bell::default(),
            item_del: Bell::default(),
            domain: Mutex::default(),
            offset: AtomicI64::new(0),
            position: Mutex::default(),
            manager: Mutex::default(),
            boundaries: AtomicBool::new(false),
        }
    }
}

impl DiskBuffer {
    fn sink_activatemode(&self, _pad: &gst::Pad, mode: gst::PadMode, active: bool) -> Result<(), gst::LoggableError> {
        if mode != gst::PadMode::Push {
            return Err(gst::loggable_error!(CAT, "Only push mode is possible"));
        }
        if !active {
            self.set_flushing(true);
        }
        Ok(())
    }

    fn src_activatemode(&self, pad: &gst::Pad, mode: gst::PadMode, active: bool) -> Result<(), gst::LoggableError> {
        if mode != gst::PadMode::Push {
            return Err(gst::loggable_error!(CAT, "Only push mode is possible"));
        }
        {
            let mut state = self.state();
            state.stopping = !active;
            state.thread = None;
        }
        self.set_flushing(!active);
        if active {
            self.start_delivery()?;
        } else {
            pad.stop_task()?;
        }
        Ok(())
    }
}

impl ObjectImpl for DiskBuffer {
    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        // Fails only for pads of the same name.
        let _ = obj.add_pad(&self.sinkpad);
        let _ = obj.add_pad(&self.srcpad);
    }

    fn properties() -> &'static [glib::ParamSpec] {
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let retention = {
            let mut settings = lock(&self.settings);
            let before = settings.retention();
            Arc::make_mut(&mut *settings).set(pspec.name(), value);
            Some(settings.retention()).filter(|retention| *retention != before)
        };
        if let (Some(retention), Some(session)) = (retention, self.session()) {
            session.stream.set_retention(retention);
        }
        if pspec.name() == "catch-up-rate" {
            self.state().rate_changed = true;
            self.item_add.ring();
        }
        // A limit may have been raised.
        self.item_del.ring();
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "current-level-buffers" => u32::try_from(self.level().buffers).unwrap_or(u32::MAX).to_value(),
            "current-level-bytes" => self.level().bytes.to_value(),
            "current-level-time" => self.level().time.to_value(),
            "status" => {
                let stall = Duration::from_nanos(self.settings().stall_timeout);
                self.state().status(Instant::now(), stall).to_value()
            }
            "stats" => self.stats().to_value(),
            name => self.settings().get(name).unwrap_or_else(|| unreachable!("GObject asks for known properties")),
        }
    }

    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(super::actions::signals);
        &SIGNALS
    }
}

impl GstObjectImpl for DiskBuffer {}

impl ElementImpl for DiskBuffer {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Disk buffer",
                "Generic",
                "Durable queue: keeps encoded streams on disk and delivers them through outages and restarts",
                "the gst-plugin-streambuffer contributors",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)]
                .into_iter()
                .filter_map(|(name, direction)| {
                    gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &gst::Caps::new_any()).ok()
                })
                .collect()
        });
        &TEMPLATES
    }

    fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::NullToReady => {
                self.open().map_err(|err| {
                    gst::error!(CAT, imp = self, "{err}");
                    self.post_error_message(err);
                    gst::StateChangeError
                })?;
            }
            gst::StateChange::ReadyToPaused => self.begin_run(),
            gst::StateChange::PausedToPlaying => self.state().activity = Activity::Playing,
            gst::StateChange::PlayingToPaused => self.state().activity = Activity::Paused,
            gst::StateChange::PausedToReady => self.unblock(),
            _ => {}
        }
        let success = self.parent_change_state(transition)?;
        match transition {
            gst::StateChange::PausedToReady => self.end_run(),
            gst::StateChange::ReadyToNull => {
                // Closes the store; out of the lock, for it writes.
                let session = lock(&self.session).take();
                if let Some(session) = session {
                    Self::wait_for_users(&session);
                    *lock(&self.closed) = Arc::downgrade(&session);
                }
            }
            _ => {}
        }
        Ok(success)
    }
}
