use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{ProptestConfig, any, prop, prop_oneof, proptest};
use proptest::strategy::Strategy as _;

use super::*;
use crate::windowing::config::LONGEST;

#[derive(Debug, Clone)]
enum Step {
    Push { stream: u8, time: i64, position: Option<i64>, duration: Option<i64>, bits: u8, size: usize },
    Gap { stream: u8, time: i64, duration: i64 },
    Eos(u8),
    Flush(u8),
    Restart(u8),
    Split(u8, i64),
    Trigger { time: i64, streams: Vec<u8> },
    GiveUp(u8, Option<i64>),
    Add,
    Remove(u8),
    Reference(u8),
    Live(bool),
}

fn times() -> impl proptest::strategy::Strategy<Value = i64> {
    prop_oneof![
        4 => -20i64..400,
        1 => prop::sample::select(vec![i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1, 0, 1 << 62, -(1 << 62)]),
        1 => any::<i64>(),
    ]
    .prop_map(|time| if (-20..400).contains(&time) { time * 20 * MS } else { time })
}

fn steps() -> impl proptest::strategy::Strategy<Value = Step> {
    let time = || prop_oneof![6 => (-20i64..400).prop_map(|time| time * 20 * MS), 1 => times()];
    let stream = || 0u8..4;
    prop_oneof![
        20 => (stream(), time(), option::of(time()), option::of(times()), any::<u8>(), 0usize..5000).prop_map(
            |(stream, time, position, duration, bits, size)| Step::Push { stream, time, position, duration, bits, size }
        ),
        2 => (stream(), time(), times()).prop_map(|(stream, time, duration)| Step::Gap { stream, time, duration }),
        1 => stream().prop_map(Step::Eos),
        1 => stream().prop_map(Step::Flush),
        1 => stream().prop_map(Step::Restart),
        1 => (0u8..3, time()).prop_map(|(kind, time)| Step::Split(kind, time)),
        2 => (time(), vec(stream(), 0..3)).prop_map(|(time, streams)| Step::Trigger { time, streams }),
        1 => (stream(), option::of(time())).prop_map(|(stream, until)| Step::GiveUp(stream, until)),
        1 => prop::sample::select(vec![Step::Add]),
        1 => stream().prop_map(Step::Remove),
        1 => stream().prop_map(Step::Reference),
        1 => any::<bool>().prop_map(Step::Live),
    ]
}

fn configs() -> impl proptest::strategy::Strategy<Value = Config> {
    let strategies =
        [Strategy::Fixed, Strategy::Sliding, Strategy::Keyframe, Strategy::Adaptive, Strategy::Scene, Strategy::Event];
    let lengths =
        || prop_oneof![4 => (0i64..3000).prop_map(ms), 1 => prop::sample::select(vec![Ns(0), Ns(1), LONGEST])];
    (
        prop::sample::select(strategies.to_vec()),
        (lengths(), lengths(), lengths(), lengths(), lengths(), lengths()),
        option::of(lengths()),
        any::<bool>(),
        0f64..50.,
        1u64..100_000,
    )
        .prop_map(|(strategy, times, allowed_lateness, align_to_keyframe, target_complexity, max_ring_bytes)| {
            Config {
                strategy,
                duration: times.0,
                hop: times.1,
                min_duration: times.2,
                max_duration: times.3,
                pre_roll: times.4,
                post_roll: times.5,
                allowed_lateness,
                align_to_keyframe,
                target_complexity,
                max_ring_bytes,
                ..Config::default()
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        max_local_rejects: 100_000, failure_persistence: None, ..ProptestConfig::with_cases(2000)
    })]

    /// Whatever comes: each frame is decided at most once and in order, what has ended has begun, and when all has
    /// ended nothing is left.
    #[test]
    fn whatever_comes_is_decided_once_and_nothing_is_left(
        config in configs().prop_filter("accepted", |config| config.check().is_ok()),
        steps in vec(steps(), 1..120),
    ) {
        let (mut run, mut streams) = Run::with(&config, 2);
        let get = |streams: &Vec<StreamId>, at: u8| streams[at as usize % streams.len()];
        let mut open: BTreeMap<StreamId, BTreeSet<WindowId>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Push { stream, time, position, duration, bits, size } => {
                    run.push(Frame {
                        position: position.map(Ns),
                        duration: duration.map(Ns),
                        keyframe: bits & 3 == 0,
                        cut: bits & 12 == 0,
                        corrupted: bits & 16 != 0,
                        gap: bits & 32 != 0,
                        size,
                        complexity: size as f64 / 1000.,
                        exposure: (bits & 64 != 0).then_some(0.5),
                        ..Frame::new(get(&streams, stream), Ns(time))
                    });
                }
                Step::Gap { stream, time, duration } => {
                    run.call(|windows, out| windows.gap(get(&streams, stream), Ns(time), Ns(duration), out));
                }
                Step::Eos(stream) => run.call(|windows, out| windows.eos(get(&streams, stream), out)),
                Step::Flush(stream) => run.call(|windows, out| windows.flush(get(&streams, stream), out)),
                Step::Restart(stream) => {
                    run.call(|windows, out| windows.restart(get(&streams, stream), Reason::Segment, out));
                }
                Step::Split(kind, time) => {
                    let split = [Split::Now, Split::Keyframe, Split::At(Ns(time))][kind as usize];
                    run.call(|windows, out| windows.split(split, out));
                }
                Step::Trigger { time, streams: only } => {
                    let streams = only.iter().map(|&stream| get(&streams, stream)).collect();
                    run.call(|windows, out| windows.trigger(Trigger { time: Ns(time), streams, name: None }, out));
                }
                Step::GiveUp(stream, until) => {
                    run.call(|windows, out| windows.give_up_waiting(get(&streams, stream), until.map(Ns), out));
                }
                Step::Add if streams.len() < 4 => {
                    streams.push(run.windows.add_stream());
                }
                Step::Add => {}
                Step::Remove(stream) if streams.len() > 1 => {
                    let stream = streams.remove(stream as usize % streams.len());
                    run.call(|windows, out| windows.remove_stream(stream, out));
                }
                Step::Remove(_) => {}
                Step::Reference(stream) => {
                    run.call(|windows, out| windows.set_reference(get(&streams, stream), out));
                }
                Step::Live(live) => run.windows.set_live(live),
            }
            for &stream in &streams {
                let (_, bytes) = run.windows.undecided(stream);
                assert!(config.strategy != Strategy::Event || bytes <= config.max_ring_bytes);
            }
        }
        for &stream in &streams {
            run.call(|windows, out| windows.eos(stream, out));
        }
        assert_eq!(run.windows.open().count(), 0);
        let mut last: BTreeMap<StreamId, u64> = BTreeMap::new();
        for decision in &run.log {
            match decision {
                Decision::Open { stream, window } => {
                    assert!(open.entry(*stream).or_default().insert(window.id), "opened while open");
                }
                Decision::Frame { stream, serial, windows, late, .. } => {
                    assert!(last.get(stream).is_none_or(|last| last < serial));
                    last.insert(*stream, *serial);
                    let open = open.entry(*stream).or_default();
                    assert!(*late || windows.iter().all(|id| open.contains(&id)));
                }
                Decision::Forget { stream, before, .. } => {
                    let first = last.get(stream).map_or(0, |last| last + 1);
                    assert!(*before > first);
                    last.insert(*stream, before - 1);
                }
                Decision::Share { stream, window, figures, .. } => {
                    assert!(open.entry(*stream).or_default().remove(&window.id), "ended without having begun");
                    assert!((0. ..=1.).contains(&figures.quality), "{figures:?}");
                    assert!(figures.complexity.is_finite());
                }
                Decision::Closed(summary) => {
                    assert!((0. ..=1.).contains(&summary.figures.quality));
                    assert!(summary.window.end.unwrap() >= summary.window.start);
                }
            }
        }
        assert!(open.values().all(BTreeSet::is_empty), "{open:?}");
        for &stream in &streams {
            assert_eq!(run.windows.undecided(stream), (0, 0), "all is decided");
        }
    }
}

#[test]
fn windows_of_a_nanosecond_over_all_of_time() {
    let config = Config { strategy: Strategy::Sliding, duration: Ns(1), hop: Ns(1), ..Config::default() };
    let (mut run, streams) = Run::with(&config, 1);
    for time in [i64::MIN, -1, 0, 1, i64::MAX] {
        run.push(Frame::new(streams[0], Ns(time)));
    }
    run.eos();
    run.check(true);
    let ids: Vec<_> = run.spans().iter().map(|span| span.0).collect();
    assert_eq!(ids, [1 - (1 << 62), -1, 0, 1, (1 << 62) - 1], "times are within 146 years of 0");
}
