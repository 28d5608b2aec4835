# Shared by the scripts of this repository: installs what is missing, builds, and points GStreamer at the built plugin.
# Sourced, by bash, after `set -euo pipefail`. Changes to the root of the repository.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

say() { printf '\n>> %s\n' "$*"; }
die() {
    printf '\n%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# Debian and Ubuntu names. RocksDB is C++, its bindings are generated with libclang.
build_packages=(g++ pkg-config clang libclang-dev libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev)
run_packages=(gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
    gstreamer1.0-plugins-ugly gstreamer1.0-libav)
# An RTSP server that stands for a camera, and Python for it and for an example.
test_packages=(python3-gi gir1.2-gstreamer-1.0 gir1.2-gst-rtsp-server-1.0)
meson_packages=(meson ninja-build)

# install_packages NAME...: installs those that are missing.
install_packages() {
    local name missing=()
    if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
        say "This is not Debian or Ubuntu: expecting what these packages hold to be installed: $*"
        return
    fi
    for name in "$@"; do
        [[ $(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || missing+=("$name")
    done
    ((${#missing[@]})) || return 0
    say_if_untested_system
    local as_root=(env DEBIAN_FRONTEND=noninteractive)
    if ((EUID != 0)); then
        command -v sudo >/dev/null || die "these packages are missing, and there is no sudo; as root run:
  apt-get update && apt-get install --no-install-recommends ${missing[*]}"
        as_root=(sudo "${as_root[@]}")
    fi
    say "Installing system packages: ${missing[*]}"
    "${as_root[@]}" apt-get update -q </dev/null ||
        die "apt-get update failed; look at the lines above, then at /etc/apt/sources.list and the network"
    "${as_root[@]}" apt-get install -q -y --no-install-recommends "${missing[@]}" </dev/null ||
        die "apt-get could not install ${missing[*]}; on Ubuntu check that the component 'universe' is enabled"
}

# nginx with its RTMP module, for tests: in `STREAMBUFFER_NGINX`, that of the system or one unpacked into the user's cache. It is
# not installed, for the package starts a web server on port 80. The tests start it with a configuration of their own.
get_nginx() {
    local module=usr/lib/nginx/modules/ngx_rtmp_module.so
    local cache=${XDG_CACHE_HOME:-$HOME/.cache}/gst-plugin-streambuffer/nginx
    [[ -z ${STREAMBUFFER_NGINX:-} ]] || return 0
    if [[ -x /usr/sbin/nginx && -e /$module ]]; then
        export STREAMBUFFER_NGINX=/
        return
    fi
    if [[ ! -e $cache/$module ]] || ! "$cache/usr/sbin/nginx" -v 2>/dev/null; then
        say "Unpacking nginx with its RTMP module into $cache"
        unpack_nginx "$cache" || true
    fi
    if [[ -e $cache/$module ]] && "$cache/usr/sbin/nginx" -v 2>/dev/null; then
        export STREAMBUFFER_NGINX=$cache
    elif [[ ${CI:-} == true ]]; then
        die "there is no nginx with its RTMP module to test with"
    else
        say "There is no nginx with its RTMP module: the test against it will not run"
    fi
}

# unpack_nginx DIRECTORY
unpack_nginx() {
    local directory=$1 downloads=$work/nginx name file
    command -v apt-get >/dev/null || return
    mkdir -p "$directory" "$downloads"
    # Which package holds the program depends on the release.
    for name in libnginx-mod-rtmp nginx nginx-core; do
        [[ $name == nginx-core && -x $directory/usr/sbin/nginx ]] && continue
        (cd "$downloads" && apt-get download -q "$name" </dev/null) || {
            # A fresh container has no lists.
            update_package_lists && (cd "$downloads" && apt-get download -q "$name" </dev/null)
        } || return
        for file in "$downloads/$name"_*.deb; do
            dpkg-deb -x "$file" "$directory" || return
        done
    done
}

# Brings the lists of packages up to date.
update_package_lists() {
    local as_root=()
    ((EUID == 0)) || as_root=(sudo)
    "${as_root[@]}" apt-get update -q </dev/null
}

say_if_untested_system() {
    local system
    system=$(. /etc/os-release 2>/dev/null && printf '%s %s' "${ID:-unknown}" "${VERSION_ID:-}") || system=unknown
    case $system in
        'debian 12' | 'ubuntu 22.04' | 'ubuntu 24.04') ;;
        *) say "This system is $system; the scripts are made for Debian 12 and Ubuntu 22.04 and 24.04. Trying anyway." ;;
    esac
}

# Makes cargo usable: the installed one if it is new enough, else one from rustup.
install_rust() {
    local wanted found
    wanted=$(sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' Cargo.toml)
    [[ -n $wanted ]] || die "no rust-version in Cargo.toml"
    local cargo_bin=${CARGO_HOME:-$HOME/.cargo}/bin
    found=$(rust_version)
    at_least "$wanted" "$found" && return
    # rustup's directory is on the path of login shells only, or behind an older cargo of the system.
    if [[ -x $cargo_bin/cargo ]]; then
        export PATH=$cargo_bin:$PATH
        found=$(rust_version)
        at_least "$wanted" "$found" && return
    fi
    if ! command -v rustup >/dev/null; then
        install_packages curl ca-certificates
        say "Installing a Rust toolchain into ${CARGO_HOME:-$HOME/.cargo} with rustup (found: ${found:-none}, needed: $wanted)"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
            RUSTUP_INIT_SKIP_PATH_CHECK=yes sh -s -- -y --no-modify-path --profile minimal -c rustfmt -c clippy ||
            die "rustup could not be installed; install Rust $wanted or newer by hand and try again"
        export PATH=$cargo_bin:$PATH
    else
        say "Installing the current stable Rust toolchain with rustup (found: ${found:-none}, needed: $wanted)"
        rustup toolchain install stable --profile minimal -c rustfmt -c clippy ||
            die "rustup could not install a toolchain; run 'rustup toolchain install stable' by hand and try again"
        export RUSTUP_TOOLCHAIN=stable
    fi
    found=$(rust_version)
    at_least "$wanted" "$found" || die "Rust is ${found:-missing} and $wanted is needed; run 'rustup update stable'"
}

# Version of the rustc that cargo uses here, such as 1.92.0; nothing when there is none.
rust_version() {
    command -v cargo >/dev/null || return 0
    rustc --version 2>/dev/null | sed -n 's/^rustc \([0-9][0-9.]*\).*/\1/p'
}

# at_least WANTED FOUND
at_least() { [[ -n $2 ]] && printf '%s\n%s\n' "$1" "$2" | sort -V -C; }

# rustfmt and clippy, for checks.
install_rust_checks() {
    if cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1; then
        return
    fi
    say "Installing rustfmt and clippy"
    rustup component add rustfmt clippy || die "rustfmt or clippy is missing; install both and try again"
}

# Where cargo builds. Continuous integration starts from a fresh clone each time; it keeps the compiled RocksDB outside of it.
choose_target() {
    if [[ ${CI:-} == true && -z ${CARGO_TARGET_DIR:-} ]]; then
        export CARGO_TARGET_DIR=${XDG_CACHE_HOME:-$HOME/.cache}/gst-plugin-streambuffer/target
    fi
    target=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
    [[ -n $target ]] || die "cargo does not tell its target directory; try 'cargo metadata'"
}

# build CARGO-OPTION...: always with the release profile and never with RUSTFLAGS of our own, so that RocksDB is compiled once
# for programs, tests, lints and documentation.
build() {
    if ! compgen -G "$target/release/build/librocksdb-sys-*/out/librocksdb.a" >/dev/null; then
        say "Building; the first time this compiles RocksDB, which takes about 15 minutes on two cores"
    else
        say "Building"
    fi
    cargo build --release "$@" </dev/null || die "the build failed; the first error above says why"
}

# A directory that is removed at the end, in `work`; with what `cleanup` of the caller does before.
work_directory() {
    work=$(mktemp -d "${TMPDIR:-/tmp}/streambuffer.XXXXXX")
    trap 'status=$?; if declare -F cleanup >/dev/null; then cleanup || true; fi; rm -rf "$work"; exit $status' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# use_plugin [DIRECTORY]: lets GStreamer see the built plugin, with a plugin registry of our own: the user's stays as it is.
use_plugin() {
    local directory=${1:-$target/release}
    export GST_PLUGIN_PATH=$directory${GST_PLUGIN_PATH:+:$GST_PLUGIN_PATH}
    export GST_REGISTRY=$work/registry.bin
    gst-inspect-1.0 streambuffer >"$work/inspect" 2>&1 || {
        cat "$work/inspect" >&2
        die "GStreamer does not load $directory/libgststreambuffer.so; look at the lines above"
    }
}

# Names of the elements that the plugin offers.
elements() { gst-inspect-1.0 --print-plugin-auto-install-info streambuffer | sed -n 's/^element-//p'; }
