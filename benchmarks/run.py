"""`python -m benchmarks run SUITE ...`: measures in fresh processes, merges results into the machine's file."""

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
    """Measures suites one after the other. What a suite found is in the file as soon as it is done or interrupted.

    `only`: cases that have this in their name, for example "UNet 3-D" or "training step, default". `seconds`: in place
    of SECONDS of the suite.
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
        if device == "cuda":  # no heap of the host's decides there
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
    """The rows of the results, and whether Ctrl-C came before all was measured."""
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
    """Each case with its results, in an order of this process's own. Contenders that had a problem are not run again.

    If the process dies, that is the result of the cases that are left.
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
                error = future.exception()  # the process died, or no contender is to blame
                if isinstance(error, KeyboardInterrupt):
                    raise error
                problem = f"failed: {worker.first_line(error)}" if error else ""
                yield case, {name: {"problem": problem} for name in case.contenders} if error else future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def in_own_processes(
    cases: list[Case], found: dict[tuple[Case, str], list[dict[str, Any]]], *, seconds: float, process: int
) -> Iterator[tuple[Case, worker.Results]]:
    """Each case with its results, every contender in a process of its own. They still take turns.

    What was compiled before changes what a compiler makes of the next, so compiled contenders share no process.
    """
    for case in cases:
        names = without_problems(case, found).contenders
        with contextlib.ExitStack() as stack:
            pools = {name: stack.enter_context(fresh_process(case.malloc)) for name in names}
            try:
                holds = [pool.submit(worker.hold, replace(case, contenders=(n,)), process) for n, pool in pools.items()]
                results: worker.Results = dict(
                    zip(names, (future.result() for future in holds), strict=True)
                )  # compile at once
                timers = {name: timer_in(pools[name]) for name in names if "problem" not in results[name]}
                for name, samples in measure(timers, seconds=seconds, seed=process).items():
                    results[name]["samples"] = samples
            except Exception as error:  # a process died
                results = {name: {"problem": f"failed: {worker.first_line(error)}"} for name in names}
        yield case, results


@contextlib.contextmanager
def fresh_process(malloc: str) -> Iterator[ProcessPoolExecutor]:
    os.environ["GLIBC_TUNABLES"] = MALLOC[malloc]  # is read when a process starts
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
    """Gives this run a folder of its own for what Inductor compiles, unless TORCHINDUCTOR_CACHE_DIR names one.

    Later processes find there what the first one compiled.
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
