"""PyTorch's own checks of operators, as for the activations of ATen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from packaging import version
from raw import LEAKY_RELU, RELU
from samples import FUNCTIONS, Function, arguments, functions, gradients, inputs, of_inputs, samples
from torch import Tensor
from torch._subclasses import CrossRefFakeMode
from torch.autograd import forward_ad as fwad
from torch.autograd import gradcheck, gradgradcheck
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing._internal.optests import aot_autograd_check

from leaky_ext import learnable_leaky_relu, reference, straight_through, straight_through_relu

OPS = torch.ops.leaky_ext


@functions
@samples
@pytest.mark.parametrize("tracing", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("decomposed", [False, True])
def test_make_fx_graph_runs_again_with_gradients(
    function: Function, sample: str, tracing: str, decomposed: bool
) -> None:
    x, alpha, channel_dim = arguments(sample)
    f, args = of_inputs(function, alpha, channel_dim), inputs(x, alpha)
    from leaky_ext.operators import inductor

    table = {OPS.forward.default: inductor.forward} if decomposed and function is learnable_leaky_relu else None
    graph = make_fx(f, tracing_mode=tracing, decomposition_table=table)(*args)
    other = tuple((torch.randn_like(t) * 2).requires_grad_() for t in args)
    torch.testing.assert_close(graph(*other), f(*other))
    torch.testing.assert_close(gradients(graph, other), gradients(f, other))


@functions
@samples
@pytest.mark.parametrize("tracing", ["real", "symbolic"])
def test_make_fx_of_a_gradient(function: Function, sample: str, tracing: str) -> None:
    x, alpha, channel_dim = arguments(sample)
    f, args = of_inputs(function, alpha, channel_dim), inputs(x, alpha)
    graph = make_fx(lambda *args: gradients(f, args), tracing_mode=tracing)(*args)
    assert any(node.target is OPS.backward.default for node in graph.graph.nodes)
    other = tuple(torch.randn_like(t).requires_grad_() for t in args)
    torch.testing.assert_close(graph(*other), gradients(f, other))


@functions
@samples
@pytest.mark.parametrize("dynamic", [False, True])
def test_aot_autograd(function: Function, sample: str, dynamic: bool) -> None:
    x, alpha, channel_dim = arguments(sample)
    aot_autograd_check(of_inputs(function, alpha, channel_dim), inputs(x, alpha), {}, dynamic=dynamic)


@pytest.mark.parametrize("save", ["input", "output"])
@pytest.mark.parametrize("sample", ["float", "0-d alpha", "channels", "broadcast"])
def test_gradcheck_with_every_switch(sample: str, save: str) -> None:
    """The straight-through ReLU is tested in tests/test_transforms.py: its derivative is not that of its value."""
    x, alpha, channel_dim = arguments(sample)
    f, args = of_inputs(learnable_leaky_relu, alpha, channel_dim, save=save), inputs(x, alpha)
    switches = {"check_undefined_grad": True, "check_batched_grad": True}
    assert gradcheck(f, args, check_forward_ad=True, check_batched_forward_grad=True, **switches)
    assert gradcheck(f, args, check_forward_ad=True, fast_mode=True, masked=True)
    assert gradgradcheck(f, args, check_fwd_over_rev=True, check_rev_over_rev=True, **switches)


@functions
@samples
def test_cross_reference_of_fake_and_real(function: Function, sample: str) -> None:
    x, alpha, channel_dim = arguments(sample)
    with CrossRefFakeMode():
        gradients(of_inputs(function, alpha, channel_dim), inputs(x, alpha))


@pytest.mark.parametrize("function", [*FUNCTIONS, straight_through])
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("fullgraph", [False, True])
def test_tangent_from_outside_a_compiled_function(function: Function, backend: str, fullgraph: bool) -> None:
    """The tangent is correct or an error is raised: it is never None."""
    torch._dynamo.reset()
    x, alpha, _ = arguments("one element", requires_grad=False)
    other = x.sign() if function is straight_through else alpha
    args = (other, x) if function is straight_through else (x, alpha)
    compiled = torch.compile(function, backend=backend, fullgraph=fullgraph)

    def tangent(f: Function) -> Tensor:
        with fwad.dual_level():
            return fwad.unpack_dual(f(*(fwad.make_dual(t, torch.ones_like(t)) for t in args))).tangent

    expected = tangent(function)
    assert expected is not None
    refuses = version.parse(torch.__version__).release >= (2, 14)  # whatever is compiled
    if fullgraph and (backend == "inductor" or function is straight_through or refuses):
        with pytest.raises(torch._dynamo.exc.Unsupported, match="forward-mode AD"):
            tangent(compiled)
        return
    torch.testing.assert_close(tangent(compiled), expected)


def test_names_of_nodes() -> None:
    x, alpha = torch.randn(3, requires_grad=True), torch.ones(1, requires_grad=True)
    assert "LearnableLeakyReluBackward0" in repr(learnable_leaky_relu(x, alpha))
    assert learnable_leaky_relu(x, 0.1).grad_fn.name() == "LearnableLeakyReluBackward0"
    assert straight_through_relu(x).grad_fn.name() == "StraightThroughReluBackward0"


def test_undefined_gradients_stay_undefined() -> None:
    """If an output is not used, its backward does no work and fills no tensor with zeros."""
    x = torch.randn(3, requires_grad=True)

    class Drop(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, y: Tensor) -> Tensor:
            return y.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> None:
            return None

    (grad,) = torch.autograd.grad(Drop.apply(learnable_leaky_relu(x, 0.1)).sum(), x, allow_unused=True)
    assert grad is None


@functions
def test_compiled_autograd(function: Function) -> None:
    for alpha in (0.3, torch.tensor([0.3], requires_grad=True)):
        x = torch.randn(4, requires_grad=True)
        args = inputs(x, alpha)
        expected = gradients(of_inputs(function, alpha, 1), args)
        for t in args:
            t.grad = None
        with torch._dynamo.compiled_autograd._enable(torch.compile(backend="aot_eager", fullgraph=True)):
            (function(x, alpha) ** 2).sum().backward()
        torch.testing.assert_close(tuple(t.grad for t in args), expected)


@pytest.mark.parametrize("name", ["learnable_leaky_relu", "straight_through_relu"])
def test_functionalize(name: str) -> None:
    def f(x: Tensor) -> Tensor:
        y = x * 2
        OPS.forward_(y, None, 0.3, 1, RELU if name.startswith("straight") else LEAKY_RELU)
        return y + 1

    x = torch.randn(5)
    graph = make_fx(torch.func.functionalize(f))(x)
    assert OPS.forward.default in [node.target for node in graph.graph.nodes]
    assert torch.equal(graph(x), getattr(reference, name)(x * 2, 0.3) + 1)
