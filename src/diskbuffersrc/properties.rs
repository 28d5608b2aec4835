//! The properties of `diskbuffersrc` as `gst-inspect-1.0` shows them: nick, blurb, unit, range, default.

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

use super::settings::{Settings, Status};

pub static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let default = Settings::default();
    let text = |name, nick, blurb| glib::ParamSpecString::builder(name).nick(nick).blurb(blurb).mutable_ready().build();
    let flag = |name, nick, blurb| {
        glib::ParamSpecBoolean::builder(name).nick(nick).blurb(blurb).default_value(false).mutable_ready().build()
    };
    let time = |name, nick, blurb, default: u64| {
        glib::ParamSpecUInt64::builder(name).nick(nick).blurb(blurb).default_value(default).mutable_ready().build()
    };
    vec![
        text(
            "location",
            "Location",
            "Directory of the store to play from, as the location of diskbuffer. Without it, \"streambuffer\" below \
             systemd's $STATE_DIRECTORY; without that it is required",
        ),
        text(
            "stream-name",
            "Stream name",
            "Name of the stream inside the store (NULL = the only one; with several the error lists them)",
        ),
        text(
            "start",
            "Start",
            "Where playing begins, at the sync point there or before: earliest, latest, cursor, a position (integer up to \
             10^15), a time (ISO 8601, UTC without a zone; or ns since 1970), a time before now such as -30s, -5m, -1h30m, \
             -500ms (NULL = cursor with a consumer, else earliest)",
        ),
        text(
            "stop",
            "Stop",
            "Where playing ends, in the same forms as start: GOPs that begin before it are delivered whole (NULL = the end \
             of what is stored when playing begins; never with follow)",
        ),
        flag(
            "follow",
            "Follow",
            "Go on with what is written while playing, as a live source, until stop or for ever",
        ),
        text(
            "consumer",
            "Consumer",
            "Name under which the store remembers what was delivered, so that the next start goes on there; each name has \
             one user at a time (NULL = nothing is remembered)",
        ),
        time(
            "lease-time",
            "Lease time (ns)",
            "How long the store keeps data for a consumer that takes nothing, in ns, as far as its limits allow",
            default.lease_time,
        ),
        glib::ParamSpecEnum::builder_with_default("ack-mode", default.ack_mode)
            .nick("Acknowledge mode")
            .blurb("When a buffer counts as delivered to the consumer")
            .mutable_ready()
            .build(),
        flag(
            "add-position-meta",
            "Add position meta",
            "Put the position in the store, and whether it is a repeat, on each buffer (GstCustomMeta diskbuffer-position; \
             GStreamer 1.20)",
        ),
        flag(
            "add-reference-timestamp-meta",
            "Add reference timestamp meta",
            "Put the capture time on each buffer that has none (GstReferenceTimestampMeta timestamp/x-unix)",
        ),
        time(
            "lock-timeout",
            "Lock timeout (ns)",
            "How long the start waits for a store that another process is opening, and for another user of the consumer's \
             name to let go of it, in ns: rolling updates overlap",
            default.lock_timeout,
        ),
        glib::ParamSpecUInt64::builder("current-position")
            .nick("Current position")
            .blurb("Position in the store of the buffer that was pushed last (0 = none yet)")
            .read_only()
            .build(),
        glib::ParamSpecEnum::builder_with_default("status", Status::default())
            .nick("Status")
            .blurb("What the element is doing")
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb(
                "delivered, left-out, lost, behind: buffers, each also with -bytes, since the start or seek (lost: were no \
                 longer there; behind: are stored and not delivered yet); behind-time in ns; current-position, \
                 acknowledged-position, first-position, end-position; captured-at in ns since 1970; shared, last-error",
            )
            .read_only()
            .build(),
    ]
});
