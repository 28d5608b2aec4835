//! The leases of consumers, as the one who trims honours them.
//!
//! Log start never passes the resume point of a consumer whose lease is valid, unless a limit says so: `max-age`, the bytes
//! that a stream may take in all, the free-space floor, an explicit purge. Retention is no limit: it keeps at least so much.
//!
//! The files are looked at when the store is opened, before anything is trimmed, and once more when it can be told; at once when a
//! consumer of this process saved; and about once a second while there are any.
//!
//! A lease runs out by elapsed time: within a boot of the machine by its time since boot, which no step of the wall clock
//! changes; after another boot by the longer of the time since then and what the wall clocks say, where they can be believed.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::clock::{Clock, boot_digest, is_plausible};
use super::consumer::{CONSUMERS, LeaseRecord, read};
use super::log::{Log, lock};
use super::record::Sequence;

/// How often other processes' consumers are looked for.
const LOOK: Duration = Duration::from_secs(1);

/// What is known of the consumers of a store.
#[derive(Default)]
pub struct Leases {
    told: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    looked: Option<Instant>,
    files: HashMap<PathBuf, Lease>,
}

struct Lease {
    /// Tells one file from the one that took its place.
    identity: (u64, i64, i64),
    record: Option<LeaseRecord>,
}

impl Leases {
    /// One of this process was saved.
    pub fn changed(&self) {
        self.told.store(true, Ordering::Release);
    }

    /// After how long it has to be looked again; `None` while there are none.
    pub fn due(&self) -> Option<Duration> {
        let known = lock(&self.known);
        let waited = known.looked.map_or(LOOK, |at| at.elapsed());
        (!known.files.is_empty()).then(|| LOOK.saturating_sub(waited))
    }

    /// Tells `hold` the resume point of each consumer with a valid lease, by the stream's name, if it is time to look.
    fn look(&self, location: &Path, clock: &dyn Clock, hold: impl FnOnce(&[(&str, Sequence)])) {
        let mut known = lock(&self.known);
        // Under the lock: who told goes by a look that began later.
        let told = self.told.swap(false, Ordering::AcqRel);
        if !told && known.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return;
        }
        known.looked = Some(Instant::now());
        let mut before = std::mem::take(&mut known.files);
        for (path, meta) in files(&location.join(CONSUMERS)) {
            let identity = (meta.ino(), meta.mtime(), meta.mtime_nsec());
            let lease = match before.remove(&path).filter(|lease| lease.identity == identity) {
                Some(lease) => lease,
                None => Lease { identity, record: read(&path) },
            };
            known.files.insert(path, lease);
        }
        let boot = boot_digest(clock);
        let records = known.files.values().filter_map(|lease| lease.record.as_ref());
        let valid = records.filter(|record| elapsed(record, boot, clock) <= Duration::from_nanos(record.lease));
        let resumes: Vec<_> = valid.map(|record| (record.stream.as_str(), record.cursor.resume)).collect();
        // Before somebody else looks: what is newer holds.
        hold(&resumes);
    }
}

fn files(directory: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    let files = entries(directory).flat_map(|stream| entries(&stream.path()).collect::<Vec<_>>());
    // The others are locks, and what is being written.
    let own = files.map(|file| file.path()).filter(|path| path.extension().is_none());
    own.filter_map(|path| fs::metadata(&path).ok().map(|meta| (path, meta))).collect()
}

/// How long ago it was written, at least.
fn elapsed(record: &LeaseRecord, boot: u128, clock: &dyn Clock) -> Duration {
    let now = clock.boot();
    if boot != 0 && record.boot == boot && record.time <= now {
        return Duration::from_nanos(now - record.time);
    }
    let wall = clock.wall();
    let told = match is_plausible(wall) && is_plausible(record.wall) {
        true => u64::try_from(wall.saturating_sub(record.wall)).unwrap_or(0),
        false => 0,
    };
    Duration::from_nanos(now.max(told))
}

impl Log {
    /// Takes note of the leases, if it is time.
    pub fn honour_leases(&self) {
        self.leases.look(self.directory.path(), &*self.options.clock, |valid| {
            for stream in self.stream_list() {
                let resumes = valid.iter().filter(|lease| lease.0 == stream.name).map(|lease| lease.1);
                stream.hold(resumes.min());
            }
        });
    }
}
