//! `diskbuffersink` through pipelines, by behaviour.

#[allow(dead_code, reason = "shared with other tests")]
#[path = "../diskbuffer/common.rs"]
mod common;

mod alone;
mod ends;
mod failures;
mod faulty;
mod modes;
mod muxers;
mod places;
mod processes;
mod station;
mod wedges;
