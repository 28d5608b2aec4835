#!/usr/bin/env bash
# A camera to an RTMP server. While the server is away the stream goes to disk, and from there when it is back.
# Usage: rtsp-to-rtmp.sh [--sound] rtsp://CAMERA/PATH rtmp://HOST/APPLICATION/KEY [DIRECTORY]
#
#   --sound      the camera's sound too; only for a camera that has some
#   DIRECTORY    the backlog; without it one in ~/.local/state/streambuffer, or systemd's $STATE_DIRECTORY
#
# Ends with Ctrl-C.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
arguments 2 "$@"
expect "${words[1]}" 'rtmp://* rtmps://*' "the address of the server"

keep_running gst-launch-1.0 -e \
    rtspsrc name=camera "location=${words[0]}" protocols=tcp \
    camera. ! application/x-rtp,media=video ! rtph264depay ! h264parse ! video/x-h264,alignment=au ! buffer.video \
    "${sound[@]}" \
    diskbuffersink name=buffer "location=$spool" \
    "sink-description=flvmux streamable=true ! rtmp2sink location=${words[1]}"
