//! Formats: exact to the tick across wraps, and never detected wrongly.

use proptest::prelude::*;

use super::streams::{self, Counting};
use super::{Random, millis};
use crate::timeline::Ns;
use crate::timeline::detect::{Detection, Detector};
use crate::timeline::format::{Epoch, Format, FormatError, Unit, Unwrapper, Wrap};
use crate::timeline::line::{Line, LineConfig, Stamped};
use crate::timeline::outlier::Verdict;

/// DTS and PTS of a stream with two B-frames, in ticks from the start: decode order.
fn with_b_frames(i: i64, frame: f64) -> (i128, i128) {
    let (dts, pts) = streams::with_b_frames(i);
    ((dts as f64 * frame).round() as i128, (pts as f64 * frame).round() as i128)
}

#[test]
fn streams_come_out_exact_to_the_tick_across_one_wrap_and_two() {
    for (format, name) in [(Format::HLS, "hls"), (Format::RTMP, "rtmp")] {
        let wrap = 1i128 << format.wrap.bits();
        let per_second = f64::from(format.unit.denominator());
        for seed in 0..6 {
            let mut random = Random::new(seed);
            // A little before a wrap, or right at zero.
            let start = if seed == 0 { 0 } else { wrap - (random.unit() * 10.0 * per_second) as i128 };
            let mut line = Line::new(LineConfig { format, live: false, ..Default::default() });
            let mut unwrapper = Unwrapper::new(format);
            let (mut count, mut last) = (0, Ns::MIN);
            // 25 fps around the wraps; in between a frame in some minutes.
            let mut i = 0i64;
            let mut arrival = Ns::ZERO;
            loop {
                let (dts, pts) = with_b_frames(i, per_second / 25.0);
                let (dts, pts) = (start + dts, start + pts);
                if dts > 2 * wrap + 20 * per_second as i128 {
                    break;
                }
                let near = |at: i128| (dts - at).abs() < 15 * per_second as i128;
                i += if near(wrap) || near(2 * wrap) || i < 500 { 1 } else { 8 * 100 };
                if random.chance(0.02) && i > 10 {
                    continue;
                }
                arrival = Ns::from_f64(i as f64 * 4e7 + random.exponential(5e6)).max(arrival);
                let cut = |ticks: i128| ticks.rem_euclid(wrap) as u64;
                // Each by itself.
                assert_eq!(unwrapper.push(cut(dts), None), dts, "{name} {seed}");
                let mut near = unwrapper.clone();
                assert_eq!(near.push(cut(pts), None), pts, "{name} {seed}");
                // PTS alone, in decode order.
                if i < 500 {
                    let mut alone = unwrapper.clone();
                    alone.accept(pts, None);
                    assert_eq!(alone.unwrap(cut(dts), None), dts);
                }
                // And in the whole line, as far as no gap of minutes is in the way.
                if i < 500 {
                    let stamped = Stamped { pts: Some(cut(pts)), dts: Some(cut(dts)), arrival };
                    let placed = line.push(stamped);
                    let out = placed.dts.unwrap();
                    assert!(out > last, "{name} {seed} {placed:?}");
                    last = out;
                    assert_eq!(format.unit.ticks(out), dts, "{name} {seed} {i} {placed:?}");
                    assert_eq!(format.unit.ticks(placed.pts), pts, "{name} {seed} {i} {placed:?}");
                }
                count += 1;
            }
            if seed == 1 {
                println!("{name}: {count} frames across two wraps, exact to the tick");
            }
        }
    }
}

#[test]
fn a_whole_line_crosses_two_wraps() {
    // A frame in two seconds, so that two wraps are not a billion frames.
    for (format, frame) in [(Format::HLS, 180_000.0), (Format::RTMP, 2000.0)] {
        let wrap = 1i128 << format.wrap.bits();
        let start = wrap - 100_000;
        let mut random = Random::new(5);
        let mut line = Line::new(LineConfig { format, live: false, ..Default::default() });
        let (mut last, mut gaps, mut lost) = (Ns::MIN, 0, 0);
        for i in 0.. {
            let (dts, pts) = with_b_frames(i, frame);
            let (dts, pts) = (start + dts, start + pts);
            if dts > 2 * wrap + 10_000_000 {
                break;
            }
            if i > 10 && random.chance(0.02) {
                lost += 1;
                continue;
            }
            let cut = |ticks: i128| Some(ticks.rem_euclid(wrap) as u64);
            let arrival = Ns::from_secs(2 * i) + millis(random.exponential(50.0));
            let placed = line.push(Stamped { pts: cut(pts), dts: cut(dts), arrival });
            assert!(placed.dts.unwrap() > last && placed.epoch == 0, "{i} {placed:?}");
            last = placed.dts.unwrap();
            gaps += if let Verdict::Gap { missing } = placed.verdict { missing } else { 0 };
            assert_eq!((format.unit.ticks(placed.pts), format.unit.ticks(last)), (pts, dts), "{i} {placed:?}");
        }
        println!("{:?}: {lost} lost, {gaps} noticed", format.nick());
        assert_eq!(gaps, lost);
    }
}

#[test]
fn b_frames_go_below_zero() {
    let mut unwrapper = Unwrapper::new(Format::HLS);
    assert_eq!(unwrapper.push(3600, None), 3600);
    assert_eq!(unwrapper.push((1 << 33) - 3600, None), -3600);
    assert_eq!(unwrapper.push(0, None), 0);
    assert_eq!(Format::HLS.time(-3600), millis(-40.0));
}

#[test]
fn a_camera_that_was_off_for_the_night_is_not_taken_back_in_time() {
    let hours = |hours: i64| Ns::from_secs(3600 * hours);
    for off in [1, 12, 14, 20, 26, 27, 40, 60] {
        let mut unwrapper = Unwrapper::new(Format::HLS);
        unwrapper.push(1000, Some(Ns::ZERO));
        let ticks = 1000 + i128::from(off) * 3600 * 90_000;
        let raw = ticks.rem_euclid(1 << 33) as u64;
        assert_eq!(unwrapper.push(raw, Some(hours(off) + millis(700.0))), ticks, "{off} h");
        // A pipeline that was paused that long, and a stream that went on where it stood.
        assert_eq!(unwrapper.push(raw + 3600, Some(hours(3 * off))), ticks + 3600, "{off} h");
    }
}

#[test]
fn presets_say_what_they_are() {
    for (nick, format) in Format::PRESETS {
        assert_eq!(Format::preset(nick), Some(format));
        assert_eq!(format.nick(), Some(nick));
    }
    assert_eq!(Format::preset("auto"), None);
    assert_eq!(Unit::new(0, 1), Err(FormatError::Unit));
    assert_eq!(Wrap::from_bits(31), Err(FormatError::Wrap(31)));
    // 2026-01-01, as both count it.
    let ntp = Format { epoch: Epoch::Ntp, ..Format::EPOCH_SECONDS };
    assert_eq!(ntp.time(3_976_214_400), Format::EPOCH_SECONDS.time(1_767_225_600));
    assert_eq!(Format::EPOCH_MILLIS.time(1_767_225_600_040), Ns(1_767_225_600_040_000_000));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn ticks_survive_nanoseconds(ticks in -(1i128 << 40)..1i128 << 40, which in 0usize..6) {
        let (_, format) = Format::PRESETS[which];
        let time = format.unit.span(ticks);
        // What a signed count of nanoseconds holds: 292 years.
        if time.abs() < Ns::MAX {
            prop_assert_eq!(format.unit.ticks(time), ticks);
        }
    }

    #[test]
    fn whatever_comes_is_unwrapped_to_itself(
        raws in prop::collection::vec((any::<u64>(), any::<i64>()), 1..50),
        bits in prop::sample::select(vec![0u32, 32, 33]),
        numerator in 1u32.., denominator in 1u32..,
    ) {
        let unit = Unit::new(numerator, denominator).unwrap();
        let format = Format { unit, wrap: Wrap::from_bits(bits).unwrap(), epoch: Epoch::StreamStart };
        let mut unwrapper = Unwrapper::new(format);
        for (raw, arrival) in raws {
            let ticks = unwrapper.push(raw, Some(Ns(arrival)));
            format.time(ticks);
            let kept = if bits == 0 { raw } else { raw & ((1 << bits) - 1) };
            prop_assert_eq!(ticks.rem_euclid(1i128 << if bits == 0 { 64 } else { bits }), kept.into());
        }
    }

    #[test]
    fn any_bytes_are_no_evidence_of_a_panic(raws in prop::collection::vec((any::<u64>(), any::<i64>()), 1..600)) {
        let mut detector = Detector::default();
        for (raw, arrival) in raws {
            detector.push(raw, Ns(arrival));
        }
    }
}

fn video(format: Format, seed: u64, b_frames: bool, burst: bool, seconds: f64) -> Vec<(u64, Ns)> {
    let counting = Counting {
        per_second: format.unit.denominator(),
        bits: format.wrap.bits(),
        unix: format.epoch == Epoch::Unix,
        low: format.epoch == Epoch::Pipeline || format.unit == Unit::SECOND,
    };
    let stamps = streams::video(counting, seed, b_frames, burst, seconds);
    stamps.into_iter().map(|(raw, arrival)| (raw, Ns(arrival))).collect()
}

#[test]
fn a_format_is_found_or_openly_undecided_but_never_wrong() {
    println!(
        "            within 2 s: right  undecided  wrong |  within 10 s: right  undecided  wrong   (of 200 streams)"
    );
    for (nick, format) in Format::PRESETS {
        for (b_frames, burst) in [(false, false), (true, false), (false, true)] {
            let mut counts = [[0; 3]; 2];
            for seed in 0..200 {
                for (counts, seconds) in counts.iter_mut().zip([2.0, 10.0]) {
                    let mut detector = Detector::default();
                    for (raw, arrival) in video(format, seed, b_frames, burst, seconds) {
                        detector.push(raw, arrival);
                    }
                    match detector.detection() {
                        Detection::Decided(found) if found == format => counts[0] += 1,
                        Detection::Undecided(_) => counts[1] += 1,
                        Detection::Decided(found) => {
                            println!("{nick} seed {seed}: {found:?}");
                            counts[2] += 1;
                        }
                    }
                }
            }
            let [[right, open, wrong], [right10, open10, wrong10]] = counts;
            let kind = if burst {
                "burst"
            } else if b_frames {
                "B"
            } else {
                ""
            };
            println!("{nick:17} {kind:5} {right:6} {open:10} {wrong:6} | {right10:19} {open10:10} {wrong10:6}");
            assert_eq!((wrong, wrong10), (0, 0), "{nick}");
            assert!(right10 >= 150, "{nick}: only {right10} of 200 are found in 10 s");
        }
    }
}

#[test]
fn other_units_stay_undecided() {
    for denominator in [48_000, 44_100, 25, 600] {
        let format = Format { unit: Unit::new(1, denominator).unwrap(), ..Format::RTMP };
        for seed in 0..50 {
            let mut detector = Detector::default();
            for (raw, arrival) in video(format, seed, false, false, 10.0) {
                detector.push(raw, arrival);
            }
            assert!(
                matches!(detector.detection(), Detection::Undecided(_)),
                "1/{denominator} {:?}",
                detector.detection()
            );
        }
    }
}
