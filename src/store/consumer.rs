//! Named consumers of a stream: where each stands, in a small file of its own with a lease.
//!
//! Promises: a consumer that ends in any way goes on where it last saved, 100 ms ago at most: records come twice rather than not
//! at all. While it lives, and for as long as its lease after, nothing goes that lies at or behind its resume point, unless a
//! limit says so (see `leases`); what a limit took shows as a gap in the sums ([`CursorRecord::pass`]). One holder at a time, in
//! whatever process.
//!
//! The file stands in `location/consumers/<stream>/<name>`, is written aside and renamed, and carries a checksum; one that is
//! damaged counts as none. Beside it lies an empty one that is locked by the holder.
//!
//! A thread per consumer writes, so that whoever plays never waits for the disk.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bitcode::{Decode, Encode};

use super::Store;
use super::clock::{Clock, boot_digest};
use super::directory;
use super::error::StoreError;
use super::log::lock;
use super::registry;
use super::schema::{self, CursorRecord};

pub const CONSUMERS: &str = "consumers";

/// How long a position may be unsaved.
const DELAY: Duration = Duration::from_millis(100);
/// Saves are synced at most this often: a power cut costs no more.
const SYNC: Duration = Duration::from_secs(1);
/// A lease is renewed this many times in its duration, and at least as often as `RENEW`.
const RENEWALS: u32 = 4;
const RENEW: Duration = Duration::from_secs(30);
/// What a file name may have before the rest is a checksum.
const NAME_LENGTH: usize = 200;

/// What the file of a consumer holds.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LeaseRecord {
    pub stream: String,
    pub consumer: String,
    pub cursor: CursorRecord,
    /// ns.
    pub lease: u64,
    /// When it was written: digest of the boot's name, ns since that boot, ns since 1970 as the machine believed.
    pub boot: u128,
    pub time: u64,
    pub wall: i64,
}

/// The holder of a named cursor. What was advanced to is saved within 100 ms, and when this is dropped.
pub struct Consumer {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    path: PathBuf,
    file: PathBuf,
    stream: String,
    name: String,
    lease: Duration,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    changed: Condvar,
    /// Held for its lock.
    _lock: File,
}

#[derive(Default)]
struct State {
    cursor: Option<CursorRecord>,
    dirty: bool,
    stop: bool,
    /// Saves asked for, and done.
    asked: u64,
    done: u64,
    failed: Option<String>,
}

impl Consumer {
    pub(super) fn open(
        location: &Path,
        stream: &str,
        name: &str,
        lease: Duration,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let directory = location.join(CONSUMERS).join(file_name(stream));
        directory::create(&directory)?;
        let file = directory.join(file_name(name));
        let io = |source| StoreError::Io { path: file.clone(), source };
        let lock_file = file.with_extension("lock");
        let held =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(lock_file).map_err(io)?;
        match held.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(source)) => return Err(io(source)),
            Err(TryLockError::WouldBlock) => {
                let (stream, consumer) = (stream.to_owned(), name.to_owned());
                return Err(StoreError::ConsumerInUse { path: location.to_owned(), stream, consumer });
            }
        }
        let known = read(&file).filter(|record| record.stream == stream && record.consumer == name);
        let cursor = known.map(|record| record.cursor);
        let shared = Arc::new(Shared {
            path: location.to_owned(),
            file,
            stream: stream.to_owned(),
            name: name.to_owned(),
            lease,
            clock: clock.clone(),
            // The lease begins again.
            state: Mutex::new(State { cursor, dirty: cursor.is_some(), ..State::default() }),
            changed: Condvar::new(),
            _lock: held,
        });
        let writing = shared.clone();
        let writer = std::thread::Builder::new()
            .name("streambuffer".into())
            .spawn(move || writing.write_on())
            .map_err(|source| StoreError::Io { path: location.to_owned(), source })?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Where it stands; `None` when it has never stood anywhere.
    pub fn position(&self) -> Option<CursorRecord> {
        lock(&self.shared.state).cursor
    }

    /// Moves it. `resume` is the sync point from which it has to be fed when it comes back: nothing at or behind it goes. The
    /// sums and the ledger are kept by [`CursorRecord::pass`], which also tells what was lost on the way. To be called at the
    /// beginning too (see [`StreamReader::cursor_at`](super::StreamReader::cursor_at)): a consumer that never stood anywhere
    /// holds nothing.
    pub fn advance(&self, cursor: CursorRecord) {
        let mut state = lock(&self.shared.state);
        if state.cursor != Some(cursor) {
            state.cursor = Some(cursor);
            if !std::mem::replace(&mut state.dirty, true) {
                self.shared.changed.notify_all();
            }
        }
    }

    /// Saves it now, which renews the lease. By itself it is renewed in time while this lives.
    ///
    /// # Errors
    ///
    /// The disk does not take it; it is tried again by itself.
    pub fn renew(&self) -> Result<(), StoreError> {
        let mut state = lock(&self.shared.state);
        state.asked += 1;
        let wanted = state.asked;
        self.shared.changed.notify_all();
        let waiting = |state: &mut State| state.done < wanted;
        let state = self.shared.changed.wait_while(state, waiting).unwrap_or_else(PoisonError::into_inner);
        match &state.failed {
            None => Ok(()),
            Some(reason) => {
                Err(StoreError::Io { path: self.shared.file.clone(), source: io::Error::other(reason.clone()) })
            }
        }
    }

    /// Gives its position up: the next consumer of this name begins anew, and nothing is held for it any more.
    ///
    /// # Errors
    ///
    /// The file cannot be removed.
    #[cfg(test)]
    pub fn forget(self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        lock(&shared.state).cursor = None;
        drop(self);
        match fs::remove_file(&shared.file) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::Io { path: shared.file.clone(), source: err })
            }
            _ => {
                shared.tell();
                Ok(())
            }
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        lock(&self.shared.state).stop = true;
        self.shared.changed.notify_all();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn write_on(&self) {
        let renewal = (self.lease / RENEWALS).min(RENEW).max(DELAY);
        let mut synced: Option<Instant> = None;
        let mut state = lock(&self.state);
        loop {
            let idle = |state: &mut State| !state.dirty && !state.stop && state.asked == state.done;
            let waited = self.changed.wait_timeout_while(state, renewal, idle);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            // More of it may come.
            let waited =
                self.changed.wait_timeout_while(state, DELAY, |state| !state.stop && state.asked == state.done);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            let (stop, asked) = (state.stop, state.asked);
            let cursor = state.cursor;
            state.dirty = false;
            drop(state);
            let sync = stop || synced.is_none_or(|at| at.elapsed() >= SYNC);
            let saved = cursor.map_or(Ok(()), |cursor| self.save(cursor, sync));
            if saved.is_ok() && sync {
                synced = Some(Instant::now());
            }
            state = lock(&self.state);
            state.done = asked;
            // With the next round.
            state.dirty |= saved.is_err() && !stop;
            state.failed = saved.err().map(|err| err.to_string());
            self.changed.notify_all();
            if stop {
                return;
            }
        }
    }

    fn save(&self, cursor: CursorRecord, sync: bool) -> io::Result<()> {
        let record = LeaseRecord {
            stream: self.stream.clone(),
            consumer: self.name.clone(),
            cursor,
            lease: u64::try_from(self.lease.as_nanos()).unwrap_or(u64::MAX),
            boot: boot_digest(&*self.clock),
            time: self.clock.boot(),
            wall: self.clock.wall(),
        };
        let new = self.file.with_extension("new");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(&schema::encode_value(&record))?;
        if sync {
            file.sync_data()?;
        }
        drop(file);
        fs::rename(&new, &self.file)?;
        self.tell();
        Ok(())
    }

    /// Who trims in this process knows at once.
    fn tell(&self) {
        if let Some(store) = registry::find(&self.path).map(Store) {
            store.log().leases.changed();
            store.log().honour_leases();
            store.log().work.announce();
        }
    }
}

/// What the file of a consumer says; nothing when it is missing or damaged.
pub fn read(file: &Path) -> Option<LeaseRecord> {
    schema::decode_value(&fs::read(file).ok()?)
}

/// A name as a file has it: letters, digits, `-` and `_` as they are, other bytes as hexadecimal numbers; no dots.
pub fn file_name(name: &str) -> String {
    let mut file = String::with_capacity(name.len() + 1);
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => file.push(char::from(byte)),
            _ => file.push_str(&format!("%{byte:02x}")),
        }
    }
    if file.is_empty() {
        file.push('%');
    }
    if file.len() > NAME_LENGTH {
        file.truncate(NAME_LENGTH);
        file.push_str(&format!("%{:032x}", super::clock::digest(name)));
    }
    file
}
