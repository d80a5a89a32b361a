"""Compiled by Inductor: numbers, what is saved, and what is compiled again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.autograd.graph import saved_tensors_hooks

import leaky_ext
from leaky_ext import learnable_leaky_relu, straight_through_relu

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
INF, NAN = float("inf"), float("nan")
SPECIAL = [0.0, -0.0, NAN, INF, -INF, 1e-7, -1e-7, 3.0, -3.0]
SLOPES: dict[str, Callable[[], Any]] = {
    "float": lambda: 0.3,
    "frozen": lambda: torch.tensor([0.3]),
    "learned": lambda: torch.tensor([-0.3], requires_grad=True),
    "per channel": lambda: torch.tensor([0.3, 0.0, -2.0], requires_grad=True),
    "broadcast": lambda: torch.linspace(-1, 1, 12).reshape(2, 1, 6).requires_grad_(),
}
functions = pytest.mark.parametrize("function", [learnable_leaky_relu, straight_through_relu])


def kept(run: Callable[[], Tensor]) -> int:
    saved: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        saved[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with saved_tensors_hooks(pack, lambda t: t):
        run()
    return sum(saved.values())


@pytest.mark.slow
@functions
@pytest.mark.parametrize("slopes", SLOPES)
def test_numbers_are_those_of_eager_calls(function: Callable, slopes: str, device: str) -> None:
    """Equal to the bit, except the order of the sum in d(alpha), which is finite if only positive x are infinite."""
    torch._dynamo.reset()
    with torch.device(device):
        alpha = SLOPES[slopes]()
        values = torch.tensor(SPECIAL * 4)
    learned = isinstance(alpha, Tensor) and alpha.requires_grad
    finite = torch.where(values.isfinite() | (values == INF), values, -0.5)  # d(alpha) of these is a number

    def run(xs: list[Tensor], alpha: Any) -> list[Tensor]:
        return [function(x, alpha) for x in xs]

    compiled = torch.compile(run, fullgraph=True)
    for elements in (values, finite):
        xs = [elements.to(dtype).reshape(2, 3, 6).requires_grad_() for dtype in DTYPES]
        grads = [torch.randn(x.shape).to(x) for x in xs]
        results = []
        for step in (compiled, run):
            ys = step(xs, alpha)
            results.append((ys, torch.autograd.grad(ys, [*xs, alpha] if learned else xs, grads)))
        (ys, actual), (expected_ys, expected) = results
        torch.testing.assert_close(ys, expected_ys, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(actual[: len(xs)], expected[: len(xs)], rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(actual[len(xs) :], expected[len(xs) :], rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape, channels", [((1 << 24,), 1), ((64, 64, 64, 64), 64)])
def test_grad_alpha_of_many_elements(shape: tuple[int, ...], channels: int, dtype: torch.dtype) -> None:
    x, alpha = torch.randn(shape).to(dtype), torch.full((channels,), 0.25, requires_grad=True)
    grad = torch.rand(shape).to(dtype)
    products = torch.where(x >= 0, 0, grad.double() * x.double())
    axes = [d for d in range(x.ndim) if channels == 1 or d != 1]
    (actual,) = torch.autograd.grad(torch.compile(learnable_leaky_relu)(x, alpha), alpha, grad)
    assert ((actual - products.sum(axes)).abs() < 1e-6 * products.abs().sum(axes)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "ours, theirs",
    [
        (lambda: leaky_ext.LearnableLeakyReLU(8, init=0.25), lambda: nn.PReLU(8)),
        (lambda: leaky_ext.StraightThroughReLU(0.01), nn.ReLU),
    ],
)
def test_an_activation_alone_keeps_no_more_than_pytorchs_own(ours: Callable, theirs: Callable, device: str) -> None:
    x = torch.randn(4, 8, 64, device=device, requires_grad=True)
    sizes = []
    for make in (ours, theirs):
        torch._dynamo.reset()
        compiled = torch.compile(make().to(device), fullgraph=True)
        compiled(x)
        sizes.append(kept(lambda run=compiled: run(x)))
    assert sizes[0] <= sizes[1]


class Forms(nn.Module):
    """All forms of a call that must compile without a graph break."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 4),
            leaky_ext.LearnableLeakyReLU(init=0.2, save="output"),
            nn.Linear(4, 4),
            leaky_ext.LearnableLeakyReLU(inplace=True),
            nn.Linear(4, 4),
            leaky_ext.StraightThroughReLU(0.1, inplace=True),
            leaky_ext.StraightThroughReLU(0.1, learnable=True),
            leaky_ext.LearnableLeakyReLU(4, init=0.9, channel_dim=-1, alpha_bounds=(0.0, 0.5)),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = torch.utils.checkpoint.checkpoint(self.layers, x, use_reentrant=False)
        with torch.no_grad():
            constant = learnable_leaky_relu(x, -0.5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return straight_through_relu(y + constant, torch.tensor([0.1, 0.2, 0.3, 0.4]), channel_dim=-1)


@pytest.mark.parametrize(
    "how",
    [
        {"backend": "aot_eager"},
        pytest.param({"backend": "inductor"}, marks=pytest.mark.slow),
        pytest.param({"mode": "max-autotune"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_every_form_without_a_graph_break(how: dict[str, str]) -> None:
    torch._dynamo.reset()
    x = torch.randn(3, 4, requires_grad=True)
    net = Forms()
    compiled = torch.compile(net, fullgraph=True, **how)
    results = []
    for run in (net, compiled):
        y = run(x)
        results.append((y, *torch.autograd.grad(y.square().sum(), [x, *net.parameters()], allow_unused=True)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@functions
def test_nothing_that_changes_is_compiled_again(function: Callable, backend: str) -> None:
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=backend)
    for rows, alpha in ((3, 0.1), (4, 0.2), (5, -0.3), (64, 7.0)):
        x = torch.randn(rows, 4, requires_grad=True)
        torch.testing.assert_close(compiled(x, alpha), function(x, alpha))
    assert counters["stats"]["unique_graphs"] == 1
    for rows, value in ((3, 0.1), (4, 0.2), (64, -0.3)):
        compiled(torch.randn(rows, 4, requires_grad=True), torch.tensor([value]))
    assert counters["stats"]["unique_graphs"] == 2  # a tensor is another kind of slope than a float


def test_other_backends_get_aten_operations_alone() -> None:
    torch._dynamo.reset()
    targets: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable:
        targets.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    torch.compile(learnable_leaky_relu, fullgraph=True, backend=backend)(torch.randn(3), 0.1)
    assert targets and not [target for target in targets if "leaky_ext" in target]
