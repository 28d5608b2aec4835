//! The parts of the plugin that read foreign bytes and stamps, and framesync, without RocksDB under them.
#![allow(dead_code, unused_imports)]

#[path = "../../src/media/mod.rs"]
pub mod media;

#[path = "../../src/timeline/mod.rs"]
pub mod timeline;

#[path = "../../src/framesync/mod.rs"]
pub mod framesync;

pub mod bytes;
pub mod entry;
pub mod programs;
pub mod stamps;

/// As much of the store as those parts name.
#[path = "."]
pub mod store {
    #[path = "../../src/store/record.rs"]
    pub mod record;
    pub mod schema {
        pub const VALUE_VERSION: u8 = 1;
    }
    pub use record::{Arrival, Body, BufferHeader, Clears, MetaRecord, Payload, Record, Sequence, Slot, Sync, Totals};
}
