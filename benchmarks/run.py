"""`python -m benchmarks run SUITE ...` measures in fresh processes and merges the results into the machine's file."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from . import worker
from .cases import MALLOC, PROCESSES, SECONDS, Case, select
from .machine import this_machine, this_run
from .results import RESULTS, Results, row
from .timing import Timer, measure


def run(
    suites: Sequence[str],
    *,
    device: str,
    quick: bool,
    threads: int | None,
    only: str | None = None,
    seconds: float | None = None,
    out: Path | None,
) -> Path:
    """Measures the suites one after the other. Saves the results of a suite when the suite ends or is interrupted.

    `only` selects the cases that have this text in their name, for example "UNet 3-D" or "training step, default".
    `seconds` replaces SECONDS of the suite.
    """
    machine = this_machine(device)
    path = out or RESULTS / f"{machine.slug}{'.quick' if quick else ''}.json"
    threads = threads or torch.get_num_threads()
    chosen = {suite: select(suite, device=device, threads=threads, quick=quick) for suite in suites}
    if only is not None:
        chosen = {suite: [case for case in cases if only in case.name] for suite, cases in chosen.items()}
        if not any(chosen.values()):
            raise SystemExit(f"no case of {', '.join(suites)} has {only!r} in its name")
    for suite, cases in chosen.items():
        if not cases:
            continue
        begin = time.monotonic()
        processes, each = (1, SECONDS[suite] / 3) if quick else (PROCESSES[suite], SECONDS[suite])
        if device == "cuda":  # times do not depend on the state of the heap
            processes = 1
        rows, interrupted = measure_suite(suite, cases, processes=processes, seconds=seconds or each)
        results = Results.load(path) if path.exists() else Results(machine)
        results.merge(suite, this_run(quick=quick, seconds=time.monotonic() - begin), rows, only)
        results.save(path)
        if interrupted:
            break
    return path


def measure_suite(
    suite: str, cases: list[Case], *, processes: int, seconds: float
) -> tuple[list[dict[str, Any]], bool]:
    """Returns the rows of the results, and whether Ctrl-C ended the measurement."""
    found: dict[tuple[Case, str], list[dict[str, Any]]] = defaultdict(list)  # by case and contender
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    interrupted = False
    with own_compile_cache(), Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        groups = [(process, group) for process in range(processes) for group in in_one_process(cases)]
        task = progress.add_task(suite, total=sum(len(group) for _, group in groups))
        try:
            for process, together in groups:
                progress.update(task, description=f"{suite}: {together[0].subject}")
                measured = in_own_processes if together[0].compiled else in_fresh_process
                for case, results in measured(together, found, seconds=seconds, process=process):
                    for name, result in results.items():
                        found[case, name].append(result)
                        if "problem" in result:
                            console.print(f"{case.subject}, {name}: {result['problem']}", markup=False, highlight=False)
                    progress.advance(task)
        except KeyboardInterrupt:
            interrupted = True
    pairs = ((case, name) for case in cases for name in case.contenders if found[case, name])
    return [row(case.key, name, found[case, name]) for case, name in pairs], interrupted


def in_one_process(cases: list[Case]) -> list[list[Case]]:
    ordered = sorted(cases, key=lambda case: case.process)
    return [list(group) for _, group in itertools.groupby(ordered, key=lambda case: case.process)]


def in_fresh_process(
    cases: list[Case], found: dict[tuple[Case, str], list[dict[str, Any]]], *, seconds: float, process: int
) -> Iterator[tuple[Case, worker.Results]]:
    """Yields each case with its results, in an order that depends on `process`. Skips contenders that had a problem.

    If the process dies, the contenders of the remaining cases get this as their problem.
    """
    shuffled = random.Random(process).sample(cases, len(cases))
    with fresh_process(cases[0].malloc) as pool:
        futures: dict[Case, Future[worker.Results]] = {}
        for case in shuffled:
            futures[case] = pool.submit(
                worker.measure_case, without_problems(case, found), seconds=seconds, process=process
            )
        try:
            for case, future in futures.items():
                error = future.exception()  # the process died, or the case itself failed
                if isinstance(error, KeyboardInterrupt):
                    raise error
                problem = f"failed: {worker.first_line(error)}" if error else ""
                yield case, {name: {"problem": problem} for name in case.contenders} if error else future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def in_own_processes(
    cases: list[Case], found: dict[tuple[Case, str], list[dict[str, Any]]], *, seconds: float, process: int
) -> Iterator[tuple[Case, worker.Results]]:
    """Yields each case with its results. Each contender has its own process, and the contenders take turns.

    Compiled contenders share no process, because compiled code depends on what the process compiled before.
    """
    for case in cases:
        names = without_problems(case, found).contenders
        with contextlib.ExitStack() as stack:
            pools = {name: stack.enter_context(fresh_process(case.malloc)) for name in names}
            try:
                holds = [pool.submit(worker.hold, replace(case, contenders=(n,)), process) for n, pool in pools.items()]
                results: worker.Results = dict(
                    zip(names, (future.result() for future in holds), strict=True)
                )  # all compile at the same time
                timers = {name: timer_in(pools[name]) for name in names if "problem" not in results[name]}
                for name, samples in measure(timers, seconds=seconds, seed=process).items():
                    results[name]["samples"] = samples
            except Exception as error:  # a process died
                results = {name: {"problem": f"failed: {worker.first_line(error)}"} for name in names}
        yield case, results


@contextlib.contextmanager
def fresh_process(malloc: str) -> Iterator[ProcessPoolExecutor]:
    os.environ["GLIBC_TUNABLES"] = MALLOC[malloc]  # glibc reads it when a process starts
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(
            1, mp_context=get_context("spawn"), initializer=worker.start, initargs=(f"{folder}/log", malloc)
        ) as pool,
    ):
        yield pool


def timer_in(pool: ProcessPoolExecutor) -> Timer:
    return lambda number: pool.submit(worker.time_held, number).result()


def without_problems(case: Case, found: dict[tuple[Case, str], list[dict[str, Any]]]) -> Case:
    names = (n for n in case.contenders if not any("problem" in result for result in found[case, n]))
    return replace(case, contenders=tuple(names))


@contextlib.contextmanager
def own_compile_cache() -> Iterator[None]:
    """Gives Inductor a temporary cache for this run, unless TORCHINDUCTOR_CACHE_DIR is set.

    The first process of a contender compiles, later processes load the compiled code from this cache.
    """
    variable = "TORCHINDUCTOR_CACHE_DIR"
    if variable in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ[variable] = folder
        try:
            yield
        finally:
            del os.environ[variable]
