#!/usr/bin/env bash
# Makes the virtual environments of older Python SDKs that the interop tests use: build/venvs/livekit-VERSION.
# The newest SDK is the one of the test environment itself.
set -euo pipefail

VERSIONS="${VEIL_LIVEKIT_PYTHONS:-1.0.25 1.1.21}"

cd "$(dirname "$0")/.."
for version in $VERSIONS; do
    venv="build/venvs/livekit-$version"
    [ -e "$venv/.done" ] && continue
    echo "Installing the Python SDK livekit $version"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "livekit==$version"
    touch "$venv/.done"
done
