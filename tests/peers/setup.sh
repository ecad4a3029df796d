#!/bin/sh
# Installs what the Node and Python peers of this folder and of tests/apps need, pinned, into a folder that git ignores.
#   usage: setup.sh            PEERS_ENV = where to (default: peers in cargo's target folder)
# Chromium is not installed here: `apt-get install chromium`, or name one in CHROMIUM.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
env=${PEERS_ENV:-${CARGO_TARGET_DIR:-$here/../../target}/peers}
mkdir -p "$env/node"
env=$(cd "$env" && pwd)
cp "$here/package.json" "$here/package-lock.json" "$env/node/"
(cd "$env/node" && npm ci --no-audit --no-fund --loglevel=error)
[ -x "$env/python/bin/python" ] || "${PYTHON:-python3}" -m venv "$env/python"
"$env/python/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt"
echo "ok: $env"
