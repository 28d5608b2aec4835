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
use std::time::Duration;

use bitcode::{Decode, Encode};

use super::holes::Holes;
use super::log::{Log, lock};
use super::record::Totals;
use super::schema::{self, CursorRecord};

pub const HIGH_WATER: &str = "HIGHWATER";

/// Apart, and sparse: ordinary tables take a few kB of it.
const SLOT: u64 = 1 << 20;
/// How often a disk is asked that does not answer, and the pause between.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(10);

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
    /// What the file says; nothing when it is missing or damaged, or cannot be read.
    pub fn load(location: &Path) -> Self {
        Self::try_load(location).unwrap_or_default()
    }

    /// The same; an error when the disk does not answer, asked several times.
    pub fn try_load(location: &Path) -> io::Result<Self> {
        let file = match File::open(location.join(HIGH_WATER)) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(err) => return Err(err),
        };
        newest_slot(|buffer, offset| file.read_exact_at(buffer, offset))
    }

    pub fn of(&self, stream: u32) -> Option<&High> {
        self.streams.iter().find(|high| high.id == stream)
    }
}

/// The slot that was written last, of what `read` reads.
fn newest_slot(read: impl Fn(&mut [u8], u64) -> io::Result<()>) -> io::Result<HighWater> {
    let slot = |offset| {
        let mut tries = 1;
        loop {
            match read_slot(&read, offset) {
                Err(_) if tries < TRIES => {
                    tries += 1;
                    std::thread::sleep(PAUSE);
                }
                found => return found,
            }
        }
    };
    let found = [slot(0)?, slot(SLOT)?];
    Ok(found.into_iter().flatten().max_by_key(|slot| slot.generation).unwrap_or_default())
}

/// What a slot says; nothing when it is damaged or was never written.
fn read_slot(read: &impl Fn(&mut [u8], u64) -> io::Result<()>, offset: u64) -> io::Result<Option<HighWater>> {
    // Beyond the end there is none.
    let is_there = |read: io::Result<()>| match read {
        Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    };
    let mut length = [0; 4];
    if !is_there(read(&mut length, offset))? {
        return Ok(None);
    }
    let length = u64::from(u32::from_le_bytes(length));
    let Some(size) = usize::try_from(length).ok().filter(|_| length < SLOT - 4) else { return Ok(None) };
    let mut bytes = vec![0; size];
    Ok(if is_there(read(&mut bytes, offset + 4))? { schema::decode_value(&bytes) } else { None })
}

/// Writes the file.
#[derive(Debug, Default)]
pub struct Gauge {
    file: Option<File>,
    generation: u64,
    /// What is there could not be read, and may have been written later than what will be.
    unread: bool,
}

impl Gauge {
    /// Goes on after what was loaded, or in place of what could not be.
    pub fn after(loaded: &io::Result<HighWater>) -> Self {
        let generation = loaded.as_ref().map_or(0, |loaded| loaded.generation);
        Self { file: None, generation, unread: loaded.is_err() }
    }

    fn write(&mut self, location: &Path, mut high: HighWater) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let path = location.join(HIGH_WATER);
                if self.unread {
                    std::fs::remove_file(&path)?;
                    self.unread = false;
                }
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
        let mut gauge = Gauge::after(&HighWater::try_load(temp.path()));
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

    #[test]
    fn a_disk_that_does_not_answer_at_once_is_asked_again() {
        let temp = tempfile::tempdir().unwrap();
        let mut gauge = Gauge::after(&HighWater::try_load(temp.path()));
        [10, 20].into_iter().for_each(|end| gauge.write(temp.path(), high(end)).unwrap());
        let file = File::open(temp.path().join(HIGH_WATER)).unwrap();
        let refusals = |count: u32| {
            let left = std::cell::Cell::new(count);
            newest_slot(|buffer, offset| {
                if left.get() > 0 {
                    left.set(left.get() - 1);
                    return Err(io::ErrorKind::Other.into());
                }
                file.read_exact_at(buffer, offset)
            })
        };
        assert_eq!(refusals(3).unwrap().of(1).map(|high| high.end), Some(20));
        assert!(refusals(100).is_err());
    }

    /// It may be the later one by its number.
    #[test]
    fn what_could_not_be_read_does_not_come_back() {
        let temp = tempfile::tempdir().unwrap();
        let mut gauge = Gauge::after(&HighWater::try_load(temp.path()));
        [10, 20, 30].into_iter().for_each(|end| gauge.write(temp.path(), high(end)).unwrap());
        let mut gauge = Gauge::after(&Err(io::ErrorKind::Other.into()));
        gauge.write(temp.path(), high(40)).unwrap();
        assert_eq!(HighWater::load(temp.path()).of(1).map(|high| high.end), Some(40));
    }
}
