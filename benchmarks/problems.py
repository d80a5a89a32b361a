"""Builds the tensors and modules of a case, for checks, timing and memory."""

from __future__ import annotations

import contextlib
import copy
import gc
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cases import BOTH, FORWARD, GRAPHED, INFERENCE, Case
from .contenders import Contender, Layer
from .memory import allocated
from .networks import ALL, build, outputs, with_activation
from .timing import Call
from .verify import formula, wrong_network, wrong_operator

# Tolerance under autocast. In bfloat16, x is often exactly 0, and PyTorch's own activations count 0 as negative: the
# gradients of LeakyReLU are off by 0.17 in a residual network, those of leaky_ext by 0.
HALVES = 0.3
SCALE = 1024.0  # scale of the loss in float16: without it, gradients would be subnormal


@dataclass(kw_only=True)
class Entry:
    """One contender in a case."""

    call: Call  # is timed
    check: Callable[[], str | None]  # returns what is wrong, or None
    memory: Callable[[], dict[str, int]]  # returns bytes


def compile_static(function: Any) -> Any:
    return torch.compile(function, dynamic=False)


class OperatorProblem:
    def __init__(self, case: Case) -> None:
        self.case = case
        generator = torch.Generator(case.device).manual_seed(0)
        bytes_each = 2 * case.numel * getattr(torch, case.dtype).itemsize
        self.buffers = [
            (self.tensor(generator).requires_grad_(), self.tensor(generator))
            for _ in range(buffer_count(case.device, bytes_each))
        ]

    def tensor(self, generator: torch.Generator) -> Tensor:
        """Returns normal values without zeros, because contenders have different gradients at 0."""
        case = self.case
        memory = torch.channels_last if case.layout == "channels_last" else torch.contiguous_format
        x = torch.empty(case.shape, dtype=getattr(torch, case.dtype), device=case.device, memory_format=memory)
        x.normal_(generator=generator)
        return x.masked_fill_(x == 0, 1)

    def slopes(self) -> Tensor:
        """Returns one slope, or one per channel. The values are exact in every dtype."""
        count = 1 if self.case.layout == "flat" else self.case.shape[1]
        slopes = (torch.arange(count) % 64 + 16) / 64 if count > 1 else torch.tensor([0.25])
        return slopes.to(self.buffers[0][0].dtype).to(self.case.device)

    def entry(self, contender: Contender) -> Entry:
        alpha: Any = self.slopes().requires_grad_() if contender.learns else contender.backward
        function = compile_static(contender.function) if self.case.compiled else contender.function
        calls = [self.call(contender, function, x, alpha, grad) for x, grad in self.buffers]

        def bound(x: Tensor) -> Tensor:
            return function(x, alpha)

        return Entry(
            call=rotate(calls),
            check=lambda: self.check(contender, bound, alpha),
            memory=dict if contender.mkldnn else lambda: self.memory(bound, calls[0]),
        )

    def call(self, contender: Contender, function: Any, x: Tensor, alpha: Any, grad: Tensor) -> Call:
        if contender.mkldnn:
            x, grad = x.detach().to_mkldnn().requires_grad_(), grad.to_mkldnn()
        if self.case.task == BOTH:
            inputs = (x, alpha) if contender.learns else (x,)
            return lambda: torch.autograd.grad(function(x, alpha), inputs, grad)
        if self.case.task == FORWARD:
            return lambda: function(x, alpha)
        return lambda: F.relu(function(x, alpha))

    def check(self, contender: Contender, bound: Callable[[Tensor], Tensor], alpha: Any) -> str | None:
        x = self.buffers[0][0]
        scale = min(1.0, 4e4 / x.numel())  # the sum stays within float16
        grad = (torch.rand_like(x, requires_grad=False) + 0.5) * scale
        own_x, own_grad = x, grad
        if contender.mkldnn:
            own_x, own_grad = x.detach().to_mkldnn().requires_grad_(), grad.to_mkldnn()
        y = bound(own_x)
        if y.shape != x.shape or y.dtype != x.dtype:
            return f"y is {y.dtype} {list(y.shape)}, not {x.dtype} {list(x.shape)}"
        grads = torch.autograd.grad(y, (own_x, alpha) if contender.learns else (own_x,), own_grad)
        if contender.mkldnn:
            y, grads = y.to_dense(), (grads[0].to_dense(), *grads[1:])
        slopes = alpha if contender.learns else torch.tensor([alpha], dtype=torch.float64, device=x.device)
        if slopes.numel() > 1:
            slopes = slopes.view(-1, 1, 1)
        return wrong_operator(contender, x, slopes, grad, y, grads)

    def memory(self, bound: Callable[[Tensor], Tensor], call: Call) -> dict[str, int]:
        """Measures the memory. kept: with input and output. beyond: without them, as if other layers save both."""
        x = self.buffers[0][0].detach().requires_grad_()
        call()  # allocates what later calls use again

        def nobody_else(mark: Call) -> None:
            graph = bound(x.clone()).sum().grad_fn  # keeps the node before it, and no tensor
            gc.collect()
            mark()
            del graph

        def layers_around(mark: Call) -> int:
            y = bound(x)
            mark()
            size = y.untyped_storage().nbytes()
            del y
            call()
            return size

        kept, _ = allocated(nobody_else, self.case.device)
        both, size = allocated(layers_around, self.case.device)
        return {"kept": kept.marked, "beyond": both.marked - size, "peak": both.peak}


class ModuleProblem(OperatorProblem):
    """Calls the contender's module in place of its function."""

    def entry(self, contender: Contender) -> Entry:
        assert contender.module is not None
        module = contender.module(nn.PReLU(device=self.case.device))
        alpha = next(module.parameters(), contender.backward)
        x, grad = self.buffers[0]
        inputs = (x, alpha) if contender.learns else (x,)
        backward = self.case.task == BOTH
        call = (lambda: torch.autograd.grad(module(x), inputs, grad)) if backward else (lambda: module(x))
        return Entry(
            call=call, check=lambda: self.check(contender, module, alpha), memory=lambda: self.memory(module, call)
        )


class NetworkProblem:
    def __init__(self, case: Case) -> None:
        self.case = case
        self.network = ALL[case.subject]
        self.model, self.x = build(case.subject, case.device)
        self.activations = {name for name, module in self.model.named_modules() if isinstance(module, nn.PReLU)}
        self.references: dict[tuple[Any, Any], dict[str, Tensor]] = {}

    def module(self, contender: Contender) -> nn.Module:
        assert contender.module is not None
        model = with_activation(copy.deepcopy(self.model), contender.module)
        return model.eval() if self.case.task == INFERENCE else model

    def entry(self, contender: Contender) -> Entry:
        model = self.module(contender)
        forward = compile_static(model) if self.case.compiled else model
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
        scaler = torch.amp.GradScaler(self.case.device, enabled=self.network.autocast == torch.float16)

        def gradients() -> None:
            optimizer.zero_grad()
            scaler.scale(self.loss_of_step(forward)).backward()

        def step(compute: Call) -> None:
            compute()
            scaler.step(optimizer)
            scaler.update()

        def memory() -> dict[str, int]:
            optimizer.zero_grad()

            def run(mark: Call) -> None:
                value = self.loss_of_step(forward)
                mark()
                value.backward()

            use, _ = allocated(run, self.case.device)
            return {"kept": use.marked, "peak": use.peak}

        def graphed() -> Call:
            """Returns the step. Its first call captures forward and backward in a CUDA graph."""
            captured: list[Call] = []

            def call() -> None:
                if not captured:
                    captured.append(capture(gradients))
                step(captured[0])

            return call

        inference = self.case.task == INFERENCE
        calls: dict[str, Call] = {INFERENCE: lambda: self.outputs(forward), GRAPHED: graphed()}
        return Entry(
            call=calls.get(self.case.task, lambda: step(gradients)),
            check=lambda: self.check(contender, model, forward),
            memory=dict if inference else memory,
        )

    def outputs(self, forward: Callable[[Tensor], Any]) -> list[Tensor]:
        dtype = self.network.autocast
        with torch.autocast(self.case.device, dtype) if dtype else contextlib.nullcontext():
            return outputs(forward(self.x))

    def loss_of_step(self, forward: Callable[[Tensor], Any]) -> Tensor:
        return loss_of(self.outputs(forward))

    def check(self, contender: Contender, model: nn.Module, forward: Callable[[Tensor], Any]) -> str | None:
        key = contender.forward, contender.backward
        if key not in self.references:  # the same network, with the formula in plain PyTorch

            def plain(x: Tensor, alpha: Any) -> Tensor:
                wide = alpha.view(-1, *(1,) * (x.ndim - 2)) if isinstance(alpha, Tensor) else alpha
                return formula(x.float(), wide, contender).to(
                    x.dtype
                )  # computed in float32 and rounded once, as in the kernels

            reference = copy.deepcopy(self.model)
            reference = with_activation(reference, lambda prelu: Layer(plain, prelu.weight))
            self.references[key] = self.observe(reference.train(model.training), reference)
        # Convolutions on CUDA use TF32. Compiled code sums in another order, so an input of an activation near 0 may
        # change its sign: PyTorch's own LeakyReLU is off by 0.004 in a residual network.
        tolerance = 2e-2 if self.case.device == "cuda" else 1e-2 if self.case.compiled else 2e-3
        tolerance = HALVES if self.network.autocast else tolerance
        return wrong_network(self.observe(model, forward), self.references[key], tolerance)

    def observe(self, model: nn.Module, forward: Callable[[Tensor], Any]) -> dict[str, Tensor]:
        """Returns outputs and gradients of parameters, with the same names for all contenders."""
        if self.case.task == INFERENCE:
            with torch.no_grad():
                return {f"output {i}": y.clone() for i, y in enumerate(self.outputs(forward))}
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        ys = self.outputs(forward)
        names, parameters = zip(*model.named_parameters(), strict=True)
        scale = SCALE if self.network.autocast == torch.float16 else 1.0
        grads = torch.autograd.grad(scale * loss_of(ys), parameters, allow_unused=True)
        for name, buffer in model.named_buffers():  # statistics of normalizations
            buffer.copy_(before[name])
        seen = {f"output {i}": y.detach() for i, y in enumerate(ys)}
        return seen | {self.gradient(name): g for name, g in zip(names, grads, strict=True) if g is not None}

    def gradient(self, name: str) -> str:
        parent = name.rpartition(".")[0]
        return f"gradient of {parent}'s slopes" if parent in self.activations else f"gradient of {name}"


def loss_of(ys: list[Tensor]) -> Tensor:
    return torch.stack([y.float().square().mean() for y in ys]).sum()


def capture(step: Call) -> Call:
    """Captures the step in a CUDA graph and returns its replay. The gradients are in the memory of the graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def problem(case: Case) -> OperatorProblem | NetworkProblem:
    kinds = {"operator": OperatorProblem, "module": ModuleProblem}
    return kinds.get(case.subject, NetworkProblem)(case)


def buffer_count(device: str, bytes_each: int) -> int:
    """Returns how many buffers a GPU needs, so that a buffer is no longer in the L2 cache when it is used again."""
    if device != "cuda":
        return 1
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return max(1, min(256, -(-4 * cache // bytes_each)))


def rotate(calls: list[Call]) -> Call:
    if len(calls) == 1:
        return calls[0]
    turns = itertools.cycle(calls)
    return lambda: next(turns)()
