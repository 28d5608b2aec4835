//! Drift through the element: what `stats` say against the truth, and stamps against when frames were taken.

use gst::prelude::*;

use super::rig::{Port, Rig};
use super::streams::{FRAME, WindowedLow, camera, percentile, recorded};

/// A stream of nanoseconds from the sender's own zero.
fn stream(rig: &Rig) -> Port {
    rig.element.set_property_from_str("timestamp-epoch", "stream-start");
    rig.element.set_property_from_str("timestamp-unit", "1/1000000000");
    rig.play();
    rig.stream("video/x-raw")
}

fn drift(port: &Port) -> (f64, f64) {
    let stats = port.stats();
    (stats.get("drift-ppm").unwrap(), stats.get("drift-confidence-ppm").unwrap())
}

struct Figures {
    /// Error of ppm and what is stated, after a minute and at the end.
    minute: (f64, f64),
    end: (f64, f64),
    /// 95th percentiles of the errors of stamps, ms.
    corrected: f64,
    windowed_low: f64,
}

fn measure(ppm: f64, jitter: f64, seconds: f64) -> Figures {
    let rig = Rig::new(true);
    let port = stream(&rig);
    let seed = (ppm as i64 + 600) as u64 + jitter as u64 * 77;
    let (mut taken, mut peer, mut minute) = (Vec::new(), WindowedLow::default(), None);
    let mut peer_errors = Vec::new();
    for shot in camera(seed, ppm, jitter, seconds) {
        rig.at_ns(shot.arrival as u64);
        port.push(Some(shot.stamp as u64)).unwrap();
        taken.push(shot.taken);
        peer_errors.push((peer.push(shot.stamp, shot.arrival) - shot.taken).abs() as f64 / 1e6);
        if shot.stamp >= 59_900_000_000 {
            minute = minute.or_else(|| Some(drift(&port)));
        }
    }
    let end = drift(&port);
    port.eos();
    let out: Vec<i64> = port.rest().iter().map(|buffer| buffer.pts().unwrap().nseconds() as i64).collect();
    assert_eq!(out.len(), taken.len());
    assert!(out.windows(2).all(|pair| pair[0] < pair[1]), "{ppm} ppm, {jitter} ms: backwards");
    let mut errors: Vec<f64> = out.iter().zip(&taken).map(|(out, taken)| (out - taken).abs() as f64 / 1e6).collect();
    let off = |(said, stated): (f64, f64)| ((said - ppm).abs(), stated);
    Figures {
        minute: off(minute.unwrap()),
        end: off(end),
        corrected: percentile(&mut errors, 0.95),
        windowed_low: percentile(&mut peer_errors, 0.95),
    }
}

fn table(seconds: f64, jitters: &[f64]) {
    println!(
        "{seconds} s: error of ppm, stated, after 60 s | at the end | |error| of stamps p95, ms: ours, windowed-low"
    );
    for ppm in [0.0, 20.0, -20.0, 100.0, -100.0, 500.0, -500.0] {
        for &jitter in jitters {
            let Figures { minute, end, corrected, windowed_low } = measure(ppm, jitter, seconds);
            println!(
                "{ppm:6} ppm {jitter:4} ms   {:6.2} {:6.2} | {:6.3} {:6.3} | {corrected:7.3} {windowed_low:7.3}",
                minute.0, minute.1, end.0, end.1
            );
            assert!(minute.0 <= 10.0, "{} ppm after a minute", minute.0);
            assert!(seconds < 600.0 || end.0 <= 2.0, "{} ppm after ten minutes", end.0);
            assert!(minute.1.is_finite() && end.1.is_finite() && minute.0 < 4.0 * minute.1.max(0.5));
            assert!(jitter != 5.0 || corrected < 1.0, "{corrected} ms at {ppm} ppm and {jitter} ms");
        }
    }
}

#[test]
fn drift_is_known_after_a_minute_whatever_the_jitter() {
    table(60.0, &[1.0, 5.0, 20.0]);
}

#[test]
fn drift_is_known_to_two_ppm_after_ten_minutes() {
    table(600.0, &[5.0]);
}

#[test]
fn real_drift_of_two_sensors_is_measured() {
    let rate = |name: &str| {
        let rows = recorded(name, [0])?;
        let rig = Rig::new(true);
        let port = stream(&rig);
        let first = rows[0][0];
        let (mut count, mut last) = (0, first);
        for [arrival] in &rows {
            // The sender's clock is its count of frames; what was lost shows in the distance.
            count += ((arrival - last) as f64 / FRAME).round() as i64;
            last = *arrival;
            rig.at_ns((arrival - first) as u64 + 1_000_000_000);
            port.push(Some((count as f64 * FRAME) as u64)).unwrap();
        }
        Some(drift(&port))
    };
    let (Some(rgb), Some(depth)) = (rate("tum_fr1_xyz_rgb.txt"), rate("tum_fr1_xyz_depth.txt")) else { return };
    let (between, stated) = (depth.0 - rgb.0, rgb.1.hypot(depth.1));
    println!("fr1_xyz through the element: depth is {between:.1} +- {stated:.1} ppm slower than rgb");
    assert!((between - 894.0).abs() <= 25.0, "{between}");
}
