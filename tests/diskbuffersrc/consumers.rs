//! Consumers: each remembers what was delivered to it.

use gst::prelude::*;

use crate::common::*;
use crate::player::*;

#[test]
fn a_consumer_goes_on_where_it_stood() {
    let dir = recording(0..100);
    assert_eq!(
        Player::play(dir.path(), &[("consumer", "a"), ("stop", "2026-01-01T00:00:02")]),
        (0..50).collect::<Vec<_>>()
    );
    assert_eq!(Player::play(dir.path(), &[("consumer", "b")]), (0..100).collect::<Vec<_>>(), "another one");
    assert_eq!(Player::play(dir.path(), &[("consumer", "a")]), (50..100).collect::<Vec<_>>());
    assert_eq!(Player::play(dir.path(), &[("consumer", "a")]), Vec::<u64>::new(), "it has all of it");
    assert_eq!(Player::play(dir.path(), &[("consumer", "a"), ("start", "earliest")]).len(), 100, "on demand");
    let rig = Rig::new(dir.path(), &KEPT);
    rig.start_stream("again", &h264_caps());
    push(&rig, 100..150);
    rig.stop();
    assert_eq!(Player::play(dir.path(), &[("consumer", "a")]), (100..150).collect::<Vec<_>>());
}

#[test]
fn one_that_stopped_within_a_gop_begins_at_its_keyframe() {
    let dir = recording(0..100);
    let player = Player::idle(dir.path(), &[("consumer", "a"), ("add-position-meta", "true")]);
    player.sink.hold_after(60);
    player.element.set_state(gst::State::Playing).unwrap();
    player.sink.wait_buffers(60);
    until("the cursor to move", || player.stat("acknowledged-position") >= player.sink.positions()[58]);
    player.element.set_state(gst::State::Null).unwrap();
    let player = Player::new(dir.path(), &[("consumer", "a"), ("add-position-meta", "true")]);
    player.sink.wait_eos();
    assert_eq!(player.numbers(), (50..100).collect::<Vec<_>>());
    let replayed = player.sink.replayed().iter().filter(|replayed| **replayed).count();
    assert!((9..=10).contains(&replayed), "{replayed}");
}

#[test]
fn with_explicit_acknowledgement_the_application_says_what_was_delivered() {
    let dir = recording(0..100);
    let properties = [("consumer", "a"), ("ack-mode", "explicit"), ("add-position-meta", "true")];
    let player = Player::new(dir.path(), &properties);
    player.sink.wait_eos();
    let positions = player.sink.positions();
    assert!(!player.element.emit_by_name::<bool>("acknowledge", &[&(positions[99] + 100)]));
    assert!(player.element.emit_by_name::<bool>("acknowledge", &[&positions[10]]));
    let ack = gst::Structure::builder("diskbuffer-ack").field("position", positions[60]).build();
    assert!(player.sinkpad.push_event(gst::event::CustomUpstream::new(ack)));
    assert_eq!(player.stat("acknowledged-position"), positions[60]);
    drop(player);
    assert_eq!(Player::play(dir.path(), &properties), (50..100).collect::<Vec<_>>());
}

#[test]
fn space_is_kept_for_the_slower_of_two_and_freed_up_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &[]);
    rig.start_stream("camera", &h264_caps());
    push(&rig, 0..5);
    let fast = Player::idle(dir.path(), &[("consumer", "fast"), ("follow", "true")]);
    let slow = Player::idle(dir.path(), &[("consumer", "slow"), ("follow", "true")]);
    slow.sink.hold_after(100);
    fast.element.set_state(gst::State::Playing).unwrap();
    slow.element.set_state(gst::State::Playing).unwrap();
    fast.sink.wait_buffers(5);
    slow.sink.wait_buffers(5);
    push(&rig, 5..1000);
    rig.sink.wait_buffers(1000);
    fast.sink.wait_buffers(1000);
    slow.sink.wait_buffers(100);
    until("space to be freed up to the slower one", || slow.stat("first-position") > 20);
    assert!(slow.stat("first-position") <= slow.stat("current-position"));
    slow.sink.release();
    slow.sink.wait_buffers(1000);
    for player in [&fast, &slow] {
        assert_eq!(player.numbers(), (0..1000).collect::<Vec<_>>(), "each gets everything once");
        assert_eq!(player.stat("lost"), 0);
    }
    until("space to be freed", || slow.stat("first-position") > 900);
}

#[test]
fn one_that_was_overrun_is_told_what_it_lost() {
    let dir = tempfile::tempdir().unwrap();
    // Limits count what was delivered too.
    let rig = Rig::new(dir.path(), &[("retention-time", "1000000000000000"), ("max-size-bytes", "3000000")]);
    rig.start_stream("camera", &h264_caps());
    for n in 0..50 {
        rig.push(captured(frame(n, GOP, 10_000), utc(n)));
    }
    let player = Player::idle(dir.path(), &[("consumer", "slow"), ("follow", "true")]);
    player.sink.hold_after(30);
    player.element.set_state(gst::State::Playing).unwrap();
    player.sink.wait_buffers(30);
    for n in 50..1000 {
        rig.push(captured(frame(n, GOP, 10_000), utc(n)));
    }
    rig.sink.wait_buffers(1000);
    until("the limit to remove what the consumer needs", || player.stat("first-position") > 500);
    player.sink.release();
    let told = player.message("diskbuffersrc-overrun");
    player.sink.wait("the end", |a| a.buffers.last().is_some_and(|seen| number(seen) == 999));
    let numbers = player.numbers();
    let jump = numbers.windows(2).position(|pair| pair[1] != pair[0] + 1).unwrap();
    let (last, next) = (numbers[jump], numbers[jump + 1]);
    assert!(next.is_multiple_of(GOP), "{next}");
    assert_eq!(told.get::<u64>("buffers").unwrap(), next - last - 1, "{told}");
    assert!(told.get::<u64>("bytes").unwrap() >= (next - last - 1) * 10_000);
    assert!(told.get::<u64>("from").unwrap() < told.get::<u64>("to").unwrap());
    assert_eq!(player.stat("lost"), next - last - 1);
}

#[test]
fn one_name_has_one_user_and_the_next_waits_for_it() {
    let dir = recording(0..50);
    let first = Player::idle(dir.path(), &[("consumer", "a"), ("follow", "true")]);
    first.element.set_state(gst::State::Playing).unwrap();
    first.sink.wait_buffers(50);
    let properties = [("consumer", "a"), ("lock-timeout", "100000000"), ("follow", "true")];
    let refused = Player::idle(dir.path(), &properties);
    refused.element.set_state(gst::State::Playing).unwrap();
    let err = refused.error();
    assert!(err.matches(gst::ResourceError::Busy) && err.message().contains("\"a\""), "{err}");
    drop(refused);
    let waits = Player::idle(dir.path(), &[("consumer", "a")]);
    waits.element.set_state(gst::State::Playing).unwrap();
    drop(first);
    waits.sink.wait_eos();
    assert_eq!(waits.numbers(), Vec::<u64>::new());
    drop(waits);
    // A wait does not keep the element from stopping.
    let first = Player::new(dir.path(), &[("consumer", "a"), ("follow", "true")]);
    until("the consumer to be taken", || first.status() == "waiting");
    let waits = Player::new(dir.path(), &[("consumer", "a")]);
    let start = std::time::Instant::now();
    waits.element.set_state(gst::State::Null).unwrap();
    assert!(start.elapsed() < std::time::Duration::from_secs(1));
}
