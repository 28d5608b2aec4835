//! The promises as facts: what was accepted comes out, whatever ends the process, the power, the disk or downstream. A part of each
//! in every run of the tests, for minutes at a time with `scripts/soak`.

mod chaos;
#[path = "../diskbuffer/common.rs"]
#[allow(dead_code)]
mod common;
#[path = "../diskbuffersink/faulty.rs"]
#[allow(dead_code)]
mod faulty;
mod kills;
#[path = "../shared/pictures.rs"]
#[allow(dead_code)]
mod pictures;
mod power;
#[path = "../shared/shim.rs"]
mod shim;
#[path = "../shared/streams.rs"]
#[allow(dead_code)]
mod streams;
#[path = "../shared/victims.rs"]
mod victims;
