//! Appending to a stream: numbers, sums, index entries, and the changes of state that memory alone had.
//!
//! One writer at a time (the streaming thread that feeds the stream). No lock is held while the disk works.

use std::ops::RangeBounds;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rocksdb::WriteBatch;

use super::clock::Arrival;
use super::durability::Durability;
use super::error::StoreError;
use super::log::lock;
use super::record::{self, Body, Clears, Encoder, Header, Sequence, Slot, StateMap, Sync, Totals};
use super::schema::{self, IndexEntry, Lane};
use super::stream::{Mark, Stream};

/// Index entries are at least this far apart, in time or in bytes.
const INDEX_INTERVAL: u64 = 1_000_000_000;
const INDEX_BYTES: u64 = 1 << 20;

/// Room that an entry takes besides its payload; for the size of extents only.
pub(super) const OVERHEAD: u64 = 128;
/// An encoder keeps what ordinary records need.
const ENCODER_KEEP: usize = 4 << 20;

/// A record to be appended.
pub struct NewRecord<'a> {
    pub body: Body,
    /// In pieces, so that scattered memory needs no merging.
    pub payload: &'a [&'a [u8]],
    /// Media time in ns that it adds.
    pub advance: u64,
}

impl NewRecord<'_> {
    /// What it adds to the sums.
    pub fn contribution(&self) -> Totals {
        record::contribution(&self.body, payload_len(self.payload), self.advance)
    }
}

/// Where and when records are appended.
#[derive(Clone, Copy)]
struct Place {
    extent: u32,
    at: Mark,
    arrival: Arrival,
}

/// Where a stream's writer stands.
pub(super) struct Writer {
    /// After the last record that is stored.
    pub end: Mark,
    /// The same before what is being stored late: the cursor does not know of that yet.
    pub settled: Option<Mark>,
    /// After the last number that was given out.
    pub given: Sequence,
    /// In force at the end.
    pub state: StateMap,
    /// The state changed by what is not stored: it has to be written down as a whole before the next record.
    pub state_unwritten: bool,
    /// Changes by what may be on its way to the disk, or comes after that: they have no place before it.
    pub held_back: Vec<Change>,
    pub appending: bool,
    /// Boot time and bytes at the last index entry.
    pub indexed: Option<(u64, Totals)>,
}

/// A change of state by a record that memory alone had.
pub(super) struct Change {
    sequence: Sequence,
    slot: Slot,
    clears: Clears,
    value: Vec<u8>,
}

impl Change {
    fn apply(&self, state: &mut StateMap) {
        record::apply(state, &self.slot, &self.clears, &self.value);
    }
}

impl Writer {
    pub fn at(end: Mark, state: StateMap) -> Self {
        Self {
            end,
            settled: None,
            given: end.sequence,
            state,
            state_unwritten: false,
            held_back: Vec::new(),
            appending: false,
            indexed: None,
        }
    }

    /// With all changes.
    pub fn state_in_force(&self) -> StateMap {
        let mut state = self.state.clone();
        self.held_back.iter().for_each(|change| change.apply(&mut state));
        state
    }

    /// Changes by what has numbers in `range` come into force.
    fn settle(&mut self, range: impl RangeBounds<Sequence>) {
        for change in self.held_back.extract_if(.., |change| range.contains(&change.sequence)) {
            change.apply(&mut self.state);
            self.state_unwritten = true;
        }
    }
}

impl Stream {
    /// Numbers below `sequence` are given out, to records that are not stored, or not yet.
    pub fn give_out(&self, sequence: Sequence) {
        let mut writer = lock(&self.stream.writer);
        writer.given = writer.given.max(sequence);
    }

    /// A change of state by a record that memory alone had and has given up comes into force before the next record that is
    /// stored; if what comes from `storing` on is about to be stored, after that.
    pub fn change_state(
        &self,
        sequence: Sequence,
        (slot, clears, value): (&Slot, &Clears, &[u8]),
        storing: Option<Sequence>,
    ) {
        let mut writer = lock(&self.stream.writer);
        if sequence < writer.end.sequence {
            // It was stored meanwhile.
            return;
        }
        let (slot, clears, value) = (slot.clone(), clears.clone(), value.to_vec());
        writer.held_back.push(Change { sequence, slot, clears, value });
        if !writer.appending && storing.is_none_or(|from| sequence < from) {
            writer.settle(..=sequence);
        }
    }

    /// Appends what the cursor may have passed already. What counts as bypassed in it is not counted as stored too before
    /// [`Stream::settle`] says what became of it.
    ///
    /// # Errors
    ///
    /// As those of [`Stream::append`].
    pub fn append_late(&self, first: Sequence, records: &[NewRecord<'_>]) -> Result<Mark, StoreError> {
        {
            let mut writer = lock(&self.stream.writer);
            writer.settled = Some(writer.end);
        }
        self.append(first, records)
    }

    /// Appends the records as one: after a crash all of them are there or none. The first gets the number `first`, which
    /// lies behind all that is stored, the others those that follow. What lies between was given to records that are not
    /// stored.
    ///
    /// # Errors
    ///
    /// Nothing was accepted. The same records may be appended again with the same numbers.
    pub fn append(&self, first: Sequence, records: &[NewRecord<'_>]) -> Result<Mark, StoreError> {
        let start = Instant::now();
        let log = self.log();
        let bytes: u64 = records.iter().map(|r| payload_len(r.payload) as u64 + OVERHEAD).sum();
        let arrival = log.time.arrival();
        if log.time.is_unsaved() {
            log.work.announce();
        }
        let ticket = match log.accepts().and_then(|()| log.enter(bytes)) {
            Ok(ticket) => ticket,
            Err(error) => {
                // The numbers are given out all the same.
                let mut writer = lock(&self.stream.writer);
                writer.given = writer.given.max(first.max(writer.end.sequence) + records.len() as u64);
                writer.settle(..);
                return Err(error);
            }
        };

        let mut writer = lock(&self.stream.writer);
        let before = Mark { sequence: first.max(writer.end.sequence), totals: writer.end.totals };
        let index = self.index_entries(&mut writer, before, arrival, records);
        writer.settle(..before.sequence);
        let whole = writer.state_unwritten.then(|| writer.state.clone());
        let stored = writer.end.sequence;
        writer.given = writer.given.max(before.sequence + records.len() as u64);
        writer.appending = true;
        drop(writer);

        let mut encoder = log.encoders.take();
        let snapshot = whole.map(|state| (before.sequence.saturating_sub(1).max(stored), state));
        let written =
            self.write(Place { extent: ticket.extent, at: before, arrival }, records, &index, snapshot, &mut encoder);
        log.encoders.give_back(encoder, ENCODER_KEEP);
        let mut writer = lock(&self.stream.writer);
        writer.appending = false;
        match &written {
            Ok(end) => {
                writer.state_unwritten = false;
                writer.settle(..before.sequence);
                for record in records {
                    if let Body::State { slot, clears } = &record.body {
                        record::apply(&mut writer.state, slot, clears, &record.payload.concat());
                    }
                }
                writer.end = *end;
                // What is among the records says so itself.
                writer.settle(end.sequence..);
                writer.held_back.clear();
                self.stream.committed.store(end.sequence, Ordering::Release);
                if log.options.durability == Durability::Power {
                    self.stream.set_durable(end.sequence);
                }
            }
            Err(_) => {
                writer.indexed = None;
                writer.settle(..);
            }
        }
        drop(writer);
        // Not before: a switch of extents writes down what the writer says.
        drop(ticket);
        if written.is_ok() && log.commits.appended(start) {
            log.work.announce();
        }
        written
    }

    fn write(
        &self,
        place: Place,
        records: &[NewRecord<'_>],
        index: &[(Sequence, IndexEntry)],
        snapshot: Option<(Sequence, StateMap)>,
        encoder: &mut Encoder,
    ) -> Result<Mark, StoreError> {
        let (log, id) = (self.log(), self.stream.id);
        let Place { extent, mut at, arrival } = place;
        let db = log.db()?;
        let several = records.len() > 1 || !index.is_empty() || snapshot.is_some();
        let mut batch = several.then(WriteBatch::default);
        if let (Some(batch), Some((sequence, state))) = (&mut batch, snapshot) {
            let body = Body::Snapshot(state.into_iter().collect());
            let header = Header { before: at.totals, advance: 0, arrival, body };
            batch.put(schema::key(extent, Lane::State(id), sequence), encoder.encode(&header, &[]));
        }
        for record in records {
            let lane = match record.body {
                Body::State { .. } | Body::Snapshot(_) => Lane::State(id),
                Body::Buffer(_) | Body::Event => Lane::Data(id),
            };
            let header = Header { before: at.totals, advance: record.advance, arrival, body: record.body.clone() };
            let bytes = encoder.encode(&header, record.payload);
            let key = schema::key(extent, lane, at.sequence);
            match &mut batch {
                Some(batch) => batch.put(key, bytes),
                None => db.put_opt(key, bytes, &log.write).map_err(|err| log.refused(err))?,
            }
            at.sequence += 1;
            at.totals = at.totals.plus(record.contribution());
        }
        if let Some(mut batch) = batch {
            for (sequence, entry) in index {
                batch.put(schema::key(extent, Lane::Index(id), *sequence), schema::encode_value(entry));
            }
            db.write_opt(batch, &log.write).map_err(|err| log.refused(err))?;
        }
        Ok(at)
    }

    /// Index entries that are due with these records.
    fn index_entries(
        &self,
        writer: &mut Writer,
        mut at: Mark,
        arrival: Arrival,
        records: &[NewRecord<'_>],
    ) -> Vec<(Sequence, IndexEntry)> {
        let mut entries = Vec::new();
        for record in records {
            if let Body::Buffer(header) = &record.body
                && header.sync != Sync::None
            {
                let now = arrival.time;
                // What comes faster than it plays is dropped by its own time.
                let due = writer.indexed.is_none_or(|(time, totals)| {
                    now >= time + INDEX_INTERVAL
                        || at.totals.time >= totals.time + INDEX_INTERVAL
                        || at.totals.bytes >= totals.bytes + INDEX_BYTES
                });
                if due {
                    writer.indexed = Some((now, at.totals));
                    let entry = IndexEntry {
                        totals: at.totals,
                        sync: header.sync,
                        running_time: header.running_time,
                        captured_at: header.captured_at,
                        arrival,
                    };
                    entries.push((at.sequence, entry));
                }
            }
            at.sequence += 1;
            at.totals = at.totals.plus(record.contribution());
        }
        entries
    }
}

fn payload_len(payload: &[&[u8]]) -> usize {
    payload.iter().map(|part| part.len()).sum()
}
