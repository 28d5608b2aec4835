//! Stands between a `diskbuffer` and what a child instance is made of, and gives each thing over to a thread that belongs to
//! the instance.
//!
//! What downstream answers is what upstream gets, one thing at a time: nothing is buffered here. Once closed, whoever pushes
//! gets FLUSHING at once, however long the child keeps the thread inside: a sink that never returns costs its thread, and
//! neither delivery nor a state change of the pipeline waits for it.

use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::CAT;

/// What the instance's thread is to push.
enum Item {
    Buffer(gst::Buffer),
    List(gst::BufferList),
    Event(gst::Event),
}

#[derive(Clone, Copy)]
enum Answer {
    Flow(Result<gst::FlowSuccess, gst::FlowError>),
    Event(bool),
}

/// Where the one thing that is on its way is.
#[derive(Default)]
enum Slot {
    #[default]
    Empty,
    /// To be taken by the thread.
    Offered(Item),
    /// The thread is pushing it.
    Taken,
    Answered(Answer),
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Door {
    #[default]
    Open,
    /// A flush passes.
    Flushing,
    Closed,
}

/// How an end of stream that the bin asks for gets in.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Ending {
    #[default]
    No,
    /// Goes out when nothing else is on its way.
    Wanted,
    /// The same, and the thread ends with it.
    Last,
    Sent,
}

#[derive(Default)]
struct State {
    slot: Slot,
    door: Door,
    /// Whoever waited for the thing that is with the thread has left.
    orphaned: bool,
    ending: Ending,
    /// The child has had an end of stream here, whoever sent it.
    ended: bool,
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
    /// Running time at the end of what was taken last.
    taken_until: Option<gst::ClockTime>,
    taken: u64,
}

pub struct InputImp {
    sinkpad: gst::Pad,
    srcpad: gst::Pad,
    state: Mutex<State>,
    changed: Condvar,
}

impl InputImp {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the thread push it; `None` when the door was shut meanwhile.
    fn hand_over(&self, item: Item) -> Option<Answer> {
        let mut state = self.state();
        // What was left behind by somebody who went through a flush.
        while state.door == Door::Open && !matches!(state.slot, Slot::Empty) {
            state = self.wait(state);
        }
        // Behind an end of stream that the bin has asked for nothing fits.
        if state.door != Door::Open || state.ending != Ending::No {
            return None;
        }
        state.ended |= matches!(&item, Item::Event(event) if event.type_() == gst::EventType::Eos);
        state.slot = Slot::Offered(item);
        self.changed.notify_all();
        loop {
            if let Slot::Answered(answer) = state.slot {
                state.slot = Slot::Empty;
                self.changed.notify_all();
                return Some(answer);
            }
            if state.door != Door::Open {
                match state.slot {
                    Slot::Taken => state.orphaned = true,
                    _ => state.slot = Slot::Empty,
                }
                return None;
            }
            state = self.wait(state);
        }
    }

    fn push(&self, item: Item) -> Result<gst::FlowSuccess, gst::FlowError> {
        match self.hand_over(item) {
            Some(Answer::Flow(flow)) => flow,
            _ => Err(gst::FlowError::Flushing),
        }
    }

    /// The thread: pushes what is offered until the door is closed.
    fn work(&self) {
        loop {
            let mut state = self.state();
            let item = loop {
                if state.door == Door::Closed && state.ending != Ending::Last {
                    return;
                }
                match std::mem::take(&mut state.slot) {
                    Slot::Offered(item) => {
                        state.slot = Slot::Taken;
                        break Some(item);
                    }
                    slot => state.slot = slot,
                }
                if matches!(state.ending, Ending::Wanted | Ending::Last) {
                    state.ending = Ending::Sent;
                    if std::mem::replace(&mut state.ended, true) {
                        continue;
                    }
                    break None;
                }
                state = self.wait(state);
            };
            drop(state);
            let Some(item) = item else {
                gst::debug!(CAT, imp = self, "Ending the child's stream");
                self.srcpad.push_event(gst::event::Eos::new());
                continue;
            };
            let (answer, end) = match item {
                Item::Buffer(buffer) => {
                    let end = end_of(&buffer);
                    (Answer::Flow(self.srcpad.push(buffer)), end)
                }
                Item::List(list) => {
                    let end = list.iter().filter_map(end_of).max();
                    (Answer::Flow(self.srcpad.push_list(list)), end)
                }
                Item::Event(event) => (Answer::Event(self.srcpad.push_event(event)), None),
            };
            let mut state = self.state();
            if matches!(answer, Answer::Flow(Ok(_))) {
                state.taken += 1;
                let until = state.segment.as_ref().and_then(|segment| segment.to_running_time(end?));
                state.taken_until = state.taken_until.max(until);
            }
            state.slot = if std::mem::take(&mut state.orphaned) { Slot::Empty } else { Slot::Answered(answer) };
            drop(state);
            self.changed.notify_all();
        }
    }

    fn sink_event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::FlushStart(_) => {
                {
                    let mut state = self.state();
                    if state.door == Door::Closed {
                        return true;
                    }
                    state.door = Door::Flushing;
                }
                self.changed.notify_all();
                return self.srcpad.push_event(event);
            }
            gst::EventView::FlushStop(_) => {
                {
                    let mut state = self.state();
                    while state.door != Door::Closed && matches!(state.slot, Slot::Taken) {
                        state = self.wait(state);
                    }
                    if state.door == Door::Closed {
                        return true;
                    }
                    state.door = Door::Open;
                    (state.slot, state.orphaned) = (Slot::Empty, false);
                }
                return self.srcpad.push_event(event);
            }
            gst::EventView::Segment(segment) => {
                self.state().segment = segment.segment().downcast_ref::<gst::ClockTime>().cloned();
            }
            _ => {}
        }
        if !event.is_serialized() {
            return self.srcpad.push_event(event);
        }
        matches!(self.hand_over(Item::Event(event)), Some(Answer::Event(true)))
    }
}

fn end_of(buffer: &gst::BufferRef) -> Option<gst::ClockTime> {
    Some(buffer.pts().or(buffer.dts())?.saturating_add(buffer.duration().unwrap_or_default()))
}

#[glib::object_subclass]
impl ObjectSubclass for InputImp {
    const NAME: &'static str = "GstDiskBufferSinkInput";
    type Type = Input;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Self {
        let template =
            |name: &str| class.pad_template(name).unwrap_or_else(|| unreachable!("the class has this pad template"));
        let sinkpad = gst::Pad::builder_from_template(&template("sink"))
            .chain_function(|_, parent, buffer| {
                Self::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |imp| imp.push(Item::Buffer(buffer)),
                )
            })
            .chain_list_function(|_, parent, list| {
                Self::catch_panic_pad_function(parent, || Err(gst::FlowError::Error), |imp| imp.push(Item::List(list)))
            })
            .event_function(|_, parent, event| {
                Self::catch_panic_pad_function(parent, || false, |imp| imp.sink_event(event))
            })
            .flags(gst::PadFlags::PROXY_CAPS | gst::PadFlags::PROXY_SCHEDULING)
            .build();
        let srcpad = gst::Pad::builder_from_template(&template("src")).flags(gst::PadFlags::PROXY_CAPS).build();
        Self { sinkpad, srcpad, state: Mutex::default(), changed: Condvar::new() }
    }
}

impl ObjectImpl for InputImp {
    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        // Fails only for pads of the same name.
        let _ = obj.add_pad(&self.sinkpad);
        let _ = obj.add_pad(&self.srcpad);
    }
}

impl GstObjectImpl for InputImp {}

impl ElementImpl for InputImp {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Disk buffer sink input",
                "Generic",
                "Hands a stream over to a thread of the child of a diskbuffersink",
                "the gst-plugin-streambuffer contributors",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)]
                .into_iter()
                .filter_map(|(name, direction)| {
                    gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &gst::Caps::new_any()).ok()
                })
                .collect()
        });
        &TEMPLATES
    }
}

glib::wrapper! {
    /// See the module.
    pub struct Input(ObjectSubclass<InputImp>) @extends gst::Element, gst::Object;
}

impl Input {
    pub fn new(name: &str) -> Self {
        glib::Object::builder().property("name", name).build()
    }

    /// Starts the thread; it ends after [`Self::close`], when the child lets it go.
    pub fn start(&self) -> std::io::Result<()> {
        let input = self.clone();
        let name = format!("{}:push", self.name());
        std::thread::Builder::new().name(name).spawn(move || input.imp().work()).map(drop)
    }

    /// Whoever pushes gets FLUSHING from now on.
    pub fn close(&self) {
        self.imp().state().door = Door::Closed;
        self.imp().changed.notify_all();
    }

    /// Sends an end of stream behind what is on its way, once; does not wait for it.
    pub fn end(&self) {
        {
            let mut state = self.imp().state();
            if state.ending == Ending::No {
                state.ending = Ending::Wanted;
            }
        }
        self.imp().changed.notify_all();
    }

    /// The stream is taken away from the child while others go on: it gets an end of stream, whoever pushes FLUSHING.
    pub fn leave(&self) {
        {
            let mut state = self.imp().state();
            state.door = Door::Closed;
            if matches!(state.ending, Ending::No | Ending::Wanted) {
                state.ending = Ending::Last;
            }
        }
        self.imp().changed.notify_all();
    }

    /// The child has had its end of stream here.
    pub fn has_ended(&self) -> bool {
        self.imp().state().ended
    }

    /// Buffers and lists that were taken.
    pub fn taken(&self) -> u64 {
        self.imp().state().taken
    }

    /// The running time at the end of what was taken.
    pub fn taken_until(&self) -> Option<gst::ClockTime> {
        self.imp().state().taken_until
    }
}
