#!/usr/bin/env bash
# Make the peers' environments, .venv-bench and .venv-bench-notebook: benchmarks/peers/setup.sh PYTHON
set -euo pipefail
cd "$(dirname "$0")"
python=$1
for name in "" -notebook; do
    venv=../../.venv-bench$name
    [ -d "$venv" ] || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --requirement "requirements$name.txt"
done
