"""Calls that tracers, modes and subclasses of tensors see, and calls with nested tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from samples import Function, functions
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import leaky_ext
from leaky_ext import learnable_leaky_relu, straight_through_relu


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.PReLU(4), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.LeakyReLU())
        leaky_ext.convert(self.layers)

    def forward(self, x: Tensor) -> Tensor:
        return straight_through_relu(self.layers(x) - 0.1, 0.2)


def test_symbolic_trace_of_a_converted_model() -> None:
    net, x = Net(), torch.randn(2, 3, 4, 4)
    graph = torch.fx.symbolic_trace(net)
    assert straight_through_relu in [node.target for node in graph.graph.nodes]
    assert torch.equal(graph(x), net(x))
    assert graph.code.count("leaky_ext") >= 1
    expected, actual = (torch.autograd.grad(f(x).sum(), list(net.parameters())) for f in (net, graph))
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("name", ["learnable_leaky_relu", "straight_through_relu"])
@pytest.mark.parametrize("in_place", [False, True])
def test_symbolic_trace_of_functions(name: str, in_place: bool) -> None:
    function = getattr(leaky_ext, name + "_" * in_place)
    graph = torch.fx.symbolic_trace(lambda x, alpha: function(x * 2, alpha, channel_dim=-1) + 1)
    x, alpha = torch.randn(2, 3), torch.rand(3)
    assert torch.equal(graph(x, alpha), function(x * 2, alpha, channel_dim=-1) + 1)


@pytest.mark.parametrize("name", ["learnable_leaky_relu", "straight_through_relu"])
@pytest.mark.parametrize("in_place", [False, True])
def test_torch_function_mode_sees_the_call(name: str, in_place: bool) -> None:
    function = getattr(leaky_ext, name + "_" * in_place)
    seen = []

    class Record(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    x = torch.tensor([-2.0, 3.0])
    with Record():
        y = function(x, 0.5)
    assert seen[0] is function
    assert y.tolist() == [-1.0 if name.startswith("learnable") else 0.0, 3.0]


@functions
def test_a_slope_of_a_subclass_is_asked(function: Function) -> None:
    class Slope(Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
            if func is function:
                return "asked"
            return super().__torch_function__(func, types, args, kwargs)

    assert function(torch.randn(3), torch.tensor(0.5).as_subclass(Slope)) == "asked"


@functions
@pytest.mark.parametrize("kind", ["float", "learned", "last dimension"])
def test_jagged_nested_tensors(function: Function, kind: str) -> None:
    rows = [torch.randn(n, 4, dtype=torch.float64) for n in (2, 5, 3)]
    alpha: Any = {
        "float": 0.3,
        "learned": torch.tensor(0.3, dtype=torch.float64, requires_grad=True),
        "last dimension": torch.rand(4, dtype=torch.float64, requires_grad=True),
    }[kind]
    x = torch.nested.nested_tensor(rows, layout=torch.jagged, requires_grad=True)
    y = function(x, alpha, channel_dim=-1)
    dense = torch.cat(rows).requires_grad_()
    expected = function(dense, alpha, channel_dim=-1)
    torch.testing.assert_close(y.values(), expected)
    leaves = [alpha] if isinstance(alpha, Tensor) else []
    actual = torch.autograd.grad((y.values() ** 3).sum(), [x, *leaves])
    wanted = torch.autograd.grad((expected**3).sum(), [dense, *leaves])
    torch.testing.assert_close(actual[0].values(), wanted[0])
    torch.testing.assert_close(actual[1:], wanted[1:])
    for run in (torch.inference_mode()(function), torch.compile(function, backend="aot_eager")):
        torch.testing.assert_close(run(x, alpha, channel_dim=-1).values(), expected)


def test_strided_nested_tensors_are_refused() -> None:
    x = torch.nested.nested_tensor([torch.randn(2, 3), torch.randn(4, 3)])
    for alpha in (0.3, torch.rand(3)):
        for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
            with mode(), pytest.raises(NotImplementedError, match=r"torch\.jagged"):
                learnable_leaky_relu(x, alpha)
            with mode(), pytest.raises(NotImplementedError, match="take no nested tensors"):
                torch.ops.leaky_ext.forward(x, None, 0.3, 1, 0)
