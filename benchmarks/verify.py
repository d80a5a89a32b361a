"""Compares values and gradients of contenders with the formula, so that no wrong contender is timed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .contenders import Contender

# Tolerance of d(alpha), relative to the sum of |g * x| over the negative elements. PyTorch's own operators round
# products and sums to half precision, so the tolerance is larger than the error bound of leaky_ext.
GRAD_ALPHA = {
    torch.float32: 1e-5,
    torch.float16: 4 * torch.finfo(torch.float16).eps,
    torch.bfloat16: 4 * torch.finfo(torch.bfloat16).eps,
}
CHUNK = 1 << 18  # elements compared at a time: the temporaries in float64 stay in the cache


def formula(x: Tensor, alpha: Tensor | float, contender: Contender) -> Tensor:
    """Computes the expected result of a contender, differentiable. alpha must broadcast to x."""
    forward, backward = (alpha if s is None else s for s in (contender.forward, contender.backward))
    if contender.forward == contender.backward:
        return torch.where(x >= 0, x, forward * x)
    surrogate = backward * x
    return torch.where(x >= 0, x, forward * x.detach() + (surrogate - surrogate.detach()))


def wrong_operator(
    contender: Contender, x: Tensor, alpha: Tensor, grad: Tensor, y: Tensor, grads: Sequence[Tensor]
) -> str | None:
    """Returns what is wrong with y and the gradients of x and alpha, or None. alpha must broadcast to x.

    `grad` should be of one sign, so that d(alpha) does not cancel.
    """
    slopes = alpha.detach().double()
    total, magnitude = torch.zeros_like(slopes), torch.zeros_like(slopes)
    for part_x, part_grad, part_y, part_grad_x in chunks(x.detach(), grad, y.detach(), grads[0]):
        x64, grad64 = part_x.double().requires_grad_(), part_grad.double()
        want = formula(x64, slopes, contender)
        (want_grad,) = torch.autograd.grad(want, x64, grad64)
        for name, got, right in (("y", part_y, want.detach()), ("grad_x", part_grad_x, want_grad)):
            if not close(got, right):
                return f"wrong {name}: off by {(got.double() - right).abs().max().item():.3g}"
        product = torch.where(x64.detach() >= 0, 0.0, grad64 * x64.detach())
        total += product.sum_to_size(slopes.shape)
        magnitude += product.abs().sum_to_size(slopes.shape)
    if contender.learns:
        error = (grads[1].double().reshape(slopes.shape) - total).abs()
        if not bool((error <= GRAD_ALPHA[x.dtype] * magnitude).all()):
            return f"wrong d(alpha): off by {(error / magnitude).max().item():.3g} of the sum of |g * x|"
    return None


def close(got: Tensor, want: Tensor) -> bool:
    """Returns whether each element is within two roundings of its dtype."""
    finfo = torch.finfo(got.dtype)
    bound = want.abs().mul_(2 * finfo.eps).add_(finfo.smallest_normal * finfo.eps)
    return bool((got.double().sub_(want).abs_() <= bound).all())  # false where it is NaN


def chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    first = tensors[0]
    rows = max(1, CHUNK * first.shape[0] // first.numel())
    yield from zip(*(tensor.split(rows) for tensor in tensors), strict=True)


def wrong_network(got: dict[str, Tensor], want: dict[str, Tensor], tolerance: float) -> str | None:
    """Compares the norms of outputs and gradients with the network that has the plain formula.

    Norms tolerate an input of an activation that rounding moves to the other side of 0. If a gradient is only rounding
    noise, as for a bias before a normalization, the largest gradient is the scale.
    """
    norms = {name: right.double().norm() for name, right in want.items()}
    floor = 1e-3 * max(norms.values())
    for name, right in want.items():
        error = (got[name].double() - right.double()).norm() / norms[name].clamp_min(float(floor))
        if not bool(error <= tolerance):
            return f"wrong {name}: relative error {error.item():.3g}"
    return None
