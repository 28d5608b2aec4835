//! How a stream that is full waits for the reference, which decides about it.
//!
//! Where one thread brings both, the reference cannot come while the other stream keeps it: the windows are decided by
//! what is known. A reference that another thread brings is waited for, so that who is scheduled first makes no
//! difference, until it has brought nothing for [`PATIENCE`]; then not again before it brings something. Live streams
//! are never kept.

use std::time::{Duration, Instant};

use super::core::Core;
use super::line::{Key, Line};

/// A reference that a thread of its own brings is slow, such as an encoder that looks ahead; unless what keeps it back,
/// farther upstream, is that another stream is not taken. That it has brought nothing for so long tells.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a stream without room waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Not for the reference.
    ForOthers,
    /// The reference comes, or has come to nothing after this long.
    AtMost(Duration),
    /// The reference, which does not come as long as this stream waits.
    InVain,
}

impl Core {
    /// Whether the reference, on which the stream waits, has nothing: who brings both may wait for this one to be
    /// taken.
    fn is_reference_starving(&self, key: Key) -> bool {
        let other = self.reference.filter(|reference| *reference != key).and_then(|key| self.lines.get(&key));
        other.is_some_and(|line| line.level.buffers == 0 && !line.busy && line.ready.is_empty())
    }

    /// How the stream, which is full and of which nothing can leave, has to do with the reference. `since`: what had
    /// come of that, and when.
    pub fn wait_for_reference(&mut self, key: Key, since: &mut Option<(u64, Instant)>) -> Waiting {
        let unplaced = self.lines.get(&key).is_some_and(Line::is_unplaced) && !self.mapping.is_ready();
        if !unplaced && !self.is_reference_starving(key) {
            return Waiting::ForOthers;
        }
        let reference = self.reference.filter(|reference| *reference != key).and_then(|key| self.lines.get(&key));
        let Some(reference) = reference else { return Waiting::InVain };
        let live = self.lines.get(&key).is_some_and(|line| line.live == Some(true));
        // Who brings both would wait for itself. A segment does not come after data.
        let own = reference.feeder == Some(std::thread::current().id());
        let arrivals = reference.arrivals;
        if live || own || unplaced && reference.counters.buffers > 0 || self.lapsed == Some(arrivals) {
            return Waiting::InVain;
        }
        let since = match since {
            Some(since) if since.0 == arrivals => since.1,
            _ => since.insert((arrivals, Instant::now())).1,
        };
        match PATIENCE.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) {
            Some(left) => Waiting::AtMost(left),
            None => {
                self.lapsed = Some(arrivals);
                Waiting::InVain
            }
        }
    }

    /// Decides what waits by what is known of the reference so far. Whether there was something.
    pub fn give_up_waiting(&mut self, key: Key) -> bool {
        let Some(stream) = self.lines.get(&key).and_then(|line| line.stream) else { return false };
        self.with_windows(|windows, _, out| windows.give_up_waiting(stream, None, out));
        self.lines.get(&key).is_some_and(|line| !line.ready.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::line::{Incoming, Out, Port};
    use super::*;

    const OTHER: Key = Key::Further(0);

    fn core() -> Core {
        gst::init().unwrap();
        let mut core = Core::default();
        for key in [Key::Main, OTHER] {
            let port = Port {
                key,
                name: key.sink_name(),
                sink: gst::Pad::new(gst::PadDirection::Sink),
                src: gst::Pad::new(gst::PadDirection::Src),
                look: Default::default(),
                item: Default::default(),
                room: Default::default(),
                idle: Default::default(),
            };
            core.lines.insert(key, Line::new(Arc::new(port)));
        }
        core.begin(Arc::default()).unwrap();
        core.join(Key::Main);
        core.join(OTHER);
        core
    }

    #[test]
    fn a_reference_of_which_something_is_about_to_leave_does_not_starve() {
        let mut core = core();
        assert!(core.is_reference_starving(OTHER));
        let segment = gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new());
        core.lines.get_mut(&Key::Main).unwrap().ready.push_back(Out::Event(segment));
        assert!(!core.is_reference_starving(OTHER));
        assert!(!core.is_reference_starving(Key::Main), "it does not wait for itself");
    }

    #[test]
    fn a_reference_is_waited_for_until_it_has_brought_nothing_for_long_and_again_when_it_brings_more() {
        let mut core = core();
        let bring = |core: &mut Core| {
            let line = core.lines.get_mut(&Key::Main).unwrap();
            line.arrives(Incoming::Event(gst::event::StreamStart::new("main")));
        };
        let of = |core: &mut Core, since: &mut _| {
            std::thread::scope(|scope| scope.spawn(|| core.wait_for_reference(OTHER, since)).join().unwrap())
        };
        bring(&mut core);
        assert_eq!(core.wait_for_reference(OTHER, &mut None), Waiting::InVain, "one thread brings both");
        let mut since = None;
        assert!(matches!(of(&mut core, &mut since), Waiting::AtMost(left) if left <= PATIENCE));
        let Some((_, begun)) = &mut since else { panic!("not noted") };
        let Some(long_ago) = begun.checked_sub(PATIENCE) else { return };
        *begun = long_ago;
        assert_eq!(of(&mut core, &mut since), Waiting::InVain);
        assert_eq!(of(&mut core, &mut None), Waiting::InVain, "not twice for the same");
        bring(&mut core);
        assert!(matches!(of(&mut core, &mut since), Waiting::AtMost(_)));
        core.lines.get_mut(&OTHER).unwrap().live = Some(true);
        assert_eq!(of(&mut core, &mut since), Waiting::InVain, "live streams are not kept");
        assert_eq!(of(&mut core, &mut None), Waiting::InVain);
    }
}
