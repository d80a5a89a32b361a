"""torch.library.opcheck for every operator: schemas, mutation, fake kernels with symbolic shapes, dispatch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.library import opcheck

import leaky_ext
from leaky_ext import _C

OPS = torch.ops.leaky_ext
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
LAYOUTS: dict[str, Callable[[], Tensor]] = {
    "contiguous": lambda: torch.randn(2, 3, 4, 5),
    "channels_last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "permuted": lambda: torch.randn(3, 5, 2).permute(2, 0, 1),
    "sliced": lambda: torch.randn(4, 3, 7)[::2, :, 1:5],
    "offset": lambda: torch.randn(2 * 3 * 4 + 1)[1:].view(2, 3, 4),
    "expanded": lambda: torch.randn(3, 1).expand(2, 3, 4),
    "size 1": lambda: torch.randn(3, 2, 1)[:, :1].transpose(0, 1),
    "1-d": lambda: torch.randn(3),
    "0-d": lambda: torch.randn(()),
    "empty": lambda: torch.randn(2, 3, 0),
}
SLOPES = ["float", "0-d", "channels", "broadcast"]


def slope(kind: str, x: Tensor) -> Any:
    if kind == "float":
        return 0.3
    if kind == "0-d" or x.ndim == 0:
        return torch.tensor(-0.3)
    channels = x.shape[1 if x.ndim > 1 else 0]
    if kind == "channels":
        return torch.randn(channels, dtype=torch.bfloat16)
    return torch.randn([1, channels] + [1] * (x.ndim - 2) if x.ndim > 1 else [channels])


def calls(x: Tensor, alpha: Any) -> list[tuple[Any, tuple]]:
    """Every operator with arguments for this x and alpha."""
    grad = torch.randn_like(x).clone(memory_format=torch.contiguous_format)
    mask = _C.straight_through_relu_mask(x)[1]
    in_place = [] if 0 in x.stride() and x.numel() > 1 else ["learnable_leaky_relu_", "learnable_leaky_relu_mask_"]
    forward = ["learnable_leaky_relu", "learnable_leaky_relu_mask", *in_place]
    if not isinstance(alpha, Tensor):
        relu = [name.replace("learnable_leaky", "straight_through") for name in forward]
        return [
            *((getattr(OPS, name).Scalar, (x, alpha)) for name in forward),
            *((getattr(OPS, name).default, (x,)) for name in relu),
            (OPS.backward.Scalar, (grad, x, alpha)),
            (OPS.backward_mask.Scalar, (grad, mask, alpha, x.stride())),
        ]
    needs = [(True, True), (True, False), (False, True)]
    return [
        *((getattr(OPS, name).default, (x, alpha)) for name in forward),
        *((OPS.backward.default, (grad, x, alpha, 1, need)) for need in needs),
        (OPS.backward_mask.default, (grad, mask, alpha, 1, x.stride())),
        *((OPS.backward_output.default, (grad, x, mask, alpha, 1, need)) for need in needs),
        (OPS.backward_output.default, (grad, x, None, alpha.abs(), 1, (True, True))),
    ]


@pytest.mark.parametrize("kind", SLOPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, kind: str) -> None:
    x = LAYOUTS[layout]()
    for op, args in calls(x, slope(kind, x)):
        opcheck(op, args)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", SLOPES)
def test_dtypes(dtype: torch.dtype, kind: str) -> None:
    x = torch.randn(3, 4).to(dtype)
    for op, args in calls(x, slope(kind, x)):
        opcheck(op, args)


def test_every_operator_is_checked() -> None:
    x = torch.randn(3, 4)
    checked = {op for kind in SLOPES for op, _ in calls(x, slope(kind, x))}
    named = {name for name in dir(_C) if name.startswith(("learnable", "straight", "backward"))}
    assert checked == {getattr(getattr(OPS, name), key) for name in named for key in getattr(OPS, name).overloads()}


MISUSES: dict[str, tuple[Any, Callable[[], tuple], type[Exception]]] = {
    "integers": (OPS.learnable_leaky_relu.Scalar, lambda: (torch.ones(3, 4, dtype=torch.int64), 0.1), TypeError),
    "relu of integers": (OPS.straight_through_relu.default, lambda: (torch.ones(3, dtype=torch.int64),), TypeError),
    "integer alpha": (OPS.learnable_leaky_relu.default, lambda: (torch.ones(3), torch.ones(3).int()), TypeError),
    "channels": (OPS.learnable_leaky_relu.default, lambda: (torch.ones(3, 4), torch.ones(5)), ValueError),
    "channel_dim": (OPS.learnable_leaky_relu_mask.default, lambda: (torch.ones(3, 4), torch.ones(4), 2), IndexError),
    "broadcast": (OPS.learnable_leaky_relu.default, lambda: (torch.ones(3, 4), torch.ones(2, 4)), ValueError),
    "overlap": (OPS.straight_through_relu_.default, lambda: (torch.ones(1).expand(3),), RuntimeError),
    "grad's shape": (OPS.backward.Scalar, lambda: (torch.ones(3), torch.ones(4), 0.1), ValueError),
    "grad's dtype": (OPS.backward.Scalar, lambda: (torch.ones(3).half(), torch.ones(3), 0.1), TypeError),
    "mask's dtype": (OPS.backward_mask.Scalar, lambda: (torch.ones(9), torch.ones(2), 0.1, [1]), TypeError),
    "mask's size": (OPS.backward_mask.Scalar, lambda: (torch.ones(9), torch.ones(3).byte(), 0.1, [1]), ValueError),
    "stride": (OPS.backward_mask.Scalar, lambda: (torch.ones(9), torch.ones(2).byte(), 0.1, [1, 1]), ValueError),
    "output's shape": (
        OPS.backward_output.default,
        lambda: (torch.ones(3), torch.ones(4), None, torch.ones(1), 1, (True, True)),
        ValueError,
    ),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_fake_kernels_refuse_what_the_operators_refuse(misuse: str) -> None:
    op, make, error = MISUSES[misuse]
    with pytest.raises(error) as real:
        op(*make())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, pytest.raises(error) as fake:
        args = make()
        op(*(mode.from_tensor(t) if isinstance(t, Tensor) and not hasattr(t, "fake_mode") else t for t in args))
    if error in (ValueError, IndexError):  # the others name dtypes, which C++ calls Float and Python torch.float32
        assert str(fake.value) == str(real.value).splitlines()[0]


def test_meta_tensors() -> None:
    x = torch.empty(2, 3, 4, 5, device="meta").to(memory_format=torch.channels_last)
    y = leaky_ext.learnable_leaky_relu(x, torch.empty(3, device="meta"))
    assert y.shape == x.shape and y.stride() == x.stride() and y.is_meta
    assert leaky_ext.straight_through_relu(x).is_meta


def test_raw_operators_refuse_to_lose_a_gradient() -> None:
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"not differentiable.*learnable_leaky_relu"):
        OPS.learnable_leaky_relu(x, 0.1)
    with torch.no_grad():
        assert torch.equal(OPS.learnable_leaky_relu(x, 0.1), x)
