//! What goes in and what comes out of one stream, compared: order, repeats, payload, caps, marks, and at the end whether all
//! that was accepted is there.
//!
//! Units are the made-up frames of the other tests; a stream counts them from a base of its own, so that nothing of one can
//! pass for something of another. Each unit knows from its number alone what it has to look like.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::common::{Seen, frame, number, see};

use super::watch::violation;

pub const GOP: u64 = 10;

/// Some larger than what memory may hold.
fn size(number: u64) -> usize {
    let odd = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    match odd % 64 {
        0 => 120_000,
        1..8 => 20_000,
        _ => 300 + (odd % 6000) as usize,
    }
}

pub fn unit(number: u64) -> gst::Buffer {
    frame(number, GOP, size(number))
}

pub fn is_key(number: u64) -> bool {
    number.is_multiple_of(GOP)
}

#[derive(Default)]
struct Inner {
    /// Offered upstream; what was not taken is taken out again.
    offered: BTreeSet<u64>,
    arrived: BTreeSet<u64>,
    /// From this unit on these caps are in force.
    caps: BTreeMap<u64, i32>,
    /// A serialized event stands before these.
    marks: BTreeSet<u64>,
    /// The list in which a unit came: its first and its end.
    lists: BTreeMap<u64, u64>,
    previous: Option<u64>,
    marked: Option<u64>,
    /// Downstream was told to begin anew.
    anew: bool,
    ended: bool,
    /// What may be followed by a repeat, and repeats.
    reasons: u64,
    repeats: u64,
    /// Something was taken out in the middle.
    purged: bool,
    /// Drops leave keyframes only.
    thinned: bool,
    /// Events and caps cannot be seen.
    data_only: bool,
    count: u64,
}

/// Shared by who feeds and who receives.
#[derive(Clone)]
pub struct Oracle {
    name: &'static str,
    inner: Arc<Mutex<Inner>>,
}

impl Oracle {
    pub fn new(name: &'static str) -> Self {
        Self { name, inner: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Something happens after which data may come again.
    pub fn reason(&self) {
        self.lock().reasons += 1;
    }

    /// Something is taken out; what downstream had before it was trusted comes again then.
    pub fn purge(&self) {
        let mut inner = self.lock();
        inner.purged = true;
        inner.reasons += 1;
    }

    pub fn thin(&self) {
        self.lock().thinned = true;
    }

    /// From a sink that tells of nothing but buffers.
    pub fn data_only(&self) {
        self.lock().data_only = true;
    }

    /// Before it is pushed: downstream may have it before the push returns.
    pub fn offer(&self, units: std::ops::Range<u64>, caps: i32, marked: bool) {
        let mut inner = self.lock();
        if inner.caps.last_key_value().is_none_or(|last| *last.1 != caps) {
            inner.caps.insert(units.start, caps);
        }
        if marked {
            inner.marks.insert(units.start);
        }
        if units.end - units.start > 1 {
            inner.lists.insert(units.start, units.end);
        }
        inner.offered.extend(units);
    }

    /// Upstream was told that it was not taken.
    pub fn take_back(&self, units: std::ops::Range<u64>) {
        let mut inner = self.lock();
        inner.marks.remove(&units.start);
        inner.lists.remove(&units.start);
        for unit in units {
            inner.offered.remove(&unit);
            if inner.arrived.contains(&unit) {
                violation(format!("{}: {unit} was refused and arrived", self.name));
            }
        }
    }

    pub fn begins_anew(&self) {
        let mut inner = self.lock();
        (inner.anew, inner.ended) = (true, false);
    }

    pub fn ends(&self) {
        self.lock().ended = true;
    }

    pub fn mark(&self, at: u64) {
        self.lock().marked = Some(at);
    }

    /// Downstream has taken a list of these.
    pub fn take_list(&self, list: &[Seen], caps: Option<i32>) {
        {
            let inner = self.lock();
            let numbers: Vec<u64> = list.iter().map(number).collect();
            let home = numbers.first().and_then(|first| inner.lists.range(..=first).next_back());
            let within = home.is_some_and(|(_, end)| numbers.last().is_some_and(|last| last < end));
            let dense = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
            if !within || !(dense || inner.purged || inner.thinned) {
                violation(format!("{}: a list of {numbers:?} was never sent", self.name));
            }
        }
        list.iter().for_each(|seen| self.take(seen, caps));
    }

    /// Downstream has taken it.
    pub fn take(&self, seen: &Seen, caps: Option<i32>) {
        let at = number(seen);
        let mut inner = self.lock();
        let name = self.name;
        inner.count += 1;
        if !inner.offered.contains(&at) {
            return violation(format!("{name}: {at} was never sent"));
        }
        let expected = see(&unit(at));
        let same = seen.data.ends_with(&expected.data) && seen.data.len() <= expected.data.len() + 100;
        if !same || (seen.pts, seen.dts, seen.duration) != (expected.pts, expected.dts, expected.duration) {
            violation(format!("{name}: {at} has changed"));
        }
        if seen.flags - gst::BufferFlags::DISCONT != expected.flags - gst::BufferFlags::DISCONT {
            violation(format!("{name}: {at} has other flags: {:?}", seen.flags));
        }
        let in_force = inner.caps.range(..=at).next_back().map(|caps| *caps.1);
        if caps != in_force && !inner.data_only {
            violation(format!("{name}: {at} has the caps {caps:?} instead of {in_force:?}"));
        }
        if std::mem::take(&mut inner.ended) {
            violation(format!("{name}: {at} follows an end of stream"));
        }
        let anew = std::mem::take(&mut inner.anew);
        let marked = inner.marked.take();
        let discont = seen.flags.contains(gst::BufferFlags::DISCONT);
        inner.arrived.insert(at);
        let Some(previous) = inner.previous.replace(at) else {
            if !is_key(at) && !inner.purged {
                violation(format!("{name}: it begins with {at}, which is no keyframe"));
            }
            return;
        };
        let next = inner.offered.range(previous + 1..).next().copied();
        if at <= previous {
            inner.repeats += 1;
            if inner.repeats > inner.reasons {
                let (repeats, reasons) = (inner.repeats, inner.reasons);
                violation(format!("{name}: {at} after {previous} is repeat {repeats}, with {reasons} reasons"));
            }
        } else if next == Some(at) {
            if inner.marks.contains(&at) && marked != Some(at) && !anew && !discont && !inner.data_only {
                violation(format!("{name}: {at} has {marked:?} before it instead of its event"));
            }
            return;
        }
        if !(discont || anew || inner.data_only) || !(is_key(at) || inner.purged) {
            let flags = seen.flags;
            violation(format!("{name}: {at} follows {previous}, {next:?} was next, flags {flags:?}, anew {anew}"));
        }
    }

    /// How many were accepted, how many of them never came, and the first of those.
    pub fn missing(&self) -> (usize, Vec<u64>) {
        let inner = self.lock();
        (inner.offered.len(), inner.offered.difference(&inner.arrived).copied().collect())
    }

    pub fn has_arrived(&self, unit: u64) -> bool {
        self.lock().arrived.contains(&unit)
    }

    /// Units that were taken, and of these repeats.
    pub fn taken(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.count, inner.repeats)
    }
}
