"""What compilers, exporters and tracers are given.

Inductor and torch's debugging backends get the operator, which Inductor decomposes (inductor.py) and fuses with its
neighbours. Exporters, torch.jit.trace and every other backend get `reference`, which is ATen operations alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import reference, torch_private

ops = torch.ops.leaky_ext

TAKE_OPERATORS = {"inductor", "eager", "aot_eager", "aot_eager_decomp_partition", "cudagraphs"}


def activation(function: Callable, x: Tensor, alpha: Tensor | float, formula: int, options: dict[str, Any]) -> Tensor:
    """A call of the public `function` under a compiler, exporter or tracer."""
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        return getattr(reference, function.__name__)(x, alpha, **options)
    backend = _backend()
    if backend not in TAKE_OPERATORS:
        return getattr(reference, function.__name__)(x, alpha, **options)
    if backend == "inductor" and torch_private.dual_level() >= 0 and not (_has_tangent(x) or _has_tangent(alpha)):
        return _eager(function, x, alpha, options)
    reference.check(x, alpha, options["channel_dim"])  # here, so that the error is the one of an eager call
    slope, value = reference.slope_and_value(alpha)
    if function.__name__.endswith("_"):  # of a copy, for backward needs x as it was; functionalization removes it
        return x.copy_(ops.forward(x.clone(), slope, value, options["channel_dim"], formula))
    return ops.forward(x, slope, value, options["channel_dim"], formula)


def straight_through(x_forward: Tensor, x_backward: Tensor) -> Tensor:
    """`straight_through` under a compiler, tracer or transform."""
    if torch.compiler.is_dynamo_compiling() and torch_private.dual_level() >= 0:
        if not (_has_tangent(x_forward) or _has_tangent(x_backward)):
            return _eager(reference.straight_through, x_forward, x_backward, {})
    return reference.straight_through(x_forward, x_backward)


@torch_private.constant_result
def _backend() -> str:
    """Called once while Dynamo traces: the backend's name. Inductor learns the decompositions first."""
    name = torch_private.backend_name()
    if name == "inductor":
        from . import inductor  # noqa: F401
    return name


def _has_tangent(t: Any) -> bool:
    """What the compiler sees: a tangent that was made inside of what is compiled."""
    return isinstance(t, Tensor) and forward_ad.unpack_dual(t).tangent is not None


def _eager(function: Callable, x: Tensor, alpha: Any, options: dict[str, Any]) -> Tensor:
    """Breaks the graph, an error with fullgraph=True: Inductor would lose a tangent that comes from outside."""
    torch._dynamo.graph_break("leaky_ext: forward-mode AD around a compiled function would lose its tangents")
    return function(x, alpha, **options)
