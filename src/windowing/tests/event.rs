use std::sync::Arc;

use proptest::prelude::{ProptestConfig, prop, prop_assert, prop_assert_eq, proptest};

use super::*;

fn event(pre_roll: Ns, post_roll: Ns) -> Config {
    Config { strategy: Strategy::Event, pre_roll, post_roll, ..Config::default() }
}

fn trigger(run: &mut Run, time: Ns, streams: &[StreamId], name: &str) -> Option<WindowId> {
    let trigger = Trigger { time, streams: streams.to_vec(), name: Some(Arc::from(name)) };
    run.call(|windows, out| windows.trigger(trigger, out))
}

/// Frames that left, in the order in which they left, with their windows.
fn left(run: &Run, stream: StreamId) -> Vec<Decided> {
    run.decided(stream).into_iter().filter(|decided| decided.keep).collect()
}

/// What every clip promises: it begins with a keyframe at or before its start, or follows directly on what was
/// before, holds all up to its end, and nothing is left out in between.
fn check_clips(run: &Run, stream: StreamId) {
    let mut next = None;
    let mut last_window = None;
    for decision in &run.log {
        let Decision::Frame { stream: of, serial, windows, .. } = decision else { continue };
        if *of != stream {
            continue;
        }
        let frame = run.frames[&(stream, *serial)];
        if let Some(window) = windows.first()
            && last_window != Some(window)
        {
            assert!(frame.keyframe || next == Some(*serial), "{window} begins with neither");
            last_window = Some(window);
        } else if next != Some(*serial) {
            assert!(frame.keyframe, "a hole");
        }
        next = Some(serial + 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn clips_hold_their_time_from_a_keyframe_at_or_before(
        pre in 0i64..2000, post in 1i64..2000, gop in 1i64..60, b in 0i64..4,
        triggers in prop::collection::vec((0usize..400, -3000i64..3000), 0..8),
    ) {
        // Triggers may be as late as they like: the ring reaches back to all of it.
        let config = Config { allowed_lateness: Some(secs(60)), ..event(ms(pre), ms(post)) };
        let (mut run, streams) = Run::with(&config, 1);
        let mut wanted: Vec<(i64, i64)> = Vec::new();
        for (at, frame) in video(streams[0], 0, 400, gop, b).into_iter().enumerate() {
            run.push(frame);
            for (_, offset) in triggers.iter().filter(|trigger| trigger.0 == at) {
                let time = frame.time + ms(*offset);
                if trigger(&mut run, time, &[], "a").is_some() {
                    wanted.push((time.0 - pre * MS, time.0 + post * MS));
                }
            }
        }
        run.eos();
        run.check(true);
        check_clips(&run, streams[0]);
        let decided = run.decided(streams[0]);
        let spans: Vec<_> = run.spans();
        for pair in spans.windows(2) {
            prop_assert!(pair[0].2 <= pair[1].1, "clips do not overlap: {:?}", spans);
        }
        for decided in &decided {
            let time = decided.frame.time.0;
            let clip = spans.iter().find(|span| span.1 <= time && time < span.2);
            match decided.windows.first() {
                Some(&id) => {
                    // Before the start only from its keyframe on.
                    let clip = spans.iter().find(|span| span.0 == id).unwrap();
                    prop_assert!(time < clip.2 && time > clip.1 - (gop + 4) * 40 * MS);
                }
                None if decided.keep => {
                    // Left with the clip before, for those that refer to it: the clip says so.
                    let id = clip.map(|clip| clip.0);
                    let whole = run.closed().iter().any(|closed| closed.complete && Some(closed.window.id) == id);
                    prop_assert!(!whole, "{:?} is in {:?}", decided, clip);
                }
                None => prop_assert!(clip.is_none(), "{:?} is in {:?}", decided, clip),
            }
        }
        // Nothing of what closed as complete is missing.
        for closed in run.closed().iter().filter(|closed| closed.complete) {
            let (start, end) = (closed.window.start, closed.window.end.unwrap());
            let inside = run.frames.values().filter(|frame| frame.time >= start && frame.time < end).count();
            let sent = decided.iter().filter(|decided| {
                decided.windows == [closed.window.id] && decided.frame.time >= start
            });
            prop_assert_eq!(sent.count(), inside, "{:?}", closed);
        }
        for (start, end) in wanted {
            let reached = spans.iter().any(|span| span.1 < end && span.2 > start.max(0));
            prop_assert!(reached || end <= 0 || start >= 400 * 40 * MS, "{:?} of {:?}", (start, end), spans);
        }
    }

    #[test]
    fn each_stream_has_its_own_part_of_the_clips_it_is_asked_for(
        gops in prop::array::uniform3(1i64..60), bs in prop::array::uniform3(0i64..4),
        skews in prop::array::uniform3(0i64..20), live in prop::bool::ANY, max in 0i64..4000,
        triggers in prop::collection::vec((0usize..200, -2000i64..2000, prop::collection::vec(0usize..3, 0..3)), 0..8),
    ) {
        let max_duration = if max >= 1600 { ms(max) } else { Ns::ZERO };
        let config = Config { max_duration, allowed_lateness: Some(secs(5)), ..event(ms(800), ms(800)) };
        let (mut run, streams) = Run::with(&config, 3);
        run.windows.set_live(live);
        let sources: Vec<_> = (0..3).map(|at| video(streams[at], 0, 200, gops[at], bs[at])).collect();
        for at in 0..220 {
            for (source, skew) in sources.iter().zip(skews) {
                if let Some(&frame) = usize::try_from(at as i64 - skew).ok().and_then(|at| source.get(at)) {
                    run.push(frame);
                }
            }
            for (_, offset, only) in triggers.iter().filter(|trigger| trigger.0 == at) {
                let only: Vec<_> = only.iter().map(|&at| streams[at]).collect();
                trigger(&mut run, ms(at as i64 * 40 + offset), &only, "");
            }
        }
        run.eos();
        run.check(true);
        let spans = run.spans();
        for closed in run.closed() {
            prop_assert!(max_duration == Ns::ZERO || closed.window.end.unwrap() - closed.window.start <= max_duration);
            for of in closed.streams.iter().filter(|of| of.complete) {
                let (start, end) = (closed.window.start, closed.window.end.unwrap());
                let inside = sources[of.stream.index()].iter().filter(|frame| frame.time >= start && frame.time < end);
                let sent = run.decided(of.stream).into_iter().filter(|decided| {
                    decided.windows == [closed.window.id] && decided.frame.time >= start
                });
                prop_assert_eq!(sent.count(), inside.count(), "{:?}", closed);
            }
        }
        for &stream in &streams {
            check_clips(&run, stream);
            for decided in run.decided(stream) {
                let Some(&id) = decided.windows.first() else { continue };
                let clip = spans.iter().find(|span| span.0 == id).unwrap();
                prop_assert!(decided.frame.time.0 < clip.2, "{:?} of {:?}", decided, clip);
            }
        }
        for pair in spans.windows(2) {
            prop_assert!(pair[0].2 <= pair[1].1, "clips do not overlap: {:?}", spans);
        }
    }
}

#[test]
fn a_clip_is_the_gops_around_its_trigger() {
    let (mut run, streams) = Run::with(&event(secs(1), secs(1)), 1);
    for frame in video(streams[0], 0, 200, 10, 2) {
        run.push(frame);
        if frame.time == ms(3000) {
            assert_eq!(trigger(&mut run, ms(3000), &[], "door"), Some(2 * S));
        }
    }
    run.eos();
    run.check(true);
    check_clips(&run, streams[0]);
    let closed = run.closed();
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0].window.name.as_deref(), Some("door"));
    assert_eq!((closed[0].window.triggers, closed[0].reason, closed[0].complete), (1, Reason::Event, true));
    assert_eq!(closed[0].figures.first, Some(secs(2)), "a keyframe stands at the start");
    assert_eq!(closed[0].figures.frames, 50);
    let left = left(&run, streams[0]);
    assert!(left[0].frame.keyframe);
    assert_eq!(left.len(), 50, "GOPs end at 4 s: nothing refers beyond");
}

#[test]
fn frames_behind_the_end_leave_when_others_before_it_refer_to_them() {
    let (mut run, streams) = Run::with(&event(secs(1), ms(980)), 1);
    trigger(&mut run, secs(3), &[], "");
    for frame in video(streams[0], 0, 200, 50, 2) {
        run.push(frame);
    }
    run.eos();
    run.check(true);
    let left = left(&run, streams[0]);
    let beyond: Vec<_> = left.iter().filter(|left| left.windows.is_empty()).map(|left| left.frame.time).collect();
    assert!(beyond.iter().all(|&time| time >= ms(3980) && time < ms(4200)), "{beyond:?}");
    check_clips(&run, streams[0]);
}

#[test]
fn triggers_that_overlap_share_a_window() {
    let (mut run, streams) = Run::with(&event(secs(1), secs(2)), 2);
    for frame in video(streams[0], 0, 250, 10, 0) {
        run.push(frame);
        run.push(Frame { stream: streams[1], ..frame });
        match frame.time.0 / (40 * MS) {
            50 => assert_eq!(trigger(&mut run, secs(2), &[streams[0]], "first"), Some(S)),
            80 => assert_eq!(trigger(&mut run, ms(3200), &[streams[1]], "second"), Some(S)),
            170 => assert_eq!(trigger(&mut run, ms(6800), &[streams[1]], "third"), Some(5800 * MS)),
            _ => {}
        }
    }
    run.eos();
    run.check(true);
    let closed = run.closed();
    let told: Vec<_> = closed
        .iter()
        .map(|closed| (closed.window.name.clone().unwrap().to_string(), closed.window.triggers, closed.streams.len()))
        .collect();
    assert_eq!(told, [("first".into(), 2, 2), ("third".into(), 1, 1)]);
    assert_eq!(run.spans(), [(S, S, 5200 * MS), (5800 * MS, 5800 * MS, 8800 * MS)]);
    let complete: Vec<_> = closed.iter().map(|closed| closed.complete).collect();
    assert_eq!(complete, [false, true], "the ring of the second stream did not reach back to the first trigger");
    check_clips(&run, streams[0]);
    check_clips(&run, streams[1]);
}

#[test]
fn a_clip_that_reaches_back_into_the_last_one_follows_directly() {
    for b in [0, 2] {
        let (mut run, streams) = Run::with(&event(secs(2), secs(1)), 1);
        for frame in video(streams[0], 0, 300, 100, b) {
            run.push(frame);
            if [ms(2000), ms(4000)].contains(&frame.time) {
                assert!(trigger(&mut run, frame.time, &[], "").is_some());
            }
        }
        run.eos();
        run.check(true);
        check_clips(&run, streams[0]);
        assert_eq!(run.spans(), [(0, 0, 3 * S), (3 * S, 3 * S, 5 * S)], "it was over when the second one came");
        let left: Vec<_> = left(&run, streams[0]).iter().map(|left| left.frame.position.unwrap()).collect();
        assert!(left.windows(2).all(|pair| pair[1] - pair[0] == ms(40)), "nothing twice, nothing missing");
        let complete: Vec<_> = run.closed().iter().map(|closed| closed.complete).collect();
        // The first one's last B-frames took a frame of the second one with them.
        assert_eq!(complete, [true, b == 0]);
    }
}

#[test]
fn a_trigger_may_come_late_as_far_as_the_ring_reaches() {
    let config = Config { allowed_lateness: Some(secs(3)), ..event(secs(1), secs(1)) };
    for (late, complete) in [(2, true), (3, true), (6, false)] {
        let (mut run, streams) = Run::with(&config, 1);
        for frame in video(streams[0], 0, 500, 10, 0) {
            run.push(frame);
            if frame.time == secs(12) {
                assert!(trigger(&mut run, secs(12 - late), &[], "").is_some());
            }
        }
        run.eos();
        run.check(true);
        assert_eq!(run.closed()[0].complete, complete, "{late} s");
        assert_eq!(run.closed()[0].figures.frames > 0, late < 5);
    }
}

#[test]
fn after_the_end_of_a_stream_its_clips_are_not_complete_and_after_that_of_all_there_are_none() {
    let config = Config { allowed_lateness: Some(secs(3)), ..event(secs(1), secs(1)) };
    let (mut run, streams) = Run::with(&config, 2);
    for at in 0..100 {
        for stream in &streams {
            run.push(Frame::new(*stream, ms(100 * at)));
        }
    }
    run.call(|windows, out| windows.eos(streams[1], out));
    assert!(trigger(&mut run, secs(9), &[], "").is_some());
    assert_eq!(trigger(&mut run, secs(9), &[streams[1]], ""), None, "what it had has left");
    run.eos();
    let closed = run.closed();
    assert_eq!(closed.len(), 1);
    assert!(!closed[0].complete);
    let of_streams: Vec<_> = closed[0].streams.iter().map(|of| (of.figures.frames, of.complete)).collect();
    assert_eq!(of_streams, [(20, true), (0, false)]);
    assert_eq!(trigger(&mut run, secs(9), &[], ""), None, "nothing is left");
    assert_eq!(run.closed().len(), 1);
}

#[test]
fn a_trigger_may_be_ahead() {
    let (mut run, streams) = Run::with(&event(secs(1), secs(1)), 1);
    assert_eq!(trigger(&mut run, secs(8), &[], "b"), Some(7 * S));
    assert_eq!(trigger(&mut run, secs(4), &[], "a"), Some(3 * S));
    for frame in video(streams[0], 0, 300, 10, 2) {
        run.push(frame);
    }
    run.eos();
    run.check(true);
    let names: Vec<_> = run.closed().iter().map(|closed| closed.window.name.clone().unwrap().to_string()).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(run.closed().iter().all(|closed| closed.complete));
}

#[test]
fn what_has_begun_to_leave_is_not_overtaken() {
    let config = Config { allowed_lateness: Some(secs(10)), ..event(secs(1), secs(1)) };
    let (mut run, streams) = Run::with(&config, 1);
    for frame in video(streams[0], 0, 300, 10, 0) {
        run.push(frame);
        if frame.time == secs(8) {
            assert!(trigger(&mut run, secs(8), &[], "").is_some());
            assert_eq!(trigger(&mut run, secs(4), &[], ""), None);
            assert_eq!(trigger(&mut run, ms(6500), &[], ""), Some(7 * S), "the part of it that overlaps");
        }
        if frame.time == secs(10) {
            assert_eq!(trigger(&mut run, secs(8), &[], ""), None, "it is closed");
        }
    }
    run.eos();
    run.check(true);
    assert_eq!(run.closed().len(), 1);
    assert_eq!(run.closed()[0].window.triggers, 2);
}

#[test]
fn max_duration_cuts_a_clip_that_triggers_prolong() {
    let config = Config { max_duration: secs(3), ..event(secs(1), secs(1)) };
    let (mut run, streams) = Run::with(&config, 1);
    for frame in video(streams[0], 0, 300, 10, 2) {
        run.push(frame);
        if frame.time.0 % (400 * MS) == 0 && frame.time >= secs(2) && frame.time < secs(8) {
            trigger(&mut run, frame.time, &[], "motion");
        }
    }
    run.eos();
    run.check(true);
    check_clips(&run, streams[0]);
    assert_eq!(run.spans(), [(S, S, 4 * S), (4 * S, 4 * S, 7 * S), (7 * S, 7 * S, 8600 * MS)]);
    assert_eq!(run.closed()[0].reason, Reason::MaxDuration);
    let left = left(&run, streams[0]);
    assert_eq!(left.iter().filter(|left| left.frame.time >= secs(1) && left.frame.time < ms(8600)).count(), 190);
}

#[test]
fn four_hours_without_a_trigger_hold_the_pre_roll_and_a_gop() {
    let (mut run, streams) = Run::with(&event(secs(5), secs(10)), 2);
    run.windows.set_live(true);
    let (mut most, mut serial) = (0, 0);
    // 4 h at 5 frames a second.
    for at in 0..4 * 3600 * 5 {
        let frame = Frame { size: 10_000, keyframe: at % 10 == 0, ..Frame::new(streams[0], ms(at * 200)) };
        run.windows.push(frame, &mut run.out);
        run.windows.gap(streams[1], frame.time, ms(200), &mut run.out);
        most = most.max(run.windows.undecided(streams[0]).0);
        for decision in run.out.drain(..) {
            match decision {
                Decision::Forget { before, short, .. } => {
                    assert!(!short && before % 10 == 0 && before > serial, "whole GOPs");
                    serial = before;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!((26..=36).contains(&most), "{most}");
    assert_eq!(run.windows.undecided(streams[1]), (0, 0));
}

#[test]
fn the_ring_keeps_to_its_bytes_and_says_when_it_is_short() {
    let config = Config { max_ring_bytes: 25_000, ..event(secs(5), secs(1)) };
    let (mut run, streams) = Run::with(&config, 1);
    for mut frame in video(streams[0], 0, 300, 10, 0) {
        frame.size = 1000;
        run.push(frame);
        assert!(run.windows.undecided(streams[0]).1 <= 25_000);
        if frame.time == secs(10) {
            trigger(&mut run, secs(10), &[], "");
        }
    }
    run.eos();
    run.check(true);
    check_clips(&run, streams[0]);
    assert!(run.log.iter().any(|decision| matches!(decision, Decision::Forget { short: true, .. })));
    assert!(!run.closed()[0].complete, "the pre-roll is not all there");
}

#[test]
fn a_gop_larger_than_the_ring_leaves_as_a_whole() {
    let config = Config { max_ring_bytes: 5000, ..event(secs(5), secs(1)) };
    let (mut run, streams) = Run::with(&config, 1);
    for mut frame in video(streams[0], 0, 100, 20, 0) {
        frame.size = 1000;
        run.push(frame);
        assert!(run.windows.undecided(streams[0]).1 <= 5000);
    }
    assert_eq!(run.windows.undecided(streams[0]).0, 0);
}

#[test]
fn a_split_ends_the_clip_behind_what_has_left() {
    let (mut run, streams) = Run::with(&event(secs(1), secs(5)), 1);
    assert!(!run.call(|windows, out| windows.split(Split::Now, out)));
    for frame in video(streams[0], 0, 300, 10, 2) {
        run.push(frame);
        if frame.time == secs(2) {
            trigger(&mut run, secs(2), &[], "");
        }
        if frame.time == secs(4) {
            assert!(run.call(|windows, out| windows.split(Split::At(secs(5)), out)));
        }
    }
    run.eos();
    run.check(true);
    assert_eq!(run.spans(), [(S, S, 5 * S)]);
    assert_eq!(run.closed()[0].reason, Reason::Split);
}

#[test]
fn each_stream_of_a_clip_begins_at_its_own_keyframe() {
    let (mut run, streams) = Run::with(&event(secs(1), secs(1)), 3);
    let sources =
        [video(streams[0], 0, 200, 10, 0), video(streams[1], 0, 200, 25, 2), video(streams[2], 0, 200, 35, 0)];
    for at in 0..200 {
        for frames in &sources {
            run.push(frames[at]);
        }
        if at == 80 {
            trigger(&mut run, ms(3200), &streams[..2], "");
        }
    }
    run.eos();
    run.check(true);
    let firsts: Vec<_> = streams.iter().map(|&stream| left(&run, stream).first().map(|left| left.frame)).collect();
    assert_eq!(firsts[0].unwrap().time, secs(2));
    assert_eq!(firsts[1].unwrap().time, secs(2));
    assert_eq!(firsts[2], None, "not asked for");
    assert!(firsts.iter().flatten().all(|frame| frame.keyframe));
    assert_eq!(run.closed()[0].streams.len(), 2);
    assert!(trigger(&mut run, secs(9), &[StreamId(9)], "").is_none(), "no such stream");
}

#[test]
fn live_a_silent_stream_does_not_hold_a_clip() {
    let (mut run, streams) = Run::with(&event(secs(1), secs(1)), 2);
    run.windows.set_live(true);
    for frame in video(streams[1], 0, 60, 10, 0) {
        run.push(frame);
    }
    for frame in video(streams[0], 0, 200, 10, 0) {
        run.push(frame);
        if frame.time == ms(2000) {
            trigger(&mut run, secs(2), &[], "");
        }
        assert_eq!(run.closed().len(), usize::from(frame.time >= secs(4)), "{:?}", frame.time);
    }
    let closed = &run.closed()[0];
    assert_eq!((closed.reason, closed.complete), (Reason::Timeout, false));
    assert_eq!(closed.streams[1].figures.frames, 40, "from the keyframe at 800 ms to where it fell silent");
    run.eos();
    run.check(true);
}
