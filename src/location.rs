//! Where stores are when nobody says so.

use std::path::{Path, PathBuf};

/// The directory to use: the one given, else `streambuffer` below systemd's state directory.
pub fn resolve(given: Option<&Path>) -> Option<PathBuf> {
    given.map(Path::to_owned).or_else(|| {
        let dirs = std::env::var_os("STATE_DIRECTORY")?;
        let first = std::env::split_paths(&dirs).next().filter(|p| !p.as_os_str().is_empty())?;
        Some(first.join("streambuffer"))
    })
}
