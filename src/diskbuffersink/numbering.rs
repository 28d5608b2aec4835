//! Files that an instance writes after another has written some: it must not begin with the same names.

use std::collections::HashMap;

use gst::prelude::*;

use super::description;

/// What the next instance begins with, by the order of the elements in the description.
#[derive(Debug, Default, Clone)]
pub struct Numbering {
    /// `start-index` of elements that have it (`splitmuxsink`).
    fragments: HashMap<usize, i32>,
    /// An instance has taken data: `filesink` goes on with its file.
    written: bool,
}

/// What one instance began with, and what it has opened since.
#[derive(Debug, Default)]
pub struct Written {
    /// Place in the order, first number, fragments opened.
    fragments: Vec<(gst::Element, usize, i32, i32)>,
}

impl Numbering {
    /// Has the elements of a new instance go on.
    pub fn apply(&self, content: &gst::Element) -> Written {
        let mut elements = description::elements(content);
        // The newest child of a bin is the first: names that count up do not tell the order beyond nine.
        elements.reverse();
        let mut written = Written::default();
        let splitters = elements.iter().filter(|e| e.has_property_with_type("start-index", i32::static_type()));
        for (place, element) in splitters.enumerate() {
            let own: i32 = element.property("start-index");
            let first = self.fragments.get(&place).copied().unwrap_or(own);
            element.set_property("start-index", first);
            written.fragments.push((element.clone(), place, first, 0));
        }
        for element in elements.iter().filter(|_| self.written) {
            let is_file = element.factory().is_some_and(|factory| factory.name() == "filesink");
            let parent = element.parent().map(|parent| parent.type_());
            // One that a bin of its own keeps is that bin's affair.
            if is_file && parent.is_none_or(|type_| type_ == gst::Bin::static_type() || type_.name().ends_with("Shell"))
            {
                element.set_property("append", true);
            }
        }
        written
    }

    /// An instance has come to its end.
    pub fn learn(&mut self, written: &Written, took_data: bool) {
        self.written |= took_data;
        for (_, place, first, opened) in &written.fragments {
            self.fragments.insert(*place, first + opened);
        }
    }
}

impl Written {
    /// An element has begun with another file.
    pub fn opened(&mut self, source: &gst::Object) {
        for (element, _, _, opened) in &mut self.fragments {
            if element.upcast_ref::<gst::Object>() == source {
                *opened += 1;
            }
        }
    }
}
