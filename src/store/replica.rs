//! Following the store that another process writes: a secondary instance of its database.
//!
//! Promises: nothing is written into the store's directory, and nothing of it is opened before `FORMAT` was read. What the
//! writer has logged or flushed shows after [`Replica::refresh`], in order and without a gap, while it appends, trims, removes
//! files and begins extents, after it was closed or killed, and when it begins anew. Files that the writer removes stay
//! readable until the next refresh: one a second is made in the background, so that a reader that is idle does not hold
//! their space for long. Readers of a store in one process share one instance.
//!
//! Each table of the store is held open, or it could not be read any more once it is removed: that takes a file descriptor for
//! every 16 MiB or so. Where the process may have too few, its limit is raised as far as it is allowed to.
//!
//! Tables with damage in them are read around, as by the writer. A damaged log or manifest is for the writer to put right: until
//! then there is nothing to be read.
//!
//! When catching up fails, or the database was replaced, or records are missing that should be there, the instance is stale: who
//! uses it opens another.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use once_cell::sync::Lazy;
use rocksdb::{DB, DBRecoveryMode, Options};

use super::clock::{Arrival, Clock, ClockRecord, Time};
use super::directory::{self, DATABASE};
use super::error::StoreError;
use super::extents::{Extents, First};
use super::files::{Marks, PrivateDirectory, allow_files, identity, logs_in, tables_in};
use super::framing;
use super::handle::{Guard, Handle};
use super::health::database_options;
use super::highwater::HighWater;
use super::holes::Holes;
use super::log::lock;
use super::playback::check_store;
use super::reader::{Bounds, Quiet, Source};
use super::record::Sequence;
use super::salvage::newest_manifest;
use super::schema::CursorRecord;
use super::stream::Mark;
use super::survey::{Heads, end_in, heads_from};
use super::walk::is_damage;

/// An instance catches up at least this often.
const LOOK: Duration = Duration::from_secs(1);
/// Options want one; nothing is ever flushed from here.
const MEMTABLE: u64 = 16 << 20;
/// Between two looks at least: sixty readers at sixty streams ask often.
const PAUSE: Duration = Duration::from_millis(10);
/// So long nothing is looked at while files seem unchanged.
const TRUST: Duration = Duration::from_secs(5);
/// Tables that are about to come or to go.
const UNDER_WAY: u64 = 32;
const MANIFEST_TRIES: usize = 5;
/// Attempts to find the writer standing still for a moment.
const ROUNDS: usize = 32;

static INSTANCES: Lazy<Mutex<HashMap<PathBuf, Arc<Place>>>> = Lazy::new(Default::default);
/// Tables that the instances of this process hold open.
static TABLES: AtomicU64 = AtomicU64::new(0);

/// Place of one directory; locked while its instance is opened.
type Place = Mutex<Weak<Replica>>;

/// A secondary instance and what it shows.
pub struct Replica {
    // First, so that the database is closed before its directory goes.
    handle: Handle,
    path: PathBuf,
    /// The database's directory: device and inode.
    identity: (u64, u64),
    /// Which store it is.
    created: u64,
    clock: Arc<dyn Clock>,
    extents: RwLock<Extents>,
    time: RwLock<Time>,
    streams: Mutex<BTreeMap<String, Arc<Followed>>>,
    seen: Mutex<Seen>,
    stale: AtomicBool,
    tables: AtomicU64,
    follower: Mutex<Option<JoinHandle<()>>>,
    stop: Arc<Stop>,
    _private: PrivateDirectory,
}

#[derive(Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

/// As of the last look.
#[derive(Default)]
struct Seen {
    /// When the last look, or the one that found nothing to look at, began.
    at: Option<Instant>,
    /// What tells whether anything changed.
    version: (u64, u64),
    /// The newest extent and what its head said.
    newest: u32,
    /// Log files that were there.
    logs: Vec<u64>,
    clock: ClockRecord,
    /// What the files were like before the last look, if it saw everything.
    marks: Option<Marks>,
    looked: Option<Instant>,
    gauged: Option<Instant>,
}

/// A stream as it is followed.
pub struct Followed {
    id: u32,
    name: String,
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    cursor: CursorRecord,
    holes: Arc<Holes>,
    end: Mark,
    /// Since when the high-water file tells of more than can be seen: what it tells may have been on its way.
    missing: Option<Instant>,
}

/// Longer than a cursor may be unsaved.
const BEHIND: Duration = Duration::from_secs(2);

impl Followed {
    pub fn cursor(&self) -> CursorRecord {
        lock(&self.state).cursor
    }

    pub fn end(&self) -> Mark {
        lock(&self.state).end
    }

    pub fn is_behind(&self) -> bool {
        lock(&self.state).missing.is_some_and(|since| since.elapsed() >= BEHIND)
    }
}

impl Bounds for Followed {
    fn id(&self) -> u32 {
        self.id
    }

    fn holes(&self) -> Arc<Holes> {
        lock(&self.state).holes.clone()
    }

    fn committed(&self) -> Sequence {
        lock(&self.state).end.sequence
    }

    /// Its view of the files may be behind.
    fn quiet(&self) -> Option<&Quiet> {
        None
    }
}

impl Source for Replica {
    fn db(&self) -> Result<Guard<'_>, StoreError> {
        self.handle.get().ok_or_else(|| StoreError::Away { path: self.path.clone() })
    }

    fn extents(&self) -> RwLockReadGuard<'_, Extents> {
        self.extents.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, source: rocksdb::Error) -> StoreError {
        StoreError::database(&self.path, source)
    }

    fn corrected(&self, arrival: Arrival) -> Option<(i64, bool)> {
        self.time.read().unwrap_or_else(PoisonError::into_inner).corrected(arrival)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        *lock(&self.stop.stopped) = true;
        self.stop.changed.notify_all();
        // It may have been the last to hold this.
        let itself = |thread: &JoinHandle<()>| thread.thread().id() == std::thread::current().id();
        if let Some(thread) = lock(&self.follower).take_if(|thread| !itself(thread)) {
            let _ = thread.join();
        }
        TABLES.fetch_sub(self.tables.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Replica {
    /// Opens the store in `path`, or joins the instance that this process has.
    ///
    /// # Errors
    ///
    /// There is no store, or it cannot be read; nothing of it is touched.
    pub fn open(path: &Path, clock: &Arc<dyn Clock>) -> Result<Arc<Self>, StoreError> {
        let place = {
            let mut instances = lock(&INSTANCES);
            instances.retain(|_, place| Arc::strong_count(place) > 1 || lock(place).strong_count() > 0);
            instances.entry(path.to_owned()).or_default().clone()
        };
        let mut place = lock(&place);
        if let Some(replica) = place.upgrade().filter(|replica| !replica.is_stale()) {
            return Ok(replica);
        }
        let replica = Self::follow(path, clock)?;
        *place = Arc::downgrade(&replica);
        Ok(replica)
    }

    fn follow(path: &Path, clock: &Arc<dyn Clock>) -> Result<Arc<Self>, StoreError> {
        check_store(path)?;
        let created = directory::creation(path);
        let database = path.join(DATABASE);
        let identity = identity(&database).map_err(|source| StoreError::Io { path: database.clone(), source })?;
        let tables = tables_in(&database);
        allow_files(path, TABLES.load(Ordering::Relaxed) + tables)?;
        let damaged = |what: &str| {
            let reason = format!("{what}; a diskbuffer that opens it to write salvages what can be read");
            StoreError::Damaged { path: path.to_owned(), reason }
        };
        if has_obstacles(&database) || has_damaged_manifest(&database) {
            return Err(damaged("a log or manifest has damaged frames"));
        }
        let private = PrivateDirectory::create()?;
        let logs = logs_in(&database);
        let open = |lenient| DB::open_as_secondary(&options(lenient), &database, &private.path);
        // The writer may just be at it.
        let again = |_| {
            std::thread::sleep(PAUSE);
            open(false)
        };
        let db = open(false).or_else(again).or_else(|_| open(true)).map_err(|err| match is_damage(&err) {
            true => damaged(err.as_ref()),
            false => StoreError::database(path, err),
        })?;
        TABLES.fetch_add(tables, Ordering::Relaxed);
        let replica = Arc::new(Self {
            handle: Handle::new(db),
            path: path.to_owned(),
            identity,
            created,
            clock: clock.clone(),
            extents: RwLock::default(),
            time: RwLock::new(Time::new(clock.clone(), ClockRecord::default())),
            streams: Mutex::default(),
            seen: Mutex::default(),
            stale: AtomicBool::new(false),
            tables: AtomicU64::new(tables),
            follower: Mutex::default(),
            stop: Arc::default(),
            _private: private,
        });
        let mut seen = lock(&replica.seen);
        seen.logs = logs;
        if !replica.settle(&mut seen)? {
            return Err(StoreError::Away { path: path.to_owned() });
        }
        replica.look(&mut seen)?;
        drop(seen);
        let (follower, stop) = (Arc::downgrade(&replica), replica.stop.clone());
        let thread = std::thread::Builder::new()
            .name("streambuffer".into())
            .spawn(move || follow(&follower, &stop))
            .map_err(|source| StoreError::Io { path: path.to_owned(), source })?;
        *lock(&replica.follower) = Some(thread);
        Ok(replica)
    }

    /// See [`directory::creation`].
    pub fn created(&self) -> u64 {
        self.created
    }

    /// It does not show what it should.
    pub fn distrust(&self) {
        self.stale.store(true, Ordering::Relaxed);
    }

    /// Another one has to be opened.
    pub fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Relaxed)
    }

    pub fn names(&self) -> Vec<String> {
        lock(&self.streams).keys().cloned().collect()
    }

    pub fn stream(&self, name: &str) -> Option<Arc<Followed>> {
        lock(&self.streams).get(name).cloned()
    }

    /// Catches up with the writer. Who comes while somebody else does waits for that one, and goes by what it saw when it
    /// began later.
    ///
    /// # Errors
    ///
    /// The disk could not be read. When the instance is stale then, another has to be opened.
    pub fn refresh(&self) -> Result<(), StoreError> {
        let asked = Instant::now();
        let mut seen = lock(&self.seen);
        if seen.at.is_some_and(|at| at >= asked) {
            return Ok(());
        }
        self.catch_up(&mut seen)
    }

    fn catch_up(&self, seen: &mut Seen) -> Result<(), StoreError> {
        if self.is_stale() {
            return Err(StoreError::Away { path: self.path.clone() });
        }
        let database = self.path.join(DATABASE);
        let mut begun = Instant::now();
        let marks = Marks::read(&database, self.identity, seen.marks.as_ref());
        let marks = marks.inspect_err(|_| self.stale.store(true, Ordering::Relaxed))?;
        let idle = seen.marks.as_ref().is_some_and(|known| known.sure && known.same(&marks));
        // Not by them alone for ever.
        if !idle || seen.looked.is_none_or(|at| at.elapsed() >= TRUST) {
            if let Some(left) = seen.looked.and_then(|at| PAUSE.checked_sub(at.elapsed())) {
                // Who waits for the same goes by this look.
                std::thread::sleep(left);
                begun = Instant::now();
            }
            if directory::creation(&self.path) != self.created {
                // Another store took its place, perhaps with the same inode.
                self.stale.store(true, Ordering::Relaxed);
                return Err(StoreError::Away { path: self.path.clone() });
            }
            seen.marks = None;
            seen.looked = Some(begun);
            self.step()?;
            if self.version()? == seen.version {
                seen.marks = Some(marks);
            } else if self.settle(seen)? {
                self.look(seen)?;
                seen.marks = Some(marks);
            }
        }
        seen.at = Some(begun);
        if seen.gauged.is_none_or(|at| at.elapsed() >= LOOK) {
            seen.gauged = Some(begun);
            self.gauge(begun);
        }
        Ok(())
    }

    /// Looks whether the writer has stored more than can be seen.
    fn gauge(&self, now: Instant) {
        let high = HighWater::load(&self.path);
        for stream in lock(&self.streams).values() {
            let mut state = lock(&stream.state);
            let stored = high.of(stream.id).filter(|high| high.name == stream.name).map(|high| high.totals.buffers);
            let shown = state.end.totals.buffers.max(state.cursor.totals.buffers);
            state.missing = stored.filter(|stored| *stored > shown).map(|_| state.missing.unwrap_or(now));
        }
    }

    fn step(&self) -> Result<(), StoreError> {
        self.db()?.try_catch_up_with_primary().map_err(|error| {
            self.stale.store(true, Ordering::Relaxed);
            self.failed(error)
        })
    }

    /// What is another whenever the database shows something new.
    fn version(&self) -> Result<(u64, u64), StoreError> {
        let db = self.db()?;
        let number = db.property_int_value("rocksdb.current-super-version-number").map_err(|err| self.failed(err))?;
        Ok((db.latest_sequence_number(), number.unwrap_or(0)))
    }

    /// Goes on until there is no gap. RocksDB reads the manifest first and then the log files: what the writer puts into a table
    /// in between, removing its log file, is in neither. When all log files from before are still there, that was not so.
    /// False when the writer is too fast: what is known stays as it is for now.
    fn settle(&self, seen: &mut Seen) -> Result<bool, StoreError> {
        for _ in 0..ROUNDS {
            let logs = logs_in(&self.path.join(DATABASE));
            let before = std::mem::replace(&mut seen.logs, logs);
            if before.iter().all(|log| seen.logs.contains(log)) && before.is_empty() == seen.logs.is_empty() {
                return Ok(true);
            }
            self.step()?;
        }
        Ok(false)
    }

    /// Reads what has changed of the heads, and where the streams end.
    fn look(&self, seen: &mut Seen) -> Result<(), StoreError> {
        let version = self.version()?;
        let db = self.db()?;
        let failed = |error| self.failed(error);
        let first = seen.at.is_none();
        let heads = heads_from(&db, seen.newest, &HighWater::default()).map_err(failed)?;
        self.enter_extents(&heads);
        if let Some(clock) = heads.values().rev().find_map(|found| found.clock.clone())
            && (first || clock != seen.clock)
        {
            let time = Time::new(self.clock.clone(), clock.clone());
            *self.time.write().unwrap_or_else(PoisonError::into_inner) = time;
            seen.clock = clock;
        }
        let mut streams = lock(&self.streams).clone();
        for (stream, name) in heads.values().flat_map(|found| found.starts.iter()).map(|(id, s)| (*id, &s.name)) {
            let new = || Arc::new(Followed { id: stream, name: name.clone(), state: Mutex::default() });
            streams.entry(name.clone()).or_insert_with(new);
        }
        for stream in streams.values() {
            self.bring_up(&db, stream, &heads).map_err(failed)?;
        }
        let mut extents = self.extents.write().unwrap_or_else(PoisonError::into_inner);
        for stream in streams.values() {
            let State { cursor, holes, .. } = lock(&stream.state).clone();
            extents.advance(stream.id, cursor.log_start);
            extents.cover(stream.id, &holes);
        }
        extents.drop_dead();
        let tables = extents.len() as u64 + UNDER_WAY;
        drop(extents);
        *lock(&self.streams) = streams;
        seen.newest = heads.keys().next_back().copied().unwrap_or(seen.newest);
        seen.version = version;
        seen.at.get_or_insert_with(Instant::now);
        // About one for each extent.
        TABLES.fetch_sub(self.tables.swap(tables, Ordering::Relaxed), Ordering::Relaxed);
        let open = TABLES.fetch_add(tables, Ordering::Relaxed) + tables;
        allow_files(&self.path, open)
    }

    fn enter_extents(&self, heads: &Heads) {
        let mut extents = self.extents.write().unwrap_or_else(PoisonError::into_inner);
        let known = extents.newest();
        for (id, found) in heads.iter().filter(|(_, found)| !found.starts.is_empty()) {
            let first = |start: &super::schema::StreamStart| First { sequence: start.first, bytes: start.totals.bytes };
            if known.is_some_and(|known| *id <= known) {
                found.starts.iter().for_each(|(stream, start)| extents.add_stream(*stream, first(start)));
            } else {
                extents.push(*id, found.boot(), found.starts.iter().map(|(s, start)| (*s, first(start))).collect());
            }
        }
    }

    /// Cursor, holes and end of a stream as they are now.
    fn bring_up(&self, db: &DB, stream: &Followed, heads: &Heads) -> Result<(), rocksdb::Error> {
        let mut state = lock(&stream.state).clone();
        // A cursor and the holes as of it belong together.
        let newest = heads.values().rev().find_map(|found| found.standing(stream.id));
        if let Some((cursor, holes)) = newest {
            state.cursor = cursor;
            if *state.holes != holes {
                state.holes = Arc::new(holes);
            }
        } else if state.end == Mark::default()
            && let Some(start) = heads.values().find_map(|found| found.starts.get(&stream.id))
        {
            let (first, bytes) = (start.first, start.totals.bytes);
            state.cursor = CursorRecord { position: first, resume: first, log_start: first, ..state.cursor };
            (state.cursor.totals, state.cursor.log_start_bytes) = (start.totals, bytes);
        }
        let knowing = heads.iter().rev().find_map(|(extent, found)| Some((*extent, found.starts.get(&stream.id)?)));
        if let Some((extent, start)) = knowing {
            let mut end = end_in(db, extent, stream.id, Mark { sequence: start.first.max(1), totals: start.totals })?;
            if state.cursor.position > end.sequence {
                end = Mark { sequence: state.cursor.position, totals: end.totals.at_least(state.cursor.totals) };
            }
            if let Some(hole) = state.holes.iter().last().filter(|hole| hole.to > end.sequence) {
                end = Mark { sequence: hole.to, totals: hole.base.plus(hole.kept) };
            }
            state.end = end;
        }
        let mut current = lock(&stream.state);
        *current = State { missing: current.missing, ..state };
        Ok(())
    }
}

/// Keeps an instance from holding removed files for long.
fn follow(replica: &Weak<Replica>, stop: &Stop) {
    loop {
        let stopped = lock(&stop.stopped);
        let wait = stop.changed.wait_timeout_while(stopped, LOOK, |stopped| !*stopped);
        if *wait.unwrap_or_else(PoisonError::into_inner).0 {
            return;
        }
        let Some(replica) = replica.upgrade() else { return };
        let mut seen = lock(&replica.seen);
        if seen.at.is_none_or(|at| at.elapsed() >= LOOK) {
            // Who reads is told.
            let _ = replica.catch_up(&mut seen);
        }
    }
}

/// RocksDB would read for ever.
fn has_obstacles(database: &Path) -> bool {
    // The writer may remove a file meanwhile.
    let mut tries = (0..ROUNDS).map(|_| framing::has_obstacles(database, false));
    tries.find_map(Result::ok).unwrap_or(false)
}

/// RocksDB would take it for one that ends early.
fn has_damaged_manifest(database: &Path) -> bool {
    // The writer may be at the end of it, or begin another.
    for _ in 0..MANIFEST_TRIES {
        let manifest = newest_manifest(database).map(|name| framing::check_manifest(&database.join(name), false));
        if matches!(manifest, Some(Ok(framing::Manifest::Sound))) {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
    true
}

fn options(lenient: bool) -> Options {
    let mut options = database_options(MEMTABLE);
    options.create_if_missing(false);
    options.set_max_open_files(-1);
    if lenient {
        options.set_paranoid_checks(false);
        options.set_wal_recovery_mode(DBRecoveryMode::SkipAnyCorruptedRecord);
    }
    options
}
