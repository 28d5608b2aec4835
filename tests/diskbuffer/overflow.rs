//! Overflow with real video, held up and let go at different moments: what comes out decodes without an error to the pictures
//! that it shows without the element, begins at keyframes after each gap, and what was reported is exactly what is missing.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use gst::prelude::*;

use crate::common::*;
use crate::pictures::*;

/// Access units with their numbers as offsets, and the pictures they show.
struct Film {
    caps: gst::Caps,
    units: Vec<gst::Buffer>,
    seen: Vec<Seen>,
    /// Where decoding can begin.
    starts: Vec<bool>,
    pictures: Pictures,
    /// Not every keyframe is an IDR picture.
    open: bool,
}

impl Film {
    /// The first `count` units of what `head` gives.
    fn load(head: &str, stream_format: &str, count: usize) -> Self {
        init();
        let (caps, units) = access_units(head, stream_format, count);
        let seen: Vec<_> = units.iter().map(|unit| see(unit)).collect();
        let nal_units: Vec<_> = seen.iter().map(|seen| nal_units(&seen.data, stream_format)).collect();
        let starts: Vec<_> = nal_units.iter().map(|units| units.iter().any(is_start)).collect();
        let open = nal_units.iter().zip(&starts).any(|(units, start)| *start && !units.iter().any(is_idr));
        let mut film = Self { caps, units, seen, starts, pictures: Pictures::new(), open };
        let begin = film.beginning();
        film.pictures =
            decode("the film", film.open, begin.into_iter().map(Err).chain(film.units.iter().cloned().map(Ok)));
        assert!(film.pictures.len() + 2 >= film.units.len(), "{} of {}", film.pictures.len(), film.units.len());
        let keys = film.keys();
        assert!(keys.len() >= 3, "{keys:?}");
        println!("{stream_format} {head}: keyframes {keys:?}, open: {}", film.open);
        film
    }

    fn clip(name: &str, stream_format: &str, count: usize) -> Option<Self> {
        Some(Self::load(&video_of(&clip(name)?), stream_format, count))
    }

    /// With B-frames.
    fn made(stream_format: &str, open: bool) -> Self {
        let open = u8::from(open);
        let head = format!(
            "videotestsrc num-buffers=300 pattern=ball ! video/x-raw,format=I420,width=96,height=64,framerate=25/1 \
             ! x264enc bframes=3 b-adapt=false key-int-max=30 option-string=open-gop={open}:scenecut=0 threads=1"
        );
        Self::load(&head, stream_format, usize::MAX)
    }

    fn beginning(&self) -> [gst::Event; 3] {
        [
            gst::event::StreamStart::new("film"),
            gst::event::Caps::new(&self.caps),
            gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()),
        ]
    }

    fn is_key(&self, number: usize) -> bool {
        self.starts[number]
    }

    fn keys(&self) -> Vec<usize> {
        (0..self.seen.len()).filter(|&number| self.is_key(number)).collect()
    }

    /// Shown before the keyframe that it follows.
    fn is_leading(&self, number: usize) -> bool {
        let key = (0..=number).rev().find(|&number| self.is_key(number));
        key.is_some_and(|key| self.seen[number].pts < self.seen[key].pts)
    }

    fn bytes(&self, numbers: impl IntoIterator<Item = usize>) -> u64 {
        numbers.into_iter().map(|number| self.seen[number].data.len() as u64).sum()
    }
}

/// One with each kind of limit, and the same part of the film for each, at least what a GOP takes.
fn limits(film: &Film, share: f64) -> [(&'static str, String); 3] {
    let whole = film.seen.len();
    let keys: Vec<_> = film.keys().into_iter().chain([whole]).collect();
    let gops = || keys.windows(2).map(|gop| gop[0]..gop[1]);
    let part = |whole: u64, gop: u64| ((whole as f64 * share) as u64).max(gop + gop / 8).to_string();
    let time = |gop: std::ops::Range<usize>| film.seen[gop.end - 1].dts.unwrap() - film.seen[gop.start].dts.unwrap();
    [
        ("max-size-buffers", part(whole as u64, gops().map(|gop| gop.len() as u64).max().unwrap())),
        ("max-size-bytes", part(film.bytes(0..whole), gops().map(|gop| film.bytes(gop)).max().unwrap())),
        ("max-size-time", part(time(0..whole), gops().map(time).max().unwrap())),
    ]
}

/// What a `diskbuffer-dropped` message says.
#[derive(Debug)]
struct Told {
    reason: String,
    buffers: u64,
    bytes: u64,
    first: u64,
    last: u64,
}

fn told(rig: &Rig) -> Vec<Told> {
    let messages = std::iter::from_fn(|| rig.bus.pop());
    messages
        .filter_map(|message| {
            let s = message.structure().filter(|s| s.name() == "diskbuffer-dropped")?;
            let get = |name: &str| s.get::<u64>(name).unwrap();
            Some(Told {
                reason: s.get("reason").unwrap(),
                buffers: get("buffers"),
                bytes: get("bytes"),
                first: get("first-position"),
                last: get("last-position"),
            })
        })
        .collect()
}

/// When the sink takes buffers: before the first, and after so many were pushed.
struct Flow {
    before: usize,
    /// At which unit, and at most how many it takes then.
    later: &'static [(usize, usize)],
}

const FLOWS: [Flow; 3] = [
    Flow { before: 0, later: &[] },
    Flow { before: 7, later: &[(120, 9), (200, 40)] },
    Flow { before: 60, later: &[(90, 1), (130, 23), (131, 5), (250, 30)] },
];

/// Pushes the film through an element with this limit; what arrived and what was told.
fn play(film: &Film, properties: &[(&str, &str)], flow: &Flow) -> (Rig, Vec<Told>) {
    let temp = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    sink.hold_after(flow.before);
    let properties = [properties, &[("add-position-meta", "true")]].concat();
    let rig = Rig::with_sink(temp.path(), &properties, sink);
    let blocks = properties.contains(&("leaky", "no"));
    film.beginning().into_iter().for_each(|event| assert!(rig.source.push_event(event)));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // The identities hold whenever somebody looks.
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                rig.check_accounts();
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        let _over = Raise(&over);
        if blocks {
            let pusher = scope.spawn(|| film.units.iter().for_each(|unit| rig.push(unit.clone())));
            for &(_, passes) in flow.later {
                until("it is full", || rig.element.property::<u32>("current-level-buffers") as usize > passes);
                take(&rig, passes);
            }
            rig.sink.release();
            pusher.join().unwrap();
        } else {
            for (number, unit) in film.units.iter().enumerate() {
                for &(_, passes) in flow.later.iter().filter(|later| later.0 == number) {
                    take(&rig, passes.min(rig.stat("pending") as usize / 2));
                }
                rig.push(unit.clone());
            }
        }
        rig.eos();
        rig.sink.release();
        rig.sink.wait_eos();
        until("all is counted", || rig.stat("pending") == 0);
    });
    rig.check_accounts();
    let told = told(&rig);
    (rig, told)
}

struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Lets the sink take so many, of which it holds one already.
fn take(rig: &Rig, passes: usize) {
    let before = rig.sink.buffers().len();
    rig.sink.hold_after(passes);
    rig.sink.wait_buffers(before + passes);
}

/// The unit that came out, the same but for what begins a resumption.
fn check_unit(what: &str, film: &Film, seen: &Seen, resumed: bool) -> usize {
    let at = number(seen) as usize;
    let unit = &film.seen[at];
    let discont = gst::BufferFlags::DISCONT;
    assert_eq!(seen.flags.contains(discont), resumed, "{what}: unit {at}");
    let like = Seen { data: seen.data.clone(), flags: seen.flags - discont, ..unit.clone() };
    assert_eq!(
        (seen.pts, seen.dts, seen.duration, seen.flags - discont),
        (like.pts, like.dts, like.duration, unit.flags)
    );
    if resumed {
        // Parameter sets may have been put in.
        let same = unit.data.iter().zip(&seen.data).take_while(|(a, b)| a == b).count();
        assert!(seen.data.len() >= unit.data.len() && seen.data.ends_with(&unit.data[same..]), "{what}: unit {at}");
    } else {
        assert!(seen.data == unit.data, "{what}: unit {at}");
    }
    at
}

/// Plays and checks; how many are missing.
fn check(what: &str, film: &Film, leaky: &str, properties: &[(&str, &str)], flow: &Flow) -> usize {
    let properties = [properties, &[("leaky", leaky)]].concat();
    let what = format!("{what} {properties:?} {:?}", flow.later);
    let (rig, told) = play(film, &properties, flow);
    let (buffers, positions, events) = (rig.sink.buffers(), rig.sink.positions(), rig.sink.events());

    // In order, from keyframes on.
    let mut arrived: Vec<usize> = Vec::new();
    let mut left_out = BTreeSet::new();
    let mut gaps = Vec::new();
    let mut resumed_at = None;
    for (place, seen) in buffers.iter().enumerate() {
        let at = number(seen) as usize;
        let next = arrived.last().map_or(0, |last| last + 1);
        assert!(at >= next, "{what}: {at} comes after {next}");
        let leading = resumed_at.is_some_and(|key| key + 1 == next) && (next..at).all(|n| film.is_leading(n));
        if leading {
            left_out.extend(next..at);
        }
        let resumed = at > next && !leading;
        if resumed {
            assert!(film.is_key(at), "{what}: {at} is no keyframe");
            let gap = events.iter().any(|(p, e)| *p == place && e.type_() == gst::EventType::Gap);
            // With nothing before it, there is nothing to show a gap in.
            assert!(gap || place == 0, "{what}: nothing tells of the gap before {at}, buffer {place}, of {next}");
            gaps.push((next..at, place));
            resumed_at = Some(at);
        }
        check_unit(&what, film, seen, resumed);
        arrived.push(at);
    }
    let ending = arrived.last().map_or(0, |last| last + 1)..film.units.len();
    let missing: BTreeSet<_> =
        (0..film.units.len()).filter(|n| !arrived.contains(n) && !left_out.contains(n)).collect();
    assert_eq!(missing.is_empty(), leaky == "no", "{what}");

    // What was told.
    let counted = rig.element.property::<gst::Structure>("stats");
    let stat = |name: &str| counted.get::<u64>(name).unwrap();
    assert_eq!(stat("delivered") as usize, arrived.len() + left_out.len(), "{what}: {counted}");
    assert_eq!((stat("lost"), stat("expired"), stat("purged"), stat("replayed")), (0, 0, 0, 0), "{what}");
    let (lost, kept) = if leaky == "upstream" { ("rejected", "dropped") } else { ("dropped", "rejected") };
    assert_eq!((stat(lost) as usize, stat(kept)), (missing.len(), 0), "{what}: {counted}");
    assert_eq!(stat(&format!("{lost}-bytes")), film.bytes(missing.iter().copied()), "{what}: {counted}");
    if leaky == "upstream" {
        if !ending.is_empty() {
            gaps.push((ending, buffers.len()));
        }
        assert_eq!(told.len(), gaps.len(), "{what}: {told:?}, {gaps:?}");
        for (told, (gap, place)) in told.iter().zip(gaps.clone()) {
            let expected = (gap.len() as u64, film.bytes(gap.clone()), told.first);
            assert_eq!((told.buffers, told.bytes, told.last), expected, "{what}: {gap:?}");
            // Between its neighbours.
            assert!(place.checked_sub(1).is_none_or(|before| positions[before] < told.first), "{what}: {told:?}");
            assert!(positions.get(place).is_none_or(|after| told.last < *after), "{what}: {told:?}");
        }
    } else {
        check_ranges(&what, film, &told, &arrived, &positions, &missing);
    }

    // What is seen; where GOPs are open, by a decoder that begins anew at each gap.
    let mut events = events.into_iter().filter(|(_, e)| e.type_() != gst::EventType::Eos).peekable();
    let mut stretches = vec![(Vec::new(), Pictures::new())];
    for (place, seen) in buffers.iter().enumerate() {
        if film.open && place > 0 && seen.flags.contains(gst::BufferFlags::DISCONT) {
            stretches.push((film.beginning().into_iter().map(Err).collect(), Pictures::new()));
        }
        let (passing, expected) = stretches.last_mut().unwrap();
        while let Some((_, event)) = events.next_if(|(at, _)| *at <= place) {
            passing.push(Err(event));
        }
        let mut buffer = gst::Buffer::from_slice(seen.data.clone());
        let out = buffer.make_mut();
        out.set_flags(seen.flags);
        out.set_pts(seen.pts.map(gst::ClockTime::from_nseconds));
        out.set_dts(seen.dts.map(gst::ClockTime::from_nseconds));
        passing.push(Ok(buffer));
        expected.extend(film.pictures.get_key_value(&seen.pts.unwrap()).map(|(pts, checksum)| (*pts, *checksum)));
    }
    for (passing, expected) in stretches {
        let shown = decode(&what, film.open, passing);
        let unseen: Vec<_> = expected.keys().filter(|pts| !shown.contains_key(pts)).collect();
        // Where numbers of frames jump, GStreamer 1.22 takes one picture for another at the end.
        let passed_over = usize::from(film.open);
        assert!(unseen.len() <= passed_over, "{what}: never shown: {unseen:?} of {}, {gaps:?}", expected.len());
        let other: Vec<_> = shown.iter().filter(|shown| expected.get(shown.0) != Some(shown.1)).collect();
        assert!(other.is_empty(), "{what}: other pictures: {other:?}");
    }
    missing.len()
}

/// Positions that were told are those of what is missing.
fn check_ranges(
    what: &str,
    film: &Film,
    told: &[Told],
    arrived: &[usize],
    positions: &[u64],
    missing: &BTreeSet<usize>,
) {
    // Nothing but units was pushed after the beginning.
    let base = positions[0] - arrived[0] as u64;
    let places = arrived.iter().map(|at| *at as u64 + base);
    assert!(places.eq(positions.iter().copied()), "{what}: positions are not consecutive");
    let mut gone = BTreeSet::new();
    for told in told {
        let thinned = told.reason.ends_with("thinned");
        let range = told.first.saturating_sub(base) as usize..((told.last + 1 - base) as usize).min(film.units.len());
        let new: Vec<_> = range.filter(|&n| !(gone.contains(&n) || thinned && film.is_key(n))).collect();
        assert_eq!((told.buffers, told.bytes), (new.len() as u64, film.bytes(new.iter().copied())), "{what}: {told:?}");
        // What was on its way was not known to arrive.
        let arrived: Vec<_> = new.iter().filter(|at| arrived.contains(at)).collect();
        assert!(arrived.is_empty() || !thinned && arrived == [&new[0]], "{what}: {told:?}, but {arrived:?} arrived");
        gone.extend(new);
    }
    let silently: Vec<_> = missing.difference(&gone).collect();
    assert!(silently.is_empty(), "{what}: {silently:?} are missing and nobody was told");
}

/// All kinds of limits and moments in one mode, from the disk and from memory.
fn check_mode(name: &str, film: &Film, leaky: &str, flows: std::ops::Range<usize>) {
    for number in flows {
        let flow = &FLOWS[number];
        for (limit, value) in limits(film, [0.35, 0.25, 0.45][number]) {
            let memory = [("max-memory-bytes", "0"), ("max-memory-bytes", "8388608"), ("max-memory-bytes", "100000")];
            let missing = check(name, film, leaky, &[(limit, &value), memory[number]], flow);
            println!("{name} {leaky} {limit}={value}: {missing} of {} are missing", film.units.len());
        }
    }
}

fn check_films(leaky: &str) {
    for (format, flows) in [("byte-stream", 0..FLOWS.len()), ("avc", 1..2)] {
        check_mode("closed", &Film::made(format, false), leaky, flows.clone());
        check_mode("open", &Film::made(format, true), leaky, flows.clone());
        for name in ["concat_ccby_b3.mp4", "bbb_64s.mp4"] {
            if let Some(film) = Film::clip(name, format, 300) {
                check_mode(name, &film, leaky, flows.clone());
            }
        }
    }
}

#[test]
fn dropping_what_is_new_leaves_what_decodes() {
    check_films("upstream");
}

#[test]
fn dropping_what_is_oldest_leaves_what_decodes() {
    check_films("downstream");
}

#[test]
fn thinning_leaves_what_decodes() {
    check_films("thin");
}

#[test]
fn blocking_leaves_everything() {
    check_films("no");
}
