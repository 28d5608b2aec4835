//! What could not be used, kept for a person to look at: `location/aside/<seconds since 1970>-<reason>/`.
//!
//! Everything goes there by renaming within the file system. It counts as footage all the same: whoever bounds the age of
//! what is stored removes it by age from here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::clock::wall_clock;
use super::directory;
use super::error::StoreError;

pub const ASIDE: &str = "aside";

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
