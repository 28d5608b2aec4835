//! Event mode: what is held for triggers to come, and which of it leaves when one has come.
//!
//! - Each stream's undecided frames are its ring. It reaches back to the keyframe at or before position - pre-roll -
//!   allowed-lateness; the lateness is how late triggers may be. Whole GOPs leave at the old end; when bytes are not
//!   enough, GOPs that are younger leave as well, and all of a GOP that alone is too large. Frames before the first
//!   keyframe leave at once.
//! - A window is [trigger - pre-roll, trigger + post-roll). On each stream it begins with the last keyframe at or
//!   before its start, or, if the ring does not reach there, with the first one after (`complete` = false). It holds
//!   what is presented before its end, up to where decoding comes to the end; frames presented later that lie between
//!   (B-frames refer to them) leave without a window.
//! - Triggers whose windows overlap share one, as long as no stream has ended its share: the first name, the union of
//!   the streams. `max-duration` cuts it; the rest is a window of its own. After that the later window begins where the
//!   earlier one ends, without a keyframe: it follows directly. So frames leave once, and windows never overlap.
//! - What has begun to leave is not overtaken: a trigger for before it is refused.

use std::sync::Arc;

use super::share::{Open, Share};
use super::stream::{Item, Key, Stream};
use super::window::{Decision, Frame, Ids, Reason, Split, StreamId, Trigger, WindowId};
use super::windows::{MOST_OPEN, Plan, Windows, within};
use crate::timeline::Ns;

/// A window to be.
struct Wish {
    start: Ns,
    end: Ns,
    name: Option<Arc<str>>,
    triggers: u32,
    only: Vec<StreamId>,
}

impl Wish {
    /// For the streams of both.
    fn join(&mut self, mut only: Vec<StreamId>) {
        if self.only.is_empty() || only.is_empty() {
            self.only.clear();
            return;
        }
        self.only.append(&mut only);
        self.only.sort_unstable();
        self.only.dedup();
    }
}

impl Windows {
    pub(super) fn ring_push(&mut self, slot: usize, frame: Frame, serial: u64, out: &mut Vec<Decision>) {
        let Plan::Clips { pre_roll, .. } = self.plan else { return };
        let stream = &mut self.streams[slot];
        stream.totals.frames += 1;
        if stream.late_for(&frame) {
            self.count_late(slot);
        }
        let stream = &mut self.streams[slot];
        if frame.keyframe {
            stream.keys.push_back(Key { serial, time: frame.time });
        }
        stream.hold(Item::Frame { frame, serial });
        self.ring_run(slot, None, out);
        let reach = pre_roll + self.config.allowed_lateness.unwrap_or_default();
        self.trim(slot, reach, out);
    }

    /// Bounds what is held.
    fn trim(&mut self, slot: usize, reach: Ns, out: &mut Vec<Decision>) {
        // Streams may be apart by the time that they are waited for when live, and still have their pre-roll in common.
        let Some(lead) = self.lead else { return };
        let running = self.streams.iter().filter(|stream| stream.used && !stream.eos);
        let last = running.map(|stream| stream.arrived.unwrap_or(Ns::MIN)).min().unwrap_or(lead);
        let arrived = last.max(lead - Ns::SECOND);
        let stream = &mut self.streams[slot];
        // What a window that has begun has not taken yet is its end.
        let leaving = self.open.get(stream.finals).is_some_and(|open| open.shares[slot].begun);
        if stream.held == 0 || leaving {
            return;
        }
        let need = arrived - reach;
        while stream.keys.get(1).is_some_and(|key| key.time <= need) {
            stream.keys.pop_front();
        }
        let mut before = stream.keys.front().map_or(stream.serial, |key| key.serial);
        self.forget(slot, before, false, out);
        while self.streams[slot].bytes > self.config.max_ring_bytes {
            let stream = &mut self.streams[slot];
            stream.keys.pop_front();
            before = stream.keys.front().map_or(stream.serial, |key| key.serial);
            self.forget(slot, before, true, out);
        }
    }

    fn forget(&mut self, slot: usize, before: u64, short: bool, out: &mut Vec<Decision>) {
        let stream = &mut self.streams[slot];
        let mut gone = 0;
        while let Some(item) = stream.pending.front() {
            match item {
                Item::Frame { serial, .. } if *serial < before => gone += 1,
                Item::Frame { .. } | Item::Mark(_) | Item::End => break,
            }
            if let Some(Item::Frame { frame, .. }) = stream.release() {
                stream.take(&frame, frame.position.unwrap_or(Ns::MIN));
            }
        }
        if gone > 0 {
            stream.totals.dropped += gone;
            out.push(Decision::Forget { stream: StreamId(slot as u32), before, short });
        }
    }

    /// All that is held leaves nowhere.
    pub(super) fn ring_clear(&mut self, slot: usize, out: &mut Vec<Decision>) {
        let stream = &mut self.streams[slot];
        let gone = stream.drop_held();
        if gone > 0 {
            stream.totals.dropped += gone as u64;
            out.push(Decision::Forget { stream: StreamId(slot as u32), before: stream.serial, short: false });
        }
    }

    /// Decides what can be decided. `until`: of windows that end by then, all that is there, whatever may come.
    pub(super) fn ring_run(&mut self, slot: usize, until: Option<Ns>, out: &mut Vec<Decision>) {
        if !self.streams[slot].used {
            return;
        }
        loop {
            self.finish(slot, out);
            let at = self.streams[slot].finals;
            let Some(open) = self.open.get(at) else { break };
            let end = open.window.end.unwrap_or(Ns::MAX);
            let forced = until.is_some_and(|until| end <= until);
            if !open.shares[slot].begun && !self.begin(at, slot, end, forced, out) {
                let stream = &self.streams[slot];
                let passed = stream.arrived.is_some_and(|arrived| arrived >= end);
                if !passed && !stream.eos {
                    break;
                }
                self.seal(at, slot, (!passed).then_some(Reason::Eos), false, out);
                self.streams[slot].finals += 1;
                continue;
            }
            if !self.give(at, slot, end, out) {
                break;
            }
        }
        self.take_end(slot, out);
    }

    /// EOS, when no window is left that wants what is held.
    fn take_end(&mut self, slot: usize, out: &mut Vec<Decision>) {
        if self.streams[slot].eos && !self.streams[slot].ended && self.streams[slot].finals == self.open.len() {
            self.ring_clear(slot, out);
            self.end_stream(slot, out);
        }
    }

    /// Lets the stream's share begin if it is known with which frame.
    fn begin(&mut self, at: usize, slot: usize, end: Ns, forced: bool, out: &mut Vec<Decision>) -> bool {
        let start = self.open[at].window.start;
        let stream = &self.streams[slot];
        // No keyframe at or before the start can follow.
        if !(forced || stream.eos || stream.arrived.is_some_and(|arrived| arrived >= start)) {
            return false;
        }
        let inside = |item: &Item| matches!(item, Item::Frame { frame, .. } if frame.time >= start && frame.time < end);
        if !stream.pending.iter().rev().any(inside) {
            return false;
        }
        let before = stream.keys.iter().rposition(|key| key.time <= start);
        let Some(key) = stream.keys.get(before.unwrap_or(0)).copied().filter(|key| key.time < end) else {
            return false;
        };
        // A frame of it has left with the window before.
        let lent = stream.lent.is_some_and(|lent| lent >= start);
        self.open[at].shares[slot].whole &= before.is_some() && !lent;
        self.forget(slot, key.serial, false, out);
        true
    }

    /// Decides frames for the window until its end. True: the share is final.
    fn give(&mut self, at: usize, slot: usize, end: Ns, out: &mut Vec<Decision>) -> bool {
        loop {
            let stream = &mut self.streams[slot];
            let (position, serial) = match stream.pending.front() {
                Some(Item::Frame { frame, serial }) => (frame.position.unwrap_or(Ns::MIN), *serial),
                _ if stream.arrived.is_some_and(|arrived| arrived >= end) => (end, stream.serial),
                _ if stream.eos => {
                    self.seal(at, slot, Some(Reason::Eos), true, out);
                    self.streams[slot].finals += 1;
                    return true;
                }
                _ => return false,
            };
            let passed = stream.eos || stream.arrived.is_some_and(|arrived| arrived >= end);
            if position >= end || passed && !stream.leads_on(end) {
                // What follows goes on from here without a keyframe.
                if stream.keys.front().is_none_or(|key| key.serial > serial) {
                    stream.keys.push_front(Key { serial, time: end });
                }
                stream.floor = stream.floor.max(Some(end));
                self.finish(slot, out);
                return true;
            }
            if !stream.leads_on(end) && stream.bytes <= self.config.max_ring_bytes {
                return false;
            }
            let Some(Item::Frame { frame, serial }) = stream.release() else { return false };
            stream.take(&frame, position);
            while stream.keys.front().is_some_and(|key| key.serial <= serial) {
                stream.keys.pop_front();
            }
            // Behind the end, it may be in the window that comes next.
            let holds = |open: &Open| open.window.end.is_some_and(|end| frame.time < end) && open.has(slot);
            let own = (at..self.open.len()).find(|&at| holds(&self.open[at]));
            let own = own.filter(|&own| own == at || frame.time >= self.open[own].window.start);
            let windows = if let Some(own) = own {
                self.add(own, slot, &frame, out);
                Ids::one(self.open[own].window.id)
            } else {
                self.streams[slot].lent = self.streams[slot].lent.max(Some(frame.time));
                Ids::NONE
            };
            out.push(Decision::Frame { stream: frame.stream, serial, windows, late: false, keep: true });
        }
    }

    pub(super) fn ring_trigger(&mut self, trigger: Trigger, out: &mut Vec<Decision>) -> Option<WindowId> {
        let Plan::Clips { pre_roll, post_roll } = self.plan else { return None };
        let time = within(trigger.time);
        let mut only: Vec<_> = trigger.streams.iter().copied().filter(|&stream| self.slot(stream).is_some()).collect();
        if only.is_empty() && !trigger.streams.is_empty() || !self.streams.iter().any(|stream| stream.used) {
            return None;
        }
        only.sort_unstable();
        only.dedup();
        let wanted = |slot: usize| only.is_empty() || only.iter().any(|stream| stream.index() == slot);
        let mut streams = self.streams.iter().enumerate().filter(|(slot, stream)| stream.used && wanted(*slot));
        if streams.all(|(_, stream)| stream.ended) {
            return None;
        }
        let (start, end) = (within(time - pre_roll), within(time + post_roll));
        self.wish(Wish { start, end, name: trigger.name, triggers: 1, only }, out)
    }

    fn wish(&mut self, mut wish: Wish, out: &mut Vec<Decision>) -> Option<WindowId> {
        // What has been closed, or is final on a stream, stays as it is.
        let past = self.open.iter().filter(|open| open.shares.iter().any(|share| share.sealed.is_some()));
        let past = past.filter_map(|open| open.window.end).max().max(self.closed);
        wish.start = wish.start.max(past.unwrap_or(Ns::MIN));
        let leaving = self.open.iter().rev().find(|open| open.shares.iter().any(|share| share.begun));
        if leaving.is_some_and(|open| wish.end <= open.window.start) || wish.start >= wish.end {
            return None;
        }
        let end = |open: &Open| open.window.end.unwrap_or(Ns::MAX);
        let first = self.open.iter().position(|open| end(open) > wish.start).unwrap_or(self.open.len());
        let overlaps = |open: &&Open, wish: &Wish| open.window.start < wish.end;
        if self.open.len() >= MOST_OPEN && !self.open.get(first).is_some_and(|open| overlaps(&open, &wish)) {
            return None;
        }
        // Streams may have begun it, so its start stays.
        let mut shares: Option<Vec<Share>> = None;
        let mut rest = None;
        let mut taken = 0;
        while let Some(open) = self.open.get(first).filter(|open| overlaps(open, &wish)) {
            let begun = open.begun();
            if begun && taken > 0 {
                rest = Some((open.window.start, wish.end));
                wish.end = open.window.start;
                break;
            }
            let Some(open) = self.take_open(first) else { break };
            wish.start = if begun { open.window.start } else { wish.start.min(open.window.start) };
            wish.end = wish.end.max(end(&open));
            wish.triggers = wish.triggers.saturating_add(open.window.triggers);
            wish.join(open.only);
            if taken == 0 {
                wish.name = open.window.name.or(wish.name);
            }
            if begun {
                shares = Some(open.shares);
            }
            taken += 1;
        }
        let mut reason = Reason::Event;
        if self.config.max_duration > Ns::ZERO && wish.end - wish.start > self.config.max_duration {
            let cut = wish.start + self.config.max_duration;
            rest = Some((cut, rest.map_or(wish.end, |rest| rest.1)));
            wish.end = cut;
            reason = Reason::MaxDuration;
        }
        // Frames that left outside of windows are inside of this one now, but left without it.
        for (share, stream) in shares.iter_mut().flatten().zip(&self.streams) {
            share.whole &= !stream.lent.is_some_and(|lent| lent >= wish.start && lent < wish.end);
        }
        let id = wish.start.0;
        let Wish { start, end, name, triggers, only } = wish;
        let follows = rest.map(|(start, end)| Wish { start, end, name: name.clone(), triggers: 1, only: only.clone() });
        let open = |fresh| {
            let shares = shares.unwrap_or(fresh);
            Open::new(id, start, Some((end, reason)), shares).triggered(name, triggers, only)
        };
        self.insert(first, open, out);
        if let Some(wish) = follows {
            self.wish(wish, out);
        }
        Some(id)
    }

    /// None of its shares is final, but streams that are not asked for may have passed it.
    fn take_open(&mut self, at: usize) -> Option<Open> {
        for stream in &mut self.streams {
            stream.finals -= usize::from(stream.finals > at);
        }
        self.open.remove(at)
    }

    pub(super) fn ring_split(&mut self, split: Split, out: &mut Vec<Decision>) -> bool {
        let Some(at) = self.open.iter().position(|open| {
            open.shares.iter().any(|share| share.begun) && open.shares.iter().all(|share| share.sealed.is_none())
        }) else {
            return false;
        };
        let open = &self.open[at];
        // Behind all that has left.
        let behind = open.shares.iter().filter_map(|share| share.tally.latest()).max();
        let behind = behind.map_or(open.window.start, |last| last) + Ns(1);
        let end = match split {
            Split::Now | Split::Keyframe => behind,
            Split::At(time) => time.max(behind),
        };
        if open.window.end.is_some_and(|old| end >= old) {
            return false;
        }
        self.open[at].window.end = Some(end);
        self.open[at].reason = Some(Reason::Split);
        self.go_on(out);
        true
    }
}

impl Stream {
    /// The first held frame can be decided: it is presented before `end`, or one that follows is, which may refer to
    /// it.
    fn leads_on(&self, end: Ns) -> bool {
        self.pending.iter().any(|item| matches!(item, Item::Frame { frame, .. } if frame.time < end))
    }

    /// In event mode: its window, if there was one, is over on this stream.
    fn late_for(&self, frame: &Frame) -> bool {
        self.floor.is_some_and(|floor| frame.time < floor)
    }
}
