//! One stream and what must be in it.
//!
//! The model is a list of what was accepted, the numbers that were given up, and all cursors that were set since one of them was
//! certainly saved. Sums and ledger are its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use once_cell::sync::Lazy;

use crate::store::schema::Ledger;
use crate::store::{record, schema};

use super::super::*;

static NOISE: Lazy<Vec<u8>> = Lazy::new(|| noise(7, 8 << 20));
/// Media time of a buffer, and how far apart they come.
pub const FRAME: u64 = 40_000_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Buffer(Sync),
    Event,
    State(u32, Clears),
}

/// What is offered to a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub kind: Kind,
    at: usize,
    pub len: usize,
    arrived: u64,
    /// Accepted as one with its neighbours of the same batch.
    batch: u64,
}

impl Item {
    pub fn new(kind: Kind, seed: u64, len: usize, batch: u64) -> Self {
        let at = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) as usize % (NOISE.len() - len);
        Self { kind, at, len, arrived: 0, batch }
    }

    fn payload(&self) -> &'static [u8] {
        &NOISE[self.at..self.at + self.len]
    }

    fn body(&self) -> Body {
        match &self.kind {
            Kind::Buffer(sync) => buffer(*sync),
            Kind::Event => Body::Event,
            Kind::State(rank, clears) => {
                Body::State { slot: Slot { rank: *rank, name: String::new() }, clears: clears.clone() }
            }
        }
    }

    fn advance(&self) -> u64 {
        if matches!(self.kind, Kind::Buffer(_)) { FRAME } else { 0 }
    }

    pub fn adds(&self) -> Totals {
        record::contribution(&self.body(), self.len, self.advance())
    }

    pub fn is_sync(&self) -> bool {
        matches!(self.kind, Kind::Buffer(Sync::Open | Sync::Closed))
    }

    pub fn check(&self, found: &Record) {
        let same = found.body == self.body() && found.payload.as_ref() == self.payload();
        assert!(same && found.advance == self.advance(), "record {} has changed", found.sequence);
        assert_eq!(found.arrival.time, self.arrived, "arrival of record {}", found.sequence);
    }
}

/// Where the one who delivers stands.
#[derive(Debug, Clone)]
struct Known {
    cursor: CursorRecord,
    /// What was given up amid the stream, and whether it was purged.
    gone: Arc<BTreeMap<Sequence, bool>>,
    ledger: Ledger,
}

pub struct Camera {
    pub name: String,
    stream: Option<Stream>,
    pub items: BTreeMap<Sequence, Item>,
    pub given: Sequence,
    known: Known,
    history: Vec<Known>,
    pub retention: Retention,
    /// Log start when the retention began.
    kept_since: Sequence,
    /// A limit may have taken what was delivered.
    pub limited: bool,
    /// Where consumers that hold were last; at no place when they were overrun.
    pub leases: BTreeMap<String, Sequence>,
    /// Refused, to be offered again under the same numbers.
    refused: Option<(Sequence, Vec<Item>)>,
    /// After the last number that was accepted.
    pub accepted: Arc<AtomicU64>,
    batches: u64,
}

/// Without what only the store keeps.
fn own(cursor: CursorRecord) -> CursorRecord {
    CursorRecord { log_start: 0, log_start_bytes: 0, max_age: 0, ..cursor }
}

fn before(record: &Record) -> Mark {
    Mark { sequence: record.sequence, totals: record.before }
}

impl Camera {
    pub fn new(name: &str, stream: Stream) -> Self {
        let known = Known { cursor: stream.cursor(), gone: Arc::default(), ledger: Ledger::default() };
        Self {
            name: name.to_owned(),
            given: stream.end().sequence,
            accepted: Arc::new(AtomicU64::new(stream.end().sequence)),
            stream: Some(stream),
            items: BTreeMap::new(),
            history: vec![known.clone()],
            known,
            retention: Retention::default(),
            kept_since: 1,
            limited: false,
            leases: BTreeMap::new(),
            refused: None,
            batches: 0,
        }
    }

    pub fn stream(&self) -> &Stream {
        self.stream.as_ref().unwrap()
    }

    pub fn let_go(&mut self) -> Option<Stream> {
        self.stream.take()
    }

    pub fn is_gone(&self, sequence: Sequence) -> bool {
        self.known.gone.contains_key(&sequence)
    }

    pub fn has_given_up(&self) -> bool {
        !self.known.gone.is_empty()
    }

    pub fn visible(&self, range: impl std::ops::RangeBounds<Sequence>) -> impl Iterator<Item = (Sequence, &Item)> {
        let gone = self.known.gone.clone();
        self.items.range(range).filter(move |(at, _)| !gone.contains_key(at)).map(|(at, item)| (*at, item))
    }

    fn sum(items: impl Iterator<Item = Totals>) -> Totals {
        items.fold(Totals::default(), Totals::plus)
    }

    /// The sums before a number that is not delivered.
    fn sums_before(&self, sequence: Sequence) -> Totals {
        let position = self.known.cursor.position;
        let pending = self.visible(position..sequence.max(position)).map(|(_, item)| item.adds());
        self.known.cursor.totals.plus(Self::sum(pending))
    }

    /// Offers these as one; what was refused before goes first.
    pub fn append(&mut self, mut items: Vec<Item>, clock: &dyn clock::Clock, may_fail: bool) -> bool {
        if let Some((first, refused)) = self.refused.take()
            && !self.offer(first, refused, clock, may_fail)
        {
            return false;
        }
        self.batches += 1;
        items.iter_mut().for_each(|item| item.batch = self.batches);
        items.is_empty() || self.offer(self.given, items, clock, may_fail)
    }

    fn offer(&mut self, first: Sequence, mut items: Vec<Item>, clock: &dyn clock::Clock, may_fail: bool) -> bool {
        // In two pieces each.
        let halves: Vec<_> =
            items.iter().map(|item| <[&[u8]; 2]>::from(item.payload().split_at(item.len / 3))).collect();
        let records: Vec<_> = items
            .iter()
            .zip(&halves)
            .map(|(item, payload)| NewRecord { body: item.body(), payload, advance: item.advance() })
            .collect();
        items.iter_mut().for_each(|item| item.arrived = clock.boot());
        let appended = self.stream().append(first, &records);
        let next = first + items.len() as u64;
        self.given = self.given.max(next);
        match appended {
            Ok(end) => {
                assert_eq!(end.sequence, next, "numbers follow each other");
                self.items.extend((first..).zip(items));
                assert_eq!(end.totals, self.end());
                self.accepted.store(next, Ordering::Release);
                true
            }
            Err(error) => {
                assert!(may_fail, "{error}");
                self.refused = Some((first, items));
                false
            }
        }
    }

    pub fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// Numbers that go to records that are never stored.
    pub fn give_out(&mut self, count: u64) {
        if self.refused.is_none() {
            self.given += count;
            self.stream().give_out(self.given);
        }
    }

    /// The sums of all that was ever accepted.
    fn end(&self) -> Totals {
        Self::sum(self.items.values().map(Item::adds))
    }

    fn moved(&mut self) {
        self.stream().set_cursor(self.known.cursor);
        self.remember();
    }

    fn remember(&mut self) {
        self.history.push(self.known.clone());
    }

    /// Delivers so many as an element does: what comes is the next that is there, whole, once.
    pub fn deliver(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            let Ok(chunk) = self.stream().read(self.known.cursor.position, left.min(9), 1 << 20) else { break };
            assert!(chunk.damaged.is_empty() && chunk.unreadable.is_empty(), "{chunk:?}");
            let Some(next) = chunk.next else { break };
            left -= chunk.records.len().min(left);
            for record in chunk.records {
                let due = self.visible(self.known.cursor.position..).next();
                let Some((at, item)) = due else { panic!("{} was given up or never accepted", record.sequence) };
                assert_eq!(record.sequence, at, "the next one");
                item.check(&record);
                let (adds, sync) = (item.adds(), item.is_sync());
                let passed = self.known.cursor.pass(before(&record), record.after());
                assert_eq!(passed, Pass::New { lost: Totals::default() }, "sums before {at}");
                self.known.ledger.delivered.add(adds);
                if sync {
                    self.known.cursor.resume = at;
                }
            }
            self.known.cursor.position = self.known.cursor.position.max(next);
        }
        self.moved();
    }

    /// Gives up all before `to`.
    fn skip(&mut self, to: Mark, cause: Cause) {
        let position = self.known.cursor.position;
        if to.sequence >= position {
            assert_eq!(to.totals, self.sums_before(to.sequence), "sums before {}", to.sequence);
        }
        let given_up = self.visible(position..to.sequence.max(position)).map(|(_, item)| item.adds());
        let given_up = Self::sum(given_up);
        self.known.ledger.count(cause).add(given_up);
        assert_eq!(self.known.cursor.skip(to, cause), given_up);
        self.moved();
    }

    /// Drops up to the first sync point after some part of what is pending.
    pub fn drop_until(&mut self, part: f64) {
        let position = self.known.cursor.position;
        let pending: Vec<_> = self.visible(position..).map(|(at, _)| at).collect();
        let Some(&at) = pending.get((part * pending.len() as f64) as usize) else { return };
        let Ok(found) = self.stream().first_sync(at, |_| true) else { return };
        let expected = self.visible(at + 1..).find(|(_, item)| item.is_sync()).map(|(at, _)| at);
        assert_eq!(found.map(|found| found.sequence), expected, "the first sync point after {at}");
        if let Some(to) = found {
            self.skip(to, Cause::Dropped);
        }
    }

    pub fn expire(&mut self, now: u64) {
        let max_age = self.retention.max_age;
        let Ok(found) = self.stream().expired_until(max_age) else { return };
        let resume = self.known.cursor.resume;
        let oldest = self.visible(resume..).find(|(_, item)| !matches!(item.kind, Kind::State(..)));
        let age = oldest.map(|(_, item)| Duration::from_nanos(now - item.arrived));
        let expired = !max_age.is_zero() && age.is_some_and(|age| age >= max_age);
        assert_eq!(found.is_some(), expired, "the oldest is {age:?} old");
        if let Some(to) = found {
            let item = self.items.get(&to.sequence);
            assert!(item.is_none_or(|item| Duration::from_nanos(now - item.arrived) < max_age && item.is_sync()));
            self.skip(to, Cause::Expired);
        }
    }

    pub fn thin(&mut self, buffers: u64) {
        let Ok(Some(plan)) = self.stream().plan_thin(self.known.cursor.position, |gone| gone.buffers >= buffers) else {
            return;
        };
        self.commit(plan, Cause::Dropped, |item| matches!(item.kind, Kind::Buffer(Sync::None)));
    }

    pub fn purge(&mut self, from: f64, part: f64) {
        let numbers: Vec<_> = self.items.range(self.log_start()..).map(|(at, _)| *at).collect();
        let place = |part: f64| numbers.get((part * numbers.len() as f64) as usize).copied();
        let (Some(from), to) = (place(from), place(from + part).unwrap_or(Sequence::MAX)) else { return };
        let Ok(Some(plan)) = self.stream().plan_purge(from..to) else { return };
        self.commit(plan, Cause::Purged, |item| !matches!(item.kind, Kind::State(..)));
    }

    fn commit(&mut self, plan: Plan, cause: Cause, goes: impl Fn(&Item) -> bool) {
        let mut cursor = self.known.cursor;
        let position = cursor.position;
        let done = self.stream().commit(plan, &mut cursor);
        let Some(done) = done else { panic!("nobody was in its way") };
        let going: Vec<_> = self.visible(done.range()).filter(|(_, item)| goes(item)).map(|(at, _)| at).collect();
        let pending = going.iter().filter(|at| **at >= position).map(|at| self.items[at].adds());
        let pending = Self::sum(pending);
        assert_eq!((done.totals.buffers, done.totals.bytes), (pending.buffers, pending.bytes));
        self.known.ledger.count(cause).add(pending);
        let gone = going.into_iter().map(|at| (at, cause == Cause::Purged));
        Arc::make_mut(&mut self.known.gone).extend(gone);
        self.known.cursor = cursor;
        self.remember();
    }

    pub fn retain(&mut self, retention: Retention) {
        self.retention = retention;
        self.limited |= retention.total_bytes > 0 || retention.bytes > 0 || !retention.max_age.is_zero();
        self.stream().set_retention(retention);
        self.kept_since = self.log_start();
    }

    /// All that was set is saved.
    pub fn saved(&mut self) {
        self.history = vec![self.known.clone()];
    }

    pub fn log_start(&self) -> Sequence {
        self.stream().cursor().log_start
    }

    pub fn resume(&self) -> Sequence {
        self.known.cursor.resume
    }

    /// With all before a later cursor given up for its age.
    fn expired(&self, known: &Known, cursor: CursorRecord) -> Known {
        let mut known = known.clone();
        let (from, to) = (known.cursor.position, cursor.position);
        let items = self.items.range(from..to.max(from)).filter(|item| !known.gone.contains_key(item.0));
        let given_up = Self::sum(items.map(|item| item.1.adds()));
        known.ledger.expired.add(given_up);
        known.cursor.skip(Mark { sequence: to, totals: known.cursor.totals.plus(given_up) }, Cause::Expired);
        known
    }

    /// Goes on with what another opening of the store found. `required` is what was accepted for certain, when an end in the
    /// middle of appending may have left less than all.
    pub fn adopt(&mut self, stream: Stream, clean: bool, required: Option<Sequence>) {
        let cursor = stream.cursor();
        // What is given up before the cursor leaves the cursor as it was.
        let holes = stream.parts().1.holes();
        // A purge of what was thinned before may be missing, too.
        let in_hole = |(at, purged): (&Sequence, &bool)| holes.at(*at).is_some_and(|hole| hole.purged || !purged);
        let cut = |known: &Known| known.gone.range(cursor.log_start..).all(in_hole);
        let found = |known: &Known| own(known.cursor) == own(cursor) && cut(known);
        let known = self.history.iter().rev().find(|known| found(known)).cloned();
        // The store gives up what is too old by itself as long as nobody has the stream.
        let expired = || self.history.iter().rev().map(|known| self.expired(known, cursor)).find(|known| found(known));
        let known = known.or_else(|| (cursor.max_age > 0).then(expired)?);
        let Some(known) = known else { panic!("a cursor that never was: {cursor:?}, not of {:#?}", self.history) };
        if clean && cursor.max_age == 0 {
            assert_eq!(own(cursor), own(self.known.cursor), "an orderly end keeps the cursor");
        }
        self.history = vec![known.clone()];
        self.known = known;
        self.refused = None;
        if let Some(required) = required {
            let last = read_all(&stream, 0).last().map_or(0, |record| record.sequence);
            let end = required.max(last + 1);
            let cut = (self.items.range(..end).next_back(), self.items.range(end..).next());
            if let (Some((at, before)), Some((next, after))) = cut {
                assert!(before.batch != after.batch, "{at} without {next}: a batch is there as a whole or not at all");
            }
            self.items.retain(|at, _| *at < end);
        }
        let end = stream.end();
        assert_eq!(end.totals, self.end(), "what is stored counts as stored");
        if clean {
            assert_eq!(end.sequence, self.given, "an orderly end leaves no gap");
        } else {
            let last = self.items.last_key_value().map_or(0, |item| *item.0);
            assert!(
                end.sequence > last + schema::UNCLEAN_GAP,
                "{} after {last}: numbers may be used twice",
                end.sequence
            );
        }
        self.given = end.sequence;
        self.accepted.store(end.sequence, Ordering::Release);
        self.stream = Some(stream);
        self.retain(self.retention);
    }

    /// Another one has taken the stream in the store that is open: what is saved is as before.
    pub fn retake(&mut self, stream: Stream) {
        let history = std::mem::take(&mut self.history);
        self.history = vec![self.known.clone()];
        self.adopt(stream, true, None);
        self.history = history;
    }

    /// Everything that can be said of the stream as it is now.
    pub fn check(&self, now: u64) {
        let stream = self.stream();
        let from = self.log_start();
        let found = read_all(stream, 0);
        let cursor = stream.cursor();
        assert_eq!(own(cursor), own(self.known.cursor));
        self.check_kept(&cursor, now);
        // The log start may move meanwhile, and what lies before it may go at any time.
        let may: BTreeMap<_, _> = self.visible(from..).collect();
        let listed: Vec<_> = found.iter().map(|record| record.sequence).collect();
        let kept = listed.iter().copied().filter(|at| *at >= cursor.log_start);
        assert!(
            kept.eq(may.range(cursor.log_start..).map(|item| *item.0))
                && listed.iter().all(|at| may.contains_key(at))
                && listed.is_sorted(),
            "{listed:?} are there, {:?} should be; log start {from} and then {}, cursor {cursor:?}, {:?}, {:?}",
            may.keys().collect::<Vec<_>>(),
            cursor.log_start,
            stream.parts().1.holes(),
            stream.store().log().extents()
        );
        found.iter().for_each(|found| may[&found.sequence].check(found));
        // The sums follow each other without a gap, from the cursor to the end.
        let mut sums = cursor.totals;
        for record in found.iter().filter(|record| record.sequence >= cursor.position) {
            assert_eq!(record.before, sums, "sums before {}", record.sequence);
            sums = record.after();
        }
        let end = stream.end();
        assert_eq!((sums, sums), (end.totals, self.end()), "sums at the end");
        assert_eq!(end.sequence, self.given);
        self.check_ledger(&cursor);
        let places =
            [from, cursor.resume, cursor.position].into_iter().chain(found.iter().step_by(17).map(|r| r.sequence));
        for at in places.filter(|at| *at >= cursor.log_start) {
            let state = stream.state_at(at);
            // A limit may take it any time.
            if let Ok(state) = state
                && at >= stream.cursor().log_start
            {
                assert_eq!(state, self.state_at(at), "state in force before {at}");
            }
        }
        assert_eq!(stream.state(), self.state_at(Sequence::MAX), "state in force at the end");
    }

    fn check_ledger(&self, cursor: &CursorRecord) {
        assert_eq!(cursor.ledger, self.known.ledger);
        let l = cursor.ledger;
        let passed =
            [l.delivered, l.dropped, l.expired, l.purged, l.lost].into_iter().fold(Count::default(), Count::plus);
        let pending = Self::sum(self.visible(cursor.position..).map(|(_, item)| item.adds()));
        let (end, told) = (self.end(), cursor.pending(self.stream().end().totals));
        assert_eq!((told.buffers, told.bytes), (pending.buffers, pending.bytes), "pending");
        assert_eq!(
            passed.plus(Count { buffers: pending.buffers, bytes: pending.bytes }),
            Count { buffers: end.buffers, bytes: end.bytes },
            "stored = delivered + pending + dropped + expired + purged + lost"
        );
    }

    /// What was delivered and has to stay.
    fn check_kept(&self, cursor: &CursorRecord, now: u64) {
        assert!(cursor.log_start <= cursor.resume);
        if self.limited {
            return;
        }
        let Retention { time, .. } = self.retention;
        if !time.is_zero() {
            let young = self.items.iter().find(|(_, item)| now - item.arrived < time.as_nanos() as u64);
            let young = young.map_or(Sequence::MAX, |item| *item.0);
            assert!(cursor.log_start <= young.max(self.kept_since), "{young} is too young to go: {cursor:?}");
        }
        for (name, held) in &self.leases {
            assert!(cursor.log_start <= *held, "consumer {name} needs {held}: {cursor:?}");
        }
    }

    fn state_at(&self, sequence: Sequence) -> StateMap {
        let mut state = StateMap::new();
        for item in self.items.range(..sequence).map(|(_, item)| item) {
            if let Kind::State(rank, clears) = &item.kind {
                record::apply(&mut state, &Slot { rank: *rank, name: String::new() }, clears, item.payload());
            }
        }
        state
    }

    /// Whether limits hold, as far as whole stretches between entries of the index can go.
    pub fn is_within_limits(&self, now: u64) -> bool {
        let (stream, cursor) = (self.stream(), self.stream().cursor());
        let Retention { time, bytes, total_bytes, max_age } = self.retention;
        let held = !self.leases.is_empty();
        if time.is_zero() && bytes == 0 && !held {
            return cursor.log_start == cursor.resume;
        }
        let Ok(next) = stream.next_sync(cursor.log_start, |_| true) else { return false };
        if next.is_none_or(|next| next.0 > cursor.resume) {
            return true;
        }
        let kept = cursor.totals.bytes.saturating_sub(cursor.log_start_bytes);
        let stored = stream.end().totals.bytes.saturating_sub(cursor.log_start_bytes);
        let oldest = self.visible(cursor.log_start..).find(|(_, item)| !matches!(item.kind, Kind::State(..)));
        let age = oldest.map_or(Duration::ZERO, |(_, item)| Duration::from_nanos(now - item.arrived));
        (held || bytes == 0 || kept <= bytes)
            && (total_bytes == 0 || stored <= total_bytes)
            && (max_age.is_zero() || age < max_age)
    }
}
