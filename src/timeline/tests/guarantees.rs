//! What the matcher promises for complete streams, against all sets that there are.

use proptest::prelude::*;

use crate::timeline::Ns;
use crate::timeline::matcher::{Join, Matcher, MatcherConfig, Push, Reference, Set};

type Stamps = Vec<Vec<i64>>;

fn complete() -> MatcherConfig {
    MatcherConfig { min_streams: 0, ..Default::default() }
}

/// Pushes in the given order of streams (then the rest), ends all, gives the sets as stamps by stream.
fn sets(streams: &Stamps, order: &[usize], config: MatcherConfig, apart: i64) -> Vec<Vec<Option<i64>>> {
    let mut matcher = Matcher::new(config);
    let mut next = vec![0; streams.len()];
    for _ in streams {
        matcher.add(Join::One, Ns(apart), Ns::ZERO);
    }
    let (mut set, mut out) = (Set::default(), Vec::new());
    let mut collect = |matcher: &mut Matcher<i64>| {
        while matcher.pop(Ns::ZERO, &mut set) {
            let mut row = vec![None; streams.len()];
            for member in &set.members {
                assert!(row[member.stream].replace(member.stamp.0).is_none(), "two frames of a stream in a set");
                assert_eq!(member.stamp.0, member.frame);
            }
            out.push(row);
        }
    };
    let rest = (0..streams.len()).flat_map(|stream| std::iter::repeat_n(stream, streams[stream].len()));
    for stream in order.iter().map(|i| i % streams.len()).chain(rest) {
        if let Some(stamp) = streams[stream].get(next[stream]) {
            next[stream] += 1;
            assert_eq!(matcher.push(stream, Ns(*stamp), *stamp, Ns::ZERO), Push::Held);
            collect(&mut matcher);
        }
    }
    for stream in 0..streams.len() {
        matcher.end(stream);
        collect(&mut matcher);
    }
    out
}

/// Those before a stream has ended.
fn whole(rows: &[Vec<Option<i64>>]) -> Vec<Vec<i64>> {
    rows.iter().filter_map(|row| row.iter().copied().collect()).collect()
}

fn span(set: &[i64]) -> i64 {
    set.iter().max().unwrap() - set.iter().min().unwrap()
}

/// All sets of what is left after `floor`.
fn all_sets(streams: &Stamps, floor: &[i64]) -> Vec<Vec<i64>> {
    let left =
        streams.iter().zip(floor).map(|(stamps, floor)| stamps.iter().copied().filter(move |stamp| stamp > floor));
    left.fold(vec![vec![]], |sets, stamps| {
        let stamps: Vec<i64> = stamps.collect();
        sets.iter().flat_map(|set| stamps.iter().map(|stamp| [set.as_slice(), &[*stamp]].concat())).collect()
    })
}

prop_compose! {
    fn any_streams(most: usize, longest: usize)(
        streams in prop::collection::vec(prop::collection::btree_set(0i64..400, 0..longest), 2..=most),
    ) -> Stamps {
        streams.into_iter().map(|stamps| stamps.into_iter().collect()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn each_frame_is_used_once_and_sets_do_not_cross(streams in any_streams(5, 30), order in prop::collection::vec(any::<usize>(), 0..200)) {
        let sets = whole(&sets(&streams, &order, complete(), 0));
        for pair in sets.windows(2) {
            prop_assert!(pair[0].iter().zip(&pair[1]).all(|(a, b)| a < b), "{:?}", pair);
        }
    }

    #[test]
    fn sets_are_contiguous(streams in any_streams(4, 12)) {
        let sets = whole(&sets(&streams, &[], complete(), 0));
        let mut floor = vec![-1; streams.len()];
        let ends = vec![i64::MAX; streams.len()];
        for set in sets.iter().chain([&ends]) {
            let passed = streams.iter().zip(floor.iter().zip(set)).map(|(stamps, (from, to))| {
                stamps.iter().filter(|stamp| *stamp > from && *stamp < to).count()
            });
            // Some stream has nothing between: no set could be made of what is left out.
            prop_assert!(passed.clone().any(|count| count == 0), "{:?} {:?}", floor, set);
            floor.clone_from(set);
        }
    }

    #[test]
    fn sets_are_of_least_span(streams in any_streams(4, 10)) {
        let mut floor = vec![-1; streams.len()];
        for set in whole(&sets(&streams, &[], complete(), 0)) {
            let heads = streams.iter().zip(&floor).filter_map(|(stamps, floor)| stamps.iter().find(|stamp| *stamp > floor));
            let pivot = *heads.max().unwrap();
            // Of all that hold the latest of the first frames: none is shorter, and of those as short none begins earlier.
            let holding = all_sets(&streams, &floor).into_iter().filter(|other| other.contains(&pivot));
            let best = holding.map(|other| (span(&other), *other.iter().min().unwrap())).min();
            prop_assert_eq!(Some((span(&set), *set.iter().min().unwrap())), best);
            floor = set;
        }
    }

    #[test]
    fn stamps_alone_decide(
        streams in any_streams(4, 30),
        order in prop::collection::vec(any::<usize>(), 0..200),
        other in prop::collection::vec(any::<usize>(), 0..200),
    ) {
        prop_assert_eq!(sets(&streams, &order, complete(), 0), sets(&streams, &other, complete(), 0));
        // With partial sets too, and with a bound on the distance.
        let near = MatcherConfig { max_interval: Some(Ns(30)), ..Default::default() };
        prop_assert_eq!(sets(&streams, &order, near, 0), sets(&streams, &other, near, 0));
        // And with a reference.
        let camera = MatcherConfig { reference: Reference::Stream(0), ..near };
        prop_assert_eq!(sets(&streams, &order, camera, 0), sets(&streams, &other, camera, 0));
        let clock = Reference::Clock { period: Ns(25), phase: Ns(3) };
        let clock = MatcherConfig { reference: clock, max_interval: None, ..near };
        prop_assert_eq!(sets(&streams, &order, clock, 0), sets(&streams, &other, clock, 0));
    }

    #[test]
    fn knowing_how_far_frames_are_apart_changes_when_but_not_what(
        streams in any_streams(4, 30),
        order in prop::collection::vec(any::<usize>(), 0..200),
    ) {
        let apart: Vec<Vec<i64>> = streams.iter().map(|stamps| {
            stamps.iter().enumerate().map(|(i, stamp)| stamp + 10 * i as i64).collect()
        }).collect();
        prop_assert_eq!(sets(&apart, &order, complete(), 11), sets(&apart, &order, complete(), 0));
    }

    #[test]
    fn nothing_is_lost_between_the_sets(
        streams in any_streams(4, 30),
        order in prop::collection::vec(any::<usize>(), 0..200),
        reference in prop_oneof![
            Just(Reference::None),
            (0usize..2).prop_map(Reference::Stream),
            (1i64..60, 0i64..60).prop_map(|(period, phase)| Reference::Clock { period: Ns(period), phase: Ns(phase) }),
        ],
        most in prop::option::of(1i64..60),
        latency in prop::option::of(0i64..100),
        max_held in 0usize..5,
        min_streams in 0usize..4,
    ) {
        // Each frame is in a set, passed over, late, pushed out, or still waiting: exactly one of these.
        let config = MatcherConfig {
            reference, max_interval: most.map(Ns), latency: latency.map(Ns), max_held, min_streams, stream_timeout: Some(Ns(150)),
        };
        let mut matcher = Matcher::new(config);
        let mut next = vec![0; streams.len()];
        streams.iter().for_each(|_| { matcher.add(Join::One, Ns::ZERO, Ns::ZERO); });
        let (mut set, mut count, mut last, mut at) = (Set::default(), 0, vec![Ns::MIN; streams.len()], Ns::MIN);
        let mut pushed = 0;
        let rest = (0..streams.len()).flat_map(|stream| std::iter::repeat_n(stream, streams[stream].len()));
        for stream in order.iter().map(|i| i % streams.len()).chain(rest) {
            let Some(stamp) = streams[stream].get(next[stream]) else { continue };
            next[stream] += 1;
            pushed += 1;
            count += usize::from(matcher.push(stream, Ns(*stamp), *stamp, Ns(*stamp)) != Push::Held);
            loop {
                let found = matcher.pop(Ns(*stamp), &mut set);
                count += set.skipped.len();
                if !found {
                    break;
                }
                prop_assert!(set.at > at);
                at = set.at;
                count += set.members.len();
                for member in &set.members {
                    prop_assert!(member.stamp > last[member.stream]);
                    last[member.stream] = member.stamp;
                    prop_assert!(most.is_none_or(|most| (member.stamp - set.at).abs() <= Ns(2 * most)));
                }
            }
        }
        count += (0..streams.len()).map(|stream| matcher.held(stream)).sum::<usize>();
        prop_assert_eq!(count, pushed);
    }

    #[test]
    fn no_numbers_make_it_panic(
        frames in prop::collection::vec((0usize..5, any::<i64>(), any::<i64>(), 0u8..8), 0..100),
        apart in any::<i64>(), most in prop::option::of(any::<i64>()), latency in prop::option::of(any::<i64>()),
        period in any::<i64>(), phase in any::<i64>(), which in 0u8..3, max_held in 0usize..4,
    ) {
        let reference = match which {
            0 => Reference::None,
            1 => Reference::Stream(1),
            _ => Reference::Clock { period: Ns(period), phase: Ns(phase) },
        };
        let config = MatcherConfig {
            reference, max_interval: most.map(Ns), latency: latency.map(Ns), max_held, min_streams: 1, stream_timeout: latency.map(Ns),
        };
        let mut matcher = Matcher::new(config);
        for join in [Join::One, Join::One, Join::Nearest, Join::AllSince] {
            matcher.add(join, Ns(apart), Ns::ZERO);
        }
        let mut set = Set::default();
        for (stream, stamp, now, what) in frames {
            match what {
                0 => matcher.end(stream),
                1 => matcher.gap(stream, Ns(stamp), Ns(now)),
                2 => matcher.clear(Ns(now)),
                3 => { matcher.remove(stream); matcher.add(Join::One, Ns(apart), Ns(now)); }
                _ => { matcher.push(stream, Ns(stamp), (), Ns(now)); }
            }
            matcher.deadline();
            for _ in 0..200 {
                if !matcher.pop(Ns(now), &mut set) { break }
            }
        }
    }
}
