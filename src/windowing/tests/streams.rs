use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};

use super::*;

/// As it may come: by decode time, each stream delayed.
fn interleave(mut streams: Vec<(i64, Vec<Frame>)>) -> Vec<Frame> {
    let mut frames: Vec<_> = streams
        .drain(..)
        .flat_map(|(delay, frames)| {
            frames.into_iter().map(move |frame| (frame.position.unwrap_or(frame.time).0 + delay * MS, frame))
        })
        .collect();
    frames.sort_by_key(|frame| (frame.0, frame.1.stream));
    frames.into_iter().map(|frame| frame.1).collect()
}

fn audio(stream: StreamId, start: i64, count: i64) -> Vec<Frame> {
    let each = 21_333_333;
    let frame = |at: i64| {
        let time = Ns(start * MS + at * each);
        Frame { position: Some(time), duration: Some(Ns(each)), size: 300, ..Frame::new(stream, time) }
    };
    (0..count).map(frame).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn streams_are_cut_where_the_reference_is(
        gop in 1i64..60, b in 0i64..4, delays in prop::array::uniform3(0i64..3000), live in any::<bool>(),
        duration in 0i64..2000,
    ) {
        // Live, nobody is waited for that long.
        let delays = if live { delays.map(|delay| delay / 8) } else { delays };
        let config = Config { strategy: Strategy::Keyframe, duration: ms(duration), ..Config::default() };
        let (mut run, streams) = Run::with(&config, 3);
        run.windows.set_live(live);
        let frames = video(streams[0], 0, 200, gop, b);
        let second = video(streams[1], 3, 180, 25, 0);
        let third = audio(streams[2], -50, 300);
        let mut starts: Vec<i64> = Vec::new();
        let unit = (duration * MS).max(1);
        let mut keyframes: Vec<_> = frames.iter().filter(|frame| frame.keyframe).map(|frame| frame.time.0).collect();
        keyframes.sort();
        for keyframe in keyframes {
            if starts.last().is_none_or(|last| keyframe.div_euclid(unit) > last.div_euclid(unit)) {
                starts.push(keyframe);
            }
        }
        let frames = interleave(vec![(delays[0], frames), (delays[1], second), (delays[2], third)]);
        for (at, &frame) in frames.iter().enumerate() {
            run.push(frame);
            if frames[at + 1..].iter().all(|other| other.stream != frame.stream) {
                run.call(|windows, out| windows.eos(frame.stream, out));
            }
        }
        run.check(true);
        for &stream in &streams {
            for decided in run.decided(stream) {
                let start = starts.iter().rev().find(|&&start| start <= decided.frame.time.0);
                let own: Vec<_> = start.map(|start| start.div_euclid(unit)).into_iter().collect();
                prop_assert_eq!(&decided.windows, &own, "{:?}", decided);
                prop_assert!(!decided.late);
            }
        }
        for closed in run.closed() {
            prop_assert!(closed.complete, "{:?}", closed);
            prop_assert_eq!(closed.streams.len(), 3);
        }
    }

    #[test]
    fn on_a_grid_no_stream_waits_for_another(
        delays in prop::array::uniform3(0i64..3000), duration in 1i64..1000, hop in 50i64..1000,
    ) {
        let config =
            Config { strategy: Strategy::Sliding, duration: ms(duration), hop: ms(hop), ..Config::default() };
        let (mut run, streams) = Run::with(&config, 3);
        let frames = vec![
            (delays[0], video(streams[0], 0, 100, 12, 2)),
            (delays[1], video(streams[1], 2, 90, 25, 0)),
            (delays[2], audio(streams[2], 10, 180)),
        ];
        for frame in interleave(frames) {
            let serial = run.push(frame);
            let decided = run.decided(frame.stream);
            prop_assert_eq!(decided.len() as u64, serial + 1);
        }
        run.eos();
        run.check(true);
        let late = streams.iter().map(|&stream| run.windows.totals(stream).late).sum::<u64>();
        prop_assert_eq!(late, 0);
        for closed in run.closed() {
            for of in &closed.streams {
                let (start, end) = (closed.window.start, closed.window.end.unwrap());
                let inside = run.frames.values().filter(|frame| {
                    frame.stream == of.stream && frame.time >= start && frame.time < end
                });
                prop_assert_eq!(of.figures.frames as usize, inside.count());
                prop_assert_eq!(of.figures.missing, 0, "{:?}", of);
            }
        }
    }

    #[test]
    fn live_a_frame_is_late_when_the_leader_has_passed_its_window_by_the_bound(
        steps in prop::collection::vec((0usize..3, 0i64..400), 1..200), lateness in prop::option::of(0i64..3000),
        ended in 0usize..400,
    ) {
        let lateness = lateness.map(ms);
        let config = Config { duration: ms(500), allowed_lateness: lateness, ..Config::default() };
        let (mut run, streams) = Run::with(&config, 3);
        run.windows.set_live(true);
        let mut positions = [None::<i64>; 3];
        let mut given_up = i64::MIN;
        let mut late = 0;
        for (at, (stream, forward)) in steps.into_iter().enumerate() {
            if at == ended {
                run.call(|windows, out| windows.eos(streams[0], out));
                positions[0] = None;
            }
            if at >= ended && stream == 0 {
                continue;
            }
            let time = positions[stream].unwrap_or_default() + forward * MS;
            positions[stream] = Some(time);
            run.push(Frame::new(streams[stream], Ns(time)));
            let end = (time.div_euclid(500 * MS) + 1) * 500 * MS;
            late += u64::from(end <= given_up);
            let decided = run.decided(streams[stream]);
            prop_assert_eq!(decided.last().unwrap().late, end <= given_up, "{} at {}, {}", stream, time, given_up);
            let lead = positions.iter().flatten().max().unwrap();
            given_up = given_up.max(lead - lateness.unwrap_or(secs(1)).0);
        }
        run.eos();
        run.check(true);
        let told: u64 = streams.iter().map(|&stream| run.windows.totals(stream).late).sum();
        prop_assert_eq!(told, late);
        for closed in run.closed() {
            for of in &closed.streams {
                let (start, end) = (closed.window.start, closed.window.end.unwrap());
                let decided = run.decided(of.stream);
                let inside = |decided: &&Decided| {
                    !decided.late && decided.frame.time >= start && decided.frame.time < end
                };
                prop_assert_eq!(of.figures.frames as usize, decided.iter().filter(inside).count());
            }
        }
    }
}

#[test]
fn live_a_silent_stream_holds_a_window_no_longer_than_a_second() {
    let (mut run, streams) = Run::with(&Config { duration: secs(2), ..Config::default() }, 2);
    run.windows.set_live(true);
    run.windows.set_expected(streams[1], Expected::Rate(25, 1));
    let both = interleave(vec![(0, video(streams[0], 0, 200, 10, 0)), (0, video(streams[1], 0, 30, 10, 0))]);
    for frame in both {
        run.push(frame);
        if frame.stream == streams[0] && frame.time >= secs(3) {
            let over = (frame.time - secs(3)).0 / (2 * S) + 1;
            assert_eq!(run.closed().len() as i64, over, "{:?}", frame.time);
        }
    }
    let closed = run.closed();
    assert_eq!((closed[0].reason, closed[0].complete), (Reason::Timeout, false));
    assert!(closed[0].streams[0].complete && !closed[0].streams[1].complete);
    assert_eq!((closed[0].streams[1].figures.frames, closed[0].streams[1].figures.missing), (30, 20));
    assert_eq!((closed[1].streams[1].figures.frames, closed[1].streams[1].figures.missing), (0, 50));
    assert_eq!(closed[1].figures.quality, 0., "that of the worst stream");
    // It comes back: what is for closed windows is late, the rest is not.
    for frame in video(streams[1], 30, 170, 10, 0) {
        run.push(frame);
    }
    run.eos();
    run.check(true);
    let late = run.decided(streams[1]).iter().filter(|decided| decided.late).count();
    assert_eq!(late, 120, "from 1.2 s to 6 s");
    assert_eq!(run.closed().iter().map(|closed| closed.streams[1].figures.late).sum::<u32>(), 120);
}

#[test]
fn not_live_a_silent_stream_is_waited_for() {
    let (mut run, streams) = Run::with(&Config { duration: secs(2), ..Config::default() }, 2);
    run.push(Frame::new(streams[1], Ns::ZERO));
    for frame in video(streams[0], 0, 2000, 10, 0) {
        run.push(frame);
    }
    assert_eq!(run.closed().len(), 0);
    run.call(|windows, out| windows.gap(streams[1], Ns::ZERO, secs(41), out));
    assert_eq!(run.closed().len(), 20, "a gap says that nothing comes");
    run.call(|windows, out| windows.eos(streams[1], out));
    run.eos();
    run.check(true);
    assert!(run.closed().iter().all(|closed| closed.complete));
}

#[test]
fn a_gap_of_no_length_says_where_the_stream_is() {
    let (mut run, streams) = Run::with(&Config { duration: secs(2), ..Config::default() }, 2);
    for frame in video(streams[0], 0, 51, 10, 0) {
        run.push(frame);
    }
    run.call(|windows, out| windows.gap(streams[1], secs(1), Ns::ZERO, out));
    assert_eq!(run.closed().len(), 0);
    run.call(|windows, out| windows.gap(streams[1], secs(2), Ns::ZERO, out));
    assert_eq!(run.closed().len(), 1);
}

#[test]
fn not_live_the_number_of_open_windows_is_bounded() {
    let (mut run, streams) = Run::with(&Config { duration: ms(40), ..Config::default() }, 2);
    run.push(Frame::new(streams[1], Ns::ZERO));
    for frame in video(streams[0], 0, 3000, 10, 0) {
        run.push(frame);
        assert!(run.windows.open().count() <= windows::MOST_OPEN);
    }
    assert_eq!(run.closed()[0].reason, Reason::Timeout);
    for frame in video(streams[1], 1, 2999, 10, 0) {
        run.push(frame);
    }
    run.eos();
    run.check(true);
    let late = run.decided(streams[1]).iter().filter(|decided| decided.late).count();
    assert_eq!(late, 3000 - windows::MOST_OPEN - 1);
}

#[test]
fn live_others_go_on_when_the_reference_is_silent() {
    let config = Config { strategy: Strategy::Keyframe, duration: Ns::ZERO, ..Config::default() };
    let (mut run, streams) = Run::with(&config, 2);
    run.windows.set_live(true);
    for frame in video(streams[0], 0, 25, 25, 0) {
        run.push(frame);
    }
    for frame in video(streams[1], 0, 100, 25, 0) {
        run.push(frame);
        let (held, _) = run.windows.undecided(streams[1]);
        assert!(held <= 27, "{held}");
    }
    // It comes back with keyframes that others have passed: the cut comes after these.
    for frame in video(streams[0], 25, 100, 25, 0) {
        run.push(frame);
    }
    run.eos();
    run.check(true);
    let spans: Vec<_> = run.spans().iter().map(|span| span.1 / MS).collect();
    assert_eq!(spans[0], 0);
    assert!(spans[1] >= 2960 && spans[1] <= 3000, "{spans:?}");
    assert_eq!(spans[2..], [3000, 4000]);
}

#[test]
fn what_waits_is_given_up_on_when_asked_to() {
    let config = Config { strategy: Strategy::Scene, ..Config::default() };
    let (mut run, streams) = Run::with(&config, 2);
    run.push(Frame::new(streams[0], Ns::ZERO));
    for frame in video(streams[1], 0, 50, 25, 0) {
        run.push(frame);
    }
    assert_eq!(run.windows.undecided(streams[1]).0, 49);
    run.call(|windows, out| windows.give_up_waiting(streams[1], Some(secs(1)), out));
    assert_eq!(run.windows.undecided(streams[1]).0, 24);
    run.push(Frame { cut: true, ..Frame::new(streams[0], ms(500)) });
    run.call(|windows, out| windows.give_up_waiting(streams[1], None, out));
    assert_eq!(run.windows.undecided(streams[1]), (0, 0));
    run.eos();
    run.check(true);
    assert_eq!(run.spans()[1].1, S + 1, "right after what had been decided");
}

#[test]
fn a_stream_that_leaves_or_ends_is_not_waited_for() {
    let (mut run, streams) = Run::with(&Config { duration: secs(1), ..Config::default() }, 3);
    for &stream in &streams {
        run.push(Frame::new(stream, Ns::ZERO));
    }
    run.push(Frame::new(streams[0], secs(2)));
    assert_eq!(run.closed().len(), 0);
    run.call(|windows, out| windows.remove_stream(streams[1], out));
    run.call(|windows, out| windows.eos(streams[2], out));
    assert_eq!(run.closed().len(), 1);
    assert_eq!(run.closed()[0].streams.len(), 3);
    assert!(run.closed()[0].complete);
    run.push(Frame::new(streams[0], secs(4)));
    assert_eq!(run.closed().len(), 2);
    run.call(|windows, out| windows.eos(streams[0], out));
    run.check(true);
}

#[test]
fn a_stream_that_joins_is_late_for_what_is_closed() {
    let (mut run, streams) = Run::with(&Config { duration: secs(1), ..Config::default() }, 1);
    for frame in video(streams[0], 0, 60, 10, 0) {
        run.push(frame);
    }
    let joined = run.windows.add_stream();
    for frame in video(joined, 0, 60, 10, 0) {
        run.push(frame);
    }
    run.eos();
    run.check(true);
    assert_eq!(run.windows.totals(joined).late, 50);
    assert_eq!(run.closed()[2].streams[1].figures.frames, 10);
}

#[test]
fn after_a_flush_nothing_is_late_because_of_what_was_before() {
    for strategy in [Strategy::Fixed, Strategy::Keyframe, Strategy::Scene] {
        let config = Config { strategy, duration: secs(1), ..Config::default() };
        let (mut run, streams) = Run::with(&config, 2);
        let both = |start| vec![(0, video(streams[0], start, 60, 10, 2)), (0, video(streams[1], start, 60, 10, 0))];
        for frame in interleave(both(100)) {
            run.push(frame);
        }
        for &stream in &streams {
            run.call(|windows, out| windows.flush(stream, out));
            // Some that were under way.
            if stream == streams[0] {
                run.push(Frame::new(streams[1], secs(7)));
            }
        }
        let flushed: Vec<_> = run.closed().into_iter().filter(|closed| closed.reason == Reason::Flush).collect();
        assert!(!flushed.is_empty() && flushed.iter().all(|closed| !closed.complete), "{strategy:?}");
        assert_eq!(run.windows.open().count(), 0, "{strategy:?}");
        run.log.drain(..);
        let frames = run.frames.len();
        for frame in interleave(both(0)) {
            run.push(frame);
        }
        run.eos();
        assert_eq!(run.frames.len(), frames + 120);
        let closed = run.closed();
        assert!(closed.iter().all(|closed| closed.complete), "{strategy:?}");
        assert_eq!(closed.iter().map(|closed| closed.figures.frames).sum::<u32>(), 120, "{strategy:?}");
        assert!(closed.is_sorted_by_key(|closed| closed.window.id));
        let late: u64 = streams.iter().map(|&stream| run.windows.totals(stream).late).sum();
        assert_eq!(late, 0, "{strategy:?}");
    }
}

#[test]
fn a_new_segment_of_one_stream_ends_its_shares_only() {
    let (mut run, streams) = Run::with(&Config { duration: secs(10), ..Config::default() }, 2);
    for frame in interleave(vec![(0, video(streams[0], 0, 50, 10, 0)), (0, video(streams[1], 0, 50, 10, 0))]) {
        run.push(frame);
    }
    run.call(|windows, out| windows.restart(streams[1], Reason::Segment, out));
    assert_eq!(run.closed().len(), 0);
    let share = run.log.iter().filter(|decision| {
        matches!(decision, Decision::Share { stream, reason: Reason::Segment, complete: false, .. }
            if *stream == streams[1])
    });
    assert_eq!(share.count(), 1);
    for frame in video(streams[1], 0, 50, 10, 0) {
        run.push(frame);
    }
    run.eos();
    let closed = run.closed();
    assert_eq!((closed.len(), closed[0].complete), (1, false));
    assert_eq!(closed[0].streams[1].figures.frames, 100, "both times");
}

#[test]
fn frames_after_eos_begin_anew() {
    let (mut run, streams) = Run::with(&Config { strategy: Strategy::Scene, ..Config::default() }, 1);
    for _ in 0..2 {
        for frame in video(streams[0], 0, 50, 10, 0) {
            run.push(frame);
        }
        run.eos();
    }
    let closed = run.closed();
    assert_eq!(closed.len(), 2);
    assert!(closed.iter().all(|closed| closed.figures.frames == 50 && closed.reason == Reason::Eos));
    assert_eq!(run.windows.totals(streams[0]).late, 0);
}
