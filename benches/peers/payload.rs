//! Frames as a camera sends them: H.264 that cannot be compressed, a keyframe every 30 frames.

use std::sync::Arc;

pub const GOP: u64 = 30;
pub const FRAME: u64 = 33_333_333;

const SPS: &[u8] = &[0x67, 0x42, 0xC0, 0x0A, 0xD9, 0x07, 0x3F, 0x9A, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10];
const PPS: &[u8] = &[0x68, 0xCB, 0x83, 0xCB, 0x20];

/// Memory of frames that is shared by all buffers: making one must not be what is measured.
#[derive(Clone)]
pub struct Payloads {
    keyframes: Arc<[Frame]>,
    others: Arc<[Frame]>,
}

struct Frame {
    bytes: Arc<[u8]>,
    memory: gst::Memory,
}

struct Shared(Arc<[u8]>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Payloads {
    pub fn new(size: usize) -> Self {
        // More of small ones, so that the processor's caches do not hold all of them.
        let count = ((32 << 20) / size).clamp(4, 256);
        let mut seed = 0x9E37_79B9_7F4A_7C15;
        let mut frames =
            |head: &[&[u8]], count| -> Arc<[Frame]> { (0..count).map(|_| frame(head, size, &mut seed)).collect() };
        let keyframes = frames(&[SPS, PPS, &[0x65, 0xB8, 0x40]], count.div_ceil(8));
        let others = frames(&[&[0x41, 0x9A, 0x40]], count);
        Self { keyframes, others }
    }

    fn frame(&self, number: u64) -> &Frame {
        let from = if number.is_multiple_of(GOP) { &self.keyframes } else { &self.others };
        &from[(number as usize) % from.len()]
    }

    pub fn bytes(&self, number: u64) -> &[u8] {
        &self.frame(number).bytes
    }

    pub fn buffer(&self, number: u64) -> gst::Buffer {
        let mut buffer = gst::Buffer::new();
        let out = buffer.make_mut();
        out.append_memory(self.frame(number).memory.clone());
        out.set_pts(gst::ClockTime::from_nseconds(number * FRAME));
        out.set_dts(gst::ClockTime::from_nseconds(number * FRAME));
        out.set_duration(gst::ClockTime::from_nseconds(FRAME));
        out.set_offset(number);
        if !number.is_multiple_of(GOP) {
            out.set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        buffer
    }

    pub fn caps() -> gst::Caps {
        gst::Caps::builder("video/x-h264")
            .field("stream-format", "byte-stream")
            .field("alignment", "au")
            .field("width", 1920i32)
            .field("height", 1080i32)
            .build()
    }
}

fn frame(head: &[&[u8]], size: usize, seed: &mut u64) -> Frame {
    let mut data = Vec::with_capacity(size + 8);
    for nal in head {
        data.extend([0, 0, 0, 1]);
        data.extend_from_slice(nal);
    }
    while data.len() < size {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        // Never part of a start code.
        data.extend(seed.to_be_bytes().map(|byte| byte | 1));
    }
    data.truncate(size);
    let bytes: Arc<[u8]> = data.into();
    Frame { memory: gst::Memory::from_slice(Shared(bytes.clone())), bytes }
}
