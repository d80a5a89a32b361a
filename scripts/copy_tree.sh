#!/usr/bin/env bash
# Copies the sources to folder $1, for a build with other flags. Leaves out build outputs, and hidden files except .ci.
set -euo pipefail
to=$(realpath -m "$1")
cd "$(dirname "$0")/.."
mkdir -p "$to"
tar -c --exclude=./build --exclude='./.[!c]*' --exclude='*.so' --exclude=_build.py --exclude=__pycache__ . | tar -x -C "$to"
