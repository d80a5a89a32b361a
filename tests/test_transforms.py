"""Derivatives of every order against finite differences, and torch.func on the kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, func
from torch.autograd import forward_ad as fwad
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

import leaky_ext
from leaky_ext import learnable_leaky_relu, straight_through, straight_through_relu

Function = Callable[..., Tensor]
FUNCTIONS = [learnable_leaky_relu, straight_through_relu]
# The shape of alpha, and channel_dim, for an x of shape (3, 4, 5).
SLOPES = {
    "0-d": ((), 1),
    "one element": ((1,), 1),
    "more dimensions than x": ((1, 1, 1, 1), 1),
    "channels": ((4,), 1),
    "first dimension": ((3,), 0),
    "last dimension": ((5,), -1),
    "broadcast": ((3, 1, 5), 1),
    "full": ((3, 4, 5), 1),
}


def away_from_zero(*shape: int) -> Tensor:
    x = torch.randn(shape, dtype=torch.float64)
    return x + 0.1 * x.sign()


@pytest.fixture(params=SLOPES)
def case(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor, int]:
    shape, channel_dim = SLOPES[request.param]
    return away_from_zero(3, 4, 5).requires_grad_(), away_from_zero(*shape).requires_grad_(), channel_dim


@pytest.mark.parametrize("save", ["input", "output"])
@pytest.mark.parametrize("frozen", ["nothing", "x", "alpha"])
def test_leaky_relu_against_finite_differences(case: tuple[Tensor, Tensor, int], frozen: str, save: str) -> None:
    x, alpha, channel_dim = case
    x.requires_grad_(frozen != "x")
    alpha.requires_grad_(frozen != "alpha")

    def f(x: Tensor, alpha: Tensor) -> Tensor:
        return learnable_leaky_relu(x, alpha, channel_dim=channel_dim, save=save)

    batched = {"check_batched_grad": True, "check_batched_forward_grad": True}
    assert gradcheck(f, (x, alpha), check_forward_ad=True, **batched)
    assert gradgradcheck(f, (x, alpha), check_fwd_over_rev=True)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_float_slope_against_finite_differences(function: Function) -> None:
    x = away_from_zero(3, 4).requires_grad_()
    grad = away_from_zero(3, 4).requires_grad_()
    assert gradgradcheck(lambda x: function(x, -0.3), x, grad, check_fwd_over_rev=True)
    if function is learnable_leaky_relu:
        assert gradcheck(lambda x: function(x, -0.3), x, check_forward_ad=True, check_batched_grad=True)


def test_straight_through_second_order_is_the_surrogates(case: tuple[Tensor, Tensor, int]) -> None:
    """The derivative of the value is not that of the surrogate, so the test differentiates the gradient itself."""
    x, alpha, channel_dim = case
    grad = away_from_zero(3, 4, 5).requires_grad_()

    def gradients(grad: Tensor, x: Tensor, alpha: Tensor) -> tuple[Tensor, ...]:
        y = straight_through_relu(x, alpha, channel_dim=channel_dim)
        return torch.autograd.grad(y, (x, alpha), grad, create_graph=True)

    surrogate = learnable_leaky_relu(x, alpha, channel_dim=channel_dim)
    expected = torch.autograd.grad(surrogate, (x, alpha), grad)
    torch.testing.assert_close(gradients(grad, x, alpha), expected, rtol=0, atol=0)
    assert gradcheck(gradients, (grad, x, alpha))
    assert gradgradcheck(gradients, (grad, x, alpha))


def test_straight_through_tangent_is_the_surrogates(case: tuple[Tensor, Tensor, int]) -> None:
    x, alpha, channel_dim = (t.detach() if isinstance(t, Tensor) else t for t in case)
    tangents = torch.randn_like(x), torch.randn_like(alpha)
    results = []
    for function in FUNCTIONS:
        with fwad.dual_level():
            duals = map(fwad.make_dual, (x, alpha), tangents)
            results.append(fwad.unpack_dual(function(*duals, channel_dim=channel_dim)))
    leaky, relu = results
    assert torch.equal(relu.primal, x.relu())
    assert torch.equal(relu.tangent, leaky.tangent)


class Calls(TorchDispatchMode):
    """Records the names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.names.append(str(op))
        return op(*args, **(kwargs or {}))


def per_example(function: Function, x: Tensor, alpha: Any, x_dim: int | None, alpha_dim: int | None, size: int) -> Any:
    xs = [x] * size if x_dim is None else x.unbind(x_dim)
    alphas = [alpha] * size if alpha_dim is None else alpha.unbind(alpha_dim)
    results = [function(x, alpha) for x, alpha in zip(xs, alphas, strict=True)]
    return (
        torch.stack(results) if isinstance(results[0], Tensor) else tuple(map(torch.stack, zip(*results, strict=True)))
    )


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("slopes", SLOPES)
@pytest.mark.parametrize("x_dim", [None, 0, 2, -1])
@pytest.mark.parametrize("alpha_dim", [None, 0, -1])
def test_vmap_runs_the_kernels_once(
    function: Function, slopes: str, x_dim: int | None, alpha_dim: int | None, device: str
) -> None:
    if x_dim is None and alpha_dim is None:
        return
    shape, channel_dim = SLOPES[slopes]
    x, alpha = away_from_zero(3, 4, 5).to(device), away_from_zero(*shape).to(device)
    if x_dim is not None:
        x = torch.stack([x, -x], x_dim)
    if alpha_dim is not None:
        alpha = torch.stack([alpha, 2 * alpha], alpha_dim)

    def f(x: Tensor, alpha: Tensor) -> Tensor:
        return function(x, alpha, channel_dim=channel_dim)

    def loss(x: Tensor, alpha: Tensor) -> Tensor:
        y = f(x, alpha)
        return (y * torch.linspace(-1, 2, 60, dtype=y.dtype, device=device).reshape(3, 4, 5)).sum()

    with Calls() as calls:
        y = func.vmap(f, (x_dim, alpha_dim))(x, alpha)
    kernels = [name for name in calls.names if name.startswith("leaky_ext")]
    assert kernels == ["leaky_ext.forward.default"]
    assert not any("where" in name or "mul" in name for name in calls.names)
    torch.testing.assert_close(y, per_example(f, x, alpha, x_dim, alpha_dim, 2), rtol=0, atol=0)

    gradient = func.grad(loss, (0, 1))
    with Calls() as calls:
        grads = func.vmap(gradient, (x_dim, alpha_dim))(x, alpha)
    assert calls.names.count("leaky_ext.backward.default") == 1
    torch.testing.assert_close(grads, per_example(gradient, x, alpha, x_dim, alpha_dim, 2), rtol=1e-12, atol=1e-12)


def test_nested_vmap() -> None:
    x, alpha = away_from_zero(2, 3, 4, 5), away_from_zero(3, 2, 4)
    inner = func.vmap(lambda x, alpha: learnable_leaky_relu(x, alpha, channel_dim=0), (0, 0))
    y = func.vmap(inner, (0, 1))(x, alpha)
    assert torch.equal(y, learnable_leaky_relu(x, alpha.transpose(0, 1)[..., None]))


def test_ensemble_of_models() -> None:
    """The use of vmap over alpha: stacked models, each with its own slope and gradient."""
    models = [leaky_ext.LearnableLeakyReLU(4, init=0.1 * i).double() for i in range(1, 4)]
    parameters, buffers = func.stack_module_state(models)
    x = away_from_zero(6, 4)

    def loss(parameters: dict, buffers: dict, x: Tensor) -> Tensor:
        return func.functional_call(models[0], (parameters, buffers), (x,)).square().sum()

    grads = func.vmap(func.grad(loss), (0, 0, None))(parameters, buffers, x)
    for model, grad in zip(models, grads["alpha"], strict=True):
        model(x).square().sum().backward()
        torch.testing.assert_close(grad, model.alpha.grad)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_tensors_that_left_a_transform_keep_their_gradient(function: Function) -> None:
    x, alpha = away_from_zero(5).requires_grad_(), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    left = []

    def f(z: Tensor) -> Tensor:
        left.append(z * x)
        return z.sum()

    func.grad(f)(torch.ones_like(x))
    for slope in (0.3, alpha):
        (grad,) = torch.autograd.grad(function(left[0], slope).sum(), x, retain_graph=True)
        assert torch.equal(grad, torch.where(x >= 0, torch.ones_like(x), 0.3))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_constant_gradient_with_create_graph(function: Function) -> None:
    """The gradient of a piecewise linear function is constant: it is in the graph, with no derivative by x."""
    x = away_from_zero(5).requires_grad_()
    (grad,) = torch.autograd.grad(function(x, 0.3).sum(), x, create_graph=True)
    grad.sum().backward()
    assert x.grad is None or not x.grad.any()
    (second,) = torch.autograd.grad(grad.sum(), x, allow_unused=True, materialize_grads=True)
    assert not second.any()


@pytest.mark.parametrize("name", ["learnable_leaky_relu_", "straight_through_relu_"])
def test_in_place_under_transforms(name: str) -> None:
    in_place, function = getattr(leaky_ext, name), getattr(leaky_ext, name[:-1])
    x = away_from_zero(3, 4)
    alpha = torch.tensor(0.3, dtype=torch.float64)
    assert torch.equal(func.vmap(lambda x: in_place(x, alpha))(x.clone()), function(x, alpha))
    weighted = [lambda x, f=f: (f(x * 1, alpha) * x).sum() for f in (in_place, function)]
    actual, expected = (func.grad(f)(x) for f in weighted)
    assert torch.equal(actual, expected)
    actual, expected = (func.jvp(f, (x,), (x.sin(),)) for f in weighted)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match=r"inplace|in-place"):
        func.vmap(lambda alpha: in_place(x.clone()[:], alpha))(alpha.expand(2).clone())


class TestStraightThrough:
    @pytest.mark.parametrize("learned", [False, True])
    def test_the_result_may_be_changed_in_place(self, learned: bool) -> None:
        forward, backward = torch.randn(3, 4), torch.randn(4, requires_grad=True)
        before = forward.clone()
        with torch.set_grad_enabled(learned):
            y = straight_through(forward, backward)
            y *= 2
        assert torch.equal(forward, before) and torch.equal(y, 2 * before)
        if not learned:
            return
        grad = torch.randn(3, 4)
        y.backward(grad / 2)
        assert torch.equal(backward.grad, grad.sum(0))

    def test_gradient_reaches_x_backward_alone(self) -> None:
        forward, backward = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)
        straight_through(forward, backward).sum().backward()
        assert forward.grad is None
        assert not straight_through(forward, backward.detach()).requires_grad
        with torch.no_grad():
            assert not straight_through(forward, backward).requires_grad

    @pytest.mark.parametrize("compiled", [False, True])
    def test_infinities_nan_and_dtypes(self, compiled: bool) -> None:
        inf, nan = float("inf"), float("nan")
        forward = torch.tensor([1.0, -inf, inf, nan, 0.0], dtype=torch.bfloat16)
        backward = torch.tensor([inf, -inf, nan, 2.0, -inf], requires_grad=True)
        f = torch.compile(straight_through, fullgraph=True) if compiled else straight_through
        y = f(forward, backward)
        torch.testing.assert_close(y.detach(), forward, rtol=0, atol=0, equal_nan=True)
        y.backward(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.bfloat16))
        assert backward.grad.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0] and backward.grad.dtype == torch.float32

    @pytest.mark.parametrize("backend", [None, "aot_eager"])
    @pytest.mark.parametrize("transform", ["grad", "jvp", "jacrev", "jacfwd", "hessian", "vmap", "vmap of grad"])
    def test_transforms(self, transform: str, backend: str | None) -> None:
        """sign(x) gets the derivatives of tanh(x), of every order."""
        x = away_from_zero(4)

        def f(x: Tensor) -> Tensor:
            return straight_through(x.sign(), x.tanh())

        first = 1 - x.tanh() ** 2
        run, expected = {
            "grad": (func.grad(lambda x: f(x).sum()), first),
            "jvp": (lambda x: func.jvp(f, (x,), (x,))[1], first * x),
            "jacrev": (func.jacrev(f), first.diag()),
            "jacfwd": (func.jacfwd(f), first.diag()),
            "hessian": (func.hessian(lambda x: f(x).sum()), (-2 * x.tanh() * first).diag()),
            "vmap": (func.vmap(f), x.sign()),
            "vmap of grad": (func.vmap(func.grad(f)), first),
        }[transform]
        actual = run(x) if backend is None else torch.compile(lambda x: run(x), fullgraph=True, backend=backend)(x)
        torch.testing.assert_close(actual, expected)

    def test_create_graph(self) -> None:
        x = away_from_zero(4).requires_grad_()
        (grad,) = torch.autograd.grad(straight_through(x.sign(), x.tanh()).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(grad.sum(), x)
        torch.testing.assert_close(second, -2 * x.tanh() * (1 - x.tanh() ** 2))

    @pytest.mark.parametrize("batched", [(0, None), (None, 0)])
    def test_vmap_over_one(self, batched: tuple[int | None, int | None]) -> None:
        a, b = (torch.randn(3, 4) if dim == 0 else torch.randn(4) for dim in batched)
        assert torch.equal(func.vmap(straight_through, batched)(a, b), a.expand(3, 4))

    @pytest.mark.parametrize("compiled", [False, True])
    def test_misuse(self, compiled: bool) -> None:
        f = torch.compile(straight_through, backend="eager") if compiled else straight_through
        x = torch.ones(3, 4)
        with pytest.raises(ValueError, match=r"\[3\].*\[3, 4\]"):
            f(x, torch.ones(3, requires_grad=True))
        with pytest.raises(ValueError, match=r"\[2, 3, 4\].*\[3, 4\]"):
            f(x, torch.ones(2, 3, 4))
        with pytest.raises(TypeError, match="int64"):
            f(x.long(), x)
        with pytest.raises(RuntimeError, match="meta"):
            f(x, x.to("meta"))


@pytest.mark.parametrize("dims", [(0, None), (0, 0), (None, 0)])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_vmap_over_a_batch_of_none(function: Callable[..., Tensor], dims: tuple[int | None, int | None]) -> None:
    x, alpha = (
        torch.ones(shape if dim is None else (0, *shape)) for dim, shape in zip(dims, [(3, 4), (4,)], strict=True)
    )
    y = func.vmap(function, dims)(x, alpha)
    assert y.shape == (0, 3, 4)
