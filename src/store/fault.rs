//! Faults while the store is open: a disk that is full, broken, read-only, or taken away.
//!
//! Promises: the first write that fails puts the log into the fault, and from then on appends fail at once, while reading
//! goes on as long as the disk lets it. The thread that tends the log looks with growing pauses whether the disk takes data
//! again; then the database is closed and opened again in place, for RocksDB latches such errors and its C interface cannot
//! resume. Streams, cursors, numbers, sums and handles live through it.
//!
//! - After a sync that failed nobody knows what the log file holds: what is in memtables is carried over, compared with
//!   what the reopened database found, and written again where it is missing.
//! - An append that failed may have left its records in the log file all the same. The reopened log begins a new extent at
//!   the stream's end, and nobody reads an extent beyond the beginning of the next one: such ghosts are never seen, whatever
//!   is appended with their numbers.
//! - On a full disk the ballast stays where it is, or a kill would leave a store that cannot be opened: writing goes on when
//!   there is room besides. Only when consumed files wait to be removed it is given up, for the cursors that allow their
//!   removal; appends wait until that has made room.
//! - A directory that was removed is made again, empty, on the same file system: what was stored in it is reported as lost.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rocksdb::{DB, WriteBatch};

use super::error::StoreError;
use super::extents::Extents;
use super::log::{Log, lock};
use super::salvage::{self, Incident};
use super::schema;
use super::walk::is_damage;

/// Pauses between looks at the disk.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A caller that asks for it is served this often.
const ASKED_PAUSE: Duration = Duration::from_millis(100);

/// What is written to see whether the disk takes data.
const PROBE: &str = "PROBE";
const PROBE_BYTES: usize = 64 << 10;
/// Carried records are written in batches of this size.
const BATCH: usize = 1 << 20;

#[derive(Default)]
pub struct Fault {
    broken: AtomicBool,
    /// The database works, but the disk has no room for more than housekeeping.
    refusing: AtomicBool,
    state: Mutex<Broken>,
    /// What the memtables held when the database was closed, until the next one has it.
    carried: Mutex<Vec<Entry>>,
}

#[derive(Default)]
struct Broken {
    reason: String,
    no_space: bool,
    attempts: u32,
    last: Option<Instant>,
    next: Option<Instant>,
}

type Entry = (Box<[u8]>, Box<[u8]>);

impl Fault {
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    fn begin(&self, reason: &str, no_space: bool) {
        let mut state = lock(&self.state);
        if !self.broken.swap(true, Ordering::AcqRel) {
            let next = Some(Instant::now() + FIRST_PAUSE);
            *state = Broken { reason: reason.to_owned(), no_space, next, ..Broken::default() };
        }
    }

    fn is_over(&self) -> bool {
        !self.is_broken() && !self.refusing.load(Ordering::Acquire)
    }

    /// After how long the disk has to be looked at.
    pub fn next_attempt(&self) -> Option<Duration> {
        if self.is_over() {
            return None;
        }
        lock(&self.state).next.map(|next| next.saturating_duration_since(Instant::now()))
    }

    /// Somebody waits: the next attempt is due now.
    pub fn hurry(&self) {
        let mut state = lock(&self.state);
        if state.last.is_none_or(|last| last.elapsed() > ASKED_PAUSE) {
            state.next = Some(Instant::now());
            state.attempts = state.attempts.saturating_sub(1);
        }
    }

    fn begin_attempt(&self) -> bool {
        let mut state = lock(&self.state);
        let now = Instant::now();
        if self.is_over() || state.next.is_some_and(|next| next > now) {
            return false;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << state.attempts.min(8)).min(LONGEST_PAUSE);
        state.attempts += 1;
        state.last = Some(now);
        state.next = Some(now + pause);
        true
    }

    fn no_space(&self) -> bool {
        lock(&self.state).no_space
    }

    fn still(&self, error: &StoreError) {
        let mut state = lock(&self.state);
        state.no_space = error.is_no_space();
        state.reason = error.reason();
    }

    fn end(&self, refusing: bool) {
        let _state = lock(&self.state);
        self.refusing.store(refusing, Ordering::Release);
        self.broken.store(false, Ordering::Release);
    }
}

impl Log {
    /// The database refused a write.
    pub fn refused(&self, source: rocksdb::Error) -> StoreError {
        let error = self.failed(source);
        self.fault.begin(&error.reason(), error.is_no_space());
        self.work.announce();
        error
    }

    /// Whether writing makes sense.
    pub fn writable(&self) -> Result<(), StoreError> {
        if !self.fault.is_broken() {
            return Ok(());
        }
        Err(self.faulty())
    }

    /// Whether records are taken.
    pub fn accepts(&self) -> Result<(), StoreError> {
        if self.fault.is_over() { Ok(()) } else { Err(self.faulty()) }
    }

    fn faulty(&self) -> StoreError {
        let state = lock(&self.fault.state);
        let (path, reason) = (self.directory.path().to_owned(), state.reason.clone());
        if state.no_space { StoreError::Full { path, reason } } else { StoreError::Fault { path, reason } }
    }

    /// At an open: without room, the log begins by making some.
    pub fn check_room(&self) {
        if !self.space.is_roomy() {
            self.fault.begin(&self.no_room().reason(), true);
            self.fault.end(true);
        }
    }

    fn no_room(&self) -> StoreError {
        let (room, wanted) = (self.space.room(), self.space.wanted());
        let reason = format!("{room} bytes are free, {wanted} are needed to go on");
        StoreError::Full { path: self.directory.path().to_owned(), reason }
    }

    /// Notices when the directory was taken away: writing to files that nobody will find would go on without an error.
    pub fn check_directory(&self) -> Result<(), StoreError> {
        if !self.directory.is_gone() {
            return Ok(());
        }
        let error = StoreError::Gone { path: self.directory.path().to_owned() };
        self.fault.begin(&error.reason(), false);
        Err(error)
    }

    /// Ends the fault if the disk takes data again and it is time to look.
    pub fn recover(&self) -> Result<(), StoreError> {
        if !self.fault.begin_attempt() {
            return self.accepts();
        }
        let done = self.try_recover();
        match &done {
            Ok(()) => self.fault.end(false),
            Err(error) => self.fault.still(error),
        }
        done
    }

    fn try_recover(&self) -> Result<(), StoreError> {
        if self.directory.is_gone() {
            return self.replace_directory();
        }
        if !self.fault.no_space() {
            self.probe_disk()?;
            return self.reopen();
        }
        if self.space.is_roomy() {
            if self.fault.is_broken() {
                self.probe_disk()?;
                match self.reopen() {
                    Err(err) if err.is_no_space() && self.space.release_ballast() => self.reopen()?,
                    other => other?,
                }
            }
            return Ok(());
        }
        // Reopening costs the ballast: not in vain.
        if self.fault.is_broken() && self.has_consumed_extents() {
            self.space.release_ballast();
            self.reopen()?;
            self.fault.end(true);
            self.work.announce();
        }
        Err(self.no_room())
    }

    /// At the end, when what is in memory has no other way out.
    pub fn recover_for_good(&self) -> Result<(), StoreError> {
        if self.fault.is_broken() {
            self.check_directory()?;
            self.space.release_ballast();
            self.reopen()?;
            self.fault.end(true);
        }
        Ok(())
    }

    /// Whether the disk takes data at all.
    fn probe_disk(&self) -> Result<(), StoreError> {
        let probe = self.directory.database().join(PROBE);
        let written = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&probe)
            .and_then(|mut file| file.write_all(&[0x55; PROBE_BYTES]).and_then(|()| file.sync_all()));
        let _ = fs::remove_file(&probe);
        written.map_err(|source| StoreError::Io { path: self.directory.path().to_owned(), source })
    }

    /// Closes the database and opens it again, with all that it had and a new extent.
    fn reopen(&self) -> Result<(), StoreError> {
        self.exchange()?;
        self.begin_next_extent()?;
        self.save_high_water();
        Ok(())
    }

    fn exchange(&self) -> Result<(), StoreError> {
        if let Some(db) = self.handle.take() {
            let mut carried = lock(&self.fault.carried);
            // Else it holds what an earlier attempt could not write.
            if carried.is_empty() {
                let (entries, read) = unflushed(&db);
                if let Err(err) = read.map_err(|err| (is_damage(&err), self.failed(err)))
                    && !err.0
                {
                    // What cannot be read now may be nowhere else.
                    drop(carried);
                    self.handle.put(db);
                    return Err(err.1);
                }
                *carried = entries;
            }
        }
        let opened = salvage::open_database(&self.directory, &self.options, || self.database_options())?;
        self.report(opened.incidents);
        let carried = std::mem::take(&mut *lock(&self.fault.carried));
        let written = self.write_carried(opened.db, &carried);
        if written.is_err() {
            *lock(&self.fault.carried) = carried;
        }
        written
    }

    /// Writes what the memtables held and the reopened database does not. Nobody reads before it is there, or would take it
    /// for lost. It has to get into a file at once: the next fault looks in memory for what comes after the newest file only,
    /// and the heads that the log gave back are in one.
    fn write_carried(&self, db: DB, carried: &[Entry]) -> Result<(), StoreError> {
        let write = |batch: WriteBatch| db.write_opt(batch, &self.write).map_err(|err| self.failed(err));
        let mut batch = WriteBatch::default();
        let mut missing = false;
        for (key, value) in carried {
            // One that cannot be read is written again as well.
            if db.get_pinned(key).is_ok_and(|found| found.is_some_and(|found| *found == **value)) {
                continue;
            }
            batch.put(key, value);
            missing = true;
            if batch.size_in_bytes() > BATCH {
                write(std::mem::take(&mut batch))?;
            }
        }
        write(batch)?;
        self.handle.put(db);
        if missing { self.db()?.flush().map_err(|err| self.failed(err)) } else { Ok(()) }
    }

    /// Makes the directory anew and begins an empty store in it.
    fn replace_directory(&self) -> Result<(), StoreError> {
        // Its files are nowhere any more.
        drop(self.handle.take());
        lock(&self.gauge).forget();
        self.directory.make_again()?;
        let opened = salvage::open_database(&self.directory, &self.options, || self.database_options())?;
        let lost = self.stream_list().into_iter().filter_map(|stream| {
            let ((end, _), cursor) = (stream.written(), stream.cursor());
            let totals = end.totals.since(cursor.totals);
            (cursor.position < end.sequence).then(|| Incident {
                stream: Some(stream.name.clone()),
                first: cursor.position,
                last: end.sequence - 1,
                buffers: Some(totals.buffers),
                bytes: Some(totals.bytes),
                reason: "the directory was removed while it was in use".to_owned(),
                path: self.directory.path().to_owned(),
            })
        });
        self.report(lost.collect());
        *self.extents_mut() = Extents::default();
        self.stream_list().iter().for_each(|stream| stream.forget_holes());
        lock(&self.fault.carried).clear();
        self.handle.put(opened.db);
        self.begin_next_extent()?;
        self.save_high_water();
        Ok(())
    }

    /// Adds to what the openers of streams are told.
    pub fn report(&self, incidents: Vec<Incident>) {
        lock(&self.incidents).extend(incidents);
    }
}

/// What no file holds, and whether all of it could be read. The extent that the newest file ends with may be in it in part.
fn unflushed(db: &DB) -> (Vec<Entry>, Result<(), rocksdb::Error>) {
    let flushed = db.live_files().unwrap_or_default().into_iter();
    let last = flushed.filter_map(|file| Some(schema::parse(&file.end_key?)?.0)).max();
    let mut iter = db.raw_iterator();
    iter.seek(schema::extent_start(last.unwrap_or(0)));
    let mut entries = Vec::new();
    while let Some((key, value)) = iter.item() {
        entries.push((key.into(), value.into()));
        iter.next();
    }
    let read = iter.status();
    (entries, read)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{buffer, noise};
    use super::super::{NewRecord, Store, StoreOptions, Sync};
    use super::*;

    /// What was logged and not flushed is not on the disk any more, as after a sync that failed: memory had it.
    #[test]
    fn what_memory_held_is_there_again_before_anybody_reads() {
        const COUNT: usize = 500;
        let temp = tempfile::tempdir().unwrap();
        let stream = Store::open(temp.path(), &StoreOptions::default()).unwrap().stream("default").unwrap();
        for i in 0..COUNT as u64 {
            let record = NewRecord { body: buffer(Sync::Closed), payload: &[&noise(i, 20_000)], advance: 1 };
            stream.append(stream.end().sequence, &[record]).unwrap();
        }
        let log = stream.log();
        *lock(&log.fault.carried) = unflushed(&log.db().unwrap()).0;
        drop(log.handle.take());
        let logs = fs::read_dir(log.directory.database()).unwrap().map(|entry| entry.unwrap().path());
        logs.filter(|path| path.extension().is_some_and(|kind| kind == "log")).for_each(|log| {
            fs::remove_file(log).unwrap();
        });
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                loop {
                    match stream.read(0, usize::MAX, usize::MAX) {
                        Ok(chunk) => return chunk.records.len(),
                        Err(StoreError::Away { .. }) => std::thread::yield_now(),
                        Err(err) => panic!("{err}"),
                    }
                }
            });
            log.reopen().unwrap();
            assert_eq!(reader.join().unwrap(), COUNT);
        });
    }
}
