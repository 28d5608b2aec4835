use proptest::prelude::{
    Just, ProptestConfig, Strategy as _, any, prop, prop_assert, prop_assert_eq, prop_assume, proptest,
};

use super::*;

fn grid(duration: Ns, hop: Ns) -> Config {
    Config { strategy: Strategy::Sliding, duration, hop, ..Config::default() }
}

/// All k with k x hop <= time < k x hop + duration, the slow way.
fn expected(time: i64, duration: i64, hop: i64) -> Vec<i64> {
    let about = time.div_euclid(hop);
    (about - duration / hop - 2..=about + 2).filter(|k| k * hop <= time && time < k * hop + duration).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn each_frame_is_in_the_windows_that_its_time_says(
        duration in 1i64..3000, hop in 1i64..3000, start in -2000i64..2000, b in 0i64..4, gop in 1i64..40,
        dts in any::<bool>(),
    ) {
        prop_assume!(duration / hop <= 200);
        let (mut run, streams) = Run::with(&grid(ms(duration), ms(hop)), 1);
        run.windows.set_reordered(streams[0], true);
        for mut frame in video(streams[0], start, 150, gop, b) {
            if !dts {
                frame.position = None;
            }
            run.push(frame);
        }
        run.eos();
        run.check(true);
        let decided = run.decided(streams[0]);
        let mut all = BTreeSet::new();
        for decided in &decided {
            prop_assert_eq!(&decided.windows, &expected(decided.frame.time.0, duration * MS, hop * MS));
            prop_assert!(!decided.late && decided.keep);
            all.extend(decided.windows.iter().copied());
        }
        for closed in run.closed() {
            prop_assert!(all.remove(&closed.window.id), "closed without a frame, or twice");
            prop_assert_eq!(closed.window.start.0, closed.window.id * hop * MS);
            prop_assert_eq!(closed.window.end.unwrap() - closed.window.start, ms(duration));
            let inside = |decided: &&Decided| {
                decided.frame.time >= closed.window.start && decided.frame.time < closed.window.end.unwrap()
            };
            prop_assert_eq!(closed.figures.frames as usize, decided.iter().filter(inside).count());
            prop_assert!(closed.complete);
        }
        prop_assert!(all.is_empty());
    }

    #[test]
    fn ids_are_the_same_wherever_a_run_begins(
        duration in 1i64..3000, hop in 1i64..3000, skip in 0usize..140, b in 0i64..4,
    ) {
        prop_assume!(duration / hop <= 200);
        let (mut whole, streams) = Run::with(&grid(ms(duration), ms(hop)), 1);
        let (mut part, _) = Run::with(&grid(ms(duration), ms(hop)), 1);
        let frames = video(streams[0], 0, 150, 10, b);
        for (at, frame) in frames.into_iter().enumerate() {
            whole.push(frame);
            if at >= skip {
                part.push(frame);
            }
        }
        prop_assert_eq!(&whole.decided(streams[0])[skip..], part.decided(streams[0]));
    }

    #[test]
    fn shuffled_frames_are_late_exactly_when_their_window_was_over(
        order in Just((0i64..120).collect::<Vec<_>>()).prop_shuffle(), lateness in 0i64..3000,
        policy in prop::sample::select(vec![LatePolicy::Count, LatePolicy::Mark, LatePolicy::Drop]),
    ) {
        let config = Config {
            duration: ms(400), allowed_lateness: Some(ms(lateness)), late_policy: policy, ..Config::default()
        };
        let (mut run, streams) = Run::with(&config, 1);
        let mut newest = i64::MIN;
        let mut late = Vec::new();
        for frame in order {
            let time = frame * 40;
            newest = newest.max(time);
            late.push((time / 400 + 1) * 400 + lateness <= newest);
            run.push(Frame::new(streams[0], ms(time)));
        }
        run.eos();
        run.check(true);
        let decided = run.decided(streams[0]);
        prop_assert_eq!(decided.iter().map(|decided| decided.late).collect::<Vec<_>>(), late.clone());
        for decided in decided {
            let told = !(decided.late && policy == LatePolicy::Count);
            let own = told.then_some(decided.frame.time.0 / (400 * MS));
            prop_assert_eq!(&decided.windows, &own.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(decided.keep, !(decided.late && policy == LatePolicy::Drop));
        }
        let total = late.iter().filter(|&&late| late).count();
        prop_assert_eq!(run.windows.totals(streams[0]).late, total as u64);
        let counted: u32 = run.closed().iter().map(|closed| closed.figures.late).sum();
        prop_assert!(counted as usize <= total);
        let frames: u32 = run.closed().iter().map(|closed| closed.figures.frames).sum();
        prop_assert_eq!(frames as usize, 120 - total);
    }
}

#[test]
fn a_stretch_without_frames_makes_no_windows() {
    let (mut run, streams) = Run::with(&grid(secs(10), secs(2)), 1);
    run.push(Frame::new(streams[0], secs(1)));
    let ten_years = 10 * 366 * 86_400;
    run.push(Frame::new(streams[0], secs(ten_years)));
    run.eos();
    run.check(true);
    assert_eq!(run.closed().len(), 10, "five around each frame");
}

#[test]
fn a_window_ends_on_the_stream_before_the_frame_that_is_decoded_at_its_end() {
    let (mut run, streams) = Run::with(&Config { duration: ms(400), ..Config::default() }, 1);
    for frame in video(streams[0], 0, 20, 50, 2) {
        run.push(frame);
    }
    let share = run.log.iter().position(|decision| matches!(decision, Decision::Share { .. })).unwrap();
    let before: Vec<_> = run.log[..share]
        .iter()
        .filter_map(|decision| match decision {
            Decision::Frame { serial, .. } => Some(run.frames[&(streams[0], *serial)].position.unwrap()),
            _ => None,
        })
        .collect();
    assert!(before.iter().all(|&position| position < ms(400)), "{before:?}");
    assert_eq!(run.decided(streams[0])[before.len()].frame.position, Some(ms(400)));
}

#[test]
fn a_window_closes_with_the_reason_that_ended_it() {
    let (mut run, streams) = Run::with(&Config { duration: secs(1), ..Config::default() }, 1);
    for frame in video(streams[0], 0, 40, 10, 0) {
        run.push(frame);
    }
    run.eos();
    let closed = run.closed();
    assert_eq!(closed.iter().map(|closed| closed.reason).collect::<Vec<_>>(), [Reason::Duration, Reason::Eos]);
    assert_eq!((closed[0].figures.frames, closed[0].figures.keyframes), (25, 3));
    assert_eq!(closed[1].window.end, Some(secs(2)), "a grid's windows keep their ends");
}
