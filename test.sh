#!/usr/bin/env bash
# Evaluate the newest run, or --input DIR [--epoch N].
# Arguments go through to test.py; --help lists them.
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)
python=$("$root/environment.sh")
exec "$python" "$root/test.py" "$@"
