//! What follows when the child has failed: hold, NULL, a pause, and again.

use std::time::{Duration, Instant};

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::control::{Control, Next, Phase};
use super::failure::{Failure, pause};
use super::instance::Instance;
use super::{CAT, DiskBufferSink};

/// How long a child may take to go to NULL.
const PATIENCE: Duration = Duration::from_secs(10);

impl Control {
    /// The child is of no use any more.
    pub(super) fn fail(&mut self, bin: &DiskBufferSink, failure: Failure) {
        self.failures += 1;
        self.failing_since.get_or_insert_with(Instant::now);
        let limit = bin.imp().max_retries();
        if limit > 0 && self.failures > limit {
            self.give_up_on(bin, failure);
            return;
        }
        let (first, longest) = bin.imp().retry_intervals();
        let pause = pause(first, longest, self.failures, random());
        gst::warning!(
            CAT,
            obj = bin,
            "The sink has failed {} times in a row, data is kept, next attempt in {:.1} s: {} ({})",
            self.failures,
            pause.as_secs_f64(),
            failure.text(),
            failure.debug.as_deref().unwrap_or("no details")
        );
        self.put_down(bin, &failure, Next::Wait(pause));
        self.tell_failure(bin, &failure, Some(pause));
    }

    /// No attempt follows: the application has to hear of it.
    pub(super) fn give_up_on(&mut self, bin: &DiskBufferSink, failure: Failure) {
        self.failures = self.failures.max(1);
        self.put_down(bin, &failure, Next::GiveUp);
        self.tell_failure(bin, &failure, None);
        gst::error!(CAT, obj = bin, "Given up: {}", failure.text());
        let message = failure.into_message(bin, self.failures);
        let _ = bin.post_message(message);
    }

    fn tell_failure(&self, bin: &DiskBufferSink, failure: &Failure, retry_in: Option<Duration>) {
        bin.imp().count_failure(&failure.text());
        let retry_in = retry_in.map_or(u64::MAX, |pause| pause.as_nanos() as u64);
        bin.imp().tell("diskbuffersink-error", |b| {
            b.field("error", failure.error.clone())
                .field("debug", failure.debug.clone().unwrap_or_default())
                .field("source", failure.source.clone().unwrap_or_default())
                .field("failures", self.failures)
                .field("retry-in", retry_in)
        });
    }

    /// Keeps the data and sends the child to NULL.
    fn put_down(&mut self, bin: &DiskBufferSink, failure: &Failure, next: Next) {
        let text = failure.text();
        bin.imp().streams().iter().for_each(|stream| stream.buffer.hold(Some(&text)));
        match self.take_instance() {
            Some(instance) => self.stop(instance, next),
            None => self.settle(bin, next),
        }
    }

    pub(super) fn stop(&mut self, instance: Instance, next: Next) {
        self.took_data |= instance.taken() > 0;
        instance.stop();
        self.phase = Phase::Stopping(instance, Instant::now() + PATIENCE, next);
    }

    /// The pause is over.
    pub(super) fn start_again(&mut self, bin: &DiskBufferSink) {
        if self.failures > 0 {
            bin.imp().count_restart();
        }
        if let Err(err) = self.start(bin) {
            self.phase = Phase::GivenUp;
            gst::error!(CAT, obj = bin, "{err}");
            bin.post_error_message(err);
        }
    }

    /// The child does not go to NULL.
    pub(super) fn wedged(&mut self, bin: &DiskBufferSink) {
        let Phase::Stopping(instance, _, next) = std::mem::replace(&mut self.phase, Phase::Stopped) else { return };
        bin.imp().count_failure("The sink does not go to NULL");
        if !self.recipe.makes_new_ones() {
            gst::element_warning!(
                bin,
                gst::ResourceError::Failed,
                ("The sink has not gone to NULL within {} s: it is waited for, data is kept", PATIENCE.as_secs())
            );
            self.phase = Phase::Wedged(instance, next);
            return;
        }
        gst::element_warning!(
            bin,
            gst::ResourceError::Failed,
            ("The sink has not gone to NULL within {} s: it is left alone, another one is built", PATIENCE.as_secs())
        );
        self.retire(bin, &instance);
        self.settle(bin, next);
    }

    /// Another stream needs a place.
    pub(super) fn joined(&mut self, bin: &DiskBufferSink) {
        match &self.phase {
            Phase::Running(run) if run.instance.muxes && run.instance.taken() > 0 => self.close(bin),
            Phase::Closing(..) | Phase::Stopping(..) | Phase::Waiting(_) | Phase::Wedged(..) | Phase::GivenUp => {}
            Phase::Stopped if !self.open => {}
            _ => {
                super::control::hold_all(bin);
                match self.take_instance() {
                    Some(instance) => self.stop(instance, Next::Start),
                    None => self.settle(bin, Next::Start),
                }
            }
        }
    }
}

/// Between 0 and 1; need not be good, only different in each process and element.
fn random() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(0u8) >> 11) as f64 / (1u64 << 53) as f64
}
