//! `framesync` through pads and pipelines, by behaviour.

mod attack;
mod flow;
mod launch;
mod rig;
mod sets;
mod stamps;

#[path = "../diskbuffer/common.rs"]
#[allow(dead_code)]
mod common;
