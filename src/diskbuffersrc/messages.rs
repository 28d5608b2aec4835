//! What the element says about itself: statistics, messages, log lines.

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::imp::{CAT, DiskBufferSrc};
use super::range::Clamped;
use crate::store::{Sequence, Totals};

impl DiskBufferSrc {
    /// The `stats` property.
    pub(super) fn stats(&self) -> gst::Structure {
        let session = self.session();
        let (first, end, shared) = session.as_ref().map_or((0, None, false), |session| {
            let reader = &session.reader;
            (reader.first(), Some(reader.end()), reader.is_shared())
        });
        let state = self.state();
        let running = state.at.sequence > 0;
        let limit = state.end.or(end).filter(|_| running).unwrap_or_default();
        let behind = limit.totals.since(state.at.totals);
        let acknowledged = state.cursor.map_or(0, |cursor| cursor.position.saturating_sub(1));
        let status = state.status();
        let mut stats = gst::Structure::builder("diskbuffersrc-stats")
            .field("current-position", state.current)
            .field("acknowledged-position", acknowledged)
            .field("first-position", first)
            .field("end-position", end.map_or(0, |end| end.sequence))
            .field("captured-at", state.captured_at)
            .field("behind-time", behind.time)
            .field("shared", shared)
            .field("last-error", state.last_error.clone().unwrap_or_default())
            .build();
        let counts =
            [("delivered", state.delivered), ("left-out", state.left_out), ("lost", state.lost), ("behind", behind)];
        drop(state);
        for (name, count) in counts {
            stats.set(name, count.buffers);
            stats.set(format!("{name}-bytes"), count.bytes);
        }
        let nick = glib::EnumValue::from_value(&status.to_value()).map(|(_, value)| value.nick().to_owned());
        stats.set("status", nick.unwrap_or_default());
        stats
    }

    fn tell(&self, message: gst::structure::Builder) {
        let obj = self.obj();
        // Nobody listens: not an error.
        let _ = obj.post_message(gst::message::Element::builder(message.build()).src(&*obj).build());
    }

    /// Tells that a start or a stop lies outside of what is held.
    pub(super) fn tell_clamped(&self, clamped: &Clamped) {
        let Clamped { property, asked, used } = clamped;
        gst::warning!(CAT, imp = self, "{property}={asked} lies outside of what is stored: {used} is used");
        let message = gst::Structure::builder("diskbuffersrc-clamped")
            .field("property", property)
            .field("asked", asked)
            .field("used", used);
        self.tell(message);
    }

    pub(super) fn note_lost(&self, lost: Totals) {
        let mut state = self.state();
        state.lost = state.lost.plus(lost);
    }

    /// Tells what was gone before it could be delivered.
    pub(super) fn tell_overrun(&self, from: Sequence, to: Sequence, lost: Totals) {
        gst::warning!(
            CAT,
            imp = self,
            "Positions {from} to {to} were removed before they were delivered: {} buffers, {} bytes are lost",
            lost.buffers,
            lost.bytes
        );
        let message = gst::Structure::builder("diskbuffersrc-overrun")
            .field("from", from)
            .field("to", to)
            .field("buffers", lost.buffers)
            .field("bytes", lost.bytes);
        self.tell(message);
    }

    pub(super) fn report(&self) {
        let state = self.state();
        let (delivered, lost, current) = (state.delivered, state.lost, state.current);
        drop(state);
        gst::info!(
            CAT,
            imp = self,
            "Delivered {} buffers, {} bytes up to position {current}; lost {}",
            delivered.buffers,
            delivered.bytes,
            lost.buffers
        );
    }
}
