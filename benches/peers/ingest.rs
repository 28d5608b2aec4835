//! A sink that takes nothing while a backlog grows, then takes all of it at once.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::child::{Found, measured, medians, place, tell};
use crate::contenders::{CONTENDERS, Contender};
use crate::figures::{Row, Table};
use crate::payload::Payloads;
use crate::{Outcome, Plan, process};

pub const SIZES: [usize; 4] = [1_000, 20_000, 200_000, 6_000_000];
/// A measurement that takes longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Of a backlog, in MB; of the smallest buffers less, for it is their number that costs.
const MEGABYTES: f64 = 1200.0;
const LEAST_BUFFERS: u64 = 64;
const MOST_BUFFERS: u64 = 200_000;

pub fn measure(plan: &Plan) -> Outcome<()> {
    let mut table = Table::new("ingest", &["contender", "size"]);
    for size in SIZES {
        let count = (plan.scale * MEGABYTES * 1e6 / size as f64) as u64;
        let count = count.clamp(LEAST_BUFFERS, MOST_BUFFERS);
        let mut rounds: Vec<Vec<Found>> = vec![Vec::new(); CONTENDERS.len()];
        for round in 1..=plan.rounds {
            println!(">> a blocked sink, {count} buffers of {size} bytes: round {round} of {}", plan.rounds);
            for (name, found) in CONTENDERS.iter().zip(&mut rounds) {
                let place = place(&plan.scratch)?;
                let path = place.path().to_str().ok_or("the path is not text")?;
                let task = ["ingest", name, &size.to_string(), &count.to_string(), path];
                found.push(measured(&task.map(str::to_owned))?);
            }
        }
        for (name, found) in CONTENDERS.iter().zip(&rounds) {
            table.push(Row::new(&[name, &size.to_string()], medians(found)));
        }
        table.save(&plan.output)?;
    }
    Ok(())
}

pub fn child(words: &[&str]) -> Outcome<()> {
    let [name, size, count, directory] = words else { return Err("contender, size, count, directory".into()) };
    let (size, count): (usize, u64) = (size.parse()?, count.parse()?);
    let payloads = Payloads::new(size);
    let mut contender = Contender::open(name, Path::new(directory))?;
    let bytes = count * size as u64;
    let (start, cpu, written) = (Instant::now(), process::cpu(), process::written()?);
    for number in 0..count {
        contender.push(&payloads, number)?;
    }
    contender.finish()?;
    let seconds = start.elapsed().as_secs_f64();
    tell("ingest-mb-s", bytes as f64 / 1e6 / seconds);
    tell("ingest-cpu-us", (process::cpu() - cpu) / count as f64 * 1e6);
    // What is flushed in the background belongs to feeding, and its disk must be as quiet for each.
    std::thread::sleep(Duration::from_millis(300));
    rustix::fs::sync();
    tell("written-per-byte", (process::written()? - written) as f64 / bytes as f64);
    let cpu = process::cpu();
    let seconds = contender.drain(bytes, size)?;
    tell("drain-mb-s", bytes as f64 / 1e6 / seconds);
    tell("drain-cpu-us", (process::cpu() - cpu) / count as f64 * 1e6);
    Ok(())
}
