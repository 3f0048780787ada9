#!/usr/bin/env bash
# Run the tests. Makes the environment it needs; arguments go through to pytest.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$("$root/.environment.sh")
cd "$root"
exec "$python" -m pytest -ra "$@"
