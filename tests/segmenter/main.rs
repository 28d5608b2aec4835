//! `segmenter` through pads and pipelines, by behaviour.

mod contents;
mod flow;
mod late;
mod lists;
mod played;
mod refusals;
mod rig;
mod streams;
mod times;

#[path = "../diskbuffer/common.rs"]
#[allow(dead_code)]
mod common;
