"""Interleaved measurement with torch.utils.benchmark."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils.benchmark import Timer

MIN_SAMPLE = 2e-3  # seconds that one sample lasts at least
MAX_ROUNDS = 21
SLOW = 0.15  # seconds a call: such an implementation sits out all rounds but MIN_ROUNDS
MIN_ROUNDS = 3


class EventTimer:
    """A clock for `Timer` that is read on the GPU: each second reading is the seconds since the one before."""

    def __init__(self) -> None:
        self._start: torch.cuda.Event | None = None

    def __call__(self) -> float:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        if self._start is None:
            self._start = event
            return 0.0
        event.synchronize()
        elapsed = self._start.elapsed_time(event) / 1e3
        self._start = None
        return elapsed


def measure(
    calls: Mapping[str, Callable[[], Any]], *, threads: int, device: str, seconds: float, seed: int = 0
) -> dict[str, list[float]]:
    """Microseconds a call: samples for each of `calls`, taken in turns so that a drift of the machine hits all alike.

    The order within a round is shuffled. Every sample follows at least two calls that are not counted (Timer.timeit).
    `seconds` is how long all of it should take; there are at least MIN_ROUNDS rounds, whatever they take.
    """
    keywords: dict[str, Any] = {"timer": EventTimer()} if device == "cuda" else {}
    timers = {
        name: Timer("call()", globals={"call": call}, num_threads=threads, **keywords) for name, call in calls.items()
    }
    once, number, cost = {}, {}, {}
    for name, timer in timers.items():
        once[name] = timed(calls[name])
        if once[name] < MIN_SAMPLE:  # one call is no measure of a short one
            once[name] = timer.timeit(max(1, math.ceil(MIN_SAMPLE / 4 / once[name]))).mean
        number[name] = max(1, math.ceil(MIN_SAMPLE / once[name]))
        cost[name] = once[name] * (number[name] + max(number[name] // 100, 2))

    fast = [name for name in timers if once[name] < SLOW]
    left = seconds - MIN_ROUNDS * sum(cost.values())
    extra = int(left / sum(cost[name] for name in fast)) if fast else 0
    rounds = MIN_ROUNDS + max(0, min(extra, MAX_ROUNDS - MIN_ROUNDS))

    order = random.Random(seed)
    samples: dict[str, list[float]] = {name: [] for name in timers}
    for index in range(rounds):
        names = list(timers) if index < MIN_ROUNDS else list(fast)
        order.shuffle(names)
        for name in names:
            samples[name].append(timers[name].timeit(number[name]).mean * 1e6)
    return samples


def timed(call: Callable[[], Any]) -> float:
    """Seconds of one call, roughly."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def quartiles(samples: list[float]) -> tuple[float, float, float]:
    if len(samples) == 1:
        return samples[0], samples[0], samples[0]
    first, median, third = statistics.quantiles(samples, n=4, method="inclusive")
    return first, median, third
