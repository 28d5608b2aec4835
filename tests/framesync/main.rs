//! `framesync` through pads and pipelines, by behaviour.

mod attack;
mod bad;
mod drift;
mod events;
mod flow;
mod formats;
mod launch;
mod matching;
mod outliers;
mod policies;
mod queries;
mod rig;
mod sets;
mod stamps;

#[path = "../shared/streams.rs"]
#[allow(dead_code)]
mod streams;

#[path = "../diskbuffer/common.rs"]
#[allow(dead_code)]
mod common;
