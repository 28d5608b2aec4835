//! Formats through the element: exact to the tick across wraps, and found out by itself. Figures are printed.

use gst::prelude::*;

use super::rig::{MS, Rig};
use super::streams::{Counting, Random, millis, video, with_b_frames};

const SECOND: i128 = 1_000_000_000;
const START: i64 = 1_000_000_000;

const HLS: Counting = Counting { per_second: 90_000, bits: 33, unix: false, low: false };
const RTMP: Counting = Counting { per_second: 1000, bits: 32, unix: false, low: false };

fn nanos(ticks: i128, counting: Counting) -> i128 {
    (ticks * SECOND).div_euclid(counting.per_second.into())
}

struct Sent {
    pts: i128,
    dts: i128,
}

/// Frames `frame` ticks apart with B-frames, from shortly before a wrap.
struct Journey {
    counting: Counting,
    live: bool,
    frame: i128,
    count: i64,
    lost: f64,
    jitter: f64,
}

impl Journey {
    /// What was sent, and DTS and PTS as they came out.
    fn run(&self, format: &str, seed: u64) -> (Vec<Sent>, Vec<(i128, i128)>, gst::Structure) {
        let rig = Rig::new(self.live);
        rig.element.set_property_from_str("timestamp-format", format);
        // Nothing but the format changes stamps then.
        rig.element.set_property("max-slew-ppm", 0u32);
        rig.play();
        let port = rig.stream("video/x-h264");
        let mut random = Random::new(seed);
        let wrap = 1i128 << self.counting.bits;
        let start = wrap - (random.unit() * 9.0 * self.frame as f64) as i128 - 1;
        let (mut sent, mut arrival) = (Vec::new(), 0);
        for i in 0..self.count {
            if i > 10 && random.chance(self.lost) {
                continue;
            }
            let (dts, pts) = with_b_frames(i);
            let (dts, pts) = (start + i128::from(dts) * self.frame, start + i128::from(pts) * self.frame);
            let came = START + nanos(dts - start, self.counting) as i64 + millis(random.exponential(self.jitter));
            arrival = came.max(arrival);
            rig.at_ns(arrival as u64);
            let cut = |ticks: i128| Some(ticks.rem_euclid(wrap) as u64);
            port.push_with(cut(pts), cut(dts)).unwrap();
            sent.push(Sent { pts, dts });
        }
        port.eos();
        let time = |time: Option<gst::ClockTime>| i128::from(time.unwrap().nseconds());
        let out = port.rest().iter().map(|buffer| (time(buffer.dts()), time(buffer.pts()))).collect();
        (sent, out, port.stats())
    }

    fn check(&self, format: &str, seed: u64) {
        let (sent, out, stats) = self.run(format, seed);
        assert_eq!(sent.len(), out.len());
        let tick = nanos(1, self.counting) + 1;
        let (first, zero) = (sent[0].dts, out[0].0);
        let mut worst = 0;
        for (sent, (dts, pts)) in sent.iter().zip(&out) {
            let error = |ticks: i128, out: i128| (out - zero - nanos(ticks - first, self.counting)).abs();
            worst = worst.max(error(sent.dts, *dts)).max(error(sent.pts, *pts));
        }
        assert!(worst <= tick, "{format} {seed}: {worst} ns");
        assert!(out.windows(2).all(|pair| pair[0].0 < pair[1].0), "{format} {seed}");
        let wraps = (sent[sent.len() - 1].dts >> self.counting.bits) - (first >> self.counting.bits);
        let live = if self.live { "live" } else { "not live" };
        let get = |name: &str| stats.get::<u64>(name).unwrap();
        assert_eq!((get("outliers"), get("jumps")), (0, 0), "{stats}");
        println!(
            "{format:5} {live:8} seed {seed}: {} frames, {} noticed as lost stretches, {wraps} wraps, at most {worst} ns off",
            out.len(),
            get("gaps")
        );
    }
}

#[test]
fn streams_cross_a_wrap_exact_to_the_tick() {
    for live in [false, true] {
        for (format, counting, frame) in [("hls", HLS, 3600), ("rtmp", RTMP, 40)] {
            for seed in 0..3 {
                Journey { counting, live, frame, count: 500, lost: 0.02, jitter: 5.0 }.check(format, seed);
            }
        }
    }
}

#[test]
fn streams_cross_two_wraps_exact_to_the_tick() {
    for live in [false, true] {
        // Few frames an hour, or two wraps would be millions of them.
        for (format, counting, frame) in [("hls", HLS, 90_000 * 40), ("rtmp", RTMP, 1000 * 400)] {
            let count = ((1i128 << counting.bits) / frame) as i64 + 40;
            Journey { counting, live, frame, count, lost: 0.02, jitter: 500.0 }.check(format, 1);
        }
    }
}

#[test]
fn counts_that_do_not_wrap_come_out_exact_to_the_tick() {
    const EPOCH: u64 = 1_767_225_600;
    for live in [false, true] {
        for (format, per_second, zero) in [
            ("pipeline", 1_000_000_000u64, 7),
            ("epoch-millis", 1000, EPOCH),
            ("epoch-seconds", 1, EPOCH),
            ("relative-seconds", 1, 0),
        ] {
            let rig = Rig::new(live);
            rig.element.set_property_from_str("timestamp-format", format);
            rig.play();
            let port = rig.stream("video/x-raw");
            let mut random = Random::new(per_second);
            let (mut arrival, mut taken) = (0, Vec::new());
            for i in 0..250u64 {
                if i > 10 && random.chance(0.02) {
                    continue;
                }
                let at = 40 * i * MS;
                arrival = (START as u64 + at + millis(random.exponential(2.0)) as u64).max(arrival);
                rig.at_ns(arrival);
                let count = u128::from(at) * u128::from(per_second) / SECOND as u128;
                port.push(Some(zero * per_second + count as u64)).unwrap();
                taken.push(at);
            }
            port.eos();
            let out: Vec<u64> = port.rest().iter().map(|buffer| buffer.pts().unwrap().nseconds()).collect();
            assert!(out.is_sorted(), "{format}");
            let zero = out[out.len() - 1] as i128 - taken[taken.len() - 1] as i128;
            // Before the first tick nobody knows where in a second frames lie.
            let known = if per_second == 1 { 50 } else { 0 };
            let errors = out.iter().zip(&taken).skip(known).map(|(out, at)| (*out as i128 - *at as i128 - zero).abs());
            let worst = errors.max().unwrap();
            let tick = SECOND / i128::from(per_second);
            println!(
                "{format:16} {}: at most {:.3} ms off",
                if live { "live    " } else { "not live" },
                worst as f64 / 1e6
            );
            // What live jitter makes of the correction for drift is less than that.
            let most = if per_second == 1 { 80_000_000 } else { tick } + if live { 1_000_000 } else { 0 };
            assert!(worst <= most, "{format}: {worst} ns");
        }
    }
}

#[test]
fn auto_is_right_within_two_seconds_or_openly_undecided() {
    const SEEDS: u64 = 12;
    let formats = [
        ("pipeline", Counting { per_second: 1_000_000_000, bits: 0, unix: false, low: true }),
        ("epoch-seconds", Counting { per_second: 1, bits: 0, unix: true, low: false }),
        ("epoch-millis", Counting { per_second: 1000, bits: 0, unix: true, low: false }),
        ("hls", HLS),
        ("rtmp", RTMP),
        ("relative-seconds", Counting { per_second: 1, bits: 0, unix: false, low: true }),
    ];
    println!("2 s of 25 fps, {SEEDS} streams each      right  undecided  wrong");
    let mut found = 0;
    for (format, counting) in formats {
        for (b_frames, burst) in [(false, false), (true, false), (false, true)] {
            let (mut right, mut open) = (0, 0);
            for seed in 0..SEEDS {
                let rig = Rig::new(true);
                rig.element.set_property_from_str("timestamp-format", "auto");
                rig.play();
                let port = rig.stream(if b_frames { "video/x-h264" } else { "video/x-raw" });
                let stamps = video(counting, seed, b_frames, burst, 2.0);
                for (raw, arrival) in &stamps {
                    rig.at_ns((START + arrival) as u64);
                    port.push(Some(*raw)).unwrap();
                }
                let said = port.stats().get::<String>("format").unwrap();
                port.eos();
                let out = port.rest();
                assert_eq!(out.len(), stamps.len());
                assert!(b_frames || out.iter().map(|buffer| buffer.pts()).is_sorted(), "{format} {seed}");
                match said.as_str() {
                    "undecided" => open += 1,
                    said => {
                        assert_eq!(said, format, "seed {seed}");
                        right += 1;
                    }
                }
            }
            found += right;
            let kind = match (b_frames, burst) {
                (true, _) => "B-frames",
                (_, true) => "burst",
                _ => "",
            };
            println!("{format:17} {kind:20} {right:5} {open:10}      0");
        }
    }
    assert!(found > 100, "auto finds nothing out: {found}");
}
