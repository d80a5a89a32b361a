#!/usr/bin/env bash
# Compiles every CUDA source for each architecture, and the tensor layer as in a CUDA build, with warnings as errors.
# The headers of a torch without CUDA are enough. Requires nvcc, which `make cuda-compile` installs if it is missing, but
# no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
nvcc=${CUDA_HOME:+$CUDA_HOME/bin/}nvcc
command -v "$nvcc" >/dev/null || { echo "cuda-compile: no nvcc; \`make cuda-compile\` installs one"; exit 1; }
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
architectures=()
for sm in ${ARCHITECTURES:-$(<csrc/cuda/architectures.txt)}; do architectures+=(-gencode "arch=compute_$sm,code=sm_$sm"); done
for source in $(grep '\.cu$' csrc/sources.txt); do
  echo "nvcc csrc/$source"
  "$nvcc" -std=c++17 -O3 -Icsrc -DLEAKY_WITH_CUDA -Werror=all-warnings -Xcompiler=-Wall,-Wextra,-Werror --threads 0 \
    "${architectures[@]}" -c "csrc/$source" -o "$out/kernel.o"
done
python=${PYTHON:-python3}
mapfile -t folders < <("$python" -c '
import os, sysconfig, pybind11, torch
include = os.path.join(os.path.dirname(torch.__file__), "include")
print(include, include + "/torch/csrc/api/include", sysconfig.get_path("include"), pybind11.get_include(), sep="\n")')
folders+=("$("$nvcc" --dryrun -x cu /dev/null 2>&1 | sed -n 's/^#\$ INCLUDES="-I\([^"]*\)".*/\1/p')")
for source in $(grep -l LEAKY_WITH_CUDA csrc/*.cpp); do
  echo "c++ $source as in a CUDA build"
  "${CXX:-c++}" -std=c++20 -fsyntax-only -Wall -Wextra -Werror -DLEAKY_WITH_CUDA -DC10_CUDA_NO_CMAKE_CONFIGURE_FILE \
    -DTORCH_EXTENSION_NAME=_C '-DLEAKY_CUDA_ARCHITECTURES=""' '-DLEAKY_TORCH=""' \
    -Icsrc "${folders[@]/#/-isystem}" "$source"
done
