//! What goes on while another thread stores what memory alone holds, which takes long on a slow disk: the test takes its place,
//! so that it takes as long as it has to.

use std::sync::mpsc;

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::common::{PATIENCE, Rig, frame, h264_caps, until};
use super::{DiskBuffer, imp};

const GOP: u64 = 10;

struct Spooling {
    _dir: tempfile::TempDir,
    rig: Rig,
    element: DiskBuffer,
}

impl Spooling {
    fn new(properties: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rig = Rig::new(dir.path(), properties);
        rig.start_stream("stream", &h264_caps());
        let element = rig.element.clone().downcast().unwrap();
        Self { _dir: dir, rig, element }
    }

    fn imp(&self) -> &imp::DiskBuffer {
        self.element.imp()
    }

    fn set(&self, spooling: bool) {
        self.imp().state().spooling = spooling;
        self.imp().item_del.ring();
    }

    fn push(&self, numbers: std::ops::Range<u64>, size: usize) {
        numbers.for_each(|number| self.rig.push(frame(number, GOP, size)));
    }
}

#[test]
fn a_flush_ends_the_wait_for_a_slow_disk() {
    let spooling =
        Spooling::new(&[("persist", "spill"), ("spill-after", "3600000000000"), ("max-memory-bytes", "1000")]);
    spooling.set(true);
    let (tell, told) = mpsc::channel();
    let source = spooling.rig.source.clone();
    std::thread::spawn(move || {
        let refused = (0..100).find_map(|number| source.push(frame(number, GOP, 200)).err());
        let _ = tell.send(refused);
    });
    until("upstream waits", || {
        spooling.imp().item_del.is_waited_for() && spooling.imp().state().tail.unstored_bytes() > 2000
    });
    spooling.rig.source.push_event(gst::event::FlushStart::new());
    let refused = told.recv_timeout(PATIENCE);
    spooling.set(false);
    assert_eq!(refused, Ok(Some(gst::FlowError::Flushing)));
}

#[test]
fn nothing_that_comes_is_stored_before_what_is_being_stored() {
    let spooling = Spooling::new(&[]);
    spooling.push(0..3, 200);
    // Memory may hold nothing of it any more.
    spooling.set(true);
    spooling.push(3..6, 200);
    let stat = |name| spooling.rig.stat(name);
    assert_eq!((stat("stored"), stat("queued") + stat("bypassed")), (3, 3));
    spooling.set(false);
    spooling.push(6..7, 200);
    until("all of it is stored", || stat("stored") == 7);
    spooling.rig.sink.wait_buffers(7);
    until("all of it counts as delivered", || stat("delivered") == 7);
    spooling.rig.check_accounts();
}

#[test]
fn what_was_delivered_is_kept_while_it_is_being_stored() {
    let spooling =
        Spooling::new(&[("persist", "spill"), ("spill-after", "3600000000000"), ("max-memory-bytes", "5000")]);
    spooling.set(true);
    spooling.push(0..40, 200);
    let stat = |name| spooling.rig.stat(name);
    until("all of it is delivered", || stat("bypassed") == 40);
    let items = imp::DiskBuffer::next_batch(&mut spooling.imp().state()).unwrap();
    spooling.imp().state().fault = Some("the disk refuses".to_owned());
    // More than a resume may have kept for it.
    spooling.push(40..41, 5000);
    until("that is delivered", || stat("bypassed") == 41);
    spooling.imp().store_batch(&spooling.imp().session().unwrap(), &items).unwrap();
    assert_eq!((stat("delivered"), stat("bypassed"), stat("dropped"), stat("rejected")), (40, 1, 0, 0));
    spooling.imp().state().fault = None;
    spooling.set(false);
    spooling.rig.check_accounts();
}
