#!/usr/bin/python3
"""Windows of 10 s that overlap by 2 s, handed to an analysis in Python through appsink.

Usage: windows.py [--duration 10] [--overlap 2] INPUT        (a file, or an address such as rtsp://camera/)

The analysis gets whole windows, one after the other, each with all of its frames; what two windows share comes twice, as the same
memory. It runs on the thread of the worker pad: while it thinks, the next window is collected, and when it is too slow for what
comes in, upstream waits (max-worker-bytes) instead of losing frames. Start and end of a window are events between buffers,
seen here with a pad probe; `appsink` of GStreamer 1.20 and later hands them out too (pull-object).

Needs python3-gi and gir1.2-gstreamer-1.0, and the plugin in GST_PLUGIN_PATH or installed.
"""

import argparse
import sys

from pipeline import Gst, build, clock, on_windows, run, seconds, uri

WIDTH, HEIGHT = 64, 36


class Analysis:
    """Stands for a model: brightness and motion of a window."""

    def __init__(self, sink):
        self.frames = []
        sink.connect("new-sample", self.on_sample)
        on_windows(sink.get_static_pad("sink"), self.begin, self.end)

    def begin(self, _window):
        self.frames = []

    def on_sample(self, sink):
        buffer = sink.emit("pull-sample").get_buffer()
        self.frames.append((buffer.pts, buffer.extract_dup(0, buffer.get_size())))
        return Gst.FlowReturn.OK

    def end(self, window):
        pixels = [data for _pts, data in self.frames]
        brightness = sum(map(sum, pixels)) / (255 * WIDTH * HEIGHT * max(1, len(pixels)))
        changes = [abs(sum(after) - sum(before)) for before, after in zip(pixels, pixels[1:])]
        motion = sum(changes) / (255 * WIDTH * HEIGHT * max(1, len(changes)))
        print(
            f"window {window.id}: {clock(window.start)} to {clock(window.end)}, {len(pixels)} frames from",
            f"{clock(self.frames[0][0])} to {clock(self.frames[-1][0])}, brightness {brightness:.3f}, change {motion:.4f}",
            "" if window.complete else f"(not complete: {window.reason})",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description="Hands overlapping windows of a video to an analysis.")
    parser.add_argument("input", type=uri, help="a file, or an address")
    parser.add_argument("--duration", type=seconds, default=seconds(10), help="seconds of a window")
    parser.add_argument("--overlap", type=seconds, default=seconds(2), help="seconds that a window shares with the next one")
    arguments = parser.parse_args()
    pipeline = build(
        "uridecodebin name=input ! videoconvert ! videoscale add-borders=false"
        f" ! video/x-raw,format=GRAY8,width={WIDTH},height={HEIGHT} ! segmenter name=segmenter strategy=sliding"
        f" duration={arguments.duration} hop={arguments.duration - arguments.overlap}"
        " segmenter.worker_0 ! appsink name=frames emit-signals=true sync=false"
    )
    pipeline.get_by_name("input").set_property("uri", arguments.input)
    Analysis(pipeline.get_by_name("frames"))
    return run(pipeline)


sys.exit(main())
