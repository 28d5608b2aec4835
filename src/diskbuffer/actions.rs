//! Signals, and the actions that an application can ask for.

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::imp::{CAT, DiskBuffer, SIGNAL_NAMES};

/// Told with true above the high watermark, with false at the low one.
pub const WATERMARK: &str = "watermark";

pub fn signals() -> Vec<glib::subclass::Signal> {
    use glib::subclass::Signal;
    let position = |values: &[glib::Value], at: usize| values.get(at).and_then(|value| value.get::<u64>().ok());
    let element = |values: &[glib::Value]| values.first().and_then(|value| value.get::<super::DiskBuffer>().ok());
    let mut signals: Vec<_> = SIGNAL_NAMES.into_iter().map(|name| Signal::builder(name).run_first().build()).collect();
    signals.push(Signal::builder(WATERMARK).param_types([bool::static_type()]).run_first().build());
    signals.push(
        Signal::builder("acknowledge")
            .param_types([u64::static_type()])
            .return_type::<bool>()
            .action()
            .run_last()
            .class_handler(move |values| {
                let done = element(values).zip(position(values, 1)).is_some_and(|(e, at)| e.imp().acknowledge(at));
                Some(done.to_value())
            })
            .build(),
    );
    signals.push(
        Signal::builder("rewind")
            .return_type::<bool>()
            .action()
            .run_last()
            .class_handler(move |values| Some(element(values).is_some_and(|e| e.imp().rewind()).to_value()))
            .build(),
    );
    signals.push(
        Signal::builder("clear")
            .return_type::<bool>()
            .action()
            .run_last()
            .class_handler(move |values| Some(element(values).is_some_and(|e| e.imp().purge(0, u64::MAX)).to_value()))
            .build(),
    );
    signals.push(
        Signal::builder("purge")
            .param_types([u64::static_type(), u64::static_type()])
            .return_type::<bool>()
            .action()
            .run_last()
            .class_handler(move |values| {
                let range = position(values, 1).zip(position(values, 2));
                let done = element(values).zip(range).is_some_and(|(e, (from, to))| e.imp().purge(from, to));
                Some(done.to_value())
            })
            .build(),
    );
    signals
}

impl DiskBuffer {
    /// Sends again what is not acknowledged, from a keyframe. False when the element does not run.
    fn rewind(&self) -> bool {
        {
            let mut state = self.state();
            if state.flow.is_err() {
                return false;
            }
            state.generation += 1;
        }
        gst::info!(CAT, imp = self, "Rewinding to what is not acknowledged");
        self.item_add.ring();
        true
    }

    /// An upstream event `diskbuffer-ack` with the field `position`; false when it is another event.
    pub(super) fn acknowledged_by(&self, event: &gst::EventRef) -> bool {
        let Some(structure) = event.structure().filter(|s| s.name() == "diskbuffer-ack") else { return false };
        match structure.get::<u64>("position") {
            Ok(position) => {
                if !self.acknowledge(position) {
                    gst::warning!(CAT, imp = self, "Position {position} was acknowledged, but not sent");
                }
            }
            Err(err) => gst::warning!(CAT, imp = self, "diskbuffer-ack needs position (uint64): {err}"),
        }
        true
    }
}
