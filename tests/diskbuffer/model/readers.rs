//! Readers of the store beside the element: consumers that come, go, and come back.

use std::path::Path;

use gst::prelude::*;

use super::player::Player;
use super::world::{Unit, World};
use crate::common::*;

/// What came, and the number of its unit.
type Seens = Vec<Seen>;

pub struct Watcher {
    name: &'static str,
    player: Option<Player>,
    runs: Vec<Seens>,
    /// Buffers that it was told were gone.
    lost: u64,
    /// What it had when the store was copied.
    noted: Option<Seens>,
}

impl Watcher {
    pub fn new(name: &'static str) -> Self {
        Self { name, player: None, runs: Vec::new(), lost: 0, noted: None }
    }

    /// Goes on where it stood.
    pub fn watch(&mut self, location: &Path) {
        if self.player.is_none() {
            self.player = Some(Player::new(location, &[("follow", "true"), ("consumer", self.name)]));
        }
    }

    pub fn leave(&mut self) {
        if let Some(player) = self.player.take() {
            self.lost += player.stat("lost");
            player.element.set_state(gst::State::Null).unwrap();
            self.runs.push(player.sink.buffers());
        }
    }

    /// What comes from now on, nobody sees.
    pub fn note(&mut self) {
        self.noted = self.player.as_ref().map(|player| player.sink.buffers());
    }

    /// Its store is gone; whether it was there.
    pub fn abandon(&mut self) -> bool {
        let Some(player) = self.player.take() else { return false };
        drop(player);
        self.runs.extend(self.noted.take());
        true
    }

    /// Each unit as it went in, in order, without a gap unless `gaps` are to be expected; again only after a start, from a
    /// keyframe on.
    fn check(&self, units: &[Unit], firsts: &[usize], gaps: bool, purged: bool) {
        assert!(gaps || self.lost == 0, "consumer {}: {} are lost", self.name, self.lost);
        let mut last = None::<usize>;
        for run in &self.runs {
            let mut previous = None::<usize>;
            for seen in run {
                let number = seen.offsets.0 as usize;
                let what = format!("consumer {}: unit {number} after {previous:?}, {last:?} at most before", self.name);
                let unit = units.get(number).unwrap_or_else(|| panic!("{what}: it was never accepted"));
                let mut expected = unit.seen.clone();
                let discont = seen.flags & gst::BufferFlags::DISCONT;
                expected.flags |= discont;
                assert!(*seen == expected, "{what}: it came as {seen:?} instead of {expected:?}");
                if previous.is_none_or(|previous| previous + 1 != number) {
                    assert!(previous.is_none_or(|previous| previous < number), "{what}: a repeat for no reason");
                    assert!(unit.key || purged, "{what}: it begins without a keyframe");
                    // The stream of another element begins: nothing is missing in it.
                    assert!(!discont.is_empty() || firsts.contains(&number), "{what}: no DISCONT");
                    assert!(gaps || last.is_none_or(|last| number <= last + 1), "{what}: a gap");
                }
                previous = Some(number);
                last = last.max(previous);
            }
        }
    }
}

impl World<'_> {
    /// Everything has been delivered.
    pub fn check_watchers(&mut self) {
        let gaps = self.leaked || self.purged || self.unseen || self.forgotten > 0;
        let last = self.units.len() - 1;
        let firsts: Vec<_> = self.runs.iter().map(|run| run.first).chain([self.first]).collect();
        for watcher in &mut self.watchers {
            if let Some(player) = watcher.player.as_ref().filter(|_| !gaps) {
                let has = |arrived: &Arrived| arrived.buffers.last().is_some_and(|seen| seen.offsets.0 == last as u64);
                player.sink.wait("the consumer sees the end", has);
            }
            watcher.leave();
            watcher.check(&self.units, &firsts, gaps, self.purged);
        }
    }
}
