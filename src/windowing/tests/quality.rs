use super::*;

fn share(expected: Expected, frames: impl IntoIterator<Item = Frame>) -> Figures {
    let (mut run, streams) = Run::with(&Config { duration: secs(10), ..Config::default() }, 1);
    run.windows.set_expected(streams[0], expected);
    for frame in frames {
        run.push(frame);
    }
    run.eos();
    run.check(true);
    run.closed()[0].streams[0].figures
}

fn stream() -> StreamId {
    Run::with(&Config::default(), 1).1[0]
}

/// 10 s of 25 frames a second, and one to end the window.
fn ten_seconds() -> Vec<Frame> {
    video(stream(), 0, 251, 25, 2)
}

#[test]
fn all_there_and_sound_is_1() {
    for expected in [Expected::Rate(25, 1), Expected::Cadence, Expected::Coverage, Expected::Nothing] {
        let figures = share(expected, ten_seconds());
        assert_eq!((figures.missing, figures.quality), (0, 1.), "{expected:?}");
        assert_eq!((figures.frames, figures.keyframes), (250, 10));
    }
}

#[test]
fn what_is_missing_is_counted_as_the_stream_lets_expect() {
    let lossy = || ten_seconds().into_iter().enumerate().filter(|(at, _)| at % 10 != 5).map(|(_, frame)| frame);
    for (expected, missing, quality) in [
        (Expected::Rate(25, 1), 25, 0.9),
        (Expected::Coverage, 25, 0.9),
        (Expected::Cadence, 23, 0.907),
        (Expected::Nothing, 0, 1.),
    ] {
        let figures = share(expected, lossy());
        assert_eq!(figures.missing, missing, "{expected:?}");
        assert!((figures.quality - quality).abs() < 0.002, "{expected:?}: {}", figures.quality);
    }
}

#[test]
fn rates_that_do_not_fit_the_window_miss_nothing() {
    for offset in [0, 7, 20, 33] {
        let frames = (0..600).map(|at| Frame {
            duration: Some(Ns(33_366_667)),
            ..Frame::new(stream(), ms(offset) + Ns(at * 1_001_000_000 / 30))
        });
        let (mut run, streams) = Run::with(&Config { duration: secs(1), ..Config::default() }, 1);
        run.windows.set_expected(streams[0], Expected::Rate(30_000, 1001));
        frames.for_each(|frame| {
            run.push(frame);
        });
        run.eos();
        run.check(true);
        assert!(run.closed().iter().all(|closed| closed.figures.missing == 0));
    }
}

#[test]
fn an_announced_gap_costs_once() {
    let (mut run, streams) = Run::with(&Config { duration: secs(10), ..Config::default() }, 1);
    run.windows.set_expected(streams[0], Expected::Rate(25, 1));
    for frame in ten_seconds() {
        if frame.time < secs(2) || frame.time >= secs(4) {
            run.push(frame);
        } else if frame.time == secs(2) {
            run.call(|windows, out| windows.gap(frame.stream, frame.time, secs(2), out));
        }
    }
    run.eos();
    run.check(true);
    let figures = run.closed()[0].figures;
    assert_eq!(figures.missing, 50);
    assert!((figures.quality - 0.8).abs() < 1e-9, "{}", figures.quality);
}

#[test]
fn frames_that_stand_for_a_gap_cost_their_time() {
    let frames = ten_seconds().into_iter().map(|mut frame| {
        frame.gap = frame.time < secs(1);
        frame
    });
    assert!((share(Expected::Rate(25, 1), frames).quality - 0.9).abs() < 0.003);
}

#[test]
fn corruption_and_exposure_are_factors() {
    let frames = ten_seconds().into_iter().enumerate().map(|(at, mut frame)| {
        frame.corrupted = at % 5 == 0;
        frame.exposure = (at % 2 == 0).then_some(0.5);
        frame
    });
    assert!((share(Expected::Rate(25, 1), frames).quality - 0.8 * 0.5).abs() < 1e-9);
}

#[test]
fn what_lies_before_the_first_frame_and_after_the_end_is_not_missing() {
    let figures = share(Expected::Rate(25, 1), video(stream(), 100, 50, 25, 0));
    assert_eq!((figures.frames, figures.missing, figures.quality), (50, 0, 1.));
}

#[test]
fn a_window_below_the_least_quality_is_poor() {
    let config = Config { duration: secs(1), min_quality: 0.9, ..Config::default() };
    let (mut run, streams) = Run::with(&config, 1);
    run.windows.set_expected(streams[0], Expected::Rate(25, 1));
    for frame in video(streams[0], 0, 100, 25, 0) {
        if !(40..48).contains(&(frame.time.0 / (40 * MS))) {
            run.push(frame);
        }
    }
    run.eos();
    run.check(true);
    assert_eq!(run.closed().iter().map(|closed| closed.poor).collect::<Vec<_>>(), [false, true, false, false]);
    let poor = run.log.iter().filter(|decision| matches!(decision, Decision::Share { poor: true, .. })).count();
    assert_eq!(poor, 1);
}

#[test]
fn complexity_of_encoded_frames_is_bits_per_pixel() {
    assert_eq!(complexity::coded(921_600 / 8, 921_600), 1.);
    assert_eq!(complexity::coded(125, 0), 1.);
}
