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
//! Frame: `CRC32C u32 LE, masked | length u16 LE | type u8 | content`, none across a block of 32 KiB.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;
/// Full, first, middle, last.
const PLAIN: std::ops::RangeInclusive<u8> = 1..=4;
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
}
