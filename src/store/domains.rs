//! Running-time domains: which epochs count their time from the same zero, and where each lies on the way out.
//!
//! The streams of a store that are active at the same time belong to one pipeline and share a domain. When epochs of
//! several domains go out one after the other, each gets one offset, the same for all its streams, that puts it behind
//! what this process has sent. With nothing sent before, the offset is 0.

use std::collections::HashMap;
use std::sync::Mutex;

use super::log::lock;

/// Bits of a domain number that count the flushes within it.
const FLUSH_BITS: u32 = 16;

/// The domain `domain` after as many flushes that set running time back to 0.
pub fn flushed(domain: u64, flushes: u64) -> u64 {
    domain | (flushes & ((1 << FLUSH_BITS) - 1))
}

/// Whether two domains are the same but for flushes.
pub fn same_run(a: u64, b: u64) -> bool {
    a >> FLUSH_BITS == b >> FLUSH_BITS
}

#[derive(Default)]
pub struct Domains {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    count: u64,
    members: u32,
    /// Latest running time that was sent, in ns.
    sent: Option<u64>,
    offsets: HashMap<u64, u64>,
}

impl Domains {
    /// Enters the domain in which somebody is, or a new one.
    pub fn join(&self, session: u64) -> u64 {
        let mut state = lock(&self.state);
        if state.members == 0 {
            state.count += 1;
            state.begin();
        }
        state.members += 1;
        (session << 40) | (state.count << FLUSH_BITS)
    }

    pub fn leave(&self) {
        let mut state = lock(&self.state);
        state.members = state.members.saturating_sub(1);
    }

    /// Running time begins again at 0 for everybody, as after a flush.
    pub fn reset(&self) {
        lock(&self.state).begin();
    }

    /// The offset of a domain in ns if it is settled: it has begun, or nothing was sent before it.
    pub fn offset(&self, domain: u64) -> Option<u64> {
        let mut state = lock(&self.state);
        match (state.offsets.get(&domain), state.sent) {
            (Some(offset), _) => Some(*offset),
            (None, None) => {
                state.offsets.insert(domain, 0);
                Some(0)
            }
            (None, Some(_)) => None,
        }
    }

    /// The offset of a domain whose first running time is `first`, settling it if need be.
    pub fn settle(&self, domain: u64, first: u64) -> u64 {
        let mut state = lock(&self.state);
        let behind = state.sent.unwrap_or(0).saturating_sub(first);
        *state.offsets.entry(domain).or_insert(behind)
    }

    /// Something up to this running time was sent.
    pub fn sent(&self, until: u64) {
        let mut state = lock(&self.state);
        state.sent = state.sent.max(Some(until));
    }
}

impl State {
    fn begin(&mut self) {
        self.sent = None;
        self.offsets.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_follow_each_other() {
        let domains = Domains::default();
        let live = domains.join(3);
        let (first, second) = (1, 2);
        assert_eq!(domains.settle(first, 35), 0, "nothing was sent before");
        domains.sent(60);
        assert_eq!(domains.offset(second), None);
        assert_eq!(domains.settle(second, 0), 60);
        assert_eq!(domains.settle(second, 5), 60, "another stream of it");
        domains.sent(100);
        assert_eq!(domains.settle(live, 120), 0, "a gap ahead stays");
    }

    #[test]
    fn without_a_backlog_nothing_is_shifted() {
        let domains = Domains::default();
        let a = domains.join(1);
        assert_eq!(domains.join(1), a, "two streams of one pipeline");
        assert_eq!(domains.offset(a), Some(0));
        domains.sent(50);
        domains.leave();
        domains.leave();
        let b = domains.join(1);
        assert_ne!(a, b);
        assert_eq!(domains.offset(b), Some(0), "a pipeline that starts again starts at 0");
    }
}
