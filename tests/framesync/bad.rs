//! Stamps that mean nothing: everything flows, in order, and is marked or counted.

use gst::prelude::*;

use super::rig::{Port, Rig, mark};
use super::streams::Random;

const FRAMES: u64 = 200;
const FORMATS: [&str; 7] = ["pipeline", "epoch-seconds", "epoch-millis", "hls", "rtmp", "relative-seconds", "auto"];

type Stamp = fn(u64, &mut Random) -> Option<u64>;

/// PTS has no place for 2^64-1.
const BAD: [(&str, Stamp); 6] = [
    ("none", |_, _| None),
    ("all 0", |_, _| Some(0)),
    ("all equal", |_, _| Some(1_767_225_600_000)),
    ("random", |_, random| Some(random.bits())),
    ("0 and most", |i, _| Some(if i % 2 == 0 { 0 } else { u64::MAX - 1 })),
    ("all most", |_, _| Some(u64::MAX - 1)),
];

fn sum(port: &Port) -> u64 {
    let stats = port.stats();
    let names = ["outliers", "jumps", "gaps", "duplicates", "interpolated"];
    names.into_iter().map(|name| stats.get::<u64>(name).unwrap()).sum()
}

#[test]
fn whatever_comes_flows_in_order_and_is_marked() {
    let mut failed = Vec::new();
    for live in [true, false] {
        for mode in ["normalize", "align"] {
            for format in FORMATS {
                for (name, stamp) in BAD {
                    let rig = Rig::new(live);
                    rig.element.set_property_from_str("timestamp-format", format);
                    rig.element.set_property_from_str("mode", mode);
                    rig.play();
                    let ports = [rig.stream("video/x-raw"), rig.stream("video/x-raw")];
                    let mut random = Random::new(7);
                    for i in 0..FRAMES {
                        rig.ring(40 * i);
                        for port in &ports {
                            port.push(stamp(i, &mut random)).unwrap();
                        }
                    }
                    ports.iter().for_each(|port| port.eos());
                    for port in &ports {
                        let out = port.rest();
                        let what = format!("{name}, {format}, {mode}, live {live}");
                        assert!(out.iter().map(|buffer| buffer.pts().unwrap()).is_sorted(), "{what}");
                        // In sets most find no partner, until 64 in a row have not.
                        let least = if mode == "align" { FRAMES / 10 } else { FRAMES };
                        if (out.len() as u64) < least {
                            failed.push(format!("{what}: {} came out", out.len()));
                        }
                        let marked =
                            out.iter().filter(|b| mark(b).is_some_and(|mark| mark.interpolated)).count() as u64;
                        let told = marked.max(sum(port));
                        assert!(told >= FRAMES / 2, "{what}: {marked} marked, {}", port.stats());
                    }
                }
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn every_integer_of_a_meta_field_flows() {
    super::common::init();
    if !gst::meta::CustomMeta::is_registered("bad-time") {
        gst::meta::CustomMeta::register_simple("bad-time");
    }
    for format in FORMATS {
        let rig = Rig::new(true);
        rig.element.set_property_from_str("timestamp-source", "meta-field");
        rig.element.set_property("timestamp-field", "bad-time/at");
        rig.element.set_property_from_str("timestamp-format", format);
        rig.play();
        let port = rig.stream("video/x-raw");
        let mut random = Random::new(3);
        for i in 0..FRAMES {
            rig.at(40 * i);
            let at = [0, u64::MAX, i64::MAX as u64, random.bits()][(random.bits() % 4) as usize];
            let mut buffer = gst::Buffer::new();
            let mut meta = gst::meta::CustomMeta::add(buffer.make_mut(), "bad-time").unwrap();
            meta.mut_structure().set("at", at);
            port.src.push(buffer).unwrap();
        }
        port.eos();
        let out = port.rest();
        assert_eq!(out.len() as u64, FRAMES, "{format}");
        assert!(out.iter().map(|buffer| buffer.pts().unwrap()).is_sorted(), "{format}");
        assert!(sum(&port) >= FRAMES / 2, "{format}: {}", port.stats());
    }
}
