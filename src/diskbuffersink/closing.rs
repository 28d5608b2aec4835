//! Ends that are in order: a muxer is closed before another epoch or other caps, and at the end of the stream the bin posts its
//! own.

use std::time::{Duration, Instant};

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::control::{Control, Next, Phase, hold_all};
use super::failure::Failure;
use super::stream::Stream;
use super::{CAT, DiskBufferSink};
use crate::diskbuffer::DiskBuffer;
use crate::diskbuffer::managed::Boundary;

/// How long a stream may have nothing to give before the others stop waiting for it to come to the cut.
const STARVED: Duration = Duration::from_millis(300);
/// How long the streams may take to account for what the child has confirmed.
const ACCOUNTS: Duration = Duration::from_millis(500);

/// Some streams stand before what is not for this child; the others come as far before it is closed.
pub struct Cut {
    since: Instant,
    streams: Vec<DiskBuffer>,
    /// Running time up to which the child has the streams that wait.
    until: Option<gst::ClockTime>,
}

impl Control {
    pub(super) fn boundary(&mut self, bin: &DiskBufferSink, buffer: DiskBuffer, boundary: Boundary) {
        if !buffer.progress().held {
            // It was released meanwhile.
            return;
        }
        match &mut self.phase {
            Phase::Finished(_) => {
                if let Some(instance) = self.take_instance() {
                    gst::debug!(CAT, obj = bin, "Data follows the end of stream: a child for it");
                    hold_all(bin);
                    self.stop(instance, Next::Start);
                }
            }
            Phase::Running(run) => {
                let Some(input) = run.instance.input(&buffer) else { return };
                gst::info!(CAT, obj = bin, "{} is before another {boundary:?}", buffer.name());
                let until = input.taken_until();
                // A muxer waits for each of its streams: this one has no more.
                input.end();
                let cut = run.cut.get_or_insert(Cut { since: Instant::now(), streams: Vec::new(), until: None });
                cut.until = cut.until.max(until);
                cut.streams.push(buffer);
            }
            _ => {}
        }
    }

    /// Whether the streams that do not wait have come as far as those that do.
    pub(super) fn look_at_cut(&mut self, bin: &DiskBufferSink) {
        let Phase::Running(run) = &self.phase else { return };
        let Some(cut) = &run.cut else { return };
        let is_done = |(buffer, input): &(DiskBuffer, super::input::Input)| {
            let progress = buffer.progress();
            cut.streams.contains(buffer)
                || input.has_ended()
                || (cut.until.is_some() && input.taken_until() >= cut.until)
                || (progress.is_starved() && cut.since.elapsed() >= STARVED)
        };
        let is_stuck = bin.imp().eos_timeout().is_some_and(|timeout| run.moved.max(cut.since).elapsed() >= timeout);
        if run.instance.inputs.iter().all(is_done) || is_stuck {
            self.close(bin);
        }
    }

    /// Ends the child's streams; its own end of stream is awaited.
    pub(super) fn close(&mut self, bin: &DiskBufferSink) {
        hold_all(bin);
        let Some(instance) = self.take_instance() else { return };
        gst::info!(CAT, obj = bin, "Child {} is being closed", instance.id);
        let until = bin.imp().eos_timeout().map(|timeout| Instant::now() + timeout);
        self.phase = Phase::Closing(instance, until);
    }

    /// Its end of stream has come, or was waited for long enough: the next one.
    pub(super) fn closed(&mut self, bin: &DiskBufferSink) {
        if let Some(instance) = self.take_instance() {
            gst::debug!(CAT, obj = bin, "Child {} is closed", instance.id);
            self.stop(instance, Next::Start);
        }
    }

    pub(super) fn child_ended(&mut self, bin: &DiskBufferSink) {
        match &self.phase {
            Phase::Closing(instance, _) if instance.inputs.iter().all(|(_, input)| input.has_ended()) => {
                confirm(bin);
                self.closed(bin);
            }
            Phase::Running(run) if run.instance.inputs.iter().all(|(_, input)| input.has_ended()) => {
                confirm(bin);
                self.failures = 0;
                if run.cut.is_some() {
                    hold_all(bin);
                    self.closed(bin);
                } else if let Some(instance) = self.take_instance() {
                    gst::info!(CAT, obj = bin, "The child has had everything");
                    self.phase = Phase::Finished(instance);
                    self.eos.child_is_done();
                }
            }
            Phase::Stopping(..) | Phase::Wedged(..) | Phase::Finished(_) => {}
            _ => self.fail(bin, Failure::new("The sink has ended by itself")),
        }
    }

    /// A stream goes; the others go on.
    pub(super) fn left(&mut self, bin: &DiskBufferSink, buffer: &DiskBuffer) {
        if let Phase::Running(run) = &mut self.phase
            && let Some(cut) = &mut run.cut
        {
            cut.streams.retain(|stream| stream != buffer);
        }
        let Some(instance) = self.instance_mut() else { return };
        let Some(at) = instance.inputs.iter().position(|(b, _)| b == buffer) else { return };
        let (_, input) = instance.inputs.remove(at);
        let (was_used, is_last) = (input.taken() > 0, instance.inputs.is_empty());
        input.leave();
        if is_last && let Some(instance) = self.take_instance() {
            gst::debug!(CAT, obj = bin, "The last stream has gone, and the child with it");
            self.stop(instance, Next::Stop);
        } else if !was_used && let Some(instance) = self.take_instance() {
            // A muxer knows nothing of this stream, not even its caps, and has let nothing out for want of them.
            gst::debug!(CAT, obj = bin, "A stream has gone before the child had anything of it");
            let streams = bin.imp().streams();
            streams.iter().for_each(|stream| stream.buffer.hold(Some("another stream has gone before it began")));
            self.stop(instance, Next::Start);
        }
    }
}

/// What the child was given has arrived.
fn confirm(bin: &DiskBufferSink) {
    bin.imp().streams().iter().for_each(|Stream { buffer, .. }| buffer.confirm(ACCOUNTS));
}
