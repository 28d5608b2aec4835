//! What only the clock tells: progress, stalls, and an end of stream that does not come.

use std::time::{Duration, Instant};

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::control::{Control, Phase, Run};
use super::failure::Failure;
use super::stream::Stream;
use super::{CAT, DiskBufferSink};

/// How often what is about to happen is looked at.
const OFTEN: Duration = Duration::from_millis(50);
const SOON: Duration = Duration::from_millis(20);
/// How often, when nothing is expected.
const SELDOM: Duration = Duration::from_secs(1);

/// How far the end of the stream is.
#[derive(Debug, Default)]
pub struct EndOfStream {
    /// How often upstream has ended a stream: another time, another end.
    ends: u64,
    /// Since when upstream has ended every stream, and the latest progress since.
    waiting: Option<Waiting>,
    /// The child has posted its own.
    done: bool,
    /// Ours was posted.
    posted: bool,
    playing: bool,
}

#[derive(Debug)]
struct Waiting {
    moved: Instant,
    accepted: u64,
}

impl EndOfStream {
    pub fn child_is_done(&mut self) {
        self.done = true;
    }

    pub fn pipeline_plays(&mut self, playing: bool) {
        self.playing = playing;
        if let Some(waiting) = &mut self.waiting {
            waiting.moved = Instant::now();
        }
        // A bin forgets it.
        self.posted &= !playing;
    }

    pub fn next_look(&self) -> Duration {
        if self.waiting.is_some() && !self.posted { OFTEN } else { Duration::MAX }
    }
}

impl Control {
    pub(super) fn next_watch(&self, run: &Run, restart_timeout: Option<Duration>) -> Duration {
        if run.cut.is_some() {
            SOON
        } else if !run.trusted {
            OFTEN
        } else {
            restart_timeout.map_or(SELDOM, |timeout| SELDOM.min(timeout / 4))
        }
    }

    /// Looks at the progress of a child that is given data.
    pub(super) fn watch(&mut self, bin: &DiskBufferSink) {
        let Phase::Running(run) = &mut self.phase else { return };
        let streams = bin.imp().streams();
        let progress: Vec<_> = streams.iter().map(|stream| stream.buffer.progress()).collect();
        let accepted = progress.iter().map(|p| p.accepted.buffers).sum();
        let something_waits = progress.iter().any(|p| !p.is_starved());
        if accepted != run.accepted || !something_waits || self.target != gst::State::Playing {
            (run.accepted, run.moved) = (accepted, Instant::now());
        }
        if !run.trusted && progress.iter().any(|p| p.trusted) {
            run.trusted = true;
            self.took_data = true;
            self.failures = 0;
            if let Some(since) = self.failing_since.take() {
                bin.imp().tell_restarted(since.elapsed());
            }
            return;
        }
        let Some(timeout) = bin.imp().restart_timeout().filter(|timeout| run.moved.elapsed() >= *timeout) else {
            return;
        };
        let starved: Vec<_> = streams
            .iter()
            .zip(&progress)
            .filter(|(stream, progress)| progress.is_starved() && !progress.held && !stream.has_ended())
            .map(|(stream, _)| stream.name())
            .collect();
        if run.instance.muxes && !starved.is_empty() {
            run.moved = Instant::now();
            if !std::mem::replace(&mut self.starving_told, true) {
                gst::element_warning!(
                    bin,
                    gst::StreamError::Mux,
                    (
                        "The muxer waits for data on {}, and nothing comes in there: data of the other pads is kept",
                        starved.join(", ")
                    )
                );
            }
            return;
        }
        let text = format!("The sink has not taken a buffer for {:.1} s (restart-timeout)", timeout.as_secs_f64());
        self.fail(bin, Failure::new(&text));
    }

    /// Posts EOS when the child has everything, or does not take the rest.
    pub(super) fn look_at_end(&mut self, bin: &DiskBufferSink) {
        let streams = bin.imp().streams();
        let all_ended = !streams.is_empty() && streams.iter().all(Stream::has_ended);
        let ends = streams.iter().map(Stream::ends).sum();
        if !all_ended || ends != self.eos.ends {
            self.eos = EndOfStream { ends, playing: self.eos.playing, ..Default::default() };
        }
        if !all_ended {
            return;
        }
        let accepted = bin.imp().accepted();
        let waiting = self.eos.waiting.get_or_insert_with(|| Waiting { moved: Instant::now(), accepted });
        if accepted != waiting.accepted {
            *waiting = Waiting { moved: Instant::now(), accepted };
        }
        if self.eos.posted || !self.eos.playing {
            return;
        }
        if self.eos.done {
            gst::info!(CAT, obj = bin, "End of stream");
        } else {
            let moved = waiting.moved;
            if bin.imp().eos_timeout().is_none_or(|timeout| moved.elapsed() < timeout) {
                return;
            }
            bin.imp().tell_eos_timeout();
        }
        self.eos.posted = true;
        let _ = bin.post_message(gst::message::Eos::builder().src(bin).build());
    }
}
