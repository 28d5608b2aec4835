//! Starts and stops: exactly the GOPs that cover them, in the process that writes and in another one.

use std::path::Path;
use std::process::Command;

use crate::common::*;
use crate::player::*;

const MINUTES: u64 = 10;
const FRAMES: u64 = MINUTES * 60 * SECOND / FRAME;
const TASK: &str = "STREAMBUFFER_TEST_RANGES";

/// Reproducible and all over the place.
fn noise(seed: u64) -> u64 {
    let mut noise = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x2545_F491_4F6C_DD1D;
    for _ in 0..3 {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
    }
    noise
}

/// A start and a stop in ns since 1970, some of them at the very time of a keyframe.
fn range(seed: u64) -> (u64, u64) {
    let length = FRAMES * FRAME;
    let (a, b) = (noise(seed) % length, noise(seed + 1000) % length);
    let (from, to) = (a.min(b), (a.max(b) + 1).min(a.min(b) + 40 * SECOND));
    let aligned =
        |at: u64, choose: u64| if noise(choose).is_multiple_of(3) { at / (GOP * FRAME) * GOP * FRAME } else { at };
    let from = aligned(from, seed + 2000);
    (T0 + from, T0 + aligned(to, seed + 3000).max(from + 1))
}

/// The frames of the GOPs that cover [from, to).
fn covering(from: u64, to: u64) -> Vec<u64> {
    let gop = |at: u64| (at - T0) / FRAME / GOP;
    (gop(from) * GOP..((gop(to - 1) + 1) * GOP).min(FRAMES)).collect()
}

fn check(location: &Path, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let (from, to) = range(seed);
        let numbers = Player::play(location, &[("start", &from.to_string()), ("stop", &to.to_string())]);
        assert_eq!(numbers, covering(from, to), "{from} to {to}");
    }
}

/// Not a test by itself: plays in a process that does not write.
#[test]
fn child() {
    let Some(location) = std::env::var_os(TASK) else { return };
    check(Path::new(&location), 0..100);
    let player = Player::new(Path::new(&location), &[("stop", &(T0 + SECOND).to_string())]);
    player.sink.wait_eos();
    assert!(!player.element.property_shared());
}

trait Shared {
    fn property_shared(&self) -> bool;
}

impl Shared for gst::Element {
    fn property_shared(&self) -> bool {
        use gst::prelude::*;
        self.property::<gst::Structure>("stats").get("shared").unwrap()
    }
}

#[test]
fn random_stretches_of_ten_minutes_are_the_gops_that_cover_them() {
    let dir = tempfile::tempdir().unwrap();
    let rig = recorder(dir.path(), 0..FRAMES);
    check(dir.path(), 0..100);
    // While it is being written, and after.
    for running in [true, false] {
        if !running {
            rig.stop();
            check(dir.path(), 0..20);
        }
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["ranges::child", "--exact", "--nocapture"])
            .env(TASK, dir.path())
            .output()
            .unwrap();
        assert!(child.status.success(), "running {running}: {}", String::from_utf8_lossy(&child.stderr));
    }
}

#[test]
fn times_positions_and_words_are_places() {
    let dir = recording(0..250);
    let play = |start: &str, stop: &str| {
        let mut properties = vec![("start", start)];
        if !stop.is_empty() {
            properties.push(("stop", stop));
        }
        Player::play(dir.path(), &properties)
    };
    assert_eq!(play("2026-01-01T00:00:02.5Z", "2026-01-01T00:00:04Z"), (50..100).collect::<Vec<_>>());
    assert_eq!(play("latest", ""), (225..250).collect::<Vec<_>>());
    assert_eq!(play("earliest", "2026-01-01T00:00:01"), (0..25).collect::<Vec<_>>());
    assert_eq!(play("earliest", "latest"), (0..225).collect::<Vec<_>>());
    assert_eq!(play("2026-01-01T01:00:03+01:00", "2026-01-01T00:00:03.04Z"), (75..100).collect::<Vec<_>>());
    let player = Player::new(dir.path(), &[("add-position-meta", "true")]);
    player.sink.wait_eos();
    let positions = player.sink.positions();
    assert_eq!(play(&positions[60].to_string(), &positions[80].to_string()), (50..100).collect::<Vec<_>>());
    assert_eq!(play(&positions[50].to_string(), &positions[75].to_string()), (50..75).collect::<Vec<_>>());
    // What diskbuffer has delivered is behind its own cursor.
    assert_eq!(play("cursor", ""), Vec::<u64>::new());
}

#[test]
fn a_place_outside_of_what_is_held_is_clamped_and_said() {
    let dir = recording(0..100);
    for (property, value, expected, used) in [
        ("start", "2025-01-01", 0..100, "2026-01-01T00:00:00Z"),
        ("start", "2027-01-01", 75..100, "2026-01-01T00:00:03Z"),
        ("start", "-30s", 75..100, "2026-01-01T00:00:03Z"),
        ("start", "999999999999", 75..100, ""),
        ("stop", "2027-01-01", 0..100, "2026-01-01T00:00:04Z"),
        ("stop", "2025-01-01", 0..0, "2026-01-01T00:00:00Z"),
        ("stop", "999999999999", 0..100, ""),
    ] {
        let player = Player::new(dir.path(), &[(property, value)]);
        let told = player.message("diskbuffersrc-clamped");
        assert_eq!(told.get::<String>("property").unwrap(), property);
        assert!(used.is_empty() || told.get::<String>("used").unwrap() == used, "{told}");
        player.sink.wait_eos();
        assert_eq!(player.numbers(), expected.collect::<Vec<_>>(), "{property}={value}");
    }
}

#[test]
fn ago_counts_from_now() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(dir.path(), &KEPT);
    rig.start_stream("camera", &h264_caps());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    // 20 s that end now.
    for n in 0..500 {
        rig.push(captured(frame(n, GOP, 100), now - 20 * SECOND + n * FRAME));
    }
    rig.stop();
    let numbers = Player::play(dir.path(), &[("start", "-10s"), ("stop", "-5s")]);
    let (first, last) = (*numbers.first().unwrap(), *numbers.last().unwrap());
    // What the test took counts too.
    assert!((225..=450).contains(&first) && first.is_multiple_of(GOP), "{first}");
    assert!(last > first && (last + 1).is_multiple_of(GOP), "{last}");
}
