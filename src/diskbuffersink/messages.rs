//! What the child posts, and what of it the pipeline gets to see.
//!
//! Errors and ends of stream go to the control thread. Whatever would make the pipeline wait, change its state, look for
//! another clock or end ends here: the child comes and goes, the pipeline plays on.

use gst::prelude::*;

use super::control::{Event, Events};
use super::failure::Failure;
use super::instance::Id;

/// Judges the messages of an instance.
pub fn judge(
    id: Id,
    sync: bool,
    events: Events,
) -> impl Fn(gst::Message) -> Option<gst::Message> + Send + Sync + 'static {
    move |message| {
        use gst::MessageView as View;
        match message.view() {
            View::Error(error) => {
                let source = message.src().map(|source| source.path_string().to_string());
                let debug = error.debug().map(|text| text.to_string());
                events.send(Event::Failed(id, Failure { error: error.error(), debug, source }));
                None
            }
            View::Eos(_) => {
                events.send(Event::Ended(id));
                None
            }
            View::AsyncDone(_) => {
                events.send(Event::Prerolled(id));
                None
            }
            View::AsyncStart(_)
            | View::StateDirty(_)
            | View::RequestState(_)
            | View::ClockLost(_)
            | View::ClockProvide(_)
            | View::NewClock(_)
            | View::SegmentStart(_)
            | View::SegmentDone(_)
            | View::DurationChanged(_)
            | View::ResetTime(_)
            | View::StreamStart(_)
            | View::StructureChange(_)
            | View::StepStart(_)
            | View::StepDone(_)
            | View::Buffering(_)
            | View::Progress(_) => None,
            View::Latency(_) if !sync => None,
            View::Element(element) => {
                if element.structure().is_some_and(|s| s.name() == "splitmuxsink-fragment-opened")
                    && let Some(source) = message.src()
                {
                    events.send(Event::Opened(id, source.clone()));
                }
                Some(message)
            }
            _ => Some(message),
        }
    }
}
