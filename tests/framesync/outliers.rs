//! What stamps that are not true are taken for, by `stats` and messages, and that the frames beside them keep their sets.

use gst::prelude::*;

use super::rig::{MS, Port, Rig, mark};
use super::streams::{Random, millis};

const FRAMES: u64 = 300;
const AT: u64 = 150;
const YEARS: i64 = 121 * 31_556_952;

/// What is wrong: how a stamp of frame i, in ms since the first, is told; none: the frame is lost.
type Wrong = fn(u64, f64) -> Option<f64>;

struct Case {
    name: &'static str,
    wrong: Wrong,
    /// Outliers, duplicates, gaps, jumps.
    counts: [u64; 4],
    message: Option<&'static str>,
    /// Of frames that are sets of two.
    whole: u64,
}

const CASES: [Case; 7] = [
    Case {
        name: "+5 s once",
        wrong: |i, ms| Some(if i == AT { ms + 5000.0 } else { ms }),
        counts: [1, 0, 0, 0],
        message: Some("framesync-outlier"),
        whole: FRAMES,
    },
    Case {
        name: "-5 s once",
        wrong: |i, ms| Some(if i == AT { ms - 5000.0 } else { ms }),
        counts: [1, 0, 0, 0],
        message: Some("framesync-outlier"),
        whole: FRAMES,
    },
    Case {
        name: "a duplicate",
        wrong: |i, ms| Some(if i == AT { ms - 1000.0 / 30.0 } else { ms }),
        counts: [0, 1, 0, 0],
        message: None,
        // It has the time of the frame before, which has its set.
        whole: FRAMES - 1,
    },
    Case {
        name: "a gap of 110 ms",
        wrong: |i, ms| match i {
            AT | 151 => None,
            152.. => Some(ms + 10.0),
            _ => Some(ms),
        },
        counts: [0, 0, 1, 0],
        message: None,
        whole: FRAMES - 2,
    },
    Case {
        name: "a clock set by +2 s",
        wrong: |i, ms| Some(if i >= AT { ms + 2000.0 } else { ms }),
        counts: [0, 0, 0, 1],
        message: Some("framesync-epoch"),
        whole: FRAMES,
    },
    Case {
        name: "a clock set by -2 s",
        wrong: |i, ms| Some(if i >= AT { ms - 2000.0 } else { ms }),
        counts: [0, 0, 0, 1],
        message: Some("framesync-epoch"),
        whole: FRAMES,
    },
    Case {
        name: "a jump of 121 years",
        wrong: |i, ms| Some(if i >= AT { ms + 1e3 * YEARS as f64 } else { ms }),
        counts: [0, 0, 0, 1],
        message: Some("framesync-epoch"),
        whole: FRAMES,
    },
];

fn counts(port: &Port) -> [u64; 4] {
    let stats = port.stats();
    ["outliers", "duplicates", "gaps", "jumps"].map(|name| stats.get(name).unwrap())
}

#[test]
fn each_kind_is_told_and_no_neighbour_loses_its_set() {
    for case in CASES {
        let mut worst = FRAMES;
        for seed in 0..4 {
            let rig = Rig::aligned(true);
            rig.element.set_property("latency", 100 * MS);
            rig.element.set_property("max-interval", 16 * MS);
            rig.play();
            let (one, two) = (rig.stream("video/x-raw"), rig.stream("video/x-raw"));
            let mut random = Random::new(seed);
            let mut arrival = 0;
            for i in 0..FRAMES {
                let ms = 10_000.0 + i as f64 * 1000.0 / 30.0;
                arrival = (millis(ms + random.exponential(3.0)) as u64).max(arrival);
                rig.ring_ns(arrival);
                if let Some(stamp) = (case.wrong)(i, ms) {
                    one.push_number(i, Some(millis(stamp) as u64), None).unwrap();
                }
                two.push_number(i, Some(millis(ms) as u64), None).unwrap();
            }
            one.eos();
            two.eos();
            assert_eq!(counts(&one), case.counts, "{}, seed {seed}: {}", case.name, one.stats());
            assert_eq!(counts(&two), [0; 4], "{}", case.name);
            let (out, others) = (one.rest(), two.rest());
            assert!(out.iter().map(|buffer| buffer.pts()).is_sorted(), "{}", case.name);
            let partner = |buffer: &&gst::Buffer| {
                let id = mark(buffer).unwrap().id;
                others.iter().any(|other| mark(other).unwrap().id == id && other.offset() == buffer.offset())
            };
            let whole = out.iter().filter(partner).count() as u64;
            worst = worst.min(whole);
            assert!(whole >= case.whole, "{}, seed {seed}: {whole} sets of {FRAMES}", case.name);
            if let Some(name) = case.message {
                let told = rig.message(name);
                assert_eq!(told.get::<String>("pad").unwrap(), "sink_0");
                if name == "framesync-epoch" {
                    let step = (case.wrong)(AT, 0.0).unwrap() * 1e6;
                    let said = told.get::<i64>("step").unwrap();
                    assert!((said as f64 - step).abs() < 5e6, "{}: {said}", case.name);
                    assert_eq!(told.get::<u32>("epoch").unwrap(), 1);
                } else {
                    assert_eq!(told.get::<String>("kind").unwrap(), "outlier");
                    assert_eq!(told.get::<u64>("count").unwrap(), 1);
                }
                let at = told.get::<u64>("running-time").unwrap() as i64;
                // A jump is known at its third frame.
                assert!((at - millis(10_000.0 + AT as f64 * 1000.0 / 30.0)).abs() < 80_000_000, "{at}");
            }
        }
        println!(
            "{:22} {:?} of [outliers, duplicates, gaps, jumps]; {worst} of {FRAMES} sets whole",
            case.name, case.counts
        );
    }
}
