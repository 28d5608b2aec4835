//! `framesync` through pads and pipelines, by behaviour.

mod flow;
mod launch;
mod rig;
mod sets;
mod stamps;

#[path = "../diskbuffer/common.rs"]
#[allow(dead_code)]
mod common;
