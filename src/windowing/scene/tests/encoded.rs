//! Cuts from coded sizes.

use proptest::prelude::*;

use crate::windowing::scene::encoded::{EncodedDetector, Unit};

/// `(pts, bytes, keyframe)` in decode order.
fn cuts(units: impl IntoIterator<Item = (u64, u64, bool)>) -> Vec<u64> {
    let mut detector = EncodedDetector::default();
    let mut cuts: Vec<u64> =
        units.into_iter().filter_map(|(pts, bytes, keyframe)| detector.push(Unit { pts, bytes, keyframe })).collect();
    cuts.extend(std::iter::from_fn(|| detector.drain()));
    cuts
}

/// Sizes that vary by some percent.
fn about(size: u64, n: u64) -> u64 {
    size + size / 100 * (n * 7919 % 11)
}

#[test]
fn keyframes_that_keep_to_their_period_are_no_cuts() {
    let stream = (0..300).map(|n| if n % 30 == 0 { (n, about(40_000, n), true) } else { (n, about(3_000, n), false) });
    assert_eq!(cuts(stream), [0u64; 0]);
}

#[test]
fn a_keyframe_before_its_time_is_a_cut() {
    let key = |n| [0, 50, 100, 117, 167].contains(&n);
    let stream = (0..200).map(|n| (n, about(if key(n) { 40_000 } else { 3_000 }, n), key(n)));
    assert_eq!(cuts(stream), [117]);
}

#[test]
fn a_predicted_frame_that_stands_out_is_a_cut() {
    let stream = (0..100).map(|n| match n {
        0 | 50 => (n, about(40_000, n), true),
        33 => (n, 30_000, false),
        _ => (n, about(3_000, n), false),
    });
    assert_eq!(cuts(stream), [33]);
}

#[test]
fn motion_that_goes_on_is_no_cut() {
    let stream = (0..50).map(|n| match n {
        0 => (n, 40_000, true),
        20.. => (n, about(14_000, n), false),
        _ => (n, about(3_000, n), false),
    });
    assert_eq!(cuts(stream), [0u64; 0]);
}

#[test]
fn with_b_frames_the_cut_is_told_between_two_predicted_frames() {
    // Display order 0 | 4 1 2 3 | 8 5 6 7 | ...
    let group = |first: u64| [4, 1, 2, 3].map(|n| (first + n, if n == 4 { about(4_000, first) } else { 600 }, false));
    let stream =
        std::iter::once((0, 40_000, true)).chain((0..20).flat_map(|n| group(4 * n))).map(|(pts, bytes, key)| {
            let bytes = if pts == 40 { 30_000 } else { bytes };
            (pts, bytes, key)
        });
    assert_eq!(cuts(stream), [39]);
}

#[test]
fn in_streams_of_keyframes_only_sizes_that_settle_elsewhere_are_a_cut() {
    let stream = (0..60).map(|n| (n, about(if n < 31 { 40_000 } else { 62_000 }, n), true));
    assert_eq!(cuts(stream), [31]);
    let flash = (0..60).map(|n| (n, if n == 31 { 9_000 } else { about(40_000, n) }, true));
    assert_eq!(cuts(flash), [0u64; 0]);
}

proptest! {
    /// Any sizes, stamps and flags: no panic, no more cuts than every third unit.
    #[test]
    fn nothing_makes_it_panic(units in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<bool>()), 0..200)) {
        let count = units.len();
        prop_assert!(cuts(units).len() <= count / 3 + 1);
    }
}
