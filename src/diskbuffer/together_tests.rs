//! Two streams of one bin: where they begin together, what they drop together.

use std::path::Path;
use std::sync::Arc;

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::DiskBuffer;
use super::common::{FRAME, PATIENCE, Sink, frame, h264_caps, init, number, until};
use super::joint::JointCursor;
use super::managed_tests::Log;

pub(super) const GOP: u64 = 5;

pub(super) struct Member {
    pub(super) element: DiskBuffer,
    source: gst::Pad,
    pub(super) sink: Sink,
    downstream: gst::Pad,
    caps: gst::Caps,
    gop: u64,
}

impl Member {
    fn new(pipeline: &gst::Pipeline, location: &Path, name: &str, properties: &[(&str, &str)]) -> Self {
        let element = gst::ElementFactory::make("diskbuffer").name(name).build().unwrap();
        element.set_property("location", location.to_str().unwrap());
        element.set_property("stream-name", name);
        properties.iter().for_each(|(name, value)| element.set_property_from_str(name, value));
        pipeline.add(&element).unwrap();
        let source = gst::Pad::builder(gst::PadDirection::Src).build();
        source.link(&element.static_pad("sink").unwrap()).unwrap();
        let sink = Sink::default();
        let downstream = sink.pad();
        element.static_pad("src").unwrap().link(&downstream).unwrap();
        let (caps, gop) = match name {
            "video" => (h264_caps(), GOP),
            _ => (gst::Caps::builder("audio/mpeg").field("mpegversion", 4i32).build(), 1),
        };
        Self { element: element.downcast().unwrap(), source, sink, downstream, caps, gop }
    }

    fn start_stream(&self) {
        self.source.set_active(true).unwrap();
        let name = self.element.name();
        self.source.push_event(gst::event::StreamStart::builder(&name).group_id(gst::GroupId::next()).build());
        self.source.push_event(gst::event::Caps::new(&self.caps));
        self.source.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    }

    pub(super) fn push(&self, numbers: impl IntoIterator<Item = u64>) {
        for n in numbers {
            assert_eq!(self.source.push(frame(n, self.gop, 100)), Ok(gst::FlowSuccess::Ok));
        }
    }

    pub(super) fn stat(&self, name: &str) -> u64 {
        self.element.property::<gst::Structure>("stats").get(name).unwrap()
    }

    pub(super) fn wait_counted(&self) {
        // What memory alone holds is not pending.
        until("everything is counted", || self.stat("pending") + self.stat("queued") == 0);
    }

    pub(super) fn exchange(&mut self) {
        let srcpad = self.element.static_pad("src").unwrap();
        srcpad.unlink(&self.downstream).unwrap();
        self.downstream.set_active(false).unwrap();
        self.sink = Sink::default();
        self.downstream = self.sink.pad();
        srcpad.link(&self.downstream).unwrap();
    }

    pub(super) fn numbers(&self) -> Vec<u64> {
        self.sink.buffers().iter().map(number).collect()
    }

    /// Buffers that are kept although they were delivered.
    fn kept(&self) -> u64 {
        let cursor = self.element.imp().state().cursor;
        cursor.position - cursor.resume
    }
}

pub(super) struct Pair {
    pipeline: gst::Pipeline,
    pub(super) video: Member,
    pub(super) audio: Member,
}

impl Pair {
    pub(super) fn new(location: &Path, video: &[(&str, &str)]) -> Self {
        init();
        let pipeline = gst::Pipeline::new();
        // The sound comes first: the video leads all the same.
        let audio = Member::new(&pipeline, location, "audio", &[]);
        let video = Member::new(&pipeline, location, "video", video);
        let joint = Arc::new(JointCursor::default());
        audio.element.join(Some(&joint), false);
        video.element.join(Some(&joint), true);
        Self { pipeline, video, audio }
    }

    pub(super) fn playing(location: &Path, video: &[(&str, &str)]) -> Self {
        let this = Self::new(location, video);
        this.play();
        this
    }

    pub(super) fn play(&self) {
        self.pipeline.set_state(gst::State::Playing).unwrap();
        self.video.start_stream();
        self.audio.start_stream();
    }

    pub(super) fn members(&mut self) -> [&mut Member; 2] {
        [&mut self.video, &mut self.audio]
    }

    /// In the order in which a camera sends.
    pub(super) fn push(&self, numbers: std::ops::Range<u64>) {
        for n in numbers {
            self.video.push([n]);
            self.audio.push([n]);
        }
    }

    pub(super) fn fail(&mut self) {
        for member in self.members() {
            member.element.hold(Some("gone"));
            member.downstream.send_event(gst::event::FlushStart::new());
            assert!(member.element.wait_until_idle(PATIENCE));
            member.exchange();
        }
    }

    fn given(&self, first: &mut bool) -> Given {
        let first = std::mem::take(first);
        Given { video: self.video.sink.clone(), audio: self.audio.sink.clone(), first }
    }

    pub(super) fn release(&self) {
        self.video.element.release();
        self.audio.element.release();
    }

    /// Sound is undelivered from 8 on, video is not.
    pub(super) fn until_sound_waits(&self) {
        self.push(0..8);
        self.video.wait_counted();
        self.audio.wait_counted();
        self.audio.sink.hold_after(0);
        self.audio.push(8..13);
        self.audio.sink.wait_held();
        self.video.push(8..13);
        self.video.wait_counted();
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for member in self.members() {
            let _ = member.source.set_active(false);
        }
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

#[test]
fn a_new_downstream_gets_the_keyframe_that_undelivered_sound_needs_and_the_sound_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::playing(dir.path(), &[]);
    pair.until_sound_waits();
    pair.fail();
    pair.release();
    pair.video.sink.wait_buffers(8);
    pair.audio.sink.wait_buffers(8);
    assert_eq!(pair.video.numbers(), (5..13).collect::<Vec<_>>());
    assert_eq!(pair.audio.numbers(), (5..13).collect::<Vec<_>>());
    for member in pair.members() {
        until("it is trusted", || member.element.progress().trusted);
    }
    // From here on nothing holds anybody back.
    pair.push(13..40);
    pair.video.wait_counted();
    pair.push(40..46);
    pair.video.wait_counted();
    pair.audio.wait_counted();
    until("no more is kept than they need", || pair.video.kept() <= GOP && pair.audio.kept() <= 3 * GOP);
}

#[test]
fn after_a_restart_they_begin_together() {
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::playing(dir.path(), &[]);
    pair.until_sound_waits();
    drop(pair);
    let pair = Pair::new(dir.path(), &[]);
    pair.video.element.hold(None);
    pair.audio.element.hold(None);
    pair.play();
    pair.push(13..15);
    pair.release();
    pair.video.sink.wait_buffers(10);
    pair.audio.sink.wait_buffers(10);
    assert_eq!(pair.video.numbers(), (5..15).collect::<Vec<_>>());
    assert_eq!(pair.audio.numbers(), (5..15).collect::<Vec<_>>());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn after_a_crash_they_begin_together() {
    let dir = tempfile::tempdir().unwrap();
    let (store, crashed) = (dir.path().join("store"), dir.path().join("crashed"));
    let pair = Pair::playing(&store, &[]);
    pair.until_sound_waits();
    assert!(pair.video.element.imp().session().unwrap().stream.save_cursor());
    // What kill -9 would leave.
    copy(&store, &crashed);
    drop(pair);
    let pair = Pair::new(&crashed, &[]);
    pair.video.element.hold(None);
    pair.audio.element.hold(None);
    pair.play();
    pair.release();
    pair.video.sink.wait_buffers(8);
    pair.audio.sink.wait_buffers(8);
    assert_eq!(pair.video.numbers(), (5..13).collect::<Vec<_>>());
    assert_eq!(pair.audio.numbers(), (5..13).collect::<Vec<_>>());
}

#[test]
fn with_nothing_owed_nothing_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::playing(dir.path(), &[]);
    pair.push(0..8);
    pair.video.wait_counted();
    pair.audio.wait_counted();
    drop(pair);
    let pair = Pair::playing(dir.path(), &[]);
    pair.push(10..12);
    pair.video.sink.wait_buffers(2);
    pair.audio.sink.wait_buffers(2);
    assert_eq!((pair.video.numbers(), pair.audio.numbers()), (vec![10, 11], vec![10, 11]));
}

#[test]
fn what_one_drops_the_other_drops() {
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::new(dir.path(), &[("max-size-buffers", "10"), ("leaky", "downstream")]);
    pair.video.element.hold(None);
    pair.audio.element.hold(None);
    pair.play();
    pair.push(0..33);
    let first = 33 - pair.video.stat("pending");
    assert!(first > 0 && first.is_multiple_of(GOP));
    // Held or not.
    until("sound is dropped too", || pair.audio.stat("pending") == 33 - first);
    assert_eq!(pair.audio.stat("dropped"), first);
    pair.release();
    for member in [&pair.video, &pair.audio] {
        member.sink.wait_buffers((33 - first) as usize);
        assert_eq!(member.numbers(), (first..33).collect::<Vec<_>>());
    }
    let bus = pair.pipeline.bus().unwrap();
    let mut of_audio = 0;
    until("it is told as its own", || {
        let told = bus.iter().filter_map(|m| Some((m.src()?.name(), m.structure()?.to_owned())));
        let dropped = told.filter(|(name, s)| name == "audio" && s.name() == "diskbuffer-dropped");
        of_audio += dropped.map(|(_, s)| s.get::<u64>("buffers").unwrap()).sum::<u64>();
        of_audio == first
    });
}

#[test]
fn one_that_gets_nothing_or_has_ended_holds_nobody_back() {
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::playing(dir.path(), &[]);
    pair.push(0..8);
    pair.audio.wait_counted();
    pair.video.push(8..108);
    pair.video.wait_counted();
    until("no more video is kept than it needs", || pair.video.kept() <= GOP);
    pair.video.source.push_event(gst::event::Eos::new());
    pair.video.sink.wait_eos();
    until("its end is known", || pair.video.element.progress().ended);
    pair.audio.push(8..208);
    pair.audio.wait_counted();
    until("no more sound is kept than it needs", || pair.audio.kept() <= 2);
    const { assert!(200 * FRAME < 30_000_000_000, "or the bound would have done it") };
}

#[test]
fn alone_again_it_keeps_what_it_needs_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::playing(dir.path(), &[]);
    pair.until_sound_waits();
    pair.audio.element.set_state(gst::State::Null).unwrap();
    pair.audio.element.join(None, false);
    pair.video.push(13..23);
    pair.video.wait_counted();
    until("no more video is kept than it needs", || pair.video.kept() <= GOP);
    pair.video.element.hold(Some("gone"));
    assert!(pair.video.element.wait_until_idle(PATIENCE));
    pair.video.exchange();
    pair.video.element.release();
    pair.video.push(23..24);
    pair.video.sink.wait_buffers(4);
    assert_eq!(pair.video.numbers(), [20, 21, 22, 23]);
}

#[test]
fn at_a_boundary_of_one_the_other_goes_on_where_it_was_held() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::new(dir.path(), &[]);
    let log = Arc::new(Log::default());
    for member in pair.members() {
        member.element.set_manager(Some(log.clone()));
        member.element.set_boundaries(true);
    }
    pair.play();
    pair.push(0..10);
    pair.audio.wait_counted();
    let mut other = pair.video.caps.clone();
    other.make_mut().set("width", 128i32);
    pair.video.source.push_event(gst::event::Caps::new(&other));
    pair.video.push(10..12);
    log.wait(1);
    pair.audio.element.hold(None);
    assert!(pair.audio.element.wait_until_idle(PATIENCE));
    for member in pair.members() {
        assert!(member.element.push_eos());
        member.exchange();
    }
    pair.release();
    pair.audio.push(10..12);
    pair.video.sink.wait_buffers(2);
    pair.audio.sink.wait_buffers(2);
    assert_eq!((pair.video.numbers(), pair.audio.numbers()), (vec![10, 11], vec![10, 11]));
}

/// Numbers that need not be good, only the same for a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }
}

/// Sinks of one downstream, and what they were given.
struct Given {
    video: Sink,
    audio: Sink,
    /// The first of a run.
    first: bool,
}

fn contiguous(numbers: &[u64]) -> bool {
    numbers.windows(2).all(|pair| pair[1] == pair[0] + 1)
}

#[test]
fn whatever_happens_downstream_nothing_is_missing_and_sound_begins_with_the_keyframe() {
    random_downstreams(1..=12);
}

/// For `scripts/soak`.
mod soak {
    #[test]
    #[ignore = "long"]
    fn whatever_happens_downstream_nothing_is_missing_and_sound_begins_with_the_keyframe() {
        super::random_downstreams(13..=300);
    }
}

/// Random failures, orderly exchanges and restarts, with some of it in memory alone: everything arrives somewhere, each downstream begins at a keyframe with
/// DISCONT, has no gap, and has the sound from the keyframe on.
fn random_downstreams(seeds: std::ops::RangeInclusive<u64>) {
    for seed in seeds {
        let dir = tempfile::tempdir().unwrap();
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let overlap = [0, 300_000_000, 1_000_000_000][(seed % 3) as usize].to_string();
        let mut pair = Pair::new(dir.path(), &[("replay-overlap", &overlap)]);
        pair.audio.element.set_property_from_str("replay-overlap", &overlap);
        if seed % 4 == 0 {
            pair.members().iter().for_each(|member| member.element.set_property_from_str("persist", "spill"));
        }
        let log = Arc::new(Log::default());
        for member in pair.members() {
            member.element.set_manager(Some(log.clone()));
            member.element.hold(None);
        }
        pair.play();
        pair.release();
        let mut given = Vec::new();
        let (mut next, mut first) = (0, true);
        for _ in 0..25 {
            let count = 1 + dice.roll(12);
            pair.push(next..next + count);
            next += count;
            match dice.roll(5) {
                0 => {
                    let told = log.told().len();
                    let sink = if dice.roll(2) == 0 { &pair.video.sink } else { &pair.audio.sink };
                    sink.answer(Some(gst::FlowError::Error));
                    pair.push(next..next + 1);
                    next += 1;
                    log.wait(told + 1);
                    given.push(pair.given(&mut first));
                    pair.fail();
                    pair.release();
                }
                1 => {
                    given.push(pair.given(&mut first));
                    for member in pair.members() {
                        member.element.hold(None);
                    }
                    for member in pair.members() {
                        assert!(member.element.wait_until_idle(PATIENCE));
                        member.exchange();
                    }
                    pair.release();
                }
                2 => {
                    // One of them does not get on; the other does.
                    let sink = if dice.roll(2) == 0 { &pair.video.sink } else { &pair.audio.sink };
                    sink.hold_after(dice.roll(4) as usize);
                    pair.push(next..next + 8);
                    next += 8;
                    given.push(pair.given(&mut first));
                    pair.fail();
                    pair.release();
                }
                3 => {
                    given.push(pair.given(&mut first));
                    for member in pair.members() {
                        member.element.hold(Some("stopped"));
                        member.source.set_active(false).unwrap();
                    }
                    pair.pipeline.set_state(gst::State::Null).unwrap();
                    pair.members().into_iter().for_each(Member::exchange);
                    pair.play();
                    pair.release();
                    first = true;
                    next = next.next_multiple_of(GOP);
                }
                _ => {}
            }
        }
        for member in [&pair.video, &pair.audio] {
            member.wait_counted();
        }
        given.push(pair.given(&mut first));
        let mut missing: [std::collections::BTreeSet<u64>; 2] = Default::default();
        for (stream, missing) in missing.iter_mut().enumerate() {
            let sinks = given.iter().map(|given| if stream == 0 { &given.video } else { &given.audio });
            missing.extend(0..next);
            sinks.flat_map(|sink| sink.buffers()).for_each(|buffer| _ = missing.remove(&number(&buffer)));
        }
        // Numbers that a restart left out were never pushed.
        assert_eq!(missing[0], missing[1], "seed {seed}");
        let pushed = pair.video.stat("received");
        assert_eq!(next - missing[0].len() as u64, pushed, "seed {seed}: {missing:?}");
        let mut nothing_yet = true;
        for (index, given) in given.iter().enumerate() {
            nothing_yet |= given.first;
            let numbers = |sink: &Sink| sink.buffers().iter().map(number).collect::<Vec<_>>();
            let (video, audio) = (numbers(&given.video), numbers(&given.audio));
            let skipped = |n: &[u64]| n.windows(2).any(|p| (p[0]..p[1]).any(|n| missing[0].contains(&n)));
            for stream in [&video, &audio] {
                assert!(contiguous(stream) || skipped(stream), "seed {seed}, {index}: {stream:?}");
            }
            if let (Some(first), Some(sound)) = (video.first(), audio.first()) {
                assert!(first.is_multiple_of(GOP), "seed {seed}, {index}: {video:?}");
                let disconts = given.video.buffers()[0].flags.contains(gst::BufferFlags::DISCONT);
                assert!(std::mem::take(&mut nothing_yet) || disconts, "seed {seed}, {index}");
                assert!(sound <= first, "seed {seed}, {index}: {video:?} {audio:?}");
            }
        }
    }
}
