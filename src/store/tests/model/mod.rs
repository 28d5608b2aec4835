//! Random programs against a plain model of a store: several streams, consumers, limits, openings after orderly and other ends.
//!
//! Whatever the program does, and after each of its steps: what was accepted and not given up is there, in order, bit for bit,
//! once; its sums follow each other without a gap and add up; the state in force is known at every position; the cursor is one
//! that was set since it was last saved; numbers are never used twice; what was delivered goes and stays as retention, limits
//! and leases say; consumers are given no gap but what a limit took, and are told how much that was.
//!
//! An end that is not orderly is a store that is dropped without being closed, or a copy of its directory that is taken while
//! it is open, and while its streams are being written. A full disk is one that refuses to write, in a process of its own.

use std::ops::Range;
use std::path::PathBuf;

use super::*;

mod camera;
#[path = "../../../../tests/shared/image.rs"]
mod image;
#[path = "../../../../tests/shared/programs.rs"]
mod programs;
mod viewer;
mod world;

use world::World;

#[derive(Debug, Clone, Copy)]
struct Setup {
    durability: Durability,
    streams: usize,
}

#[derive(Debug, Clone)]
enum Step {
    /// So many records of so many bytes, with a sync point every `gop`; as one, or each by itself.
    Append {
        stream: u8,
        count: usize,
        len: usize,
        gop: usize,
        batch: bool,
    },
    Event(u8),
    State {
        stream: u8,
        rank: u32,
        clears: u8,
        empty: bool,
    },
    GiveOut {
        stream: u8,
        count: u64,
    },
    Deliver {
        stream: u8,
        count: usize,
    },
    /// Gives up what is pending, up to a part of it.
    Drop(u8, f64),
    Expire(u8),
    Thin(u8, u64),
    Purge(u8, f64, f64),
    Retain(u8, Retention),
    /// So many seconds pass.
    Pass(u64),
    /// The file system has so much above the floor.
    Low(u64),
    Save,
    /// Limits are kept.
    Settle,
    /// Another one takes the stream.
    Retake(u8),
    Reopen,
    Crash,
    Copy,
    /// While so many records go into each stream.
    CopyBusy(usize),
    Watch {
        viewer: u8,
        stream: u8,
    },
    Look {
        viewer: u8,
        count: usize,
        renew: bool,
    },
    Leave(u8),
    Forget(u8),
    /// The disk is full, where that can be had.
    Fill,
    Free,
}

fn setup() -> impl Strategy<Value = Setup> {
    let durability = prop_oneof![
        6 => Just(Durability::Crash),
        1 => Just(Durability::Interval),
        1 => Just(Durability::Power),
    ];
    (durability, 1..4usize).prop_map(|(durability, streams)| Setup { durability, streams })
}

fn retention() -> impl Strategy<Value = Retention> {
    let time = prop_oneof![Just(0u64), 1..20u64, Just(1_000_000)];
    let bytes = prop_oneof![2 => Just(0u64), 1 => 1..3_000_000u64];
    let total = prop_oneof![3 => Just(0u64), 1 => 1..5_000_000u64];
    let age = prop_oneof![3 => Just(0u64), 1 => 1..30u64];
    (time, bytes, total, age).prop_map(|(time, bytes, total_bytes, age)| {
        let (time, max_age) = (Duration::from_secs(time), Duration::from_secs(age));
        Retention { time, bytes, total_bytes, max_age }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let stream = || 0..3u8;
    // Memtables are 1 MiB.
    let len = prop_oneof![2 => 0..100usize, 8 => 0..30_000usize, 4 => 0..200_000usize, 1 => 0..3_500_000usize];
    prop_oneof![
        12 => (stream(), 1..25usize, len, 1..12usize, any::<bool>()).prop_map(|(stream, count, len, gop, batch)| {
            Step::Append { stream, count: if len > 200_000 { 1 } else { count }, len, gop, batch }
        }),
        2 => stream().prop_map(Step::Event),
        4 => (stream(), 1..5u32, 0..6u8, any::<bool>())
            .prop_map(|(stream, rank, clears, empty)| Step::State { stream, rank, clears, empty }),
        1 => (stream(), 1..5u64).prop_map(|(stream, count)| Step::GiveOut { stream, count }),
        7 => (stream(), 0..60usize).prop_map(|(stream, count)| Step::Deliver { stream, count }),
        2 => (stream(), 0.0..0.7f64).prop_map(|(stream, part)| Step::Drop(stream, part)),
        2 => stream().prop_map(Step::Expire),
        2 => (stream(), 1..40u64).prop_map(|(stream, buffers)| Step::Thin(stream, buffers)),
        2 => (stream(), 0.0..1.0f64, 0.0..0.4f64).prop_map(|(stream, from, part)| Step::Purge(stream, from, part)),
        2 => (stream(), retention()).prop_map(|(stream, retention)| Step::Retain(stream, retention)),
        2 => (1..20u64).prop_map(Step::Pass),
        1 => (4_000_000..20_000_000u64).prop_map(Step::Low),
        1 => Just(Step::Save),
        1 => Just(Step::Settle),
        1 => stream().prop_map(Step::Retake),
        2 => Just(Step::Reopen),
        2 => Just(Step::Crash),
        2 => Just(Step::Copy),
        1 => (5..40usize).prop_map(Step::CopyBusy),
        3 => (0..3u8, stream()).prop_map(|(viewer, stream)| Step::Watch { viewer, stream }),
        5 => (0..3u8, 1..80usize, any::<bool>())
            .prop_map(|(viewer, count, renew)| Step::Look { viewer, count, renew }),
        1 => (0..3u8).prop_map(Step::Leave),
        1 => (0..3u8).prop_map(Step::Forget),
        1 => Just(Step::Fill),
        1 => Just(Step::Free),
    ]
}

fn run(setup: Setup, steps: &[Step]) {
    let temp = tempfile::tempdir().unwrap();
    // Made full in a process with a shim only.
    let control = std::env::var_os(programs::CONTROL).map(PathBuf::from);
    let root = match std::env::var_os(programs::DISK) {
        Some(disk) => Path::new(&disk).join(temp.path().file_name().unwrap()),
        None => temp.path().join("disk"),
    };
    let mut world = World::new(&root, temp.path().join("aside"), setup, control);
    steps.iter().for_each(|step| world.step(step));
    world.finish();
    let _ = std::fs::remove_dir_all(&root);
}

fn explore(seeds: Range<u64>, programs: u32, length: usize) {
    let strategy = || (setup(), proptest::collection::vec(step(), 1..length));
    programs::explore(seeds, programs, 400, strategy, |(setup, steps)| run(setup, &steps));
}

/// Not a test by itself.
#[test]
fn on_a_disk_that_fills_up() {
    let Some((seeds, count)) = programs::asked_for() else { return };
    // All of them share the disk.
    explore(seeds, count, 40);
    programs::all_well();
}

fn explore_full(seed: u64, programs: u32) {
    let build = super::super::fault_tests::shim::build;
    programs::on_a_full_disk("store::tests::model::on_a_disk_that_fills_up", build, seed, programs);
}

#[test]
fn random_programs_do_as_the_model() {
    explore(0..2, 10, 40);
}

#[test]
fn random_programs_do_as_the_model_on_a_disk_that_fills_up() {
    explore_full(0, 6);
}

/// A cursor or clock that was written beside a batch larger than a memtable stands in a file of its own, which may be removed
/// after that of its extent.
#[test]
fn a_removal_that_left_a_part_of_a_head_is_no_damage() {
    let temp = tempfile::tempdir().unwrap();
    let options = StoreOptions { recovery: RecoveryMode::Fail, ..options() };
    let open = || Store::open(temp.path(), &options).unwrap().stream("default").unwrap();
    let stream = open();
    (0..60).for_each(|i| _ = append(&stream, buffer(Sync::Closed), &noise(i, 60_000)));
    consume(&stream, stream.end(), stream.end().sequence);
    let log = stream.store().log();
    until("all but the newest extent is gone", || log.extents().len() == 1);
    let mut batch = rocksdb::WriteBatch::default();
    log.put_clock(&mut batch, 1);
    log.db().unwrap().write(batch).unwrap();
    let end = append(&stream, buffer(Sync::Closed), b"last") + 1;
    drop(stream);
    let stream = open();
    assert_eq!(stream.take_incidents().len(), 0);
    assert_eq!((stream.end().sequence, read_all(&stream, 0).len()), (end, 1));
}

/// One stream has nothing in the extent, of another it was thinned; what they wait with lies before it.
#[test]
fn a_removal_that_left_a_part_of_a_head_is_no_damage_beside_streams_that_wait() {
    let temp = tempfile::tempdir().unwrap();
    let options = StoreOptions { recovery: RecoveryMode::Fail, ..options() };
    let store = Store::open(temp.path(), &options).unwrap();
    let [waiting, thinned] = ["waiting", "thinned"].map(|name| store.stream(name).unwrap());
    append(&waiting, buffer(Sync::Closed), b"frame");
    append(&thinned, buffer(Sync::Closed), b"frame");
    for i in 0..60 {
        let sync = if i % 20 == 0 { Sync::Closed } else { Sync::None };
        append(&thinned, buffer(sync), &noise(i, 60_000));
    }
    append(&thinned, buffer(Sync::Closed), b"frame");
    let mut cursor = thinned.cursor();
    while let Some(plan) = thinned.plan_thin(0, |_| false).unwrap() {
        thinned.commit(plan, &mut cursor).unwrap();
        thinned.set_cursor(cursor);
    }
    let log = store.log();
    until("what was thinned is gone", || {
        log.extents().within(1, 0, Sequence::MAX).get(1).is_some_and(|next| *next > 2)
    });
    let mut batch = rocksdb::WriteBatch::default();
    log.put_clock(&mut batch, 2);
    log.db().unwrap().write(batch).unwrap();
    let before = [&waiting, &thinned].map(|stream| read_all(stream, 0));
    drop((waiting, thinned, store));
    let store = Store::open(temp.path(), &options).unwrap();
    let [waiting, thinned] = ["waiting", "thinned"].map(|name| store.stream(name).unwrap());
    assert_eq!(waiting.take_incidents().len() + thinned.take_incidents().len(), 0);
    assert_eq!([&waiting, &thinned].map(|stream| read_all(stream, 0)), before);
}

/// Delivered from memory, so it counted as bypassed; then stored for a resume that might need it.
#[test]
fn what_was_stored_after_its_delivery_counts_once_after_a_kill() {
    let temp = tempfile::tempdir().unwrap();
    let stream = open(temp.path());
    stream.give_out(3);
    let mut cursor = stream.cursor();
    (cursor.position, cursor.resume) = (3, 1);
    cursor.ledger.bypassed = Count { buffers: 2, bytes: 10 };
    stream.set_cursor(cursor);
    assert!(stream.save_cursor());
    let record = || NewRecord { body: buffer(Sync::Closed), payload: &[b"12345"], advance: 10 };
    stream.append(1, &[record(), record(), record()]).unwrap();
    crash(stream);
    let stream = open(temp.path());
    let cursor = stream.cursor();
    assert_eq!((cursor.ledger.delivered, cursor.ledger.bypassed), (Count { buffers: 2, bytes: 10 }, Count::default()));
    assert_eq!(cursor.pending(stream.end().totals), Totals { buffers: 1, bytes: 5, time: 10 });
    let next = stream.read(3, 1, 1).unwrap().records.remove(0);
    assert_eq!(next.before, cursor.totals, "nothing is lost before it");
}

/// The disk refused, kept it all the same, and both resume points moved on: nothing of that is lost.
#[test]
fn what_a_disk_kept_although_it_refused_is_not_lost() {
    for (bypassed, later) in [(2, false), (2, true), (1, false), (1, true)] {
        let temp = tempfile::tempdir().unwrap();
        let stream = open(temp.path());
        let record = || NewRecord { body: buffer(Sync::Closed), payload: &[b"12345"], advance: 10 };
        stream.append(1, &[record(), record()]).unwrap();
        let mut cursor = stream.cursor();
        (cursor.position, cursor.resume) = (3, 3);
        cursor.ledger.bypassed = Count { buffers: bypassed, bytes: 5 * bypassed };
        cursor.ledger.rejected = Count { buffers: 2 - bypassed, bytes: 5 * (2 - bypassed) };
        stream.set_cursor(cursor);
        if later {
            stream.append(3, &[record()]).unwrap();
        }
        assert!(stream.save_cursor());
        crash(stream);
        let stream = open(temp.path());
        let cursor = stream.cursor();
        let count = |n| Count { buffers: n, bytes: 5 * n };
        let later = u64::from(later);
        assert_eq!(cursor.pending(stream.end().totals), Totals { buffers: later, bytes: 5 * later, time: 10 * later });
        assert_eq!((cursor.ledger.delivered, cursor.ledger.dropped), (count(bypassed), count(2 - bypassed)));
        assert_eq!((cursor.ledger.bypassed, cursor.ledger.rejected), (Count::default(), Count::default()));
    }
}

/// For `scripts/soak`; `STREAMBUFFER_SOAK_PROGRAMS` sets how many, in each of four threads, `STREAMBUFFER_SOAK_SEED` which.
mod soak {
    use super::programs;

    #[test]
    #[ignore = "long"]
    fn many_random_programs_do_as_the_model() {
        super::explore(programs::seeds(4), programs::count(), 80);
    }

    #[test]
    #[ignore = "long"]
    fn many_random_programs_do_as_the_model_on_a_disk_that_fills_up() {
        std::thread::scope(|scope| {
            programs::seeds(4)
                .for_each(|seed| _ = scope.spawn(move || super::explore_full(seed, programs::count() / 4)));
        });
    }
}

/// Nothing was delivered or counted anew by it, so it went with what was not saved.
#[test]
fn what_was_purged_behind_the_cursor_just_before_a_kill_is_there_or_not() {
    run(
        Setup { durability: Durability::Crash, streams: 1 },
        &[
            Step::Append { stream: 0, count: 7, len: 1, gop: 7, batch: false },
            Step::Deliver { stream: 0, count: 11 },
            Step::Save,
            Step::Purge(0, 0.8502536261977617, 0.03294117314565653),
            Step::Crash,
        ],
    );
}

/// The extent with the change went before the one in which the state was in force, which another stream kept.
#[test]
fn state_that_was_emptied_does_not_come_back() {
    run(
        Setup { durability: Durability::Crash, streams: 3 },
        &[
            Step::State { stream: 2, rank: 1, clears: 0, empty: false },
            Step::Append { stream: 0, count: 1, len: 0, gop: 1, batch: false },
            Step::Reopen,
            Step::State { stream: 2, rank: 1, clears: 0, empty: true },
            Step::Deliver { stream: 0, count: 0 },
            Step::Reopen,
            Step::Append { stream: 2, count: 1, len: 0, gop: 1, batch: false },
        ],
    );
}
