//! The demo's verdict: decodes what was sent, compares it with what the receiver saw, and ends with one line
//! `frames sent S, received R, lost L, duplicated D`. The exit status is 1 when a frame was lost.
//!
//! Usage: `report --pictures FILE TRUTH...`, with the truth files in the order in which they were sent.

#[path = "shared/alignment.rs"]
mod alignment;
#[path = "shared/frames.rs"]
mod frames;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser;
use gst::prelude::*;

use alignment::{Comparison, Counts, Sent};

#[derive(Parser)]
#[command(about = "Compares the pictures that a receiver saw with those that were sent")]
struct Arguments {
    /// The receiver's list of checksums.
    #[arg(long)]
    pictures: PathBuf,
    /// The sender's files, in order, one for each run of the sender.
    #[arg(required = true)]
    truth: Vec<PathBuf>,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments = Arguments::parse();
    gst::init()?;
    let mut sent = Sent::default();
    for path in &arguments.truth {
        sent.add(decode(path)?);
    }
    let mut comparison = Comparison::new(&sent);
    for connection in connections(&std::fs::read_to_string(&arguments.pictures)?)? {
        comparison.add(&connection);
    }
    let counts = comparison.counts();
    if counts.damaged > 0 {
        println!("{} received pictures equal no sent frame and were not counted", counts.damaged);
    }
    for (from, to) in comparison.lost_ranges() {
        println!("lost: {}", sent.range(from, to));
    }
    let Counts { sent, received, lost, duplicated, .. } = counts;
    println!("frames sent {sent}, received {received}, lost {lost}, duplicated {duplicated}");
    Ok(if lost == 0 && sent > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Checksums of the pictures in an H.264 file.
fn decode(path: &Path) -> Result<Vec<u64>, Box<dyn Error>> {
    if std::fs::metadata(path)?.len() == 0 {
        return Ok(Vec::new());
    }
    let pictures = Arc::new(Mutex::new(Vec::new()));
    let pipeline = frames::pipeline("filesrc name=file", {
        let pictures = Arc::clone(&pictures);
        move |checksum| pictures.lock().unwrap_or_else(PoisonError::into_inner).push(checksum)
    })?;
    let file = pipeline.by_name("file").ok_or("no file source in the pipeline")?;
    file.set_property("location", path.to_str().ok_or("the path is not UTF-8")?);
    pipeline.set_state(gst::State::Playing)?;
    frames::finish(&pipeline, &AtomicBool::new(false))?;
    Ok(std::mem::take(&mut *pictures.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// The checksums of each connection in the receiver's list.
fn connections(list: &str) -> Result<Vec<Vec<u64>>, Box<dyn Error>> {
    let mut connections = Vec::new();
    for line in list.lines() {
        if line == frames::CONNECTION {
            connections.push(Vec::new());
        } else {
            let checksum = u64::from_str_radix(line, 16)?;
            connections.last_mut().ok_or("the list does not begin with a connection")?.push(checksum);
        }
    }
    Ok(connections)
}
