//! Many streams in one store: what is written and what stays. Long, so ignored; figures go to standard output:
//!
//! ```text
//! cargo test --release --lib -- --ignored --nocapture --test-threads=1 store::tests::many
//! ```
//!
//! Bytes written are `write_bytes` of /proc/self/io: what the process caused to be written to the block layer, of which pages
//! of removed files that were never written are taken off (`cancelled_write_bytes`) in a second figure. A file system in
//! memory shows none. `TMPDIR` says where the store lies, `STREAMBUFFER_BENCH_MB` how much is stored.

use super::*;
use std::time::Instant;

const STREAMS: usize = 64;
const RECORD: usize = 20_000;
const GOP: usize = 25;

fn megabytes(default: u64) -> u64 {
    std::env::var("STREAMBUFFER_BENCH_MB").ok().and_then(|mb| mb.parse().ok()).unwrap_or(default)
}

fn io(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(": "));
    line.unwrap().parse().unwrap()
}

fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
}

struct Written {
    bytes: u64,
    cancelled: u64,
}

impl Written {
    fn now() -> Self {
        Self { bytes: io("write_bytes"), cancelled: io("cancelled_write_bytes") }
    }

    fn print(&self, what: &str, stored: u64) -> f64 {
        let written = io("write_bytes") - self.bytes;
        let reached = written.saturating_sub(io("cancelled_write_bytes") - self.cancelled);
        let ratio = written as f64 / stored as f64;
        println!(
            "{what}: stored {} MB, written {} MB: {ratio:.2} a byte ({:.2} without what was removed in time), RSS {} MB, peak {} MB",
            stored / 1_000_000,
            written / 1_000_000,
            reached as f64 / stored as f64,
            status("VmRSS") / 1000,
            status("VmHWM") / 1000
        );
        ratio
    }
}

struct Camera {
    stream: Stream,
    written: usize,
    keyframe: Sequence,
}

impl Camera {
    fn record(&mut self, noise: &[u8]) {
        let key = self.written.is_multiple_of(GOP);
        let at = (self.written * 7919) % (noise.len() - RECORD);
        let sync = if key { Sync::Closed } else { Sync::None };
        let first = append(&self.stream, buffer(sync), &noise[at..at + RECORD]);
        self.written += 1;
        if key {
            self.keyframe = first;
        }
    }

    fn deliver(&self) {
        consume(&self.stream, self.stream.end(), self.keyframe);
    }
}

fn cameras(path: &Path) -> (Store, Vec<Camera>) {
    let store = Store::open(path, &StoreOptions::default()).unwrap();
    let camera = |i| Camera { stream: store.stream(&format!("camera {i}")).unwrap(), written: 0, keyframe: 0 };
    let cameras = (0..STREAMS).map(camera).collect();
    (store, cameras)
}

#[test]
#[ignore = "writes 8 GB"]
fn sixty_four_stalled_streams_are_drained_in_turn() {
    let temp = tempfile::tempdir().unwrap();
    let (store, mut cameras) = cameras(temp.path());
    let noise = noise(1, 1 << 20);
    let records = megabytes(4000) as usize * 1_000_000 / RECORD / STREAMS;
    let stored = (records * STREAMS * RECORD) as u64;
    let written = Written::now();
    let start = Instant::now();
    for _ in 0..records {
        cameras.iter_mut().for_each(|camera| camera.record(&noise));
    }
    println!("ingest: {:.0} MB/s", stored as f64 / 1e6 / start.elapsed().as_secs_f64());
    written.print("all stalled", stored);
    println!("on disk: {} MB", store.disk_bytes() / 1_000_000);
    let start = Instant::now();
    for camera in &cameras {
        let mut at = 0;
        let mut count = 0;
        loop {
            let chunk = camera.stream.read(at, 256, 1 << 20).unwrap();
            let Some(next) = chunk.next else { break };
            count += chunk.records.len();
            at = next;
            let last = chunk.records.last().unwrap();
            consume(&camera.stream, Mark { sequence: at, totals: last.after() }, at);
        }
        assert_eq!(count, records);
    }
    println!("drain: {:.0} MB/s", stored as f64 / 1e6 / start.elapsed().as_secs_f64());
    let mut left = u64::MAX;
    let since = Instant::now();
    while left > 200_000_000 && since.elapsed() < Duration::from_secs(15) {
        std::thread::sleep(Duration::from_millis(500));
        left = store.disk_bytes();
    }
    let ratio = written.print("drained", stored);
    println!("left on disk: {} MB", left / 1_000_000);
    assert!(ratio <= 2.1, "{ratio:.2} bytes written a byte");
    assert!(left < 512 << 20, "{left} bytes left");
}

#[test]
#[ignore = "writes 4 GB"]
fn one_stalled_stream_among_sixty_three_that_flow() {
    let temp = tempfile::tempdir().unwrap();
    let (store, mut cameras) = cameras(temp.path());
    let noise = noise(1, 1 << 20);
    let records = megabytes(10_000) as usize * 1_000_000 / RECORD / STREAMS;
    let stored = (records * STREAMS * RECORD) as u64;
    let written = Written::now();
    let start = Instant::now();
    let mut peak: f64 = 0.0;
    for i in 0..records {
        for (number, camera) in cameras.iter_mut().enumerate() {
            camera.record(&noise);
            if number > 0 {
                camera.deliver();
            }
        }
        // The pace of cameras is far below this: let the keeper have its turn.
        if i % GOP == GOP - 1 {
            cameras[1].stream.save_cursor();
        }
        let live = (i + (STREAMS - 1) * GOP) * RECORD;
        if i * RECORD > 50_000_000 && i % 250 == 0 {
            peak = peak.max(store.disk_bytes() as f64 / live as f64);
        }
    }
    println!("ingest: {:.0} MB/s", stored as f64 / 1e6 / start.elapsed().as_secs_f64());
    written.print("63 flow, 1 stalled", stored);
    let live = (records * RECORD) as u64;
    println!("while it ran at most {peak:.2} of live on disk");
    let mut disk = u64::MAX;
    let since = Instant::now();
    while disk > live * 3 / 2 && since.elapsed() < Duration::from_secs(15) {
        std::thread::sleep(Duration::from_millis(500));
        disk = store.disk_bytes();
    }
    println!("live {} MB, on disk {} MB, {:.2} of it", live / 1_000_000, disk / 1_000_000, disk as f64 / live as f64);
    let start = Instant::now();
    assert_eq!(read_all(&cameras[0].stream, 0).len(), records);
    println!("replay: {:.0} MB/s", live as f64 / 1e6 / start.elapsed().as_secs_f64());
    assert!(disk <= 3 * live, "{disk} bytes for {live}");
}

/// What this process takes: threads, open files, MB resident, MB of its own (not shared with others).
fn footprint() -> [u64; 4] {
    let files = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let own = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let own = |field: &str| {
        let line = own.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    [status("Threads"), files, status("VmRSS") / 1000, (own("Private_Dirty:") + own("Private_Clean:")) / 1000]
}

const CHILD: &str = "STREAMBUFFER_BENCH_CHILD";

/// A process of [`forty_processes_with_a_store_each`]: delivers 200 MB as it comes, or keeps 100 MB.
#[test]
#[ignore = "a part of another test"]
fn one_of_forty() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let idle = footprint();
    let store = Store::open(Path::new(&path), &StoreOptions::default()).unwrap();
    let mut camera = Camera { stream: store.stream("camera").unwrap(), written: 0, keyframe: 0 };
    let opened = footprint();
    let noise = noise(1, 1 << 20);
    for _ in 0..10_000 {
        camera.record(&noise);
        camera.deliver();
    }
    let flowing = footprint();
    for _ in 0..5000 {
        camera.record(&noise);
    }
    println!("figures {idle:?} {opened:?} {flowing:?} {:?} {}", footprint(), store.disk_bytes() / 1_000_000);
}

#[test]
#[ignore = "writes 12 GB"]
fn forty_processes_with_a_store_each() {
    let temp = tempfile::tempdir().unwrap();
    let children: Vec<_> = (0..40)
        .map(|i| {
            std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "store::tests::many::one_of_forty", "--ignored", "--nocapture", "--test-threads=1"])
                .env(CHILD, temp.path().join(i.to_string()))
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    println!("[threads, files, RSS MB, own MB] without a store, opened, flowing, with 100 MB backlog; MB on disk");
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        println!("{}", text.lines().find_map(|line| Some(line.split_once("figures ")?.1)).unwrap());
    }
}

#[test]
#[ignore = "opens 40 stores"]
fn forty_stores_in_one_process() {
    let temp = tempfile::tempdir().unwrap();
    let idle = footprint();
    let noise = noise(1, 1 << 20);
    let open = |i: usize| Store::open(&temp.path().join(i.to_string()), &StoreOptions::default()).unwrap();
    let stores: Vec<_> = (0..40).map(open).collect();
    let camera = |store: &Store| Camera { stream: store.stream("camera").unwrap(), written: 0, keyframe: 0 };
    let mut cameras: Vec<_> = stores.iter().map(camera).collect();
    let opened = footprint();
    for _ in 0..2500 {
        cameras.iter_mut().for_each(|camera| camera.record(&noise));
    }
    println!("[threads, files, RSS MB, own MB] {idle:?} {opened:?} with 50 MB each {:?}", footprint());
}
