#!/usr/bin/env bash
# Run the tests. Makes the environment that they need; arguments go through to pytest.
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd)
python=$("$root/environment.sh" requirements-dev.txt)
cd -- "$root"
exec "$python" -m pytest -ra "$@"
