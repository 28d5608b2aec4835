//! Levels, counters and messages: what the element says about itself.

use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::imp::{CAT, DiskBuffer};
use super::state::State;
use super::watermark::Crossed;
use crate::store::{ClockStep, Count, Incident, Totals};

impl DiskBuffer {
    pub(super) fn level(&self) -> Totals {
        self.state().level()
    }

    /// The `stats` property.
    pub(super) fn stats(&self) -> gst::Structure {
        let session = self.session();
        let disk_bytes = session.as_ref().map_or(0, |s| s.stream.store().disk_bytes());
        let durable = session.as_ref().map_or(0, |s| s.stream.durable().saturating_sub(1));
        let jitter = session.as_ref().map_or(0, |s| s.stream.store().sync_jitter().as_nanos() as u64);
        // ns.
        let latency = session.as_ref().map_or(0.0, |s| s.stream.store().commit_latency_p99().as_nanos() as f64);
        let now = Instant::now();
        let stall = Duration::from_nanos(self.settings().stall_timeout);
        // By elapsed time, whatever the clock did; a disk that cannot be read does not tell.
        let stored_for = session.as_ref().and_then(|s| s.stream.oldest_pending_age().ok().flatten());
        let state = self.state();
        let held_for = state.tail.waiting_since().map(|since| since.elapsed());
        let age =
            stored_for.filter(|_| state.pending().buffers > 0).max(held_for).map_or(0, |age| age.as_nanos() as u64);
        let ledger = state.cursor.ledger;
        let total = |totals: Totals| Count { buffers: totals.buffers, bytes: totals.bytes };
        let ratio = match state.counters.received.buffers {
            0 => 0.0,
            received => state.counters.sync_points as f64 / received as f64,
        };
        let outage_time =
            state.counters.outage_time + state.outage.as_ref().map_or_else(Default::default, |o| o.since.elapsed());
        let mut stats = gst::Structure::builder("diskbuffer-stats")
            .field("durable-position", durable)
            .field("commit-latency-p99", latency)
            .field("sync-jitter", jitter)
            .field("acknowledged-position", state.cursor.position.saturating_sub(1))
            .field("outages", state.counters.outages)
            .field("outage-time", outage_time.as_nanos() as u64)
            .field("oldest-pending-age", age)
            .field("drain-eta", state.drain_eta)
            .field("last-received-at", state.counters.last_received_at)
            .field("last-delivered-at", state.counters.last_delivered_at)
            .field("disk-bytes", disk_bytes)
            .field("memory-bytes", state.tail.bytes())
            .field("keyframe-ratio", ratio)
            .field("status", status_nick(&state, now, stall))
            .field("last-error", state.last_error.clone().unwrap_or_default())
            .build();
        let counts = [
            ("received", state.counters.received),
            ("stored", total(state.end.totals)),
            ("bypassed", ledger.bypassed),
            ("queued", total(state.tail.queued())),
            ("rejected", ledger.rejected),
            ("delivered", ledger.delivered),
            ("pending", total(state.pending())),
            ("dropped", ledger.dropped),
            ("expired", ledger.expired),
            ("purged", ledger.purged),
            ("lost", ledger.lost),
            ("replayed", state.counters.replayed),
        ];
        drop(state);
        for (name, count) in counts {
            stats.set(name, count.buffers);
            stats.set(format!("{name}-bytes"), count.bytes);
        }
        stats
    }

    /// Posts an element message with the level and, where it is about some buffers, how many.
    pub(super) fn tell(&self, name: &str, fields: impl FnOnce(gst::structure::Builder) -> gst::structure::Builder) {
        let level = self.level();
        let builder = gst::Structure::builder(name)
            .field("level-buffers", level.buffers)
            .field("level-bytes", level.bytes)
            .field("level-time", level.time);
        let obj = self.obj();
        let message = gst::message::Element::builder(fields(builder).build()).src(&*obj).build();
        // Nobody listens: not an error.
        let _ = obj.post_message(message);
    }

    /// Tells that the wall clock was set, and what that does to capture times.
    pub(super) fn tell_clock(&self, step: ClockStep) {
        let ClockStep { by, wall, synced, .. } = step;
        gst::info!(
            CAT,
            imp = self,
            "The clock was set by {:.3} s, {}; capture times are corrected",
            by as f64 / 1e9,
            if synced { "synchronised" } else { "not synchronised" }
        );
        self.tell("diskbuffer-clock", |b| b.field("step", by).field("now", wall).field("clock-synced", synced));
    }

    /// Tells what a damaged store has lost.
    pub(super) fn tell_incident(&self, incident: &Incident) {
        let Incident { first, last, buffers, bytes, reason, path, .. } = incident;
        gst::element_imp_warning!(
            self,
            gst::ResourceError::Read,
            ("{}: positions {first} to {last} are damaged or missing and are left out: {reason}", path.display())
        );
        self.tell("diskbuffer-storage", |b| {
            b.field("state", "damaged")
                .field("reason", reason.as_str())
                .field("first-position", *first)
                .field("last-position", *last)
                .field("buffers", buffers.unwrap_or(0))
                .field("bytes", bytes.unwrap_or(0))
        });
    }

    /// Tells of dropped buffers: whose are gone, how many, why.
    pub(super) fn tell_dropped(&self, reason: &str, from: u64, to: u64, dropped: Totals) {
        gst::warning!(
            CAT,
            imp = self,
            "Dropped {} buffers, {} bytes, positions {from} to {to}: {reason}",
            dropped.buffers,
            dropped.bytes
        );
        self.tell("diskbuffer-dropped", |builder| {
            builder
                .field("reason", reason)
                .field("buffers", dropped.buffers)
                .field("bytes", dropped.bytes)
                .field("time", dropped.time)
                .field("first-position", from)
                .field("last-position", to)
        });
    }

    /// The level has crossed a watermark.
    pub(super) fn tell_watermark(&self, crossed: Crossed) {
        let Crossed { above, fraction, limit } = crossed;
        gst::info!(
            CAT,
            imp = self,
            "Level is {} at {:.0} % of {limit}",
            if above { "high" } else { "low again" },
            fraction * 100.0
        );
        self.tell("diskbuffer-watermark", |b| {
            b.field("above", above).field("fraction", fraction).field("limit", limit)
        });
        self.obj().emit_by_name::<()>(super::actions::WATERMARK, &[&above]);
    }

    /// The line for a person at 3 a.m.
    pub(super) fn report(&self) {
        let stall = Duration::from_nanos(self.settings().stall_timeout);
        let state = self.state();
        let (status, level, ledger, counters) =
            (status_nick(&state, Instant::now(), stall), state.level(), state.cursor.ledger, state.counters);
        drop(state);
        gst::info!(
            CAT,
            imp = self,
            "{status}: backlog {} buffers, {} bytes, {:.1} s; received {}, delivered {}, replayed {}, dropped {}, lost {}, \
             outages {}",
            level.buffers,
            level.bytes,
            level.time as f64 / 1e9,
            counters.received.buffers,
            ledger.delivered.buffers,
            counters.replayed.buffers,
            ledger.dropped.buffers + ledger.rejected.buffers,
            ledger.lost.buffers,
            counters.outages
        );
    }
}

fn status_nick(state: &State, now: Instant, stall: Duration) -> String {
    glib::EnumValue::from_value(&state.status(now, stall).to_value())
        .map_or(String::new(), |(_, value)| value.nick().to_owned())
}
