//! Element messages, collected under the lock and posted without it; and what of them was posted last, so that a
//! stream of bad stamps is no flood.

use super::placing::{Place, Placer};
use super::stream::Stream;
use crate::timeline::Ns;
use crate::timeline::outlier::Verdict;

/// At most that often for each stream, and for sets.
const PAUSE: Ns = Ns::SECOND;
/// A change of drift that is worth a word, in ppm; below the confidence it means nothing.
const NOTICEABLE: f64 = 5.0;
/// An estimate that is known to less says nothing yet.
const VAGUE: f64 = 100.0;

#[derive(Debug, Clone, Copy, Default)]
pub struct Told {
    outlier: Option<Ns>,
    /// Outliers since.
    outliers: u64,
    drift: Option<(Ns, f64)>,
}

pub type Messages = Vec<gst::Structure>;

/// Counts what the verdict says and tells what is worth it.
pub fn judged(stream: &mut Stream, place: &Place, now: Ns, out: &mut Messages) {
    let pad = || stream.port.name.clone();
    let counters = &mut stream.counters;
    counters.interpolated += u64::from(place.interpolated);
    let running_time = place.pts.0.max(0).unsigned_abs();
    match place.verdict {
        Verdict::Ok => {}
        Verdict::Gap { .. } => counters.gaps += 1,
        Verdict::Duplicate => counters.duplicates += 1,
        Verdict::Jump { step, revised } => {
            counters.jumps += 1;
            counters.outliers = counters.outliers.saturating_sub(revised.into());
            let epoch = stream.placer.as_ref().map_or(0, Placer::epoch);
            out.push(
                gst::Structure::builder("framesync-epoch")
                    .field("pad", pad())
                    .field("epoch", epoch)
                    .field("step", step.0)
                    .field("running-time", running_time)
                    .build(),
            );
        }
        Verdict::Outlier | Verdict::Backwards => {
            counters.outliers += 1;
            let told = &mut stream.told;
            told.outliers += 1;
            if told.outlier.is_none_or(|last| now - last >= PAUSE) {
                told.outlier = Some(now);
                let kind = if place.verdict == Verdict::Outlier { "outlier" } else { "backwards" };
                out.push(
                    gst::Structure::builder("framesync-outlier")
                        .field("pad", pad())
                        .field("kind", kind)
                        .field("running-time", running_time)
                        .field("count", std::mem::take(&mut told.outliers))
                        .build(),
                );
            }
        }
    }
}

/// Tells drift when it is known, and when it has changed noticeably.
pub fn drifted(stream: &mut Stream, now: Ns, out: &mut Messages) {
    let last = stream.told.drift;
    if last.is_some_and(|(at, _)| now - at < PAUSE) {
        return;
    }
    let Some(estimate) = stream.placer.as_ref().and_then(Placer::estimate) else { return };
    let confidence = estimate.confidence_ppm;
    let known = confidence <= VAGUE;
    let changed = last.is_none_or(|(_, ppm)| (estimate.ppm - ppm).abs() > NOTICEABLE.max(2.0 * confidence));
    if known && changed {
        stream.told.drift = Some((now, estimate.ppm));
        out.push(
            gst::Structure::builder("framesync-drift")
                .field("pad", stream.port.name.clone())
                .field("drift-ppm", estimate.ppm)
                .field("drift-confidence-ppm", confidence)
                .field("jitter", estimate.jitter.0)
                .build(),
        );
    }
}

/// Incomplete sets: at once when other streams are missing than before, else once a second with how many there were.
#[derive(Debug, Default)]
pub struct Incomplete {
    missing: Vec<u32>,
    at: Option<Ns>,
    count: u64,
}

impl Incomplete {
    /// `missing`: the streams, by number and name of the sink pad.
    pub fn tell(&mut self, id: u64, at: Ns, missing: &[(u32, String)], now: Ns, out: &mut Messages) {
        self.count += 1;
        let same = self.missing.iter().eq(missing.iter().map(|(index, _)| index));
        if same && self.at.is_some_and(|last| now - last < PAUSE) {
            return;
        }
        self.missing = missing.iter().map(|(index, _)| *index).collect();
        self.at = Some(now);
        out.push(
            gst::Structure::builder("framesync-set-incomplete")
                .field("set-id", id)
                .field("running-time", at.0.max(0).unsigned_abs())
                .field("missing", gst::Array::new(missing.iter().map(|(_, name)| name.as_str())))
                .field("count", std::mem::take(&mut self.count))
                .build(),
        );
    }
}
