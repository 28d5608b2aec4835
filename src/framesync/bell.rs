//! A condition variable that costs nothing while nobody waits for it: waking is a system call, even of nobody.
//!
//! What is waited for changes under the mutex that is waited with, and is told after it has changed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Debug, Default)]
pub struct Bell {
    condvar: Condvar,
    /// Somebody waits, or has until lately.
    waited_for: AtomicBool,
}

impl Bell {
    pub fn ring(&self) {
        if self.waited_for.swap(false, Ordering::AcqRel) {
            self.condvar.notify_all();
        }
    }

    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.waited_for.store(true, Ordering::Release);
        self.condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers whether the time is over.
    pub fn wait_timeout<'a, T>(&self, guard: MutexGuard<'a, T>, time: Duration) -> (MutexGuard<'a, T>, bool) {
        self.waited_for.store(true, Ordering::Release);
        let (guard, wait) = self.condvar.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner);
        (guard, wait.timed_out())
    }
}
