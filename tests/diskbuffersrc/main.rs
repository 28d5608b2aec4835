//! `diskbuffersrc` through pads and pipelines, by behaviour.

#[path = "../diskbuffer/common.rs"]
#[allow(dead_code)]
mod common;
mod consumers;
mod epochs;
mod errors;
mod following;
mod playbin;
mod player;
mod playing;
mod processes;
mod ranges;
mod seeking;
