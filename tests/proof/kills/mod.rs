//! Processes that feed real encoded streams through `diskbuffer`, several into one store, are killed at any time; the next one goes
//! on with the store, and the last one drains it. What came out over all of them is judged.
//!
//! Clips lie beside the repository in `../shared/media`; without them, and beside them, streams are generated.

mod journal;
mod oracle;
mod plan;
mod receiver;
mod reel;
mod sender;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::Duration;

use journal::{Told, now};
use oracle::{Run, Tally, judge};
use plan::{Behaviour, DURABILITIES, PERSISTS, Round};
use reel::Reel;

use crate::victims::{Dice, Victim};

/// A drain takes seconds.
const PATIENCE: Duration = Duration::from_secs(180);

/// Not a test by itself: what is killed.
#[test]
fn child() {
    sender::run();
}

/// The reels and where they lie.
struct Cinema {
    place: tempfile::TempDir,
    reels: [Vec<Reel>; reel::KINDS],
}

impl Cinema {
    fn open() -> Self {
        let place = tempfile::tempdir().unwrap();
        let reels = reel::all();
        for (kind, reels) in reels.iter().enumerate() {
            for (number, reel) in reels.iter().enumerate() {
                reel.save(&place.path().join(format!("reel-{kind}-{number}"))).unwrap();
            }
        }
        Self { place, reels }
    }

    fn counts(&self) -> [u64; reel::KINDS] {
        self.reels.each_ref().map(|reels| reels.len() as u64)
    }
}

/// What all rounds came to.
#[derive(Default)]
struct Table {
    /// By durability and persist.
    kinds: BTreeMap<(usize, usize), (u64, Tally)>,
    /// Kills by what downstream did; a stream each.
    behaviours: BTreeMap<&'static str, u64>,
    kills: u64,
}

impl Table {
    fn print(&self) {
        println!(
            "durability  persist  stream kills   accepted  delivered   repeated       lost  note ms (median, most)"
        );
        for ((durability, persist), (kills, tally)) in &self.kinds {
            let Tally { accepted, delivered, repeated, lost, ages } = tally;
            let mut ages = ages.clone();
            ages.sort_unstable();
            let ms = |age: Option<&u64>| age.map_or("-".to_owned(), |age| format!("{}", age / 1_000_000));
            println!(
                "{:10}  {:7}  {kills:12} {accepted:10} {delivered:10} {repeated:10} {lost:10}  {} {}",
                DURABILITIES[*durability],
                PERSISTS[*persist],
                ms(ages.get(ages.len() / 2)),
                ms(ages.last())
            );
        }
        println!("streams whose sink, when it was killed: {:?}", self.behaviours);
    }
}

/// Kills so many processes on one store, drains it, and judges.
fn play(cinema: &Cinema, round: &Round, table: &mut Table) {
    let temp = tempfile::tempdir().unwrap();
    let text = round.to_string();
    let streams = round.streams();
    let mut runs: Vec<Vec<Run>> = streams.iter().map(|_| Vec::new()).collect();
    for at in 0..=round.kills {
        let plan = round.plan(at);
        let number = at.to_string();
        let environment = [
            (sender::ROUND, text.as_ref()),
            (sender::AT, number.as_ref()),
            (sender::PLACE, temp.path().as_os_str()),
            (sender::REELS, cinema.place.path().as_os_str()),
        ];
        let fails = |wrong: &str| -> ! { panic!("seed {}, round {text}, run {at}: {wrong}\n{plan:?}", round.seed) };
        let victim = Victim::start("kills::child", &environment.map(|(name, value): (_, &OsStr)| (name, value)));
        let (told, killed_at) = if plan.drains {
            (victim.wait(PATIENCE), now())
        } else {
            std::thread::sleep(Duration::from_micros(plan.killed_after));
            let killed_at = now();
            (victim.kill(), killed_at)
        };
        let told = told.unwrap_or_else(|wrong| fails(&wrong));
        if let Some(wrong) = told.iter().find(|line| line.starts_with("wrong ")) {
            fails(wrong);
        }
        for (stream, runs) in runs.iter_mut().enumerate() {
            let lines = journal::read(&journal::path(temp.path(), at, stream));
            let plan = &round.plan(at);
            runs.push(Run { plan: plan.streams[stream].clone(), logged: plan.is_logged(), lines, killed_at, late: 0 });
        }
        let late = lateness(&runs[0][at as usize]);
        runs.iter_mut().for_each(|runs| runs[at as usize].late = late);
    }
    for (stream, (runs, (kind, number))) in runs.iter().zip(&streams).enumerate() {
        let tallies = judge(&cinema.reels[*kind][*number], runs).unwrap_or_else(|wrong| {
            let plans: Vec<_> = (0..=round.kills).map(|run| round.plan(run)).collect();
            panic!("seed {}, round {text}, stream {stream} ({kind}, {number}): {wrong}\n{plans:#?}", round.seed)
        });
        for (at, tally) in tallies.iter().enumerate() {
            let plan = round.plan(at as u64);
            let (kills, sum) = table.kinds.entry((plan.durability, plan.streams[stream].persist)).or_default();
            *kills += u64::from(!plan.drains);
            sum.add(tally);
            if !plan.drains {
                *table.behaviours.entry(plan.streams[stream].behaviour.name()).or_default() += 1;
            }
        }
    }
    table.kills += round.kills;
}

/// By how much the threads of a process were late in its last second.
fn lateness(run: &Run) -> u64 {
    let beats = run.lines.iter().filter(|(_, told)| *told == Told::Beat).map(|(when, _)| *when);
    let beats: Vec<u64> = beats.chain([run.killed_at]).collect();
    let recent = beats.windows(2).filter(|pair| pair[1] + 1_000_000_000 > run.killed_at);
    recent.map(|pair| pair[1].saturating_sub(pair[0]).saturating_sub(sender::BEAT.as_nanos() as u64)).max().unwrap_or(0)
}

#[test]
fn what_was_accepted_comes_out_after_thirty_kills() {
    let cinema = Cinema::open();
    let mut table = Table::default();
    let mut dice = Dice::new(7);
    let mut round = |durability, persist, kills| {
        // Most are killed early; one at least shall come to something.
        let lives = |round: &Round| (0..kills).any(|run| round.plan(run).killed_after > 120_000);
        let reels = cinema.counts();
        let mut any = std::iter::from_fn(|| {
            Some(Round { seed: dice.below(1 << 40), kills, durability, persist, longest: 250, reels })
        });
        let round = any.find(lives).unwrap();
        play(&cinema, &round, &mut table);
    };
    for durability in 0..DURABILITIES.len() {
        for persist in 0..PERSISTS.len() {
            round(Some(durability), Some(persist), 3);
        }
    }
    round(None, None, 6);
    table.print();
    assert_eq!(table.kills, 30);
}

/// For `scripts/soak`: STREAMBUFFER_SOAK_KILLS says how many, STREAMBUFFER_SOAK_SEED repeats a round.
mod soak {
    use super::*;
    use crate::victims::{seed, variable};

    #[test]
    #[ignore = "long"]
    fn kills_by_the_thousand() {
        let cinema = Cinema::open();
        let (mut table, mut seed) = (Table::default(), seed());
        while table.kills < variable("STREAMBUFFER_SOAK_KILLS").unwrap_or(1000) {
            println!("seed {seed}, after {} kills", table.kills);
            play(&cinema, &Round::any(seed, cinema.counts()), &mut table);
            seed = seed.wrapping_add(0x9E37_79B9);
        }
        table.print();
        assert!(table.kills < 100 || Behaviour::NAMES.iter().all(|name| table.behaviours.contains_key(name)));
        println!("{} kills", table.kills);
    }
}
