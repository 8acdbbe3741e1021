#!/usr/bin/env bash
# Fetches the browser bundles of livekit-client that the interop tests use into build/clients/VERSION/.
# What is there already is not fetched again; versions are pinned so that a run can be repeated.
set -euo pipefail

# The oldest of the 2.15 line (old signalling only), the line that first offered with its join, and the newest when this was pinned.
VERSIONS="${VEIL_LIVEKIT_CLIENTS:-2.15.8 2.18.10 2.23.0}"

cd "$(dirname "$0")/.."
for version in $VERSIONS; do
    target="build/clients/$version"
    [ -s "$target/livekit-client.umd.js" ] && continue
    echo "Fetching livekit-client $version"
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    (cd "$scratch" && npm pack --silent "livekit-client@$version" >/dev/null && tar -xzf "livekit-client-$version.tgz")
    mkdir -p "$target"
    cp "$scratch"/package/dist/livekit-client.umd.js "$scratch"/package/dist/livekit-client.e2ee.worker.js "$target"/
    cp "$scratch"/package/LICENSE "$target"/ 2>/dev/null || true
    rm -rf "$scratch"
done
