//! Gives stamps to frames that lack them, and says that it did.
//!
//! - [`Filler`]: PTS from DTS and DTS from PTS, in decode order. The distance of PTS from DTS repeats with the GOP structure:
//!   what followed the longest like stretch of distances before, follows again; failing that, the lowest free place at or above DTS.
//!   A missing DTS follows the last one by a cadence, never above its PTS, never below the last DTS. A stream that has
//!   never carried DTS gets none.
//! - [`Coarse`]: stamps of so large a unit that many frames share one (whole seconds): order and cadence spread them over
//!   the unit; each tick sets them right.

use super::Ns;

const HISTORY: usize = 64;
/// How far back stretches are compared: two GOPs of the usual structures.
const CONTEXT: usize = 24;

/// Which stamps were made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filled {
    pub pts: bool,
    pub dts: bool,
}

impl Filled {
    pub fn any(self) -> bool {
        self.pts || self.dts
    }
}

#[derive(Debug, Clone)]
pub struct Filler {
    last_dts: Option<Ns>,
    /// PTS less DTS of the last frames, in cadences, newest last.
    distances: [i16; HISTORY],
    len: usize,
    /// PTS of the last frames, to find free places.
    taken: [Ns; 16],
    next: usize,
}

impl Default for Filler {
    fn default() -> Self {
        Self { last_dts: None, distances: [0; HISTORY], len: 0, taken: [Ns::MIN; 16], next: 0 }
    }
}

impl Filler {
    /// Both stamps of the next frame in decode order. `missing`: frames that a gap left out before it.
    pub fn push(
        &mut self,
        pts: Option<Ns>,
        dts: Option<Ns>,
        cadence: Ns,
        missing: u32,
    ) -> Option<(Ns, Option<Ns>, Filled)> {
        let cadence = cadence.max(Ns(1));
        let filled = Filled { pts: pts.is_none(), dts: dts.is_none() && self.last_dts.is_some() };
        let dts = dts.or_else(|| self.guess_dts(pts, cadence, missing));
        let pts = match (pts, dts) {
            (Some(pts), _) => pts,
            (None, Some(dts)) => self.guess_pts(dts, cadence),
            (None, None) => return None,
        };
        if let Some(dts) = dts {
            self.last_dts = Some(dts);
            self.remember(places(pts - dts, cadence));
        }
        self.taken[self.next] = pts;
        self.next = (self.next + 1) % self.taken.len();
        Some((pts, dts, filled))
    }

    fn guess_dts(&self, pts: Option<Ns>, cadence: Ns, missing: u32) -> Option<Ns> {
        let last = self.last_dts?;
        let next = last + Ns(cadence.0.saturating_mul(i64::from(missing) + 1));
        Some(pts.map_or(next, |pts| next.min(pts)).max(last))
    }

    fn guess_pts(&self, dts: Ns, cadence: Ns) -> Ns {
        let at = |distance: i64| dts + Ns(cadence.0.saturating_mul(distance));
        let free = |pts: Ns| !self.taken.iter().any(|taken| (*taken - pts).abs() < Ns((cadence.0 / 2).max(1)));
        let history = &self.distances[..self.len];
        // What followed the longest stretch that is like the last one, the newest of equal ones.
        let alike = |end: usize| {
            let pairs = history[..end].iter().rev().zip(history.iter().rev());
            pairs.take(CONTEXT).take_while(|(then, now)| then == now).count()
        };
        let follows = (1..self.len).max_by_key(|end| alike(*end)).filter(|end| alike(*end) >= 3);
        if let Some(pts) = follows.map(|end| at(history[end].into())).filter(|pts| free(*pts)) {
            return pts;
        }
        let least = history.iter().copied().min().unwrap_or(0).into();
        (least..least + 17).map(at).find(|pts| free(*pts)).unwrap_or(at(least))
    }

    fn remember(&mut self, distance: i16) {
        if self.len == HISTORY {
            self.distances.copy_within(1.., 0);
            self.len -= 1;
        }
        self.distances[self.len] = distance;
        self.len += 1;
    }
}

fn places(span: Ns, cadence: Ns) -> i16 {
    let rounded = (i128::from(span.0) + i128::from(cadence.0) / 2).div_euclid(cadence.0.into());
    rounded.clamp(i16::MIN.into(), i16::MAX.into()) as i16
}

/// When one lasts as long as that many, the clock stands still.
const STANDS: i64 = 3;

/// Spreads frames over ticks that many of them share.
#[derive(Debug, Clone)]
pub struct Coarse {
    tick: Ns,
    last: Option<Last>,
    /// The tick that was counted from, and frames since.
    counted: Option<(Ns, i64)>,
    cadence: Option<Ns>,
    /// How long this tick has lasted.
    within: Ns,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    tick: Ns,
    fine: Ns,
}

impl Coarse {
    /// Frames share ticks of this length.
    pub fn new(tick: Ns) -> Self {
        Self { tick: tick.max(Ns(1)), last: None, counted: None, cadence: None, within: Ns::ZERO }
    }

    /// Whether a tick has been seen to begin: before that nobody knows where in the first one its frames lie.
    pub fn is_settled(&self) -> bool {
        self.counted.is_some()
    }

    /// A stamp within its tick, above the one before. `cadence` of arrivals serves until ticks have been counted; `passed`
    /// is the time since the one before, where arrival says something.
    pub fn push(&mut self, stamp: Ns, cadence: Option<Ns>, passed: Option<Ns>) -> Ns {
        let usual = self.cadence.or(cadence).unwrap_or(Ns(self.tick.0 / 50)).max(Ns(1));
        let fine = match self.last {
            // A jump of the whole is for the classifier to judge.
            Some(last) if stamp < last.tick || stamp > last.tick + self.tick + self.tick => {
                self.counted = None;
                stamp
            }
            Some(last) => {
                if stamp > last.tick {
                    self.count(stamp);
                    self.within = Ns::ZERO;
                }
                self.within += passed.unwrap_or(usual);
                // A clock that stands still stops nobody.
                let stands = self.within > Ns(self.tick.0.saturating_mul(STANDS));
                let most = if stands { stamp + self.within } else { stamp + self.tick - Ns(1) };
                let next = if stands { most } else { (last.fine + usual).max(stamp) };
                next.min(most).max(last.fine)
            }
            None => stamp,
        };
        if let Some((_, frames)) = &mut self.counted {
            *frames += 1;
        }
        self.last = Some(Last { tick: stamp, fine });
        fine
    }

    /// A new tick: so many frames in so many ticks since the one that is counted from.
    fn count(&mut self, stamp: Ns) {
        match self.counted {
            Some((from, frames)) if frames > 0 => {
                self.cadence = Some(Ns((stamp - from).0 / frames));
                if stamp - from > Ns(self.tick.0.saturating_mul(30)) {
                    self.counted = Some((stamp, 0));
                }
            }
            // What came before the first tick change was only a part.
            _ => self.counted = Some((stamp, 0)),
        }
    }
}
