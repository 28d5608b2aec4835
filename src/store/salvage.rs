//! Opening stores that are damaged.
//!
//! Promises, with [`RecoveryMode::Salvage`]: whatever is wrong with the files, the store opens, with all that is readable
//! in it, or says clearly what stands in the way; what is missing is reported; what was not used is kept in `aside`.
//! Cheapest first:
//!
//! 1. As always: an end of the log that was cut off, or of which sectors were not written, is no damage. What RocksDB would
//!    read wrongly is mended before (`framing`).
//! 2. `CURRENT` is written anew when it does not name the manifest that is there.
//! 3. Damaged records of the log are stepped over; files that cannot be opened are read around (see `walk`).
//! 4. The database is repaired, on a copy: its files are read one by one, and those with damage in them are left out.
//! 5. All of it is set aside, and an empty one begins where the high-water file says that the streams stood.
//!
//! With [`RecoveryMode::Fail`] nothing is changed; with [`RecoveryMode::Reset`] the database is deleted instead of 2 to 5.

use std::fs;
use std::path::{Path, PathBuf};

use rocksdb::{DB, DBRecoveryMode, Options};

use super::aside;
use super::directory::{self, Directory};
use super::error::StoreError;
use super::framing::{self, Manifest};
use super::log::StoreOptions;
use super::record::Sequence;
use super::walk::is_damage;

/// What to do about a store that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecoveryMode {
    /// Set the bad part aside and go on with the rest.
    #[default]
    Salvage,
    /// An error; the store is left as it is.
    Fail,
    /// Delete it and start empty. A newer format is set aside all the same: it is not damaged.
    Reset,
}

/// What is gone, or was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// `None` when it concerns the store as a whole.
    pub stream: Option<String>,
    /// The stretch within which all that is missing lies.
    pub first: Sequence,
    pub last: Sequence,
    /// How much is missing, where the sums tell.
    pub buffers: Option<u64>,
    pub bytes: Option<u64>,
    pub reason: String,
    pub path: PathBuf,
}

impl Incident {
    /// Of the store as a whole.
    pub fn of_store(path: &Path, reason: String) -> Self {
        Self { stream: None, first: 0, last: 0, buffers: None, bytes: None, reason, path: path.to_owned() }
    }
}

/// A database and what it took to open it.
pub struct Opened {
    pub db: DB,
    pub incidents: Vec<Incident>,
    /// Something of it may be unreadable or missing: look at everything.
    pub doubtful: bool,
}

const CURRENT: &str = "CURRENT";
const REPAIRED: &str = "db.repaired";

pub fn open_database(
    directory: &Directory,
    options: &StoreOptions,
    database: impl Fn() -> Options,
) -> Result<Opened, StoreError> {
    let (location, path) = (directory.path(), directory.database());
    let failed = |source| StoreError::database(location, source);
    let opened = |db, doubtful, reason: Option<String>| {
        let incidents = reason.map(|reason| Incident::of_store(location, reason)).into_iter().collect();
        Ok(Opened { db, incidents, doubtful })
    };
    // RocksDB would begin anew, and remove the files that it does not know. A manifest alone is what it had just begun with.
    let begun = path.join(CURRENT).exists();
    let headless = !begun && names(&path).iter().any(|name| is_data(&path.join(name)));
    let mending = options.recovery == RecoveryMode::Salvage;
    let manifest = match newest_manifest(&path).filter(|_| begun || headless) {
        Some(name) => framing::check_manifest(&path.join(name), mending)
            .map_err(|source| StoreError::Io { path: path.clone(), source })?,
        None => Manifest::Sound,
    };
    let obstacles =
        || framing::has_obstacles(&path, mending).map_err(|source| StoreError::Io { path: path.clone(), source });
    let first = match headless {
        true => "the file CURRENT is missing".to_owned(),
        false if manifest != Manifest::Sound => "the manifest is damaged".to_owned(),
        false if obstacles()? => "a log or manifest has damaged frames".to_owned(),
        false => match DB::open(&database(), &path) {
            Ok(db) => return opened(db, false, None),
            Err(err) if !is_damage(&err) => return Err(failed(err)),
            Err(err) => match open_torn(&path, database()) {
                Some(db) => return opened(db, false, None),
                None => err.to_string(),
            },
        },
    };
    match options.recovery {
        RecoveryMode::Fail => return Err(StoreError::Damaged { path: location.to_owned(), reason: first }),
        RecoveryMode::Reset => {
            return delete(directory, &first, database);
        }
        RecoveryMode::Salvage => {}
    }
    let lenient = || {
        let mut options = database();
        options.set_wal_recovery_mode(DBRecoveryMode::SkipAnyCorruptedRecord);
        options.set_paranoid_checks(false);
        options.create_if_missing(false);
        options
    };
    restore_current(&path);
    obstacles()?;
    // By a manifest of which only a part is readable RocksDB would delete files.
    if manifest != Manifest::Damaged {
        match DB::open(&lenient(), &path) {
            Ok(db) => return opened(db, true, Some(format!("damaged records are left out: {first}"))),
            Err(err) if !is_damage(&err) => return Err(failed(err)),
            Err(_) => {}
        }
    }
    let second = match repair(location, &path, &lenient) {
        Ok(place) => match DB::open(&lenient(), &path) {
            Ok(db) => {
                let reason = format!("the database was repaired: {first}; the old one is in {}", place.display());
                return opened(db, true, Some(reason));
            }
            Err(err) if !is_damage(&err) => return Err(failed(err)),
            Err(err) => err.to_string(),
        },
        Err(err) if err.is_no_space() => return Err(err),
        Err(err) => err.reason(),
    };
    let place = aside::set_aside(location, "unreadable", location, &[directory::DATABASE])?;
    directory::create(&path)?;
    let db = DB::open(&database(), &path).map_err(failed)?;
    let reason = format!("the database is unreadable and was set aside in {}: {first}; {second}", place.display());
    opened(db, true, Some(reason))
}

/// Opens a database whose log ends with what was being written when the power failed, and is sound apart from that.
fn open_torn(path: &Path, mut options: Options) -> Option<DB> {
    if !framing::is_torn(path).unwrap_or(false) {
        return None;
    }
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    DB::open(&options, path).ok()
}

/// Deletes the database and begins an empty one.
pub fn delete(directory: &Directory, reason: &str, database: impl Fn() -> Options) -> Result<Opened, StoreError> {
    let path = directory.database();
    fs::remove_dir_all(&path).map_err(|source| StoreError::Io { path: path.clone(), source })?;
    directory::create(&path)?;
    let db = DB::open(&database(), &path).map_err(|err| StoreError::database(directory.path(), err))?;
    let incidents = vec![Incident::of_store(directory.path(), format!("all of it was deleted: {reason}"))];
    Ok(Opened { db, incidents, doubtful: true })
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Whether a file holds records, or did.
fn is_data(path: &Path) -> bool {
    let kind = path.extension().and_then(|extension| extension.to_str());
    kind == Some("sst") || (kind == Some("log") && path.metadata().is_ok_and(|meta| meta.len() > 0))
}

fn is_content(name: &str) -> bool {
    name.ends_with(".sst") || name.ends_with(".log") || name.starts_with("MANIFEST-")
}

pub fn newest_manifest(path: &Path) -> Option<String> {
    let number = |name: &String| name.strip_prefix("MANIFEST-").and_then(|number| number.parse::<u64>().ok());
    names(path).into_iter().filter(|name| number(name).is_some()).max_by_key(number)
}

/// Has `CURRENT` name the newest manifest.
fn restore_current(path: &Path) {
    let Some(newest) = newest_manifest(path) else { return };
    let wanted = format!("{newest}\n");
    if fs::read(path.join(CURRENT)).is_ok_and(|found| found == wanted.as_bytes()) {
        return;
    }
    let new = path.join("CURRENT.new");
    // What comes of it shows at the open.
    let _ = fs::write(&new, wanted).and_then(|()| fs::rename(&new, path.join(CURRENT)));
}

/// Repairs a copy and puts it in the database's place; where the old one is.
fn repair(location: &Path, path: &Path, options: &impl Fn() -> Options) -> Result<PathBuf, StoreError> {
    let copy = location.join(REPAIRED);
    let io = |source| StoreError::Io { path: copy.clone(), source };
    if copy.exists() {
        fs::remove_dir_all(&copy).map_err(io)?;
    }
    directory::create(&copy)?;
    for name in names(path).iter().filter(|name| is_content(name)) {
        let (from, to) = (path.join(name), copy.join(name));
        // Tables are never written again; the log and the manifest are.
        let linked = name.ends_with(".sst") && fs::hard_link(&from, &to).is_ok();
        if !linked {
            fs::copy(&from, &to).map_err(io)?;
        }
    }
    let mut repairing = options();
    repairing.create_if_missing(true);
    DB::repair(&repairing, &copy).map_err(|err| StoreError::database(location, err))?;
    drop(DB::open(&options(), &copy).map_err(|err| StoreError::database(location, err))?);
    let place = aside::set_aside(location, "damaged", location, &[directory::DATABASE])?;
    fs::rename(&copy, path).map_err(io)?;
    directory::sync_directory(location).map_err(io)?;
    // What the repaired one has as well would take its space twice once it is trimmed.
    let kept = names(path);
    let old = place.join(directory::DATABASE);
    for name in names(&old).iter().filter(|name| name.ends_with(".sst") && kept.contains(name)) {
        let _ = fs::remove_file(old.join(name));
    }
    let _ = fs::rename(path.join("lost"), place.join("lost"));
    Ok(place)
}
