//! `diskbuffersrc` plays what a `diskbuffer` keeps.

use gst::glib;
use gst::prelude::*;

mod acks;
mod delivery;
mod imp;
mod messages;
mod output;
mod place;
mod properties;
mod push;
mod queries;
mod range;
mod seek;
mod settings;
mod state;
mod timeline;
mod uri;

glib::wrapper! {
    /// The `diskbuffersrc` element.
    pub struct DiskBufferSrc(ObjectSubclass<imp::DiskBufferSrc>) @extends gst::Element, gst::Object,
        @implements gst::URIHandler;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    #[cfg(feature = "v1_18")]
    settings::Status::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(Some(plugin), "diskbuffersrc", gst::Rank::PRIMARY, DiskBufferSrc::static_type())
}
