//! `sink-description`: text to elements, or an error that says what to do about the text.

use gst::glib;
use gst::prelude::*;

/// Parses it into a bin. An element that is missing, an unknown property and a link that cannot be are errors.
pub fn parse(description: &str) -> Result<gst::Element, gst::ErrorMessage> {
    let mut context = gst::ParseContext::new();
    let flags = gst::ParseFlags::FATAL_ERRORS;
    gst::parse::bin_from_description_full(description, false, Some(&mut context), flags)
        .map_err(|err| explain(description, &err, &context.missing_elements()))
}

/// Where a name stands in the description, counted in characters from 1.
fn place(description: &str, name: &str) -> String {
    match description.find(name) {
        Some(at) => format!(" (at character {})", description[..at].chars().count() + 1),
        None => String::new(),
    }
}

/// The texts between the quotation marks of a parser's message.
fn quoted(text: &str) -> Vec<&str> {
    text.split('"').skip(1).step_by(2).collect()
}

fn explain(description: &str, err: &glib::Error, missing: &[String]) -> gst::ErrorMessage {
    let kind = err.kind::<gst::ParseError>();
    // An element with a property that it does not have counts as missing too.
    if let Some(name) = missing.first().filter(|_| kind == Some(gst::ParseError::NoSuchElement)) {
        return gst::error_msg!(
            gst::CoreError::MissingPlugin,
            (
                "sink-description: there is no element \"{name}\"{}: install the plugin that has it, or correct the name; \
                 \"gst-inspect-1.0 {name}\" has to find it",
                place(description, name)
            )
        );
    }
    let said = err.message();
    match (kind, quoted(said).as_slice()) {
        (Some(gst::ParseError::NoSuchProperty), [property, element, ..]) => gst::error_msg!(
            gst::ResourceError::Settings,
            (
                "sink-description: {said}{}: \"gst-inspect-1.0 {}\" lists the properties that it has",
                place(description, property),
                factory_of(element)
            )
        ),
        (Some(gst::ParseError::Syntax), _) => gst::error_msg!(
            gst::ResourceError::Settings,
            ("sink-description: {said}: \"{description}\" is not a pipeline as gst-launch-1.0 takes it: elements \
                 separated by \"!\", without one at either end, each with property=value; try it with gst-launch-1.0")
        ),
        (Some(gst::ParseError::CouldNotSetProperty), _) => gst::error_msg!(
            gst::ResourceError::Settings,
            ("sink-description: {said}: correct the value, \"gst-inspect-1.0\" shows type and range")
        ),
        (Some(gst::ParseError::Link | gst::ParseError::DelayedLink), _) => gst::error_msg!(
            gst::ResourceError::Settings,
            ("sink-description: {said}: put what converts one to the other between them, a muxer or a parser")
        ),
        _ => gst::error_msg!(gst::ResourceError::Settings, ("sink-description: {said}: correct \"{description}\"")),
    }
}

/// `flvmux` for `flvmux0`.
fn factory_of(element: &str) -> &str {
    element.trim_end_matches(|c: char| c.is_ascii_digit())
}

/// All elements inside, at any depth; the element itself when it is no bin.
pub fn elements(content: &gst::Element) -> Vec<gst::Element> {
    let mut found = vec![content.clone()];
    if let Some(bin) = content.downcast_ref::<gst::Bin>() {
        let mut iterator = bin.iterate_recurse();
        loop {
            match iterator.next() {
                Ok(Some(element)) => found.push(element),
                Ok(None) => break,
                Err(gst::IteratorError::Resync) => {
                    found.truncate(1);
                    iterator.resync();
                }
                Err(gst::IteratorError::Error) => break,
            }
        }
    }
    found
}

/// Something in it makes one stream of several, with a beginning and an end.
pub fn has_muxer(content: &gst::Element) -> bool {
    let is_muxer = |element: &gst::Element| {
        element.metadata(gst::ELEMENT_METADATA_KLASS).is_some_and(|klass| klass.split('/').any(|k| k == "Muxer"))
    };
    elements(content).iter().any(is_muxer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(description: &str) -> String {
        gst::init().unwrap();
        parse(description).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_element_and_the_place() {
        let text = error("identity ! nosuchmuxer ! fakesink");
        assert!(
            text.contains("nosuchmuxer") && text.contains("(at character 12)") && text.contains("install"),
            "{text}"
        );
        let text = error("identity ! fakesink colour=red");
        assert!(text.contains("colour") && text.contains("gst-inspect-1.0 fakesink"), "{text}");
        let text = error("identity ! ! fakesink");
        assert!(text.contains("separated by"), "{text}");
        let text = error("");
        assert!(text.contains("sink-description"), "{text}");
    }

    #[test]
    fn several_elements_are_a_bin() {
        gst::init().unwrap();
        let bin = parse("identity ! fakesink").unwrap();
        assert_eq!(elements(&bin).len(), 3);
        assert!(!has_muxer(&bin));
        assert!(has_muxer(&parse("matroskamux ! fakesink").unwrap()));
        assert!(has_muxer(&parse("splitmuxsink").unwrap()));
    }
}
