//! The sink pads: buffers get their place in time, events keep theirs among buffers.

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::FrameSyncPad;
use super::align::State;
use super::imp::{CAT, FrameSync};
use super::messages;
use super::placing::Placer;
use super::settings::{Mode, OutlierPolicy, Settings, Source};
use super::stamps::{self, Carried, Content};
use super::stream::{Entry, Frame, Phase, Stream};
use crate::timeline::Ns;
use crate::timeline::outlier::{Order, Verdict};

/// Buffers that may wait for the task of a source pad before upstream waits too.
const QUEUE: usize = 16;

/// Whether data may come.
fn open(stream: Option<&mut Stream>) -> Result<&mut Stream, gst::FlowError> {
    match stream {
        None => Err(gst::FlowError::Flushing),
        Some(stream) => match (stream.phase, stream.flow) {
            (Phase::Flushing, _) => Err(gst::FlowError::Flushing),
            (_, Err(err)) => Err(err),
            (Phase::Ending | Phase::Ended, _) => Err(gst::FlowError::Eos),
            (Phase::Running, Ok(_)) => Ok(stream),
        },
    }
}

/// The answer to upstream; none while there is no room for more.
fn room(state: &mut State, index: u32, settings: &Settings) -> Option<Result<gst::FlowSuccess, gst::FlowError>> {
    // What waits for its own order goes on by what comes behind it.
    let waiting = state.waiting(index);
    let stream = match open(state.streams.get_mut(&index)) {
        Ok(stream) => stream,
        Err(err) => return Some(Err(err)),
    };
    let most = settings.max_held_buffers as usize;
    let full = settings.mode == Mode::Align && stream.live != Some(true) && waiting >= most;
    stream.blocked = full || stream.queue.len() >= QUEUE;
    (!stream.blocked).then_some(stream.flow)
}

fn order(stream: &Stream) -> Order {
    if stream.content == Content::InterCoded { Order::Decode } else { Order::Rising }
}

impl FrameSync {
    pub(super) fn sink_chain(
        &self,
        pad: &FrameSyncPad,
        index: u32,
        buffer: gst::Buffer,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let settings = self.settings();
        let now = self.now();
        let mut state = self.state();
        if open(state.streams.get_mut(&index))?.live.is_none() {
            drop(state);
            self.warn_of_no_field(pad, index);
            self.ask_upstream(pad, index);
            state = self.state();
            open(state.streams.get_mut(&index))?;
        }
        self.refresh(&mut state, &settings);
        let mut shared = state.shared;
        let mut told = std::mem::take(&mut state.messages);
        let stream = open(state.streams.get_mut(&index))?;
        let of_stream = stream.settings.clone();
        let carried = Carried::read(&buffer, stream.segment.as_ref(), &of_stream);
        let live = stream.live == Some(true);
        let order = order(stream);
        let mut placer = match stream.placer.take() {
            Some(mut placer) => {
                placer.configure(&of_stream, live, order);
                placer
            }
            None => Placer::new(&of_stream, live, order),
        };
        placer.set_delay(stream.upstream_latency);
        let (place, found) = placer.push(&carried, now.of(live), &mut shared);
        if let Some(format) = found {
            gst::info!(CAT, obj = pad, "Timestamps are of format {format}");
        }
        let rate = stream.segment.as_ref().map_or(1.0, |segment| segment.rate().abs());
        let duration = match buffer.duration() {
            _ if !placer.is_in_ns() => Some(placer.cadence()),
            // What goes out has rate 1.
            Some(duration) if rate != 1.0 => Some(Some(Ns::from_f64(duration.nseconds() as f64 / rate))),
            _ => None,
        };
        stream.placer = Some(placer);
        stream.counters.input += 1;
        messages::judged(stream, &place, now.of(live), &mut told);
        if live {
            messages::drifted(stream, now.of(live), &mut told);
        }
        let offset = Ns(of_stream.offset);
        let (mut pts, mut dts) = (place.pts + offset, place.dts.map(|dts| dts + offset));
        if of_stream.outlier_policy != OutlierPolicy::Pass {
            // An offset that was made less makes nothing go back.
            let floor = stream.floor.unwrap_or(Ns::MIN);
            match &mut dts {
                Some(dts) if *dts < floor => {
                    // What was at or above DTS stays there.
                    pts = if pts >= *dts { pts.max(floor) } else { pts };
                    *dts = floor;
                }
                Some(_) => {}
                None if order == Order::Rising => pts = pts.max(floor),
                None => {}
            }
            let key = dts.unwrap_or(pts);
            stream.floor = Some(floor.max(key));
        }
        let frame = Frame {
            token: stream.next_token,
            pts,
            dts,
            interpolated: place.interpolated,
            discont: std::mem::take(&mut stream.left_out) || matches!(place.verdict, Verdict::Jump { .. }),
            duration,
            buffer,
        };
        stream.next_token += 1;
        let bad = matches!(place.verdict, Verdict::Outlier | Verdict::Duplicate | Verdict::Backwards);
        let dropped = bad && of_stream.outlier_policy == OutlierPolicy::Drop && stream.content == Content::Frames;
        stream.left_out |= dropped;
        state.shared = shared;
        state.messages = told;
        if !dropped {
            let all_live = state.live;
            state.admit(index, frame, settings.mode, now.of(all_live));
        }
        let after = self.progress(&mut state, &settings, now);
        let flow = room(&mut state, index, &settings);
        drop(state);
        self.follow(after);
        match flow {
            Some(flow) => flow,
            None => self.wait_for_room(index),
        }
    }

    fn wait_for_room(&self, index: u32) -> Result<gst::FlowSuccess, gst::FlowError> {
        loop {
            // More may be allowed meanwhile.
            let settings = self.settings();
            let mut state = self.state();
            if state.generation > settings.generation {
                continue;
            }
            if let Some(flow) = room(&mut state, index, &settings) {
                return flow;
            }
            let port = open(state.streams.get_mut(&index))?.port.clone();
            drop(port.room.wait(state));
        }
    }

    /// Without a field to read, all stamps would be made up and nobody knew why.
    fn warn_of_no_field(&self, pad: &FrameSyncPad, index: u32) {
        let settings = self.state().streams.get(&index).map(|stream| stream.settings.clone());
        let Some(settings) = settings.filter(|settings| settings.source == Source::MetaField) else { return };
        let field = settings.field.as_deref();
        if cfg!(feature = "v1_20") && field.is_some_and(|path| path.contains('/')) {
            return;
        }
        let name = pad.name();
        let why = match field {
            _ if !cfg!(feature = "v1_20") => "custom metas need a build for GStreamer 1.20 or newer".into(),
            None => "timestamp-field is not set".into(),
            Some(path) => format!("timestamp-field={path} does not name a meta and a field"),
        };
        gst::element_imp_warning!(
            self,
            gst::LibraryError::Settings,
            ("Frames of {name} are placed by arrival: {why}. Set timestamp-field=meta-name/field-name, or another timestamp-source.")
        );
    }

    /// Whether what is upstream is live, and its latency.
    fn ask_upstream(&self, pad: &FrameSyncPad, index: u32) {
        let mut query = gst::query::Latency::new();
        let known = pad.peer_query(&mut query);
        let (live, least, _) = query.result();
        {
            let mut state = self.state();
            let Some(stream) = state.streams.get_mut(&index) else { return };
            stream.live = Some(known && live);
            stream.upstream_latency = Ns::from(least.nseconds());
            state.look_live();
        }
        if known && live && self.settings().mode == Mode::Align {
            // Sets wait for this stream too now.
            self.latency_changed();
        }
    }

    pub(super) fn sink_event(&self, pad: &FrameSyncPad, index: u32, event: gst::Event) -> bool {
        use gst::EventView as View;
        gst::log!(CAT, obj = pad, "Event {event:?}");
        match event.view() {
            View::FlushStart(_) => return self.flush_start(index, event),
            View::FlushStop(_) => return self.flush_stop(index, event),
            _ if !event.is_serialized() => {
                return self.port(index).is_some_and(|port| port.src.push_event(event));
            }
            _ => {}
        }
        let settings = self.settings();
        let now = self.now();
        let mut state = self.state();
        self.refresh(&mut state, &settings);
        let at = now.of(state.live);
        match event.view() {
            View::Segment(segment) => {
                let Some(stream) = state.streams.get_mut(&index) else { return false };
                stream.segment = segment.segment().downcast_ref::<gst::ClockTime>().cloned();
                // Keeps its place: the task makes another one of it.
                stream.add(Entry::Event(event));
            }
            View::StreamStart(_) => {
                let ended = state.streams.get(&index).is_some_and(|stream| stream.phase == Phase::Ended);
                if ended {
                    state.leave(index, at);
                }
                let Some(stream) = state.streams.get_mut(&index) else { return false };
                if ended {
                    stream.pass_all();
                    stream.matched = None;
                    stream.phase = Phase::Running;
                }
                stream.add(Entry::Event(event));
            }
            View::Caps(caps) => {
                let content = stamps::Content::of(caps.caps());
                let Some(stream) = state.streams.get_mut(&index) else { return false };
                let was = std::mem::replace(&mut stream.content, content);
                stream.add(Entry::Event(event));
                if was != content {
                    // What waits for frames below it gets none of the other kind.
                    state.settle(index, Ns::MAX, at);
                }
            }
            View::Gap(gap) => {
                let (begin, length) = gap.get();
                let Some(stream) = state.streams.get_mut(&index) else { return false };
                let end = begin.saturating_add(length.unwrap_or(gst::ClockTime::ZERO));
                let times = (self.moment(stream, begin), self.moment(stream, end));
                let (Some(begin), Some(end)) = times else { return true };
                stream.add(Entry::Gap { at: begin, duration: length.map(|_| end - begin) });
                state.gap(index, end, at);
            }
            View::SegmentDone(_) => {
                let Some(stream) = state.streams.get_mut(&index) else { return false };
                stream.round_over = true;
                stream.add(Entry::Event(event));
                // As with EOS: whoever loops waits for this event before anything more comes.
                state.end(index, at);
            }
            View::Eos(_) => {
                let Some(stream) = state.streams.get_mut(&index) else { return false };
                if stream.flow.is_err_and(|err| err != gst::FlowError::NotLinked) {
                    return true;
                }
                stream.phase = Phase::Ending;
                state.end(index, at);
                self.advance(state, &settings, now);
                state = self.state();
                let Some(stream) = state.streams.get_mut(&index) else { return false };
                if stream.phase == Phase::Ending {
                    stream.phase = Phase::Ended;
                    stream.add(Entry::Event(event));
                }
            }
            _ => {
                let Some(stream) = state.streams.get_mut(&index) else { return false };
                stream.add(Entry::Event(event));
            }
        }
        if let Some(stream) = state.streams.get_mut(&index) {
            if stream.phase == Phase::Flushing || stream.flow.is_err() {
                stream.keep_sticky();
            }
            stream.release();
        }
        self.advance(state, &settings, now);
        true
    }

    /// Where a moment of the stream that is not a buffer's lies.
    fn moment(&self, stream: &Stream, at: gst::ClockTime) -> Option<Ns> {
        let mut buffer = gst::Buffer::new();
        buffer.make_mut().set_pts(at);
        let carried = Carried::read(&buffer, stream.segment.as_ref(), &stream.settings);
        let near = match &stream.placer {
            Some(placer) => placer.near(&carried)?,
            // Before the first buffer: known where stamps are running time.
            None if stream.settings.format() == Some(crate::timeline::format::Format::PIPELINE) => {
                stamps::running(stream.segment.as_ref(), at)
            }
            None => return None,
        };
        Some(near + Ns(stream.settings.offset))
    }

    fn flush_start(&self, index: u32, event: gst::Event) -> bool {
        let Some(port) = self.port(index) else { return false };
        self.stop_flow(index);
        let done = port.src.push_event(event);
        let _ = port.src.pause_task();
        done
    }

    fn flush_stop(&self, index: u32, event: gst::Event) -> bool {
        let Some(port) = self.port(index) else { return false };
        let settings = self.settings();
        let now = self.now();
        {
            let mut state = self.state();
            let live = state.live;
            state.leave(index, now.of(live));
            if let Some(stream) = state.streams.get_mut(&index) {
                stream.reset();
                if port.src.is_active() {
                    stream.phase = Phase::Running;
                }
            }
            let resets = matches!(event.view(), gst::EventView::FlushStop(stop) if stop.resets_time());
            state.time_begins_anew(resets.then(|| event.seqnum()), now.of(live));
            if settings.mode == Mode::Align {
                // It comes back: others wait for it.
                state.join(now.of(live));
            }
            self.advance(state, &settings, now);
        }
        let done = port.src.push_event(event);
        if port.src.is_active()
            && let Err(err) = self.start_task(&port.src, index)
        {
            gst::error!(CAT, imp = self, "The task of {} cannot go on: {err}", port.name);
        }
        done
    }

    pub(super) fn sink_query(&self, pad: &FrameSyncPad, query: &mut gst::QueryRef) -> bool {
        // Those that have their place among buffers would have to wait for them.
        if query.is_serialized() {
            return false;
        }
        gst::Pad::query_default(pad, Some(&*self.obj()), query)
    }
}
