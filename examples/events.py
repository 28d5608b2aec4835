#!/usr/bin/python3
"""Clips of events: from 5 s before a trigger to 10 s after it, copied, nothing is encoded again.

Usage: events.py [--before 5] [--after 10] [--at SECONDS]... INPUT DIRECTORY        (H.264: a file, or rtsp://camera/)

Then, on standard input: a line triggers now and names the clip, q ends, as Ctrl-C does. --at triggers at that time of the stream. A
file is played as fast as a camera would send it, unless --at is given. Other programs trigger by the action `trigger` of segmenter,
an element of the pipeline by the custom event `segmenter-trigger`, an analysis by the label of a region (trigger-label).

A clip begins at the last keyframe at or before the pre-roll, so that it can be played from its first frame. Triggers whose clips
would overlap make one clip. Between clips nothing leaves segmenter but GAP events; what is before a trigger is kept in memory,
max-ring-bytes of it at most.

Needs python3-gi and gir1.2-gstreamer-1.0, and the plugin in GST_PLUGIN_PATH or installed.
"""

import argparse
import os
import re
import sys
import threading

from pipeline import GLib, Gst, build, clock, on_windows, run, seconds, uri


class Clips:
    def __init__(self, pipeline, arguments):
        self.pipeline = pipeline
        self.arguments = arguments
        self.segmenter = pipeline.get_by_name("segmenter")
        self.files = pipeline.get_by_name("files")
        self.names = []
        self.begins = False
        self.files.connect("format-location", self.path)
        src = self.segmenter.get_static_pad("src")
        on_windows(src, self.begin)
        src.add_probe(Gst.PadProbeType.BUFFER, self.on_buffer)

    def begin(self, window):
        self.names.append(re.sub(r"[^\w-]+", "-", window.name or "clip"))
        # The first file begins by itself.
        self.begins = len(self.names) > 1

    def on_buffer(self, pad, info):
        """The first frame of a clip is a keyframe, which may lie before what was asked for: there the file begins."""
        if self.begins:
            self.begins = False
            buffer = info.get_buffer()
            segment = pad.get_sticky_event(Gst.EventType.SEGMENT, 0).parse_segment()
            time = min(buffer.pts, buffer.dts) if buffer.dts != Gst.CLOCK_TIME_NONE else buffer.pts
            self.files.emit("split-at-running-time", segment.to_running_time(Gst.Format.TIME, max(time, segment.start)))
        return Gst.PadProbeReturn.OK

    def path(self, _files, number):
        # Fragments begin in the order of the windows.
        name = self.names[number] if number < len(self.names) else "clip"
        return os.path.join(self.arguments.directory, f"{number:05d}-{name}.mkv")

    def trigger(self, time, name):
        if not self.segmenter.emit("trigger", time, None, name):
            print(f"no clip for {name}: there is no data for it any more, or none yet", flush=True)

    def started(self):
        for time in self.arguments.at:
            self.trigger(time, f"at-{time / Gst.SECOND:g}")
        threading.Thread(target=self.read_commands, daemon=True).start()

    def read_commands(self):
        for line in sys.stdin:
            GLib.idle_add(self.on_command, line.strip())

    def on_command(self, command):
        if command == "q":
            self.pipeline.send_event(Gst.Event.new_eos())
        else:
            # None says now; GstClockTime has no other name for it.
            self.trigger(Gst.CLOCK_TIME_NONE, command or "clip")
        return GLib.SOURCE_REMOVE

    def on_message(self, message):
        fields = message.get_structure()
        if fields.get_name() == "segmenter-window-closed":
            start, end = fields.get_uint64("start").value, fields.get_uint64("end").value
            missing = "" if fields.get_boolean("complete").value else ", of which something is missing"
            print(f"clip {fields.get_string('name')}: {clock(start)} to {clock(end)}{missing}", flush=True)


def main():
    parser = argparse.ArgumentParser(description="Writes clips around triggers.")
    parser.add_argument("input", type=uri, help="a file, or an address")
    parser.add_argument("directory", help="where the clips go")
    parser.add_argument("--before", type=seconds, default=seconds(5), help="seconds of a clip before the trigger")
    parser.add_argument("--after", type=seconds, default=seconds(10), help="seconds of a clip after the trigger")
    parser.add_argument("--at", type=seconds, default=[], action="append", help="trigger at this time of the stream")
    arguments = parser.parse_args()
    os.makedirs(arguments.directory, exist_ok=True)
    pace = " ! identity sync=true" if arguments.input.startswith("file://") and not arguments.at else ""
    pipeline = build(
        f"urisourcebin name=input ! parsebin ! video/x-h264 ! h264parse{pace} ! segmenter name=segmenter strategy=event"
        f" pre-roll={arguments.before} post-roll={arguments.after}"
        " ! splitmuxsink name=files muxer=matroskamux"
    )
    pipeline.get_by_name("input").set_property("uri", arguments.input)
    clips = Clips(pipeline, arguments)
    return run(pipeline, clips.on_message, clips.started)


sys.exit(main())
