"""`python -m benchmarks run SUITE ...`: starts workers, shows progress, merges results into the machine's file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .cases import MALLOC, PROCESSES, SECONDS, Case, select
from .machine import ROOT, this_machine, this_run
from .results import RESULTS, Results, Row
from .worker import Order

Measured = tuple[int, dict[str, dict[str, Any]]]  # index of the case, what measure_case returned


def run(suites: Sequence[str], *, device: str, quick: bool, threads: int | None, out: Path | None) -> Path:
    """Measures suites one after the other. What a suite found is in the file as soon as it is done."""
    machine = this_machine(device)
    path = out or RESULTS / f"{machine.slug}{'.quick' if quick else ''}.json"
    for suite in suites:
        cases = select(suite, device=device, threads=threads or torch.get_num_threads(), quick=quick)
        start = time.monotonic()
        processes = 1 if quick else PROCESSES[suite]
        rows = measure_suite(suite, cases, processes=processes, seconds=SECONDS[suite] / (3 if quick else 1))
        results = Results.load(path) if path.exists() else Results(machine)
        results.merge(suite, this_run(quick=quick, seconds=time.monotonic() - start), rows)
        results.save(path)
    return path


def measure_suite(suite: str, cases: list[Case], *, processes: int, seconds: float) -> list[Row]:
    rows = {(i, name): Row(case.key, name) for i, case in enumerate(cases) for name in case.contenders}
    samples: dict[tuple[int, str], list[float]] = {key: [] for key in rows}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(suite, total=processes * len(cases))
        for process in range(processes):
            for indices in together(cases):
                progress.update(task, description=f"{suite}: {cases[indices[0]].subject}")
                # What was refused or failed before is not run again.
                wanted = [
                    (i, replace(cases[i], contenders=tuple(n for n in cases[i].contenders if not rows[i, n].problem)))
                    for i in indices
                ]
                order = Order(cases=[case for _, case in wanted], seconds=seconds, process=process)
                for index, results in in_worker(order):
                    for name, result in results.items():
                        key = wanted[index][0], name
                        rows[key].add(result, samples[key])
                        if "problem" in result:
                            console.print(f"{rows[key].key['subject']}, {name}: {result['problem']}", highlight=False)
                    progress.advance(task)
    return list(rows.values())


def together(cases: list[Case]) -> Iterator[list[int]]:
    """Indices of the cases that are measured in one process."""
    indices = sorted(range(len(cases)), key=lambda i: cases[i].process)
    for _, group in groupby(indices, key=lambda i: cases[i].process):
        yield list(group)


def in_worker(order: Order) -> Iterator[Measured]:
    """Runs the cases in a fresh process. Where it dies, the cases that are left get that as their result."""
    variables = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    if MALLOC[order.cases[0].malloc]:
        variables["GLIBC_TUNABLES"] = MALLOC[order.cases[0].malloc]
    left = set(range(len(order.cases)))
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder) / "order.json", Path(folder) / "log"
        file.write_text(order.to_json())
        command = [sys.executable, "-m", "benchmarks.worker", str(file)]
        with (
            log.open("w") as errors,
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=variables, cwd=ROOT
            ) as worker,
        ):
            assert worker.stdout is not None
            try:
                for line in worker.stdout:
                    measured = json.loads(line)
                    left.remove(measured["case"])
                    yield measured["case"], measured["results"]
            except BaseException:
                worker.terminate()
                raise
        if left:
            print(log.read_text()[-2000:], file=sys.stderr)
        for index in sorted(left):
            problem = f"failed: the process ended with status {worker.returncode}"
            yield index, {name: {"problem": problem} for name in order.cases[index].contenders}
