//! Frames of the same moment, one of each stream: sets.
//!
//! What holds for streams that are complete, whatever order they arrive in (the guarantees of ROS ApproximateTime):
//!
//! 1. each frame is in one set at most;
//! 2. sets do not cross: a later set takes no earlier frame of any stream;
//! 3. sets are contiguous: what is left out between two of them makes no further set;
//! 4. a set has the least span of all that hold its pivot, the latest of the first frames (of equal ones the earliest);
//! 5. which sets there are depends on stamps alone.
//!
//! How: the pivot is the latest of the first waiting frames. Each other stream has a last frame at or below the pivot and a
//! first one above it; taking the lower ones from some bound on gives the set of least span in one pass. A set is
//! given out once no frame that may still come could make a better one. With a reference stream, or a clock, each of its frames
//! (ticks) is a pivot, whatever the others have.
//!
//! What live adds: at `latency` after its stamp the oldest frame waits no longer, and the set goes out with what is there; a
//! frame that comes for a set that is out is late. A stream that has been silent for `stream_timeout` or has ended is not
//! waited for. A stream that holds `max_held` frames makes the set go out too, unless who sends it waits then. `max_interval` bounds the distance from the
//! pivot: further apart frames are not of one moment, and go out in sets of their own if `min_streams` allows it.
//!
//! Streams with policy `Nearest` or `AllSince` ride along: they take no part in the choice.
//! Stamps are on the common timeline; `now` is on it too and passed in: no clock is read. In the steady state nothing is
//! allocated: queues and the set given to [`Matcher::pop`] keep their room.

use std::collections::VecDeque;

use super::Ns;
pub use super::sets::{Join, MatcherConfig, Member, Push, Reference, Set};

/// Sets of one frame in a row until streams are taken to be unrelated.
const UNLOCKED: u32 = 64;

#[derive(Debug, Clone)]
struct Stream<T> {
    join: Join,
    waiting: VecDeque<(Ns, T)>,
    /// Nothing below this comes any more.
    known: Ns,
    /// Least distance of two frames.
    apart: Ns,
    /// Frames at or below this are late.
    floor: Ns,
    heard: Option<Ns>,
    state: State,
    /// `Nearest`: the front one was in a set.
    used: bool,
    /// `max_held` does not hold for it: who sends waits.
    patient: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    /// Silent for too long.
    Stopped,
    Ended,
    /// Its place may be taken by another.
    Removed,
}

impl<T> Stream<T> {
    fn new(join: Join, apart: Ns, now: Ns) -> Self {
        Self {
            join,
            waiting: VecDeque::new(),
            known: Ns::MIN,
            apart: apart.max(Ns::ZERO),
            floor: Ns::MIN,
            heard: Some(now),
            state: State::Running,
            used: false,
            patient: false,
        }
    }

    fn head(&self) -> Option<Ns> {
        self.waiting.front().map(|(stamp, _)| *stamp)
    }

    /// The least stamp of a frame that may still come; none if none will.
    fn next(&self) -> Option<Ns> {
        (self.state == State::Running).then_some(self.known)
    }

    fn is_up(&self) -> bool {
        self.state == State::Running
    }
}

/// The frames of a stream around a pivot: the last at or below, the first above.
type Around = (Option<Ns>, Option<Ns>);

/// What the choice comes to.
#[derive(Debug, Clone, Copy)]
struct Choice {
    pivot: Ns,
    /// From here on streams give their last frame at or below the pivot, the others their first above it.
    bound: Ns,
    spread: Ns,
}

enum Step {
    /// A frame, or a deadline, has to come first.
    Wait,
    Set,
    /// What was first went away: look again.
    Again,
}

#[derive(Debug)]
pub struct Matcher<T> {
    config: MatcherConfig,
    streams: Vec<Stream<T>>,
    next_id: u64,
    /// The last tick of the clock that had its turn.
    tick: Option<i128>,
    /// Sets of one frame in a row while several streams ran.
    alone: u32,
    /// Of the choice that is being made, lower ones in order.
    around: Vec<Around>,
}

impl<T: Clone> Matcher<T> {
    pub fn new(config: MatcherConfig) -> Self {
        Self { config, streams: Vec::new(), next_id: 0, tick: None, alone: 0, around: Vec::new() }
    }

    /// A further stream; the answer is its number. `apart`: its frames are never closer than that (0: not known), which
    /// lets a set go out before the next frame has come.
    pub fn add(&mut self, join: Join, apart: Ns, now: Ns) -> usize {
        let stream = Stream::new(join, apart, now);
        match self.streams.iter().position(|stream| stream.state == State::Removed) {
            Some(free) => {
                self.streams[free] = stream;
                free
            }
            None => {
                self.streams.push(stream);
                self.streams.len() - 1
            }
        }
    }

    /// Whether who sends waits when much is held: then no set goes out for it.
    pub fn set_patient(&mut self, stream: usize, patient: bool) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.patient = patient;
        }
    }

    /// Takes a stream away; its waiting frames come back.
    pub fn remove(&mut self, stream: usize) -> VecDeque<(Ns, T)> {
        let Some(stream) = self.streams.get_mut(stream) else { return VecDeque::new() };
        stream.state = State::Removed;
        let waiting = std::mem::take(&mut stream.waiting);
        // Of those that are left none has had a tick: time may have begun anew.
        let mut left = self.streams.iter().filter(|stream| stream.state != State::Removed);
        if left.all(|stream| stream.floor == Ns::MIN) {
            self.tick = None;
        }
        waiting
    }

    pub fn set_config(&mut self, config: MatcherConfig) {
        self.config = config;
    }

    /// A frame, in order within its stream.
    pub fn push(&mut self, stream: usize, stamp: Ns, frame: T, now: Ns) -> Push<T> {
        let Some(stream) = self.streams.get_mut(stream) else { return Push::Refused(frame) };
        if matches!(stream.state, State::Ended | State::Removed) {
            return Push::Refused(frame);
        }
        stream.heard = Some(now);
        stream.state = State::Running;
        if stream.waiting.back().is_some_and(|(last, _)| *last > stamp) {
            return Push::Refused(frame);
        }
        stream.known = stream.known.max(stamp + stream.apart);
        if stamp <= stream.floor {
            return Push::Late(frame);
        }
        let most = self.config.max_held;
        let full = most > 0 && !stream.patient && stream.waiting.len() >= most;
        let oldest = if full { stream.waiting.pop_front() } else { None };
        stream.waiting.push_back((stamp, frame));
        match oldest {
            Some((_, oldest)) => {
                stream.used = false;
                Push::Replaced(oldest)
            }
            None => Push::Held,
        }
    }

    /// Nothing below `until` comes of this stream.
    pub fn gap(&mut self, stream: usize, until: Ns, now: Ns) {
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.known = stream.known.max(until);
            stream.heard = Some(now);
            if stream.state == State::Stopped {
                stream.state = State::Running;
            }
        }
    }

    /// Nothing more comes of this stream.
    pub fn end(&mut self, stream: usize) {
        if let Some(stream) = self.streams.get_mut(stream)
            && stream.state != State::Removed
        {
            stream.state = State::Ended;
        }
    }

    /// Forgets what waits, and where the streams were (a flush).
    pub fn clear(&mut self, now: Ns) {
        self.tick = None;
        for stream in self.streams.iter_mut().filter(|stream| stream.state != State::Removed) {
            let (mut waiting, join, apart) = (std::mem::take(&mut stream.waiting), stream.join, stream.apart);
            let patient = stream.patient;
            waiting.clear();
            *stream = Stream { waiting, patient, ..Stream::new(join, apart, now) };
        }
    }

    pub fn is_stopped(&self, stream: usize) -> bool {
        self.streams.get(stream).is_some_and(|stream| stream.state == State::Stopped)
    }

    /// Several streams run, and for long none has met another: their times cannot be related.
    pub fn is_unlocked(&self) -> bool {
        self.alone >= UNLOCKED
    }

    pub fn held(&self, stream: usize) -> usize {
        self.streams.get(stream).map_or(0, |stream| stream.waiting.len())
    }

    /// When [`Self::pop`] has to be called again even if nothing comes.
    pub fn deadline(&self) -> Option<Ns> {
        let frame = match (self.config.latency, self.oldest()) {
            (Some(latency), Some(oldest)) => Some(oldest + latency),
            _ => None,
        };
        let silent = self.config.stream_timeout.and_then(|timeout| {
            let up = self.streams.iter().filter(|stream| stream.is_up());
            up.filter_map(|stream| stream.heard).min().map(|heard| heard + timeout)
        });
        frame.into_iter().chain(silent.filter(|_| self.oldest().is_some())).min()
    }

    /// The next set, if there is one by now; call until it says no. `set` is overwritten, and even without a set its
    /// `skipped` holds what was passed over.
    pub fn pop(&mut self, now: Ns, set: &mut Set<T>) -> bool {
        set.members.clear();
        set.skipped.clear();
        if let Some(timeout) = self.config.stream_timeout {
            // Also with frames in wait: nothing nearer may come.
            for stream in self.streams.iter_mut().filter(|stream| stream.is_up()) {
                if stream.heard.is_some_and(|heard| now - heard >= timeout) {
                    stream.state = State::Stopped;
                }
            }
        }
        // Each time round, at least a frame goes, or a tick.
        let most: usize = self.streams.iter().map(|stream| stream.waiting.len()).sum();
        for _ in 0..2 * most + 2 {
            match self.step(now, set) {
                Step::Wait => return false,
                Step::Set => return true,
                Step::Again => {}
            }
        }
        false
    }

    fn step(&mut self, now: Ns, set: &mut Set<T>) -> Step {
        let Some(oldest) = self.oldest() else { return Step::Wait };
        let due = self.config.latency.is_some_and(|latency| oldest + latency <= now);
        let most = self.config.max_held;
        let many = |stream: &Stream<T>| !stream.patient && stream.join == Join::One && stream.waiting.len() >= most;
        let full = most > 0 && self.streams.iter().any(many);
        let forced = due || full;
        let Some(pivot) = self.pivot(forced) else { return Step::Wait };
        let by_reference = self.config.reference != Reference::None;
        if !forced && !(self.followed(pivot) && (!by_reference || self.settled(pivot))) {
            return Step::Wait;
        }
        let choice = self.choose(pivot, false);
        if !forced && !by_reference && self.choose(pivot, true).spread < choice.spread {
            return Step::Wait;
        }
        self.emit(choice, set)
    }

    fn ones(&self) -> impl Iterator<Item = &Stream<T>> {
        self.streams.iter().filter(|stream| stream.join == Join::One && stream.state != State::Removed)
    }

    /// The oldest waiting frame that a set may be made for.
    fn oldest(&self) -> Option<Ns> {
        match self.config.reference {
            Reference::Stream(stream) => self.streams.get(stream).and_then(Stream::head),
            Reference::Clock { period, phase } => self.next_tick(period, phase),
            Reference::None => self.ones().filter_map(Stream::head).min(),
        }
    }

    fn pivot(&self, forced: bool) -> Option<Ns> {
        match self.config.reference {
            Reference::Stream(stream) => self.streams.get(stream).and_then(Stream::head),
            Reference::Clock { period, phase } => self.next_tick(period, phase),
            Reference::None => {
                let latest = self.ones().filter_map(Stream::head).max()?;
                let oldest = self.ones().filter_map(Stream::head).min()?;
                let most = self.interval();
                // An empty one may still give the latest first frame.
                let far = most.map_or(Ns::MAX, |most| latest + most);
                let open =
                    |stream: &Stream<T>| stream.waiting.is_empty() && stream.next().is_some_and(|next| next <= far);
                if !forced && self.ones().any(open) {
                    return None;
                }
                // First frames too far from the latest are of a moment of their own.
                let near = most.map_or(Ns::MAX, |most| oldest + most);
                self.ones().filter_map(Stream::head).filter(|head| *head <= near).max()
            }
        }
    }

    fn next_tick(&self, period: Ns, phase: Ns) -> Option<Ns> {
        let period = i128::from(period.0.max(1));
        let first = self.streams.iter().filter_map(Stream::head).min()?;
        let at = |tick: i128| Ns::from_i128(tick.saturating_mul(period) + i128::from(phase.0));
        // Where streams begin, or go on after a pause: the tick nearest to the first frame.
        let least = (i128::from(first.0) - i128::from(phase.0) + period / 2).div_euclid(period);
        let tick = self.tick.map_or(least, |last| (last + 1).max(least));
        Some(at(tick))
    }

    /// Whether those that ride along have what a set at this time takes.
    fn followed(&self, pivot: Ns) -> bool {
        self.streams.iter().filter(|stream| stream.join != Join::One).all(|stream| {
            let reached = stream.waiting.back().is_some_and(|(last, _)| *last >= pivot);
            reached || stream.next().is_none_or(|next| next > pivot)
        })
    }

    /// How far from the pivot a frame may be.
    fn interval(&self) -> Option<Ns> {
        let ticks = match self.config.reference {
            Reference::Clock { period, .. } => Some(Ns(period.0.max(1) / 2)),
            _ => None,
        };
        self.config.max_interval.or(ticks).map(|most| most.max(Ns::ZERO))
    }

    /// With `hoped`, also the best that may come.
    fn around(&self, stream: &Stream<T>, pivot: Ns, hoped: bool) -> Around {
        let above = stream.waiting.partition_point(|(stamp, _)| *stamp <= pivot);
        let mut below = above.checked_sub(1).map(|i| stream.waiting[i].0);
        let mut beyond = stream.waiting.get(above).map(|(stamp, _)| *stamp);
        if hoped && beyond.is_none() {
            match stream.next() {
                Some(next) if next <= pivot => below = Some(pivot),
                next => beyond = next,
            }
        }
        let most = self.interval();
        let near = |stamp: &Ns| most.is_none_or(|most| (*stamp - pivot).abs() <= most);
        (below.filter(near), beyond.filter(near))
    }

    /// The set of least span around the pivot; of equal ones the one that begins first.
    fn choose(&mut self, pivot: Ns, hoped: bool) -> Choice {
        let mut around = std::mem::take(&mut self.around);
        around.clear();
        around.extend(self.ones().map(|stream| self.around(stream, pivot, hoped)));
        // Those without a lower one come first: they give the upper one in any case.
        around.sort_unstable();
        let mut best = Choice { pivot, bound: Ns::MIN, spread: Ns::MAX };
        let mut last = pivot;
        // Each lower frame may be the first of the set, or the pivot; those below it give their upper one instead.
        for (below, above) in around.iter().copied().chain([(Some(pivot), None)]) {
            if let Some(bound) = below
                && last - bound < best.spread
            {
                best = Choice { pivot, bound, spread: last - bound };
            }
            match (below, above) {
                (_, Some(above)) => last = last.max(above),
                // Nothing else is there: with less than all it would be another set.
                (Some(_), None) => break,
                (None, None) => {}
            }
        }
        self.around = around;
        best
    }

    /// With a reference: whether nothing that may still come is nearer to it than what is there.
    fn settled(&self, pivot: Ns) -> bool {
        self.ones().all(|stream| {
            let reached = stream.waiting.back().is_some_and(|(last, _)| *last >= pivot);
            reached
                || stream.next().is_none_or(|next| match self.around(stream, pivot, false).0 {
                    Some(below) => next - pivot >= pivot - below,
                    None => self.interval().is_some_and(|most| next - pivot > most),
                })
        })
    }

    fn emit(&mut self, choice: Choice, set: &mut Set<T>) -> Step {
        let pivot = choice.pivot;
        let by_reference = self.config.reference != Reference::None;
        let (mut count, mut running, mut expected) = (0, 0, 0);
        let (mut first, mut last) = (Ns::MAX, Ns::MIN);
        for i in 0..self.streams.len() {
            let stream = &self.streams[i];
            if stream.join != Join::One || stream.state == State::Removed {
                continue;
            }
            expected += usize::from(stream.state != State::Ended || !stream.waiting.is_empty());
            running += usize::from(stream.is_up() || !stream.waiting.is_empty());
            if let Some(stamp) = self.taken(i, choice, by_reference) {
                count += 1;
                (first, last) = (first.min(stamp), last.max(stamp));
            }
        }
        let least = if self.config.min_streams == 0 { running } else { self.config.min_streams.min(running) };
        let out = count >= least.max(1);
        for i in 0..self.streams.len() {
            if self.streams[i].state == State::Removed || self.streams[i].join != Join::One {
                continue;
            }
            let taken = self.taken(i, choice, by_reference);
            self.take(i, taken, pivot, out, set);
        }
        if let Reference::Clock { period, phase } = self.config.reference {
            let since = i128::from(pivot.0) - i128::from(phase.0);
            self.tick = Some(since.div_euclid(period.0.max(1).into()));
        }
        if !out {
            return Step::Again;
        }
        for i in 0..self.streams.len() {
            match self.streams[i].join {
                _ if self.streams[i].state == State::Removed => {}
                Join::One => {}
                Join::Nearest => self.ride(i, pivot, set),
                Join::AllSince => self.sweep(i, pivot, set),
            }
        }
        set.members.sort_unstable_by_key(|member| (member.stream, member.stamp));
        set.id = self.next_id;
        set.at = if by_reference { pivot } else { first };
        set.spread = if count > 0 { last - first } else { Ns::ZERO };
        set.complete = count == expected;
        self.alone = if count < 2 && running > 1 { self.alone.saturating_add(1) } else { 0 };
        self.next_id += 1;
        Step::Set
    }

    /// Which frame of a stream the choice takes.
    fn taken(&self, stream: usize, choice: Choice, by_reference: bool) -> Option<Ns> {
        let waiting = &self.streams[stream].waiting;
        let around = self.around(&self.streams[stream], choice.pivot, false);
        if by_reference {
            return match self.config.reference {
                Reference::Stream(reference) if reference == stream => around.0,
                _ => nearest(around, choice.pivot),
            };
        }
        // Of several within the span the first, so that what comes later changes nothing.
        let first = waiting.get(waiting.partition_point(|(stamp, _)| *stamp < choice.bound)).map(|(stamp, _)| *stamp);
        match around {
            (Some(below), _) if below >= choice.bound => first,
            (_, Some(above)) => Some(above),
            (below, None) => below,
        }
    }

    /// Moves the frame into the set, and those before it among the skipped.
    fn take(&mut self, i: usize, taken: Option<Ns>, pivot: Ns, out: bool, set: &mut Set<T>) {
        let most = self.interval().unwrap_or(Ns::MAX);
        // What is passed over: with a reference, what cannot be in the next set either.
        let passed = match self.config.reference {
            Reference::Stream(reference) if reference != i => pivot - most,
            Reference::Clock { .. } => pivot - most,
            _ => pivot,
        };
        let stream = &mut self.streams[i];
        let until = taken.unwrap_or(passed);
        let mut count = stream.waiting.partition_point(|(stamp, _)| *stamp <= until);
        while count > 0 {
            count -= 1;
            let Some((stamp, frame)) = stream.waiting.pop_front() else { break };
            let member = Member { stream: i, stamp, frame, again: false };
            if out && taken.is_some() && count == 0 { set.members.push(member) } else { set.skipped.push(member) }
        }
        if out {
            // What comes now for this moment is too late.
            stream.floor = stream.floor.max(taken.unwrap_or(passed));
        }
    }

    /// The nearest frame; those before it are not needed any more.
    fn ride(&mut self, i: usize, pivot: Ns, set: &mut Set<T>) {
        let most = self.config.max_interval;
        let stream = &mut self.streams[i];
        while stream.waiting.len() > 1 && (stream.waiting[1].0 - pivot).abs() < (stream.waiting[0].0 - pivot).abs() {
            if let Some((stamp, frame)) = stream.waiting.pop_front()
                && !stream.used
            {
                set.skipped.push(Member { stream: i, stamp, frame, again: false });
            }
            stream.used = false;
        }
        if let Some((stamp, frame)) = stream.waiting.front()
            && most.is_none_or(|most| (*stamp - pivot).abs() <= most)
        {
            set.members.push(Member { stream: i, stamp: *stamp, frame: frame.clone(), again: stream.used });
            stream.used = true;
        }
    }

    fn sweep(&mut self, i: usize, pivot: Ns, set: &mut Set<T>) {
        let stream = &mut self.streams[i];
        while stream.head().is_some_and(|head| head <= pivot) {
            if let Some((stamp, frame)) = stream.waiting.pop_front() {
                set.members.push(Member { stream: i, stamp, frame, again: false });
            }
        }
        stream.floor = stream.floor.max(pivot);
    }
}

/// The nearer of two, the lower of two as near.
fn nearest(around: (Option<Ns>, Option<Ns>), pivot: Ns) -> Option<Ns> {
    match around {
        (Some(below), Some(above)) => Some(if above - pivot < pivot - below { above } else { below }),
        (below, above) => below.or(above),
    }
}
