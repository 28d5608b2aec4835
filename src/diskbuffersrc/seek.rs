//! Seeks, and other events that come from downstream or from the application.
//!
//! A seek is looked up in the store by whoever asks for it, before anything is flushed: one that is refused changes nothing.
//! The task carries it out.

use std::sync::PoisonError;
use std::time::Duration;

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::imp::{CAT, DiskBufferSrc, Session};
use super::range;
use super::state::{Beginning, Origin, Phase, State, Until};
use super::timeline::Playing;
use crate::store::{StoreError, SyncPoint};

/// How long a step that is under way may take to end after downstream was flushed.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);

/// What a seek asks for, in stream time.
#[derive(Debug, Clone)]
struct Wanted {
    rate: f64,
    flags: gst::SeekFlags,
    /// `None`: where it is now.
    start: Option<gst::ClockTime>,
    stop: Stop,
    seqnum: gst::Seqnum,
}

#[derive(Debug, Clone, Copy)]
enum Stop {
    AsItIs,
    At(Option<gst::ClockTime>),
}

impl DiskBufferSrc {
    pub(super) fn src_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        gst::log!(CAT, obj = pad, "Handling {event:?}");
        match event.view() {
            gst::EventView::Seek(e) => self.seek(e),
            gst::EventView::CustomUpstream(_) | gst::EventView::CustomBoth(_) => self.acknowledged_by(&event),
            gst::EventView::FlushStart(_) => {
                self.change(|state| state.flushing = true);
                true
            }
            gst::EventView::FlushStop(_) => {
                self.flushed(true);
                true
            }
            gst::EventView::Reconfigure(_) | gst::EventView::Qos(_) | gst::EventView::Latency(_) => true,
            _ => gst::Pad::event_default(pad, Some(&*self.obj()), event),
        }
    }

    /// An event that the application sends to the element.
    pub(super) fn application_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Eos(_) => {
                gst::debug!(CAT, imp = self, "The application ends the stream");
                let running = self.srcpad.is_active();
                self.change(|state| state.eos = running.then_some(event.seqnum()));
                running
            }
            gst::EventView::FlushStart(_) => {
                self.change(|state| state.flushing = true);
                self.srcpad.push_event(event)
            }
            gst::EventView::FlushStop(e) => {
                let reset = e.resets_time();
                self.wait_for_step(FLUSH_PATIENCE);
                let sent = self.srcpad.push_event(event);
                self.flushed(reset);
                sent
            }
            _ if event.is_upstream() => self.src_event(&self.srcpad, event),
            _ if event.is_serialized() => {
                let running = self.srcpad.is_active();
                if running {
                    self.change(|state| state.events.push_back(event));
                }
                running
            }
            _ => self.srcpad.push_event(event),
        }
    }

    /// A flush that somebody else asked for is over: playing goes on where it was.
    fn flushed(&self, resets: bool) {
        let (at, playing) = {
            let state = self.state();
            (state.at.sequence, state.playing.clone())
        };
        let sync = self.session().and_then(|session| session.reader.sync_at_or_before(at).ok().flatten());
        let origin = sync.map_or(Origin::At(at), |sync| Origin::At(sync.sequence));
        let playing = Playing { start: None, ..playing };
        self.change(|state| {
            state.flushing = false;
            if state.phase != Phase::Idle && state.next.is_none() {
                let seqnum = gst::Seqnum::next();
                state.next = Some(Beginning { origin, until: None, playing, seqnum, resets });
            }
        });
    }

    fn seek(&self, event: &gst::event::Seek) -> bool {
        let Some(session) = self.session() else {
            gst::warning!(CAT, imp = self, "A seek needs a store: set the element to READY first");
            return false;
        };
        let wanted = match self.wanted(event) {
            Ok(wanted) => wanted,
            Err(reason) => {
                gst::warning!(CAT, imp = self, "Refusing {event:?}: {reason}");
                return false;
            }
        };
        let beginning = match self.find(&session, &wanted) {
            Ok(Some(beginning)) => beginning,
            Ok(None) => {
                gst::warning!(CAT, imp = self, "Refusing {event:?}: nothing is stored that could be played");
                return false;
            }
            Err(err) => {
                gst::warning!(CAT, imp = self, "Refusing {event:?}: {err}");
                return false;
            }
        };
        gst::debug!(CAT, imp = self, "Seeking to {beginning:?}");
        let (seqnum, is_segment, start) = (beginning.seqnum, beginning.is_segment(), wanted.start);
        let flush = wanted.flags.contains(gst::SeekFlags::FLUSH);
        // Before the end of the segment can be told.
        let tell_start = || {
            if is_segment {
                let obj = self.obj();
                let message = gst::message::SegmentStart::builder(start.unwrap_or_default()).src(&*obj).seqnum(seqnum);
                let _ = obj.post_message(message.build());
            }
        };
        if !flush || !self.srcpad.is_active() {
            tell_start();
            self.change(|state| state.next = Some(beginning));
        } else {
            self.wait_for_other_seeks();
            self.srcpad.push_event(gst::event::FlushStart::builder().seqnum(seqnum).build());
            if !self.wait_for_step(FLUSH_PATIENCE) {
                gst::warning!(CAT, imp = self, "Downstream does not end a push although it was flushed");
            }
            self.srcpad.push_event(gst::event::FlushStop::builder(true).seqnum(seqnum).build());
            tell_start();
            self.change(|state| {
                state.flushing = false;
                state.seeker = None;
                state.events.clear();
                state.next = Some(beginning);
            });
            self.idle.notify_all();
        }
        true
    }

    /// Begins to flush, when nobody else does.
    fn wait_for_other_seeks(&self) {
        let me = std::thread::current().id();
        let others = |state: &mut State| state.seeker.is_some_and(|seeker| seeker != me) && !state.stopping;
        let waited = self.idle.wait_timeout_while(self.state(), 2 * FLUSH_PATIENCE, others);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.seeker = Some(me);
        state.flushing = true;
        drop(state);
        self.wake.notify_all();
    }

    /// What a seek asks for, or why not.
    fn wanted(&self, event: &gst::event::Seek) -> Result<Wanted, &'static str> {
        let (rate, flags, start_type, start, stop_type, stop) = event.get();
        if start.format() != gst::Format::Time {
            return Err("only seeks in TIME are possible");
        }
        if rate <= 0.0 {
            return Err("a recording is not played backwards");
        }
        #[cfg(feature = "v1_18")]
        if flags.contains(gst::SeekFlags::INSTANT_RATE_CHANGE) {
            return Err("the rate changes with a seek to a position only");
        }
        let duration = self.duration();
        // From the end on values are negative.
        let value = |value: gst::GenericFormattedValue| match value {
            gst::GenericFormattedValue::Time(Some(time)) => Some(time.nseconds() as i64),
            _ => None,
        };
        let place = |kind: gst::SeekType, given: Option<i64>| -> Result<Option<gst::ClockTime>, &'static str> {
            match (kind, given) {
                (gst::SeekType::End, given) => {
                    let duration = duration.ok_or("the duration is not known yet")?;
                    Ok(Some(gst::ClockTime::from_nseconds(
                        duration.nseconds().saturating_add_signed(given.unwrap_or(0)),
                    )))
                }
                (gst::SeekType::Set, given) => {
                    Ok(given.map(|at| gst::ClockTime::from_nseconds(u64::try_from(at).unwrap_or(0))))
                }
                _ => Ok(None),
            }
        };
        let start = place(start_type, value(start))?;
        let stop = match stop_type {
            gst::SeekType::None => Stop::AsItIs,
            kind => Stop::At(place(kind, value(stop))?),
        };
        if let (Some(start), Stop::At(Some(stop))) = (start, stop)
            && stop < start
        {
            return Err("the stop lies before the start");
        }
        Ok(Wanted { rate, flags, start, stop, seqnum: event.seqnum() })
    }

    /// Where a seek leads; `None` when nothing is stored.
    fn find(&self, session: &Session, wanted: &Wanted) -> Result<Option<Beginning>, StoreError> {
        let reader = &session.reader;
        reader.refresh()?;
        let (timeline, position, at, playing) = {
            let state = self.state();
            (state.timeline, state.position, state.at.sequence, state.playing.clone())
        };
        let timeline = match timeline {
            Some(timeline) => timeline,
            None => match range::origin(reader)? {
                Some(origin) => super::timeline::Timeline { origin },
                None => return Ok(None),
            },
        };
        let start = wanted.start.or(position).unwrap_or_default();
        let utc = timeline.utc(start);
        let before = match wanted.start {
            Some(_) => reader.sync_at_or_before_time(utc)?,
            None if at > 0 => reader.sync_at_or_before(at)?,
            None => None,
        };
        let before = match before {
            Some(point) => Some(point),
            None => reader.first_sync_from(reader.first())?,
        };
        let Some(before) = before else { return Ok(None) };
        let key_unit = wanted.flags.contains(gst::SeekFlags::KEY_UNIT);
        let found = if key_unit { self.snap(session, wanted.flags, before, utc)? } else { before };
        let stop = match wanted.stop {
            Stop::AsItIs => playing.stop,
            Stop::At(stop) => stop,
        };
        let until = match wanted.stop {
            Stop::AsItIs => None,
            Stop::At(stop) => Some(stop.map_or(Until::End, |stop| Until::Time(timeline.utc(stop)))),
        };
        // Later than what is held: its last sync point is as near as can be.
        let beyond = self.duration().is_some_and(|duration| start >= duration);
        let exact = (!key_unit && !beyond).then_some(start);
        let playing = Playing { rate: wanted.rate, flags: segment_flags(wanted.flags), start: exact, stop };
        let resets = wanted.flags.contains(gst::SeekFlags::FLUSH);
        let origin = Origin::At(found.sequence);
        Ok(Some(Beginning { origin, until, playing, seqnum: wanted.seqnum, resets }))
    }

    /// The sync point that the flags prefer.
    fn snap(
        &self,
        session: &Session,
        flags: gst::SeekFlags,
        before: SyncPoint,
        utc: i64,
    ) -> Result<SyncPoint, StoreError> {
        let after = flags.contains(gst::SeekFlags::SNAP_AFTER);
        if !after || before.captured_at >= utc {
            return Ok(before);
        }
        let Some(next) = session.reader.next_sync_after(before.sequence)? else { return Ok(before) };
        let nearest = flags.contains(gst::SeekFlags::SNAP_NEAREST);
        let back = utc.saturating_sub(before.captured_at);
        Ok(if nearest && back <= next.captured_at.saturating_sub(utc) { before } else { next })
    }
}

fn segment_flags(flags: gst::SeekFlags) -> gst::SegmentFlags {
    use gst::{SeekFlags as Seek, SegmentFlags as Segment};
    let pairs = [
        (Seek::FLUSH, Segment::RESET),
        (Seek::SEGMENT, Segment::SEGMENT),
        (Seek::TRICKMODE, Segment::TRICKMODE),
        (Seek::TRICKMODE_KEY_UNITS, Segment::TRICKMODE_KEY_UNITS),
        (Seek::TRICKMODE_NO_AUDIO, Segment::TRICKMODE_NO_AUDIO),
        #[cfg(feature = "v1_18")]
        (Seek::TRICKMODE_FORWARD_PREDICTED, Segment::TRICKMODE_FORWARD_PREDICTED),
    ];
    pairs.into_iter().filter(|(seek, _)| flags.contains(*seek)).fold(Segment::empty(), |all, (_, flag)| all | flag)
}
