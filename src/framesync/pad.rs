//! A sink pad: properties of its own over the defaults of the element, and `stats`.

use std::sync::Mutex;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::imp::lock;
use super::properties::PAD;
use super::settings::{Own, StreamSettings};

#[derive(Default)]
pub struct PadImp {
    own: Mutex<Own>,
}

#[glib::object_subclass]
impl ObjectSubclass for PadImp {
    const NAME: &'static str = "GstFrameSyncPad";
    type Type = super::FrameSyncPad;
    type ParentType = gst::Pad;
}

impl PadImp {
    fn element(&self) -> Option<super::FrameSync> {
        self.obj().parent().and_then(|parent| parent.downcast().ok())
    }

    pub fn settings(&self, defaults: &StreamSettings) -> StreamSettings {
        lock(&self.own).over(defaults)
    }
}

impl ObjectImpl for PadImp {
    fn properties() -> &'static [glib::ParamSpec] {
        &PAD
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        lock(&self.own).set(pspec.name(), value);
        if let Some(element) = self.element() {
            element.imp().change_settings(|_| ());
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let element = self.element();
        if pspec.name() == "stats" {
            let stats = element.and_then(|element| element.imp().stats(self.obj().upcast_ref()));
            return stats.to_value();
        }
        let defaults = element.map(|element| element.imp().settings().streams.clone()).unwrap_or_default();
        let settings = self.settings(&defaults);
        settings.get(pspec.name()).unwrap_or_else(|| unreachable!("GObject asks for known properties"))
    }
}

impl GstObjectImpl for PadImp {}
impl PadImpl for PadImp {}
