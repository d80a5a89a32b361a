"""Measures cases in a process of its own: `python -m benchmarks.worker ORDER.json`. One JSON line for each case."""

from __future__ import annotations

import json
import os
import random
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .cases import BOTH, TRAINING, Case
from .contenders import CONTENDERS, Contender
from .problems import problem
from .timing import Call, measure


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a worker is asked for."""

    cases: list[Case]
    seconds: float  # of timing, for each case
    process: int  # how many measured the same before; the first one checks, and reads memory

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Order:
        fields = json.loads(text)
        cases = [Case(**case | {"contenders": tuple(case["contenders"])}) for case in fields.pop("cases")]
        return Order(cases=cases, **fields)


def measure_case(
    case: Case, *, seconds: float, process: int = 0, contenders: dict[str, Contender] = CONTENDERS
) -> dict[str, dict[str, Any]]:
    """Contender -> its samples in microseconds and its memory in bytes, or `problem`: why it was not timed."""
    torch.set_num_threads(case.threads)
    torch._dynamo.reset()
    subject = problem(case)
    results: dict[str, dict[str, Any]] = {}
    calls: dict[str, Call] = {}
    for name in case.contenders:
        results[name] = {}
        try:
            entry = subject.entry(name, contenders.get(name))
            if process == 0 and case.malloc == "default":
                wrong = entry.check()
                if wrong:
                    results[name] = {"problem": f"refused: {wrong}"}
                    continue
                if case.task in (BOTH, TRAINING):
                    results[name] = {**entry.memory()}
            calls[name] = entry.call
        except Exception as error:  # what a contender raises is its result
            results[name] = {"problem": f"failed: {first_line(error)}"}
    for name, samples in measure(calls, device=case.device, seconds=seconds, seed=process).items():
        results[name]["samples"] = [round(sample, 3) for sample in samples]
    return results


def first_line(error: Exception) -> str:
    """Short, and without paths of this machine."""
    line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {'' if os.sep in line else line[:160]}".rstrip(": ")


def main() -> None:
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what compilers print must not come between
    warnings.filterwarnings("ignore", module="torch")
    order = Order.from_json(Path(sys.argv[1]).read_text())
    if "mmap_threshold" not in os.environ.get("GLIBC_TUNABLES", ""):
        # glibc raises the size from which memory is fetched anew as large blocks are freed, up to 32 MiB. Any process
        # that trains has reached that; rows should not depend on their order.
        torch.empty(31 << 20, dtype=torch.uint8)
    shuffled = list(enumerate(order.cases))
    random.Random(order.process).shuffle(shuffled)
    for index, case in shuffled:
        results = measure_case(case, seconds=order.seconds, process=order.process)
        print(json.dumps({"case": index, "results": results}), file=output, flush=True)
        if case.device == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
