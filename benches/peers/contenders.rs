//! Whoever can keep a backlog: fed while nothing is taken, then drained.

use std::path::{Path, PathBuf};
use std::time::Instant;

use gst::prelude::*;

use crate::Outcome;
use crate::ingest::PATIENCE;
use crate::payload::Payloads;
use crate::pipe::{Pipe, diskbuffer, make};
use crate::rocks::{Bare, BufferNg};

pub const CONTENDERS: [&str; 6] = ["diskbuffer", "bare", "buffer-ng", "queue2", "filesink", "queue"];

/// As tables and plots show it.
pub fn title(name: &str) -> &'static str {
    match name {
        "diskbuffer" => "diskbuffer",
        "bare" => "RocksDB, a put a record",
        "buffer-ng" => "Buffer NG's pattern",
        "queue2" => "queue2 temp-template",
        "filesink" => "filesink, filesrc",
        "queue" => "queue (in memory)",
        _ => "?",
    }
}

pub enum Contender {
    /// What is less than one of these blocks, in bytes, may stay inside: `queue2` hands a file on in blocks.
    Pipe(Pipe, u64),
    /// Writes a file, which another element reads.
    File(Pipe, PathBuf),
    Bare(Bare),
    BufferNg(BufferNg),
}

impl Contender {
    pub fn open(name: &str, directory: &Path) -> Outcome<Self> {
        let path = |name: &str| Ok::<_, &str>(directory.join(name).to_str().ok_or("the path is not text")?.to_owned());
        let no_limits = [("max-size-buffers", "0"), ("max-size-bytes", "0"), ("max-size-time", "0")];
        let pipe = |element: gst::Element, format| -> Outcome<Pipe> {
            let pipe = Pipe::new(Some(element), |_| ())?;
            pipe.counter.block(true);
            pipe.start(format)?;
            Ok(pipe)
        };
        Ok(match name {
            "diskbuffer" => Self::Pipe(pipe(diskbuffer(&directory.join("store"), &[])?, gst::Format::Time)?, 1),
            "queue" => Self::Pipe(pipe(make("queue", &no_limits)?, gst::Format::Time)?, 1),
            "queue2" => {
                let element = make("queue2", &no_limits)?;
                element.set_property("temp-template", path("queue2.XXXXXX")?);
                Self::Pipe(pipe(element, gst::Format::Bytes)?, 4096)
            }
            "filesink" => {
                let file = path("file")?;
                Self::File(pipe(make("filesink", &[("location", &file)])?, gst::Format::Bytes)?, file.into())
            }
            "bare" => Self::Bare(Bare::open(directory, false)?),
            "buffer-ng" => Self::BufferNg(BufferNg::open(directory)?),
            _ => return Err(format!("nobody is called {name}").into()),
        })
    }

    pub fn push(&mut self, payloads: &Payloads, number: u64) -> Outcome<()> {
        match self {
            Self::Pipe(pipe, _) | Self::File(pipe, _) => pipe.push(payloads.buffer(number)),
            Self::Bare(bare) => bare.put(1, payloads.bytes(number)),
            Self::BufferNg(queue) => queue.push(payloads.bytes(number)),
        }
    }

    /// Nothing waits in memory of its own to be written, nor for a block to be full.
    pub fn finish(&mut self) -> Outcome<()> {
        match self {
            Self::Pipe(pipe, _) => pipe.eos(),
            Self::File(pipe, _) => {
                pipe.eos();
                pipe.stop()?;
            }
            Self::Bare(_) | Self::BufferNg(_) => {}
        }
        Ok(())
    }

    /// Takes everything out: seconds.
    pub fn drain(&mut self, bytes: u64, size: usize) -> Outcome<f64> {
        let start = Instant::now();
        match self {
            Self::Pipe(pipe, block) => {
                pipe.counter.block(false);
                pipe.counter.wait(bytes / *block * *block, PATIENCE)?;
            }
            Self::File(_, file) => {
                let element = make("filesrc", &[("blocksize", &size.to_string())])?;
                element.set_property("location", file.to_str().ok_or("the path is not text")?);
                let pipe = Pipe::new(Some(element), |_| ())?;
                pipe.start(gst::Format::Bytes)?;
                pipe.counter.wait(bytes, PATIENCE)?;
                return Ok(start.elapsed().as_secs_f64());
            }
            Self::Bare(bare) => all(bytes, bare.drain()?)?,
            Self::BufferNg(queue) => {
                let mut sum = 0;
                while let Some(message) = queue.pop()? {
                    sum += message.len() as u64;
                }
                all(bytes, sum)?;
            }
        }
        Ok(start.elapsed().as_secs_f64())
    }
}

fn all(wanted: u64, found: u64) -> Outcome<()> {
    if wanted == found { Ok(()) } else { Err(format!("{found} of {wanted} bytes came back").into()) }
}
