#!/usr/bin/env bash
# Make .venv from requirements.txt where it is not current, and print its Python. What train.sh and test.sh call first.
# Environment: PYTHON names another interpreter; a .venv of your own making is used as it is once it holds the packages.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv="$root/.venv"
stamp="$venv/.requirements.txt"
if ! cmp -s "$root/requirements.txt" "$stamp" || ! "$venv/bin/python" -c "" 2>/dev/null; then
    base=${PYTHON:-python3}
    if ! command -v "$base" >/dev/null || ! "$base" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
        echo "error: Python 3.10 or newer is needed and '$base' is not: install it, or name one with PYTHON=/path/to/python" >&2
        exit 2
    fi
    echo "making $venv from requirements.txt (once; a few minutes and up to 6 GB, most of it PyTorch)" >&2
    if ! "$base" -m venv "$venv" >&2; then
        echo "error: '$base -m venv' failed; on Debian and Ubuntu: apt install python3-venv" >&2
        exit 2
    fi
    if ! "$venv/bin/python" -m pip install --disable-pip-version-check -q -r "$root/requirements.txt" >&2; then
        echo "error: pip could not install requirements.txt into $venv: see its message above; run this again when it is mended" >&2
        exit 2
    fi
    cp "$root/requirements.txt" "$stamp"
fi
echo "$venv/bin/python"
