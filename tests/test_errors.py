"""Every misuse raises before anything is written, and the message has the values that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import raw
import torch
from torch import Tensor

import leaky_ext
from leaky_ext import _C

FUNCTIONS = [
    leaky_ext.learnable_leaky_relu,
    leaky_ext.learnable_leaky_relu_,
    leaky_ext.straight_through_relu,
    leaky_ext.straight_through_relu_,
]
X = (2, 3, 4)
MISUSES: dict[str, tuple[Callable[[], tuple[Any, ...]], dict[str, Any], type[Exception], list[str]]] = {
    "integers": (lambda: (torch.ones(X, dtype=torch.int64), 0.1), {}, TypeError, ["x must be", "torch.int64"]),
    "complex": (lambda: (torch.ones(X, dtype=torch.complex64), 0.1), {}, TypeError, ["x must be", "omplex"]),
    "booleans": (lambda: (torch.ones(X, dtype=torch.bool), 0.1), {}, TypeError, ["x must be", "ool"]),
    "integer alpha": (lambda: (torch.ones(X), torch.ones(3, dtype=torch.int32)), {}, TypeError, ["alpha must be"]),
    "channels": (lambda: (torch.ones(X), torch.ones(5)), {}, ValueError, [r"\[5\]", r"\[2, 3, 4\]", "has 3"]),
    "other channels": (lambda: (torch.ones(X), torch.ones(3)), {"channel_dim": -1}, ValueError, [r"\[3\]", "has 4"]),
    "broadcast": (lambda: (torch.ones(X), torch.ones(2, 3, 5)), {}, ValueError, [r"\[2, 3, 5\]", r"\[2, 3, 4\]"]),
    "dimensions": (lambda: (torch.ones(X), torch.ones(3, 4)), {}, ValueError, [r"\[3, 4\]", r"\[2, 3, 4\]"]),
    "growth": (lambda: (torch.ones(1), torch.ones(3)), {}, ValueError, [r"\[3\]", r"\[1\]"]),
    "growth of a scalar": (lambda: (torch.ones(()), torch.ones(3)), {}, ValueError, [r"\[3\]", r"\[\]"]),
    "empty alpha": (lambda: (torch.ones(X), torch.ones(0)), {}, ValueError, [r"\[0\]", r"\[2, 3, 4\]"]),
    "channel_dim": (lambda: (torch.ones(X), torch.ones(3)), {"channel_dim": 3}, IndexError, ["3", r"\[2, 3, 4\]"]),
    "negative channel_dim": (lambda: (torch.ones(X), torch.ones(3)), {"channel_dim": -4}, IndexError, ["-4"]),
    "device of alpha": (lambda: (torch.ones(X), torch.ones(3, device="meta")), {}, RuntimeError, ["meta", "cpu"]),
}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("misuse", MISUSES)
@pytest.mark.parametrize("gradient", [False, True], ids=["plain", "gradient"])
def test_misuse(function: Callable[..., Tensor], misuse: str, gradient: bool) -> None:
    make, options, error, words = MISUSES[misuse]
    x, alpha = make()
    before = x.clone()
    if gradient and isinstance(alpha, Tensor) and alpha.is_floating_point():
        if function is leaky_ext.straight_through_relu_:
            alpha.requires_grad_(False)
        else:
            alpha.requires_grad_()
    with pytest.raises(error) as raised:
        function(x, alpha, **options)
    for word in words:
        assert raised.match(word)
    assert torch.equal(x, before)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_x_that_is_no_tensor(function: Callable[..., Tensor]) -> None:
    with pytest.raises(TypeError, match="list"):
        function([1.0, 2.0], 0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize("function", FUNCTIONS[1::2], ids=lambda f: f.__name__)
def test_in_place_on_a_leaf_that_needs_a_gradient(function: Callable[..., Tensor]) -> None:
    x = torch.full((5,), -1.0, requires_grad=True)
    for target in (x, x[1:]):
        with pytest.raises(RuntimeError, match="leaf"):
            function(target, 0.1)
    assert x.tolist() == [-1.0] * 5


@pytest.mark.parametrize("strides", [(0, 1), (1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("function", FUNCTIONS[1::2], ids=lambda f: f.__name__)
def test_in_place_on_overlapping_memory(function: Callable[..., Tensor], strides: tuple[int, int]) -> None:
    x = torch.full((12,), -1.0)
    with pytest.raises(RuntimeError, match="memory"):
        function(x.as_strided((4, 3), strides), 0.1)
    assert x.tolist() == [-1.0] * 12


@pytest.mark.parametrize(
    "size, strides", [((4, 3), (3, 1)), ((4, 3), (1, 4)), ((2, 3), (2, 4)), ((1, 3), (0, 1)), ((0, 3), (0, 0))]
)
def test_in_place_on_memory_of_its_own(size: tuple[int, int], strides: tuple[int, int]) -> None:
    x = torch.full((12,), -1.0)
    leaky_ext.learnable_leaky_relu_(x.as_strided(size, strides), 0.5)
    assert x.eq(-0.5).sum() == size[0] * size[1]


def test_in_place_on_memory_of_the_slopes() -> None:
    x = torch.full((4, 3), -1.0)
    with pytest.raises(RuntimeError, match="memory"):
        leaky_ext.learnable_leaky_relu_(x, x[0])
    assert bool((x == -1).all())


def test_straight_through_in_place_with_a_learned_alpha() -> None:
    x = torch.full((3,), -1.0)
    with pytest.raises(RuntimeError, match="alpha"):
        leaky_ext.straight_through_relu_(x, torch.ones(1, requires_grad=True))
    assert x.tolist() == [-1.0] * 3


def test_slope_zero_cannot_be_rebuilt_from_the_output() -> None:
    x = torch.full((2, 3), -1.0)
    alpha = torch.tensor([0.1, 0.0, 0.2], requires_grad=True)
    with pytest.raises(ValueError, match="0"):
        leaky_ext.learnable_leaky_relu(x, alpha, save="output")
    with pytest.raises(ValueError, match="0"):
        leaky_ext.learnable_leaky_relu_(x, alpha)
    assert bool((x == -1).all())


def test_save_is_neither() -> None:
    with pytest.raises(ValueError, match="both"):
        leaky_ext.learnable_leaky_relu(torch.ones(3), 0.1, save="both")


@pytest.mark.skipif(_C.build_info()["cuda"], reason="this build has the CUDA kernels")
def test_cuda_tensor_in_a_build_without_cuda() -> None:
    """Makes the call of the dispatcher for a CUDA tensor directly, without a GPU."""
    cuda = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    x, alpha = torch.ones(3), torch.ones(1)
    for call in (
        lambda: torch.ops.leaky_ext.forward.default.redispatch(cuda, x, alpha, 0.0, 1, 0),
        lambda: torch.ops.leaky_ext.forward_.default.redispatch(cuda, x, None, 0.1, 1, 0),
        lambda: torch.ops.leaky_ext.backward.default.redispatch(cuda, x, x, None, alpha, 0.0, 1, 0, None, [True, True]),
    ):
        with pytest.raises(RuntimeError, match="FORCE_CUDA=1"):
            call()


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda g, x, a: raw.backward(g[:1], x, a), ValueError, r"\[1, 3, 4\].*\[2, 3, 4\]"),
        (lambda g, x, a: raw.backward(g.double(), x, a), TypeError, "Double.*Float"),
        (lambda g, x, a: raw.backward(g.to("meta"), x, a), RuntimeError, "meta"),
        (
            lambda g, x, a: raw.backward_mask(g, torch.zeros(2, dtype=torch.uint8), 0.1, 1, g.stride()),
            ValueError,
            "3 con",
        ),
        (lambda g, x, a: raw.backward_mask(g, torch.zeros(3), 0.1, 1, g.stride()), TypeError, "uint8.*Float"),
        (lambda g, x, a: raw.backward_mask(g, torch.zeros(3, dtype=torch.uint8), 0.1, 1, (1,)), ValueError, "stride"),
        (lambda g, x, a: raw.backward_output(g, x[:1], None, a, 1), ValueError, r"\[1, 3, 4\]"),
    ],
)
def test_raw_backward_checks_what_it_is_given(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(torch.ones(X), torch.ones(X), torch.ones(1))


@pytest.mark.parametrize("function", ["convert", "revert", "parameter_groups", "AlphaMonitor"])
@pytest.mark.parametrize("model", [3, None, torch.nn.PReLU, torch.ones(2)], ids=["int", "None", "class", "Tensor"])
def test_what_is_no_model(function: str, model: Any) -> None:
    with pytest.raises(TypeError, match=rf"must be a torch.nn.Module, got {type(model).__name__}"):
        getattr(leaky_ext, function)(model)
