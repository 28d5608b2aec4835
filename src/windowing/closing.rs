//! When shares are final and windows are over.

use super::share::{Open, Sealed};
use super::window::{Decision, Expected, Figures, Reason, StreamId, StreamSummary, Summary};
use super::windows::{MOST_OPEN, Plan, Windows};
use crate::timeline::Ns;

/// Memory of so many closed windows is kept for others.
const SPARE: usize = 16;

impl Windows {
    /// What has been decided of the stream has come here.
    pub(super) fn advance(&mut self, slot: usize, position: Ns, out: &mut Vec<Decision>) {
        let stream = &mut self.streams[slot];
        if stream.decided.is_some_and(|decided| decided >= position) {
            return;
        }
        stream.decided = Some(position);
        // In event mode lateness is that of triggers.
        let lateness = match self.plan {
            Plan::Clips { .. } => Ns::ZERO,
            Plan::Grid(_) | Plan::Cuts(_) => self.config.allowed_lateness.unwrap_or_default(),
        };
        stream.floor = stream.floor.max(Some(position - lateness));
        self.finish(slot, out);
    }

    /// Shares whose end the stream has passed are final.
    pub(super) fn finish(&mut self, slot: usize, out: &mut Vec<Decision>) {
        loop {
            let stream = &self.streams[slot];
            let at = stream.finals;
            let Some(open) = self.open.get(at) else { return };
            let over =
                stream.ended || open.window.end.is_some_and(|end| stream.floor.is_some_and(|floor| end <= floor));
            if !over && open.has(slot) {
                return;
            }
            if open.has(slot) && open.shares[slot].sealed.is_none() {
                // What a clip should have had has left, or there is no more.
                let complete = open.shares[slot].begun || !matches!(self.plan, Plan::Clips { .. });
                self.seal(at, slot, None, complete, out);
            }
            self.streams[slot].finals += 1;
            self.sealed = true;
        }
    }

    /// Makes the stream's share of the window at `at` final. `reason`: why before its end; None: it is the end.
    pub(super) fn seal(
        &mut self,
        at: usize,
        slot: usize,
        reason: Option<Reason>,
        complete: bool,
        out: &mut Vec<Decision>,
    ) {
        let (open, stream) = (&mut self.open[at], &mut self.streams[slot]);
        let share = &mut open.shares[slot];
        let tally = &share.tally;
        let came = stream.last_end.is_some_and(|last| open.window.end.is_some_and(|end| last >= end));
        let reached = reason.is_none() && (!stream.ended || came);
        // The part that the stream was there for.
        let start = tally.first().map_or(open.window.start, |first| first.min(open.window.start));
        let begin = stream.begin.map(|begin| begin.max(start));
        let end = if reached || reason == Some(Reason::Timeout) { open.window.end } else { None };
        let end = match (end, open.window.end, stream.last_end) {
            (Some(end), ..) => end,
            (None, Some(end), Some(last)) => end.min(last),
            (None, end, last) => last.or(end).unwrap_or(start),
        };
        let part = begin.map_or(Ns::ZERO, |begin| (end - begin).max(Ns::ZERO));
        let gap = begin.map_or(Ns::ZERO, |begin| stream.gap_in(begin, end));
        let figures = tally.figures(part, gap, stream.expected, &stream.cadence);
        let there = tally.frames > 0 || part > Ns::ZERO && stream.expected != Expected::Nothing;
        let complete = complete && share.whole;
        share.sealed = Some(Sealed { figures, complete, there });
        open.reached |= reached;
        if share.begun {
            let mut window = open.window.clone();
            window.end = window.end.or(tally.last());
            let reason = match reason {
                Some(reason) => reason,
                None if reached => open.reason.unwrap_or(Reason::Eos),
                None => Reason::Eos,
            };
            let poor = figures.quality < self.config.min_quality;
            out.push(Decision::Share { stream: StreamId(slot as u32), window, figures, reason, complete, poor });
        }
        if let Some(floor) = stream.floor {
            // Windows that overlap this one ask for less than its length behind it.
            stream.forget_gaps(floor - self.config.duration.max(self.config.max_duration) - self.config.hop);
        }
        self.sealed = true;
    }

    /// EOS, after all before it.
    pub(super) fn end_stream(&mut self, slot: usize, out: &mut Vec<Decision>) {
        self.streams[slot].ended = true;
        self.finish(slot, out);
    }

    /// Streams that lag are waited for no longer than they may be.
    pub(super) fn give_up(&mut self, out: &mut Vec<Decision>) {
        let bound = self.config.allowed_lateness.unwrap_or(Ns::SECOND);
        loop {
            self.close(out);
            let Some(front) = self.open.front() else { break };
            let live =
                self.live && front.window.end.is_some_and(|end| self.lead.is_some_and(|lead| end + bound <= lead));
            if !live && self.open.len() <= MOST_OPEN {
                break;
            }
            let end = front.window.end;
            for slot in 0..self.streams.len() {
                if self.streams[slot].used && self.streams[slot].finals == 0 {
                    self.force(slot, end, out);
                }
            }
        }
        // Windows that nobody has opened are over as well.
        if let (true, Some(lead), Plan::Grid(_) | Plan::Cuts(_)) = (self.live, self.lead, &self.plan) {
            for stream in &mut self.streams {
                stream.floor = stream.floor.max(Some(lead - bound));
            }
        }
    }

    /// The stream's share of the first window is final, whatever may come.
    fn force(&mut self, slot: usize, end: Option<Ns>, out: &mut Vec<Decision>) {
        if let Plan::Clips { .. } = self.plan {
            self.ring_run(slot, end, out);
        }
        if self.streams[slot].finals > 0 {
            return;
        }
        if self.open[0].has(slot) && self.open[0].shares[slot].sealed.is_none() {
            // Of a sparse stream nothing was missed.
            let sparse = self.streams[slot].expected == Expected::Nothing;
            self.seal(0, slot, Some(Reason::Timeout), sparse, out);
            if !sparse {
                self.open[0].forced = Some(Reason::Timeout);
            }
        }
        let stream = &mut self.streams[slot];
        stream.floor = stream.floor.max(end);
        stream.finals = 1;
        self.sealed = true;
    }

    /// Closes what is over, the oldest first.
    pub(super) fn close(&mut self, out: &mut Vec<Decision>) {
        if !std::mem::take(&mut self.sealed) {
            return;
        }
        while !self.open.is_empty() && self.streams.iter().all(|stream| !stream.used || stream.finals > 0) {
            let Some(open) = self.open.pop_front() else { return };
            for stream in self.streams.iter_mut().filter(|stream| stream.used) {
                stream.finals -= 1;
            }
            let end = self.told(open, out);
            self.closed = self.closed.max(Some(end));
            for stream in self.streams.iter_mut().filter(|stream| stream.used) {
                stream.floor = stream.floor.max(Some(end));
            }
        }
    }

    /// Tells of a window that is over; returns its end.
    fn told(&mut self, open: Open, out: &mut Vec<Decision>) -> Ns {
        let Open { mut window, reason, reached, forced, shares, only } = open;
        let last = shares.iter().filter_map(|share| share.tally.last()).max();
        let end = window.end.or(last).unwrap_or(window.start).max(window.start);
        window.end = Some(end);
        let natural = reason.filter(|_| reached).unwrap_or(Reason::Eos);
        let mut summary = Summary {
            window,
            reason: forced.unwrap_or(natural),
            complete: true,
            poor: false,
            figures: Figures::default(),
            streams: Vec::with_capacity(shares.len()),
        };
        let mut quality = None;
        for (slot, share) in shares.iter().enumerate() {
            let stream = StreamId(slot as u32);
            let (Some(sealed), true) = (share.sealed, only.is_empty() || only.contains(&stream)) else { continue };
            let Sealed { figures, complete, there } = sealed;
            summary.complete &= complete;
            summary.figures.join(&figures);
            if self.reference == Some(slot) {
                summary.figures.complexity = figures.complexity;
            }
            if there {
                quality = Some(quality.map_or(figures.quality, |least: f64| least.min(figures.quality)));
            }
            summary.streams.push(StreamSummary { stream, figures, complete });
        }
        summary.figures.quality = quality.unwrap_or(1.);
        summary.poor = summary.figures.quality < self.config.min_quality;
        out.push(Decision::Closed(Box::new(summary)));
        if self.spare.len() < SPARE {
            self.spare.push(shares);
        }
        end
    }

    /// Everything begins anew. Other streams than `again` that have ended stay so.
    pub(super) fn restart_all(&mut self, again: Option<usize>, reason: Reason, out: &mut Vec<Decision>) {
        if let Plan::Cuts(cuts) = &mut self.plan {
            cuts.know(Ns::MAX);
        }
        self.learn_end();
        for slot in 0..self.streams.len() {
            match self.plan {
                Plan::Clips { .. } => self.ring_clear(slot, out),
                Plan::Grid(_) | Plan::Cuts(_) => self.let_go(slot, out),
            }
        }
        for at in 0..self.open.len() {
            for slot in 0..self.streams.len() {
                let open = &self.open[at];
                if self.streams[slot].used && open.has(slot) && open.shares[slot].sealed.is_none() {
                    self.seal(at, slot, Some(reason), false, out);
                    self.open[at].forced.get_or_insert(reason);
                }
            }
        }
        while let Some(open) = self.open.pop_front() {
            self.told(open, out);
        }
        for (slot, stream) in self.streams.iter_mut().enumerate().filter(|(_, stream)| stream.used) {
            let ends = (stream.eos, stream.ended);
            stream.finals = 0;
            stream.restart();
            if again != Some(slot) {
                (stream.eos, stream.ended) = ends;
            }
        }
        self.lead = None;
        self.closed = None;
        if let Plan::Cuts(cuts) = &mut self.plan {
            cuts.restart(&mut *self.policy);
        }
    }

    /// One stream begins anew, and shares windows that others are in.
    pub(super) fn restart_one(&mut self, slot: usize, reason: Reason, out: &mut Vec<Decision>) {
        if let Plan::Clips { .. } = self.plan {
            self.ring_clear(slot, out);
        }
        for at in 0..self.open.len() {
            if self.open[at].has(slot) && self.open[at].shares[slot].sealed.is_none() {
                self.seal(at, slot, Some(reason), false, out);
            }
        }
        let mut at = 0;
        while at < self.open.len() {
            let open = &mut self.open[at];
            let others = open.shares.iter().enumerate().any(|(other, share)| other != slot && share.begun);
            if !others && open.shares[slot].begun {
                open.forced = Some(reason);
                // Others have not come to it: it never was, for them.
                for stream in &mut self.streams {
                    stream.finals -= usize::from(stream.finals > at);
                }
                if let Some(open) = self.open.remove(at) {
                    self.told(open, out);
                }
                continue;
            }
            // It may come here again.
            let share = &mut open.shares[slot];
            share.whole &= !share.begun || share.sealed.is_none_or(|sealed| sealed.complete);
            share.begun = false;
            share.sealed = None;
            at += 1;
        }
        let stream = &mut self.streams[slot];
        stream.finals = 0;
        stream.restart();
        self.find_lead();
    }

    /// Of the streams that still run.
    pub(super) fn find_lead(&mut self) {
        let running = self.streams.iter().filter(|stream| stream.used && !stream.eos);
        self.lead = running.filter_map(|stream| stream.arrived).max();
    }

    fn let_go(&mut self, slot: usize, out: &mut Vec<Decision>) {
        while let Some(item) = self.streams[slot].release() {
            self.pass(slot, item, out);
        }
    }
}

impl Figures {
    /// Sums; quality and complexity are not.
    fn join(&mut self, other: &Self) {
        self.frames = self.frames.saturating_add(other.frames);
        self.keyframes = self.keyframes.saturating_add(other.keyframes);
        self.late = self.late.saturating_add(other.late);
        self.missing = self.missing.saturating_add(other.missing);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.first = [self.first, other.first].into_iter().flatten().min();
        self.last = self.last.max(other.last);
    }
}
