#!/usr/bin/python3
"""The same as camera.rs, in Python: forwards a camera through outages, and replays the last seconds on demand.

Usage: camera.py --location DIR --sink "mpegtsmux alignment=7 ! srtsink uri=srt://server:7001" [--input rtsp://camera/]

Then, on standard input: a number replays that many seconds into replay-1.mkv and so on, q ends, as Ctrl-C does. Needs python3-gi
and gir1.2-gstreamer-1.0, and the plugin in GST_PLUGIN_PATH or installed.
"""

import argparse
import os
import signal
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402


class Camera:
    def __init__(self, arguments):
        self.arguments = arguments
        self.loop = GLib.MainLoop()
        self.failed = False
        self.replays = 0
        if arguments.input:
            source = "rtspsrc name=input protocols=tcp ! application/x-rtp,media=video ! rtph264depay"
        else:
            source = "videotestsrc is-live=true pattern=ball ! x264enc tune=zerolatency key-int-max=30"
        self.pipeline = Gst.parse_launch(f"{source} ! h264parse ! diskbuffersink name=buffer")
        if arguments.input:
            self.pipeline.get_by_name("input").set_property("location", arguments.input)
        buffer = self.pipeline.get_by_name("buffer")
        buffer.set_property("location", arguments.location)
        buffer.set_property("retention-time", arguments.keep * Gst.SECOND)
        buffer.set_property("sink-description", arguments.sink)

    def run(self):
        self.watch(self.pipeline, self.on_message)
        for number in (signal.SIGINT, signal.SIGTERM):
            GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, number, self.end)
        threading.Thread(target=self.read_commands, daemon=True).start()
        self.pipeline.set_state(Gst.State.PLAYING)
        print("camera: playing; a number replays that many seconds, q ends", flush=True)
        self.loop.run()
        self.pipeline.set_state(Gst.State.NULL)
        return 1 if self.failed else 0

    def end(self):
        # The end of the stream goes behind the backlog; when the receiver is away, the backlog stays for the next start.
        self.pipeline.send_event(Gst.Event.new_eos())
        return GLib.SOURCE_CONTINUE

    @staticmethod
    def watch(pipeline, handler):
        bus = pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message", handler)

    def on_message(self, _bus, message):
        if message.type == Gst.MessageType.EOS:
            self.loop.quit()
        elif message.type == Gst.MessageType.ERROR:
            # The camera, the disk, or settings: outages of the receiver stay inside of diskbuffersink.
            error, details = message.parse_error()
            print(f"camera: {error.message} ({details})", file=sys.stderr)
            self.failed = True
            self.loop.quit()
        elif message.type == Gst.MessageType.ELEMENT and message.get_structure().get_name().startswith("diskbuffer"):
            print("camera:", message.get_structure().to_string(), flush=True)

    def read_commands(self):
        for line in sys.stdin:
            GLib.idle_add(self.on_command, line.strip())

    def on_command(self, command):
        if command == "q":
            self.end()
        elif command.isdecimal():
            self.replay(int(command))
        elif command:
            print(f"camera: {command}? A number of seconds, or q", flush=True)
        return GLib.SOURCE_REMOVE

    def replay(self, seconds):
        """Reads the store that this process is writing: it is shared, not opened twice."""
        self.replays += 1
        path = os.path.join(self.arguments.replays, f"replay-{self.replays}.mkv")
        pipeline = Gst.parse_launch("diskbuffersrc name=source ! h264parse ! matroskamux ! filesink name=file")
        source = pipeline.get_by_name("source")
        source.set_property("location", self.arguments.location)
        source.set_property("start", f"-{seconds}s")
        pipeline.get_by_name("file").set_property("location", path)

        def on_message(_bus, message):
            if message.type == Gst.MessageType.EOS:
                print(f"camera: {path} is there", flush=True)
            elif message.type == Gst.MessageType.ERROR:
                print(f"camera: no {path}: {message.parse_error()[0].message}", flush=True)
            else:
                return
            pipeline.get_bus().remove_signal_watch()
            pipeline.set_state(Gst.State.NULL)

        self.watch(pipeline, on_message)
        pipeline.set_state(Gst.State.PLAYING)


def main():
    parser = argparse.ArgumentParser(description="Forwards a camera through outages, and replays the last seconds.")
    parser.add_argument("--location", required=True, help="directory of the recording")
    parser.add_argument("--sink", help="where the stream goes, as gst-launch-1.0 takes it; without it, it is only recorded")
    parser.add_argument("--input", help="an rtsp:// address with H.264; without it a generated picture")
    parser.add_argument("--keep", type=int, default=3600, help="seconds that stay on disk for replays")
    parser.add_argument("--replays", default=".", help="directory that replays are written to")
    arguments = parser.parse_args()
    Gst.init(None)
    return Camera(arguments).run()


sys.exit(main())
