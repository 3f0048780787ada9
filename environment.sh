#!/usr/bin/env bash
# Make .venv from requirements.txt where it is not current, and print its Python.
# train.sh and the other scripts call it first; tests/run.sh names requirements-dev.txt.
# PYTHON names another interpreter. A .venv of your own is used as it is once it has the packages.
# Where this folder can't be written, PYTHON itself is used once it has them.
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)
list=${1:-requirements.txt}
venv="$root/.venv"
stamp="$venv/.$list"
if ! cmp -s "$root/$list" "$stamp" || ! "$venv/bin/python" -c "" 2>/dev/null ||
    ! cmp -s "$root/requirements.txt" "$venv/.requirements.txt"; then
    base=${PYTHON:-python3}
    if [ ! -w "$root" ] && [ ! -w "$venv" ]; then
        for python in "$venv/bin/python" "$base"; do
            # without an index pip installs nothing: it succeeds where nothing is missing
            if "$python" -m pip install -q --no-index -r "$root/$list" >/dev/null 2>&1; then
                echo "$python"
                exit
            fi
        done
        echo "error: $root can't be written: neither .venv nor saved_models/ and results/ can be" \
            "made there. Copy the folder to a place that can; or make an environment elsewhere" \
            "(python3 -m venv ENV; ENV/bin/pip install -r '$root/$list') and call the script" \
            "with PYTHON=ENV/bin/python, and with --output for what a run writes" >&2
        exit 2
    fi
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
    # -q shows no bars, which would fill a log file
    pip=("$venv/bin/python" -m pip install --disable-pip-version-check -q)
    if ! "${pip[@]}" -r "$root/$list" >&2; then
        echo "error: pip could not install $list into $venv: see its message above," \
            "mend that and run this again" >&2
        exit 2
    fi
    # a .venv that can't be written has no stamp, and is checked each time
    cp "$root/requirements.txt" "$venv/.requirements.txt" 2>/dev/null || true
    cp "$root/$list" "$stamp" 2>/dev/null || true
fi
echo "$venv/bin/python"
