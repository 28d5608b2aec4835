//! A sink that keeps up with cameras of 30 frames a second: what a buffer costs, and how much later it comes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::child::{Found, measured, medians, place, tell};
use crate::figures::{Row, Table};
use crate::ingest::PATIENCE;
use crate::payload::{FRAME, Payloads};
use crate::pipe::{Pipe, diskbuffer, make};
use crate::rocks::Bare;
use crate::{Outcome, Plan, process};

pub const SIZE: usize = 20_000;
/// `nothing` is what pushing, waiting for the next frame, and counting cost.
pub const CONTENDERS: [&str; 8] = ["nothing", "queue", "bare", "bare-sync", "none", "crash", "interval", "power"];
const SECONDS: f64 = 3.0;
/// Buffers of one stream that are pushed one after the other, as fast as they are taken.
const LOOP: f64 = 40_000.0;
pub const CASES: [&str; 4] = ["loop", "1", "16", "64"];

/// As tables and plots show it.
pub fn title(name: &str) -> &'static str {
    match name {
        "nothing" => "no element",
        "queue" => "queue",
        "bare" => "RocksDB, a put a record",
        "bare-sync" => "RocksDB, a synced put a record",
        "none" => "durability=none",
        "crash" => "durability=crash",
        "interval" => "durability=interval",
        "power" => "durability=power",
        _ => "?",
    }
}

pub fn measure(plan: &Plan) -> Outcome<()> {
    let mut table = Table::new("healthy", &["contender", "streams"]);
    for case in CASES {
        let (streams, amount) = match case {
            "loop" => (0, LOOP * plan.scale),
            _ => (case.parse()?, (SECONDS * plan.scale).max(0.5)),
        };
        let mut rounds: Vec<Vec<Found>> = vec![Vec::new(); CONTENDERS.len()];
        for round in 1..=plan.rounds {
            println!(">> a sink that keeps up, {case}: round {round} of {}", plan.rounds);
            for (name, found) in CONTENDERS.iter().zip(&mut rounds) {
                let place = place(&plan.scratch)?;
                let path = place.path().to_str().ok_or("the path is not text")?;
                // What waits for the disk each time.
                let waits = streams == 0 && matches!(*name, "power" | "bare-sync");
                let amount = if waits { amount / 20.0 } else { amount };
                let task = ["healthy", name, &streams.to_string(), &amount.to_string(), path];
                found.push(measured(&task.map(str::to_owned))?);
            }
        }
        let nothing = medians(&rounds[0]).get("cpu-us").copied().unwrap_or_default();
        for (name, found) in CONTENDERS.iter().zip(&rounds) {
            let mut found = medians(found);
            if let Some(cpu) = found.get("cpu-us").copied() {
                found.insert("cpu-us-above".to_owned(), cpu - nothing);
            }
            table.push(Row::new(&[name, case], found));
        }
        table.save(&plan.output)?;
    }
    Ok(())
}

enum Lane {
    Pipe(Pipe),
    Bare(Arc<Bare>, u32),
}

/// When each frame of a stream was pushed, and how long it took to arrive, in ns.
struct Watch {
    start: Instant,
    pushed: Vec<AtomicU64>,
    took: Vec<AtomicU64>,
}

impl Watch {
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

pub fn child(words: &[&str]) -> Outcome<()> {
    let [name, streams, amount, directory] = words else { return Err("contender, streams, amount, directory".into()) };
    let (streams, amount): (usize, f64) = (streams.parse()?, amount.parse()?);
    let directory = Path::new(directory);
    // No streams: one, without pauses.
    let paced = streams > 0;
    let streams = streams.max(1);
    let frames = if paced { (amount * 1e9 / FRAME as f64) as u64 } else { amount as u64 };
    let payloads = Payloads::new(SIZE);
    let bare = match *name {
        "bare" | "bare-sync" => Some(Arc::new(Bare::open(directory, *name == "bare-sync")?)),
        _ => None,
    };
    let start = Instant::now();
    let mut lanes = Vec::new();
    for index in 0..streams {
        let blank = || (0..frames).map(|_| AtomicU64::new(0)).collect();
        let watch = Arc::new(Watch { start, pushed: blank(), took: blank() });
        let seen = watch.clone();
        let arrived = move |buffer: &gst::BufferRef| {
            let number = buffer.offset() as usize;
            if let (Some(pushed), Some(took)) = (seen.pushed.get(number), seen.took.get(number)) {
                took.store(seen.now() - pushed.load(Ordering::Acquire), Ordering::Release);
            }
        };
        let lane = if let Some(bare) = &bare {
            Lane::Bare(bare.clone(), index as u32)
        } else {
            let element = match *name {
                "nothing" => None,
                "queue" => Some(make("queue", &[])?),
                durability => {
                    let stream = format!("camera-{index}");
                    let properties = [("durability", durability), ("stream-name", &stream)];
                    Some(diskbuffer(&directory.join("store"), &properties)?)
                }
            };
            let pipe = Pipe::new(element, arrived)?;
            pipe.start(gst::Format::Time)?;
            Lane::Pipe(pipe)
        };
        lanes.push((lane, watch));
    }
    let (cpu, written) = (process::cpu(), process::written()?);
    let begin = start.elapsed() + Duration::from_millis(50);
    let feed = |index: usize, lane: &Lane, watch: &Watch| -> Outcome<()> {
        // Cameras are not in step.
        let offset = Duration::from_nanos(FRAME * index as u64 / streams as u64);
        for number in 0..frames {
            let due = begin + offset + Duration::from_nanos(number * FRAME);
            if paced {
                std::thread::sleep(due.saturating_sub(start.elapsed()));
            }
            watch.pushed[number as usize].store(watch.now(), Ordering::Release);
            match lane {
                Lane::Pipe(pipe) => pipe.push(payloads.buffer(number))?,
                Lane::Bare(bare, stream) => {
                    bare.put(*stream, payloads.bytes(number))?;
                    let took = watch.now() - watch.pushed[number as usize].load(Ordering::Acquire);
                    watch.took[number as usize].store(took, Ordering::Release);
                }
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let feeds: Vec<_> = lanes
            .iter()
            .enumerate()
            .map(|(index, (lane, watch))| scope.spawn(move || feed(index, lane, watch)))
            .collect();
        feeds.into_iter().try_for_each(|feed| feed.join().map_err(|_| "a feed failed")?)
    })?;
    for (lane, _) in &lanes {
        if let Lane::Pipe(pipe) = lane {
            pipe.counter.wait(frames * SIZE as u64, PATIENCE)?;
        }
    }
    let buffers = (frames * streams as u64) as f64;
    tell("cpu-us", (process::cpu() - cpu) / buffers * 1e6);
    tell("written-per-byte", (process::written()? - written) as f64 / buffers / SIZE as f64);
    tell("files", process::files()? as f64);
    tell("threads", process::threads()? as f64);
    tell("rss-mb", process::resident()? as f64 / 1e6);
    let took = lanes.iter().flat_map(|(_, watch)| watch.took.iter().map(|took| took.load(Ordering::Acquire)));
    let mut took: Vec<u64> = took.collect();
    took.sort_unstable();
    for (name, share) in [("p50-ms", 0.5), ("p99-ms", 0.99), ("p999-ms", 0.999)] {
        tell(name, took[(took.len() as f64 * share) as usize] as f64 / 1e6);
    }
    Ok(())
}
