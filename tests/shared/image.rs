//! A copy of a store that is in use, as a kill at that moment would leave it.
//!
//! Nobody is stopped for it. What the copy holds was there all at once: everything but the log that is being written did not
//! change while it was copied, or it is copied again; of that log it has a beginning, with all that was in it when the copying
//! began.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Space set aside, which a kill may find missing: not worth its copying.
const LEFT_OUT: [&str; 2] = ["ballast", "PROBE"];
/// Of a store that is written without pause.
const ATTEMPTS: usize = 5000;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    path: PathBuf,
    length: u64,
    modified: SystemTime,
}

fn list(dir: &Path, found: &mut Vec<Entry>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let meta = fs::metadata(&path)?;
        if meta.is_dir() {
            list(&path, found)?;
        } else if !LEFT_OUT.iter().any(|name| path.file_name().is_some_and(|own| own == *name)) {
            found.push(Entry { path, length: meta.len(), modified: meta.modified()? });
        }
    }
    found.sort();
    Ok(())
}

/// The files of a store without its newest log, and that log.
fn files(store: &Path) -> io::Result<(Vec<Entry>, Option<PathBuf>)> {
    let mut found = Vec::new();
    list(store, &mut found)?;
    let is_log = |entry: &&Entry| entry.path.extension().is_some_and(|kind| kind == "log");
    let newest = found.iter().filter(is_log).map(|entry| entry.path.clone()).max();
    found.retain(|entry| Some(&entry.path) != newest.as_ref());
    Ok((found, newest))
}

fn try_copy(store: &Path, to: &Path) -> io::Result<bool> {
    let before = files(store)?;
    for from in before.0.iter().map(|entry| &entry.path).chain(&before.1) {
        let to = to.join(from.strip_prefix(store).map_err(io::Error::other)?);
        fs::create_dir_all(to.parent().unwrap_or(&to))?;
        // Tables never change once they are written; one that is being written is in no manifest yet.
        if from.extension().is_some_and(|kind| kind == "sst") {
            fs::hard_link(from, to)?;
        } else {
            fs::copy(from, to)?;
        }
    }
    Ok(files(store)? == before)
}

/// Copies the store to `to`, which is not there yet.
pub fn copy(store: &Path, to: &Path) {
    for attempt in 0..ATTEMPTS {
        match try_copy(store, to) {
            Ok(true) => return,
            // A file went meanwhile.
            Ok(false) | Err(_) => {
                let _ = fs::remove_dir_all(to);
                std::thread::sleep(std::time::Duration::from_millis(attempt.min(5) as u64));
            }
        }
    }
    panic!("the store does not hold still for a copy");
}
