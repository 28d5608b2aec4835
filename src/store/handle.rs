//! The database behind the log, which can be closed and opened again in place.
//!
//! Promises: whoever uses the database holds a guard on it, and it is closed only when all of them have let go; while it is
//! away, and from the moment on that it is about to go, asking for it fails at once. Its users come and go in parallel.
//!
//! Never: a guard taken while the same thread holds another one, for a closing database waits between the two.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use rocksdb::DB;

/// A place for a database.
pub struct Handle {
    db: RwLock<Option<DB>>,
    /// Spares who comes now the wait for those who are inside.
    away: AtomicBool,
}

/// The database, for as long as this lives.
pub struct Guard<'a>(RwLockReadGuard<'a, Option<DB>>);

impl Deref for Guard<'_> {
    type Target = DB;

    fn deref(&self) -> &DB {
        match &*self.0 {
            Some(db) => db,
            None => unreachable!("a guard is given out only while the database is open"),
        }
    }
}

impl Handle {
    pub fn new(db: DB) -> Self {
        Self { db: RwLock::new(Some(db)), away: AtomicBool::new(false) }
    }

    /// The database, unless it is away.
    pub fn get(&self) -> Option<Guard<'_>> {
        if self.away.load(Ordering::Acquire) {
            return None;
        }
        let guard = self.db.read().unwrap_or_else(PoisonError::into_inner);
        guard.is_some().then_some(Guard(guard))
    }

    /// Takes the database away once its users are out; `None` when it is away already. What it returns closes by being
    /// dropped.
    pub fn take(&self) -> Option<DB> {
        self.away.store(true, Ordering::Release);
        self.db.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub fn put(&self, db: DB) {
        *self.db.write().unwrap_or_else(PoisonError::into_inner) = Some(db);
        self.away.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn a_database_is_taken_away_when_its_users_are_out_and_comes_back() {
        let temp = tempfile::tempdir().unwrap();
        let handle = Handle::new(DB::open_default(temp.path()).unwrap());
        let (inside, taken) = (Barrier::new(2), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let user = scope.spawn(|| {
                let db = handle.get().unwrap();
                inside.wait();
                while !handle.away.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                assert!(!taken.load(Ordering::SeqCst));
                db.put(b"a", b"1").unwrap();
            });
            inside.wait();
            drop(handle.take().unwrap());
            taken.store(true, Ordering::SeqCst);
            user.join().unwrap();
        });
        assert!(handle.get().is_none() && handle.take().is_none());
        handle.put(DB::open_default(temp.path()).unwrap());
        assert_eq!(handle.get().unwrap().get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    }
}
