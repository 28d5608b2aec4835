//! Which worker gets which window, by how long each is busy.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use gst::prelude::*;

use super::camera::{Camera, PER_WINDOW, check_whole, ids};
use super::common::{self, FRAME, Sink};
use super::ends::{MS, eos, windows};

#[test]
fn the_next_free_worker_takes_the_window() {
    let mut camera = Camera::new(&[]);
    let sinks: Vec<_> = (0..3).map(|n| camera.ends.sink(&format!("worker_{n}"))).collect();
    sinks[1].hold_after(3);
    camera.play();
    camera.push().unwrap();
    for (id, by) in [0, 1, 2, 0, 2, 0].into_iter().enumerate() {
        // And the first frame of the next one, behind which it is over.
        camera.windows(1);
        if by != 1 {
            let last = |sink: &Sink| windows(sink).pop().filter(|last| last.end.is_some()).map(|last| last.id);
            common::until("its worker has the window", || last(&sinks[by]) == Some(id as u64));
        }
    }
    sinks[1].release();
    eos(&camera.source);
    sinks.iter().for_each(Sink::wait_eos);
    assert_eq!(ids(&windows(&sinks[1])), [1]);
    check_whole(&windows(&sinks[1]));
}

/// Windows and who has them.
type Taken = Vec<(u64, usize)>;

/// Branches that are busy for so long in the time of the stream after each window.
struct Busy {
    now: Arc<(Mutex<u64>, Condvar)>,
    taken: Arc<Mutex<Taken>>,
    /// Frames, and ends of windows from which on somebody is busy.
    got: Arc<(Mutex<(u64, u64)>, Condvar)>,
}

impl Busy {
    fn pad(&self, index: usize, busy_for: u64) -> gst::Pad {
        let any = gst::Caps::new_any();
        let template = gst::PadTemplate::new("sink", gst::PadDirection::Sink, gst::PadPresence::Always, &any).unwrap();
        let (now, taken, got) = (self.now.clone(), self.taken.clone(), self.got.clone());
        let ends = got.clone();
        let pad = gst::Pad::builder_from_template(&template)
            .chain_function(move |_, _, buffer| {
                if !buffer.flags().contains(gst::BufferFlags::DECODE_ONLY) {
                    got.0.lock().unwrap().0 += 1;
                    got.1.notify_all();
                }
                Ok(gst::FlowSuccess::Ok)
            })
            .event_function(move |_, _, event| {
                match event.structure().map(|s| (s.name().as_str(), uint_or_none(s))) {
                    Some(("segmenter-window-start", Some(id))) => taken.lock().unwrap().push((id, index)),
                    Some(("segmenter-window-end", _)) => {
                        let mut at = now.0.lock().unwrap();
                        let until = at.saturating_add(busy_for);
                        ends.0.lock().unwrap().1 += 1;
                        ends.1.notify_all();
                        while *at < until {
                            at = now.1.wait(at).unwrap();
                        }
                    }
                    _ => {}
                }
                true
            })
            .build();
        pad.set_active(true).unwrap();
        pad
    }

    fn set_time(&self, ns: u64) {
        *self.now.0.lock().unwrap() = ns;
        self.now.1.notify_all();
    }

    /// Whether all of these arrive without time going on.
    fn wait(&self, frames: u64, ends: u64, patience: Duration) -> bool {
        let got = self.got.0.lock().unwrap();
        let missing = |got: &mut (u64, u64)| got.0 < frames || got.1 < ends;
        !self.got.1.wait_timeout_while(got, patience, missing).unwrap().1.timed_out()
    }
}

fn uint_or_none(s: &gst::StructureRef) -> Option<u64> {
    s.get("window-id").ok()
}

/// Pushes windows in the time of the stream to two branches; says how many frames arrived at once, and who had which window.
/// The first `expected` frames are given all the time that a loaded machine may take.
fn real_time(busy_for: u64, count: u64, expected: u64) -> (u64, Taken, Vec<gst::Structure>) {
    let mut camera = Camera::new(&[("worker-policy", "drop-window")]);
    let busy = Busy { now: Arc::default(), taken: Arc::default(), got: Arc::default() };
    for index in 0..2 {
        camera.ends.link(&format!("worker_{index}"), busy.pad(index, busy_for));
    }
    camera.play();
    let mut at_once = 0;
    for frame in 0..count * PER_WINDOW {
        busy.set_time(frame * FRAME);
        camera.push().unwrap();
        let patience = if frame < expected { common::PATIENCE } else { Duration::from_millis(300) };
        if busy.wait(frame + 1, frame / PER_WINDOW, patience) {
            at_once += 1;
        } else {
            break;
        }
    }
    eos(&camera.source);
    busy.set_time(u64::MAX);
    camera.ends.element.set_state(gst::State::Ready).unwrap();
    let taken = busy.taken.lock().unwrap().clone();
    (at_once, taken, camera.ends.messages("segmenter-window-lost"))
}

#[test]
fn two_workers_that_take_nine_tenths_of_real_time_keep_up() {
    let count = 12;
    let (at_once, taken, lost) = real_time(900 * MS, count, count * PER_WINDOW);
    assert_eq!(at_once, count * PER_WINDOW);
    assert_eq!(taken, (0..count).map(|id| (id, id as usize % 2)).collect::<Vec<_>>());
    assert!(lost.is_empty(), "{lost:?}");
    let (at_once, ..) = real_time(1_100 * MS, count, 2 * PER_WINDOW);
    assert_eq!(at_once, 2 * PER_WINDOW, "that slow, the third window finds nobody");
}
