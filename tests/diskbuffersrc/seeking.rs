//! Seeks and the queries that go with them.

use gst::prelude::*;

use crate::common::*;
use crate::player::*;

fn time(ns: u64) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(ns)
}

/// Plays a recording of 10 s up to its end and stays there.
fn at_the_end(dir: &tempfile::TempDir) -> Player {
    let player = Player::new(dir.path(), &[]);
    player.sink.wait_eos();
    player
}

fn wait_for_end_after(player: &Player, buffers: usize) {
    player.sink.wait("the end after the seek", |arrived| {
        arrived.events.iter().any(|(at, e)| e.type_() == gst::EventType::Eos && *at > buffers)
    });
}

#[test]
fn a_flushing_seek_begins_at_the_keyframe_and_shows_from_where_it_was_asked() {
    let dir = recording(0..250);
    let player = at_the_end(&dir);
    let seek = gst::event::Seek::new(
        1.0,
        gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE,
        gst::SeekType::Set,
        time(2 * SECOND + SECOND / 2),
        gst::SeekType::Set,
        time(5 * SECOND + SECOND / 4),
    );
    let seqnum = seek.seqnum();
    assert!(player.element.send_event(seek));
    wait_for_end_after(&player, 250);
    assert_eq!(player.numbers()[250..], (50..150).collect::<Vec<_>>());
    let segment = player.segments().pop().unwrap();
    assert_eq!(segment.start(), Some(time(2 * SECOND + SECOND / 2)));
    assert_eq!(segment.stop(), Some(time(5 * SECOND + SECOND / 4)));
    assert_eq!(segment.time(), Some(time(2 * SECOND + SECOND / 2)));
    assert_eq!((segment.base(), segment.rate()), (Some(time(0)), 1.0));
    let seen = player.sink.buffers();
    assert!(seen[250].flags.contains(gst::BufferFlags::DISCONT));
    assert!(seen[250].data.starts_with(&sps()), "the parameter sets that this keyframe lacks");
    use gst::EventType as T;
    let after: Vec<_> = player.sink.events().into_iter().skip_while(|(_, e)| e.type_() != T::Eos).skip(1).collect();
    let kinds: Vec<_> = after.iter().map(|(_, e)| e.type_()).collect();
    assert_eq!(kinds, [T::FlushStart, T::FlushStop, T::Segment, T::Eos]);
    assert!(after.iter().all(|(_, e)| e.seqnum() == seqnum), "{after:?}");
    assert_eq!(player.element.query_position::<gst::ClockTime>(), Some(time(5 * SECOND + SECOND / 4)));
}

#[test]
fn a_key_unit_seek_begins_at_the_keyframe_that_was_asked_for() {
    let dir = recording(0..250);
    let player = at_the_end(&dir);
    use gst::SeekFlags as F;
    for (flags, wanted, first) in [
        (F::KEY_UNIT, 2 * SECOND + SECOND / 2, 50),
        (F::KEY_UNIT | F::SNAP_BEFORE, 2 * SECOND + 999_000_000, 50),
        (F::KEY_UNIT | F::SNAP_AFTER, 2 * SECOND + 1, 75),
        (F::KEY_UNIT | F::SNAP_AFTER, 2 * SECOND, 50),
        (F::KEY_UNIT | F::SNAP_NEAREST, 2 * SECOND + SECOND / 3, 50),
        (F::KEY_UNIT | F::SNAP_NEAREST, 2 * SECOND + SECOND * 2 / 3, 75),
        (F::KEY_UNIT | F::SNAP_AFTER, 9 * SECOND + SECOND / 2, 225),
        (F::KEY_UNIT, 77 * SECOND, 225),
        (F::empty(), 77 * SECOND, 225),
    ] {
        let before = player.numbers().len();
        assert!(player.seek(F::FLUSH | flags, wanted));
        wait_for_end_after(&player, before);
        assert_eq!(player.numbers()[before..], (first..250).collect::<Vec<_>>(), "{flags:?} {wanted}");
        let segment = player.segments().pop().unwrap();
        assert_eq!((segment.start(), segment.time()), (Some(time(first * FRAME)), Some(time(first * FRAME))));
    }
}

#[test]
fn a_seek_without_a_flush_goes_on_in_running_time() {
    let dir = recording(0..250);
    let player = Player::idle(dir.path(), &[]);
    player.sink.hold_after(60);
    player.element.set_state(gst::State::Playing).unwrap();
    player.sink.wait_buffers(60);
    assert!(player.seek(gst::SeekFlags::ACCURATE, 5 * SECOND));
    player.sink.release();
    player.sink.wait_eos();
    let numbers = player.numbers();
    let jump = numbers.windows(2).position(|pair| pair[1] != pair[0] + 1).unwrap() + 1;
    assert_eq!(numbers[jump..], (125..250).collect::<Vec<_>>());
    assert!(jump < 70, "the seek waits for nothing but the push that is under way: {jump}");
    assert!(player.events(gst::EventType::FlushStart).is_empty());
    let times: Vec<_> = player.sink.running_times().into_iter().flatten().collect();
    assert_eq!(times, (0..numbers.len() as u64).map(|n| n * FRAME).collect::<Vec<_>>());
}

#[test]
fn after_the_end_a_seek_without_a_flush_plays_again() {
    let dir = recording(0..50);
    let player = at_the_end(&dir);
    assert!(player.seek(gst::SeekFlags::empty(), 0));
    player.sink.wait_buffers(100);
    assert_eq!(player.numbers(), (0..50).chain(0..50).collect::<Vec<_>>());
    assert_eq!(player.events(gst::EventType::StreamStart).len(), 2);
}

#[test]
fn the_end_of_a_segment_is_told_and_is_not_the_end() {
    let dir = recording(0..250);
    let player = at_the_end(&dir);
    let seek = gst::event::Seek::new(
        1.0,
        gst::SeekFlags::FLUSH | gst::SeekFlags::SEGMENT,
        gst::SeekType::Set,
        time(SECOND),
        gst::SeekType::Set,
        time(2 * SECOND),
    );
    let seqnum = seek.seqnum();
    assert!(player.element.send_event(seek));
    let patience = gst::ClockTime::from_seconds(PATIENCE.as_secs());
    let pop = |kind| player.bus.timed_pop_filtered(patience, &[kind]).unwrap();
    assert_eq!(pop(gst::MessageType::SegmentStart).seqnum(), seqnum);
    let done = pop(gst::MessageType::SegmentDone);
    assert_eq!(done.seqnum(), seqnum);
    match done.view() {
        gst::MessageView::SegmentDone(m) => assert_eq!(m.get(), time(2 * SECOND).into()),
        _ => unreachable!(),
    }
    player
        .sink
        .wait("the event", |arrived| arrived.events.iter().any(|(_, e)| e.type_() == gst::EventType::SegmentDone));
    assert_eq!(player.numbers()[250..], (25..50).collect::<Vec<_>>());
    // Loops are seeks without a flush.
    let again = gst::event::Seek::new(
        1.0,
        gst::SeekFlags::SEGMENT,
        gst::SeekType::Set,
        time(SECOND),
        gst::SeekType::Set,
        time(2 * SECOND),
    );
    assert!(player.element.send_event(again));
    pop(gst::MessageType::SegmentDone);
    assert_eq!(player.numbers()[275..], (25..50).collect::<Vec<_>>());
    let running = player.sink.running_times();
    assert_eq!(running[275], Some(SECOND), "without a break");
    assert_eq!(player.events(gst::EventType::Eos).len(), 1);
}

#[test]
fn key_units_alone_and_other_rates_are_played() {
    let dir = recording(0..250);
    let player = at_the_end(&dir);
    let seek = gst::event::Seek::new(
        4.0,
        gst::SeekFlags::FLUSH | gst::SeekFlags::TRICKMODE | gst::SeekFlags::TRICKMODE_KEY_UNITS,
        gst::SeekType::Set,
        time(3 * SECOND),
        gst::SeekType::None,
        gst::ClockTime::NONE,
    );
    assert!(player.element.send_event(seek));
    wait_for_end_after(&player, 250);
    assert_eq!(player.numbers()[250..], (3..10).map(|gop| gop * GOP).collect::<Vec<_>>());
    let segment = player.segments().pop().unwrap();
    assert_eq!(segment.rate(), 4.0);
    assert!(segment.flags().contains(gst::SegmentFlags::TRICKMODE_KEY_UNITS));
    let seen = player.sink.buffers();
    assert!(
        seen[250..].iter().all(|seen| seen.flags.contains(gst::BufferFlags::DISCONT) && seen.data.starts_with(&sps()))
    );
    assert!(player.stat("left-out") > 0);
}

#[test]
fn starts_and_stops_may_stay_or_count_from_the_end() {
    let dir = recording(0..250);
    let player = at_the_end(&dir);
    let seek = |start_type, start: Option<gst::ClockTime>, stop_type, stop: Option<gst::ClockTime>| {
        let before = player.numbers().len();
        let seek = gst::event::Seek::new(1.0, gst::SeekFlags::FLUSH, start_type, start, stop_type, stop);
        assert!(player.element.send_event(seek));
        wait_for_end_after(&player, before);
        player.numbers()[before..].to_vec()
    };
    use gst::SeekType as S;
    let back = |seconds: u64| Some(gst::ClockTime::from_nseconds((seconds * SECOND).wrapping_neg()));
    assert_eq!(seek(S::End, back(2), S::None, None), (200..250).collect::<Vec<_>>());
    assert_eq!(seek(S::Set, Some(time(SECOND)), S::End, back(8)), (25..50).collect::<Vec<_>>());
    assert_eq!(seek(S::Set, Some(time(0)), S::None, None), (0..50).collect::<Vec<_>>(), "the stop stays");
    assert_eq!(seek(S::Set, Some(time(SECOND)), S::Set, None), (25..250).collect::<Vec<_>>(), "no stop");
    assert_eq!(seek(S::Set, Some(time(SECOND)), S::Set, Some(time(3 * SECOND))), (25..75).collect::<Vec<_>>());
    // On from where it is: the keyframe before comes again.
    assert_eq!(seek(S::None, None, S::Set, Some(time(4 * SECOND))), (75..100).collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_sought_is_refused_and_changes_nothing() {
    let dir = recording(0..250);
    let player = Player::idle(dir.path(), &[]);
    player.sink.hold_after(30);
    player.element.set_state(gst::State::Playing).unwrap();
    player.sink.wait_buffers(30);
    let flush = gst::SeekFlags::FLUSH;
    let (set, none) = (gst::SeekType::Set, gst::SeekType::None);
    let bytes = gst::format::Bytes::from_u64(10);
    let frames = gst::format::Default::from_u64(10);
    let refused = [
        gst::event::Seek::new(-1.0, flush, set, time(0), set, time(SECOND)),
        gst::event::Seek::new(1.0, flush, set, bytes, none, gst::format::Bytes::NONE),
        gst::event::Seek::new(1.0, flush, set, frames, none, gst::format::Default::NONE),
        gst::event::Seek::new(1.0, flush, set, time(2 * SECOND), set, time(SECOND)),
        #[allow(clippy::useless_vec)]
        gst::event::Seek::new(
            2.0,
            gst::SeekFlags::INSTANT_RATE_CHANGE,
            none,
            gst::ClockTime::NONE,
            none,
            gst::ClockTime::NONE,
        ),
    ];
    for seek in refused {
        assert!(!player.element.send_event(seek.clone()), "{seek:?}");
    }
    player.sink.release();
    player.sink.wait_eos();
    assert_eq!(player.numbers(), (0..250).collect::<Vec<_>>());
    assert!(player.events(gst::EventType::FlushStart).is_empty());
}

#[test]
fn a_seek_before_it_runs_is_where_it_begins() {
    let dir = recording(0..250);
    let player = Player::idle(dir.path(), &[]);
    player.element.set_state(gst::State::Ready).unwrap();
    assert!(player.seek(gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE, 8 * SECOND));
    player.element.set_state(gst::State::Playing).unwrap();
    player.sink.wait_eos();
    assert_eq!(player.numbers(), (200..250).collect::<Vec<_>>());
}

#[test]
fn queries_are_answered() {
    let dir = recording(25..250);
    let player = Player::idle(dir.path(), &[]);
    player.element.set_state(gst::State::Paused).unwrap();
    player.sink.wait_eos();
    let pad = player.element.static_pad("src").unwrap();
    assert_eq!(pad.query_duration::<gst::ClockTime>(), Some(time(9 * SECOND)));
    assert_eq!(pad.query_position::<gst::ClockTime>(), Some(time(9 * SECOND)));
    let mut seeking = gst::query::Seeking::new(gst::Format::Time);
    assert!(pad.query(&mut seeking));
    assert_eq!(seeking.result(), (true, time(0).into(), time(9 * SECOND).into()));
    let mut seeking = gst::query::Seeking::new(gst::Format::Bytes);
    assert!(pad.query(&mut seeking));
    assert!(!seeking.result().0);
    let mut latency = gst::query::Latency::new();
    assert!(pad.query(&mut latency));
    assert_eq!(latency.result(), (false, time(0), None));
    let mut scheduling = gst::query::Scheduling::new();
    assert!(pad.query(&mut scheduling));
    assert!(scheduling.has_scheduling_mode(gst::PadMode::Push) && !scheduling.has_scheduling_mode(gst::PadMode::Pull));
    let mut formats = gst::query::Formats::new();
    assert!(pad.query(&mut formats));
    assert_eq!(formats.result().collect::<Vec<_>>(), [gst::Format::Time]);
    let mut segment = gst::query::Segment::new(gst::Format::Time);
    assert!(pad.query(&mut segment));
    assert_eq!(segment.result(), (1.0, time(0).into(), time(9 * SECOND).into()));
    let mut uri = gst::query::Uri::new();
    assert!(pad.query(&mut uri));
    assert_eq!(uri.uri().unwrap(), format!("diskbuffer://{}", dir.path().display()));
    assert_eq!(pad.query_caps(None), h264_caps());
    assert!(player.element.query_duration::<gst::format::Bytes>().is_none());
}

#[test]
fn seeks_from_several_threads_come_one_after_the_other() {
    let dir = recording(0..250);
    let player = Player::new(dir.path(), &[]);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let player = &player;
            scope.spawn(move || {
                for n in 0..25 {
                    let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
                    assert!(player.seek(flags, (thread * 7 + n * 3) % 10 * SECOND));
                }
            });
        }
    });
    let before = player.numbers().len();
    assert!(player.seek(gst::SeekFlags::FLUSH, 9 * SECOND));
    wait_for_end_after(&player, before);
    assert!(player.numbers().ends_with(&(225..250).collect::<Vec<_>>()));
    let flushes: Vec<_> = player
        .sink
        .events()
        .iter()
        .map(|(_, e)| e.type_())
        .filter(|kind| matches!(kind, gst::EventType::FlushStart | gst::EventType::FlushStop))
        .collect();
    assert_eq!(flushes.len(), 202);
    assert!(flushes.chunks(2).all(|pair| pair == [gst::EventType::FlushStart, gst::EventType::FlushStop]));
}

#[test]
fn random_seeks_and_state_changes_end() {
    let dir = recording(0..250);
    let player = Player::new(dir.path(), &[]);
    let mut noise = 7u64;
    let mut next = || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise
    };
    for _ in 0..300 {
        match next() % 8 {
            0 => drop(player.element.set_state(gst::State::Ready).unwrap()),
            1 => drop(player.element.set_state(gst::State::Paused).unwrap()),
            2 => player.sink.hold_after((next() % 40) as usize),
            3 => drop(player.seek(gst::SeekFlags::KEY_UNIT, next() % (11 * SECOND))),
            _ => drop(player.seek(gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE, next() % (11 * SECOND))),
        }
        if next().is_multiple_of(3) {
            player.sink.release();
            player.element.set_state(gst::State::Playing).unwrap();
        }
    }
    player.sink.release();
    player.element.set_state(gst::State::Playing).unwrap();
    let before = player.numbers().len();
    assert!(player.seek(gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE, 9 * SECOND));
    wait_for_end_after(&player, before);
    let numbers = player.numbers();
    assert_eq!(numbers[numbers.len() - 25..], (225..250).collect::<Vec<_>>());
}
