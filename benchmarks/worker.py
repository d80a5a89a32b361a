"""Measures cases, in processes that run.py starts."""

from __future__ import annotations

import gc
import os
from typing import Any

import torch

from .cases import BOTH, TRAINING, WITH_GRADIENTS, Case
from .contenders import CONTENDERS, Contender
from .problems import problem
from .timing import Call, measure, seconds_of, timers

Results = dict[str, dict[str, Any]]


def start(log: str, malloc: str) -> None:
    """Prepares a new process: sends its output to a log, and sets glibc's threshold."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)  # compilers and profilers print messages
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if malloc == "default":
        # Allocations above a threshold get new pages each time. When glibc frees a larger block, it raises the
        # threshold, up to 32 MiB. Training does this soon; it is done first here, so that rows do not depend on their
        # order.
        torch.empty(31 << 20, dtype=torch.uint8)


def measure_case(
    case: Case, *, seconds: float, process: int = 0, contenders: dict[str, Contender] = CONTENDERS
) -> Results:
    """Returns samples in microseconds and memory in bytes by contender, or the `problem` that prevents timing.

    `process` is the number of processes that measured the case before. The first one checks results and reads memory.
    """
    results, calls = set_up(case, process, contenders)
    with torch.set_grad_enabled(case.task in WITH_GRADIENTS):
        for name, samples in measure(timers(calls, case.device), seconds=seconds, seed=process).items():
            results[name]["samples"] = samples
    if case.device == "cuda":
        torch.cuda.empty_cache()
    return results


def set_up(case: Case, process: int, contenders: dict[str, Contender]) -> tuple[Results, dict[str, Call]]:
    """Returns each contender's results before timing, and the calls to time."""
    torch.set_num_threads(case.threads)
    if case.compiled:
        torch._dynamo.reset()
        torch._dynamo.config.recompile_limit = 64  # activations share code objects; if a limit is hit, raise
        torch._dynamo.config.fail_on_recompile_limit_hit = True
    subject = problem(case)
    results: Results = {}
    calls: dict[str, Call] = {}
    for name in case.contenders:
        results[name] = {}
        try:
            entry = subject.entry(contenders[name])
            if process == 0 and case.malloc == "default":
                wrong = entry.check()
                if wrong:
                    results[name] = {"problem": f"refused: {wrong}"}
                    continue
                if case.task in (BOTH, TRAINING):
                    results[name] = {**entry.memory()}
            calls[name] = entry.call
        except Exception as error:  # an exception is the contender's result
            results[name] = {"problem": f"failed: {first_line(error)}"}
    return results, calls


_held: tuple[Case, Call]


def hold(case: Case, process: int) -> dict[str, Any]:
    """Sets up the only contender of the case for `time_held`, and returns its results before timing."""
    global _held
    results, calls = set_up(case, process, CONTENDERS)
    for call in calls.values():
        _held = case, call
    gc.disable()
    return results[case.contenders[0]]


def time_held(number: int) -> float:
    """Returns the seconds of `number` calls of the contender that `hold` set up."""
    case, call = _held
    with torch.set_grad_enabled(case.task in WITH_GRADIENTS):
        return seconds_of(call, number, case.device)


def first_line(error: BaseException) -> str:
    """Returns the first line of an error, short and without paths of this machine."""
    line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {'' if os.sep in line else line[:160]}".rstrip(": ")
