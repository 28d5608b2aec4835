//! Where in a child each stream goes in.
//!
//! First come always pads that nothing is linked to; then elements that give pads on request, muxers mostly, with what their
//! templates say of video and audio. What lies inside a bin gets ghost pads on every level.

use gst::prelude::*;

use super::description;

/// What a stream is, as far as that matters to a muxer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    Video,
    Audio,
    Text,
    /// Known, and none of these.
    Other,
    Unknown,
}

impl Media {
    pub fn of(caps: &gst::CapsRef) -> Self {
        let Some(structure) = caps.structure(0).filter(|_| !caps.is_any()) else { return Media::Unknown };
        match structure.name().split('/').next() {
            Some("video" | "image") => Media::Video,
            Some("audio") => Media::Audio,
            Some("text" | "subtitle" | "subpicture" | "closedcaption") => Media::Text,
            _ => Media::Other,
        }
    }

    /// Names of request templates for it, the best first.
    fn templates(self) -> &'static [&'static str] {
        match self {
            Media::Video => &["video", "video_%u", "video_aux_%u", "sink_%u", "sink_%d", "sink"],
            Media::Audio => &["audio", "audio_%u", "sink_%u", "sink_%d", "sink"],
            Media::Text => &["subtitle_%u", "text_%u", "subtitle", "caption_%u", "sink_%u", "sink_%d", "sink"],
            Media::Other | Media::Unknown => &["sink_%u", "sink_%d", "sink", "private_%u", "meta_%u"],
        }
    }

    /// Whether a pad with these caps takes it, as far as can be told.
    fn fits(self, caps: &gst::CapsRef) -> bool {
        caps.is_any()
            || self == Media::Unknown
            || caps.iter().any(|s| Media::of(&[s.to_owned()].into_iter().collect::<gst::Caps>()) == self)
    }
}

/// A stream that needs a place.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Of the bin's pad.
    pub name: String,
    pub media: Media,
    pub caps: Option<gst::Caps>,
}

/// A pad of the child's outside.
#[derive(Debug)]
pub struct Place {
    pub pad: gst::Pad,
    pub made: Vec<Made>,
}

/// What was made for a place, in its order: an application's element gets it taken away again.
#[derive(Debug)]
pub enum Made {
    Requested(gst::Element, gst::Pad),
    Ghost(gst::Element, gst::Pad),
}

impl Made {
    pub fn unmake(&self) {
        match self {
            Made::Requested(element, pad) => element.release_request_pad(pad),
            Made::Ghost(bin, pad) => {
                // Fails only when somebody else has removed it.
                let _ = bin.remove_pad(pad);
            }
        }
    }
}

/// Finds a place for each stream, in their order.
pub fn fit(content: &gst::Element, wanted: &[Wanted]) -> Result<Vec<Place>, gst::ErrorMessage> {
    let entrances = entrances(content);
    let mut always: Vec<gst::Pad> = entrances.iter().flat_map(unlinked).collect();
    let mut on_request: Vec<&gst::Element> = entrances.iter().filter(|element| has_requests(element)).collect();
    // One that the description feeds by itself comes last.
    on_request.sort_by_key(|element| element.sink_pads().iter().any(|pad| pad.is_linked()));
    let mut places = Vec::new();
    for stream in wanted {
        let place = take_always(&mut always, stream, &on_request)
            .map(|pad| (pad, None))
            .or_else(|| {
                let named = on_request.iter().filter(|element| element.name() == stream.name);
                let mut all = named.chain(&on_request);
                all.find_map(|element| Some((request(element, stream)?, Some((*element).clone()))))
            })
            .ok_or_else(|| no_place(content, stream, wanted.len()))?;
        let (pad, element) = place;
        let mut place = Place { pad: pad.clone(), made: Vec::new() };
        place.made.extend(element.map(|element| Made::Requested(element, pad)));
        bring_out(content, &mut place, &stream.name).map_err(|err| {
            gst::error_msg!(gst::CoreError::Pad, ("No ghost pad for \"{}\" in the child: {err}", stream.name))
        })?;
        places.push(place);
    }
    Ok(places)
}

/// The element, or for a bin without pads of its own the elements inside.
fn entrances(content: &gst::Element) -> Vec<gst::Element> {
    let is_closed = |element: &gst::Element| {
        !element.is::<gst::Bin>()
            || !element.sink_pads().is_empty()
            || element.pad_template_list().iter().any(|t| t.direction() == gst::PadDirection::Sink)
    };
    if is_closed(content) {
        return vec![content.clone()];
    }
    let Some(bin) = content.downcast_ref::<gst::Bin>() else { return Vec::new() };
    // As written: the newest child is the first.
    bin.children().iter().rev().flat_map(entrances).collect()
}

fn unlinked(element: &gst::Element) -> Vec<gst::Pad> {
    let is_always = |pad: &gst::Pad| {
        pad.pad_template().is_none_or(|t| t.presence() == gst::PadPresence::Always) && !pad.is_linked()
    };
    element.sink_pads().into_iter().filter(is_always).collect()
}

fn has_requests(element: &gst::Element) -> bool {
    let is_request =
        |t: &gst::PadTemplate| t.direction() == gst::PadDirection::Sink && t.presence() == gst::PadPresence::Request;
    element.pad_template_list().iter().any(is_request)
}

/// The always pad that suits the stream best.
fn take_always(always: &mut Vec<gst::Pad>, stream: &Wanted, others: &[&gst::Element]) -> Option<gst::Pad> {
    let named = |pad: &gst::Pad| pad.parent_element().is_some_and(|e| e.name() == stream.name);
    let takes = |pad: &gst::Pad| stream.caps.as_ref().is_some_and(|caps| pad.query_caps(None).can_intersect(caps));
    let fits = |pad: &gst::Pad| stream.media.fits(&pad.query_caps(None));
    let at = always
        .iter()
        .position(named)
        .or_else(|| always.iter().position(takes))
        .or_else(|| always.iter().position(fits));
    // With nothing better to be had, what it refuses is said by the flow.
    let at = at.or_else(|| (!always.is_empty() && others.is_empty()).then_some(0))?;
    Some(always.remove(at))
}

fn request(element: &gst::Element, stream: &Wanted) -> Option<gst::Pad> {
    let templates: Vec<gst::PadTemplate> = element
        .pad_template_list()
        .into_iter()
        .filter(|t| t.direction() == gst::PadDirection::Sink && t.presence() == gst::PadPresence::Request)
        .collect();
    let by_name =
        stream.media.templates().iter().filter_map(|name| templates.iter().find(|t| t.name_template() == *name));
    let takes = |t: &&gst::PadTemplate| stream.caps.as_ref().is_some_and(|caps| t.caps().can_intersect(caps));
    let by_caps = templates.iter().filter(takes);
    let by_media = templates.iter().filter(|t| stream.media.fits(t.caps()));
    by_name.chain(by_caps).chain(by_media).find_map(|template| {
        let name = template.name_template();
        // There is one of it only, and asking again is a complaint in the log.
        let is_taken = !name.contains('%') && element.static_pad(name).is_some();
        if is_taken {
            None
        } else {
            element.request_pad(template, None, stream.caps.as_ref().filter(|caps| caps.is_fixed()))
        }
    })
}

/// Brings a pad to the outside of `content`, through every bin that it is in.
fn bring_out(content: &gst::Element, place: &mut Place, name: &str) -> Result<(), gst::glib::BoolError> {
    loop {
        let Some(owner) = place.pad.parent_element().filter(|owner| owner != content) else { return Ok(()) };
        let Some(bin) = owner.parent().and_downcast::<gst::Element>() else { return Ok(()) };
        let ghost = gst::GhostPad::builder_with_target(&place.pad)?.name(name).build();
        bin.add_pad(&ghost)?;
        place.pad = ghost.upcast();
        place.made.push(Made::Ghost(bin, place.pad.clone()));
    }
}

fn no_place(content: &gst::Element, stream: &Wanted, count: usize) -> gst::ErrorMessage {
    let factories: Vec<String> = description::elements(content)
        .iter()
        .filter_map(|element| element.factory().map(|factory| factory.name().to_string()))
        .filter(|name| name != "bin")
        .collect();
    let what = factories.join(", ");
    if count > 1 {
        gst::error_msg!(
            gst::CoreError::Pad,
            (
                "The sink ({what}) has no input for the pad \"{}\": {count} pads are in use. Put a muxer that takes them \
                 in front of it (mpegtsmux, flvmux, matroskamux, ...), or leave the pad out",
                stream.name
            )
        )
    } else {
        gst::error_msg!(
            gst::CoreError::Pad,
            (
                "The sink ({what}) has no input: the first element of sink-description has to have a sink pad that is \
                 not linked, or one on request for the pad \"{}\"",
                stream.name
            )
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: &str, media: Media) -> Wanted {
        Wanted { name: name.into(), media, caps: None }
    }

    fn targets(text: &str, wanted: &[Wanted]) -> Result<Vec<String>, String> {
        gst::init().unwrap();
        let content = description::parse(text).unwrap();
        let places = fit(&content, wanted).map_err(|err| err.to_string())?;
        let mut names = Vec::new();
        for place in places {
            // Muxers name pads as they like.
            let target = place.pad.downcast_ref::<gst::GhostPad>().unwrap().target().unwrap();
            names.push(target.pad_template().unwrap().name_template().to_string());
        }
        Ok(names)
    }

    #[test]
    fn each_muxer_gets_the_pads_that_it_names() {
        let both = [wanted("video", Media::Video), wanted("audio_0", Media::Audio)];
        for (muxer, names) in [
            ("flvmux", ["video", "audio"]),
            ("mpegtsmux", ["sink_", "sink_"]),
            ("mp4mux", ["video_%u", "audio_%u"]),
            ("matroskamux", ["video_%u", "audio_%u"]),
        ] {
            let found = targets(&format!("{muxer} ! fakesink"), &both).unwrap();
            assert!(found.iter().zip(names).all(|(found, name)| found.starts_with(name)), "{muxer}: {found:?}");
        }
        assert_eq!(targets("splitmuxsink", &both).unwrap(), ["video", "audio_%u"]);
        assert_eq!(targets("hlssink2", &both).unwrap(), ["video", "audio"]);
    }

    #[test]
    fn streams_by_number_go_by_what_they_are() {
        let streams = [wanted("sink_0", Media::Audio), wanted("sink_1", Media::Video), wanted("sink_2", Media::Audio)];
        assert_eq!(targets("matroskamux ! fakesink", &streams).unwrap(), ["audio_%u", "video_%u", "audio_%u"]);
        assert_eq!(
            targets("splitmuxsink", &[wanted("video", Media::Video), wanted("sink_0", Media::Video)]).unwrap()[0],
            "video"
        );
    }

    #[test]
    fn an_always_pad_comes_first_and_is_used_once() {
        let video = wanted("video", Media::Video);
        assert_eq!(targets("queue ! fakesink", std::slice::from_ref(&video)).unwrap(), ["sink"]);
        let text = targets("queue ! fakesink", &[video, wanted("audio_0", Media::Audio)]).unwrap_err();
        assert!(text.contains("audio_0") && text.contains("muxer"), "{text}");
        let text = targets("videotestsrc ! fakesink", &[wanted("video", Media::Video)]).unwrap_err();
        assert!(text.contains("no input"), "{text}");
    }

    #[test]
    fn names_choose_between_several_inputs() {
        let both = [wanted("video", Media::Video), wanted("audio_0", Media::Audio)];
        gst::init().unwrap();
        let content = description::parse("fakesink name=audio_0 fakesink name=video").unwrap();
        let places = fit(&content, &both).unwrap();
        let target = places[0].pad.downcast_ref::<gst::GhostPad>().unwrap().target().unwrap();
        assert_eq!(target.parent_element().unwrap().name(), "video");
    }
}
