//! What could not be used, kept for a person to look at: `location/aside/<seconds since 1970>-<reason>/`.
//!
//! Everything goes there by renaming within the file system. It counts as footage all the same: whoever bounds the age of
//! what is stored removes it by age from here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::clock::wall_clock;
use super::directory;
use super::error::StoreError;

pub const ASIDE: &str = "aside";

/// Something that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    pub path: PathBuf,
    /// When, as the machine believed.
    pub at: SystemTime,
    pub bytes: u64,
}

/// Moves `names` of the directory `from` into a new place below `location`; where they are now.
pub fn set_aside(location: &Path, reason: &str, from: &Path, names: &[&str]) -> Result<PathBuf, StoreError> {
    let failed = |source| StoreError::Io { path: location.to_owned(), source };
    let seconds = wall_clock() / 1_000_000_000;
    let parent = location.join(ASIDE);
    let mut place = parent.join(format!("{seconds}-{reason}"));
    for number in 2.. {
        if !place.exists() {
            break;
        }
        place = parent.join(format!("{seconds}-{reason}-{number}"));
    }
    directory::create(&place)?;
    for name in names {
        match fs::rename(from.join(name), place.join(name)) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(failed(err)),
            _ => {}
        }
    }
    directory::sync_directory(&place).and_then(|()| directory::sync_directory(from)).map_err(failed)?;
    Ok(place)
}

/// All that was set aside, the oldest first.
pub fn list(location: &Path) -> Vec<SetAside> {
    let entries = fs::read_dir(location.join(ASIDE)).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.path();
            let named = entry.file_name().to_str().and_then(|name| name.split('-').next()?.parse().ok());
            // Something that a person put there.
            let at = match named {
                Some(seconds) => UNIX_EPOCH + Duration::from_secs(seconds),
                None => entry.metadata().and_then(|meta| meta.modified()).ok()?,
            };
            let bytes = directory::bytes_below(&path);
            Some(SetAside { path, at, bytes })
        })
        .collect();
    found.sort_by_key(|entry| entry.at);
    found
}

/// Removes what was set aside longer ago than `age`; how many bytes that were.
pub fn remove_older_than(location: &Path, age: Duration) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in list(location) {
        if entry.at.elapsed().is_ok_and(|elapsed| elapsed > age) {
            if entry.path.is_dir() { fs::remove_dir_all(&entry.path) } else { fs::remove_file(&entry.path) }?;
            bytes += entry.bytes;
        }
    }
    Ok(bytes)
}
