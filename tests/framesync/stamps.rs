//! What becomes of the stamps of one stream.

use gst::prelude::*;

use super::rig::{MS, Out, Rig, mark};

const RAW: &str = "video/x-raw";

#[test]
fn rtmp_crosses_its_wrap_and_comes_out_at_running_time() {
    let rig = Rig::new(true);
    rig.element.set_property_from_str("timestamp-format", "rtmp");
    rig.play();
    let port = rig.stream(RAW);
    let first = u64::from(u32::MAX) - 999;
    for i in 0..50u64 {
        rig.at(1000 + 40 * i);
        port.push(Some((first + 40 * i) & 0xffff_ffff)).unwrap();
        assert_eq!(port.pts(), (1000 + 40 * i) * MS);
    }
    assert_eq!(port.stats().get::<String>("format").unwrap(), "rtmp");
    assert_eq!(port.stats().get::<u64>("in").unwrap(), 50);
}

#[test]
fn a_unit_of_its_own_goes_over_the_format() {
    let rig = Rig::new(false);
    rig.element.set_property_from_str("timestamp-unit", "1/1000000");
    rig.element.set_property_from_str("timestamp-format", "rtmp");
    rig.element.set_property_from_str("wrap-bits", "0");
    rig.play();
    let port = rig.stream(RAW);
    for i in 0..10u64 {
        port.push(Some(7_000_000_000 + 40_000 * i)).unwrap();
        assert_eq!(port.pts(), 40 * i * MS);
    }
    assert_eq!(port.stats().get::<String>("format").unwrap(), "unit 1/1000000, wrap 0, epoch stream-start");
}

#[test]
fn pipeline_stamps_that_are_right_stay_as_they_are() {
    let rig = Rig::new(false);
    rig.play();
    let port = rig.stream(RAW);
    for i in 0..10u64 {
        port.push_ms(500 + 40 * i);
        let buffer = port.buffer();
        assert_eq!(buffer.pts().unwrap().nseconds(), (500 + 40 * i) * MS);
        assert!(mark(&buffer).is_none());
    }
}

#[test]
fn streams_without_any_stamps_flow_by_arrival_and_are_marked() {
    let rig = Rig::new(true);
    rig.play();
    let port = rig.stream(RAW);
    for i in 0..20u64 {
        rig.at(100 + 40 * i);
        port.push(None).unwrap();
        let buffer = port.buffer();
        assert_eq!(buffer.pts().unwrap().nseconds(), (100 + 40 * i) * MS);
        assert!(mark(&buffer).unwrap().interpolated);
    }
    assert_eq!(port.stats().get::<u64>("interpolated").unwrap(), 20);
}

#[test]
fn nonsense_flows_and_never_goes_back() {
    for format in ["pipeline", "epoch-seconds", "epoch-millis", "hls", "rtmp", "relative-seconds", "auto"] {
        for mode in ["normalize", "align"] {
            let rig = Rig::new(true);
            rig.element.set_property_from_str("timestamp-format", format);
            rig.element.set_property_from_str("mode", mode);
            rig.play();
            let port = rig.stream(RAW);
            let mut noise = 1u64;
            for i in 0..200u64 {
                rig.at(40 * i);
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let pts = [Some(0), Some(u64::MAX - 1), None, Some(noise), Some(7)][(noise >> 33) as usize % 5];
                port.push(pts).unwrap();
            }
            port.eos();
            let all: Vec<_> = port.rest().iter().map(|buffer| buffer.pts().unwrap()).collect();
            assert!(all.is_sorted(), "{format} {mode}");
            assert!(mode == "align" || all.len() == 200, "{format} {mode}: {}", all.len());
            assert!(!all.is_empty(), "{format} {mode}");
        }
    }
}

#[test]
fn a_single_wild_stamp_is_corrected_and_told() {
    let rig = Rig::new(true);
    rig.play();
    let port = rig.stream(RAW);
    for i in 0..60u64 {
        let at = 1000 + 40 * i;
        rig.at(at);
        port.push_ms(if i == 40 { at + 5000 } else { at });
        let out = port.pts() as i64;
        assert!((out - (at * MS) as i64).abs() < MS as i64, "{i}: {out}");
    }
    let told = rig.message("framesync-outlier");
    assert_eq!(told.get::<String>("pad").unwrap(), "sink_0");
    assert_eq!(port.stats().get::<u64>("outliers").unwrap(), 1);
}

#[test]
fn outliers_can_be_dropped() {
    let rig = Rig::new(true);
    rig.element.set_property_from_str("outlier-policy", "drop");
    rig.play();
    let port = rig.stream(RAW);
    for i in 0..60u64 {
        rig.at(1000 + 40 * i);
        port.push_ms(1000 + 40 * i + if i == 40 { 5000 } else { 0 });
    }
    port.eos();
    let all = port.rest();
    assert_eq!(all.len(), 59);
    assert!(all[40].flags().contains(gst::BufferFlags::DISCONT));
}

#[test]
fn a_jump_of_121_years_begins_an_epoch_without_a_gap() {
    let rig = Rig::new(true);
    rig.play();
    let port = rig.stream(RAW);
    let years = 121 * 365 * 86_400_000;
    let mut last = 0;
    for i in 0..80u64 {
        let at = 1000 + 40 * i;
        rig.at(at);
        port.push_ms(if i >= 40 { at + years } else { at });
        let out = port.pts();
        assert!(out > last && out.abs_diff(at * MS) < 80 * MS, "{i}: {out}");
        last = out;
    }
    let told = rig.message("framesync-epoch");
    assert_eq!(told.get::<u32>("epoch").unwrap(), 1);
    assert_eq!(port.stats().get::<u64>("jumps").unwrap(), 1);
    assert_eq!(port.stats().get::<u32>("epoch").unwrap(), 1);
}

#[test]
fn drift_is_measured_and_told() {
    let rig = Rig::new(true);
    rig.play();
    let port = rig.stream(RAW);
    for i in 0..1500u64 {
        let truth = 40_000_000 * i;
        rig.clock.set_time(gst::ClockTime::from_nseconds(1_000_000_000 + truth));
        port.push(Some(truth - truth / 2000)).unwrap();
        port.buffer();
    }
    let told = rig.message("framesync-drift");
    assert!(told.get::<f64>("drift-ppm").unwrap() > 0.0);
    let ppm: f64 = port.stats().get("drift-ppm").unwrap();
    let confidence: f64 = port.stats().get("drift-confidence-ppm").unwrap();
    println!("drift {ppm:.2} ppm, confidence {confidence:.2} ppm, truth 500.25 ppm");
    assert!((ppm - 500.25).abs() < 2.0, "{ppm}");
}

#[test]
fn how_fast_a_file_is_read_is_no_drift() {
    let rig = Rig::new(false);
    rig.play();
    let port = rig.stream("video/x-raw");
    for i in 0..500 {
        port.push_ms(40 * i);
        port.buffer();
    }
    let stats = port.stats();
    assert_eq!(stats.get::<f64>("drift-confidence-ppm").unwrap(), f64::INFINITY);
    assert_eq!(stats.get::<f64>("drift-ppm").unwrap(), 0.0);
    assert_eq!((stats.get::<i64>("offset").unwrap(), stats.get::<i64>("jitter").unwrap()), (0, 0));
}

#[test]
fn auto_passes_by_arrival_and_then_decides() {
    let rig = Rig::new(true);
    rig.element.set_property_from_str("timestamp-format", "auto");
    rig.play();
    let port = rig.stream(RAW);
    for i in 0..50u64 {
        rig.at(1000 + 40 * i);
        port.push(Some(5_000_000 + 3600 * i)).unwrap();
        assert_eq!(port.pts(), (1000 + 40 * i) * MS);
    }
    assert_eq!(port.stats().get::<String>("format").unwrap(), "hls");
}

#[test]
fn reference_metas_and_fields_of_custom_metas_are_sources() {
    gst::init().unwrap();
    gst::meta::CustomMeta::register_simple("camera-time");
    let caps = gst::Caps::new_empty_simple("timestamp/x-unix");
    for source in ["reference-meta", "meta-field"] {
        let rig = Rig::new(true);
        rig.element.set_property_from_str("timestamp-source", source);
        rig.element.set_property_from_str("timestamp-format", "epoch-millis");
        rig.element.set_property("timestamp-field", "camera-time/millis");
        rig.play();
        let port = rig.stream(RAW);
        for i in 0..20u64 {
            // Arrives with jitter, stamped without.
            rig.at(1000 + 40 * i + (i * 7) % 5);
            let millis = 1_700_000_000_000 + 40 * i;
            let mut buffer = gst::Buffer::new();
            let inner = buffer.make_mut();
            let time = gst::ClockTime::from_mseconds(millis);
            gst::ReferenceTimestampMeta::add(inner, &caps, time, gst::ClockTime::NONE);
            let mut meta = gst::meta::CustomMeta::add(inner, "camera-time").unwrap();
            meta.mut_structure().set("millis", millis);
            port.src.push(buffer).unwrap();
            assert_eq!(port.pts(), (1000 + 40 * i) * MS, "{source}");
        }
    }
}

#[test]
fn a_meta_field_that_is_not_named_is_warned_of() {
    for (field, says) in [(None, "timestamp-field is not set"), (Some("camera-time"), "timestamp-field=camera-time")] {
        let rig = Rig::new(true);
        rig.element.set_property_from_str("timestamp-source", "meta-field");
        rig.element.set_property("timestamp-field", field);
        rig.play();
        let port = rig.stream(RAW);
        (0..2).for_each(|i| port.push_ms(40 * i));
        let warning = rig.bus.pop_filtered(&[gst::MessageType::Warning]).expect("a warning");
        let gst::MessageView::Warning(warning) = warning.view() else { unreachable!() };
        assert!(warning.error().message().contains(says), "{}", warning.error());
        assert!(rig.bus.pop_filtered(&[gst::MessageType::Warning]).is_none(), "once is enough");
        port.buffer();
    }
}

#[test]
fn dts_below_zero_comes_out_in_order_below_pts() {
    let rig = Rig::new(false);
    rig.play();
    let port = rig.pads();
    port.src.push_event(gst::event::StreamStart::new("x"));
    port.src.push_event(gst::event::Caps::new(&gst::Caps::new_empty_simple("video/x-h264")));
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_start(gst::ClockTime::from_seconds(3600));
    port.src.push_event(gst::event::Segment::new(&segment));
    let zero = 3600 * 1000;
    for (i, pts) in [0u64, 160, 80, 40, 120].into_iter().enumerate() {
        port.push_with(Some((zero + pts) * MS), Some((zero + 40 * i as u64 - 80) * MS)).unwrap();
    }
    port.eos();
    let mut out = gst::FormattedSegment::<gst::ClockTime>::new();
    let mut seen = Vec::new();
    loop {
        match port.next() {
            Out::Event(event) => match event.view() {
                gst::EventView::Segment(segment) => out = segment.segment().downcast_ref().cloned().unwrap(),
                gst::EventView::Eos(_) => break,
                _ => {}
            },
            Out::Buffer(buffer) => {
                let running = |stamp| match out.to_running_time_full(stamp).unwrap() {
                    gst::Signed::Positive(time) => time.mseconds() as i64,
                    gst::Signed::Negative(time) => -(time.mseconds() as i64),
                };
                seen.push((running(buffer.pts().unwrap()), running(buffer.dts().unwrap())));
            }
        }
    }
    assert_eq!(seen, [(0, -80), (160, -40), (80, 0), (40, 40), (120, 80)]);
}

#[test]
fn an_offset_takes_effect_while_running_and_never_backwards() {
    let rig = Rig::new(false);
    rig.play();
    let port = rig.stream(RAW);
    let mut out = Vec::new();
    for i in 0..30u64 {
        match i {
            10 => port.pad.set_property("offset", 100 * MS as i64),
            20 => port.pad.set_property("offset", -(100 * MS as i64)),
            _ => {}
        }
        port.push_ms(1000 + 40 * i);
        out.push(port.pts() / MS);
    }
    assert_eq!((out[9], out[10], out[19]), (1360, 1500, 1860));
    assert!(out.is_sorted());
    assert_eq!(out[29], 1000 + 40 * 29 - 100);
}
