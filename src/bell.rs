//! A condition variable that costs nothing while nobody waits for it: waking is a system call, even of nobody.
//!
//! What is waited for changes under the mutex that is waited with, and is told after it has changed: whoever looked before
//! the change is counted by then.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub struct Bell {
    condvar: Condvar,
    /// Who waits; raised under the mutex.
    waiting: AtomicU32,
}

impl Bell {
    pub fn ring(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.condvar.notify_all();
        }
    }

    #[cfg(test)]
    pub fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let guard = self.condvar.wait(guard).unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        guard
    }

    /// Answers whether the time is over.
    pub fn wait_timeout<'a, T>(&self, guard: MutexGuard<'a, T>, time: Duration) -> (MutexGuard<'a, T>, bool) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let (guard, wait) = self.condvar.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        (guard, wait.timed_out())
    }

    /// Waits as long as `waits` says, but no longer than `time`.
    pub fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        time: Duration,
        mut waits: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        let start = Instant::now();
        while waits(&mut guard) {
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() {
                break;
            }
            guard = self.wait_timeout(guard, left).0;
        }
        guard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn every_step_is_heard_by_all_who_wait() {
        let (bell, count) = (Bell::default(), Mutex::new(0));
        std::thread::scope(|scope| {
            for me in 0..4 {
                let (bell, count) = (&bell, &count);
                scope.spawn(move || {
                    for step in 0..500 {
                        // Each takes its turn, and all others wait for it.
                        let mut guard = count.lock().unwrap();
                        while *guard != step * 4 + me {
                            guard = bell.wait(guard);
                        }
                        *guard += 1;
                        drop(guard);
                        bell.ring();
                    }
                });
            }
        });
        assert_eq!(*count.lock().unwrap(), 2000);
        assert_eq!(bell.waiting.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_wait_ends_with_its_time() {
        let (bell, count) = (Bell::default(), Mutex::new(0));
        let (guard, over) = bell.wait_timeout(count.lock().unwrap(), Duration::from_millis(1));
        assert!(over);
        let guard = bell.wait_timeout_while(guard, Duration::from_millis(1), |count| *count == 0);
        assert_eq!(*bell.wait_timeout_while(guard, Duration::MAX, |_| false), 0);
    }
}
