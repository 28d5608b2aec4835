//! What a buffer is told about its set: `GstCustomMeta` `framesync-set`, from GStreamer 1.20 on; below that a
//! serialized downstream event of the same name and fields goes before the buffer.

#[cfg(feature = "v1_20")]
use gst::meta::CustomMeta;

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
    let fill = |meta: &mut CustomMeta| {
        let fields = meta.mut_structure();
        fields.set("set-id", mark.id);
        fields.set("spread", mark.spread);
        fields.set("complete", mark.complete);
        fields.set("interpolated", mark.interpolated);
    };
    if let Ok(mut meta) = CustomMeta::from_mut_buffer(buffer, NAME) {
        fill(&mut meta);
    } else if let Ok(mut meta) = CustomMeta::add(buffer, NAME) {
        fill(&mut meta);
    }
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
