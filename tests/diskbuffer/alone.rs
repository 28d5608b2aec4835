//! Tests that need the process for themselves: run with `--ignored --test-threads=1`, as `scripts/test` does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use gst::prelude::*;

use crate::common::*;

/// A number that the kernel tells of this process.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Resident memory of this process.
fn rss() -> u64 {
    status("VmRSS") * 1024
}

#[test]
#[ignore = "measures the memory of the whole process"]
fn a_gigabyte_of_backlog_costs_no_memory_and_leaves_the_disk() {
    const SIZE: usize = 20_000;
    const COUNT: u64 = 1_000_000_000 / SIZE as u64 + 1;
    let temp = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    sink.hold_after(0);
    let rig = Rig::with_sink(temp.path(), &[], sink.clone());
    rig.start_stream("s", &h264_caps());
    let mut levels = Vec::new();
    for i in 0..COUNT {
        rig.push(frame(i, 50, SIZE));
        if i % (COUNT / 10) == COUNT / 10 - 1 {
            levels.push((rig.element.property::<u64>("current-level-bytes"), rss()));
        }
    }
    println!("backlog, RSS: {levels:?}");
    let full = rig.stat("disk-bytes");
    println!("disk at 1 GB: {full}");
    assert!(full > 1_000_000_000);
    let (at_200_mb, at_1_gb) = (levels[1].1, levels[9].1);
    assert!(at_1_gb < at_200_mb + 32_000_000, "RSS grows with the backlog");
    // The sink of the tests keeps what it gets: let it go. The first buffer is in it already.
    let next = Arc::new(AtomicU64::new(1));
    let broken = Arc::new(AtomicBool::new(false));
    let (expected, out_of_order, arrived) = (next.clone(), broken.clone(), sink.arrived.clone());
    rig.sinkpad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &info.data
            && buffer.offset() != expected.fetch_add(1, Ordering::SeqCst)
        {
            out_of_order.store(true, Ordering::SeqCst);
        }
        arrived.0.lock().unwrap().buffers.clear();
        gst::PadProbeReturn::Ok
    });
    let start = std::time::Instant::now();
    sink.release();
    until("everything is delivered", || rig.stat("pending") == 0);
    println!("drained in {:.1} s, RSS {}", start.elapsed().as_secs_f64(), rss());
    until("the disk is given back", || rig.stat("disk-bytes") < 128_000_000);
    println!("disk after: {}", rig.stat("disk-bytes"));
    assert_eq!((rig.stat("delivered"), next.load(Ordering::SeqCst)), (COUNT, COUNT));
    assert!(!broken.load(Ordering::SeqCst), "out of order");
    rig.check_accounts();
}

#[test]
#[ignore = "counts the threads and the memory of the whole process"]
fn sixty_four_elements_on_one_store_stay_within_their_threads_and_memory() {
    const ELEMENTS: usize = 64;
    const SIZE: usize = 20_000;
    const GOP: u64 = 25;
    const BUDGET: u64 = 64 << 20;
    init();
    let temp = tempfile::tempdir().unwrap();
    let (threads, memory) = (status("Threads"), rss());
    let rigs: Vec<_> = (0..ELEMENTS)
        .map(|number| {
            let (name, budget) = (format!("camera {number}"), BUDGET.to_string());
            let rig = Rig::new(temp.path(), &[("stream-name", &name), ("process-memory-bytes", &budget)]);
            // What the sink of the tests keeps is not the element's: it takes notes only.
            let arrived = rig.sink.arrived.clone();
            rig.sinkpad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
                arrived.0.lock().unwrap().buffers.iter_mut().for_each(|seen| seen.data = Vec::new());
                gst::PadProbeReturn::Ok
            });
            rig.start_stream(&name, &h264_caps());
            rig
        })
        .collect();
    let push = |range: std::ops::Range<u64>| {
        for number in range {
            rigs.iter().for_each(|rig| rig.push(frame(number, GOP, SIZE)));
        }
    };
    let measure = |when: &str| {
        let held: u64 = rigs.iter().map(|rig| rig.stat("memory-bytes")).sum();
        let (threads, memory) = (status("Threads") - threads, rss().saturating_sub(memory));
        println!(
            "{when}: {threads} threads, RSS {memory} more, {held} in the tails, disk {}",
            rigs[0].stat("disk-bytes")
        );
        // A task for each, and the store's own.
        assert!(threads <= ELEMENTS as u64 + 12, "{threads} threads");
        assert!(held <= BUDGET, "{held} bytes in memory");
        assert!(memory <= 2 * BUDGET, "{memory} bytes of memory");
        rigs.iter().for_each(Rig::check_accounts);
    };
    push(0..50);
    rigs.iter().for_each(|rig| rig.sink.wait_buffers(50));
    measure("all flowing");
    rigs.iter().for_each(|rig| rig.sink.hold_after(0));
    push(50..250);
    measure("all held");
    for rig in &rigs {
        rig.sink.release();
        rig.eos();
    }
    rigs.iter().for_each(|rig| rig.sink.wait_eos());
    measure("all drained");
    for rig in &rigs {
        let numbers: Vec<_> = rig.sink.buffers().iter().map(number).collect();
        assert!(numbers.iter().copied().eq(0..250), "{numbers:?}");
        until("all is counted", || rig.stat("pending") == 0);
        assert_eq!((rig.stat("delivered"), rig.stat("lost"), rig.stat("dropped")), (250, 0, 0));
    }
    rigs.iter().for_each(Rig::stop);
    drop(rigs);
    until("the threads are gone", || status("Threads") <= threads + 4);
}
