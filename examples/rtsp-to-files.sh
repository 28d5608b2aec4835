#!/usr/bin/env bash
# A camera to files of a minute each. While the files cannot be written (a share that is away, a full disk) the stream waits in
# the backlog, which therefore belongs on another disk.
# Usage: rtsp-to-files.sh [--sound] rtsp://CAMERA/PATH FILES-DIRECTORY [DIRECTORY]
#
#   --sound      the camera's sound too; only for a camera that has some
#   DIRECTORY    the backlog; without it one in ~/.local/state/streambuffer, or systemd's $STATE_DIRECTORY
#
# Ends with Ctrl-C. The names hold the time of each start, so that no start overwrites what was there. Matroska can be played up
# to where the power went; an MP4 file that was not closed cannot.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
arguments 2 "$@"
mkdir -p "${words[1]}" || fail "cannot make the directory ${words[1]}"
[[ ${words[1]} != *[%\"\ ]* ]] || fail "the directory of the files must not hold blanks, quotation marks or %"

record() {
    local files=${words[1]}/$(date -u +%Y%m%dT%H%M%SZ)-%05d.mkv
    gst-launch-1.0 -e \
        rtspsrc name=camera "location=${words[0]}" protocols=tcp \
        camera. ! application/x-rtp,media=video ! rtph264depay ! h264parse ! video/x-h264,alignment=au ! buffer.video \
        "${sound[@]}" \
        diskbuffersink name=buffer "location=$spool" \
        "sink-description=splitmuxsink muxer=matroskamux max-size-time=60000000000 location=$files"
}
keep_running record
