//! `sink-description`: text to elements, or an error that says what to do about the text.

use gst::glib;
use gst::prelude::*;

/// Parses it into a bin. An element that is missing, an unknown property and a link that cannot be are errors.
pub fn parse(description: &str) -> Result<gst::Element, gst::ErrorMessage> {
    let mut context = gst::ParseContext::new();
    let flags = gst::ParseFlags::FATAL_ERRORS;
    let content = gst::parse::bin_from_description_full(description, false, Some(&mut context), flags)
        .map_err(|err| explain(description, &err, &context.missing_elements()))?;
    fail_openly(&content, description);
    Ok(content)
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

/// Sinks that connect again by themselves lose what they take meanwhile (`srtsink`) and tell nobody: here a failure is to be
/// seen. What the description says of it holds.
const RECONNECTS: &str = "auto-reconnect";

/// Switches off what connects again by itself, unless the description has set it.
fn fail_openly(content: &gst::Element, description: &str) {
    let own = reconnecting(content);
    if !own.iter().any(|(_, connects)| *connects) {
        return;
    }
    // What was written shows in what another value in its place makes different.
    let other =
        match with_value(description, RECONNECTS, "false").map(|text| gst::parse::bin_from_description(&text, false)) {
            None => Vec::new(),
            Some(Ok(bin)) => reconnecting(bin.upcast_ref()),
            Some(Err(_)) => return,
        };
    for (at, (element, connects)) in own.iter().enumerate() {
        let written = other.get(at).is_some_and(|(_, other)| other != connects);
        if *connects && !written {
            element.set_property(RECONNECTS, false);
        }
    }
}

/// The elements that can, and whether they do.
fn reconnecting(content: &gst::Element) -> Vec<(gst::Element, bool)> {
    let can = |element: &gst::Element| {
        element.find_property(RECONNECTS).is_some_and(|property| property.value_type() == bool::static_type())
    };
    let found = elements(content).into_iter().filter(can);
    found.map(|element| (element.clone(), element.property(RECONNECTS))).collect()
}

/// The description with `value` wherever it sets `property`; `None` when it does not.
fn with_value(description: &str, property: &str, value: &str) -> Option<String> {
    let (mut out, mut rest, mut found) = (String::new(), description, false);
    let space = |c: char| c.is_whitespace();
    while let Some(at) = rest.replace('_', "-").find(property) {
        let (before, name_and_after) = rest.split_at(at);
        let after = &name_and_after[property.len()..];
        let assigned = after.trim_start_matches(space).strip_prefix('=').map(|text| text.trim_start_matches(space));
        out.push_str(before);
        out.push_str(property);
        rest = after;
        if let Some(written) = assigned.filter(|_| before.is_empty() || before.ends_with(space)) {
            let end = match written.chars().next() {
                Some(quote @ ('"' | '\'')) => written[1..].find(quote).map(|at| at + 2),
                _ => written.find(space),
            };
            out.push_str(&format!("={value}"));
            rest = &written[end.unwrap_or(written.len())..];
            found = true;
        }
    }
    out.push_str(rest);
    found.then_some(out)
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
    fn what_connects_again_by_itself_fails_instead_unless_it_is_to() {
        gst::init().unwrap();
        let connects = |description: &str| -> Vec<bool> {
            let content = parse(description).unwrap();
            let mut sinks = reconnecting(&content);
            sinks.sort_by_key(|(element, _)| element.name());
            sinks.into_iter().map(|(_, connects)| connects).collect()
        };
        assert_eq!(connects("srtsink uri=srt://127.0.0.1:7001"), [false]);
        for written in ["auto-reconnect=true", "auto_reconnect = 1", "auto-reconnect=\"true\" uri=srt://127.0.0.1:1"] {
            assert_eq!(connects(&format!("srtsink {written}")), [true], "{written}");
        }
        assert_eq!(connects("srtsink auto-reconnect=false"), [false]);
        assert_eq!(
            connects(
                "srtsink name=a tee name=t ! queue ! srtsink name=b auto-reconnect=true t. ! queue ! srtsink name=c"
            ),
            [false, true, false]
        );
        assert_eq!(connects("srtsink uri=srt://auto-reconnect:1?auto-reconnect=true"), [false]);
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
