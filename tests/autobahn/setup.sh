#!/bin/sh
# Installs Autobahn Testsuite (PyPI, Python-2 source) into a Python 3 venv and
# converts the parts that the WebSocket fuzzer needs, in place, in that venv.
#   usage: setup.sh [PYTHON]          (PYTHON: 3.8 .. 3.12, must have lib2to3)
# Environment: AUTOBAHN_ENV or PEERS_ENV = where the venv goes (default: peers in cargo's target folder)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
py=${1:-${PYTHON:-python3}}
env=${AUTOBAHN_ENV:-${PEERS_ENV:-${CARGO_TARGET_DIR:-$here/../../target}/peers}}
mkdir -p "$env"
env=$(cd "$env" && pwd)
venv=$env/autobahn
"$py" -W ignore -c 'import lib2to3' || { echo "need a python with lib2to3 (<= 3.12)" >&2; exit 1; }
[ -x "$venv/bin/python" ] || "$py" -m venv "$venv"
# autobahn 0.10.9 is the version that the test suite itself pins.
"$venv/bin/pip" install -q --disable-pip-version-check \
    'setuptools<80' 'autobahn==0.10.9' 'twisted>=22' jinja2 six
# C masking / UTF-8 validation: only speed, never needed.
"$venv/bin/pip" install -q --disable-pip-version-check --only-binary :all: 'wsaccel>=0.6.6' \
    || echo "note: wsaccel not available, cases 9.* will be slow" >&2
"$venv/bin/pip" install -q --disable-pip-version-check --no-deps --force-reinstall \
    'autobahntestsuite==25.10.1'
"$venv/bin/python" -W ignore "$here/convert.py"
"$venv/bin/python" -W ignore "$here/run.py" --selftest
echo "ok: $venv"
