#!/usr/bin/env bash
# Measures which lines the tests cover, in Python and C++. Prints a table for each, and writes HTML to folder $1.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/$1
scripts/copy_tree.sh "$out/tree"
cd "$out/tree"
export PYTHONPATH=$PWD COVERAGE_FILE=$out/python.data
CCACHE_DISABLE=1 FORCE_CUDA=0 CFLAGS=--coverage LDFLAGS=--coverage python setup.py build_ext --inplace
find build -name '*.gcda' -delete
coverage run -m pytest -m "not slow" -p no:cacheprovider ${PYTEST_ARGUMENTS:-} || failed=1
coverage combine -q "$out"
coverage report --skip-covered --show-missing
coverage html -q -d "$out/python"
mkdir -p "$out/cpp"
gcovr --root . --filter csrc/ --gcov-ignore-errors=no_working_dir_found --exclude-throw-branches --merge-lines \
  --txt - --html-details "$out/cpp/index.html" build
exit "${failed:-0}"
