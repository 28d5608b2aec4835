//! Reading a stream that somebody else writes, or nobody.
//!
//! Promises:
//! - In the process that has the store open the reader shares it, and does not hold it open: the writer closes and opens it as
//!   if nobody read. Otherwise the reader follows the files that the writer leaves (see `replica`), and moves over to the
//!   shared store at the next [`StreamReader::refresh`] once this process has it open, and back when it is closed.
//! - Any number of readers beside the one writer, in any number of processes; none takes the stream.
//! - What is handed out is committed. In another process it is what the writer has logged: with [`Durability::None`] nothing is
//!   logged and a record shows only when a memtable is full or the store is closed ([`StreamReader::is_behind`]).
//! - Damaged records are left out and listed in [`Chunk`]; what was given up shows as a gap in the sums.
//!
//! Never: a store or a stream made, a byte of a store changed, but for the lease files of consumers.
//!
//! While the writer opens a faulty database again, [`StoreError::Away`] is returned: to be tried again.
//!
//! [`Durability::None`]: super::Durability::None

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use super::Store;
use super::clock::{Arrival, Clock, SystemClock};
use super::consumer::{self, Consumer};
use super::directory;
use super::error::StoreError;
use super::holes::Holes;
use super::log::lock;
use super::reader::{Bounds, View};
use super::record::{BufferHeader, Sequence, StateMap, Totals};
use super::registry::{self, Place};
use super::replica::{Followed, Replica};
use super::schema::{CursorRecord, UNCLEAN_GAP};
use super::seek::{self, Reference, Seek, SyncPoint};
use super::stream::{Chunk, Mark};
use super::stream_log::StreamLog;

/// How a store is read.
#[derive(Clone)]
pub struct ReaderOptions {
    /// Tells the time; tests bring their own.
    pub clock: Arc<dyn Clock>,
    /// Tells the capture time that a buffer brings along.
    pub reference: Reference,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock), reference: |_| None }
    }
}

/// Reads one stream. Usable from several threads; what is on the disk is read without a lock.
pub struct StreamReader {
    path: PathBuf,
    name: String,
    options: ReaderOptions,
    link: Mutex<Link>,
    /// The last place where records are missing that were looked for in vain.
    missed: AtomicU64,
}

/// Instances that are asked for records that one of them did not see.
const LOOKS: usize = 3;

/// Where the stream is read from, without holding a shared store open.
#[derive(Clone)]
enum Link {
    Shared { place: Weak<Place>, created: u64, stream: Arc<StreamLog> },
    Secondary { replica: Arc<Replica>, stream: Arc<Followed> },
}

/// The same, while something is read.
enum Held {
    Shared { store: Store, stream: Arc<StreamLog> },
    Secondary { replica: Arc<Replica>, stream: Arc<Followed> },
}

impl Held {
    fn view(&self) -> View<'_> {
        match self {
            Held::Shared { store, stream } => store.log().view(stream),
            Held::Secondary { replica, stream } => View { source: &**replica, stream: &**stream },
        }
    }
}

impl fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamReader").field("path", &self.path).field("stream", &self.name).finish_non_exhaustive()
    }
}

/// The names of the streams in a store, in order.
///
/// # Errors
///
/// [`StoreError::NoStore`] when there is none; the directory is left as it is.
pub fn stream_names(location: &Path, options: &ReaderOptions) -> Result<Vec<String>, StoreError> {
    let path = registry::resolve(location)?;
    match registry::find(&path).map(Store) {
        Some(store) => Ok(names(&store)),
        None => Ok(Replica::open(&path, &options.clock)?.names()),
    }
}

fn names(store: &Store) -> Vec<String> {
    let mut names: Vec<_> = store.log().stream_list().iter().map(|stream| stream.name.clone()).collect();
    names.sort_unstable();
    names
}

impl StreamReader {
    /// Opens a stream of the store in `location` for reading; without a name the only one that it has.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoStore`], [`StoreError::NoStream`] with the names that there are, [`StoreError::NewerFormat`]; the
    /// directory is left as it is.
    pub fn open(location: &Path, stream: Option<&str>, options: &ReaderOptions) -> Result<Self, StoreError> {
        let path = registry::resolve(location)?;
        let name = match stream {
            Some(name) => name.to_owned(),
            None => match <[String; 1]>::try_from(stream_names(&path, options)?) {
                Ok([only]) => only,
                Err(names) => return Err(StoreError::NoStream { path, stream: None, names }),
            },
        };
        let link = Mutex::new(Link::find(&path, &name, options)?);
        Ok(Self { path, name, options: options.clone(), link, missed: AtomicU64::new(0) })
    }

    pub fn stream_name(&self) -> &str {
        &self.name
    }

    /// Whether it reads from the store that this process has open: what is committed shows at once.
    pub fn is_shared(&self) -> bool {
        matches!(&*lock(&self.link), Link::Shared { place, .. } if place.strong_count() > 0)
    }

    /// In a process that does not write: takes note of what the writer did since. To be called before looking for more at
    /// the end, and now and then when nothing is read. Cheap when nothing has changed; in a process that writes it does
    /// nothing. What was read stays valid.
    ///
    /// # Errors
    ///
    /// The store is gone, or cannot be read now; what was known goes on to be readable where the disk allows.
    pub fn refresh(&self) -> Result<(), StoreError> {
        let link = lock(&self.link).clone();
        let moved = match &link {
            Link::Shared { place, .. } => place.strong_count() == 0,
            Link::Secondary { replica, .. } => registry::find(&self.path).is_some() || replica.is_stale(),
        };
        match link {
            _ if moved => self.find_again().map(drop),
            Link::Secondary { replica, .. } => match replica.refresh() {
                Err(_) if replica.is_stale() => self.find_again().map(drop),
                refreshed => refreshed,
            },
            Link::Shared { .. } => Ok(()),
        }
    }

    /// Which store it reads: another value when one was deleted and another one made in its place, where numbers begin anew.
    pub fn created(&self) -> u64 {
        match &*lock(&self.link) {
            Link::Shared { created, .. } => *created,
            Link::Secondary { replica, .. } => replica.created(),
        }
    }

    /// The writer has stored records that cannot be seen from here yet: it keeps no log ([`Durability::None`]).
    ///
    /// [`Durability::None`]: super::Durability::None
    pub fn is_behind(&self) -> bool {
        match &*lock(&self.link) {
            Link::Shared { .. } => false,
            Link::Secondary { stream, .. } => stream.is_behind(),
        }
    }

    /// First number that is kept; this and what follows is as of now in the process that has the store open, else as of the
    /// last refresh.
    pub fn first(&self) -> Sequence {
        self.cursor().log_start
    }

    /// After the last record that is committed.
    pub fn end(&self) -> Mark {
        match &*lock(&self.link) {
            Link::Shared { stream, .. } => stream.written_mark(),
            Link::Secondary { stream, .. } => stream.end(),
        }
    }

    /// Where the stream's own consumer, the `diskbuffer` that writes it, stands.
    pub fn cursor(&self) -> CursorRecord {
        match &*lock(&self.link) {
            Link::Shared { stream, .. } => stream.cursor(),
            Link::Secondary { stream, .. } => stream.cursor(),
        }
    }

    /// Records from `from` or the log start on, as [`Stream::read`](super::Stream::read).
    ///
    /// What is missing between records that another process logs is looked for in the files anew before it is given up: a log
    /// that is read while it grows can be misread, and RocksDB then passes over the rest of a block of 32 kB without a word.
    ///
    /// # Errors
    ///
    /// The disk could not be read. Damaged records are no error: they are left out and listed.
    pub fn read(&self, from: Sequence, max_records: usize, max_bytes: usize) -> Result<Chunk, StoreError> {
        let from = from.max(self.first());
        let mut held = self.held()?;
        let mut looks = 1;
        loop {
            let chunk = held.view().read(from, max_records, max_bytes)?;
            let Held::Secondary { replica, stream } = &held else { return Ok(chunk) };
            let Some(missing) = missing_from(&chunk, from, &stream.holes()) else { return Ok(chunk) };
            if looks == LOOKS || self.missed.load(Ordering::Relaxed) == missing {
                self.missed.store(missing, Ordering::Relaxed);
                return Ok(chunk);
            }
            looks += 1;
            replica.distrust();
            held = self.find_again()?;
        }
    }

    /// The state in force just before `sequence`.
    ///
    /// # Errors
    ///
    /// The disk could not be read.
    pub fn state_at(&self, sequence: Sequence) -> Result<StateMap, StoreError> {
        self.held()?.view().state_at(sequence)
    }

    /// The sums of all before `sequence`.
    ///
    /// # Errors
    ///
    /// The disk could not be read.
    pub fn totals_at(&self, sequence: Sequence) -> Result<Totals, StoreError> {
        let end = self.end();
        self.held()?.view().totals_at(sequence.max(self.first()), end)
    }

    /// A cursor that begins at `sequence`: what lies before is neither delivered nor lost.
    ///
    /// # Errors
    ///
    /// The disk could not be read.
    pub fn cursor_at(&self, sequence: Sequence) -> Result<CursorRecord, StoreError> {
        let totals = self.totals_at(sequence)?;
        Ok(CursorRecord { position: sequence, resume: sequence, totals, ..CursorRecord::default() })
    }

    /// When a record was captured: ns since 1970, and whether the clock that says so was synchronised. What the buffer brought
    /// along wins over its arrival; of a boot that nothing is known of it is what the machine believed then.
    pub fn captured_at(&self, header: &BufferHeader, arrival: Arrival) -> (i64, bool) {
        match self.held() {
            Ok(held) => seek::captured_at(held.view(), self.options.reference, header, arrival),
            Err(_) => ((self.options.reference)(&header.metas).unwrap_or(header.captured_at), false),
        }
    }

    /// When a record arrived, ns since 1970; `None` of a boot that nothing is known of.
    pub fn arrived_at(&self, arrival: Arrival) -> Option<i64> {
        self.held().ok()?.view().source.corrected(arrival).map(|(at, _)| at)
    }

    fn seek<T>(&self, find: impl FnOnce(Seek<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let held = self.held()?;
        find(Seek { view: held.view(), first: self.first(), reference: self.options.reference })
    }

    /// The last sync point at or before `sequence`.
    ///
    /// # Errors
    ///
    /// The disk could not be read.
    pub fn sync_at_or_before(&self, sequence: Sequence) -> Result<Option<SyncPoint>, StoreError> {
        self.seek(|seek| seek.last_until(sequence))
    }

    /// The first sync point at or after `sequence`.
    ///
    /// # Errors
    ///
    /// The disk could not be read.
    pub fn first_sync_from(&self, sequence: Sequence) -> Result<Option<SyncPoint>, StoreError> {
        self.seek(|seek| seek.first_from(sequence))
    }

    /// The first sync point after `sequence`.
    ///
    /// # Errors
    ///
    /// The disk could not be read.
    pub fn next_sync_after(&self, sequence: Sequence) -> Result<Option<SyncPoint>, StoreError> {
        self.first_sync_from(sequence.saturating_add(1))
    }

    /// The last sync point that was captured at or before `utc`, in ns since 1970; see `seek` for clocks that went wrong.
    ///
    /// # Errors
    ///
    /// The disk could not be read.
    pub fn sync_at_or_before_time(&self, utc: i64) -> Result<Option<SyncPoint>, StoreError> {
        self.seek(|seek| seek.last_until_time(utc))
    }

    /// Becomes the consumer `name` of the stream: where it stands is kept, also between processes, and nothing that it still
    /// needs goes, unless a limit says so, until it has not been heard of for as long as `lease`.
    ///
    /// # Errors
    ///
    /// [`StoreError::ConsumerInUse`] while somebody else is; the directory cannot be written to.
    pub fn consumer(&self, name: &str, lease: Duration) -> Result<Consumer, StoreError> {
        Consumer::open(&self.path, &self.name, name, lease, &self.options.clock)
    }

    /// Where the consumer `name` stood when it last saved, whoever holds it.
    pub fn consumer_position(&self, name: &str) -> Option<CursorRecord> {
        consumer::position(&self.path, &self.name, name)
    }

    fn held(&self) -> Result<Held, StoreError> {
        let link = lock(&self.link).clone();
        match link.held() {
            Some(held) => Ok(held),
            None => self.find_again(),
        }
    }

    /// The store was opened or closed in this process.
    fn find_again(&self) -> Result<Held, StoreError> {
        loop {
            let link = Link::find(&self.path, &self.name, &self.options)?;
            *lock(&self.link) = link.clone();
            if let Some(held) = link.held() {
                return Ok(held);
            }
        }
    }
}

impl Link {
    fn find(path: &Path, name: &str, options: &ReaderOptions) -> Result<Self, StoreError> {
        let missing = |names| Err(StoreError::NoStream { path: path.to_owned(), stream: Some(name.to_owned()), names });
        if let Some(place) = registry::find(path) {
            let link = Arc::downgrade(&place);
            let store = Store(place);
            return match store.log().stream_list().into_iter().find(|stream| stream.name == name) {
                Some(stream) => Ok(Link::Shared { place: link, created: store.log().directory.created(), stream }),
                None => missing(names(&store)),
            };
        }
        let replica = Replica::open(path, &options.clock)?;
        match replica.stream(name) {
            Some(stream) => Ok(Link::Secondary { replica, stream }),
            None => missing(replica.names()),
        }
    }

    fn held(self) -> Option<Held> {
        match self {
            Link::Shared { place, stream, .. } => Some(Held::Shared { store: Store(place.upgrade()?), stream }),
            Link::Secondary { replica, stream } => Some(Held::Secondary { replica, stream }),
        }
    }
}

/// Where records are missing that nobody gave up.
pub(super) fn missing_from(chunk: &Chunk, from: Sequence, holes: &Holes) -> Option<Sequence> {
    let mut due = from;
    for record in &chunk.records {
        // After an unclean end numbers go on far behind.
        let apart = record.sequence.saturating_sub(due);
        if apart > 0 && apart < UNCLEAN_GAP && holes.at(due).is_none() {
            return Some(due);
        }
        due = record.sequence + 1;
    }
    None
}

/// Refuses what is no store of ours, without touching it.
pub(super) fn check_store(path: &Path) -> Result<(), StoreError> {
    let none = |reason: &str| Err(StoreError::NoStore { path: path.to_owned(), reason: reason.to_owned() });
    match std::fs::metadata(path) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => none("the directory does not exist"),
        Err(source) => Err(StoreError::Io { path: path.to_owned(), source }),
        Ok(meta) if !meta.is_dir() => none("it is not a directory"),
        Ok(_) => match directory::is_store(path) {
            Ok(true) => Ok(()),
            Ok(false) => none("nothing was recorded in it yet"),
            Err(StoreError::NotOurs { reason, .. }) => none(&reason),
            Err(error) => Err(error),
        },
    }
}
