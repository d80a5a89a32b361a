#!/usr/bin/env bash
# Runs the sanitizers in folder $1. More arguments select from kernels, threads, valgrind, python (default: all).
#   kernels   the kernel tests under AddressSanitizer and UndefinedBehaviorSanitizer
#   threads   concurrent calls under ThreadSanitizer
#   valgrind  the same calls, and 2,000 fuzzed ones, under memcheck
#   python    the whole test suite and 100,000 fuzzed calls, the extension built with ASan and UBSan
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/$1
shift
export UBSAN_OPTIONS=print_stacktrace=1
memory="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"

kernels() { # folder, flags, tests
  cmake -S . -B "$out/$1" -G Ninja -DLEAKY_EXT_TORCH=OFF -DCMAKE_BUILD_TYPE=None "-DCMAKE_CXX_FLAGS=-O1 -g1 $2"
  cmake --build "$out/$1"
  ctest --test-dir "$out/$1" --output-on-failure -R "$3"
}

for what in "${@:-kernels threads valgrind python}"; do
  for one in $what; do
    echo "== $one"
    case $one in
      kernels) kernels memory "$memory" . ;;
      threads) kernels threads "-fsanitize=thread" threads ;;
      valgrind)
        kernels valgrind "" none
        LEAKY_EXT_CPU=avx2 valgrind -q --error-exitcode=1 --leak-check=full "$out/valgrind/tests/cpp/test_threads"
        # ASan does not instrument torch, but valgrind checks torch too: it finds operators that misuse torch. This
        # uses the installed extension.
        PYTHONMALLOC=malloc OMP_NUM_THREADS=1 valgrind -q --error-exitcode=1 --undef-value-errors=no \
          --suppressions=scripts/valgrind.supp python tests/fuzz_operators.py --batch 2000
        ;;
      python)
        scripts/copy_tree.sh "$out/tree"
        cd "$out/tree"
        FORCE_CUDA=0 CFLAGS="$memory" LDFLAGS="$memory" python setup.py build_ext --inplace
        # The interpreter is not instrumented, so ASan's runtime must be loaded first, with libstdc++, whose exceptions
        # it wraps. Leaks are not checked: Python and torch keep memory until the end.
        LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so)"
        export LD_PRELOAD ASAN_OPTIONS=detect_leaks=0,allocator_may_return_null=1 PYTHONPATH=$PWD
        python tests/fuzz_operators.py --calls 100000
        # test_packaging*.py build and import in environments of their own, test_cuda_host.py has its own sanitizers.
        python -m pytest -m "not slow" -p no:cacheprovider ${PYTEST_ARGUMENTS:-} \
          --ignore-glob "tests/test_packaging*" --ignore tests/test_cuda_host.py
        ;;
    esac
  done
done
