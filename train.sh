#!/usr/bin/env bash
# Train CMSA on VQA-RAD. Makes the environment it needs, finds data; arguments go through to train.py (--help lists them).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$("$root/.environment.sh")
# glibc: keep freed memory for the next step's tensors instead of giving it back to the system (a tenth of the time on a CPU)
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-4294967296} MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-17179869184}
exec "$python" "$root/train.py" "$@"
