//! Tells what a stamp is, against what the stream has shown so far.
//!
//! A stamp is judged by its distance from the last good one. About a cadence (the median of distances): good, whatever
//! arrival says: a network that stalled delivers late, but in order. Further: a gap if it may be true, as frames come late,
//! but never before they were taken: stamp plus least delay lies at most some deviations (of the median absolute one) after
//! arrival. Everything else is suspect. One suspect alone is an outlier. Three in a row that agree among
//! themselves (with cadence or with arrival) are a jump, and the next epoch begins; the first two were called outliers by
//! then, and the verdict says how many of them that takes back. What is expected in the place of a suspect is never
//! held back for that: it comes from cadence.
//!
//! Without live arrival (files), what lies more than ten cadences and a second ahead is suspect.

use super::Ns;
use super::spread::{MAD_TO_SIGMA, Spread};

/// B-frames move a frame at most that far from its place: the largest picture buffer of H.264 and H.265.
const REORDER: i64 = 16;
/// Suspects that agree and make a jump.
const CONFIRMED: u32 = 3;
/// Without live arrival, frames this far apart may be a cadence that is not known yet: recordings of a frame in some minutes.
pub const SLOWEST: Ns = Ns::from_secs(3600);
/// Distances until a cadence is believed.
const ENOUGH: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    /// Alone in saying what it says.
    Outlier,
    /// The stream goes on elsewhere, this far from where it was expected. So many before it, called outliers or backwards,
    /// belonged to it.
    Jump {
        step: Ns,
        revised: u32,
    },
    /// So many frames were left out before this one.
    Gap {
        missing: u32,
    },
    /// The same as the last good one.
    Duplicate,
    /// Before the last good one, by no more than the last frames.
    Backwards,
}

/// In which order stamps come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Each above the last: DTS, raw video, audio.
    #[default]
    Rising,
    /// PTS in decode order: B-frames go back.
    Decode,
}

#[derive(Debug, Clone, Copy)]
struct Suspect {
    stamp: Ns,
    arrival: Ns,
    agreeing: u32,
}

#[derive(Debug, Clone)]
pub struct Classifier {
    order: Order,
    live: bool,
    /// The last good stamp (in decode order the highest) and its arrival.
    last: Option<(Ns, Ns)>,
    /// Stamps since then that were not good.
    since: u32,
    suspect: Option<Suspect>,
    steps: Spread<64>,
    lateness: Spread<64>,
    /// In decode order: the last good stamps.
    recent: [Ns; 16],
    count: usize,
    reordered_cadence: Ns,
}

impl Classifier {
    pub fn new(order: Order, live: bool) -> Self {
        Self {
            order,
            live,
            last: None,
            since: 0,
            suspect: None,
            steps: Spread::default(),
            lateness: Spread::default(),
            recent: [Ns::ZERO; 16],
            count: 0,
            reordered_cadence: Ns::ZERO,
        }
    }

    /// Judges a stamp. `offset`: least arrival minus stamp, as the drift model has it at this stamp.
    pub fn push(&mut self, stamp: Ns, arrival: Ns, offset: Ns) -> Verdict {
        let Some((last, before)) = self.last else {
            self.accept(stamp, arrival, offset);
            return Verdict::Ok;
        };
        let (step, passed) = (stamp - last, arrival - before);
        let verdict = match self.cadence() {
            Some(cadence) => self.judge(stamp, step, cadence, stamp + offset - arrival),
            None => self.judge_early(step, passed),
        };
        match verdict {
            Verdict::Ok | Verdict::Gap { .. } => self.accept(stamp, arrival, offset),
            // Late enough to have a place of its own.
            Verdict::Duplicate if self.live && passed.0 > self.cadence().map_or(i64::MAX, |cadence| cadence.0 / 2) => {
                self.skip();
            }
            Verdict::Duplicate => {}
            _ => return self.doubt(verdict, stamp, arrival, offset),
        }
        verdict
    }

    /// A buffer without a stamp, which took a place in the cadence.
    pub fn skip(&mut self) {
        self.since = self.since.saturating_add(1);
    }

    /// Where a stamp belongs that comes now and is not to be believed. Nothing before the first good one.
    pub fn expected(&self, arrival: Ns) -> Option<Ns> {
        let (last, before) = self.last?;
        let passed = arrival - before;
        let Some(cadence) = self.cadence() else {
            return Some(last + if self.live { passed.max(Ns(1)) } else { Ns(1) });
        };
        let places = Ns(cadence.0.saturating_mul(i64::from(self.since) + 1));
        // Far more time than places: frames are missing, or the stream stood still.
        let late = self.live && passed > places + places + self.slack(cadence);
        Some(last + if late { passed } else { places })
    }

    pub fn order(&self) -> Order {
        self.order
    }

    /// The usual distance between frames, once it is known.
    pub fn cadence(&self) -> Option<Ns> {
        match self.order {
            Order::Rising => (self.steps.len() >= ENOUGH && self.steps.median() > 0).then(|| Ns(self.steps.median())),
            Order::Decode => (self.reordered_cadence > Ns::ZERO).then_some(self.reordered_cadence),
        }
    }

    /// Goes on from another kind of stamp of the same stream: PTS instead of DTS.
    pub fn switch(&mut self, order: Order) {
        *self = Self { reordered_cadence: self.cadence().unwrap_or_default(), ..Self::new(order, self.live) };
    }

    /// The coordinates move: after a jump, its step back.
    pub fn shift(&mut self, by: Ns) {
        self.last = self.last.map(|(stamp, arrival)| (stamp + by, arrival));
        self.recent.iter_mut().for_each(|stamp| *stamp += by);
    }

    fn slack(&self, cadence: Ns) -> Ns {
        Ns::from_f64(6.0 * MAD_TO_SIGMA * self.lateness.mad() as f64).max(Ns(cadence.0 / 2))
    }

    fn judge(&self, stamp: Ns, step: Ns, cadence: Ns, early: Ns) -> Verdict {
        let window = Ns(cadence.0.saturating_mul(REORDER));
        let known = &self.recent[..self.count.min(self.recent.len())];
        if step == Ns::ZERO || self.order == Order::Decode && known.contains(&stamp) {
            return Verdict::Duplicate;
        }
        if self.order == Order::Decode && step.abs() <= window {
            return Verdict::Ok;
        }
        if step < Ns::ZERO {
            return if step >= Ns::ZERO - window { Verdict::Backwards } else { Verdict::Outlier };
        }
        let place = Ns(cadence.0.saturating_mul(i64::from(self.since) + 1));
        if step < place + Ns(cadence.0 / 2) {
            return Verdict::Ok;
        }
        let possible = if self.live {
            early <= self.slack(cadence)
        } else {
            step <= Ns::SECOND.max(Ns(cadence.0.saturating_mul(10))) + place
        };
        let missing = (step - place).0.saturating_add(cadence.0 / 2) / cadence.0;
        if possible { Verdict::Gap { missing: missing.clamp(1, u32::MAX.into()) as u32 } } else { Verdict::Outlier }
    }

    /// Before a cadence is known: near to arrival, or near to the last one.
    fn judge_early(&self, step: Ns, passed: Ns) -> Verdict {
        let window = if self.order == Order::Decode { Ns::SECOND } else { Ns::ZERO };
        let ahead = if self.live { passed + passed + Ns::SECOND } else { SLOWEST };
        match step {
            Ns::ZERO => Verdict::Duplicate,
            step if step < Ns::ZERO - Ns::SECOND => Verdict::Outlier,
            step if step < Ns::ZERO - window => Verdict::Backwards,
            step if step > ahead => Verdict::Outlier,
            _ => Verdict::Ok,
        }
    }

    fn doubt(&mut self, verdict: Verdict, stamp: Ns, arrival: Ns, offset: Ns) -> Verdict {
        let agreeing = match self.suspect {
            Some(suspect) if self.agrees(suspect, stamp, arrival) => suspect.agreeing + 1,
            _ => 1,
        };
        if agreeing < CONFIRMED {
            self.suspect = Some(Suspect { stamp, arrival, agreeing });
            self.since = self.since.saturating_add(1);
            return verdict;
        }
        let step = stamp - self.expected(arrival).unwrap_or(stamp);
        self.last = None;
        self.count = 0;
        self.accept(stamp, arrival, offset - step);
        Verdict::Jump { step, revised: agreeing - 1 }
    }

    fn agrees(&self, suspect: Suspect, stamp: Ns, arrival: Ns) -> bool {
        let (step, passed) = (stamp - suspect.stamp, arrival - suspect.arrival);
        let cadence = self.cadence().unwrap_or(Ns::from_millis(20));
        let reordered = self.order == Order::Decode && step.abs() <= Ns(cadence.0.saturating_mul(REORDER));
        let regular = step > Ns::ZERO && step < cadence + cadence;
        let timely = self.live && step > Ns::ZERO && (step - passed).abs() <= self.slack(cadence).max(cadence);
        step != Ns::ZERO && (reordered || regular || timely)
    }

    fn accept(&mut self, stamp: Ns, arrival: Ns, offset: Ns) {
        if let Some((last, _)) = self.last
            && stamp > last
        {
            self.steps.push(((stamp - last).0 / (i64::from(self.since) + 1)).max(1));
        }
        self.lateness.push((arrival - stamp - offset).0);
        self.suspect = None;
        self.since = 0;
        match (self.order, self.last) {
            (Order::Decode, Some((last, _))) if stamp < last => {}
            _ => self.last = Some((stamp, arrival)),
        }
        if self.order == Order::Decode {
            self.recent[self.count % self.recent.len()] = stamp;
            self.count += 1;
            if self.count.is_multiple_of(4) && self.count >= 8 {
                self.reordered_cadence = self.cadence_in_order();
            }
        }
    }

    /// The median distance of the last stamps, once sorted.
    fn cadence_in_order(&self) -> Ns {
        let mut sorted = self.recent;
        let sorted = &mut sorted[..self.count.min(16)];
        sorted.sort_unstable();
        let mut steps = [0i64; 16];
        let mut count = 0;
        for pair in sorted.windows(2).filter(|pair| pair[1] > pair[0]) {
            steps[count] = (pair[1] - pair[0]).0;
            count += 1;
        }
        if count == 0 {
            return self.reordered_cadence;
        }
        Ns(*steps[..count].select_nth_unstable((count - 1) / 2).1)
    }
}
