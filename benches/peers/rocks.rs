//! Peers that are plain RocksDB: a log of records, and the queue of Savant Buffer NG.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rocksdb::{DB, DBCompactionStyle, IteratorMode, Options, ReadOptions, WriteBatch, WriteOptions};

use crate::Outcome;
use crate::payload::Payloads;
use crate::pipe::{Pipe, diskbuffer};

/// One put a record, with the options of a `diskbuffer` store, read back with an iterator.
pub struct Bare {
    db: DB,
    write: WriteOptions,
    sync: bool,
    /// Keys ascend as those of a store do, or compaction would rewrite what it only moves for a log.
    last: Mutex<u64>,
}

impl Bare {
    /// The options are those that a store has left behind.
    pub fn open(directory: &Path, sync: bool) -> Outcome<Self> {
        let model = directory.join("model");
        let pipe = Pipe::new(Some(diskbuffer(&model, &[])?), |_| ())?;
        pipe.start(gst::Format::Time)?;
        pipe.push(Payloads::new(1000).buffer(0))?;
        pipe.counter.wait(1000, crate::ingest::PATIENCE)?;
        drop(pipe);
        let cache = rocksdb::Cache::new_lru_cache(8 << 20);
        let (mut options, families) = Options::load_latest(model.join("db"), rocksdb::Env::new()?, true, cache)?;
        options.create_if_missing(true);
        let db = DB::open_cf_descriptors(&options, directory.join("bare"), families)?;
        let mut write = WriteOptions::default();
        write.set_sync(sync);
        Ok(Self { db, write, sync, last: Mutex::default() })
    }

    /// With a key as long as those of a store.
    pub fn put(&self, stream: u32, payload: &[u8]) -> Outcome<()> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last += 1;
        let mut key = [0; 16];
        key[..8].copy_from_slice(&last.to_be_bytes());
        key[12..].copy_from_slice(&stream.to_be_bytes());
        // Those who wait for the disk wait together.
        let _in_order = (!self.sync).then_some(last);
        Ok(self.db.put_opt(key, payload, &self.write)?)
    }

    /// Reads everything; bytes.
    pub fn drain(&self) -> Outcome<u64> {
        let mut bytes = 0;
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        for item in self.db.iterator_opt(IteratorMode::Start, options) {
            bytes += item?.1.len() as u64;
        }
        Ok(bytes)
    }
}

/// What Savant Buffer NG does for a message: a batch of the message and the two cells that say where the queue begins and ends;
/// universal compaction; a get and a delete for each pop.
pub struct BufferNg {
    db: DB,
    read: u64,
    write: u64,
}

const READ_CELL: u64 = u64::MAX;
const WRITE_CELL: u64 = u64::MAX - 1;

impl BufferNg {
    pub fn open(directory: &Path) -> Outcome<Self> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_compaction_style(DBCompactionStyle::Universal);
        options.set_compression_type(rocksdb::DBCompressionType::None);
        let db = DB::open(&options, directory.join("queue"))?;
        Ok(Self { db, read: 0, write: 0 })
    }

    fn put_cells(&self, batch: &mut WriteBatch) {
        batch.put(READ_CELL.to_be_bytes(), self.read.to_be_bytes());
        batch.put(WRITE_CELL.to_be_bytes(), self.write.to_be_bytes());
    }

    pub fn push(&mut self, payload: &[u8]) -> Outcome<()> {
        let mut batch = WriteBatch::default();
        batch.put(self.write.to_be_bytes(), payload);
        self.write += 1;
        self.put_cells(&mut batch);
        Ok(self.db.write(batch)?)
    }

    pub fn pop(&mut self) -> Outcome<Option<Vec<u8>>> {
        if self.read == self.write {
            return Ok(None);
        }
        let key = self.read.to_be_bytes();
        let value = self.db.get(key)?.ok_or("a message is missing")?;
        let mut batch = WriteBatch::default();
        batch.delete(key);
        self.read += 1;
        self.put_cells(&mut batch);
        self.db.write(batch)?;
        Ok(Some(value))
    }
}
