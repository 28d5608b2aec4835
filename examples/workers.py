#!/usr/bin/python3
"""Four workers that analyse one H.264 video at the same time, each a window of its own.

Usage: workers.py [--workers 4] [--duration 5] INPUT        (a file, or an address such as rtsp://camera/)

What is slow, decoding here, is behind the segmenter: it hands the next window to a worker that has nothing to do. Windows need not
begin at keyframes: each brings the pictures before it that a decoder needs, which are decoded and not shown. Results come when
workers are done, so not in order; windows have numbers.

Needs python3-gi and gir1.2-gstreamer-1.0, avdec_h264, and the plugin in GST_PLUGIN_PATH or installed.
"""

import argparse
import sys

from pipeline import Gst, build, clock, on_windows, run, seconds, uri

WIDTH, HEIGHT = 64, 36


class Worker:
    """Stands for a model: the brightness of a window."""

    def __init__(self, sink):
        self.name = sink.get_name()
        self.windows = 0
        self.sums = []
        sink.connect("new-sample", self.on_sample)
        on_windows(sink.get_static_pad("sink"), self.begin, self.end)

    def begin(self, _window):
        self.sums = []

    def on_sample(self, sink):
        buffer = sink.emit("pull-sample").get_buffer()
        self.sums.append(sum(buffer.extract_dup(0, buffer.get_size())))
        return Gst.FlowReturn.OK

    def end(self, window):
        self.windows += 1
        brightness = sum(self.sums) / (255 * WIDTH * HEIGHT * max(1, len(self.sums)))
        print(
            f"window {window.id}: {clock(window.start)} to {clock(window.end)}, {len(self.sums)} frames,",
            f"brightness {brightness:.3f}, by {self.name}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description="Analyses windows of a video side by side.")
    parser.add_argument("input", type=uri, help="a file, or an address")
    parser.add_argument("--workers", type=int, default=4, help="how many work at the same time")
    parser.add_argument("--duration", type=seconds, default=seconds(5), help="seconds of a window")
    arguments = parser.parse_args()
    branches = "".join(
        f" segmenter.worker_{number} ! avdec_h264 ! videoconvert ! videoscale add-borders=false"
        f" ! video/x-raw,format=GRAY8,width={WIDTH},height={HEIGHT}"
        f" ! appsink name=worker-{number} emit-signals=true sync=false"
        for number in range(arguments.workers)
    )
    pipeline = build(
        "urisourcebin name=input ! parsebin ! video/x-h264 ! h264parse"
        f" ! segmenter name=segmenter strategy=fixed duration={arguments.duration}{branches}"
    )
    pipeline.get_by_name("input").set_property("uri", arguments.input)
    workers = [Worker(pipeline.get_by_name(f"worker-{number}")) for number in range(arguments.workers)]
    status = run(pipeline)
    for worker in workers:
        print(f"{worker.name} had {worker.windows} windows", flush=True)
    return status


sys.exit(main())
