//! Worker pads: whole windows of the reference stream, each to one of several branches that work side by side.
//!
//! Promises: a window goes to one worker, to the next that has nothing to do, and is streamed to it, not held; each is an epoch of
//! its own (STREAM_START, CAPS, SEGMENT, other sticky events, the start event, data, the end event) whose first buffer has
//! DISCONT and can be decoded; running time is that of the stream. Nothing is dropped unless the policy says so: what waits is
//! bounded, then upstream waits. Each pad has a task; one that is blocked or fails concerns its own window only. Every wait ends
//! with a flush or a state change. No lock is held across a push.
//!
//! A window that is behind others on its way out of a decoder would stay in it until the next one comes to that worker. So behind its
//! end event goes the STREAM_START of the next, for which decoders give what they hold, and a GAP, with which parsers and
//! decoders let go of events. Workers that get no window get a GAP for it: their sinks preroll, aggregators go on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;

mod epoch;
mod gops;
mod head;
mod pads;
mod pool;
#[cfg(test)]
mod tests;

pub use self::pool::{Begun, Limits, Noticed};
use self::pool::{Branch, Next, Phase, Pool};
use super::line::Key;
use crate::media::keyframe::Source;
use crate::timeline::Ns;
use crate::windowing::{Ids, WindowId};

type Flow = Result<gst::FlowSuccess, gst::FlowError>;

/// How long a push that is under way may take to end by itself when a worker stops.
const GRACE: Duration = Duration::from_millis(20);
/// How long it may take after downstream was flushed.
const FLUSH_GRACE: Duration = Duration::from_millis(400);

/// A pad and what its threads wait for.
pub struct Worker {
    pub index: u32,
    pub pad: gst::Pad,
    /// The task has something to do.
    item: Condvar,
    /// The push that was under way has ended.
    idle: Condvar,
}

impl Worker {
    pub fn new(index: u32, pad: gst::Pad) -> Arc<Self> {
        Arc::new(Self { index, pad, item: Condvar::new(), idle: Condvar::new() })
    }
}

/// What is set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerSettings {
    pub limits: Limits,
    /// A window for which no worker has room is left out.
    pub drops: bool,
    pub keyframes: Source,
}

/// What came of a step of a worker's task that its user should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub worker: String,
    pub error: gst::FlowError,
    /// Windows that it did not get, or not to their end.
    pub lost: Vec<WindowId>,
    /// Nobody else is left.
    pub last: bool,
}

/// What became of a buffer.
#[derive(Debug)]
pub struct Came {
    pub flow: Flow,
    /// Windows for which there was no room.
    pub lost: Vec<WindowId>,
    pub noticed: Noticed,
}

/// Limit of what is kept of a GOP for lead-ins, where there is none for workers.
const GOP_BYTES: u64 = 64 << 20;

#[derive(Default)]
pub struct Workers {
    /// How many pads there are, so that a stream without workers pays nothing.
    count: AtomicUsize,
    pool: Mutex<Pool>,
    /// There is room, or no point in waiting for it.
    room: Condvar,
}

impl Workers {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    pub fn configure(&self, settings: WorkerSettings) {
        let mut pool = self.pool();
        pool.limits = settings.limits;
        pool.drops = settings.drops;
        let bytes = settings.limits.bytes;
        pool.gops.configure(settings.keyframes, if bytes == 0 { GOP_BYTES } else { bytes });
        drop(pool);
        self.room.notify_all();
    }

    // From the streaming thread, in the order of the stream.

    /// Whether this stream is the one that workers get.
    pub fn serves(&self, key: Key) -> bool {
        self.pool().stream == Some(key)
    }

    /// This stream is the one from now on; its sticky events follow.
    pub fn serve(&self, key: Key) {
        let mut pool = self.pool();
        pool.stream = Some(key);
        pool.ended = false;
        pool.stickies.clear();
        pool.gops.clear();
    }

    /// Everything serialized. Caps say whether the stream is inter-coded.
    pub fn event(&self, event: &gst::Event, inter_coded: bool) {
        let mut pool = self.pool();
        if let gst::EventView::Caps(caps) = event.view() {
            pool.gops.set_caps(caps.caps_owned(), inter_coded);
        }
        pool.event(event);
    }

    /// A window begins; running times, the end if it is known ahead. `event` goes before its first buffer.
    pub fn begin(&self, id: WindowId, start: Ns, end: Option<Ns>, event: gst::Event) -> Begun {
        self.pool().begin(id, start, end, event)
    }

    /// A buffer and the windows that it is in. Waits for room.
    pub fn buffer(&self, buffer: &gst::Buffer, ids: Ids) -> Came {
        let mut pool = self.pool();
        let noticed = pool.buffer(buffer, ids);
        while !pool.flushing && pool.is_full() {
            pool = self.room.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
        Came { flow: pool.flow().unwrap_or(Ok(gst::FlowSuccess::Ok)), lost: pool.take_lost(), noticed }
    }

    /// A window ends; `event` goes behind its last buffer.
    pub fn end(&self, id: WindowId, event: gst::Event) {
        self.pool().end(id, event);
    }

    // The pads' tasks.

    /// One step of the task of a worker.
    pub fn step(&self, index: u32) -> Option<Trouble> {
        let mut pool = self.pool();
        let worker = pool.branches.get(&index)?.worker.clone();
        let (events, buffer) = loop {
            match pool.next(index) {
                Next::Push { events, buffer } => break (events, buffer),
                Next::Wait => pool = worker.item.wait(pool).unwrap_or_else(PoisonError::into_inner),
                Next::Pause => {
                    drop(pool);
                    let _ = worker.pad.pause_task();
                    return None;
                }
            }
        };
        drop(pool);
        self.room.notify_all();
        for event in events {
            worker.pad.push_event(event);
        }
        let flow = buffer.map_or(Ok(gst::FlowSuccess::Ok), |buffer| worker.pad.push(buffer));
        let mut pool = self.pool();
        let failed = pool.pushed(index, flow);
        let trouble = failed.map(|error| Trouble {
            worker: worker.pad.name().to_string(),
            error,
            lost: pool.take_lost(),
            last: pool.flow().is_none_or(|flow| flow.is_err()),
        });
        drop(pool);
        worker.idle.notify_all();
        self.room.notify_all();
        trouble
    }

    // Pads that come and go, flushes, state changes.

    /// The lowest number that is free, or the one that is asked for unless it is taken. `make` builds the pad.
    pub fn add(&self, asked: Option<u32>, make: impl FnOnce(u32) -> gst::Pad) -> Option<Arc<Worker>> {
        let index = {
            let pool = self.pool();
            let free = |index: &u32| !pool.branches.contains_key(index);
            match asked {
                Some(asked) => Some(asked).filter(free)?,
                None => (0..).find(free)?,
            }
        };
        let worker = Worker::new(index, make(index));
        let mut pool = self.pool();
        if pool.branches.contains_key(&index) {
            return None;
        }
        pool.branches.insert(index, Branch::new(worker.clone()));
        self.count.store(pool.branches.len(), Ordering::Release);
        Some(worker)
    }

    pub fn worker(&self, pad: &gst::Pad) -> Option<Arc<Worker>> {
        self.pool().branches.values().find(|branch| branch.worker.pad == *pad).map(|branch| branch.worker.clone())
    }

    pub fn workers(&self) -> Vec<Arc<Worker>> {
        self.pool().branches.values().map(|branch| branch.worker.clone()).collect()
    }

    /// The pad has been deactivated. Gives the windows that it had not got to their end.
    pub fn remove(&self, worker: &Worker) -> Vec<WindowId> {
        let mut pool = self.pool();
        pool.branches.remove(&worker.index);
        pool.give_up(worker.index);
        if pool.branches.is_empty() {
            // What the stream brings is not followed any more.
            pool.stream = None;
        }
        self.count.store(pool.branches.len(), Ordering::Release);
        let lost = pool.take_lost();
        drop(pool);
        self.room.notify_all();
        lost
    }

    /// The pad is linked to something else, or again.
    pub fn reconfigure(&self, index: u32) -> bool {
        let mut pool = self.pool();
        let Some(branch) = pool.branches.get_mut(&index) else { return false };
        let again = branch.phase == Phase::Running && branch.flow.is_err();
        if again {
            branch.reset();
        }
        branch.worker.item.notify_all();
        again
    }

    /// The pad is active, its task about to start.
    pub fn activate(&self, index: u32) {
        if let Some(branch) = self.pool().branches.get_mut(&index) {
            branch.phase = Phase::Running;
            branch.reset();
        }
    }

    /// Nothing goes out of this pad any more, and its task does not wait.
    pub fn stop(&self, index: u32) {
        if let Some(branch) = self.pool().branches.get_mut(&index) {
            branch.phase = Phase::Flushing;
            branch.worker.item.notify_all();
        }
        self.room.notify_all();
    }

    /// Data may come again.
    pub fn start_flow(&self) {
        let mut pool = self.pool();
        pool.clear();
        pool.flushing = false;
    }

    /// No data comes: the streaming thread does not wait either.
    pub fn stop_flow(&self) {
        self.pool().flushing = true;
        self.room.notify_all();
    }

    /// Frees a task that is blocked in a push: it cannot be joined before.
    pub fn unblock(&self, worker: &Worker) {
        self.stop(worker.index);
        if self.wait_for_push(worker, GRACE) {
            return;
        }
        worker.pad.push_event(gst::event::FlushStart::new());
        if self.wait_for_push(worker, FLUSH_GRACE) {
            worker.pad.push_event(gst::event::FlushStop::new(false));
        }
    }

    /// Waits until the push that is under way has ended; from within it there is nothing to wait for.
    fn wait_for_push(&self, worker: &Worker, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut pool = self.pool();
        let busy = |pool: &Pool| {
            let branch = pool.branches.get(&worker.index).filter(|branch| std::ptr::eq(&*branch.worker, worker));
            branch.is_some_and(|branch| branch.pushing && branch.thread != Some(std::thread::current().id()))
        };
        while busy(&pool) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            pool = worker.idle.wait_timeout(pool, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// FLUSH_START of upstream.
    pub fn flush_start(&self, event: &gst::Event) {
        self.stop_flow();
        for worker in self.workers() {
            self.stop(worker.index);
            worker.pad.push_event(event.clone());
            let _ = worker.pad.pause_task();
        }
    }

    /// FLUSH_STOP of upstream; tasks are started by the caller behind it.
    pub fn flush_stop(&self, event: &gst::Event) {
        for worker in self.workers() {
            worker.pad.push_event(event.clone());
        }
        let mut pool = self.pool();
        pool.clear();
        pool.stickies.flush();
        pool.flushing = false;
        for branch in pool.branches.values_mut().filter(|branch| branch.worker.pad.is_active()) {
            branch.phase = Phase::Running;
            branch.reset();
        }
    }

    /// After the last state change downwards.
    pub fn forget(&self) {
        let mut pool = self.pool();
        pool.clear();
        pool.stickies.clear();
        pool.stream = None;
    }
}
