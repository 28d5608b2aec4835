//! How far each stream had come, in a small file beside the database.
//!
//! Written about once a second while something moves, and at an orderly end, in place and not synced: it survives the end of
//! the process, not always a power cut. It bounds what a damaged database has lost at its end, and keeps numbers, sums and
//! cursors when all of it is gone. Whatever is wrong with it, a store opens without it.
//!
//! Two slots are written in turn, each with a checksum: a write that was interrupted leaves the other one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use bitcode::{Decode, Encode};

use super::holes::Holes;
use super::log::{Log, lock};
use super::record::Totals;
use super::schema::{self, CursorRecord};

pub const HIGH_WATER: &str = "HIGHWATER";

/// Apart, and sparse: ordinary tables take a few kB of it.
const SLOT: u64 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Default, Encode, Decode)]
pub struct HighWater {
    generation: u64,
    /// How often the store had been opened.
    pub session: u64,
    /// The extent that was being written.
    pub extent: u32,
    pub streams: Vec<High>,
}

/// Where a stream stood.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct High {
    pub id: u32,
    pub name: String,
    /// After the last record that was stored.
    pub end: u64,
    pub totals: Totals,
    /// After the last number that was given out.
    pub given: u64,
    pub cursor: CursorRecord,
    /// As of the cursor.
    pub holes: Holes,
}

impl HighWater {
    /// What the file says; nothing when it is missing or damaged.
    pub fn load(location: &Path) -> Self {
        let Ok(file) = File::open(location.join(HIGH_WATER)) else { return Self::default() };
        [0, SLOT]
            .into_iter()
            .filter_map(|offset| read_slot(&file, offset))
            .max_by_key(|slot| slot.generation)
            .unwrap_or_default()
    }

    pub fn of(&self, stream: u32) -> Option<&High> {
        self.streams.iter().find(|high| high.id == stream)
    }
}

fn read_slot(file: &File, offset: u64) -> Option<HighWater> {
    let mut length = [0; 4];
    file.read_exact_at(&mut length, offset).ok()?;
    let length = u64::from(u32::from_le_bytes(length));
    let mut bytes = vec![0; usize::try_from(length).ok().filter(|_| length < SLOT - 4)?];
    file.read_exact_at(&mut bytes, offset + 4).ok()?;
    schema::decode_value(&bytes)
}

/// Writes the file.
#[derive(Debug, Default)]
pub struct Gauge {
    file: Option<File>,
    generation: u64,
}

impl Gauge {
    /// Goes on after what was loaded.
    pub fn after(loaded: &HighWater) -> Self {
        Self { file: None, generation: loaded.generation }
    }

    fn write(&mut self, location: &Path, mut high: HighWater) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let path = location.join(HIGH_WATER);
                let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
                self.file.insert(file)
            }
        };
        self.generation += 1;
        high.generation = self.generation;
        let bytes = schema::encode_value(&high);
        let mut slot = u32::try_from(bytes.len()).map_err(io::Error::other)?.to_le_bytes().to_vec();
        slot.extend_from_slice(&bytes);
        if slot.len() as u64 > SLOT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        file.write_all_at(&slot, (self.generation & 1) * SLOT)
    }

    /// The next write makes the file anew.
    pub fn forget(&mut self) {
        self.file = None;
    }
}

impl Log {
    /// Writes how far the streams have come. A disk that refuses costs nothing but the bound.
    pub fn save_high_water(&self) {
        let streams = self.stream_list().iter().map(|stream| stream.high()).collect();
        let extent = self.extents().newest().unwrap_or(0);
        let high = HighWater { generation: 0, session: self.session, extent, streams };
        let mut gauge = lock(&self.gauge);
        if gauge.write(self.directory.path(), high).is_err() {
            gauge.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::buffer;
    use crate::store::{NewRecord, Store, StoreOptions, Sync};

    fn high(end: u64) -> HighWater {
        let totals = Totals { buffers: end, ..Totals::default() };
        let stream = High {
            id: 1,
            name: "a".into(),
            end,
            totals,
            given: end + 1,
            cursor: CursorRecord::default(),
            holes: Holes::default(),
        };
        HighWater { session: 3, extent: 2, streams: vec![stream], ..HighWater::default() }
    }

    #[test]
    fn an_interrupted_write_leaves_the_one_before() {
        let temp = tempfile::tempdir().unwrap();
        let mut gauge = Gauge::after(&HighWater::load(temp.path()));
        for end in [10, 20, 30] {
            gauge.write(temp.path(), high(end)).unwrap();
            assert_eq!(HighWater::load(temp.path()).of(1).map(|high| high.end), Some(end));
        }
        let file = OpenOptions::new().write(true).open(temp.path().join(HIGH_WATER)).unwrap();
        file.write_all_at(b"\xFF", SLOT + 9).unwrap();
        assert_eq!(HighWater::load(temp.path()).of(1).map(|high| high.end), Some(20));
        file.write_all_at(&u32::MAX.to_le_bytes(), 0).unwrap();
        assert_eq!(HighWater::load(temp.path()), HighWater::default());
        file.set_len(2).unwrap();
        assert_eq!(HighWater::load(temp.path()), HighWater::default());
    }

    #[test]
    fn what_is_stored_late_is_noted_once() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path(), &StoreOptions::default()).unwrap();
        let stream = store.stream("a").unwrap();
        let noted = || {
            store.log().save_high_water();
            let High { totals, cursor, .. } = HighWater::load(temp.path()).of(1).unwrap().clone();
            totals.buffers + cursor.ledger.bypassed.buffers
        };
        // Delivered from memory.
        let one = Totals { buffers: 1, bytes: 1, time: 10 };
        let mut cursor = CursorRecord { position: 2, ..stream.cursor() };
        cursor.ledger.bypassed.add(one);
        stream.set_cursor(cursor);
        assert_eq!(noted(), 1);
        let record = NewRecord { body: buffer(Sync::Closed), payload: &[b"x"], advance: 10 };
        stream.append_late(1, &[record]).unwrap();
        assert_eq!(noted(), 1);
        cursor.ledger.bypassed.subtract(one);
        cursor.ledger.delivered.add(one);
        stream.settle(CursorRecord { totals: one, ..cursor });
        assert_eq!((noted(), stream.cursor().ledger.bypassed.buffers), (1, 0));
    }
}
