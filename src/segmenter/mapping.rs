//! From timestamps to the time that windows are counted in, and from there to running time and to UTC.
//!
//! A [`Clockwork`] is what a segment says, as two straight lines; they go on before its start and behind its stop, as
//! decoders need pictures from there. With rates other than 1 times are exact to a nanosecond. Window time of a further
//! stream goes by its running time through the segment of the reference that was in force then, so all streams are cut
//! at the same running times.

use std::collections::VecDeque;

use super::settings::TimeBase;
use crate::timeline::Ns;

type Segment = gst::FormattedSegment<gst::ClockTime>;

/// Segments of the reference that are remembered: other streams may be that far behind.
const REMEMBERED: usize = 16;

/// What a segment in TIME with a rate above 0 says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clockwork {
    start: Ns,
    offset: Ns,
    base: Ns,
    rate: f64,
    time: Ns,
    applied_rate: f64,
}

fn ns(time: Option<gst::ClockTime>) -> Ns {
    time.map_or(Ns::ZERO, |time| Ns::from(time.nseconds()))
}

fn times(span: Ns, rate: f64) -> Ns {
    if rate == 1.0 { span } else { Ns::from_f64(span.as_f64() * rate) }
}

impl Clockwork {
    /// None for what plays backwards.
    pub fn new(segment: &Segment) -> Option<Self> {
        (segment.rate() > 0.0 && segment.applied_rate() > 0.0).then(|| Self {
            start: ns(segment.start()),
            offset: ns(segment.offset()),
            base: ns(segment.base()),
            rate: segment.rate(),
            time: ns(segment.time().or(segment.start())),
            applied_rate: segment.applied_rate(),
        })
    }

    pub fn start(&self) -> Ns {
        self.start
    }

    pub fn running(&self, stamp: Ns) -> Ns {
        times(stamp - self.start - self.offset, 1.0 / self.rate) + self.base
    }

    pub fn stream(&self, stamp: Ns) -> Ns {
        times(stamp - self.start, self.applied_rate) + self.time
    }

    fn of_running(&self, running: Ns) -> Ns {
        times(running - self.base, self.rate) + self.start + self.offset
    }

    fn of_stream(&self, stream: Ns) -> Ns {
        times(stream - self.time, 1.0 / self.applied_rate) + self.start
    }
}

/// Between the time of windows, running time and UTC.
#[derive(Debug, Default)]
pub struct Mapping {
    base: TimeBase,
    /// Of the reference stream, the newest last.
    segments: VecDeque<Clockwork>,
    /// UTC at running time 0; fixed once.
    wall: Option<Ns>,
    /// UTC less running time, by the last reference timestamp.
    captured: Option<Ns>,
}

impl Mapping {
    pub fn new(base: TimeBase) -> Self {
        Self { base, ..Self::default() }
    }

    pub fn base(&self) -> TimeBase {
        self.base
    }

    /// Whether further streams can be placed.
    pub fn is_ready(&self) -> bool {
        self.base != TimeBase::Stream || !self.segments.is_empty()
    }

    /// UTC at running time 0.
    pub fn set_wall(&mut self, at_zero: Ns) {
        self.wall.get_or_insert(at_zero);
    }

    /// A buffer said when it was captured.
    pub fn captured(&mut self, utc: Ns, running: Ns) {
        self.captured = Some(utc - running);
    }

    /// The reference stream has this segment from now on.
    pub fn push(&mut self, segment: Clockwork) {
        if self.segments.back() == Some(&segment) {
            return;
        }
        if self.segments.len() == REMEMBERED {
            self.segments.pop_front();
        }
        self.segments.push_back(segment);
    }

    /// Nothing that was before counts any more: the reference was flushed, or is another.
    pub fn forget_segments(&mut self) {
        self.segments.clear();
    }

    fn segment_at(&self, running: Ns) -> Option<&Clockwork> {
        self.segments.iter().rev().find(|segment| segment.base <= running).or(self.segments.front())
    }

    /// Window time of a stamp of a stream with this segment.
    pub fn of_stamp(&self, segment: &Clockwork, stamp: Ns, utc: Option<Ns>) -> Ns {
        match (self.base, utc) {
            // Exact where the two are the same, also with other rates.
            (TimeBase::Stream, _) if self.segments.back().is_none_or(|last| last == segment) => segment.stream(stamp),
            (TimeBase::Utc, Some(utc)) => utc,
            _ => self.of_running(segment.running(stamp)),
        }
    }

    pub fn of_running(&self, running: Ns) -> Ns {
        match self.base {
            TimeBase::Running => running,
            TimeBase::Utc => running + self.utc_offset().unwrap_or(Ns::ZERO),
            TimeBase::Stream => {
                self.segment_at(running).map_or(running, |segment| segment.stream(segment.of_running(running)))
            }
        }
    }

    /// Running time of a moment in window time.
    pub fn to_running(&self, time: Ns) -> Ns {
        match self.base {
            TimeBase::Running => time,
            TimeBase::Utc => time - self.utc_offset().unwrap_or(Ns::ZERO),
            TimeBase::Stream => self.segments.back().map_or(time, |segment| segment.running(segment.of_stream(time))),
        }
    }

    fn utc_offset(&self) -> Option<Ns> {
        self.captured.or(self.wall)
    }

    /// UTC of a moment in window time, in ns since 1970; -1 where it is not known.
    pub fn to_utc(&self, time: Ns) -> i64 {
        match self.base {
            TimeBase::Utc => time.0,
            _ => self.utc_offset().map_or(-1, |offset| (self.to_running(time) + offset).0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(start: u64, base: u64, time: u64, rate: f64) -> Clockwork {
        gst::init().unwrap();
        let mut segment = Segment::new();
        segment.set_rate(rate);
        segment.set_start(gst::ClockTime::from_seconds(start));
        segment.set_base(gst::ClockTime::from_seconds(base));
        segment.set_time(gst::ClockTime::from_seconds(time));
        Clockwork::new(&segment).unwrap()
    }

    #[test]
    fn it_is_what_gstreamer_says() {
        gst::init().unwrap();
        for (rate, applied) in [(1.0, 1.0), (2.0, 1.0), (1.0, 4.0), (0.5, 1.0)] {
            let mut segment = Segment::new();
            segment.set_rate(rate);
            segment.set_applied_rate(applied);
            segment.set_start(gst::ClockTime::from_seconds(7));
            segment.set_base(gst::ClockTime::from_seconds(100));
            segment.set_time(gst::ClockTime::from_seconds(3));
            let own = Clockwork::new(&segment).unwrap();
            for stamp in [7_000_000_000u64, 7_000_000_002, 9_500_000_000, 100_000_000_000] {
                let at = gst::ClockTime::from_nseconds(stamp);
                assert_eq!(own.running(Ns::from(stamp)), ns(segment.to_running_time(at)), "{rate} {stamp}");
                assert_eq!(own.stream(Ns::from(stamp)), ns(segment.to_stream_time(at)), "{applied} {stamp}");
            }
        }
    }

    #[test]
    fn further_streams_go_by_the_segment_that_was_in_force_at_their_running_time() {
        let mut mapping = Mapping::new(TimeBase::Stream);
        mapping.push(segment(0, 0, 0, 1.0));
        mapping.push(segment(0, 10, 0, 1.0));
        let other = segment(1000, 0, 0, 1.0);
        let at = |secs: i64| mapping.of_stamp(&other, Ns::from_secs(1000 + secs), None);
        assert_eq!((at(9), at(10), at(12)), (Ns::from_secs(9), Ns::ZERO, Ns::from_secs(2)));
        assert_eq!(mapping.to_running(Ns::from_secs(2)), Ns::from_secs(12));
    }

    #[test]
    fn utc_is_that_of_the_buffer_else_the_wall_clock() {
        let mut mapping = Mapping::new(TimeBase::Utc);
        mapping.set_wall(Ns::from_secs(1_000_000));
        mapping.set_wall(Ns::from_secs(5));
        let segment = segment(0, 0, 0, 1.0);
        assert_eq!(mapping.of_stamp(&segment, Ns::from_secs(3), None), Ns::from_secs(1_000_003));
        assert_eq!(mapping.of_stamp(&segment, Ns::from_secs(3), Some(Ns::from_secs(77))), Ns::from_secs(77));
        assert_eq!(mapping.to_running(Ns::from_secs(1_000_003)), Ns::from_secs(3));
        let running = Mapping::new(TimeBase::Running);
        assert_eq!(running.to_utc(Ns::from_secs(1)), -1);
    }
}
