//! The judge: from what all processes of a store told, what the promises say of one stream.
//!
//! - **No loss.** What was accepted comes out, over all runs. With `durability=none` the tail of a run may be missing, with
//!   `persist=spill` what `stats` had never shown as stored; what is missing of a run is its tail.
//! - **Order.** As it was accepted. Repeats only where a process begins or downstream had refused something, from a keyframe, and
//!   from no further back than the note of what was acknowledged was old.
//! - **Accounts.** Sums go on over restarts, nothing is lost but with `durability=none`, positions name one unit for ever.

use std::collections::{BTreeMap, BTreeSet};

use super::journal::{Line, Stats, Told};
use super::plan::StreamPlan;
use super::reel::{RUN, Reel, Start, place_of, run_of};

const MS: u64 = 1_000_000;
/// Promised age of the note of what was acknowledged, and what a busy machine may add besides what was measured.
const NOTE: u64 = 100 * MS;
const BUSY: u64 = 400 * MS;
/// Downstream is believed again after 150 ms of taking; surely after this.
const TRUSTED: u64 = 500 * MS;

/// What a process did with a stream.
pub struct Run {
    pub plan: StreamPlan,
    /// Not with `durability=none`.
    pub logged: bool,
    pub lines: Vec<Line>,
    /// When it was killed, and by how much its threads were late before.
    pub killed_at: u64,
    pub late: u64,
}

impl Run {
    /// What was acknowledged then is surely noted on the disk.
    fn noted_by(&self) -> u64 {
        self.killed_at.saturating_sub(NOTE + BUSY + 2 * self.late)
    }
}

#[derive(Debug, Default, Clone)]
pub struct Tally {
    pub accepted: u64,
    pub delivered: u64,
    pub repeated: u64,
    /// Accepted in a run that may lose its tail, and never seen.
    pub lost: u64,
    /// How old the notes were, in ns, where each unit shows it.
    pub ages: Vec<u64>,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.accepted += other.accepted;
        self.delivered += other.delivered;
        self.repeated += other.repeated;
        self.lost += other.lost;
        self.ages.extend(&other.ages);
    }
}

/// What a run has fed.
#[derive(Debug, Default)]
struct Fed {
    accepted: u64,
    /// Below this: with what `chain` had taken and not returned from.
    limit: u64,
    /// Below this nothing may be missing.
    settled: u64,
    /// So many are in the sums with which the next one begins, at least.
    noted: u64,
    lossless: bool,
    /// What was received before, when that was told.
    base: Option<u64>,
}

impl Fed {
    fn new(reel: &Reel, at: u64, run: &Run) -> Self {
        let told = || run.lines.iter().map(|(_, told)| *told);
        let accepted = told().filter(|told| matches!(told, Told::Accepted(_))).count() as u64;
        let mut stats = told().filter_map(|told| if let Told::Stats(stats) = told { Some(stats) } else { None });
        let base = stats.next().map(|stats| stats.received);
        let limit = accepted + reel.untold(at * RUN + accepted);
        let lossless = run.logged && !run.plan.spills();
        let noted_by = run.noted_by();
        let settled = |until: u64| match base {
            _ if lossless => accepted,
            Some(base) if run.logged => {
                let stats = run.lines.iter().filter(|(when, _)| *when <= until);
                let settled = stats.filter_map(|(_, told)| match told {
                    Told::Stats(stats) => Some((stats.received - stats.queued).saturating_sub(base)),
                    _ => None,
                });
                settled.max().unwrap_or(0).min(limit)
            }
            _ => 0,
        };
        let (noted, settled) = (settled(noted_by), settled(u64::MAX));
        Self { accepted, limit, settled, noted, lossless, base }
    }
}

/// Acknowledgements as far as they are known to count.
#[derive(Default)]
struct Acks {
    /// Number and when.
    counted: Vec<(u64, u64)>,
    /// Since the first that downstream took after it had refused; what waits for it to be believed.
    probation: Option<(Option<u64>, Vec<u64>)>,
}

impl Acks {
    fn refused(&mut self) {
        self.probation = Some((None, Vec::new()));
    }

    /// Downstream has taken something.
    fn taken(&mut self, at: u64) {
        if let Some((since, waiting)) = &mut self.probation
            && at.saturating_sub(*since.get_or_insert(at)) >= TRUSTED
        {
            let waiting = std::mem::take(waiting);
            self.counted.extend(waiting.into_iter().map(|number| (number, at)));
            self.probation = None;
        }
    }

    fn acknowledged(&mut self, number: u64, at: u64) {
        match &mut self.probation {
            Some((_, waiting)) => waiting.push(number),
            None => self.counted.push((number, at)),
        }
    }

    fn newest(&self, until: u64) -> Option<u64> {
        self.counted.iter().filter(|(_, at)| *at <= until).map(|(number, _)| *number).max()
    }
}

pub struct Oracle<'a> {
    reel: &'a Reel,
    runs: &'a [Run],
    fed: Vec<Fed>,
    /// Positions by number.
    seen: BTreeMap<u64, u64>,
    marks: BTreeSet<u64>,
    /// Surely noted on the disk.
    saved: Option<u64>,
    /// What may be noted at most: what follows has to come.
    reach: Option<u64>,
    tallies: Vec<Tally>,
}

/// A verdict for each run, the last one of which drained the store.
pub fn judge(reel: &Reel, runs: &[Run]) -> Result<Vec<Tally>, String> {
    let fed = runs.iter().zip(0..).map(|(run, at)| Fed::new(reel, at, run)).collect();
    let tallies = vec![Tally::default(); runs.len()];
    let (seen, marks) = Default::default();
    let mut oracle = Oracle { reel, runs, fed, seen, marks, saved: None, reach: None, tallies };
    for run in 0..runs.len() {
        oracle.sums_go_on(run)?;
        oracle.order(run).map_err(|wrong| format!("run {run}: {wrong}"))?;
    }
    oracle.nothing_is_missing()?;
    oracle.everything_is_accounted_for()?;
    Ok(oracle.tallies)
}

impl Oracle<'_> {
    /// Whether all that stands between two units may be missing.
    fn may_follow(&self, previous: Option<u64>, number: u64, discont: bool) -> bool {
        let run = run_of(number);
        if let Some(previous) = previous.filter(|previous| run_of(*previous) == run) {
            return previous < number && self.were_spared(previous + 1, number, discont);
        }
        let first = previous.map_or(0, |previous| run_of(previous) + 1);
        let rest = previous.is_none_or(|previous| self.may_lack(previous + 1));
        let between = (first..run).all(|run| self.may_lack(run * RUN));
        run >= first && rest && between && self.were_spared(run * RUN, number, discont)
    }

    /// What was delivered from memory and never stored is not there to be repeated: the repeat goes on at a keyframe.
    fn were_spared(&self, from: u64, number: u64, discont: bool) -> bool {
        let resumes = discont && self.reel.unit(number).start != Start::No;
        from == number || (resumes && (from..number).all(|number| self.was_spared(number)))
    }

    /// What was being sent again was acknowledged meanwhile: it goes on where it would be resumed then.
    fn was_overtaken(&self, previous: u64, number: u64, discont: bool, acknowledged: &[u64]) -> bool {
        let resumes = discont && acknowledged.iter().any(|last| self.reel.resume_at(last + 1) == number);
        previous < number && (resumes || self.may_follow(self.reach, number, discont))
    }

    fn was_spared(&self, number: u64) -> bool {
        let spills = self.runs[run_of(number) as usize].plan.spills();
        spills && Some(number) <= self.reach && self.seen.contains_key(&number)
    }

    /// Whether all of its run from here on may not be there: it may be lost, or was delivered from memory and never stored.
    fn may_lack(&self, from: u64) -> bool {
        let run = run_of(from);
        let end = run * RUN + self.fed[run as usize].settled;
        (from..end).all(|number| self.was_spared(number))
    }

    /// The last place to begin at that a note of `acknowledged` allows.
    fn resume_after(&self, acknowledged: Option<u64>) -> u64 {
        acknowledged.map_or(0, |number| self.reel.resume_at(number + 1))
    }

    fn order(&mut self, at: usize) -> Result<(), String> {
        let run = &self.runs[at];
        let mut previous: Option<u64> = None;
        let mut refused = None;
        let mut origin = 0;
        let mut acks = Acks::default();
        let mut acknowledging = Vec::new();
        for &(when, told) in &run.lines {
            match told {
                Told::Refused(number) => {
                    refused = Some(number);
                    acks.refused();
                }
                Told::Delivered { number, position, discont } => {
                    let fed = self.fed.get(run_of(number) as usize).filter(|_| run_of(number) <= at as u64);
                    if fed.is_none_or(|fed| place_of(number) >= fed.limit) {
                        return Err(format!("{number} was never fed"));
                    }
                    let unit = self.reel.unit(number);
                    let acknowledged = acks.newest(when).max(self.saved);
                    let lowest = self.resume_after(acknowledged);
                    let begins = previous.is_none() || refused.is_some();
                    match (previous, refused.take()) {
                        (_, Some(refused)) if number > refused => {
                            return Err(format!("{number} follows the refused {refused}"));
                        }
                        (None, _) if Some(number) > self.reach && !self.may_follow(self.reach, number, discont) => {
                            return Err(format!("it begins at {number}, but {:?} is the last one noted", self.reach));
                        }
                        (Some(previous), None)
                            if ![
                                self.may_follow(Some(previous), number, discont),
                                self.left_out(origin, previous, number),
                                run.plan.explicit && self.was_overtaken(previous, number, discont, &acknowledging),
                            ]
                            .contains(&true) =>
                        {
                            return Err(format!("{number} follows {previous}"));
                        }
                        _ => {}
                    }
                    if begins || (discont && unit.start != Start::No) {
                        origin = number;
                    }
                    if begins {
                        if unit.start == Start::No {
                            return Err(format!("it begins at {number}, which is no keyframe"));
                        }
                        if number < lowest {
                            return Err(format!("it begins at {number}, but {acknowledged:?} was noted: {lowest}"));
                        }
                        if !discont && run_of(number) < at as u64 {
                            return Err(format!("it begins at {number} without DISCONT"));
                        }
                    }
                    if previous.is_none() {
                        self.note_age(at, number);
                    }
                    self.name(number, position)?;
                    self.tallies[at].repeated += u64::from(self.seen.insert(number, position).is_some());
                    previous = Some(number);
                    if !run.plan.explicit {
                        acks.acknowledged(number, when);
                        self.reach = self.reach.max(Some(number));
                    }
                    acks.taken(when);
                }
                Told::DeliveredMark(number) => _ = self.marks.insert(number),
                Told::Acknowledging(number) => {
                    self.reach = self.reach.max(Some(number));
                    acknowledging.push(number);
                }
                Told::Acknowledged(number) => acks.acknowledged(number, when),
                Told::Accepted(_) | Told::AcceptedMark(_) | Told::Stats(_) | Told::Beat => {}
            }
        }
        self.saved = self.saved.max(acks.newest(run.noted_by()));
        Ok(())
    }

    /// Leading pictures of the keyframe at which output began are left out.
    fn left_out(&self, origin: u64, previous: u64, number: u64) -> bool {
        self.reel.unit(origin).start == Start::Open
            && run_of(origin) == run_of(number)
            && previous < number
            && (previous + 1..number).all(|number| self.reel.unit(number).leading)
            && (origin + 1..number).all(|number| self.reel.unit(number).start == Start::No)
    }

    /// A position is that of one unit for ever, and grows.
    fn name(&self, number: u64, position: u64) -> Result<(), String> {
        let known = self.seen.get(&number).is_none_or(|known| *known == position);
        let before = self.seen.range(..number).next_back().is_none_or(|(_, before)| *before < position);
        let after = self.seen.range(number + 1..).next().is_none_or(|(_, after)| *after > position);
        let same = self.seen.get(&number);
        (known && before && after)
            .then_some(())
            .ok_or_else(|| format!("{number} has position {position}, was {same:?}"))
    }

    /// Where each unit is a place to resume at, a repeat shows how old the note was.
    fn note_age(&mut self, at: usize, number: u64) {
        let every = self.reel.units.iter().all(|unit| unit.start == Start::Closed);
        let Some(before) = at.checked_sub(1).map(|before| &self.runs[before]).filter(|run| every && !run.plan.explicit)
        else {
            return;
        };
        let taken = before.lines.iter().find_map(|(when, told)| {
            matches!(told, Told::Delivered { number: taken, .. } if *taken == number).then_some(*when)
        });
        let refused = before.lines.iter().any(|(_, told)| matches!(told, Told::Refused(_)));
        if let Some(taken) = taken.filter(|_| !refused) {
            self.tallies[at].ages.push(before.killed_at.saturating_sub(taken));
        }
    }

    fn nothing_is_missing(&mut self) -> Result<(), String> {
        for (run, fed) in (0..).zip(&self.fed) {
            let seen = |place: u64| self.seen.contains_key(&(run * RUN + place));
            let missing: Vec<u64> = (0..fed.accepted.max(fed.settled)).filter(|place| !seen(*place)).collect();
            let last = self.seen.range(run * RUN..(run + 1) * RUN).next_back();
            if let (Some(first), Some((last, _))) = (missing.first(), last)
                && *first < place_of(*last)
            {
                return Err(format!("of run {run} {missing:?} are missing, but {last} is there"));
            }
            if missing.first().is_some_and(|first| *first < fed.settled) {
                return Err(format!("of run {run} {missing:?} are missing: {fed:?}"));
            }
            let marks = self.runs[run as usize].lines.iter().filter_map(|(_, told)| match told {
                Told::AcceptedMark(number) => Some(*number),
                _ => None,
            });
            let missed: Vec<u64> = marks
                .filter(|number| !self.marks.contains(number) && (fed.lossless || place_of(*number) < fed.settled))
                .collect();
            if !missed.is_empty() {
                return Err(format!("of run {run} the events before {missed:?} are missing"));
            }
            self.survives_what_is_durable(run, missing.first().copied())?;
            let tally = &mut self.tallies[run as usize];
            tally.accepted = fed.accepted;
            tally.lost = missing.len() as u64;
            tally.delivered =
                (0..fed.limit).filter(|place| self.seen.contains_key(&(run * RUN + place))).count() as u64;
        }
        Ok(())
    }

    /// What `durable-position` has named is not missing.
    fn survives_what_is_durable(&self, run: u64, missing: Option<u64>) -> Result<(), String> {
        let before =
            missing.and_then(|place| place.checked_sub(1)).and_then(|place| self.seen.get(&(run * RUN + place)));
        let durable = self.runs[run as usize].lines.iter().filter_map(|(_, told)| match told {
            Told::Stats(stats) => Some(stats.durable),
            _ => None,
        });
        match (before, durable.max()) {
            (Some(before), Some(durable)) if durable >= before + Reel::BETWEEN => {
                Err(format!("of run {run} what followed position {before} is missing, but {durable} was durable"))
            }
            _ => Ok(()),
        }
    }

    /// What was received before a run is what it begins with.
    fn sums_go_on(&self, at: usize) -> Result<(), String> {
        let before = &self.fed[..at];
        let Some(base) = self.fed[at].base else { return Ok(()) };
        let most = before.iter().map(|fed| fed.limit).sum();
        let least: u64 = before.iter().map(|fed| fed.noted).sum();
        (least..=most)
            .contains(&base)
            .then_some(())
            .ok_or_else(|| format!("run {at} begins with {base} received instead of {least} to {most}"))
    }

    fn everything_is_accounted_for(&self) -> Result<(), String> {
        let last = self.runs.last().and_then(|run| {
            run.lines.iter().rev().find_map(|(_, told)| if let Told::Stats(stats) = told { Some(*stats) } else { None })
        });
        let stats: Stats = last.ok_or("the last run tells nothing")?;
        let seen = self.seen.len() as u64;
        if stats.delivered + stats.bypassed + stats.lost != stats.received {
            return Err(format!("not all is accounted for: {stats:?}"));
        }
        let logged = self.runs.iter().all(|run| run.logged);
        if logged && stats.lost > 0 {
            return Err(format!("nothing may be lost: {stats:?}"));
        }
        let exact = self.fed.iter().all(|fed| fed.lossless);
        if exact && (stats.received, stats.bypassed) != (seen, 0) {
            return Err(format!("{seen} came out: {stats:?}"));
        }
        // What is not there any more was never seen, or was delivered and not noted.
        let unlogged = self.runs.iter().zip(&self.fed).filter(|(run, _)| !run.logged);
        let fed: u64 = unlogged.map(|(_, fed)| fed.limit).sum();
        (stats.lost <= fed).then_some(()).ok_or_else(|| format!("of {fed} that could be lost: {stats:?}"))
    }
}
