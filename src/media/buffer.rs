//! A `GstBuffer` as a record and back.

use crate::media::{clock_time, meta};
use crate::store::{Arrival, BufferHeader, Payload, Sync};

/// What is said of a buffer beside its own fields.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts {
    pub sync: Sync,
    pub leading: bool,
    pub list_remaining: u32,
    /// Of the epoch, ns.
    pub running_time: Option<i64>,
    /// ns since 1970.
    pub captured_at: i64,
    /// When it came, if it comes from the disk.
    pub arrival: Option<Arrival>,
}

/// `unknown` is told the names of metas that cannot be stored.
pub fn header(buffer: &gst::BufferRef, facts: &Facts, unknown: &mut impl FnMut(&str)) -> BufferHeader {
    let none_is_max = |offset: u64| (offset != gst::ffi::GST_BUFFER_OFFSET_NONE).then_some(offset);
    BufferHeader {
        pts: buffer.pts().map(gst::ClockTime::nseconds),
        dts: buffer.dts().map(gst::ClockTime::nseconds),
        duration: buffer.duration().map(gst::ClockTime::nseconds),
        offset: none_is_max(buffer.offset()),
        offset_end: none_is_max(buffer.offset_end()),
        flags: raw_flags(buffer) & STORED_FLAGS,
        sync: facts.sync,
        leading: facts.leading,
        list_remaining: facts.list_remaining,
        running_time: facts.running_time,
        captured_at: facts.captured_at,
        metas: meta::collect(buffer, unknown),
    }
}

/// A buffer's own flags and above them those of media libraries, such as the fields of interlaced video. Not those of every
/// miniobject. Tag memory tells a pool that memory was exchanged: it says nothing about the data.
const STORED_FLAGS: u32 = !(gst::ffi::GST_MINI_OBJECT_FLAG_LAST - 1) & !gst::ffi::GST_BUFFER_FLAG_TAG_MEMORY;

/// The bindings know a buffer's own flags only.
fn raw_flags(buffer: &gst::BufferRef) -> u32 {
    // SAFETY: the field of a valid buffer, read while it is borrowed.
    unsafe { (*buffer.as_ptr()).mini_object.flags }
}

/// The buffer that a record describes. The payload is not copied. `lost` is told the names of metas that cannot be made here.
pub fn restore(header: &BufferHeader, payload: Payload, lost: &mut impl FnMut(&str)) -> gst::Buffer {
    let mut buffer = if payload.is_empty() { gst::Buffer::new() } else { gst::Buffer::from_slice(payload) };
    let buffer_ref = buffer.make_mut();
    let time = |ns: Option<u64>| ns.and_then(clock_time);
    buffer_ref.set_pts(time(header.pts));
    buffer_ref.set_dts(time(header.dts));
    buffer_ref.set_duration(time(header.duration));
    buffer_ref.set_offset(header.offset.unwrap_or(gst::ffi::GST_BUFFER_OFFSET_NONE));
    buffer_ref.set_offset_end(header.offset_end.unwrap_or(gst::ffi::GST_BUFFER_OFFSET_NONE));
    let kept = raw_flags(buffer_ref) & !STORED_FLAGS & !gst::ffi::GST_BUFFER_FLAG_TAG_MEMORY;
    // SAFETY: the field of a valid buffer that is borrowed alone.
    unsafe { (*buffer_ref.as_mut_ptr()).mini_object.flags = kept | header.flags & STORED_FLAGS };
    meta::restore(buffer_ref, &header.metas, lost);
    buffer
}

/// A buffer with `bytes` put in at `at`, and the same fields. Shares the memory of the rest.
pub fn insert(buffer: &gst::BufferRef, at: usize, bytes: Vec<u8>) -> Result<gst::Buffer, gst::glib::BoolError> {
    use gst::BufferCopyFlags as Copy;
    let mut out = gst::Buffer::new();
    {
        let out = out.make_mut();
        buffer.copy_into(out, Copy::FLAGS | Copy::TIMESTAMPS | Copy::META, ..)?;
        if at > 0 {
            buffer.copy_into(out, Copy::MEMORY, ..at)?;
        }
        out.append_memory(gst::Memory::from_mut_slice(bytes));
        if at < buffer.size() {
            buffer.copy_into(out, Copy::MEMORY, at..)?;
        }
    }
    Ok(out)
}

/// Runs `f` with the buffer's memory in pieces, so that scattered memory is not merged.
pub fn with_payload<R>(buffer: &gst::BufferRef, f: impl FnOnce(&[&[u8]]) -> R) -> Result<R, gst::glib::BoolError> {
    if buffer.n_memory() == 1 {
        let map = buffer.peek_memory(0).map_readable()?;
        return Ok(f(&[map.as_slice()]));
    }
    let maps = buffer.iter_memories().map(gst::MemoryRef::map_readable).collect::<Result<Vec<_>, _>>()?;
    let parts: Vec<&[u8]> = maps.iter().map(|map| map.as_slice()).collect();
    Ok(f(&parts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::{Body, Encoder, Header, decode};

    fn through_the_record(buffer: &gst::Buffer) -> gst::Buffer {
        let body = Body::Buffer(header(buffer, &Facts::default(), &mut |name| panic!("{name}")));
        let record = with_payload(buffer, |parts| {
            let header = Header { before: Default::default(), advance: 0, arrival: Default::default(), body };
            decode(1, Encoder::default().encode(&header, parts)).unwrap()
        })
        .unwrap();
        match record.body {
            Body::Buffer(header) => restore(&header, record.payload, &mut |name| panic!("{name}")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_field_comes_back() {
        gst::init().unwrap();
        let mut buffer = gst::Buffer::from_slice([1u8, 2, 3]);
        {
            let buffer = buffer.make_mut();
            buffer.append_memory(gst::Memory::from_slice([4u8, 5]));
            buffer.set_pts(gst::ClockTime::from_nseconds(7));
            buffer.set_dts(gst::ClockTime::from_nseconds(6));
            buffer.set_duration(gst::ClockTime::from_nseconds(5));
            buffer.set_offset(3);
            buffer.set_offset_end(4);
            buffer.set_flags(gst::BufferFlags::DELTA_UNIT | gst::BufferFlags::HEADER | gst::BufferFlags::MARKER);
        }
        let back = through_the_record(&buffer);
        assert_eq!(back.map_readable().unwrap().as_slice(), [1, 2, 3, 4, 5]);
        assert_eq!((back.pts(), back.dts(), back.duration()), (buffer.pts(), buffer.dts(), buffer.duration()));
        assert_eq!((back.offset(), back.offset_end()), (3, 4));
        assert_eq!(raw_flags(&back) & STORED_FLAGS, raw_flags(&buffer) & STORED_FLAGS);
        assert_eq!(back.flags(), buffer.flags() - gst::BufferFlags::TAG_MEMORY);
    }

    #[test]
    fn nothing_stays_nothing() {
        gst::init().unwrap();
        let back = through_the_record(&gst::Buffer::new());
        assert_eq!((back.size(), back.n_memory()), (0, 0));
        assert_eq!((back.pts(), back.dts(), back.duration()), (None, None, None));
        assert_eq!(back.offset(), gst::ffi::GST_BUFFER_OFFSET_NONE);
        assert_eq!(back.flags(), gst::BufferFlags::empty());
    }

    #[test]
    fn bytes_are_put_in_where_they_belong() {
        gst::init().unwrap();
        let mut buffer = gst::Buffer::from_slice([1u8, 2, 3]);
        buffer.make_mut().set_pts(gst::ClockTime::from_nseconds(7));
        for (at, expected) in [(0, [8, 9, 1, 2, 3]), (2, [1, 2, 8, 9, 3])] {
            let out = insert(&buffer, at, vec![8, 9]).unwrap();
            assert_eq!(out.map_readable().unwrap().as_slice(), expected);
            assert_eq!(out.pts(), buffer.pts());
        }
    }
}
