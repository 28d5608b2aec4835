//! The frames of RocksDB's log and manifest, looked at before RocksDB reads them.
//!
//! RocksDB 11.8 reads such a file for ever when a damaged frame calls itself of a recycled log in the midst of one that is
//! not: it reports the frame and does not step over it. One flipped bit in the type of a frame is enough. Logs are never
//! recycled here, so such frames are found by their type, and given the type back with which their checksum is right; or,
//! when there is none, one that has them passed over as any other damage.
//!
//! A manifest that seems to end early is read up to there, and all files that it named later are deleted as unknown: a bit
//! of a frame's length is enough. So each of its frames is checked. The checksum tells which single bit is wrong; a manifest
//! with more damage is not given to RocksDB.
//!
//! A log that a power cut interrupted may end with a record of which sectors were not written: they read as zeros. RocksDB
//! takes that for damage, as it takes a record whose end is cut off for what it is. Nothing was lost that was synced, so such a
//! log is told from a damaged one by those zeros, and by nothing that can be read after them.
//!
//! Frame: `CRC32C u32 LE, masked | length u16 LE | type u8 | content`, none across a block of 32 KiB.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;
/// Full, first, middle, last.
const PLAIN: std::ops::RangeInclusive<u8> = 1..=4;
const FULL: u8 = 1;
const FIRST: u8 = 2;
const LAST: u8 = 4;
/// What a disk writes as a whole.
const SECTOR: usize = 512;
/// Frames from this size on are not searched for a wrong bit.
const LARGE: usize = 8 << 10;
/// Unknown to every reader.
const UNKNOWN: u8 = 12;

fn is_recycled(kind: u8) -> bool {
    matches!(kind, 5..=8 | 11 | 131)
}

/// Frames that RocksDB would not get past: offset of the type in its file, and the type to put there.
fn obstacles(file: &mut impl Read) -> io::Result<Vec<(u64, u8)>> {
    let mut found = Vec::new();
    let mut block = vec![0; BLOCK];
    for start in (0u64..).step_by(BLOCK) {
        let mut length = 0;
        while length < BLOCK {
            match file.read(&mut block[length..]) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        let mut at = 0;
        while let Some(header) = block[..length].get(at..at + HEADER) {
            let size = usize::from(u16::from_le_bytes([header[4], header[5]]));
            let kind = header[6];
            if kind == 0 && size == 0 {
                // Preallocated.
                break;
            }
            let content = block[..length].get(at + HEADER..at + HEADER + size);
            if is_recycled(kind) {
                let crc = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
                let fits = |kind: &u8| {
                    content.is_some_and(|content| mask(crc32c::crc32c_append(crc32c::crc32c(&[*kind]), content)) == crc)
                };
                found.push((start + at as u64 + 6, PLAIN.into_iter().find(fits).unwrap_or(UNKNOWN)));
            }
            if content.is_none() {
                break;
            }
            at += HEADER + size;
        }
        if length < BLOCK {
            break;
        }
    }
    Ok(found)
}

/// What a manifest is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manifest {
    Sound,
    /// Single bits were wrong, and are right again if that was asked for.
    Mended,
    Damaged,
}

/// Checks a manifest frame by frame.
pub fn check_manifest(path: &Path, mend: bool) -> io::Result<Manifest> {
    let mut bytes = fs::read(path)?;
    let mut mended = false;
    for block in bytes.chunks_mut(BLOCK) {
        let mut at = 0;
        while block.len() - at >= HEADER {
            let rest = &mut block[at..];
            if rest.iter().all(|byte| *byte == 0) {
                break;
            }
            if frame_size(rest).is_none() {
                match wrong_bit(rest) {
                    Some((byte, bit)) => rest[byte] ^= 1 << bit,
                    None => return Ok(Manifest::Damaged),
                }
                mended = true;
            }
            at += frame_size(rest).unwrap_or(rest.len());
        }
    }
    if mended && mend {
        let new = path.with_extension("mended");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
    }
    Ok(if mended { Manifest::Mended } else { Manifest::Sound })
}

/// Bytes of a frame that checks.
fn frame_size(bytes: &[u8]) -> Option<usize> {
    let (crc, rest) = bytes.split_first_chunk::<4>()?;
    let (size, rest) = rest.split_first_chunk::<2>()?;
    let size = usize::from(u16::from_le_bytes(*size));
    let checked = rest.get(..1 + size)?;
    (PLAIN.contains(checked.first()?) && mask(crc32c::crc32c(checked)) == u32::from_le_bytes(*crc))
        .then_some(HEADER + size)
}

/// What the frames of a log come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// All that was begun is there, or its end is cut off.
    Whole,
    /// The last record lacks sectors.
    Torn,
    Damaged,
}

/// Whether nothing is wrong with the logs in the database's directory but that the last one was being written when the power
/// failed.
pub fn is_torn(database: &Path) -> io::Result<bool> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(database)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") && path.metadata()?.len() > 0 {
            logs.push(path);
        }
    }
    // Their numbers have leading zeros.
    logs.sort();
    let Some(last) = logs.pop() else { return Ok(false) };
    if end_of(&fs::read(last)?) != End::Torn {
        return Ok(false);
    }
    for log in logs {
        if end_of(&fs::read(log)?) != End::Whole {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where reading a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Between,
    Inside,
    /// Nothing was written here, or it is gone.
    Unwritten,
    Torn,
}

fn end_of(log: &[u8]) -> End {
    let mut reading = Reading::Between;
    for (block, start) in log.chunks(BLOCK).zip((0..).step_by(BLOCK)) {
        let mut at = 0;
        while block.len() - at >= HEADER {
            let rest = &block[at..];
            if let Some(size) = frame_size(rest) {
                reading = match (reading, rest[6]) {
                    (Reading::Between, FULL) | (Reading::Inside, LAST) => Reading::Between,
                    (Reading::Between, FIRST) => Reading::Inside,
                    (_, FULL | FIRST) | (Reading::Between, _) => return End::Damaged,
                    (Reading::Inside, _) => Reading::Inside,
                    // Of a record that began in what is missing.
                    (Reading::Unwritten | Reading::Torn, _) => Reading::Torn,
                };
                at += size;
                continue;
            }
            if begins_within(&rest[1..]) {
                return End::Damaged;
            }
            reading = if rest[..HEADER].iter().any(|byte| *byte != 0) {
                let size = HEADER + usize::from(u16::from_le_bytes([rest[4], rest[5]]));
                let cut_off = size > rest.len() && start + block.len() == log.len();
                if !cut_off && !lacks_sectors(&rest[..size.min(rest.len())], start + at) {
                    return End::Damaged;
                }
                Reading::Torn
            } else if matches!(reading, Reading::Between | Reading::Unwritten) {
                Reading::Unwritten
            } else {
                Reading::Torn
            };
            break;
        }
    }
    if reading == Reading::Torn { End::Torn } else { End::Whole }
}

/// Whether a sector of the disk, or as much of one as belongs to these bytes at this place of their file, is zeros.
fn lacks_sectors(bytes: &[u8], at: usize) -> bool {
    let head = (SECTOR - at % SECTOR).min(bytes.len());
    let (first, rest) = bytes.split_at(head);
    std::iter::once(first).chain(rest.chunks(SECTOR)).any(|sector| sector.iter().all(|byte| *byte == 0))
}

/// Whether a record begins anywhere in these bytes.
fn begins_within(bytes: &[u8]) -> bool {
    (0..bytes.len()).any(|at| {
        bytes.get(at + 6).is_some_and(|kind| [FULL, FIRST].contains(kind)) && { frame_size(&bytes[at..]).is_some() }
    })
}

/// The bit of the frame at the beginning with which it checks.
fn wrong_bit(bytes: &[u8]) -> Option<(usize, u8)> {
    let size = usize::from(u16::from_le_bytes([*bytes.get(4)?, *bytes.get(5)?]));
    // Each attempt reads the frame: those of a manifest are small.
    let end = if size < LARGE { (HEADER + size).min(bytes.len()) } else { HEADER };
    let mut bytes = bytes.to_vec();
    (0..end).flat_map(|byte| (0..8).map(move |bit| (byte, bit))).find(|&(byte, bit)| {
        bytes[byte] ^= 1 << bit;
        let fits = frame_size(&bytes).is_some();
        bytes[byte] ^= 1 << bit;
        fits
    })
}

fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// Whether a log or manifest in the database's directory has frames that RocksDB would not get past; `mend` has them
/// changed.
pub fn has_obstacles(database: &Path, mend: bool) -> io::Result<bool> {
    let mut any = false;
    for entry in fs::read_dir(database)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.ends_with(".log") || name.starts_with("MANIFEST-")) else {
            continue;
        };
        let path = database.join(name);
        let found = obstacles(&mut File::open(&path)?)?;
        any |= !found.is_empty();
        if mend && !found.is_empty() {
            let file = OpenOptions::new().write(true).open(&path)?;
            for (at, kind) in found {
                file.write_all_at(&[kind], at)?;
            }
            file.sync_all()?;
        }
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, content: &[u8]) -> Vec<u8> {
        let crc = mask(crc32c::crc32c(&[&[kind], content].concat()));
        let size = (content.len() as u16).to_le_bytes();
        [&crc.to_le_bytes()[..], &size, &[kind], content].concat()
    }

    #[test]
    fn a_type_is_given_back_where_the_checksum_tells_it() {
        let mut bytes = [frame(1, b"one"), frame(2, &[7; 40]), frame(4, b"three")].concat();
        assert_eq!(obstacles(&mut bytes.as_slice()).unwrap(), []);
        let second = HEADER + 3 + 6;
        bytes[second] ^= 4;
        assert_eq!(obstacles(&mut bytes.as_slice()).unwrap(), [(second as u64, 2)]);
        bytes[second + 9] ^= 1;
        assert_eq!(obstacles(&mut bytes.as_slice()).unwrap(), [(second as u64, UNKNOWN)]);
        bytes.truncate(second + 3);
        assert_eq!(obstacles(&mut bytes.as_slice()).unwrap(), [(second as u64, UNKNOWN)]);
    }

    #[test]
    fn each_single_bit_of_a_manifest_is_put_right() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("MANIFEST-000001");
        let good = [frame(1, b"one"), frame(1, &[7; 40]), frame(1, b"three")].concat();
        fs::write(&path, &good).unwrap();
        assert_eq!(check_manifest(&path, true).unwrap(), Manifest::Sound);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).unwrap();
            assert_eq!(check_manifest(&path, true).unwrap(), Manifest::Mended, "bit {bit}");
            assert!(fs::read(&path).unwrap() == good, "bit {bit}");
        }
        fs::write(&path, &good[..good.len() - 2]).unwrap();
        assert_eq!(check_manifest(&path, true).unwrap(), Manifest::Damaged);
    }

    #[test]
    fn later_blocks_are_looked_at_and_garbage_ends() {
        let mut bytes = frame(2, &vec![1; BLOCK - HEADER]);
        bytes.extend(frame(8, b"end"));
        assert_eq!(obstacles(&mut bytes.as_slice()).unwrap(), [(BLOCK as u64 + 6, UNKNOWN)]);
        assert!(obstacles(&mut [0xFFu8; 100_000].as_slice()).is_ok());
        assert_eq!(obstacles(&mut [0u8; 100_000].as_slice()).unwrap(), []);
    }

    /// Records of 300, of 5,000 and of 70,000 bytes, in frames as RocksDB makes them; and where the last begins.
    fn log() -> (Vec<u8>, usize) {
        let mut log = Vec::new();
        let mut last = 0;
        for (number, size) in [300, 5000, 70_000, 300, 5000, 40_000].into_iter().enumerate() {
            last = log.len();
            let record: Vec<u8> = (0..size).map(|at| (at * 7 + number + 1) as u8 | 1).collect();
            let mut rest = &record[..];
            loop {
                let mut room = BLOCK - log.len() % BLOCK;
                if room < HEADER {
                    log.resize(log.len() + room, 0);
                    room = BLOCK;
                }
                let (part, after) = rest.split_at(rest.len().min(room - HEADER));
                let kind = match (rest.len() == record.len(), after.is_empty()) {
                    (true, true) => FULL,
                    (true, false) => FIRST,
                    (false, true) => LAST,
                    (false, false) => 3,
                };
                log.extend(frame(kind, part));
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
        }
        (log, last)
    }

    #[test]
    fn a_log_is_torn_when_its_last_record_lacks_sectors() {
        let (log, last) = log();
        assert_eq!(end_of(&log), End::Whole);
        for sector in 0..log.len().div_ceil(SECTOR) {
            let range = sector * SECTOR..((sector + 1) * SECTOR).min(log.len());
            if range.contains(&last) {
                // The record before it has lost some too.
                continue;
            }
            let mut bad = log.clone();
            bad[range.clone()].fill(0);
            let expected = if range.start >= last { End::Torn } else { End::Damaged };
            assert_eq!(end_of(&bad), expected, "{range:?}, the last record begins at {last}");
            // And preallocated behind it.
            bad.resize(log.len() + 3 * BLOCK, 0);
            assert_eq!(end_of(&bad), expected, "{range:?}, the last record begins at {last}");
        }
        for end in (last..log.len()).step_by(997) {
            assert_ne!(end_of(&log[..end]), End::Damaged, "cut off at {end}");
        }
    }

    #[test]
    fn a_log_with_a_flipped_bit_is_not_torn() {
        let (log, _) = log();
        for bit in (0..log.len() * 8).step_by(1009) {
            let mut bad = log.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(end_of(&bad), End::Damaged, "bit {bit} of {}", log.len() * 8);
        }
    }
}
