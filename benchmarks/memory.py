"""What a graph keeps, the peak of a call, and kernel launches, as the allocator and the profiler see them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile


def _allocations(run: Callable[[], Any]) -> tuple[int, int, Any]:
    """Bytes that `run` left allocated, the most it had at a time, and its result (kept alive until after both)."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = run()
        left, peak = torch.cuda.memory_allocated() - before, torch.cuda.max_memory_allocated() - before
        return left, peak, result
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


def memory_use(bound: Any, x: Tensor, grad: Tensor) -> dict[str, int]:
    """Bytes of one forward and backward of `bound` (see problem.Bound) on a tensor like x.

    kept: what stays allocated for backward when neither input nor output is held by anyone else.
    kept_beyond: the same where both are held anyway, by the layers before and after.
    peak: the most that is allocated at a time, beyond the input and the incoming gradient.
    """
    source = x.detach().requires_grad_()
    inputs = bound.inputs(source)
    torch.autograd.grad(bound(source), inputs, grad)  # whatever is set up once
    gc.collect()

    def only_graph() -> Any:
        node = bound(source.clone()).sum().grad_fn  # keeps no tensor, but its predecessor, whatever that is written in
        gc.collect()
        return node

    def forward() -> Tensor:
        return bound(source)

    def both() -> Any:
        return torch.autograd.grad(bound(source), inputs, grad)

    kept, _, node = _allocations(only_graph)
    del node
    held, _, y = _allocations(forward)
    own = y.untyped_storage().nbytes() if y.untyped_storage().data_ptr() != source.untyped_storage().data_ptr() else 0
    del y
    _, peak, grads = _allocations(both)
    del grads
    return {"kept": kept, "kept_beyond": held - own, "peak": peak}


def launches(call: Callable[[], Any]) -> int:
    """Kernels that one call puts on the GPU."""
    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        call()
        torch.cuda.synchronize()
    return sum(event.device_type == torch._C._autograd.DeviceType.CUDA for event in trace.events())
