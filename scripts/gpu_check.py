#!/usr/bin/env python3
"""Builds leaky_ext for this GPU, tests and measures it, and runs compute-sanitizer and ncu. `make gpu-check`.

Requires a GPU, the CUDA toolkit, and a python3 with torch, pytest, hypothesis, ninja and pybind11. The benchmarks also
require pandas, rich and py-cpuinfo. Downloads nothing. Both parts take 13 minutes on a machine with 16 cores:

    python scripts/gpu_check.py --part checks             build; tests and sanitizers side by side; ncu; bandwidth
    python scripts/gpu_check.py --part tables --built     networks as they are trained, eager, in CUDA graphs, compiled

Each part ends within --budget seconds: a step that takes longer is interrupted, and steps after it may be left out.
Nothing runs if sources differ from the commit, because the results name the commit.

Writes results to build/gpu-check-PART.json after every stage, and output to build/gpu-check-PART.log. --out FOLDER
copies both, the report of ncu and the benchmark results. Prints a table at the end. The exit status is 1 if a step
failed or was left out.
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
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BANDWIDTH = ROOT / "build/gpu-bandwidth.json"
NCU = ROOT / "build/gpu-ncu.txt"
PROFILES = ROOT / "build/gpu-profile.md"
BUDGET = {"checks": 340, "tables": 420}  # seconds
GRACE = 10  # seconds after an interrupt in which a step can write its results
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
SANITIZER = ["--error-exitcode", "9", "--kernel-regex", "kns=leaky_ext", "--target-processes", "all"]
NCU_SECTIONS = [
    *("SpeedOfLight", "Occupancy", "LaunchStats", "InstructionStats"),
    *("SchedulerStats", "WarpStateStats", "MemoryWorkloadAnalysis", "MemoryWorkloadAnalysis_Tables"),
]
KERNELS = "regex:^(elementwise|backward)_(flat|rows|columns)_kernel$"


@dataclass
class Step:
    name: str
    command: list[str]  # empty: its tool is missing
    limit: float
    environment: dict[str, str] = field(default_factory=dict)
    optional: bool = False  # not a failure if the tool is missing
    writes: Path | None = None  # a JSON file that is copied into the report


@dataclass
class Result:
    name: str
    status: str  # "ok", or what went wrong
    counts: str
    seconds: float
    measured: Any = None


Runner = Callable[[Step, float], tuple[int | None, str]]
Stage = list[Step]  # steps that run side by side


def run_in_group(step: Step, limit: float) -> tuple[int | None, str]:
    """Runs a step. Returns its exit status (None if it reached the limit) and its output."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            step.command, cwd=ROOT, env=os.environ | step.environment, stdout=log, stderr=log, start_new_session=True
        )
        status: int | None
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        finally:  # also after an interrupt: ends every process of the step
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.seek(0)
        return status, log.read().decode(errors="replace")


def read_json(path: Path | None) -> Any:
    """Returns what a step wrote, even if the step failed later. Returns None if there is no complete file."""
    if path is None:
        return None
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def run_step(step: Step, runner: Runner, limit: float, log: Path) -> Result:
    began = time.monotonic()
    counts, measured, text = "", None, ""
    if not step.command:
        status = "ok: left out, the tool is missing" if step.optional else "FAILED: the tool is missing"
    elif limit <= 0:
        status = "left out: no time left"
    else:
        print(f"gpu-check: {step.name} ...", flush=True)
        try:
            code, text = runner(step, limit)
        except OSError as error:
            code, text = 127, str(error)
        status = "ok" if code == 0 else f"ended after {limit:.0f} s" if code is None else f"FAILED ({code})"
        found = re.findall(r"\d+ (?:passed|failed|skipped|error)[^\n]*| ERROR SUMMARY: [^\n]*", text)
        counts = found[-1].strip(" =") if found else ""
        if code != 0:
            print(text[-3000:])
        measured = read_json(step.writes)
    with log.open("a") as file:
        file.write(f"\n===== {step.name}: {' '.join(step.command)}\n{text}")
    return Result(step.name, status, counts, round(time.monotonic() - began, 1), measured)


def run_stages(stages: list[Stage], runner: Runner, budget: float, report: Path, facts: dict[str, str]) -> list[Result]:
    """Runs stages until the budget is used up, even if steps fail. The first step is the build, which must pass."""
    start = time.monotonic()
    results: list[Result] = []
    report.parent.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        left = budget - (time.monotonic() - start)
        if results and results[0].status != "ok":
            results += [Result(step.name, "left out: the build failed", "", 0.0) for step in stage]
        else:
            with ThreadPoolExecutor(len(stage)) as pool:
                log = report.with_suffix(".log")
                results += pool.map(lambda step: run_step(step, runner, min(step.limit, left), log), stage)  # noqa: B023
        report.write_text(json.dumps({**facts, "steps": [asdict(r) for r in results]}, indent=1) + "\n")
    return results


def find_tool(name: str) -> str | None:
    """Returns the path of a tool on PATH or in the toolkit: CUDA_HOME, the folder of nvcc, or /usr/local/cuda."""
    nvcc = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), nvcc and str(Path(nvcc).resolve().parents[1]), "/usr/local/cuda"]
    folders = [os.path.join(home, sub) for home in homes if home for sub in ("bin", "compute-sanitizer")]
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *folders]))


def has_packages(*names: str) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in names)


def gpu_tests() -> list[str]:
    """Returns the command that runs the tests on the GPU: "cuda" is in the name of their file or in a parameter."""
    ignored = ["--ignore", "tests/test_cuda_host.py", "--ignore-glob", "tests/test_packaging*"]
    return [*PYTEST, "tests", "-k", "cuda", *ignored]


def build_step(built: bool) -> Step:
    """Returns the build for this GPU or, if the kernels are built already, an import."""
    if built:
        show = [sys.executable, "-c", "import leaky_ext; print(leaky_ext.show_config())"]
        return Step("import", show, 60, {"PYTHONPATH": str(ROOT)})
    return Step("build", [sys.executable, "setup.py", "build_ext", "--inplace"], 200, {"FORCE_CUDA": "1"})


def check_stages() -> list[Stage]:
    """Returns the stages of the checks: tests and sanitizers side by side, then ncu and the bandwidth alone."""
    here = {"PYTHONPATH": str(ROOT)}
    bandwidth = [sys.executable, "-m", "benchmarks.bandwidth", "--device", "cuda"]
    short = [*PYTEST, "tests/test_cuda.py", "-k", "short_set"]
    direct = here | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # so that each tensor has its own bounds
    sanitizer, ncu = find_tool("compute-sanitizer"), find_tool("ncu")
    sections = [word for section in NCU_SECTIONS for word in ("--section", section)]
    profile = ["--kernel-name-base", "function", "--kernel-name", KERNELS, "--log-file", str(NCU)]
    profile += ["--clock-control", "none"]  # the GPU may be shared
    workers = ["-n", "6"] if has_packages("xdist") else []
    return [
        [
            Step("tests on the GPU", [*gpu_tests(), "-m", "not slow", *workers], 170, here),
            Step("compiled", [*PYTEST, "tests/test_compiled.py", "-k", "cuda", *workers], 170, here),
            Step("more than 2^31 elements", [*PYTEST, "tests/test_cuda.py", "-m", "slow"], 170, here),
            *(
                Step(tool, [sanitizer, "--tool", tool, *SANITIZER, *short] if sanitizer else [], 170, direct)
                for tool in ("memcheck", "racecheck", "initcheck")
            ),
        ],
        [Step("ncu", [ncu, *sections, *profile, *bandwidth, "--once"] if ncu else [], 90, here, optional=True)],
        [Step("bandwidth", [*bandwidth, "--out", str(BANDWIDTH)], 60, here, writes=BANDWIDTH)],
    ]


def table_stages(results: Path, full: bool) -> list[Stage]:
    """Returns the stages of the tables, the most important first. Each precision is a separate run of the suite."""
    here = {"PYTHONPATH": str(ROOT)}
    able = has_packages("pandas", "rich", "cpuinfo")

    def measure(name: str, limit: float, *words: str) -> Stage:
        command = [sys.executable, "-m", "benchmarks", "run", *words, "--device", "cuda", "--out", str(results)]
        return [Step(name, command if able else [], limit, here, optional=True)]

    profile = [sys.executable, "-m", "benchmarks.profile", "--device", "cuda", "--out", str(PROFILES)]
    rest = ["calls", "operators", "networks", "compiled"]
    return [
        measure("trained, bf16", 110, "trained", "--only", "(bf16", "--seconds", "1"),
        [Step("profile", profile if able else [], 70, here, optional=True)],
        measure("host", 30, "host"),
        measure("trained, fp32", 100, "trained", "--only", "(fp32", "--seconds", "1"),
        measure("compiled, bf16", 80, "trained-compiled", "--only", "16 x 96 px (bf16"),
        measure("trained, fp16", 100, "trained", "--only", "(fp16", "--seconds", "1"),
        *(measure(suite, 600, suite) for suite in (rest if full else [])),
    ]


def is_changed() -> bool:
    """Returns whether the sources differ from the commit that results would name. Returns False outside a checkout."""
    words = ["git", "-C", str(ROOT), "status", "--porcelain", "--", "csrc", "leaky_ext", "benchmarks"]
    try:
        return bool(subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip())
    except (OSError, subprocess.CalledProcessError):
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=list(BUDGET), help="one part only; default: both")
    parser.add_argument("--out", type=Path, help="copy the results and the log to this folder")
    parser.add_argument("--budget", type=float, help=f"seconds for each part; default: {BUDGET}")
    parser.add_argument("--built", action="store_true", help="use the existing build")
    parser.add_argument("--full", action="store_true", help="run the other benchmarks too; requires a larger --budget")
    options = parser.parse_args()

    if is_changed():
        print("gpu-check: csrc, leaky_ext or benchmarks differ from the commit: commit or undo the changes first")
        return 1
    import torch

    if not torch.cuda.is_available():
        print("gpu-check: torch finds no GPU")
        return 1
    gpu, capability = torch.cuda.get_device_name(), ".".join(map(str, torch.cuda.get_device_capability()))
    facts = {"gpu": gpu, "capability": capability, "torch": torch.__version__, "python": sys.version.split()[0]}
    name = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
    measured = ROOT / "benchmarks/results" / f"{name}.json"
    done: list[Result] = []
    for number, part in enumerate([options.part] if options.part else BUDGET):
        stages = check_stages() if part == "checks" else table_stages(measured, options.full)
        own = [BANDWIDTH, NCU] if part == "checks" else [PROFILES]
        report = ROOT / f"build/gpu-check-{part}.json"
        for path in (report, report.with_suffix(".log"), *own):  # of an earlier run
            path.unlink(missing_ok=True)
        first = [build_step(options.built or number > 0)]
        done += run_stages([first, *stages], run_in_group, options.budget or BUDGET[part], report, facts)
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            for path in (report, report.with_suffix(".log"), *own, measured):
                if path.exists():
                    shutil.copy(path, options.out)
    print(f"\n{gpu}, compute capability {capability}, torch {torch.__version__}; details in build/gpu-check-*.log")
    for result in done:
        print(f"{result.name:26}{result.seconds:7.0f} s  {result.status}  {result.counts}")
    return 0 if all(result.status.startswith("ok") for result in done) else 1


if __name__ == "__main__":
    sys.exit(main())
