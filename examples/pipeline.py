"""What the Python examples with `segmenter` share: a pipeline that runs to its end or to Ctrl-C, errors as sentences."""

import os
import signal
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

Gst.init(None)


def uri(text):
    """An address as it is, anything else as the path of a file."""
    return text if "://" in text else Gst.filename_to_uri(os.path.abspath(text))


def seconds(text):
    """Seconds, as people write them, in ns."""
    return int(float(text) * Gst.SECOND)


def clock(ns):
    return f"{ns / Gst.SECOND:.3f} s"


def build(description):
    try:
        return Gst.parse_launch(description)
    except GLib.Error as error:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {error.message}; is the plugin in GST_PLUGIN_PATH?")


def on_windows(pad, begins, ends=None):
    """Calls `begins` and `ends` with the fields of a window, between the buffers of the one before and its own, on the thread
    that pushes them."""

    def probe(_pad, info):
        fields = info.get_event().get_structure()
        handler = {"segmenter-window-start": begins, "segmenter-window-end": ends}.get(fields.get_name()) if fields else None
        if handler:
            handler(Window(fields))
        return Gst.PadProbeReturn.OK

    pad.add_probe(Gst.PadProbeType.EVENT_DOWNSTREAM, probe)


class Window:
    """What an event or a message says of a window."""

    def __init__(self, fields):
        self.id = fields.get_uint64("window-id").value
        # In the time that windows are counted in, which is stream time unless `time-base` says otherwise.
        self.start = fields.get_uint64("start").value
        self.end = fields.get_uint64("end").value
        self.running_time = fields.get_uint64("start-running-time").value
        self.name = fields.get_string("name")
        # Of an end.
        self.reason = fields.get_string("reason")
        self.complete = fields.get_boolean("complete").value


def run(pipeline, on_message=None, started=None):
    """Plays to the end. Ctrl-C ends the stream in order, so that files are closed. Gives what the process returns."""
    loop = GLib.MainLoop()
    name = os.path.basename(sys.argv[0])
    failed = []

    def handle(_bus, message):
        if message.type == Gst.MessageType.EOS:
            loop.quit()
        elif message.type == Gst.MessageType.ERROR:
            error, details = message.parse_error()
            print(f"{name}: {error.message} ({details})", file=sys.stderr)
            failed.append(error)
            loop.quit()
        elif message.type == Gst.MessageType.WARNING:
            print(f"{name}: {message.parse_warning()[0].message}", file=sys.stderr)
        elif message.type == Gst.MessageType.ELEMENT and on_message:
            on_message(message)

    def end():
        pipeline.send_event(Gst.Event.new_eos())
        return GLib.SOURCE_CONTINUE

    bus = pipeline.get_bus()
    bus.add_signal_watch()
    bus.connect("message", handle)
    for number in (signal.SIGINT, signal.SIGTERM):
        GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, number, end)
    pipeline.set_state(Gst.State.PAUSED)
    if started:
        started()
    pipeline.set_state(Gst.State.PLAYING)
    loop.run()
    pipeline.set_state(Gst.State.NULL)
    return 1 if failed else 0
