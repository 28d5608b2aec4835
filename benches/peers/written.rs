//! What reaches the disk for a byte of payload, and what stays there.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::child::{measured, medians, place, tell};
use crate::figures::{Row, Table};
use crate::healthy::SIZE;
use crate::ingest::PATIENCE;
use crate::payload::{GOP, Payloads};
use crate::pipe::{Pipe, diskbuffer};
use crate::{Outcome, Plan, process};

pub const CASES: [(&str, usize); 5] = [("outage", 1), ("outage", 64), ("healthy", 1), ("healthy", 16), ("healthy", 64)];
/// Payload of a case, in MB.
const MEGABYTES: f64 = 2000.0;
/// Payload a second of all streams together when the sink keeps up, in bytes: what 64 cameras send and a little more.
const PACE: f64 = 50e6;
/// How long what waits to be removed may take.
const SETTLING: Duration = Duration::from_secs(3);

/// What the design says of a sink that keeps up: the log, and of each stream what a resume would need when a memtable is
/// flushed, once to a file and half as often again.
pub fn formula(streams: usize) -> f64 {
    let gop = (GOP * SIZE as u64) as f64;
    (1.0 + 1.5 * streams as f64 * gop / f64::from(16 << 20)).min(2.0)
}

pub fn measure(plan: &Plan) -> Outcome<()> {
    let mut table = Table::new("written", &["case", "streams"]);
    for (case, streams) in CASES {
        println!(">> bytes written, {case}, {streams} streams");
        let place = place(&plan.scratch)?;
        let path = place.path().to_str().ok_or("the path is not text")?;
        let bytes = plan.scale * MEGABYTES * 1e6;
        let task = ["written", case, &streams.to_string(), &bytes.to_string(), path];
        let found = measured(&task.map(str::to_owned))?;
        table.push(Row::new(&[case, &streams.to_string()], medians(&[found])));
        table.save(&plan.output)?;
    }
    Ok(())
}

pub fn child(words: &[&str]) -> Outcome<()> {
    let [case, streams, bytes, directory] = words else { return Err("case, streams, bytes, directory".into()) };
    let (streams, bytes): (usize, f64) = (streams.parse()?, bytes.parse()?);
    let (is_outage, location) = (*case == "outage", Path::new(directory).join("store"));
    let payloads = Payloads::new(SIZE);
    let mut pipes = Vec::new();
    for index in 0..streams {
        let stream = format!("camera-{index}");
        let pipe = Pipe::new(Some(diskbuffer(&location, &[("stream-name", &stream)])?), |_| ())?;
        pipe.counter.block(is_outage);
        pipe.start(gst::Format::Time)?;
        pipes.push(pipe);
    }
    let each = (bytes / streams as f64 / SIZE as f64) as u64;
    let written = process::written()?;
    let start = Instant::now();
    for number in 0..each {
        if !is_outage {
            let due = Duration::from_secs_f64((number * streams as u64 * SIZE as u64) as f64 / PACE);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
        for pipe in &pipes {
            pipe.push(payloads.buffer(number))?;
        }
    }
    let of_each = each * SIZE as u64;
    if !is_outage {
        pipes.iter().try_for_each(|pipe| pipe.counter.wait(of_each, PATIENCE))?;
    }
    std::thread::sleep(Duration::from_millis(500));
    rustix::fs::sync();
    let payload = (of_each * streams as u64) as f64;
    tell("written-per-byte", (process::written()? - written) as f64 / payload);
    tell("files", process::files()? as f64);
    tell("threads", process::threads()? as f64);
    tell("rss-mb", process::resident()? as f64 / 1e6);
    let start = Instant::now();
    for pipe in &pipes {
        pipe.counter.block(false);
        pipe.counter.wait(of_each, PATIENCE)?;
    }
    if is_outage {
        tell("drain-mb-s", payload / 1e6 / start.elapsed().as_secs_f64());
    }
    std::thread::sleep(SETTLING);
    tell("left-mb", process::disk(&location)? as f64 / 1e6);
    pipes.iter().try_for_each(Pipe::stop)?;
    tell("left-when-closed-mb", process::disk(&location)? as f64 / 1e6);
    Ok(())
}
