#!/usr/bin/env bash
# Installs the Debian packages that Veil needs and that are missing; with everything there it takes no time.
#
# usage: scripts/system-packages.sh GROUP...      groups: run, test, interop, bench
set -euo pipefail

# Build and run. python3-dev and python3-venv count as there when python3 brings its own headers and venv.
RUN="gcc libc6-dev libssl-dev libusrsctp-dev"
if [ "$(uname -m)" = x86_64 ]; then RUN="$RUN libipsec-mb-dev"; fi
# Browsers are real ones, never simulated; iproute2 and nftables make the network behind NAT, libnss3-tools a browser trust
# the test CA; coturn is the TURN server that people put beside a relay.
TEST="chromium firefox-esr iproute2 nftables libnss3-tools procps coturn"
# Sanitizer libraries come with gcc; valgrind counts instructions.
BENCH="valgrind"

has_python_headers() {
    python3 -c 'import os, sysconfig; raise SystemExit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))'
}

is_installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

wanted=""
for group in "$@"; do
    case $group in
        run)
            wanted="$wanted $RUN"
            command -v python3 >/dev/null || wanted="$wanted python3"
            has_python_headers 2>/dev/null || wanted="$wanted python3-dev"
            python3 -c 'import ensurepip, venv' 2>/dev/null || wanted="$wanted python3-venv"
            ;;
        test) wanted="$wanted $TEST" ;;
        # npm fetches the livekit-client bundles. Debian's brings 300 packages, so never where another is on the path.
        interop) command -v npm >/dev/null || wanted="$wanted npm" ;;
        bench) wanted="$wanted $BENCH" ;;
        *)
            echo "unknown group $group; groups are run, test, interop, bench" >&2
            exit 2
            ;;
    esac
done

if ! command -v apt-get >/dev/null; then
    echo "This is not Debian or Ubuntu. Install the equivalents of these packages yourself:$wanted" >&2
    exit 0
fi

missing=""
for package in $wanted; do
    is_installed "$package" || missing="$missing $package"
done
if [ -z "$missing" ]; then
    exit 0
fi

echo "Installing Debian packages:$missing"
as_root=""
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "Not root and no sudo. Run as root: apt-get update && apt-get install --no-install-recommends$missing" >&2
        exit 1
    fi
    as_root="sudo"
fi
# A fresh machine has no package lists, an old one may have lists whose files are gone.
$as_root apt-get update -qq
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
