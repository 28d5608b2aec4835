//! Tests that need the process for themselves: run with `--ignored --test-threads=1`, as `scripts/test` does.

use std::time::Duration;

use gst::prelude::*;

use crate::common::*;
use crate::faulty::*;
use crate::station::*;

const WARM: usize = 20;
const OUTAGES: usize = 100;
/// What may differ between two looks. A thing that is left behind by each outage is far more.
const TOLERANCE: usize = 4;

/// What this process has.
#[derive(Debug, Clone, Copy)]
struct Held {
    threads: usize,
    files: usize,
    /// Resident memory in bytes.
    memory: usize,
}

fn held() -> Held {
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    Held {
        threads: count("task"),
        files: count("fd"),
        memory: pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096,
    }
}

#[test]
#[ignore = "counts what the whole process has"]
fn a_hundred_outages_in_a_row_leave_nothing_behind() {
    let temp = tempfile::tempdir().unwrap();
    let station = Station::faulty("hundred", temp.path(), &[]).playing();
    station.start_stream(&h264_caps());
    let mut chance = 1u64;
    let mut next = 0;
    let mut early = None;
    let mut children = Vec::new();
    for round in 0..OUTAGES {
        station.faults.mood([Mood::Fails, Mood::FailsSilently, Mood::Answers(gst::FlowError::Eos)][round % 3]);
        station.faults.tell(|told| told.unreachable = round % 5 == 0);
        station.push(next..next + 20);
        station.message("diskbuffersink-error");
        chance = chance.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        std::thread::sleep(Duration::from_millis((chance >> 33) % 60));
        station.faults.tell(|told| told.unreachable = false);
        station.faults.mood(Mood::Takes);
        station.message("diskbuffersink-restarted");
        station.faults.wait_for(next..next + 20);
        assert_complete(&station.faults.numbers(), next..next + 20);
        // Or they would be what grows.
        station.faults.tell(|told| told.taken.clear());
        next += 20;
        let inside = station.bin.downcast_ref::<gst::Bin>().unwrap().iterate_recurse();
        children.extend(inside.into_iter().flatten().map(|element| element.downgrade()));
        if round == WARM {
            early = Some(held());
        }
    }
    let early = early.unwrap();
    println!("after {WARM} outages {early:?}, after {OUTAGES} {:?}", held());
    until("what old children had is free", || {
        let late = held();
        late.threads <= early.threads + TOLERANCE
            && late.files <= early.files + TOLERANCE
            && late.memory <= early.memory + (16 << 20)
    });
    let inside = station.bin.downcast_ref::<gst::Bin>().unwrap().iterate_recurse().into_iter().count();
    let alive = |child: &gst::glib::WeakRef<gst::Element>| child.upgrade();
    until("old children are gone", || {
        let alive: std::collections::BTreeSet<_> = children.iter().filter_map(alive).collect();
        alive.len() <= inside
    });
    station.eos();
    station.wait_eos();
}
