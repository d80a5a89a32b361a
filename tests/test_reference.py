"""The reference and every other path without kernels: values, gradients, dtypes and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from oracle import DTYPES
from test_errors import MISUSES
from torch import Tensor, func
from torch.autograd import forward_ad as fwad
from torch.autograd import gradcheck, gradgradcheck

import leaky_ext
from leaky_ext import reference

INF, NAN = float("inf"), float("nan")
NAMES = ["learnable_leaky_relu", "straight_through_relu"]
X = [-INF, -2.0, -0.0, 0.0, 3.0, INF, NAN]


def wrapped(name: str, path: str) -> Callable[..., Tensor]:
    """Returns the function called through `path`. Users can reach all paths except the first."""
    if path == "reference":
        return getattr(reference, name)
    function = getattr(leaky_ext, name)
    if path == "eager":
        return function
    backend = "eager" if path == "dynamo" else path
    return torch.compile(function, fullgraph=True, backend=backend)


@pytest.mark.parametrize("path", ["reference", "eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_special_values(name: str, path: str) -> None:
    """Equal to the bit, also where torch.where(x >= 0, x, alpha * x) and the detach pattern give NaN.

    One graph contains all dtypes, so that compilers compile once.
    """
    torch._dynamo.reset()
    function = getattr(reference if path == "reference" else leaky_ext, name)

    def of_every_dtype(xs: list[Tensor], slopes: list[Tensor]) -> list[Tensor]:
        return [function(x, slope) for x, slope in zip(xs, slopes, strict=True)]

    compiled = path in ("aot_eager", "inductor")
    run = torch.compile(of_every_dtype, fullgraph=True, backend=path) if compiled else of_every_dtype
    grad = [1.0, 2.0, 3.0, 4.0, INF, 6.0, 7.0]
    finite, finite_grad = [-3.0, -2.0, 0.0, INF], [1.0, 2.0, INF, 3.0]
    for alpha in (0.25, -2.0, 0.0):
        scaled = [NAN if alpha == 0 else -INF * alpha, -2 * alpha] if name == NAMES[0] else [0.0, 0.0]
        ys, grad_xs, _ = values_and_gradients(run, X, alpha, grad)
        for dtype, y, grad_x in zip(DTYPES, ys, grad_xs, strict=True):
            assert y.dtype == grad_x.dtype == dtype
            zeros = [-0.0, 0.0]
            if name == NAMES[1] and path == "inductor":  # compiled, y is -0.0 only if x is negative
                scaled, zeros = [-0.0, -0.0], [0.0, 0.0]
            assert str(y.tolist()) == str([*scaled, *zeros, 3.0, INF, NAN])
            assert grad_x.tolist() == [alpha, 2 * alpha, 3.0, 4.0, INF, 6.0, 7 * alpha]
        for grad_alpha in values_and_gradients(run, finite, alpha, finite_grad)[2]:
            assert grad_alpha.dtype == torch.float32
            assert grad_alpha.item() == -7.0  # only of the negative elements


def values_and_gradients(run: Callable, x: list[float], alpha: float, grad: list[float]) -> tuple[Any, Any, Any]:
    """Returns y, grad_x and grad_alpha of a function of lists with one entry per dtype."""
    xs = [torch.tensor(x, dtype=dtype, requires_grad=True) for dtype in DTYPES]
    slopes = [torch.tensor(alpha, requires_grad=True) for _ in DTYPES]
    ys = run(xs, slopes)
    grads = torch.autograd.grad(ys, [*xs, *slopes], [torch.tensor(grad, dtype=dtype) for dtype in DTYPES])
    return ys, grads[: len(xs)], grads[len(xs) :]


@pytest.mark.parametrize("path", ["reference", "aot_eager"])
@pytest.mark.parametrize("alpha_dtype", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_same_bits_as_the_kernels(name: str, dtype: torch.dtype, alpha_dtype: torch.dtype, path: str) -> None:
    """Each element is computed in float32 (float64) and rounded once, whatever alpha is."""
    torch._dynamo.reset()
    x, grad = torch.randn(6, 5, 3).to(dtype), torch.randn(6, 5, 3).to(dtype)
    alpha = torch.randn(5).to(alpha_dtype)
    results = []
    for f in (wrapped(name, path), getattr(leaky_ext, name)):
        leaf, slope = x.clone().requires_grad_(), alpha.clone().requires_grad_()
        y = f(leaf, slope)
        results.append((y, *torch.autograd.grad(y, (leaf, slope), grad)))
    (y, grad_x, grad_alpha), expected = results
    assert torch.equal(y, expected[0]) and torch.equal(grad_x, expected[1])
    torch.testing.assert_close(grad_alpha, expected[2])


@pytest.mark.parametrize("shape, channel_dim", [((), 1), ((1, 1), 0), ((4,), 1), ((5,), -1), ((3, 1, 5), 1)])
def test_against_finite_differences(shape: tuple[int, ...], channel_dim: int) -> None:
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    x = (x + 0.1 * x.sign()).requires_grad_()
    alpha = torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def f(x: Tensor, alpha: Tensor) -> Tensor:
        return reference.learnable_leaky_relu(x, alpha, channel_dim=channel_dim)

    assert gradcheck(f, (x, alpha), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(f, (x, alpha), check_fwd_over_rev=True)


@pytest.mark.parametrize("order", ["create_graph", "jvp", "vmap of grad", "hessian"])
def test_straight_through_derivatives_are_the_surrogates(order: str) -> None:
    x, alpha = torch.randn(6, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    negative = x < 0
    slope = torch.where(negative, alpha, 1)

    def f(x: Tensor, alpha: Tensor) -> Tensor:
        return reference.straight_through_relu(x, alpha).square()

    def loss(x: Tensor, alpha: Tensor) -> Tensor:
        return f(x, alpha).sum()

    y = x.relu()
    if order == "create_graph":
        x.requires_grad_()
        alpha.requires_grad_()
        (grad,) = torch.autograd.grad(loss(x, alpha), x, create_graph=True)
        by_x, by_alpha = torch.autograd.grad(grad.sum(), (x, alpha))
        torch.testing.assert_close(by_x, 2 * slope**2)
        torch.testing.assert_close(by_alpha, (2 * slope * x * negative + 2 * y * negative).sum())
    elif order == "jvp":
        _, tangent = func.jvp(f, (x, alpha), (torch.ones_like(x), torch.ones_like(alpha)))
        torch.testing.assert_close(tangent, 2 * y * (slope + x * negative))
    elif order == "vmap of grad":
        grads = func.vmap(func.grad(lambda x: f(x, alpha)))(x)
        torch.testing.assert_close(grads, 2 * y * slope)
    else:
        torch.testing.assert_close(func.hessian(loss)(x, alpha), (2 * slope**2).diag())


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("path", ["reference", "dynamo", "transform", "forward AD"])
@pytest.mark.parametrize("misuse", MISUSES)
@pytest.mark.parametrize("name", NAMES)
def test_errors_are_those_of_the_kernels(name: str, misuse: str, path: str, in_place: bool) -> None:
    make, options, error, words = MISUSES[misuse]
    x, alpha = make()
    before = x.clone()
    name = f"{name}_" if in_place else name

    def call() -> Any:
        torch._dynamo.reset()
        if path == "transform":
            return func.vmap(lambda x: getattr(leaky_ext, name)(x, alpha, **options))(x[None])
        if path == "forward AD":
            with fwad.dual_level():
                return getattr(leaky_ext, name)(x, alpha, **options)
        return wrapped(name, path)(x, alpha, **options)

    with pytest.raises((error, torch._dynamo.exc.Unsupported) if path == "dynamo" else error) as raised:
        call()
    if isinstance(raised.value, error):
        for word in words:
            assert raised.match(word)
    assert torch.equal(x, before)


def test_in_place_forms_write_to_x() -> None:
    for name in NAMES:
        x = torch.randn(5)
        expected = getattr(reference, name)(x, 0.3)
        assert getattr(reference, f"{name}_")(x, 0.3) is x
        assert torch.equal(x, expected)


@pytest.mark.parametrize("learned", [False, True])
def test_compiled_in_place_has_the_right_gradient(learned: bool) -> None:
    alpha = torch.tensor(0.3, requires_grad=learned)
    x = torch.randn(5, requires_grad=True)
    inputs = (x, alpha) if learned else (x,)

    def f(x: Tensor) -> Tensor:
        z = x * 2
        leaky_ext.learnable_leaky_relu_(z, alpha)
        return z.square()

    y = torch.compile(f, fullgraph=True, backend="aot_eager")(x)
    expected = torch.where(x >= 0, 2 * x, alpha * 2 * x).square()
    torch.testing.assert_close(y, expected)
    actual = torch.autograd.grad(y.sum(), inputs)
    torch.testing.assert_close(actual, torch.autograd.grad(expected.sum(), inputs))


def test_compiled_in_place_straight_through_with_a_learned_slope() -> None:
    """An eager call raises, because it would have to copy x. Compilers remove the copy, so compiled calls work."""

    def f(x: Tensor, alpha: Tensor) -> Tensor:
        return leaky_ext.straight_through_relu_(x * 1, alpha)

    x, alpha = torch.randn(3, requires_grad=True), torch.tensor(0.3, requires_grad=True)
    with pytest.raises(RuntimeError, match="straight_through_relu_ overwrites x"):
        f(x, alpha)
    y, expected = (
        torch.compile(f, backend="aot_eager", fullgraph=True)(x, alpha),
        leaky_ext.straight_through_relu(x, alpha),
    )
    assert torch.equal(y, expected)
    torch.testing.assert_close(*(torch.autograd.grad((t * 2).sum(), (x, alpha)) for t in (y, expected)))


@pytest.mark.parametrize("path", ["reference", "eager", "dynamo"])
@pytest.mark.parametrize("name", [*NAMES, *(f"{name}_" for name in NAMES)])
def test_slopes_that_are_no_slopes(name: str, path: str) -> None:
    for alpha in (None, "0.1", [0.1], 1j):
        with pytest.raises((TypeError, torch._dynamo.exc.Unsupported), match="alpha must be a float or a Tensor"):
            wrapped(name, path)(torch.ones(3), alpha)
    for alpha in (1, np.float32(1.0)):
        assert torch.equal(getattr(leaky_ext, name)(torch.ones(3), alpha), torch.ones(3))
