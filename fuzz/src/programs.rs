//! Random programs on a `framesync`: streams with any stamps, segments, gaps, flushes and ends, pads that come and go, settings
//! and states that change, receivers that refuse. Whatever happens, nothing panics or hangs, no element error is posted, every stream
//! that ends says so downstream, buffers keep their order and their stamps never go back; and where the element promises to drop
//! nothing, all that was pushed comes out, once.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use gst::glib;
use gst::prelude::*;

use crate::bytes::Bytes;
use crate::framesync::FrameSync;

/// Longer than any machine is busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);
const STREAMS: usize = 4;
const CADENCE: u64 = 40_000_000;
const FORMATS: [&str; 7] = ["pipeline", "epoch-seconds", "epoch-millis", "hls", "rtmp", "relative-seconds", "auto"];

fn time(ns: u64) -> gst::ClockTime {
    // The highest is no time.
    gst::ClockTime::from_nseconds(ns.min(u64::MAX - 1))
}

/// As far as properties go.
fn span(bytes: &mut Bytes) -> u64 {
    bytes.number().min(i64::MAX as u64)
}

/// What left a source pad since it was flushed last.
#[derive(Default)]
struct Seen {
    /// Number of each buffer, and DTS, or PTS without one.
    buffers: Vec<(u64, gst::ClockTime)>,
    /// Buffers that came, flushed or not.
    count: u64,
    eos: bool,
    /// So many came.
    ends: u32,
    /// What the next buffers are answered with.
    answer: Option<gst::FlowError>,
    refused: bool,
    complaint: Option<String>,
}

#[derive(Default)]
struct Receiver {
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl Receiver {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chain(&self, pad: &gst::Pad, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mut seen = self.seen();
        seen.count += 1;
        let begun = [gst::EventType::StreamStart, gst::EventType::Caps, gst::EventType::Segment];
        if let Some(missing) = begun.iter().find(|kind| pad.sticky_events_lacks(**kind)) {
            seen.complaint.get_or_insert(format!("a buffer before {missing:?}"));
        }
        match buffer.pts() {
            _ if seen.eos => drop(seen.complaint.get_or_insert("a buffer behind EOS".into())),
            Some(pts) => seen.buffers.push((buffer.offset(), buffer.dts().unwrap_or(pts))),
            None => drop(seen.complaint.get_or_insert("a buffer without PTS".into())),
        }
        if let Some(answer) = seen.answer.take() {
            seen.refused = true;
            self.changed.notify_all();
            return Err(answer);
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn event(&self, event: &gst::Event) {
        let mut seen = self.seen();
        match event.type_() {
            gst::EventType::Eos => (seen.eos, seen.ends) = (true, seen.ends + 1),
            gst::EventType::StreamStart => seen.eos = false,
            gst::EventType::FlushStop => (seen.eos, seen.ends, seen.buffers) = (false, 0, Vec::new()),
            _ => return,
        }
        self.changed.notify_all();
    }
}

trait Sticky {
    fn sticky_events_lacks(&self, kind: gst::EventType) -> bool;
}

impl Sticky for gst::Pad {
    fn sticky_events_lacks(&self, kind: gst::EventType) -> bool {
        let mut found = false;
        self.sticky_events_foreach(|event| {
            found |= event.type_() == kind;
            std::ops::ControlFlow::Continue(gst::EventForeachAction::Keep)
        });
        !found
    }
}

struct Stream {
    pad: gst::Pad,
    src: gst::Pad,
    _sink: gst::Pad,
    receiver: Arc<Receiver>,
    next_pts: u64,
    last: (Option<u64>, Option<u64>),
    /// Numbers of what was pushed since the last flush.
    pushed: Vec<u64>,
    ended: bool,
    /// How often, since the last flush.
    ends: u32,
    /// Nothing may be dropped.
    strict: bool,
    /// Stamps may go back.
    passes: bool,
}

struct Program {
    element: FrameSync,
    clock: gst_check::TestClock,
    bus: gst::Bus,
    live: bool,
    align: bool,
    streams: Vec<Stream>,
    next: u64,
}

pub fn framesync(data: &[u8]) {
    static INIT: std::sync::Once = std::sync::Once::new();
    INIT.call_once(|| {
        if let Err(err) = gst::init() {
            panic!("GStreamer does not start: {err}");
        }
        #[cfg(feature = "v1_20")]
        if !gst::meta::CustomMeta::is_registered("framesync-set") {
            gst::meta::CustomMeta::register_simple("framesync-set");
        }
    });
    let bytes = &mut Bytes(data);
    let mut program = Program::new(bytes);
    for _ in 0..=bytes.one() % 3 {
        program.add(bytes);
    }
    for _ in 0..2000 {
        if bytes.is_empty() {
            break;
        }
        program.step(bytes);
    }
    program.end();
}

impl Program {
    fn new(bytes: &mut Bytes) -> Self {
        let element: FrameSync = glib::Object::new();
        let (clock, bus) = (gst_check::TestClock::new(), gst::Bus::new());
        let kind = bytes.one();
        let (live, align) = (kind & 1 == 0, kind & 2 == 0);
        element.set_property_from_str("mode", if align { "align" } else { "normalize" });
        element.set_property("snap", kind & 4 == 0);
        element.set_property("latency", span(bytes));
        element.set_property("stream-timeout", span(bytes));
        element.set_property("max-interval", span(bytes));
        element.set_property("min-streams", u32::from(bytes.one() % 5));
        // Who pushes alone must not wait for room.
        element.set_property("max-held-buffers", if live { u32::from(bytes.one().max(1)) } else { 1_000_000 });
        element.set_property("reference", bytes.of(&[None, None, Some("sink_0"), Some("sink_3"), Some("clock")]));
        element.set_property("reference-interval", span(bytes).max(1));
        element.set_bus(Some(&bus));
        assert!(element.set_clock(Some(&clock)).is_ok());
        element.set_base_time(gst::ClockTime::ZERO);
        assert!(element.set_state(gst::State::Playing).is_ok());
        Self { element, clock, bus, live, align, streams: Vec::new(), next: 0 }
    }

    fn add(&mut self, bytes: &mut Bytes) {
        if self.streams.len() == STREAMS {
            return;
        }
        let (Some(template), live) = (self.element.pad_template("sink_%u"), self.live) else { return };
        let Some(pad) = self.element.request_pad(&template, None, None) else { panic!("no pad can be had") };
        let kind = bytes.one();
        pad.set_property_from_str("timestamp-format", bytes.of(&FORMATS));
        pad.set_property_from_str("timestamp-source", bytes.of(&["pts", "pts", "pts", "arrival", "reference-meta"]));
        pad.set_property_from_str("policy", bytes.of(&["one", "one", "one", "nearest", "all-since"]));
        let outliers = bytes.of(&["correct", "correct", "drop", "pass"]);
        pad.set_property_from_str("outlier-policy", outliers);
        pad.set_property_from_str("fill", bytes.of(&["gap", "none", "last"]));
        let src = gst::Pad::builder(gst::PadDirection::Src)
            .query_function(move |pad, parent, query| match query.view_mut() {
                gst::QueryViewMut::Latency(latency) => {
                    latency.set(live, gst::ClockTime::ZERO, gst::ClockTime::NONE);
                    true
                }
                _ => gst::Pad::query_default(pad, parent, query),
            })
            .build();
        let receiver = Arc::new(Receiver::default());
        let (chain, event) = (receiver.clone(), receiver.clone());
        let sink = gst::Pad::builder(gst::PadDirection::Sink)
            .chain_function(move |pad, _, buffer| chain.chain(pad, &buffer))
            .event_function(move |_, _, arrived| {
                event.event(&arrived);
                true
            })
            .build();
        assert!(sink.set_active(true).and(src.set_active(true)).is_ok());
        let out = self.element.static_pad(&pad.name().replace("sink", "src"));
        assert!(out.is_some_and(|out| out.link(&sink).is_ok()) && src.link(&pad).is_ok());
        let inter_coded = kind & 1 == 0;
        let strict = inter_coded || !self.align && outliers != "drop";
        self.streams.push(Stream {
            pad,
            src,
            _sink: sink,
            receiver,
            next_pts: if kind & 2 == 0 { 0 } else { bytes.number() },
            last: (None, None),
            pushed: Vec::new(),
            ended: false,
            ends: 0,
            strict,
            passes: inter_coded || outliers == "pass",
        });
        if let Some(stream) = self.streams.last_mut() {
            stream.begin(if inter_coded { "video/x-h264" } else { "video/x-raw" });
        }
    }

    fn step(&mut self, bytes: &mut Bytes) {
        let what = bytes.one();
        let at = usize::from(what & 3);
        if at >= self.streams.len() {
            self.pass_time(u64::from(what) * 1_000_000);
            return;
        }
        let next = self.next;
        let stream = &mut self.streams[at];
        match what >> 2 {
            0 => self.add(bytes),
            1 => {
                stream.src.push_event(gst::event::FlushStart::new());
                stream.src.push_event(gst::event::FlushStop::new(true));
                stream.pushed.clear();
                (stream.ended, stream.ends) = (false, 0);
                stream.segment(bytes);
            }
            2 => stream.end(),
            3 => stream.restart(),
            4 => stream.segment(bytes),
            5 => {
                let gap = gst::event::Gap::builder(time(bytes.number())).duration(bytes.maybe().map(time));
                stream.src.push_event(gap.build());
            }
            6 => {
                let stream = self.streams.remove(at);
                self.element.release_request_pad(&stream.pad);
            }
            7 => stream.pad.set_property("offset", bytes.number() as i64),
            8 => self.element.set_property("latency", span(bytes)),
            9 => self.element.set_property("min-streams", u32::from(bytes.one() % 5)),
            10 => {
                stream.receiver.seen().answer = Some(bytes.of(&[gst::FlowError::Eos, gst::FlowError::NotLinked]));
            }
            11 => drop(stream.pad.push_event(gst::event::Reconfigure::new())),
            12 => {
                assert!(self.element.set_state(gst::State::Paused).is_ok());
                assert!(self.element.set_state(gst::State::Playing).is_ok());
            }
            13 => {
                let mut latency = gst::query::Latency::new();
                stream._sink.peer_query(&mut latency);
            }
            14 => drop(stream.src.push_event(gst::event::CustomDownstream::new(gst::Structure::new_empty("x")))),
            15 => stream.pad.set_property("max-slew-ppm", (bytes.number() % 500_001) as u32),
            16 => drop(stream.pad.property::<Option<gst::Structure>>("stats")),
            17..=23 => self.pass_time(bytes.number()),
            24 => stream.pad.set_property_from_str("timestamp-format", bytes.of(&FORMATS)),
            25..=30 => {
                stream.push(next, bytes.maybe(), bytes.maybe());
                self.next += 1;
            }
            31..=34 => {
                let (pts, dts) = stream.last;
                stream.push(next, pts, dts);
                self.next += 1;
            }
            kind => {
                let pts = stream.next_pts;
                stream.next_pts = pts.wrapping_add(CADENCE);
                stream.push(next, Some(pts), (kind & 1 == 0).then_some(pts));
                self.next += 1;
                self.pass_time(CADENCE / STREAMS as u64);
            }
        }
    }

    fn pass_time(&self, ns: u64) {
        let until = self.clock.time() + time(ns % 20_000_000_000);
        while let Some(next) = self.clock.peek_next_pending_id().map(|id| id.time()).filter(|next| *next <= until) {
            if self.clock.time() < next {
                self.clock.set_time(next);
            }
            if self.clock.process_next_clock_id().is_none() {
                break;
            }
        }
        if self.clock.time() < until {
            self.clock.set_time(until);
        }
    }

    fn end(mut self) {
        self.streams.iter_mut().for_each(Stream::end);
        for stream in &self.streams {
            let seen = stream.receiver.seen();
            let waits = |seen: &mut Seen| seen.ends < stream.ends && !seen.refused && seen.complaint.is_none();
            let waited = stream.receiver.changed.wait_timeout_while(seen, PATIENCE, waits);
            let (seen, over) = waited.unwrap_or_else(PoisonError::into_inner);
            if let Some(complaint) = &seen.complaint {
                panic!("{}: {complaint}", stream.pad.name());
            }
            assert!(!over.timed_out(), "{} does not end: {:?}", stream.pad.name(), stream.stats());
            stream.check(&seen, self.align);
        }
        assert!(self.element.set_state(gst::State::Null).is_ok());
        if let Some(message) = self.bus.pop_filtered(&[gst::MessageType::Error]) {
            panic!("{message:?}");
        }
        self.element.set_bus(None);
    }
}

impl Stream {
    fn begin(&mut self, caps: &str) {
        self.src.push_event(gst::event::StreamStart::new(&self.pad.name()));
        self.src.push_event(gst::event::Caps::new(&gst::Caps::new_empty_simple(caps)));
        self.src.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    }

    fn segment(&self, bytes: &mut Bytes) {
        let kind = bytes.one();
        if kind.is_multiple_of(8) {
            let segment = gst::FormattedSegment::<gst::format::Bytes>::new();
            self.src.push_event(gst::event::Segment::new(&segment));
            return;
        }
        let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
        if kind.is_multiple_of(3) {
            segment.set_start(time(bytes.number()));
            segment.set_base(time(bytes.number()));
            segment.set_time(bytes.maybe().map(time));
            segment.set_rate(bytes.of(&[1.0, 2.0, 0.5, -1.0]));
        }
        self.src.push_event(gst::event::Segment::new(&segment));
    }

    fn push(&mut self, number: u64, pts: Option<u64>, dts: Option<u64>) {
        self.last = (pts, dts);
        let mut buffer = gst::Buffer::new();
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(pts.map(time));
            buffer.set_dts(dts.map(time));
            buffer.set_offset(number);
        }
        match self.src.push(buffer) {
            Ok(_) => self.pushed.push(number),
            // Taken, and refused downstream by then.
            Err(_) => self.strict &= self.ended,
        }
    }

    fn end(&mut self) {
        if !self.ended {
            self.src.push_event(gst::event::Eos::new());
            self.ended = true;
            self.ends += 1;
        }
    }

    /// After EOS a stream may begin again.
    fn restart(&mut self) {
        if self.ended {
            self.src.push_event(gst::event::StreamStart::new(&self.pad.name()));
            self.src.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
            self.ended = false;
        }
    }

    fn stats(&self) -> Option<gst::Structure> {
        self.pad.property("stats")
    }

    fn check(&self, seen: &Seen, align: bool) {
        let name = self.pad.name();
        let numbers: Vec<u64> = seen.buffers.iter().map(|(number, _)| *number).collect();
        let rising = numbers.is_sorted_by(|a, b| a < b || align && a == b);
        assert!(rising, "{name}: out of order: {numbers:?}");
        if self.strict && !seen.refused {
            assert_eq!(numbers, self.pushed, "{name}: {:?}", self.stats());
        }
        if !self.passes {
            let back = seen.buffers.windows(2).find(|pair| pair[1].1 < pair[0].1);
            assert!(back.is_none(), "{name}: {back:?}");
        }
        // What was refused may not be counted yet.
        if let Some(stats) = self.stats().filter(|_| !seen.refused) {
            assert_eq!(stats.get::<u64>("out"), Ok(seen.count), "{name}: {stats:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(programs: u64, seed: u64) {
        for number in 0..programs {
            let seed = seed.wrapping_add(number);
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut random = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state >> 11
            };
            let length = 40 + random() % 600;
            let data: Vec<u8> = (0..length).map(|_| random() as u8).collect();
            let outcome = std::panic::catch_unwind(|| framesync(&data));
            assert!(outcome.is_ok(), "program of seed {seed}");
        }
    }

    #[test]
    fn random_programs_lose_nothing_and_end() {
        run(100, 1);
    }

    mod soak {
        use super::run;

        fn set(name: &str) -> Option<u64> {
            std::env::var(name).ok().and_then(|text| text.parse().ok())
        }

        /// As many as STREAMBUFFER_SOAK_PROGRAMS says, times a hundred, from STREAMBUFFER_SOAK_SEED on.
        #[test]
        #[ignore = "takes minutes"]
        fn many_random_programs_lose_nothing_and_end() {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let seed = set("STREAMBUFFER_SOAK_SEED").unwrap_or(now.map_or(0, |since| since.as_secs() << 20));
            run(100 * set("STREAMBUFFER_SOAK_PROGRAMS").unwrap_or(300), seed);
        }
    }
}
