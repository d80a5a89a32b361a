"""No wrong implementation is timed: values and gradients are compared with the formulas in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from .implementations import STRAIGHT_THROUGH

# Of the sum of |g * x| of the negative elements. PyTorch's own operators sum products of halves that were rounded, and
# hand back a half: this is what they keep, not what leaky_ext promises.
GRAD_ALPHA_TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 4 * torch.finfo(torch.float16).eps,
    torch.bfloat16: 4 * torch.finfo(torch.bfloat16).eps,
}
CHUNK = 1 << 18  # elements compared at a time, so that the float64 temporaries stay in the cache


def check_operator(bound: Any, x: Tensor, slopes: Tensor, operator: str) -> str | None:
    """Runs bound(x) forward and backward. Returns what is wrong with it, or None.

    slopes: float64, broadcastable to x: what the implementation should have used.
    """
    # Gradients of one sign, so that d(alpha) does not cancel; scaled so that its sum stays within float16.
    scale = min(1.0, 4e4 / x.numel())
    grad = (torch.rand_like(x, requires_grad=False) + 0.5) * scale
    y = bound(x)
    if y.shape != x.shape or y.dtype != x.dtype:
        return f"y is {y.dtype} {list(y.shape)}, not {x.dtype} {list(x.shape)}"
    grads = torch.autograd.grad(y, bound.inputs(x), grad)
    slopes = slopes.to(x.device)

    grad_alpha = torch.zeros_like(slopes)
    magnitude = torch.zeros_like(slopes)
    for x_, grad_, y_, grad_x_ in chunks(x.detach(), grad, y.detach(), grads[0]):
        x64, grad64 = x_.double(), grad_.double()
        negative = ~(x64 >= 0)
        forward_slope = torch.zeros_like(slopes) if operator == STRAIGHT_THROUGH else slopes
        for name, got, want in (
            ("y", y_, torch.where(negative, forward_slope * x64, x64)),
            ("grad_x", grad_x_, torch.where(negative, slopes * grad64, grad64)),
        ):
            if not close(got, want):
                return f"wrong {name}: off by {(got.double() - want).abs().max().item():.3g}"
        product = torch.where(negative, grad64 * x64, 0.0)
        grad_alpha += product.sum_to_size(slopes.shape)
        magnitude += product.abs().sum_to_size(slopes.shape)

    if len(grads) > 1:
        error = (grads[1].double().reshape(slopes.shape) - grad_alpha).abs()
        if not bool((error <= GRAD_ALPHA_TOLERANCE[x.dtype] * magnitude).all()):
            return f"wrong d(alpha): off by {(error / magnitude).max().item():.3g} of the sum of |g * x|"
    return None


def close(got: Tensor, want: Tensor) -> bool:
    """Each element within two roundings of its dtype."""
    finfo = torch.finfo(got.dtype)
    bound = want.abs().mul_(2 * finfo.eps).add_(finfo.smallest_normal * finfo.eps)
    return bool((got.double().sub_(want).abs_() <= bound).all())  # false where it is NaN


def chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Parts along dimension 0, which never is the channel dimension of more than one part's slopes."""
    first = tensors[0]
    rows = max(1, CHUNK * first.shape[0] // first.numel())
    yield from zip(*(t.split(rows) for t in tensors), strict=True)


def check_module(
    run: Callable[[], list[Tensor]], reference: Callable[[], list[Tensor]], names: list[str], device: str
) -> str | None:
    """For blocks: outputs and gradients against the block in float64, by their norms.

    An input of the activation within rounding of 0 may fall on its other side in float64; norms forgive that.
    """
    for name, got, want in zip(names, run(), reference(), strict=True):
        error = (got.double() - want).norm() / want.norm().clamp_min(1e-30)
        # Gradients of slopes and biases are sums over everything, of both signs; convolutions on CUDA use TF32.
        tolerance = 2e-3 if got.numel() > 10_000 and device == "cpu" else 2e-2
        if not bool(error <= tolerance):
            return f"wrong {name}: relative error {error.item():.3g}"
    return None
