"""The sharding rules of the operators for DTensor.

x may have any sharding and is never gathered. If x is sharded along the dimension of the slopes, the slopes and
grad_alpha are sharded too. Otherwise the slopes are replicated, and grad_alpha is a partial sum over the mesh.

Importing this module registers the rules. The functions of leaky_ext import it at their first call with a DTensor.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.distributed.tensor import Partial, Placement, Replicate, Shard
from torch.distributed.tensor.experimental import register_sharding

# One way to run an operator on one dimension of a mesh: the placements of the outputs (None: not computed) and of the
# tensor arguments. DTensor chooses the rule with the least communication.
Rule = tuple[list[Placement | None], list[Placement]]

_ops = torch.ops.leaky_ext


def _layouts(x: Any, alpha: Any, channel_dim: int) -> Iterator[list[Placement]]:
    """Yield every placement of x on one mesh dimension, together with the placement of alpha if alpha is a tensor."""
    shape = getattr(alpha, "shape", None)
    yield [Replicate()] if shape is None else [Replicate(), Replicate()]
    for dim in range(x.ndim):
        if shape is None:
            yield [Shard(dim)]
        elif math.prod(shape) == 1:  # under torch.compile of torch 2.11, a shape is a tuple
            yield [Shard(dim), Replicate()]
        elif len(shape) == x.ndim:
            yield [Shard(dim), Replicate() if shape[dim] == 1 else Shard(dim)]
        else:
            yield [Shard(dim), Shard(0) if dim == channel_dim % x.ndim else Replicate()]


@register_sharding([_ops.forward.default, _ops.forward_.default])
def _forward(x: Any, alpha: Any, value: float, channel_dim: int, formula: int) -> Sequence[Rule]:
    return [([inputs[0]], inputs) for inputs in _layouts(x, alpha, channel_dim)]


@register_sharding(_ops.backward.default)
def _backward(
    grad: Any,
    x: Any,
    mask: Any,
    alpha: Any,
    value: float,
    channel_dim: int,
    kind: int,
    stride: Any,
    output_mask: Sequence[bool],
) -> Sequence[Rule]:
    learned = alpha is not None and output_mask[1]

    def outputs(grad_x: Placement, grad_alpha: Placement) -> list[Placement | None]:
        return [grad_x if output_mask[0] else None, grad_alpha if learned else None]

    rules: list[Rule] = []
    for at, *slopes in _layouts(x, alpha, channel_dim):
        summed = Partial() if isinstance(at, Shard) and slopes == [Replicate()] else slopes[0] if slopes else at
        rules.append((outputs(at, summed), [at, at, *slopes]))
    # Both gradients are linear in grad, so a partial sum may stay one.
    replicated = [Replicate()] * (1 if alpha is None else 2)
    return [*rules, (outputs(Partial(), Partial()), [Partial(), *replicated])]


@register_sharding(_ops.clamp_slope.default)
def _clamp_slope(alpha: Any, low: float, high: float) -> Sequence[Rule]:
    layouts: list[Placement] = [Replicate(), *(Shard(dim) for dim in range(alpha.ndim))]
    return [([at], [at]) for at in layouts]
