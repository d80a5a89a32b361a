#!/usr/bin/env bash
# Copies the sources to folder $1, to be built there with other flags than here. Of what is hidden, .ci goes along.
set -euo pipefail
to=$(realpath -m "$1")
cd "$(dirname "$0")/.."
mkdir -p "$to"
tar -c --exclude=./build --exclude='./.[!c]*' --exclude='*.so' --exclude=_build.py --exclude=__pycache__ . | tar -x -C "$to"
