//! Metas of a buffer as records and back.
//!
//! Each kind has its name and a coding of its own, so that one more kind changes nothing for those that are stored. From
//! the disk come: reference timestamps, video frame layout, time codes, regions of interest with their parameters,
//! protection, audio clipping, captions, AFD, bars, custom metas whose name is registered when they are restored
//! (registering it here would break its owner), and from GStreamer 1.24 on all that can serialize themselves.
//!
//! What cannot be written down is named to the caller, once per buffer and meta. What a pool put on its buffers is left
//! out, except for the layout of a video frame, without which its payload cannot be read.

use bitcode::{Decode, DecodeOwned, Encode};
use gst::glib;
use gst::glib::translate::{IntoGlib, ToGlibPtr, from_glib_none};

use crate::media::{clock_time, reference, text};
use crate::store::MetaRecord;

const REFERENCE: &str = "GstReferenceTimestampMeta";
const VIDEO: &str = "GstVideoMeta";
const TIME_CODE: &str = "GstVideoTimeCodeMeta";
const REGION: &str = "GstVideoRegionOfInterestMeta";
const PROTECTION: &str = "GstProtectionMeta";
const CLIPPING: &str = "GstAudioClippingMeta";
#[cfg(feature = "v1_18")]
const CAPTION: &str = "GstVideoCaptionMeta";
#[cfg(feature = "v1_18")]
const AFD: &str = "GstVideoAFDMeta";
#[cfg(feature = "v1_18")]
const BAR: &str = "GstVideoBarMeta";
#[cfg(feature = "v1_20")]
const CUSTOM: &str = "GstCustomMeta";
/// As GStreamer serializes it, with its name inside.
#[cfg(feature = "v1_24")]
const SERIALIZED: &str = "GstMeta";

#[derive(Encode, Decode)]
struct Reference {
    caps: String,
    timestamp: u64,
    duration: Option<u64>,
}

/// Offsets and strides are those of the payload as one piece, which is how it is stored.
#[derive(Encode, Decode)]
struct Video {
    flags: u32,
    /// By name: numbers that this GStreamer does not know yet would be taken for another format.
    format: String,
    id: i32,
    width: u32,
    height: u32,
    planes: Vec<(u64, i32)>,
    /// Top, bottom, left, right.
    padding: [u32; 4],
    stride_align: [u32; 4],
}

#[derive(Encode, Decode)]
struct TimeCode {
    fps: (u32, u32),
    flags: u32,
    daily_jam: Option<Instant>,
    hours: u32,
    minutes: u32,
    seconds: u32,
    frames: u32,
    field_count: u32,
}

#[derive(Encode, Decode)]
struct Instant {
    /// ISO 8601, in whole seconds, with the offset from UTC.
    text: String,
    microseconds: i32,
}

#[derive(Encode, Decode)]
struct Region {
    kind: String,
    id: i32,
    parent_id: i32,
    rect: (u32, u32, u32, u32),
    params: Vec<String>,
}

#[derive(Encode, Decode)]
struct Clipping {
    format: i32,
    start: u64,
    end: u64,
}

#[cfg(feature = "v1_18")]
#[derive(Encode, Decode)]
struct Caption {
    kind: i32,
    data: Vec<u8>,
}

#[cfg(feature = "v1_18")]
#[derive(Encode, Decode)]
struct Afd {
    field: u8,
    spec: i32,
    value: i32,
}

#[cfg(feature = "v1_18")]
#[derive(Encode, Decode)]
struct Bar {
    field: u8,
    letterbox: bool,
    data: (u32, u32),
}

/// The metas of a buffer that can be written down; `unknown` is told the names of the others. Allocates nothing for a
/// buffer without metas.
pub fn collect(buffer: &gst::BufferRef, unknown: &mut impl FnMut(&str)) -> Vec<MetaRecord> {
    let mut records = Vec::new();
    for meta in buffer.iter_meta::<gst::Meta>() {
        if meta.flags().contains(gst::MetaFlags::POOLED) && meta.downcast_ref::<gst_video::VideoMeta>().is_none() {
            continue;
        }
        match coded(&meta, unknown) {
            Some((name, data)) => records.push(MetaRecord { name: name.to_owned(), data }),
            None => unknown(meta.type_().name()),
        }
    }
    records
}

/// Puts stored metas on a buffer that has its payload; `lost` is told the names of those that cannot be made here.
pub fn restore(buffer: &mut gst::BufferRef, metas: &[MetaRecord], lost: &mut impl FnMut(&str)) {
    for meta in metas {
        if let Err(name) = add(buffer, meta) {
            lost(&name);
        }
    }
}

/// A meta that points into the memory of the process that made it, where a later process finds nothing: Savant's ids of
/// frames and batches (they name entries of its pipeline) and DeepStream's. The element belongs before `zeromq_sink`, or
/// wherever else such metas become part of the data.
pub fn foreign_process(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.contains("savant") || name.contains("nvds")
}

/// A meta that keeps memory alive and says nothing to anybody: not worth a warning when it stays behind.
pub fn only_memory(name: &str) -> bool {
    matches!(name, "GstParentBufferMeta" | "GstGLSyncMeta")
}

/// Name and bytes; `None` if the meta cannot be written down.
fn coded(meta: &gst::MetaRef<gst::Meta>, unknown: &mut impl FnMut(&str)) -> Option<(&'static str, Vec<u8>)> {
    if let Some(meta) = meta.downcast_ref::<gst::ReferenceTimestampMeta>() {
        let caps = text::of_caps(meta.reference())?;
        let duration = meta.duration().map(gst::ClockTime::nseconds);
        let stored = Reference { caps, timestamp: meta.timestamp().nseconds(), duration };
        return Some((REFERENCE, bitcode::encode(&stored)));
    }
    if let Some(meta) = meta.downcast_ref::<gst_video::VideoMeta>() {
        return Some((VIDEO, bitcode::encode(&Video::from(&**meta))));
    }
    if let Some(meta) = meta.downcast_ref::<gst_video::VideoRegionOfInterestMeta>() {
        return Some((REGION, bitcode::encode(&Region::of(meta, unknown))));
    }
    if let Some(meta) = meta.downcast_ref::<gst_video::VideoTimeCodeMeta>() {
        // SAFETY: a valid meta, read while it is borrowed.
        let code = unsafe { &(*meta.as_ptr()).tc };
        return Some((TIME_CODE, bitcode::encode(&TimeCode::of(code)?)));
    }
    if let Some(meta) = meta.downcast_ref::<gst::meta::ProtectionMeta>() {
        return Some((PROTECTION, bitcode::encode(&text::of_structure(meta.info())?)));
    }
    if let Some(meta) = meta.downcast_ref::<gst_audio::AudioClippingMeta>() {
        // SAFETY: a valid meta, read while it is borrowed.
        let raw = unsafe { &*meta.as_ptr() };
        return Some((CLIPPING, bitcode::encode(&Clipping { format: raw.format, start: raw.start, end: raw.end })));
    }
    #[cfg(feature = "v1_18")]
    if let Some(meta) = meta.downcast_ref::<gst_video::VideoCaptionMeta>() {
        let stored = Caption { kind: meta.caption_type().into_glib(), data: meta.data().to_vec() };
        return Some((CAPTION, bitcode::encode(&stored)));
    }
    #[cfg(feature = "v1_18")]
    if let Some(meta) = meta.downcast_ref::<gst_video::VideoAFDMeta>() {
        let stored = Afd { field: meta.field(), spec: meta.spec().into_glib(), value: meta.afd().into_glib() };
        return Some((AFD, bitcode::encode(&stored)));
    }
    #[cfg(feature = "v1_18")]
    if let Some(meta) = meta.downcast_ref::<gst_video::VideoBarMeta>() {
        let data = (meta.bar_data1(), meta.bar_data2());
        return Some((BAR, bitcode::encode(&Bar { field: meta.field(), letterbox: meta.is_letterbox(), data })));
    }
    #[cfg(feature = "v1_20")]
    if let Some(meta) = meta.try_as_custom_meta() {
        return Some((CUSTOM, bitcode::encode(&text::of_structure(meta.structure())?)));
    }
    #[cfg(feature = "v1_24")]
    {
        let mut data = Vec::new();
        if meta.serialize(&mut data).is_ok() {
            return Some((SERIALIZED, data));
        }
    }
    None
}

/// Capture time that a stored buffer brought along, as [`reference::utc`] would tell it.
pub fn captured_at(metas: &[MetaRecord]) -> Option<i64> {
    let mut told = reference::Told::default();
    for stored in metas.iter().filter(|record| record.name == REFERENCE).filter_map(read::<Reference>) {
        let kind = stored.caps.split([',', '(', ';']).next().unwrap_or_default();
        told.add(kind.trim(), stored.timestamp);
    }
    told.utc()
}

/// The error is the name to report.
fn add(buffer: &mut gst::BufferRef, record: &MetaRecord) -> Result<(), String> {
    // Of a custom meta its own.
    #[allow(unused_mut)]
    let mut name: Option<String> = None;
    let added = match record.name.as_str() {
        REFERENCE => read(record).and_then(|stored: Reference| stored.add(buffer)),
        VIDEO => read(record).and_then(|stored: Video| stored.add(buffer)),
        TIME_CODE => read(record).and_then(|stored: TimeCode| stored.add(buffer)),
        REGION => read(record).and_then(|stored: Region| stored.add(buffer)),
        PROTECTION => read(record).and_then(|text: String| {
            gst::meta::ProtectionMeta::add(buffer, text::structure(&text)?);
            Some(())
        }),
        CLIPPING => read(record).and_then(|Clipping { format, start, end }: Clipping| {
            // SAFETY: a valid buffer that is borrowed alone.
            let meta =
                unsafe { gst_audio::ffi::gst_buffer_add_audio_clipping_meta(buffer.as_mut_ptr(), format, start, end) };
            (!meta.is_null()).then_some(())
        }),
        // GStreamer makes no meta of what it does not know, the bindings would not bear that.
        #[cfg(feature = "v1_18")]
        CAPTION => read(record).and_then(|Caption { kind, data }: Caption| {
            // SAFETY: a valid buffer that is borrowed alone; the data, of which there is some, is copied.
            let meta = (!data.is_empty()).then(|| unsafe {
                gst_video::ffi::gst_buffer_add_video_caption_meta(buffer.as_mut_ptr(), kind, data.as_ptr(), data.len())
            })?;
            (!meta.is_null()).then_some(())
        }),
        #[cfg(feature = "v1_18")]
        AFD => read(record).and_then(|Afd { field, spec, value }: Afd| {
            // SAFETY: a valid buffer that is borrowed alone.
            let meta =
                unsafe { gst_video::ffi::gst_buffer_add_video_afd_meta(buffer.as_mut_ptr(), field, spec, value) };
            (!meta.is_null()).then_some(())
        }),
        #[cfg(feature = "v1_18")]
        BAR => read(record).and_then(|Bar { field, letterbox, data: (first, second) }: Bar| {
            let letterbox = letterbox.into_glib();
            // SAFETY: a valid buffer that is borrowed alone.
            let meta = unsafe {
                gst_video::ffi::gst_buffer_add_video_bar_meta(buffer.as_mut_ptr(), field, letterbox, first, second)
            };
            (!meta.is_null()).then_some(())
        }),
        #[cfg(feature = "v1_20")]
        CUSTOM => read(record).and_then(|text: String| text::structure(&text)).and_then(|stored| {
            name = Some(stored.name().to_string());
            add_custom(buffer, &stored)
        }),
        #[cfg(feature = "v1_24")]
        SERIALIZED => gst::Meta::deserialize(buffer, &record.data, &mut 0).ok().map(drop),
        _ => None,
    };
    added.ok_or_else(|| name.unwrap_or_else(|| record.name.clone()))
}

fn read<T: DecodeOwned>(record: &MetaRecord) -> Option<T> {
    bitcode::decode(&record.data).ok()
}

#[cfg(feature = "v1_20")]
fn add_custom(buffer: &mut gst::BufferRef, stored: &gst::StructureRef) -> Option<()> {
    let name = stored.name();
    if !gst::meta::CustomMeta::is_registered(name) {
        return None;
    }
    // The name may belong to a meta that is not a custom one by now: GStreamer refuses those.
    let mut meta = gst::meta::CustomMeta::add(buffer, name).ok()?;
    let fields = meta.mut_structure();
    for (field, value) in stored.iter() {
        fields.set_value(field, value.clone());
    }
    Some(())
}

impl Reference {
    fn add(self, buffer: &mut gst::BufferRef) -> Option<()> {
        let caps = text::caps(&self.caps)?;
        let timestamp = clock_time(self.timestamp)?;
        let duration = self.duration.and_then(clock_time);
        gst::ReferenceTimestampMeta::add(buffer, &caps, timestamp, duration);
        Some(())
    }
}

impl From<&gst_video::VideoMeta> for Video {
    fn from(meta: &gst_video::VideoMeta) -> Self {
        #[cfg(feature = "v1_18")]
        let (padding, stride_align) = {
            let a = meta.alignment();
            ([a.padding_top(), a.padding_bottom(), a.padding_left(), a.padding_right()], *a.stride_align())
        };
        #[cfg(not(feature = "v1_18"))]
        let (padding, stride_align) = Default::default();
        Self {
            flags: meta.video_frame_flags().bits(),
            format: meta.format().to_str().to_string(),
            id: meta.id(),
            width: meta.width(),
            height: meta.height(),
            planes: meta.offset().iter().map(|&offset| offset as u64).zip(meta.stride().iter().copied()).collect(),
            padding,
            stride_align,
        }
    }
}

impl Video {
    fn add(self, buffer: &mut gst::BufferRef) -> Option<()> {
        let format: gst_video::VideoFormat = text::clean(&self.format)?.parse().ok()?;
        if self.planes.len() > gst_video::VIDEO_MAX_PLANES || format == gst_video::VideoFormat::Unknown {
            return None;
        }
        let mut offset = [0; gst_video::VIDEO_MAX_PLANES];
        let mut stride = [0; gst_video::VIDEO_MAX_PLANES];
        for (at, &(plane_offset, plane_stride)) in self.planes.iter().enumerate() {
            offset[at] = usize::try_from(plane_offset).ok()?;
            stride[at] = plane_stride;
        }
        // SAFETY: a valid buffer that is borrowed alone; the arrays have room for all planes that there can be. What
        // is returned belongs to the buffer and is written while that is borrowed.
        unsafe {
            let meta = gst_video::ffi::gst_buffer_add_video_meta_full(
                buffer.as_mut_ptr(),
                self.flags,
                format.into_glib(),
                self.width,
                self.height,
                self.planes.len() as u32,
                &offset,
                &stride,
            );
            let meta = meta.as_mut()?;
            meta.id = self.id;
            #[cfg(feature = "v1_18")]
            {
                let [top, bottom, left, right] = self.padding;
                meta.alignment.padding_top = top;
                meta.alignment.padding_bottom = bottom;
                meta.alignment.padding_left = left;
                meta.alignment.padding_right = right;
                meta.alignment.stride_align = self.stride_align;
            }
        }
        Some(())
    }
}

impl TimeCode {
    fn of(code: &gst_video::ffi::GstVideoTimeCode) -> Option<Self> {
        // SAFETY: a date and time that the time code holds, or none.
        let jam: Option<glib::DateTime> = unsafe { from_glib_none(code.config.latest_daily_jam) };
        let daily_jam = match jam {
            Some(jam) => Some(Instant::of(&jam)?),
            None => None,
        };
        Some(Self {
            fps: (code.config.fps_n, code.config.fps_d),
            flags: code.config.flags,
            daily_jam,
            hours: code.hours,
            minutes: code.minutes,
            seconds: code.seconds,
            frames: code.frames,
            field_count: code.field_count,
        })
    }

    fn add(self, buffer: &mut gst::BufferRef) -> Option<()> {
        let jam = match self.daily_jam {
            Some(jam) => Some(jam.date_time()?),
            None => None,
        };
        // SAFETY: a valid buffer that is borrowed alone; the date and time is referenced by whoever keeps it. Numbers that
        // make no time code give no meta.
        let meta = unsafe {
            gst_video::ffi::gst_buffer_add_video_time_code_meta_full(
                buffer.as_mut_ptr(),
                self.fps.0,
                self.fps.1,
                jam.to_glib_none().0,
                self.flags,
                self.hours,
                self.minutes,
                self.seconds,
                self.frames,
                self.field_count,
            )
        };
        (!meta.is_null()).then_some(())
    }
}

impl Instant {
    fn of(time: &glib::DateTime) -> Option<Self> {
        let text = time.format("%Y-%m-%dT%H:%M:%S%z").ok()?.to_string();
        Some(Self { text, microseconds: time.microsecond() })
    }

    fn date_time(&self) -> Option<glib::DateTime> {
        let seconds = glib::DateTime::from_iso8601(text::clean(&self.text)?, None).ok()?;
        seconds.add(glib::TimeSpan::from_microseconds(self.microseconds.into())).ok()
    }
}

impl Region {
    fn of(meta: &gst::MetaRef<gst_video::VideoRegionOfInterestMeta>, unknown: &mut impl FnMut(&str)) -> Self {
        // SAFETY: a valid meta, read while it is borrowed; 0 is no quark and gives no string.
        let kind: Option<String> = unsafe { from_glib_none(glib::ffi::g_quark_to_string((*meta.as_ptr()).roi_type)) };
        let mut params = Vec::new();
        for param in meta.params() {
            match text::of_structure(param) {
                Some(text) => params.push(text),
                None => unknown(&format!("{REGION} {}", param.name())),
            }
        }
        Self { kind: kind.unwrap_or_default(), id: meta.id(), parent_id: meta.parent_id(), rect: meta.rect(), params }
    }

    fn add(self, buffer: &mut gst::BufferRef) -> Option<()> {
        let kind = text::clean(&self.kind)?;
        let mut meta = gst_video::VideoRegionOfInterestMeta::add(buffer, kind, self.rect);
        meta.set_id(self.id);
        meta.set_parent_id(self.parent_id);
        for param in self.params.iter().filter_map(|text| text::structure(text)) {
            meta.add_param(param);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests;
