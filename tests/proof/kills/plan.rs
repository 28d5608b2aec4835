//! What each process does, from a seed: whoever kills it and the process itself come to the same plan.

use std::fmt;
use std::time::Duration;

use super::reel::KINDS;
use crate::victims::Dice;

pub const DURABILITIES: [&str; 4] = ["none", "crash", "interval", "power"];
pub const PERSISTS: [&str; 2] = ["always", "spill"];

/// Some runs on one store, each killed, and a last one that drains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    pub seed: u64,
    pub kills: u64,
    /// Into [`DURABILITIES`] and [`PERSISTS`]; `None` for another one in each run.
    pub durability: Option<usize>,
    pub persist: Option<usize>,
    /// Time that a process lives at most, in ms.
    pub longest: u64,
    /// How many reels there are of each kind.
    pub reels: [u64; KINDS],
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = |of: Option<usize>| of.map_or(9, |at| at);
        let Self { seed, kills, longest, .. } = self;
        write!(f, "{seed} {kills} {} {} {longest}", some(self.durability), some(self.persist))?;
        self.reels.iter().try_for_each(|count| write!(f, " {count}"))
    }
}

impl Round {
    /// One of a long series; every fourth changes durability and persistence from run to run.
    pub fn any(seed: u64, reels: [u64; KINDS]) -> Self {
        let mut dice = Dice::new(seed);
        let (kills, longest) = (1 + dice.below(12), 100 + dice.below(500));
        let (durability, persist) = (dice.below(4) as usize, dice.below(2) as usize);
        let mixed = dice.below(4) == 0;
        let fixed = |at: usize| (!mixed).then_some(at);
        Self { seed, kills, durability: fixed(durability), persist: fixed(persist), longest, reels }
    }

    pub fn parse(text: &str) -> Self {
        let numbers: Vec<u64> = text.split(' ').map(|number| number.parse().unwrap()).collect();
        let [seed, kills, durability, persist, longest, ref reels @ ..] = numbers[..] else { panic!("{text}") };
        let some = |at: u64| (at != 9).then_some(at as usize);
        let (durability, persist) = (some(durability), some(persist));
        Self { seed, kills, durability, persist, longest, reels: reels.try_into().unwrap() }
    }

    fn dice(&self, part: u64) -> Dice {
        let mut dice = Dice::new(self.seed.wrapping_add(part << 32));
        dice.below(2);
        dice
    }

    /// Kind and number of the reel of each stream.
    pub fn streams(&self) -> Vec<(usize, usize)> {
        let mut dice = self.dice(0xFFFF);
        let all = 1 + dice.below((1 << KINDS) - 1);
        let kinds = (0..KINDS).filter(|kind| all & (1 << kind) != 0);
        kinds.map(|kind| (kind, dice.below(self.reels[kind]) as usize)).collect()
    }

    /// Of the process: extents of 1, 4 or 16 MiB.
    pub fn process_memory(&self) -> u64 {
        [8, 8, 8, 32, 128][self.dice(0xFFFE).below(5) as usize] << 20
    }

    pub fn plan(&self, run: u64) -> Plan {
        let mut dice = self.dice(run);
        let drains = run == self.kills;
        let one_of = |dice: &mut Dice, fixed: Option<usize>, all: usize| {
            let any = dice.below(all as u64) as usize;
            fixed.unwrap_or(any)
        };
        let durability = one_of(&mut dice, self.durability, DURABILITIES.len());
        // Many while it opens and while the backlog is read.
        let longest = [8, 60, self.longest, self.longest][dice.below(4) as usize];
        let killed_after = dice.below(longest * 1000);
        let streams = self.streams();
        let stream = |_| StreamPlan {
            persist: one_of(&mut dice, self.persist, PERSISTS.len()),
            explicit: dice.below(3) == 0,
            acknowledged_after: Duration::from_millis(
                [0, 0, 50, 5000][dice.below(if drains { 2 } else { 4 }) as usize],
            ),
            behaviour: if drains { Behaviour::Takes } else { Behaviour::of(&mut dice) },
            memory: [20_000, 300_000, 8 << 20][dice.below(3) as usize],
            spill_after: [1, 20, 1000][dice.below(3) as usize] * 1_000_000,
            retry: [1, 10, 200][dice.below(3) as usize] * 1_000_000,
            burst: [100_000, 1 << 20, 3 << 20, 8 << 20][dice.below(4) as usize],
        };
        Plan { durability, killed_after, drains, streams: streams.iter().map(stream).collect() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub durability: usize,
    /// In us.
    pub killed_after: u64,
    /// Feeds nothing, takes everything, ends in order.
    pub drains: bool,
    pub streams: Vec<StreamPlan>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPlan {
    pub persist: usize,
    pub explicit: bool,
    /// How long after it came; some not within the life of the process.
    pub acknowledged_after: Duration,
    pub behaviour: Behaviour,
    pub memory: u64,
    /// In ns.
    pub spill_after: u64,
    pub retry: u64,
    /// What is fed without a pause, in bytes.
    pub burst: u64,
}

impl Plan {
    pub fn is_logged(&self) -> bool {
        DURABILITIES[self.durability] != "none"
    }
}

impl StreamPlan {
    pub fn spills(&self) -> bool {
        PERSISTS[self.persist] == "spill"
    }
}

/// What downstream does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    Takes,
    /// Takes so many us for each.
    Slow(u64),
    /// Takes so many, then does not return.
    Blocks(u64),
    Refuses,
    /// Refuses one in so many.
    NowAndThen(u64),
}

impl Behaviour {
    fn of(dice: &mut Dice) -> Self {
        match dice.below(5) {
            0 => Self::Takes,
            1 => Self::Slow(100 + dice.below(3000)),
            2 => Self::Blocks(dice.below(200)),
            3 => Self::Refuses,
            _ => Self::NowAndThen(2 + dice.below(400)),
        }
    }

    pub const NAMES: [&str; 5] = ["takes", "slow", "blocks", "refuses", "now and then"];

    pub fn name(self) -> &'static str {
        Self::NAMES[match self {
            Self::Takes => 0,
            Self::Slow(_) => 1,
            Self::Blocks(_) => 2,
            Self::Refuses => 3,
            Self::NowAndThen(_) => 4,
        }]
    }
}
