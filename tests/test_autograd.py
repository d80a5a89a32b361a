"""The Functions of leaky_ext.autograd against the C++ nodes that calls use: the same bits, the same saved tensors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from leaky_ext import learnable_leaky_relu, straight_through_relu
from leaky_ext.autograd import KeepInput, KeepMask, KeepOutput

SLOPES = torch.tensor([0.3, 0.2, 1.5])
PAIRS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], bool]] = {
    "input": (lambda x, a: KeepInput.apply(x, a), learnable_leaky_relu, True),
    "input, relu": (lambda x, a: KeepInput.apply(x, a, 1, True), straight_through_relu, True),
    "output": (
        lambda x, a: KeepOutput.apply(x, a),
        lambda x, a: learnable_leaky_relu(x, a, save="output"),
        True,
    ),
    "mask": (lambda x: KeepMask.apply(x, 0.3), lambda x: learnable_leaky_relu(x, 0.3), False),
    "mask, relu": (lambda x: KeepMask.apply(x, 0.3, True), lambda x: straight_through_relu(x, 0.3), False),
}


def step(function: Callable[..., Tensor], learned: bool, dtype: torch.dtype) -> tuple[list[Tensor], int]:
    """Returns y, the gradients, and the bytes that were saved."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 50, generator=generator).to(dtype).to(memory_format=torch.contiguous_format).mT
    x = x.mT.transpose(0, 2).requires_grad_()  # not a standard layout
    leaves = [x, SLOPES.clone().requires_grad_()] if learned else [x]
    saved: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        saved[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with saved_tensors_hooks(pack, lambda t: t):
        y = function(*leaves)
    grad = torch.randn(y.shape, generator=generator).to(dtype)
    return [y, *torch.autograd.grad(y, leaves, grad)], sum(saved.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pair", PAIRS)
def test_functions_equal_the_nodes(pair: str, dtype: torch.dtype) -> None:
    function, public, learned = PAIRS[pair]
    actual, kept = step(function, learned, dtype)
    expected, expected_kept = step(public, learned, dtype)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert kept == expected_kept


def test_functions_can_be_subclassed() -> None:
    class Doubled(KeepMask):
        @staticmethod
        def backward(ctx, grad):
            return KeepMask.backward(ctx, 2 * grad)

    x = torch.tensor([-2.0, 3.0], requires_grad=True)
    (grad,) = torch.autograd.grad(Doubled.apply(x, 0.5).sum(), x)
    assert grad.tolist() == [1.0, 2.0]


def test_keep_output_refuses_slopes_that_are_not_positive() -> None:
    with pytest.raises(ValueError, match="positive slopes"):
        KeepOutput.apply(torch.randn(3, requires_grad=True), torch.tensor([0.0]))
