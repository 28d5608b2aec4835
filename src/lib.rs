//! GStreamer elements that keep every frame when the network, the sink or the process goes away.
//!
//! The library is a GStreamer plugin first: `GST_PLUGIN_PATH` and an element name are all that most users need. Rust
//! applications can link it and call [`plugin_register_static`]. Elements stand above pure layers: `diskbuffer` over `media`
//! (GStreamer to records and back) over `store` (the log on disk, without GStreamer); `framesync`
//! over `timeline` (stamps, clocks and sets, without GStreamer); `segmenter` over `windowing` (windows and scenes,
//! without GStreamer).
#![allow(clippy::non_send_fields_in_send_ty)]

use gst::glib;

/// As the tests know the crate.
#[cfg(test)]
extern crate self as gststreambuffer;

mod bell;
#[cfg(test)]
#[path = "../fuzz/src/bytes.rs"]
mod bytes;
mod diskbuffer;
mod diskbuffersink;
mod diskbuffersrc;
mod framesync;
#[cfg(test)]
#[path = "../fuzz/src/entry.rs"]
mod fuzz;
mod location;
mod media;
#[cfg(test)]
#[path = "../fuzz/src/programs.rs"]
mod programs;
mod segmenter;
mod store;
mod task;
mod timeline;
mod windowing;

fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    media::position::register();
    diskbuffer::register(plugin)?;
    diskbuffersink::register(plugin)?;
    diskbuffersrc::register(plugin)?;
    framesync::register(plugin)?;
    segmenter::register(plugin)
}

gst::plugin_define!(
    streambuffer,
    env!("CARGO_PKG_DESCRIPTION"),
    plugin_init,
    concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
    "MIT/X11",
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    env!("BUILD_REL_DATE")
);
