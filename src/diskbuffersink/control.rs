//! The thread that looks after the child, from READY to NULL of the bin: what it is told, and the phases it goes through.
//!
//! It never waits for the child or for a push; it is told, and looks at the clock. Nothing it does changes the state of the
//! bin, and it holds no lock while it posts, links or builds.
//!
//! After a failure: every stream is held, the child closed and sent to NULL, then a pause, then the next instance is built, linked
//! and started, and the streams are released. See `restart.rs` for that, `closing.rs` for ends that are in order, `watch.rs` for
//! what only the clock tells.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::closing::Cut;
use super::failure::{Failure, Refusal};
use super::instance::{Id, Instance, Recipe};
use super::stream::Stream;
use super::watch::EndOfStream;
use super::{CAT, DiskBufferSink};
use crate::diskbuffer::DiskBuffer;
use crate::diskbuffer::managed::Boundary;

/// How long the reason for a refusal may take to come as a message.
const REASON_GRACE: Duration = Duration::from_millis(100);
/// When nothing is to be looked at.
const LONG: Duration = Duration::from_secs(3600);

pub type Reply<T> = mpsc::Sender<T>;

pub enum Event {
    /// READY to PAUSED: a child is wanted. The streams are not running yet.
    Start(Reply<Result<(), gst::ErrorMessage>>),
    /// The streams run.
    Open,
    /// The state the child is to have.
    Target(gst::State),
    /// The pipeline has distributed it.
    Latency(gst::ClockTime),
    /// PAUSED to READY: answered when the child is in NULL.
    Stop(Reply<()>),
    Quit,
    /// A stream has come.
    Joined,
    /// A stream goes: answered when the child has been told.
    Left(DiskBuffer, Reply<()>),
    /// Something may have changed that is looked at anyway.
    Look,
    Refused(DiskBuffer, gst::FlowError),
    Boundary(DiskBuffer, Boundary),
    /// A change of state that was asked for is over.
    Changed {
        id: Id,
        ok: bool,
    },
    /// It has got to PAUSED by itself, and waits for whoever contains it to go on.
    Prerolled(Id),
    /// The instance is in NULL and taken apart.
    Stopped(Id),
    Failed(Id, Failure),
    /// The child has posted its end of stream.
    Ended(Id),
    /// An element writes another file.
    Opened(Id, gst::Object),
}

/// Tells the control thread; before it runs, what it is told waits.
#[derive(Clone)]
pub struct Events(mpsc::Sender<Event>);

impl Events {
    pub fn new() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel();
        (Self(sender), receiver)
    }

    pub fn send(&self, event: Event) {
        // Nobody is there any more: nothing to be told.
        let _ = self.0.send(event);
    }
}

/// An instance that is given data.
pub struct Run {
    pub instance: Instance,
    /// Something was accepted, or had no reason to be, at this time.
    pub moved: Instant,
    /// Buffers accepted by then.
    pub accepted: u64,
    /// It is believed to work.
    pub trusted: bool,
    /// Streams that stand before what is not for it.
    pub cut: Option<Cut>,
}

pub enum Phase {
    /// No child is wanted, or there is no stream for it.
    Stopped,
    /// It goes up; `true` when it is there and only the streams are missing.
    Starting(Instance, bool),
    Running(Run),
    /// It has refused data: the reason may follow as a message.
    Doubting(Instance, Refusal, Instant),
    /// Its streams were ended: its own end of stream is awaited, for so long.
    Closing(Instance, Option<Instant>),
    /// It has had everything and has said so.
    Finished(Instance),
    /// On its way to NULL, given up at that time.
    Stopping(Instance, Instant, Next),
    /// The pause after a failure.
    Waiting(Instant),
    /// The application's element does not return from its change to NULL: there is no other.
    Wedged(Instance, Next),
    /// `max-retries`, or an error that no restart mends.
    GivenUp,
}

/// What follows when the child is in NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Stop,
    Start,
    /// Start after a pause.
    Wait(Duration),
    GiveUp,
}

pub struct Control {
    bin: glib::WeakRef<DiskBufferSink>,
    pub(super) events: Events,
    pub(super) phase: Phase,
    pub(super) recipe: Recipe,
    /// The first, parsed when the bin went to READY.
    pub(super) prepared: Option<gst::Element>,
    /// The state that the child is to have.
    pub(super) target: gst::State,
    /// The streams run.
    pub(super) open: bool,
    next_id: Id,
    /// When the instance began to go up.
    started: Instant,
    /// In a row.
    pub(super) failures: u32,
    /// The first of them.
    pub(super) failing_since: Option<Instant>,
    /// An instance has taken data in this run of the bin.
    pub(super) took_data: bool,
    pub(super) eos: EndOfStream,
    /// Told once a run.
    pub(super) starving_told: bool,
    stopped: Option<Reply<()>>,
}

impl Control {
    pub fn new(bin: &DiskBufferSink, events: Events, recipe: Recipe, prepared: Option<gst::Element>) -> Self {
        Self {
            bin: bin.downgrade(),
            events,
            phase: Phase::Stopped,
            recipe,
            prepared,
            target: gst::State::Paused,
            open: false,
            next_id: 0,
            started: Instant::now(),
            failures: 0,
            failing_since: None,
            took_data: false,
            eos: EndOfStream::default(),
            starving_told: false,
            stopped: None,
        }
    }

    /// The thread; gives back what the next one needs.
    pub fn run(mut self, receiver: mpsc::Receiver<Event>) -> mpsc::Receiver<Event> {
        loop {
            let timeout = self.bin.upgrade().and_then(|bin| bin.imp().restart_timeout());
            let event = match receiver.recv_timeout(self.next_look(timeout)) {
                Ok(event) => Some(event),
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                Err(mpsc::RecvTimeoutError::Disconnected) => return receiver,
            };
            let Some(bin) = self.bin.upgrade() else { return receiver };
            match event {
                Some(Event::Quit) => {
                    self.quit(&bin);
                    return receiver;
                }
                Some(event) => self.handle(&bin, event),
                None => {}
            }
            self.look(&bin);
        }
    }

    fn handle(&mut self, bin: &DiskBufferSink, event: Event) {
        match event {
            Event::Start(reply) => {
                let _ = reply.send(self.start_run(bin));
            }
            Event::Open => {
                self.open = true;
                self.release_if_ready(bin);
            }
            Event::Target(state) => self.set_target(bin, state),
            Event::Stop(reply) => {
                self.stopped = Some(reply);
                self.open = false;
                hold_all(bin);
                match self.take_instance() {
                    Some(instance) => self.stop(instance, Next::Stop),
                    None => self.settle(bin, Next::Stop),
                }
            }
            Event::Latency(latency) => {
                if let Some(instance) = self.instance() {
                    instance.set_latency(latency);
                }
            }
            Event::Joined => self.joined(bin),
            Event::Left(buffer, reply) => {
                self.left(bin, &buffer);
                let _ = reply.send(());
            }
            Event::Refused(buffer, flow) => self.refused(bin, &buffer, flow),
            Event::Boundary(buffer, boundary) => self.boundary(bin, buffer, boundary),
            Event::Prerolled(id) if self.is_current(id) => {
                if !matches!(self.phase, Phase::Stopping(..) | Phase::Wedged(..))
                    && let Some(instance) = self.instance()
                {
                    instance.set_state(self.target);
                }
            }
            Event::Changed { id, ok } if self.is_current(id) => self.changed(bin, ok),
            Event::Stopped(id) if self.is_current(id) => match std::mem::replace(&mut self.phase, Phase::Stopped) {
                Phase::Stopping(instance, _, next) | Phase::Wedged(instance, next) => {
                    self.retire(bin, &instance);
                    self.settle(bin, next);
                }
                phase => self.phase = phase,
            },
            Event::Failed(id, failure) if self.is_current(id) => self.child_failed(bin, failure),
            Event::Ended(id) if self.is_current(id) => self.child_ended(bin),
            Event::Opened(id, source) if self.is_current(id) => {
                if let Some(instance) = self.instance_mut() {
                    instance.written.opened(&source);
                }
            }
            // Of an instance that was given up.
            Event::Prerolled(_)
            | Event::Changed { .. }
            | Event::Stopped(_)
            | Event::Failed(..)
            | Event::Ended(_)
            | Event::Opened(..) => {}
            Event::Look | Event::Quit => {}
        }
    }

    pub(super) fn instance(&self) -> Option<&Instance> {
        match &self.phase {
            Phase::Running(run) => Some(&run.instance),
            Phase::Starting(instance, _)
            | Phase::Doubting(instance, ..)
            | Phase::Closing(instance, _)
            | Phase::Finished(instance)
            | Phase::Stopping(instance, ..)
            | Phase::Wedged(instance, _) => Some(instance),
            Phase::Stopped | Phase::Waiting(_) | Phase::GivenUp => None,
        }
    }

    pub(super) fn instance_mut(&mut self) -> Option<&mut Instance> {
        match &mut self.phase {
            Phase::Running(run) => Some(&mut run.instance),
            Phase::Starting(instance, _)
            | Phase::Doubting(instance, ..)
            | Phase::Closing(instance, _)
            | Phase::Finished(instance)
            | Phase::Stopping(instance, ..)
            | Phase::Wedged(instance, _) => Some(instance),
            Phase::Stopped | Phase::Waiting(_) | Phase::GivenUp => None,
        }
    }

    fn is_current(&self, id: Id) -> bool {
        self.instance().is_some_and(|instance| instance.id == id)
    }

    /// Takes the instance, unless it is on its way to NULL: then what follows is changed by whoever asks.
    pub(super) fn take_instance(&mut self) -> Option<Instance> {
        match std::mem::replace(&mut self.phase, Phase::Stopped) {
            Phase::Running(run) => Some(run.instance),
            Phase::Starting(instance, _)
            | Phase::Doubting(instance, ..)
            | Phase::Closing(instance, _)
            | Phase::Finished(instance) => Some(instance),
            phase => {
                self.phase = phase;
                None
            }
        }
    }

    /// READY to PAUSED.
    fn start_run(&mut self, bin: &DiskBufferSink) -> Result<(), gst::ErrorMessage> {
        self.target = gst::State::Paused;
        self.open = false;
        self.stopped = None;
        (self.failures, self.failing_since) = (0, None);
        self.took_data = false;
        self.starving_told = false;
        self.eos = EndOfStream::default();
        hold_all(bin);
        match std::mem::replace(&mut self.phase, Phase::Stopped) {
            Phase::Stopping(instance, at, _) if !self.recipe.makes_new_ones() => {
                self.phase = Phase::Stopping(instance, at, Next::Start);
                return Ok(());
            }
            Phase::Wedged(instance, _) => {
                self.phase = Phase::Wedged(instance, Next::Start);
                return Ok(());
            }
            Phase::Stopping(instance, ..) => self.retire(bin, &instance),
            _ => {}
        }
        self.start(bin)
    }

    /// Builds an instance and has it go up.
    pub(super) fn start(&mut self, bin: &DiskBufferSink) -> Result<(), gst::ErrorMessage> {
        self.phase = Phase::Stopped;
        let streams = bin.imp().streams();
        if streams.is_empty() {
            return Ok(());
        }
        let wanted: Vec<_> = streams.iter().map(Stream::wanted).collect();
        let content = match self.prepared.take() {
            Some(content) => content,
            None => self.recipe.make(&wanted)?,
        };
        let id = self.next_id;
        self.next_id += 1;
        let numbering = bin.imp().numbering();
        let instance = Instance::new(bin, id, content, &streams, &numbering, bin.imp().sync(), &self.events)?;
        gst::debug!(CAT, obj = bin, "Child {id} is built for {} streams", streams.len());
        for stream in &streams {
            stream.buffer.set_boundaries(instance.muxes);
        }
        instance.set_state(self.target);
        self.started = Instant::now();
        self.phase = Phase::Starting(instance, false);
        Ok(())
    }

    fn changed(&mut self, bin: &DiskBufferSink, ok: bool) {
        if !ok {
            if !matches!(self.phase, Phase::Stopping(..) | Phase::Wedged(..)) {
                let state = self.target;
                self.fail(bin, Failure::new(&format!("The sink does not go to {state:?}")));
            }
            return;
        }
        if let Phase::Starting(_, up) = &mut self.phase {
            *up = true;
            self.release_if_ready(bin);
        }
    }

    /// Child and streams are there: data flows.
    fn release_if_ready(&mut self, bin: &DiskBufferSink) {
        if !self.open || !matches!(self.phase, Phase::Starting(_, true)) {
            return;
        }
        let Some(instance) = self.take_instance() else { return };
        gst::info!(CAT, obj = bin, "Child {} is up", instance.id);
        if let Some(latency) = bin.imp().latency() {
            instance.set_latency(latency);
        }
        let accepted = bin.imp().accepted();
        let buffers: Vec<DiskBuffer> = instance.inputs.iter().map(|(buffer, _)| buffer.clone()).collect();
        self.phase = Phase::Running(Run { instance, moved: Instant::now(), accepted, trusted: false, cut: None });
        buffers.iter().for_each(DiskBuffer::release);
    }

    fn set_target(&mut self, bin: &DiskBufferSink, state: gst::State) {
        self.target = state;
        self.started = Instant::now();
        self.eos.pipeline_plays(state == gst::State::Playing);
        if let Phase::Running(run) = &mut self.phase {
            run.moved = Instant::now();
        }
        if !matches!(self.phase, Phase::Stopping(..) | Phase::Wedged(..))
            && let Some(instance) = self.instance()
        {
            gst::debug!(CAT, obj = bin, "The child goes to {state:?}");
            instance.set_state(state);
        }
    }

    fn refused(&mut self, bin: &DiskBufferSink, buffer: &DiskBuffer, flow: gst::FlowError) {
        match &self.phase {
            Phase::Running(run) if run.instance.input(buffer).is_some() => self.took_data |= run.instance.taken() > 0,
            Phase::Closing(instance, _) if instance.input(buffer).is_some() => {}
            _ => return,
        }
        gst::debug!(CAT, obj = bin, "{} is refused: {flow}", buffer.name());
        if let Some(instance) = self.take_instance() {
            let caps = buffer.static_pad("src").and_then(|pad| pad.current_caps());
            let refusal = Refusal { flow, pad: buffer.name().into(), caps };
            self.phase = Phase::Doubting(instance, refusal, Instant::now() + REASON_GRACE);
        }
    }

    fn child_failed(&mut self, bin: &DiskBufferSink, failure: Failure) {
        match &self.phase {
            Phase::Stopping(..) | Phase::Wedged(..) => {
                gst::debug!(CAT, obj = bin, "The child says on its way to NULL: {}", failure.text());
            }
            Phase::Doubting(_, refusal, _) if self.is_hopeless(refusal.flow) => self.give_up_on(bin, failure),
            _ => self.fail(bin, failure),
        }
    }

    /// A description that has never worked: no restart mends what it refuses.
    pub(super) fn is_hopeless(&self, flow: gst::FlowError) -> bool {
        matches!(flow, gst::FlowError::NotNegotiated | gst::FlowError::NotLinked) && !self.took_data
    }

    /// What only the clock tells.
    fn look(&mut self, bin: &DiskBufferSink) {
        let now = Instant::now();
        if let Phase::Closing(instance, _) = &self.phase {
            instance.end();
        }
        match &self.phase {
            Phase::Doubting(_, refusal, until) if now >= *until => {
                let (flow, failure) = (refusal.flow, Failure::refused(refusal));
                if self.is_hopeless(flow) { self.give_up_on(bin, failure) } else { self.fail(bin, failure) }
            }
            Phase::Starting(_, false) if self.target == gst::State::Playing => {
                let timeout = bin.imp().restart_timeout();
                if timeout.is_some_and(|timeout| self.started.elapsed() >= timeout) {
                    self.fail(bin, Failure::new("The sink does not start within restart-timeout"));
                }
            }
            Phase::Stopping(_, until, _) if now >= *until => self.wedged(bin),
            Phase::Waiting(until) if now >= *until => self.start_again(bin),
            Phase::Closing(_, Some(until)) if now >= *until && self.target == gst::State::Playing => {
                gst::warning!(CAT, obj = bin, "The child does not end within eos-timeout: it is restarted as it is");
                self.closed(bin);
            }
            Phase::Running(_) => {
                self.watch(bin);
                self.look_at_cut(bin);
            }
            _ => {}
        }
        self.look_at_end(bin);
    }

    /// When to look next, unless something happens before.
    fn next_look(&self, restart_timeout: Option<Duration>) -> Duration {
        let until = |at: &Instant| at.saturating_duration_since(Instant::now());
        let phase = match &self.phase {
            Phase::Doubting(_, _, at) | Phase::Stopping(_, at, _) | Phase::Waiting(at) => until(at),
            Phase::Closing(..) => Duration::from_millis(10),
            Phase::Starting(..) => restart_timeout.map_or(LONG, |timeout| until(&(self.started + timeout))),
            Phase::Running(run) => self.next_watch(run, restart_timeout),
            _ => LONG,
        };
        phase.min(self.eos.next_look()).max(Duration::from_millis(1))
    }

    /// What follows when there is no instance any more.
    pub(super) fn settle(&mut self, bin: &DiskBufferSink, next: Next) {
        match &mut self.phase {
            Phase::Stopping(_, _, then) | Phase::Wedged(_, then) => {
                *then = next;
                return;
            }
            _ => {}
        }
        self.phase = match next {
            Next::Stop => Phase::Stopped,
            Next::GiveUp => Phase::GivenUp,
            Next::Wait(pause) => Phase::Waiting(Instant::now() + pause),
            Next::Start => {
                self.start_again(bin);
                return;
            }
        };
        if next == Next::Stop
            && let Some(reply) = self.stopped.take()
        {
            let _ = reply.send(());
        }
    }

    /// Out of the bin.
    pub(super) fn retire(&mut self, bin: &DiskBufferSink, instance: &Instance) {
        bin.imp().learn(&instance.written, instance.taken() > 0);
        instance.detach(bin);
    }

    fn quit(&mut self, bin: &DiskBufferSink) {
        if let Some(instance) = self.take_instance() {
            instance.stop();
            self.retire(bin, &instance);
        } else if let Phase::Stopping(instance, ..) | Phase::Wedged(instance, _) =
            std::mem::replace(&mut self.phase, Phase::Stopped)
        {
            self.retire(bin, &instance);
        }
    }
}

/// Delivery stops in order.
pub fn hold_all(bin: &DiskBufferSink) {
    bin.imp().streams().iter().for_each(|stream| stream.buffer.hold(None));
}
