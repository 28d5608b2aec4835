//! Keys of the database and the version of the format.
//!
//! Every key is `extent u32 | lane and stream u32 | sequence u64`, big endian, in one column family. An extent is what one
//! memtable holds: the writer opens the next one when it switches memtables and at each open, so that no two files overlap
//! and compaction only moves them. Within an extent the lanes follow each other:
//!
//! | lane | second field | sequence field | value |
//! |---|---|---|---|
//! | meta | 0 | kind and stream | [`ExtentHeader`], [`StreamStart`], [`CursorRecord`], the clean mark, the clock record, [`Holes`](super::holes::Holes) |
//! | data | stream | sequence | record: buffer or event |
//! | state | stream with bit 30 | sequence | record: snapshot of the state at the extent's start, then each change of it |
//! | index | stream with bit 31 | sequence | [`IndexEntry`] of a sync point |
//! | thinned data, state, index | the same with bit 29 | sequence | what was kept of stretches that were thinned or purged in other extents: see `holes` |
//!
//! Each extent carries all that is needed to read it: the open of a store reads one meta lane per extent, and the newest
//! one tells the cursors. Nothing is overwritten across extents.

use bitcode::{Decode, Encode};

use super::clock::Arrival;
use super::record::{Sync, Totals};

/// Version of the directory's format, in the file `FORMAT`. Raised when an older reader could not cope.
pub const FORMAT_VERSION: u32 = 1;

/// Version byte in front of each value; every released version keeps its decoder.
pub const VALUE_VERSION: u8 = 1;

/// Added to the sequence numbers at an open after a crash: a published position never names another payload.
pub const UNCLEAN_GAP: u64 = 1 << 32;

/// Stream ids stay below the lane bits.
pub const MAX_STREAMS: u32 = 1 << 20;

pub type Key = [u8; 16];

const THIN_BIT: u32 = 1 << 29;
const STATE_BIT: u32 = 1 << 30;
const INDEX_BIT: u32 = 1 << 31;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    Meta,
    Data(u32),
    State(u32),
    Index(u32),
    ThinData(u32),
    ThinState(u32),
    ThinIndex(u32),
}

impl Lane {
    fn field(self) -> u32 {
        match self {
            Lane::Meta => 0,
            Lane::Data(stream) => stream,
            Lane::State(stream) => stream | STATE_BIT,
            Lane::Index(stream) => stream | INDEX_BIT,
            Lane::ThinData(stream) => stream | THIN_BIT,
            Lane::ThinState(stream) => stream | STATE_BIT | THIN_BIT,
            Lane::ThinIndex(stream) => stream | INDEX_BIT | THIN_BIT,
        }
    }

    fn from_field(field: u32) -> Self {
        let stream = field & !(THIN_BIT | STATE_BIT | INDEX_BIT);
        match (field, field & INDEX_BIT != 0, field & STATE_BIT != 0, field & THIN_BIT != 0) {
            (0, ..) => Lane::Meta,
            (_, true, _, false) => Lane::Index(stream),
            (_, true, _, true) => Lane::ThinIndex(stream),
            (_, _, true, false) => Lane::State(stream),
            (_, _, true, true) => Lane::ThinState(stream),
            (_, _, _, true) => Lane::ThinData(stream),
            (_, _, _, false) => Lane::Data(stream),
        }
    }
}

pub fn key(extent: u32, lane: Lane, sequence: u64) -> Key {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&extent.to_be_bytes());
    key[4..8].copy_from_slice(&lane.field().to_be_bytes());
    key[8..].copy_from_slice(&sequence.to_be_bytes());
    key
}

/// The last key that an extent can have. Ranges of RocksDB's compaction and file removal include their end.
pub fn extent_end(extent: u32) -> Key {
    let mut key = [0xFF; 16];
    key[..4].copy_from_slice(&extent.to_be_bytes());
    key
}

/// The first key of an extent.
pub fn extent_start(extent: u32) -> Key {
    key(extent, Lane::Meta, 0)
}

/// The parts of a key; `None` when it is not one of ours.
pub fn parse(key: &[u8]) -> Option<(u32, Lane, u64)> {
    let (extent, rest) = key.split_first_chunk::<4>()?;
    let (field, rest) = rest.split_first_chunk::<4>()?;
    let sequence = u64::from_be_bytes(rest.try_into().ok()?);
    Some((u32::from_be_bytes(*extent), Lane::from_field(u32::from_be_bytes(*field)), sequence))
}

/// What a key of the meta lane holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    Header,
    Start(u32),
    Cursor(u32),
    Clean,
    Clock,
    Holes(u32),
}

impl Meta {
    pub fn key(self, extent: u32) -> Key {
        let (kind, stream) = match self {
            Meta::Header => (0u64, 0),
            Meta::Start(stream) => (1, stream),
            Meta::Cursor(stream) => (2, stream),
            Meta::Clean => (3, 0),
            Meta::Clock => (4, 0),
            Meta::Holes(stream) => (5, stream),
        };
        key(extent, Lane::Meta, (kind << 32) | u64::from(stream))
    }

    pub fn from_sequence(sequence: u64) -> Option<Self> {
        let stream = sequence as u32;
        match sequence >> 32 {
            0 => Some(Meta::Header),
            1 => Some(Meta::Start(stream)),
            2 => Some(Meta::Cursor(stream)),
            3 => Some(Meta::Clean),
            4 => Some(Meta::Clock),
            5 => Some(Meta::Holes(stream)),
            _ => None,
        }
    }
}

/// Where the streams ended when the store was closed in order: numbers that were given out and not stored count too.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CleanMark {
    pub ends: Vec<(u32, u64)>,
}

/// First value of each extent.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct ExtentHeader {
    /// How often the store was opened, this one included.
    pub session: u64,
    /// Boot of the machine in which the extent was opened, as the clock record numbers it.
    pub boot: u32,
    /// ns since 1970, as the machine believed.
    pub opened_at: i64,
}

/// A stream as it stood when the extent was opened.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct StreamStart {
    pub name: String,
    /// Sequence of the first record that goes to this extent or a later one.
    pub first: u64,
    /// Everything before `first`.
    pub totals: Totals,
}

/// Where the stream's own consumer stands; rewritten in the newest extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct CursorRecord {
    /// First record that was not acknowledged.
    pub position: u64,
    /// Everything before `position`.
    pub totals: Totals,
    /// Sync point from which a consumer that comes back has to be fed.
    pub resume: u64,
    pub ledger: Ledger,
    /// First record that is kept, at or before `resume`. The store's own, as what follows.
    pub log_start: u64,
    /// Payload bytes before it, or before the cursor when nothing delivered is kept.
    pub log_start_bytes: u64,
    /// ns; what the stream's owner asked for last.
    pub max_age: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Count {
    pub buffers: u64,
    pub bytes: u64,
}

impl Count {
    pub fn add(&mut self, totals: Totals) {
        self.buffers += totals.buffers;
        self.bytes += totals.bytes;
    }

    pub fn subtract(&mut self, totals: Totals) {
        self.buffers = self.buffers.saturating_sub(totals.buffers);
        self.bytes = self.bytes.saturating_sub(totals.bytes);
    }

    pub fn plus(self, other: Count) -> Count {
        Count { buffers: self.buffers + other.buffers, bytes: self.bytes + other.bytes }
    }
}

/// What became of the buffers before the cursor: their sum is `totals` of the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Ledger {
    pub delivered: Count,
    pub dropped: Count,
    pub expired: Count,
    pub purged: Count,
    pub lost: Count,
    /// Of all that came in, not part of the sum: delivered from memory without ever being stored, and not accepted.
    pub bypassed: Count,
    pub rejected: Count,
}

/// A sync point, at most one per second or MiB: levels, drops and seeks need no scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct IndexEntry {
    /// Everything before it.
    pub totals: Totals,
    pub sync: Sync,
    /// ns; of the epoch it belongs to.
    pub running_time: Option<i64>,
    /// ns since 1970 at arrival, as the machine believed.
    pub captured_at: i64,
    pub arrival: Arrival,
}

/// A small value with the version byte and a checksum around it.
pub fn encode_value<T: Encode>(value: &T) -> Vec<u8> {
    let mut bytes = vec![VALUE_VERSION];
    bytes.extend_from_slice(&bitcode::encode(value));
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// `None` when the value is damaged or of another version.
pub fn decode_value<T: for<'a> Decode<'a>>(bytes: &[u8]) -> Option<T> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    match body.split_first()? {
        (&VALUE_VERSION, rest) => bitcode::decode(rest).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_sort_by_extent_lane_stream_sequence(
            a in (any::<u32>(), 1..MAX_STREAMS, any::<u64>(), 0..6),
            b in (any::<u32>(), 1..MAX_STREAMS, any::<u64>(), 0..6),
        ) {
            let lane = |kind, stream| match kind {
                0 => Lane::Data(stream),
                1 => Lane::ThinData(stream),
                2 => Lane::State(stream),
                3 => Lane::ThinState(stream),
                4 => Lane::Index(stream),
                _ => Lane::ThinIndex(stream),
            };
            let (ka, kb) = (key(a.0, lane(a.3, a.1), a.2), key(b.0, lane(b.3, b.1), b.2));
            prop_assert_eq!(ka.cmp(&kb), (a.0, a.3, a.1, a.2).cmp(&(b.0, b.3, b.1, b.2)));
            prop_assert_eq!(parse(&ka), Some((a.0, lane(a.3, a.1), a.2)));
        }
    }

    #[test]
    fn a_damaged_value_is_refused() {
        let good = encode_value(&CursorRecord { position: 7, ..Default::default() });
        assert_eq!(decode_value::<CursorRecord>(&good).map(|c| c.position), Some(7));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_value::<CursorRecord>(&bad), None);
        }
    }
}
