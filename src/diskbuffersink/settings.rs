//! What can be set on `diskbuffersink`: all that `diskbuffer` has, handed on to each of those inside, and what concerns the child.

use std::sync::LazyLock;
use std::time::Duration;

use gst::glib;
use gst::prelude::*;

use crate::diskbuffer::properties;
use crate::diskbuffer::settings::{Persist, Settings as BufferSettings};

const SECOND: u64 = 1_000_000_000;
/// Never, as a time in ns.
const FOR_EVER: u64 = u64::MAX;

#[derive(Debug, Clone)]
pub struct Settings {
    pub description: Option<String>,
    pub sink: Option<gst::Element>,
    pub sync: bool,
    pub max_retries: u32,
    pub restart_timeout: u64,
    pub eos_timeout: u64,
    /// For each stream.
    pub buffer: BufferSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            description: None,
            sink: None,
            sync: false,
            max_retries: 0,
            restart_timeout: 60 * SECOND,
            eos_timeout: 5 * SECOND,
            buffer: BufferSettings {
                replay_overlap: 5 * SECOND,
                replay_overlap_bytes: 5 << 20,
                ..BufferSettings::default()
            },
        }
    }
}

impl Settings {
    /// How long an end of stream is waited for since the last progress; `None` for ever.
    pub fn eos_timeout(&self) -> Option<Duration> {
        (self.eos_timeout != FOR_EVER).then(|| Duration::from_nanos(self.eos_timeout))
    }

    /// How long nothing may move; `None` for ever.
    pub fn restart_timeout(&self) -> Option<Duration> {
        (!matches!(self.restart_timeout, 0 | FOR_EVER)).then(|| Duration::from_nanos(self.restart_timeout))
    }

    pub fn only_records(&self) -> bool {
        self.description.is_none() && self.sink.is_none()
    }

    /// What is wrong with the combination.
    pub fn check(&self) -> Result<(), gst::ErrorMessage> {
        if self.description.is_some() && self.sink.is_some() {
            return Err(gst::error_msg!(
                gst::ResourceError::Settings,
                ("Both \"sink-description\" and \"sink\" are set: set one of them")
            ));
        }
        if self.only_records() && self.buffer.persist == Persist::Spill {
            return Err(gst::error_msg!(
                gst::ResourceError::Settings,
                ("persist=spill keeps nothing on the disk when there is no sink: set \"sink-description\", or \
                     persist=always to record")
            ));
        }
        Ok(())
    }

    /// The value of a property of `diskbuffer` for the stream of this pad.
    pub fn for_stream(&self, property: &str, pad: &str) -> Option<glib::Value> {
        match property {
            "stream-name" => Some(self.stream_name(pad).to_value()),
            // Nobody takes what is recorded: it is there to be read by others, until limits say otherwise.
            "retention-time"
                if self.only_records() && self.buffer.retention_time == 0 && self.buffer.retention_bytes == 0 =>
            {
                Some(FOR_EVER.to_value())
            }
            _ => self.buffer.get(property),
        }
    }

    /// The stream inside the store that belongs to a pad.
    pub fn stream_name(&self, pad: &str) -> String {
        let name = &self.buffer.stream_name;
        if pad == "video" { name.clone() } else { format!("{name}.{pad}") }
    }

    /// Sets one of the writable properties. The type was checked by GObject.
    pub fn set(&mut self, name: &str, value: &glib::Value) {
        fn get<'a, T: glib::value::FromValue<'a>>(value: &'a glib::Value) -> T {
            value.get::<T>().unwrap_or_else(|_| unreachable!("GObject checks the type of a property"))
        }
        match name {
            "sink-description" => {
                self.description = get::<Option<String>>(value).filter(|text| !text.trim().is_empty());
            }
            "sink" => self.sink = get(value),
            "sync" => self.sync = get(value),
            "max-retries" => self.max_retries = get(value),
            "restart-timeout" => self.restart_timeout = get(value),
            "eos-timeout" => self.eos_timeout = get(value),
            _ => self.buffer.set(name, value),
        }
    }

    pub fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "sink-description" => self.description.to_value(),
            "sink" => self.sink.to_value(),
            "sync" => self.sync.to_value(),
            "max-retries" => self.max_retries.to_value(),
            "restart-timeout" => self.restart_timeout.to_value(),
            "eos-timeout" => self.eos_timeout.to_value(),
            name => return self.buffer.get(name),
        })
    }
}

/// Names of those that `diskbuffer` has and that can be written.
pub static FORWARDED: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let writable = |spec: &&glib::ParamSpec| spec.flags().contains(glib::ParamFlags::WRITABLE);
    properties::PROPERTIES.iter().filter(writable).map(|spec| spec.name()).collect()
});

/// As `gst-inspect-1.0` shows them.
pub static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let default = Settings::default();
    let mut specs = vec![
        glib::ParamSpecString::builder("sink-description")
            .nick("Sink description")
            .blurb(
                "The sink as gst-launch-1.0 takes it: an element, or several with \"!\" between them, a muxer too. It is \
                 built anew after each failure. Without it and without \"sink\" the element only records. Takes effect at \
                 the next change from NULL to READY",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecObject::builder::<gst::Element>("sink")
            .nick("Sink")
            .blurb(
                "The sink as an element, for applications: after a failure it goes to NULL and back. Takes effect at the \
                 next change from NULL to READY",
            )
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("sync")
            .nick("Sync")
            .blurb("Whether sinks inside synchronise to the clock; set on each of them, also on those made later")
            .default_value(default.sync)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("max-retries")
            .nick("Maximum retries")
            .blurb("Restarts in a row that may fail before the element posts an error (0 = for ever)")
            .default_value(default.max_retries)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt64::builder("restart-timeout")
            .nick("Restart timeout (ns)")
            .blurb(
                "How long the sink may take nothing in PLAYING, while something waits, before it is restarted, in ns (0 = \
                 for ever)",
            )
            .default_value(default.restart_timeout)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt64::builder("eos-timeout")
            .nick("EOS timeout (ns)")
            .blurb(
                "How long after the end of stream, and after the last progress, the sink is waited for before the element \
                 posts EOS, in ns; what is left stays for the next start (18446744073709551615 = for ever)",
            )
            .default_value(default.eos_timeout)
            .mutable_playing()
            .build(),
    ];
    specs.extend(properties::specs(&default.buffer));
    specs
});
