# What the scripts in this directory share. Sourced, by bash, after `set -euo pipefail`.

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 2
}

# arguments COUNT ARGUMENT...: sets `sound` (elements for --sound), `words` (what is no option; COUNT of them, or one more, the
# directory of the backlog) and `spool`.
arguments() {
    local count=$1
    shift
    sound=() words=()
    while (($#)); do
        case $1 in
            -h | --help) help ;;
            # Whatever the camera's codec is: as AAC, which every muxer takes.
            --sound)
                sound=(camera. ! application/x-rtp,media=audio ! decodebin ! audioconvert ! audioresample
                    ! avenc_aac ! aacparse ! buffer.audio_0)
                ;;
            -*) fail "there is no option $1; try --help" ;;
            *) words+=("$1") ;;
        esac
        shift
    done
    ((${#words[@]} == count || ${#words[@]} == count + 1)) || fail "wrong number of arguments; try --help"
    expect "${words[0]}" 'rtsp://* rtsps://*' "the address of the camera"
    # Each camera and receiver need a backlog of their own: nobody must get what was meant for somebody else.
    spool=${words[count]:-${STATE_DIRECTORY:-${XDG_STATE_HOME:-$HOME/.local/state}}/streambuffer/$(
        printf '%s\n' "$(basename "$0")" "${words[@]:0:count}" | sha256sum | cut -c 1-16
    )}
    mkdir -p "$spool" || fail "cannot make the directory $spool"
    need diskbuffersink
}

# The comment at the head of the script.
help() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" && exit; }

# need ELEMENT
need() {
    command -v gst-launch-1.0 >/dev/null || fail "gst-launch-1.0 is missing; install gstreamer1.0-tools"
    gst-inspect-1.0 "$1" >/dev/null 2>&1 ||
        fail "GStreamer does not find $1; set GST_PLUGIN_PATH to the directory of libgststreambuffer.so"
}

# expect VALUE PATTERNS WHAT
expect() {
    local pattern
    for pattern in $2; do
        # shellcheck disable=SC2053
        [[ $1 != $pattern ]] || return 0
    done
    fail "$3 has to be ${2// / or }, not '$1'"
}

# keep_running COMMAND...: starts it again when it ends, as it does when the camera goes away. Ctrl-C or SIGTERM asks it to end in
# order; what a receiver has not got by then stays on disk for the next start.
keep_running() {
    local child=
    ending=
    # A process group of its own: Ctrl-C comes here alone, and is passed on once.
    set -m
    trap 'ending=yes; [[ -z $child ]] || kill -INT -- "-$child" 2>/dev/null || true' INT TERM
    while [[ -z $ending ]]; do
        "$@" </dev/null &
        child=$!
        wait_for "$child"
        [[ -n $ending ]] && break
        sleep 2 &
        child=$!
        wait_for "$child"
    done
}

# all_running FUNCTION...: keeps each of them running, at once.
all_running() {
    local each children=()
    set -m
    trap 'kill -TERM "${children[@]}" 2>/dev/null || true' INT TERM
    for each; do
        keep_running "$each" &
        children+=($!)
    done
    for each in "${children[@]}"; do wait_for "$each"; done
}

# wait_for PID: a signal that is caught ends `wait`, not the process.
wait_for() { while kill -0 "$1" 2>/dev/null; do wait "$1" || true; done; }
