"""Measures cases in a process of its own: `python -m benchmarks.worker CASES.json SECONDS`.

A process for each setting of the allocator, and a crash costs one row, not the run. One JSON line for each row.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .blocks import BlockProblem
from .cases import Case
from .environment import available_bytes
from .implementations import IMPLEMENTATIONS, Implementation
from .memory import launches, memory_use
from .problem import Call, OperatorProblem, rotate
from .timing import measure, quartiles

Problem = OperatorProblem | BlockProblem
MEMORY_MEASURED_AT = 1 << 20  # elements: kept bytes and peaks are proportional to the size
BYTES_AN_ELEMENT = 12  # tensors of the input's size that a row may need at a time, at worst


def measure_case(case: Case, seconds: float, table: dict[str, Implementation] | None = None) -> dict[str, Any]:
    """One row of the results. `table` replaces the implementations (tests do that)."""
    table = table or IMPLEMENTATIONS[case.operator]
    row: dict[str, Any] = {**case.key(), "shape": list(case.shape) if not case.block else [], "results": []}
    need = case.numel * getattr(torch, case.dtype).itemsize * BYTES_AN_ELEMENT
    if need > available_bytes(case.device):
        reason = f"needs {need / 2**30:.1f} GiB"
        row["results"] = [
            {"implementation": name, "status": "skipped", "reason": reason} for name in case.implementations
        ]
        return row

    torch.set_num_threads(case.threads)
    torch._dynamo.reset()
    start = time.perf_counter()
    problem: Problem = BlockProblem(case) if case.block else OperatorProblem(case)
    moved = problem.bytes_to_move()
    row["bytes_to_move"] = moved
    calls: dict[str, Call] = {}
    results: dict[str, dict[str, Any]] = {}
    for name in case.implementations:
        result: dict[str, Any] = {"implementation": name, "status": "ok"}
        results[name] = result
        try:
            bound = _bind(problem, table[name], case.direction)
            wrong = problem.check(bound)
            if wrong:
                result |= {"status": "refused", "reason": wrong}
                continue
            if case.direction == "both" and (case.numel == MEMORY_MEASURED_AT or case.block):
                result |= memory_use(bound, problem.x, problem.grad)
            with _mode(case.direction):
                every = problem.calls(bound, case.direction)
                if case.device == "cuda":
                    result["launches"] = launches(every[0])
            calls[name] = rotate(every)
        except Exception as error:  # whatever a baseline raises is its result
            result |= {"status": "failed", "reason": _reason(error)}
    yardsticks = {name: rotate(every) for name, every in problem.yardsticks().items()}
    for name in yardsticks:
        results[name] = {"implementation": name, "status": "yardstick"}

    gc.collect()
    with _mode(case.direction):
        samples = measure(calls | yardsticks, threads=case.threads, device=case.device, seconds=seconds)
    for name, times in samples.items():
        first, median, third = quartiles(times)
        results[name] |= {"samples": [round(t, 3) for t in times], "median": median, "q1": first, "q3": third}
    row["results"] = list(results.values())
    row["seconds"] = round(time.perf_counter() - start, 2)
    return row


def _bind(problem: Problem, implementation: Implementation, direction: str) -> Any:
    if direction == "backward" and implementation.compiled:
        torch._functorch.config.donated_buffer = False  # the graph is kept for the next call
    return problem.bind(implementation)


def _mode(direction: str) -> contextlib.AbstractContextManager[Any]:
    return torch.no_grad() if direction == "forward" else contextlib.nullcontext()


def _reason(error: Exception) -> str:
    """The first line, short and without paths of this machine."""
    line = next(iter(str(error).strip().splitlines()), "")
    if os.sep in line:
        line = ""
    return f"{type(error).__name__}: {line[:160]}".rstrip(": ")


def settle_allocator() -> None:
    """glibc raises the size from which memory is fetched anew as large blocks are freed, up to 32 MiB. Any process
    that trains has reached that; start there, so that rows do not depend on their order."""
    torch.empty(31 << 20, dtype=torch.uint8)


def rows(cases: list[Case], seconds: float) -> Iterator[dict[str, Any]]:
    for case in cases:
        yield measure_case(case, seconds)
        if case.device == "cuda":
            torch.cuda.empty_cache()


def main() -> None:
    # Rows go to the real stdout; what compilers print must not come between.
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.filterwarnings("ignore", module="torch")
    cases = [
        Case(**{**entry, "implementations": tuple(entry["implementations"])})
        for entry in json.loads(Path(sys.argv[1]).read_text())
    ]
    if "mmap_threshold" not in os.environ.get("GLIBC_TUNABLES", ""):
        settle_allocator()
    for row in rows(cases, float(sys.argv[2])):
        print(json.dumps(row), file=output, flush=True)


if __name__ == "__main__":
    main()
