//! Moves a correction towards where it should be, never faster than a limit, so that corrected stamps never go backwards.
//!
//! The correction changes only while stamps make progress: by at most `max_ppm` millionths of what the highest stamp
//! has grown. As the limit lies below a million, a higher stamp always comes out higher, and frames that go back in
//! presentation order keep their order. Where a stream has just begun the limit is half a million: its first frame may have
//! come very late, and at 2000 ppm 80 ms would take 40 s. Only a new epoch sets it at once, and even then nothing comes out below what has.

use super::Ns;

const MOST_PPM: u32 = 500_000;

#[derive(Debug, Clone)]
pub struct Slew {
    max_ppm: u32,
    state: Option<State>,
    /// The highest that came out.
    top: Option<Ns>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    highest: Ns,
    correction: Ns,
    /// What was allowed but less than a nanosecond, in millionths of one.
    rest: i128,
}

impl Slew {
    /// Limits above 500,000 ppm are taken as that.
    pub fn new(max_ppm: u32) -> Self {
        Self { max_ppm: max_ppm.min(MOST_PPM), state: None, top: None }
    }

    /// The correction for this stamp, when it should be `target`.
    pub fn push(&mut self, stamp: Ns, target: Ns) -> Ns {
        self.approach(stamp, target, self.max_ppm)
    }

    /// The same where `target` has just become known: as fast as order allows, unless no change is allowed at all.
    pub fn settle(&mut self, stamp: Ns, target: Ns) -> Ns {
        self.approach(stamp, target, if self.max_ppm > 0 { MOST_PPM } else { 0 })
    }

    fn approach(&mut self, stamp: Ns, target: Ns, max_ppm: u32) -> Ns {
        let Some(state) = &mut self.state else {
            return self.begin(stamp, target);
        };
        let grown = i128::from(stamp.0) - i128::from(state.highest.0);
        if grown > 0 {
            let budget = grown * i128::from(max_ppm) + state.rest;
            let most = Ns::from_i128(budget / 1_000_000);
            let wanted = target - state.correction;
            let step = Ns(wanted.0.clamp(most.0.saturating_neg(), most.0));
            state.rest = if step == wanted { 0 } else { budget % 1_000_000 };
            state.correction += step;
            state.highest = stamp;
        }
        let correction = state.correction;
        self.top = Some(self.top.map_or(stamp + correction, |top| top.max(stamp + correction)));
        correction
    }

    /// A new epoch: the correction is `target` at once, or what keeps this stamp above all that came out.
    pub fn begin(&mut self, stamp: Ns, target: Ns) -> Ns {
        let wanted = stamp + target;
        let out = self.top.map_or(wanted, |top| wanted.max(top + Ns(1)));
        let correction = out - stamp;
        self.state = Some(State { highest: stamp, correction, rest: 0 });
        self.top = Some(out);
        correction
    }

    /// The highest that came out.
    pub fn top(&self) -> Option<Ns> {
        self.top
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn higher_stamps_come_out_higher_and_no_faster_than_allowed(
            steps in prop::collection::vec((0i64..100_000_000, -50_000_000i64..50_000_000), 1..200),
            max in 1u32..1_000_000,
        ) {
            let mut slew = Slew::new(max);
            let (mut stamp, mut before) = (Ns(0), None);
            for (step, target) in steps {
                stamp += Ns(step);
                let correction = slew.push(stamp, Ns(target));
                if let Some((last, old)) = before {
                    let grown: Ns = stamp - last;
                    let moved: Ns = correction - old;
                    prop_assert!(moved.abs().0 <= grown.scale(max.min(MOST_PPM).into(), 1_000_000).0 + 1);
                    prop_assert!(stamp + correction >= last + old);
                    prop_assert!(grown == Ns::ZERO || stamp + correction > last + old);
                }
                before = Some((stamp, correction));
            }
        }

        #[test]
        fn any_numbers_do(steps in prop::collection::vec((any::<i64>(), any::<i64>(), any::<bool>()), 1..50)) {
            let mut slew = Slew::new(u32::MAX);
            for (stamp, target, begin) in steps {
                if begin { slew.begin(Ns(stamp), Ns(target)) } else { slew.push(Ns(stamp), Ns(target)) };
            }
        }
    }

    #[test]
    fn a_new_epoch_never_comes_out_below_the_old_one() {
        let mut slew = Slew::new(500);
        slew.push(Ns::from_secs(10), Ns::ZERO);
        let correction = slew.begin(Ns::from_secs(2), Ns::ZERO);
        assert!(Ns::from_secs(2) + correction > Ns::from_secs(10));
    }

    #[test]
    fn less_than_a_nanosecond_at_a_time_adds_up() {
        let mut slew = Slew::new(1);
        slew.push(Ns(0), Ns(0));
        let last = (1..=1000).map(|i| slew.push(Ns(i * 100_000), Ns::SECOND)).last();
        assert_eq!(last, Some(Ns(100)));
    }
}
