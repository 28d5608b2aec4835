//! Arbitrary stamps and arrivals through detection, lines and sets: an answer comes, whatever they are.

use crate::bytes::Bytes;
use crate::timeline::Ns;
use crate::timeline::detect::Detector;
use crate::timeline::format::{Epoch, Format, Unit, Wrap};
use crate::timeline::line::{Line, LineConfig, Policy, Stamped};
use crate::timeline::matcher::{Join, Matcher, MatcherConfig, Push, Reference, Set};
use crate::timeline::outlier::Order;

const STREAMS: usize = 4;

fn time(bytes: &mut Bytes) -> Ns {
    Ns(bytes.number() as i64)
}

fn format(bytes: &mut Bytes) -> Format {
    let kind = bytes.one();
    if kind < 192 {
        return Format::PRESETS[usize::from(kind) % Format::PRESETS.len()].1;
    }
    let unit = Unit::new(bytes.number() as u32, bytes.number() as u32).unwrap_or(Unit::NANOSECOND);
    let wrap = [Wrap::Never, Wrap::Bits32, Wrap::Bits33][usize::from(kind % 3)];
    let epoch = [Epoch::Unix, Epoch::Ntp, Epoch::StreamStart, Epoch::Pipeline][usize::from(kind / 3 % 4)];
    Format { unit, wrap, epoch }
}

pub fn stamps(data: &[u8]) {
    let bytes = &mut Bytes(data);
    let mut lines: [Line; STREAMS] = std::array::from_fn(|_| {
        let kind = bytes.one();
        Line::new(LineConfig {
            format: format(bytes),
            live: kind & 1 == 0,
            order: if kind & 2 == 0 { Order::Rising } else { Order::Decode },
            policy: [Policy::Correct, Policy::Drop, Policy::Pass][usize::from(kind >> 2) % 3],
            max_slew_ppm: bytes.number() as u32,
            window: time(bytes),
        })
    });
    let reference = match bytes.one() % 4 {
        0 => Reference::Stream(usize::from(bytes.one())),
        1 => Reference::Clock { period: time(bytes), phase: time(bytes) },
        _ => Reference::None,
    };
    let mut optional = || bytes.maybe().map(|ns| Ns(ns as i64));
    let (latency, max_interval, stream_timeout) = (optional(), optional(), optional());
    let mut matcher = Matcher::new(MatcherConfig {
        reference,
        latency,
        max_interval,
        stream_timeout,
        min_streams: usize::from(bytes.one() % 6),
        max_held: usize::from(bytes.one() % 8),
    });
    for _ in 0..STREAMS {
        let join = [Join::One, Join::One, Join::Nearest, Join::AllSince][usize::from(bytes.one() % 4)];
        matcher.add(join, time(bytes), Ns::ZERO);
    }
    let (mut detector, mut set) = (Detector::default(), Set::default());
    let (mut held, mut gone, mut replaced, mut last) = (0, 0, 0, None);
    while !bytes.is_empty() {
        let what = bytes.one();
        let stream = usize::from(what) % STREAMS;
        let now = time(bytes);
        match what / 4 {
            0 => matcher.end(stream),
            1 => matcher.gap(stream, time(bytes), now),
            _ => {
                let stamped = Stamped { pts: bytes.maybe(), dts: bytes.maybe(), arrival: now };
                if let Some(raw) = stamped.dts.or(stamped.pts) {
                    detector.push(raw, now);
                }
                let placed = lines[stream].push(stamped);
                lines[stream].estimate();
                held += 1;
                match matcher.push(stream, placed.pts, (), now) {
                    Push::Held => {}
                    Push::Replaced(()) => replaced += 1,
                    Push::Late(()) | Push::Refused(()) => gone += 1,
                }
            }
        }
        matcher.deadline();
        loop {
            let found = matcher.pop(now, &mut set);
            gone += set.skipped.len();
            if !found {
                break;
            }
            gone += set.members.iter().filter(|member| !member.again).count();
            assert!(last.is_none_or(|last| set.id > last), "{set:?}");
            last = Some(set.id);
        }
    }
    // Those that ride along may be held, or pushed out, and have been given out as well.
    let waiting: usize = (0..STREAMS).map(|stream| matcher.held(stream)).sum();
    assert!(gone <= held && gone + waiting + replaced >= held, "{gone}, {waiting} and {replaced} of {held}");
}
