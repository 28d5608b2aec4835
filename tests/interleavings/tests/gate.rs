//! Writers and switches in thousands of schedules: nobody is inside while extents are switched, extents only grow, and everybody
//! gets through.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use interleavings::gate::{Gate, Switch};
use shuttle::thread;

const SCHEDULES: usize = 20_000;

struct Extents {
    gate: Gate,
    inside: AtomicU32,
    latest: AtomicU32,
}

impl Extents {
    /// Another thread may run while the switch goes on; nobody may be inside.
    fn switch(&self, switch: Switch<'_>, succeeds: bool) {
        let next = switch.extent + 1;
        assert_eq!(switch.extent, self.latest.load(SeqCst));
        for _ in 0..2 {
            assert_eq!(self.inside.load(SeqCst), 0, "a writer is inside during a switch");
            thread::yield_now();
        }
        if succeeds {
            self.latest.store(next, SeqCst);
            switch.done(next);
        }
    }

    fn write(&self, switches_succeed: bool) {
        // An extent is full after two.
        match self.gate.enter(10, 20) {
            Ok(ticket) => {
                self.inside.fetch_add(1, SeqCst);
                thread::yield_now();
                assert_eq!(ticket.extent, self.latest.load(SeqCst), "an extent ends under a writer");
                self.inside.fetch_sub(1, SeqCst);
            }
            Err(switch) => self.switch(switch, switches_succeed),
        }
    }
}

/// Two writers, of which one meets a disk that refuses each switch, and one who switches without writing.
fn program() {
    let extents = Arc::new(Extents { gate: Gate::new(1), inside: AtomicU32::new(0), latest: AtomicU32::new(1) });
    let writers = [true, false].map(|succeeds| {
        let extents = extents.clone();
        thread::spawn(move || (0..4).for_each(|_| extents.write(succeeds)))
    });
    let switcher = thread::spawn({
        let extents = extents.clone();
        move || (0..2).for_each(|_| extents.switch(extents.gate.switch(), true))
    });
    for thread in writers.into_iter().chain([switcher]) {
        thread.join().unwrap();
    }
    assert_eq!(extents.inside.load(SeqCst), 0);
}

#[test]
fn nobody_is_inside_during_a_switch_whatever_the_schedule() {
    shuttle::check_random(program, SCHEDULES);
}

#[test]
fn nor_with_few_and_far_changes_of_threads() {
    shuttle::check_pct(program, SCHEDULES, 3);
}
