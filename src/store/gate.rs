//! The turnstile between writers and the switch of extents.
//!
//! Writers pass freely and at once, many at a time; a switch waits until the writers inside are out, and writers that come
//! meanwhile wait for the switch. So every key of an extent is in one memtable, and files never overlap. Only writers pass
//! here: readers, levels and state changes never wait for it.
//!
//! `tests/interleavings` takes it through schedules of threads, with locks that know them.

use std::sync::PoisonError;

use super::locks::{Condvar, Mutex, MutexGuard};

#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Default)]
struct State {
    extent: u32,
    /// Written to the extent so far.
    bytes: u64,
    /// Written in all.
    entered: u64,
    writers: u32,
    switching: bool,
}

/// A writer inside the gate.
pub struct Ticket<'a> {
    gate: &'a Gate,
    pub extent: u32,
}

/// The right to switch extents; nobody else is inside.
pub struct Switch<'a> {
    gate: &'a Gate,
    /// The extent that ends.
    pub extent: u32,
    next: Option<u32>,
}

impl Gate {
    pub fn new(extent: u32) -> Self {
        Self { state: Mutex::new(State { extent, ..State::default() }), moved: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.moved.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that have come in so far.
    pub fn entered(&self) -> u64 {
        self.lock().entered
    }

    #[cfg(test)]
    fn extent(&self) -> u32 {
        self.lock().extent
    }

    /// Waits until nobody is inside.
    pub fn switch(&self) -> Switch<'_> {
        let mut state = self.lock();
        while state.switching {
            state = self.wait(state);
        }
        state.switching = true;
        while state.writers > 0 {
            state = self.wait(state);
        }
        Switch { gate: self, extent: state.extent, next: None }
    }

    /// Lets a writer of `bytes` in. When the extent is full, the writer gets the switch instead and comes again after it.
    pub fn enter(&self, bytes: u64, full_at: u64) -> Result<Ticket<'_>, Switch<'_>> {
        let mut state = self.lock();
        while state.switching {
            state = self.wait(state);
        }
        if state.bytes >= full_at {
            state.switching = true;
            while state.writers > 0 {
                state = self.wait(state);
            }
            return Err(Switch { gate: self, extent: state.extent, next: None });
        }
        state.writers += 1;
        state.bytes += bytes;
        state.entered += bytes;
        Ok(Ticket { gate: self, extent: state.extent })
    }
}

impl Switch<'_> {
    /// The next extent is ready to be written to.
    pub fn done(mut self, next: u32) {
        self.next = Some(next);
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.writers -= 1;
        if state.writers == 0 && state.switching {
            self.gate.moved.notify_all();
        }
    }
}

impl Drop for Switch<'_> {
    /// Without [`Switch::done`] the old extent goes on for as much again; a disk error is no reason to switch at every
    /// record.
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.extent = self.next.unwrap_or(state.extent);
        state.bytes = 0;
        state.switching = false;
        drop(state);
        self.gate.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn every_writer_of_an_extent_is_out_before_the_next_begins() {
        let gate = Gate::new(1);
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        match gate.enter(10, 100) {
                            Ok(_ticket) => {
                                inside.fetch_add(1, Ordering::SeqCst);
                                std::thread::yield_now();
                                inside.fetch_sub(1, Ordering::SeqCst);
                            }
                            Err(switch) => {
                                assert_eq!(inside.load(Ordering::SeqCst), 0);
                                let next = switch.extent + 1;
                                switch.done(next);
                            }
                        }
                    }
                });
            }
        });
        assert!(gate.extent() > 400);
    }

    #[test]
    fn a_switch_that_fails_lets_writers_go_on() {
        let gate = Gate::new(1);
        drop(gate.enter(100, 100).ok());
        drop(gate.enter(1, 100).err());
        assert_eq!(gate.enter(1, 100).map(|t| t.extent).ok(), Some(1));
    }
}
