//! Sets: on recorded stamps with losses, jitter and drift; deadlines, policies, and streams that stop.

use super::streams::{self, HARD, Trial, frames};
use super::{Random, millis, recorded};
use crate::timeline::Ns;
use crate::timeline::format::{Epoch, Format};
use crate::timeline::line::{Line, LineConfig, Stamped};
use crate::timeline::matcher::{Join, Matcher, MatcherConfig, Push, Reference, Set};

const SEEDS: u64 = 10;

/// Share of the true pairs found, and share of the found that are true.
fn score(pairs: &[[i64; 2]], trial: Trial, seed: u64, config: MatcherConfig, corrected: bool) -> (f64, f64) {
    let (frames, both) = frames(pairs, trial, seed);
    let unix = Format { epoch: Epoch::Unix, ..Format::PIPELINE };
    let format = if trial.own_zero { Format::HLS } else { unix };
    let mut lines = [format, format].map(|format| Line::new(LineConfig { format, ..Default::default() }));
    let mut matcher = Matcher::new(config);
    let start = Ns(frames[0].arrival);
    (0..2).for_each(|_| {
        matcher.add(Join::One, Ns::ZERO, start);
    });
    let (mut set, mut found, mut right) = (Set::default(), 0, 0);
    let mut collect = |matcher: &mut Matcher<usize>, now: Ns| {
        while matcher.pop(now, &mut set) {
            if let [a, b] = &set.members[..] {
                found += 1;
                right += usize::from(a.frame == b.frame);
            }
        }
    };
    for frame in &frames {
        let arrival = Ns(frame.arrival);
        let stamped = Stamped { pts: Some(frame.raw), dts: None, arrival };
        let placed = lines[frame.stream].push(stamped);
        let stamp = if corrected { placed.pts } else { Ns(frame.stamp) };
        // What a timer would do before this frame comes.
        while let Some(deadline) = matcher.deadline().filter(|deadline| *deadline < arrival) {
            let before = matcher.held(0) + matcher.held(1);
            collect(&mut matcher, deadline);
            if matcher.held(0) + matcher.held(1) == before {
                break;
            }
        }
        matcher.push(frame.stream, stamp, frame.index, arrival);
        collect(&mut matcher, arrival);
    }
    (0..2).for_each(|stream| matcher.end(stream));
    collect(&mut matcher, Ns::MAX);
    (right as f64 / both as f64, right as f64 / f64::from(found))
}

#[test]
fn pairs_of_two_sensors_are_found_through_losses_jitter_and_drift() {
    let Some(pairs) = streams::recorded("tum_fr3_office_assoc_rgb_depth.txt", [0, 2]) else { return };
    let complete = MatcherConfig { min_streams: 0, ..Default::default() };
    let near = Some(millis(16.0));
    let live =
        |latency: f64| MatcherConfig { latency: Some(millis(latency)), max_interval: near, ..Default::default() };
    let plain = Trial { noise: 0.0, ppm: 0.0, ..HARD };
    let late = Trial { late: 500.0, ..HARD };
    let cases = [
        ("stamps as they are, 5 % lost", plain, complete, false, 0.995),
        ("  and 4 ms noise", Trial { noise: 4.0, ..plain }, complete, false, 0.98),
        ("  and 500 ppm", HARD, complete, false, 0.0),
        ("on one timeline, 5 % lost", plain, live(200.0), true, 0.995),
        ("  and 4 ms noise", Trial { noise: 4.0, ..plain }, live(200.0), true, 0.995),
        ("  and 500 ppm", HARD, live(200.0), true, 0.995),
        ("  and -500 ppm instead", Trial { ppm: -500.0, ..HARD }, live(200.0), true, 0.995),
        ("  and depth 500 ms late, latency 600 ms", late, live(600.0), true, 0.995),
        ("  and both in 90 kHz from zeros of their own", Trial { own_zero: true, ..HARD }, live(200.0), true, 0.995),
    ];
    println!("fr3, worst of {SEEDS} seeds                       found   right");
    for (name, trial, config, corrected, least) in cases {
        let scores: Vec<_> = (0..SEEDS).map(|seed| score(&pairs, trial, seed, config, corrected)).collect();
        let found = scores.iter().map(|score| score.0).fold(1.0, f64::min);
        let right = scores.iter().map(|score| score.1).fold(1.0, f64::min);
        println!("{name:45} {found:.4}  {right:.4}");
        assert!(found >= least, "{name}: {found} found");
        assert!(right >= if corrected { 0.995 } else { 0.0 }, "{name}: {right} right");
    }
}

#[test]
fn raw_stamps_of_two_drifting_sensors_pair_up() {
    let (Some(rgb), Some(depth)) = (recorded("tum_fr1_xyz_rgb.txt", [0]), recorded("tum_fr1_xyz_depth.txt", [0]))
    else {
        return;
    };
    let mut matcher = Matcher::new(MatcherConfig { min_streams: 0, ..Default::default() });
    let (mut set, mut spans) = (Set::default(), Vec::new());
    for (stream, rows) in [rgb, depth].iter().enumerate() {
        matcher.add(Join::One, Ns::ZERO, Ns::ZERO);
        for [stamp] in rows {
            matcher.push(stream, *stamp, (), Ns::ZERO);
        }
    }
    (0..2).for_each(|stream| matcher.end(stream));
    while matcher.pop(Ns::ZERO, &mut set) {
        if set.members.len() == 2 {
            spans.push(set.spread.as_f64() / 1e6);
        }
    }
    let mean = spans.iter().sum::<f64>() / spans.len() as f64;
    println!("fr1_xyz as recorded: {} pairs, {mean:.2} ms apart", spans.len());
    assert!(spans.len() >= 785 && mean < 7.0);
}

#[test]
fn wild_stamps_cost_no_neighbour_its_set() {
    let unix = Format { epoch: Epoch::Unix, ..Format::PIPELINE };
    for seed in 0..SEEDS {
        let mut random = Random::new(seed);
        let mut lines = [unix, unix].map(|format| Line::new(LineConfig { format, ..Default::default() }));
        let mut matcher = Matcher::new(MatcherConfig {
            latency: Some(millis(100.0)),
            max_interval: Some(millis(16.0)),
            ..Default::default()
        });
        (0..2).for_each(|_| {
            matcher.add(Join::One, Ns::ZERO, Ns::ZERO);
        });
        let (mut set, mut whole, mut wild) = (Set::default(), 0, 0);
        for i in 0..1000i64 {
            let taken = millis(1e6 + i as f64 * 100.0 / 3.0);
            for (stream, line) in lines.iter_mut().enumerate() {
                let step = [5e3, -5e3, -1e8, 60e3][(random.bits() % 4) as usize];
                let step = if i > 20 && random.chance(0.02) {
                    wild += 1;
                    millis(step)
                } else {
                    Ns::ZERO
                };
                let arrival = taken + millis(random.exponential(3.0));
                let placed = line.push(Stamped { pts: Some((taken + step).0.max(0) as u64), dts: None, arrival });
                assert_eq!(matcher.push(stream, placed.pts, i, arrival), Push::Held, "{i} {placed:?}");
                while matcher.pop(arrival, &mut set) {
                    whole += i32::from(set.members.len() == 2 && set.members[0].frame == set.members[1].frame);
                }
            }
        }
        (0..2).for_each(|stream| matcher.end(stream));
        while matcher.pop(Ns::MAX, &mut set) {
            whole += i32::from(set.members.len() == 2 && set.members[0].frame == set.members[1].frame);
        }
        if seed == 0 {
            println!("{wild} wild stamps in 2000: {whole} of 1000 sets whole");
        }
        assert_eq!(whole, 1000, "{wild} wild");
    }
}

/// Rows of members, as (stream, frame), of all sets that are due.
fn due(matcher: &mut Matcher<i64>, now: Ns) -> Vec<(bool, Vec<(usize, i64)>)> {
    let (mut set, mut rows) = (Set::default(), Vec::new());
    while matcher.pop(now, &mut set) {
        rows.push((set.complete, set.members.iter().map(|member| (member.stream, member.frame)).collect()));
    }
    rows
}

fn push(matcher: &mut Matcher<i64>, stream: usize, ms: i64, now: i64) -> Push<i64> {
    matcher.push(stream, Ns::from_millis(ms), ms, Ns::from_millis(now))
}

fn matcher(config: MatcherConfig, joins: &[Join]) -> Matcher<i64> {
    let mut matcher = Matcher::new(config);
    joins.iter().for_each(|join| {
        matcher.add(*join, Ns::ZERO, Ns::ZERO);
    });
    matcher
}

fn within(latency: i64, most: i64) -> MatcherConfig {
    let ms = Ns::from_millis;
    MatcherConfig { latency: Some(ms(latency)), max_interval: Some(ms(most)), ..Default::default() }
}

#[test]
fn at_the_deadline_what_is_there_goes_out_and_what_comes_then_is_late() {
    let mut sets = matcher(within(100, 15), &[Join::One; 2]);
    push(&mut sets, 0, 1000, 1005);
    assert_eq!(sets.deadline(), Some(Ns::from_millis(1100)));
    assert_eq!(due(&mut sets, Ns::from_millis(1099)), []);
    assert_eq!(due(&mut sets, Ns::from_millis(1100)), [(false, vec![(0, 1000)])]);
    assert_eq!(push(&mut sets, 1, 998, 1101), Push::Late(998));
    // The next one is in time.
    push(&mut sets, 0, 1033, 1102);
    push(&mut sets, 1, 1031, 1103);
    push(&mut sets, 0, 1066, 1104);
    push(&mut sets, 1, 1064, 1105);
    assert_eq!(due(&mut sets, Ns::from_millis(1110))[0], (true, vec![(0, 1033), (1, 1031)]));
}

#[test]
fn a_stream_that_stops_does_not_stop_the_others() {
    let config = MatcherConfig { stream_timeout: Some(Ns::from_millis(500)), ..within(300, 15) };
    let mut sets = matcher(config, &[Join::One; 3]);
    let mut waits = Vec::new();
    let mut out = 0;
    for i in 0..100 {
        let stamp = 1000 + 40 * i;
        for stream in 0..3 {
            // The third dies in between, and comes back.
            if stream != 2 || !(20..60).contains(&i) {
                assert_eq!(push(&mut sets, stream, stamp, stamp), Push::Held, "{i}");
            }
        }
        let rows = due(&mut sets, Ns::from_millis(stamp + 1));
        waits.push(sets.held(0));
        for (complete, row) in rows {
            assert_eq!(complete, row.len() == 3);
            assert!(row.len() >= 2 && row.iter().all(|(_, frame)| *frame == row[0].1));
            out += 1;
        }
        assert_eq!(sets.is_stopped(2), (32..60).contains(&i), "{i}");
    }
    // While it is missed, sets wait out the latency; once it is given up, none.
    assert!(waits[25] > 5 && waits[40] <= 1 && waits[80] <= 1, "{waits:?}");
    assert!(out >= 98);
}

#[test]
fn without_a_clock_sets_wait_for_data_gap_or_end() {
    let config = MatcherConfig { max_interval: Some(Ns::from_millis(15)), ..Default::default() };
    let mut sets = matcher(config, &[Join::One; 2]);
    (0..3).for_each(|i| {
        push(&mut sets, 0, 40 * i, 0);
    });
    assert_eq!(due(&mut sets, Ns::MAX), []);
    sets.gap(1, Ns::from_millis(70), Ns::ZERO);
    assert_eq!(due(&mut sets, Ns::MAX), [(false, vec![(0, 0)]), (false, vec![(0, 40)])]);
    sets.end(1);
    assert_eq!(due(&mut sets, Ns::MAX), [(true, vec![(0, 80)])]);
}

#[test]
fn slow_and_fast_sensors_ride_along_with_the_camera() {
    let config = MatcherConfig { reference: Reference::Stream(0), ..within(500, 60) };
    // Camera 40 ms, lidar 100 ms, IMU 10 ms.
    let mut sets = matcher(config, &[Join::One, Join::Nearest, Join::AllSince]);
    let mut rows = Vec::new();
    for now in (0..1000).step_by(10) {
        for (stream, period) in [(0, 40), (1, 100), (2, 10)] {
            if now % period == 0 {
                push(&mut sets, stream, now, now);
            }
        }
        rows.extend(due(&mut sets, Ns::from_millis(now)));
    }
    for (i, (_, row)) in rows.iter().enumerate() {
        let at = 40 * i as i64;
        let of = |which| row.iter().filter(move |(stream, _)| *stream == which).map(|(_, frame)| *frame);
        assert_eq!(of(0).collect::<Vec<_>>(), [at]);
        let nearest = of(1).next().unwrap();
        assert!((nearest - at).abs() <= 50, "{at} {nearest}");
        let since: Vec<i64> = ((at - 30).max(0)..=at).step_by(10).collect();
        assert_eq!(of(2).collect::<Vec<_>>(), since);
    }
    assert!(rows.len() >= 20, "{}", rows.len());
}

#[test]
fn a_clock_makes_sets_at_its_ticks() {
    let clock = Reference::Clock { period: Ns::from_millis(50), phase: Ns::from_millis(10) };
    let config = MatcherConfig { reference: clock, latency: Some(Ns::from_millis(200)), ..Default::default() };
    let mut sets = matcher(config, &[Join::One; 2]);
    let mut ticks = Vec::new();
    let mut set = Set::default();
    for i in 0..40 {
        // 25 fps against 20 Hz.
        push(&mut sets, 0, 1000 + 40 * i, 1000 + 40 * i);
        push(&mut sets, 1, 1003 + 40 * i, 1003 + 40 * i);
        while sets.pop(Ns::from_millis(1003 + 40 * i), &mut set) {
            assert!(set.complete && set.members.len() == 2, "{set:?}");
            ticks.push(set.at.0 / 1_000_000);
        }
    }
    assert!(ticks.len() > 25, "{ticks:?}");
    assert!(ticks.windows(2).all(|pair| pair[1] - pair[0] == 50), "{ticks:?}");
}

#[test]
fn what_is_held_is_bounded() {
    let config = MatcherConfig { max_held: 4, ..Default::default() };
    let mut sets = matcher(config, &[Join::One; 2]);
    let mut out = 0;
    for i in 0..100 {
        push(&mut sets, 0, 40 * i, 0);
        out += due(&mut sets, Ns::ZERO).len();
        assert!(sets.held(0) <= 4);
    }
    assert!(out > 90);
    // Without a reference to go with, the oldest gives way.
    let mut sets = matcher(MatcherConfig { reference: Reference::Stream(1), ..config }, &[Join::One; 2]);
    (0..4).for_each(|i| assert_eq!(push(&mut sets, 0, i, 0), Push::Held));
    assert_eq!(push(&mut sets, 0, 4, 0), Push::Replaced(0));
}

#[test]
fn streams_of_unrelated_times_are_found_out() {
    let mut sets = matcher(within(100, 15), &[Join::One; 2]);
    for i in 0..200 {
        let now = 10_000_000 + 40 * i;
        push(&mut sets, 0, now, now);
        push(&mut sets, 1, 40 * i, now);
        due(&mut sets, Ns::from_millis(now));
    }
    assert!(sets.is_unlocked());
}

#[test]
fn two_frames_in_step_are_a_set_before_the_next_ones_come() {
    let mut sets = Matcher::new(MatcherConfig::default());
    (0..2).for_each(|_| {
        sets.add(Join::One, Ns::from_millis(20), Ns::ZERO);
    });
    push(&mut sets, 0, 1000, 0);
    push(&mut sets, 1, 1005, 0);
    // The next of the first stream is 15 ms from the pivot at best.
    assert_eq!(due(&mut sets, Ns::ZERO), [(true, vec![(0, 1000), (1, 1005)])]);
}

#[test]
fn a_reference_waits_for_what_is_nearest() {
    let config = MatcherConfig { reference: Reference::Stream(0), ..within(500, 15) };
    let mut sets = matcher(config, &[Join::One; 2]);
    push(&mut sets, 0, 1000, 1000);
    assert_eq!(due(&mut sets, Ns::from_millis(1000)), []);
    push(&mut sets, 1, 990, 1001);
    assert_eq!(due(&mut sets, Ns::from_millis(1001)), []);
    push(&mut sets, 1, 1004, 1002);
    assert_eq!(due(&mut sets, Ns::from_millis(1002)), [(true, vec![(0, 1000), (1, 1004)])]);
    // Alone, when the other has said that it has nothing.
    push(&mut sets, 0, 1040, 1040);
    sets.gap(1, Ns::from_millis(1060), Ns::from_millis(1041));
    assert_eq!(due(&mut sets, Ns::from_millis(1042)), [(false, vec![(0, 1040)])]);
}
