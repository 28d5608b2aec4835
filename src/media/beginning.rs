//! How output begins anew at a sync point: with DISCONT, with the parameter sets it lacks, without leading pictures that
//! refer to what was before.

use crate::media::buffer::Facts;
use crate::media::keyframe;
use crate::media::nal::ParameterSets;
use crate::store::Sync;

/// Leading pictures of the open sync point at which output began.
#[derive(Debug, Default, Clone, Copy)]
pub struct Leading {
    before: Option<gst::ClockTime>,
}

impl Leading {
    /// Whether nobody behind the beginning could decode this buffer.
    pub fn leaves_out(&mut self, facts: &Facts, pts: Option<gst::ClockTime>) -> bool {
        let Some(before) = self.before else { return false };
        if facts.leading {
            return true;
        }
        // Another slice or field of the sync point has its PTS.
        if facts.sync != Sync::None || pts.is_none_or(|pts| pts > before) {
            self.before = None;
        }
        false
    }

    /// What goes out for the buffer with which output begins.
    pub fn begin(
        &mut self,
        facts: &Facts,
        caps: Option<&gst::Caps>,
        sets: &ParameterSets,
        mut buffer: gst::Buffer,
    ) -> gst::Buffer {
        if facts.sync == Sync::Open {
            self.before = buffer.pts();
        }
        if facts.sync != Sync::None
            && let Some(complete) = caps.and_then(|caps| keyframe::with_sets(caps, sets, &buffer))
        {
            buffer = complete;
        }
        buffer.make_mut().set_flags(gst::BufferFlags::DISCONT);
        buffer
    }
}
