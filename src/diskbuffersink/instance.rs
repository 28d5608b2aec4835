//! An instance of the child: what is built from the description, or the application's element, with a thread that changes its
//! state.
//!
//! Nothing here waits for the child: states are asked for, and events tell what came of it. The thread lives as long as the
//! instance; when the child never returns from a state change, it goes on waiting by itself, and nobody else does.

use std::sync::mpsc;
use std::time::Duration;

use gst::glib;
use gst::prelude::*;

use super::control::{Event, Events};
use super::description;
use super::fitting::{self, Made, Place, Wanted};
use super::input::Input;
use super::messages;
use super::numbering::{Numbering, Written};
use super::shell::Shell;
use super::stream::Stream;
use super::{CAT, DiskBufferSink};
use crate::diskbuffer::DiskBuffer;

pub type Id = u64;

/// What the child is made of.
#[derive(Debug, Clone)]
pub enum Recipe {
    Description(String),
    /// The application's.
    Element(gst::Element),
    /// Nobody takes the data.
    Nothing,
}

pub struct Instance {
    pub id: Id,
    shell: Shell,
    pub inputs: Vec<(DiskBuffer, Input)>,
    pub muxes: bool,
    pub written: Written,
    work: mpsc::Sender<Work>,
}

enum Work {
    State(gst::State),
    Latency(gst::ClockTime),
    Stop,
}

/// What the thread has.
struct Worker {
    id: Id,
    bin: glib::WeakRef<DiskBufferSink>,
    content: gst::Element,
    /// Pads that were made on it.
    made: Vec<Made>,
    /// Looks after sinks that are made later.
    later: Option<glib::SignalHandlerId>,
    shell: Shell,
    events: Events,
}

impl Recipe {
    /// In NULL, unless it is the application's.
    pub fn make(&self, streams: &[Wanted]) -> Result<gst::Element, gst::ErrorMessage> {
        match self {
            Recipe::Description(text) => description::parse(text),
            Recipe::Element(element) => Ok(element.clone()),
            Recipe::Nothing => {
                let bin = gst::Bin::new();
                for stream in streams {
                    let sink = gst::ElementFactory::make("fakesink")
                        .name(format!("record-{}", stream.name))
                        .build()
                        .map_err(|err| {
                            gst::error_msg!(
                                gst::CoreError::MissingPlugin,
                                ("{err}: to record, the coreelements plugin of GStreamer has to be installed")
                            )
                        })?;
                    // Fails only for elements of the same name.
                    let _ = bin.add(&sink);
                }
                Ok(bin.upcast())
            }
        }
    }

    /// Another one can be made while this one does not return.
    pub fn makes_new_ones(&self) -> bool {
        !matches!(self, Recipe::Element(_))
    }
}

impl Instance {
    /// Builds it around `content`, adds it to the bin and links it to the streams. It stays in NULL.
    pub fn new(
        bin: &DiskBufferSink,
        id: Id,
        content: gst::Element,
        streams: &[Stream],
        numbering: &Numbering,
        sync: bool,
        events: &Events,
    ) -> Result<Self, gst::ErrorMessage> {
        let failed = |what: &str, err: &dyn std::fmt::Display| {
            gst::error_msg!(gst::CoreError::Failed, ("The child cannot be put together: {what}: {err}"))
        };
        let later = tame(&content, sync);
        let written = numbering.apply(&content);
        let muxes = description::has_muxer(&content);
        content.set_locked_state(true);
        let shell = Shell::new("child", messages::judge(id, sync, events.clone()));
        let mut pads = Vec::new();
        let built = (|| {
            shell.add(&content).map_err(|err| failed("it has another parent", &err))?;
            let wanted: Vec<Wanted> = streams.iter().map(Stream::wanted).collect();
            let places = fitting::fit(&content, &wanted)?;
            let mut inputs = Vec::new();
            for (stream, Place { pad, made }) in streams.iter().zip(places) {
                pads.extend(made);
                // In NULL: what it takes at any time.
                stream.set_accepts(pad.query_caps(None));
                let input = Input::new(&format!("{}-input", stream.name()));
                let link = || -> Result<gst::Pad, String> {
                    shell.add(&input).map_err(|err| err.to_string())?;
                    input.sync_state_with_parent().map_err(|err| err.to_string())?;
                    let source = input.static_pad("src").ok_or("no pad")?;
                    source.link(&pad).map_err(|err| err.to_string())?;
                    let sink = input.static_pad("sink").ok_or("no pad")?;
                    let builder = gst::GhostPad::builder_with_target(&sink).map_err(|err| err.to_string())?;
                    let ghost = builder.name(stream.name()).build();
                    shell.add_pad(&ghost).map_err(|err| err.to_string())?;
                    Ok(ghost.upcast())
                };
                let ghost = link().map_err(|err| failed(&stream.name(), &err))?;
                inputs.push((stream.buffer.clone(), input, ghost));
            }
            bin.add(&shell).map_err(|err| failed("the bin", &err))?;
            Ok(inputs)
        })();
        let (work, orders) = mpsc::channel();
        let (weak, shared, events) = (bin.downgrade(), shell.clone(), events.clone());
        let mut worker = Worker { id, bin: weak, content, made: pads, later, shell: shared, events };
        let made = match built {
            Ok(made) => made,
            Err(err) => {
                worker.take_apart();
                return Err(err);
            }
        };
        let mut inputs = Vec::new();
        for (buffer, input, ghost) in made {
            let linked = buffer.static_pad("src").map(|source| source.link(&ghost));
            if let Some(Err(err)) = linked {
                gst::warning!(CAT, obj = bin, "{} is not linked to the child: {err}", buffer.name());
            }
            inputs.push((buffer, input));
        }
        let instance = Self { id, shell, inputs, muxes, written, work };
        let threads = instance.inputs.iter().try_for_each(|(_, input)| input.start());
        let name = format!("{}:child", bin.name());
        let threads =
            threads.and_then(|()| std::thread::Builder::new().name(name).spawn(move || worker.work(&orders)).map(drop));
        if let Err(err) = threads {
            instance.close();
            instance.detach(bin);
            return Err(failed("no thread", &err));
        }
        Ok(instance)
    }

    /// Asks for a state; [`Event::Changed`] tells what came of it.
    pub fn set_state(&self, state: gst::State) {
        let _ = self.work.send(Work::State(state));
    }

    /// Whoever pushes into it gets FLUSHING.
    pub fn close(&self) {
        self.inputs.iter().for_each(|(_, input)| input.close());
    }

    /// Closes it and asks for NULL, after which it is taken apart; [`Event::Stopped`] tells.
    pub fn stop(&self) {
        self.close();
        let _ = self.work.send(Work::Stop);
    }

    /// Takes it out of the bin, whatever it is doing.
    pub fn detach(&self, bin: &DiskBufferSink) {
        for (buffer, _) in &self.inputs {
            if let Some(source) = buffer.static_pad("src")
                && let Some(peer) = source.peer()
                && peer.parent_element().as_ref() == Some(self.shell.upcast_ref())
            {
                let _ = source.unlink(&peer);
            }
        }
        if self.shell.parent().as_ref() == Some(bin.upcast_ref()) {
            let _ = bin.remove(&self.shell);
        }
    }

    /// Ends the streams into which nothing is being pushed. To be called until that is so for all, as a muxer keeps a push
    /// until it has the other streams.
    pub fn end(&self) {
        let is_idle = |buffer: &DiskBuffer| buffer.wait_until_idle(Duration::ZERO);
        self.inputs.iter().filter(|(buffer, _)| is_idle(buffer)).for_each(|(_, input)| input.end());
    }

    pub fn input(&self, buffer: &DiskBuffer) -> Option<&Input> {
        self.inputs.iter().find(|(b, _)| b == buffer).map(|(_, input)| input)
    }

    /// Buffers that it has taken.
    pub fn taken(&self) -> u64 {
        self.inputs.iter().map(|(_, input)| input.taken()).sum()
    }

    /// For sinks that synchronise. An event too waits for the state lock of the element that it is sent to.
    pub fn set_latency(&self, latency: gst::ClockTime) {
        let _ = self.work.send(Work::Latency(latency));
    }
}

impl Worker {
    fn work(mut self, orders: &mpsc::Receiver<Work>) {
        'orders: while let Ok(order) = orders.recv() {
            // Of several states only the last counts.
            let (mut state, mut latency) = (None, None);
            for order in std::iter::once(order).chain(orders.try_iter()) {
                match order {
                    Work::State(next) => state = Some(next),
                    Work::Latency(next) => latency = Some(next),
                    Work::Stop => break 'orders,
                }
            }
            if let Some(state) = state {
                self.go_to(state);
            }
            if let Some(latency) = latency {
                self.content.send_event(gst::event::Latency::new(latency));
            }
        }
        self.take_apart();
        self.events.send(Event::Stopped(self.id));
    }

    fn go_to(&self, state: gst::State) {
        if let Some(bin) = self.bin.upgrade() {
            self.content.set_start_time(bin.start_time());
            if let Some(time) = bin.base_time() {
                self.content.set_base_time(time);
            }
        }
        let ok = self.content.set_state(state).is_ok();
        self.events.send(Event::Changed { id: self.id, ok });
    }

    /// Leaves the application's element as it was.
    fn take_apart(&mut self) {
        let _ = self.content.set_state(gst::State::Null);
        self.made.drain(..).rev().for_each(|made| made.unmake());
        if let Some(later) = self.later.take() {
            self.content.disconnect(later);
        }
        let _ = self.shell.remove(&self.content);
        self.content.set_locked_state(false);
        let _ = self.shell.set_state(gst::State::Null);
    }
}

/// Sinks inside do not wait for each other, nor for the clock, unless they are to.
fn tame(content: &gst::Element, sync: bool) -> Option<glib::SignalHandlerId> {
    let set = move |element: &gst::Element| {
        if element.is::<gst_base::BaseSink>() {
            element.set_property("sync", sync);
            element.set_property("async", false);
        }
    };
    description::elements(content).iter().for_each(set);
    let bin = content.downcast_ref::<gst::Bin>()?;
    Some(bin.connect_deep_element_added(move |_, _, element| set(element)))
}
