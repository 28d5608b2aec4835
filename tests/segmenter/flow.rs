//! Events, flushes, states, requests.

use std::time::{Duration, Instant};

use gst::prelude::*;

use super::played::{Item, check_order, field};
use super::rig::{H264, MS, RAW_25, Rig, buffer};

fn kinds(items: &[Item]) -> Vec<String> {
    let mut kinds: Vec<String> = items
        .iter()
        .map(|item| match item {
            Item::Buffer(_) => "buffer".to_string(),
            Item::Start(_) => "start".to_string(),
            Item::End(_) => "end".to_string(),
            Item::Event(event) => event.type_().name().to_string(),
        })
        .collect();
    kinds.dedup();
    kinds
}

#[test]
fn events_keep_their_places_among_buffers_and_windows() {
    let rig = Rig::new("duration=1000000000").play();
    let port = rig.main();
    port.begin(RAW_25);
    port.push_span(0, 400);
    port.peer
        .push_event(gst::event::Caps::new(&"video/x-raw,format=RGB,width=4,height=4,framerate=25/1".parse().unwrap()));
    port.push_span(400, 1200);
    port.peer.push_event(gst::event::CustomDownstream::new(gst::Structure::new_empty("something")));
    port.push_span(1200, 1400);
    port.eos();
    assert_eq!(
        kinds(&port.items()),
        [
            "stream-start",
            "caps",
            "segment",
            "start",
            "buffer",
            "caps",
            "buffer",
            "end",
            "start",
            "buffer",
            "custom-downstream",
            "buffer",
            "end",
            "eos"
        ]
    );
    check_order(&port.items());
}

#[test]
fn a_flush_closes_what_is_open_and_makes_nothing_after_it_late() {
    let rig = Rig::new("duration=1000000000").play();
    let port = rig.main();
    port.begin(RAW_25);
    port.push_span(0, 5200);
    assert_eq!(rig.closed_ids(), [0, 1, 2, 3, 4]);
    port.peer.push_event(gst::event::FlushStart::new());
    port.peer.push_event(gst::event::FlushStop::new(true));
    let closed = rig.closed();
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0].get::<&str>("reason").unwrap(), "flush");
    assert!(!closed[0].get::<bool>("complete").unwrap());
    port.peer.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    port.push_span(2000, 3000);
    port.eos();
    let closed = rig.closed();
    assert_eq!((field(&closed[0], "window-id"), field(&closed[0], "frames")), (2, 25));
    assert_eq!(rig.stat("late"), 0);
}

#[test]
fn time_that_goes_elsewhere_closes_what_is_open() {
    let rig = Rig::new("duration=1000000000").play();
    let port = rig.main();
    port.begin(RAW_25);
    port.push_span(0, 2520);
    assert_eq!(rig.closed_ids(), [0, 1]);
    // Played once more, later in running time.
    let mut again = gst::FormattedSegment::<gst::ClockTime>::new();
    again.set_base(gst::ClockTime::from_mseconds(2520));
    port.peer.push_event(gst::event::Segment::new(&again));
    let closed = rig.closed();
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0].get::<&str>("reason").unwrap(), "segment");
    port.push_span(0, 1200);
    assert_eq!(rig.closed_ids(), [0]);
    assert_eq!(rig.stat("late"), 0);
}

#[test]
fn a_blocked_sink_holds_up_neither_flushes_nor_states() {
    for further in [false, true] {
        for flush in [true, false] {
            let rig = Rig::new("duration=1000000000 max-size-buffers=4").play();
            let port = if further { rig.further() } else { rig.main() };
            port.begin(RAW_25);
            port.arrived.close();
            let peer = port.peer.clone();
            let pusher = std::thread::spawn(move || {
                loop {
                    if let Err(err) = peer.push(buffer(0, None, 40)) {
                        return err;
                    }
                }
            });
            port.arrived.wait_blocked();
            let begun = Instant::now();
            if flush {
                port.peer.push_event(gst::event::FlushStart::new());
            } else {
                if !further {
                    // As a sink that goes to READY first.
                    port.arrived.flush(true);
                }
                rig.element.set_state(gst::State::Ready).unwrap();
            }
            assert_eq!(pusher.join().unwrap(), gst::FlowError::Flushing, "{further} {flush}");
            assert!(begun.elapsed() < Duration::from_secs(5));
            if flush {
                port.arrived.open();
                port.peer.push_event(gst::event::FlushStop::new(true));
                port.peer.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
                let before = port.seen().len();
                port.push_span(0, 400);
                port.eos();
                port.wait_eos();
                assert_eq!(port.seen().len(), before + 10);
            }
        }
    }
}

#[test]
fn a_pad_is_released_while_its_sink_blocks() {
    let rig = Rig::new("duration=1000000000").play();
    let port = rig.further();
    port.begin(RAW_25);
    port.arrived.close();
    port.push(0);
    port.arrived.wait_blocked();
    rig.element.release_request_pad(&port.sink);
    assert!(port.peer.push(buffer(40, None, 40)).is_err());
}

#[test]
fn it_runs_again_after_ready_and_after_eos() {
    let rig = Rig::new("duration=1000000000");
    rig.element.set_state(gst::State::Playing).unwrap();
    let (one, two) = (rig.main(), rig.further());
    for _ in 0..3 {
        for port in [&one, &two] {
            port.begin(RAW_25);
            port.push_span(0, 1600);
            port.eos();
            port.wait_eos();
            let count = port.seen().len();
            assert_eq!(count, 40);
            port.arrived.record.lock().unwrap().items.clear();
        }
        assert_eq!(rig.closed_ids(), [0, 1]);
        rig.element.set_state(gst::State::Ready).unwrap();
        rig.element.set_state(gst::State::Playing).unwrap();
    }
}

#[test]
fn an_eos_that_a_later_start_follows_ends_nothing_for_good() {
    let rig = Rig::new("duration=1000000000").play();
    let port = rig.main();
    for _ in 0..2 {
        port.begin(RAW_25);
        port.push_span(0, 1600);
        port.eos();
        assert_eq!(rig.closed_ids(), [0, 1]);
    }
    assert_eq!(port.seen().len(), 80);
}

#[test]
fn keyframes_are_asked_for_at_starts_that_are_known_ahead_once_each() {
    let rig = Rig::new("duration=1000000000 send-keyframe-requests=true").play();
    let port = rig.main();
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_base(gst::ClockTime::from_mseconds(5000));
    port.begin_with(H264, &segment);
    for pts in (0..3000u64).step_by(40) {
        port.push_delta(pts, pts);
    }
    let asked: Vec<_> = port
        .upstream
        .lock()
        .unwrap()
        .iter()
        .filter_map(|event| gst_video::UpstreamForceKeyUnitEvent::parse(event).ok())
        .map(|request| (request.running_time.unwrap().mseconds(), request.all_headers))
        .collect();
    assert_eq!(asked, [(6000, true), (7000, true), (8000, true)]);
}

#[test]
fn windows_are_split_where_it_was_asked_for() {
    let rig = Rig::new("strategy=keyframe duration=0 min-duration=100000000000").play();
    let port = rig.main();
    port.begin(H264);
    let push = |pts: u64| {
        if pts.is_multiple_of(400) {
            port.peer.push(buffer(pts, Some(pts), 40)).map(|_| ()).unwrap()
        } else {
            port.push_delta(pts, pts)
        }
    };
    (0..600).step_by(40).for_each(push);
    rig.element.emit_by_name::<()>("split-now", &[]);
    (600..1000).step_by(40).for_each(push);
    rig.element.emit_by_name::<()>("split-after", &[]);
    (1000..1400).step_by(40).for_each(push);
    rig.element.emit_by_name::<()>("split-at-running-time", &[&(1500 * MS)]);
    (1400..2000).step_by(40).for_each(push);
    port.eos();
    let closed = rig.closed();
    let ends: Vec<_> = closed.iter().map(|s| (field(s, "start") / MS, s.get::<String>("reason").unwrap())).collect();
    let expected = [(0, "split"), (600, "split"), (1200, "split"), (1520, "eos")];
    assert_eq!(ends, expected.map(|(start, reason)| (start, reason.to_string())));
    assert!(rig.sentences().is_empty());
}

fn latency(rig: &Rig, pad: &gst::Pad) -> (bool, u64) {
    let mut query = gst::query::Latency::new();
    assert!(pad.peer_query(&mut query));
    let _ = rig;
    let (live, least, _) = query.result();
    (live, least.mseconds())
}

#[test]
fn latency_is_what_is_held() {
    for (properties, live, expected) in [
        ("duration=1000000000", true, (true, 0)),
        ("duration=1000000000 output=buffer-lists", true, (true, 1000)),
        ("duration=1000000000 output=buffer-lists allowed-lateness=200000000", true, (true, 1200)),
        ("strategy=event pre-roll=3000000000", true, (true, 3000)),
        ("duration=1000000000 output=buffer-lists", false, (false, 0)),
    ] {
        let rig = if live { Rig::live(properties) } else { Rig::new(properties) }.play();
        let port = rig.main();
        assert_eq!(latency(&rig, &port.out), expected, "{properties}");
    }
}

#[test]
fn a_buffer_is_marked_without_copying_what_others_hold() {
    let rig = Rig::new("duration=1000000000").play();
    let port = rig.main();
    port.begin(RAW_25);
    let mine = buffer(0, None, 40);
    let address = mine.map_readable().unwrap().as_ptr();
    let (sender, receiver) = std::sync::mpsc::channel();
    port.out.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &info.data {
            let _ = sender.send(buffer.clone());
        }
        gst::PadProbeReturn::Ok
    });
    port.peer.push(mine.clone()).unwrap();
    assert!(super::played::meta(&mine).is_none(), "what others hold was written to");
    let left = receiver.recv().unwrap();
    assert_eq!(super::played::meta(&left), Some((vec![0], false)));
    assert_eq!(left.map_readable().unwrap().as_ptr(), address);
}

#[test]
fn buffers_without_pts_stay_with_the_one_before_them() {
    let rig = Rig::new("duration=1000000000").play();
    let port = rig.main();
    port.begin(RAW_25);
    port.peer.push(gst::Buffer::from_slice([1u8; 3])).unwrap();
    port.push_span(960, 1040);
    port.peer.push(gst::Buffer::from_slice([1u8; 3])).unwrap();
    let ids: Vec<_> = port.windows().into_iter().map(|(_, ids)| ids).collect();
    assert_eq!(ids, [vec![], vec![0], vec![1], vec![1]]);
}

#[test]
fn muxers_that_know_nothing_of_windows_take_the_events_without_harm() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    let muxed = [
        format!("matroskamux ! filesink location={}", file("out.mkv")),
        format!("mp4mux ! filesink location={}", file("out.mp4")),
        format!("splitmuxsink muxer-factory=matroskamux max-size-time=2000000000 location={}", file("part%02d.mkv")),
    ];
    for sink in &muxed {
        let source = super::played::generated(120);
        let played = super::played::play(&format!("{source} ! segmenter name=s duration=1000000000 ! {sink}"));
        assert_eq!(played.closed.len(), 5, "{sink}");
        check_order(played.items("src"));
    }
    for name in ["out.mkv", "out.mp4", "part00.mkv", "part01.mkv"] {
        let played = super::played::parse(&format!(
            "filesrc location={} ! parsebin ! segmenter name=s duration=1000000000 ! fakesink",
            file(name)
        ));
        let records = super::played::watch_all(&played);
        let again = super::played::finish(&played, &records);
        assert!(again.buffers("src").len() >= if name.starts_with("out") { 120 } else { 48 }, "{name}");
    }
}
