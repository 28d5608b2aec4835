//! The speed limit while draining: `catch-up-rate` times real time.

use std::time::{Duration, Instant};

/// Backlog in ns of media time below which the limit does not apply: the live stream arrives at its own pace.
const LIVE: u64 = 500_000_000;
/// The longest pause that can be asked for.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Where the drain began, in real time and in media time.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    since: Instant,
    media: u64,
}

impl Pace {
    /// When what follows may go out: `media` is the media time delivered so far, `level` what waits, both in ns.
    /// The clock is asked only where there is a limit.
    pub fn next(
        pace: &mut Option<Pace>,
        now: impl FnOnce() -> Instant,
        media: u64,
        level: u64,
        rate: f64,
    ) -> Option<Instant> {
        if rate <= 0.0 || level < LIVE {
            *pace = None;
            return None;
        }
        let now = now();
        let begun = pace.get_or_insert(Pace { since: now, media });
        let wanted = Duration::try_from_secs_f64(media.saturating_sub(begun.media) as f64 / 1e9 / rate);
        let due = begun.since + wanted.map_or(LONGEST, |wanted| wanted.min(LONGEST));
        // A stall on the way must not be made up for by a burst.
        if now.saturating_duration_since(due) > Duration::from_secs(1) {
            *begun = Pace { since: now, media };
        }
        (due > now).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn twice_real_time_takes_half_the_time() {
        let start = Instant::now();
        let mut pace = None;
        assert_eq!(Pace::next(&mut pace, || start, 0, 60 * SECOND, 2.0), None);
        let due = Pace::next(&mut pace, || start, 10 * SECOND, 50 * SECOND, 2.0);
        assert_eq!(due, Some(start + Duration::from_secs(5)));
        let late = start + Duration::from_secs(20);
        assert_eq!(Pace::next(&mut pace, || late, 12 * SECOND, 48 * SECOND, 2.0), None);
        let due = Pace::next(&mut pace, || late, 14 * SECOND, 46 * SECOND, 2.0);
        assert_eq!(due, Some(late + Duration::from_secs(1)), "what a stall took is not made up for");
        assert_eq!(Pace::next(&mut pace, || late, 60 * SECOND, 0, 2.0), None, "live");
        assert_eq!(Pace::next(&mut pace, || late, 60 * SECOND, SECOND, 0.0), None, "no limit");
    }
}
