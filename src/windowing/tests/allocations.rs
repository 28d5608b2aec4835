//! Frames that open and close nothing take no memory. Counted for the thread of the test alone.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use super::*;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends allocates as well.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: the system's allocator does all of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations in the second half of 10 minutes of three streams, and the windows closed in it.
fn allocations(config: Config) -> (u64, u64) {
    let mut windows = Windows::new(&config).unwrap();
    let streams: Vec<_> = (0..3).map(|_| windows.add_stream()).collect();
    windows.set_live(true);
    let mut out = Vec::with_capacity(4096);
    let (mut before, mut closed) = (0, 0);
    let sources: Vec<_> = streams.iter().map(|&stream| video(stream, 0, 15_000, 25, 2)).collect();
    for at in 0..15_000 {
        if at == 7500 {
            before = COUNT.get();
            closed = 0;
        }
        for source in &sources {
            windows.push(source[at], &mut out);
        }
        for decision in out.drain(..) {
            closed += u64::from(matches!(decision, Decision::Closed(_)));
        }
    }
    (COUNT.get() - before, closed)
}

#[test]
fn only_what_is_told_of_closed_windows_takes_memory() {
    for strategy in [Strategy::Fixed, Strategy::Sliding, Strategy::Keyframe, Strategy::Adaptive, Strategy::Event] {
        let (allocated, closed) = allocations(Config { strategy, hop: secs(2), ..Config::default() });
        assert_eq!(closed > 0, strategy != Strategy::Event);
        // The places of cuts are remembered, up to a bound.
        assert!(allocated <= 2 * closed + 2, "{strategy:?}: {allocated} for {closed} windows");
    }
}
