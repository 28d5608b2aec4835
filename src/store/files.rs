//! The files of a database that another process writes: what tells that nothing was written, how many may be open, and where the
//! messages of a secondary instance go.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::error::StoreError;

/// File descriptors that are left to the rest of the process.
const SPARE_FILES: u64 = 512;
/// Of changes this close to each other the time of a directory may tell only one.
const TICK: Duration = Duration::from_millis(20);

/// Device and inode.
pub fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    fs::metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// What tells that nothing was written: the names in the directory, by its time, and the lengths of logs and manifests.
pub struct Marks {
    changed: SystemTime,
    files: Vec<(PathBuf, u64)>,
    /// The directory did not change just before.
    pub sure: bool,
}

impl Marks {
    pub fn read(database: &Path, identity: (u64, u64), before: Option<&Self>) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Io { path: database.to_owned(), source };
        let meta = fs::metadata(database).map_err(failed)?;
        if (meta.dev(), meta.ino()) != identity {
            // It was set aside or repaired.
            return Err(StoreError::Away { path: database.to_owned() });
        }
        let changed = meta.modified().map_err(failed)?;
        let names = match before.filter(|before| before.changed == changed) {
            Some(before) => before.files.iter().map(|file| file.0.clone()).collect(),
            None => {
                let names = names_in(database).filter(|name| name.ends_with(".log") || name.starts_with("MANIFEST-"));
                names.map(|name| database.join(name)).collect::<Vec<_>>()
            }
        };
        let length = |path: &PathBuf| fs::metadata(path).map_or(0, |meta| meta.len());
        let files = names
            .into_iter()
            .map(|path: PathBuf| {
                let length = length(&path);
                (path, length)
            })
            .collect();
        let sure = SystemTime::now().duration_since(changed).is_ok_and(|since| since >= TICK);
        Ok(Self { changed, files, sure })
    }

    pub fn same(&self, other: &Self) -> bool {
        self.changed == other.changed && self.files == other.files
    }
}

fn names_in(database: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(database).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

pub fn tables_in(database: &Path) -> u64 {
    names_in(database).filter(|name| name.ends_with(".sst")).count() as u64
}

/// Numbers of the log files.
pub fn logs_in(database: &Path) -> Vec<u64> {
    names_in(database).filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect()
}

/// Sees to it that this process may have `open` tables open.
pub fn allow_files(path: &Path, open: u64) -> Result<(), StoreError> {
    let needed = open + SPARE_FILES;
    // SAFETY: a structure of two integers for which zero is a value; the call fills it.
    let (known, mut limit) = unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        (libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0, limit)
    };
    #[allow(clippy::unnecessary_cast, reason = "32 bits on some machines")]
    let (soft, hard) = (limit.rlim_cur as u64, limit.rlim_max as u64);
    if !known || soft >= needed {
        return Ok(());
    }
    if hard < needed {
        return Err(StoreError::TooManyFiles { path: path.to_owned(), needed, limit: hard });
    }
    limit.rlim_cur = needed.saturating_mul(2).min(hard) as libc::rlim_t;
    // SAFETY: the structure that was filled above, with a soft limit within the hard one.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
        return Err(StoreError::TooManyFiles { path: path.to_owned(), needed, limit: soft });
    }
    Ok(())
}

/// Where RocksDB writes the messages of an instance. What killed processes left goes with the next one.
pub struct PrivateDirectory {
    pub path: PathBuf,
    /// Held for its lock: nobody removes the directory meanwhile.
    _lock: File,
}

const PREFIX: &str = "streambuffer-reader-";
const IN_USE: &str = "lock";

impl PrivateDirectory {
    pub fn create() -> Result<Self, StoreError> {
        Self::create_in(&std::env::temp_dir())
    }

    fn create_in(parent: &Path) -> Result<Self, StoreError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        names_in(parent).filter(|name| name.starts_with(PREFIX)).for_each(|name| remove_unused(&parent.join(name)));
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
            let failed = |source| StoreError::Create { path: path.clone(), source };
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    let lock = File::create(path.join(IN_USE)).map_err(failed)?;
                    lock.lock().map_err(failed)?;
                    return Ok(Self { path, _lock: lock });
                }
                // Of a process in another container.
                Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(failed(source)),
            }
        }
    }
}

fn remove_unused(path: &Path) {
    let Ok(lock) = File::open(path.join(IN_USE)) else { return };
    if lock.try_lock().is_ok() {
        let _ = fs::remove_dir_all(path);
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_files_than_a_process_may_have_are_refused() {
        allow_files(Path::new("here"), 1).unwrap();
        let refused = allow_files(Path::new("here"), u64::MAX - SPARE_FILES);
        assert!(matches!(refused, Err(StoreError::TooManyFiles { .. })));
    }

    #[test]
    fn what_killed_processes_left_goes_with_the_next() {
        let temp = tempfile::tempdir().unwrap();
        let first = PrivateDirectory::create_in(temp.path()).unwrap();
        let left = temp.path().join(format!("{PREFIX}0-0"));
        fs::create_dir(&left).unwrap();
        fs::write(left.join(IN_USE), b"").unwrap();
        let second = PrivateDirectory::create_in(temp.path()).unwrap();
        assert!(first.path.exists() && second.path.exists() && !left.exists());
        drop((first, second));
        assert_eq!(names_in(temp.path()).count(), 0);
    }

    #[test]
    fn what_is_written_shows_in_the_marks() {
        let temp = tempfile::tempdir().unwrap();
        let identity = identity(temp.path()).unwrap();
        let read = |before| Marks::read(temp.path(), identity, before).unwrap();
        fs::write(temp.path().join("000004.log"), b"one").unwrap();
        let first = read(None);
        assert!(first.same(&read(Some(&first))));
        fs::write(temp.path().join("000004.log"), b"longer").unwrap();
        let second = read(Some(&first));
        assert!(!second.same(&first));
        std::thread::sleep(TICK);
        fs::write(temp.path().join("000005.sst"), b"").unwrap();
        assert!(!read(Some(&second)).same(&second));
        assert!(matches!(Marks::read(temp.path(), (0, 0), None), Err(StoreError::Away { .. })));
    }
}
