//! Which windows a frame is in.

use super::config::LatePolicy;
use super::cuts::Place;
use super::share::{Open, Share};
use super::stream::Item;
use super::window::{Decision, Frame, Ids, Reason, WindowId};
use super::windows::{Plan, Windows};
use crate::timeline::Ns;

/// Windows of a frame, apart by whether the stream's share of them is final.
struct Fit {
    own: Ids,
    open: Ids,
    late: bool,
}

impl Windows {
    /// Whether it is known which windows `time` is in. Without cuts it always is.
    pub(super) fn is_known(&self, time: Ns) -> bool {
        match &self.plan {
            Plan::Cuts(cuts) => time < cuts.known(),
            Plan::Grid(_) | Plan::Clips { .. } => true,
        }
    }

    /// The newest window gets its end when the reference stream has come to it.
    pub(super) fn learn_end(&mut self) {
        if let Plan::Cuts(cuts) = &self.plan
            && let Some(open) = self.open.back_mut()
            && open.window.end.is_none()
            && let Some((end, reason)) = cuts.end(open.window.start)
        {
            open.window.end = Some(end);
            open.reason = Some(reason);
        }
    }

    /// All that has become possible, after anything has come in.
    pub(super) fn go_on(&mut self, out: &mut Vec<Decision>) {
        if self.live
            && let Some(lead) = self.lead
            && let Plan::Cuts(cuts) = &mut self.plan
        {
            let bound = lead - self.config.allowed_lateness.unwrap_or(Ns::SECOND);
            if bound > cuts.known() {
                cuts.know(bound);
                self.learn_end();
            }
        }
        for slot in 0..self.streams.len() {
            match self.plan {
                Plan::Clips { .. } => self.ring_run(slot, None, out),
                Plan::Grid(_) | Plan::Cuts(_) => self.drain(slot, out),
            }
        }
        self.give_up(out);
        self.close(out);
    }

    fn drain(&mut self, slot: usize, out: &mut Vec<Decision>) {
        while let Some(item) = self.streams[slot].pending.front() {
            if let Item::Frame { frame, .. } = item
                && !self.is_known(frame.time)
            {
                return;
            }
            if let Some(item) = self.streams[slot].release() {
                self.pass(slot, item, out);
            }
        }
    }

    pub(super) fn pass(&mut self, slot: usize, item: Item, out: &mut Vec<Decision>) {
        match item {
            Item::Frame { frame, serial } => self.decide(slot, frame, serial, out),
            Item::Mark(position) => self.advance(slot, position, out),
            Item::End => self.end_stream(slot, out),
        }
    }

    pub(super) fn decide(&mut self, slot: usize, frame: Frame, serial: u64, out: &mut Vec<Decision>) {
        let position = frame.position.unwrap_or(Ns::MIN);
        self.advance(slot, position, out);
        self.streams[slot].take(&frame, position);
        let fit = self.fit(slot, frame.time);
        if let (Some(first), Some(last)) = (fit.open.first(), fit.open.last()) {
            let mut at = self.find_or_open(first, frame.time, out);
            for id in first..=last {
                if self.open.get(at).is_none_or(|open| open.window.id != id) {
                    at = self.find_or_open(id, frame.time, out);
                }
                self.add(at, slot, &frame, out);
                at += 1;
            }
        }
        let keep = !(fit.late && fit.open.is_empty() && self.config.late_policy == LatePolicy::Drop);
        if fit.late {
            self.count_late(slot);
        }
        let totals = &mut self.streams[slot].totals;
        totals.frames += 1;
        totals.outside += u64::from(fit.own.is_empty() && !fit.late);
        totals.dropped += u64::from(!keep);
        let windows = match (fit.open.is_empty(), self.config.late_policy) {
            (false, _) => fit.open,
            (true, LatePolicy::Count) => Ids::NONE,
            (true, LatePolicy::Mark | LatePolicy::Drop) => fit.own,
        };
        out.push(Decision::Frame { stream: frame.stream, serial, windows, late: fit.late, keep });
    }

    fn fit(&self, slot: usize, time: Ns) -> Fit {
        let floor = self.streams[slot].floor;
        match &self.plan {
            Plan::Grid(grid) => {
                let own = grid.at(time);
                // Ends ascend with ids: the final ones are the first ones.
                let first_open = floor.map_or(WindowId::MIN, |floor| grid.ended_by(floor).saturating_add(1));
                let open = match (own.first(), own.last()) {
                    (Some(first), Some(last)) => Ids::between(first.max(first_open), last),
                    _ => Ids::NONE,
                };
                Fit { own, open, late: open.len() < own.len() }
            }
            Plan::Cuts(cuts) => match cuts.place(time) {
                Place::In { start } => {
                    let own = Ids::one(cuts.id(start));
                    let late = floor.is_some_and(|floor| cuts.end(start).is_some_and(|end| end.0 <= floor));
                    Fit { own, open: if late { Ids::NONE } else { own }, late }
                }
                // Its window is forgotten, or there never was one.
                Place::Outside | Place::Unknown => Fit {
                    own: Ids::NONE,
                    open: Ids::NONE,
                    late: floor.is_some_and(|floor| cuts.forgotten(time) && time < floor),
                },
            },
            Plan::Clips { .. } => Fit { own: Ids::NONE, open: Ids::NONE, late: false },
        }
    }

    /// The place of the open window with this id, which holds `time`.
    fn find_or_open(&mut self, id: WindowId, time: Ns, out: &mut Vec<Decision>) -> usize {
        let mut at = self.open.len();
        while at > 0 && self.open[at - 1].window.id > id {
            at -= 1;
        }
        if at > 0 && self.open[at - 1].window.id == id {
            return at - 1;
        }
        let (start, end) = match &self.plan {
            Plan::Grid(grid) => (grid.start(id), Some((grid.end(id), Reason::Duration))),
            Plan::Cuts(cuts) => match cuts.place(time) {
                Place::In { start } => (start, cuts.end(start)),
                Place::Outside | Place::Unknown => (time, None),
            },
            Plan::Clips { .. } => (time, None),
        };
        self.insert(at, |shares| Open::new(id, start, end, shares), out);
        at
    }

    /// Streams that are past it have no share in it.
    pub(super) fn insert(&mut self, at: usize, open: impl FnOnce(Vec<Share>) -> Open, out: &mut Vec<Decision>) {
        let mut shares = self.spare.pop().unwrap_or_default();
        shares.clear();
        shares.resize(self.streams.len(), Share { whole: true, ..Share::default() });
        self.open.insert(at, open(shares));
        for slot in 0..self.streams.len() {
            let has = self.open[at].has(slot);
            let stream = &mut self.streams[slot];
            if !stream.used {
                continue;
            }
            if has && let Plan::Clips { .. } = self.plan {
                // It may have passed later windows that it has no part in.
                stream.finals = stream.finals.min(at);
            }
            if at < stream.finals {
                if has {
                    self.seal(at, slot, None, true, out);
                }
                self.streams[slot].finals += 1;
            } else if at == stream.finals {
                self.finish(slot, out);
            }
        }
    }

    pub(super) fn add(&mut self, at: usize, slot: usize, frame: &Frame, out: &mut Vec<Decision>) {
        let open = &mut self.open[at];
        let share = &mut open.shares[slot];
        if !share.begun {
            share.begun = true;
            share.tally.late = share.tally.late.saturating_add(std::mem::take(&mut self.streams[slot].late));
            out.push(Decision::Open { stream: frame.stream, window: open.window.clone() });
        }
        share.tally.add(frame);
    }

    /// In the newest window that is open on the stream, or the next one.
    pub(super) fn count_late(&mut self, slot: usize) {
        let stream = &mut self.streams[slot];
        stream.totals.late += 1;
        let open = self.open.iter_mut().skip(stream.finals).rev().map(|open| &mut open.shares[slot]);
        let late = match open.into_iter().find(|share| share.begun && share.sealed.is_none()) {
            Some(share) => &mut share.tally.late,
            None => &mut stream.late,
        };
        *late = late.saturating_add(1);
    }
}
