//! What a buffer is told about its set: `GstCustomMeta` `framesync-set`, from GStreamer 1.20 on; below that a
//! serialized downstream event of the same name and fields goes before the buffer.

#[cfg(feature = "v1_20")]
use gst::{
    glib::{GStr, gstr},
    meta::CustomMeta,
};

#[cfg(feature = "v1_20")]
const NAME: &GStr = gstr!("framesync-set");
#[cfg(not(feature = "v1_20"))]
const NAME: &str = "framesync-set";

/// A buffer that is in no set has this as `set-id`.
pub const NO_SET: u64 = u64::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub id: u64,
    /// Ns.
    pub spread: u64,
    pub complete: bool,
    pub interpolated: bool,
}

/// Registers the meta; once per process, when the plugin is loaded.
pub fn register() {
    #[cfg(feature = "v1_20")]
    if !CustomMeta::is_registered(NAME) {
        CustomMeta::register_simple(NAME);
    }
}

/// Puts the mark on the buffer, in the place of one that it has.
#[cfg(feature = "v1_20")]
pub fn attach(buffer: &mut gst::BufferRef, mark: Mark) {
    // SAFETY: the buffer is writable, the name ends with a zero, and the structure lives as long as its meta. The safe ways
    // allocate a copy of the name each time.
    let fields = unsafe {
        let mut meta = gst::ffi::gst_buffer_get_custom_meta(buffer.as_mut_ptr(), NAME.as_ptr());
        if meta.is_null() {
            meta = gst::ffi::gst_buffer_add_custom_meta(buffer.as_mut_ptr(), NAME.as_ptr());
        }
        let structure = if meta.is_null() { return } else { gst::ffi::gst_custom_meta_get_structure(meta) };
        gst::StructureRef::from_glib_borrow_mut(structure)
    };
    fields.set(gstr!("set-id"), mark.id);
    fields.set(gstr!("spread"), mark.spread);
    fields.set(gstr!("complete"), mark.complete);
    fields.set(gstr!("interpolated"), mark.interpolated);
}

/// The event that says it where there are no custom metas.
#[cfg(not(feature = "v1_20"))]
pub fn event(mark: Mark) -> gst::Event {
    let fields = gst::Structure::builder(NAME)
        .field("set-id", mark.id)
        .field("spread", mark.spread)
        .field("complete", mark.complete)
        .field("interpolated", mark.interpolated)
        .build();
    gst::event::CustomDownstream::new(fields)
}
