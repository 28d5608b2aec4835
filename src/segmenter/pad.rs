//! The pads: how they are made, and which functions of the element they call.

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::imp::{CAT, Segmenter};
use super::line::Key;

impl Segmenter {
    pub(super) fn sink_pad(template: &gst::PadTemplate, key: Key) -> gst::Pad {
        gst::Pad::builder_from_template(template)
            .name(key.sink_name())
            .flags(gst::PadFlags::PROXY_CAPS)
            .chain_function(move |_pad, parent, buffer| {
                Self::catch_panic_pad_function(parent, || Err(gst::FlowError::Error), |imp| imp.sink_chain(key, buffer))
            })
            .chain_list_function(move |_pad, parent, list| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |imp| imp.sink_chain_list(key, list),
                )
            })
            .event_function(move |pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.sink_event(pad, key, event))
            })
            .query_function(move |pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.sink_query(pad, key, query))
            })
            .iterate_internal_links_function(move |_pad, parent| {
                let links = || gst::Iterator::from_vec(Vec::new());
                Self::catch_panic_pad_function(parent, links, |imp| gst::Iterator::from_vec(imp.linked_inside(key)))
            })
            .build()
    }

    /// Where a stream leaves.
    fn linked_inside(&self, key: Key) -> Vec<gst::Pad> {
        let mut pads: Vec<_> = self.port(key).map(|port| port.src.clone()).into_iter().collect();
        if !self.workers.is_empty() && self.worker_stream().is_some_and(|port| port.key == key) {
            pads.extend(self.workers.workers().iter().map(|worker| worker.pad.clone()));
        }
        pads
    }

    /// With a task of its own, or for the thread upstream, see [`super::line::Line::tasked`].
    pub(super) fn src_pad(&self, template: &gst::PadTemplate, key: Key) -> gst::Pad {
        let weak = self.obj().downgrade();
        gst::Pad::builder_from_template(template)
            .name(key.src_name())
            .flags(gst::PadFlags::PROXY_CAPS)
            .activatemode_function(move |pad, _parent, mode, active| {
                // A pad that is new is activated before it has a parent.
                let Some(obj) = weak.upgrade() else { return Err(gst::loggable_error!(CAT, "the element is gone")) };
                Self::catch_panic_pad_function(
                    Some(obj.upcast_ref()),
                    || Err(gst::loggable_error!(CAT, "source activation panicked")),
                    |imp| imp.src_activatemode(pad, key, mode, active),
                )
            })
            .event_function(move |pad, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_event(pad, key, event))
            })
            .query_function(move |pad, parent, query| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.src_query(pad, key, query))
            })
            .iterate_internal_links_function(move |_pad, parent| {
                let links = || gst::Iterator::from_vec(Vec::new());
                Self::catch_panic_pad_function(parent, links, |imp| {
                    gst::Iterator::from_vec(imp.port(key).map(|port| port.sink.clone()).into_iter().collect())
                })
            })
            .build()
    }
}
