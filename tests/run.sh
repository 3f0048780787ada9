#!/usr/bin/env bash
# Run the tests. Makes the environment that they need; arguments go through to pytest.
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd)
python=$("$root/environment.sh" requirements-dev.txt)
cd -- "$root"
# a process a core, at most four for memory's sake; a file's tests stay together for their fixtures
export OMP_NUM_THREADS=1
exec "$python" -m pytest -ra -n auto --maxprocesses 4 --dist loadfile "$@"
