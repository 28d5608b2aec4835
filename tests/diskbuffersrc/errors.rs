//! What cannot be played is said in a sentence that says what to do.

use gst::prelude::*;

use crate::common::*;
use crate::player::*;

fn refused(location: &std::path::Path, properties: &[(&str, &str)]) -> gst::glib::Error {
    let player = Player::idle(location, properties);
    assert!(player.element.set_state(gst::State::Ready).is_err());
    player.error()
}

#[test]
fn a_store_that_is_missing_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none");
    let err = refused(&missing, &[]);
    assert!(err.matches(gst::ResourceError::NotFound), "{err}");
    assert!(err.message().contains("does not exist"), "{err}");
    assert!(!missing.exists());
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let err = refused(&file, &[]);
    assert!(err.matches(gst::ResourceError::NotFound) && err.message().contains("not a directory"), "{err}");
    let err = refused(dir.path(), &[]);
    assert!(err.message().contains("no store"), "{err}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is made");
}

#[test]
fn without_a_location_the_error_says_so() {
    init();
    let element = gst::ElementFactory::make("diskbuffersrc").build().unwrap();
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    if std::env::var_os("STATE_DIRECTORY").is_none() {
        assert!(element.set_state(gst::State::Ready).is_err());
        let message = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
        let gst::MessageView::Error(err) = message.view() else { unreachable!() };
        assert!(err.error().message().contains("\"location\""), "{}", err.error());
    }
    element.set_bus(None::<&gst::Bus>);
}

#[test]
fn a_stream_that_does_not_exist_lists_those_that_do() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["north", "south"] {
        let rig = Rig::new(dir.path(), &[KEPT[0], ("stream-name", name)]);
        rig.start_stream(name, &h264_caps());
        push(&rig, 0..30);
        rig.sink.wait_buffers(30);
        rig.stop();
    }
    for properties in [&[("stream-name", "east")][..], &[]] {
        let err = refused(dir.path(), properties);
        assert!(err.matches(gst::ResourceError::NotFound), "{err}");
        assert!(err.message().contains("\"north\"") && err.message().contains("\"south\""), "{err}");
    }
    assert_eq!(Player::play(dir.path(), &[("stream-name", "south")]).len(), 30);
}

#[test]
fn a_text_that_is_no_place_is_named_with_its_property() {
    let dir = recording(0..5);
    for (property, text) in [("start", "yesterday"), ("stop", "2026-13-01"), ("start", "-30"), ("stop", "-5 minutes")] {
        let err = refused(dir.path(), &[(property, text)]);
        assert!(err.matches(gst::ResourceError::Settings), "{err}");
        assert!(err.message().contains(&format!("\"{property}\"")) && err.message().contains(text), "{err}");
        assert!(err.message().contains("ISO") || err.message().contains("earliest"), "{err}");
    }
}

#[test]
fn a_uri_is_taken_or_refused_with_a_reason() {
    init();
    let element = gst::ElementFactory::make("diskbuffersrc").build().unwrap();
    let handler = element.dynamic_cast_ref::<gst::URIHandler>().unwrap();
    assert_eq!(handler.protocols(), ["diskbuffer"]);
    handler.set_uri("diskbuffer:///a%20b?start=-30s&follow=true").unwrap();
    assert_eq!(element.property::<String>("location"), "/a b");
    assert_eq!(element.property::<String>("start"), "-30s");
    assert!(element.property::<bool>("follow"));
    assert_eq!(handler.uri().unwrap(), "diskbuffer:///a%20b?start=-30s&follow=true");
    let err = handler.set_uri("diskbuffer:///a?begin=1").unwrap_err();
    assert!(err.matches(gst::URIError::BadUri) && err.message().contains("begin"), "{err}");
    let made = gst::Element::make_from_uri(gst::URIType::Src, "diskbuffer:///a", None).unwrap();
    assert_eq!(made.factory().unwrap().name(), "diskbuffersrc");
    let dir = recording(0..5);
    let player = Player::idle(dir.path(), &[]);
    player.element.set_state(gst::State::Paused).unwrap();
    let handler = player.element.dynamic_cast_ref::<gst::URIHandler>().unwrap();
    assert!(handler.set_uri("diskbuffer:///a").unwrap_err().matches(gst::URIError::BadState));
}
