//! What is a cut and what is none.

use proptest::prelude::*;

use super::{HEIGHT, WIDTH, Yuv, picture};
use crate::windowing::scene::detector::{LOOK_AHEAD, SceneConfig, SceneDetector, Verdict};
use crate::windowing::scene::picture::PixelFormat;

fn verdicts_of(frames: impl IntoIterator<Item = Yuv>, format: PixelFormat) -> Vec<Verdict<usize>> {
    let mut detector = SceneDetector::new(SceneConfig::default());
    let mut verdicts = Vec::new();
    for (mark, frame) in frames.into_iter().enumerate() {
        verdicts.extend(detector.push(&picture(format, &frame.to(format)), mark));
    }
    verdicts.extend(std::iter::from_fn(|| detector.drain()));
    verdicts
}

fn cuts(frames: impl IntoIterator<Item = Yuv>) -> Vec<usize> {
    verdicts_of(frames, PixelFormat::I420).iter().filter(|v| v.cut).map(|v| v.mark).collect()
}

/// A slow pan over one scene.
fn pan(seed: u32, frames: i32) -> impl Iterator<Item = Yuv> {
    (0..frames).map(move |n| Yuv::scene(seed, 2 * n, n))
}

#[test]
fn a_cut_is_found_in_every_format() {
    for (format, name) in PixelFormat::ALL {
        let verdicts = verdicts_of(pan(1, 6).chain(pan(2, 6)), format);
        let cuts: Vec<usize> = verdicts.iter().filter(|v| v.cut).map(|v| v.mark).collect();
        assert_eq!(cuts, [6], "{name}");
        assert!(verdicts[6].score > 0.3, "{name}: {}", verdicts[6].score);
    }
}

#[test]
fn every_shot_of_a_slide_show_is_found() {
    let slides = (0..40).map(|n| Yuv::scene(n / 5, 0, 0));
    assert_eq!(cuts(slides), [5, 10, 15, 20, 25, 30, 35]);
}

#[test]
fn a_cut_between_dark_scenes_is_found() {
    let dark = |seed| pan(seed, 6).map(|frame| frame.lit(0.08));
    assert_eq!(cuts(dark(3).chain(dark(4))), [6]);
}

#[test]
fn a_cut_to_black_and_back_is_two() {
    let black = std::iter::repeat_n(Yuv::flat(16), 5);
    assert_eq!(cuts(pan(1, 6).chain(black).chain(pan(1, 6))), [6, 11]);
}

#[test]
fn a_pan_is_no_cut() {
    for speed in [1, 4, 9, 16, 40] {
        assert_eq!(cuts((0..24).map(|n| Yuv::scene(1, speed * n, 0))), [0usize; 0], "{speed} pixels a frame");
    }
}

#[test]
fn a_pan_of_repeated_frames_is_no_cut() {
    for times in [2, 3] {
        assert_eq!(cuts((0..30).map(|n| Yuv::scene(1, 12 * (n / times), 0))), [0usize; 0], "each {times} times");
    }
}

#[test]
fn a_flash_of_up_to_two_frames_is_no_cut() {
    for length in [1, 2] {
        let flash = |(n, frame)| if (8..8 + length).contains(&n) { Yuv::flat(235) } else { frame };
        assert_eq!(cuts(pan(1, 20).enumerate().map(flash)), [0usize; 0], "{length} frames");
    }
}

#[test]
fn a_flash_next_to_a_cut_leaves_one_cut() {
    for at in [2, 3, 10, 11] {
        let flash = |(n, frame)| if n == at { Yuv::flat(235) } else { frame };
        assert_eq!(cuts(pan(1, 6).chain(pan(2, 8)).enumerate().map(flash)), [6], "flash at {at}");
    }
}

#[test]
fn light_that_is_switched_is_no_cut() {
    let lit = |(n, frame): (usize, Yuv)| if n / 6 % 2 == 1 { frame.lit(0.5) } else { frame };
    assert_eq!(cuts(pan(1, 24).enumerate().map(lit)), [0usize; 0]);
}

#[test]
fn fades_are_no_cuts() {
    let light = |n: usize| (n.min(29 - n) as f32 / 8.0).min(1.0);
    let faded = |seed| pan(seed, 30).enumerate().map(move |(n, frame)| frame.lit(light(n)));
    assert_eq!(cuts(faded(1).chain(faded(2))), [0usize; 0]);
}

#[test]
fn a_dissolve_is_no_cut() {
    let dissolve = (0..30).map(|n| {
        let part = ((n as f32 - 9.0) / 11.0).clamp(0.0, 1.0);
        Yuv::scene(1, n, 0).mix(&Yuv::scene(2, n, 0), part)
    });
    assert_eq!(cuts(dissolve), [0usize; 0]);
}

#[test]
fn a_title_is_no_cut() {
    let title = |(n, mut frame): (usize, Yuv)| {
        if n / 6 % 2 == 1 {
            for row in HEIGHT * 7 / 10..HEIGHT * 9 / 10 {
                let row = &mut frame.y[row * WIDTH + WIDTH / 10..row * WIDTH + WIDTH * 9 / 10];
                row.iter_mut().enumerate().for_each(|(x, v)| *v = if x / 3 % 3 == 0 { 235 } else { 16 });
            }
        }
        frame
    };
    assert_eq!(cuts(pan(1, 24).enumerate().map(title)), [0usize; 0]);
}

#[test]
fn two_frames_blended_at_a_cut_leave_one_cut() {
    let blend = [Yuv::scene(1, 0, 0).mix(&Yuv::scene(2, 0, 0), 0.5)];
    let found = cuts(pan(1, 6).chain(blend).chain(pan(2, 6)));
    assert!(matches!(found[..], [6 | 7]), "{found:?}");
}

#[test]
fn a_verdict_comes_with_the_second_frame_after() {
    let frame = Yuv::flat(90).to(PixelFormat::I420);
    let mut detector = SceneDetector::new(SceneConfig::default());
    for mark in 0usize..10 {
        let verdict = detector.push(&picture(PixelFormat::I420, &frame), mark);
        assert_eq!(verdict.map(|v| v.mark), mark.checked_sub(LOOK_AHEAD));
    }
    let rest: Vec<usize> = std::iter::from_fn(|| detector.drain()).map(|v| v.mark).collect();
    assert_eq!(rest, [8, 9]);
}

#[test]
fn what_was_before_a_reset_is_no_neighbour() {
    let mut detector = SceneDetector::new(SceneConfig::default());
    let mut verdicts = Vec::new();
    for (mark, frame) in pan(1, 6).chain(pan(2, 6)).enumerate() {
        if mark == 6 {
            detector.reset();
        }
        verdicts.extend(detector.push(&picture(PixelFormat::I420, &frame.to(PixelFormat::I420)), mark));
    }
    assert_eq!(verdicts.iter().map(|v| v.mark).collect::<Vec<_>>(), [0, 1, 2, 3, 6, 7, 8, 9]);
    assert!(verdicts.iter().all(|v| !v.cut));
}

#[test]
fn the_threshold_decides() {
    let mut strict = SceneDetector::new(SceneConfig { threshold: 1.0 });
    let format = PixelFormat::I420;
    let frames = pan(1, 6).chain(pan(2, 6)).enumerate();
    let verdicts: Vec<_> = frames.filter_map(|(n, f)| strict.push(&picture(format, &f.to(format)), n)).collect();
    assert!(verdicts.iter().all(|v| !v.cut) && verdicts[6].score > 0.3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever is pushed: a verdict on each frame, in order, scores from 0 to 1, cuts at least three frames apart.
    #[test]
    fn every_frame_has_one_verdict(scenes in proptest::collection::vec((0u32..4, 0u8..3), 1..24)) {
        let frames: Vec<Yuv> = scenes
            .iter()
            .map(|&(seed, kind)| match kind {
                0 => Yuv::scene(seed, 0, 0),
                1 => Yuv::flat(60 * seed as u8),
                _ => Yuv::scene(seed, 3, 3).lit(0.3),
            })
            .collect();
        let verdicts = verdicts_of(frames, PixelFormat::I420);
        prop_assert!(verdicts.iter().map(|v| v.mark).eq(0..scenes.len()));
        prop_assert!(verdicts.iter().all(|v| (0.0..=1.0).contains(&v.score)));
        let cuts: Vec<usize> = verdicts.iter().filter(|v| v.cut).map(|v| v.mark).collect();
        prop_assert!(cuts.windows(2).all(|pair| pair[1] - pair[0] > LOOK_AHEAD));
        prop_assert!(!cuts.contains(&0));
    }
}
