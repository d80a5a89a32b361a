"""Measures contenders in turns."""

from __future__ import annotations

import functools
import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

Call = Callable[[], Any]
Timer = Callable[[int], float]  # number of calls -> seconds
MIN_SAMPLE = 2e-3  # seconds; a sample lasts at least this long
LONG = 0.05  # seconds; a call that takes this long needs no warm-up call
MIN_ROUNDS, MAX_ROUNDS = 3, 100


def seconds_of(call: Call, number: int, device: str) -> float:
    """Returns the seconds of `number` calls, measured with CUDA events on a GPU."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(number):
            call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3
    begin = time.perf_counter()
    for _ in range(number):
        call()
    return time.perf_counter() - begin


def timers(calls: Mapping[str, Call], device: str) -> dict[str, Timer]:
    return {name: functools.partial(seconds_of, call, device=device) for name, call in calls.items()}


def measure(timers: Mapping[str, Timer], *, seconds: float, seed: int = 0) -> dict[str, list[float]]:
    """Returns microseconds per call: one sample per round for each of `timers`.

    The timers take turns in shuffled order, so that a slow phase of the machine affects all of them and can be removed
    from the samples. Before each sample of a short call there is a call that is not counted. `seconds` is the total
    time; there are at least MIN_ROUNDS rounds.
    """
    if not timers:
        return {}
    number: dict[str, int] = {}
    warm: dict[str, int] = {}
    cost = 0.0
    for name, timer in timers.items():
        timer(1)  # sets up and compiles, so it takes longer than the next calls
        once = timer(1)
        if once < MIN_SAMPLE:  # too short to be measured by one call
            trial = max(1, math.ceil(MIN_SAMPLE / 4 / once))
            once = timer(trial) / trial
        number[name], warm[name] = max(1, math.ceil(MIN_SAMPLE / once)), int(once < LONG)
        cost += once * (number[name] + warm[name])
    rounds = min(max(int(seconds / cost), MIN_ROUNDS), MAX_ROUNDS)

    order, names = random.Random(seed), list(timers)
    samples: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            order.shuffle(names)
            for name in names:
                timers[name](warm[name])
                samples[name].append(timers[name](number[name]) / number[name] * 1e6)
    finally:
        if collecting:
            gc.enable()
    return without_drift(samples)


def without_drift(samples: dict[str, list[float]]) -> dict[str, list[float]]:
    """Scales each sample to a round of typical length, because a slow round is slow for all timers.

    The length of a round is its median sample. This halves the scatter of ratios of medians if neighbours or clocks
    change the speed of a machine (UNet 2-D, inference, straight-through / ReLU, 5 processes on 2 virtual cores: 0.976
    to 1.008; unscaled 0.942 to 1.018).
    """
    if len(samples) == 1:  # the length of a round is known only from other timers
        return samples
    lengths = [statistics.median(taken) for taken in zip(*samples.values(), strict=True)]
    typical = statistics.median(lengths)
    return {
        name: [sample * typical / length for sample, length in zip(taken, lengths, strict=True)]
        for name, taken in samples.items()
    }
