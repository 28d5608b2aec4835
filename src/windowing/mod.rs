//! Windows of streams, without GStreamer.

pub mod scene;
