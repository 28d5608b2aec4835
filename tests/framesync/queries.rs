//! Latency, quality of service, allocation; and memory that nobody may touch.

use std::sync::atomic::{AtomicUsize, Ordering};

use gst::prelude::*;

use super::rig::{MS, Rig};

const RAW: &str = "video/x-raw";

fn latency(pad: &gst::Pad) -> (bool, u64, Option<u64>) {
    let mut query = gst::query::Latency::new();
    assert!(pad.peer_query(&mut query));
    let (live, least, most) = query.result();
    (live, least.mseconds(), most.map(gst::ClockTime::mseconds))
}

#[test]
fn a_slow_stream_is_waited_for_and_a_quick_one_is_held_for_it() {
    let rig = Rig::aligned(true);
    rig.element.set_property("latency", 200 * MS);
    rig.play();
    let (camera, server) = (rig.pads_of(true, 33, Some(66)), rig.pads_of(true, 2000, None));
    // The camera bears 33 ms more than its least: so do both.
    for port in [&camera, &server] {
        assert_eq!(latency(&port.sink), (true, 2200, Some(2233)));
    }
    rig.element.release_request_pad(&camera.pad);
    assert_eq!(latency(&server.sink), (true, 2200, None));
}

#[test]
fn a_latency_that_cannot_be_is_answered_as_the_most_there_is() {
    let rig = Rig::aligned(true);
    let endless = u64::MAX / MS;
    let port = rig.pads_of(true, 0, Some(endless));
    rig.element.set_property("latency", i64::MAX as u64);
    assert_eq!(latency(&port.sink), (true, i64::MAX as u64 / MS, Some(endless)));
}

#[test]
fn what_changes_latency_is_posted() {
    let rig = Rig::aligned(true);
    rig.play();
    let told = || rig.bus.pop_filtered(&[gst::MessageType::Latency]).is_some();
    assert!(!told());
    rig.element.set_property("latency", 300 * MS);
    assert!(told());
    let (one, two) = (rig.stream(RAW), rig.stream(RAW));
    one.push_ms(0);
    two.push_ms(0);
    // Known to be live with their first buffers.
    assert!(told() && told());
    rig.element.release_request_pad(&two.pad);
    assert!(told() && !told());
}

#[test]
fn a_stream_that_is_not_live_waits_for_live_ones_and_is_not_cut_short() {
    let rig = Rig::aligned(true);
    rig.element.set_property("latency", 200 * MS);
    rig.element.set_property("max-held-buffers", 8u32);
    rig.play();
    let (camera, file) = (rig.stream(RAW), rig.pads_of(false, 0, None));
    file.begin(RAW);
    camera.push_ms(1000);
    let src = file.src.clone();
    let reader = std::thread::spawn(move || {
        for i in 0..40u64 {
            let mut buffer = gst::Buffer::new();
            buffer.make_mut().set_pts(gst::ClockTime::from_mseconds(1000 + 40 * i));
            src.push(buffer).unwrap();
        }
    });
    for i in 1..40u64 {
        // It is ahead of the camera, by what it may hold.
        super::common::until("the file is ahead", || file.stats().get::<u64>("in").unwrap() > i);
        rig.ring(1000 + 40 * i);
        camera.push_ms(1000 + 40 * i);
    }
    reader.join().unwrap();
    for port in [&camera, &file] {
        for i in 0..38u64 {
            let buffer = port.buffer();
            assert_eq!(buffer.pts().unwrap().mseconds(), 1000 + 40 * i);
            assert!(super::rig::mark(&buffer).unwrap().complete, "{i}");
        }
    }
}

#[test]
fn quality_of_service_comes_back_in_upstreams_time() {
    let rig = Rig::new(false);
    rig.element.set_property("offset", 100 * MS as i64);
    rig.play();
    let port = rig.stream(RAW);
    port.push_ms(1000);
    assert_eq!(port.pts(), 1100 * MS);
    let qos =
        |ms| gst::event::Qos::builder(gst::QOSType::Underflow, 1.0, 0).timestamp(gst::ClockTime::from_mseconds(ms));
    port.sink.push_event(qos(1100).build());
    let event = port.up.try_iter().find(|event| event.type_() == gst::EventType::Qos).unwrap();
    let gst::EventView::Qos(event) = event.view() else { unreachable!() };
    assert_eq!(event.get().3, Some(gst::ClockTime::from_mseconds(1000)));
    // Other counts are not running time.
    rig.element.set_property_from_str("timestamp-format", "rtmp");
    port.push(Some(5)).unwrap();
    assert!(port.sink.push_event(qos(1100).build()));
    assert!(port.up.try_iter().all(|event| event.type_() != gst::EventType::Qos));
}

#[test]
fn queries_with_a_place_among_buffers_are_answered_no_at_once() {
    let rig = Rig::aligned(false);
    rig.element.set_property("stream-timeout", 0u64);
    rig.play();
    let (one, _two) = (rig.stream(RAW), rig.stream(RAW));
    one.push_ms(0);
    let caps = gst::Caps::new_empty_simple(RAW);
    assert!(!one.src.peer_query(&mut gst::query::Allocation::new(Some(&caps), true)));
    // SAFETY: a new query, which is ours.
    let mut drain: gst::Query = unsafe { gst::glib::translate::from_glib_full(gst::ffi::gst_query_new_drain()) };
    assert!(!one.src.peer_query(drain.make_mut()));
}

/// How often memory of [`Untouchable`] was mapped.
static MAPPED: AtomicUsize = AtomicUsize::new(0);

mod imp {
    use gst::ffi;
    use gst::glib;
    use gst::glib::ffi::gpointer;
    use gst::glib::translate::ToGlibPtr;
    use gst::prelude::*;
    use gst::subclass::prelude::*;

    #[derive(Default)]
    pub struct Untouchable;

    #[glib::object_subclass]
    impl ObjectSubclass for Untouchable {
        const NAME: &'static str = "FrameSyncTestUntouchable";
        type Type = super::Untouchable;
        type ParentType = gst::Allocator;
    }

    unsafe extern "C" fn map(_: *mut ffi::GstMemory, _: usize, _: ffi::GstMapFlags) -> gpointer {
        super::MAPPED.fetch_add(1, super::Ordering::SeqCst);
        std::ptr::null_mut()
    }

    impl ObjectImpl for Untouchable {
        fn constructed(&self) {
            self.parent_constructed();
            let obj = self.obj();
            let allocator: *mut ffi::GstAllocator = obj.upcast_ref::<gst::Allocator>().to_glib_none().0;
            // SAFETY: the object is being made, nobody else has it; an allocator has this field to be set.
            unsafe { (*allocator).mem_map = Some(map) };
        }
    }

    impl GstObjectImpl for Untouchable {}

    // SAFETY: what is allocated is a GstMemory that was set up as one, and is freed as what it was allocated as.
    unsafe impl AllocatorImpl for Untouchable {
        unsafe fn alloc(&self, size: usize, _: &gst::AllocationParams) -> *mut ffi::GstMemory {
            let obj = self.obj();
            let allocator: *mut ffi::GstAllocator = obj.upcast_ref::<gst::Allocator>().to_glib_none().0;
            unsafe {
                let memory = Box::into_raw(Box::new(std::mem::zeroed::<ffi::GstMemory>()));
                ffi::gst_memory_init(memory, 0, allocator, std::ptr::null_mut(), size, 0, 0, size);
                memory
            }
        }

        unsafe fn free(&self, memory: *mut ffi::GstMemory) {
            drop(unsafe { Box::from_raw(memory) });
        }
    }
}

gst::glib::wrapper! {
    /// Gives memory that cannot be mapped.
    pub struct Untouchable(ObjectSubclass<imp::Untouchable>) @extends gst::Allocator, gst::Object;
}

#[test]
fn memory_of_any_kind_passes_untouched() {
    super::common::init();
    let allocator: Untouchable = gst::glib::Object::new();
    for mode in ["normalize", "align"] {
        let rig = Rig::new(false);
        rig.element.set_property_from_str("mode", mode);
        rig.element.set_property("snap", true);
        rig.element.set_property_from_str("fill", "last");
        rig.play();
        let ports = ["video/x-raw(memory:NVMM),format=NV12", "video/x-h264"].map(|caps| rig.stream(caps));
        let mut sent = Vec::new();
        for i in 0..20u64 {
            for port in &ports {
                let memory = allocator.alloc(4096, None).unwrap();
                sent.push(memory.as_ptr());
                let mut buffer = gst::Buffer::new();
                buffer.make_mut().append_memory(memory);
                buffer.make_mut().set_pts(gst::ClockTime::from_mseconds(40 * i));
                port.src.push(buffer).unwrap();
            }
        }
        ports.iter().for_each(|port| port.eos());
        let out: Vec<_> = ports.iter().flat_map(|port| port.rest()).collect();
        assert_eq!(out.len(), 40, "{mode}");
        assert!(out.iter().all(|buffer| sent.contains(&buffer.peek_memory(0).as_ptr())));
    }
    assert_eq!(MAPPED.load(Ordering::SeqCst), 0);
    // The test can fail.
    let memory = allocator.alloc(1, None).unwrap();
    assert!(memory.into_mapped_memory_readable().is_err());
    assert_eq!(MAPPED.load(Ordering::SeqCst), 1);
}
