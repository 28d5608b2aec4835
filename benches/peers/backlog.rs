//! A backlog of many gigabytes, a process that is killed with it, and the next one.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::child::{killed_after, measured, place, tell};
use crate::figures::{Row, Table};
use crate::healthy::SIZE;
use crate::payload::Payloads;
use crate::pipe::{Pipe, diskbuffer};
use crate::{Outcome, Plan, process};

/// Memory goes up and down with what is being flushed: the most while the last so many MB came counts.
const LAST: u64 = 200;
const PATIENCE: Duration = Duration::from_secs(600);

pub fn measure(plan: &Plan) -> Outcome<()> {
    let mut table = Table::new("backlog", &["megabytes"]);
    for megabytes in &plan.backlogs {
        println!(">> a backlog of {megabytes} MB, killed, and the next start");
        let place = place(&plan.scratch)?;
        let path = place.path().join("store");
        let path = path.to_str().ok_or("the path is not text")?;
        let megabytes = megabytes.to_string();
        let mut found = killed_after(&["backlog", "fill", &megabytes, path].map(str::to_owned), "fill-mb-s")?;
        found.extend(measured(&["backlog", "restart", &megabytes, path].map(str::to_owned))?);
        table.push(Row::new(&[&megabytes], found));
        table.save(&plan.output)?;
    }
    Ok(())
}

pub fn child(words: &[&str]) -> Outcome<()> {
    let [task, megabytes, location] = words else { return Err("task, megabytes, location".into()) };
    let buffers = megabytes.parse::<u64>()? * 1_000_000 / SIZE as u64;
    match *task {
        "fill" => fill(buffers, Path::new(location)),
        _ => restart(buffers * SIZE as u64, Path::new(location)),
    }
}

/// Ends by being killed.
fn fill(buffers: u64, location: &Path) -> Outcome<()> {
    let payloads = Payloads::new(SIZE);
    let pipe = Pipe::new(Some(diskbuffer(location, &[])?), |_| ())?;
    pipe.counter.block(true);
    pipe.start(gst::Format::Time)?;
    let last = buffers.saturating_sub(LAST * 1_000_000 / SIZE as u64);
    let (start, mut most) = (Instant::now(), 0);
    for number in 0..buffers {
        pipe.push(payloads.buffer(number))?;
        if number >= last && number.is_multiple_of(50) {
            most = most.max(process::resident()?);
        }
    }
    tell("rss-mb", most as f64 / 1e6);
    tell("files", process::files()? as f64);
    tell("disk-mb", process::disk(location)? as f64 / 1e6);
    tell("fill-mb-s", (buffers * SIZE as u64) as f64 / 1e6 / start.elapsed().as_secs_f64());
    std::thread::sleep(PATIENCE);
    Ok(())
}

fn restart(bytes: u64, location: &Path) -> Outcome<()> {
    let first = Arc::new(OnceLock::new());
    let start = Instant::now();
    let noted = first.clone();
    let pipe = Pipe::new(Some(diskbuffer(location, &[])?), move |_| {
        noted.get_or_init(|| start.elapsed());
    })?;
    pipe.start(gst::Format::Time)?;
    tell("started-ms", start.elapsed().as_secs_f64() * 1e3);
    let (mut most, begin) = (0, Instant::now());
    while pipe.counter.bytes() < bytes {
        if begin.elapsed() > PATIENCE {
            return Err(format!("{} of {bytes} bytes came back", pipe.counter.bytes()).into());
        }
        most = most.max(process::resident()?);
        std::thread::sleep(Duration::from_millis(1));
    }
    let first = first.get().ok_or("nothing came back")?;
    tell("first-buffer-ms", first.as_secs_f64() * 1e3);
    tell("drain-mb-s", bytes as f64 / 1e6 / begin.elapsed().as_secs_f64());
    tell("drain-rss-mb", most as f64 / 1e6);
    std::thread::sleep(Duration::from_secs(3));
    tell("left-mb", process::disk(location)? as f64 / 1e6);
    Ok(())
}
