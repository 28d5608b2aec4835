//! What an application can ask for: splits, as of splitmuxsink, and triggers.

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::imp::{CAT, Segmenter};
use crate::timeline::Ns;
use crate::windowing::Split;

pub fn signals() -> Vec<glib::subclass::Signal> {
    use glib::subclass::Signal;
    let element = |values: &[glib::Value]| values.first().and_then(|value| value.get::<super::Segmenter>().ok());
    let mut signals = vec![
        Signal::builder("split-now")
            .action()
            .run_last()
            .class_handler(move |values| {
                if let Some(element) = element(values) {
                    element.imp().split(Split::Now);
                }
                None
            })
            .build(),
        Signal::builder("split-after")
            .action()
            .run_last()
            .class_handler(move |values| {
                if let Some(element) = element(values) {
                    element.imp().split(Split::Keyframe);
                }
                None
            })
            .build(),
        Signal::builder("split-at-running-time")
            .param_types([u64::static_type()])
            .action()
            .run_last()
            .class_handler(move |values| {
                let at = values.get(1).and_then(|value| value.get::<u64>().ok());
                if let (Some(element), Some(at)) = (element(values), at) {
                    element.imp().split_at(Ns::from(at));
                }
                None
            })
            .build(),
    ];
    signals.extend(super::trigger::signals());
    signals
}

impl Segmenter {
    fn split_at(&self, running: Ns) {
        let at = self.core().mapping.of_running(running);
        self.split(Split::At(at));
    }

    fn split(&self, split: Split) {
        let done = self.core().with_windows(|windows, _, out| windows.split(split, out));
        self.tell();
        match done {
            Some(true) => gst::info!(CAT, imp = self, "Split: {split:?}"),
            Some(false) if self.core().settings.is_on_a_grid() => gst::element_imp_warning!(
                self,
                gst::StreamError::Failed,
                ("A split was asked for, but windows of this strategy end where duration and hop say: set strategy to keyframe \
                     with duration=0, adaptive or scene")
            ),
            Some(false) => gst::info!(CAT, imp = self, "Split: there is no window that could end"),
            None => gst::info!(CAT, imp = self, "Split: the element does not run"),
        }
    }
}
