//! One cursor for the streams that go to one muxer: where they begin again together, and what they give up together.
//!
//! - One member leads: the video, else the first. Its resume point is its last sync point at or before what each member that
//!   has something undelivered would resume from alone. The others resume from their last sync point at or before the
//!   leader's. So a new downstream gets a video keyframe and the sound from there on, and nothing that is undelivered is
//!   left out.
//! - Exchanged in order, the leader goes on at a keyframe: where it stopped, or at the one before. The others go on at their last
//!   sync point at or before that, unless they stand before it. Whoever comes first goes by the sync point that the leader has
//!   given last: that is never too late, and a GOP too early at most. Where something new begins for the leader, another epoch
//!   or other caps, all of them go on where they stand.
//! - Downstreams are counted. A member that begins late begins with what the leader began with there, however far the leader
//!   has come, and even if the leader has been held since.
//! - What lies before a member's resume point may be gone. A follower keeps what the leader's resume point before the present
//!   one needs: the cursors of a store are saved together, but not all of the very same instant.
//! - When a member drops up to some time, the others drop up to there too, each to its last sync point at or before it, before
//!   they deliver anything more.
//! - A member that has nothing undelivered, has ended, or has left holds nobody back. One that is stopped does: it may come
//!   back, and they stop one after the other. Who is held back keeps 30 s or 64 MiB at most, see [`super::resume`].
//!
//! Times of different runs compare: the numbers of running-time domains grow. Streams without running time neither hold back nor
//! are held back. In the order of locks this one comes after `state` of any member; members never look at each other's.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What lies further apart than this does not belong together, in ns.
const LONG: i64 = 30_000_000_000;

/// A time that all streams of the bin share: running-time domain, running time in ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    pub domain: u64,
    pub time: i64,
}

impl Moment {
    /// Before all others.
    pub const FIRST: Moment = Moment { domain: 0, time: i64::MIN };

    /// ns from `earlier`, negative when that is later; any distance between two domains is beyond counting.
    pub fn since(self, earlier: Moment) -> i64 {
        match self.domain.cmp(&earlier.domain) {
            std::cmp::Ordering::Less => i64::MIN,
            std::cmp::Ordering::Equal => self.time.saturating_sub(earlier.time),
            std::cmp::Ordering::Greater => i64::MAX,
        }
    }

    /// By so much later that nothing of `earlier` is of use here.
    pub fn is_long_after(self, earlier: Moment) -> bool {
        self.since(earlier) > LONG
    }
}

/// How far a resume point may move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// As far as the stream's own needs allow.
    Own,
    /// Up to the last sync point at or before this.
    Until(Moment),
}

impl Limit {
    pub fn allows(self, at: Option<Moment>) -> bool {
        match (self, at) {
            (Limit::Own, _) | (_, None) => true,
            (Limit::Until(limit), Some(at)) => at <= limit,
        }
    }
}

/// What a member says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Report {
    /// What it would resume from alone.
    pub own: Option<Moment>,
    /// Something of it is undelivered.
    pub pending: bool,
    /// Its end of stream was delivered.
    pub ended: bool,
}

/// Where a member goes on when downstream is exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Seam {
    /// It stands where nothing was yet.
    #[default]
    Unknown,
    /// At its resume point, wherever that will be: downstream has failed.
    Resume,
    /// Where it stopped, with something new. The others stopped there too, so they go on where they stand.
    Here,
    /// At the sync point that it gave last, or began with.
    At(Moment),
}

#[derive(Debug, Default)]
struct Member {
    id: u64,
    leads: bool,
    running: bool,
    report: Report,
    /// The number of the downstream that it was last released to, as the other members count.
    downstream: u64,
    /// The one that it has begun with last, and where it did.
    begun: (u64, Seam),
    /// Where it begins with the next, or earlier.
    next: Seam,
    /// Where it resumes from, as of its last two moves, the older one first.
    resume: [Option<Moment>; 2],
}

/// Shared by the members of one bin.
#[derive(Default)]
pub(crate) struct JointCursor {
    members: Mutex<Members>,
    /// How often something was dropped.
    drops: AtomicU64,
}

impl Member {
    /// Where an earlier run stood is of no account.
    fn forget_seams(&mut self) {
        self.begun = (self.downstream, Seam::Unknown);
        self.next = Seam::Unknown;
    }
}

#[derive(Debug, Default)]
struct Members {
    list: Vec<Member>,
    ids: u64,
    /// Everything before it is given up.
    dropped: Option<Moment>,
}

impl Members {
    fn leader(&self) -> Option<&Member> {
        self.list.iter().find(|member| member.leads).or(self.list.first())
    }

    fn get(&mut self, id: u64) -> Option<&mut Member> {
        self.list.iter_mut().find(|member| member.id == id)
    }

    fn newest_downstream(&self) -> u64 {
        self.list.iter().map(|member| member.downstream).max().unwrap_or(0)
    }

    /// The leader of the member with this id, unless it leads itself, and where the leader begins with the downstream of that
    /// member.
    fn leader_of(&self, id: u64) -> Option<(&Member, Seam)> {
        let leader = self.leader().filter(|leader| leader.id != id)?;
        let downstream = self.list.iter().find(|member| member.id == id)?.downstream;
        let (begun, seam) = leader.begun;
        Some((leader, if begun >= downstream { seam } else { leader.next }))
    }

    fn limit(&self, id: u64) -> Limit {
        let Some(leader) = self.leader() else { return Limit::Own };
        if leader.id == id {
            let needs = self.list.iter().filter(|member| member.id != id && member.report.pending);
            return needs.filter_map(|member| member.report.own).min().map_or(Limit::Own, Limit::Until);
        }
        let Report { pending, ended, .. } = leader.report;
        match leader.resume[0] {
            Some(at) if !ended => Limit::Until(at),
            // It has yet to show where it is.
            None if pending || !leader.running => Limit::Until(Moment::FIRST),
            _ => Limit::Own,
        }
    }
}

impl fmt::Debug for JointCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JointCursor").finish_non_exhaustive()
    }
}

impl JointCursor {
    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A member's place in a joint cursor; it leaves when this is dropped.
#[derive(Debug)]
pub(super) struct Membership {
    joint: Arc<JointCursor>,
    id: u64,
    /// Drops that it has followed.
    drops: u64,
}

impl Membership {
    pub fn new(joint: &Arc<JointCursor>, leads: bool) -> Self {
        let mut members = joint.members();
        members.ids += 1;
        let id = members.ids;
        let downstream = members.newest_downstream();
        members.list.push(Member { id, leads, downstream, ..Member::default() });
        drop(members);
        Self { joint: joint.clone(), id, drops: joint.drops.load(Ordering::Acquire) }
    }

    /// The store is open: something may be owed from earlier runs.
    pub fn open(&self, pending: bool) {
        if let Some(member) = self.joint.members().get(self.id) {
            let own = pending.then_some(Moment::FIRST);
            (member.running, member.resume) = (false, [None; 2]);
            member.forget_seams();
            member.report = Report { own, pending, ..Report::default() };
        }
    }

    /// A run begins, with the resume point at `resume`.
    pub fn begin(&self, report: Report, resume: Option<Moment>) {
        if let Some(member) = self.joint.members().get(self.id) {
            (member.running, member.report, member.resume) = (true, report, [resume; 2]);
            member.forget_seams();
        }
    }

    /// Whether this is the one that leads.
    pub fn leads(&self) -> bool {
        self.joint.members().leader().is_none_or(|leader| leader.id == self.id)
    }

    /// It is released to the next downstream; the first member of all says which that is.
    pub fn released(&self) {
        let mut members = self.joint.members();
        let newest = members.newest_downstream();
        if let Some(member) = members.get(self.id) {
            member.downstream = newest.max(member.downstream + u64::from(newest == member.downstream));
        }
    }

    /// With the next downstream it begins there, as far as is known now.
    pub fn set_next(&self, next: Seam) {
        if let Some(member) = self.joint.members().get(self.id) {
            member.next = next;
        }
    }

    /// It begins with the present downstream, anew at `at`. If that one has `failed` the next begins at the resume point.
    pub fn begins(&self, at: Option<Moment>, failed: bool) {
        if let Some(member) = self.joint.members().get(self.id) {
            let seam = at.map_or(Seam::Unknown, Seam::At);
            member.begun = (member.downstream, seam);
            member.next = if failed { Seam::Resume } else { seam };
        }
    }

    /// It begins with the present downstream where it stopped, with what is of this time.
    pub fn goes_on(&self, at: Option<Moment>, failed: bool) {
        if let Some(member) = self.joint.members().get(self.id) {
            let seam = at.filter(|_| member.next != Seam::Here).map_or(member.next, Seam::At);
            member.begun = (member.downstream, seam);
            member.next = if failed { Seam::Resume } else { seam };
        }
    }

    /// The present downstream has taken a sync point.
    pub fn given(&self, at: Moment) {
        if let Some(member) = self.joint.members().get(self.id)
            && member.next != Seam::Resume
        {
            member.next = Seam::At(at);
        }
    }

    /// The run is over.
    pub fn end(&self) {
        if let Some(member) = self.joint.members().get(self.id) {
            member.running = false;
        }
    }

    /// Says how things are; how far the resume point may move.
    pub fn report(&self, report: Report) -> Limit {
        let mut members = self.joint.members();
        if let Some(member) = members.get(self.id) {
            member.report = report;
        }
        members.limit(self.id)
    }

    /// Says how things are, for the others.
    pub fn tell(&self, report: Report) {
        if let Some(member) = self.joint.members().get(self.id) {
            member.report = report;
        }
    }

    /// The resume point has moved, and is on its way to the disk.
    pub fn moved(&self, at: Option<Moment>) {
        if let Some(member) = self.joint.members().get(self.id)
            && at.is_some()
            && member.resume[1] != at
        {
            member.resume = [member.resume[1].or(at), at];
        }
    }

    /// The resume point is on the disk before any that another member sets from now on.
    pub fn saved(&self) {
        if let Some(member) = self.joint.members().get(self.id) {
            member.resume[0] = member.resume[1];
        }
    }

    /// Something of any member is undelivered.
    pub fn is_owed(&self) -> bool {
        self.joint.members().list.iter().any(|member| member.report.pending)
    }

    /// Where a follower begins: at its last sync point at or before this, if the leader has shown where it does.
    pub fn beginning(&self) -> Option<Moment> {
        let members = self.joint.members();
        let (leader, seam) = members.leader_of(self.id).filter(|(leader, _)| leader.running)?;
        match seam {
            Seam::At(at) => Some(at),
            Seam::Unknown | Seam::Resume | Seam::Here => leader.resume[1],
        }
    }

    /// Where a follower goes on when downstream is exchanged: at its last sync point at or before this, unless that is where it
    /// stands or later.
    pub fn goes_back_to(&self) -> Option<Moment> {
        let members = self.joint.members();
        let (leader, seam) = members.leader_of(self.id).filter(|(leader, _)| !leader.report.ended)?;
        match seam {
            Seam::Unknown if !leader.report.pending => None,
            Seam::Unknown | Seam::Resume => leader.resume[1].or(Some(Moment::FIRST)),
            Seam::Here => None,
            Seam::At(at) => Some(at),
        }
    }

    /// The earliest that another member needs.
    pub fn needed(&self) -> Option<Moment> {
        let members = self.joint.members();
        let needs = members.list.iter().filter(|member| member.id != self.id && member.report.pending);
        needs.filter_map(|member| member.report.own).min()
    }

    /// This member has dropped what lies before `to`.
    pub fn dropped(&self, to: Moment) {
        let mut members = self.joint.members();
        members.dropped = members.dropped.max(Some(to));
        self.joint.drops.fetch_add(1, Ordering::Release);
    }

    /// Another member may have dropped something that this one has not followed.
    pub fn drop_is_due(&self) -> bool {
        self.joint.drops.load(Ordering::Acquire) != self.drops
    }

    /// Up to where to drop. It is followed with that.
    pub fn take_drop(&mut self) -> Option<Moment> {
        let members = self.joint.members();
        self.drops = self.joint.drops.load(Ordering::Acquire);
        members.dropped
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.joint.members().list.retain(|member| member.id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::diskbuffer::resume::{Overlap, Resume};
    use crate::media::buffer::Facts;
    use crate::store::{Mark, Sync, Totals};

    const MS: u64 = 1_000_000;

    /// A stream, with all that ever went through it.
    struct Stream {
        member: Membership,
        resume: Resume,
        overlap: Overlap,
        /// ns from buffer to buffer.
        step: u64,
        /// Buffers from sync point to sync point.
        gop: usize,
        /// Buffers of the first domain.
        first_domain: usize,
        received: usize,
        acked: usize,
        /// Index of where it resumes, now and before its last move.
        at: usize,
        before: usize,
    }

    impl Stream {
        fn new(joint: &Arc<JointCursor>, leads: bool, step: u64, gop: usize, overlap: u64, split: u64) -> Self {
            let overlap = Overlap { time: overlap, bytes: 0 };
            let member = Membership::new(joint, leads);
            let resume = Resume::new(mark(0, step), None, overlap);
            member.begin(Report::default(), None);
            let first_domain = (split / step) as usize;
            Self { member, resume, overlap, step, gop, first_domain, received: 0, acked: 0, at: 0, before: 0 }
        }

        fn moment(&self, index: usize) -> Moment {
            match index.checked_sub(self.first_domain) {
                Some(later) => Moment { domain: 2, time: (later as u64 * self.step) as i64 },
                None => Moment { domain: 1, time: (index as u64 * self.step) as i64 },
            }
        }

        fn is_sync(&self, index: usize) -> bool {
            index.is_multiple_of(self.gop)
        }

        fn pending(&self) -> bool {
            self.acked < self.received
        }

        fn report(&self) -> Report {
            Report { own: self.resume.own_at(), pending: self.pending(), ended: false }
        }

        fn receive(&mut self) {
            self.received += 1;
            self.member.tell(self.report());
        }

        fn ack(&mut self) {
            if self.pending() {
                let sync = if self.is_sync(self.acked) { Sync::Closed } else { Sync::None };
                let facts = Facts { sync, ..Facts::default() };
                let (from, to) = (mark(self.acked, self.step), mark(self.acked + 1, self.step));
                let at = Some(self.moment(self.acked));
                assert!(!self.resume.acknowledged(from, to, &facts, None, at));
                self.acked += 1;
            }
            let limit = self.member.report(self.report());
            let at = self.resume.settle(limit, u64::MAX).unwrap() as usize - 1;
            assert!(at >= self.at, "it never goes back");
            if at != self.at {
                (self.before, self.at) = (self.at, at);
            }
            self.member.moved(self.resume.at());
        }

        /// What it would resume from alone, from all that went through.
        fn alone(&self) -> usize {
            let covers = |index: &usize| (self.acked - index) as u64 * self.step >= self.overlap.time;
            (0..self.acked).filter(|index| self.is_sync(*index)).rfind(covers).unwrap_or(0)
        }
    }

    fn mark(index: usize, step: u64) -> Mark {
        let n = index as u64;
        Mark { sequence: n + 1, totals: Totals { buffers: n, bytes: n, time: n * step } }
    }

    /// The last sync point at or before `moment` that is still there and not beyond the cursor.
    fn begins_at(stream: &Stream, moment: Moment) -> usize {
        let there = stream.at..=stream.acked;
        there.filter(|i| stream.is_sync(*i)).rfind(|i| stream.moment(*i) <= moment).unwrap_or(stream.at)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn what_a_resume_needs_is_never_given_up(
            gop in 1..40usize,
            audio_gop in 1..3usize,
            overlap in 0..4000u64,
            split in 0..20_000u64,
            steps in proptest::collection::vec((0..3usize, any::<bool>(), 1..30usize), 1..150),
        ) {
            let joint = Arc::new(JointCursor::default());
            let (overlap, split) = (overlap * MS, split * MS);
            let mut streams = [
                Stream::new(&joint, false, 20 * MS, audio_gop, overlap, split),
                Stream::new(&joint, true, 40 * MS, gop, overlap, split),
                Stream::new(&joint, false, 100 * MS, 1, overlap, split),
            ];
            // In step from the start: before it has shown where it is, nobody can follow the leader.
            for stream in [1, 0, 2] {
                streams[stream].receive();
                streams[stream].ack();
            }
            for (which, receives, count) in steps {
                for _ in 0..count {
                    if receives {
                        // None gets ahead by so much that it would be cut.
                        let now = |s: &Stream| s.received as u64 * s.step;
                        if now(&streams[which]) < streams.iter().map(now).min().unwrap() + 10_000 * MS {
                            streams[which].receive();
                        }
                        continue;
                    }
                    let acked = |s: &Stream| s.acked as u64 * s.step;
                    if acked(&streams[which]) > streams.iter().map(acked).min().unwrap() + 10_000 * MS {
                        continue;
                    }
                    let leader_was = streams[1].at;
                    streams[which].ack();
                    let leader = &streams[1];
                    prop_assert!(leader.is_sync(leader.at) && leader.at <= leader.alone());
                    let begins = leader.moment(leader.at);
                    for follower in [&streams[0], &streams[2]] {
                        prop_assert!(follower.at <= follower.alone());
                        if leader.at > leader_was && follower.pending() {
                            prop_assert!(begins <= follower.moment(follower.alone()), "undelivered data has its keyframe");
                        }
                        if follower.at == 0 {
                            // All that it ever had.
                            continue;
                        }
                        // Also with a leader that was saved a move earlier.
                        prop_assert!(follower.moment(follower.at) <= leader.moment(leader.before));
                        let at = begins_at(follower, begins);
                        prop_assert!(follower.moment(at) <= begins && follower.is_sync(at), "it covers the keyframe");
                    }
                }
            }
            // Nothing is kept that nobody needs.
            let until = streams.iter().map(|s| s.received as u64 * s.step).max().unwrap() + 4 * gop as u64 * 40 * MS;
            for time in (0..until).step_by(20 * MS as usize) {
                for stream in &mut streams {
                    if stream.received as u64 * stream.step <= time {
                        stream.receive();
                    }
                    if stream.acked as u64 * stream.step <= time {
                        stream.ack();
                    }
                }
            }
            let leader = &streams[1];
            prop_assert!(leader.alone() - leader.at <= gop);
            let distance = |s: &Stream| (s.alone() - s.at) as u64 * s.step;
            for follower in [&streams[0], &streams[2]] {
                prop_assert!(distance(follower) <= (3 * gop as u64 * 40 + 200) * MS);
            }
        }
    }

    fn at(domain: u64, time: i64) -> Moment {
        Moment { domain, time }
    }

    fn needs(own: Moment) -> Report {
        Report { own: Some(own), pending: true, ..Report::default() }
    }

    #[test]
    fn an_earlier_run_is_long_before_a_later_one_and_not_after_it() {
        let sound = at(2, 50);
        assert!(at(3, 0).is_long_after(sound) && !at(1, 90).is_long_after(sound) && !at(2, 90).is_long_after(sound));
        assert!(sound.is_long_after(at(1, 90)) && !sound.is_long_after(at(3, 0)));
    }

    #[test]
    fn the_slowest_that_waits_holds_the_leader_and_nobody_else() {
        let joint = Arc::new(JointCursor::default());
        let [audio, video, text] = [false, true, false].map(|leads| Membership::new(&joint, leads));
        for member in [&audio, &video, &text] {
            member.begin(Report::default(), None);
        }
        audio.report(needs(at(1, 50)));
        text.report(Report { pending: false, ..needs(at(1, 10)) });
        assert_eq!(video.report(needs(at(1, 90))), Limit::Until(at(1, 50)));
        text.tell(needs(at(1, 10)));
        assert_eq!(video.report(needs(at(1, 90))), Limit::Until(at(1, 10)));
        text.end();
        assert_eq!(video.report(needs(at(2, 0))), Limit::Until(at(1, 10)), "it may come back");
        drop(text);
        assert_eq!(video.report(needs(at(2, 0))), Limit::Until(at(1, 50)), "an earlier run comes first");
        drop(audio);
        assert_eq!(video.report(needs(at(1, 90))), Limit::Own);
    }

    #[test]
    fn a_leader_holds_the_others_until_it_has_ended_or_is_gone() {
        let joint = Arc::new(JointCursor::default());
        let [audio, video] = [false, true].map(|leads| Membership::new(&joint, leads));
        assert!(video.leads() && !audio.leads());
        for member in [&audio, &video] {
            member.begin(Report::default(), None);
        }
        video.report(needs(at(1, 0)));
        assert_eq!(audio.report(needs(at(1, 50))), Limit::Until(Moment::FIRST), "it has not shown where it is");
        video.moved(Some(at(1, 20)));
        video.moved(Some(at(1, 40)));
        assert_eq!(audio.report(needs(at(1, 50))), Limit::Until(at(1, 20)), "one move behind");
        assert_eq!(audio.beginning(), Some(at(1, 40)));
        video.report(Report { ended: true, ..Report::default() });
        assert_eq!(audio.report(needs(at(1, 50))), Limit::Own);
        drop(video);
        assert!(audio.leads());
        assert_eq!(audio.beginning(), None);
    }

    #[test]
    fn each_downstream_has_its_own_beginning() {
        let joint = Arc::new(JointCursor::default());
        let [audio, video] = [false, true].map(|leads| Membership::new(&joint, leads));
        for member in [&audio, &video] {
            member.begin(Report::default(), None);
            member.released();
        }
        video.begins(Some(at(1, 10)), false);
        video.given(at(1, 20));
        assert_eq!((audio.beginning(), audio.goes_back_to()), (Some(at(1, 10)), Some(at(1, 10))), "however far it is");
        audio.released();
        assert_eq!(audio.goes_back_to(), Some(at(1, 20)), "where the video will go back to");
        video.released();
        assert_eq!(audio.goes_back_to(), Some(at(1, 20)));
        video.goes_on(Some(at(1, 30)), false);
        video.given(at(1, 40));
        assert_eq!(audio.goes_back_to(), Some(at(1, 30)));
        video.moved(Some(at(1, 20)));
        video.set_next(Seam::Resume);
        video.given(at(1, 50));
        assert_eq!(audio.beginning(), Some(at(1, 30)), "of the one that has failed since");
        let late = Membership::new(&joint, false);
        for member in [&audio, &video, &late] {
            member.released();
        }
        assert_eq!((audio.beginning(), late.beginning()), (Some(at(1, 20)), Some(at(1, 20))), "the resume point");
        video.begins(Some(at(1, 20)), false);
        video.set_next(Seam::Here);
        for member in [&late, &audio, &video] {
            member.released();
        }
        video.goes_on(Some(at(1, 60)), false);
        assert_eq!((audio.goes_back_to(), late.goes_back_to()), (None, None), "something new begins");
    }

    #[test]
    fn sound_is_kept_as_far_back_as_the_bytes_of_the_video_reach() {
        const SECOND: u64 = 1_000_000_000;
        let joint = Arc::new(JointCursor::default());
        let overlap = Overlap { time: 5 * SECOND, bytes: 1 << 30 };
        let members = [false, true].map(|leads| Membership::new(&joint, leads));
        let mut resumes =
            [Resume::following(mark(0, SECOND / 4), None, overlap), Resume::new(mark(0, SECOND / 4), None, overlap)];
        members.iter().for_each(|member| member.begin(Report::default(), None));
        for index in 0..800usize {
            for (which, (member, resume)) in members.iter().zip(&mut resumes).enumerate() {
                let is_sync = which == 0 || index.is_multiple_of(80);
                let facts = Facts { sync: if is_sync { Sync::Closed } else { Sync::None }, ..Facts::default() };
                let now = Some(at(1, (index as u64 * SECOND / 4) as i64));
                let (from, to) = (mark(index, SECOND / 4), mark(index + 1, SECOND / 4));
                assert!(!resume.acknowledged(from, to, &facts, None, now));
                let own = resume.own_at();
                resume.settle(member.report(Report { own, ..Report::default() }), u64::MAX);
                member.moved(resume.at());
            }
            assert!(resumes[0].at() <= resumes[1].at(), "{index}: {:?}", resumes.each_ref().map(Resume::at));
        }
        assert_eq!(resumes[1].at(), Some(at(1, 140 * SECOND as i64)), "a minute");
    }

    #[test]
    fn a_drop_is_followed_once() {
        let joint = Arc::new(JointCursor::default());
        let [mut audio, video] = [false, true].map(|leads| Membership::new(&joint, leads));
        assert!(!audio.drop_is_due());
        video.dropped(at(1, 40));
        video.dropped(at(1, 30));
        assert!(audio.drop_is_due());
        assert_eq!(audio.take_drop(), Some(at(1, 40)));
        assert!(!audio.drop_is_due());
        assert!(!Membership::new(&joint, false).drop_is_due(), "before its time");
    }
}
