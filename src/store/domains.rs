//! Running-time domains: which epochs count their time from the same zero, and where each lies on the way out.
//!
//! The streams of one pipeline that are active at the same time share a domain. When epochs of several domains go out one
//! after the other, each gets one offset, the same for all its streams, that puts it behind what this pipeline has sent. With
//! nothing sent before, the offset is 0.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use super::log::lock;

/// Bits of a domain number that count the flushes within it.
const FLUSH_BITS: u32 = 16;

/// Where the session stands in a domain number.
const SESSION_SHIFT: u32 = 40;

/// The domain `domain` after as many flushes that set running time back to 0.
pub fn flushed(domain: u64, flushes: u64) -> u64 {
    domain | (flushes & ((1 << FLUSH_BITS) - 1))
}

/// How often the store had been opened when a domain began.
pub fn session_of(domain: u64) -> u64 {
    domain >> SESSION_SHIFT
}

/// Whether two domains are the same but for flushes.
pub fn same_run(a: u64, b: u64) -> bool {
    a >> FLUSH_BITS == b >> FLUSH_BITS
}

/// The domains of an open store.
#[derive(Default)]
pub struct Domains {
    state: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    count: u64,
    groups: HashMap<u64, Weak<Domain>>,
}

impl Domains {
    /// Enters the domain of a pipeline, a new one if nobody of it is inside. It ends with its last holder.
    pub fn join(&self, session: u64, pipeline: u64) -> Arc<Domain> {
        let mut state = lock(&self.state);
        if let Some(domain) = state.groups.get(&pipeline).and_then(Weak::upgrade) {
            return domain;
        }
        state.groups.retain(|_, domain| domain.strong_count() > 0);
        state.count += 1;
        let number = (session << SESSION_SHIFT) | (state.count << FLUSH_BITS);
        let domain = Arc::new(Domain { number, state: Mutex::default() });
        state.groups.insert(pipeline, Arc::downgrade(&domain));
        domain
    }
}

/// The domain of a running pipeline, and where it puts the epochs that it sends.
pub struct Domain {
    number: u64,
    state: Mutex<Sent>,
}

#[derive(Default)]
struct Sent {
    /// Latest running time that was sent, in ns.
    until: Option<u64>,
    offsets: HashMap<u64, u64>,
    flushes: u64,
}

impl Domain {
    pub fn number(&self) -> u64 {
        self.number
    }

    /// A stream has seen its n-th flush that sets running time back to 0; the first to see it begins anew for all.
    pub fn flushed(&self, flushes: u64) {
        let mut state = lock(&self.state);
        if flushes > state.flushes {
            *state = Sent { flushes, ..Sent::default() };
        }
    }

    /// The offset of an epoch's domain in ns if it is settled: it has begun, or nothing was sent before it.
    pub fn offset(&self, domain: u64) -> Option<u64> {
        let mut state = lock(&self.state);
        match (state.offsets.get(&domain), state.until) {
            (Some(offset), _) => Some(*offset),
            (None, None) => {
                state.offsets.insert(domain, 0);
                Some(0)
            }
            (None, Some(_)) => None,
        }
    }

    /// The offset of an epoch's domain whose first running time is `first`, settling it if need be.
    pub fn settle(&self, domain: u64, first: u64) -> u64 {
        let mut state = lock(&self.state);
        let behind = state.until.unwrap_or(0).saturating_sub(first);
        *state.offsets.entry(domain).or_insert(behind)
    }

    /// Something up to this running time was sent.
    pub fn sent(&self, until: u64) {
        let mut state = lock(&self.state);
        state.until = state.until.max(Some(until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_follow_each_other() {
        let live = Domains::default().join(3, 0);
        let (first, second) = (1, 2);
        assert_eq!(live.settle(first, 35), 0, "nothing was sent before");
        live.sent(60);
        assert_eq!(live.offset(second), None);
        assert_eq!(live.settle(second, 0), 60);
        assert_eq!(live.settle(second, 5), 60, "another stream of it");
        live.sent(100);
        assert_eq!(live.settle(live.number(), 120), 0, "a gap ahead stays");
    }

    #[test]
    fn without_a_backlog_nothing_is_shifted() {
        let domains = Domains::default();
        let a = domains.join(1, 7);
        assert_eq!(domains.join(1, 7).number(), a.number(), "two streams of one pipeline");
        assert_ne!(domains.join(1, 8).number(), a.number(), "another pipeline has its own");
        assert_eq!(a.offset(a.number()), Some(0));
        a.sent(50);
        let before = a.number();
        drop(a);
        let b = domains.join(1, 7);
        assert!(!same_run(before, b.number()));
        assert_eq!(b.offset(b.number()), Some(0), "a pipeline that starts again starts at 0");
    }

    #[test]
    fn the_first_stream_that_is_flushed_begins_anew_for_all() {
        let domain = Domains::default().join(1, 0);
        domain.sent(50);
        domain.flushed(1);
        let number = flushed(domain.number(), 1);
        assert!(same_run(number, domain.number()));
        assert_eq!(domain.offset(number), Some(0));
        domain.sent(10);
        domain.flushed(1);
        assert_eq!(domain.offset(5), None, "the other stream's flush is the same one");
    }
}
