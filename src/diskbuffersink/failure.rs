//! Why a child has failed, how that is told, and how long to wait before the next attempt.

use std::time::Duration;

use gst::glib;
use gst::glib::error::ErrorDomain;

use super::DiskBufferSink;

#[derive(Debug, Clone)]
pub struct Failure {
    pub error: glib::Error,
    pub debug: Option<String>,
    /// Path of the element that has posted it.
    pub source: Option<String>,
}

/// A push that was not taken.
#[derive(Debug)]
pub struct Refusal {
    pub flow: gst::FlowError,
    pub pad: String,
    pub caps: Option<gst::Caps>,
}

impl Failure {
    pub fn new(text: &str) -> Self {
        Self { error: glib::Error::new(gst::ResourceError::Failed, text), debug: None, source: None }
    }

    /// Downstream has refused, and nobody has said why.
    pub fn refused(refusal: &Refusal) -> Self {
        let Refusal { flow, pad, caps } = refusal;
        match (flow, caps) {
            (gst::FlowError::NotNegotiated, Some(caps)) => Self {
                error: glib::Error::new(
                    gst::StreamError::Format,
                    &format!(
                        "The sink does not take what comes on the pad \"{pad}\": {caps}. Put a parser, an encoder or a muxer \
                         where it is missing; for what an earlier run has stored see on-unnegotiable"
                    ),
                ),
                ..Self::new("")
            },
            _ => Self::new(&format!("The sink has refused data on the pad \"{pad}\" without saying why: {flow}")),
        }
    }

    pub fn text(&self) -> String {
        self.error.message().to_string()
    }

    /// The original error as one of `element`.
    pub fn into_message(self, element: &DiskBufferSink, failures: u32) -> gst::Message {
        let text = match failures {
            0 | 1 => self.text(),
            _ => format!("{} (given up after {failures} failures in a row, see max-retries)", self.text()),
        };
        let own = [
            gst::CoreError::domain(),
            gst::ResourceError::domain(),
            gst::StreamError::domain(),
            gst::LibraryError::domain(),
        ];
        let error = if own.contains(&self.error.domain()) {
            glib::Error::with_domain(self.error.domain(), self.error.code(), &text)
        } else {
            glib::Error::new(gst::ResourceError::Failed, &text)
        };
        let debug = format!("{}: {}", self.source.unwrap_or_default(), self.debug.unwrap_or_default());
        gst::message::Error::builder_from_error(error).debug(&debug).src(element).build()
    }
}

/// The pause after so many failures in a row: doubled from one to the next, with a quarter of random spread.
pub fn pause(first: Duration, longest: Duration, failures: u32, random: f64) -> Duration {
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(20));
    // Forty cameras must not come back in step.
    doubled.min(longest.max(first)).mul_f64(0.75 + 0.5 * random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let of =
            |failures, random| pause(Duration::from_millis(200), Duration::from_secs(10), failures, random).as_millis();
        assert_eq!([of(1, 0.5), of(2, 0.5), of(3, 0.5), of(50, 0.5)], [200, 400, 800, 10_000]);
        assert_eq!([of(1, 0.0), of(1, 1.0), of(50, 1.0)], [150, 250, 12_500]);
    }
}
