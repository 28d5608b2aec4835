//! Queries and upstream events.

use std::collections::BTreeSet;

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

/// What can be stored of what downstream takes. `asked` says that upstream has named what it can send: of that it gets what is
/// best stored alone, as a parser leaves everything as it comes in when it may.
pub(crate) fn storable(caps: gst::Caps, asked: bool) -> gst::Caps {
    let caps = readable(caps);
    whole_units_first(if asked { whole_units(caps) } else { caps })
}

fn is_cut_in_units(structure: &gst::StructureRef) -> bool {
    matches!(structure.name().as_str(), "video/x-h264" | "video/x-h265")
}

/// Where one access unit a buffer can be had, nothing else is: it can be cut at a keyframe, and muxers write it so that it can
/// be decoded.
fn whole_units(caps: gst::Caps) -> gst::Caps {
    let whole = |structure: &gst::StructureRef| {
        let mut whole = structure.to_owned();
        whole.set("alignment", "au");
        let may = is_cut_in_units(structure) && (!structure.has_field("alignment") || structure.can_intersect(&whole));
        may.then_some(whole)
    };
    let choices: BTreeSet<String> = caps.iter().filter_map(whole).map(|whole| whole.name().to_string()).collect();
    if choices.is_empty() {
        return caps;
    }
    let mut out = gst::Caps::new_empty();
    for (structure, features) in caps.iter_with_features() {
        let structure = match whole(structure) {
            Some(whole) if structure.has_field("alignment") => whole,
            None if choices.contains(structure.name().as_str()) => continue,
            _ => structure.to_owned(),
        };
        out.make_mut().append_structure_full(structure, Some(features.to_owned()));
    }
    out
}

/// A source that takes the first of what it may send.
fn whole_units_first(caps: gst::Caps) -> gst::Caps {
    let whole = |structure: &gst::StructureRef| {
        let is_open = is_cut_in_units(structure) && structure.get::<&str>("alignment").is_err();
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
                let asked = q.filter().is_some();
                q.set_result(&storable(caps, asked));
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
        self.item_add.notify_all();
        self.item_del.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_access_units_come_first() {
        gst::init().unwrap();
        let order = |text: &str| {
            let caps = storable(text.parse().unwrap(), false);
            caps.iter().map(|s| s.get::<String>("alignment").unwrap_or_default()).collect::<Vec<_>>()
        };
        assert_eq!(order("video/x-h264, alignment={nal, au}"), ["au", ""]);
        assert_eq!(order("video/x-h265, stream-format=hvc1; video/x-h264, alignment=nal"), ["au", "", "nal"]);
        assert_eq!(order("video/x-h264, alignment=au"), ["au"]);
        assert_eq!(order("video/x-vp8"), [""]);
        assert!(storable(gst::Caps::new_any(), false).is_any() && storable(gst::Caps::new_any(), true).is_any());
    }

    #[test]
    fn who_can_send_whole_access_units_may_send_nothing_else() {
        gst::init().unwrap();
        for (sent, expected) in [
            ("video/x-h264, parsed=true, alignment={nal, au}", "video/x-h264, parsed=true, alignment=au"),
            ("video/x-h264, alignment=nal; video/x-h264, alignment=au", "video/x-h264, alignment=au"),
            ("video/x-h264, alignment=nal", "video/x-h264, alignment=nal"),
            (
                "video/x-h264, alignment=nal; video/x-h265, alignment={au, nal}",
                "video/x-h264, alignment=nal; video/x-h265, alignment=au",
            ),
            ("video/x-h264", "video/x-h264, alignment=au; video/x-h264"),
            ("video/x-vp8", "video/x-vp8"),
        ] {
            let (sent, expected): (gst::Caps, gst::Caps) = (sent.parse().unwrap(), expected.parse().unwrap());
            let offered = storable(sent, true);
            assert!(offered.is_strictly_equal(&expected), "{offered}");
        }
    }
}
