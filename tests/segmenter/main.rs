//! `segmenter` through pads and pipelines, by behaviour.

mod camera;
mod contents;
mod ends;
mod events;
mod flow;
mod late;
mod lists;
mod pace;
mod played;
mod refusals;
mod rig;
mod streams;
mod times;
mod workers;

#[path = "../diskbuffer/common.rs"]
#[allow(dead_code)]
mod common;
