"""The CUDA kernels on the host: g++ compiles the sources that nvcc compiles, with cuda_host/ as the CUDA runtime.

Threads of a block run at the same time, so a missing barrier is a race. The runner compares y, masks, grad_x and
d(alpha) with the oracle of tests/cpp, and does the same with the CPU kernels on the same cases.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KERNELS = sorted((ROOT / "csrc/cuda").glob("*.cu"))
CPU_KERNELS = sorted((ROOT / "csrc/cpu").glob("*.cpp"))
MAIN = ROOT / "tests/cuda_host/main.cpp"
CXX = shutil.which(os.environ.get("CXX", "c++"))

# Smaller blocks and limits than on a GPU: few elements reach 64-bit indices, a full workspace, every split.
SMALL = [
    "-DLEAKY_CUDA_THREADS=64",
    "-DLEAKY_CUDA_INDEX32_LIMIT=2000",
    "-DLEAKY_CUDA_PARTIALS=4096",
    "-DLEAKY_CUDA_ONE_LAUNCH=256",
]

pytestmark = pytest.mark.skipif(CXX is None, reason="no C++ compiler")


def build(folder: Path, flags: list[str], sources: list[Path]) -> Path:
    """Builds the runner from these sources, all with the same flags."""
    flags = ["-std=c++17", "-g1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-pthread", *flags]
    include = ROOT / "tests/cuda_host/include"

    def compile_one(source: Path) -> Path:
        target = folder / f"{source.parent.name}_{source.name}.o"
        subprocess.run([CXX, *flags, f"-I{include}", "-x", "c++", "-c", source, "-o", target], check=True)
        return target

    with ThreadPoolExecutor(max_workers=int(os.environ.get("MAX_JOBS", 2))) as pool:
        objects = list(pool.map(compile_one, sources))
    runner = folder / "runner"
    subprocess.run([CXX, *flags, *objects, "-o", runner], check=True)
    return runner


def run(runner: Path, *arguments: int, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [runner, *map(str, arguments)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


def expect_success(result: subprocess.CompletedProcess[str], cases: int) -> None:
    assert result.returncode == 0, result.stdout[-4000:]
    assert f"{cases} cases, 0 failures" in result.stdout


@pytest.mark.slow
def test_small_blocks_under_address_and_undefined_behaviour_sanitizer(tmp_path: Path) -> None:
    sanitize = ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    runner = build(tmp_path, [*sanitize, *SMALL], [*KERNELS, MAIN])
    expect_success(run(runner, 600, 1), 600)


@pytest.mark.slow
def test_the_numbers_of_a_real_gpu_against_the_cpu_kernels(tmp_path: Path) -> None:
    runner = build(tmp_path, ["-O1", "-DLEAKY_COMPARE_CPU"], [*KERNELS, *CPU_KERNELS, MAIN])
    expect_success(run(runner, 200, 2), 200)
    expect_success(run(runner, 20, 3, 40), 20)


@pytest.fixture(scope="module")
def threads_runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if platform.machine() != "x86_64":
        pytest.skip("ThreadSanitizer is tried on x86-64 alone")
    folder = tmp_path_factory.mktemp("threads")
    return build(folder, ["-O0", "-fsanitize=thread", *SMALL], [*KERNELS, MAIN])


def test_no_race(threads_runner: Path) -> None:
    expect_success(run(threads_runner, 100, 4), 100)


def barriers() -> list[str]:
    places = [
        f"{source.name}:{number}"
        for source in sorted((ROOT / "csrc/cuda").iterdir())
        for number, line in enumerate(source.read_text().splitlines(), 1)
        if "__syncthreads(" in line.partition("//")[0]
    ]
    assert places, "no barrier found in csrc/cuda: the test of them would have no cases"
    return places


@pytest.mark.parametrize("barrier", barriers())
def test_every_barrier_is_needed(threads_runner: Path, barrier: str) -> None:
    """Without one barrier, the cases of test_no_race find a race or wrong numbers."""
    result = run(threads_runner, 100, 4, CUDA_HOST_LEAVE_OUT=barrier, TSAN_OPTIONS="halt_on_error=1")
    assert result.returncode != 0
    assert "data race" in result.stdout or "FAILED" in result.stdout
