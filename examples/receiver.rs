//! The far end of the demo: takes an H.264 byte stream over TCP, decodes it, and writes down what it saw.
//!
//! Each decoded picture adds one line with its checksum to a file, written at once, so that a receiver that is killed
//! loses nothing that it had decoded. A line `connection` stands before the pictures of each connection. When a
//! connection ends the receiver waits for the next one, until SIGTERM or SIGINT.
//!
//! Usage: `receiver --pictures FILE [--port PORT]`; without a port it takes a free one. The line
//! `receiver: listening on PORT` tells which.

#[path = "shared/frames.rs"]
mod frames;
#[path = "shared/stop.rs"]
mod stop;

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use clap::Parser;
use gst::prelude::*;

#[derive(Parser)]
#[command(about = "Takes an H.264 byte stream over TCP and lists the checksums of its decoded pictures")]
struct Arguments {
    /// TCP port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// File that checksums are appended to.
    #[arg(long)]
    pictures: PathBuf,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    gst::init()?;
    let stop = stop::flag();
    let list = OpenOptions::new().create(true).append(true).open(&arguments.pictures)?;
    let list = Arc::new(Mutex::new(list));

    let mut port = arguments.port;
    while !stop.load(Ordering::Relaxed) {
        let seen = Arc::new(AtomicU64::new(0));
        let source = format!("tcpserversrc name=source host=127.0.0.1 port={port}");
        let pipeline = frames::pipeline(&source, {
            let (list, seen) = (Arc::clone(&list), Arc::clone(&seen));
            move |checksum| {
                let first = seen.fetch_add(1, Ordering::Relaxed) == 0;
                if let Err(error) = note(&list, first, checksum) {
                    // A picture that is not on the list would be reported as lost by the sender's side.
                    eprintln!("receiver: cannot write the list of pictures: {error}");
                    std::process::exit(1);
                }
            }
        })?;
        pipeline.set_state(gst::State::Playing)?;
        let source = pipeline.by_name("source").ok_or("no source in the pipeline")?;
        port = u16::try_from(source.property::<i32>("current-port"))?;
        println!("receiver: listening on {port}");
        let ended = frames::finish(&pipeline, stop);
        let seen = seen.load(Ordering::Relaxed);
        match ended {
            Ok(()) if stop.load(Ordering::Relaxed) && seen == 0 => (),
            Ok(()) => println!("receiver: connection ended, {seen} pictures"),
            Err(error) => println!("receiver: connection failed after {seen} pictures: {error}"),
        }
    }
    Ok(())
}

/// Appends one picture, in one write, to the list.
fn note(list: &Mutex<File>, first: bool, checksum: u64) -> std::io::Result<()> {
    let mut line = String::new();
    if first {
        println!("receiver: pictures arrive");
        line = format!("{}\n", frames::CONNECTION);
    }
    line += &format!("{checksum:016x}\n");
    let mut list = list.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    list.write_all(line.as_bytes())
}
