use proptest::prelude::{ProptestConfig, prop, prop_assert, prop_assert_eq, proptest};

use super::*;

/// Starts of windows, and the id of each.
fn keyframe_windows(frames: &[Frame], unit: i64) -> Vec<(i64, i64)> {
    let mut starts = vec![(frames[0].time.0, frames[0].time.0.div_euclid(unit))];
    let mut keyframes: Vec<_> = frames[1..].iter().filter(|frame| frame.keyframe).map(|frame| frame.time.0).collect();
    keyframes.sort();
    for keyframe in keyframes {
        if keyframe.div_euclid(unit) > starts.last().unwrap().1 {
            starts.push((keyframe, keyframe.div_euclid(unit)));
        }
    }
    starts
}

fn window_of(starts: &[(i64, i64)], time: Ns) -> Vec<i64> {
    starts.iter().rev().find(|start| start.0 <= time.0).map(|start| start.1).into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn windows_begin_at_keyframes(
        duration in 0i64..3000, start in -500i64..500, gop in 1i64..60, b in 0i64..4, aligned in prop::bool::ANY,
    ) {
        let strategy = if aligned { Strategy::Fixed } else { Strategy::Keyframe };
        let duration = if aligned { duration + 1 } else { duration };
        let config =
            Config { strategy, duration: ms(duration), align_to_keyframe: aligned, ..Config::default() };
        let (mut run, streams) = Run::with(&config, 1);
        let frames = video(streams[0], start, 200, gop, b);
        for &frame in &frames {
            run.push(frame);
        }
        run.eos();
        run.check(true);
        let starts = keyframe_windows(&frames, (duration * MS).max(1));
        for decided in run.decided(streams[0]) {
            prop_assert_eq!(&decided.windows, &window_of(&starts, decided.frame.time));
            prop_assert!(!decided.late);
        }
        let spans: Vec<_> = run.spans().iter().map(|span| (span.1, span.0)).collect();
        prop_assert_eq!(spans, starts);
        for pair in run.closed().windows(2) {
            prop_assert_eq!(pair[0].window.end.unwrap(), pair[1].window.start);
        }
    }

    #[test]
    fn from_any_keyframe_on_ids_are_those_of_the_whole_run(
        duration in 0i64..3000, gop in 1i64..60, b in 0i64..4, skip in 0usize..20,
    ) {
        let config = Config { strategy: Strategy::Keyframe, duration: ms(duration), ..Config::default() };
        let (mut whole, streams) = Run::with(&config, 1);
        let (mut part, _) = Run::with(&config, 1);
        let frames = video(streams[0], 0, 200, gop, b);
        let keyframes: Vec<_> = (0..frames.len()).filter(|&at| frames[at].keyframe).collect();
        let from = keyframes[skip % keyframes.len()];
        for (at, &frame) in frames.iter().enumerate() {
            whole.push(frame);
            if at >= from {
                part.push(frame);
            }
        }
        prop_assert_eq!(&whole.decided(streams[0])[from..], part.decided(streams[0]));
    }

    #[test]
    fn adaptive_windows_hold_what_they_are_to_hold_within_half_a_frame(
        complexities in prop::collection::vec(0.1f64..10., 200..400), target in 30f64..200.,
        min in 0i64..400, max in 0i64..2000,
    ) {
        // Frames lie between, at which a full window may end.
        let max = if max > 500 { max } else { 0 };
        let config = Config {
            strategy: Strategy::Adaptive, target_complexity: target, min_duration: ms(min), max_duration: ms(max),
            ..Config::default()
        };
        let (mut run, streams) = Run::with(&config, 1);
        for (at, &complexity) in complexities.iter().enumerate() {
            run.push(Frame { complexity, ..Frame::new(streams[0], ms(at as i64 * 40)) });
        }
        run.eos();
        run.check(true);
        for closed in run.closed() {
            let length = closed.window.end.unwrap() - closed.window.start;
            let sum = closed.figures.complexity;
            match closed.reason {
                Reason::Complexity if length >= ms(min + 40) => {
                    prop_assert!((sum - target).abs() <= 5., "{sum} {target}");
                }
                // The shortest that there may be: it holds at least that.
                Reason::Complexity => prop_assert!(length >= ms(min) && sum >= target - 5.),
                Reason::MaxDuration => prop_assert!(length == ms(max) && sum <= target + 5.),
                Reason::Eos => {}
                reason => prop_assert!(false, "{reason:?}"),
            }
            prop_assert!(max == 0 || length <= ms(max));
        }
    }

    #[test]
    fn scenes_are_windows_within_their_bounds(
        cuts in prop::collection::btree_set(1i64..400, 0..40), min in 0i64..2000, max in 0i64..4000,
    ) {
        let max = if max > min { max } else { 0 };
        let config = Config {
            strategy: Strategy::Scene, min_duration: ms(min), max_duration: ms(max), ..Config::default()
        };
        let (mut run, streams) = Run::with(&config, 1);
        for at in 0..400 {
            run.push(Frame { cut: cuts.contains(&at), ..Frame::new(streams[0], ms(at * 40)) });
        }
        run.eos();
        run.check(true);
        // The slow way: frame by frame.
        let mut starts = vec![0];
        for at in 0..400 {
            while max > 0 && at * 40 - starts.last().unwrap() >= max {
                starts.push(starts.last().unwrap() + max);
            }
            let start = *starts.last().unwrap();
            if cuts.contains(&at) && at * 40 - start >= min && at * 40 > start {
                starts.push(at * 40);
            }
        }
        // Windows of which no frame is part are not told: between max-duration and a cut right after it.
        let found: Vec<_> = run.spans().iter().map(|span| span.1 / MS).collect();
        let frames = |start: &i64| {
            let end = starts.iter().find(|other| *other > start).copied().unwrap_or(i64::MAX);
            (0..400).any(|at| at * 40 >= *start && at * 40 < end)
        };
        prop_assert_eq!(found, starts.iter().copied().filter(frames).collect::<Vec<_>>());
    }
}

fn aligned_adaptive(target: f64, gops: &[(i64, f64)]) -> Vec<Summary> {
    let config = Config {
        strategy: Strategy::Adaptive,
        target_complexity: target,
        align_to_keyframe: true,
        ..Config::default()
    };
    let (mut run, streams) = Run::with(&config, 1);
    let mut at = 0;
    for &(frames, each) in gops {
        for mut frame in video(streams[0], at, frames, frames, 2) {
            frame.complexity = each;
            run.push(frame);
        }
        at += frames;
    }
    run.eos();
    run.check(true);
    run.closed()
}

#[test]
fn aligned_adaptive_windows_begin_at_keyframes_and_hold_whole_gops() {
    let closed = aligned_adaptive(100., &[(12, 1.); 40]);
    for closed in &closed[..closed.len() - 1] {
        assert_eq!(closed.window.start.0 % (480 * MS), 0);
        assert!((closed.figures.complexity - 100.).abs() <= 6., "{}", closed.figures.complexity);
    }
}

#[test]
fn the_automatic_target_is_the_mean_of_a_duration() {
    let config = Config { strategy: Strategy::Adaptive, duration: secs(4), ..Config::default() };
    let (mut run, streams) = Run::with(&config, 1);
    // 1, 1, 1 ... for 100 s, then 4, 4, 4 ...
    for at in 0..5000 {
        let complexity = if at < 2500 { 1. } else { 4. };
        run.push(Frame { complexity, ..Frame::new(streams[0], ms(at * 40)) });
    }
    run.eos();
    run.check(true);
    let closed = run.closed();
    let calm: Vec<_> = closed.iter().filter(|closed| closed.window.end <= Some(secs(100))).collect();
    assert_eq!(calm.len(), 25);
    assert!(calm.iter().all(|closed| closed.figures.frames == 100), "{:?}", run.spans());
    let lengths: Vec<_> = closed[26..28].iter().map(|closed| closed.figures.frames).collect();
    assert!(lengths.iter().all(|&frames| (25..40).contains(&frames)), "a quarter, then growing: {lengths:?}");
}

#[test]
fn complexity_that_is_no_number_counts_nothing() {
    let config = Config { strategy: Strategy::Adaptive, duration: secs(1), ..Config::default() };
    let (mut run, streams) = Run::with(&config, 1);
    for at in 0..100 {
        let complexity = [f64::NAN, -1., f64::INFINITY, 0.][at as usize % 4];
        run.push(Frame { complexity, ..Frame::new(streams[0], ms(at * 40)) });
    }
    run.eos();
    run.check(true);
    assert_eq!(run.closed().len(), 4, "by time when there is nothing else");
}

#[test]
fn max_duration_cuts_a_stretch_without_frames_by_arithmetic() {
    let config = Config { strategy: Strategy::Scene, max_duration: secs(10), ..Config::default() };
    let (mut run, streams) = Run::with(&config, 1);
    let ten_years = 10 * 366 * 86_400;
    run.push(Frame::new(streams[0], secs(3)));
    run.push(Frame::new(streams[0], secs(ten_years)));
    run.eos();
    run.check(true);
    let start = secs((ten_years - 3) / 10 * 10 + 3);
    let spans: Vec<_> = run.spans().iter().map(|span| (span.0, span.1)).collect();
    assert_eq!(spans, [(3 * S, 3 * S), (start.0, start.0)]);
}

#[test]
fn min_duration_puts_keyframes_off() {
    let config =
        Config { strategy: Strategy::Keyframe, duration: Ns::ZERO, min_duration: secs(1), ..Config::default() };
    let (mut run, streams) = Run::with(&config, 1);
    for frame in video(streams[0], 0, 100, 10, 2) {
        run.push(frame);
    }
    run.eos();
    run.check(true);
    let starts: Vec<_> = run.spans().iter().map(|span| span.1 / MS).collect();
    assert_eq!(starts, [0, 1200, 2400, 3600]);
}

#[test]
fn scenes_that_wait_for_a_keyframe_begin_there() {
    let config = Config { strategy: Strategy::Scene, align_to_keyframe: true, ..Config::default() };
    let (mut run, streams) = Run::with(&config, 1);
    for mut frame in video(streams[0], 0, 100, 20, 0) {
        frame.cut = [30, 35, 60].contains(&(frame.time.0 / (40 * MS)));
        run.push(frame);
    }
    run.eos();
    run.check(true);
    assert_eq!(run.spans().iter().map(|span| span.1 / (40 * MS)).collect::<Vec<_>>(), [0, 40, 60]);
}

#[test]
fn splits_end_the_window_where_they_are_asked_for() {
    let config = Config { strategy: Strategy::Scene, ..Config::default() };
    let (mut run, streams) = Run::with(&config, 1);
    assert!(!run.call(|windows, out| windows.split(Split::Now, out)), "there is no window yet");
    assert!(run.call(|windows, out| windows.split(Split::At(ms(3000)), out)));
    for (at, frame) in video(streams[0], 0, 100, 20, 2).into_iter().enumerate() {
        if at == 10 {
            assert!(run.call(|windows, out| windows.split(Split::Now, out)));
        }
        if at == 15 {
            assert!(run.call(|windows, out| windows.split(Split::Keyframe, out)));
        }
        run.push(frame);
    }
    assert!(!run.call(|windows, out| windows.split(Split::At(ms(1000)), out)), "that has been decided");
    run.eos();
    run.check(true);
    // At 10 frames decoded, the newest is presented at 360 ms; the next later one is at 480 ms.
    assert_eq!(run.spans().iter().map(|span| span.1 / MS).collect::<Vec<_>>(), [0, 480, 800, 3000]);
    assert_eq!(run.closed()[1].reason, Reason::Split);
}

#[test]
fn a_grid_is_not_split() {
    let (mut run, streams) = Run::with(&Config::default(), 1);
    run.push(Frame::new(streams[0], Ns::ZERO));
    assert!(!run.call(|windows, out| windows.split(Split::Now, out)));
    let keyframes = Config { strategy: Strategy::Keyframe, ..Config::default() };
    let (mut run, streams) = Run::with(&keyframes, 1);
    run.push(Frame::new(streams[0], Ns::ZERO));
    assert!(!run.call(|windows, out| windows.split(Split::Now, out)), "ids leave no place for it");
}

#[test]
fn starts_are_known_ahead_where_they_are_arithmetic() {
    let next = |config: Config, time: Ns| {
        let (mut run, streams) = Run::with(&config, 1);
        run.push(Frame::new(streams[0], ms(500)));
        run.windows.next_start(time)
    };
    assert_eq!(next(Config { duration: secs(2), ..Config::default() }, secs(2)), Some(secs(4)));
    let scene = Config { strategy: Strategy::Scene, ..Config::default() };
    assert_eq!(next(scene.clone(), secs(2)), None);
    assert_eq!(next(Config { max_duration: secs(2), ..scene }, secs(2)), Some(ms(2500)));
    assert_eq!(next(Config { strategy: Strategy::Keyframe, ..Config::default() }, secs(2)), Some(secs(10)));
}
