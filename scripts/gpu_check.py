#!/usr/bin/env python3
"""Builds leaky_ext for this machine's GPU, runs every GPU test, compute-sanitizer and the benchmark. `make gpu-check`.

Needs a GPU, CUDA's toolkit, and a python3 with torch, pytest, hypothesis, ninja and pybind11; fetches nothing. Writes
benchmarks/results/GPU.json and build/gpu-check.log; --out FOLDER copies both there as well. Prints a table last;
status 1 where anything failed. Takes minutes: --benchmark-only and --no-benchmark do a part.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOG = ROOT / "build/gpu-check.log"
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
SANITIZER = ["--error-exitcode", "9", "--kernel-regex", "kns=leaky_ext", "--target-processes", "all"]


def find_sanitizer(cuda_home: str) -> str | None:
    places = [os.path.join(cuda_home, "bin"), os.path.join(cuda_home, "compute-sanitizer"), os.environ["PATH"]]
    return shutil.which("compute-sanitizer", path=os.pathsep.join(places))


def gpu_tests() -> list[str]:
    """Tests that run on the GPU have "cuda" in their names: a file's, or the parameter of the `device` fixture."""
    return [
        *PYTEST,
        "tests",
        "-k",
        "cuda",
        "--ignore",
        "tests/test_cuda_host.py",
        "--ignore",
        "tests/test_packaging.py",
    ]


def run(name: str, command: list[str], environment: dict[str, str], limit: int = 400) -> tuple[str, str, float]:
    """Runs a step into the log; returns its name, its result and its seconds."""
    print(f"gpu-check: {name} ...", flush=True)
    start = time.monotonic()
    with LOG.open("ab+") as log:
        log.write(f"\n===== {name}: {' '.join(command)}\n".encode())
        log.flush()
        begin = log.tell()
        try:
            status = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log, timeout=limit
            ).returncode
        except subprocess.TimeoutExpired:
            status = -1
        log.seek(begin)
        text = log.read().decode(errors="replace")
    counts = re.findall(r"\d+ (?:passed|failed|skipped|error)[^\n]*| ERROR SUMMARY: [^\n]*", text)
    result = "ok" if status == 0 else f"over {limit} s" if status == -1 else f"FAILED ({status})"
    if status != 0:
        print(text[-3000:])
    return name, f"{result}  {counts[-1].strip(' =') if counts else ''}".strip(), time.monotonic() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a folder that gets copies of the results and of the log")
    parser.add_argument("--no-benchmark", action="store_true")
    parser.add_argument("--benchmark-only", action="store_true")
    parser.add_argument("--full", action="store_true", help="the benchmarks in full, which takes longer")
    options = parser.parse_args()

    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    if not torch.cuda.is_available():
        print("gpu-check: torch finds no GPU")
        return 1
    if CUDA_HOME is None:
        print("gpu-check: no CUDA toolkit; CUDA_HOME tells where it is")
        return 1
    gpu, capability = torch.cuda.get_device_name(), ".".join(map(str, torch.cuda.get_device_capability()))
    environment = os.environ | {"FORCE_CUDA": "1", "CUDA_HOME": CUDA_HOME, "PYTHONPATH": str(ROOT)}
    environment.setdefault("TORCH_CUDA_ARCH_LIST", capability)
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_text(f"{gpu}, torch {torch.__version__}, Python {sys.version}\n")

    steps = [run("build", [sys.executable, "setup.py", "build_ext", "--inplace"], environment)]
    if steps[0][1].startswith("ok") and not options.benchmark_only:
        steps.append(run("tests on the GPU", [*gpu_tests(), "-m", "not slow"], environment))
        steps.append(run("more than 2^31 elements", [*PYTEST, "tests/test_cuda.py", "-m", "slow"], environment))
        sanitizer = find_sanitizer(CUDA_HOME)
        short = [*PYTEST, "tests/test_cuda.py", "-k", "short_set"]
        for tool in ("memcheck", "racecheck", "initcheck"):
            if sanitizer is None:
                steps.append((tool, "FAILED: no compute-sanitizer in the toolkit", 0.0))
                continue
            direct = environment | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # so that each tensor has its own bounds
            steps.append(run(tool, [sanitizer, "--tool", tool, *SANITIZER, *short], direct))
    if steps[0][1].startswith("ok") and not options.no_benchmark:
        results = ROOT / "benchmarks/results" / (re.sub(r"\W+", "-", gpu.lower()).strip("-") + ".json")
        command = [sys.executable, "-m", "benchmarks", "run", "--device", "cuda", "--out", str(results)]
        command += [] if options.full else ["--quick"]
        steps.append(run("benchmark", command, environment))
        print(LOG.read_text(errors="replace").rpartition("=====")[2])
        if options.out and results.exists():
            options.out.mkdir(parents=True, exist_ok=True)
            shutil.copy(results, options.out)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        shutil.copy(LOG, options.out)

    print(f"\n{gpu}, compute capability {capability}, torch {torch.__version__}; details in {LOG.relative_to(ROOT)}")
    for name, result, seconds in steps:
        print(f"{name:26}{seconds:7.0f} s  {result}")
    return 0 if all(result.startswith("ok") for _, result, _ in steps) else 1


if __name__ == "__main__":
    sys.exit(main())
