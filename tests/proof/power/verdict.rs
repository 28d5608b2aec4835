//! What has to come out of a store after a power cut, and whether it does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use super::feeder::{RUN, Scenario, number_of, stream_of, unit};
use crate::common::*;

/// Numbers of what is pushed after the cut.
const AFTER: u64 = 900;
/// That many to each stream.
const NEW: u64 = 3;

/// What was promised of a stream up to some place in a record.
#[derive(Debug, Clone, Default)]
pub struct Promised {
    begun: BTreeSet<u64>,
    accepted: BTreeSet<u64>,
    done: BTreeSet<u64>,
    durable: u64,
    /// By position: what anybody was shown under it.
    published: BTreeMap<u64, u64>,
}

/// By stream.
#[derive(Debug, Clone, Default)]
pub struct Ledger(pub BTreeMap<u64, Promised>);

impl Ledger {
    pub fn take(&mut self, mark: &str) {
        let mut words = mark.split(' ');
        let kind = words.next().unwrap();
        let numbers: Vec<u64> = words.map(|word| word.parse().unwrap()).collect();
        let stream = match (kind, numbers.first()) {
            ("durable" | "done-until", Some(stream)) => *stream,
            (_, Some(unit)) => stream_of(*unit),
            (_, None) => return,
        };
        let promised = self.0.entry(stream).or_default();
        match (kind, numbers.as_slice()) {
            ("push", [unit]) => _ = promised.begun.insert(*unit),
            ("ok", [unit]) => _ = promised.accepted.insert(*unit),
            ("done", [unit]) => _ = promised.done.insert(*unit),
            ("done-until", [_, position]) => {
                promised.done.extend(promised.published.range(..=position).map(|(_, unit)| *unit));
            }
            ("durable", [_, position]) => promised.durable = *position,
            ("sent", [unit, position]) => {
                let before = promised.published.insert(*position, *unit);
                assert!(before.is_none_or(|before| before == *unit), "{position} names {before:?} and {unit}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The position of each unit, of all streams: it never changes.
pub type Positions = HashMap<u64, u64>;

/// What came out.
pub struct Drained {
    pub units: Vec<(u64, u64)>,
    /// Damage that was told of.
    pub told: Vec<String>,
    /// Buffers that are counted as lost.
    pub lost: u64,
}

/// Drains a store; by stream. `expected` is how many streams it may have.
fn drain(location: &Path, scenario: &Scenario) -> Result<Vec<Drained>, String> {
    let rigs: Vec<_> = (0..scenario.streams)
        .map(|stream| {
            let mut properties = scenario.properties(stream);
            properties.retain(|(name, _)| *name != "ack-mode");
            let properties: Vec<_> = properties.iter().map(|(name, value)| (*name, value.as_str())).collect();
            Rig::new(location, &properties)
        })
        .collect();
    for (stream, rig) in (0..).zip(&rigs) {
        rig.start_stream("after", &h264_caps());
        (0..NEW).for_each(|at| rig.push(unit(number_of(stream, AFTER, at))));
        rig.eos();
    }
    let drained = rigs.iter().map(|rig| {
        rig.sink.wait_eos();
        until("all is counted", || rig.stat("pending") == 0);
        rig.check_accounts();
        let (buffers, positions, events) = (rig.sink.buffers(), rig.sink.positions(), rig.sink.events());
        for kind in [gst::EventType::StreamStart, gst::EventType::Segment] {
            if !buffers.is_empty() && !events.iter().any(|(at, event)| *at == 0 && event.type_() == kind) {
                return Err(format!("no {kind:?} before {}", number(&buffers[0])));
            }
        }
        let mut units: Vec<(u64, u64)> = Vec::new();
        for (seen, position) in buffers.iter().zip(positions) {
            let unit = number(seen);
            same(seen, &see(&super::feeder::unit(unit)))?;
            if let Some((before, _)) = units.last() {
                let follows = unit == before + 1 || (unit > *before && unit.is_multiple_of(RUN));
                let resumes = unit > *before && seen.flags.contains(gst::BufferFlags::DISCONT);
                if !follows && !resumes {
                    return Err(format!("{unit} follows {before}, with {:?}", seen.flags));
                }
            }
            units.push((unit, position));
        }
        let mut told = Vec::new();
        while let Some(message) = rig.bus.pop() {
            match message.view() {
                gst::MessageView::Error(error) => return Err(format!("{error:?}")),
                gst::MessageView::Element(element) => {
                    let damage = element.structure().filter(|s| s.get("state") == Ok("damaged"));
                    told.extend(damage.and_then(|s| s.get::<String>("reason").ok()));
                    let buffers = damage.map_or(0, |s| s.get::<u64>("buffers").unwrap());
                    if scenario.durability == "power" && buffers > 0 {
                        return Err(format!("damage is told: {damage:?}"));
                    }
                }
                _ => {}
            }
        }
        let lost = rig.stat("lost");
        if scenario.durability == "power" && lost > 0 {
            return Err(format!("{lost} are counted as lost"));
        }
        Ok(Drained { units, told, lost })
    });
    drained.collect()
}

fn same(seen: &Seen, expected: &Seen) -> Result<(), String> {
    // Parameter sets may stand before a keyframe.
    let data = seen.data.ends_with(&expected.data) && seen.data.len() <= expected.data.len() + 100;
    let times = (seen.pts, seen.dts, seen.duration) == (expected.pts, expected.dts, expected.duration);
    let flags = seen.flags - gst::BufferFlags::DISCONT == expected.flags - gst::BufferFlags::DISCONT;
    (data && times && flags).then_some(()).ok_or_else(|| format!("{} has changed", number(seen)))
}

/// The positions of everything, from a record and the disk at its end.
pub fn positions(location: &Path, scenario: &Scenario, ledger: &Ledger) -> Positions {
    let mut positions: Positions =
        ledger.0.values().flat_map(|promised| &promised.published).map(|(position, unit)| (*unit, *position)).collect();
    let drained = drain(location, scenario).unwrap_or_else(|wrong| panic!("after an orderly end: {wrong}"));
    positions.extend(drained.iter().flat_map(|drained| drained.units.iter().copied()));
    for unit in ledger.0.values().flat_map(|promised| &promised.accepted) {
        assert!(positions.contains_key(unit), "{unit} is missing after an orderly end");
    }
    positions
}

/// Opens and drains a store that lost power when so much was promised; what is wrong, or whether damage was told of.
///
/// `whole`: nothing was torn, so nothing may be told of as damaged or counted as lost.
pub fn judge(
    location: &Path,
    scenario: &Scenario,
    ledger: &Ledger,
    positions: &Positions,
    whole: bool,
) -> Result<bool, String> {
    let drained = drain(location, scenario)?;
    let mut told = false;
    for (stream, drained) in (0..).zip(&drained) {
        told |= !drained.told.is_empty();
        // Without a log the last memtable goes with the process.
        if whole && scenario.durability != "none" && (!drained.told.is_empty() || drained.lost > 0) {
            return Err(format!("{} of stream {stream} are lost, told of damage: {:?}", drained.lost, drained.told));
        }
        let promised = ledger.0.get(&stream).cloned().unwrap_or_default();
        let mut came = BTreeSet::new();
        for &(unit, position) in &drained.units {
            let new = unit >= number_of(stream, AFTER, 0);
            if stream_of(unit) != stream || !(new || promised.begun.contains(&unit)) {
                return Err(format!("{unit} came out of stream {stream}"));
            }
            if let Some(published) = promised.published.get(&position).filter(|published| **published != unit) {
                return Err(format!("position {position} named {published}, and now {unit}"));
            }
            if let Some(known) = positions.get(&unit).filter(|known| **known != position && !new) {
                return Err(format!("{unit} had position {known}, and now {position}"));
            }
            came.insert(unit);
        }
        let news = came.range(number_of(stream, AFTER, 0)..).count() as u64;
        if news != NEW {
            return Err(format!("{news} of {NEW} new ones came out of stream {stream}"));
        }
        let owed = |unit: &&u64| {
            let durable = scenario.durability == "power" || positions[*unit] < promised.durable;
            durable && !promised.done.contains(unit) && !came.contains(unit)
        };
        let missing: Vec<_> = promised.accepted.iter().filter(owed).collect();
        if !missing.is_empty() {
            let ends = (came.first(), came.range(..number_of(stream, AFTER, 0)).next_back(), came.len());
            return Err(format!(
                "{} units of stream {stream} are lost, durable until {}, told of {:?}: {:?}; drained {ends:?}",
                missing.len(),
                promised.durable,
                drained.told,
                &missing[..missing.len().min(20)],
            ));
        }
    }
    Ok(told)
}
