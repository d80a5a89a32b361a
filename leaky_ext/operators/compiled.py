"""The code path of calls while compiling or exporting. Imported at the first such call, because it imports Dynamo.

Inductor and PyTorch's debugging backends get the operator, which Inductor decomposes (inductor.py) and fuses with its
neighbours. Exporters and all other backends get the functions of `reference`, which are ATen operations only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .. import reference
from ..autograd import PassGradient
from ..reference import as_tensor, check, check_straight_through
from ..torch_private import backend_name, dual_level, is_exporting, is_transformed, transforms_active
from . import inductor, register_sharding
from .inductor import REVISION

forward = torch.ops.leaky_ext.compiled.default

TAKE_OPERATORS = {"inductor", "eager", "aot_eager", "aot_eager_decomp_partition", "cudagraphs"}


@torch.compiler.assume_constant_result  # evaluated while tracing, without a guard in each call
def traced_for() -> str:
    """Return the name of the backend if it supports the operators, else "reference"."""
    register_sharding()
    name = backend_name()
    if is_exporting() or name not in TAKE_OPERATORS or not inductor.register():
        return "reference"
    return name


def activation(function: str, x: Tensor, alpha: Tensor | float, formula: int, options: dict[str, Any]) -> Tensor:
    """Call the public function `function` while compiling or exporting.

    Avoid globals here: Dynamo checks a guard for each global in every call of the compiled code.
    """
    backend = traced_for()
    if backend == "reference" or x.is_nested:
        return getattr(reference, function)(x, alpha, **options)
    if backend == "inductor" and dual_level() >= 0 and _tangent_from_outside(x, alpha):
        return _eager(getattr(reference, function), x, alpha, options)
    check(x, alpha, options["channel_dim"])  # raises the errors of an eager call
    slope = as_tensor(alpha, x)
    if function.endswith("_"):  # a copy, because backward needs the old x; functionalization removes the copy
        return x.copy_(forward(x.clone(), slope, 0.0, options["channel_dim"], formula, REVISION))
    return forward(x, slope, 0.0, options["channel_dim"], formula, REVISION)


def straight_through(x_forward: Tensor, x_backward: Tensor) -> Tensor:
    """Call `straight_through` while compiling or exporting."""
    plain = traced_for() == "reference"
    if not plain and dual_level() >= 0 and _tangent_from_outside(x_forward, x_backward):
        return _eager(reference.straight_through, x_forward, x_backward, {})
    if plain or is_transformed():
        return reference.straight_through(x_forward, x_backward)
    check_straight_through(x_forward, x_backward)
    return PassGradient.apply(x_forward.detach(), x_backward)


def _tangent_from_outside(*tensors: Any) -> bool:
    """Return whether the tangents come from outside the compiled code, so that the compiler does not see them."""
    if transforms_active():
        return False
    return not any(isinstance(t, Tensor) and forward_ad.unpack_dual(t).tangent is not None for t in tensors)


@torch.compiler.disable(reason="leaky_ext: forward-mode AD around a compiled function would lose its tangents")
def _eager(function: Callable, x: Tensor, alpha: Any, options: dict[str, Any]) -> Tensor:
    """Run eagerly. This breaks the graph, which is an error with fullgraph=True."""
    return function(x, alpha, **options)
