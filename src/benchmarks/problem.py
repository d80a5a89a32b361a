"""A row's tensors, the calls that are timed on them, and the check that comes first."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .cases import PER_CHANNEL, Case
from .implementations import FIXED_SLOPE, LEARNABLE, Implementation, compile_function, needs_channel_dim
from .verify import check_operator

Call = Callable[[], Any]
SHARED_SLOPE = 0.25


@dataclass
class Bound:
    """An implementation with its slopes, ready to be called on x."""

    implementation: Implementation
    function: Callable[..., Tensor]
    alpha: Tensor | float
    keywords: dict[str, Any] = field(default_factory=dict)

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x, self.alpha, **self.keywords)

    def inputs(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x, self.alpha) if isinstance(self.alpha, Tensor) else (x,)


def make_tensor(case: Case, generator: torch.Generator) -> Tensor:
    """Normal values in the case's layout. No zeros: the implementations differ in what they call negative there."""
    dtype, device, shape = getattr(torch, case.dtype), case.device, case.shape
    if case.layout == "sliced":
        x = torch.empty(shape[0], 2 * shape[1], dtype=dtype, device=device)[:, : shape[1]]
    elif case.layout == "channels_last":
        x = torch.empty(shape, dtype=dtype, device=device, memory_format=torch.channels_last)
    else:
        x = torch.empty(shape, dtype=dtype, device=device)
    x.normal_(generator=generator)
    return x.masked_fill_(x == 0, 1)


class OperatorProblem:
    """One operator on one tensor."""

    def __init__(self, case: Case, seed: int = 0) -> None:
        self.case = case
        generator = torch.Generator(case.device).manual_seed(seed)
        bytes_each = 2 * case.numel * getattr(torch, case.dtype).itemsize
        self.buffers = [
            (make_tensor(case, generator).requires_grad_(), make_tensor(case, generator))
            for _ in range(buffer_count(case.device, bytes_each))
        ]

    @property
    def x(self) -> Tensor:
        return self.buffers[0][0]

    def slopes(self, implementation: Implementation) -> Tensor:
        """The slopes that the implementation is expected to use, float64: one, or one for each channel."""
        case = self.case
        if implementation.slope is not None:
            return torch.tensor([implementation.slope], dtype=torch.float64)
        if case.operator != LEARNABLE:
            return torch.tensor([FIXED_SLOPE], dtype=torch.float64)
        if case.layout not in PER_CHANNEL or implementation.one_slope:
            return torch.tensor([SHARED_SLOPE], dtype=torch.float64)
        channels = case.shape[case.channel_dim]
        return (torch.arange(channels, dtype=torch.float64) % 64 + 1) / 256  # exact in every dtype

    def bind(self, implementation: Implementation) -> Bound:
        function = compile_function(implementation.function) if implementation.compiled else implementation.function
        slopes = self.slopes(implementation)
        if not implementation.learns:
            return Bound(implementation, function, slopes.item())
        alpha = slopes.to(self.x.dtype).to(self.x.device)
        keywords = {}
        if needs_channel_dim(implementation):
            if self.case.layout != "flat":
                keywords["channel_dim"] = self.case.channel_dim
        elif implementation.alpha == "[]" or alpha.numel() > 1:
            alpha = alpha.view(self.broadcast_shape(alpha.numel()))
        return Bound(implementation, function, alpha.requires_grad_(), keywords)

    def broadcast_shape(self, channels: int) -> tuple[int, ...]:
        if channels == 1:
            return ()
        shape = [1] * len(self.case.shape)
        shape[self.case.channel_dim] = channels
        return tuple(shape)

    def check(self, bound: Bound) -> str | None:
        """Why the implementation is not to be timed, or None."""
        slopes = self.slopes(bound.implementation)
        return check_operator(bound, self.x, slopes.view(self.broadcast_shape(slopes.numel())), self.case.operator)

    def calls(self, bound: Bound, direction: str) -> list[Call]:
        """The timed calls, one for each pair of buffers."""
        return [self._call(bound, direction, x, grad) for x, grad in self.buffers]

    def _call(self, bound: Bound, direction: str, x: Tensor, grad: Tensor) -> Call:
        inputs = bound.inputs(x)
        if direction == "forward":
            return lambda: bound(x)
        if direction == "backward":
            y = bound(x)
            return lambda: torch.autograd.grad(y, inputs, grad, retain_graph=True)
        return lambda: torch.autograd.grad(bound(x), inputs, grad)

    @property
    def grad(self) -> Tensor:
        return self.buffers[0][1]

    def yardsticks(self) -> dict[str, list[Call]]:
        """What the memory can do: copy_ and add into memory that is already there, on the same buffers."""
        if self.case.numel < 1 << 20:
            return {}
        result: dict[str, list[Call]] = {"copy_": [], "add_out": []}
        for x, grad in self.buffers:
            source, out = x.detach(), torch.empty_like(x, requires_grad=False)
            result["copy_"].append(lambda source=source, out=out: out.copy_(source))  # type: ignore[misc]
            result["add_out"].append(lambda g=grad, s=source, out=out: torch.add(g, s, out=out))  # type: ignore[misc]
        return result if self.case.direction == "backward" else {"copy_": result["copy_"]}

    def bytes_to_move(self) -> float:
        """The least that any implementation has to read and write, in bytes."""
        tensor = self.case.numel * self.x.element_size()
        mask = self.case.numel / 8
        learns = self.case.operator == LEARNABLE
        forward = 2 * tensor
        if self.case.direction == "forward":
            return forward
        backward = 3 * tensor if learns else 2 * tensor + mask
        if self.case.direction == "backward":
            return backward
        return forward + backward + (0 if learns else mask)


def buffer_count(device: str, bytes_each: int) -> int:
    """On a GPU: as many buffers as it takes to find nothing of them in the L2 when their turn comes again."""
    if device != "cuda":
        return 1
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return max(1, min(256, -(-4 * cache // bytes_each)))


def rotate(calls: list[Call]) -> Call:
    if len(calls) == 1:
        return calls[0]
    turns = itertools.cycle(calls)
    return lambda: next(turns)()
