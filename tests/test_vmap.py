"""vmap over x, over alpha and over both: one call of a kernel for the whole batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from samples import FUNCTIONS, SLOPES, Function, away_from_zero
from torch import Tensor, func
from torch.utils._python_dispatch import TorchDispatchMode

import leaky_ext
from leaky_ext import learnable_leaky_relu
from leaky_ext.enums import MASK


class Calls(TorchDispatchMode):
    """Records the names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.names.append(str(op))
        return op(*args, **(kwargs or {}))


def per_example(function: Function, x: Tensor, alpha: Any, x_dim: int | None, alpha_dim: int | None, size: int) -> Any:
    xs = [x] * size if x_dim is None else x.unbind(x_dim)
    alphas = [alpha] * size if alpha_dim is None else alpha.unbind(alpha_dim)
    results = [function(x, alpha) for x, alpha in zip(xs, alphas, strict=True)]
    return (
        torch.stack(results) if isinstance(results[0], Tensor) else tuple(map(torch.stack, zip(*results, strict=True)))
    )


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("slopes", SLOPES)
@pytest.mark.parametrize("x_dim", [None, 0, 2, -1])
@pytest.mark.parametrize("alpha_dim", [None, 0, -1])
def test_vmap_runs_the_kernels_once(
    function: Function, slopes: str, x_dim: int | None, alpha_dim: int | None, device: str
) -> None:
    if x_dim is None and alpha_dim is None:
        return
    shape, channel_dim = SLOPES[slopes]
    x, alpha = away_from_zero(3, 4, 5).to(device), away_from_zero(*shape).to(device)
    if x_dim is not None:
        x = torch.stack([x, -x], x_dim)
    if alpha_dim is not None:
        alpha = torch.stack([alpha, 2 * alpha], alpha_dim)

    def f(x: Tensor, alpha: Tensor) -> Tensor:
        return function(x, alpha, channel_dim=channel_dim)

    def loss(x: Tensor, alpha: Tensor) -> Tensor:
        y = f(x, alpha)
        return (y * torch.linspace(-1, 2, 60, dtype=y.dtype, device=device).reshape(3, 4, 5)).sum()

    with Calls() as calls:
        y = func.vmap(f, (x_dim, alpha_dim))(x, alpha)
    kernels = [name for name in calls.names if name.startswith("leaky_ext")]
    assert kernels == ["leaky_ext.forward.default"]
    assert not any("where" in name or "mul" in name for name in calls.names)
    torch.testing.assert_close(y, per_example(f, x, alpha, x_dim, alpha_dim, 2), rtol=0, atol=0)

    gradient = func.grad(loss, (0, 1))
    with Calls() as calls:
        grads = func.vmap(gradient, (x_dim, alpha_dim))(x, alpha)
    assert calls.names.count("leaky_ext.backward.default") == 1
    torch.testing.assert_close(grads, per_example(gradient, x, alpha, x_dim, alpha_dim, 2), rtol=1e-12, atol=1e-12)


def test_nested_vmap() -> None:
    x, alpha = away_from_zero(2, 3, 4, 5), away_from_zero(3, 2, 4)
    inner = func.vmap(lambda x, alpha: learnable_leaky_relu(x, alpha, channel_dim=0), (0, 0))
    y = func.vmap(inner, (0, 1))(x, alpha)
    assert torch.equal(y, learnable_leaky_relu(x, alpha.transpose(0, 1)[..., None]))


def test_ensemble_of_models() -> None:
    """The use of vmap over alpha: stacked models, each with its own slope and gradient."""
    models = [leaky_ext.LearnableLeakyReLU(4, init=0.1 * i).double() for i in range(1, 4)]
    parameters, buffers = func.stack_module_state(models)
    x = away_from_zero(6, 4)

    def loss(parameters: dict, buffers: dict, x: Tensor) -> Tensor:
        return func.functional_call(models[0], (parameters, buffers), (x,)).square().sum()

    grads = func.vmap(func.grad(loss), (0, 0, None))(parameters, buffers, x)
    for model, grad in zip(models, grads["alpha"], strict=True):
        model(x).square().sum().backward()
        torch.testing.assert_close(grad, model.alpha.grad)


@pytest.mark.parametrize("dims", [(0, None), (0, 0), (None, 0)])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_vmap_over_a_batch_of_none(function: Function, dims: tuple[int | None, int | None]) -> None:
    x, alpha = (
        torch.ones(shape if dim is None else (0, *shape)) for dim, shape in zip(dims, [(3, 4), (4,)], strict=True)
    )
    y = func.vmap(function, dims)(x, alpha)
    assert y.shape == (0, 3, 4)


def test_vmap_of_backward_from_a_mask_names_the_kinds_that_are_supported() -> None:
    mask = torch.zeros(1, dtype=torch.uint8)

    def backward(grad: Tensor) -> Tensor:
        return torch.ops.leaky_ext.backward(grad, None, mask, None, 0.1, 1, MASK, None, [True, False])[0]

    with pytest.raises(NotImplementedError, match="kind must be 0, 4 or 5, got 3"):
        func.vmap(backward)(torch.randn(2, 4))
