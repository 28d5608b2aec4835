//! What a program must have led to.

use std::ops::Range;

use gst::prelude::*;

use super::pusher::Load;
use super::world::{Run, World, caps_of};

impl World<'_> {
    /// Lets everything arrive, and compares.
    pub fn finish(mut self) {
        self.free();
        self.settle();
        self.caps += 1;
        assert!(self.rig.source.push_event(gst::event::Caps::new(&caps_of(self.caps))));
        let first = self.units.len();
        let last = self.unit(true);
        self.push(first, Load::Buffers(vec![last]));
        self.settle();
        self.rig.check_accounts();
        let (dropped, lost) = (self.rig.stat("dropped") + self.rig.stat("purged"), self.rig.stat("lost"));
        self.check_watchers();
        self.end_run();
        assert_eq!(lost, 0);
        let mut arrived = vec![false; self.units.len()];
        let mut marked = vec![false; self.marks.len()];
        for run in &self.runs {
            self.check_run(run, &mut arrived);
            for (_, event) in &run.events {
                if let Some(at) = mark(event) {
                    self.marks.iter().zip(&mut marked).for_each(|(mark, marked)| *marked |= *mark == at);
                }
            }
        }
        let missing: Vec<_> = (0..arrived.len()).filter(|i| !arrived[*i] && self.units[*i].certain).collect();
        let told = dropped + self.rejected + self.forgotten;
        // What a sink that then failed had taken may have been dropped later.
        let exact = missing.len() as u64 == told || ((self.refused || self.inexact) && (missing.len() as u64) < told);
        assert!(exact, "{told} were reported as dropped, these are missing: {missing:?}");
        assert!(arrived.last() == Some(&true), "the last one is missing");
        if !self.leaked && self.forgotten == 0 && !self.unseen {
            let missing: Vec<_> = self.marks.iter().zip(marked).filter(|(_, marked)| !marked).collect();
            assert!(missing.is_empty(), "serialized events are missing: {missing:?}");
        }
    }

    fn check_run(&self, run: &Run, arrived: &mut [bool]) {
        let (mut caps, mut tag, mut flushed, mut previous) = (None, None, true, None::<usize>);
        let mut started = false;
        let mut events = run.events.iter().peekable();
        // Of the events since the last unit.
        let mut marks = Vec::new();
        for (at, seen) in run.buffers.iter().enumerate() {
            while let Some((_, event)) = events.next_if(|(place, _)| *place <= at) {
                match event.view() {
                    gst::EventView::FlushStop(_) => flushed = true,
                    gst::EventView::StreamStart(_) => (started, tag) = (true, None),
                    gst::EventView::Caps(e) => caps = e.caps().structure(0).and_then(|s| s.get::<i32>("number").ok()),
                    gst::EventView::Tag(e) => {
                        tag = e.tag().get::<gst::tags::Title>().and_then(|title| title.get().parse().ok());
                    }
                    _ => marks.extend(mark(event)),
                }
            }
            let number = seen.offsets.0 as usize;
            let unit = &self.units[number];
            let what = format!("unit {number}, at {at} after {previous:?} in run {}", self.runs.len());
            let discont = seen.flags & gst::BufferFlags::DISCONT;
            // The stream of another element begins: nothing is missing in it.
            let live = self.runs.iter().any(|run| run.first == number);
            let told = live || !discont.is_empty() || (started && !flushed);
            self.check_order(&what, number, previous, (flushed, told), run.acknowledged.filter(|_| at == 0));
            // Within a stream that goes on, a mark is where it was.
            if previous.is_some_and(|previous| previous + 1 == number) {
                assert!(marks.iter().all(|mark| *mark == number), "{what}: events of {marks:?} stand before it");
            }
            let mut expected = unit.seen.clone();
            expected.flags |= discont;
            assert!(*seen == expected, "{what}: it arrived as {seen:?} instead of {expected:?}");
            assert_eq!(caps, Some(unit.caps), "{what}: caps");
            assert_eq!(tag, unit.tag, "{what}: tags");
            arrived[number] = true;
            (flushed, started, previous) = (false, false, Some(number));
            marks.clear();
        }
    }

    fn check_order(
        &self,
        what: &str,
        number: usize,
        previous: Option<usize>,
        (flushed, told): (bool, bool),
        acknowledged: Option<usize>,
    ) {
        if previous.is_some_and(|previous| previous + 1 == number) || (number == 0 && previous.is_none()) {
            return;
        }
        let repeat = previous.is_some_and(|previous| number <= previous);
        assert!(!repeat || flushed || self.refused || self.rewound, "{what}: a repeat for no reason");
        assert!(self.units[number].key || self.purged, "{what}: it begins without a keyframe");
        if let Some(acknowledged) = acknowledged {
            let bound = self.keyframe_at_or_before(0..acknowledged + 1);
            assert!(
                (bound..=acknowledged).contains(&number),
                "{what}: {acknowledged} were delivered, the rest is owed"
            );
        }
        assert!(told, "{what}: no DISCONT");
    }

    fn keyframe_at_or_before(&self, range: Range<usize>) -> usize {
        range.rev().find(|i| self.units.get(*i).is_some_and(|unit| unit.key)).unwrap_or(0)
    }
}

pub fn mark(event: &gst::Event) -> Option<usize> {
    let structure = event.structure().filter(|structure| structure.name() == "mark")?;
    Some(structure.get::<u64>("at").ok()? as usize)
}
