//! A record and its bytes.
//!
//! `version u8 | header length u32 LE | header (bitcode) | payload | CRC32C u32 LE of all before`. A record that does not
//! check is never handed out. The payload is copied once on the way in and once on the way out, and stays behind its header
//! in the same allocation.

use std::sync::Mutex;

use bitcode::{Decode, Encode};

use super::log::lock;
use super::schema::VALUE_VERSION;

/// When a record came, in the one clock that does not jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Arrival {
    /// Number of the boot in this store.
    pub boot: u32,
    /// ns since that boot.
    pub time: u64,
}

/// Position of a record in its stream. Grows by one from record to record; jumps after an unclean end.
pub type Sequence = u64;

/// Sums over the buffers of a stream from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Totals {
    pub buffers: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Media time in ns: the sum of the steps of running time within each epoch.
    pub time: u64,
}

impl Totals {
    /// What lies between `earlier` and this.
    pub fn since(self, earlier: Totals) -> Totals {
        Totals {
            buffers: self.buffers.saturating_sub(earlier.buffers),
            bytes: self.bytes.saturating_sub(earlier.bytes),
            time: self.time.saturating_sub(earlier.time),
        }
    }

    /// Where they are less than others, those.
    pub fn at_least(self, others: Totals) -> Totals {
        let Totals { buffers, bytes, time } = others;
        Totals { buffers: self.buffers.max(buffers), bytes: self.bytes.max(bytes), time: self.time.max(time) }
    }

    /// Where they are more than others, those.
    pub fn at_most(self, others: Totals) -> Totals {
        let Totals { buffers, bytes, time } = others;
        Totals { buffers: self.buffers.min(buffers), bytes: self.bytes.min(bytes), time: self.time.min(time) }
    }

    pub fn plus(self, more: Totals) -> Totals {
        Totals { buffers: self.buffers + more.buffers, bytes: self.bytes + more.bytes, time: self.time + more.time }
    }
}

/// Whether a decoder can start at a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Encode, Decode)]
pub enum Sync {
    /// It refers to earlier buffers.
    #[default]
    None,
    /// It can, but leading pictures that follow it refer to buffers before it.
    Open,
    /// It can, and nothing after it refers to anything before it.
    Closed,
}

/// A buffer without its payload. Times in ns.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct BufferHeader {
    pub pts: Option<u64>,
    pub dts: Option<u64>,
    pub duration: Option<u64>,
    pub offset: Option<u64>,
    pub offset_end: Option<u64>,
    /// Bits of the media framework's buffer flags.
    pub flags: u32,
    pub sync: Sync,
    /// Shown before the sync point that it follows and refers back before it.
    pub leading: bool,
    /// Buffers of the same buffer list that follow, plus one; 0 outside of a list.
    pub list_remaining: u32,
    /// Of the epoch.
    pub running_time: Option<i64>,
    /// Arrival, ns since 1970.
    pub captured_at: i64,
    pub metas: Vec<MetaRecord>,
}

/// One meta of a buffer: a name known to the media layer and its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct MetaRecord {
    pub name: String,
    pub data: Vec<u8>,
}

/// What a state change replaces. The rank orders the state when it is sent again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Slot {
    pub rank: u32,
    pub name: String,
}

/// State in force at a position: slot and value, ordered by slot.
pub type StateMap = std::collections::BTreeMap<Slot, Vec<u8>>;

/// Slots that end with a change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub enum Clears {
    #[default]
    Nothing,
    /// Those of these ranks.
    Ranks(Vec<u32>),
    All,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Body {
    /// The payload is the buffer's data.
    Buffer(BufferHeader),
    /// Passes once; the payload is the media layer's coding of it.
    Event,
    /// Stays in force until replaced; the payload is its value, empty when the slot is emptied.
    State { slot: Slot, clears: Clears },
    /// All state in force at the start of an extent. Never delivered.
    Snapshot(Vec<(Slot, Vec<u8>)>),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Header {
    /// Sums before this record.
    pub before: Totals,
    /// Media time in ns that it adds to the sums.
    pub advance: u64,
    pub arrival: Arrival,
    pub body: Body,
}

/// Applies a change to a map of state.
pub fn apply(state: &mut StateMap, slot: &Slot, clears: &Clears, value: &[u8]) {
    match clears {
        Clears::Nothing => {}
        Clears::Ranks(ranks) => state.retain(|slot, _| !ranks.contains(&slot.rank)),
        Clears::All => state.clear(),
    }
    if value.is_empty() {
        state.remove(slot);
    } else {
        state.insert(slot.clone(), value.to_vec());
    }
}

/// Bytes of a record: readable as a slice without another copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payload {
    value: Vec<u8>,
    start: usize,
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self.value.get(self.start..).unwrap_or_default()
    }
}

impl Payload {
    pub fn len(&self) -> usize {
        self.value.len() - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A record as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub sequence: Sequence,
    pub before: Totals,
    pub advance: u64,
    pub arrival: Arrival,
    pub body: Body,
    pub payload: Payload,
}

impl Record {
    /// Sums with this record.
    pub fn after(&self) -> Totals {
        self.before.plus(contribution(&self.body, self.payload.len(), self.advance))
    }
}

/// What a record adds to the sums: only buffers count.
pub fn contribution(body: &Body, bytes: usize, advance: u64) -> Totals {
    match body {
        Body::Buffer(_) => Totals { buffers: 1, bytes: bytes as u64, time: advance },
        _ => Totals { time: advance, ..Totals::default() },
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the record is cut short")]
    Truncated,
    #[error("the record's checksum does not match")]
    Checksum,
    #[error("the record has version {0}, which is not known here")]
    Version(u8),
    #[error("the record's header cannot be decoded")]
    Header,
}

/// Memory is given back when so many records had no use for it.
const PATIENCE: u32 = 64;

/// Reused between records: encoding allocates nothing once warm.
#[derive(Default)]
pub struct Encoder {
    header: bitcode::Buffer,
    bytes: Vec<u8>,
    /// How many records in a row have left half of it unused.
    unused: u32,
}

impl Encoder {
    /// The record's bytes; `payload` is given in pieces so that scattered memory needs no merging first.
    pub fn encode(&mut self, header: &Header, payload: &[&[u8]]) -> &[u8] {
        let head = self.header.encode(header);
        let bytes = &mut self.bytes;
        bytes.clear();
        bytes.push(VALUE_VERSION);
        bytes.extend_from_slice(&(head.len() as u32).to_le_bytes());
        bytes.extend_from_slice(head);
        let crc = payload.iter().fold(crc32c::crc32c(bytes), |crc, part| copy(part, bytes, crc));
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Gives back memory that an unusually large record left behind; where all are large it stays.
    pub fn shrink(&mut self, keep: usize) {
        let capacity = self.bytes.capacity();
        self.unused = if capacity > keep && self.bytes.len() < capacity / 2 { self.unused + 1 } else { 0 };
        if self.unused > PATIENCE {
            self.bytes = Vec::new();
            self.unused = 0;
        }
    }
}

/// Encoders that nobody uses just now: the one used last first, as caches still hold it.
#[derive(Default)]
pub struct Encoders(Mutex<Vec<Encoder>>);

impl Encoders {
    pub fn take(&self) -> Encoder {
        lock(&self.0).pop().unwrap_or_default()
    }

    /// For others; keeps about `keep` bytes of it.
    pub fn give_back(&self, mut encoder: Encoder, keep: usize) {
        encoder.shrink(keep);
        lock(&self.0).push(encoder);
    }
}

/// So much is copied and then summed while the processor's nearest cache has it; what the checksum takes in one go.
const STRIDE: usize = 3 * 8192;

/// Appends `bytes` to `to`; the checksum of all before them, gone on with.
fn copy(bytes: &[u8], to: &mut Vec<u8>, crc: u32) -> u32 {
    to.reserve(bytes.len());
    bytes.chunks(STRIDE).fold(crc, |crc, part| {
        let start = to.len();
        to.extend_from_slice(part);
        crc32c::crc32c_append(crc, &to[start..])
    })
}

/// Reused between records: what decoding a header takes is made once.
#[derive(Default)]
pub struct Decoder {
    header: bitcode::Buffer,
}

impl Decoder {
    /// The record in `bytes`, which are copied once.
    pub fn decode(&mut self, sequence: Sequence, bytes: &[u8]) -> Result<Record, RecordError> {
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(RecordError::Truncated)?;
        let mut value = Vec::new();
        if copy(body, &mut value, 0) != u32::from_le_bytes(*crc) {
            return Err(RecordError::Checksum);
        }
        let (&version, rest) = value.split_first().ok_or(RecordError::Truncated)?;
        if version != VALUE_VERSION {
            return Err(RecordError::Version(version));
        }
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(RecordError::Truncated)?;
        let length = u32::from_le_bytes(*length) as usize;
        let head = rest.get(..length).ok_or(RecordError::Truncated)?;
        let header: Header = self.header.decode(head).map_err(|_| RecordError::Header)?;
        let start = 1 + 4 + length;
        Ok(Record {
            sequence,
            before: header.before,
            advance: header.advance,
            arrival: header.arrival,
            body: header.body,
            payload: Payload { value, start },
        })
    }
}

/// A single record.
pub fn decode(sequence: Sequence, bytes: &[u8]) -> Result<Record, RecordError> {
    Decoder::default().decode(sequence, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> impl Strategy<Value = Header> {
        let totals = (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(buffers, bytes, time)| Totals {
            buffers,
            bytes,
            time,
        });
        let slot = (any::<u32>(), "[a-z]{0,8}").prop_map(|(rank, name)| Slot { rank, name });
        let times = (any::<Option<u64>>(), any::<Option<u64>>(), any::<Option<u64>>(), any::<Option<i64>>());
        let sync = prop_oneof![Just(Sync::None), Just(Sync::Open), Just(Sync::Closed)];
        let metas = proptest::collection::vec(
            ("[A-Za-z]{1,12}", proptest::collection::vec(any::<u8>(), 0..20))
                .prop_map(|(name, data)| MetaRecord { name, data }),
            0..3,
        );
        let buffer =
            (times, any::<(Option<u64>, Option<u64>)>(), any::<u32>(), sync, any::<bool>(), any::<u32>(), metas)
                .prop_map(
                    |((pts, dts, duration, running_time), (offset, offset_end), flags, sync, leading, list, metas)| {
                        Body::Buffer(BufferHeader {
                            pts,
                            dts,
                            duration,
                            offset,
                            offset_end,
                            flags,
                            sync,
                            leading,
                            list_remaining: list,
                            running_time,
                            captured_at: i64::from(flags),
                            metas,
                        })
                    },
                );
        let body = prop_oneof![
            buffer,
            Just(Body::Event),
            (slot.clone(), proptest::collection::vec(any::<u32>(), 0..4))
                .prop_map(|(slot, ranks)| Body::State { slot, clears: Clears::Ranks(ranks) }),
            proptest::collection::vec((slot, proptest::collection::vec(any::<u8>(), 0..9)), 0..4)
                .prop_map(Body::Snapshot),
        ];
        (totals, body).prop_map(|(before, body)| Header {
            before,
            advance: before.time / 2,
            arrival: Arrival { boot: before.bytes as u32, time: before.buffers },
            body,
        })
    }

    #[test]
    fn memory_of_a_large_record_is_given_back_unless_all_are_large() {
        let (mut encoder, header) = (
            Encoder::default(),
            Header { before: Totals::default(), advance: 0, arrival: Arrival::default(), body: Body::Event },
        );
        let mut encode = |size: usize, times: u32| {
            for _ in 0..times {
                encoder.encode(&header, &[&vec![0; size]]);
                encoder.shrink(1000);
            }
            encoder.bytes.capacity()
        };
        assert!(encode(10_000, 3 * PATIENCE) >= 10_000);
        assert!(encode(100, PATIENCE) >= 10_000, "another large one may follow");
        assert!(encode(100, 2) < 10_000);
    }

    proptest! {
        #[test]
        fn a_record_comes_back_as_it_was(
            header in header(),
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..4),
            sequence in any::<u64>(),
        ) {
            let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let mut encoder = Encoder::default();
            let bytes = encoder.encode(&header, &slices).to_vec();
            let record = decode(sequence, &bytes).unwrap();
            prop_assert_eq!(record.sequence, sequence);
            prop_assert_eq!((record.before, record.advance), (header.before, header.advance));
            prop_assert_eq!(record.arrival, header.arrival);
            prop_assert_eq!(record.body, header.body);
            prop_assert_eq!(record.payload.as_ref(), parts.concat());
        }

        #[test]
        fn a_flipped_bit_or_a_cut_is_found(
            header in header(),
            payload in proptest::collection::vec(any::<u8>(), 0..60),
            at in any::<proptest::sample::Index>(),
            bit in 0..8u8,
        ) {
            let mut encoder = Encoder::default();
            let good = encoder.encode(&header, &[&payload]).to_vec();
            let at = at.index(good.len());
            let mut bad = good.clone();
            bad[at] ^= 1u8 << bit;
            prop_assert!(decode(0, &bad).is_err());
            prop_assert!(decode(0, &good[..at]).is_err());
        }

        #[test]
        fn garbage_is_refused(garbage in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(0, &garbage).is_err());
        }
    }
}
