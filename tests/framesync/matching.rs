//! Sets through the element on recorded stamps of two sensors, with losses, noise, drift and delay.

use std::collections::BTreeMap;

use gst::prelude::*;

use super::rig::{MS, Rig, mark};
use super::streams::{Frame, HARD, Trial, frames, recorded};

/// Share of the true pairs found, and share of the found that are true.
fn score(pairs: &[[i64; 2]], trial: Trial, seed: u64, latency: u64) -> (f64, f64) {
    let (frames, both) = frames(pairs, trial, seed);
    let rig = Rig::aligned(true);
    if trial.own_zero {
        rig.element.set_property_from_str("timestamp-format", "hls");
    } else {
        rig.element.set_property_from_str("timestamp-epoch", "unix");
    }
    rig.element.set_property("latency", latency * MS);
    rig.element.set_property("max-interval", 16 * MS);
    rig.play();
    let ports = [rig.stream("video/x-raw"), rig.stream("video/x-raw")];
    let start = frames[0].arrival - 1_000_000_000;
    for Frame { stream, index, raw, arrival, .. } in frames {
        rig.ring_ns((arrival - start) as u64);
        ports[stream].push_number(index as u64, Some(raw), None).unwrap();
    }
    ports.iter().for_each(|port| port.eos());
    let sets = |stream: usize| -> BTreeMap<u64, u64> {
        let out: &super::rig::Port = &ports[stream];
        out.rest().iter().filter_map(|buffer| Some((mark(buffer)?.id, buffer.offset()))).collect()
    };
    let (rgb, depth) = (sets(0), sets(1));
    let found: Vec<_> = rgb.iter().filter_map(|(id, index)| Some((index, depth.get(id)?))).collect();
    let right = found.iter().filter(|(a, b)| a == b).count() as f64;
    (right / both as f64, right / found.len() as f64)
}

#[test]
fn pairs_of_two_sensors_are_found_through_losses_noise_and_drift() {
    let Some(pairs) = recorded("tum_fr3_office_assoc_rgb_depth.txt", [0, 2]) else { return };
    let late = Trial { late: 500.0, ..HARD };
    let cases = [
        ("5 % lost, 4 ms noise, 500 ppm", HARD, 200),
        ("  and depth 500 ms late, latency 600 ms", late, 600),
        ("  -500 ppm instead", Trial { ppm: -500.0, ..HARD }, 200),
        ("  in 90 kHz from zeros of their own", Trial { own_zero: true, ..HARD }, 200),
    ];
    println!("fr3 through the element, worst of 2 seeds     found   right");
    for (name, trial, latency) in cases {
        let scores: Vec<_> = (0..2).map(|seed| score(&pairs, trial, seed, latency)).collect();
        let found = scores.iter().map(|score| score.0).fold(1.0, f64::min);
        let right = scores.iter().map(|score| score.1).fold(1.0, f64::min);
        println!("{name:45} {found:.4}  {right:.4}");
        assert!(found >= 0.995 && right >= 0.995, "{name}: {found} found, {right} right");
    }
}
