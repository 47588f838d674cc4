#!/usr/bin/env bash
# Make the golden numbers anew by Keras itself and compare: tests/keras.sh PYTHON SHARED
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 shared=$2 venv=.venv-keras
[ -d "$venv" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[reference,test]'
photos=$(mktemp -d)
trap 'rm -rf "$photos"' EXIT
tar -xf "$shared/data/fruits360-test.tar" -C "$photos"
PYTHONPATH=tests "$venv/bin/python" tests/data/make_golden.py --check "$shared"/weights/*.h5 "$photos/Test"
