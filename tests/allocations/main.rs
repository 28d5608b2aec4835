//! `framesync` allocates nothing in the steady state. A process of its own, as the allocator counts for all threads.

#[path = "../../benches/shared/allocations.rs"]
mod allocations;
#[path = "../../benches/shared/flow.rs"]
#[allow(dead_code)]
mod flow;

use flow::{Flow, Through};

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

#[test]
fn in_the_steady_state_framesync_allocates_nothing() {
    gst::init().unwrap();
    gststreambuffer::plugin_register_static().unwrap();
    for (mode, streams) in [("normalize", 1), ("normalize", 4), ("align", 4), ("align", 16)] {
        let mut flow = Flow::new(Through::FrameSync(mode), streams);
        flow.push(1000);
        let before = allocations::count();
        flow.push(1000);
        // A message that is told now and then, and what the test's own harness prints.
        let most = 10 * streams as u64;
        let made = allocations::count() - before;
        println!("{mode}, {streams} streams: {made} allocations for 1000 frames of each");
        assert!(made <= most, "{mode}, {streams} streams: {made} allocations for 1000 frames of each");
    }
}
