//! What the two threads of the element share: how far the log reaches, how far it was delivered, what is in memory.
//!
//! One mutex, held for a few instructions at a time: never across a push, a query, a signal or a disk access.

use std::time::{Duration, Instant};

use super::resume::Resume;
use super::settings::{Settings, Status};
use super::tail::Tail;
use crate::store::{Count, CursorRecord, Mark, Sequence, Totals};

/// A push that takes longer than this in PLAYING is a stall.
pub const STALL: Duration = Duration::from_secs(2);

/// Why nothing more fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    Buffers,
    Bytes,
    Time,
    /// The file system is at its floor.
    Disk,
    /// The disk refuses and memory is full.
    Memory,
}

impl Full {
    pub fn reason(self) -> &'static str {
        match self {
            Full::Buffers => "max-size-buffers",
            Full::Bytes => "max-size-bytes",
            Full::Time => "max-size-time",
            Full::Disk => "min-free-bytes",
            Full::Memory => "max-memory-bytes",
        }
    }
}

/// Downstream refuses.
#[derive(Debug, Clone)]
pub struct Outage {
    pub since: Instant,
}

#[derive(Debug, Default, Clone, Copy)]
pub struct Counters {
    pub received: Count,
    /// Went through memory only, for the disk refused.
    pub bypassed: Count,
    /// Not accepted: dropped at the entrance.
    pub rejected: Count,
    pub replayed: Count,
    pub outages: u32,
    pub outage_time: Duration,
    /// ns since 1970, 0 for never.
    pub last_received_at: i64,
    pub last_delivered_at: i64,
    pub sync_points: u64,
}

/// Whether the element runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activity {
    #[default]
    Stopped,
    Paused,
    Playing,
}

#[derive(Debug)]
pub struct State {
    pub activity: Activity,
    /// What upstream gets to hear; an error while flushing, stopped, or for good.
    pub flow: Result<gst::FlowSuccess, gst::FlowError>,
    /// The log as far as delivery may go.
    pub end: Mark,
    pub cursor: CursorRecord,
    pub resume: Resume,
    pub tail: Tail,
    /// Raised when delivery has to begin again at the cursor.
    pub generation: u64,
    /// Where this run of the element began: an end of stream before it belongs to an earlier run.
    pub began: Sequence,
    /// The end of stream that nothing has followed yet.
    pub live_eos: Option<Sequence>,
    /// A push is under way since then.
    pub pushing: Option<Instant>,
    /// Downstream has accepted a buffer in this run.
    pub delivered: bool,
    /// What is delivered comes from the disk.
    pub from_disk: bool,
    pub outage: Option<Outage>,
    /// Why the disk refuses.
    pub fault: Option<String>,
    /// Dropped while being pushed: counts as delivered if the push succeeds.
    pub dropped_in_flight: Option<std::ops::Range<Sequence>>,
    /// Tell downstream of a gap at the next buffer.
    pub gap: bool,
    /// Buffers that are nowhere else and being pushed.
    pub unstored_out: Count,
    /// Flushes that the sink pad's thread has not taken note of, and how many of them reset running time.
    pub flushes: (u32, u32),
    /// The task has to end.
    pub stopping: bool,
    /// The run is ending: a flush does not bring it back.
    pub closing: bool,
    /// The task's own thread.
    pub thread: Option<std::thread::ThreadId>,
    pub counters: Counters,
    pub last_error: Option<String>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            activity: Activity::Stopped,
            flow: Err(gst::FlowError::Flushing),
            end: Mark::default(),
            cursor: CursorRecord::default(),
            resume: Resume::default(),
            tail: Tail::default(),
            generation: 0,
            began: 0,
            live_eos: None,
            pushing: None,
            delivered: false,
            from_disk: false,
            outage: None,
            fault: None,
            dropped_in_flight: None,
            gap: false,
            unstored_out: Count::default(),
            flushes: (0, 0),
            stopping: false,
            closing: false,
            thread: None,
            counters: Counters::default(),
            last_error: None,
        }
    }
}

impl State {
    /// The undelivered part.
    pub fn level(&self) -> Totals {
        self.end.totals.since(self.cursor.totals)
    }

    /// The limit that is reached, if any.
    pub fn full(&self, settings: &Settings, disk_low: bool) -> Option<Full> {
        let level = self.level();
        let reached = |limit: u64, level: u64| limit > 0 && level >= limit;
        if reached(u64::from(settings.max_size_buffers), level.buffers) {
            Some(Full::Buffers)
        } else if reached(settings.max_size_bytes, level.bytes) {
            Some(Full::Bytes)
        } else if reached(settings.max_size_time, level.time) {
            Some(Full::Time)
        } else if self.fault.is_some() && self.tail.unstored().bytes >= settings.max_memory_bytes {
            Some(Full::Memory)
        } else if disk_low && self.fault.is_none() && level.buffers > 0 {
            // With nothing undelivered, storing takes no space that is not given back at once.
            Some(Full::Disk)
        } else {
            None
        }
    }

    /// Whether dropping down to `totals` makes room below the limits.
    pub fn fits_from(settings: &Settings, end: Totals, totals: Totals) -> bool {
        let level = end.since(totals);
        let fits = |limit: u64, level: u64| limit == 0 || level < limit;
        fits(u64::from(settings.max_size_buffers), level.buffers)
            && fits(settings.max_size_bytes, level.bytes)
            && fits(settings.max_size_time, level.time)
    }

    /// Gives up what lies before `to`; what was dropped.
    pub fn drop_until(&mut self, to: Mark) -> Totals {
        let dropped = to.totals.since(self.cursor.totals);
        if self.pushing.is_some() {
            let from = self.dropped_in_flight.as_ref().map_or(self.cursor.position, |range| range.start);
            self.dropped_in_flight = Some(from..to.sequence);
        }
        self.cursor.ledger.dropped.add(dropped);
        self.cursor.position = to.sequence;
        self.cursor.totals = to.totals;
        self.cursor.resume = to.sequence;
        self.resume.restart(to);
        self.gap = true;
        self.generation += 1;
        dropped
    }

    /// Unstored buffers that memory had to give up were not accepted after all.
    pub fn count_forgotten(&mut self) {
        let gone = self.tail.take_forgotten();
        self.counters.rejected = self.counters.rejected.plus(gone);
    }

    pub fn status(&self, now: Instant) -> Status {
        let stalled = self.activity == Activity::Playing
            && self.pushing.is_some_and(|since| now.saturating_duration_since(since) >= STALL);
        if self.activity == Activity::Stopped {
            Status::Stopped
        } else if self.fault.is_some() {
            Status::StorageFault
        } else if self.outage.is_some() {
            Status::Outage
        } else if stalled {
            Status::Stalled
        } else if !self.delivered {
            Status::Starting
        } else if self.from_disk {
            Status::CatchingUp
        } else {
            Status::Live
        }
    }

    /// Something was delivered in this run, or waits to be.
    pub fn is_under_way(&self) -> bool {
        self.delivered || self.outage.is_some() || self.level().buffers > 0
    }

    /// Whether an upstream event that carries running time means what it says there.
    pub fn is_live(&self) -> bool {
        self.outage.is_none() && !self.from_disk
    }
}
