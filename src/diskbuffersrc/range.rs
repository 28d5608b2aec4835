//! Where playing begins and ends, as sync points of what is held.
//!
//! Pure reading: nothing is said to anybody, what had to be clamped is returned.

use super::place::{Place, iso};
use super::state::{Tip, Until};
use crate::media::content::Content;
use crate::store::{Body, Mark, Record, Sequence, StoreError, StreamReader, Sync, wall_clock};

const RECORDS: usize = 256;
const BYTES: usize = 1 << 20;
/// With more records since it was last looked at, the end is looked for from the last sync point on.
const FAR: u64 = 4096;

/// A start or a stop that lies outside of what is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clamped {
    pub property: &'static str,
    pub asked: String,
    pub used: String,
}

/// Where decoding can begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    At(Sequence),
    /// Nothing is there yet to be delivered; what comes first decides.
    Undecided(Sequence),
}

/// What is known when a place is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// Capture time of the earliest record.
    pub origin: Option<i64>,
    pub tip: Tip,
    /// Where the cursor that `cursor` means stands.
    pub cursor: Option<Sequence>,
}

/// When a buffer was captured, in ns since 1970; `None` for what is no buffer.
pub fn captured_at(reader: &StreamReader, record: &Record) -> Option<(i64, bool)> {
    match &record.body {
        Body::Buffer(header) => Some(reader.captured_at(header, record.arrival)),
        _ => None,
    }
}

/// When a buffer was over.
fn ended_at(reader: &StreamReader, record: &Record) -> Option<i64> {
    let Body::Buffer(header) = &record.body else { return None };
    let (at, _) = reader.captured_at(header, record.arrival);
    Some(at.saturating_add_unsigned(header.duration.unwrap_or(0)))
}

/// Visits records from `from` on until `visit` says that it is enough.
fn each(reader: &StreamReader, from: Sequence, mut visit: impl FnMut(&Record) -> bool) -> Result<(), StoreError> {
    let mut at = from;
    loop {
        let chunk = reader.read(at, RECORDS, BYTES)?;
        if chunk.records.iter().any(&mut visit) {
            return Ok(());
        }
        match chunk.next.filter(|next| *next > at) {
            Some(next) => at = next,
            None => return Ok(()),
        }
    }
}

/// Capture time of the earliest buffer that is held.
pub fn origin(reader: &StreamReader) -> Result<Option<i64>, StoreError> {
    let mut found = None;
    each(reader, reader.first(), |record| {
        found = captured_at(reader, record);
        found.is_some()
    })?;
    Ok(found.map(|(at, _)| at))
}

/// Where what is held ends, going on from what was known.
pub fn tip(reader: &StreamReader, known: Tip) -> Result<Tip, StoreError> {
    let end = reader.end().sequence;
    if known.sequence >= end {
        return Ok(known);
    }
    let near = known.sequence > 0 && end - known.sequence <= FAR;
    let from = match near {
        true => known.sequence,
        false => reader.sync_at_or_before(end)?.map_or(reader.first(), |point| point.sequence),
    };
    let mut utc = known.utc;
    each(reader, from, |record| {
        utc = utc.max(ended_at(reader, record));
        record.sequence >= end
    })?;
    Ok(Tip { sequence: end, utc })
}

/// Where decoding can begin so that nothing from `from` on is missed: there, if a decoder can start or another run begins,
/// else at the sync point before.
pub fn decodable(reader: &StreamReader, from: Sequence) -> Result<Start, StoreError> {
    let from = from.max(reader.first());
    let mut found = None;
    each(reader, from, |record| {
        found = match &record.body {
            Body::Buffer(header) => Some(header.sync != Sync::None),
            Body::State { .. } => {
                matches!(Content::of_event(record.payload.as_ref()), Content::Domain(_)).then_some(true)
            }
            Body::Event | Body::Snapshot(_) => None,
        };
        found.is_some()
    })?;
    match found {
        None => Ok(Start::Undecided(from)),
        Some(true) => Ok(Start::At(from)),
        Some(false) => at_sync(reader, from),
    }
}

/// The sync point at or before, else the next one, else the place itself.
fn at_sync(reader: &StreamReader, from: Sequence) -> Result<Start, StoreError> {
    let point = match reader.sync_at_or_before(from)? {
        Some(point) => Some(point),
        None => reader.first_sync_from(from)?,
    };
    Ok(Start::At(point.map_or(from, |point| point.sequence)))
}

/// Where playing begins.
pub fn start(reader: &StreamReader, place: Place, held: &Held) -> Result<(Start, Option<Clamped>), StoreError> {
    let clamped = |asked: String, used: String| Some(Clamped { property: "start", asked, used });
    let (first, end) = (reader.first(), reader.end().sequence);
    let latest = || at_sync(reader, end.saturating_sub(1).max(first));
    if held.origin.is_none() {
        // Nothing is held: whatever comes is where it begins.
        return Ok((Start::Undecided(end.max(first)), None));
    }
    match place {
        Place::Earliest => Ok((decodable(reader, first)?, None)),
        Place::Latest => Ok((latest()?, None)),
        Place::Cursor => Ok((decodable(reader, held.cursor.unwrap_or(first))?, None)),
        Place::Position(position) if position < first => {
            Ok((decodable(reader, first)?, clamped(position.to_string(), first.to_string())))
        }
        Place::Position(position) if position >= end => {
            let start = latest()?;
            let (Start::At(used) | Start::Undecided(used)) = start;
            Ok((start, clamped(position.to_string(), used.to_string())))
        }
        Place::Position(position) => Ok((at_sync(reader, position)?, None)),
        Place::Time(_) | Place::Ago(_) => {
            let utc = time_of(place);
            let Some(point) = reader.sync_at_or_before_time(utc)? else {
                let used = held.origin.filter(|origin| *origin > utc);
                return Ok((decodable(reader, first)?, used.and_then(|used| clamped(iso(utc), iso(used)))));
            };
            let late = held.tip.utc.is_some_and(|tip| utc >= tip);
            let clamped = if late { clamped(iso(utc), iso(point.captured_at)) } else { None };
            Ok((Start::At(point.sequence), clamped))
        }
    }
}

/// Where playing ends.
pub fn until(
    reader: &StreamReader,
    place: Option<Place>,
    held: &Held,
    follow: bool,
) -> Result<(Until, Option<Clamped>), StoreError> {
    let clamped = |asked: String, used: String| Some(Clamped { property: "stop", asked, used });
    let Mark { sequence: end, .. } = reader.end();
    let first = reader.first();
    Ok(match place {
        None => (Until::End, None),
        Some(Place::Earliest) => (Until::Position(first), None),
        Some(Place::Latest) => {
            let last = reader.sync_at_or_before(end)?;
            (Until::Position(last.map_or(end, |point| point.sequence)), None)
        }
        Some(Place::Cursor) => (Until::Position(held.cursor.unwrap_or(first)), None),
        Some(Place::Position(position)) if position < first => {
            (Until::Position(position), clamped(position.to_string(), first.to_string()))
        }
        Some(Place::Position(position)) if position > end && !follow => {
            (Until::End, clamped(position.to_string(), end.to_string()))
        }
        Some(Place::Position(position)) => (Until::Position(position), None),
        Some(place @ (Place::Time(_) | Place::Ago(_))) => {
            let utc = time_of(place);
            match (held.origin, held.tip.utc) {
                (Some(origin), _) if utc < origin => (Until::Time(utc), clamped(iso(utc), iso(origin))),
                (_, Some(tip)) if utc > tip && !follow => (Until::End, clamped(iso(utc), iso(tip))),
                _ => (Until::Time(utc), None),
            }
        }
    })
}

fn time_of(place: Place) -> i64 {
    match place {
        Place::Time(utc) => utc,
        Place::Ago(ago) => wall_clock().saturating_sub(ago),
        _ => 0,
    }
}
