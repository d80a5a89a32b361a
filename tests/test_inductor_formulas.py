"""The expressions that Inductor is given, run as they stand: those of the kernels. test_compiled.py compiles them."""

from __future__ import annotations

import pytest
import torch
from oracle import DTYPES, same
from torch import Tensor

from leaky_ext.enums import INPUT, INPUT_OF_LEAKY_RELU, INPUT_OF_RELU, LEAKY_RELU, LEAKY_RELU_SIGNED, RELU
from leaky_ext.operators import inductor
from leaky_ext.reference import slope_and_value

OPS = torch.ops.leaky_ext
INF, NAN = float("inf"), float("nan")
SLOPES = {
    "float": 0.3,
    "one": torch.tensor([-0.3]),
    "per channel": torch.tensor([0.3, 0.25, -2.0]),
    "broadcast": torch.linspace(-1, 1, 12).reshape(2, 1, 6),
}


def special(dtype: torch.dtype) -> Tensor:
    """Zeros of both signs, NaN, infinities, numbers that underflow when a slope meets them."""
    smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    values = [0.0, -0.0, NAN, INF, -INF, 1e-7, -1e-7, smallest, -smallest, 3.0, -3.0, -0.5]
    return torch.tensor(values * 3, dtype=dtype).reshape(2, 3, 6)


@pytest.mark.parametrize("formula", [LEAKY_RELU, LEAKY_RELU_SIGNED, RELU])
@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_forward(dtype: torch.dtype, slope: str, formula: int) -> None:
    x, (alpha, value) = special(dtype), slope_and_value(SLOPES[slope])
    y = inductor.forward(x, alpha, value, 1, formula)
    same(y, OPS.forward(x, alpha, value, 1, formula))
    if formula == RELU:  # the sign tells backward where x was negative
        assert torch.equal(torch.signbit(y)[~x.isnan()], (x < 0)[~x.isnan()])


@pytest.mark.parametrize("kind", [INPUT, INPUT_OF_RELU])
@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_grad_x(dtype: torch.dtype, slope: str, kind: int) -> None:
    x, (alpha, value) = special(dtype), slope_and_value(SLOPES[slope])
    grad = torch.linspace(-2, 3, x.numel()).reshape(x.shape).to(dtype)
    actual, nothing = inductor.backward(grad, x, None, alpha, value, 1, kind, None, (True, False))
    same(actual, OPS.backward(grad, x, None, alpha, value, 1, 0, None, [True, False])[0])
    assert nothing is None
    assert inductor.backward(grad, x, None, alpha, value, 1, kind, None, (False, False)) == (None, None)


@pytest.mark.parametrize("kind", [INPUT, INPUT_OF_LEAKY_RELU])
@pytest.mark.parametrize("slope", [name for name in SLOPES if name != "float"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_both_gradients(dtype: torch.dtype, slope: str, kind: int) -> None:
    x, alpha = special(dtype), SLOPES[slope]
    x = torch.where(x.isfinite() | (x == INF), x, -0.5)  # d(alpha) of these is a number
    grad = torch.linspace(-2, 3, x.numel()).reshape(x.shape).to(dtype)
    grad_x, grad_alpha = inductor.backward(grad, x, None, alpha, 0.0, 1, kind, None, (True, True))
    expected_x, expected_alpha = OPS.backward(grad, x, None, alpha, 0.0, 1, 0, None, [True, True])
    same(grad_x, expected_x)
    # x that was rebuilt from y is as exact as y, which is rounded to x's dtype.
    rounding = torch.finfo(dtype).eps if kind == INPUT_OF_LEAKY_RELU else 1e-6
    torch.testing.assert_close(grad_alpha, expected_alpha, rtol=2 * rounding, atol=20 * rounding)
    alone = inductor.backward(grad, x, None, alpha, 0.0, 1, kind, None, (False, True))
    assert alone[0] is None and torch.equal(alone[1], grad_alpha)


def test_an_input_that_underflows_is_still_negative() -> None:
    """y is -0.0 there, and an infinite gradient times 0 would be NaN."""
    x, grad, alpha = torch.tensor([-1e-45]), torch.tensor([INF]), torch.tensor([0.25])
    _, actual = inductor.backward(grad, x, None, alpha, 0.0, 1, INPUT_OF_LEAKY_RELU, None, (True, True))
    assert actual.item() == -INF


def test_what_an_eager_forward_saved_is_left_to_the_kernels() -> None:
    grad = torch.ones(8)
    mask = torch.zeros(1, dtype=torch.uint8)
    assert inductor.backward(grad, None, mask, None, 0.1, 1, 3, [1], (True, False)) is NotImplemented
