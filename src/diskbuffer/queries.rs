//! Queries and upstream events.

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::imp::DiskBuffer;
use super::managed::Hold;

/// The memory feature that is not system memory, if there is one.
pub fn foreign_memory(caps: &gst::CapsRef) -> Option<String> {
    if caps.is_any() {
        return None;
    }
    caps.iter_with_features().find_map(|(_, features)| {
        let foreign = |f: &str| f.starts_with("memory:") && f != gst::CAPS_FEATURE_MEMORY_SYSTEM_MEMORY.as_str();
        features.iter().find(|f| foreign(f.as_str())).map(|f| f.to_string())
    })
}

/// What can be stored, with what is best stored first.
pub(crate) fn storable(caps: gst::Caps) -> gst::Caps {
    whole_units_first(readable(caps))
}

/// One access unit a buffer is what can be cut at a keyframe: a parser that may choose takes what comes first.
fn whole_units_first(caps: gst::Caps) -> gst::Caps {
    let whole = |structure: &gst::StructureRef| {
        let is_open = matches!(structure.name().as_str(), "video/x-h264" | "video/x-h265")
            && structure.get::<&str>("alignment").is_err();
        let mut whole = structure.to_owned();
        whole.set("alignment", "au");
        let fits = is_open && (!structure.has_field("alignment") || structure.can_intersect(&whole));
        fits.then_some(whole)
    };
    let mut first: gst::Caps = caps.iter().filter_map(whole).collect();
    if first.is_empty() {
        return caps;
    }
    first.make_mut().append(caps);
    first
}

/// Leaves out what is in memory that cannot be read.
fn readable(caps: gst::Caps) -> gst::Caps {
    if caps.is_any() || foreign_memory(&caps).is_none() {
        return caps;
    }
    let mut out = gst::Caps::new_empty();
    {
        let out = out.make_mut();
        for (structure, features) in caps.iter_with_features() {
            let one =
                gst::Caps::builder_full().structure_with_features(structure.to_owned(), features.to_owned()).build();
            if foreign_memory(&one).is_none() {
                out.append(one);
            }
        }
    }
    out
}

impl DiskBuffer {
    pub(super) fn sink_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        let serialized = query.is_serialized();
        match query.view_mut() {
            gst::QueryViewMut::Caps(q) => {
                let caps = self.srcpad.peer_query_caps(q.filter_owned().as_ref());
                q.set_result(&storable(caps));
                true
            }
            gst::QueryViewMut::AcceptCaps(q) => {
                let caps = q.caps_owned();
                // Foreign memory is not in the answer to a caps query. When its caps come all the same they have to get as far
                // as the refusal that says what to do. And once something was delivered or waits, downstream is no longer
                // asked: it may be away, or be another one when these caps get there.
                let decided = foreign_memory(&caps).is_some() || {
                    let state = self.state();
                    state.is_under_way() || state.hold != Hold::Released
                };
                let accepted = decided || self.srcpad.peer_query_accept_caps(&caps);
                q.set_result(accepted);
                true
            }
            // It would wait for the peer's streaming thread, which may be blocked for hours; buffers are copied to disk
            // in any case.
            gst::QueryViewMut::Allocation(_) => false,
            // Pooled memory is copied on arrival.
            gst::QueryViewMut::Drain(_) => self.state().flow.is_ok(),
            _ if serialized => false,
            _ => gst::Pad::query_default(pad, Some(&*self.obj()), query),
        }
    }

    pub(super) fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        match query.view_mut() {
            gst::QueryViewMut::Latency(q) => {
                let mut upstream = gst::query::Latency::new();
                if !self.sinkpad.peer_query(&mut upstream) {
                    return false;
                }
                let (live, min, max) = upstream.result();
                let limit = self.settings().max_size_time;
                // As much as it may hold; without a limit, anything.
                let limit = (limit > 0).then(|| gst::ClockTime::from_nseconds(limit.min(i64::MAX as u64)));
                let max = max.zip(limit).map(|(max, limit)| max.saturating_add(limit));
                q.set(live, min, max);
                true
            }
            gst::QueryViewMut::Position(q) if q.format() == gst::Format::Time => match self.position() {
                Some(position) => {
                    q.set(position);
                    true
                }
                None => gst::Pad::query_default(pad, Some(&*self.obj()), query),
            },
            _ => gst::Pad::query_default(pad, Some(&*self.obj()), query),
        }
    }

    pub(super) fn src_event(&self, pad: &gst::Pad, mut event: gst::Event) -> bool {
        match event.type_() {
            gst::EventType::CustomUpstream | gst::EventType::CustomBoth if self.acknowledged_by(&event) => return true,
            gst::EventType::Reconfigure => self.linked_again(),
            // It speaks of frames that left upstream long ago: nothing there can be done about them.
            gst::EventType::Qos if !self.state().is_live() => return true,
            _ => {}
        }
        // What it says of running time is downstream's; upstream counts from elsewhere.
        let offset = self.offset.load(std::sync::atomic::Ordering::Relaxed);
        if offset != 0 {
            let event = event.make_mut();
            let before = event.running_time_offset();
            event.set_running_time_offset(before.saturating_sub(offset));
        }
        gst::Pad::event_default(pad, Some(&*self.obj()), event)
    }

    /// Downstream was not linked when the first data came: that is over now.
    fn linked_again(&self) {
        {
            let mut state = self.state();
            if state.flow != Err(gst::FlowError::NotLinked) {
                return;
            }
            state.flow = Ok(gst::FlowSuccess::Ok);
            state.generation += 1;
        }
        self.item_add.ring();
        self.item_del.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_access_units_come_first() {
        gst::init().unwrap();
        let order = |text: &str| {
            let caps = storable(text.parse().unwrap());
            caps.iter().map(|s| s.get::<String>("alignment").unwrap_or_default()).collect::<Vec<_>>()
        };
        assert_eq!(order("video/x-h264, alignment={nal, au}"), ["au", ""]);
        assert_eq!(order("video/x-h265, stream-format=hvc1; video/x-h264, alignment=nal"), ["au", "", "nal"]);
        assert_eq!(order("video/x-h264, alignment=au"), ["au"]);
        assert_eq!(order("video/x-vp8"), [""]);
        assert!(storable(gst::Caps::new_any()).is_any());
    }
}
