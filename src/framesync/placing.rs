//! One stream's buffers on running time: finds the format out where that is asked for, and lays the times of [`Line`]
//! on the timeline that all streams share.
//!
//! Times since 1970 or 1900 get the same addend in all streams, fixed by the first buffer of any of them: equal
//! stamps come out equal. A live stream whose times, or running times, lie too far from its arrivals by then has another
//! idea of what time it is: it is placed by its own arrivals and called unrelated.

use super::settings::{OutlierPolicy, Source, StreamSettings};
use super::stamps::{BIAS, Carried};
use crate::timeline::Ns;
use crate::timeline::detect::{Detection, Detector};
use crate::timeline::format::{Epoch, Format, Unit, Wrap};
use crate::timeline::line::{Line, LineConfig, Stamped};
use crate::timeline::outlier::{Order, Verdict};

/// Clocks that differ by more are not of one timeline.
const UNRELATED: Ns = Ns::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq)]
struct Config {
    source: Source,
    format: Option<Format>,
    policy: OutlierPolicy,
    max_slew_ppm: u32,
    live: bool,
    order: Order,
}

/// Where a buffer goes.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Running time.
    pub pts: Ns,
    pub dts: Option<Ns>,
    pub verdict: Verdict,
    pub interpolated: bool,
}

/// What is known about where stamps count from.
#[derive(Debug)]
enum Reading {
    /// Evidence is being collected; until then arrival serves.
    Undecided(Box<Detector>),
    Decided {
        source: Source,
        line: Box<Line>,
        zero: Option<Ns>,
    },
}

#[derive(Debug)]
pub struct Placer {
    config: Config,
    reading: Reading,
    /// The highest that went out, of what rises.
    floor: Option<Ns>,
    /// Of lines before.
    epochs: u32,
    unrelated: bool,
    /// By how much frames come later than they were taken, as upstream says.
    delay: Ns,
    /// Out less what PTS said.
    apart: Ns,
}

impl Config {
    fn new(settings: &StreamSettings, live: bool, order: Order) -> Self {
        Self {
            source: settings.source,
            format: settings.format(),
            policy: settings.outlier_policy,
            max_slew_ppm: settings.max_slew_ppm,
            live,
            order,
        }
    }

    fn line(&self, format: Format) -> Box<Line> {
        Box::new(Line::new(LineConfig {
            format,
            live: self.live,
            order: self.order,
            policy: self.policy.line(),
            max_slew_ppm: self.max_slew_ppm,
            ..LineConfig::default()
        }))
    }

    fn reading(&self) -> Reading {
        match (self.source, self.format) {
            (Source::Pts, None) if self.live => Reading::Undecided(Box::default()),
            (source, format) => {
                Reading::Decided { source, line: self.line(format.unwrap_or(Format::PIPELINE)), zero: None }
            }
        }
    }
}

impl Placer {
    pub fn new(settings: &StreamSettings, live: bool, order: Order) -> Self {
        let config = Config::new(settings, live, order);
        let reading = config.reading();
        Self { config, reading, floor: None, epochs: 0, unrelated: false, delay: Ns::ZERO, apart: Ns::ZERO }
    }

    /// Takes over changed settings; what went out already is never gone below.
    pub fn configure(&mut self, settings: &StreamSettings, live: bool, order: Order) {
        let config = Config::new(settings, live, order);
        if config != self.config {
            self.epochs += self.epoch_of_line() + 1;
            self.config = config;
            self.reading = config.reading();
            self.unrelated = false;
        }
    }

    pub fn set_delay(&mut self, delay: Ns) {
        self.delay = delay;
    }

    /// `shared` is the addend of times since 1970, once a stream has fixed it. The answer comes with the format if it
    /// was found out by this buffer.
    pub fn push(&mut self, carried: &Carried, arrival: Ns, shared: &mut Option<Ns>) -> (Place, Option<String>) {
        let mut found = None;
        if let Reading::Undecided(detector) = &mut self.reading {
            let decided = match (carried.utc, carried.dts.or(carried.pts)) {
                (Some(_), _) => Some((
                    Source::ReferenceMeta,
                    Format { unit: Unit::NANOSECOND, wrap: Wrap::Never, epoch: Epoch::Unix },
                )),
                (None, Some(raw)) => match detector.push(raw, arrival) {
                    Detection::Decided(format) => Some((Source::Pts, format)),
                    Detection::Undecided(_) => None,
                },
                (None, None) => None,
            };
            if let Some((source, format)) = decided {
                self.reading = Reading::Decided { source, line: self.config.line(format), zero: None };
                found = Some(self.format());
            }
        }
        let place = match &mut self.reading {
            Reading::Undecided(_) => {
                let pts = self.floor.map_or(arrival, |floor| arrival.max(floor));
                Place { pts, dts: None, verdict: Verdict::Ok, interpolated: true }
            }
            Reading::Decided { source, line, zero } => {
                let format = line.format();
                let (pts, dts) = carried.stamps(*source, format);
                let sane = |raw: &u64| format.is_sane(*raw);
                let (pts, dts) = (pts.filter(sane), dts.filter(sane));
                let placed = line.push(Stamped { pts, dts, arrival });
                let unstamped = pts.is_none() && dts.is_none() && zero.is_none();
                let key = placed.dts.unwrap_or(placed.pts);
                let begin = self.floor.unwrap_or(Ns::ZERO);
                let zero = if unstamped {
                    // By arrival already.
                    Ns::ZERO
                } else {
                    *zero.get_or_insert_with(|| {
                        let own = if self.config.live { arrival - key } else { begin - key };
                        let common = match format.epoch {
                            Epoch::Pipeline if *source == Source::Pts && format == Format::PIPELINE => Ns(-BIAS),
                            Epoch::Pipeline => Ns::ZERO,
                            Epoch::StreamStart if self.config.live => return Ns::ZERO,
                            Epoch::StreamStart => return own,
                            Epoch::Unix | Epoch::Ntp => *shared.get_or_insert(own),
                        };
                        self.unrelated = self.config.live && (own - common).abs() > UNRELATED + self.delay;
                        if self.unrelated { own } else { common }
                    })
                };
                Place {
                    pts: placed.pts + zero,
                    dts: placed.dts.map(|dts| dts + zero),
                    verdict: placed.verdict,
                    interpolated: placed.is_interpolated(),
                }
            }
        };
        (self.never_back(place, carried), found)
    }

    fn never_back(&mut self, mut place: Place, carried: &Carried) -> Place {
        if self.config.policy != OutlierPolicy::Pass {
            let floor = self.floor.unwrap_or(Ns::MIN);
            match &mut place.dts {
                Some(dts) => *dts = (*dts).max(floor),
                None if self.config.order == Order::Rising => place.pts = place.pts.max(floor),
                None => {}
            }
        }
        let key = place.dts.unwrap_or(place.pts);
        self.floor = Some(self.floor.map_or(key, |floor| floor.max(key)));
        if let Some(before) = self.before(carried) {
            self.apart = place.pts - before;
        }
        place
    }

    /// What PTS says, without a line.
    fn before(&self, carried: &Carried) -> Option<Ns> {
        match &self.reading {
            Reading::Decided { source: Source::Pts, line, .. } => {
                let raw = carried.stamps(Source::Pts, line.format()).0?;
                Some(line.format().time(raw.into()))
            }
            _ => carried.running_pts.map(Ns::from),
        }
    }

    /// Where a moment between buffers goes, by the last one.
    pub fn near(&self, carried: &Carried) -> Option<Ns> {
        let time = self.before(carried)? + self.apart;
        let floor = self.floor?;
        Some(if (time - floor).abs() > UNRELATED { floor } else { time.max(floor) })
    }

    fn line(&self) -> Option<&Line> {
        match &self.reading {
            Reading::Undecided(_) => None,
            Reading::Decided { line, .. } => Some(line),
        }
    }

    pub fn estimate(&self) -> Option<crate::timeline::drift::Estimate> {
        self.line().and_then(Line::estimate)
    }

    pub fn cadence(&self) -> Option<Ns> {
        self.line().and_then(Line::cadence)
    }

    pub fn jitter(&self) -> Ns {
        self.line().map_or(Ns::ZERO, Line::jitter)
    }

    fn epoch_of_line(&self) -> u32 {
        self.line().map_or(0, Line::epoch)
    }

    pub fn epoch(&self) -> u32 {
        self.epochs + self.epoch_of_line()
    }

    pub fn is_unrelated(&self) -> bool {
        self.unrelated
    }

    /// Whether the estimate counts from [`BIAS`] below zero.
    pub fn is_biased(&self) -> bool {
        let biased = |line: &Line| line.format() == Format::PIPELINE && line.estimate().is_some();
        matches!(&self.reading, Reading::Decided { source: Source::Pts, line, .. } if biased(line))
    }

    /// Whether durations are ns as well.
    pub fn is_in_ns(&self) -> bool {
        match &self.reading {
            Reading::Decided { source: Source::Pts, line, .. } => line.format().unit == Unit::NANOSECOND,
            Reading::Decided { .. } => true,
            Reading::Undecided(_) => false,
        }
    }

    /// For people and for `stats`.
    pub fn format(&self) -> String {
        match &self.reading {
            Reading::Undecided(_) => "undecided".into(),
            Reading::Decided { source: Source::ReferenceMeta, .. } => "reference-meta".into(),
            Reading::Decided { source: Source::Arrival, .. } => "arrival".into(),
            Reading::Decided { line, .. } => {
                let format = line.format();
                format.nick().map_or_else(|| describe(format), Into::into)
            }
        }
    }
}

fn describe(format: Format) -> String {
    let epoch = match format.epoch {
        Epoch::Unix => "unix",
        Epoch::Ntp => "ntp",
        Epoch::StreamStart => "stream-start",
        Epoch::Pipeline => "pipeline",
    };
    let (unit, bits) = (format.unit, format.wrap.bits());
    format!("unit {}/{}, wrap {bits}, epoch {epoch}", unit.numerator(), unit.denominator())
}

#[cfg(test)]
mod tests {
    use super::super::settings::TimestampFormat;
    use super::*;

    fn raw(pts: u64) -> Carried {
        Carried { pts: Some(pts), running_pts: Some(pts + BIAS as u64), ..Carried::default() }
    }

    #[test]
    fn files_with_a_zero_of_their_own_begin_at_zero_and_cross_the_wrap() {
        let settings = StreamSettings { format: TimestampFormat::Rtmp, ..StreamSettings::default() };
        let mut placer = Placer::new(&settings, false, Order::Rising);
        let begin = u64::from(u32::MAX) - 199;
        for i in 0..20u64 {
            let (place, _) = placer.push(&raw((begin + i * 40) & 0xffff_ffff), Ns::ZERO, &mut None);
            assert_eq!(place.pts, Ns::from_millis(i as i64 * 40));
        }
    }

    #[test]
    fn equal_times_since_1970_come_out_equal() {
        let settings = StreamSettings { format: TimestampFormat::EpochMillis, ..StreamSettings::default() };
        let mut shared = None;
        let mut one = Placer::new(&settings, true, Order::Rising);
        let mut two = Placer::new(&settings, true, Order::Rising);
        let mut far = Placer::new(&settings, true, Order::Rising);
        let at = 1_700_000_000_000u64;
        let first = one.push(&raw(at), Ns::from_secs(5), &mut shared).0;
        let second = two.push(&raw(at), Ns::from_millis(5300), &mut shared).0;
        assert_eq!((first.pts, second.pts), (Ns::from_secs(5), Ns::from_secs(5)));
        let third = far.push(&raw(at - 3_600_000), Ns::from_millis(5400), &mut shared).0;
        assert!(far.is_unrelated() && !two.is_unrelated());
        assert_eq!(third.pts, Ns::from_millis(5400));
    }

    #[test]
    fn auto_goes_by_arrival_until_it_knows() {
        let settings = StreamSettings { format: TimestampFormat::Auto, ..StreamSettings::default() };
        let mut placer = Placer::new(&settings, true, Order::Rising);
        let mut last = Ns::MIN;
        let mut found = None;
        for i in 0..75u64 {
            let arrival = Ns::from_millis(1000 + 40 * i as i64);
            let (place, decided) = placer.push(&raw(900_000_000 + i * 3600), arrival, &mut None);
            assert!(place.pts >= last && (place.pts - arrival).abs() < Ns::from_millis(40));
            assert_eq!(place.interpolated, found.is_none() && decided.is_none());
            last = place.pts;
            found = found.or(decided);
        }
        assert_eq!(found.as_deref(), Some("hls"));
    }
}
