//! Recordings of several runs, and data that is on no timeline.

use gst::prelude::*;

use crate::common::*;
use crate::player::*;

fn tag(title: &str) -> gst::Event {
    let mut tags = gst::TagList::new();
    tags.make_mut().add::<gst::tags::Title>(&title, gst::TagMergeMode::Append);
    gst::event::Tag::new(tags)
}

/// Three runs of 2 s, an hour apart, each with an end of stream and caps and a tag of its own.
fn runs() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for run in 0..3u64 {
        let rig = Rig::new(dir.path(), &KEPT);
        let mut caps = h264_caps();
        caps.make_mut().set("run", run as i32);
        rig.start_stream(&format!("run-{run}"), &caps);
        rig.source.push_event(tag(&format!("run {run}")));
        for n in 0..50 {
            rig.push(captured(frame(n, GOP, 100), utc(n) + run * 3600 * SECOND));
        }
        rig.eos();
        rig.sink.wait_eos();
        rig.stop();
    }
    dir
}

#[test]
fn each_run_has_its_own_events_and_running_time_goes_on() {
    let dir = runs();
    let player = Player::new(dir.path(), &[]);
    player.sink.wait_eos();
    assert_eq!(player.numbers(), (0..50).cycle().take(150).collect::<Vec<_>>());
    use gst::EventType as T;
    let kinds: Vec<_> = player.sink.events().iter().map(|(at, e)| (*at, e.type_())).collect();
    let mut expected = Vec::new();
    for at in [0, 50, 100] {
        expected.extend([T::StreamStart, T::Caps, T::Segment, T::Tag].map(|kind| (at, kind)));
    }
    expected.push((150, T::Eos));
    assert_eq!(kinds, expected);
    let running: Vec<_> = player.sink.running_times().into_iter().flatten().collect();
    assert_eq!(running, (0..150).map(|n| n * FRAME).collect::<Vec<_>>());
    let times: Vec<_> = player.segments().iter().map(|s| s.time().unwrap().seconds()).collect();
    assert_eq!(times, [0, 3600, 7200]);
    let duration = player.element.query_duration::<gst::ClockTime>();
    assert_eq!(duration, Some(gst::ClockTime::from_seconds(7202)));
    let groups: Vec<_> = player
        .events(T::StreamStart)
        .iter()
        .map(|(_, e)| match e.view() {
            gst::EventView::StreamStart(e) => (e.stream_id().to_owned(), e.group_id().unwrap()),
            _ => unreachable!(),
        })
        .collect();
    assert_eq!(groups.iter().map(|g| g.0.as_str()).collect::<Vec<_>>(), ["run-0", "run-1", "run-2"]);
    assert!(groups.iter().all(|g| g.1 == groups[0].1), "one playback is one group");
}

#[test]
fn a_seek_into_another_run_brings_its_events() {
    let dir = runs();
    let player = Player::new(dir.path(), &[("stop", "2026-01-01T00:30:00")]);
    player.sink.wait_eos();
    assert_eq!(player.numbers().len(), 50);
    let seek = |start: u64, frames: usize| {
        let before = player.numbers().len();
        let (events, flags) = (player.sink.events().len(), gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE);
        let (start, none) = (gst::ClockTime::from_nseconds(start), gst::ClockTime::NONE);
        let seek = gst::event::Seek::new(1.0, flags, gst::SeekType::Set, start, gst::SeekType::Set, none);
        assert!(player.element.send_event(seek));
        player.sink.wait("the end", |a| {
            a.events.iter().any(|(at, e)| e.type_() == gst::EventType::Eos && *at == before + frames)
        });
        player.sink.events()[events..].iter().map(|(_, e)| e.type_()).collect::<Vec<_>>()
    };
    use gst::EventType as T;
    let kinds = seek(7201 * SECOND, 25);
    assert_eq!(kinds, [T::FlushStart, T::FlushStop, T::StreamStart, T::Caps, T::Segment, T::Tag, T::Eos]);
    assert_eq!(player.numbers()[50..], (25..50).collect::<Vec<_>>());
    // Between two runs: what was before is not shown, the next run follows.
    seek(1800 * SECOND, 125);
    assert_eq!(player.numbers()[75..100], (25..50).collect::<Vec<_>>());
    let running = player.sink.running_times();
    assert!(running[75..100].iter().all(Option::is_none), "none of it is in the segment");
    assert_eq!(running[100], Some(0));
}

#[test]
fn what_is_in_no_time_format_is_played_as_it_was_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &KEPT);
    rig.source.push_event(gst::event::StreamStart::new("bytes"));
    rig.source.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::format::Bytes>::new()));
    for n in 0..20u8 {
        rig.push(captured(gst::Buffer::from_slice([n]), utc(u64::from(n))));
    }
    rig.stop();
    let player = Player::new(dir.path(), &[]);
    player.sink.wait_eos();
    assert_eq!(player.sink.buffers().iter().map(|b| b.data[0]).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    match player.events(gst::EventType::Segment)[0].1.view() {
        gst::EventView::Segment(e) => assert_eq!(e.segment().format(), gst::Format::Bytes),
        _ => unreachable!(),
    }
    assert!(player.seek(gst::SeekFlags::FLUSH, 10 * FRAME));
    player.sink.wait_buffers(30);
    assert_eq!(player.sink.buffers()[20].data, [10]);
}

#[test]
fn buffers_without_timestamps_are_played() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &KEPT);
    rig.start_stream("klv", &gst::Caps::new_empty_simple("meta/x-klv"));
    for n in 0..20u8 {
        rig.push(captured(gst::Buffer::from_slice([n]), utc(u64::from(n) + 50)));
    }
    rig.stop();
    let numbers = |player: &Player| player.sink.buffers().iter().map(|b| b.data[0]).collect::<Vec<_>>();
    let player = Player::new(dir.path(), &[("start", "2026-01-01T00:00:02.2Z")]);
    player.sink.wait_eos();
    assert_eq!(numbers(&player), (5..20).collect::<Vec<_>>());
    assert_eq!(player.segments()[0].time(), Some(gst::ClockTime::from_nseconds(5 * FRAME)));
}

#[test]
fn what_was_purged_in_the_middle_shows_as_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let properties = [KEPT[0], ("add-position-meta", "true")];
    let rig = Rig::new(dir.path(), &properties);
    rig.start_stream("camera", &h264_caps());
    push(&rig, 0..250);
    rig.sink.wait_buffers(250);
    let positions = rig.sink.positions();
    assert!(rig.element.emit_by_name::<bool>("purge", &[&positions[100], &positions[149]]));
    let check = || {
        let player = Player::new(dir.path(), &[]);
        player.sink.wait_eos();
        assert_eq!(player.numbers(), (0..100).chain(150..250).collect::<Vec<_>>());
        let gaps = player.events(gst::EventType::Gap);
        assert_eq!(gaps.len(), 1);
        match gaps[0].1.view() {
            gst::EventView::Gap(e) => {
                assert_eq!(e.get(), (gst::ClockTime::from_seconds(4), Some(gst::ClockTime::from_seconds(2))))
            }
            _ => unreachable!(),
        }
        let next = &player.sink.buffers()[100];
        assert!(next.flags.contains(gst::BufferFlags::DISCONT) && next.data.starts_with(&sps()));
        assert_eq!(player.stat("lost"), 50, "they were recorded and are not there any more");
    };
    check();
    rig.stop();
    check();
}
