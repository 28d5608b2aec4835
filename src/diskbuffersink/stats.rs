//! What the bin says about itself: sums over its streams, what became of the child, messages.

use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::CAT;
use super::imp::DiskBufferSink;
use super::stream::Stream;
use crate::diskbuffer::settings::Status;

/// What is counted of the child.
#[derive(Debug, Default, Clone)]
pub struct Counters {
    pub restarts: u32,
    pub errors: u32,
    pub last_error: Option<String>,
}

/// How the fields of several streams become one.
#[derive(Clone, Copy)]
enum Merge {
    Sum,
    Max,
    Min,
}

fn merge_of(field: &str) -> Merge {
    match field {
        "oldest-pending-age" | "drain-eta" | "last-received-at" | "last-delivered-at" | "commit-latency-p99"
        | "sync-jitter" | "outage-time" | "outages" | "disk-bytes" => Merge::Max,
        // Positions are those of one stream: see `streams`.
        "durable-position" | "acknowledged-position" | "keyframe-ratio" => Merge::Min,
        _ => Merge::Sum,
    }
}

fn merged<T: PartialOrd + Copy>(how: Merge, sum: fn(T, T) -> T, a: T, b: T) -> T {
    match how {
        Merge::Sum => sum(a, b),
        Merge::Max => {
            if b > a {
                b
            } else {
                a
            }
        }
        Merge::Min => {
            if b < a {
                b
            } else {
                a
            }
        }
    }
}

/// Takes the fields of another stream in.
fn merge(into: &mut gst::Structure, other: &gst::StructureRef) {
    for (field, value) in other.iter() {
        let how = merge_of(field);
        let name = field.as_str();
        if let (Ok(a), Ok(b)) = (into.get::<u64>(name), value.get::<u64>()) {
            into.set(name, merged(how, u64::saturating_add, a, b));
        } else if let (Ok(a), Ok(b)) = (into.get::<u32>(name), value.get::<u32>()) {
            into.set(name, merged(how, u32::saturating_add, a, b));
        } else if let (Ok(a), Ok(b)) = (into.get::<i64>(name), value.get::<i64>()) {
            into.set(name, merged(how, i64::saturating_add, a, b));
        } else if let (Ok(a), Ok(b)) = (into.get::<f64>(name), value.get::<f64>()) {
            into.set(name, merged(how, |a, b| a + b, a, b));
        }
    }
}

/// The worse comes first.
fn severity(status: Status) -> u8 {
    match status {
        Status::StorageFault => 6,
        Status::Outage => 5,
        Status::Stalled => 4,
        Status::CatchingUp => 3,
        Status::Starting => 2,
        Status::Live => 1,
        Status::Stopped => 0,
    }
}

impl DiskBufferSink {
    /// The worst of the streams.
    pub(super) fn status(&self) -> Status {
        let each = self.streams().into_iter().map(|stream| stream.buffer.property::<Status>("status"));
        each.max_by_key(|status| severity(*status)).unwrap_or_default()
    }

    pub(super) fn level<T: std::iter::Sum<T> + for<'a> glib::value::FromValue<'a> + 'static>(
        &self,
        property: &str,
    ) -> T {
        self.streams().iter().map(|stream| stream.buffer.property::<T>(property)).sum()
    }

    /// The `stats` property.
    pub(super) fn stats(&self) -> gst::Structure {
        let each: Vec<gst::Structure> = self
            .streams()
            .iter()
            .map(|stream| {
                let mut stats = stream.buffer.property::<gst::Structure>("stats");
                stats.set("pad", stream.name());
                stats
            })
            .collect();
        let mut stats = gst::Structure::new_empty("diskbuffersink-stats");
        for one in &each {
            if stats.n_fields() == 0 {
                one.iter()
                    .filter(|(name, _)| name.as_str() != "pad")
                    .for_each(|(name, value)| stats.set_value(name, value.clone()));
            } else {
                merge(&mut stats, one);
            }
        }
        let counters = self.counters();
        let status = glib::EnumValue::from_value(&self.status().to_value())
            .map_or(String::new(), |(_, value)| value.nick().to_owned());
        stats.set("status", status);
        stats.set("restarts", counters.restarts);
        stats.set("child-errors", counters.errors);
        // That of the child, else that of a disk.
        let of_disk = each.iter().filter_map(|s| s.get::<String>("last-error").ok()).find(|text| !text.is_empty());
        stats.set("last-error", counters.last_error.or(of_disk).unwrap_or_default());
        stats.set("streams", gst::Array::new(each));
        stats
    }

    /// Posts an element message with the level.
    pub(super) fn tell(&self, name: &str, fields: impl FnOnce(gst::structure::Builder) -> gst::structure::Builder) {
        let builder = gst::Structure::builder(name)
            .field("level-buffers", self.level::<u32>("current-level-buffers"))
            .field("level-bytes", self.level::<u64>("current-level-bytes"))
            .field("level-time", self.streams_max("current-level-time"));
        let obj = self.obj();
        // Nobody listens: not an error.
        let _ = obj.post_message(gst::message::Element::builder(fields(builder).build()).src(&*obj).build());
    }

    /// Media time of several streams passes at once.
    pub(super) fn streams_max(&self, property: &str) -> u64 {
        self.streams().iter().map(|stream| stream.buffer.property::<u64>(property)).max().unwrap_or(0)
    }

    /// Buffers that the child has accepted in this run.
    pub(super) fn accepted(&self) -> u64 {
        self.streams().iter().map(|Stream { buffer, .. }| buffer.progress().accepted.buffers).sum()
    }

    pub(super) fn tell_restarted(&self, after: Duration) {
        let restarts = self.counters().restarts;
        gst::info!(CAT, imp = self, "The sink takes data again after {:.1} s", after.as_secs_f64());
        self.tell("diskbuffersink-restarted", |b| {
            b.field("restarts", restarts).field("after", after.as_nanos() as u64)
        });
    }

    /// What is left stays on the disk.
    pub(super) fn tell_eos_timeout(&self) {
        let buffers = self.level::<u32>("current-level-buffers");
        gst::element_imp_warning!(
            self,
            gst::ResourceError::Busy,
            ("The sink has not taken everything within eos-timeout: {buffers} buffers stay for the next start")
        );
        self.tell("diskbuffersink-eos-timeout", |b| b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_and_ages_do_not() {
        gst::init().unwrap();
        let build = |n: u64| {
            gst::Structure::builder("s").field("received", n).field("drain-eta", n).field("durable-position", n).build()
        };
        let mut sum = build(3);
        merge(&mut sum, &build(5));
        let get = |name: &str| sum.get::<u64>(name).unwrap();
        assert_eq!((get("received"), get("drain-eta"), get("durable-position")), (8, 5, 3));
    }
}
