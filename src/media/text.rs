//! Structures and caps as text and back.
//!
//! GStreamer writes down what it can and leaves out the rest, so a text counts only if it reads back as what it was made of.

use std::str::FromStr;

use gst::glib;

/// A text that C can read to its end. What was written is one; what a disk gives may be anything.
pub fn clean(text: &str) -> Option<&str> {
    (!text.contains('\0')).then_some(text)
}

pub fn structure(text: &str) -> Option<gst::Structure> {
    gst::Structure::from_str(clean(text)?).ok()
}

pub fn caps(text: &str) -> Option<gst::Caps> {
    gst::Caps::from_str(clean(text)?).ok()
}

/// The text of a structure that is the same when it is read again.
pub fn of_structure(structure: &gst::StructureRef) -> Option<String> {
    let text = structure.to_string();
    let same = || gst::Structure::from_str(&text).is_ok_and(|back| *back == *structure);
    (structure.iter().all(|(_, value)| is_plain(value)) || same()).then_some(text)
}

pub fn of_caps(caps: &gst::CapsRef) -> Option<String> {
    let text = caps.to_string();
    let plain = caps.size() == 1 && caps.structure(0).is_some_and(|s| s.n_fields() == 0);
    (plain || gst::Caps::from_str(&text).is_ok_and(|back| *back == *caps)).then_some(text)
}

/// Of a type whose text is exact: need not be read back to know that.
fn is_plain(value: &glib::SendValue) -> bool {
    use glib::Type;
    match value.type_() {
        Type::BOOL | Type::I32 | Type::U32 | Type::I64 | Type::U64 => true,
        Type::F64 => value.get::<f64>().is_ok_and(f64::is_finite),
        Type::STRING => value.get::<Option<&str>>().is_ok_and(|text| text.is_some()),
        _ => false,
    }
}
