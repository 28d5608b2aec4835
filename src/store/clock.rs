//! Time: how old a record is and when it was captured, whatever the machine's clock did since.
//!
//! A machine without a battery for its clock boots in 1970 and jumps when NTP answers; an administrator sets it back an hour.
//! The time since boot does neither. So each arrival is kept as time since boot together with the number of the boot, and
//! for each boot the store knows one offset to 1970: the latest that was synchronised, else the latest. A step of the wall
//! clock replaces the offset of its boot, and with it the capture times of all that came before the step.
//!
//! - Within one boot an age is the difference of boot times: no step can change it.
//! - Across boots it is the difference of corrected wall clocks, when both are believed. A clock that was never synchronised
//!   and says a year before 2020 is not: then only the time that machines were seen running counts. Nothing expires because
//!   of a jump.
//!
//! Never: an age below zero, a system call for the state of NTP more than once a second.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bitcode::{Decode, Encode};

use super::log::lock;
pub use super::record::Arrival;

/// Less than this is no step: the two clocks are read one after the other, and leap seconds are not worth a message.
const STEP: i64 = 1_000_000_000;
/// A clock that was not synchronised is believed from 2020 on, ns since 1970.
const PLAUSIBLE: i64 = 1_577_836_800_000_000_000;
/// How often the machine is asked whether its clock is synchronised, ns.
const ASK_INTERVAL: u64 = 1_000_000_000;
/// Steps that are remembered for those who want to tell of them.
const STEPS: usize = 16;

/// Clocks of a machine.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// ns since 1970, as the machine believes.
    fn wall(&self) -> i64;
    /// ns since the machine started, also over suspension.
    fn boot(&self) -> u64;
    /// Whether the wall clock is synchronised with anything.
    fn synced(&self) -> bool;
    /// Name of this boot; empty when the machine does not say.
    fn boot_id(&self) -> String;
}

/// Those of this machine.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> i64 {
        wall_clock()
    }

    fn boot(&self) -> u64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)
    }

    fn synced(&self) -> bool {
        // SAFETY: a structure of integers for which zero is a value; with no modes set the call only reads.
        let (state, status) = unsafe {
            let mut timex: libc::timex = std::mem::zeroed();
            let state = libc::adjtimex(&mut timex);
            (state, timex.status)
        };
        state >= 0 && state != libc::TIME_ERROR && status & libc::STA_UNSYNC == 0
    }

    fn boot_id(&self) -> String {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
    }
}

/// ns since 1970, as the machine believes.
pub fn wall_clock() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns),
    }
}

/// What the store knows of a boot.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct BootRecord {
    pub number: u32,
    /// Digest of the boot's name; 0 when the machine does not say it.
    pub id: u128,
    /// ns from the boot's time to 1970: the latest that was synchronised, else the latest.
    pub offset: i64,
    pub synced: bool,
    /// ns since boot when it was last written down.
    pub seen: u64,
}

impl BootRecord {
    fn believed(&self) -> bool {
        self.synced || self.offset >= PLAUSIBLE
    }
}

/// Value of the meta lane: all boots of which something is stored. Rewritten in the newest extent, as cursors are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct ClockRecord {
    pub boots: Vec<BootRecord>,
}

/// FNV-1a with 128 bits; 0 for nothing.
pub fn digest(name: &str) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    if name.is_empty() {
        return 0;
    }
    name.bytes().fold(BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

/// Digest of the name of this boot; 0 when the machine does not say it.
pub fn boot_digest(clock: &dyn Clock) -> u128 {
    digest(&clock.boot_id())
}

/// Whether a wall clock that may not be synchronised can be believed.
pub fn is_plausible(wall: i64) -> bool {
    wall >= PLAUSIBLE
}

/// The wall clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockStep {
    /// Counts from 1 since the store was opened.
    pub number: u64,
    /// ns that the wall clock went forward; negative: back.
    pub by: i64,
    /// ns since 1970 after it.
    pub wall: i64,
    pub synced: bool,
}

/// The clocks of an open store and what it remembers of earlier boots.
#[derive(Debug)]
pub struct Time {
    clock: Arc<dyn Clock>,
    /// Number of this boot.
    boot: u32,
    /// Wall clock less boot time when last looked at.
    offset: AtomicI64,
    synced: AtomicBool,
    /// Boot time at which the machine is asked again whether it is synchronised.
    ask_at: AtomicU64,
    unsaved: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    boots: BTreeMap<u32, BootRecord>,
    steps: VecDeque<ClockStep>,
    counted: u64,
}

impl Time {
    /// Goes on from what the store remembers.
    pub fn new(clock: Arc<dyn Clock>, record: ClockRecord) -> Self {
        let id = digest(&clock.boot_id());
        let (wall, now, synced) = (clock.wall(), clock.boot(), clock.synced());
        let offset = offset_of(wall, now);
        let mut known =
            Known { boots: record.boots.into_iter().map(|boot| (boot.number, boot)).collect(), ..Known::default() };
        let newest = known.boots.last_key_value().map_or(0, |(number, _)| *number);
        // A boot that goes on; without a name, or when its time ran backwards, it is another.
        let same = known.boots.get(&newest).filter(|boot| id != 0 && boot.id == id && boot.seen <= now);
        let (boot, before) = match same {
            Some(boot) => (newest, Some(boot.offset)),
            None => (newest + 1, None),
        };
        known.boots.entry(boot).or_insert(BootRecord { number: boot, id, offset, synced, seen: now });
        let time = Self {
            clock,
            boot,
            offset: AtomicI64::new(before.unwrap_or(offset)),
            synced: AtomicBool::new(synced),
            ask_at: AtomicU64::new(now.saturating_add(ASK_INTERVAL)),
            unsaved: AtomicBool::new(true),
            known: Mutex::new(known),
        };
        time.look(wall, now);
        time.correct(offset, synced);
        time
    }

    /// Reads the clocks; notices when the wall clock was set.
    pub fn arrival(&self) -> Arrival {
        let now = self.clock.boot();
        self.look(self.clock.wall(), now);
        Arrival { boot: self.boot, time: now }
    }

    /// The same, and ns since 1970 as the machine believes.
    pub fn now(&self) -> (Arrival, i64) {
        let now = self.clock.boot();
        let wall = self.clock.wall();
        self.look(wall, now);
        (Arrival { boot: self.boot, time: now }, wall)
    }

    fn look(&self, wall: i64, now: u64) {
        let offset = offset_of(wall, now);
        if now >= self.ask_at.load(Ordering::Relaxed) {
            self.ask_at.store(now.saturating_add(ASK_INTERVAL), Ordering::Relaxed);
            let synced = self.clock.synced();
            if self.synced.swap(synced, Ordering::Relaxed) != synced {
                self.correct(offset, synced);
            }
        }
        let by = offset.saturating_sub(self.offset.load(Ordering::Relaxed));
        if by.unsigned_abs() > STEP as u64 {
            self.stepped(offset, wall);
        }
    }

    #[cold]
    fn stepped(&self, offset: i64, wall: i64) {
        // What has just set the clock knows.
        let synced = self.clock.synced();
        let by = offset.saturating_sub(self.offset.swap(offset, Ordering::Relaxed));
        // Another thread may have seen it first.
        if by.unsigned_abs() <= STEP as u64 {
            return;
        }
        self.synced.store(synced, Ordering::Relaxed);
        self.correct(offset, synced);
        let mut known = lock(&self.known);
        known.counted += 1;
        let number = known.counted;
        known.steps.push_back(ClockStep { number, by, wall, synced });
        if known.steps.len() > STEPS {
            known.steps.pop_front();
        }
    }

    /// Takes the offset for this boot unless a better one is known.
    fn correct(&self, offset: i64, synced: bool) {
        let mut known = lock(&self.known);
        if let Some(boot) = known.boots.get_mut(&self.boot)
            && (synced || !boot.synced)
            && (boot.synced != synced || offset.saturating_sub(boot.offset).unsigned_abs() > STEP as u64)
        {
            (boot.offset, boot.synced) = (offset, synced);
            self.unsaved.store(true, Ordering::Relaxed);
        }
    }

    /// Steps since the store was opened, after the one with number `after`; the latest of them.
    pub fn steps(&self, after: u64) -> Vec<ClockStep> {
        lock(&self.known).steps.iter().filter(|step| step.number > after).copied().collect()
    }

    /// ns since 1970, and whether that clock was synchronised; `None` when nothing is known of the boot.
    pub fn corrected(&self, arrival: Arrival) -> Option<(i64, bool)> {
        let known = lock(&self.known);
        let boot = known.boots.get(&arrival.boot)?;
        Some((boot.offset.saturating_add_unsigned(arrival.time), boot.synced))
    }

    /// How long ago it came, at least.
    pub fn age(&self, arrival: Arrival) -> Duration {
        let now = self.arrival();
        if arrival.boot == now.boot {
            return Duration::from_nanos(now.time.saturating_sub(arrival.time));
        }
        let known = lock(&self.known);
        let (Some(then), Some(current)) = (known.boots.get(&arrival.boot), known.boots.get(&now.boot)) else {
            return Duration::from_nanos(now.time);
        };
        // Machines were running so long, whatever their clocks say.
        let between: u64 = known.boots.range(arrival.boot + 1..now.boot).map(|(_, boot)| boot.seen).sum();
        let seen = now.time.saturating_add(between).saturating_add(then.seen.saturating_sub(arrival.time));
        let told = if then.believed() && current.believed() {
            let then = then.offset.saturating_add_unsigned(arrival.time);
            let now = current.offset.saturating_add_unsigned(now.time);
            u64::try_from(now.saturating_sub(then)).unwrap_or(0)
        } else {
            0
        };
        Duration::from_nanos(seen.max(told))
    }

    /// How long ago the wall clock said `wall`; `None` while it cannot be believed.
    pub fn age_of_wall(&self, wall: i64) -> Option<Duration> {
        let now = self.now().1;
        let believed = wall >= PLAUSIBLE && now >= PLAUSIBLE;
        believed.then(|| Duration::from_nanos(u64::try_from(now.saturating_sub(wall)).unwrap_or(0)))
    }

    #[cfg(test)]
    pub fn boot(&self) -> u32 {
        self.boot
    }

    /// What is to be written down; boots before `oldest` are not needed any more.
    pub fn record(&self, oldest: u32) -> ClockRecord {
        let now = self.clock.boot();
        let mut known = lock(&self.known);
        known.boots.retain(|number, _| *number >= oldest || *number == self.boot);
        if let Some(boot) = known.boots.get_mut(&self.boot) {
            boot.seen = boot.seen.max(now);
        }
        ClockRecord { boots: known.boots.values().cloned().collect() }
    }

    /// Whether the record changed since it was last taken; takes it.
    pub fn take_unsaved(&self) -> bool {
        self.unsaved.swap(false, Ordering::Relaxed)
    }

    pub fn is_unsaved(&self) -> bool {
        self.unsaved.load(Ordering::Relaxed)
    }

    pub fn set_unsaved(&self) {
        self.unsaved.store(true, Ordering::Relaxed);
    }
}

fn offset_of(wall: i64, boot: u64) -> i64 {
    wall.saturating_sub_unsigned(boot)
}

/// Clocks that go as they are told.
#[cfg(test)]
pub mod fake {
    use super::*;

    #[derive(Debug)]
    pub struct FakeClock {
        boot: AtomicU64,
        offset: AtomicI64,
        synced: AtomicBool,
        id: String,
    }

    impl FakeClock {
        pub fn new(id: &str, wall: i64, boot: u64) -> Arc<Self> {
            Arc::new(Self {
                boot: AtomicU64::new(boot),
                offset: AtomicI64::new(offset_of(wall, boot)),
                synced: AtomicBool::new(false),
                id: id.to_owned(),
            })
        }

        pub fn pass(&self, time: Duration) {
            self.boot.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
        }

        /// Sets the wall clock.
        pub fn set(&self, wall: i64, synced: bool) {
            self.offset.store(offset_of(wall, self.boot()), Ordering::Relaxed);
            self.synced.store(synced, Ordering::Relaxed);
        }
    }

    impl Clock for FakeClock {
        fn wall(&self) -> i64 {
            self.offset.load(Ordering::Relaxed).saturating_add_unsigned(self.boot())
        }

        fn boot(&self) -> u64 {
            self.boot.load(Ordering::Relaxed)
        }

        fn synced(&self) -> bool {
            self.synced.load(Ordering::Relaxed)
        }

        fn boot_id(&self) -> String {
            self.id.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::FakeClock;
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const HOUR: Duration = Duration::from_secs(3600);
    /// 2026.
    const NOW: i64 = 1_770_000_000 * SECOND;

    #[test]
    fn an_answer_from_ntp_corrects_what_came_in_1970() {
        let clock = FakeClock::new("a", 5 * SECOND, 5_000_000_000);
        let time = Time::new(clock.clone(), ClockRecord::default());
        let early = time.arrival();
        assert_eq!(time.corrected(early), Some((5 * SECOND, false)));
        clock.pass(HOUR);
        clock.set(NOW, true);
        assert_eq!(time.age(early), HOUR, "not fifty years");
        assert_eq!(time.corrected(early), Some((NOW - 3600 * SECOND, true)));
        let steps = time.steps(0);
        assert_eq!(steps.iter().map(|s| (s.by, s.synced)).collect::<Vec<_>>(), [(NOW - 3605 * SECOND, true)]);
        assert_eq!(time.steps(steps[0].number), []);
    }

    #[test]
    fn an_hour_back_changes_no_age_and_no_synchronised_time() {
        let clock = FakeClock::new("a", NOW, 5_000_000_000);
        clock.set(NOW, true);
        let time = Time::new(clock.clone(), ClockRecord::default());
        let first = time.arrival();
        clock.pass(HOUR);
        clock.set(NOW, false);
        let second = time.arrival();
        assert_eq!(time.age(first), HOUR);
        assert_eq!(time.corrected(first), Some((NOW, true)));
        assert_eq!(time.corrected(second), Some((NOW + 3600 * SECOND, true)), "the synchronised clock was right");
        assert_eq!(time.steps(0)[0].by, -3600 * SECOND);
    }

    #[test]
    fn an_age_across_boots_never_counts_a_jump() {
        let old = FakeClock::new("a", 0, 0);
        let time = Time::new(old.clone(), ClockRecord::default());
        let arrival = time.arrival();
        old.pass(HOUR);
        let record = time.record(0);
        let new = FakeClock::new("b", NOW, 60_000_000_000);
        let time = Time::new(new.clone(), record.clone());
        assert_eq!(time.age(arrival), HOUR + Duration::from_secs(60), "what was seen passing");
        let back = FakeClock::new("b", NOW, 0);
        back.set(NOW, true);
        let mut known = record;
        known.boots[0].offset = NOW + 3600 * SECOND;
        assert_eq!(Time::new(back, known).age(arrival), HOUR, "never below what was seen");
    }

    #[test]
    fn an_age_across_boots_goes_by_believed_clocks() {
        let clock = FakeClock::new("a", NOW, 0);
        let time = Time::new(clock, ClockRecord::default());
        let arrival = time.arrival();
        let time = Time::new(FakeClock::new("b", NOW + 86_400 * SECOND, 0), time.record(0));
        assert_eq!(time.age(arrival), 24 * HOUR);
        assert_eq!(time.corrected(arrival), Some((NOW, false)));
    }

    #[test]
    fn a_step_between_two_opens_of_one_boot_is_seen() {
        let clock = FakeClock::new("a", 0, 0);
        let time = Time::new(clock.clone(), ClockRecord::default());
        let arrival = time.arrival();
        let record = time.record(0);
        clock.pass(HOUR);
        clock.set(NOW, true);
        let time = Time::new(clock, record);
        assert_eq!(time.boot(), arrival.boot);
        assert_eq!((time.steps(0).len(), time.age(arrival)), (1, HOUR));
        assert_eq!(time.corrected(arrival), Some((NOW - 3600 * SECOND, true)));
    }

    #[test]
    fn boots_without_records_are_forgotten() {
        let mut record = ClockRecord::default();
        for id in ["a", "b", "c"] {
            record = Time::new(FakeClock::new(id, NOW, 0), record).record(0);
        }
        assert_eq!(record.boots.len(), 3);
        let time = Time::new(FakeClock::new("c", NOW, 0), record);
        assert_eq!(time.record(2).boots.iter().map(|b| b.number).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn the_machine_has_clocks() {
        let time = Time::new(Arc::new(SystemClock), ClockRecord::default());
        let arrival = time.arrival();
        let (wall, _) = time.corrected(arrival).unwrap();
        assert!((wall - wall_clock()).abs() < 60 * SECOND);
        assert!(time.age(arrival) < Duration::from_secs(60));
    }
}
