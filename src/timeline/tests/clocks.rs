//! Drift: estimates against the truth, and corrected stamps against when frames were taken.

use super::streams::{self, FRAME, WindowedLow};
use super::{Random, millis, percentile, recorded};
use crate::timeline::Ns;
use crate::timeline::drift::Drift;
use crate::timeline::format::{Epoch, Format};
use crate::timeline::line::{Line, LineConfig, Stamped};

const SEEDS: u64 = 12;

/// When a frame was taken, what it says, when it comes.
struct Frame {
    taken: Ns,
    stamp: Ns,
    arrival: Ns,
}

fn camera(seed: u64, ppm: f64, jitter: f64, seconds: f64) -> impl Iterator<Item = Frame> {
    let shots = streams::camera(seed, ppm, jitter, seconds);
    shots.map(|shot| Frame { taken: Ns(shot.taken), stamp: Ns(shot.stamp), arrival: Ns(shot.arrival) })
}

#[test]
fn drift_is_known_to_ten_ppm_after_a_minute_and_to_two_after_ten() {
    println!(
        "worst of {SEEDS} seeds   error of ppm        stated     inside |  60 s..10 min, |error| of stamps p95, ms"
    );
    println!("   ppm  jitter    60 s    10 min    60 s  10 min          |    whole  after 60 s  windowed-low");
    let mut inside = (0, 0);
    for ppm in [0.0, 20.0, -20.0, 100.0, -100.0, 500.0, -500.0] {
        for jitter in [1.0, 5.0, 20.0] {
            let mut worst = [0.0f64; 7];
            for seed in 0..SEEDS {
                let seed = seed * 1000 + (ppm as i64 + 600) as u64 + jitter as u64 * 77;
                let format = Format { epoch: Epoch::StreamStart, ..Format::PIPELINE };
                let mut line = Line::new(LineConfig { format, ..Default::default() });
                let mut peer = WindowedLow::default();
                let (mut errors, mut late_errors, mut peer_errors) = (Vec::new(), Vec::new(), Vec::new());
                let mut last = Ns::MIN;
                let mut after_minute = None;
                for frame in camera(seed, ppm, jitter, 600.0) {
                    let stamped = Stamped { pts: Some(frame.stamp.0 as u64), dts: None, arrival: frame.arrival };
                    let placed = line.push(stamped);
                    assert!(placed.pts > last, "{placed:?} after {last:?}");
                    last = placed.pts;
                    let error = (placed.pts - frame.taken).abs().as_f64() / 1e6;
                    errors.push(error);
                    let peer_error = (peer.push(frame.stamp.0, frame.arrival.0) - frame.taken.0).abs() as f64 / 1e6;
                    if frame.stamp >= Ns::from_secs(60) {
                        after_minute = after_minute.or(line.estimate());
                        late_errors.push(error);
                        peer_errors.push(peer_error);
                    }
                }
                let (first, last) = (after_minute.unwrap(), line.estimate().unwrap());
                for (i, estimate) in [first, last].iter().enumerate() {
                    let error = (estimate.ppm - ppm).abs();
                    worst[i] = worst[i].max(error);
                    worst[2 + i] = worst[2 + i].max(estimate.confidence_ppm);
                    inside.0 += u32::from(error <= estimate.confidence_ppm);
                    inside.1 += 1;
                }
                let jitter_error = (last.jitter.as_f64() / 1e6 - jitter).abs() / jitter;
                assert!(jitter_error < 0.3, "jitter {:?} of {jitter} ms", last.jitter);
                worst[4] = worst[4].max(percentile(&mut errors, 0.95));
                worst[5] = worst[5].max(percentile(&mut late_errors, 0.95));
                worst[6] = worst[6].max(percentile(&mut peer_errors, 0.95));
            }
            let [minute, ten, stated, stated_ten, whole, late, peer] = worst;
            println!(
                "{ppm:6} {jitter:7} {minute:7.2} {ten:9.3} {stated:7.2} {stated_ten:7.3}          | {whole:8.3} {late:12.3} {peer:13.3}"
            );
            assert!(minute <= 10.0, "{minute} ppm after 60 s at {ppm} ppm and {jitter} ms");
            assert!(ten <= 2.0, "{ten} ppm after 10 min at {ppm} ppm and {jitter} ms");
            assert!(jitter > 5.0 || whole < 1.0 && late < 1.0, "{whole} ms at {ppm} ppm and {jitter} ms");
        }
    }
    let share = f64::from(inside.0) / f64::from(inside.1);
    println!("truth within the stated 95 % confidence: {:.1} % of {}", share * 100.0, inside.1);
    assert!(share > 0.9);
}

#[test]
fn real_drift_of_two_sensors_is_found() {
    let rate = |name: &str| {
        let rows = recorded(name, [0])?;
        let first = rows[0][0];
        let mut drift = Drift::new(Ns::from_secs(600));
        let (mut count, mut last) = (0i64, first);
        for [arrival] in &rows {
            // The sender's clock is its count of frames; what was lost shows in the distance.
            count += ((*arrival - last).as_f64() / FRAME).round() as i64;
            last = *arrival;
            drift.push(Ns::from_f64(count as f64 * FRAME), *arrival);
        }
        drift.estimate()
    };
    let (Some(rgb), Some(depth)) = (rate("tum_fr1_xyz_rgb.txt"), rate("tum_fr1_xyz_depth.txt")) else { return };
    let between = depth.ppm - rgb.ppm;
    let stated = rgb.confidence_ppm.hypot(depth.confidence_ppm);
    println!("fr1_xyz: rgb {rgb:?}, depth {depth:?}: depth is {between:.1} +- {stated:.1} ppm slower");
    assert!((between - 894.0).abs() <= 25.0, "{between}");
}

#[test]
fn another_route_is_not_drift() {
    let format = Format { epoch: Epoch::StreamStart, ..Format::PIPELINE };
    for seed in 0..8 {
        let mut line = Line::new(LineConfig { format, ..Default::default() });
        for frame in camera(seed, 50.0, 2.0, 300.0) {
            let longer = if frame.taken > Ns::from_secs(150) { millis(40.0) } else { Ns::ZERO };
            let pts = Some(frame.stamp.0 as u64);
            line.push(Stamped { pts, dts: None, arrival: frame.arrival + longer });
        }
        let estimate = line.estimate().unwrap();
        println!("40 ms longer way after 150 s: {:.2} ppm of 50", estimate.ppm);
        assert!((estimate.ppm - 50.0).abs() < 5.0, "{estimate:?}");
    }
}

#[test]
fn a_shared_epoch_is_corrected_by_drift_alone() {
    // A way of half a second is not the clock's.
    let format = Format { epoch: Epoch::Unix, ..Format::PIPELINE };
    for ppm in [0.0, 500.0, -500.0] {
        let mut line = Line::new(LineConfig { format, ..Default::default() });
        let mut errors = Vec::new();
        for frame in camera(7, ppm, 5.0, 300.0) {
            let epoch = Ns::from_secs(1_700_000_000);
            let pts = Some((epoch + frame.stamp).0 as u64);
            let placed = line.push(Stamped { pts, dts: None, arrival: frame.arrival + millis(500.0) });
            errors.push((placed.pts - epoch - (frame.taken - Ns::SECOND)).abs().as_f64() / 1e6);
        }
        let worst = percentile(&mut errors, 0.95);
        println!("shared epoch, {ppm} ppm, way of 500 ms: p95 {worst:.3} ms");
        assert!(worst < 1.0);
    }
}

#[test]
fn an_outlier_costs_the_estimate_nothing() {
    let mut drift = Drift::new(Ns::from_secs(600));
    let mut random = Random::new(3);
    for frame in camera(3, 100.0, 5.0, 120.0) {
        // A few far too early, as if the judge had let them through.
        let early = if random.chance(0.002) { millis(300.0) } else { Ns::ZERO };
        drift.push(frame.stamp, frame.arrival - early);
    }
    let estimate = drift.estimate().unwrap();
    println!("with wild samples let through: {estimate:?}");
    assert!((estimate.ppm - 100.0).abs() < 10.0, "{estimate:?}");
}

#[test]
fn a_clock_that_warms_up_and_cools_is_followed() {
    // Five ppm up and down within the hour.
    let format = Format { epoch: Epoch::StreamStart, ..Format::PIPELINE };
    let mut line = Line::new(LineConfig { format, ..Default::default() });
    let mut random = Random::new(11);
    let (mut errors, mut last, mut stamp) = (Vec::new(), Ns::MIN, 0.0);
    for i in 0..3 * 3600 * 30 {
        let taken = 1e9 + f64::from(i) * FRAME;
        let ppm = 100.0 + 5.0 * (taken / 3.6e12 * std::f64::consts::TAU).sin();
        stamp += FRAME / (1.0 + ppm * 1e-6);
        let arrival = Ns::from_f64(taken + random.exponential(5e6));
        let placed = line.push(Stamped { pts: Some(stamp as u64), dts: None, arrival });
        assert!(placed.pts > last);
        last = placed.pts;
        errors.push((placed.pts - Ns::from_f64(taken)).abs().as_f64() / 1e6);
    }
    let worst = percentile(&mut errors, 0.95);
    println!("three hours, 100 +- 5 ppm, 5 ms jitter: p95 {worst:.3} ms");
    assert!(worst < 1.0);
}
