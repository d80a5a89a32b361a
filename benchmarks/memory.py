"""What a graph keeps and the peak of a step, as the allocator sees them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


def allocated(run: Callable[[], Any], device: str) -> tuple[int, int, Any]:
    """Bytes that `run` left allocated, the most that it had at a time, and its result, which is alive until then."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = run()
        return torch.cuda.memory_allocated() - before, torch.cuda.max_memory_allocated() - before, result
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        result = run()
    events, sizes = list(trace.profiler.kineto_results.experimental_event_tree()), []
    while events:
        event = events.pop()
        events.extend(event.children)
        if event.tag == torch._C._profiler._EventType.Allocation:
            sizes.append((event.start_time_ns, event.extra_fields.alloc_size))
    left = peak = 0
    for _, size in sorted(sizes, key=lambda item: item[0]):
        left += size
        peak = max(peak, left)
    return left, peak, result


def kept_by(forward: Callable[[], Tensor], device: str) -> int:
    """Bytes that the graph of `forward` keeps for backward; its input counts where nobody else holds it."""

    def graph() -> Any:
        # sum() keeps no tensor, but the node before it, whatever language that is written in.
        node = forward().sum().grad_fn
        gc.collect()
        return node

    return allocated(graph, device)[0]
