"""torch.library.opcheck for every operator: schemas, mutation, fake kernels with symbolic shapes, dispatch."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import raw
import torch
from slow import slow_but
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.library import opcheck

import leaky_ext
from leaky_ext import enums
from leaky_ext.enums import INPUT, LEAKY_RELU
from leaky_ext.reference import slope_and_value

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
    """Returns calls of every operator for this x and alpha, with each formula and each kind of saved tensors."""
    grad = torch.randn_like(x).clone(memory_format=torch.contiguous_format)
    mask = raw.forward_mask(x)[1]
    slope, value = slope_and_value(alpha)
    in_place = [] if 0 in x.stride() and x.numel() > 1 else [OPS.forward_.default, OPS.forward_mask_.default]
    forward = [OPS.forward.default, OPS.forward_mask.default, *in_place]
    positive = None if slope is None else slope.abs()
    needs = [(True, True), (True, False), (False, True)] if isinstance(alpha, Tensor) else [(True, False)]
    return [
        *((op, (x, slope, value, 1, formula)) for op in forward for formula in range(3)),
        (OPS.compiled.default, (x, slope, value, 1, 0, 7)),
        (OPS.clamp_slope.default, (x, -0.1, 0.5)),
        *(
            (OPS.backward.default, (grad, x, None, slope, value, 1, kind, None, need))
            for need in needs
            for kind in (0, 5)
        ),
        (OPS.backward.default, (grad, x, None, slope, value, 1, 4, None, (True, False))),
        *((OPS.backward.default, (grad, x, mask, slope, value, 1, 2, None, need)) for need in needs),
        (OPS.backward.default, (grad, x, None, positive, abs(value), 1, 1, None, needs[0])),
        (OPS.backward.default, (grad, None, mask, slope, value, 1, 3, x.stride(), (True, False))),
    ]


def with_gradients(op: Any, args: tuple) -> tuple:
    """Returns the arguments. All that can have a gradient require one."""
    if op in (OPS.forward_.default, OPS.forward_mask_.default):
        return args  # a leaf that requires grad cannot be written in place
    return tuple(t.detach().clone().requires_grad_() if is_floating(t) else t for t in args)


def is_floating(t: Any) -> bool:
    return isinstance(t, Tensor) and t.is_floating_point()


@pytest.mark.parametrize("kind", slow_but(SLOPES, "channels"))
@pytest.mark.parametrize("layout", slow_but(LAYOUTS, "channels_last", "sliced", "expanded", "0-d", "empty"))
def test_layouts(layout: str, kind: str) -> None:
    x = LAYOUTS[layout]()
    for op, args in calls(x, slope(kind, x)):
        opcheck(op, args)


@pytest.mark.parametrize("kind", slow_but(SLOPES, "broadcast"))
def test_with_gradients(kind: str) -> None:
    x = torch.randn(2, 3, 4)
    for op, args in calls(x, slope(kind, x)):
        opcheck(op, with_gradients(op, args))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", slow_but(SLOPES, "float"))
def test_dtypes(dtype: torch.dtype, kind: str) -> None:
    x = torch.randn(3, 4).to(dtype)
    for op, args in calls(x, slope(kind, x)):
        opcheck(op, args)


def test_every_operator_is_checked() -> None:
    x = torch.randn(3, 4)
    checked = {op.name() for op, _ in calls(x, 0.3)}
    assert checked == {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("leaky_ext::")}


def test_numbers_are_those_of_the_kernels() -> None:
    source = (Path(__file__).parents[1] / "csrc" / "kernels.h").read_text()
    names = {
        "Formula": ["LEAKY_RELU", "LEAKY_RELU_SIGNED", "RELU"],
        "Saved": ["INPUT", "OUTPUT", "OUTPUT_AND_MASK", "MASK"],
    }
    for enum, expected in names.items():
        found = re.search(rf"enum class {enum} : uint8_t {{ (.*) }};", source)
        assert found is not None
        assert found[1].upper().split(", ") == [name.replace("_", "") for name in expected]
        assert [getattr(enums, name) for name in expected] == list(range(len(expected)))


FORWARD, BACKWARD = OPS.forward.default, OPS.backward.default
MISUSES: dict[str, tuple[Any, Callable[[], tuple], type[Exception]]] = {
    "integers": (FORWARD, lambda: (torch.ones(3, 4, dtype=torch.int64), None, 0.1), TypeError),
    "relu of integers": (FORWARD, lambda: (torch.ones(3, dtype=torch.int64), None, 0.1, 1, 2), TypeError),
    "integer alpha": (FORWARD, lambda: (torch.ones(3), torch.ones(3).int()), TypeError),
    "channels": (FORWARD, lambda: (torch.ones(3, 4), torch.ones(5)), ValueError),
    "channel_dim": (OPS.forward_mask.default, lambda: (torch.ones(3, 4), torch.ones(4), 0.0, 2), IndexError),
    "broadcast": (FORWARD, lambda: (torch.ones(3, 4), torch.ones(2, 4)), ValueError),
    "overlap": (OPS.forward_.default, lambda: (torch.ones(1).expand(3), None), RuntimeError),
    "grad's shape": (BACKWARD, lambda: (torch.ones(3), torch.ones(4), None, None), ValueError),
    "grad's dtype": (BACKWARD, lambda: (torch.ones(3).half(), torch.ones(3), None, None), TypeError),
    "mask's dtype": (BACKWARD, lambda: (torch.ones(9), None, torch.ones(2), None, 0.1, 1, 3, [1]), TypeError),
    "mask's size": (BACKWARD, lambda: (torch.ones(9), None, torch.ones(3).byte(), None, 0.1, 1, 3, [1]), ValueError),
    "stride": (BACKWARD, lambda: (torch.ones(9), None, torch.ones(2).byte(), None, 0.1, 1, 3, [1, 1]), ValueError),
    "output's shape": (BACKWARD, lambda: (torch.ones(3), torch.ones(4), None, torch.ones(1), 0.0, 1, 1), ValueError),
    "formula": (FORWARD, lambda: (torch.ones(3), None, 0.1, 1, 3), ValueError),
    "kind": (BACKWARD, lambda: (torch.ones(3), torch.ones(3), None, None, 0.1, 1, 6), ValueError),
    "what was saved": (BACKWARD, lambda: (torch.ones(3), torch.ones(3), None, None, 0.1, 1, 3), ValueError),
    "d(alpha) from the mask": (
        BACKWARD,
        lambda: (torch.ones(9), None, torch.ones(2).byte(), torch.ones(1), 0.0, 1, 3),
        ValueError,
    ),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_fake_kernels_refuse_what_the_operators_refuse(misuse: str) -> None:
    op, make, error = MISUSES[misuse]
    rest = (0.1, 1, INPUT, None, (True, True)) if op is BACKWARD else (0.1, 1, LEAKY_RELU)
    given = 4 if op is BACKWARD else 2

    def arguments() -> tuple:
        return (*make(), *rest[len(make()) - given :])

    with pytest.raises(error) as real:
        op(*arguments())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, pytest.raises(error) as fake:
        args = arguments()
        op(*(mode.from_tensor(t) if isinstance(t, Tensor) and not hasattr(t, "fake_mode") else t for t in args))
    if error in (ValueError, IndexError):  # the others name dtypes, which C++ calls Float and Python torch.float32
        assert str(fake.value) == str(real.value).splitlines()[0]


def test_meta_tensors() -> None:
    x = torch.empty(2, 3, 4, 5, device="meta").to(memory_format=torch.channels_last)
    y = leaky_ext.learnable_leaky_relu(x, torch.empty(3, device="meta"))
    assert y.shape == x.shape and y.stride() == x.stride() and y.is_meta
    assert leaky_ext.straight_through_relu(x).is_meta
