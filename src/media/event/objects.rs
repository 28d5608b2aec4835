//! The objects that some events hold, by their content: streams, collections of them, tables of contents.

use bitcode::{Decode, Encode};
use gst::glib::translate::{FromGlib, IntoGlib};

use super::tag_list;
use crate::media::text;

/// Deeper than any table of contents; GStreamer goes down into them by recursion.
const MAX_LEVEL: usize = 32;

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct Stream {
    id: Option<String>,
    caps: Option<String>,
    kind: u32,
    flags: u32,
    tags: Option<Tags>,
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct Tags {
    list: String,
    /// Their text does not say so.
    global: bool,
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct Collection {
    upstream_id: Option<String>,
    streams: Vec<Stream>,
}

#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub(super) struct Toc {
    scope: i32,
    updated: bool,
    tags: Option<Tags>,
    entries: Vec<Entry>,
}

/// Entries follow the one that they are part of, one level deeper.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
struct Entry {
    level: u32,
    kind: i32,
    uid: String,
    times: Option<(i64, i64)>,
    repeats: Option<(i32, i32)>,
    tags: Option<Tags>,
}

impl Tags {
    pub(super) fn of(tags: &gst::TagListRef) -> Self {
        Self { list: tags.to_string(), global: tags.scope() == gst::TagScope::Global }
    }

    pub(super) fn list(&self) -> Option<gst::TagList> {
        let mut tags = tag_list(&self.list)?;
        let scope = if self.global { gst::TagScope::Global } else { gst::TagScope::Stream };
        tags.make_mut().set_scope(scope);
        Some(tags)
    }
}

impl Stream {
    /// `None` if its caps cannot be written down.
    pub(super) fn of(stream: &gst::Stream) -> Option<Self> {
        let caps = match stream.caps() {
            Some(caps) => Some(text::of_caps(&caps)?),
            None => None,
        };
        Some(Self {
            id: stream.stream_id().map(|id| id.to_string()),
            caps,
            kind: stream.stream_type().bits(),
            flags: stream.stream_flags().bits(),
            tags: stream.tags().map(|tags| Tags::of(&tags)),
        })
    }

    pub(super) fn stream(&self) -> gst::Stream {
        let stream = gst::Stream::new(
            self.id.as_deref().and_then(text::clean),
            self.caps.as_deref().and_then(text::caps).as_ref(),
            gst::StreamType::from_bits_truncate(self.kind),
            gst::StreamFlags::from_bits_truncate(self.flags),
        );
        let tags = self.tags.as_ref().and_then(Tags::list);
        if tags.is_some() {
            stream.set_tags(tags.as_ref());
        }
        stream
    }
}

impl Collection {
    pub(super) fn of(collection: &gst::StreamCollection) -> Option<Self> {
        let streams = collection.iter().map(|stream| Stream::of(&stream)).collect::<Option<_>>()?;
        Some(Self { upstream_id: collection.upstream_id().map(|id| id.to_string()), streams })
    }

    pub(super) fn event(&self) -> gst::Event {
        let collection = gst::StreamCollection::builder(self.upstream_id.as_deref().and_then(text::clean))
            .streams(self.streams.iter().map(Stream::stream))
            .build();
        gst::event::StreamCollection::new(&collection)
    }
}

impl Toc {
    pub(super) fn of(toc: &gst::TocRef, updated: bool) -> Self {
        let mut entries = Vec::new();
        toc.entries().iter().for_each(|entry| Entry::collect(entry, 0, &mut entries));
        Self { scope: toc.scope().into_glib(), updated, tags: toc.tags().map(|tags| Tags::of(&tags)), entries }
    }

    pub(super) fn event(&self) -> Option<gst::Event> {
        // SAFETY: any number is a scope or an unknown one.
        let mut toc = gst::Toc::new(match unsafe { gst::TocScope::from_glib(self.scope) } {
            gst::TocScope::Current => gst::TocScope::Current,
            _ => gst::TocScope::Global,
        });
        {
            let toc = toc.make_mut();
            if let Some(tags) = self.tags.as_ref().and_then(Tags::list) {
                toc.set_tags(tags);
            }
            // Those that may still get parts, outermost first: none of a level is open twice.
            let mut open: Vec<gst::TocEntry> = Vec::new();
            for entry in &self.entries {
                let level = usize::try_from(entry.level).ok().filter(|&level| level <= open.len().min(MAX_LEVEL))?;
                close(toc, &mut open, level);
                open.push(entry.entry()?);
            }
            close(toc, &mut open, 0);
        }
        Some(gst::event::Toc::new(&toc, self.updated))
    }
}

/// Puts open entries where they belong until `level` remain.
fn close(toc: &mut gst::TocRef, open: &mut Vec<gst::TocEntry>, level: usize) {
    while open.len() > level
        && let Some(done) = open.pop()
    {
        match open.last_mut() {
            Some(parent) => parent.make_mut().append_sub_entry(done),
            None => toc.append_entry(done),
        }
    }
}

impl Entry {
    fn collect(entry: &gst::TocEntryRef, level: u32, into: &mut Vec<Self>) {
        into.push(Self {
            level,
            kind: entry.entry_type().into_glib(),
            uid: entry.uid().to_owned(),
            times: entry.start_stop_times(),
            repeats: entry.loop_().map(|(kind, count)| (kind.into_glib(), count)),
            tags: entry.tags().map(|tags| Tags::of(&tags)),
        });
        entry.sub_entries().iter().for_each(|part| Self::collect(part, level.saturating_add(1), into));
    }

    fn entry(&self) -> Option<gst::TocEntry> {
        // SAFETY: any number is an entry type or an unknown one.
        let kind = unsafe { gst::TocEntryType::from_glib(self.kind) };
        let mut entry = gst::TocEntry::new(kind, text::clean(&self.uid)?);
        {
            let entry = entry.make_mut();
            if let Some((start, stop)) = self.times {
                entry.set_start_stop_times(start, stop);
            }
            if let Some((kind, count)) = self.repeats {
                // SAFETY: any number is a kind of loop or an unknown one.
                entry.set_loop(unsafe { gst::TocLoopType::from_glib(kind) }, count);
            }
            if let Some(tags) = self.tags.as_ref().and_then(Tags::list) {
                entry.set_tags(tags);
            }
        }
        Some(entry)
    }
}
