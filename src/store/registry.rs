//! One open store per directory and process.
//!
//! Elements that name the same directory share the store; it closes with the last of them. Opening may take long (a log to
//! be replayed, another process to let go), so it holds nobody up who wants another directory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use once_cell::sync::{Lazy, OnceCell};

use super::error::StoreError;
use super::log::StoreOptions;
use super::retention::OpenStore;

/// Place of one directory: empty while the store is being opened, and again if that failed.
pub(super) type Place = OnceCell<OpenStore>;

static PLACES: Lazy<Mutex<HashMap<PathBuf, Weak<Place>>>> = Lazy::new(Default::default);

pub(super) fn open(location: &Path, options: &StoreOptions) -> Result<Arc<Place>, StoreError> {
    let path = resolve(location)?;
    let place = {
        let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|_, place| place.strong_count() > 0);
        match places.get(&path).and_then(Weak::upgrade) {
            Some(place) => place,
            None => {
                let place = Arc::new(Place::new());
                places.insert(path.clone(), Arc::downgrade(&place));
                place
            }
        }
    };
    let open = place.get_or_try_init(|| OpenStore::open(&path, options))?;
    open.log().check_options(options)?;
    // A consumer that saved while the store was being opened found nobody to tell.
    open.log().leases.changed();
    open.log().honour_leases();
    Ok(place)
}

/// The store in `path`, as [`resolve`] names it, if this process has it open now.
pub(super) fn find(path: &Path) -> Option<Arc<Place>> {
    let place = PLACES.lock().unwrap_or_else(PoisonError::into_inner).get(path)?.upgrade()?;
    place.get().is_some().then_some(place)
}

/// One name per directory, also while its last parts do not exist.
pub(super) fn resolve(location: &Path) -> Result<PathBuf, StoreError> {
    let failed = |source| StoreError::Io { path: location.to_owned(), source };
    let absolute = std::path::absolute(location).map_err(failed)?;
    let mut missing = Vec::new();
    let mut known = absolute.as_path();
    loop {
        match known.canonicalize() {
            Ok(mut path) => {
                path.extend(missing.iter().rev());
                return Ok(path);
            }
            Err(_) => match (known.parent(), known.file_name()) {
                (Some(parent), Some(name)) => {
                    missing.push(name);
                    known = parent;
                }
                _ => return Ok(absolute),
            },
        }
    }
}
