//! What an opened database holds: its extents, and where each stream stands.
//!
//! The head of an extent tells what is in it. A damaged head is made up for from the records themselves: each carries the
//! sums before it. A damaged cursor is replaced by the newest older one, in an older extent or the high-water file: records
//! may come twice, none is passed over. Streams that the high-water file knows and the database does not go on where they
//! stood. With [`RecoveryMode::Fail`](super::RecoveryMode) all of this is an error instead.

use std::collections::{BTreeMap, HashMap, btree_map};
use std::path::Path;

use rocksdb::{DB, ReadOptions};

use super::clock::ClockRecord;
use super::error::StoreError;
use super::highwater::HighWater;
use super::holes::Holes;
use super::log::apply_record;
use super::record::{self, Record, Sequence, StateMap, Totals};
use super::salvage::Incident;
use super::schema::{self, CleanMark, CursorRecord, ExtentHeader, IndexEntry, Lane, Meta, StreamStart, UNCLEAN_GAP};
use super::stream::Mark;
use super::walk::{Walk, is_damage};

/// Extents in which gaps are searched for: more than the log can hold.
const SEARCHED: usize = 6;

/// An extent as found on the disk.
#[derive(Default)]
pub struct Found {
    pub header: Option<ExtentHeader>,
    pub starts: BTreeMap<u32, StreamStart>,
    cursors: HashMap<u32, CursorRecord>,
    /// `None` when the value is damaged.
    holes: HashMap<u32, Option<Holes>>,
    clean: Option<CleanMark>,
    pub clock: Option<ClockRecord>,
    /// Something of the head is damaged or missing.
    damaged: bool,
    /// Something of it is there and cannot be read.
    garbled: bool,
}

impl Found {
    /// Number of the boot in which it was opened.
    pub fn boot(&self) -> u32 {
        self.header.as_ref().map_or(0, |header| header.boot)
    }

    /// Cursor of a stream and the holes as of it: they belong together.
    pub fn standing(&self, stream: u32) -> Option<(CursorRecord, Holes)> {
        let none = Some(Holes::default());
        Some((*self.cursors.get(&stream)?, self.holes.get(&stream).unwrap_or(&none).clone()?))
    }
}

/// Where a stream stands.
pub struct Standing {
    pub id: u32,
    pub name: String,
    pub end: Mark,
    pub state: StateMap,
    pub cursor: CursorRecord,
    pub holes: Holes,
}

pub struct Survey {
    pub clock: ClockRecord,
    pub extents: BTreeMap<u32, Found>,
    pub streams: Vec<Standing>,
    pub session: u64,
    pub incidents: Vec<Incident>,
    /// What is wrong, for who does not want it mended.
    pub damage: Option<String>,
}

/// Reads the heads of all extents and the ends of all streams.
pub fn survey(db: &DB, path: &Path, high: &HighWater, doubtful: bool) -> Result<Survey, StoreError> {
    let failed = |source| StoreError::database(path, source);
    let (mut extents, mut damage) = scan(db, 0, high).map_err(failed)?;
    let mut incidents = Vec::new();
    let newest = extents.values().next_back();
    let clean = newest.map_or_else(|| high.session == 0, |found| found.clean.is_some());
    let mut given: HashMap<u32, u64> =
        newest.and_then(|found| found.clean.as_ref()).into_iter().flat_map(|mark| mark.ends.iter().copied()).collect();
    let sessions = extents.values().filter_map(|found| Some(found.header.as_ref()?.session));
    let session = sessions.chain([high.session]).max().unwrap_or(0) + 1;
    mend(db, &mut extents, high, doubtful, &mut damage).map_err(failed)?;

    let mut names: BTreeMap<u32, String> = BTreeMap::new();
    for found in extents.values() {
        names.extend(found.starts.iter().map(|(id, start)| (*id, start.name.clone())));
    }
    for stream in &high.streams {
        names.entry(stream.id).or_insert_with(|| stream.name.clone());
    }
    let mut streams: Vec<Standing> = Vec::new();
    for (id, name) in names {
        let known = high.of(id).filter(|high| high.name == name);
        let cursors = extents.values().filter_map(|found| found.standing(id));
        // Of those that are alike the last is taken: that of the newest extent, which knows of what was purged before the cursor.
        let cursor = known
            .map(|high| (high.cursor, high.holes.clone()))
            .into_iter()
            .chain(cursors)
            .max_by_key(|(cursor, _)| (cursor.position, cursor.totals.buffers, cursor.resume, cursor.log_start));
        let (mut end, state) = tail(db, &extents, id).map_err(failed)?;
        let (cursor, mut holes) = cursor.unwrap_or_else(|| (from_the_beginning(&extents, id), Holes::default()));
        holes.forget(cursor.log_start);
        if cursor.position > end.sequence {
            end = Mark { sequence: cursor.position, totals: end.totals.at_least(cursor.totals) };
        }
        // What was given up at the very end is not there to tell it.
        if let Some(hole) = holes.iter().last().filter(|hole| hole.to > end.sequence) {
            end = Mark { sequence: hole.to, totals: hole.base.plus(hole.kept) };
        }
        if let Some(high) = known {
            let missing = high.totals.since(end.totals);
            if missing.buffers > 0 {
                incidents.push(Incident {
                    stream: Some(name.clone()),
                    first: end.sequence,
                    last: high.end.max(end.sequence + 1) - 1,
                    buffers: Some(missing.buffers),
                    bytes: Some(missing.bytes),
                    reason: "the end of what was stored is missing".to_owned(),
                    path: path.to_owned(),
                });
                end.totals = end.totals.at_least(high.totals);
            }
            end.sequence = end.sequence.max(high.end);
            let given = given.entry(id).or_default();
            *given = high.given.max(*given);
        }
        end.sequence = end.sequence.max(given.get(&id).copied().unwrap_or(0)).max(1);
        if !clean {
            end.sequence = end.sequence.saturating_add(UNCLEAN_GAP);
        }
        streams.push(Standing { id, name, end, state, cursor, holes });
    }
    for (extent, found) in extents.iter().filter(|(_, found)| found.damaged) {
        // What an interrupted removal left has lost its head, and is missed by nobody. A head that was written in two parts
        // may have lost the first one of them, and the records with it.
        if !doubtful && !found.garbled && found.header.is_none() && found.starts.is_empty() {
            continue;
        }
        let later = |stream: u32| extents.range(extent + 1..).find_map(|(_, found)| found.starts.get(&stream));
        // Nothing of the stream is wanted in it: it has passed, has given up all of it, or there never was any.
        let passed = |(stream, start): (&u32, &StreamStart)| {
            let standing = streams.iter().find(|standing| standing.id == *stream);
            later(*stream).zip(standing).is_some_and(|(next, standing)| {
                let from = start.first.max(standing.cursor.log_start);
                next.first <= from || standing.holes.covered(from, next.first) >= next.first - from
            })
        };
        if found.header.is_some() || found.starts.is_empty() || !found.starts.iter().all(passed) {
            damage.push(format!("the head of extent {extent} is damaged"));
        }
    }
    incidents.extend(damage.iter().map(|reason| Incident::of_store(path, reason.clone())));
    if doubtful || !damage.is_empty() {
        incidents.extend(gaps(db, path, &extents, &streams));
    }
    let damage = (!damage.is_empty()).then(|| damage.join("; "));
    // Without any, ages go by what this boot sees.
    let clock = extents.values().rev().find_map(|found| found.clock.clone()).unwrap_or_default();
    Ok(Survey { extents, streams, session, clock, incidents, damage })
}

/// Without any cursor left, everything comes again.
fn from_the_beginning(extents: &BTreeMap<u32, Found>, stream: u32) -> CursorRecord {
    let start = extents.values().find_map(|found| found.starts.get(&stream));
    let (first, totals) = start.map_or((1, Totals::default()), |start| (start.first, start.totals));
    let (log_start, log_start_bytes) = (first, totals.bytes);
    CursorRecord { position: first, totals, resume: first, log_start, log_start_bytes, ..CursorRecord::default() }
}

/// Extents with what their heads say.
pub type Heads = BTreeMap<u32, Found>;

/// The heads of the extents from `extent` on; what is damaged is made up for.
pub fn heads_from(db: &DB, extent: u32, high: &HighWater) -> Result<Heads, rocksdb::Error> {
    let (mut heads, mut damage) = scan(db, extent, high)?;
    mend(db, &mut heads, high, false, &mut damage)?;
    Ok(heads)
}

/// The extents from `from` on with what their heads say, and what is wrong with them. Reads one meta lane each.
fn scan(db: &DB, from: u32, high: &HighWater) -> Result<(Heads, Vec<String>), rocksdb::Error> {
    let mut extents: BTreeMap<u32, Found> = BTreeMap::new();
    let mut damage = Vec::new();
    let mut at = from;
    'extents: loop {
        let mut iter = db.raw_iterator();
        iter.seek(schema::extent_start(at));
        while let Some((key, value)) = iter.item() {
            let Some((id, lane, sequence)) = schema::parse(key) else {
                damage.push("it holds a foreign key".to_owned());
                iter.next();
                continue;
            };
            at = id;
            let found = extents.entry(id).or_default();
            if lane == Lane::Meta {
                let known = match Meta::from_sequence(sequence) {
                    Some(Meta::Header) => schema::decode_value(value).map(|header| found.header = Some(header)),
                    Some(Meta::Start(s)) => schema::decode_value(value).map(|start| _ = found.starts.insert(s, start)),
                    Some(Meta::Cursor(s)) => schema::decode_value(value).map(|c| _ = found.cursors.insert(s, c)),
                    Some(Meta::Clean) => schema::decode_value(value).map(|mark| found.clean = Some(mark)),
                    Some(Meta::Clock) => schema::decode_value(value).map(|clock| found.clock = Some(clock)),
                    Some(Meta::Holes(s)) => {
                        let holes = schema::decode_value(value);
                        let known = holes.is_some().then_some(());
                        found.holes.insert(s, holes);
                        known
                    }
                    None => None,
                };
                found.garbled |= known.is_none();
                iter.next();
            } else {
                match id.checked_add(1) {
                    Some(next) => {
                        at = next;
                        iter.seek(schema::extent_start(next));
                    }
                    None => break 'extents,
                }
            }
        }
        match iter.status() {
            Ok(()) => break,
            Err(error) if !is_damage(&error) => return Err(error),
            Err(_) => {}
        }
        // Whatever lies at `at` cannot be read from here.
        extents.entry(at).or_default().garbled = true;
        let files = db.live_files()?;
        let last = files.iter().filter_map(|file| Some(schema::parse(file.end_key.as_deref()?)?.0)).max();
        match at.checked_add(1) {
            Some(next) if next <= last.unwrap_or(0).max(high.extent) => at = next,
            _ => break,
        }
    }
    extents.values_mut().for_each(|found| found.damaged = found.garbled || found.header.is_none());
    Ok((extents, damage))
}

/// The first record of a stream in an extent, or what its index tells of it.
fn first_in(db: &DB, extent: u32, stream: u32) -> Option<(Sequence, Totals)> {
    let record = |lane, from| {
        let mut walk = Walk::new(db, extent, lane, from, Sequence::MAX, true);
        while let Some(sequence) = walk.sequence() {
            if let Some(record) = walk.value().and_then(|value| record::decode(sequence, value).ok()) {
                return Some((sequence, record.before));
            }
            walk.next();
        }
        None
    };
    let index = || {
        let walk = Walk::new(db, extent, Lane::Index(stream), 0, Sequence::MAX, true);
        let entry: IndexEntry = schema::decode_value(walk.value()?)?;
        Some((walk.sequence()?, entry.totals))
    };
    let found = [record(Lane::Data(stream), 0), record(Lane::State(stream), 1), index()];
    found.into_iter().flatten().min_by_key(|found| found.0)
}

/// Streams with something in an extent.
fn streams_in(db: &DB, extent: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut options = ReadOptions::default();
    options.set_iterate_upper_bound(schema::extent_end(extent).to_vec());
    let mut iter = db.raw_iterator_opt(options);
    iter.seek(schema::key(extent, Lane::Data(1), 0));
    while let Some((_, Lane::Data(stream), _)) = iter.key().and_then(schema::parse) {
        found.push(stream);
        iter.seek(schema::key(extent, Lane::Data(stream + 1), 0));
    }
    found
}

/// Makes up for what the heads do not say.
fn mend(
    db: &DB,
    extents: &mut BTreeMap<u32, Found>,
    high: &HighWater,
    doubtful: bool,
    damage: &mut Vec<String>,
) -> Result<(), rocksdb::Error> {
    let wanting: Vec<u32> =
        extents.iter().filter(|(_, found)| found.damaged || doubtful).map(|(extent, _)| *extent).collect();
    if wanting.is_empty() {
        return Ok(());
    }
    let mut names: BTreeMap<u32, String> = high.streams.iter().map(|high| (high.id, high.name.clone())).collect();
    for found in extents.values() {
        names.extend(found.starts.iter().map(|(id, start)| (*id, start.name.clone())));
    }
    // From the end: what has nothing in an extent begins where the next one says.
    for extent in wanting.iter().rev().copied() {
        for stream in streams_in(db, extent) {
            names.entry(stream).or_insert_with(|| {
                damage.push(format!("the name of stream {stream} is lost"));
                format!("recovered-{stream}")
            });
        }
        for (&stream, name) in &names {
            if extents.get(&extent).is_none_or(|found| found.starts.contains_key(&stream)) {
                continue;
            }
            let first = first_in(db, extent, stream).or_else(|| {
                extents.range(..extent).any(|(_, found)| found.starts.contains_key(&stream)).then_some(())?;
                let (_, next) = extents.range(extent + 1..).find(|(_, found)| found.starts.contains_key(&stream))?;
                let next = next.starts.get(&stream)?;
                Some((next.first, next.totals))
            });
            if let (Some((first, totals)), Some(found)) = (first, extents.get_mut(&extent)) {
                found.starts.insert(stream, StreamStart { name: name.clone(), first, totals });
            }
        }
    }
    // What has nothing in an extent, nor in any after it, ends before it. An extent that did not know the stream would be
    // taken for one from before it: what is in the earlier ones would be neither read nor kept.
    let mut known: BTreeMap<u32, (u32, StreamStart)> = BTreeMap::new();
    for (&extent, found) in extents.iter_mut() {
        if wanting.contains(&extent) {
            for (&stream, (last, start)) in &known {
                if let btree_map::Entry::Vacant(vacant) = found.starts.entry(stream) {
                    let from = Mark { sequence: start.first.max(1), totals: start.totals };
                    let end = end_in(db, *last, stream, from)?;
                    let start = StreamStart { name: start.name.clone(), first: end.sequence, totals: end.totals };
                    vacant.insert(start);
                }
            }
        }
        known.extend(found.starts.iter().map(|(stream, start)| (*stream, (extent, start.clone()))));
    }
    Ok(())
}

/// Where a stream ends: in the newest extent that knows it.
fn tail(db: &DB, extents: &BTreeMap<u32, Found>, stream: u32) -> Result<(Mark, StateMap), rocksdb::Error> {
    let mut end = Mark { sequence: 1, totals: Totals::default() };
    let mut state = StateMap::new();
    let knowing = extents.iter().rev().find_map(|(extent, found)| Some((*extent, found.starts.get(&stream)?)));
    if let Some((extent, start)) = knowing {
        end = Mark { sequence: start.first.max(1), totals: start.totals };
        end = end_in(db, extent, stream, end)?;
        state_before(db, Lane::State(stream), extents.keys().rev().copied(), Sequence::MAX, &mut state)?;
    }
    Ok((end, state))
}

/// Where a stream ends in an extent, when it lies behind `end`.
pub fn end_in(db: &DB, extent: u32, stream: u32, end: Mark) -> Result<Mark, rocksdb::Error> {
    let end = last_in(db, extent, Lane::Data(stream), end)?;
    last_in(db, extent, Lane::State(stream), end)
}

/// Gaps in the sums of what the newest extents hold.
fn gaps(db: &DB, path: &Path, extents: &BTreeMap<u32, Found>, streams: &[Standing]) -> Vec<Incident> {
    let mut incidents = Vec::new();
    for stream in streams {
        let mut last: Option<Mark> = None;
        let mut see = |last: &mut Option<Mark>, at: Sequence, before: Totals, after: Mark| {
            if let Some(last) = last {
                let missing = before.since(last.totals);
                let given_up = stream.holes.covered(last.sequence, at) > 0;
                if missing.buffers > 0 && at > stream.cursor.position && !given_up {
                    incidents.push(Incident {
                        stream: Some(stream.name.clone()),
                        first: last.sequence,
                        last: at.max(last.sequence + 1) - 1,
                        buffers: Some(missing.buffers),
                        bytes: Some(missing.bytes),
                        reason: "records were damaged".to_owned(),
                        path: path.to_owned(),
                    });
                }
            }
            *last = Some(after);
        };
        let skip = extents.len().saturating_sub(SEARCHED);
        for (extent, found) in extents.iter().skip(skip) {
            if let Some(start) = found.starts.get(&stream.id) {
                see(&mut last, start.first, start.totals, Mark { sequence: start.first, totals: start.totals });
            }
            let mut walk = Walk::new(db, *extent, Lane::Data(stream.id), 0, Sequence::MAX, false);
            while let Some(sequence) = walk.sequence() {
                if let Some(record) = walk.value().and_then(|value| record::decode(sequence, value).ok()) {
                    let after = Mark { sequence: sequence + 1, totals: record.after() };
                    see(&mut last, sequence, record.before, after);
                }
                walk.next();
            }
        }
    }
    incidents
}

/// The end that the records of a lane tell, if it lies behind `end`. A damaged record still takes its number; the one
/// before it tells the sums.
fn last_in(db: &DB, extent: u32, lane: Lane, mut end: Mark) -> Result<Mark, rocksdb::Error> {
    let from = end.sequence;
    let consider = |end: &mut Mark, record: &Record| {
        if record.sequence >= end.sequence {
            *end = Mark { sequence: record.sequence + 1, totals: record.after() };
        }
    };
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(schema::key(extent, lane, from).to_vec());
    options.set_iterate_upper_bound(schema::key(extent, lane, Sequence::MAX).to_vec());
    let mut last = db.raw_iterator_opt(options);
    last.seek_to_last();
    let mut taken = 0;
    while let Some((key, value)) = last.item() {
        let sequence = schema::parse(key).map_or(0, |key| key.2);
        taken = taken.max(sequence.saturating_add(1));
        if let Ok(record) = record::decode(sequence, value) {
            consider(&mut end, &record);
            break;
        }
        last.prev();
    }
    match last.status() {
        Ok(()) => {}
        Err(error) if !is_damage(&error) => return Err(error),
        // Forward, then, around what is damaged.
        Err(_) => {
            let mut walk = Walk::new(db, extent, lane, from, Sequence::MAX, false);
            while let Some(sequence) = walk.sequence() {
                if let Some(record) = walk.value().and_then(|value| record::decode(sequence, value).ok()) {
                    consider(&mut end, &record);
                }
                walk.next();
            }
            walk.status()?;
        }
    }
    end.sequence = end.sequence.max(taken);
    Ok(end)
}

/// The state in force before `sequence`, by the lane in the extents given from the one that holds it backwards: normally the first of
/// them says all. One whose snapshot is missing is read on top of those before it.
pub fn state_before(
    db: &DB,
    lane: Lane,
    extents: impl IntoIterator<Item = u32>,
    sequence: Sequence,
    state: &mut StateMap,
) -> Result<Vec<(Sequence, Sequence)>, rocksdb::Error> {
    let mut lanes: Vec<Vec<Record>> = Vec::new();
    let mut skipped = Vec::new();
    for extent in extents {
        let mut records: Vec<Record> = Vec::new();
        let mut walk = Walk::new(db, extent, lane, 0, sequence, true);
        while let Some(at) = walk.sequence() {
            if let Some(record) = walk.value().and_then(|value| record::decode(at, value).ok()) {
                if matches!(record.body, record::Body::Snapshot(_)) {
                    records.clear();
                }
                records.push(record);
            }
            walk.next();
        }
        walk.status()?;
        skipped.extend(walk.take_skipped());
        let whole = records.first().is_some_and(|record| matches!(record.body, record::Body::Snapshot(_)));
        lanes.push(records);
        if whole {
            break;
        }
    }
    lanes.into_iter().rev().flatten().for_each(|record| apply_record(state, record));
    Ok(skipped)
}
