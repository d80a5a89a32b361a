"""The composite implementation of the operators, for devices without kernels, equals the kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from raw import LEAKY_RELU, LEAKY_RELU_SIGNED, RELU
from samples import arguments, samples

from leaky_ext.reference import slope_and_value

OPS = torch.ops.leaky_ext
COMPOSITE = torch._C.DispatchKeySet(torch._C.DispatchKey.CompositeExplicitAutograd)


def composite(op: Any) -> Callable[..., Any]:
    return lambda *args: op.redispatch(COMPOSITE, *args)


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
