#!/usr/bin/env bash
# Make .venv from requirements.txt where it is not current, and print its Python.
# train.sh and the other scripts call it first; tests/run.sh names requirements-dev.txt.
# PYTHON names another interpreter. A .venv of your own is used as it is once it has the packages.
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
list=${1:-requirements.txt}
venv="$root/.venv"
stamp="$venv/.$list"
if ! cmp -s "$root/$list" "$stamp" || ! "$venv/bin/python" -c "" 2>/dev/null ||
    ! cmp -s "$root/requirements.txt" "$venv/.requirements.txt"; then
    base=${PYTHON:-python3}
    if ! command -v "$base" >/dev/null ||
        ! "$base" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
        echo "error: '$base' is not Python 3.10 or newer: install it," \
            "or name one with PYTHON=/path/to/python" >&2
        exit 2
    fi
    echo "making $venv from $list (once; a few minutes and up to 6 GB, most of it PyTorch)" >&2
    if ! "$venv/bin/python" -c "" 2>/dev/null && ! "$base" -m venv "$venv" >&2; then
        echo "error: '$base -m venv' failed; on Debian and Ubuntu: apt install python3-venv" >&2
        exit 2
    fi
    pip=("$venv/bin/python" -m pip install --disable-pip-version-check -q)
    if ! "${pip[@]}" -r "$root/$list" >&2; then
        echo "error: pip could not install $list into $venv: see its message above," \
            "mend that and run this again" >&2
        exit 2
    fi
    cp "$root/requirements.txt" "$venv/.requirements.txt"
    cp "$root/$list" "$stamp"
fi
echo "$venv/bin/python"
