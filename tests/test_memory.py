"""What is saved for backward, the peak of a step, and autograd's safety checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peak import MIB, peak
from torch import Tensor
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks

import leaky_ext
from leaky_ext import (
    LearnableLeakyReLU,
    learnable_leaky_relu,
    learnable_leaky_relu_,
    straight_through,
    straight_through_relu,
    straight_through_relu_,
)
from leaky_ext.operators.bounds import clamp_slope

N = 8 * 1024


def kept(call: Callable[[Tensor], Tensor], x: Tensor) -> tuple[float, float]:
    """Returns the bytes per element that `call` saves for backward: in total, and without x and y."""
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        y = call(x)
    total = sum(saved.values())
    for held in (x, y):
        saved.pop(held.untyped_storage().data_ptr(), None)
    return total / x.numel(), sum(saved.values()) / x.numel()


def positive(value: float = 0.3, requires_grad: bool = True) -> Tensor:
    return torch.tensor(value, requires_grad=requires_grad)


def bounded(low: float = 0.1, **options: Any) -> LearnableLeakyReLU:
    return LearnableLeakyReLU(init=0.3, alpha_bounds=(low, 1.0), **options)


SLOPE = 4 / N  # the slope is saved in addition to x or y
MASK = 1 / 8
KEPT: dict[str, tuple[Callable[[Tensor], Tensor], float, float]] = {
    "float": (lambda x: learnable_leaky_relu(x, 0.3), MASK, MASK),
    "float, save='output'": (lambda x: learnable_leaky_relu(x, 0.3, save="output"), MASK, MASK),
    "frozen": (lambda x: learnable_leaky_relu(x, positive(requires_grad=False)), MASK + SLOPE, MASK + SLOPE),
    "learned": (lambda x: learnable_leaky_relu(x, positive()), 4 + SLOPE, SLOPE),
    "learned, positive, save='output'": (
        lambda x: learnable_leaky_relu(x, positive(), save="output"),
        4 + SLOPE,
        SLOPE,
    ),
    "learned, negative, save='output'": (
        lambda x: learnable_leaky_relu(x, positive(-0.3), save="output"),
        4 + MASK + SLOPE,
        MASK + SLOPE,
    ),
    "bounds above 0, save='output'": (lambda x: bounded(save="output")(x), 4 + 2 * SLOPE, 2 * SLOPE),  # stored, clamped
    "in place, bounds above 0": (lambda x: bounded(inplace=True)(x), 4 + 2 * SLOPE, 2 * SLOPE),
    "in place, float": (lambda x: learnable_leaky_relu_(x, 0.3), MASK, MASK),
    "in place, learned, positive": (lambda x: learnable_leaky_relu_(x, positive()), 4 + SLOPE, SLOPE),
    "in place, learned, negative": (lambda x: learnable_leaky_relu_(x, positive(-0.3)), 4 + MASK + SLOPE, MASK + SLOPE),
    "straight-through, float": (lambda x: straight_through_relu(x, 0.3), MASK, MASK),
    "straight-through, frozen": (
        lambda x: straight_through_relu(x, positive(requires_grad=False)),
        MASK + SLOPE,
        MASK + SLOPE,
    ),
    "straight-through, learned": (lambda x: straight_through_relu(x, positive()), 4 + SLOPE, SLOPE),
    "straight-through, in place": (lambda x: straight_through_relu_(x, 0.3), MASK, MASK),
    "straight_through": (lambda x: straight_through(x.sign(), x), 0, 0),
}


@pytest.mark.parametrize("case", KEPT)
def test_bytes_kept_an_element(case: str, device: str) -> None:
    call, total, beyond = KEPT[case]
    if device == "cuda" and ", positive" in case:  # slopes are not read on a GPU, so the mask is always saved
        total, beyond = total + MASK, beyond + MASK
    with torch.device(device):
        assert kept(call, torch.randn(N, requires_grad=True) * 1) == (total, beyond)


@pytest.mark.parametrize("x_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("alpha_dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("low", [0.1, 1e-60, -0.5])
def test_positive_bounds_tell_the_sign_without_a_look_at_the_slopes(
    low: float, alpha_dtype: torch.dtype, x_dtype: torch.dtype, device: str
) -> None:
    """Without positive bounds, the CPU reads the slopes. A NaN slope does not count as positive."""
    tells = low == 0.1 or (low > 0 and alpha_dtype == x_dtype == torch.float64)  # elsewhere 1e-60 is rounded to 0
    module = bounded(low, save="output", dtype=alpha_dtype, device=device)
    x = torch.tensor([-2.0, 3.0] * 4, dtype=x_dtype, device=device, requires_grad=True)
    with torch.no_grad():
        module.alpha.fill_(torch.nan)
    masks: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        masks.extend([tensor] * (tensor.dtype == torch.uint8))
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        y = module(x)
    assert len(masks) == (not tells)
    y.sum().backward()
    assert x.grad is not None and module.alpha.grad is not None
    assert x.grad.isnan().tolist() == [True, False] * 4 and bool(module.alpha.grad.isnan())


def test_clamped_slopes_that_were_changed_are_looked_at() -> None:
    x, alpha = torch.tensor([-2.0, 3.0], requires_grad=True), torch.tensor([0.3], requires_grad=True)
    slope = clamp_slope(alpha, 0.1, 1.0)
    with torch.no_grad():
        slope.neg_()
    y = learnable_leaky_relu(x, slope, save="output")
    grad_x, grad_slope = torch.autograd.grad(y.sum(), (x, slope))
    assert torch.equal(grad_x, torch.tensor([-0.3, 1.0])) and grad_slope.item() == pytest.approx(-2)


@pytest.mark.parametrize("function", [learnable_leaky_relu, straight_through_relu])
def test_nothing_is_kept_where_nothing_needs_a_gradient(function: Callable) -> None:
    x, alpha = torch.randn(N), positive()
    assert kept(lambda x: function(x, 0.3), x) == (0, 0)
    x.requires_grad_()
    with torch.no_grad():
        assert kept(lambda x: function(x, alpha), x) == (0, 0)
    with torch.inference_mode():
        assert kept(lambda x: function(x, alpha), torch.randn(N)) == (0, 0)


PEAKS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], bool, int]] = {
    # y and grad_x, each of x's size, and bits; grad_x alone where y is x's memory (which the copy before it adds)
    "float": (lambda x, alpha: learnable_leaky_relu(x, 0.3), False, 2),
    "learned": (learnable_leaky_relu, True, 2),
    "learned, save='output'": (lambda x, alpha: learnable_leaky_relu(x, alpha, save="output"), True, 2),
    "learned, in place": (lambda x, alpha: learnable_leaky_relu_(x.clone(), alpha), True, 2),
    "per channel": (lambda x, alpha: learnable_leaky_relu(x, alpha.expand(64)), True, 2),
    "per last dimension": (lambda x, alpha: learnable_leaky_relu(x, alpha.expand(256), channel_dim=-1), True, 2),
    "straight-through": (lambda x, alpha: straight_through_relu(x, 0.3), False, 2),
    "straight-through, learned": (straight_through_relu, True, 2),
    "straight-through, in place": (lambda x, alpha: straight_through_relu_(x.clone(), 0.3), False, 2),
}


@pytest.mark.parametrize("case", PEAKS)
def test_peak_of_forward_and_backward(case: str, device: str) -> None:
    call, learned, tensors = PEAKS[case]
    x = torch.randn(128, 64, 256, device=device, requires_grad=True)
    alpha = torch.full((1,), 0.3, device=device, requires_grad=True)
    grad = torch.randn_like(x)
    size, bits = 4 * x.numel(), x.numel() // 8

    def step() -> None:
        torch.autograd.grad(call(x, alpha), (x, alpha) if learned else x, grad)

    step()
    assert peak(step, device) <= tensors * size + bits + MIB


def test_only_the_needed_gradients_are_allocated(device: str) -> None:
    x = torch.randn(64, 256, 256, device=device)
    alpha = torch.full((1,), 0.3, device=device, requires_grad=True)
    grad = torch.randn_like(x)

    def step() -> None:
        torch.autograd.grad(learnable_leaky_relu(x, alpha), alpha, grad)

    step()
    assert peak(step, device) <= 4 * x.numel() + MIB  # y, and no grad_x


@pytest.mark.parametrize("save", ["input", "output"])
def test_what_is_saved_and_then_changed_in_place_raises(save: str) -> None:
    for victim in ("x", "y", "alpha"):
        x, alpha = torch.randn(5, requires_grad=True) * 1, positive().detach().requires_grad_()
        y = learnable_leaky_relu(x, alpha, save=save)
        with torch.no_grad():
            {"x": x, "y": y, "alpha": alpha}[victim].mul_(2)
        if victim == ("y" if save == "input" else "x"):
            y.sum().backward()  # is not what was saved
            continue
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


@pytest.mark.parametrize("name", ["learnable_leaky_relu_", "straight_through_relu_"])
def test_in_place_on_what_another_function_saved_raises(name: str) -> None:
    x = torch.randn(5, requires_grad=True)
    z = x.exp()  # keeps its output
    getattr(leaky_ext, name)(z, 0.3)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


@pytest.mark.parametrize("name", ["learnable_leaky_relu_", "straight_through_relu_"])
@pytest.mark.parametrize(
    "view", [lambda z: z, lambda z: z[1:], lambda z: z.view(2, 3).t()], ids=["all", "slice", "view"]
)
def test_in_place_has_the_gradient_of_the_other_form(name: str, view: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(6, dtype=torch.float64, requires_grad=True)
    alphas = [0.3, *([positive(-0.4).double().detach().requires_grad_()] if "leaky" in name else [])]
    for alpha in alphas:
        inputs = (x, alpha) if isinstance(alpha, Tensor) else (x,)
        results = []
        for copy in (False, True):
            z = x.sin()
            part = view(z)
            if copy:
                part.copy_(getattr(leaky_ext, name[:-1])(part.clone(), alpha))
            else:
                out = getattr(leaky_ext, name)(part, alpha)
                assert out.untyped_storage().data_ptr() == z.untyped_storage().data_ptr()
            results.append((z, *torch.autograd.grad((z * torch.arange(6.0)).sum(), inputs)))
        torch.testing.assert_close(*results)


@pytest.mark.parametrize("name", ["learnable_leaky_relu_", "straight_through_relu_"])
def test_in_place_on_views_that_autograd_lets_no_one_modify(name: str) -> None:
    base = torch.full((2, 3), -1.0, requires_grad=True) * 1
    part = base.unbind()[0]
    with pytest.raises(RuntimeError, match="view"):
        getattr(leaky_ext, name)(part, 0.3)
    assert base.tolist() == [[-1.0] * 3] * 2


def test_in_place_straight_through_with_a_learned_slope() -> None:
    x = torch.full((3,), -1.0, requires_grad=True) * 1
    with pytest.raises(RuntimeError, match=r"straight_through_relu, or alpha.detach\(\)"):
        straight_through_relu_(x, positive())
    assert x.tolist() == [-1.0] * 3
    with torch.no_grad():
        assert straight_through_relu_(x, positive()) is x
    assert x.tolist() == [0.0] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_slope_cannot_be_rebuilt_from_the_output(dtype: torch.dtype) -> None:
    for alpha in (torch.zeros(1, dtype=dtype), torch.tensor([0.3, 0.0, -0.2], dtype=dtype)):
        x = torch.full((2, 3), -1.0)
        with pytest.raises(ValueError, match=r"rebuilt.*save='input'"):
            learnable_leaky_relu(x, alpha.requires_grad_(), save="output")
        with pytest.raises(ValueError, match="rebuilt"):
            learnable_leaky_relu_(x, alpha)
        assert x.tolist() == [[-1.0] * 3] * 2
        learnable_leaky_relu(x.requires_grad_(), alpha.detach(), save="output").sum().backward()  # frozen: no need to
    # A float64 slope that is 0 in float32, which the computation is in.
    with pytest.raises(ValueError, match="rebuilt"):
        learnable_leaky_relu(
            torch.randn(3), torch.tensor(-1e-300, dtype=torch.float64, requires_grad=True), save="output"
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("slope", "allowed"), [(1e-2, 1e-4), (1e-4, 1e-4), (1e-6, 1e-4), (1e-8, 1.0)])
def test_error_from_tiny_slopes_in_half_precision(slope: float, allowed: float, dtype: torch.dtype) -> None:
    """The table in docs/memory.md: at 1e-8 most of y is 0 in float16, and d(alpha) is too small."""
    x = torch.randn(2**18).to(dtype)
    grad = (x.float() + torch.randn(2**18)).to(dtype)
    alpha = torch.tensor([slope], requires_grad=True)
    y = learnable_leaky_relu(x.requires_grad_(), alpha, save="output")
    found = torch.autograd.grad(y, alpha, grad)[0].item()
    exact = torch.where(x >= 0, 0.0, grad.double() * x.double()).sum().item()
    assert abs(found - exact) <= (allowed if dtype == torch.float16 else min(allowed, 1e-3)) * exact
    if slope == 1e-8 and dtype == torch.float16:
        assert 0 < found < exact / 2


@pytest.mark.parametrize("save", ["input", "output"])
@pytest.mark.parametrize("learned", [False, True])
def test_retain_graph_and_save_on_cpu(save: str, learned: bool) -> None:
    x, alpha = torch.randn(5, requires_grad=True), positive()
    inputs = (x, alpha) if learned else (x,)
    slope: Any = alpha if learned else 0.3
    with save_on_cpu():
        y = learnable_leaky_relu(x, slope, save=save)
    first = torch.autograd.grad(y.sum(), inputs, retain_graph=True)
    second = torch.autograd.grad(y.sum(), inputs)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(y.sum(), inputs)
