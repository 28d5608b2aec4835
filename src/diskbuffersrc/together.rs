//! Several sources of one store in one pipeline, as for video and its sound: what was captured together is played together.
//!
//! The sources below one top-level element that have the same location and `follow` are companions. They agree on what stream
//! time counts from (the earliest record that one of them has), on where a start or a seek to a keyframe leads (as far back as
//! the one with the fewest sync points goes), and on the running time of each run of the writer. A source without companions
//! agrees with itself, which costs nothing.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, Weak};

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::imp::{CAT, DiskBufferSrc, lock};
use super::place::Place;
use super::range::{self, Held, Start};
use super::settings::Settings;
use super::state::Tip;
use crate::media::content::Content;
use crate::media::meta;
use crate::store::domains::{same_run, session_of};
use crate::store::{ReaderOptions, Sequence, StoreError, StreamReader, SyncPoint};

/// Between two runs that follow each other running time goes on by as much at most.
const MOST_BETWEEN: i64 = 1_000_000_000;
/// Occasions and runs that are remembered: companions are not far from each other.
const REMEMBERED: usize = 64;

/// By the top-level element's address and the location.
type Companies = HashMap<(usize, PathBuf), Weak<Company>>;

static COMPANIES: LazyLock<Mutex<Companies>> = LazyLock::new(Mutex::default);

/// What companions share, from the first that goes to PAUSED to the last that leaves it.
#[derive(Debug)]
pub struct Company {
    /// Their streams belong together.
    pub group: u32,
    agreed: Mutex<Agreed>,
}

#[derive(Debug, Default)]
struct Agreed {
    origin: Option<i64>,
    leads: VecDeque<(Occasion, Arc<Lead>)>,
}

/// What makes them begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    Start,
    Seek(gst::Seqnum),
}

/// Where one occasion leads, and where in running time it puts what follows.
#[derive(Debug, Default)]
pub struct Lead {
    /// All begin at their sync points captured then or before, ns since 1970.
    from: Option<i64>,
    /// None begins in an earlier session of the writer, which it may be because nothing of it was recorded at that time.
    session: Option<u64>,
    /// What was captured when running time begins.
    zero: Option<i64>,
    placed: Mutex<Placed>,
}

#[derive(Debug, Default)]
struct Placed {
    runs: VecDeque<Run>,
    /// Where what was sent ends.
    running: gst::ClockTime,
}

/// A run of the writer, by one place in it.
#[derive(Debug, Clone, Copy)]
struct Run {
    at: Moment,
    running: gst::ClockTime,
    /// What was captured last of what was sent of it.
    until: i64,
}

/// A place in a recording.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub domain: Option<u64>,
    /// Running time when it was recorded; that of streams of one domain is the same.
    pub recorded: Option<i64>,
    /// ns since 1970.
    pub captured: i64,
}

impl Moment {
    fn is_of_run(self, other: Moment) -> bool {
        match (self.domain, other.domain) {
            (Some(a), Some(b)) => same_run(a, b),
            (a, b) => a == b,
        }
    }

    fn since(self, other: Moment) -> i64 {
        match (self.recorded, other.recorded) {
            (Some(a), Some(b)) if self.domain == other.domain => a.saturating_sub(b),
            _ => self.captured.saturating_sub(other.captured),
        }
    }
}

impl Run {
    fn is_beside(&self, captured: i64) -> bool {
        let (from, to) = (self.at.captured.saturating_sub(MOST_BETWEEN), self.until.saturating_add(MOST_BETWEEN));
        (from..=to).contains(&captured)
    }
}

impl Company {
    fn of(top: usize, location: PathBuf) -> Arc<Self> {
        let mut companies = lock(&COMPANIES);
        companies.retain(|_, company| company.strong_count() > 0);
        let key = (top, location);
        if let Some(company) = companies.get(&key).and_then(Weak::upgrade) {
            return company;
        }
        let company = Arc::new(Self { group: crate::media::event::next_group_id(), agreed: Mutex::default() });
        companies.insert(key, Arc::downgrade(&company));
        company
    }

    fn known(&self, occasion: Occasion) -> Option<Arc<Lead>> {
        lock(&self.agreed).leads.iter().find(|lead| lead.0 == occasion).map(|lead| lead.1.clone())
    }

    /// Who comes first decides.
    fn agree(&self, occasion: Occasion, lead: Lead) -> Arc<Lead> {
        let mut agreed = lock(&self.agreed);
        if let Some(known) = agreed.leads.iter().find(|lead| lead.0 == occasion) {
            return known.1.clone();
        }
        let lead = Arc::new(lead);
        if agreed.leads.len() >= REMEMBERED {
            agreed.leads.pop_front();
        }
        agreed.leads.push_back((occasion, lead.clone()));
        lead
    }
}

impl Lead {
    /// Running time of a place at which an epoch begins. `own` is where this source alone would put it.
    pub fn place(&self, at: Moment, own: gst::ClockTime, rate: f64) -> gst::ClockTime {
        let mut placed = lock(&self.placed);
        let same = placed.runs.iter().find(|run| run.at.is_of_run(at));
        if let Some(run) = same {
            return later(run.running, at.since(run.at), rate);
        }
        // Recorded by another pipeline at the same time.
        let beside = placed.runs.iter().rev().find(|run| run.is_beside(at.captured));
        let until = placed.runs.iter().map(|run| run.until).max();
        let running = match (beside, until, self.zero) {
            (Some(run), _, _) => later(run.running, at.captured.saturating_sub(run.at.captured), rate),
            (None, None, Some(zero)) => later(own, at.captured.saturating_sub(zero).max(0), rate),
            (None, None, None) => own,
            (None, Some(until), _) => {
                // One may end later than the others.
                let since = at.captured.saturating_sub(until).clamp(0, MOST_BETWEEN);
                later(own.max(placed.running), since, rate)
            }
        };
        if placed.runs.len() >= REMEMBERED {
            placed.runs.pop_front();
        }
        placed.runs.push_back(Run { at, running, until: at.captured });
        running
    }

    /// Takes note of what one of them has sent.
    pub fn note_sent(&self, domain: Option<u64>, running: gst::ClockTime, captured: i64) {
        let mut placed = lock(&self.placed);
        placed.running = placed.running.max(running);
        let of = Moment { domain, recorded: None, captured };
        if let Some(run) = placed.runs.iter_mut().rev().find(|run| run.at.is_of_run(of)) {
            run.until = run.until.max(captured);
        }
    }

    /// Where a stream begins that by itself would begin at `own`.
    pub fn begin(&self, reader: &StreamReader, own: Start) -> Result<Start, StoreError> {
        let (Some(from), Start::At(at)) = (self.from, own) else { return Ok(own) };
        let at = reader.sync_at_or_before_time(from)?.map_or(at, |point| point.sequence);
        if self.session.is_some() && session(reader, at)? < self.session {
            return Ok(reader.next_sync_after(at)?.map_or(own, |next| Start::At(next.sequence)));
        }
        Ok(Start::At(at))
    }
}

/// Which session of the writer a place belongs to.
fn session(reader: &StreamReader, at: Sequence) -> Result<Option<u64>, StoreError> {
    let state = reader.state_at(at)?;
    Ok(state.values().find_map(|value| match Content::of_event(value) {
        Content::Domain(domain) => Some(session_of(domain)),
        _ => None,
    }))
}

fn later(running: gst::ClockTime, distance: i64, rate: f64) -> gst::ClockTime {
    let distance = (distance as f64 / rate) as i64;
    gst::ClockTime::from_nseconds(running.nseconds().saturating_add_signed(distance))
}

/// A stream that is played with others.
struct Member {
    reader: StreamReader,
    settings: Arc<Settings>,
}

impl DiskBufferSrc {
    fn top(&self) -> gst::Object {
        let mut top = self.obj().clone().upcast::<gst::Object>();
        while let Some(parent) = top.parent() {
            top = parent;
        }
        top
    }

    /// Joins its companions, or those that will come.
    pub(super) fn company(&self) -> Option<Arc<Company>> {
        let location = self.settings().resolved_location()?;
        Some(Company::of(self.top().as_ptr() as usize, location))
    }

    /// The streams of its companions, itself left out.
    fn members(&self) -> Vec<Member> {
        let settings = self.settings();
        let Ok(top) = self.top().downcast::<gst::Bin>() else { return Vec::new() };
        let others = top.iterate_recurse().into_iter().filter_map(Result::ok);
        let others = others.filter_map(|element| element.downcast::<super::DiskBufferSrc>().ok());
        let others = others.filter(|other| *other != *self.obj()).map(|other| other.imp().settings());
        let location = settings.resolved_location();
        let others = others.filter(|other| other.resolved_location() == location && other.follow == settings.follow);
        let options = ReaderOptions { reference: meta::captured_at, ..ReaderOptions::default() };
        let open = |settings: Arc<Settings>| {
            let location = settings.resolved_location()?;
            let reader = StreamReader::open(&location, settings.stream_name.as_deref(), &options);
            let told = |err: &StoreError| gst::debug!(CAT, imp = self, "No companion: {err}");
            Some(Member { reader: reader.inspect_err(told).ok()?, settings })
        };
        others.filter_map(open).collect()
    }

    /// What stream time counts from.
    pub(super) fn common_origin(&self, company: &Company, reader: &StreamReader) -> Result<Option<i64>, StoreError> {
        if let Some(origin) = lock(&company.agreed).origin {
            return Ok(Some(origin));
        }
        let mut origin = range::origin(reader)?;
        for member in self.members() {
            if let Ok(Some(other)) = range::origin(&member.reader) {
                origin = Some(origin.map_or(other, |origin| origin.min(other)));
            }
        }
        let mut agreed = lock(&company.agreed);
        agreed.origin = agreed.origin.or(origin);
        Ok(agreed.origin)
    }

    /// Where a start leads that by itself leads to `own`.
    pub(super) fn lead_of_start(
        &self,
        company: &Company,
        reader: &StreamReader,
        own: Start,
    ) -> Result<Option<Arc<Lead>>, StoreError> {
        if let Some(lead) = company.known(Occasion::Start) {
            return Ok(Some(lead));
        }
        let members = self.members();
        if members.is_empty() {
            return Ok(None);
        }
        let mut starts = vec![(reader, own)];
        for member in &members {
            starts.push((&member.reader, member.start()?));
        }
        let place = self.settings().start_place();
        let time = match place {
            Ok(place @ (Place::Time(_) | Place::Ago(_))) => Some(range::time_of(place)),
            Ok(Place::Latest) => Some(i64::MAX),
            _ => None,
        };
        let mut lead = Lead::default();
        if let Some(time) = time {
            for (reader, start) in &starts {
                if let (Start::At(at), Some(captured)) = (*start, range::captured_from(reader, *start)?)
                    && captured <= time
                {
                    lead.session = lead.session.max(session(reader, at)?);
                }
            }
        }
        for (reader, start) in &starts {
            let Start::At(at) = *start else { continue };
            if lead.session.is_none() || session(reader, at)? >= lead.session {
                lead.from = lead.from.into_iter().chain(range::captured_from(reader, *start)?).min();
            }
        }
        for (reader, start) in starts {
            let at = range::captured_from(reader, lead.begin(reader, start)?)?;
            lead.zero = lead.zero.into_iter().chain(at).min();
        }
        gst::debug!(CAT, imp = self, "Beginning with {} companions: {lead:?}", members.len());
        Ok(Some(company.agree(Occasion::Start, lead)))
    }

    /// Where a seek leads; `find` finds the sync point in one stream that it leads to, without a time it is exact.
    pub(super) fn lead_of_seek(
        &self,
        company: &Company,
        seqnum: gst::Seqnum,
        utc: i64,
        own: Option<(&StreamReader, SyncPoint)>,
        find: impl Fn(&StreamReader) -> Result<Option<SyncPoint>, StoreError>,
    ) -> Result<Option<Arc<Lead>>, StoreError> {
        let occasion = Occasion::Seek(seqnum);
        if let Some(lead) = company.known(occasion) {
            return Ok(Some(lead));
        }
        let members = self.members();
        if members.is_empty() {
            return Ok(None);
        }
        let Some((reader, own)) = own else {
            return Ok(Some(company.agree(occasion, Lead { zero: Some(utc), ..Lead::default() })));
        };
        let mut found = vec![(reader, own)];
        for member in &members {
            member.reader.refresh()?;
            found.extend(find(&member.reader)?.map(|point| (&member.reader, point)));
        }
        // That of the stream with the fewest of them.
        let mut lead = Lead::default();
        for (reader, point) in &found {
            lead.session = lead.session.max(session(reader, point.sequence)?);
        }
        let mut farthest = 0;
        for (reader, point) in &found {
            let distance = point.captured_at.abs_diff(utc);
            if (lead.from.is_none() || distance > farthest) && session(reader, point.sequence)? >= lead.session {
                (lead.from, farthest) = (Some(point.captured_at), distance);
            }
        }
        for (reader, point) in found {
            let at = range::captured_from(reader, lead.begin(reader, Start::At(point.sequence))?)?;
            lead.zero = lead.zero.into_iter().chain(at).min();
        }
        Ok(Some(company.agree(occasion, lead)))
    }
}

impl Member {
    /// Where it begins by itself.
    fn start(&self) -> Result<Start, StoreError> {
        let Self { reader, settings } = self;
        reader.refresh()?;
        let origin = range::origin(reader)?;
        let cursor = match &settings.consumer {
            Some(name) => reader.consumer_position(name),
            None => Some(reader.cursor()),
        };
        let overlap = if settings.consumer.is_some() { settings.overlap() } else { Default::default() };
        let cursor = cursor.map(|cursor| cursor.position);
        let held = Held { origin, tip: Tip::default(), cursor, overlap };
        match settings.start_place() {
            Ok(place) => Ok(range::start(reader, place, &held)?.0),
            // It tells so itself.
            Err(_) => Ok(Start::Undecided(reader.end().sequence)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn s(seconds: u64) -> gst::ClockTime {
        gst::ClockTime::from_seconds(seconds)
    }

    fn at(run: u64, recorded: Option<i64>, captured: i64) -> Moment {
        let recorded = recorded.map(|at| at * SECOND);
        Moment { domain: Some(run << 16), recorded, captured: captured * SECOND }
    }

    #[test]
    fn what_was_captured_together_has_the_same_running_time() {
        let lead = Lead { zero: Some(100 * SECOND), ..Lead::default() };
        assert_eq!(lead.place(at(1, None, 100), s(0), 1.0), s(0));
        assert_eq!(lead.place(at(1, None, 103), s(0), 1.0), s(3));
        assert_eq!(lead.place(at(1, Some(7), 103), s(0), 1.0), s(3), "the other has none");
        let lead = Lead { zero: Some(100 * SECOND), ..Lead::default() };
        assert_eq!(lead.place(at(1, Some(50), 104), s(0), 2.0), s(2), "at double speed");
        assert_eq!(lead.place(at(1, Some(54), 999), s(0), 2.0), s(4), "one domain has one running time");
    }

    #[test]
    fn the_next_run_begins_behind_the_last_that_ended_and_for_all_at_once() {
        let lead = Lead { zero: Some(100 * SECOND), ..Lead::default() };
        assert_eq!(lead.place(at(1, None, 100), s(0), 1.0), s(0));
        lead.note_sent(Some(1 << 16), s(10), 110 * SECOND);
        lead.note_sent(Some(1 << 16), s(12), 112 * SECOND);
        assert_eq!(lead.place(at(9, None, 111), s(0), 1.0), s(11), "another pipeline at the same time");
        assert_eq!(lead.place(at(2, None, 500), s(10), 1.0), s(13), "a second between");
        assert_eq!(lead.place(at(2, None, 501), s(12), 1.0), s(14));
        assert_eq!(lead.place(at(1, None, 105), s(12), 1.0), s(5), "one that is far behind");
    }

    #[test]
    fn in_a_live_pipeline_it_begins_where_the_first_one_is() {
        let lead = Lead::default();
        assert_eq!(lead.place(at(1, None, 100), s(40), 1.0), s(40));
        assert_eq!(lead.place(at(1, None, 101), s(77), 1.0), s(41));
    }
}
