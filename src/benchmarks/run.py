"""`python -m benchmarks run`: starts the workers, shows how far they are, writes the results."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from . import environment, schema
from .cases import MEMORY_TUNABLES, Case, select

# Of timing; checks and compilation come on top.
SECONDS_A_ROW = {("cpu", "quick"): 0.5, ("cpu", "full"): 2.0, ("cuda", "quick"): 0.2, ("cuda", "full"): 0.6}


def run(device: str, suite: str, pattern: str = "", out: Path | None = None, threads: int | None = None) -> Path:
    """Runs a suite and returns the path of its results."""
    threads = threads or torch.get_num_threads()
    cases = sorted(select(device, suite, threads, pattern), key=lambda case: case.memory)
    if not cases:
        raise SystemExit(f"no case matches {pattern!r}")
    facts = environment.describe(device)
    name = environment.slug(facts) + (".json" if suite == "full" and not pattern else ".quick.json")
    path = out or schema.RESULTS / name
    start = time.monotonic()
    rows: list[dict[str, Any]] = []
    complete = False
    with progress(cases) as advance, contextlib.suppress(KeyboardInterrupt):
        for memory, group in groupby(cases, key=lambda case: case.memory):
            for case, row in in_workers(list(group), memory, SECONDS_A_ROW[device, suite]):
                rows.append(row)
                advance(case, row)
        complete = True
    result = {
        "schema": schema.VERSION,
        "date": environment.now(),
        "suite": suite,
        "filter": pattern,
        "complete": complete,
        "threads": threads,
        "seconds": round(time.monotonic() - start, 1),
        "device": facts,
        "software": environment.software(),
        "rows": rows,
    }
    schema.save(result, path)
    return path


def in_workers(cases: list[Case], memory: str, seconds: float) -> Iterator[tuple[Case, dict[str, Any]]]:
    """Each case with its row. Where a worker dies, the case that it was at is lost, and a new worker does the rest."""
    variables = dict(os.environ)
    variables.pop("GLIBC_TUNABLES", None)
    if MEMORY_TUNABLES[memory]:
        variables["GLIBC_TUNABLES"] = MEMORY_TUNABLES[memory]
    left = list(cases)
    while left:
        with tempfile.TemporaryDirectory() as folder:
            order = Path(folder) / "cases.json"
            order.write_text(json.dumps([asdict(case) for case in left]))
            command = [sys.executable, "-m", "benchmarks.worker", str(order), str(seconds)]
            log = Path(folder) / "log"  # profilers and compilers talk; it matters only where the worker dies
            with (
                log.open("w") as errors,
                subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=errors, text=True, env=variables, cwd=environment.ROOT
                ) as worker,
            ):
                assert worker.stdout is not None
                try:
                    for line in worker.stdout:
                        yield left.pop(0), json.loads(line)
                except BaseException:
                    worker.terminate()
                    raise
            if left:
                print(log.read_text()[-2000:], file=sys.stderr)
                yield left[0], lost(left.pop(0), f"the process ended with status {worker.returncode}")


def lost(case: Case, reason: str) -> dict[str, Any]:
    results = [{"implementation": name, "status": "failed", "reason": reason} for name in case.implementations]
    return {**case.key(), "results": results}


def weight(case: Case) -> float:
    """About how long a case takes, for the time left."""
    compiled = sum(name.endswith("compiled") for name in case.implementations)
    return 1 + case.numel / 2e6 + (12 if case.block else 2.5) * compiled


@contextlib.contextmanager
def progress(cases: list[Case]) -> Iterator[Callable[[Case, dict[str, Any]], None]]:
    """A bar with the time left on a terminal, a line for each row elsewhere."""
    total, done = sum(map(weight, cases)), 0

    def complain(row: dict[str, Any]) -> str:
        return "".join(
            f"\n    {r['implementation']}: {r['status']}, {r['reason']}" for r in row["results"] if "reason" in r
        )

    if not sys.stderr.isatty() or importlib.util.find_spec("rich") is None:

        def line(case: Case, row: dict[str, Any]) -> None:
            nonlocal done
            done += 1
            print(f"[{done}/{len(cases)}] {case.label}{complain(row)}", file=sys.stderr, flush=True)

        yield line
        return

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        TextColumn("{task.fields[rows]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[label]}"),
    )
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=120) as bar:
        task = bar.add_task("", total=total, rows=f"0/{len(cases)}", label=cases[0].label)

        def advance(case: Case, row: dict[str, Any]) -> None:
            nonlocal done
            done += 1
            following = cases[done].label if done < len(cases) else ""
            bar.update(task, advance=weight(case), rows=f"{done}/{len(cases)}", label=following)
            if complain(row):
                bar.console.print(case.label + complain(row), markup=False, highlight=False)

        yield advance
