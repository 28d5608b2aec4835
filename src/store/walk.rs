//! Going through one lane of an extent, around what cannot be read.
//!
//! A damaged block hides all the records in it, and an iterator that meets one is at its end. The walk finds the first record
//! behind by seeking: further and further until something is readable, then back to where that begins. What it stepped over
//! is told. Errors that are no damage (a disk that does not answer now) are handed on.

use rocksdb::{DB, DBRawIterator, ErrorKind, ReadOptions};

use super::record::Sequence;
use super::schema::{self, Lane};

pub struct Walk<'a> {
    iter: DBRawIterator<'a>,
    extent: u32,
    lane: Lane,
    /// Nothing below is left to be looked at.
    at: Sequence,
    end: Sequence,
    skipped: Vec<(Sequence, Sequence)>,
    failed: Option<rocksdb::Error>,
}

/// Damage that stays, as opposed to a disk that may answer later.
pub fn is_damage(error: &rocksdb::Error) -> bool {
    match error.kind() {
        ErrorKind::IOError => error.as_ref().contains("No such file or directory"),
        ErrorKind::Corruption | ErrorKind::NotSupported | ErrorKind::InvalidArgument | ErrorKind::NotFound => true,
        _ => false,
    }
}

enum Sought {
    Record,
    End,
    Damage,
}

impl<'a> Walk<'a> {
    /// From `from` up to and without `end`.
    pub fn new(db: &'a DB, extent: u32, lane: Lane, from: Sequence, end: Sequence, fill_cache: bool) -> Self {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(schema::key(extent, lane, from).to_vec());
        options.set_iterate_upper_bound(schema::key(extent, lane, end.max(from)).to_vec());
        options.fill_cache(fill_cache);
        let iter = db.raw_iterator_opt(options);
        let mut walk = Self { iter, extent, lane, at: from, end: end.max(from), skipped: Vec::new(), failed: None };
        walk.iter.seek_to_first();
        walk.settle();
        walk
    }

    /// The last one from `from` up to and without `end`, if nothing at the end is damaged.
    pub fn last(
        db: &DB,
        extent: u32,
        lane: Lane,
        from: Sequence,
        end: Sequence,
    ) -> Result<Option<Sequence>, rocksdb::Error> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(schema::key(extent, lane, from).to_vec());
        options.set_iterate_upper_bound(schema::key(extent, lane, end.max(from)).to_vec());
        let mut iter = db.raw_iterator_opt(options);
        iter.seek_to_last();
        let found = iter.key().and_then(schema::parse).map(|key| key.2);
        iter.status().map(|()| found)
    }

    /// Where it stands; `None` at the end.
    pub fn sequence(&self) -> Option<Sequence> {
        if self.failed.is_some() {
            return None;
        }
        self.iter.key().and_then(schema::parse).map(|key| key.2)
    }

    pub fn value(&self) -> Option<&[u8]> {
        self.iter.value()
    }

    pub fn next(&mut self) {
        if let Some(sequence) = self.sequence() {
            self.at = sequence.saturating_add(1);
            self.iter.next();
            self.settle();
        }
    }

    /// What was stepped over since this was last asked for, both ends included.
    pub fn take_skipped(&mut self) -> Vec<(Sequence, Sequence)> {
        std::mem::take(&mut self.skipped)
    }

    /// Nothing was stepped over, and nothing failed.
    pub fn is_sound(&self) -> bool {
        self.failed.is_none() && self.skipped.is_empty()
    }

    pub fn status(&self) -> Result<(), rocksdb::Error> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn settle(&mut self) {
        if self.iter.valid() {
            return;
        }
        match self.iter.status() {
            Ok(()) => {}
            Err(error) if is_damage(&error) => self.skip(),
            Err(error) => self.failed = Some(error),
        }
    }

    fn seek(&mut self, sequence: Sequence) -> Sought {
        self.iter.seek(schema::key(self.extent, self.lane, sequence));
        if self.iter.valid() {
            return Sought::Record;
        }
        match self.iter.status() {
            Ok(()) => Sought::End,
            Err(error) => {
                if !is_damage(&error) {
                    self.failed = Some(error);
                }
                Sought::Damage
            }
        }
    }

    fn skip(&mut self) {
        // Always a damaged place below a readable one or the end.
        let (mut bad, mut good, mut step) = (self.at, self.end, 1);
        while self.failed.is_none() {
            let next = bad.saturating_add(step);
            if next >= self.end {
                break;
            }
            step = step.saturating_mul(2);
            match self.seek(next) {
                Sought::Damage => bad = next,
                Sought::Record | Sought::End => {
                    good = next;
                    break;
                }
            }
        }
        while self.failed.is_none() && good - bad > 1 {
            let middle = bad + (good - bad) / 2;
            match self.seek(middle) {
                Sought::Damage => bad = middle,
                Sought::Record | Sought::End => good = middle,
            }
        }
        if self.failed.is_some() {
            return;
        }
        let next = match self.seek(good) {
            _ if good >= self.end => self.end,
            Sought::Record => self.sequence().unwrap_or(good),
            _ => good,
        };
        self.skipped.push((self.at, next.max(self.at + 1) - 1));
        self.at = next;
    }
}
