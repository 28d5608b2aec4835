//! Triggers of event mode: by action, by custom event, by the label of a region of interest.
//!
//! However it comes, a trigger says {time, streams, name}: running time in ns (none: now, which is the newest frame of the stream
//! that brings it), the streams of which a clip is wanted (none: all), and a name. A label triggers when it appears, and again
//! while it stays, so that the window lasts until `post-roll` after it was last seen.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::imp::{CAT, Segmenter, lock};
use super::line::Key;
use super::mapping::Clockwork;
use super::settings::{NONE, Strategy};
use crate::timeline::Ns;
use crate::windowing::Trigger;

/// The custom event, in any direction.
const EVENT: &str = "segmenter-trigger";

/// What somebody asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Asked {
    /// Running time; none: now.
    time: Option<Ns>,
    /// By their pads; empty: all.
    streams: Vec<Key>,
    name: Option<String>,
}

/// What is remembered of triggers.
#[derive(Debug, Default)]
pub struct Triggers {
    /// By stream whose buffers have the label.
    labels: Mutex<BTreeMap<Key, Label>>,
    /// Those that came before the first buffer.
    early: Mutex<Vec<Asked>>,
    some_early: AtomicBool,
}

/// More of them are refused.
const MOST_EARLY: usize = 1024;

/// When a label triggered last, and when it was seen last. Running times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Label {
    triggered: Ns,
    seen: Ns,
}

impl Triggers {
    pub fn clear(&self) {
        lock(&self.labels).clear();
        lock(&self.early).clear();
        self.some_early.store(false, Ordering::Relaxed);
    }

    fn keep(&self, asked: Asked) -> Result<(), String> {
        let mut early = lock(&self.early);
        if early.len() >= MOST_EARLY {
            return Err("there are too many before the first buffer".into());
        }
        early.push(asked);
        self.some_early.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// What a buffer of this time triggers.
    fn look(&self, key: Key, at: Ns, present: bool, post_roll: Ns) -> Option<Ns> {
        let mut all = lock(&self.labels);
        match (present, all.get_mut(&key)) {
            (true, Some(label)) => {
                label.seen = label.seen.max(at);
                // Before the window that it has begun can be over.
                let again = at - label.triggered >= Ns(post_roll.0 / 2);
                again.then(|| label.triggered = at).map(|()| at)
            }
            (true, None) => {
                all.insert(key, Label { triggered: at, seen: at });
                Some(at)
            }
            (false, Some(label)) => {
                // Gone: the post-roll begins where it was last.
                let Label { triggered, seen } = *label;
                all.remove(&key);
                (seen > triggered).then_some(seen)
            }
            (false, None) => None,
        }
    }
}

/// A stream by its pad, or by its number.
fn stream_of(text: &str) -> Option<Key> {
    match text.trim() {
        "sink" | "src" => Some(Key::Main),
        text => {
            let number = text.strip_prefix("sink_").or(text.strip_prefix("src_")).unwrap_or(text);
            number.parse().ok().map(Key::Further)
        }
    }
}

fn named(text: &str) -> Result<Key, String> {
    stream_of(text).ok_or_else(|| format!("'{text}' names no stream: use the name of a sink pad, such as sink_3"))
}

/// Streams as a list or an array of names or numbers, or as names with commas between them.
fn streams_of(value: &glib::Value) -> Result<Vec<Key>, String> {
    let one = |value: &glib::Value| -> Result<Key, String> {
        let number = || value.transform::<u32>().ok().and_then(|value| value.get::<u32>().ok());
        match value.get::<Option<String>>().ok().flatten() {
            Some(text) => named(&text),
            None => number()
                .map(Key::Further)
                .ok_or_else(|| format!("{value:?} is neither a name nor a number of a stream")),
        }
    };
    if let Ok(array) = value.get::<gst::ArrayRef>() {
        return array.as_slice().iter().map(|value| one(value)).collect();
    }
    if let Ok(list) = value.get::<gst::ListRef>() {
        return list.as_slice().iter().map(|value| one(value)).collect();
    }
    match value.get::<Option<String>>() {
        Ok(text) => {
            text.iter().flat_map(|text| text.split(',')).filter(|part| !part.trim().is_empty()).map(named).collect()
        }
        Err(_) => one(value).map(|key| vec![key]),
    }
}

impl Asked {
    fn of_event(event: &gst::EventRef) -> Option<Result<Self, String>> {
        let structure = event.structure().filter(|structure| structure.name() == EVENT)?;
        Some(Self::of_structure(structure, event.running_time_offset()))
    }

    /// `offset`: what pads have added to running time on the way.
    fn of_structure(structure: &gst::StructureRef, offset: i64) -> Result<Self, String> {
        let time = match structure.value("time") {
            Err(_) => None,
            Ok(value) => {
                let ns = value.transform::<u64>().ok().and_then(|value| value.get::<u64>().ok());
                let ns =
                    ns.ok_or_else(|| format!("time of a trigger is a running time in ns as uint64, not {value:?}"))?;
                (ns != NONE).then(|| Ns::from(ns.saturating_add_signed(offset)))
            }
        };
        let streams = structure.value("streams").map_or(Ok(Vec::new()), |value| streams_of(value))?;
        let name = structure.get::<Option<String>>("name").ok().flatten();
        Ok(Self { time, streams, name })
    }
}

/// The action `trigger`.
pub fn signals() -> Vec<glib::subclass::Signal> {
    vec![
        glib::subclass::Signal::builder("trigger")
            .param_types([u64::static_type(), glib::StrV::static_type(), String::static_type()])
            .return_type::<bool>()
            .action()
            .class_handler(|values| {
                let element = values[0].get::<super::Segmenter>().ok()?;
                let time = values[1].get::<u64>().ok().filter(|time| *time != NONE).map(Ns::from);
                let name = values[3].get::<Option<String>>().ok().flatten();
                let imp = element.imp();
                let streams = values[2].get::<glib::StrV>().unwrap_or_default();
                let streams = streams.iter().map(|text| named(text.as_str())).collect::<Result<Vec<_>, _>>();
                let asked = streams.map(|streams| Asked { time, streams, name });
                let accepted = asked.and_then(|asked| imp.trigger(None, asked));
                imp.tell();
                if let Err(why) = &accepted {
                    gst::warning!(CAT, imp = imp, "Trigger refused: {why}");
                }
                Some(accepted.is_ok().to_value())
            })
            .build(),
    ]
}

impl Segmenter {
    /// Whether it was the event `segmenter-trigger`, which goes no further. From any pad, in any direction.
    pub(super) fn trigger_event(&self, key: Key, event: &gst::Event) -> bool {
        let Some(asked) = Asked::of_event(event) else { return false };
        if self.settings().strategy != Strategy::Event {
            // For somebody else, perhaps.
            return false;
        }
        if let Err(why) = asked.and_then(|asked| self.trigger(Some(key), asked)) {
            gst::warning!(CAT, imp = self, "Trigger refused: {why}");
        }
        self.tell();
        true
    }

    /// Each buffer, before it is told to the windows.
    pub(super) fn trigger_buffer(&self, key: Key, clockwork: Option<Clockwork>, buffer: &gst::BufferRef) {
        if self.triggers.some_early.load(Ordering::Relaxed) && self.core().reference.is_some() {
            self.triggers.some_early.store(false, Ordering::Relaxed);
            for asked in std::mem::take(&mut *lock(&self.triggers.early)) {
                if let Err(why) = self.trigger(None, asked) {
                    gst::warning!(CAT, imp = self, "Trigger refused: {why}");
                }
            }
        }
        let settings = self.settings();
        let Some(label) = settings.trigger_label.as_ref().filter(|_| settings.strategy == Strategy::Event) else {
            return;
        };
        let Some((segment, pts)) = clockwork.zip(buffer.pts()) else { return };
        let at = segment.running(Ns::from(pts.nseconds()));
        let mut regions = buffer.iter_meta::<gst_video::VideoRegionOfInterestMeta>();
        let present = regions.any(|region| region.roi_type() == label);
        let Some(time) = self.triggers.look(key, at, present, Ns::from(settings.post_roll)) else { return };
        let asked = Asked { time: Some(time), streams: Vec::new(), name: Some(label.clone()) };
        if let Err(why) = self.trigger(Some(key), asked) {
            gst::warning!(CAT, imp = self, "Trigger by label refused: {why}");
        }
    }

    /// `from`: the stream that brings it.
    fn trigger(&self, from: Option<Key>, asked: Asked) -> Result<(), String> {
        if self.settings().strategy != Strategy::Event {
            return Err("triggers are for strategy=event: set it".into());
        }
        let mut core = self.core();
        if core.windows.is_none() {
            return Err("the element does not run".into());
        }
        if let Some(nobody) = asked.streams.iter().find(|key| !core.lines.contains_key(key)) {
            return Err(format!("there is no {}", nobody.sink_name()));
        }
        if core.reference.is_none() && asked.time.is_some() {
            return self.triggers.keep(asked);
        }
        let Asked { time, streams, name } = asked;
        let stream_of = |key: &Key| {
            let stream = core.lines.get(key).and_then(|line| line.stream);
            stream.ok_or_else(|| format!("{} has no data", key.sink_name()))
        };
        let wanted = streams.iter().map(stream_of).collect::<Result<Vec<_>, _>>()?;
        let now = from.or(core.reference).and_then(|key| stream_of(&key).ok());
        let name: Option<Arc<str>> = name.map(Into::into);
        let found = core.with_windows(|windows, mapping, decisions| {
            let time = match time {
                Some(time) => mapping.of_running(time),
                None => windows.latest(now?)?,
            };
            gst::info!(CAT, imp = self, "Trigger {name:?} at {time:?}");
            windows.trigger(Trigger { time, streams: wanted, name }, decisions)
        });
        drop(core);
        found.flatten().map(|_| ()).ok_or_else(|| "there is no data for it any more, or none yet".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Result<Asked, String> {
        gst::init().unwrap();
        Asked::of_structure(&text.parse::<gst::Structure>().unwrap(), 0)
    }

    #[test]
    fn a_trigger_says_when_where_and_what() {
        let all = "segmenter-trigger, time=(guint64)5, streams=(string)<sink, src_3, 4>, name=(string)door";
        let keys = vec![Key::Main, Key::Further(3), Key::Further(4)];
        assert_eq!(asked(all), Ok(Asked { time: Some(Ns(5)), streams: keys.clone(), name: Some("door".into()) }));
        assert_eq!(asked("segmenter-trigger"), Ok(Asked::default()));
        assert_eq!(asked("segmenter-trigger, time=(guint64)18446744073709551615"), Ok(Asked::default()));
        for streams in ["(int)<7, 8>", "(uint){7, 8}", "\"sink_7, 8\"", "\"7,src_8,\""] {
            let found = asked(&format!("segmenter-trigger, streams={streams}")).unwrap();
            assert_eq!(found.streams, [Key::Further(7), Key::Further(8)], "{streams}");
        }
        assert_eq!(asked("segmenter-trigger, streams=(int)2").unwrap().streams, [Key::Further(2)]);
        for wrong in ["time=soon", "streams=door", "streams=(string)<sink_1, front>"] {
            assert!(asked(&format!("segmenter-trigger, {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pads_that_shift_running_time_shift_triggers() {
        gst::init().unwrap();
        let trigger = "segmenter-trigger, time=(guint64)1000".parse::<gst::Structure>().unwrap();
        assert_eq!(Asked::of_structure(&trigger, -300).unwrap().time, Some(Ns(700)));
    }

    #[test]
    fn a_label_triggers_when_it_appears_while_it_stays_and_where_it_was_last() {
        let labels = Triggers::default();
        let mut said = Vec::new();
        for at in 0..30 {
            let present = (3..12).contains(&at) || at == 20;
            said.extend(labels.look(Key::Main, Ns(at), present, Ns(8)));
        }
        assert_eq!(said, [3, 7, 11, 20].map(Ns));
        let other = labels.look(Key::Further(1), Ns(0), true, Ns(8));
        assert_eq!(other, Some(Ns(0)), "each stream for itself");
    }
}
