"""Values and gradients of both operators, element by element, over sizes, dtypes, offsets and special values."""

from __future__ import annotations

import pytest
import raw
import torch
from oracle import DTYPES, OPERATORS, check
from torch import Tensor

import leaky_ext

SIZES = [0, 1, 2, 3, 15, 16, 17, 63, 64, 65, 2047, 2049, 4095, 4097, 1_000_003]


def draw(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    return torch.randn(shape, dtype=torch.float64).to(device, dtype)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_sizes(name: str, dtype: torch.dtype, size: int, device: str) -> None:
    x, grad = draw(size, dtype=dtype, device=device), draw(size, dtype=dtype, device=device)
    check(name, x, torch.tensor(0.3, dtype=dtype, device=device), grad)
    check(name, x, -0.3, grad)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("slopes", ["float", "shared", "channels", "last"])
def test_offsets_leave_the_memory_around_alone(dtype: torch.dtype, slopes: str, device: str) -> None:
    """Views x[i:] break every alignment. The memory around the outputs keeps its sentinel."""
    alpha: Tensor | float = 0.3
    if slopes != "float":
        alpha = draw({"shared": 1, "channels": 3, "last": 5}[slopes], dtype=dtype, device=device)
    channel_dim = -1 if slopes == "last" else 1
    for offset in range(41):
        memory = torch.full((2 * 3 * 35 + 80,), 42.0, dtype=dtype, device=device)
        x = memory[offset : offset + 210].view(2, 3, 7, 5)
        x.copy_(draw(2, 3, 7, 5, dtype=dtype, device=device))
        grad = draw(2 * 3 * 35 + 80, dtype=dtype, device=device)[offset : offset + 210].view(2, 3, 7, 5)
        check("learnable", x, alpha, grad, channel_dim=channel_dim)
        check("straight_through", x, alpha, grad, channel_dim=channel_dim)
        expected = leaky_ext.learnable_leaky_relu(x, alpha, channel_dim=channel_dim)
        leaky_ext.learnable_leaky_relu_(x, alpha, channel_dim=channel_dim)
        assert torch.equal(x, expected)
        assert bool((memory[:offset] == 42).all()) and bool((memory[offset + 210 :] == 42).all())


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alpha", [0.3, 0.0, -2.0, float("inf"), float("nan")])
def test_special_values(name: str, dtype: torch.dtype, alpha: float, device: str) -> None:
    values = [0.0, -0.0, float("nan"), float("inf"), -float("inf"), 1.0, -1.0]
    x = torch.tensor(values * 30, dtype=dtype, device=device)
    grad = draw(x.numel(), dtype=dtype, device=device)
    check(name, x, torch.tensor([alpha], dtype=dtype, device=device), grad)
    check(name, x, alpha, grad)
    positive = x[~torch.isnan(x)].clamp(min=0)  # +inf too
    check(name, positive, torch.tensor([alpha], dtype=dtype, device=device), grad[: positive.numel()])


@pytest.mark.parametrize("dtype", DTYPES)
def test_both_zeros_are_positive_and_keep_their_sign(dtype: torch.dtype, device: str) -> None:
    x = torch.tensor([0.0, -0.0], dtype=dtype, device=device, requires_grad=True)
    for operator in OPERATORS.values():
        y = operator(x, 0.25)
        assert y.signbit().tolist() == [False, True]
        assert torch.autograd.grad(y.sum(), x)[0].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinite_gradients_of_positive_elements_stay_out_of_grad_alpha(dtype: torch.dtype, device: str) -> None:
    x = torch.tensor([3.0, -2.0, float("inf")] * 50, dtype=dtype, device=device)
    grad = torch.tensor([float("inf"), 1.0, float("nan")] * 50, dtype=dtype, device=device)
    alpha = torch.ones(1, dtype=dtype, device=device, requires_grad=True)
    leaky_ext.learnable_leaky_relu(x, alpha).backward(grad)
    assert alpha.grad is not None and alpha.grad.tolist() == [-100.0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_mask_is_one_bit_an_element_in_memory_order(dtype: torch.dtype, device: str) -> None:
    x = draw(3, 5, 7, 11, dtype=dtype, device=device).to(memory_format=torch.channels_last)
    for mask in (raw.forward_mask(x, 0.1)[1], raw.forward_mask(x, formula=raw.RELU)[1]):
        assert mask.dtype == torch.uint8 and mask.shape == ((x.numel() + 7) // 8,)
        in_order = x.permute(0, 2, 3, 1).flatten()
        bits = mask.unsqueeze(1).bitwise_right_shift(torch.arange(8, dtype=torch.uint8, device=device)) & 1
        assert torch.equal(bits.flatten()[: x.numel()].bool(), in_order < 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alphas", [[0.3], [0.3, -0.2, 1.5], [0.3, 0.2, 1.5]])
@pytest.mark.parametrize("size", [1, 63, 700, 70_001])
def test_backward_from_the_output(dtype: torch.dtype, alphas: list[float], size: int, device: str) -> None:
    """grad_x equals that from the input to the bit, also where alpha * x underflows. grad_alpha is as exact as y."""
    x = draw(2, 3, size, dtype=dtype, device=device)
    x[..., ::3] *= torch.finfo(dtype).smallest_normal  # alpha * x is subnormal or 0
    x[0, :, 0] = -0.0
    grad = draw(2, 3, size, dtype=dtype, device=device)
    alpha = torch.tensor(alphas, dtype=dtype, device=device)
    expected_x, expected_alpha = raw.backward(grad, x, alpha)
    if min(alphas) > 0:
        y, mask = raw.forward(x, alpha, formula=raw.LEAKY_RELU_SIGNED), None
    else:
        y, mask = raw.forward_mask(x, alpha)
    grad_x, grad_alpha = raw.backward_output(grad, y, mask, alpha)
    assert torch.equal(grad_x, expected_x)
    scale = (grad.double() * x.double()).abs().sum(2).sum(0).sum_to_size(alpha.shape)
    error = (grad_alpha.double() - expected_alpha.double()).abs()
    assert bool((error <= 2 * torch.finfo(dtype).eps * scale + torch.finfo(dtype).eps).all())


@pytest.mark.parametrize("need_x, need_alpha", [(True, False), (False, True), (False, False)])
def test_only_what_is_needed_is_computed(need_x: bool, need_alpha: bool, device: str) -> None:
    x, grad = draw(4, 3, 50, device=device), draw(4, 3, 50, device=device)
    alpha = draw(3, device=device)
    both = raw.backward(grad, x, alpha)
    some = raw.backward(grad, x, alpha, need_x=need_x, need_alpha=need_alpha)
    for got, expected, needed in zip(some, both, (need_x, need_alpha), strict=True):
        assert torch.equal(got, expected) if needed else got is None
