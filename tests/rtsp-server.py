#!/usr/bin/python3
"""Stands for a camera: an RTSP server on a free port of 127.0.0.1, whose address is the only line it prints.

Usage: rtsp-server.py [--port PORT] [--video ELEMENTS] [clip.mp4]

Each client gets a stream of its own from the beginning: H.264 and AAC, live. Without a clip or elements that end in H.264 it is a
test picture; the sound is a tone. Needs the packages python3-gi and gir1.2-gst-rtsp-server-1.0.
"""

import argparse
import signal

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

VIDEO = "videotestsrc is-live=true ! video/x-raw,width=640,height=360 ! x264enc tune=zerolatency key-int-max=30 ! h264parse"
GENERATED = (
    "( {} ! rtph264pay name=pay0 pt=96 config-interval=-1"
    " audiotestsrc is-live=true freq=441.7 ! avenc_aac ! aacparse ! rtpmp4gpay name=pay1 pt=97 )"
)
CLIP = (
    '( filesrc location="{}" ! qtdemux name=clip'
    " clip.video_0 ! queue ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1"
    " clip.audio_0 ! queue ! aacparse ! rtpmp4gpay name=pay1 pt=97 )"
)


def main():
    parser = argparse.ArgumentParser(description="An RTSP server that stands for a camera.")
    parser.add_argument("--port", default="0", help="TCP port; without it a free one")
    parser.add_argument("--video", default=VIDEO, help="elements, as gst-launch-1.0 takes them")
    parser.add_argument("clip", nargs="?", help="MP4 file with H.264 and AAC, played once for each client")
    arguments = parser.parse_args()
    Gst.init(None)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(CLIP.format(arguments.clip) if arguments.clip else GENERATED.format(arguments.video))
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(arguments.port)
    server.get_mount_points().add_factory("/camera", factory)
    if server.attach(None) == 0:
        raise SystemExit(f"rtsp-server.py: cannot listen on port {arguments.port}")
    print(f"rtsp://127.0.0.1:{server.get_bound_port()}/camera", flush=True)
    loop = GLib.MainLoop()
    for number in (signal.SIGINT, signal.SIGTERM):
        GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, number, loop.quit)
    loop.run()


main()
