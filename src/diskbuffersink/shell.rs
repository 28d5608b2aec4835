//! The child of the bin in which an instance of the sink lives.
//!
//! A state change of a bin takes the state lock of every child, also of a locked one. An instance may keep its own for minutes,
//! connecting or never returning, so it is not a child of the bin itself: between them stands this one, PLAYING and locked for
//! as long as it exists. What the instance posts is judged by the bin before anything of it travels on.

use std::sync::{LazyLock, OnceLock};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

/// Lets a message pass, or takes it.
type Judge = Box<dyn Fn(gst::Message) -> Option<gst::Message> + Send + Sync>;

#[derive(Default)]
pub struct ShellImp {
    judge: OnceLock<Judge>,
}

#[glib::object_subclass]
impl ObjectSubclass for ShellImp {
    const NAME: &'static str = "GstDiskBufferSinkShell";
    type Type = Shell;
    type ParentType = gst::Bin;
}

impl ObjectImpl for ShellImp {}
impl GstObjectImpl for ShellImp {}

impl ElementImpl for ShellImp {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Disk buffer sink child",
                "Generic/Bin",
                "Holds the child of a diskbuffersink",
                "the gst-plugin-streambuffer contributors",
            )
        });
        Some(&METADATA)
    }
}

impl BinImpl for ShellImp {
    fn handle_message(&self, message: gst::Message) {
        let message = match self.judge.get() {
            Some(judge) => judge(message),
            None => Some(message),
        };
        if let Some(message) = message {
            self.parent_handle_message(message);
        }
    }
}

glib::wrapper! {
    /// See the module.
    pub struct Shell(ObjectSubclass<ShellImp>) @extends gst::Bin, gst::Element, gst::Object, @implements gst::ChildProxy;
}

impl Shell {
    /// Locked and PLAYING.
    pub fn new(name: &str, judge: impl Fn(gst::Message) -> Option<gst::Message> + Send + Sync + 'static) -> Self {
        let shell: Self = glib::Object::builder().property("name", name).build();
        let _ = shell.imp().judge.set(Box::new(judge));
        shell.set_locked_state(true);
        // Nothing is in it: this changes a number.
        let _ = shell.set_state(gst::State::Playing);
        shell
    }
}
