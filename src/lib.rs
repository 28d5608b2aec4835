//! GStreamer elements that keep every frame.
#![allow(dead_code)]
mod store;
mod media;
