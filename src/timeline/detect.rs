//! Finds out which format a live stream's stamps have, from how fast they grow against arrival.
//!
//! For each unit that is in use, stamps are unwrapped as that unit would have it, and must grow by a second in a second of
//! arrival: over all that was seen, and over each half of it, within a quarter, while frames lie between a millisecond and two
//! seconds apart. The units lie a factor of 11 and more from each other, so no jitter that a live stream survives makes one
//! look like another; what fits none of them, or too little of it, stays undecided, and says why. A burst at the start
//! (servers send the last GOP at once) contradicts everything until it has left the evidence.
//!
//! Seconds are counted between their ticks and need three of them (two, from 1970). Which epoch: from the size, as nothing else can tell:
//! seconds from 1e9 (2001) to 3.6e9 are since 1970, from there since 1900 (NTP, 2014).

use super::Ns;
use super::format::{Epoch, Format, Unit, Unwrapper, Wrap};

const SAMPLES: usize = 256;
/// Stamps that differ from the one before.
const CHANGES: usize = 8;
const SPAN: Ns = Ns::from_millis(800);
const TOLERANCE: f64 = 1.25;

const CANDIDATES: [Format; 5] = [
    Format { unit: Unit::NANOSECOND, wrap: Wrap::Never, epoch: Epoch::Pipeline },
    Format { unit: Unit::MICROSECOND, wrap: Wrap::Never, epoch: Epoch::StreamStart },
    Format::HLS,
    Format::RTMP,
    Format::RELATIVE_SECONDS,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undecided {
    /// Too few stamps yet, or too little time.
    Evidence,
    /// They do not grow with arrival in any unit.
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detection {
    Decided(Format),
    Undecided(Undecided),
}

#[derive(Debug, Clone)]
pub struct Detector {
    samples: [(u64, Ns); SAMPLES],
    len: usize,
    decided: Option<Format>,
    why: Undecided,
}

impl Default for Detector {
    fn default() -> Self {
        Self { samples: [(0, Ns::ZERO); SAMPLES], len: 0, decided: None, why: Undecided::Evidence }
    }
}

impl Detector {
    /// Takes a stamp (DTS if there is one) as it is, and the running time of its arrival.
    pub fn push(&mut self, raw: u64, arrival: Ns) -> Detection {
        if self.decided.is_none() {
            if self.len == SAMPLES {
                self.samples.copy_within(SAMPLES / 2.., 0);
                self.len = SAMPLES / 2;
            }
            self.samples[self.len] = (raw, arrival);
            self.len += 1;
            // Not at each: evidence grows slowly.
            if self.len.is_multiple_of(4) {
                self.decide();
            }
        }
        self.detection()
    }

    pub fn detection(&self) -> Detection {
        self.decided.map_or(Detection::Undecided(self.why), Detection::Decided)
    }

    fn decide(&mut self) {
        let samples = &self.samples[..self.len];
        if samples[self.len - 1].1 - samples[0].1 < SPAN {
            self.why = Undecided::Evidence;
            return;
        }
        let mut found = CANDIDATES.iter().filter_map(|format| check(*format, samples));
        self.why = Undecided::Nothing;
        if let (Some(format), None) = (found.next(), found.next()) {
            self.decided = Some(format);
        }
        // With a burst in it the older half is no evidence.
        if self.decided.is_none() && self.len > 32 {
            let recent = &samples[self.len / 2..];
            let mut found = CANDIDATES.iter().filter_map(|format| check(*format, recent));
            if let (Some(format), None) = (found.next(), found.next()) {
                self.decided = Some(format);
            }
        }
    }
}

/// The format with its epoch, if these grow as it says.
fn check(format: Format, samples: &[(u64, Ns)]) -> Option<Format> {
    let seconds = format.unit == Unit::SECOND;
    // What does not fit into the bits was not cut to them: then only an epoch explains it.
    let bits = format.wrap.bits();
    let large = bits > 0 && samples.iter().any(|(raw, _)| raw >> bits != 0);
    let format = if large { Format { wrap: Wrap::Never, ..format } } else { format };
    let mut unwrapper = Unwrapper::new(format);
    // First, middle and last change of the highest stamp.
    let mut marks = [(0i128, Ns::ZERO); 3];
    let (mut changes, mut before, mut lowest, mut highest) = (0, None, i128::MAX, i128::MIN);
    let half = samples[0].1 + Ns((samples[samples.len() - 1].1 - samples[0].1).0 / 2);
    for (raw, arrival) in samples {
        let ticks = unwrapper.push(*raw, None);
        // Seconds with B-frames go back and forth at each tick: there what is highest counts.
        let differs = before.map(|before| if seconds { ticks > highest } else { ticks != before });
        if differs.unwrap_or(!seconds) {
            changes += 1;
            if changes == 1 {
                marks = [(ticks, *arrival); 3];
            }
            if *arrival <= half {
                marks[1] = (ticks, *arrival);
            }
            marks[2] = (ticks, *arrival);
        }
        before = Some(ticks);
        (lowest, highest) = (lowest.min(ticks), highest.max(ticks));
    }
    let [first, middle, last] = marks;
    if seconds {
        // Ticks by one, each about a second after the other.
        let steps = last.0 - first.0;
        let span = last.1 - first.1;
        let frames = samples.len() as i128;
        // Two will do for what is the size of seconds since 1970.
        let found = with_epoch(format, highest);
        let fewest = if found.epoch.is_shared() { 2 } else { 3 };
        let plausible =
            changes >= fewest && steps == changes as i128 - 1 && frames >= 4 * steps && fits(format, first, last, 1.1);
        return (plausible && span >= SPAN).then_some(found);
    }
    if changes < CHANGES || last.1 - first.1 < SPAN {
        return None;
    }
    let apart = format.unit.span((highest - lowest) / (changes as i128 - 1));
    if apart < Ns::from_millis(1) || apart > Ns::from_secs(2) {
        return None;
    }
    let halves = fits(format, first, middle, TOLERANCE) && fits(format, middle, last, TOLERANCE);
    (halves && fits(format, first, last, TOLERANCE))
        .then(|| with_epoch(format, highest))
        .filter(|found| !large || found.epoch.is_shared())
}

/// Whether from one to the other stamps grew as arrival did.
fn fits(format: Format, from: (i128, Ns), to: (i128, Ns), tolerance: f64) -> bool {
    let (grown, passed) = (format.unit.span(to.0 - from.0).as_f64(), (to.1 - from.1).as_f64());
    passed > 0.0 && grown > passed / tolerance && grown < passed * tolerance
}

fn with_epoch(format: Format, highest: i128) -> Format {
    let seconds = highest * i128::from(format.unit.numerator()) / i128::from(format.unit.denominator());
    match seconds {
        1_000_000_000..3_600_000_000 => Format { wrap: Wrap::Never, epoch: Epoch::Unix, ..format },
        3_600_000_000..4_300_000_000 => Format { wrap: Wrap::Never, epoch: Epoch::Ntp, ..format },
        _ => format,
    }
}
