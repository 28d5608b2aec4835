//! Places in a recording as text: the grammar of `start` and `stop`.
//!
//! `earliest`, `latest`, `cursor`, a position, a time (ISO 8601, or ns since 1970), or a distance back from now. No text makes
//! this panic; what cannot be read is refused with the accepted forms in the sentence.

use std::fmt;

/// An integer above this is ns since 1970 (13 days after it began), one up to it is a position.
const POSITIONS: u64 = 1_000_000_000_000_000;
const SECOND: i64 = 1_000_000_000;

/// The accepted forms, for error messages and `gst-inspect-1.0`.
pub const FORMS: &str = "earliest, latest, cursor, a position (integer up to 10^15), a time such as 2026-01-31T13:45:00.5Z or \
                         2026-01-31T14:45:00+01:00 (UTC without a zone), ns since 1970 (integer above 10^15), or a time before \
                         now such as -30s, -5m, -1h30m, -500ms";

/// A place in a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Earliest,
    /// The last sync point.
    Latest,
    /// That of the consumer, or that of `diskbuffer` itself.
    Cursor,
    Position(u64),
    /// ns since 1970.
    Time(i64),
    /// ns before now.
    Ago(i64),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is no place in a recording: {reason}. Accepted are {FORMS}")]
pub struct Unreadable {
    pub text: String,
    pub reason: &'static str,
}

impl Place {
    /// Reads a text without blanks around it.
    ///
    /// # Errors
    ///
    /// It is none of the accepted forms, or a time outside of 1970 to 2262.
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        let trimmed = text.trim();
        let place = match trimmed.to_ascii_lowercase().as_str() {
            "earliest" => Ok(Place::Earliest),
            "latest" => Ok(Place::Latest),
            "cursor" => Ok(Place::Cursor),
            lower if lower.starts_with('-') => distance(&lower[1..]).map(Place::Ago),
            digits if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => integer(digits),
            lower => time(lower).map(Place::Time),
        };
        place.map_err(|reason| Unreadable { text: text.to_owned(), reason })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Place::Earliest => f.write_str("earliest"),
            Place::Latest => f.write_str("latest"),
            Place::Cursor => f.write_str("cursor"),
            Place::Position(position) => write!(f, "{position}"),
            Place::Time(utc) => f.write_str(&iso(utc)),
            Place::Ago(ns) => write!(f, "-{ns}ns"),
        }
    }
}

fn integer(digits: &str) -> Result<Place, &'static str> {
    let number: u64 = digits.parse().map_err(|_| "the number is too large")?;
    if number <= POSITIONS {
        return Ok(Place::Position(number));
    }
    i64::try_from(number).map(Place::Time).map_err(|_| "the time is after 2262")
}

/// `1h30m`, `1.5s`, `500ms`: ns.
fn distance(text: &str) -> Result<i64, &'static str> {
    const UNITS: [(&str, f64); 7] =
        [("ms", 1e6), ("us", 1e3), ("ns", 1.0), ("d", 86_400e9), ("h", 3600e9), ("m", 60e9), ("s", 1e9)];
    let mut rest = text;
    let mut sum = 0i64;
    if rest.is_empty() {
        return Err("the distance is missing");
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, tail) = rest.split_at(digits);
        let (unit, scale) =
            UNITS.into_iter().find(|(unit, _)| tail.starts_with(unit)).ok_or("a distance has units: d, h, m, s, ms")?;
        // Whole numbers are exact.
        let ns = match number.parse::<i64>() {
            Ok(whole) => whole.checked_mul(scale as i64),
            Err(_) => {
                let value: f64 = number.parse().map_err(|_| "a number is missing before a unit")?;
                Some((value * scale).round()).filter(|ns| *ns < i64::MAX as f64).map(|ns| ns as i64)
            }
        };
        sum = ns.and_then(|ns| sum.checked_add(ns)).ok_or("the distance is too large")?;
        rest = &tail[unit.len()..];
    }
    Ok(sum)
}

/// ISO 8601, in lower case: `2026-01-31`, `2026-01-31t13:45`, `2026-01-31 13:45:00.25+01:00`, `20260131t134500z`.
fn time(text: &str) -> Result<i64, &'static str> {
    const NOT_ONE: &str = "it is neither a word known here nor a time";
    let mut text = Cursor(text.as_bytes());
    let year = text.number(4).ok_or(NOT_ONE)?;
    let dashed = text.eat(b"-");
    let month = text.number(2).ok_or(NOT_ONE)?;
    if dashed && !text.eat(b"-") {
        return Err(NOT_ONE);
    }
    let day = text.number(2).ok_or(NOT_ONE)?;
    let (mut hour, mut minute, mut second, mut fraction, mut zone) = (0, 0, 0, 0, 0);
    if text.eat(b"t") || text.eat(b" ") || text.eat(b"_") {
        hour = text.number(2).ok_or("the hour is missing")?;
        text.eat(b":");
        minute = text.number(2).ok_or("the minute is missing")?;
        let colon = text.eat(b":");
        if let Some(found) = text.number(2) {
            second = found;
            if text.eat(b".") || text.eat(b",") {
                fraction = text.fraction().ok_or("the fraction of the second is missing")?;
            }
        } else if colon {
            return Err("the second is missing");
        }
        zone = text.zone()?;
    }
    if !text.0.is_empty() {
        return Err("something follows the time that does not belong there");
    }
    let days_in = [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let last = usize::try_from(month - 1).ok().and_then(|month| days_in.get(month)).ok_or("there is no such month")?;
    if !(1..=*last).contains(&day) {
        return Err("there is no such day");
    }
    if hour > 23 || minute > 59 || second > 60 {
        return Err("there is no such time of day");
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - zone;
    if seconds < 0 {
        return Err("the time is before 1970");
    }
    seconds.checked_mul(SECOND).and_then(|ns| ns.checked_add(fraction)).ok_or("the time is after 2262")
}

/// What is left of a text.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn eat(&mut self, expected: &[u8]) -> bool {
        let rest = self.0.strip_prefix(expected);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// A number of exactly so many digits.
    fn number(&mut self, digits: usize) -> Option<i64> {
        let (head, tail) = self.0.split_at_checked(digits)?;
        let value = head.iter().try_fold(0, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))?;
        self.0 = tail;
        Some(value)
    }

    /// ns; what is finer is left out.
    fn fraction(&mut self) -> Option<i64> {
        let digits = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        let (head, tail) = self.0.split_at(digits);
        self.0 = tail;
        let ns = (0..9).fold(0, |sum, at| sum * 10 + head.get(at).map_or(0, |b| i64::from(b - b'0')));
        (digits > 0).then_some(ns)
    }

    /// Seconds east of Greenwich.
    fn zone(&mut self) -> Result<i64, &'static str> {
        let sign = match self.0.first() {
            Some(b'z') => {
                self.eat(b"z");
                return Ok(0);
            }
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Ok(0),
        };
        self.0 = &self.0[1..];
        let hours = self.number(2).filter(|hours| *hours <= 23).ok_or("the zone is none")?;
        let colon = self.eat(b":");
        let minutes = match self.number(2) {
            Some(minutes) if minutes <= 59 => minutes,
            None if !colon => 0,
            _ => return Err("the zone is none"),
        };
        Ok(sign * (hours * 3600 + minutes * 60))
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// In the Gregorian calendar, counted in years that begin in March.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// A time in ns since 1970 as ISO 8601 with a fraction of nine digits at most.
pub fn iso(utc: i64) -> String {
    let (seconds, ns) = (utc.div_euclid(SECOND), utc.rem_euclid(SECOND));
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let fraction = if ns == 0 { String::new() } else { format!(".{ns:09}").trim_end_matches('0').to_owned() };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Place {
        Place::parse(text).unwrap_or_else(|err| panic!("{err}"))
    }

    #[test]
    fn words_positions_and_distances_are_read() {
        assert_eq!(at("earliest"), Place::Earliest);
        assert_eq!(at(" Latest "), Place::Latest);
        assert_eq!(at("cursor"), Place::Cursor);
        assert_eq!(at("0"), Place::Position(0));
        assert_eq!(at("1000000000000000"), Place::Position(POSITIONS));
        assert_eq!(at("1000000000000001"), Place::Time(1_000_000_000_000_001));
        assert_eq!(at("-30s"), Place::Ago(30 * SECOND));
        assert_eq!(at("-1h30m"), Place::Ago(5400 * SECOND));
        assert_eq!(at("-5m"), Place::Ago(300 * SECOND));
        assert_eq!(at("-500ms"), Place::Ago(SECOND / 2));
        assert_eq!(at("-1.5s"), Place::Ago(SECOND * 3 / 2));
        assert_eq!(at("-2d"), Place::Ago(2 * 86_400 * SECOND));
    }

    #[test]
    fn times_are_read_with_and_without_zone_and_fraction() {
        let then = 1_767_225_600 * SECOND;
        for text in
            ["2026-01-01", "2026-01-01T00:00:00Z", "2026-01-01 00:00", "20260101T000000Z", "2026-01-01t01:00+01:00"]
        {
            assert_eq!(at(text), Place::Time(then), "{text}");
        }
        assert_eq!(at("2025-12-31T23:30:00.25-0030"), Place::Time(then + SECOND / 4));
        assert_eq!(at("2025-12-31T23:59:59,123456789123Z"), Place::Time(then - SECOND + 123_456_789));
        assert_eq!(at("2024-02-29T12:00:00"), Place::Time(1_709_208_000 * SECOND));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_accepted_forms() {
        for text in [
            "",
            "-",
            "yesterday",
            "2026-13",
            "2026-13-01",
            "2026-02-29",
            "2026-01-01T25:00",
            "2026-01-01T",
            "-30",
            "-s",
            "-1x",
            "1e9",
            "99999999999999999999",
            "9223372036854775808",
            "2026-01-01T00:00:00Zfoo",
            "2026-01-01T00:00:00+99:00",
            "9999-01-01",
            "1969-12-31",
            "-999999999999d",
            "-1.2.3s",
            "+30s",
            "2026-1-1",
            "२०२६-01-01",
        ] {
            let err = Place::parse(text).unwrap_err();
            assert!(err.to_string().contains("earliest, latest"), "{err}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*", like in "[-0-9tz:.+dhms ]{0,30}") {
            let _ = Place::parse(&text);
            let _ = Place::parse(&like);
        }

        #[test]
        fn a_time_that_is_written_is_read_as_itself(utc in 0..i64::MAX) {
            prop_assert_eq!(at(&iso(utc)), Place::Time(utc));
        }

        #[test]
        fn a_place_that_is_written_is_read_as_itself(ago in 0..i64::MAX, position in 0..=POSITIONS) {
            prop_assert_eq!(at(&Place::Ago(ago).to_string()), Place::Ago(ago));
            prop_assert_eq!(at(&Place::Position(position).to_string()), Place::Position(position));
        }
    }
}
