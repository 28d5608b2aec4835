//! Buffers that come when their window is over.

use gst::prelude::*;

use super::played::{Item, check_order, field};
use super::rig::{H264, MS, RAW_25, Rig, buffer};

#[test]
fn late_buffers_are_counted_marked_or_dropped_as_set() {
    for (policy, ids, late, arrives) in
        [("count", vec![], false, true), ("mark", vec![0u64], true, true), ("drop", vec![], false, false)]
    {
        let rig = Rig::new(&format!("duration=1000000000 late-policy={policy}")).play();
        let port = rig.main();
        port.begin(RAW_25);
        port.push_span(0, 1200);
        assert_eq!(rig.closed_ids(), [0]);
        port.push(960);
        port.push_span(1200, 2040);
        let at_960: Vec<_> = port.seen().into_iter().filter(|seen| seen.pts == 960 * MS).collect();
        assert_eq!(at_960.len(), 1 + usize::from(arrives), "{policy}");
        if arrives {
            assert_eq!((at_960[1].ids.clone().unwrap_or_default(), at_960[1].late), (ids, late), "{policy}");
        }
        let closed = rig.closed();
        assert_eq!((closed.len(), field(&closed[0], "window-id")), (1, 1));
        assert_eq!((field(&closed[0], "frames"), field(&closed[0], "late")), (25, 1), "{policy}");
        assert_eq!(rig.stat("late"), 1);
        assert_eq!(rig.stat("dropped"), u64::from(!arrives));
    }
}

#[test]
fn within_the_allowed_lateness_nothing_is_late() {
    let rig = Rig::new("duration=1000000000 allowed-lateness=500000000").play();
    let port = rig.main();
    port.begin(RAW_25);
    port.push_span(0, 960);
    port.push_span(1000, 1480);
    assert!(rig.closed().is_empty());
    port.push(960);
    port.push_span(1480, 1600);
    let closed = rig.closed();
    assert_eq!(closed.len(), 1);
    assert_eq!((field(&closed[0], "frames"), field(&closed[0], "late")), (25, 0));
    assert_eq!(rig.stat("late"), 0);
    port.eos();
    check_order(&port.items());
}

#[test]
fn closed_windows_never_change_whatever_comes() {
    let rig = Rig::new("duration=200000000").play();
    let port = rig.main();
    port.begin(RAW_25);
    // A replay of the last second, again and again, out of order within it.
    let mut closed = Vec::new();
    for round in 0..20u64 {
        let base = round * 400;
        for step in [0u64, 120, 40, 80, 200, 160, 360, 240, 320, 280] {
            port.push((base + step).saturating_sub(if step % 3 == 0 { 600 } else { 0 }));
            closed.extend(rig.closed_ids());
        }
    }
    port.eos();
    closed.extend(rig.closed_ids());
    let mut once = closed.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(closed, once, "a window was closed twice, or out of order");
    check_order(&port.items());
    let all = port.seen().len() as u64;
    let in_time: u64 =
        port.items().iter().map(|item| if let Item::End(s) = item { field(s, "frames") } else { 0 }).sum();
    assert_eq!(in_time + rig.stat("late"), all);
}

#[test]
fn b_frames_without_dts_are_not_late() {
    let rig = Rig::new("duration=400000000").play();
    let port = rig.main();
    port.begin(H264);
    // I P B B in decode order, presented I B B P.
    for gop in 0..50u64 {
        for (step, key) in [(0u64, true), (3, false), (1, false), (2, false)] {
            let mut buffer = buffer((gop * 4 + step) * 40, None, 40);
            if !key {
                buffer.make_mut().set_flags(gst::BufferFlags::DELTA_UNIT);
            }
            port.peer.push(buffer).unwrap();
        }
    }
    port.eos();
    for (pts, ids) in port.windows() {
        assert_eq!(ids, [pts / 400]);
    }
    assert_eq!(rig.stat("late"), 0);
    check_order(&port.items());
}
