//! Missing stamps: what is put in their place.

use super::{Random, millis};
use crate::timeline::Ns;
use crate::timeline::format::Format;
use crate::timeline::line::{Line, LineConfig, Stamped};

const FRAME: i64 = 40_000_000;
const REORDERED: [i64; 8] = [0, 3, 1, 2, 6, 4, 5, 7];

/// DTS and PTS in decode order, two B-frames, PTS two frames after DTS at keyframes.
fn b_frames(i: i64) -> (Ns, Ns) {
    (Ns(i * FRAME), Ns((i / 8 * 8 + REORDERED[(i % 8) as usize] + 2) * FRAME))
}

fn push(line: &mut Line, pts: Option<Ns>, dts: Option<Ns>, i: i64) -> crate::timeline::line::Placed {
    let raw = |stamp: Option<Ns>| stamp.map(|stamp| stamp.0 as u64);
    line.push(Stamped { pts: raw(pts), dts: raw(dts), arrival: Ns(i * FRAME) })
}

fn line() -> Line {
    Line::new(LineConfig { format: Format::PIPELINE, live: false, ..Default::default() })
}

#[test]
fn dts_on_keyframes_alone_is_filled_in() {
    let mut line = line();
    let mut last = Ns::MIN;
    for i in 0..800 {
        let (dts, pts) = b_frames(i);
        let given = (i % 8 == 0).then_some(dts);
        let placed = push(&mut line, Some(pts), given, i);
        let filled = placed.dts.unwrap();
        assert!(filled >= last && filled <= placed.pts, "{i} {placed:?}");
        assert_eq!(placed.pts, pts, "{i}");
        assert_eq!(placed.filled.dts, given.is_none());
        // The first GOP shows the cadence.
        if i >= 16 {
            assert_eq!(filled, dts, "{i}");
        }
        last = filled;
    }
}

#[test]
fn missing_pts_of_b_frames_come_from_the_pattern() {
    let (mut right, mut all) = (0, 0);
    for seed in 0..10 {
        let mut random = Random::new(seed);
        let mut line = line();
        for i in 0..1000 {
            let (dts, pts) = b_frames(i);
            let missing = i >= 24 && random.chance(0.1);
            let placed = push(&mut line, (!missing).then_some(pts), Some(dts), i);
            assert_eq!(placed.filled.pts, missing);
            assert_eq!(placed.dts, Some(dts));
            if missing {
                all += 1;
                right += i32::from((placed.pts - pts).abs() < millis(1.0));
            }
        }
    }
    println!("PTS missing from a tenth of a stream with B-frames: {right} of {all} put right");
    assert!(f64::from(right) >= 0.98 * f64::from(all));
}

#[test]
fn frames_without_any_stamp_take_their_place_in_the_cadence() {
    let mut line = line();
    for i in 0..200 {
        let pts = Ns(i * FRAME);
        let missing = i > 10 && i % 7 < 3;
        let placed = push(&mut line, (!missing).then_some(pts), None, i);
        assert_eq!((placed.pts, placed.is_interpolated(), placed.dts), (pts, missing, None), "{i}");
    }
}

#[test]
fn streams_without_dts_get_none() {
    let mut line = line();
    assert!((0..50).all(|i| push(&mut line, Some(b_frames(i).1), None, i).dts.is_none()));
}

#[test]
fn reordering_that_nobody_announced_is_noticed() {
    let mut line = line();
    let last: Vec<_> = (0..200).map(|i| (push(&mut line, Some(b_frames(i).1), None, i), b_frames(i).1)).collect();
    assert!(last[100..].iter().all(|(placed, pts)| placed.pts == *pts && !placed.is_interpolated()));
}
