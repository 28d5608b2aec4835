//! What can be set on `diskbuffersrc`, by properties and by URI.

use std::path::PathBuf;
use std::time::Duration;

use gst::glib;
use gst::prelude::*;

use super::place::{Place, Unreadable};
use super::uri::{Uri, UriError};
use crate::diskbuffer::AckMode;

/// What the element is doing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstDiskBufferSrcStatus")]
pub enum Status {
    #[default]
    #[enum_value(name = "Stopped: not running", nick = "stopped")]
    Stopped = 0,
    #[enum_value(name = "Playing: data is read and pushed", nick = "playing")]
    Playing = 1,
    #[enum_value(name = "Waiting: everything that is stored was pushed, more may come (follow)", nick = "waiting")]
    Waiting = 2,
    #[enum_value(name = "Ended: everything that was asked for was pushed, or downstream wants no more", nick = "ended")]
    Ended = 3,
    #[enum_value(name = "Away: the store cannot be read at the moment, which is tried again", nick = "away")]
    Away = 4,
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub location: Option<PathBuf>,
    pub stream_name: Option<String>,
    pub start: Option<String>,
    pub stop: Option<String>,
    pub follow: bool,
    pub consumer: Option<String>,
    pub lease_time: u64,
    pub ack_mode: AckMode,
    pub add_position_meta: bool,
    pub add_reference_timestamp_meta: bool,
    pub lock_timeout: u64,
}

const SECOND: u64 = 1_000_000_000;

impl Default for Settings {
    fn default() -> Self {
        Self {
            location: None,
            stream_name: None,
            start: None,
            stop: None,
            follow: false,
            consumer: None,
            lease_time: 3600 * SECOND,
            ack_mode: AckMode::default(),
            add_position_meta: false,
            add_reference_timestamp_meta: false,
            lock_timeout: 15 * SECOND,
        }
    }
}

/// A text that cannot be read, and the property that it is the value of.
#[derive(Debug, thiserror::Error)]
#[error("The property \"{property}\": {source}")]
pub struct BadPlace {
    pub property: &'static str,
    pub source: Unreadable,
}

impl Settings {
    pub fn resolved_location(&self) -> Option<PathBuf> {
        crate::location::resolve(self.location.as_deref())
    }

    /// Where playing begins.
    pub fn start_place(&self) -> Result<Place, BadPlace> {
        match &self.start {
            Some(text) => Place::parse(text).map_err(|source| BadPlace { property: "start", source }),
            None if self.consumer.is_some() => Ok(Place::Cursor),
            None => Ok(Place::Earliest),
        }
    }

    /// Where it ends; `None` for the end.
    pub fn stop_place(&self) -> Result<Option<Place>, BadPlace> {
        let parse = |text: &String| Place::parse(text).map_err(|source| BadPlace { property: "stop", source });
        self.stop.as_ref().map(parse).transpose()
    }

    pub fn lease(&self) -> Duration {
        Duration::from_nanos(self.lease_time)
    }

    pub fn lock_timeout(&self) -> Duration {
        Duration::from_nanos(self.lock_timeout)
    }

    /// Sets one of the writable properties. The type was checked by GObject.
    pub fn set(&mut self, name: &str, value: &glib::Value) {
        fn get<'a, T: glib::value::FromValue<'a>>(value: &'a glib::Value) -> T {
            value.get::<T>().unwrap_or_else(|_| unreachable!("GObject checks the type of a property"))
        }
        let text = || get::<Option<String>>(value).filter(|text| !text.trim().is_empty());
        match name {
            "location" => self.location = text().map(Into::into),
            "stream-name" => self.stream_name = text(),
            "start" => self.start = text(),
            "stop" => self.stop = text(),
            "follow" => self.follow = get(value),
            "consumer" => self.consumer = text(),
            "lease-time" => self.lease_time = get(value),
            "ack-mode" => self.ack_mode = get(value),
            "add-position-meta" => self.add_position_meta = get(value),
            "add-reference-timestamp-meta" => self.add_reference_timestamp_meta = get(value),
            "lock-timeout" => self.lock_timeout = get(value),
            _ => {}
        }
    }

    pub fn get(&self, name: &str) -> Option<glib::Value> {
        Some(match name {
            "location" => self.location.as_ref().map(|l| l.to_string_lossy().into_owned()).to_value(),
            "stream-name" => self.stream_name.to_value(),
            "start" => self.start.to_value(),
            "stop" => self.stop.to_value(),
            "follow" => self.follow.to_value(),
            "consumer" => self.consumer.to_value(),
            "lease-time" => self.lease_time.to_value(),
            "ack-mode" => self.ack_mode.to_value(),
            "add-position-meta" => self.add_position_meta.to_value(),
            "add-reference-timestamp-meta" => self.add_reference_timestamp_meta.to_value(),
            "lock-timeout" => self.lock_timeout.to_value(),
            _ => return None,
        })
    }

    /// Takes over what a URI says; what it does not say is at its default, or a second URI would play by the first one.
    ///
    /// # Errors
    ///
    /// It cannot be read, or a value in it has the wrong type. Nothing was changed.
    pub fn set_uri(&mut self, text: &str) -> Result<(), SetUriError> {
        let uri = Uri::parse(text)?;
        let bad = |key: &str, value: &str, expected: &'static str| SetUriError::Value {
            key: key.to_owned(),
            value: value.to_owned(),
            expected,
        };
        let mut new =
            Settings { location: Some(uri.location.into()), lock_timeout: self.lock_timeout, ..Settings::default() };
        for (key, value) in &uri.parameters {
            let flag = || match value.to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" => Ok(true),
                "false" | "no" | "0" => Ok(false),
                _ => Err(bad(key, value, "true or false")),
            };
            match key.as_str() {
                "follow" => new.follow = flag()?,
                "add-position-meta" => new.add_position_meta = flag()?,
                "add-reference-timestamp-meta" => new.add_reference_timestamp_meta = flag()?,
                "lease-time" => new.lease_time = value.parse().map_err(|_| bad(key, value, "ns, an integer"))?,
                "ack-mode" => {
                    new.ack_mode = match value.as_str() {
                        "push" => AckMode::Push,
                        "explicit" => AckMode::Explicit,
                        _ => return Err(bad(key, value, "push or explicit")),
                    }
                }
                name => new.set(name, &value.to_value()),
            }
        }
        new.start_place()?;
        new.stop_place()?;
        *self = new;
        Ok(())
    }

    /// The URI that says the same; `None` without a location.
    pub fn uri(&self) -> Option<String> {
        let location = std::path::absolute(self.location.as_deref()?).ok()?;
        let default = Settings::default();
        let mut parameters = Vec::new();
        let mut say = |key: &str, value: Option<String>| {
            parameters.extend(value.map(|value| (key.to_owned(), value)));
        };
        let flag = |set: bool| set.then(|| "true".to_owned());
        say("stream-name", self.stream_name.clone());
        say("start", self.start.clone());
        say("stop", self.stop.clone());
        say("follow", flag(self.follow));
        say("consumer", self.consumer.clone());
        say("lease-time", (self.lease_time != default.lease_time).then(|| self.lease_time.to_string()));
        say("ack-mode", (self.ack_mode == AckMode::Explicit).then(|| "explicit".to_owned()));
        say("add-position-meta", flag(self.add_position_meta));
        say("add-reference-timestamp-meta", flag(self.add_reference_timestamp_meta));
        Some(Uri { location: location.to_str()?.to_owned(), parameters }.to_string())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SetUriError {
    #[error(transparent)]
    Uri(#[from] UriError),
    #[error(transparent)]
    Place(#[from] BadPlace),
    #[error("\"{key}={value}\" is wrong: {key} is {expected}")]
    Value { key: String, value: String, expected: &'static str },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_sets_properties_and_says_them_again() {
        let text = "diskbuffer:///var/spool/cam%201?stream-name=video&start=-30s&stop=2026-01-01T00:00:00%2B01:00&follow=true\
                    &consumer=x&ack-mode=explicit&add-position-meta=true";
        let mut settings = Settings::default();
        settings.set_uri(text).unwrap();
        assert_eq!(settings.start_place().unwrap(), Place::Ago(30_000_000_000));
        assert_eq!(settings.stop_place().unwrap(), Some(Place::Time(1_767_222_000_000_000_000)));
        assert!(settings.follow && settings.ack_mode == AckMode::Explicit);
        assert_eq!(settings.uri().as_deref(), Some(text));
        settings.set_uri("diskbuffer:///other").unwrap();
        assert_eq!(settings.uri().as_deref(), Some("diskbuffer:///other"), "nothing is left of the first");
    }

    #[test]
    fn a_wrong_uri_changes_nothing_and_says_what_is_wrong() {
        let mut settings = Settings::default();
        for (text, part) in [
            ("diskbuffer:///a?follow=maybe", "true or false"),
            ("diskbuffer:///a?lease-time=long", "integer"),
            ("diskbuffer:///a?ack-mode=never", "push or explicit"),
            ("diskbuffer:///a?start=yesterday", "\"start\""),
            ("diskbuffer:///a?stop=tomorrow", "\"stop\""),
        ] {
            let err = settings.set_uri(text).unwrap_err();
            assert!(err.to_string().contains(part), "{err}");
            assert_eq!(settings.location, None);
        }
    }

    #[test]
    fn a_consumer_begins_at_its_cursor() {
        let mut settings = Settings::default();
        assert_eq!(settings.start_place().unwrap(), Place::Earliest);
        settings.set("consumer", &"a".to_value());
        assert_eq!(settings.start_place().unwrap(), Place::Cursor);
        settings.set("start", &" ".to_value());
        assert_eq!(settings.start_place().unwrap(), Place::Cursor, "an empty text is none");
    }
}
