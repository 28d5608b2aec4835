//! What the fuzzer, and the tests with what the fuzzer keeps, run on arbitrary bytes: an answer comes, whatever they are.

use crate::media::bits::{Framing, Units};
use crate::media::keyframe::{Detector, Source};
use crate::media::nal::{self, Codec, ParameterSets};
use crate::media::{buffer, event, meta};
use crate::store::record::{self, Body};
use crate::store::{MetaRecord, Sync};

const FRAMINGS: [Framing; 5] =
    [Framing::ByteStream, Framing::Length(1), Framing::Length(2), Framing::Length(3), Framing::Length(4)];

/// The first byte says codec and framing.
pub fn nal(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else { return };
    let codec = if kind & 1 == 0 { Codec::H264 } else { Codec::H265 };
    let framing = FRAMINGS[usize::from(kind >> 1) % FRAMINGS.len()];
    let found = nal::inspect(codec, framing, data);
    assert!(found.sets.iter().all(|set| !data[set.range.clone()].is_empty()));
    assert!(found.has_picture || found.sync == Sync::None && !found.leading && !found.unmarked);

    // As much as is enough says what the whole says.
    for length in [data.len() / 4, data.len() / 2, data.len().saturating_sub(1)] {
        if let Some(part) = nal::inspect_head(codec, framing, None, &data[..length], data.len()) {
            assert_eq!(part, found);
        }
    }

    // Whoever has been given what was missing misses nothing.
    let mut sets = ParameterSets::default();
    sets.update(data, &found);
    assert_eq!(ParameterSets::from_bytes(&sets.to_bytes()).as_ref(), Some(&sets));
    if let Some(read) = ParameterSets::from_bytes(data) {
        assert_eq!(read.to_bytes(), data);
    }
    let at = nal::insertion_offset(codec, framing, data);
    let rest = data[at..].to_vec();
    let bare = nal::inspect(codec, framing, &rest);
    let mut complete = sets.missing_from(&bare, framing);
    complete.extend(&rest);
    if framing != Framing::Length(1) {
        assert!(sets.missing_from(&nal::inspect(codec, framing, &complete), framing).is_empty());
    }

    one_by_one(codec, framing, data);
}

/// NAL units in buffers of their own, and the same in scattered memory.
fn one_by_one(codec: Codec, framing: Framing, data: &[u8]) {
    let mut whole = Detector::reading(Source::Auto, codec, framing);
    let mut scattered = Detector::reading(Source::Auto, codec, framing);
    let mut units = Units::new(framing, data, data.len());
    for number in 0..64 {
        if units.next().is_none() {
            break;
        }
        let mut unit = Vec::new();
        framing.push(&mut unit, data.get(units.range()).unwrap_or_default());
        let pts = Some(gst::ClockTime::from_nseconds(number * 7 % 5));
        let one = whole.inspect(gst::BufferFlags::empty(), pts, &[&unit]);
        let parts: Vec<&[u8]> = unit.chunks(1 + unit.len() / 5).collect();
        let other = scattered.inspect(gst::BufferFlags::empty(), pts, &parts);
        assert_eq!((one.sync, one.leading, one.sets_changed), (other.sync, other.leading, other.sets_changed));
        assert_eq!(one.recovery_frames, other.recovery_frames);
    }
    assert_eq!(whole.sets(), scattered.sets());
}

const METAS: [&str; 11] = [
    "GstReferenceTimestampMeta",
    "GstVideoMeta",
    "GstVideoTimeCodeMeta",
    "GstVideoRegionOfInterestMeta",
    "GstProtectionMeta",
    "GstAudioClippingMeta",
    "GstVideoCaptionMeta",
    "GstVideoAFDMeta",
    "GstVideoBarMeta",
    "GstCustomMeta",
    "GstNoSuchMeta",
];

/// Records, events and metas as a disk might give them; the first byte says as what.
pub fn records(data: &[u8]) {
    static INIT: std::sync::Once = std::sync::Once::new();
    INIT.call_once(|| {
        gst::init().unwrap_or_else(|err| panic!("{err}"));
        // What they complain about is what is tried here.
        for domain in ["GStreamer", "GStreamer-Audio", "GStreamer-Video"] {
            let levels = gst::glib::LogLevels::all();
            gst::glib::log_set_handler(Some(domain), levels, false, false, |_, _, _| {});
        }
    });
    let Some((&kind, data)) = data.split_first() else { return };
    match kind % 16 {
        0 => drop(record::decode(0, data)),
        1 => {
            // With a checksum that is right, or nothing behind it would ever be read.
            let mut bytes = data.to_vec();
            bytes.extend(crc32c::crc32c(data).to_le_bytes());
            let Ok(record) = record::decode(0, &bytes) else { return };
            match &record.body {
                Body::Buffer(header) => drop(buffer::restore(header, record.payload, &mut |_| {})),
                Body::Event | Body::State { .. } => drop(event::decode(record.payload.as_ref())),
                Body::Snapshot(state) => state.iter().for_each(|(_, value)| drop(event::decode(value))),
            }
        }
        2 => drop(event::decode(data)),
        kind => {
            let name = METAS[usize::from(kind - 3) % METAS.len()].to_owned();
            let mut buffer = gst::Buffer::new();
            meta::restore(buffer.make_mut(), &[MetaRecord { name, data: data.to_vec() }], &mut |_| {});
            drop(meta::collect(&buffer, &mut |_| {}));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::media::buffer::Facts;
    use crate::store::record::{Encoder, Header};

    /// Where the fuzzer starts, made up here.
    fn corpus(of: &str) -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let inside = root.join("fuzz/corpus");
        if inside.exists() { inside } else { root.join("corpus") }.join(of)
    }

    fn kept(of: &str) -> Vec<Vec<u8>> {
        let mut paths: Vec<_> = std::fs::read_dir(corpus(of)).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(paths.len() >= 10, "{paths:?}");
        paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) as usize % bound.max(1)
        }

        /// One of the seeds with some of its bytes otherwise, or with parts of another.
        fn mutated(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
            let mut data = seeds[self.below(seeds.len())].clone();
            for _ in 0..=self.below(6) {
                let at = self.below(data.len());
                match self.below(6) {
                    0 => data.truncate(at),
                    1 => data.insert(at, [0, 1, 2, 3, 0x80, 0xff][self.below(6)]),
                    2 => data = [&data[..at], &seeds[self.below(seeds.len())][..]].concat(),
                    3 if !data.is_empty() => drop(data.remove(at)),
                    _ if !data.is_empty() => data[at] ^= 1 << self.below(8),
                    _ => data.push(self.below(256) as u8),
                }
            }
            data
        }
    }

    #[test]
    fn nal_units_of_any_kind_give_an_answer() {
        let seeds = kept("nal");
        seeds.iter().for_each(|seed| nal(seed));
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..30_000 {
            nal(&random.mutated(&seeds));
        }
    }

    #[test]
    fn records_of_any_kind_give_an_answer() {
        let seeds = kept("records");
        seeds.iter().for_each(|seed| records(seed));
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        for _ in 0..20_000 {
            records(&random.mutated(&seeds));
        }
    }

    /// Work that grows with the square of the length would not end within the hour.
    #[test]
    fn long_inputs_take_time_by_their_length() {
        let units: [&[u8]; 12] = [
            &[0],
            &[0, 0, 1],
            &[0, 0, 3],
            &[0xff],
            &[0, 0, 1, 0x67, 66, 0, 30, 0x80],
            &[0, 0, 1, 0x68, 0x80],
            &[0, 0, 1, 6, 6, 1, 0x80],
            &[0, 0, 1, 6, 255, 255, 255],
            &[6, 0],
            &[1, 9, 2, 0x68, 0xc0],
            &[0, 1, 6],
            &[0, 0, 1, 0x42, 1, 1, 1],
        ];
        for unit in units {
            for kind in 0..10 {
                let mut data = vec![kind];
                data.extend([0, 0, 1, 6, 5].iter().chain(unit.iter().cycle().take(1 << 18)));
                nal(&data);
            }
        }
    }

    /// Makes the corpus: NAL units in all framings, records of buffers and events.
    #[test]
    #[ignore = "writes into the sources"]
    fn write_the_corpus() {
        let save = |of: &str, name: String, data: Vec<u8>| {
            std::fs::create_dir_all(corpus(of)).unwrap();
            std::fs::write(corpus(of).join(name), data).unwrap();
        };
        let h264: [&[u8]; 8] = [
            &[0x09, 0xf0],
            &[0x67, 77, 0, 40, 0xe8, 0x80],
            &[0x68, 0xce, 0x38, 0x80],
            &[0x06, 5, 3, 1, 2, 3, 6, 1, 0xc4, 0x80],
            &[0x06, 6, 1, 0x52, 0x80],
            &[0x65, 0xb8, 0x40, 1, 2, 3],
            &[0x41, 0xb8, 0x40, 4, 5, 6],
            &[0x41, 0x9a, 0x40, 7, 8, 9],
        ];
        let h265: [&[u8]; 8] = [
            &[0x46, 1, 0x50],
            &[0x40, 1, 0x0c, 1, 0xff, 0xff],
            &[0x42, 1, 1, 1, 0x60, 0, 0, 3, 0, 0x90, 0, 0, 3, 0, 0, 3, 0, 0x5d, 0xa0],
            &[0x44, 1, 0xc1, 0x72, 0xb4],
            &[0x26, 1, 0xaf, 1, 2],
            &[0x2a, 1, 0xaf, 3, 4],
            &[0x12, 1, 0xd0, 5, 6],
            &[0x02, 1, 0xd0, 7, 8],
        ];
        let orders: [&[usize]; 6] = [&[1, 2, 5], &[0, 3, 6], &[0, 1, 2, 3, 6, 7], &[4, 7], &[5, 6, 7, 5], &[2, 1, 0]];
        for kind in 0..10u8 {
            let units = if kind & 1 == 0 { h264 } else { h265 };
            for (number, order) in orders.iter().enumerate() {
                let mut data = vec![kind];
                order.iter().for_each(|&at| FRAMINGS[usize::from(kind >> 1)].push(&mut data, units[at]));
                save("nal", format!("{kind}-{number}"), data);
            }
        }

        gst::init().unwrap();
        let mut with_metas = gst::Buffer::from_slice([1u8, 2, 3]);
        {
            let buffer = with_metas.make_mut();
            let caps = gst::Caps::new_empty_simple("timestamp/x-unix");
            gst::ReferenceTimestampMeta::add(buffer, &caps, gst::ClockTime::SECOND, None);
            let format = gst_video::VideoFormat::I420;
            gst_video::VideoMeta::add(buffer, gst_video::VideoFrameFlags::empty(), format, 2, 2).ok();
            let region = gst::Structure::builder("detection").field("confidence", 0.5).build();
            gst_video::VideoRegionOfInterestMeta::add(buffer, "face", (1, 2, 3, 4)).add_param(region.clone());
            gst::meta::ProtectionMeta::add(buffer, region);
            gst_audio::AudioClippingMeta::add(buffer, gst::ClockTime::SECOND, gst::ClockTime::ZERO);
            let jam = gst::glib::DateTime::from_utc(2024, 2, 29, 1, 2, 3.0).unwrap();
            let fps = gst::Fraction::new(25, 1);
            let flags = gst_video::VideoTimeCodeFlags::empty();
            let code = gst_video::VideoTimeCode::new(fps, Some(&jam), flags, 1, 2, 3, 4, 0);
            gst_video::VideoTimeCodeMeta::add(buffer, &code.try_into().unwrap());
            gst_video::VideoCaptionMeta::add(buffer, gst_video::VideoCaptionType::Cea608Raw, &[1, 2]);
            let (spec, value) = (gst_video::VideoAFDSpec::AtscA53, gst_video::VideoAFDValue::_43Full169Full);
            gst_video::VideoAFDMeta::add(buffer, 1, spec, value);
            gst_video::VideoBarMeta::add(buffer, 0, true, 3, 4);
        }
        let header = buffer::header(&with_metas, &Facts::default(), &mut |_| {});
        for (number, meta) in header.metas.iter().enumerate() {
            let kind = METAS.iter().position(|name| *name == meta.name).unwrap() as u8 + 3;
            save("records", format!("meta-{number}"), [&[kind], &meta.data[..]].concat());
        }
        let record = |body, payload: &[u8]| {
            let header = Header { before: Default::default(), advance: 1, arrival: Default::default(), body };
            let bytes = Encoder::default().encode(&header, &[payload]).to_vec();
            [&[1], &bytes[..bytes.len() - 4]].concat()
        };
        save("records", "buffer".into(), record(Body::Buffer(header), &[1, 2, 3]));
        let mut toc = gst::Toc::new(gst::TocScope::Global);
        toc.make_mut().append_entry(gst::TocEntry::new(gst::TocEntryType::Edition, "1"));
        let stream = gst::Stream::new(Some("cam/v"), None, gst::StreamType::VIDEO, gst::StreamFlags::empty());
        let collection = gst::StreamCollection::builder(Some("cam")).stream(stream).build();
        let events = [
            gst::event::StreamStart::new("camera/1"),
            gst::event::Caps::new(&gst::Caps::builder("video/x-h264").field("width", 640i32).build()),
            gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()),
            gst::event::Tag::new(gst::TagList::new()),
            gst::event::Gap::new(gst::ClockTime::SECOND, gst::ClockTime::SECOND),
            gst::event::CustomDownstream::new(gst::Structure::builder("alarm").field("door", 3i32).build()),
            gst::event::Eos::new(),
            gst::event::Toc::new(&toc, false),
            gst::event::StreamCollection::new(&collection),
        ];
        for (number, event) in events.iter().enumerate() {
            let coded = event::encode(event);
            save("records", format!("event-{number}"), [&[2], &coded.bytes[..]].concat());
            save("records", format!("stored-event-{number}"), record(Body::Event, &coded.bytes));
        }
    }
}
