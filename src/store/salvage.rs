//! Opening stores that are damaged.

use std::path::PathBuf;

use rocksdb::{DB, Options};

use super::directory::Directory;
use super::error::StoreError;
use super::log::StoreOptions;
use super::record::Sequence;

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

/// A database and what it took to open it.
pub struct Opened {
    pub db: DB,
    pub incidents: Vec<Incident>,
}

pub fn open_database(
    directory: &Directory,
    _options: &StoreOptions,
    database: impl Fn() -> Options,
) -> Result<Opened, StoreError> {
    let db = DB::open(&database(), directory.database()).map_err(|err| StoreError::database(directory.path(), err))?;
    Ok(Opened { db, incidents: Vec::new() })
}
