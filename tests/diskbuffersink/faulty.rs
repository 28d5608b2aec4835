//! A sink that fails on command, and remembers what it took over all its instances.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, LazyLock, Mutex, Once};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::subclass::prelude::*;

use crate::common::{PATIENCE, Seen, see};

/// What an instance does with the next buffer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Takes,
    /// Posts an error message, as a sink does that has lost its peer.
    Fails,
    /// Returns an error and says nothing.
    FailsSilently,
    Answers(gst::FlowError),
    /// Until it is unlocked.
    Blocks,
    /// Whatever happens, until the mood changes.
    NeverReturns,
}

#[derive(Default)]
pub struct Told {
    pub mood: Mood,
    /// Take so many buffers before the mood shows.
    pub takes: usize,
    /// It cannot be started.
    pub unreachable: bool,
    /// It does not start before this is over.
    pub start_blocks: bool,
    /// It does not stop before this is over.
    pub stop_blocks: bool,
    /// Instance and buffer, in order.
    pub taken: Vec<(usize, Seen)>,
    /// Instances that were started, or tried to be.
    pub starts: usize,
    pub stops: usize,
    pub eos: usize,
    pub caps: Vec<(usize, gst::Caps)>,
}

/// What the test and all instances of one name share.
#[derive(Clone, Default)]
pub struct Faults(Arc<(Mutex<Told>, Condvar)>);

static ALL: LazyLock<Mutex<HashMap<String, Faults>>> = LazyLock::new(Default::default);

impl Faults {
    /// For `faultysink about=NAME`.
    pub fn new(name: &str) -> Self {
        static REGISTER: Once = Once::new();
        REGISTER.call_once(|| {
            gst::Element::register(None, "faultysink", gst::Rank::NONE, FaultySink::static_type()).unwrap();
        });
        ALL.lock().unwrap().entry(name.into()).or_default().clone()
    }

    pub fn tell<R>(&self, what: impl FnOnce(&mut Told) -> R) -> R {
        let result = what(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
        result
    }

    pub fn mood(&self, mood: Mood) {
        self.tell(|told| (told.mood, told.takes) = (mood, 0));
    }

    pub fn wait(&self, what: &str, done: impl Fn(&Told) -> bool) {
        let told = self.0.0.lock().unwrap();
        let (told, timeout) = self.0.1.wait_timeout_while(told, PATIENCE, |told| !done(told)).unwrap();
        assert!(!timeout.timed_out(), "{what}: {} buffers in {} instances", told.taken.len(), told.starts);
    }

    /// Waits until each of these numbers was taken by some instance.
    pub fn wait_for(&self, numbers: std::ops::Range<u64>) {
        self.wait(&format!("frames {numbers:?}"), |told| {
            let seen: std::collections::BTreeSet<u64> = told.taken.iter().map(|(_, seen)| seen.offsets.0).collect();
            numbers.clone().all(|number| seen.contains(&number))
        });
    }

    pub fn numbers(&self) -> Vec<u64> {
        self.tell(|told| told.taken.iter().map(|(_, seen)| seen.offsets.0).collect())
    }
}

#[derive(Default)]
pub struct FaultySinkImp {
    about: Mutex<Faults>,
    instance: Mutex<usize>,
    unlocked: Mutex<bool>,
}

impl FaultySinkImp {
    fn faults(&self) -> Faults {
        self.about.lock().unwrap().clone()
    }

    fn post(&self, text: &str) {
        gst::element_imp_error!(self, gst::ResourceError::Write, ("{text}"), ["as told by a test"]);
    }
}

#[glib::object_subclass]
impl ObjectSubclass for FaultySinkImp {
    const NAME: &'static str = "FaultySink";
    type Type = FaultySink;
    type ParentType = gst_base::BaseSink;
}

impl ObjectImpl for FaultySinkImp {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> =
            LazyLock::new(|| vec![glib::ParamSpecString::builder("about").build()]);
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, _pspec: &glib::ParamSpec) {
        *self.about.lock().unwrap() = Faults::new(value.get().unwrap());
    }

    fn property(&self, _id: usize, _pspec: &glib::ParamSpec) -> glib::Value {
        None::<String>.to_value()
    }
}

impl GstObjectImpl for FaultySinkImp {}

impl ElementImpl for FaultySinkImp {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> =
            LazyLock::new(|| gst::subclass::ElementMetadata::new("Faulty sink", "Sink", "Fails on command", "tests"));
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let any = gst::Caps::new_any();
            vec![gst::PadTemplate::new("sink", gst::PadDirection::Sink, gst::PadPresence::Always, &any).unwrap()]
        });
        &TEMPLATES
    }
}

impl BaseSinkImpl for FaultySinkImp {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        *self.unlocked.lock().unwrap() = false;
        let (instance, unreachable) = self.faults().tell(|told| {
            told.starts += 1;
            (told.starts, told.unreachable)
        });
        let faults = self.faults();
        let told = faults.0.0.lock().unwrap();
        drop(faults.0.1.wait_while(told, |told| told.start_blocks).unwrap());
        *self.instance.lock().unwrap() = instance;
        if unreachable {
            return Err(gst::error_msg!(gst::ResourceError::OpenWrite, ("Nobody is there")));
        }
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        let faults = self.faults();
        let told = faults.0.0.lock().unwrap();
        let mut told = faults.0.1.wait_while(told, |told| told.stop_blocks).unwrap();
        told.stops += 1;
        drop(told);
        faults.0.1.notify_all();
        Ok(())
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let instance = *self.instance.lock().unwrap();
        self.faults().tell(|told| told.caps.push((instance, caps.clone())));
        Ok(())
    }

    fn event(&self, event: gst::Event) -> bool {
        if event.type_() == gst::EventType::Eos {
            self.faults().tell(|told| told.eos += 1);
        }
        self.parent_event(event)
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        *self.unlocked.lock().unwrap() = true;
        // Whoever waits looks at that.
        self.faults().tell(|_| ());
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        *self.unlocked.lock().unwrap() = false;
        Ok(())
    }

    fn render(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let faults = self.faults();
        let instance = *self.instance.lock().unwrap();
        let mut told = faults.0.0.lock().unwrap();
        loop {
            let mood = if told.takes > 0 { Mood::Takes } else { told.mood };
            match mood {
                Mood::Takes => {
                    told.takes = told.takes.saturating_sub(1);
                    told.taken.push((instance, see(buffer)));
                    drop(told);
                    faults.0.1.notify_all();
                    return Ok(gst::FlowSuccess::Ok);
                }
                Mood::Fails => {
                    drop(told);
                    self.post("The peer has gone");
                    return Err(gst::FlowError::Error);
                }
                Mood::FailsSilently => return Err(gst::FlowError::Error),
                Mood::Answers(flow) => return Err(flow),
                Mood::Blocks if *self.unlocked.lock().unwrap() => return Err(gst::FlowError::Flushing),
                Mood::Blocks | Mood::NeverReturns => told = faults.0.1.wait(told).unwrap(),
            }
        }
    }
}

glib::wrapper! {
    pub struct FaultySink(ObjectSubclass<FaultySinkImp>) @extends gst_base::BaseSink, gst::Element, gst::Object;
}
