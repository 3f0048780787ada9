#!/usr/bin/env bash
# Pre-train the three encoders and the image-type classifier. Makes the environment it needs; arguments go through to pretrain.py.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$("$root/.environment.sh")
# glibc: keep freed memory for the next step's tensors, as in train.sh
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-4294967296} MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-17179869184}
exec "$python" "$root/pretrain.py" "$@"
