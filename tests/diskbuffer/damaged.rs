//! Stores with flipped bits: the element starts, delivers what is right and nothing else, and what is missing shows.

use std::fs;
use std::path::{Path, PathBuf};

use gst::prelude::*;

use crate::common::*;

const FRAMES: u64 = 70;
const GOP: u64 = 10;
const SIZE: usize = 30_000;
/// Several extents.
const PROPERTIES: [(&str, &str); 2] = [("max-size-bytes", "8000000"), ("max-memory-bytes", "0")];

/// A store that holds all frames, as a killed process leaves it.
fn build(path: &Path, to: &Path) {
    let sink = Sink::default();
    sink.hold_after(0);
    let rig = Rig::with_sink(path, &PROPERTIES, sink);
    rig.start_stream("s", &h264_caps());
    (0..FRAMES).for_each(|i| rig.push(frame(i, GOP, SIZE)));
    let list =
        || files(path).into_iter().map(|file| (fs::metadata(&file).map_or(0, |m| m.len()), file)).collect::<Vec<_>>();
    // What is being written to files is there when nothing changes for a while.
    let mut before = list();
    until("the files rest", || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let now = list();
        std::mem::replace(&mut before, now.clone()) == now
    });
    copy_store(path, to);
}

/// Files in which damage can matter.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else if name != "ballast" && !name.starts_with("LO") && entry.metadata().is_ok_and(|meta| meta.len() > 0) {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Spreads `seed` over all bits.
fn mix(seed: u64) -> u64 {
    let x = (seed ^ (seed >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (x ^ (x >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) ^ (x >> 32)
}

/// Starts on the store, pushes one more frame, and checks what comes out. How many frames are missing.
fn open_and_check(what: &str, path: &Path) -> u64 {
    let rig = Rig::new(path, &PROPERTIES);
    rig.check_accounts();
    rig.start_stream("on", &h264_caps());
    rig.push(frame(1000, GOP, SIZE));
    rig.eos();
    rig.sink.wait_eos();
    until(&format!("{what}: all is counted"), || rig.stat("pending") == 0);
    rig.check_accounts();
    let buffers = rig.sink.buffers();
    for seen in &buffers {
        let expected = see(&frame(number(seen), GOP, SIZE));
        let same = seen.data.ends_with(&expected.data) && seen.data.len() <= expected.data.len() + 100;
        assert!(same && (seen.pts, seen.dts) == (expected.pts, expected.dts), "{what}: {} has changed", number(seen));
    }
    let numbers: Vec<_> = buffers.iter().map(number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{what}: order: {numbers:?}");
    assert_eq!(numbers.last(), Some(&1000), "{what}: what comes in goes on");
    let missing = FRAMES + 1 - numbers.len() as u64;
    let told = std::iter::from_fn(|| rig.bus.pop())
        .any(|message| message.structure().is_some_and(|s| s.name() == "diskbuffer-storage"));
    let counted = rig.stat("lost") + rig.stat("dropped");
    assert!(counted == missing || told, "{what}: {missing} missing, {counted} counted, nothing told");
    assert!(counted <= missing, "{what}: {missing} missing, {counted} counted");
    missing
}

#[test]
fn flipped_bits_never_come_out_and_what_they_cost_shows() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().join("base");
    build(&temp.path().join("live"), &base);
    let whole = temp.path().join("whole");
    copy_store(&base, &whole);
    assert_eq!(open_and_check("undamaged", &whole), 0);
    let files = files(&base);
    assert!(files.iter().filter(|file| file.extension().is_some_and(|e| e == "sst")).count() >= 1, "{files:?}");
    for (number, file) in files.iter().enumerate() {
        let name = file.strip_prefix(&base).unwrap();
        let (mut most, mut partial) = (0, 0);
        for place in 0..12 {
            let random = mix(1000 * number as u64 + place + 1);
            let copied = temp.path().join("copy");
            copy_store(&base, &copied);
            let mut bytes = fs::read(file).unwrap();
            let at = (random % bytes.len() as u64) as usize;
            bytes[at] ^= 1 << (random >> 61);
            fs::write(copied.join(name), &bytes).unwrap();
            let missing = open_and_check(&format!("{}, byte {at} of {}", name.display(), bytes.len()), &copied);
            most = most.max(missing);
            partial += u64::from(missing > 0);
            fs::remove_dir_all(&copied).unwrap();
        }
        println!("{}: {partial} of 12 with up to {most} missing", name.display());
    }
}

/// A store whose manifest is nonsense.
fn without_manifest(temp: &Path) -> PathBuf {
    let base = temp.join("base");
    build(&temp.join("live"), &base);
    let manifest = files(&base).into_iter().find(|file| file.to_string_lossy().contains("MANIFEST")).unwrap();
    fs::write(&manifest, (0..5000u64).map(|i| mix(i) as u8).collect::<Vec<_>>()).unwrap();
    base
}

#[test]
fn a_damaged_store_is_left_alone_when_it_is_not_to_be_salvaged() {
    let temp = tempfile::tempdir().unwrap();
    let base = without_manifest(temp.path());
    let properties = [&PROPERTIES[..], &[("recovery", "fail")]].concat();
    let rig = Rig::idle(Some(&base), &properties, Sink::default());
    assert!(rig.element.set_state(gst::State::Playing).is_err());
    let error = rig.bus.pop_filtered(&[gst::MessageType::Error]).expect("an error says why");
    let gst::MessageView::Error(error) = error.view() else { unreachable!() };
    println!("{} {:?}", error.error(), error.debug());
    assert!(error.error().to_string().contains(base.to_str().unwrap()), "{}", error.error());
    drop(rig);
    // It is all there for whoever wants it.
    assert_eq!(open_and_check("salvaged after all", &base), 0);
}

#[test]
fn a_damaged_store_can_be_begun_anew() {
    let temp = tempfile::tempdir().unwrap();
    let base = without_manifest(temp.path());
    let properties = [&PROPERTIES[..], &[("recovery", "reset")]].concat();
    let rig = Rig::new(&base, &properties);
    rig.start_stream("on", &h264_caps());
    (0..20).for_each(|i| rig.push(frame(i, GOP, SIZE)));
    rig.eos();
    rig.sink.wait_eos();
    assert_eq!(rig.sink.buffers().iter().map(number).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    assert_eq!(rig.message("diskbuffer-storage").get::<&str>("state"), Ok("damaged"));
    until("all is counted", || rig.stat("pending") == 0);
    rig.check_accounts();
}

#[test]
fn buffers_whose_stream_start_is_lost_are_left_out_and_counted() {
    let temp = tempfile::tempdir().unwrap();
    let (first, second) = (temp.path().join("first"), temp.path().join("second"));
    let sink = Sink::default();
    sink.hold_after(0);
    let rig = Rig::with_sink(&first, &[], sink);
    rig.start_stream("the needle", &h264_caps());
    (0..FRAMES).for_each(|i| rig.push(frame(i, GOP, SIZE)));
    copy_store(&first, &second);
    // RocksDB leaves out a block of its log with it, and goes on in the next one.
    let is_log = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
    let log = files(&second).into_iter().find(is_log).unwrap();
    let mut bytes = fs::read(&log).unwrap();
    let at = bytes.windows(10).position(|text| text == b"the needle").unwrap();
    bytes[at] ^= 1;
    fs::write(&log, bytes).unwrap();

    let rig = Rig::new(&second, &[]);
    rig.start_stream("after", &h264_caps());
    rig.push(frame(1000, GOP, SIZE));
    rig.eos();
    rig.sink.wait_eos();
    assert_eq!(rig.sink.buffers().iter().map(number).collect::<Vec<_>>(), [1000]);
    until("all is counted", || rig.stat("pending") == 0);
    rig.check_accounts();
    assert_eq!((rig.stat("lost"), rig.stat("delivered")), (FRAMES, 1));
}
