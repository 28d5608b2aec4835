#!/usr/bin/env bash
# A camera to an SRT receiver. While the receiver is away the stream goes to disk, and from there when it is back.
# Usage: rtsp-to-srt.sh rtsp://CAMERA/PATH srt://HOST:PORT [DIRECTORY]
#
#   DIRECTORY    the backlog; without it one in ~/.local/state/streambuffer, or systemd's $STATE_DIRECTORY
#
# Pictures only: given a camera's sound too, mpegtsmux of GStreamer 1.22 hardly sends anything else to a srtsink that does not
# wait for the clock. rtsp-to-rtmp.sh has sound.
#
# Ends with Ctrl-C. A receiver to try it with: gst-launch-1.0 srtsrc uri="srt://:7001?mode=listener" ! filesink location=got.ts
# H.265: write rtph265depay and h265parse.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
arguments 2 "$@"
((${#sound[@]} == 0)) || fail "there is no --sound here; see --help"
expect "${words[1]}" 'srt://*' "the address of the receiver"

# Where srtsink reconnects on its own (not in GStreamer 1.20) it loses what it is given meanwhile.
alone=$(gst-inspect-1.0 srtsink | grep -o auto-reconnect | head -n 1 || true)

keep_running gst-launch-1.0 -e \
    rtspsrc name=camera "location=${words[0]}" protocols=tcp \
    camera. ! application/x-rtp,media=video ! rtph264depay ! h264parse config-interval=-1 ! video/x-h264,alignment=au ! buffer.video \
    diskbuffersink name=buffer "location=$spool" "sink-description=mpegtsmux alignment=7 ! srtsink ${alone:+$alone=false} uri=${words[1]}"
