"""Features that only GPUs have: streams, graphs, many blocks, 64-bit indices. Skipped without a GPU.

The other files test both devices with the `device` fixture. test_cuda_host.py tests the logic of the kernels on the
host.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import raw
import torch
from oracle import DTYPES, OPERATORS, check, check_grad_alpha, same
from torch import Tensor

import leaky_ext

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def has_memory(gib: int) -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_properties(0).total_memory >= gib << 30


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Makes every call raise that would make the host wait for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


# x's shape and memory format, and alpha's: each way to split d(alpha), and sizes that many blocks share unevenly.
SPLITS = {
    "one slope, one block": ((1024,), (1,)),
    "one slope, many blocks": ((3_000_001,), (1,)),
    "long rows": ((64, 24, 56, 56), (24,)),
    "few long rows": ((2, 3, 1_000_001), (3,)),
    "rows of many channels": ((8, 4096, 16, 16), (4096,)),
    "short rows": ((128, 256, 7, 7), (256,)),
    "short rows, more than the workspace holds": ((4, 30_000, 7), (30_000,)),
    "channel last": ((64, 512, 768), (1, 1, 768)),
    "few channels last": ((1_000_003, 8), (8,)),
    "odd channels last": ((100_003, 33), (33,)),
    "many channels last": ((20, 200_000), (200_000,)),
    "a slope for each element": ((100_003, 5), (100_003, 5)),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("split", SPLITS)
def test_splits(split: str, dtype: torch.dtype) -> None:
    shape, slopes = SPLITS[split]
    x, grad = (torch.randn(shape, device="cuda").to(dtype) for _ in range(2))
    alpha = torch.randn(slopes, device="cuda").to(dtype)
    for name in OPERATORS:
        check(name, x, alpha, grad)
    check("learnable", x[1:], alpha[1:] if slopes[0] == shape[0] > 1 else alpha, grad[1:])
    results = {tuple(raw.backward(grad, x, alpha)[1].double().flatten()[:64].tolist()) for _ in range(10)}
    assert len(results) == 1, "the same inputs gave different bits"


@pytest.mark.parametrize("x_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("alpha_dtype", DTYPES, ids=str)
def test_dtypes_of_x_and_alpha(x_dtype: torch.dtype, alpha_dtype: torch.dtype) -> None:
    x, grad = (torch.randn(40, 12, 50, device="cuda").to(x_dtype) for _ in range(2))
    for alpha in (torch.randn(1), torch.randn(12), torch.randn(1, 1, 50)):
        check("learnable", x, alpha.to("cuda", alpha_dtype), grad)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("alpha", [[0.3], [0.3, -0.2, 0.0, 1.5, -2.0]], ids=["shared", "channels"])
def test_same_as_the_cpu(dtype: torch.dtype, alpha: list[float]) -> None:
    """Elements and masks to the bit; both are computed in the same precision and rounded once."""
    x, grad, slope = torch.randn(400, 5, 33).to(dtype), torch.randn(400, 5, 33).to(dtype), torch.tensor(alpha)
    for memory in (x, x.transpose(0, 2).contiguous().transpose(0, 2), x[:, :, 1:-1], x.flatten()[7:].view(-1, 1)):
        a = slope if memory.shape[1] == 5 else slope[:1]
        cpu = raw.forward_mask(memory, a)
        gpu = raw.forward_mask(memory.cuda(), a.cuda())
        for ours, theirs in zip(gpu, cpu, strict=True):
            same(ours.cpu(), theirs)
        g = grad.flatten()[: memory.numel()].view(memory.shape)
        on_gpu = raw.backward_mask(g.cuda(), gpu[1], a.cuda(), 1, memory.cuda().stride())
        same(on_gpu.cpu(), raw.backward_mask(g, cpu[1], a, 1, memory.cuda().stride()))


def step(x: Tensor, alpha: Tensor, save: str = "input") -> tuple[Tensor, Tensor, Tensor]:
    y = leaky_ext.learnable_leaky_relu(x, alpha, save=save)
    return y, *torch.autograd.grad(y, (x, alpha), torch.ones_like(y))


@pytest.mark.parametrize("save", ["input", "output"])
@pytest.mark.parametrize("channels", [1, 24])
def test_no_call_waits_for_the_gpu(no_waiting: None, channels: int, save: str) -> None:
    x = torch.randn(64, 24, 100, device="cuda", requires_grad=True)
    alpha = torch.rand(channels, device="cuda", requires_grad=True)
    step(x, alpha, save)
    for slope in (0.1, alpha, torch.tensor(0.1)):
        leaky_ext.straight_through_relu(x, slope).sum().backward()
        leaky_ext.learnable_leaky_relu_(x.detach().clone(), slope.detach() if isinstance(slope, Tensor) else slope)


@pytest.mark.parametrize("shape", [(64, 24, 100), (50_000, 24)], ids=str)
@pytest.mark.parametrize("channels", [1, 24])
def test_graphs(channels: int, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, device="cuda", requires_grad=True)
    alpha = torch.rand(channels, device="cuda", requires_grad=True)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step(x, alpha)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(x, alpha)
    for _ in range(3):
        with torch.no_grad():
            x.normal_()
            alpha.uniform_()
        graph.replay()
        for ours, theirs in zip(captured, step(x, alpha), strict=True):
            same(ours, theirs)


def test_current_stream() -> None:
    """Kernels run on the current stream, not on the default stream."""
    x = torch.zeros(1 << 22, device="cuda")
    alpha = torch.full((1,), 0.5, device="cuda")
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        x.fill_(-1)
        y = leaky_ext.learnable_leaky_relu(x, alpha)
        grad_x, grad_alpha = raw.backward(torch.ones_like(x), x, alpha)
    stream.synchronize()
    assert bool((y == -0.5).all()) and bool((grad_x == 0.5).all()) and grad_alpha.item() == -x.numel()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_another_device_than_the_current_one() -> None:
    x, alpha = torch.randn(1000, 5, device="cuda:1"), torch.randn(5, device="cuda:1")
    check("learnable", x, alpha, torch.randn_like(x))
    with pytest.raises(RuntimeError, match=r"cuda:0.*cuda:1"):
        leaky_ext.learnable_leaky_relu(x, alpha.to("cuda:0"))


def test_devices_that_differ() -> None:
    x = torch.randn(4, 3, device="cuda")
    for alpha in (torch.randn(3), torch.randn(1, requires_grad=True)):
        with pytest.raises(RuntimeError, match=r"alpha.* is on cpu, but x is on cuda:0"):
            leaky_ext.learnable_leaky_relu(x, alpha)
    same(leaky_ext.learnable_leaky_relu(x, torch.tensor(0.5)), torch.where(x >= 0, x, 0.5 * x))
    with pytest.raises(RuntimeError, match=r"grad is on cpu"):
        raw.backward(torch.ones(4, 3), x, torch.rand(3, device="cuda"))


@pytest.mark.parametrize("slopes", [(1,), (64,), (64, 1000)], ids=str)
def test_peak_memory(slopes: tuple[int, ...]) -> None:
    """Forward and backward need their inputs, their outputs and less than 1 MiB."""
    x = torch.randn(500, 64, 1000, device="cuda", requires_grad=True)
    alpha = torch.rand(slopes if len(slopes) == 1 else (1, *slopes), device="cuda", requires_grad=True)
    grad = torch.ones_like(x)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results = torch.autograd.grad(y := leaky_ext.learnable_leaky_relu(x, alpha), (x, alpha), grad)
    outputs = sum(t.nbytes for t in (y, *results))
    assert torch.cuda.max_memory_allocated() - before - outputs < 1 << 20


@pytest.mark.slow
@pytest.mark.skipif(not has_memory(40), reason="needs 40 GiB")
@pytest.mark.parametrize("layout", ["flat", "channels last", "strided"])
def test_more_than_2_to_the_31_elements(layout: str) -> None:
    shape = (1 << 31) + 4104, 1
    if layout != "flat":
        shape = shape[0] // 8, 8
    x = torch.empty(shape, dtype=torch.bfloat16, device="cuda").normal_()
    if layout == "strided":
        x = x.flatten()[1:-7].view(-1, 8)
    alpha = torch.linspace(-1, 1, shape[1] + 1, device="cuda")[1:]
    y, mask = raw.forward_mask(x, alpha)
    grad_x, grad_alpha = raw.backward(x, x, alpha)
    from_mask = raw.backward_mask(x, mask, alpha, 1, x.stride())
    rows = 1 << 24
    exact = torch.zeros(shape[1], dtype=torch.float64, device="cuda")
    for start in range(0, len(x), rows):
        part = x[start : start + rows]
        expected = torch.where(part >= 0, part, (part.float() * alpha).to(x.dtype))
        for found in (y, grad_x, from_mask):  # the gradient is x itself
            same(found[start : start + rows], expected)
        exact += torch.where(part >= 0, 0.0, part.double() ** 2).sum(0)
    torch.testing.assert_close(grad_alpha.double(), exact, rtol=1.1e-6, atol=0)


def turned(t: torch.Tensor) -> torch.Tensor:
    """Returns x on the GPU, with the first dimension innermost in memory."""
    return t.transpose(0, -1).contiguous().cuda().transpose(0, -1)


def test_short_set() -> None:
    """Runs every kernel once, in every dtype, with few elements, so that compute-sanitizer needs only a minute.

    No kernel of torch runs, because initcheck does not see what those kernels write.
    """
    for dtype in DTYPES:
        for shape, slopes in (
            ((9, 7, 5), 7),
            ((300, 3, 64), 3),
            ((5000, 33), 33),
            ((40, 70, 9), 70),
            ((70_001,), 1),
            ((5, 13, 11), 0),
        ):
            values, alpha = torch.randn(shape).to(dtype), (torch.rand(slopes or shape) + 0.1).to(dtype)
            one = alpha.flatten()[:1].cuda()
            for x, a in (
                (values.cuda(), alpha.cuda()),
                (turned(values), alpha.cuda() if slopes else one),  # others would be copied, to lie as x does
                (values.flatten().cuda()[1:].view(-1, 1), one),
            ):
                y, mask = raw.forward_mask(x, a)
                grad_x, grad_alpha = raw.backward(x, x, a)
                same(raw.backward_mask(x, mask, a, 1, x.stride()).cpu(), grad_x.cpu())
                for saved_mask in (mask, None):
                    kept = raw.forward(x, a, formula=raw.LEAKY_RELU_SIGNED)
                    again_x, again_alpha = raw.backward_output(x, kept, saved_mask, a, 1)
                    same(again_x.cpu(), grad_x.cpu())
                    assert again_alpha.shape == a.shape
                x_cpu, a_cpu = x.cpu(), a.cpu()
                check_grad_alpha(grad_alpha.cpu(), x_cpu, a_cpu, x_cpu, device="cuda")
                same(raw.forward(x, formula=raw.RELU).cpu(), x_cpu.clamp(min=0))
                same(y.cpu(), raw.forward(x_cpu, a_cpu))
