#!/usr/bin/env bash
# A camera to two consumers at once, an SRT receiver and files of a minute each. One may be slow or away, the other does not
# notice.
# Usage: rtsp-to-two.sh rtsp://CAMERA/PATH srt://HOST:PORT FILES-DIRECTORY [DIRECTORY]
#
#   DIRECTORY    the recording; without it one in ~/.local/state/streambuffer, or systemd's $STATE_DIRECTORY
#
# The stream is written to disk once, by a diskbuffersink that only records; each consumer reads it with a diskbuffersrc of its
# own, and the store remembers under its name how far it is. That spares the flash, and consumers can come, go and fail on
# their own, also in other containers. (For two that are always there, `tee` and two diskbuffersinks, each with its own
# sink-description and location, are one process, and write everything twice.) What both have is kept for an hour.
#
# The receiver is behind a second diskbuffersink, which restarts the connection and sends again what it had accepted when it
# broke; with persist=spill that one touches the disk only while the receiver is away.
#
# Ends with Ctrl-C.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
arguments 3 "$@"
((${#sound[@]} == 0)) || fail "there is no --sound here; see --help"
expect "${words[1]}" 'srt://*' "the address of the receiver"
mkdir -p "${words[2]}" || fail "cannot make the directory ${words[2]}"
[[ ${words[2]} != *[%\"\ ]* ]] || fail "the directory of the files must not hold blanks, quotation marks or %"

# Where srtsink reconnects on its own (not in GStreamer 1.20) it loses what it is given meanwhile.
alone=$(gst-inspect-1.0 srtsink | grep -o auto-reconnect | head -n 1 || true)

record() {
    gst-launch-1.0 -e \
        rtspsrc "location=${words[0]}" protocols=tcp \
        ! application/x-rtp,media=video ! rtph264depay ! h264parse config-interval=-1 ! video/x-h264,alignment=au \
        ! diskbuffersink "location=$spool/recording" retention-time=3600000000000
}
send() {
    gst-launch-1.0 -e diskbuffersrc "location=$spool/recording" consumer=srt follow=true \
        ! h264parse ! diskbuffersink "location=$spool/srt" persist=spill \
        "sink-description=mpegtsmux alignment=7 ! srtsink ${alone:+$alone=false} uri=${words[1]}"
}
store() {
    gst-launch-1.0 -e diskbuffersrc "location=$spool/recording" consumer=files follow=true \
        ! h264parse ! splitmuxsink muxer=matroskamux max-size-time=60000000000 \
        "location=${words[2]}/$(date -u +%Y%m%dT%H%M%SZ)-%05d.mkv"
}
all_running record send store
