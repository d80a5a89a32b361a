"""Measures the memory that a graph keeps and the peak of a step, from the allocator."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function


@dataclass
class Use:
    """Bytes that were allocated during a run."""

    peak: int = 0
    left: int = 0  # at the end of the run
    marked: int = 0  # when the run called `mark`


def allocated(run: Callable[[Callable[[], None]], Any], device: str) -> tuple[Use, Any]:
    """Runs run(mark). Returns its memory use and its result, which stays alive until the end of the measurement."""
    gc.collect()
    if device == "cuda":
        return allocated_on_cuda(run)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        result = run(mark)
    events, changes = list(trace.profiler.kineto_results.experimental_event_tree()), []
    while events:
        event = events.pop()
        events.extend(event.children)
        if event.tag == torch._C._profiler._EventType.Allocation:
            changes.append((event.start_time_ns, event.extra_fields.alloc_size))
        elif event.name == MARK:
            changes.append((event.start_time_ns, None))
    use = Use()
    for _, size in sorted(changes, key=lambda change: change[0]):
        if size is None:
            use.marked = use.left
            continue
        use.left += size
        use.peak = max(use.peak, use.left)
    return use, result


MARK = "leaky_ext: mark"


def mark() -> None:
    with record_function(MARK):
        pass


def allocated_on_cuda(run: Callable[[Callable[[], None]], Any]) -> tuple[Use, Any]:
    use = Use()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()

    def mark() -> None:
        use.marked = torch.cuda.memory_allocated() - before

    result = run(mark)
    use.left, use.peak = torch.cuda.memory_allocated() - before, torch.cuda.max_memory_allocated() - before
    return use, result
