"""The same inputs give the same bits in every run and for any number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import raw
import torch
from torch import Tensor

CASES = {
    "shared": ((1_500_007,), 1, 1),
    "shared, a few parts": ((40_001,), 1, 1),
    "channels": ((8, 48, 63, 65), 48, 1),
    "one long channel": ((1, 3, 700_001), 3, 1),
    "channels last": ((9_001, 129), 129, -1),
    "few channels last": ((300_001, 3), 3, -1),
    "many channels last": ((11, 70_003), 70_003, -1),
    "short runs": ((40, 3000, 5), 3000, 1),
}


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def results(x: Tensor, alpha: Tensor, grad: Tensor, channel_dim: int) -> list[Tensor]:
    y, mask = raw.forward_mask(x, alpha, channel_dim)
    outputs = [y, mask, *raw.backward(grad, x, alpha, channel_dim)]
    outputs += [raw.backward_mask(grad, mask, alpha, channel_dim, x.stride())]
    return outputs + list(raw.backward_output(grad, y, mask, alpha, channel_dim))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits(case: str, dtype: torch.dtype, device: str) -> None:
    shape, channels, channel_dim = CASES[case]
    x, grad = (torch.randn(shape, device=device).to(dtype) for _ in range(2))
    alpha = torch.randn(channels, device=device)
    first = results(x, alpha, grad, channel_dim)
    for _ in range(19):
        for a, b in zip(first, results(x, alpha, grad, channel_dim), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("case", CASES)
def test_same_bits_for_any_number_of_threads(case: str) -> None:
    shape, channels, channel_dim = CASES[case]
    x, grad, alpha = torch.randn(shape), torch.randn(shape), torch.randn(channels)
    torch.set_num_threads(1)
    first = results(x, alpha, grad, channel_dim)
    for count in (2, 3, 7):
        torch.set_num_threads(count)
        for _ in range(5):  # with the first, 16 runs; the order in which threads finish differs between them
            for a, b in zip(first, results(x, alpha, grad, channel_dim), strict=True):
                assert torch.equal(a, b)


def test_calls_from_several_threads() -> None:
    x, grad, alpha = torch.randn(300_001), torch.randn(300_001), torch.randn(1)
    first = results(x, alpha, grad, 1)
    with ThreadPoolExecutor(8) as pool:
        for outputs in pool.map(lambda _: results(x, alpha, grad, 1), range(64)):
            assert all(torch.equal(a, b) for a, b in zip(first, outputs, strict=True))
