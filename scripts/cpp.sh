#!/usr/bin/env bash
# Builds the C++ library in folder $1 against the torch of `python`, tests it and installs it. Then builds the example
# against the installed package, and runs it. LEAKY_EXT_CUDA=ON adds the CUDA kernels.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/$1
torch=$(python -c 'import torch; print(torch.utils.cmake_prefix_path)')
quiet=(-G Ninja -Wno-dev --log-level=WARNING "-DCMAKE_PREFIX_PATH=$torch;$out/installed")
cmake -S . -B "$out" "${quiet[@]}" -DLEAKY_EXT_CUDA="${LEAKY_EXT_CUDA:-OFF}"
cmake --build "$out"
ctest --test-dir "$out" --output-on-failure
cmake --install "$out" --prefix "$out/installed" >/dev/null
cmake -S examples/cpp -B "$out/example" "${quiet[@]}"
cmake --build "$out/example"
"$out/example/train"
