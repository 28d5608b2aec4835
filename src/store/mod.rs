//! The durable log under the elements: streams of records in one directory, on RocksDB. No media framework in here.
//!
//! Promises:
//! - A record that [`Stream::append`] returned is there after the process ends in any way ([`Durability::Crash`]), in order,
//!   bit for bit; a damaged one is told as such, never handed out.
//! - What a consumer has acknowledged is dropped before it is written a second time, when the consumer keeps up; files with
//!   nothing wanted in them are removed whole, also on a full disk.
//! - Reading costs one seek and then runs; memory does not grow with what is stored.
//! - A directory that is not a store, is of a newer format, or belongs to another process is left untouched.
//! - Any number of readers beside the one writer, in any number of processes; what they still need is kept while limits allow.
//!
//! Never: a lock held while the disk works, except by the one who is being served; a file opened before `FORMAT` was read;
//! a sequence number used twice.
//!
//! Where things are: [`schema`] keys and format version, [`record`] a record and its bytes, `log` the open database, `stream`
//! append and read, `extents` which record is where, `gate` writers and extent switches, `retention` trimming and removal,
//! `reader` reading, `giving_up` and `holes` thinning and purging, `age` replay and expiry, `clock` what time it was, `cursor`
//! accounting, `budget` memory, `health` the disk's limits, `handle` the database that can be opened again, `durability` syncs,
//! `fault` disks that refuse, `salvage` and `survey` stores that are damaged, `framing` and `walk` around damage, `aside` what
//! could not be used, `highwater` how far the streams had come, `directory` and `registry` who has the store open.
//!
//! Beside the one who writes: [`StreamReader`] reads in any process, `replica` and `files` follow what another one writes,
//! `seek` finds sync points by time, `consumer` and `leases` keep where readers stand and what they need, `floor` makes room.

mod age;
mod append;
mod aside;
mod budget;
pub mod clock;
mod consumer;
mod cursor;
mod directory;
pub mod domains;
mod durability;
mod error;
mod extents;
mod fault;
mod files;
mod floor;
mod framing;
mod gate;
mod giving_up;
mod handle;
mod health;
mod highwater;
mod holes;
mod leases;
/// Of modules that are tested with other locks, too.
mod locks {
    pub use std::sync::{Condvar, Mutex, MutexGuard};
}
mod log;
mod playback;
mod reader;
pub mod record;
mod registry;
mod replica;
mod retention;
mod salvage;
pub mod schema;
mod seek;
mod stream;
mod stream_log;
mod survey;
mod walk;

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod salvage_tests;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use age::Retention;
pub use append::NewRecord;
pub use clock::{Arrival, ClockStep, wall_clock};
pub use consumer::Consumer;
pub use cursor::{Cause, Pass};
pub use domains::Domain;
pub use durability::Durability;
pub use error::StoreError;
pub use giving_up::{GivenUp, Plan};
pub use log::StoreOptions;
#[cfg(test)]
pub use playback::stream_names;
pub use playback::{ReaderOptions, StreamReader};
pub use record::{Body, BufferHeader, Clears, MetaRecord, Payload, Record, Sequence, Slot, StateMap, Sync, Totals};
pub use salvage::{Incident, RecoveryMode};
pub use schema::{Count, CursorRecord};
pub use seek::SyncPoint;
pub use stream::{Mark, Stream, Tender};

/// A store that is open in this process. Cheap to clone; closes with its last handle.
#[derive(Clone)]
pub struct Store(Arc<registry::Place>);

impl Store {
    /// Opens the store in `location`, or joins it when this process has it open already.
    ///
    /// Blocks while another process has it, up to `lock_timeout`.
    ///
    /// # Errors
    ///
    /// Each [`StoreError`] names the path and what to do. Nothing on the disk is changed unless the directory is a store or
    /// empty.
    pub fn open(location: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        registry::open(location, options).map(Self)
    }

    /// Takes the stream `name` for writing and reading, making it if need be.
    ///
    /// # Errors
    ///
    /// [`StoreError::StreamInUse`] while another handle has it.
    pub fn stream(&self, name: &str) -> Result<Stream, StoreError> {
        Stream::attach(self.clone(), name)
    }

    fn log(&self) -> &Arc<log::Log> {
        match self.0.get() {
            Some(open) => open.log(),
            None => unreachable!("a handle is given out only when the place is filled"),
        }
    }

    /// Enters the running-time domain of a pipeline: the same for all its streams in this store.
    pub fn join_domain(&self, pipeline: u64) -> Arc<Domain> {
        self.log().domains.join(self.log().session, pipeline)
    }

    /// Steps of the wall clock since the store was opened, after the one numbered `after`; the latest sixteen.
    pub fn clock_steps(&self, after: u64) -> Vec<ClockStep> {
        self.log().time.steps(after)
    }

    /// Whether the wall clock is synchronised with anything.
    pub fn is_clock_synced(&self) -> bool {
        let time = &self.log().time;
        time.corrected(time.arrival()).is_some_and(|(_, synced)| synced)
    }

    /// The file system has less free space than the floor.
    pub fn is_low(&self) -> bool {
        self.log().space.is_low()
    }

    /// Asks the file system again.
    pub fn refresh_space(&self) {
        self.log().space.refresh();
    }

    /// What 99 of 100 appends of the last one to two minutes did not exceed.
    pub fn commit_latency_p99(&self) -> Duration {
        self.log().commits.p99()
    }

    /// The latest that a sync of [`Durability::Interval`] came after its time.
    pub fn sync_jitter(&self) -> Duration {
        self.log().commits.jitter()
    }

    /// Writing fails and is tried again; the error that each append returns.
    pub fn fault(&self) -> Option<StoreError> {
        self.log().accepts().err()
    }

    /// Runs `f` while nothing can be read or written, as while the database is opened again.
    #[cfg(test)]
    pub fn while_away<R>(&self, f: impl FnOnce() -> R) -> R {
        let handle = &self.log().handle;
        let db = handle.take();
        let result = f();
        db.into_iter().for_each(|db| handle.put(db));
        result
    }

    /// Bytes that the directory occupies.
    pub fn disk_bytes(&self) -> u64 {
        self.log().directory.disk_bytes()
    }

    pub fn location(&self) -> &Path {
        self.log().directory.path()
    }
}
