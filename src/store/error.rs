//! What can go wrong with a store, with the path and what to do about it in the sentence.

use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path}: cannot be created: {source}")]
    Create { path: PathBuf, source: std::io::Error },
    #[error("{path}: is not a directory; give a directory that the store may have for itself")]
    NotADirectory { path: PathBuf },
    #[error("{path}: is not empty and holds no store ({reason}); it is left untouched, give another directory")]
    NotOurs { path: PathBuf, reason: String },
    #[error(
        "{path}: the store has format {found}, this version knows up to {supported}; it is left untouched, update the plugin or give another directory"
    )]
    NewerFormat { path: PathBuf, found: u32, supported: u32 },
    #[error("{path}: the file FORMAT cannot be understood: {reason}; the store is left untouched")]
    Format { path: PathBuf, reason: String },
    #[error("{path}: is in use by another process, waited {:.1} s; end it, raise lock-timeout or give another directory", waited.as_secs_f64())]
    Locked { path: PathBuf, waited: Duration },
    #[error(
        "{path}: is open in this process with {option} {open}, {asked} was asked for; elements that share a store share this setting"
    )]
    Conflict { path: PathBuf, option: &'static str, open: String, asked: String },
    #[error("{path}: the stream \"{stream}\" is in use by another element; give each a stream-name of its own")]
    StreamInUse { path: PathBuf, stream: String },
    #[error("{path}: there is no store to be read: {reason}; give the location that a diskbuffer writes to")]
    NoStore { path: PathBuf, reason: String },
    #[error("{path}: {}", no_stream(stream.as_deref(), names))]
    NoStream { path: PathBuf, stream: Option<String>, names: Vec<String> },
    #[error(
        "{path}: the consumer \"{consumer}\" of the stream \"{stream}\" is in use; give each consumer a name of its own"
    )]
    ConsumerInUse { path: PathBuf, stream: String, consumer: String },
    #[error(
        "{path}: its {needed} files need more open files than this process may have ({limit}); raise the limit (ulimit -n)"
    )]
    TooManyFiles { path: PathBuf, needed: u64, limit: u64 },
    #[error("{path}: holds {0} streams already, no more are possible", super::schema::MAX_STREAMS)]
    TooManyStreams { path: PathBuf },
    #[error("{path}: no space left on the device; make room or lower the limits ({source})")]
    NoSpace { path: PathBuf, source: rocksdb::Error },
    #[error("{path}: the database reports: {source}")]
    Database { path: PathBuf, source: rocksdb::Error },
    #[error("{path}: nothing can be stored until there is room again: {reason}; make room or lower the limits")]
    Full { path: PathBuf, reason: String },
    #[error("{path}: nothing can be stored until the disk takes data again: {reason}")]
    Fault { path: PathBuf, reason: String },
    #[error("{path}: the directory was removed while the store is in use")]
    Gone { path: PathBuf },
    #[error("{path}: the database is being opened again after a fault")]
    Away { path: PathBuf },
    #[error("{path}: the store is damaged: {reason}")]
    Damaged { path: PathBuf, reason: String },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
}

impl StoreError {
    pub fn is_no_space(&self) -> bool {
        match self {
            StoreError::NoSpace { .. } | StoreError::Full { .. } => true,
            StoreError::Io { source, .. } | StoreError::Create { source, .. } => {
                source.kind() == std::io::ErrorKind::StorageFull
            }
            _ => false,
        }
    }

    pub(super) fn is_of_format(&self) -> bool {
        matches!(self, StoreError::NewerFormat { .. } | StoreError::Format { .. })
    }

    /// The sentence without the path.
    pub(super) fn reason(&self) -> String {
        match self {
            StoreError::NoSpace { source, .. } | StoreError::Database { source, .. } => source.to_string(),
            StoreError::Full { reason, .. } | StoreError::Fault { reason, .. } => reason.clone(),
            StoreError::Io { source, .. } | StoreError::Create { source, .. } => source.to_string(),
            StoreError::Damaged { reason, .. } => reason.clone(),
            StoreError::NewerFormat { found, .. } => format!("the store has format {found}, which is newer"),
            StoreError::Format { reason, .. } => format!("the file FORMAT cannot be understood: {reason}"),
            StoreError::Gone { .. } => "the directory was removed".to_owned(),
            other => other.to_string(),
        }
    }

    /// Sorts an error of the database: a full disk has a remedy of its own.
    pub(super) fn database(path: &std::path::Path, source: rocksdb::Error) -> Self {
        let path = path.to_owned();
        // The binding passes RocksDB's subcode on in the text only.
        if source.as_ref().contains("No space left") {
            StoreError::NoSpace { path, source }
        } else {
            StoreError::Database { path, source }
        }
    }
}

fn no_stream(stream: Option<&str>, names: &[String]) -> String {
    let list = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    match stream {
        Some(stream) if names.is_empty() => format!("holds no stream \"{stream}\", and no other one yet"),
        Some(stream) => format!("holds no stream \"{stream}\"; it holds {list}"),
        None if names.is_empty() => "holds no stream yet".to_owned(),
        None => format!("holds several streams: {list}; name one of them"),
    }
}
