#!/usr/bin/env python3
"""Builds leaky_ext for this GPU, tests it, measures it, and runs compute-sanitizer and ncu. `make gpu-check`.

Needs a GPU, CUDA's toolkit, and a python3 with torch, pytest, hypothesis, ninja and pybind11, for the benchmark pandas,
rich and py-cpuinfo as well; fetches nothing. Ends within --budget seconds: a step that runs over is killed with all it
started, and what there is no time for is left out. Writes build/gpu-check.json after every step, with the kernels'
shares of the bandwidth, build/gpu-check.log, and ncu's report; --out FOLDER gets copies of these and of the benchmark's
results. Prints a table last; status 1 where anything failed or was left out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOG = ROOT / "build/gpu-check.log"
REPORT = ROOT / "build/gpu-check.json"
BANDWIDTH = ROOT / "build/gpu-bandwidth.json"
PROFILE = ROOT / "build/gpu-ncu.txt"
BUDGET = 560
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
SANITIZER = ["--error-exitcode", "9", "--kernel-regex", "kns=leaky_ext", "--target-processes", "all"]
NCU_SECTIONS = [
    *("SpeedOfLight", "Occupancy", "LaunchStats", "InstructionStats"),
    *("SchedulerStats", "WarpStateStats", "MemoryWorkloadAnalysis", "MemoryWorkloadAnalysis_Tables"),
]
KERNELS = "regex:^(forward|backward)_(flat|rows|columns)_kernel$"


@dataclass
class Step:
    name: str
    command: list[str]  # empty: its tool is missing
    limit: float
    environment: dict[str, str] = field(default_factory=dict)
    optional: bool = False  # a missing tool is no failure
    writes: Path | None = None  # JSON, which the report takes up


@dataclass
class Result:
    name: str
    status: str  # "ok", or what went wrong
    counts: str
    seconds: float
    measured: Any = None


Runner = Callable[[Step, float], tuple[int | None, str]]


def run_in_group(step: Step, limit: float) -> tuple[int | None, str]:
    """Runs a step into the log. Returns its exit status, None if it was killed at the limit, and its output."""
    with LOG.open("ab+") as log:
        log.write(f"\n===== {step.name}: {' '.join(step.command)}\n".encode())
        log.flush()
        begin = log.tell()
        process = subprocess.Popen(
            step.command, cwd=ROOT, env=os.environ | step.environment, stdout=log, stderr=log, start_new_session=True
        )
        status: int | None
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:  # also after an interrupt: nothing that the step started is left running
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.seek(begin)
        return status, log.read().decode(errors="replace")


def read_json(path: Path | None) -> Any:
    """What a step wrote, also one that failed later. None where there is nothing, or half a file."""
    if path is None:
        return None
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def run_steps(steps: list[Step], runner: Runner, budget: float, report: Path, facts: dict[str, str]) -> list[Result]:
    """Runs all steps, whatever becomes of each, as far as the budget goes. The first is the build: without it, none."""
    start, results = time.monotonic(), []
    for number, step in enumerate(steps):
        began = time.monotonic()
        limit = min(step.limit, budget - (began - start))
        counts, measured = "", None
        if number > 0 and results[0].status != "ok":
            status = "left out: the build failed"
        elif not step.command:
            status = "ok: left out, the tool is missing" if step.optional else "FAILED: the tool is missing"
        elif limit <= 0:
            status = "left out: no time left"
        else:
            print(f"gpu-check: {step.name} ...", flush=True)
            try:
                code, text = runner(step, limit)
            except OSError as error:
                code, text = 127, str(error)
            status = "ok" if code == 0 else f"killed after {limit:.0f} s" if code is None else f"FAILED ({code})"
            found = re.findall(r"\d+ (?:passed|failed|skipped|error)[^\n]*| ERROR SUMMARY: [^\n]*", text)
            counts = found[-1].strip(" =") if found else ""
            if code != 0:
                print(text[-3000:])
            measured = read_json(step.writes)
        results.append(Result(step.name, status, counts, round(time.monotonic() - began, 1), measured))
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps({**facts, "steps": [asdict(r) for r in results]}, indent=1) + "\n")
    return results


def find_tool(name: str) -> str | None:
    """On PATH, or in the toolkit: CUDA_HOME, the folder of the nvcc on PATH, or the usual one."""
    nvcc = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), nvcc and str(Path(nvcc).resolve().parents[1]), "/usr/local/cuda"]
    folders = [os.path.join(home, sub) for home in homes if home for sub in ("bin", "compute-sanitizer")]
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *folders]))


def has_packages(*names: str) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in names)


def gpu_tests() -> list[str]:
    """Tests that run on the GPU have "cuda" in their names: a file's, or the parameter of the `device` fixture."""
    ignored = ["--ignore", "tests/test_cuda_host.py", "--ignore", "tests/test_packaging.py"]
    return [*PYTEST, "tests", "-k", "cuda", *ignored]


def build_steps(built: bool) -> list[Step]:
    """setup.py finds the toolkit, and builds for the GPU that it sees."""
    if built:
        show = [sys.executable, "-c", "import leaky_ext; print(leaky_ext.show_config())"]
        return [Step("import", show, 60, {"PYTHONPATH": str(ROOT)})]
    return [Step("build", [sys.executable, "setup.py", "build_ext", "--inplace"], 300, {"FORCE_CUDA": "1"})]


def make_steps(results: Path, full: bool, built: bool = False) -> list[Step]:
    """What is worth most comes first."""
    here = {"PYTHONPATH": str(ROOT)}
    benchmark = [sys.executable, "-m", "benchmarks", "run", "--device", "cuda", *([] if full else ["--quick"])]
    benchmark += ["--out", str(results)]
    bandwidth = [sys.executable, "-m", "benchmarks.bandwidth", "--device", "cuda"]
    short = [*PYTEST, "tests/test_cuda.py", "-k", "short_set"]
    direct = here | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # so that each tensor has its own bounds
    sanitizer, ncu = find_tool("compute-sanitizer"), find_tool("ncu")
    sections = [word for section in NCU_SECTIONS for word in ("--section", section)]
    profile = ["--kernel-name-base", "function", "--kernel-name", KERNELS, "--log-file", str(PROFILE)]
    profile += ["--clock-control", "none"]  # the GPU may be shared
    workers = ["-n", "6"] if has_packages("xdist") else []
    return [
        *build_steps(built),
        Step("tests on the GPU", [*gpu_tests(), "-m", "not slow", *workers], 200, here),
        Step("bandwidth", [*bandwidth, "--out", str(BANDWIDTH)], 60, here, writes=BANDWIDTH),
        Step("ncu", [ncu, *sections, *profile, *bandwidth, "--once"] if ncu else [], 120, here, optional=True),
        Step("benchmark", benchmark if has_packages("pandas", "rich", "cpuinfo") else [], 240, here, optional=True),
        Step("compiled", [*PYTEST, "tests/test_compiled.py", "-k", "cuda", *workers], 120, here),
        Step("more than 2^31 elements", [*PYTEST, "tests/test_cuda.py", "-m", "slow"], 120, here),
        *(
            Step(tool, [sanitizer, "--tool", tool, *SANITIZER, *short] if sanitizer else [], 120, direct)
            for tool in ("memcheck", "racecheck", "initcheck")
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a folder that gets copies of the results and of the log")
    parser.add_argument("--budget", type=float, default=BUDGET, help=f"seconds, {BUDGET} unless told")
    parser.add_argument("--built", action="store_true", help="use the kernels that are built here already")
    parser.add_argument("--full", action="store_true", help="the benchmarks in full, which takes longer")
    options = parser.parse_args()

    import torch

    if not torch.cuda.is_available():
        print("gpu-check: torch finds no GPU")
        return 1
    gpu, capability = torch.cuda.get_device_name(), ".".join(map(str, torch.cuda.get_device_capability()))
    facts = {"gpu": gpu, "capability": capability, "torch": torch.__version__, "python": sys.version.split()[0]}
    LOG.parent.mkdir(exist_ok=True)
    LOG.write_text(f"{facts}\n")
    for path in (BANDWIDTH, PROFILE):  # of an earlier run
        path.unlink(missing_ok=True)
    name = re.sub(r"\W+", "-", gpu.lower()).strip("-") + ("" if options.full else "-quick") + ".json"
    measured = ROOT / "benchmarks/results" / name
    steps = run_steps(make_steps(measured, options.full, options.built), run_in_group, options.budget, REPORT, facts)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        for path in (LOG, REPORT, PROFILE, measured):
            if path.exists():
                shutil.copy(path, options.out)
    print(f"\n{gpu}, compute capability {capability}, torch {torch.__version__}; details in {LOG.relative_to(ROOT)}")
    for result in steps:
        print(f"{result.name:26}{result.seconds:7.0f} s  {result.status}  {result.counts}")
    return 0 if all(result.status.startswith("ok") for result in steps) else 1


if __name__ == "__main__":
    sys.exit(main())
