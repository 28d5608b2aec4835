//! Stream time and running time of what is played.
//!
//! Stream time is the time of capture, counted from the earliest record that was held when playing began. Each epoch gets a
//! SEGMENT in which PTS stay as recorded: `time` puts its first buffer where it was captured, `base` lets running time go on
//! where the epoch before it ended.

/// From capture times to stream times and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeline {
    /// When the earliest record was captured, ns since 1970.
    pub origin: i64,
}

impl Timeline {
    /// What was captured before the origin (the clock was set) counts as captured then.
    pub fn stream_time(self, utc: i64) -> gst::ClockTime {
        gst::ClockTime::from_nseconds(u64::try_from(utc.saturating_sub(self.origin)).unwrap_or(0))
    }

    pub fn utc(self, stream_time: gst::ClockTime) -> i64 {
        self.origin.saturating_add_unsigned(stream_time.nseconds())
    }
}

/// How a stretch is played, as a start or a seek asked for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Playing {
    pub rate: f64,
    pub flags: gst::SegmentFlags,
    /// Stream time at which the first segment has to begin exactly.
    pub start: Option<gst::ClockTime>,
    /// Stream time at which segments end.
    pub stop: Option<gst::ClockTime>,
}

impl Default for Playing {
    fn default() -> Self {
        Self { rate: 1.0, flags: gst::SegmentFlags::empty(), start: None, stop: None }
    }
}

/// The first thing of an epoch that has a place in time.
#[derive(Debug, Clone, Copy)]
pub struct First {
    /// As recorded; `None` when it has no timestamp.
    pub at: Option<gst::ClockTime>,
    /// Stream time of its capture.
    pub captured: gst::ClockTime,
}

/// The segment of an epoch that was recorded with `stored`. Running time goes on at `base`.
pub fn segment(
    stored: &gst::FormattedSegment<gst::ClockTime>,
    first: First,
    base: gst::ClockTime,
    playing: &Playing,
) -> gst::FormattedSegment<gst::ClockTime> {
    let recorded = stored.start().unwrap_or_default();
    let at = first.at.unwrap_or(recorded);
    // What was cut off when it was recorded stays cut off.
    let earliest = at.max(recorded);
    let timestamp = |stream_time: gst::ClockTime| shifted(at, first.captured, stream_time);
    let start = playing.start.map_or(earliest, |wanted| timestamp(wanted).max(earliest));
    let stop = playing.stop.map(|wanted| timestamp(wanted).max(start));
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_flags(playing.flags);
    segment.set_rate(playing.rate);
    segment.set_applied_rate(stored.applied_rate());
    segment.set_start(start);
    segment.set_stop(earlier(stop, stored.stop()));
    segment.set_time(shifted(first.captured, at, start));
    segment.set_base(base);
    segment.set_position(start);
    segment
}

/// `from`, as much later as `to` is later than `of`.
fn shifted(from: gst::ClockTime, of: gst::ClockTime, to: gst::ClockTime) -> gst::ClockTime {
    if to >= of { from.saturating_add(to - of) } else { from.saturating_sub(of - to) }
}

fn earlier(a: Option<gst::ClockTime>, b: Option<gst::ClockTime>) -> Option<gst::ClockTime> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> gst::ClockTime {
        gst::ClockTime::from_seconds(seconds)
    }

    fn stored(start: u64, stop: Option<u64>) -> gst::FormattedSegment<gst::ClockTime> {
        gst::init().unwrap();
        let mut segment = gst::FormattedSegment::new();
        segment.set_start(s(start));
        segment.set_stop(stop.map(s));
        segment.set_base(s(77));
        segment
    }

    #[test]
    fn the_first_buffer_has_the_stream_time_of_its_capture_and_running_time_goes_on() {
        let first = First { at: Some(s(100)), captured: s(7) };
        let segment = segment(&stored(90, None), first, s(3), &Playing::default());
        assert_eq!(segment.to_stream_time(s(100)), Some(s(7)));
        assert_eq!(segment.to_running_time(s(100)), Some(s(3)));
        assert_eq!(segment.to_running_time(s(104)), Some(s(7)));
        assert_eq!(segment.stop(), None);
    }

    #[test]
    fn an_exact_start_and_stop_cut_within_the_epoch() {
        let playing = Playing { rate: 2.0, start: Some(s(9)), stop: Some(s(12)), ..Playing::default() };
        let first = First { at: Some(s(100)), captured: s(7) };
        let segment = segment(&stored(0, None), first, s(0), &playing);
        assert_eq!((segment.start(), segment.stop()), (Some(s(102)), Some(s(105))));
        assert_eq!(segment.to_running_time(s(101)), None);
        assert_eq!(segment.to_running_time(s(104)), Some(s(1)));
        assert_eq!(segment.to_stream_time(s(102)), Some(s(9)));
    }

    #[test]
    fn what_was_cut_off_when_it_was_recorded_stays_so() {
        let first = First { at: Some(s(10)), captured: s(0) };
        let segment = segment(&stored(12, Some(20)), first, s(5), &Playing::default());
        assert_eq!(segment.to_running_time(s(11)), None);
        assert_eq!(segment.to_running_time(s(12)), Some(s(5)));
        assert_eq!(segment.to_stream_time(s(12)), Some(s(2)));
        assert_eq!(segment.stop(), Some(s(20)));
    }

    #[test]
    fn without_timestamps_the_recorded_segment_is_put_where_it_was_captured() {
        let first = First { at: None, captured: s(30) };
        let segment = segment(&stored(5, None), first, s(1), &Playing::default());
        assert_eq!((segment.start(), segment.time(), segment.base()), (Some(s(5)), Some(s(30)), Some(s(1))));
    }

    #[test]
    fn a_stop_before_the_epoch_leaves_nothing_of_it() {
        let playing = Playing { stop: Some(s(3)), ..Playing::default() };
        let first = First { at: Some(s(100)), captured: s(7) };
        let segment = segment(&stored(0, None), first, s(0), &playing);
        assert_eq!((segment.start(), segment.stop()), (Some(s(100)), Some(s(100))));
    }

    #[test]
    fn times_of_capture_are_stream_times() {
        let timeline = Timeline { origin: 1_700_000_000_000_000_000 };
        assert_eq!(timeline.stream_time(1_700_000_005_000_000_000), s(5));
        assert_eq!(timeline.stream_time(5), s(0), "before the origin");
        assert_eq!(timeline.utc(s(5)), 1_700_000_005_000_000_000);
    }
}
