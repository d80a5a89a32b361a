"""The peak of memory while something runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

MIB = 2**20


def peak(run: Callable[[], Any], device: str) -> int:
    """Returns the maximum number of allocated bytes during a run."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        run()
    events = sorted(trace.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    total = most = 0
    for event in events:
        if event.name() == "[memory]":
            total += event.nbytes()
            most = max(most, total)
    return most
