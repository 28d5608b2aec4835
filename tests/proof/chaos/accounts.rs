//! What an element's counters say: whether they add up, and how much it has given up over all its runs.

use std::sync::Mutex;

use super::disk::Disk;
use super::watch::violation;

/// What is not delivered and not waiting.
const GIVEN_UP: [&str; 5] = ["rejected", "dropped", "expired", "purged", "lost"];
const LOST: usize = 4;

#[derive(Default)]
struct Told {
    base: [u64; GIVEN_UP.len()],
    total: u64,
}

pub struct Accounts {
    name: &'static str,
    /// Nothing may be given up while the disk works.
    lossless: bool,
    disk: Disk,
    told: Mutex<Told>,
}

fn given_up(stats: &gst::StructureRef) -> [u64; GIVEN_UP.len()] {
    GIVEN_UP.map(|name| stats.get(name).unwrap())
}

impl Accounts {
    pub fn new(name: &'static str, lossless: bool, disk: &Disk) -> Self {
        Self { name, lossless, disk: disk.clone(), told: Mutex::default() }
    }

    /// Whether it adds up.
    pub fn check(&self, stats: &gst::StructureRef) {
        for suffix in ["", "-bytes"] {
            let get = |name: &str| stats.get::<u64>(&format!("{name}{suffix}")).unwrap();
            let sum = |names: &[&str]| names.iter().map(|n| get(n)).sum::<u64>();
            let parts = ["delivered", "pending", "dropped", "expired", "purged", "lost"];
            if get("received") != sum(&["stored", "bypassed", "queued", "rejected"]) || get("stored") != sum(&parts) {
                violation(format!("{}: the accounts do not add up: {stats}", self.name));
            }
        }
    }

    /// Adds what was given up since it was last asked for.
    pub fn add(&self, what: &str, stats: &gst::StructureRef) {
        self.check(stats);
        let now = given_up(stats);
        let mut told = self.told.lock().unwrap();
        let more: u64 = now.iter().zip(told.base).map(|(now, base)| now.saturating_sub(base)).sum();
        told.total += more;
        told.base = now;
        if self.lossless && more > 0 && !self.disk.is_faulty() {
            violation(format!("{}: {what}: {more} were given up although the disk works: {stats}", self.name));
        }
    }

    /// The store was opened: that may find less than there was, a purge may have gone on, and counters that were not saved
    /// begin where they were.
    pub fn opened(&self, stats: &gst::StructureRef) {
        let now = given_up(stats);
        let mut told = self.told.lock().unwrap();
        told.total += now.iter().zip(told.base).map(|(now, base)| now.saturating_sub(base)).sum::<u64>();
        told.base = now;
    }

    /// Nothing more comes: no more than was told may be missing, and nothing that was stored.
    pub fn close(&self, durability: &str, missing: &[u64], stats: &gst::StructureRef) -> u64 {
        self.add("the end", stats);
        let told = self.told.lock().unwrap();
        if missing.len() as u64 > told.total {
            let total = told.total;
            violation(format!("{}: {total} were given up, but these are missing: {missing:?}, {stats}", self.name));
        }
        // What counts as lost excuses nothing: nothing that was stored may be missing.
        if told.base[LOST] > 0 && durability != "none" {
            violation(format!("{}: some are lost: {stats}", self.name));
        }
        told.total
    }
}
