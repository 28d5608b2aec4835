//! The promises as facts: what was accepted comes out, whatever ends the process, the power or the disk.

#[path = "../diskbuffer/common.rs"]
#[allow(dead_code)]
mod common;
mod kills;
#[path = "../shared/pictures.rs"]
#[allow(dead_code)]
mod pictures;
#[path = "../shared/victims.rs"]
mod victims;
