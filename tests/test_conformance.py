"""PyTorch's own checks of operators, as for the activations of ATen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from packaging import version
from raw import LEAKY_RELU, LEAKY_RELU_SIGNED, RELU
from torch import Tensor, nn
from torch._subclasses import CrossRefFakeMode
from torch.autograd import forward_ad as fwad
from torch.autograd import gradcheck, gradgradcheck
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.testing._internal.optests import aot_autograd_check

import leaky_ext
from leaky_ext import learnable_leaky_relu, reference, straight_through, straight_through_relu
from leaky_ext.reference import slope_and_value

OPS = torch.ops.leaky_ext
Function = Callable[..., Tensor]
FUNCTIONS = [learnable_leaky_relu, straight_through_relu]
# The shapes of x and of alpha (None: a float), and channel_dim. After OpInfo's samples of prelu and leaky_relu.
SAMPLES: dict[str, tuple[tuple[int, ...], tuple[int, ...] | None, int]] = {
    "float": ((5, 5), None, 1),
    "0-d x, float": ((), None, 1),
    "empty, float": ((2, 0, 3), None, 1),
    "0-d x": ((), (), 1),
    "0-d alpha": ((2, 3), (), 1),
    "one element": ((2, 3, 4), (1,), 1),
    "channels": ((2, 3, 4), (3,), 1),
    "last dimension": ((2, 3, 4), (4,), -1),
    "1-d": ((4,), (4,), 0),
    "broadcast": ((2, 3, 4), (2, 1, 4), 1),
    "full": ((2, 3), (2, 3), 1),
    "empty, channels": ((0, 3), (3,), 1),
}
samples = pytest.mark.parametrize("sample", SAMPLES)
functions = pytest.mark.parametrize("function", FUNCTIONS)


def arguments(sample: str, dtype: torch.dtype = torch.float64, requires_grad: bool = True) -> tuple[Tensor, Any, int]:
    """x, alpha and channel_dim; elements lie away from 0, where the gradient jumps."""
    shape, slopes, channel_dim = SAMPLES[sample]
    x = torch.randn(shape, dtype=torch.float64)
    x = (x + 0.1 * x.sign()).to(dtype).requires_grad_(requires_grad)
    if slopes is None:
        return x, -0.3, channel_dim
    return x, (torch.rand(slopes, dtype=torch.float64) + 0.1).to(dtype).requires_grad_(requires_grad), channel_dim


def inputs(x: Tensor, alpha: Any) -> tuple[Tensor, ...]:
    return (x, alpha) if isinstance(alpha, Tensor) else (x,)


def of_inputs(function: Function, alpha: Any, channel_dim: int, **options: Any) -> Callable[..., Tensor]:
    """Returns the function with only its differentiable arguments."""
    if isinstance(alpha, Tensor):
        return lambda x, alpha: function(x, alpha, channel_dim=channel_dim, **options)
    return lambda x: function(x, alpha, channel_dim=channel_dim, **options)


def gradients(f: Callable[..., Tensor], args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return torch.autograd.grad((f(*args) ** 2).sum(), args)


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


COMPOSITE = torch._C.DispatchKeySet(torch._C.DispatchKey.CompositeExplicitAutograd)


@samples
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("formula", [LEAKY_RELU, LEAKY_RELU_SIGNED, RELU])
def test_composite_implementation_equals_the_kernels(sample: str, dtype: torch.dtype, formula: int) -> None:
    """Devices without kernels run the composite implementation."""
    x, alpha, channel_dim = arguments(sample, dtype, requires_grad=False)
    special = torch.tensor([0.0, -0.0, float("nan"), float("inf"), -float("inf")], dtype=dtype)
    if x.numel() >= 5 and x.shape:
        x.view(-1)[:5] = special
    slope, value = slope_and_value(alpha)
    args = (slope, value, channel_dim, formula)
    for run in (OPS.forward, OPS.forward_mask):
        torch.testing.assert_close(
            composite(run.default)(x, *args), run.default(x, *args), rtol=0, atol=0, equal_nan=True
        )
    _, mask = OPS.forward_mask(x, *args)
    signed = OPS.forward(x, slope, value, channel_dim, LEAKY_RELU_SIGNED)
    grad = torch.randn(x.shape, dtype=torch.float64).to(dtype)
    need = [True, slope is not None]
    kept = [(x, None, 0), (None, mask, 3)] if formula == RELU or value < 0 else [(x, None, 0), (signed, None, 1)]
    for saved, bits, kind in kept:
        wanted = [need[0], need[1] and kind != 3]
        call = (grad, saved, bits, slope, value, channel_dim, kind, None, wanted)
        actual, expected = composite(OPS.backward.default)(*call), OPS.backward.default(*call)
        torch.testing.assert_close(actual[0], expected[0], rtol=0, atol=0, equal_nan=True)
        if wanted[1]:
            tolerance = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 1e-2)
            torch.testing.assert_close(actual[1], expected[1], rtol=tolerance, atol=tolerance, equal_nan=True)


def composite(op: Any) -> Callable[..., Any]:
    return lambda *args: op.redispatch(COMPOSITE, *args)


def test_composite_backward_checks_what_the_kernels_check() -> None:
    x, slopes = torch.randn(2, 3), torch.ones(3)
    mask = torch.zeros(1, dtype=torch.uint8)
    hostile = {
        IndexError: (x, x, None, slopes, 0.0, 2, 0, None, [True, True]),
        TypeError: (x, x.double(), None, slopes, 0.0, 1, 0, None, [True, True]),
        ValueError: (x, None, mask.repeat(2), None, 0.1, 1, 3, None, [True, False]),
    }
    for error, call in hostile.items():
        for run in (OPS.backward.default, composite(OPS.backward.default)):
            with pytest.raises(error):
                run(*call)
    slopes.requires_grad_()  # y is turned back into x before anything else
    with pytest.raises(IndexError):
        OPS.backward(x, x, None, slopes, 0.0, 2, 1, None, [True, True])


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
