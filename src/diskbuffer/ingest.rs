//! The sink pad: buffers and serialized events go to the log, then to delivery.
//!
//! Promises: what `chain` returned OK for is stored (or, while the disk refuses, in memory and told so); downstream's troubles
//! are never returned upstream, except where GStreamer wants it (not linked or not negotiated before anything was delivered,
//! end of stream). It blocks only when full with `leaky=no`, and every wait ends with a flush or a state change.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::giving_up::with;
use super::imp::{CAT, DiskBuffer, Session};
use super::room::Room;
use super::settings::{FlushMode, Persist, Settings};
use super::state::{Full, State, change_state};
use super::tail::{Content, Item, memory_limit};
use crate::media::buffer::{self, Facts};
use crate::media::event::{self, Coded, Place};
use crate::media::keyframe::{Detector, Verdict};
use crate::media::{meta, reference};
use crate::store::domains::flushed;
use crate::store::{Body, Cause, Mark, NewRecord, StoreError, Sync, Totals};

/// Longest step of running time that counts as media time: a source that sleeps for a day has not filled a day.
const MAX_STEP: i64 = 10_000_000_000;
const REPORT_INTERVAL: Duration = Duration::from_secs(60);
/// How long a push that FLUSH_START has ended may take to return.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);
/// Dropping at the entrance waits so long for a keyframe.
const DROP_TIME: Duration = Duration::from_secs(30);
const DROP_BYTES: u64 = 64 << 20;

/// What only the streaming thread of the sink pad knows.
#[derive(Default)]
pub struct Ingest {
    segment: Option<gst::Segment>,
    detector: Detector,
    last_running_time: Option<i64>,
    /// The running-time domain of this run was written.
    domain_written: bool,
    /// What is in force in this run stays when the next domain begins, but for the segment: pads keep it over a flush.
    flushed: bool,
    /// Parameter sets have changed and the log does not know.
    sets_unwritten: bool,
    /// Raised at each flush that resets running time.
    flushes: u64,
    /// End of what was kept when dropping at the entrance began, and what was dropped.
    dropped: Option<Dropped>,
    reported: Option<Instant>,
}

pub(super) struct Dropped {
    since: Instant,
    /// PTS at which the dropped range begins.
    from: Option<gst::ClockTime>,
    totals: Totals,
    pub(super) reason: Full,
}

impl Dropped {
    /// No keyframe comes: better the rest than nothing for ever.
    pub(super) fn is_enough(&self) -> bool {
        self.totals.bytes >= DROP_BYTES || self.since.elapsed() >= DROP_TIME
    }
}

impl Ingest {
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Upstream will send a new segment and nothing else again. `resets` more times running time begins at 0.
    pub fn flush(&mut self, resets: u32) {
        self.flushes += u64::from(resets);
        let detector = std::mem::take(&mut self.detector);
        let flushed = self.flushed || self.domain_written;
        // What follows begins at a keyframe all the same; the gap has no place in the new segment.
        let dropped = self.dropped.take().map(|dropped| Dropped { from: None, ..dropped });
        *self = Self { detector, flushed, dropped, flushes: self.flushes, ..Self::default() };
    }

    /// What was dropped at the entrance and not told yet: the reason, and how much.
    pub fn take_dropped(&mut self) -> Option<(&'static str, Totals)> {
        let dropped = self.dropped.take().filter(|dropped| dropped.totals.buffers > 0)?;
        Some((dropped.reason.reason(), dropped.totals))
    }

    pub fn flushes(&self) -> u64 {
        self.flushes
    }

    fn running_time(&self, time: Option<gst::ClockTime>) -> Option<i64> {
        let segment = self.segment.as_ref()?.downcast_ref::<gst::ClockTime>()?;
        match segment.to_running_time_full(time?)? {
            gst::Signed::Positive(t) => i64::try_from(t.nseconds()).ok(),
            gst::Signed::Negative(t) => i64::try_from(t.nseconds()).ok().map(|t| -t),
        }
    }

    /// `now` is the time of arrival in ns since 1970; what the buffer itself says of its capture wins over it.
    fn facts(&self, buffer: &gst::BufferRef, verdict: Verdict, list_remaining: u32, now: i64) -> Facts {
        Facts {
            sync: verdict.sync,
            leading: verdict.leading,
            list_remaining,
            running_time: self.running_time(buffer.dts_or_pts()),
            captured_at: reference::utc(buffer).unwrap_or(now),
            arrival: None,
        }
    }

    /// Media time since the buffer before.
    fn advance(&mut self, running_time: Option<i64>) -> u64 {
        let Some(now) = running_time else { return 0 };
        let last = self.last_running_time.unwrap_or(now);
        self.last_running_time = Some(last.max(now));
        (now - last).clamp(0, MAX_STEP) as u64
    }
}

impl DiskBuffer {
    pub(super) fn sink_chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.with_ingest(|ingest| self.take_buffer(ingest, buffer))
    }

    pub(super) fn sink_chain_list(&self, list: gst::BufferList) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.with_ingest(|ingest| self.take_list(ingest, list))
    }

    fn take_buffer(&self, ingest: &mut Ingest, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let session = self.session().ok_or(gst::FlowError::Flushing)?;
        let settings = self.settings();
        let now = crate::store::wall_clock();
        self.state().flow?;
        self.report_sometimes(ingest);
        let stored = buffer::with_payload(&buffer, |payload| {
            let verdict = ingest.detector.inspect(buffer.flags(), buffer.pts(), payload);
            if let Room::Drop(reason) = self.make_room(&session, &settings, ingest.dropped.as_ref(), verdict.sync)? {
                self.reject(ingest, &buffer, reason, verdict);
                return Ok(gst::FlowSuccess::Ok);
            }
            let dropped = self.say_before(&session, &settings, ingest, verdict.sets_changed, buffer.pts());
            let facts = ingest.facts(&buffer, verdict, 0, now);
            let advance = ingest.advance(facts.running_time);
            let out = self.for_tail(&buffer, dropped)?;
            let record = NewRecord {
                body: Body::Buffer(buffer::header(&out, &facts, &mut |name| self.warn_of_meta(name))),
                payload,
                advance,
            };
            self.commit(&session, &settings, &[record], now, None, [Content::Buffer { buffer: out, facts }]);
            Ok(gst::FlowSuccess::Ok)
        });
        stored.unwrap_or_else(|err| Err(self.unreadable([&*buffer], &err)))
    }

    /// Boundaries of the list are kept; it is stored, or dropped, as one.
    fn take_list(&self, ingest: &mut Ingest, list: gst::BufferList) -> Result<gst::FlowSuccess, gst::FlowError> {
        let session = self.session().ok_or(gst::FlowError::Flushing)?;
        let settings = self.settings();
        let now = crate::store::wall_clock();
        self.state().flow?;
        self.report_sometimes(ingest);
        let maps = list.iter().map(gst::BufferRef::map_readable).collect::<Result<Vec<_>, _>>();
        let maps = maps.map_err(|err| self.unreadable(list.iter(), &err))?;
        let payloads: Vec<[&[u8]; 1]> = maps.iter().map(|map| [map.as_slice()]).collect();
        let verdicts: Vec<Verdict> = list
            .iter()
            .zip(&payloads)
            .map(|(buffer, payload)| ingest.detector.inspect(buffer.flags(), buffer.pts(), payload))
            .collect();
        let first = verdicts.first().copied().unwrap_or_default();
        if let Room::Drop(reason) = self.make_room(&session, &settings, ingest.dropped.as_ref(), first.sync)? {
            for (buffer, verdict) in list.iter().zip(verdicts) {
                self.reject(ingest, buffer, reason, verdict);
            }
            return Ok(gst::FlowSuccess::Ok);
        }
        let mut records = Vec::with_capacity(payloads.len());
        let mut contents = Vec::with_capacity(payloads.len());
        let sets_changed = verdicts.iter().any(|verdict| verdict.sets_changed);
        let dropped = self.say_before(&session, &settings, ingest, sets_changed, list.get(0).and_then(|b| b.pts()));
        let remaining = (1..=list.len() as u32).rev();
        for (((buffer, payload), verdict), list_remaining) in
            list.iter_owned().zip(&payloads).zip(verdicts).zip(remaining)
        {
            let facts = ingest.facts(&buffer, verdict, list_remaining, now);
            let advance = ingest.advance(facts.running_time);
            let buffer = self.for_tail(&buffer, dropped && contents.is_empty())?;
            let body = Body::Buffer(buffer::header(&buffer, &facts, &mut |name| self.warn_of_meta(name)));
            records.push(NewRecord { body, payload, advance });
            contents.push(Content::Buffer { buffer, facts });
        }
        self.commit(&session, &settings, &records, now, None, contents);
        Ok(gst::FlowSuccess::Ok)
    }

    /// Names each meta that cannot be stored once.
    pub(super) fn warn_of_meta(&self, name: &str) {
        if !self.state().unstored_metas.insert(name.to_owned()) {
            return;
        }
        if meta::foreign_process(name) {
            gst::element_imp_warning!(
                self,
                gst::StreamError::Format,
                ("{name} points into the memory of this process and means nothing after a restart: put the element where \
                  buffers carry the data itself, with Savant before zeromq_sink")
            );
        } else if !meta::only_memory(name) {
            gst::warning!(CAT, imp = self, "{name} is not stored: buffers that come from the disk are without it");
        }
    }

    /// What cannot be read cannot be stored, and is not lost silently.
    fn unreadable<'a>(
        &self,
        buffers: impl IntoIterator<Item = &'a gst::BufferRef>,
        err: &gst::glib::BoolError,
    ) -> gst::FlowError {
        {
            let mut state = self.state();
            for buffer in buffers {
                state.counters.received.add(one(buffer));
                state.cursor.ledger.rejected.add(one(buffer));
            }
        }
        gst::element_imp_error!(self, gst::ResourceError::Read, ("A buffer's memory cannot be mapped: {err}"));
        gst::FlowError::Error
    }

    /// Stores what has to stand before the next buffer. True when buffers are missing before it.
    fn say_before(
        &self,
        session: &Session,
        settings: &Settings,
        ingest: &mut Ingest,
        sets_changed: bool,
        pts: Option<gst::ClockTime>,
    ) -> bool {
        let dropped = ingest.dropped.take();
        if let Some(dropped) = &dropped {
            self.announce_gap(session, settings, ingest, dropped, pts);
        }
        self.begin_domain(session, settings, ingest);
        ingest.sets_unwritten |= sets_changed;
        if std::mem::take(&mut ingest.sets_unwritten) {
            let sets = ingest.detector.sets().clone();
            let coded = event::encode_sets(&sets);
            self.commit_coded(session, settings, &coded, Content::Sets(sets));
        }
        dropped.is_some()
    }

    /// The buffer as delivery will hold it. A pool must not starve for what waits here.
    fn for_tail(&self, buffer: &gst::Buffer, discont: bool) -> Result<gst::Buffer, gst::FlowError> {
        // SAFETY: the pointer of a valid buffer, read while it is borrowed.
        let pooled = unsafe { !(*buffer.as_ptr()).pool.is_null() };
        let mut out = if pooled {
            buffer.copy_deep().map_err(|err| {
                gst::element_imp_error!(self, gst::ResourceError::Failed, ("A buffer cannot be copied: {err}"));
                gst::FlowError::Error
            })?
        } else {
            buffer.clone()
        };
        if discont {
            out.make_mut().set_flags(gst::BufferFlags::DISCONT);
        }
        Ok(out)
    }

    fn reject(&self, ingest: &mut Ingest, buffer: &gst::BufferRef, reason: Full, verdict: Verdict) {
        let one = one(buffer);
        let dropped = ingest.dropped.get_or_insert_with(|| Dropped {
            since: Instant::now(),
            from: buffer.pts(),
            totals: Totals::default(),
            reason,
        });
        dropped.totals = dropped.totals.plus(one);
        // What it carried is in force for what follows.
        ingest.sets_unwritten |= verdict.sets_changed;
        let mut state = self.state();
        state.counters.received.add(one);
        state.cursor.ledger.rejected.add(one);
        drop(state);
        gst::trace!(CAT, imp = self, "Not stored, {}: {buffer:?} {verdict:?}", reason.reason());
    }

    /// Dropping at the entrance has ended: say what is missing.
    fn announce_gap(
        &self,
        session: &Session,
        settings: &Settings,
        ingest: &Ingest,
        dropped: &Dropped,
        until: Option<gst::ClockTime>,
    ) {
        if dropped.totals.buffers == 0 {
            return;
        }
        let at = self.state().end.sequence;
        self.tell_dropped(dropped.reason.reason(), at, at, dropped.totals);
        let time_format = ingest.segment.as_ref().is_some_and(|s| s.format() == gst::Format::Time);
        if let (true, Some(from)) = (time_format, dropped.from) {
            let duration = until.and_then(|until| until.checked_sub(from));
            let gap = gst::event::Gap::builder(from);
            let gap = match duration {
                Some(duration) => gap.duration(duration).build(),
                None => gap.build(),
            };
            let coded = event::encode(&gap);
            self.commit_coded(session, settings, &coded, Content::Event(gap));
        }
    }

    /// Writes, once per run and flush, that running time counts from here.
    fn begin_domain(&self, session: &Session, settings: &Settings, ingest: &mut Ingest) {
        if !std::mem::replace(&mut ingest.domain_written, true) {
            let domain = flushed(self.domain().map_or(0, |domain| domain.number()), ingest.flushes);
            let coded = event::encode_domain(domain, ingest.flushed);
            self.commit_coded(session, settings, &coded, Content::Domain(domain));
        }
    }

    fn commit_coded(&self, session: &Session, settings: &Settings, coded: &Coded, content: Content) {
        let body = match &coded.place {
            Place::Once => Body::Event,
            Place::State { slot, clears } => Body::State { slot: slot.clone(), clears: clears.clone() },
        };
        let record = NewRecord { body, payload: &[&coded.bytes], advance: 0 };
        self.commit(session, settings, &[record], 0, Some(coded), [content]);
    }

    /// Stores records as one and hands them to delivery. While the disk refuses, or is to be spared, they go by memory. Buffers
    /// came `received_at`, in ns since 1970.
    fn commit(
        &self,
        session: &Session,
        settings: &Settings,
        records: &[NewRecord<'_>],
        received_at: i64,
        coded: Option<&Coded>,
        contents: impl IntoIterator<Item = Content>,
    ) {
        let (first, at_once) = {
            let state = self.state();
            // A record in memory alone never stands before one on the disk, and one thread at a time writes.
            let behind = state.spooling || state.tail.has_unstored();
            let at_once = settings.persist == Persist::Always && state.fault.is_none() && !behind;
            (state.end.sequence, at_once)
        };
        let mut appended = None;
        let mut error = None;
        if at_once {
            match session.stream.append(first, records) {
                Ok(end) => appended = Some(end),
                Err(err) => error = Some(err),
            }
        }
        let stored = appended.is_some();
        if !stored {
            session.stream.give_out(first + records.len() as u64);
        }
        let (change, crossed, spool) = {
            // Of what is stored nobody asks: a clock has its price too.
            let waits = (!stored).then(Instant::now);
            let mut state = self.state();
            let (mut sequence, mut before) = (first, state.end.totals);
            for (record, content) in records.iter().zip(contents) {
                let adds = record.contribution();
                if adds.buffers > 0 {
                    if let Content::Buffer { facts, .. } = &content {
                        state.note_arrival(facts);
                    }
                    state.counters.received.add(adds);
                    state.counters.last_received_at = received_at;
                }
                match &content {
                    Content::Domain(domain) => state.domain = Some(*domain),
                    Content::Buffer { facts, .. } if facts.sync != Sync::None => state.counters.sync_points += 1,
                    Content::Event(event) if event.type_() == gst::EventType::Eos => state.live_eos = Some(sequence),
                    _ => {}
                }
                let coded = coded.filter(|_| !stored).map(|coded| Arc::new(coded.clone()));
                state.tail.push(Item {
                    sequence,
                    before,
                    adds,
                    stored,
                    arrived: waits,
                    coded,
                    left_out: false,
                    content,
                });
                sequence += 1;
                before = before.plus(adds);
            }
            state.end = match appended {
                Some(end) => end,
                None => Mark { sequence, totals: state.end.totals },
            };
            state.note_pending();
            let limit = memory_limit(settings);
            state.tail.shrink(limit);
            let change = match &error {
                Some(error) => {
                    state.spool_at = waits.map(|now| now + super::spool::RETRY);
                    Self::note_fault(&mut state, Some(error))
                }
                None => None,
            };
            // A resume needs the GOP that is being delivered: for that there is as much again.
            if state.fault.is_some() && !state.spooling && state.tail.unstored_bytes() > limit.saturating_mul(2) {
                change_state(&session.stream, &state.tail.release_delivered(), None);
            }
            let level = state.level();
            (
                change,
                state.watermark.update(settings, level),
                state.tail.has_unstored() && state.spool_due(settings, Instant::now(), session.stream.store().is_low()),
            )
        };
        self.item_add.ring();
        if let Some(change) = change {
            self.tell_storage(change);
        }
        if let Some(crossed) = crossed {
            self.tell_watermark(crossed);
        }
        if spool {
            // What it says of the disk it has told.
            let _ = self.spool(session);
        }
    }

    /// Records whether the disk works; `Some` when that has changed.
    pub(super) fn note_fault(state: &mut State, error: Option<&StoreError>) -> Option<Result<(), String>> {
        match error {
            None => state.fault.take().map(|_| Ok(())),
            Some(error) => {
                let text = error.to_string();
                state.last_error = Some(text.clone());
                state.fault.replace(text.clone()).is_none().then_some(Err(text))
            }
        }
    }

    pub(super) fn tell_storage(&self, change: Result<(), String>) {
        match change {
            Ok(()) => {
                gst::info!(CAT, imp = self, "The disk takes data again");
                self.tell("diskbuffer-storage", |b| b.field("state", "ok").field("reason", ""));
            }
            Err(reason) => {
                gst::element_imp_warning!(
                    self,
                    gst::ResourceError::Write,
                    ("Storing failed, buffers stay in memory until the disk takes them again: {reason}")
                );
                self.tell("diskbuffer-storage", |b| b.field("state", "fault").field("reason", reason.as_str()));
            }
        }
    }

    pub(super) fn sink_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        gst::log!(CAT, obj = pad, "Handling {event:?}");
        match event.view() {
            gst::EventView::FlushStart(_) => {
                self.set_flushing(true);
                self.srcpad.push_event(event)
            }
            gst::EventView::FlushStop(e) => {
                let reset = e.resets_time();
                // What is on its way to downstream must not arrive behind the flush.
                self.wait_for_push(FLUSH_PATIENCE);
                let forwarded = self.srcpad.push_event(event);
                self.restart_after_flush(reset);
                forwarded
            }
            _ if event.is_serialized() => self.with_ingest(|ingest| self.take_event(ingest, event)),
            _ => gst::Pad::event_default(pad, Some(&*self.obj()), event),
        }
    }

    fn restart_after_flush(&self, reset_time: bool) {
        let Some(session) = self.session() else { return };
        let mode = self.settings().flush_mode;
        let dropped = {
            let mut state = self.settled_state();
            state.flushes.0 += 1;
            state.flushes.1 += u32::from(reset_time);
            let from = state.cursor.position;
            let dropped = (mode == FlushMode::Discard).then(|| {
                let end = state.end;
                let (dropped, rejected) = state.drop_until(&session.stream, end, Cause::Dropped);
                (from, end.sequence, with(dropped, rejected))
            });
            (state.gap, state.skip_to) = (false, None);
            state.generation += 1;
            state.live_eos = None;
            if state.activity != super::state::Activity::Stopped && !state.closing {
                state.flow = Ok(gst::FlowSuccess::Ok);
            }
            session.stream.set_cursor(state.cursor);
            dropped
        };
        if let Some((from, to, dropped)) = dropped.filter(|d| d.2.buffers > 0) {
            self.tell_dropped("flush-mode=discard", from, to - 1, dropped);
        }
        self.item_add.ring();
    }

    /// Stores a serialized event.
    fn take_event(&self, ingest: &mut Ingest, event: gst::Event) -> bool {
        let Some(session) = self.session() else { return false };
        if self.state().flow.is_err() && !event.is_sticky() {
            return false;
        }
        let settings = self.settings();
        if matches!(event.type_(), gst::EventType::StreamStart | gst::EventType::Segment) {
            self.reopen(&session);
        }
        match event.view() {
            gst::EventView::StreamStart(_) => self.state().live_eos = None,
            gst::EventView::Caps(e) => {
                if let Some(features) = super::queries::foreign_memory(e.caps()) {
                    gst::element_imp_error!(
                        self,
                        gst::CoreError::Negotiation,
                        ("Only system memory can be stored, not {features}: put the element after the encoder")
                    );
                    return false;
                }
                self.state().caps = Some(e.caps_owned());
                ingest.detector = Detector::new(settings.keyframe_detection.source(), Some(e.caps()));
            }
            gst::EventView::Segment(e) => ingest.segment = Some(e.segment().clone()),
            _ => {}
        }
        self.begin_domain(&session, &settings, ingest);
        if let Some(dropped) = ingest.dropped.take_if(|_| event.type_() == gst::EventType::Eos) {
            self.announce_gap(&session, &settings, ingest, &dropped, None);
            // Should anything follow, it begins at a keyframe.
            ingest.dropped = Some(Dropped { from: None, totals: Totals::default(), ..dropped });
        }
        let coded = event::encode(&event);
        self.commit_coded(&session, &settings, &coded, Content::Event(event));
        true
    }

    /// Downstream has had enough of what was before, and may want what comes now.
    fn reopen(&self, session: &Session) {
        let (from, to, dropped) = {
            let mut state = self.settled_state();
            if state.flow != Err(gst::FlowError::Eos) {
                return;
            }
            state.flow = Ok(gst::FlowSuccess::Ok);
            let (from, end) = (state.cursor.position, state.end);
            let (dropped, rejected) = state.drop_until(&session.stream, end, Cause::Dropped);
            (state.gap, state.skip_to) = (false, None);
            state.generation += 1;
            session.stream.set_cursor(state.cursor);
            (from, end.sequence, with(dropped, rejected))
        };
        if dropped.buffers > 0 {
            self.tell_dropped("end of stream from downstream", from, to - 1, dropped);
        }
    }

    fn report_sometimes(&self, ingest: &mut Ingest) {
        let now = Instant::now();
        let due = *ingest.reported.get_or_insert(now) + REPORT_INTERVAL;
        if now >= due {
            ingest.reported = Some(now);
            self.report();
        }
    }
}

/// What a buffer adds to the sums, but for time.
fn one(buffer: &gst::BufferRef) -> Totals {
    Totals { buffers: 1, bytes: buffer.size() as u64, time: 0 }
}
