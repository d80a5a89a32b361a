"""Derivatives of every order against finite differences, and torch.func on the kernels."""

from __future__ import annotations

import pytest
import torch
from samples import FUNCTIONS, SLOPES, Function, away_from_zero
from torch import Tensor, func
from torch.autograd import forward_ad as fwad
from torch.autograd import gradcheck, gradgradcheck

import leaky_ext
from leaky_ext import learnable_leaky_relu, straight_through_relu


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
