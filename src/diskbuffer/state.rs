//! What the two threads of the element share: how far the log reaches, how far it was delivered, what is in memory.
//!
//! One mutex, held for a few instructions at a time: never across a push, a query, a signal or a disk access.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::joint::Membership;
use super::managed::{Hold, Trust};
use super::resume::Resume;
use super::sent::Sent;
use super::settings::{Persist, Settings, Status};
use super::storing::Storing;
use super::tail::{Tail, memory_limit};
use super::watermark::Watermark;
use crate::media::event::{Coded, Place};
use crate::store::{Cause, Count, CursorRecord, Mark, Sequence, Stream, Totals};

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
    /// What waited when downstream took something again.
    pub waited: Totals,
}

/// What is counted beside the ledger.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counters {
    pub received: Count,
    /// By downstream in this run, repeats included.
    pub accepted: Count,
    pub replayed: Count,
    pub outages: u32,
    pub outage_time: Duration,
    /// ns since 1970, 0 for never.
    pub last_received_at: i64,
    pub last_delivered_at: i64,
    pub sync_points: u64,
}

/// Positions that were dropped during a push.
#[derive(Debug, Clone, Copy)]
pub struct InFlight {
    pub from: Sequence,
    /// The stored ones end here; what follows was in memory only.
    pub stored: Sequence,
    pub to: Sequence,
    pub cause: Cause,
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
    /// The next number to be given out, and the sums of what is stored.
    pub end: Mark,
    pub cursor: CursorRecord,
    pub resume: Resume,
    /// The streams that begin and drop together with this one. Kept from run to run.
    pub joint: Option<Membership>,
    pub tail: Tail,
    /// Waits to be acknowledged.
    pub sent: Sent,
    /// Everything before it is on its way to downstream or was; the highest number while the disk is being read.
    pub taken_until: Sequence,
    /// Everything before it was sent in this run.
    pub sent_until: Sequence,
    /// Everything before it was sent since delivery last began.
    pub sending_from: Sequence,
    /// Everything before it is acknowledged, or will be once it is sent.
    pub acknowledged_until: Sequence,
    /// Sums of what was delivered in this run, stored or not.
    pub passed: Totals,
    /// What only memory holds is being stored.
    pub spooling: bool,
    /// The part of it that is being written now.
    pub storing: Option<Storing>,
    /// The disk is not asked again before.
    pub spool_at: Option<Instant>,
    pub watermark: Watermark,
    /// Steps of the clock that were told.
    pub clock_steps: u64,
    /// ns until the backlog is delivered at the present speed; 0 when nothing is being caught up with.
    pub drain_eta: u64,
    /// Downstream's OK is no acknowledgement.
    pub explicit: bool,
    /// Everything before it was given up: delivery begins anew there, unless it has come that far.
    pub skip_to: Option<Sequence>,
    /// Raised when delivery has to begin again at the cursor.
    pub generation: u64,
    /// What was read ahead does not hold any more.
    pub read_again: bool,
    /// Where this run of the element began: an end of stream before it belongs to an earlier run.
    pub began: Sequence,
    /// Caps of what comes in now.
    pub caps: Option<gst::Caps>,
    /// Running-time domain of what comes in now.
    pub domain: Option<u64>,
    /// The end of stream that nothing has followed yet.
    pub live_eos: Option<Sequence>,
    /// The last that downstream has taken.
    pub eos_sent: Option<Sequence>,
    /// A push is under way since then.
    pub pushing: Option<Instant>,
    /// Downstream has accepted a buffer in this run.
    pub delivered: bool,
    /// What is delivered comes from the disk.
    pub from_disk: bool,
    pub outage: Option<Outage>,
    /// Kept from run to run, as what follows.
    pub hold: Hold,
    /// How often downstream was exchanged.
    pub children: u64,
    /// How many of these exchanges delivery has taken note of.
    pub exchanged: u64,
    pub trust: Trust,
    /// Downstream was exchanged because it had failed: what it took last may not have arrived.
    pub resend: bool,
    /// Why the disk refuses.
    pub fault: Option<String>,
    /// Dropped while being pushed, in the order in which it was: counts as delivered if the push succeeds.
    pub dropped_in_flight: Vec<InFlight>,
    /// `catch-up-rate` was set: what is waited for by the old one is over.
    pub rate_changed: bool,
    /// Tell downstream of a gap at the next buffer.
    pub gap: bool,
    /// Flushes that the sink pad's thread has not taken note of, and how many of them reset running time.
    pub flushes: (u32, u32),
    /// The task has to end.
    pub stopping: bool,
    /// The run is ending: a flush does not bring it back.
    pub closing: bool,
    /// The task's own thread.
    pub thread: Option<std::thread::ThreadId>,
    /// Kinds of metas that are lost on the way through the disk, each told once.
    pub unstored_metas: HashSet<String>,
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
            joint: None,
            tail: Tail::default(),
            sent: Sent::default(),
            taken_until: 0,
            sent_until: 0,
            sending_from: 0,
            acknowledged_until: 0,
            passed: Totals::default(),
            spooling: false,
            storing: None,
            spool_at: None,
            watermark: Watermark::default(),
            clock_steps: 0,
            drain_eta: 0,
            explicit: false,
            skip_to: None,
            generation: 0,
            read_again: false,
            began: 0,
            caps: None,
            domain: None,
            live_eos: None,
            eos_sent: None,
            pushing: None,
            delivered: false,
            from_disk: false,
            outage: None,
            hold: Hold::default(),
            children: 0,
            exchanged: 0,
            trust: Trust::default(),
            resend: false,
            fault: None,
            dropped_in_flight: Vec::new(),
            rate_changed: false,
            gap: false,
            flushes: (0, 0),
            stopping: false,
            closing: false,
            thread: None,
            unstored_metas: HashSet::new(),
            counters: Counters::default(),
            last_error: None,
        }
    }
}

impl State {
    /// The undelivered part of what is stored.
    pub fn pending(&self) -> Totals {
        self.cursor.pending(self.end.totals)
    }

    /// Something is pending although nothing waits to be sent or acknowledged: if all was sent, it could not be read.
    pub fn is_owed(&self) -> bool {
        self.pending().buffers > 0 && self.sent.is_empty() && !self.tail.has_unstored()
    }

    /// Downstream is being sent what it had before.
    pub fn is_repeating(&self) -> bool {
        self.sending_from < self.sent_until
    }

    /// The undelivered part, stored or not.
    pub fn level(&self) -> Totals {
        self.pending().plus(self.tail.queued())
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
        } else if self.fault.is_some() && self.tail.queued().bytes >= memory_limit(settings) {
            Some(Full::Memory)
        } else if disk_low && self.fault.is_none() && self.needs_disk(settings) {
            Some(Full::Disk)
        } else {
            None
        }
    }

    /// Whether what comes next takes space on the disk that is not given back at once.
    fn needs_disk(&self, settings: &Settings) -> bool {
        match settings.persist {
            Persist::Always => self.level().buffers > 0,
            Persist::Spill => self.tail.unstored_bytes() >= memory_limit(settings),
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

    /// Gives up what lies before `to`; what was dropped of what is stored, and of what only memory had.
    pub fn drop_until(&mut self, stream: &Stream, to: Mark, cause: Cause) -> (Totals, Count) {
        let stored = self.tail.first_unstored().map_or(to.sequence, |first| first.min(to.sequence));
        if self.pushing.is_some() {
            let from = self.cursor.position;
            self.dropped_in_flight.push(InFlight { from, stored, to: to.sequence, cause });
        }
        let rejected = self.forget_until(stream, to.sequence);
        self.sent.drop_until(to);
        let dropped = self.cursor.skip(to, cause);
        self.resume.restart(Mark { sequence: to.sequence, totals: self.passed });
        // What was sent and only waits for its acknowledgement leaves no gap.
        self.skip_to = self.skip_to.max(Some(to.sequence));
        (dropped, rejected)
    }

    /// As what `sequence` was given up while it was being pushed: what came first counts.
    pub fn given_up_in_flight(&self, sequence: Sequence) -> Option<InFlight> {
        self.dropped_in_flight.iter().find(|range| (range.from..range.to).contains(&sequence)).copied()
    }

    /// Takes note of what was given up, once the push that was under way has ended.
    pub fn skip(&mut self) {
        if self.skip_to.take().is_some_and(|to| to > self.sending_from) {
            self.gap = true;
            self.generation += 1;
        }
    }

    /// Forgets what memory holds before `to`, and counts what it alone had; changes of state stay in force.
    pub fn forget_until(&mut self, stream: &Stream, to: Sequence) -> Count {
        if let Some(storing) = &mut self.storing {
            storing.delivered.extend(self.tail.delivered_unstored(storing.range.start..to.min(storing.range.end)));
        }
        let gone = self.tail.drop_until(to);
        let ledger = &mut self.cursor.ledger;
        ledger.rejected = ledger.rejected.plus(gone.buffers);
        change_state(stream, &gone.state, self.storing.as_ref());
        gone.buffers
    }

    /// Whether what only memory holds has to go to the disk now.
    pub fn spool_due(&self, settings: &Settings, now: Instant, disk_low: bool) -> bool {
        if disk_low && self.fault.is_none() && settings.persist == Persist::Spill {
            // Memory has room, or it is full for the disk's sake.
            return false;
        }
        if self.spooling || !self.tail.has_unstored() || self.spool_at.is_some_and(|at| now < at) {
            return false;
        }
        let waits_long =
            |since: Instant| now.saturating_duration_since(since).as_nanos() >= settings.spill_after.into();
        self.fault.is_some()
            || settings.persist == Persist::Always
            || self.tail.unstored_bytes() >= memory_limit(settings)
            || self.tail.waiting_since().is_some_and(waits_long)
    }

    /// What it is doing; a push that takes longer than `stall` in PLAYING is a stall.
    pub fn status(&self, now: Instant, stall: Duration) -> Status {
        let stalled = self.activity == Activity::Playing
            && self.pushing.is_some_and(|since| now.saturating_duration_since(since) >= stall);
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

/// Puts changes of state in force that memory alone had, unless they are being stored.
pub fn change_state(stream: &Stream, changes: &[(Sequence, Arc<Coded>)], storing: Option<&Storing>) {
    for (sequence, coded) in changes {
        if let Place::State { slot, clears } = &coded.place {
            stream.change_state(*sequence, (slot, clears, &coded.bytes), storing.map(|storing| storing.range.start));
        }
    }
}
