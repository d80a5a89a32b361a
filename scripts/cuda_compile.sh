#!/usr/bin/env bash
# Compiles every CUDA source for each architecture with warnings as errors, and the tensor layer as a CUDA build sees it.
# A torch without CUDA lends its headers. Needs nvcc, no GPU; says so and succeeds where there is no nvcc.
set -euo pipefail
cd "$(dirname "$0")/.."
nvcc=${CUDA_HOME:+$CUDA_HOME/bin/}nvcc
if ! command -v "$nvcc" >/dev/null; then
  echo "cuda-compile: no nvcc on this machine: CUDA sources were NOT compiled"
  exit 0
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for source in $(grep '\.cu$' csrc/sources.txt || true); do
  for sm in ${ARCHITECTURES:-80 90 100}; do
    echo "nvcc sm_$sm csrc/$source"
    "$nvcc" -std=c++17 -O3 -Icsrc -DLEAKY_WITH_CUDA -Werror=all-warnings -Xcompiler=-Wall,-Wextra,-Werror \
      -gencode "arch=compute_$sm,code=sm_$sm" -c "csrc/$source" -o "$out/kernel.o"
  done
done
include=$("${PYTHON:-python3}" -c 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "include"))')
cuda_include=$("$nvcc" --dryrun -x cu /dev/null 2>&1 | sed -n 's/^#\$ INCLUDES="-I\([^"]*\)".*/\1/p')
echo "c++ csrc/ops.cpp as a CUDA build sees it"
"${CXX:-c++}" -std=c++20 -fsyntax-only -Wall -Wextra -Werror -DLEAKY_WITH_CUDA -DC10_CUDA_NO_CMAKE_CONFIGURE_FILE \
  -Icsrc -isystem "$include" -isystem "$include/torch/csrc/api/include" -isystem "$cuda_include" csrc/ops.cpp
