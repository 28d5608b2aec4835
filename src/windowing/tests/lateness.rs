use super::*;

fn fixed(lateness: Option<Ns>, late_policy: LatePolicy) -> Config {
    Config { duration: secs(1), allowed_lateness: lateness, late_policy, ..Config::default() }
}

#[test]
fn a_frame_within_the_lateness_is_in_its_window() {
    let (mut run, streams) = Run::with(&fixed(Some(ms(500)), LatePolicy::Mark), 1);
    let times = [0, 900, 1400, 950, 1500, 960, 2600];
    for time in times {
        run.push(Frame::new(streams[0], ms(time)));
    }
    run.eos();
    run.check(true);
    let late: Vec<_> = run.decided(streams[0]).iter().map(|decided| decided.late).collect();
    assert_eq!(late, [false, false, false, false, false, true, false]);
    let closed = run.closed();
    assert_eq!(closed.iter().map(|closed| closed.figures.frames).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!(closed.iter().map(|closed| closed.figures.late).collect::<Vec<_>>(), [0, 1, 0], "in the one open then");
}

#[test]
fn a_late_frame_tells_its_window_and_leaves_unless_it_is_to_be_dropped() {
    for policy in [LatePolicy::Count, LatePolicy::Mark, LatePolicy::Drop] {
        let (mut run, streams) = Run::with(&fixed(None, policy), 1);
        for time in [0, 3000, 500] {
            run.push(Frame::new(streams[0], ms(time)));
        }
        let decided = run.decided(streams[0]);
        let own: &[_] = if policy == LatePolicy::Count { &[] } else { &[0] };
        assert_eq!(decided[2].windows, own);
        assert!(decided[2].late);
        assert_eq!(decided[2].keep, policy != LatePolicy::Drop);
        assert_eq!(run.windows.totals(streams[0]).dropped, u64::from(policy == LatePolicy::Drop));
    }
}

#[test]
fn a_replay_of_what_has_passed_changes_no_closed_window() {
    for strategy in [Strategy::Fixed, Strategy::Keyframe, Strategy::Scene] {
        let config = Config { strategy, duration: secs(1), max_duration: secs(2), ..Config::default() };
        let (mut run, streams) = Run::with(&config, 1);
        let mut frames = video(streams[0], 0, 200, 25, 2);
        frames.iter_mut().for_each(|frame| frame.cut = frame.keyframe);
        for &frame in &frames {
            run.push(frame);
        }
        let before = run.closed();
        for &frame in &frames[..100] {
            run.push(frame);
        }
        assert_eq!(run.closed(), before);
        let (mut without, _) = Run::with(&config, 1);
        for &frame in &frames {
            without.push(frame);
        }
        for mut frame in video(streams[0], 200, 20, 25, 2) {
            frame.keyframe = false;
            run.push(frame);
            without.push(frame);
        }
        without.eos();
        run.eos();
        assert_eq!(run.spans(), without.spans(), "what comes after is cut as if there had been none");
        run.check(true);
        assert_eq!(run.windows.totals(streams[0]).late, 100, "{strategy:?}");
        let decided = run.decided(streams[0]);
        for (first, again) in decided[..100].iter().zip(&decided[200..300]) {
            assert_eq!(first.windows, again.windows);
            assert!(again.late && again.keep);
        }
    }
}

#[test]
fn a_frame_of_overlapping_windows_counts_in_those_that_are_open() {
    let config = Config { strategy: Strategy::Sliding, duration: secs(2), hop: secs(1), ..Config::default() };
    let (mut run, streams) = Run::with(&config, 1);
    for time in [0, 1500, 2100, 1600] {
        run.push(Frame::new(streams[0], ms(time)));
    }
    run.eos();
    run.check(true);
    let decided = run.decided(streams[0]);
    assert_eq!(decided[1].windows, [0, 1]);
    assert_eq!(decided[3].windows, [1], "window 0 was over");
    assert!(decided[3].late && decided[3].keep);
}

#[test]
fn without_decode_times_b_frames_are_not_late() {
    for b in 0..4 {
        let (mut run, streams) = Run::with(&fixed(None, LatePolicy::Mark), 1);
        run.windows.set_reordered(streams[0], true);
        for mut frame in video(streams[0], 0, 500, 48, b) {
            frame.position = None;
            run.push(frame);
        }
        run.eos();
        run.check(true);
        assert_eq!(run.windows.totals(streams[0]).late, 0);
    }
}

#[test]
fn without_b_frames_the_place_of_a_stream_is_soon_that_of_its_newest_frame() {
    let mut reorder = super::super::reorder::Reorder::default();
    let positions: Vec<_> = (0..70).map(|at| reorder.push(ms(at * 40))).collect();
    assert_eq!(positions[..5], [None, None, None, None, Some(Ns::ZERO)]);
    assert_eq!(positions[69], Some(ms(69 * 40)));
    // B-frames begin: two frames are held back from then on.
    for at in [73, 71, 72, 76, 74, 75] {
        reorder.push(ms(at * 40));
    }
    assert_eq!(reorder.push(ms(79 * 40)), Some(ms(76 * 40)));
}
