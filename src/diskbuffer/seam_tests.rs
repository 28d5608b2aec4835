//! Where two streams of one bin go on when downstream is exchanged: the sound begins with the keyframe, whoever of them is the
//! faster. What a busy machine does now and then is brought about here by holding one of them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::common::{PATIENCE, number, until};
use super::together_tests::{GOP, Member, Pair};

/// Held in order, and given another downstream.
fn exchange_in_order(pair: &mut Pair) {
    for member in pair.members() {
        member.element.hold(None);
    }
    exchange_held(pair);
}

fn exchange_held(pair: &mut Pair) {
    for member in pair.members() {
        assert!(member.element.wait_until_idle(PATIENCE));
        member.exchange();
    }
}

fn numbers(from: u64, to: u64) -> Vec<u64> {
    (from..to).collect()
}

/// What a member has given, up to the buffer with this number.
fn given_up_to(member: &Member, last: u64) -> Vec<u64> {
    member.sink.wait("the newest", |arrived| arrived.buffers.last().is_some_and(|buffer| number(buffer) == last));
    member.numbers()
}

/// Not released yet.
fn held(location: &Path) -> Pair {
    let mut pair = Pair::new(location, &[]);
    for member in pair.members() {
        member.element.hold(None);
    }
    pair.play();
    pair
}

/// Releases one after the other, each when the one before it is well under way.
fn release(first: &Member, then: &Member) {
    first.element.release();
    first.sink.wait_buffers(1);
    then.element.release();
}

/// A failed downstream has had video up to 13. The next has got it again from 5 up to `last`, and the sound up to 13.
fn sent_again_until(location: &Path, last: u64) -> Pair {
    let mut pair = Pair::playing(location, &[]);
    pair.until_sound_waits();
    pair.fail();
    pair.video.sink.hold_after((last - GOP) as usize);
    pair.release();
    pair.audio.sink.wait_buffers(8);
    pair.audio.wait_counted();
    pair.video.sink.wait_buffers((last - GOP) as usize);
    pair.video.sink.wait_held();
    for member in pair.members() {
        member.element.hold(None);
    }
    pair.video.sink.release();
    exchange_held(&mut pair);
    pair
}

#[test]
fn video_that_is_sent_again_takes_the_sound_back_to_its_keyframe() {
    for sound_first in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let pair = sent_again_until(dir.path(), 7);
        pair.push(13..15);
        let (video, audio) = (&pair.video, &pair.audio);
        if sound_first {
            release(audio, video)
        } else {
            release(video, audio)
        }
        let given = (given_up_to(video, 14), given_up_to(audio, 14));
        assert_eq!(given, (numbers(5, 15), numbers(5, 15)), "{sound_first}");
    }
}

#[test]
fn sound_that_is_ahead_goes_back_to_the_keyframe_that_comes_next() {
    for sound_first in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let pair = sent_again_until(dir.path(), 9);
        pair.push(13..15);
        let (video, audio) = (&pair.video, &pair.audio);
        if sound_first {
            release(audio, video)
        } else {
            release(video, audio)
        }
        assert_eq!(given_up_to(video, 14), numbers(10, 15));
        // Who comes first cannot know that it will not be the keyframe before.
        let begins = if sound_first { 5 } else { 10 };
        assert_eq!(given_up_to(audio, 14), numbers(begins, 15));
    }
}

#[test]
fn video_that_has_given_nothing_yet_takes_the_sound_back_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::new(dir.path(), &[]);
    let idle = Arc::new(AtomicI64::new(0));
    for (signal, one) in [("underrun", 1), ("running", -1)] {
        let idle = idle.clone();
        pair.video.element.connect(signal, false, move |_| {
            idle.fetch_add(one, Ordering::SeqCst);
            None
        });
    }
    pair.play();
    pair.push(0..8);
    pair.video.wait_counted();
    pair.audio.wait_counted();
    until("nothing is left to do", || idle.load(Ordering::SeqCst) == 1);
    pair.fail();
    pair.push(8..13);
    // It has begun, and is kept from going on.
    let (reached, at) = std::sync::mpsc::channel();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    pair.video.element.connect("running", false, move |_| {
        let _ = reached.send(());
        let _ = gone.lock().unwrap().recv();
        None
    });
    pair.release();
    at.recv_timeout(PATIENCE).unwrap();
    given_up_to(&pair.audio, 12);
    exchange_in_order(&mut pair);
    pair.push(13..15);
    pair.video.element.release();
    drop(go);
    let video = given_up_to(&pair.video, 14);
    assert!(video[0] < 8, "{video:?}");
    pair.audio.element.release();
    assert_eq!(given_up_to(&pair.audio, 14), video);
}

#[test]
fn in_order_and_in_step_no_sound_is_sent_twice() {
    for video_first in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let mut pair = Pair::playing(dir.path(), &[]);
        pair.push(0..10);
        pair.video.sink.wait_buffers(10);
        pair.audio.sink.wait_buffers(10);
        exchange_in_order(&mut pair);
        pair.push(10..15);
        let (video, audio) = (&pair.video, &pair.audio);
        if video_first {
            release(video, audio)
        } else {
            release(audio, video)
        }
        assert_eq!(given_up_to(video, 14), numbers(10, 15));
        let begins = if video_first { 10 } else { 5 };
        assert_eq!(given_up_to(audio, 14), numbers(begins, 15));
    }
}

#[test]
fn sound_of_a_later_run_is_not_taken_for_over() {
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::playing(dir.path(), &[]);
    pair.push(0..8);
    pair.video.wait_counted();
    pair.video.sink.hold_after(0);
    pair.push(8..10);
    pair.audio.wait_counted();
    drop(pair);
    // The sound of the second run is delivered while the video still stands in the first.
    let pair = held(dir.path());
    pair.video.push(10..13);
    pair.audio.push(10..20);
    pair.audio.element.release();
    pair.audio.wait_counted();
    pair.video.element.release();
    pair.video.wait_counted();
    pair.video.sink.hold_after(0);
    pair.video.push(13..20);
    drop(pair);
    let pair = held(dir.path());
    pair.release();
    pair.video.sink.wait_buffers(10);
    pair.push(20..22);
    assert_eq!(given_up_to(&pair.video, 21), numbers(10, 22));
    let sound = given_up_to(&pair.audio, 21);
    assert!(sound[0] <= 10, "{sound:?}");
}

#[test]
fn what_is_sent_again_is_not_left_out_because_the_others_need_it_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::playing(dir.path(), &[]);
    pair.until_sound_waits();
    pair.fail();
    pair.video.sink.hold_after(2);
    pair.release();
    pair.video.sink.wait_buffers(2);
    pair.audio.wait_counted();
    // As the store's thread does every second.
    for member in pair.members() {
        let element = member.element.imp();
        element.keep_up_with_others(&element.session().unwrap());
    }
    pair.video.sink.release();
    pair.push(13..15);
    assert_eq!(given_up_to(&pair.video, 14), numbers(5, 15));
}

#[test]
fn sound_of_which_nothing_was_delivered_keeps_its_keyframe() {
    for earlier in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut pair = held(dir.path());
        if earlier {
            // As a run that has delivered nothing leaves it.
            pair.push(0..3);
            drop(pair);
            pair = held(dir.path());
            pair.push(5..13);
        } else {
            pair.push(0..3);
            pair.push(5..13);
        }
        pair.audio.sink.hold_after(0);
        pair.release();
        pair.audio.sink.wait_held();
        pair.video.wait_counted();
        pair.fail();
        pair.release();
        pair.video.sink.wait_buffers(1);
        pair.audio.sink.wait_buffers(11);
        pair.video.wait_counted();
        assert_eq!((pair.video.numbers()[0], pair.audio.numbers()[0]), (0, 0), "{earlier}");
    }
}
