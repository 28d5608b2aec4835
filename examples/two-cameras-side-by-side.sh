#!/usr/bin/env bash
# Two cameras side by side: what is shown of both is of the same moment, however their clocks, networks and decoders differ.
# Usage: two-cameras-side-by-side.sh rtsp://CAMERA/PATH rtsp://CAMERA/PATH [ELEMENTS]
#
#   ELEMENTS    where the picture goes, as gst-launch-1.0 takes it ("videoconvert ! autovideosink")
#
# framesync puts both streams on one timeline and gives their frames out in sets, one of each camera, with one timestamp (snap),
# so that compositor takes them for the same output picture. A set waits for the later camera for as long as `latency` says; then
# it goes out with what is there, and a camera that is away for stream-timeout is not waited for any more. What else delays one
# camera all the time, such as its exposure and encoder, no timestamp tells: sink_1::offset=-40000000 on framesync moves the second
# camera 40 ms earlier.
#
# Which delays are seen is told by `gst-launch-1.0 -m` (framesync-set-incomplete, framesync-drift). Ends with Ctrl-C; begins again
# when a camera goes away.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
case ${1:-} in
    -h | --help) help ;;
esac
(($# == 2 || $# == 3)) || fail "wrong number of arguments; try --help"
expect "$1" 'rtsp://* rtsps://*' "the address of the first camera"
expect "$2" 'rtsp://* rtsps://*' "the address of the second camera"
read -ra sink <<<"${3:-videoconvert ! autovideosink}"
need framesync

# camera NUMBER ADDRESS: its elements, in `camera`. Each branch behind framesync needs a queue: compositor takes one after the other.
camera() {
    camera=(rtspsrc "location=$2" protocols=tcp ! application/x-rtp,media=video ! decodebin ! "sync.sink_$1"
        "sync.src_$1" ! queue ! videoconvert ! videoscale ! video/x-raw,width=640,height=360,pixel-aspect-ratio=1/1
        ! "both.sink_$1")
}
camera 0 "$1"
left=("${camera[@]}")
camera 1 "$2"
keep_running gst-launch-1.0 -e \
    framesync name=sync mode=align snap=true latency=300000000 max-interval=100000000 \
    "${left[@]}" "${camera[@]}" \
    compositor name=both sink_1::xpos=640 ! "${sink[@]}"
