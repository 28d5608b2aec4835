//! The frames of RocksDB's log and manifest, looked at before RocksDB reads them.
//!
//! RocksDB 11.8 reads such a file for ever when a damaged frame calls itself of a recycled log in the midst of one that is
//! not: it reports the frame and does not step over it. One flipped bit in the type of a frame is enough. Logs are never
//! recycled here, so such frames are found by their type, and given the type back with which their checksum is right; or,
//! when there is none, one that has them passed over as any other damage.
//!
//! Frame: `CRC32C u32 LE, masked | length u16 LE | type u8 | content`, none across a block of 32 KiB.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;
/// Full, first, middle, last.
const PLAIN: std::ops::RangeInclusive<u8> = 1..=4;
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
            match file.read(&mut block[length..])? {
                0 => break,
                read => length += read,
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
    fn later_blocks_are_looked_at_and_garbage_ends() {
        let mut bytes = frame(2, &vec![1; BLOCK - HEADER]);
        bytes.extend(frame(8, b"end"));
        assert_eq!(obstacles(&mut bytes.as_slice()).unwrap(), [(BLOCK as u64 + 6, UNKNOWN)]);
        assert!(obstacles(&mut [0xFFu8; 100_000].as_slice()).is_ok());
        assert_eq!(obstacles(&mut [0u8; 100_000].as_slice()).unwrap(), []);
    }
}
