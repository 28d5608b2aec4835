//! The store against a plain list.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

mod age;
mod following;
mod giving_up;
mod leases;
mod many;
mod model;
mod playback;
mod seeking;

const SMALL: u64 = 8 << 20;

fn options() -> StoreOptions {
    // Memtables of 1 MiB: extents change often.
    StoreOptions {
        min_free_bytes: 1 << 20,
        limit_bytes: SMALL,
        lock_timeout: Duration::from_secs(5),
        ..Default::default()
    }
}

fn open(path: &Path) -> Stream {
    Store::open(path, &options()).unwrap().stream("default").unwrap()
}

pub fn buffer(sync: Sync) -> Body {
    Body::Buffer(BufferHeader { sync, ..Default::default() })
}

fn append(stream: &Stream, body: Body, payload: &[u8]) -> Sequence {
    let first = stream.end().sequence;
    stream.append(first, &[NewRecord { body, payload: &[payload], advance: 10 }]).unwrap();
    first
}

pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}

pub fn read_all(stream: &Stream, from: Sequence) -> Vec<Record> {
    let mut records = Vec::new();
    let mut at = from;
    loop {
        let chunk = match stream.read(at, 7, 100_000) {
            // It is being opened again.
            Err(StoreError::Away { .. }) => {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            read => read.unwrap(),
        };
        assert_eq!(chunk.damaged, Vec::<Sequence>::new());
        match chunk.next {
            Some(next) => at = next,
            None => return records,
        }
        records.extend(chunk.records);
    }
}

fn consume(stream: &Stream, position: Mark, resume: Sequence) {
    stream.set_cursor(CursorRecord { position: position.sequence, totals: position.totals, resume, ..stream.cursor() });
}

pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn records_survive_a_reopen_in_order() {
    let temp = tempfile::tempdir().unwrap();
    let stream = open(temp.path());
    for i in 0..100u64 {
        append(&stream, buffer(Sync::Closed), &noise(i, 50_000));
    }
    let before = read_all(&stream, 0);
    assert_eq!(before.len(), 100);
    assert!(stream.store().log().extents().len() > 3, "several extents");
    drop(stream);
    let stream = open(temp.path());
    assert_eq!(read_all(&stream, 0), before);
    assert_eq!(stream.end().totals, Totals { buffers: 100, bytes: 5_000_000, time: 1000 });
    assert_eq!(append(&stream, Body::Event, b"next"), 101, "an orderly end leaves no gap");
}

#[test]
fn a_position_is_not_used_twice_after_an_unclean_end() {
    let temp = tempfile::tempdir().unwrap();
    let stream = open(temp.path());
    append(&stream, Body::Event, b"one");
    crash(stream);
    let stream = open(temp.path());
    assert_eq!(append(&stream, Body::Event, b"two"), 2 + schema::UNCLEAN_GAP);
    let sequences: Vec<_> = read_all(&stream, 0).iter().map(|r| r.sequence).collect();
    assert_eq!(sequences, [1, 2 + schema::UNCLEAN_GAP]);
}

/// Of what is being stored, what was given up meanwhile changes the state after it, not before.
#[test]
fn state_does_not_change_before_its_time_when_it_is_given_up_while_it_is_being_stored() {
    let slot = Slot { rank: 1, name: String::new() };
    let change = |value: &'static [u8]| (slot.clone(), Clears::Nothing, value);
    for works in [true, false] {
        let temp = tempfile::tempdir().unwrap();
        let stream = open(temp.path());
        append(&stream, buffer(Sync::Closed), b"1");
        stream.give_out(8);
        for (at, value) in [(2, b"2"), (5, b"5"), (7, b"7")] {
            let (slot, clears, value) = change(value);
            stream.change_state(at, (&slot, &clears, value), Some(4));
        }
        let state_at = |at| stream.state_at(at).unwrap().into_values().next();
        assert_eq!(state_at(8), Some(b"7".to_vec()));
        if works {
            let body = Body::State { slot: slot.clone(), clears: Clears::Nothing };
            let record = |body, payload| NewRecord { body, payload, advance: 0 };
            let key = || buffer(Sync::Closed);
            stream.append(4, &[record(key(), &[b"4"]), record(body, &[b"5"]), record(key(), &[b"6"])]).unwrap();
            assert_eq!([4, 6].map(state_at), [Some(b"2".to_vec()), Some(b"5".to_vec())]);
        }
        assert_eq!(state_at(8), Some(b"7".to_vec()));
        append(&stream, buffer(Sync::Closed), b"8");
        let mut state = StateMap::new();
        let mut seen = Vec::new();
        for record in read_all(&stream, 0) {
            let (is_buffer, at) = (matches!(record.body, Body::Buffer(_)), record.sequence);
            log::apply_record(&mut state, record);
            if is_buffer {
                seen.push((at, state.values().next().map_or(0, |value| value[0])));
            }
        }
        let expected: &[_] = if works { &[(1, 0), (4, b'2'), (6, b'5'), (8, b'7')] } else { &[(1, 0), (8, b'7')] };
        assert_eq!(seen, expected);
    }
}

/// Where the disk is asked, something happens first.
struct Meanwhile<'a> {
    stream: &'a Stream,
    act: &'a dyn Fn(),
}

impl reader::Source for Meanwhile<'_> {
    fn db(&self) -> Result<handle::Guard<'_>, StoreError> {
        (self.act)();
        self.stream.log().db()
    }

    fn extents(&self) -> std::sync::RwLockReadGuard<'_, extents::Extents> {
        self.stream.log().extents()
    }

    fn failed(&self, source: rocksdb::Error) -> StoreError {
        self.stream.log().failed(source)
    }

    fn corrected(&self, arrival: Arrival) -> Option<(i64, bool)> {
        self.stream.log().time.corrected(arrival)
    }
}

#[test]
fn what_is_appended_while_it_is_read_is_read_next() {
    for switches in [false, true] {
        let temp = tempfile::tempdir().unwrap();
        let stream = open(temp.path());
        (0..10).for_each(|_| _ = append(&stream, buffer(Sync::Closed), b"frame"));
        stream.purge(6..11).unwrap();
        let act = || {
            if switches {
                stream.log().begin_next_extent().unwrap();
            }
            append(&stream, buffer(Sync::Closed), b"frame");
        };
        let source = Meanwhile { stream: &stream, act: &act };
        let view = reader::View { source: &source, stream: stream.parts().1 };
        // Behind the state with which the hole begins.
        let (mut at, mut seen) = (7, Vec::new());
        for _ in 0..20 {
            let chunk = view.read(at, 1, 1).unwrap();
            at = chunk.next.unwrap_or(chunk.end);
            seen.extend(chunk.records.iter().map(|record| record.sequence));
        }
        assert_eq!(seen, (11..11 + seen.len() as u64).collect::<Vec<_>>());
        assert!(seen.len() >= 19, "{seen:?}");
    }
}

/// Closes the files and does nothing else: what a killed process leaves.
pub fn crash(stream: Stream) {
    stream.store().log().abandoned.store(true, std::sync::atomic::Ordering::Relaxed);
}

#[test]
fn state_is_known_at_every_position() {
    let temp = tempfile::tempdir().unwrap();
    let stream = open(temp.path());
    let slot = |rank| Slot { rank, name: String::new() };
    let change = |rank, clears: &[u32]| Body::State { slot: slot(rank), clears: Clears::Ranks(clears.to_vec()) };
    append(&stream, change(1, &[]), b"start");
    append(&stream, change(2, &[]), b"caps a");
    for i in 0..40u64 {
        append(&stream, buffer(Sync::Closed), &noise(i, 60_000));
    }
    let middle = append(&stream, change(2, &[]), b"caps b");
    append(&stream, change(3, &[]), b"tags");
    for i in 0..40u64 {
        append(&stream, buffer(Sync::Closed), &noise(i, 60_000));
    }
    let second = append(&stream, change(1, &[3]), b"start 2");
    let values = |at| stream.state_at(at).unwrap().into_values().collect::<Vec<_>>();
    assert_eq!(values(1), Vec::<Vec<u8>>::new());
    assert_eq!(values(middle), [b"start".to_vec(), b"caps a".to_vec()]);
    assert_eq!(values(middle + 1), [b"start".to_vec(), b"caps b".to_vec()]);
    assert_eq!(values(second), [b"start".to_vec(), b"caps b".to_vec(), b"tags".to_vec()]);
    assert_eq!(values(second + 1), [b"start 2".to_vec(), b"caps b".to_vec()]);
    let seen = read_all(&stream, 1).into_iter().filter(|r| matches!(r.body, Body::State { .. })).count();
    assert_eq!(seen, 5, "changes are read at their place");
    drop(stream);
    let stream = open(temp.path());
    assert_eq!(stream.state().into_values().collect::<Vec<_>>(), [b"start 2".to_vec(), b"caps b".to_vec()]);
}

#[test]
fn consumed_data_leaves_the_disk() {
    let temp = tempfile::tempdir().unwrap();
    let stream = open(temp.path());
    for i in 0..600u64 {
        append(&stream, buffer(Sync::Closed), &noise(i, 60_000));
    }
    let full = stream.store().disk_bytes();
    assert!(full > 36_000_000, "{full}");
    consume(&stream, stream.end(), stream.end().sequence);
    until("dead extents are removed", || stream.store().disk_bytes() < 10_000_000);
    assert_eq!(read_all(&stream, 0), []);
}

#[test]
fn a_stalled_stream_does_not_pin_the_others() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path(), &options()).unwrap();
    let (stalled, flowing) = (store.stream("stalled").unwrap(), store.stream("flowing").unwrap());
    let mut expected = Vec::new();
    for i in 0..800u64 {
        append(&flowing, buffer(Sync::Closed), &noise(i, 60_000));
        if i % 20 == 0 {
            expected.push(noise(i, 1000));
            append(&stalled, buffer(Sync::Closed), &noise(i, 1000));
        }
    }
    consume(&flowing, flowing.end(), flowing.end().sequence);
    until("mostly dead extents are compacted", || store.disk_bytes() < 12_000_000);
    let rest: Vec<_> = read_all(&stalled, 0).into_iter().map(|r| r.payload.as_ref().to_vec()).collect();
    assert_eq!(rest, expected);
    consume(&stalled, stalled.end(), stalled.end().sequence);
    until("the compacted files are removed", || store.log().extents().len() == 1);
}

#[test]
fn a_healthy_stream_is_written_once() {
    let temp = tempfile::tempdir().unwrap();
    let stream = open(temp.path());
    for i in 0..1000u64 {
        append(&stream, buffer(Sync::Closed), &noise(i, 60_000));
        consume(&stream, stream.end(), stream.end().sequence);
    }
    let log = stream.store().log();
    let files: usize = log.db().unwrap().live_files().unwrap().iter().map(|f| f.size).sum();
    assert!(files < 1_000_000, "{files} bytes in files: consumed data was flushed");
}

#[test]
fn the_index_finds_sync_points() {
    let temp = tempfile::tempdir().unwrap();
    let stream = open(temp.path());
    let mut syncs = Vec::new();
    for i in 0..200u64 {
        let sync = if i % 50 == 0 { Sync::Closed } else { Sync::None };
        let at = append(&stream, buffer(sync), &noise(i, 40_000));
        if sync == Sync::Closed {
            syncs.push(at);
        }
    }
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((next, entry)) = stream.next_sync(at, |_| true).unwrap() {
        assert_eq!(entry.totals.buffers, next - 1);
        found.push(next);
        at = next;
    }
    assert_eq!(found, syncs, "two MiB apart: each has an entry");
    let far = stream.next_sync(0, |entry| entry.totals.bytes > 5_000_000).unwrap();
    assert_eq!(far.map(|f| f.0), Some(syncs[3]));
}

#[test]
fn a_stream_has_one_owner_and_a_store_one_setting() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path(), &options()).unwrap();
    let first = store.stream("a").unwrap();
    assert!(matches!(store.stream("a"), Err(StoreError::StreamInUse { .. })));
    drop(first);
    store.stream("a").unwrap();
    let other = StoreOptions { durability: Durability::None, ..options() };
    assert!(matches!(Store::open(temp.path(), &other), Err(StoreError::Conflict { .. })));
    let other = temp.path().join(".");
    Store::open(&other, &options()).unwrap().stream("b").unwrap();
}

#[test]
fn without_a_log_an_orderly_end_still_keeps_everything() {
    let temp = tempfile::tempdir().unwrap();
    let options = StoreOptions { durability: Durability::None, ..options() };
    let stream = Store::open(temp.path(), &options).unwrap().stream("default").unwrap();
    append(&stream, Body::Event, b"kept");
    drop(stream);
    let stream = Store::open(temp.path(), &options).unwrap().stream("default").unwrap();
    assert_eq!(read_all(&stream, 0).len(), 1);
}

#[test]
fn streams_are_written_from_many_threads() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path(), &options()).unwrap();
    std::thread::scope(|scope| {
        for t in 0..4u64 {
            let stream = store.stream(&format!("camera {t}")).unwrap();
            scope.spawn(move || {
                for i in 0..150u64 {
                    append(&stream, buffer(Sync::Closed), &noise(t * 1000 + i, 30_000));
                }
                let payloads: Vec<_> = read_all(&stream, 0).iter().map(|r| r.payload.as_ref().to_vec()).collect();
                let expected: Vec<_> = (0..150).map(|i| noise(t * 1000 + i, 30_000)).collect();
                assert!(payloads == expected);
            });
        }
    });
    assert!(store.log().extents().len() > 10);
}

#[test]
fn numbers_that_were_given_out_are_not_given_again() {
    let temp = tempfile::tempdir().unwrap();
    let stream = open(temp.path());
    append(&stream, Body::Event, b"stored");
    stream.give_out(5);
    drop(stream);
    assert_eq!(append(&open(temp.path()), Body::Event, b"next"), 5);
}

#[test]
fn sixty_four_extents_are_read_once() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path(), &options()).unwrap();
    let (slow, fast) = (store.stream("slow").unwrap(), store.stream("fast").unwrap());
    for i in 0..70u64 {
        append(&slow, buffer(Sync::Closed), &i.to_be_bytes());
        // An extent each.
        (0..6).for_each(|j| _ = append(&fast, buffer(Sync::Closed), &noise(i * 10 + j, 200_000)));
        let sequences: Vec<_> = read_all(&slow, 0).iter().map(|r| r.sequence).collect();
        assert_eq!(sequences, (1..=i + 1).collect::<Vec<_>>());
    }
    assert!(store.log().extents().len() > 64);
}

#[test]
fn a_reader_at_the_live_edge_misses_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let stream = open(temp.path());
    const COUNT: u64 = 20_000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..COUNT {
                let slot = Slot { rank: 1, name: String::new() };
                let body = if i % 2 == 0 { Body::Event } else { Body::State { slot, clears: Clears::Nothing } };
                append(&stream, body, &i.to_be_bytes());
            }
        });
        let mut next = 1;
        until("the reader comes to the end", || {
            for record in stream.read(next, 100, 1 << 20).unwrap().records {
                assert_eq!(record.sequence, next);
                next += 1;
            }
            next == COUNT + 1
        });
    });
}

#[test]
fn changes_of_state_are_read_at_their_place_where_there_were_none_before() {
    let temp = tempfile::tempdir().unwrap();
    let stream = open(temp.path());
    let mut next = 1;
    let mut ahead = |stream: &Stream, records: usize| {
        for record in stream.read(next, records, 1 << 20).unwrap().records {
            assert_eq!(record.sequence, next);
            next += 1;
        }
        next
    };
    // About an extent in all, so that a reader comes by the same place again and again.
    for i in 0..60u64 {
        for j in 0..i % 4 {
            append(&stream, buffer(Sync::Closed), &noise(i * 4 + j, 20_000));
        }
        ahead(&stream, 1 + i as usize % 5);
        let slot = Slot { rank: 1, name: String::new() };
        append(&stream, Body::State { slot, clears: Clears::Nothing }, &i.to_be_bytes());
        ahead(&stream, 1 + i as usize % 3);
    }
    let end = stream.end().sequence;
    until("the reader comes to the end", || ahead(&stream, 1) == end);
    let all: Vec<_> = read_all(&stream, 1).iter().map(|record| record.sequence).collect();
    assert_eq!(all, (1..end).collect::<Vec<_>>());
}

#[test]
fn merged_files_of_dead_extents_go_and_live_ones_stay_over_a_reopen() {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(temp.path(), &options()).unwrap();
    let (stalled, flowing) = (store.stream("stalled").unwrap(), store.stream("flowing").unwrap());
    let mut expected = Vec::new();
    for i in 0..400u64 {
        append(&flowing, buffer(Sync::Closed), &noise(i, 60_000));
        if i % 13 == 0 {
            expected.push(append(&stalled, buffer(Sync::Closed), &noise(i, 1000)));
            consume(&flowing, flowing.end(), flowing.end().sequence);
        }
    }
    until("mostly dead extents are compacted", || store.disk_bytes() < 12_000_000);
    drop((stalled, flowing, store));
    let store = Store::open(temp.path(), &options()).unwrap();
    let stalled = store.stream("stalled").unwrap();
    assert_eq!(read_all(&stalled, 0).iter().map(|r| r.sequence).collect::<Vec<_>>(), expected);
    let flowing = store.stream("flowing").unwrap();
    consume(&flowing, flowing.end(), flowing.end().sequence);
    consume(&stalled, stalled.end(), stalled.end().sequence);
    until("all but the newest extent is gone", || {
        let newest = store.log().extents().newest().unwrap();
        let old = |key: &Option<Vec<u8>>| schema::parse(key.as_deref().unwrap()).unwrap().0 < newest;
        store.log().extents().len() == 1
            && !store.log().db().unwrap().live_files().unwrap().iter().any(|f| old(&f.start_key))
    });
}

#[test]
fn a_crash_without_a_log_loses_no_numbers_and_no_cursor() {
    let temp = tempfile::tempdir().unwrap();
    let options = StoreOptions { durability: Durability::None, ..options() };
    let open = || Store::open(temp.path(), &options).unwrap().stream("default").unwrap();
    let stream = open();
    for i in 0..100u64 {
        append(&stream, buffer(Sync::Closed), &noise(i, 60_000));
    }
    let end = stream.end();
    consume(&stream, end, end.sequence);
    assert!(stream.save_cursor());
    crash(stream);
    let stream = open();
    assert_eq!(stream.cursor().position, end.sequence);
    assert!(append(&stream, Body::Event, b"next") >= end.sequence);
}

#[derive(Debug, Clone)]
enum Step {
    Append { len: usize, count: usize },
    State(u32),
    Consume { part: f64, back: u64 },
    Save,
    Reopen,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..200_000usize, 1..4usize).prop_map(|(len, count)| Step::Append { len, count }),
        2 => (1..4u32).prop_map(Step::State),
        3 => (0.0..1.0f64, 0..5u64).prop_map(|(part, back)| Step::Consume { part, back }),
        1 => Just(Step::Save),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Append, read, trim, reopen and crash against a map of what must be there.
    #[test]
    fn the_store_agrees_with_a_list(steps in steps()) {
        let temp = tempfile::tempdir().unwrap();
        let mut stream = open(temp.path());
        let mut list: BTreeMap<Sequence, Vec<u8>> = BTreeMap::new();
        let mut state: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        for (seed, step) in steps.into_iter().enumerate() {
            let seed = seed as u64;
            match step {
                Step::Append { len, count } => {
                    let payloads: Vec<_> = (0..count).map(|i| noise(seed * 10 + i as u64, len)).collect();
                    let halves: Vec<_> = payloads.iter().map(|p| { let (a, b) = p.split_at(len / 3); [a, b] }).collect();
                    let records: Vec<_> = halves
                        .iter()
                        .map(|parts| NewRecord { body: buffer(Sync::Closed), payload: parts, advance: 1 })
                        .collect();
                    let first = stream.end().sequence;
                    stream.append(first, &records).unwrap();
                    for (i, payload) in payloads.into_iter().enumerate() {
                        list.insert(first + i as u64, payload);
                    }
                }
                Step::State(rank) => {
                    let value = seed.to_le_bytes().to_vec();
                    let slot = Slot { rank, name: String::new() };
                    let at = append(&stream, Body::State { slot, clears: Clears::Nothing }, &value);
                    list.insert(at, value.clone());
                    state.insert(rank, value);
                }
                Step::Consume { part, back } => {
                    let cursor = stream.cursor();
                    let open: Vec<_> = list.keys().copied().filter(|s| *s >= cursor.position).collect();
                    let Some(&position) = open.get((part * open.len() as f64) as usize) else { continue };
                    let resume = position.saturating_sub(back).max(cursor.resume);
                    consume(&stream, Mark { sequence: position, totals: cursor.totals }, resume);
                }
                Step::Save => assert!(stream.save_cursor()),
                Step::Reopen => {
                    drop(stream);
                    stream = open(temp.path());
                }
                Step::Crash => {
                    assert!(stream.save_cursor());
                    crash(stream);
                    stream = open(temp.path());
                }
            }
            let resume = stream.cursor().resume;
            let found: Vec<_> =
                read_all(&stream, 0).into_iter().map(|r| (r.sequence, r.payload.as_ref().to_vec())).collect();
            let expected: Vec<_> = list.range(resume..).map(|(s, p)| (*s, p.clone())).collect();
            prop_assert!(found == expected, "{:?} != {:?}",
                found.iter().map(|f| f.0).collect::<Vec<_>>(), expected.iter().map(|f| f.0).collect::<Vec<_>>());
            prop_assert_eq!(
                stream.state_at(Sequence::MAX).unwrap().into_iter().map(|(s, v)| (s.rank, v)).collect::<BTreeMap<_, _>>(),
                state.clone()
            );
        }
    }
}
