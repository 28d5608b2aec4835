#!/usr/bin/python3
"""A file for each scene of a video, written by splitmuxsink, driven by segmenter.

Usage: scenes.py [--copy] INPUT DIRECTORY        (a file, or an address such as rtsp://camera/)

Without --copy the video is decoded, and encoded again: each file begins with the first frame of its scene, exactly, as the encoder
is asked for a keyframe there. With --copy (H.264) nothing is decoded: cuts are guessed from the sizes of coded frames, which
finds fewer of them, and a file begins at the first keyframe at or after the cut, for a file can begin nowhere else.

segmenter sends the event segmenter-window-start before the first frame of each scene. There splitmuxsink is told to split at
that running time; it gets the frame later, so that this is never too late.

Needs python3-gi and gir1.2-gstreamer-1.0, x264enc for the first way, and the plugin in GST_PLUGIN_PATH or installed.
"""

import argparse
import os
import sys

from pipeline import Gst, build, clock, on_windows, run, seconds, uri

ENCODED = "uridecodebin name=input ! videoconvert ! {segmenter} ! x264enc tune=zerolatency key-int-max=250 ! h264parse"
COPIED = "urisourcebin name=input ! parsebin ! video/x-h264 ! h264parse ! {segmenter}"


class Files:
    def __init__(self, segmenter, sink, encodes):
        self.src = segmenter.get_static_pad("src")
        self.sink = sink
        self.encodes = encodes
        self.first = True
        on_windows(self.src, self.begin)

    def begin(self, window):
        print(f"scene from {clock(window.start)}", flush=True)
        if self.first:
            # The first file begins with the first frame.
            self.first = False
            return
        if self.encodes:
            wanted = Gst.Structure.new_from_string(
                f"GstForceKeyUnit, running-time=(guint64){window.running_time}, all-headers=(boolean)true, count=(uint)0"
            )
            self.src.push_event(Gst.Event.new_custom(Gst.EventType.CUSTOM_DOWNSTREAM, wanted))
        self.sink.emit("split-at-running-time", window.running_time)


def main():
    parser = argparse.ArgumentParser(description="Writes a file for each scene of a video.")
    parser.add_argument("input", type=uri, help="a file, or an address")
    parser.add_argument("directory", help="where the files go")
    parser.add_argument("--copy", action="store_true", help="decode nothing; files begin at keyframes")
    parser.add_argument("--shortest", type=seconds, default=seconds(0.25), help="seconds that a scene lasts at least")
    arguments = parser.parse_args()
    os.makedirs(arguments.directory, exist_ok=True)
    way = COPIED if arguments.copy else ENCODED
    segmenter = f"segmenter name=segmenter strategy=scene min-duration={arguments.shortest}"
    pipeline = build(f"{way.format(segmenter=segmenter)} ! splitmuxsink name=files muxer=matroskamux")
    pipeline.get_by_name("input").set_property("uri", arguments.input)
    files = pipeline.get_by_name("files")
    files.set_property("location", os.path.join(arguments.directory, "scene-%05d.mkv"))
    Files(pipeline.get_by_name("segmenter"), files, not arguments.copy)
    return run(pipeline)


sys.exit(main())
