//! Damaged stores: every one opens with what is readable or says why not, and what is missing is told.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::tests::{buffer, crash, noise, read_all, until};
use super::*;

const RECORDS: u64 = 70;
const SIZE: usize = 30_000;

fn options() -> StoreOptions {
    StoreOptions {
        min_free_bytes: 1 << 20,
        limit_bytes: 8 << 20,
        lock_timeout: Duration::from_secs(5),
        ..StoreOptions::default()
    }
}

fn seed(stream: &str, sequence: Sequence) -> u64 {
    sequence + 1000 * stream.len() as u64
}

/// A store of several extents and two streams, as a killed process leaves it.
fn build(path: &Path) {
    let store = Store::open(path, &options()).unwrap();
    let (north, gate) = (store.stream("north").unwrap(), store.stream("gate 2").unwrap());
    for stream in [&north, &gate] {
        let slot = Slot { rank: 1, name: String::new() };
        let caps = NewRecord { body: Body::State { slot, clears: Clears::Nothing }, payload: &[b"caps"], advance: 0 };
        stream.append(1, &[caps]).unwrap();
    }
    for at in 2..RECORDS + 2 {
        for (stream, size) in [(&north, SIZE), (&gate, SIZE / 10)] {
            let payload = noise(seed(stream.name(), at), size);
            stream.append(at, &[NewRecord { body: buffer(Sync::Closed), payload: &[&payload], advance: 1 }]).unwrap();
        }
    }
    let waiting = || store.log().db().unwrap().property_int_value("rocksdb.num-immutable-mem-table").unwrap();
    until("what is full is in files", || waiting() == Some(0));
    store.log().save_high_water();
    store.log().save_high_water();
    assert!(store.log().extents().len() >= 3);
    drop((gate, store));
    crash(north);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().unwrap().is_dir() {
            true => copy(&path, &target),
            false if entry.file_name() == "ballast" => {}
            false => _ = fs::copy(&path, &target).unwrap(),
        }
    }
}

/// Files in which damage can matter.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else if name != "ballast" && !name.starts_with("LO") && entry.metadata().unwrap().len() > 0 {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// What a stream gives: all that is read is right, all that is missing shows in the sums, and is told. How much is missing.
fn check(store: &Store, name: &str, size: usize, told: &mut bool) -> u64 {
    let stream = store.stream(name).unwrap();
    *told |= !stream.take_incidents().is_empty();
    let mut last = Mark::default();
    let (mut read, mut gaps, mut at) = (0, 0, 0);
    loop {
        let chunk = stream.read(at, 50, 1 << 20).unwrap();
        *told |= !chunk.damaged.is_empty() || !chunk.unreadable.is_empty();
        for record in &chunk.records {
            assert!(record.sequence >= last.sequence, "{name}: order");
            gaps += record.before.since(last.totals).buffers;
            last = Mark { sequence: record.sequence + 1, totals: record.after() };
            match record.body {
                Body::Buffer(_) => {
                    assert!(record.payload.as_ref() == noise(seed(name, record.sequence), size), "{name}: wrong bytes");
                    read += 1;
                }
                _ => assert!(record.payload.as_ref() == b"caps"),
            }
        }
        match chunk.next {
            Some(next) => at = next,
            None => break,
        }
    }
    let end = stream.end();
    gaps += end.totals.since(last.totals).buffers;
    assert_eq!(end.totals.buffers, RECORDS, "{name}: the sums know all that was stored");
    assert_eq!(read + gaps, RECORDS, "{name}: read and missing");
    assert!(end.sequence > RECORDS + 1, "{name}: no number is given twice");
    let state = stream.state_at(end.sequence).unwrap();
    assert!(state.values().all(|value| value == b"caps"), "{name}: state");
    gaps
}

enum Outcome {
    Missing(u64),
    Refused(String),
}

fn open_and_check(path: &Path, what: &str) -> Outcome {
    let store = match Store::open(path, &options()) {
        Ok(store) => store,
        Err(err) => return Outcome::Refused(err.to_string()),
    };
    let mut told = false;
    let missing = check(&store, "north", SIZE, &mut told) + check(&store, "gate 2", SIZE / 10, &mut told);
    assert!(missing == 0 || told, "{what}: {missing} are missing and nobody knows");
    let stream = store.stream("north").unwrap();
    let first = stream.end().sequence;
    stream.append(first, &[NewRecord { body: Body::Event, payload: &[b"on"], advance: 0 }]).unwrap();
    assert_eq!(stream.read(first, 1, 1).unwrap().records.len(), 1, "{what}: writing goes on");
    Outcome::Missing(missing)
}

fn flip_bits(places: u64) {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().join("base");
    build(&base);
    let mut results: BTreeMap<String, (u64, u64, u64, u64)> = BTreeMap::new();
    for (number, file) in files(&base).into_iter().enumerate() {
        let name = file.strip_prefix(&base).unwrap().display().to_string();
        let length = fs::metadata(&file).unwrap().len();
        for place in 0..places {
            let random = noise(number as u64 * 10_000 + place + 1, 9);
            let at = u64::from_le_bytes(random[..8].try_into().unwrap()) % length;
            let copied = temp.path().join("copy");
            copy(&base, &copied);
            let target = copied.join(&name);
            let mut bytes = fs::read(&target).unwrap();
            bytes[at as usize] ^= 1 << (random[8] & 7);
            fs::write(&target, bytes).unwrap();
            let what = format!("{name}, byte {at} of {length}");
            eprintln!("{what}");
            let result = results.entry(name.clone()).or_default();
            match open_and_check(&copied, &what) {
                Outcome::Missing(0) => result.0 += 1,
                Outcome::Missing(missing) => {
                    result.1 += 1;
                    result.2 = result.2.max(missing);
                }
                Outcome::Refused(error) => {
                    eprintln!("{what}: {error}");
                    result.3 += 1;
                }
            }
            fs::remove_dir_all(&copied).unwrap();
        }
    }
    for (name, (whole, partial, most, refused)) in results {
        println!("{name}: {whole} whole, {partial} with up to {most} missing, {refused} refused");
        assert_eq!(refused, 0, "{name}");
    }
}

/// What a reader beside the writer gets of a damaged store: how much is missing, or why it gets nothing.
fn read_beside(path: &Path, what: &str) -> Result<u64, StoreError> {
    let mut missing = 0;
    for (name, size) in [("north", SIZE), ("gate 2", SIZE / 10)] {
        let reader = StreamReader::open(path, Some(name), &ReaderOptions::default())?;
        let (mut told, mut gaps, mut last) = (false, 0, Mark::default());
        let mut at = Some(reader.first());
        while let Some(next) = at {
            let chunk = reader.read(next, 50, 1 << 20)?;
            told |= !chunk.damaged.is_empty() || !chunk.unreadable.is_empty();
            for record in chunk.records {
                assert!(record.sequence >= last.sequence, "{what}: order");
                gaps += record.before.since(last.totals).buffers;
                last = Mark { sequence: record.sequence + 1, totals: record.after() };
                let right = match record.body {
                    Body::Buffer(_) => noise(seed(name, record.sequence), size),
                    _ => b"caps".to_vec(),
                };
                assert!(record.payload.as_ref() == right, "{what}: wrong bytes");
            }
            at = chunk.next;
        }
        assert!(gaps == 0 || told, "{what}: {gaps} are missing and nobody knows");
        for point in [reader.sync_at_or_before(u64::MAX)?, reader.sync_at_or_before_time(i64::MAX)?] {
            assert!(point.is_none_or(|point| point.sequence < last.sequence), "{what}");
        }
        missing += RECORDS - last.totals.buffers + gaps;
    }
    Ok(missing)
}

#[test]
fn who_reads_a_damaged_store_gets_what_is_right_and_leaves_it_alone() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().join("base");
    build(&base);
    assert_eq!(read_beside(&base, "whole").unwrap(), 0);
    let mut partial = 0;
    for (number, file) in files(&base).into_iter().enumerate() {
        let name = file.strip_prefix(&base).unwrap().display().to_string();
        for place in 0..6 {
            let random = noise(number as u64 * 10_000 + place + 1, 9);
            let copied = temp.path().join("copy");
            copy(&base, &copied);
            let mut bytes = fs::read(&file).unwrap();
            let at = u64::from_le_bytes(random[..8].try_into().unwrap()) as usize % bytes.len();
            bytes[at] ^= 1 << (random[8] & 7);
            fs::write(copied.join(&name), &bytes).unwrap();
            match read_beside(&copied, &format!("{name}, byte {at} of {}", bytes.len())) {
                Ok(missing) => partial += u64::from(missing > 0),
                Err(error) => assert!(!name.ends_with(".sst") && name != "HIGHWATER", "{name}, byte {at}: {error}"),
            }
            assert!(fs::read(copied.join(&name)).unwrap() == bytes, "{name} was changed");
            fs::remove_dir_all(&copied).unwrap();
        }
    }
    assert!(partial > 0, "some of it was hit");
}

#[test]
fn a_flipped_bit_costs_little_and_is_told() {
    flip_bits(5);
}

#[test]
#[ignore = "takes a minute"]
fn two_hundred_flipped_bits_in_each_file_cost_little_and_are_told() {
    flip_bits(200);
}

/// The bits of which RocksDB 11.8 reads the file for ever.
#[test]
fn a_frame_of_a_recycled_log_is_got_past() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().join("base");
    build(&base);
    for kind in ["MANIFEST", ".log"] {
        let name = files(&base).into_iter().find(|file| file.to_string_lossy().contains(kind)).unwrap();
        let name = name.strip_prefix(&base).unwrap();
        let copied = temp.path().join(kind);
        copy(&base, &copied);
        let mut bytes = fs::read(copied.join(name)).unwrap();
        // The type in the second frame.
        let at = 7 + usize::from(u16::from_le_bytes([bytes[4], bytes[5]])) + 6;
        bytes[at] ^= 4;
        fs::write(copied.join(name), bytes).unwrap();
        let strict = StoreOptions { recovery: RecoveryMode::Fail, ..options() };
        assert!(matches!(Store::open(&copied, &strict), Err(StoreError::Damaged { .. })));
        assert!(matches!(open_and_check(&copied, kind), Outcome::Missing(0)), "the checksum tells the type");
    }
}

#[test]
fn a_log_cut_off_anywhere_loses_its_end_only() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().join("base");
    build(&base);
    let log = files(&base).into_iter().rfind(|file| file.extension().is_some_and(|e| e == "log")).unwrap();
    let (name, length) = (log.strip_prefix(&base).unwrap().to_owned(), fs::metadata(&log).unwrap().len());
    let mut lost = Vec::new();
    for step in 0..24 {
        let copied = temp.path().join("copy");
        copy(&base, &copied);
        let cut = length * step / 24 + step;
        fs::OpenOptions::new().write(true).open(copied.join(&name)).unwrap().set_len(cut).unwrap();
        match open_and_check(&copied, &format!("cut at {cut}")) {
            Outcome::Missing(missing) => lost.push(missing),
            Outcome::Refused(error) => panic!("{error}"),
        }
        fs::remove_dir_all(&copied).unwrap();
    }
    assert!(lost.is_sorted_by(|a, b| a >= b) && lost[0] > 0, "{lost:?}");
}

/// Opens after `damage` in each mode.
fn modes(damage: impl Fn(&Path), whole: bool) {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().join("base");
    build(&base);
    let prepare = |name: &str| {
        let copied = temp.path().join(name);
        copy(&base, &copied);
        damage(&copied);
        copied
    };
    let fail = prepare("fail");
    let before: Vec<_> = files(&fail).into_iter().map(|file| (fs::read(&file).unwrap(), file)).collect();
    let strict = StoreOptions { recovery: RecoveryMode::Fail, ..options() };
    let error = Store::open(&fail, &strict).err().expect("it is refused").to_string();
    assert!(error.contains(fail.to_str().unwrap()), "{error}");
    let kept = |(bytes, file): &(Vec<u8>, PathBuf)| fs::read(file).is_ok_and(|found| found == *bytes);
    let content = before.iter().filter(|(_, file)| file.extension().is_some_and(|e| e == "sst"));
    assert!(content.clone().all(kept), "left as it is");
    match open_and_check(&prepare("salvage"), "salvage") {
        Outcome::Missing(missing) => assert_eq!(missing == 0, whole, "{missing} are missing"),
        Outcome::Refused(error) => panic!("{error}"),
    }
    let reset = StoreOptions { recovery: RecoveryMode::Reset, ..options() };
    let store = Store::open(&prepare("reset"), &reset).unwrap();
    let stream = store.stream("north").unwrap();
    assert!(!stream.take_incidents().is_empty());
    assert!(stream.end().sequence > RECORDS, "numbers go on");
}

#[test]
fn a_stream_with_nothing_in_an_extent_outlives_the_head_of_that() {
    let temp = tempfile::tempdir().unwrap();
    build(temp.path());
    // Another extent, in which the one stream goes on and the other does not.
    let north = Store::open(temp.path(), &options()).unwrap().stream("north").unwrap();
    let at = north.end().sequence;
    let payload = noise(seed("north", at), SIZE);
    north.append(at, &[NewRecord { body: buffer(Sync::Closed), payload: &[&payload], advance: 1 }]).unwrap();
    crash(north);
    let db = rocksdb::DB::open_default(temp.path().join("db")).unwrap();
    let keys: Vec<_> = db.iterator(rocksdb::IteratorMode::Start).map(|item| item.unwrap().0).collect();
    let newest = schema::parse(keys.last().unwrap()).unwrap().0;
    let head = |key: &[u8]| matches!(schema::parse(key), Some((extent, schema::Lane::Meta, _)) if extent == newest);
    keys.iter().filter(|key| head(key)).for_each(|key| db.delete(key).unwrap());
    drop(db);

    let store = Store::open(temp.path(), &options()).unwrap();
    let gate = store.stream("gate 2").unwrap();
    assert!(!gate.take_incidents().is_empty());
    let found = read_all(&gate, 0);
    assert_eq!(found.iter().filter(|record| matches!(record.body, Body::Buffer(_))).count() as u64, RECORDS);
    // And still when the thread that removes files has looked.
    assert!(gate.save_cursor());
    assert_eq!(read_all(&gate, 0).len(), found.len());
    drop((gate, store));
}

#[test]
fn a_missing_current_file_is_made_up_for() {
    modes(|path| fs::remove_file(path.join("db/CURRENT")).unwrap(), true);
}

fn manifest(path: &Path) -> PathBuf {
    files(path).into_iter().find(|file| file.to_string_lossy().contains("MANIFEST")).unwrap()
}

#[test]
fn a_missing_manifest_is_made_up_for() {
    modes(|path| fs::remove_file(manifest(path)).unwrap(), true);
}

#[test]
fn a_manifest_of_nonsense_is_made_up_for() {
    modes(|path| fs::write(manifest(path), noise(7, 5000)).unwrap(), true);
}

#[test]
fn a_missing_table_costs_what_was_in_it() {
    let damage = |path: &Path| {
        let table = files(path).into_iter().find(|file| file.extension().is_some_and(|e| e == "sst"));
        fs::remove_file(table.unwrap()).unwrap();
    };
    modes(damage, false);
}

#[test]
fn a_database_that_is_gone_leaves_numbers_and_sums() {
    let temp = tempfile::tempdir().unwrap();
    build(temp.path());
    fs::remove_dir_all(temp.path().join("db")).unwrap();
    match open_and_check(temp.path(), "no database") {
        Outcome::Missing(missing) => assert_eq!(missing, 2 * RECORDS),
        Outcome::Refused(error) => panic!("{error}"),
    }
}

#[test]
fn a_newer_format_is_set_aside_untouched() {
    let temp = tempfile::tempdir().unwrap();
    build(temp.path());
    let tables = |path: &Path| files(path).into_iter().filter(|f| f.extension().is_some_and(|e| e == "sst")).count();
    let before = tables(&temp.path().join("db"));
    fs::write(temp.path().join("FORMAT"), "gst-streambuffer-store\nversion=9\n").unwrap();
    let strict = StoreOptions { recovery: RecoveryMode::Fail, ..options() };
    assert!(matches!(Store::open(temp.path(), &strict), Err(StoreError::NewerFormat { .. })));
    let store = Store::open(temp.path(), &options()).unwrap();
    let stream = store.stream("north").unwrap();
    let told = stream.take_incidents();
    assert!(told.iter().any(|incident| incident.reason.contains("aside")), "{told:?}");
    assert_eq!(stream.end().totals, Totals::default());
    let aside: Vec<_> = fs::read_dir(temp.path().join("aside")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(aside.len(), 1);
    assert!(tables(&aside[0]) == before);
}

#[test]
fn a_damaged_or_missing_format_is_written_again() {
    for content in [Some("gst-streambuffer-store\nversion=3\ncheck=00000000\n"), Some(""), None] {
        let temp = tempfile::tempdir().unwrap();
        build(temp.path());
        match content {
            Some(content) => fs::write(temp.path().join("FORMAT"), content).unwrap(),
            None => fs::remove_file(temp.path().join("FORMAT")).unwrap(),
        }
        let strict = StoreOptions { recovery: RecoveryMode::Fail, ..options() };
        assert!(matches!(Store::open(temp.path(), &strict), Err(StoreError::Format { .. })));
        assert!(matches!(open_and_check(temp.path(), "format"), Outcome::Missing(0)));
        drop(Store::open(temp.path(), &strict).unwrap());
    }
}
