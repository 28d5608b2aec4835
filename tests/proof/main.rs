//! The promises as facts that anyone can reproduce.

mod chaos;
#[path = "../diskbuffer/common.rs"]
#[allow(dead_code)]
mod common;
#[path = "../diskbuffersink/faulty.rs"]
#[allow(dead_code)]
mod faulty;
#[path = "../shared/shim.rs"]
mod shim;
#[path = "../shared/streams.rs"]
#[allow(dead_code)]
mod streams;
