#!/usr/bin/env bash
# Any number of cameras to DeepStream's nvstreammux, so that a batch holds one frame of each camera, of the same moment.
# Usage: cameras-to-nvstreammux.sh [--print | --try] rtsp://CAMERA/PATH...
#
#   --print      shows the gst-launch-1.0 line instead of running it
#   --try        decodes in software, and takes `funnel` for the muxer: checks cameras and sets on a machine without DeepStream
#   $WIDTH, $HEIGHT     of the batch (1280, 720)
#   $REST        what the batches go to, as gst-launch-1.0 takes it ("fakesink sync=false"), such as
#                "nvinfer config-file-path=detector.txt ! nvmultistreamtiler ! nvdsosd ! nveglglessink"
#   $VERBOSE            if set, -v for gst-launch-1.0
#
# NOT RUN where it was written, for want of DeepStream and its hardware: nvv4l2decoder, nvstreammux and what follows. Their names and
# properties are those of the published DeepStream documentation (pads sink_%u; batch-size, width, height, live-source,
# batched-push-timeout in microseconds), for the nvstreammux that is the default there, not for that of USE_NEW_NVSTREAMMUX=yes,
# which has no width, height and batched-push-timeout. What is tested is --try, with everything before the muxer.
#
# nvstreammux takes what is there when a batch is due, and knows nothing of moments: with snap=true frames of a set have one PTS and
# come one right after the other, which is how it gets them into one batch. Frames stay in the decoder's memory (NVMM) all the way;
# they are taken from its pool, so no more of them are held than max-held-buffers says. A camera that is away is left out after
# stream-timeout; its batches are smaller then, and wait for batched-push-timeout.
#
# Ends with Ctrl-C; begins again when a camera goes away.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
show() { printf '%q ' "$@" && echo; }
run=keep_running decoder=nvv4l2decoder
case ${1:-} in
    -h | --help) help ;;
    --print) run=show && shift ;;
    --try) decoder=avdec_h264 && shift ;;
    -*) fail "there is no option $1; try --help" ;;
esac
(($# > 0)) || fail "no cameras are given; try --help"
for address; do expect "$address" 'rtsp://* rtsps://*' "the address of a camera"; done
[[ $run != keep_running ]] || need framesync

muxer=(nvstreammux name=muxer "batch-size=$#" "width=${WIDTH:-1280}" "height=${HEIGHT:-720}" live-source=true
    batched-push-timeout=40000)
[[ $decoder == nvv4l2decoder ]] || muxer=(funnel name=muxer)
read -ra rest <<<"${REST:-fakesink sync=false}"

cameras=() number=0
for address; do
    cameras+=(rtspsrc "location=$address" protocols=tcp ! application/x-rtp,media=video ! rtph264depay ! h264parse
        ! "$decoder" ! "sync.sink_$number" "sync.src_$number" ! queue max-size-buffers=2 ! "muxer.sink_$number")
    number=$((number + 1))
done
$run gst-launch-1.0 -e ${VERBOSE:+-v} "${muxer[@]}" ! "${rest[@]}" \
    framesync name=sync mode=align snap=true latency=200000000 max-held-buffers=4 "${cameras[@]}"
