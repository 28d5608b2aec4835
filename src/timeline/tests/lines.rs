//! Whole lines: what a stamp is taken for, where the frame goes, and that nothing that comes stops them.

use proptest::prelude::*;

use super::{Random, millis};
use crate::timeline::Ns;
use crate::timeline::format::{Epoch, Format, Unit, Wrap};
use crate::timeline::line::{Line, LineConfig, Placed, Policy, Stamped};
use crate::timeline::outlier::{Order, Verdict};

const FRAME: f64 = 1000.0 / 30.0;
const SEEDS: u64 = 40;
/// 2026.
const START: i64 = 1_767_225_600_000_000_000;

fn unix() -> Format {
    Format { epoch: Epoch::Unix, ..Format::PIPELINE }
}

struct Run {
    placed: Vec<Placed>,
    /// When each frame was taken, since the first.
    taken: Vec<Ns>,
}

/// 30 fps with jitter; `stamp` gives what frame i says, in ns since the first, or none if it is lost.
fn run(config: LineConfig, seed: u64, frames: i64, jitter: f64, stamp: impl Fn(i64, Ns) -> Option<Ns>) -> Run {
    let mut random = Random::new(seed);
    let mut line = Line::new(config);
    let mut run = Run { placed: Vec::new(), taken: Vec::new() };
    let mut last = Ns::ZERO;
    for i in 0..frames {
        let taken = millis(i as f64 * FRAME);
        last = last.max(taken + Ns::SECOND + millis(random.exponential(jitter)));
        let Some(stamp) = stamp(i, taken) else { continue };
        run.placed.push(line.push(Stamped { pts: Some((stamp + Ns(START)).0 as u64), dts: None, arrival: last }));
        run.taken.push(taken);
    }
    run
}

impl Run {
    fn unusual(&self) -> Vec<(usize, Verdict)> {
        let all = self.placed.iter().map(|placed| placed.verdict).enumerate();
        all.filter(|(_, verdict)| *verdict != Verdict::Ok).collect()
    }

    /// Largest distance from where frames were taken.
    fn error(&self) -> Ns {
        let errors = self.placed.iter().zip(&self.taken).map(|(placed, taken)| (placed.pts - Ns(START) - *taken).abs());
        errors.max().unwrap()
    }

    fn assert_rising(&self) {
        assert!(self.placed.windows(2).all(|pair| pair[0].pts <= pair[1].pts));
    }
}

fn live() -> LineConfig {
    LineConfig { format: unix(), ..Default::default() }
}

#[test]
fn single_wild_stamps_are_outliers_and_go_where_they_belong() {
    for wrong in [5000.0, -5000.0, 700.0, -700.0, 60_000.0, -1e9, 1e9] {
        for seed in 0..SEEDS {
            let run =
                run(live(), seed, 600, 5.0, |i, taken| Some(if i == 300 { taken + millis(wrong) } else { taken }));
            assert_eq!(run.unusual(), [(300, Verdict::Outlier)], "{wrong} ms, seed {seed}");
            assert!(run.error() < millis(1.0), "{:?}", run.error());
            assert!(run.placed[300].is_interpolated());
            run.assert_rising();
        }
    }
    println!("single stamps +-0.7 s, +-5 s, +60 s, +-11 days: {} of {} right", 7 * SEEDS, 7 * SEEDS);
}

#[test]
fn two_wild_stamps_in_a_row_are_two_outliers() {
    for seed in 0..SEEDS {
        let wrong = |i: i64, taken: Ns| if i == 300 || i == 301 { taken + millis(5000.0) } else { taken };
        let run = run(live(), seed, 600, 5.0, |i, taken| Some(wrong(i, taken)));
        assert_eq!(run.unusual(), [(300, Verdict::Outlier), (301, Verdict::Outlier)]);
        assert!(run.error() < millis(1.0));
    }
}

#[test]
fn duplicates_gaps_and_steps_back_are_told_apart() {
    for seed in 0..SEEDS {
        let twice = run(live(), seed, 600, 2.0, |i, taken| {
            Some(if i % 100 == 50 { millis((i - 1) as f64 * FRAME) } else { taken })
        });
        let places = [50, 150, 250, 350, 450, 550];
        assert_eq!(twice.unusual(), places.map(|i| (i, Verdict::Duplicate)), "seed {seed}");

        // 110 ms from one frame to the next.
        let gap = run(live(), seed, 600, 2.0, |i, taken| match i {
            300 | 301 => None,
            _ => Some(taken + if i > 301 { millis(110.0 - 3.0 * FRAME) } else { Ns::ZERO }),
        });
        assert_eq!(gap.unusual(), [(300, Verdict::Gap { missing: 2 })], "seed {seed}");

        let back =
            run(live(), seed, 600, 2.0, |i, taken| Some(if i == 300 { taken - millis(2.5 * FRAME) } else { taken }));
        assert_eq!(back.unusual(), [(300, Verdict::Backwards)], "seed {seed}");
        assert!(back.error() < millis(1.0));
        back.assert_rising();
    }
    println!("duplicates, a gap of 110 ms, a step back: {SEEDS} of {SEEDS} seeds right each");
}

#[test]
fn a_clock_that_is_set_begins_an_epoch() {
    let years = 50 * 31_556_952i64;
    for (step, name) in
        [(2.0, "+2 s"), (-2.0, "-2 s"), (0.3, "+300 ms"), (-0.3, "-300 ms"), (-(years as f64), "-50 years")]
    {
        for seed in 0..SEEDS {
            let step = Ns::from_f64(step * 1e9);
            let run = run(live(), seed, 900, 5.0, |i, taken| Some(if i >= 300 { taken + step } else { taken }));
            let unusual = run.unusual();
            let [_, _, (at, Verdict::Jump { step: found, revised: 2 })] = unusual[..] else {
                panic!("{name} {seed} {:?}", &unusual[..unusual.len().min(5)])
            };
            assert_eq!(at, 302);
            assert!((found - step).abs() < millis(2.0), "{name} {seed}: {found:?}");
            assert_eq!(run.placed[301].epoch, 0);
            assert!(run.placed[302..].iter().all(|placed| placed.epoch == 1));
            assert!(run.error() < millis(2.0), "{name} {seed} {:?}", run.error());
            run.assert_rising();
        }
        println!("clock set by {name}: {SEEDS} of {SEEDS} seeds a jump at the third stamp");
    }
}

#[test]
fn running_time_that_turns_into_ntp_is_a_jump_of_121_years() {
    let ntp_ns = (START + 2_208_988_800_000_000_000) as u64;
    let mut line = Line::new(LineConfig::default());
    let mut last = Ns::MIN;
    for i in 0..200u64 {
        let taken = i * 33_333_333;
        let pts = Some(if i < 40 { taken } else { ntp_ns + taken });
        let placed = line.push(Stamped { pts, dts: None, arrival: Ns(taken as i64 + 5_000_000) });
        assert_eq!(placed.epoch, u32::from(i >= 42));
        assert!((placed.pts - Ns(taken as i64)).abs() < millis(1.0), "{i} {placed:?}");
        assert!(placed.pts > last);
        last = placed.pts;
    }
}

#[test]
fn ordinary_streams_are_ordinary() {
    let mut stamps = 0;
    for jitter in [0.0, 5.0, 20.0, 60.0] {
        for seed in 0..4 {
            let mut random = Random::new(seed + 99);
            let lost: Vec<bool> = (0..9000).map(|i| i > 10 && i < 8990 && random.chance(0.05)).collect();
            // Sensors' stamps are not exact either.
            let noise: Vec<Ns> = (0..9000).map(|_| millis(random.normal(1.5))).collect();
            let run =
                run(live(), seed, 9000, jitter, |i, taken| (!lost[i as usize]).then(|| taken + noise[i as usize]));
            let wrong = run.unusual().iter().filter(|(_, verdict)| !matches!(verdict, Verdict::Gap { .. })).count();
            assert_eq!(wrong, 0, "{jitter} ms, seed {seed}: {:?}", run.unusual());
            let missing = run.placed.iter().map(|placed| match placed.verdict {
                Verdict::Gap { missing } => missing as usize,
                _ => 0,
            });
            assert_eq!(missing.sum::<usize>(), lost.iter().filter(|lost| **lost).count());
            stamps += run.placed.len();
        }
    }
    println!("{stamps} ordinary stamps with 5 % lost: no false alarm, each lost frame counted");
}

#[test]
fn a_network_that_stalls_is_not_an_outlier() {
    let mut line = Line::new(live());
    for i in 0..900i64 {
        let taken = millis(i as f64 * FRAME);
        // Three seconds of nothing, then all of it at once.
        let came = if (300..390).contains(&i) { millis(390.0 * FRAME + (i - 300) as f64 * 0.1) } else { taken };
        let placed = line.push(Stamped { pts: Some((taken + Ns(START)).0 as u64), dts: None, arrival: came });
        assert_eq!((placed.verdict, placed.epoch), (Verdict::Ok, 0), "{i}");
        assert_eq!(placed.pts, taken + Ns(START));
    }
}

#[test]
fn a_camera_that_reconnects_leaves_a_gap() {
    let run = run(live(), 1, 900, 5.0, |i, taken| (!(300..600).contains(&i)).then_some(taken));
    assert_eq!(run.unusual(), [(300, Verdict::Gap { missing: 300 })]);
}

#[test]
fn whole_seconds_are_spread_over_the_second() {
    for fps in [25.0, 29.97, 12.5] {
        let mut of_all = 0.0f64;
        for seed in 0..8 {
            let mut random = Random::new(seed);
            let mut line = Line::new(LineConfig { format: Format::EPOCH_SECONDS, ..Default::default() });
            let phase = random.unit();
            let (mut last, mut worst) = (Ns::MIN, 0.0f64);
            for i in 0..(60.0 * fps) as i64 {
                let taken = 1_767_225_600.0 + phase + i as f64 / fps;
                let arrival = millis((taken - 1_767_225_600.0) * 1e3 + random.exponential(3.0));
                let placed = line.push(Stamped { pts: Some(taken as u64), dts: None, arrival });
                assert!(placed.pts > last, "{fps} {seed} {i} {placed:?} {last:?}");
                assert!(placed.is_interpolated());
                last = placed.pts;
                if i as f64 > 3.0 * fps {
                    worst = worst.max((placed.pts.as_f64() / 1e9 - taken).abs() * fps);
                }
            }
            of_all = of_all.max(worst);
        }
        println!("whole seconds at {fps} fps: at most {of_all:.2} frames off");
        assert!(of_all < 1.6, "{fps} fps: {of_all} frames");
    }
}

#[test]
fn seconds_from_a_streams_own_zero_are_placed_by_arrival() {
    for seed in 0..8 {
        let mut random = Random::new(seed);
        let mut line = Line::new(LineConfig { format: Format::RELATIVE_SECONDS, ..Default::default() });
        let phase = random.unit();
        let (mut last, mut worst) = (Ns::MIN, 0.0f64);
        for i in 0..1500 {
            let since = f64::from(i) / 25.0;
            let arrival = millis(since * 1e3 + 7000.0 + random.exponential(3.0));
            let placed = line.push(Stamped { pts: Some((since + phase) as u64), dts: None, arrival });
            assert!(placed.pts > last, "{seed} {i} {placed:?} {last:?}");
            assert!(matches!(placed.verdict, Verdict::Ok | Verdict::Gap { .. }) && placed.epoch == 0, "{placed:?}");
            last = placed.pts;
            if i > 75 {
                worst = worst.max((placed.pts.as_f64() / 1e9 - 7.0 - since).abs() * 25.0);
            }
        }
        assert!(worst < 1.5, "seed {seed}: {worst} frames");
    }
}

#[test]
fn slices_of_a_frame_keep_their_stamp() {
    let mut line = Line::new(live());
    let mut random = Random::new(1);
    for i in 0..600i64 {
        let taken = millis(i as f64 * FRAME);
        let first = taken + millis(random.exponential(3.0));
        for slice in 0..5 {
            let arrival = first + millis(0.2 * slice as f64);
            let placed = line.push(Stamped { pts: Some((taken + Ns(START)).0 as u64), dts: None, arrival });
            assert!((placed.pts - Ns(START) - taken).abs() < millis(1.0), "{i} {slice} {placed:?}");
            assert_eq!(placed.verdict, if slice == 0 { Verdict::Ok } else { Verdict::Duplicate }, "{i} {slice}");
            assert!(!placed.is_interpolated());
        }
    }
}

#[test]
fn wild_stamps_among_b_frames_are_outliers_and_b_frames_are_not() {
    const REORDERED: [i64; 8] = [0, 3, 1, 2, 6, 4, 5, 7];
    for with_dts in [false, true] {
        for seed in 0..8 {
            let mut random = Random::new(seed);
            let mut line = Line::new(LineConfig { order: Order::Decode, ..live() });
            for i in 0..800i64 {
                let wild = [(200, 5e3), (301, -5e3), (402, -1e7), (507, 60e3)].iter().find(|(at, _)| *at == i);
                let step = wild.map_or(Ns::ZERO, |(_, step)| millis(*step));
                let stamp = |place: i64| Some((millis(place as f64 * FRAME) + Ns(START) + step).0 as u64);
                let (pts, dts) = (i / 8 * 8 + REORDERED[(i % 8) as usize] + 2, i);
                let arrival = millis(i as f64 * FRAME + 200.0 + random.exponential(3.0));
                let placed = line.push(Stamped { pts: stamp(pts), dts: stamp(dts).filter(|_| with_dts), arrival });
                let expected = if wild.is_some() { Verdict::Outlier } else { Verdict::Ok };
                assert_eq!(placed.verdict, expected, "{with_dts} {seed} {i}");
                let error = (placed.pts - Ns(START) - millis(pts as f64 * FRAME)).abs();
                // Without DTS nobody knows which of the next places a frame has, and few frames tell of drift.
                let most = match (with_dts, wild.is_some()) {
                    (true, _) => 1.0,
                    (false, false) => 3.0,
                    (false, true) => 200.0,
                };
                assert!(error < millis(most), "{i} {placed:?}");
            }
        }
    }
}

#[test]
fn whatever_stands_still_flows_and_is_marked() {
    type Stamp = fn(u64) -> Option<u64>;
    let bad: [(&str, Stamp); 5] = [
        ("none", |_| None),
        ("all 0", |_| Some(0)),
        ("all equal", |_| Some(START as u64)),
        ("all most", |_| Some(u64::MAX)),
        ("0 and most", |i| Some(if i % 2 == 0 { 0 } else { u64::MAX })),
    ];
    for (name, stamp) in bad {
        let mut line = Line::new(LineConfig::default());
        let (mut last, mut marked) = (Ns::MIN, 0);
        for i in 0..300u64 {
            let arrival = Ns(i as i64 * 33_333_333);
            let placed = line.push(Stamped { pts: stamp(i), dts: None, arrival });
            assert!(placed.pts >= last, "{name} {i} {placed:?} {last:?}");
            last = placed.pts;
            marked += i32::from(placed.is_interpolated() || placed.verdict != Verdict::Ok);
        }
        println!("{name}: {marked} of 300 marked, to {last:?}");
        assert!(marked >= 290, "{name}");
    }
}

#[test]
fn random_stamps_flow_in_order_and_are_marked() {
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let mut line = Line::new(LineConfig::default());
        let (mut last, mut marked) = (Ns::MIN, 0);
        for i in 0..300i64 {
            let placed = line.push(Stamped { pts: Some(random.bits()), dts: None, arrival: Ns(i * 33_333_333) });
            assert!(placed.pts >= last);
            last = placed.pts;
            marked += i32::from(placed.is_interpolated() || placed.verdict != Verdict::Ok);
        }
        assert!(marked >= 290, "{marked}");
    }
}

fn any_config() -> impl Strategy<Value = LineConfig> {
    let unit = (prop_oneof![Just(1u32), 1u32..], prop_oneof![Just(1_000_000_000u32), Just(90_000), Just(1), 1u32..]);
    let epoch = prop::sample::select(vec![Epoch::Unix, Epoch::Ntp, Epoch::StreamStart, Epoch::Pipeline]);
    let policy = prop::sample::select(vec![Policy::Correct, Policy::Drop, Policy::Pass]);
    let wrap = prop::sample::select(vec![0u32, 32, 33]);
    (unit, epoch, wrap, policy, any::<bool>(), any::<bool>(), any::<u32>(), any::<i64>()).prop_map(
        |((numerator, denominator), epoch, wrap, policy, live, decode, max_slew_ppm, window)| LineConfig {
            format: Format {
                unit: Unit::new(numerator, denominator).unwrap(),
                wrap: Wrap::from_bits(wrap).unwrap(),
                epoch,
            },
            live,
            order: if decode { Order::Decode } else { Order::Rising },
            policy,
            max_slew_ppm,
            window: Ns(window),
        },
    )
}

fn any_stamp() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![
        Just(None),
        Just(Some(0)),
        Just(Some(u64::MAX)),
        any::<u64>().prop_map(Some),
        (0u64..5_000_000_000).prop_map(Some)
    ]
}

#[test]
fn the_fuzzer_finds_nothing_in_random_bytes() {
    for seed in 0..3000 {
        let mut random = Random::new(seed);
        let data: Vec<u8> = (0..seed % 600).map(|_| random.bits() as u8).collect();
        super::stamps::stamps(&data);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn nothing_that_comes_makes_a_line_panic(
        config in any_config(),
        stamps in prop::collection::vec((any_stamp(), any_stamp(), prop_oneof![any::<i64>(), 0i64..10_000_000_000]), 1..200),
    ) {
        let mut line = Line::new(config);
        let mut last = None;
        for (pts, dts, arrival) in stamps {
            let placed = line.push(Stamped { pts, dts, arrival: Ns(arrival) });
            if let (Some(before), Some(dts), true) = (last, placed.dts, config.policy != Policy::Pass) {
                prop_assert!(dts >= before || placed.filled.dts || dts.abs() == Ns::MAX, "{:?} after {:?}", placed, before);
            }
            line.estimate();
            last = None.or(placed.dts.filter(|_| false));
        }
    }
}
