use super::*;

fn stored(buffer: &gst::Buffer) -> Vec<MetaRecord> {
    collect(buffer, &mut |name| panic!("{name} is not stored"))
}

fn named(run: impl FnOnce(&mut dyn FnMut(&str))) -> Vec<String> {
    let mut names = Vec::new();
    run(&mut |name| names.push(name.to_owned()));
    names
}

/// A buffer of 64 bytes with the metas that the other has, from their records.
fn back(buffer: &gst::Buffer) -> gst::Buffer {
    let mut back = gst::Buffer::with_size(64).unwrap();
    restore(back.make_mut(), &stored(buffer), &mut |name| panic!("{name} is lost"));
    back
}

fn buffer() -> gst::Buffer {
    gst::init().unwrap();
    gst::Buffer::with_size(64).unwrap()
}

#[test]
fn nothing_is_allocated_for_nothing() {
    assert_eq!(stored(&buffer()).capacity(), 0);
}

#[test]
fn reference_timestamps_come_back_in_order() {
    let mut buffer = buffer();
    let plain = gst::Caps::new_empty_simple("timestamp/x-unix");
    let with_fields = gst::Caps::builder("timestamp/x-ptp").field("clock", "a b").field("domain", 3i32).build();
    let time = gst::ClockTime::from_nseconds;
    gst::ReferenceTimestampMeta::add(buffer.make_mut(), &plain, time(5), None);
    gst::ReferenceTimestampMeta::add(buffer.make_mut(), &with_fields, time(6), time(7));
    let back = back(&buffer);
    let seen: Vec<_> = back
        .iter_meta::<gst::ReferenceTimestampMeta>()
        .map(|meta| (meta.reference_owned(), meta.timestamp(), meta.duration()))
        .collect();
    assert_eq!(seen, [(plain, time(5), None), (with_fields, time(6), Some(time(7)))]);
}

#[test]
fn a_stored_capture_time_is_the_one_that_the_buffer_told() {
    let kinds = ["timestamp/x-ptp, domain=(int)3", "timestamp/x-ntp", "timestamp/x-unix", "timestamp/x-unix, a=(int)1"];
    for count in 0..=kinds.len() {
        let mut buffer = buffer();
        for (kind, number) in kinds[..count].iter().zip(3_000_000_000u64..) {
            let caps: gst::Caps = kind.parse().unwrap();
            let time = gst::ClockTime::from_seconds(number);
            gst::ReferenceTimestampMeta::add(buffer.make_mut(), &caps, time, None);
        }
        assert_eq!(captured_at(&stored(&buffer)), reference::utc(&buffer), "{count}");
        assert_eq!(captured_at(&stored(&buffer)).is_some(), count > 1);
    }
}

#[test]
fn the_layout_of_a_video_frame_comes_back_even_from_a_pool() {
    for pooled in [false, true] {
        let mut buffer = buffer();
        let format = gst_video::VideoFormat::Nv12;
        let flags = gst_video::VideoFrameFlags::INTERLACED | gst_video::VideoFrameFlags::TFF;
        let mut meta =
            gst_video::VideoMeta::add_full(buffer.make_mut(), flags, format, 4, 4, &[8, 40], &[8, -8]).unwrap();
        #[cfg(feature = "v1_18")]
        meta.set_alignment(&gst_video::VideoAlignment::new(0, 0, 0, 4, &[7, 7, 0, 0])).ok();
        // SAFETY: the fields of a valid meta that is borrowed alone.
        unsafe {
            let raw = &mut *meta.as_mut_ptr();
            raw.id = 3;
            raw.meta.flags |= if pooled { gst::ffi::GST_META_FLAG_POOLED } else { 0 };
        }
        let back = back(&buffer);
        let meta = back.meta::<gst_video::VideoMeta>().unwrap();
        assert_eq!((meta.format(), meta.video_frame_flags(), meta.id()), (format, flags, 3));
        assert_eq!((meta.width(), meta.height(), meta.n_planes()), (4, 4, 2));
        assert_eq!((meta.offset(), meta.stride()), (&[8, 40][..], &[8, -8][..]));
        #[cfg(feature = "v1_18")]
        assert_eq!(meta.alignment(), buffer.meta::<gst_video::VideoMeta>().unwrap().alignment());
    }
}

#[test]
fn what_else_a_pool_adds_stays_there() {
    let mut buffer = buffer();
    let mut meta = gst_video::VideoRegionOfInterestMeta::add(buffer.make_mut(), "face", (0, 0, 1, 1));
    // SAFETY: the flags of a valid meta that is borrowed alone.
    unsafe { (*meta.as_mut_ptr()).meta.flags |= gst::ffi::GST_META_FLAG_POOLED };
    assert_eq!(stored(&buffer), []);
}

#[test]
fn time_codes_come_back_with_their_day() {
    let mut buffer = buffer();
    let jam = glib::DateTime::from_iso8601("2024-02-29T23:59:58+05:30", None).unwrap();
    let jam = jam.add(glib::TimeSpan::from_microseconds(123_457)).unwrap();
    let codes: Vec<gst_video::ValidVideoTimeCode> = [Some(&jam), None]
        .map(|jam| {
            let flags = gst_video::VideoTimeCodeFlags::DROP_FRAME;
            let fps = gst::Fraction::new(30_000, 1001);
            gst_video::VideoTimeCode::new(fps, jam, flags, 1, 2, 3, 4, 1).try_into().unwrap()
        })
        .into();
    for code in &codes {
        gst_video::VideoTimeCodeMeta::add(buffer.make_mut(), code);
    }
    let back = back(&buffer);
    let seen: Vec<_> = back.iter_meta::<gst_video::VideoTimeCodeMeta>().map(|meta| meta.tc()).collect();
    assert_eq!(seen, codes);
    let read = seen[0].latest_daily_jam().unwrap();
    assert_eq!((read.microsecond(), read.utc_offset()), (123_457, jam.utc_offset()));
}

#[test]
fn regions_come_back_with_what_is_known_of_them() {
    let mut buffer = buffer();
    let param = gst::Structure::builder("detection")
        .field("confidence", 0.1f64 + 0.2)
        .field("label", "a \"b\", c=(int)1; NULL")
        .field("none", None::<&str>)
        .field("box", gst::Array::new([1i32, 2]))
        .field("blob", gst::Buffer::from_slice([1u8, 2, 3]))
        .field("big", u64::MAX)
        .build();
    {
        let mut meta = gst_video::VideoRegionOfInterestMeta::add(buffer.make_mut(), "number plate", (1, 2, 3, 4));
        meta.set_id(7);
        meta.set_parent_id(-8);
        meta.add_param(param.clone());
        meta.add_param(gst::Structure::new_empty("empty"));
    }
    let back = back(&buffer);
    let meta = back.meta::<gst_video::VideoRegionOfInterestMeta>().unwrap();
    assert_eq!((meta.roi_type(), meta.rect(), meta.id(), meta.parent_id()), ("number plate", (1, 2, 3, 4), 7, -8));
    let params: Vec<_> = meta.params().map(|param| param.to_owned()).collect();
    assert_eq!(params, [param, gst::Structure::new_empty("empty")]);
}

#[test]
fn a_parameter_that_cannot_be_written_is_named_and_the_region_kept() {
    let mut buffer = buffer();
    let pad = gst::Pad::new(gst::PadDirection::Src);
    let param = gst::Structure::builder("live").field("object", pad).build();
    gst_video::VideoRegionOfInterestMeta::add(buffer.make_mut(), "x", (0, 0, 1, 1)).add_param(param);
    let names = named(|name| assert_eq!(collect(&buffer, &mut |n| name(n)).len(), 1));
    assert_eq!(names, ["GstVideoRegionOfInterestMeta live"]);
}

#[test]
fn protection_and_clipping_come_back() {
    let mut buffer = buffer();
    let info = gst::Structure::builder("application/x-cenc")
        .field("iv_size", 8u32)
        .field("encrypted", true)
        .field("iv", gst::Buffer::from_slice([0u8, 255, 7, 0]))
        .build();
    gst::meta::ProtectionMeta::add(buffer.make_mut(), info.clone());
    let (start, end) = (gst::format::Default::from_u64(312), gst::format::Default::from_u64(0));
    gst_audio::AudioClippingMeta::add(buffer.make_mut(), start, end);
    let back = back(&buffer);
    assert_eq!(back.meta::<gst::meta::ProtectionMeta>().unwrap().info().to_owned(), info);
    let clipping = back.meta::<gst_audio::AudioClippingMeta>().unwrap();
    assert_eq!((clipping.start(), clipping.end()), (start.into(), end.into()));
}

#[cfg(feature = "v1_18")]
#[test]
fn captions_and_what_belongs_to_them_come_back() {
    let mut buffer = buffer();
    let kind = gst_video::VideoCaptionType::Cea708Raw;
    gst_video::VideoCaptionMeta::add(buffer.make_mut(), kind, &[0xfc, 0x94, 0x20]);
    let (spec, value) = (gst_video::VideoAFDSpec::AtscA53, gst_video::VideoAFDValue::_43Full169Full);
    gst_video::VideoAFDMeta::add(buffer.make_mut(), 1, spec, value);
    gst_video::VideoBarMeta::add(buffer.make_mut(), 0, true, 30, 40);
    let back = back(&buffer);
    let caption = back.meta::<gst_video::VideoCaptionMeta>().unwrap();
    assert_eq!((caption.caption_type(), caption.data()), (kind, &[0xfc, 0x94, 0x20][..]));
    let afd = back.meta::<gst_video::VideoAFDMeta>().unwrap();
    assert_eq!((afd.field(), afd.spec(), afd.afd()), (1, spec, value));
    let bar = back.meta::<gst_video::VideoBarMeta>().unwrap();
    assert_eq!((bar.field(), bar.is_letterbox(), bar.bar_data1(), bar.bar_data2()), (0, true, 30, 40));
}

#[cfg(feature = "v1_20")]
#[test]
fn a_custom_meta_comes_back_where_its_name_is_registered() {
    let mut buffer = buffer();
    gst::meta::CustomMeta::register_simple("streambuffer-test-known");
    {
        let mut meta = gst::meta::CustomMeta::add(buffer.make_mut(), "streambuffer-test-known").unwrap();
        meta.mut_structure().set("a", 5u64);
        meta.mut_structure().set("b", "c d");
    }
    let back = back(&buffer);
    let meta = gst::meta::CustomMeta::from_buffer(&back, "streambuffer-test-known").unwrap();
    assert_eq!(meta.structure().to_string(), "streambuffer-test-known, a=(guint64)5, b=(string)\"c\\ d\";");

    let stranger = gst::Structure::builder("streambuffer-test-stranger").field("a", 1i32).build();
    let record = MetaRecord { name: CUSTOM.into(), data: bitcode::encode(&stranger.to_string()) };
    let mut other = gst::Buffer::new();
    let names = named(|name| restore(other.make_mut(), &[record], &mut |n| name(n)));
    assert_eq!(names, ["streambuffer-test-stranger"]);
    assert!(!gst::meta::CustomMeta::is_registered("streambuffer-test-stranger"));
    assert_eq!(other.iter_meta::<gst::Meta>().count(), 0);
}

#[test]
fn others_are_named() {
    let mut buffer = buffer();
    gst::ParentBufferMeta::add(buffer.make_mut(), &gst::Buffer::new());
    gst_video::VideoCropMeta::add(buffer.make_mut(), (0, 0, 1, 1));
    let names = named(|name| assert_eq!(collect(&buffer, &mut |n| name(n)), []));
    assert_eq!(names, ["GstParentBufferMeta", "GstVideoCropMeta"]);
    assert!(only_memory(&names[0]) && !only_memory(&names[1]));
}

#[test]
fn metas_of_other_processes_are_known_by_their_names() {
    for name in ["GstSavantIdMeta", "GstSavantIdMetaAPI", "GstSavantFrameMeta", "NvDsMetaAPI", "GstNvDsMeta"] {
        assert!(foreign_process(name), "{name}");
    }
    for name in ["GstVideoMeta", "GstParentBufferMeta", "framesync-set", ""] {
        assert!(!foreign_process(name), "{name}");
    }
}

#[test]
fn a_record_that_says_nothing_is_lost_by_name() {
    let kinds = [REFERENCE, VIDEO, TIME_CODE, REGION, PROTECTION, CLIPPING, "GstFutureMeta"];
    for kind in kinds {
        let mut buffer = buffer();
        let record = MetaRecord { name: kind.into(), data: vec![0xff; 3] };
        let names = named(|name| restore(buffer.make_mut(), &[record], &mut |n| name(n)));
        assert_eq!(names, [kind]);
    }
    let mut frame = buffer();
    let planes = vec![(0, 1); 5];
    let video = Video {
        flags: 0,
        format: "NV12".into(),
        id: 0,
        width: 1,
        height: 1,
        planes,
        padding: [0; 4],
        stride_align: [0; 4],
    };
    assert!(video.add(frame.make_mut()).is_none());
    let planes = vec![(0, 1); 2];
    let video = Video {
        flags: 0,
        format: "NO-SUCH".into(),
        id: 0,
        width: 1,
        height: 1,
        planes,
        padding: [0; 4],
        stride_align: [0; 4],
    };
    assert!(video.add(frame.make_mut()).is_none());
}
