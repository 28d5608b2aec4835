//! Tasks of source pads that pause and go on.

use gst::glib;
use gst::glib::translate::from_glib_none;
use gst::prelude::*;

/// Starts the pad's task, or has the one that is there go on, which may be paused: to hand that another closure leaks it.
pub fn start(pad: &gst::Pad, step: impl FnMut() + Send + 'static) -> Result<(), glib::BoolError> {
    // SAFETY: the field belongs to the lock that is held; the task gets a reference of its own.
    let there: Option<gst::Task> = {
        let _lock = pad.object_lock();
        unsafe { from_glib_none((*pad.as_ptr()).task) }
    };
    match there {
        Some(task) => task.start(),
        None => pad.start_task(step),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_task_that_goes_on_keeps_its_closure_and_leaks_no_other() {
        gst::init().unwrap();
        let pad = gst::Pad::builder(gst::PadDirection::Src).build();
        pad.set_active(true).unwrap();
        let held = Arc::new(());
        for _ in 0..3 {
            let (weak, step) = (pad.downgrade(), held.clone());
            start(&pad, move || {
                let _held = &step;
                if let Some(pad) = weak.upgrade() {
                    let _ = pad.pause_task();
                }
            })
            .unwrap();
        }
        assert_eq!(Arc::strong_count(&held), 2, "the test's own, and that of the task");
        pad.stop_task().unwrap();
        pad.set_active(false).unwrap();
        drop(pad);
        // The thread of the task lets go of it when it ends.
        let begun = Instant::now();
        while Arc::strong_count(&held) > 1 {
            assert!(begun.elapsed() < Duration::from_secs(60), "the closure is still there");
            std::thread::yield_now();
        }
    }
}
