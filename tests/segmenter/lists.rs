//! Buffer lists, in and out.

use gst::prelude::*;

use super::played::{Item, buffers, check_order, field};
use super::rig::{H264, RAW_25, Rig, buffer};

#[test]
fn windows_leave_as_one_list_each() {
    let rig = Rig::new("duration=1000000000 output=buffer-lists").play();
    let (one, two) = (rig.main(), rig.further());
    for port in [&one, &two] {
        port.begin(RAW_25);
        port.push_span(0, 960);
        assert!(port.seen().is_empty());
    }
    for port in [&one, &two] {
        port.push_span(960, 2440);
        port.eos();
        port.wait_eos();
        let seen = port.seen();
        assert_eq!(seen.len(), 61);
        for seen in &seen {
            assert_eq!(seen.push as u64, seen.ids.as_ref().unwrap()[0] + 1, "{seen:?}");
        }
        check_order(&port.items());
    }
}

#[test]
fn a_list_that_came_in_leaves_as_lists_cut_at_windows() {
    let rig = Rig::new("duration=1000000000").play();
    let port = rig.main();
    port.begin(RAW_25);
    let mut list = gst::BufferList::new();
    (0..1600u64).step_by(40).for_each(|pts| list.make_mut().add(buffer(pts, None, 40)));
    port.peer.push_list(list).unwrap();
    let pushes: Vec<_> = port.seen().iter().map(|seen| seen.push).collect();
    assert_eq!(pushes, [vec![1; 25], vec![2; 15]].concat());
    port.eos();
    check_order(&port.items());
}

#[test]
fn tags_wait_behind_a_window_and_caps_part_it() {
    let rig = Rig::new("duration=1000000000 output=buffer-lists").play();
    let port = rig.main();
    port.begin(RAW_25);
    port.push_span(0, 400);
    port.peer.push_event(gst::event::Tag::new(gst::TagList::new()));
    port.push_span(400, 1200);
    port.peer
        .push_event(gst::event::Caps::new(&"video/x-raw,format=RGB,width=4,height=4,framerate=25/1".parse().unwrap()));
    port.push_span(1200, 1400);
    port.eos();
    let kinds: Vec<_> = port
        .items()
        .iter()
        .map(|item| match item {
            Item::Buffer(seen) => format!("list {}", seen.push),
            Item::Start(_) => "start".into(),
            Item::End(_) => "end".into(),
            Item::Event(event) => event.type_().name().to_string(),
        })
        .collect();
    let mut kinds = kinds;
    kinds.dedup();
    let expected = [
        "stream-start",
        "caps",
        "segment",
        "start",
        "list 1",
        "end",
        "tag",
        "start",
        "list 2",
        "caps",
        "list 3",
        "end",
        "eos",
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn poor_windows_are_marked_or_leave_a_gap() {
    for drop in [false, true] {
        let policy = if drop { "quality-policy=drop output=buffer-lists" } else { "quality-policy=mark" };
        let rig = Rig::new(&format!("duration=1000000000 min-quality=0.9 {policy}")).play();
        let port = rig.main();
        port.begin(H264);
        port.push_span(0, 1000);
        // Half of the frames of the second are missing.
        (1000..2000u64).step_by(80).for_each(|pts| port.push(pts));
        port.push_span(2000, 3000);
        port.eos();
        let poor: Vec<_> = rig
            .closed()
            .iter()
            .filter(|s| s.get::<bool>("poor").unwrap_or(false))
            .map(|s| (field(s, "window-id"), field(s, "missing")))
            .collect();
        assert_eq!(poor, [(1, 12)]);
        let items = port.items();
        assert_eq!(buffers(&items).len(), if drop { 50 } else { 63 });
        let gaps =
            items.iter().filter(|item| matches!(item, Item::Event(e) if e.type_() == gst::EventType::Gap)).count();
        assert_eq!(gaps, usize::from(drop));
        let marked = items.iter().any(|item| matches!(item, Item::End(s) if s.get::<bool>("poor").is_ok()));
        assert_eq!(marked, !drop);
    }
}
