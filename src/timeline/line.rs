//! One stream on the common timeline: from the stamps a buffer carries to the ones it gets.
//!
//! In order: unwrap and scale ([`super::format`]), spread what shares a stamp ([`Coarse`]), judge ([`Classifier`]), put what is
//! not believed where it belongs, fill what is missing ([`Filler`]), learn drift from what is good ([`Drift`]), correct
//! slowly ([`Slew`]).
//!
//! Stamps from an epoch that streams share (1970, running time) are corrected by what the sender's clock has lost since
//! the stream began: a constant delay of the way stays out of it. Stamps from the stream's own zero are placed at the
//! least arrival. Without live arrivals nothing is corrected. A jump begins an epoch that goes on where the last one stood.

use super::Ns;
use super::drift::{Drift, Estimate};
use super::fill::{Coarse, Filled, Filler};
use super::format::{Epoch, Format, Unwrapper};
use super::outlier::{Classifier, Order, SLOWEST, Verdict};
use super::slew::Slew;
use super::spread::Spread;

/// Units at least this long are taken to be shared by many frames.
const COARSE: Ns = Ns::from_millis(100);
/// With DTS on that many in a row, DTS is relied on again.
const STEADY: u32 = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// To where cadence has it.
    #[default]
    Correct,
    /// The caller drops what the verdict calls outlier, duplicate or backwards; placed as with `Correct`.
    Drop,
    /// As it says.
    Pass,
}

#[derive(Debug, Clone, Copy)]
pub struct LineConfig {
    pub format: Format,
    /// Whether arrival says something about when the frame was taken.
    pub live: bool,
    /// Order of PTS in streams without DTS.
    pub order: Order,
    pub policy: Policy,
    pub max_slew_ppm: u32,
    /// The longest stretch that drift is estimated from.
    pub window: Ns,
}

impl Default for LineConfig {
    fn default() -> Self {
        Self {
            format: Format::PIPELINE,
            live: true,
            order: Order::Rising,
            policy: Policy::Correct,
            max_slew_ppm: 2000,
            window: Ns::from_secs(600),
        }
    }
}

/// What a buffer carries: counts of the format's unit, as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stamped {
    pub pts: Option<u64>,
    pub dts: Option<u64>,
    /// Running time.
    pub arrival: Ns,
}

/// What a buffer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub pts: Ns,
    pub dts: Option<Ns>,
    /// Of DTS where the stream has it, else of PTS; `Ok` for a buffer without stamps.
    pub verdict: Verdict,
    pub filled: Filled,
    /// Counts up with each jump.
    pub epoch: u32,
    /// Added to the stamp, within this epoch.
    pub correction: Ns,
}

impl Placed {
    /// Whether any of it was made up.
    pub fn is_interpolated(&self) -> bool {
        self.filled.any()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// Nothing has been seen.
    Unknown,
    Dts,
    /// DTS is missing, always or at times; so many in a row have had it.
    Pts {
        with_dts: u32,
    },
}

const FILLED_PTS: Filled = Filled { pts: true, dts: false };

/// How the stamp that a buffer is judged by gets to the common timeline.
struct Way {
    key: Ns,
    arrival: Ns,
    /// Begins an epoch.
    anew: bool,
}

#[derive(Debug, Clone)]
pub struct Line {
    config: LineConfig,
    unwrapper: Unwrapper,
    coarse: Option<Coarse>,
    arrivals: Spread<64>,
    last_arrival: Option<Ns>,
    key: Key,
    classifier: Classifier,
    filler: Filler,
    drift: Drift,
    slew: Slew,
    /// What jumps have added to stamps.
    shift: Ns,
    epoch: u32,
    /// Duplicates in a row.
    equal: u32,
    /// Share of stamps that went back lately.
    backwards: f32,
    last_key: Option<Ns>,
}

impl Line {
    pub fn new(config: LineConfig) -> Self {
        let tick = config.format.unit.tick();
        Self {
            config,
            unwrapper: Unwrapper::new(config.format),
            coarse: (tick >= COARSE).then(|| Coarse::new(tick)),
            arrivals: Spread::default(),
            last_arrival: None,
            key: Key::Unknown,
            classifier: Classifier::new(config.order, config.live),
            filler: Filler::default(),
            drift: Drift::new(config.window),
            slew: Slew::new(config.max_slew_ppm),
            shift: Ns::ZERO,
            epoch: 0,
            equal: 0,
            backwards: 0.0,
            last_key: None,
        }
    }

    pub fn push(&mut self, stamped: Stamped) -> Placed {
        let arrival = stamped.arrival;
        let passed = self.last_arrival.replace(arrival).map_or(Ns::ZERO, |last| arrival - last);
        self.arrivals.push(passed.0);
        self.choose_key(stamped);
        let raw = match (self.key, stamped.pts, stamped.dts) {
            (Key::Dts, _, Some(raw)) | (Key::Pts { .. }, Some(raw), _) => raw,
            (Key::Pts { .. }, None, Some(raw)) => return self.place_by_dts(raw, arrival),
            _ => return self.place_unstamped(arrival),
        };

        let ticks = self.unwrapper.unwrap(raw, Some(arrival));
        let spread = self.arrivals.median();
        let mut time = self.config.format.time(ticks);
        let mut begins = false;
        // The other stamp lies beside this one.
        let other = |unwrapper: &Unwrapper, stamp: Option<u64>| {
            let mut near = unwrapper.clone();
            near.accept(ticks, Some(arrival));
            stamp.map(|raw| near.format().time(near.unwrap(raw, None)) - time)
        };
        let pts_apart = other(&self.unwrapper, stamped.pts);
        let dts_apart = other(&self.unwrapper, stamped.dts);
        if let Some(coarse) = &mut self.coarse {
            let before = coarse.is_settled();
            time = coarse.push(time, (spread > 0).then_some(Ns(spread)), self.config.live.then_some(passed));
            if !coarse.is_settled() {
                self.unwrapper.accept(ticks, Some(arrival));
                let key = self.rising(time - self.shift);
                return self.place(Way { key, arrival, anew: false }, key, None, Verdict::Ok, FILLED_PTS);
            }
            if !before {
                self.classifier.switch(Order::Rising);
                begins = true;
            }
        }

        let stamp = time - self.shift;
        let expected = self.classifier.expected(arrival);
        let verdict = self.classifier.push(stamp, arrival, self.drift.offset_at(stamp));
        let stamp = match verdict {
            Verdict::Jump { step, .. } => {
                self.shift += step;
                // The judge goes on in the coordinates of the new epoch.
                self.classifier.shift(Ns::ZERO - step);
                self.epoch += 1;
                stamp - step
            }
            _ => stamp,
        };
        let believed = matches!(verdict, Verdict::Ok | Verdict::Gap { .. } | Verdict::Jump { .. });
        if believed {
            self.unwrapper.accept(ticks, Some(arrival));
            self.drift.set_reordered(!self.is_rising());
            self.drift.push(stamp, arrival);
        }
        self.equal = if verdict == Verdict::Duplicate { self.equal.saturating_add(1) } else { 0 };
        let key = self.settle(stamp, verdict, expected, passed);
        self.notice_reordering(verdict);

        let cadence = self.classifier.cadence().unwrap_or(Ns(1));
        let farthest = match self.classifier.cadence() {
            Some(cadence) => Ns::from_secs(10).max(Ns(cadence.0.saturating_mul(32))),
            None => SLOWEST,
        };
        let near = |apart: &Ns| key.1 && apart.abs() <= farthest;
        let pts = pts_apart.filter(near).map(|apart| key.0 + apart);
        let dts = dts_apart.filter(near).map(|apart| key.0 + apart);
        let (pts, dts) = match self.key {
            Key::Dts => (pts, Some(key.0)),
            _ => (Some(key.0), dts),
        };
        let missing = if let Verdict::Gap { missing } = verdict { missing } else { 0 };
        let (pts, dts, mut filled) =
            self.filler.push(pts, dts, cadence, missing).unwrap_or((key.0, None, Filled::default()));
        if !key.1 {
            filled = Filled { pts: true, dts: dts.is_some() };
        }
        filled.pts |= self.coarse.is_some();
        let anew = begins || matches!(verdict, Verdict::Jump { .. });
        self.place(Way { key: key.0, arrival, anew }, pts, dts, verdict, filled)
    }

    pub fn estimate(&self) -> Option<Estimate> {
        self.drift.estimate()
    }

    /// The usual distance between frames, once it is known.
    pub fn cadence(&self) -> Option<Ns> {
        self.classifier.cadence()
    }

    pub fn jitter(&self) -> Ns {
        self.drift.jitter()
    }

    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    pub fn format(&self) -> Format {
        self.config.format
    }

    /// The stamp to go on with, and whether it is the buffer's own.
    fn settle(&self, stamp: Ns, verdict: Verdict, expected: Option<Ns>, passed: Ns) -> (Ns, bool) {
        let rising = |stamp| self.rising(stamp);
        match (verdict, self.config.policy) {
            (_, Policy::Pass) => (stamp, true),
            (Verdict::Ok | Verdict::Gap { .. } | Verdict::Jump { .. }, _) => (rising(stamp), true),
            // Slices of a frame share its stamp; a clock that stands still says nothing.
            (Verdict::Duplicate, _) if !self.stands_still() => (rising(stamp), true),
            (Verdict::Duplicate, _) => {
                let last = self.last_key.unwrap_or(stamp);
                let cadence = self.classifier.cadence().unwrap_or(Ns(1));
                (last + if self.config.live { passed.max(Ns::ZERO) } else { cadence }, false)
            }
            _ => (rising(expected.unwrap_or(stamp)), false),
        }
    }

    /// Never below the last one, where stamps rise.
    fn rising(&self, stamp: Ns) -> Ns {
        match self.last_key {
            Some(last) if self.is_rising() => stamp.max(last),
            _ => stamp,
        }
    }

    fn is_rising(&self) -> bool {
        self.key == Key::Dts || self.classifier.order() == Order::Rising
    }

    fn stands_still(&self) -> bool {
        let usual = self.classifier.cadence().unwrap_or(Ns::from_millis(20)).0 / 4;
        self.equal >= 3 && (!self.config.live || self.arrivals.median() > usual)
    }

    /// B-frames that nobody announced: many go back, by little.
    fn notice_reordering(&mut self, verdict: Verdict) {
        let back = f32::from(u8::from(verdict == Verdict::Backwards));
        self.backwards += (back - self.backwards) / 32.0;
        if self.backwards > 0.2 && matches!(self.key, Key::Pts { .. }) && self.classifier.order() == Order::Rising {
            self.classifier.switch(Order::Decode);
            self.backwards = 0.0;
        }
    }

    /// DTS alone, in a stream that is judged by PTS.
    fn place_by_dts(&mut self, raw: u64, arrival: Ns) -> Placed {
        let dts = self.config.format.time(self.unwrapper.unwrap(raw, Some(arrival))) - self.shift;
        let cadence = self.classifier.cadence().unwrap_or(Ns(1));
        self.classifier.skip();
        let (pts, dts, filled) =
            self.filler.push(None, Some(dts), cadence, 0).unwrap_or((dts, None, Filled { pts: true, dts: false }));
        self.place(Way { key: pts, arrival, anew: false }, pts, dts, Verdict::Ok, filled)
    }

    fn choose_key(&mut self, stamped: Stamped) {
        let has = stamped.dts.is_some();
        let next = match self.key {
            Key::Unknown if has => Key::Dts,
            Key::Unknown if stamped.pts.is_some() => Key::Pts { with_dts: 0 },
            Key::Dts if !has && stamped.pts.is_some() => {
                self.classifier.switch(Order::Decode);
                Key::Pts { with_dts: 0 }
            }
            Key::Pts { with_dts } if has && with_dts + 1 >= STEADY => {
                self.classifier.switch(Order::Rising);
                Key::Dts
            }
            Key::Pts { with_dts } => Key::Pts { with_dts: if has { with_dts + 1 } else { 0 } },
            key => key,
        };
        if self.key == Key::Unknown && next == Key::Dts {
            self.classifier = Classifier::new(Order::Rising, self.config.live);
        }
        self.key = next;
    }

    fn place_unstamped(&mut self, arrival: Ns) -> Placed {
        let filled = Filled { pts: true, dts: false };
        let Some(expected) = self.classifier.expected(arrival) else {
            // Nothing to go by but arrival.
            let top = self.slew.top();
            let pts = top.map_or(arrival, |top| arrival.max(top));
            self.slew.begin(pts, Ns::ZERO);
            return Placed { pts, dts: None, verdict: Verdict::Ok, filled, epoch: self.epoch, correction: Ns::ZERO };
        };
        self.classifier.skip();
        let key = self.last_key.map_or(expected, |last| expected.max(last));
        let cadence = self.classifier.cadence().unwrap_or(Ns(1));
        let (pts, dts) = match self.key {
            Key::Dts => self.filler.push(None, Some(key), cadence, 0).map_or((key, None), |(pts, dts, _)| (pts, dts)),
            _ => self.filler.push(Some(key), None, cadence, 0).map_or((key, None), |(pts, dts, _)| (pts, dts)),
        };
        let filled = Filled { dts: dts.is_some(), ..filled };
        self.place(Way { key, arrival, anew: false }, pts, dts, Verdict::Ok, filled)
    }

    fn place(&mut self, way: Way, pts: Ns, dts: Option<Ns>, verdict: Verdict, filled: Filled) -> Placed {
        let Way { key, arrival, anew } = way;
        self.last_key = Some(key);
        let target = match self.config.format.epoch {
            _ if !self.config.live => Ns::ZERO,
            Epoch::StreamStart if self.drift.is_empty() => arrival - key,
            Epoch::StreamStart => self.drift.offset_at(key),
            _ => self.drift.lost_at(key),
        };
        let settling = self.config.format.epoch == Epoch::StreamStart && !self.drift.has_level();
        let correction = match (anew, settling) {
            (true, _) => self.slew.begin(key, target),
            (_, true) => self.slew.settle(key, target),
            _ => self.slew.push(key, target),
        };
        let dts = dts.map(|dts| dts + correction);
        Placed { pts: pts + correction, dts, verdict, filled, epoch: self.epoch, correction }
    }
}
