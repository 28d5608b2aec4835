//! What the sender is fed with: access units of real clips, of encoders where there are none, and small messages.
//!
//! Loaded and parsed once; every process that is killed maps numbers to the same units. A run counts from 0, goes round the
//! reel, and begins each time with new caps and later times, so that no two units of a stream are the same.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use crate::common::*;
use crate::pictures::*;

/// Numbers of a run begin at a multiple of this.
pub const RUN: u64 = 1_000_000;
/// An event of its own stands before each of these.
const MARKED: u64 = 23;
/// Tags change at each of these.
const TAGGED: u64 = 92;
/// What is pushed as a list, in each stretch of this length, in streams that have lists. Nothing else stands inside.
const LISTED: std::ops::Range<u64> = 30..35;
const STRETCH: u64 = 46;
/// Of a reel at most.
const UNITS: usize = 400;
const BYTES: usize = 5 << 20;

/// Where decoding can begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    No,
    /// Pictures that are shown before it may need what was before.
    Open,
    Closed,
}

pub struct Unit {
    pub pts: Option<u64>,
    pub dts: Option<u64>,
    pub duration: Option<u64>,
    pub flags: gst::BufferFlags,
    pub start: Start,
    /// Shown before the keyframe that it follows.
    pub leading: bool,
    pub data: Vec<u8>,
}

pub struct Reel {
    pub caps: gst::Caps,
    pub units: Vec<Unit>,
    /// Time of one round.
    span: u64,
    /// Buffer lists now and then.
    lists: bool,
}

/// What is in force where a unit stands.
#[derive(Debug, PartialEq)]
pub struct InForce {
    pub stream: String,
    pub caps: gst::Caps,
    /// Of the segment.
    pub start: u64,
    pub tag: String,
}

pub fn run_of(number: u64) -> u64 {
    number / RUN
}

pub fn place_of(number: u64) -> u64 {
    number % RUN
}

impl Reel {
    pub fn is_video(&self) -> bool {
        self.caps.structure(0).is_some_and(|s| s.name() == "video/x-h264")
    }

    /// Not every keyframe is an IDR picture.
    pub fn is_open(&self) -> bool {
        self.units.iter().any(|unit| unit.start == Start::Open)
    }

    fn round(&self, number: u64) -> u64 {
        place_of(number) / self.units.len() as u64
    }

    pub fn unit(&self, number: u64) -> &Unit {
        &self.units[(place_of(number) % self.units.len() as u64) as usize]
    }

    /// By how much later than in the reel.
    fn shift(&self, number: u64) -> u64 {
        segment_start(number) + self.round(number) * self.span
    }

    pub fn times(&self, number: u64) -> [Option<u64>; 2] {
        let unit = self.unit(number);
        [unit.pts, unit.dts].map(|time| time.map(|time| time + self.shift(number)))
    }

    pub fn buffer(&self, number: u64) -> gst::Buffer {
        let unit = self.unit(number);
        let mut buffer = gst::Buffer::from_slice(unit.data.clone());
        let [pts, dts] = self.times(number).map(|time| time.map(gst::ClockTime::from_nseconds));
        let out = buffer.make_mut();
        out.set_pts(pts);
        out.set_dts(dts);
        out.set_duration(unit.duration.map(gst::ClockTime::from_nseconds));
        out.set_flags(unit.flags);
        out.set_offset(number);
        out.set_offset_end(number + 1);
        buffer
    }

    pub fn caps(&self, number: u64) -> gst::Caps {
        let mut caps = self.caps.clone();
        caps.make_mut().set("run", run_of(number) as i32);
        caps.make_mut().set("round", self.round(number) as i32);
        caps
    }

    pub fn in_force(&self, stream: usize, number: u64) -> InForce {
        let tagged = number - place_of(number) % TAGGED;
        InForce {
            stream: stream_id(stream, run_of(number)),
            caps: self.caps(number),
            start: segment_start(number),
            tag: format!("since {tagged}"),
        }
    }

    /// The events that stand right before a unit, but for those with which a run begins.
    pub fn events(&self, number: u64) -> Vec<gst::Event> {
        let mut events = Vec::new();
        let place = place_of(number);
        if place > 0 && place.is_multiple_of(self.units.len() as u64) {
            events.push(gst::event::Caps::new(&self.caps(number)));
        }
        if place.is_multiple_of(TAGGED) {
            let mut tags = gst::TagList::new();
            let title = format!("since {number}");
            tags.make_mut().add::<gst::tags::Title>(&title.as_str(), gst::TagMergeMode::Replace);
            events.push(gst::event::Tag::new(tags));
        }
        if is_marked(number) {
            let mark = gst::Structure::builder("mark").field("at", number).build();
            events.push(gst::event::CustomDownstream::new(mark));
        }
        events
    }

    /// How many go in with this one.
    pub fn together(&self, number: u64) -> u64 {
        let listed = self.lists && place_of(number) % STRETCH == LISTED.start;
        if listed { LISTED.end - LISTED.start } else { 1 }
    }

    /// How many may have gone in together, with this one as the first that was not told.
    pub fn untold(&self, number: u64) -> u64 {
        let place = place_of(number) % STRETCH;
        if self.lists && LISTED.contains(&place) { LISTED.end - place } else { 1 }
    }

    /// More records than stand between two units.
    pub const BETWEEN: u64 = 8;

    /// The last unit at or before `number` from which a stream can be resumed when all before `number` arrived.
    pub fn resume_at(&self, number: u64) -> u64 {
        let first = number - place_of(number);
        let able = |at: &u64| match self.unit(*at).start {
            Start::No => false,
            Start::Closed => true,
            // Something that is neither itself nor leading has to have arrived.
            Start::Open => (at + 1..number).any(|next| !self.unit(next).leading),
        };
        (first..=number).rev().find(able).unwrap_or(first)
    }

    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        put(&mut out, self.caps.to_string().as_bytes())?;
        put_number(&mut out, self.span)?;
        put_number(&mut out, u64::from(self.lists))?;
        put_number(&mut out, self.units.len() as u64)?;
        for unit in &self.units {
            for time in [unit.pts, unit.dts, unit.duration] {
                put_number(&mut out, time.unwrap_or(u64::MAX))?;
            }
            put_number(&mut out, u64::from(unit.flags.bits()))?;
            put_number(&mut out, unit.start as u64)?;
            put_number(&mut out, u64::from(unit.leading))?;
            put(&mut out, &unit.data)?;
        }
        out.flush()
    }

    pub fn load(path: &Path) -> io::Result<Self> {
        let mut from = BufReader::new(File::open(path)?);
        let caps = String::from_utf8(take(&mut from)?).map_err(io::Error::other)?;
        let caps = caps.parse().map_err(io::Error::other)?;
        let [span, lists, count] = take_numbers(&mut from)?;
        let mut units = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let [pts, dts, duration, flags, start, leading] = take_numbers(&mut from)?;
            let [pts, dts, duration] = [pts, dts, duration].map(|time| (time != u64::MAX).then_some(time));
            units.push(Unit {
                pts,
                dts,
                duration,
                flags: gst::BufferFlags::from_bits_truncate(flags as u32),
                start: [Start::No, Start::Open, Start::Closed][start as usize],
                leading: leading == 1,
                data: take(&mut from)?,
            });
        }
        Ok(Self { caps, units, span, lists: lists == 1 })
    }
}

fn put_number(out: &mut impl Write, number: u64) -> io::Result<()> {
    out.write_all(&number.to_le_bytes())
}

fn put(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    put_number(out, bytes.len() as u64)?;
    out.write_all(bytes)
}

fn take_numbers<const N: usize>(from: &mut impl Read) -> io::Result<[u64; N]> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        let mut bytes = [0; 8];
        from.read_exact(&mut bytes)?;
        *number = u64::from_le_bytes(bytes);
    }
    Ok(numbers)
}

fn take(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let [length] = take_numbers(from)?;
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

pub fn is_marked(number: u64) -> bool {
    place_of(number).is_multiple_of(MARKED)
}

pub fn stream_id(stream: usize, run: u64) -> String {
    format!("stream {stream} of run {run}")
}

fn segment_start(number: u64) -> u64 {
    run_of(number) * 1_000_000_000_000
}

/// Stream-start, caps and segment of a run.
pub fn beginning(reel: &Reel, stream: usize, run: u64) -> [gst::Event; 3] {
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_start(gst::ClockTime::from_nseconds(segment_start(run * RUN)));
    segment.set_time(gst::ClockTime::from_nseconds(segment_start(run * RUN)));
    [
        gst::event::StreamStart::builder(&stream_id(stream, run)).group_id(gst::GroupId::next()).build(),
        gst::event::Caps::new(&reel.caps(run * RUN)),
        gst::event::Segment::new(&segment),
    ]
}

/// Every kind of stream, in this order.
pub const KINDS: usize = 4;

/// The reels of all streams, some of each kind: video with B-frames, without, sound, messages.
pub fn all() -> [Vec<Reel>; KINDS] {
    init();
    let from = |name, format| clip(name).map(|path| video(&video_of(&path), format));
    let mut reordered: Vec<_> =
        [from("bbb_64s.mp4", "avc"), from("concat_ccby_b3.mp4", "byte-stream")].into_iter().flatten().collect();
    let mut plain: Vec<_> = [from("concat_ccby_nob.mp4", "byte-stream"), from("concat_ccby_nob.mp4", "avc")]
        .into_iter()
        .flatten()
        .collect();
    let sound = clip("bbb_64s.mp4").map(|path| {
        let head = format!("filesrc location=\"{}\" ! qtdemux name=demux demux.audio_0 ! aacparse", path.display());
        sound(&head)
    });
    reordered.push(video(
        "videotestsrc num-buffers=200 pattern=ball ! video/x-raw,format=I420,width=320,height=240,framerate=25/1 \
         ! x264enc bframes=3 b-adapt=false key-int-max=20 option-string=open-gop=1:scenecut=0 threads=1",
        "byte-stream",
    ));
    plain.push(video(
        "videotestsrc num-buffers=90 pattern=snow ! video/x-raw,format=I420,width=320,height=240,framerate=30/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 pass=quant quantizer=18 threads=1",
        "byte-stream",
    ));
    let made = "audiotestsrc num-buffers=400 wave=pink-noise samplesperbuffer=1024 \
                ! audio/x-raw,rate=48000,channels=2 ! avenc_aac ! aacparse";
    let sounds = sound.into_iter().chain([self::sound(made)]).collect();
    [reordered, plain, sounds, vec![messages()]]
}

fn video(head: &str, format: &str) -> Reel {
    let (caps, buffers) = access_units(head, format, UNITS);
    let mut key = None;
    let mut bytes = 0;
    let mut units = Vec::new();
    for buffer in buffers {
        let seen = see(&buffer);
        let nal_units = nal_units(&seen.data, format);
        bytes += seen.data.len();
        let start = match (nal_units.iter().any(is_idr), nal_units.iter().any(is_start)) {
            (true, _) => Start::Closed,
            (_, true) => Start::Open,
            _ => Start::No,
        };
        if bytes > BYTES && start != Start::No {
            break;
        }
        if start != Start::No {
            key = seen.pts;
        }
        units.push(unit(seen, start, key));
    }
    assert!(units.first().is_some_and(|unit| unit.start == Start::Closed), "{head}: it begins in the middle");
    reel(caps, units, false)
}

fn sound(head: &str) -> Reel {
    let (caps, buffers) = encoded(head, UNITS);
    reel(caps, buffers.iter().map(|buffer| unit(see(buffer), Start::Closed, None)).collect(), true)
}

/// A few bytes each, some without a duration, some without a decode time, some empty.
fn messages() -> Reel {
    let unit = |number: u64| Unit {
        pts: Some(number * 33_000_000),
        dts: number.is_multiple_of(3).then_some(number * 33_000_000),
        duration: number.is_multiple_of(2).then_some(33_000_000),
        flags: if number % 5 == 2 { gst::BufferFlags::MARKER } else { gst::BufferFlags::empty() },
        start: Start::Closed,
        leading: false,
        data: match number % 50 {
            49 => Vec::new(),
            length => format!("{{\"frame\":{number},\"boxes\":[{}]}}", "[1,2,3,4],".repeat(length as usize)).into(),
        },
    };
    reel(gst::Caps::new_empty_simple("application/x-boxes"), (0..UNITS as u64).map(unit).collect(), true)
}

fn unit(seen: Seen, start: Start, key: Option<u64>) -> Unit {
    Unit {
        pts: seen.pts,
        dts: seen.dts,
        duration: seen.duration,
        flags: seen.flags - gst::BufferFlags::DISCONT,
        start,
        leading: start == Start::No && seen.pts < key,
        data: seen.data,
    }
}

fn reel(caps: gst::Caps, mut units: Vec<Unit>, lists: bool) -> Reel {
    if lists {
        units.truncate(units.len() - units.len() % STRETCH as usize);
    }
    let end = |unit: &Unit| unit.pts.or(unit.dts).unwrap_or(0) + unit.duration.unwrap_or(100_000_000);
    let span = units.iter().map(end).max().unwrap_or(0);
    Reel { caps, units, span, lists }
}
