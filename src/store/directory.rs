//! The directory of a store: made, claimed and told apart from anybody else's before the database touches anything.
//!
//! ```text
//! location/FORMAT    which format this is, written first and read first
//! location/LOCK      locked by the process that has the store open
//! location/HIGHWATER how far the streams had come
//! location/aside/    what could not be used
//! location/consumers/ where readers stand
//! location/ballast   space set aside for a disk that fills up
//! location/db/       RocksDB
//! ```
//!
//! A directory that holds anything else is refused and left as it is. Directories are made with mode 0700, for this is
//! footage of people, and every directory that is made is synced into its parent.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::aside::{self, ASIDE};
use super::error::StoreError;
use super::highwater::HIGH_WATER;
use super::salvage::{Incident, RecoveryMode};
use super::schema::FORMAT_VERSION;

const FORMAT: &str = "FORMAT";
const FORMAT_NEW: &str = "FORMAT.new";
const LOCK: &str = "LOCK";
pub const DATABASE: &str = "db";
/// Line with the checksum of those before.
const CHECK: &str = "check=";
const MAGIC: &str = "gst-streambuffer-store";

const LOCK_POLL: Duration = Duration::from_millis(50);

/// A directory that is ours, for as long as this lives.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Held for its lock; replaced when the directory had to be made again.
    lock: Mutex<File>,
    /// Of the file system it was found on.
    device: u64,
}

impl Directory {
    /// Makes or takes the directory; waits up to `lock_timeout` for another process to let go of it.
    ///
    /// A format that cannot be used is dealt with as `recovery` says; what was done is told.
    pub fn claim(
        path: &Path,
        lock_timeout: Duration,
        recovery: RecoveryMode,
    ) -> Result<(Self, Vec<Incident>), StoreError> {
        create(path)?;
        if let Err(error) = check(path)
            && (recovery == RecoveryMode::Fail || !error.is_of_format())
        {
            return Err(error);
        }
        let mut incidents = Vec::new();
        let lock = Self::take(path, lock_timeout, |error| {
            let reason = error.reason();
            match error {
                error if recovery == RecoveryMode::Fail => return Err(error),
                StoreError::NewerFormat { .. } => {
                    let names = [FORMAT, DATABASE, HIGH_WATER];
                    let place = aside::set_aside(path, "newer-format", path, &names)?;
                    let reason = format!("{reason}; it was set aside in {}", place.display());
                    incidents.push(Incident::of_store(path, reason));
                }
                // Whether it is a store shows when it is opened.
                StoreError::Format { .. } => incidents.push(Incident::of_store(path, reason)),
                error => return Err(error),
            }
            Ok(())
        })?;
        let device = lock.metadata().map_or(0, |meta| meta.dev());
        Ok((Self { path: path.to_owned(), lock: Mutex::new(lock), device }, incidents))
    }

    fn take(
        path: &Path,
        lock_timeout: Duration,
        mend: impl FnOnce(StoreError) -> Result<(), StoreError>,
    ) -> Result<File, StoreError> {
        let lock = lock(path, lock_timeout)?;
        // Who held the lock before may have written the file since it was looked for.
        let write = match check(path) {
            Ok(found) => found == Found::Empty,
            Err(error) => mend(error).map(|()| true)?,
        };
        if write {
            write_format(path).map_err(|source| StoreError::Create { path: path.to_owned(), source })?;
        }
        // RocksDB would make it readable for everybody.
        create(&path.join(DATABASE))?;
        Ok(lock)
    }

    /// Whether the directory was taken away, as a whole or in what matters.
    pub fn is_gone(&self) -> bool {
        let Ok(held) = super::log::lock(&self.lock).metadata() else { return false };
        let gone = |found: io::Result<fs::Metadata>| match found {
            Ok(found) => (found.dev(), found.ino()) != (held.dev(), held.ino()),
            Err(err) => err.kind() == io::ErrorKind::NotFound,
        };
        let missing = |found: io::Result<fs::Metadata>| found.is_err_and(|err| err.kind() == io::ErrorKind::NotFound);
        held.nlink() == 0 || gone(fs::metadata(self.path.join(LOCK))) || missing(fs::metadata(self.database()))
    }

    /// Makes and claims it anew, on the same file system: below a mount that went away somebody else's disk would fill.
    pub fn make_again(&self) -> Result<(), StoreError> {
        let failed = |source| StoreError::Create { path: self.path.clone(), source };
        let known = self.path.ancestors().find_map(|path| fs::metadata(path).ok());
        if known.is_some_and(|meta| meta.dev() != self.device) {
            return Err(failed(io::Error::other("the file system that it was on is not mounted")));
        }
        create(&self.path)?;
        check(&self.path)?;
        let lock = Self::take(&self.path, Duration::ZERO, Err)?;
        *super::log::lock(&self.lock) = lock;
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Bytes that the store occupies on the disk, counted in blocks.
    pub fn disk_bytes(&self) -> u64 {
        bytes_below(&self.path)
    }
}

/// Bytes that a directory and what is below it occupy, counted in blocks.
pub fn bytes_below(dir: &Path) -> u64 {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, meta)| meta.blocks() * 512 + if meta.is_dir() { bytes_below(&path) } else { 0 })
        .sum()
}

#[derive(PartialEq, Eq)]
enum Found {
    Store,
    Empty,
}

pub fn create(path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Create { path: path.to_owned(), source };
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => return Ok(()),
        Ok(_) => return Err(StoreError::NotADirectory { path: path.to_owned() }),
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        Err(err) => return Err(failed(err)),
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create(parent)?;
    match DirBuilder::new().mode(0o700).create(path) {
        // Somebody else was faster: as good.
        Err(err) if err.kind() != io::ErrorKind::AlreadyExists => return Err(failed(err)),
        _ => {}
    }
    sync_directory(parent).map_err(failed)
}

/// Whether there is a store, or nothing yet; refuses what is not ours. Changes nothing.
pub fn is_store(path: &Path) -> Result<bool, StoreError> {
    Ok(check(path)? == Found::Store && path.join(DATABASE).join("CURRENT").exists())
}

/// Reads `FORMAT` and refuses what is not ours. Changes nothing.
fn check(path: &Path) -> Result<Found, StoreError> {
    let format = path.join(FORMAT);
    let text = match fs::read(&format) {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(err) if err.kind() == io::ErrorKind::NotFound => return check_empty(path),
        Err(source) => return Err(StoreError::Io { path: format, source }),
    };
    let mut lines = text.lines();
    let bad = |reason: &str| StoreError::Format { path: path.to_owned(), reason: reason.to_owned() };
    if lines.next() != Some(MAGIC) {
        return Err(bad("it was not written by this plugin"));
    }
    // Without it, damage could pass for a newer format.
    if let Some((content, sum)) = text.split_once(CHECK)
        && u32::from_str_radix(sum.trim(), 16).ok() != Some(crc32c::crc32c(content.as_bytes()))
    {
        return Err(bad("its checksum does not match"));
    }
    let version = lines.find_map(|line| line.strip_prefix("version=")).ok_or_else(|| bad("it names no version"))?;
    let found: u32 = version.trim().parse().map_err(|_| bad("its version is not a number"))?;
    match found {
        0 => Err(bad("its version is 0")),
        found if found > FORMAT_VERSION => {
            Err(StoreError::NewerFormat { path: path.to_owned(), found, supported: FORMAT_VERSION })
        }
        _ => Ok(Found::Store),
    }
}

fn check_empty(path: &Path) -> Result<Found, StoreError> {
    if path.join(HIGH_WATER).exists() && path.join(DATABASE).is_dir() {
        return Err(StoreError::Format { path: path.to_owned(), reason: "it is missing".to_owned() });
    }
    let entries = fs::read_dir(path).map_err(|source| StoreError::Io { path: path.to_owned(), source })?;
    for entry in entries {
        let entry = entry.map_err(|source| StoreError::Io { path: path.to_owned(), source })?;
        let name = entry.file_name();
        // What an interrupted creation leaves, and what a file system of its own starts with.
        if [FORMAT_NEW, LOCK, ASIDE, "lost+found"].iter().any(|known| name == *known) {
            if name == LOCK && path.join("CURRENT").exists() {
                return Err(not_ours(path, "it is another program's RocksDB database"));
            }
            continue;
        }
        let reason = match name.to_str() {
            Some("CURRENT" | "IDENTITY") => "it is another program's RocksDB database".to_owned(),
            _ => format!("it contains \"{}\" and no file {FORMAT}", name.to_string_lossy()),
        };
        return Err(not_ours(path, &reason));
    }
    Ok(Found::Empty)
}

fn not_ours(path: &Path, reason: &str) -> StoreError {
    let reason = if path.join("CURRENT").exists() { "it is another program's RocksDB database" } else { reason };
    StoreError::NotOurs { path: path.to_owned(), reason: reason.to_owned() }
}

fn lock(path: &Path, timeout: Duration) -> Result<File, StoreError> {
    let name = path.join(LOCK);
    let failed = |source| StoreError::Io { path: name.clone(), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&name).map_err(failed)?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) if start.elapsed() >= timeout => {
                return Err(StoreError::Locked { path: path.to_owned(), waited: start.elapsed() });
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_POLL.min(timeout)),
        }
    }
}

/// Complete or not there: written aside, synced, renamed.
fn write_format(path: &Path) -> io::Result<()> {
    let new = path.join(FORMAT_NEW);
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    let content = format!("{MAGIC}\nversion={FORMAT_VERSION}\n");
    writeln!(file, "{content}{CHECK}{:08x}", crc32c::crc32c(content.as_bytes()))?;
    file.sync_all()?;
    fs::rename(&new, path.join(FORMAT))?;
    sync_directory(path)
}

pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn claim(path: &Path) -> Result<Directory, StoreError> {
        Directory::claim(path, Duration::ZERO, RecoveryMode::Fail).map(|claimed| claimed.0)
    }

    #[test]
    fn ancestors_are_created_private() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b/c");
        claim(&path).unwrap();
        for dir in [&path, &temp.path().join("a")] {
            assert_eq!(fs::metadata(dir).unwrap().permissions().mode() & 0o777, 0o700);
        }
        assert_eq!(fs::metadata(path.join(FORMAT)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_second_claim_is_refused_until_the_first_ends() {
        let temp = tempfile::tempdir().unwrap();
        let first = claim(temp.path()).unwrap();
        assert!(matches!(claim(temp.path()), Err(StoreError::Locked { .. })));
        drop(first);
        claim(temp.path()).unwrap();
    }

    #[test]
    fn a_foreign_directory_stays_as_it_is() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("holiday.jpg"), b"x").unwrap();
        assert!(matches!(claim(temp.path()), Err(StoreError::NotOurs { .. })));
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_interrupted_creation_is_taken_up_again() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join(FORMAT_NEW), b"gst-str").unwrap();
        fs::write(temp.path().join(LOCK), b"").unwrap();
        claim(temp.path()).unwrap();
    }

    #[test]
    fn a_newer_or_broken_format_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join(FORMAT);
        for (text, newer) in
            [("gst-streambuffer-store\nversion=2\n", true), ("", false), ("gst-streambuffer-store\nversion=x\n", false)]
        {
            fs::write(&file, text).unwrap();
            match claim(temp.path()) {
                Err(StoreError::NewerFormat { found: 2, .. }) if newer => {}
                Err(StoreError::Format { .. }) if !newer => {}
                other => panic!("{text:?}: {other:?}"),
            }
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
            assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "nothing is created");
        }
    }
}
