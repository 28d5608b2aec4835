//! Capture times on buffers: `GstReferenceTimestampMeta` with caps `timestamp/x-unix`.

use std::sync::LazyLock;

/// Seconds from 1900, where NTP begins, to 1970.
const NTP_TO_UNIX: u64 = 2_208_988_800 * 1_000_000_000;

static UNIX: LazyLock<gst::Caps> = LazyLock::new(|| gst::Caps::new_empty_simple("timestamp/x-unix"));

/// Says when the buffer was captured, in ns since 1970, unless it says so already. A time before 1970 cannot be said.
pub fn attach(buffer: &mut gst::BufferRef, captured_at: i64) {
    if let Ok(at) = u64::try_from(captured_at)
        && utc(buffer).is_none()
    {
        gst::ReferenceTimestampMeta::add(buffer, &UNIX, gst::ClockTime::from_nseconds(at), gst::ClockTime::NONE);
    }
}

/// Capture time that the buffer brings along, in ns since 1970: it wins over the time of arrival.
pub fn utc(buffer: &gst::BufferRef) -> Option<i64> {
    let mut told = Told::default();
    for meta in buffer.iter_meta::<gst::ReferenceTimestampMeta>() {
        if let Some(kind) = meta.reference().structure(0) {
            told.add(kind.name(), meta.timestamp().nseconds());
        }
    }
    told.utc()
}

/// What the reference timestamps of a buffer tell. The first Unix time is preferred to NTP time.
#[derive(Default)]
pub struct Told {
    unix: Option<Option<i64>>,
    ntp: Option<i64>,
}

impl Told {
    /// One of this kind, in ns.
    pub fn add(&mut self, kind: &str, time: u64) {
        match kind {
            "timestamp/x-unix" => _ = self.unix.get_or_insert(i64::try_from(time).ok()),
            "timestamp/x-ntp" => self.ntp = time.checked_sub(NTP_TO_UNIX).and_then(|time| i64::try_from(time).ok()),
            _ => {}
        }
    }

    pub fn utc(&self) -> Option<i64> {
        self.unix.unwrap_or(self.ntp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(kinds: &[(&str, u64)]) -> gst::Buffer {
        gst::init().unwrap();
        let mut buffer = gst::Buffer::new();
        for &(kind, time) in kinds {
            let caps = gst::Caps::new_empty_simple(kind);
            gst::ReferenceTimestampMeta::add(buffer.make_mut(), &caps, gst::ClockTime::from_nseconds(time), None);
        }
        buffer
    }

    #[test]
    fn a_capture_time_is_read_and_added_once() {
        let mut buffer = with(&[]);
        assert_eq!(utc(&buffer), None);
        attach(buffer.make_mut(), -1);
        assert_eq!(utc(&buffer), None);
        attach(buffer.make_mut(), 1_700_000_000_000_000_000);
        attach(buffer.make_mut(), 5);
        assert_eq!(utc(&buffer), Some(1_700_000_000_000_000_000));
        assert_eq!(buffer.iter_meta::<gst::ReferenceTimestampMeta>().count(), 1);
    }

    #[test]
    fn ntp_counts_where_there_is_no_unix_time() {
        let ntp = |unix| ("timestamp/x-ntp", NTP_TO_UNIX + unix);
        assert_eq!(utc(&with(&[ntp(7)])), Some(7));
        assert_eq!(utc(&with(&[ntp(7), ("timestamp/x-unix", 9)])), Some(9));
        assert_eq!(utc(&with(&[("timestamp/x-ntp", 5), ("timestamp/x-drivername-stream", 3)])), None);
    }
}
