#!/usr/bin/env bash
# Train CMSA on VQA-RAD. Makes the environment it needs, finds data; arguments go through to train.py (--help lists them).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$("$root/.environment.sh")
exec "$python" "$root/train.py" "$@"
