//! What a decoder needs before the first picture of a window: the newest GOP, from its keyframe on, and the one before while
//! pictures that follow the keyframe may still refer back to it.
//!
//! Of streams in which each buffer stands for itself nothing is kept. Of others never more than the bound: a GOP that is larger
//! is given up, and windows begin without a lead-in until the next keyframe.

use std::sync::Arc;

use crate::media::buffer::{Facts, with_payload};
use crate::media::keyframe::{Detector, Source};
use crate::media::nal::ParameterSets;
use crate::store::Sync;

/// A buffer and what it is to a decoder.
#[derive(Debug, Clone)]
pub struct Picture {
    pub buffer: gst::Buffer,
    pub facts: Facts,
    /// In force when it came; only with a sync point.
    pub sets: Option<Arc<ParameterSets>>,
}

impl Picture {
    pub fn is_sync(&self) -> bool {
        self.facts.sync != Sync::None
    }
}

#[derive(Debug, Default)]
struct Gop {
    pictures: Vec<Picture>,
    bytes: u64,
}

impl Gop {
    fn add(&mut self, picture: Picture) {
        self.bytes += picture.buffer.size() as u64;
        self.pictures.push(picture);
    }
}

#[derive(Debug, Default)]
pub struct Gops {
    detector: Detector,
    source: Source,
    caps: Option<gst::Caps>,
    sets: Arc<ParameterSets>,
    inter_coded: bool,
    before: Gop,
    current: Gop,
    /// PTS of the sync point of `current` while pictures may refer back before it.
    leading: Option<gst::ClockTime>,
    limit: u64,
    warned: bool,
}

impl Gops {
    /// `limit`: bytes, 0 for none.
    pub fn configure(&mut self, source: Source, limit: u64) {
        self.limit = if limit == 0 { u64::MAX } else { limit };
        if self.source != source {
            self.source = source;
            self.detector = Detector::new(source, self.caps.as_deref());
        }
    }

    pub fn set_caps(&mut self, caps: gst::Caps, inter_coded: bool) {
        self.clear();
        self.detector = Detector::new(self.source, Some(&caps));
        self.sets = Arc::default();
        self.caps = Some(caps);
        self.inter_coded = inter_coded;
    }

    pub fn caps(&self) -> Option<&gst::Caps> {
        self.caps.as_ref()
    }

    pub fn is_inter_coded(&self) -> bool {
        self.inter_coded
    }

    /// After a flush or a break.
    pub fn clear(&mut self) {
        self.before = Gop::default();
        self.current = Gop::default();
        self.leading = None;
    }

    /// Looks at a buffer, which [`add`](Self::add) takes.
    pub fn look(&mut self, buffer: &gst::Buffer) -> Picture {
        let mut facts = Facts { sync: Sync::Closed, ..Facts::default() };
        if !self.inter_coded {
            return Picture { buffer: buffer.clone(), facts, sets: None };
        }
        let (flags, pts) = (buffer.flags(), buffer.pts());
        let verdict = with_payload(buffer, |parts| self.detector.inspect(flags, pts, parts)).unwrap_or_default();
        if verdict.sets_changed {
            self.sets = Arc::new(self.detector.sets().clone());
        }
        facts.sync = verdict.sync;
        facts.leading = verdict.leading;
        let sets = (facts.sync != Sync::None).then(|| self.sets.clone());
        Picture { buffer: buffer.clone(), facts, sets }
    }

    /// Keeps what was looked at. True when a GOP was too large for the first time.
    pub fn add(&mut self, picture: Picture) -> bool {
        if !self.inter_coded {
            return false;
        }
        let pts = picture.buffer.pts();
        if picture.is_sync() {
            // Another slice of it is no new GOP.
            let same = self.current.pictures.first().is_some_and(|first| pts.is_some() && first.buffer.pts() == pts);
            if !same {
                self.before = std::mem::take(&mut self.current);
                self.leading = pts.filter(|_| picture.facts.sync == Sync::Open);
            }
            self.current.add(picture);
        } else if !self.current.pictures.is_empty() {
            if pts.is_none_or(|pts| self.leading.is_some_and(|key| pts > key)) {
                self.leading = None;
            }
            self.current.add(picture);
        }
        if self.leading.is_none() {
            self.before = Gop::default();
        }
        if self.before.bytes + self.current.bytes <= self.limit {
            return false;
        }
        self.before = Gop::default();
        if self.current.bytes <= self.limit {
            return false;
        }
        self.clear();
        !std::mem::replace(&mut self.warned, true)
    }

    /// What goes before a window that begins at `start` with `first`, in decode order; empty when nothing is needed, `None` when
    /// what is needed is not there.
    pub fn lead_in(&self, start: Option<gst::ClockTime>, first: &Picture) -> Option<Vec<Picture>> {
        if !self.inter_coded {
            return Some(Vec::new());
        }
        let pts = first.buffer.pts();
        // Pictures that come after an open sync point may belong to the window and refer back before it.
        let refers_back = first.facts.sync == Sync::Open && pts.zip(start).is_some_and(|(pts, start)| start < pts);
        match first.facts.sync {
            Sync::None if self.current.pictures.is_empty() => None,
            Sync::None if self.leading.is_some() && self.needs_before(start) => {
                let all = self.before.pictures.iter().chain(&self.current.pictures);
                Some(all.cloned().collect())
            }
            Sync::None => Some(self.current.pictures.clone()),
            _ if refers_back => Some(self.current.pictures.clone()),
            _ => Some(Vec::new()),
        }
    }

    /// The window begins before the open sync point does.
    fn needs_before(&self, start: Option<gst::ClockTime>) -> bool {
        self.leading.zip(start).is_some_and(|(key, start)| start < key)
    }
}
