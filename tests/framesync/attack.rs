//! Many threads at once: pads come and go, streams flush and end, settings change, states change. Nothing hangs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::rig::{MS, Port, Rig};

/// Long enough to meet, short enough to run with the others.
const TIME: Duration = Duration::from_millis(600);

fn stream(rig: &Rig, port: &Port, stop: &AtomicBool, seed: u64) {
    let mut i = 0u64;
    let mut noise = seed;
    while !stop.load(Ordering::Relaxed) {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let dice = noise >> 40;
        match dice % 211 {
            0 => {
                port.src.push_event(gst::event::FlushStart::new());
                port.src.push_event(gst::event::FlushStop::new(true));
                port.begin_again();
            }
            1 => {
                port.src.push_event(gst::event::Eos::new());
                port.begin_again();
            }
            2 => drop(port.src.push_event(gst::event::Caps::new(&gst::Caps::new_empty_simple("video/x-h264")))),
            3 => drop(port.src.push_event(gst::event::Gap::new(gst::ClockTime::from_mseconds(40 * i), None))),
            4 => port.pad.set_property("offset", (dice % 50 * MS) as i64),
            5 => port.pad.set_property_from_str("timestamp-format", ["pipeline", "rtmp", "auto"][dice as usize % 3]),
            6 => rig.element.set_property("latency", dice % 300 * MS),
            7 => drop(port.stats()),
            _ => drop(port.push((!dice.is_multiple_of(13)).then_some((40 * i + dice % 20) * MS))),
        }
        i += 1;
        while port.out.try_recv().is_ok() {}
    }
}

fn attack(live: bool) {
    let rig = Rig::aligned(live);
    rig.element.set_property("stream-timeout", 50 * MS);
    rig.play();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let (rig, stop) = (&rig, &stop);
            scope.spawn(move || {
                let port = rig.stream("video/x-raw");
                stream(rig, &port, stop, seed);
                rig.element.release_request_pad(&port.pad);
            });
        }
        let (start, mut ms) = (Instant::now(), 0);
        while start.elapsed() < TIME {
            let port = rig.stream("video/x-raw");
            let _ = port.push(Some(ms * MS));
            ms += 40;
            rig.ring(ms);
            if ms.is_multiple_of(400) {
                rig.element.set_state(gst::State::Paused).unwrap();
                rig.element.set_state(gst::State::Playing).unwrap();
            }
            rig.element.release_request_pad(&port.pad);
        }
        // Stopping frees whoever waits.
        stop.store(true, Ordering::Relaxed);
        rig.element.set_state(gst::State::Ready).unwrap();
    });
    assert_eq!(rig.element.sink_pads().len(), 0);
    assert_eq!(rig.element.src_pads().len(), 0);
}

#[test]
fn nothing_hangs_whatever_happens_at_once_live() {
    attack(true);
}

#[test]
fn nothing_hangs_whatever_happens_at_once_not_live() {
    attack(false);
}
