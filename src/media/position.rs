//! Where a buffer is in its store: `GstCustomMeta` `diskbuffer-position`, for receivers that have to tell repeats.
//!
//! Custom metas exist from GStreamer 1.20 on. Below that [`attach`] does nothing and says so.

#[cfg(feature = "v1_20")]
use gst::meta::CustomMeta;

#[cfg(feature = "v1_20")]
const NAME: &str = "diskbuffer-position";

/// Registers the meta; once per process, when the plugin is loaded.
pub fn register() {
    #[cfg(feature = "v1_20")]
    if !CustomMeta::is_registered(NAME) {
        CustomMeta::register_simple(NAME);
    }
}

/// Says where the buffer is stored, whether it was sent before, when it was captured (ns since 1970) and whether the clock
/// was right then. What an element before said of its own store is replaced. False without custom metas.
pub fn attach(buffer: &mut gst::BufferRef, position: u64, replayed: bool, captured_at: i64, synced: bool) -> bool {
    #[cfg(feature = "v1_20")]
    {
        let fill = |meta: &mut CustomMeta| {
            let fields = meta.mut_structure();
            fields.set("position", position);
            fields.set("replayed", replayed);
            fields.set("captured-at", captured_at);
            fields.set("clock-synced", synced);
        };
        if let Ok(mut meta) = CustomMeta::from_mut_buffer(buffer, NAME) {
            fill(&mut meta);
            return true;
        }
        CustomMeta::add(buffer, NAME).map(|mut meta| fill(&mut meta)).is_ok()
    }
    #[cfg(not(feature = "v1_20"))]
    {
        let _ = (buffer, position, replayed, captured_at, synced);
        false
    }
}

#[cfg(all(test, feature = "v1_20"))]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_said_once() {
        gst::init().unwrap();
        register();
        register();
        let mut buffer = gst::Buffer::new();
        assert!(attach(buffer.make_mut(), 1, false, 2, false));
        assert!(attach(buffer.make_mut(), u64::MAX, true, -3, true));
        assert_eq!(buffer.iter_meta::<gst::Meta>().count(), 1);
        let meta = CustomMeta::from_buffer(&buffer, NAME).unwrap();
        let fields = meta.structure();
        assert_eq!(fields.get::<u64>("position"), Ok(u64::MAX));
        assert_eq!(fields.get::<bool>("replayed"), Ok(true));
        assert_eq!(fields.get::<i64>("captured-at"), Ok(-3));
        assert_eq!(fields.get::<bool>("clock-synced"), Ok(true));
    }
}
