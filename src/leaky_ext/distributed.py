"""DTensor: how the operators are sharded, and a tensor-parallel style for the modules.

The operators run on any sharding of x as it lies. Slopes are replicated or, where x is sharded along their dimension,
sharded with it; d(alpha) is then a partial sum over the mesh, or sharded too. x is never gathered.

Importing this module registers the rules with DTensor; the functions of leaky_ext do so when they first meet one.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.experimental import register_sharding
from torch.distributed.tensor.parallel import ParallelStyle

from .modules import LearnableLeakyReLU, StraightThroughReLU

# One way to run an operator on one dimension of a mesh: placements of its outputs (None: not computed) and of those
# arguments that are tensors. DTensor chooses the one that moves least.
Rule = tuple[list[Placement | None], list[Placement]]

_ops = torch.ops.leaky_ext


class SlopeParallel(ParallelStyle):
    """Tensor parallelism for :class:`LearnableLeakyReLU` and :class:`StraightThroughReLU`.

    For :func:`torch.distributed.tensor.parallel.parallelize_module`, between layers that shard what passes through.
    Without it, every rank would train its slopes on its own shard alone. It turns ``inplace`` off. ::

        parallelize_module(model, mesh, {"up": ColwiseParallel(), "act": SlopeParallel(), "down": RowwiseParallel()})

    Args:
        input_layout: placement of the input; default ``Shard(-1)``. Slopes are sharded where it shards their dimension
            (``Shard(-1)`` with ``channel_dim=-1``), else replicated.
        use_local_output: return a plain tensor, this rank's shard, as torch's own styles do; else a DTensor.
    """

    def __init__(self, *, input_layout: Placement | None = None, use_local_output: bool = True) -> None:
        super().__init__()
        self.input_layout = input_layout or Shard(-1)
        self.use_local_output = use_local_output

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if not isinstance(module, (LearnableLeakyReLU, StraightThroughReLU)):
            raise TypeError(f"SlopeParallel is for LearnableLeakyReLU and StraightThroughReLU, got {module}")
        module.inplace = False  # nothing needed for a gradient can be kept of a DTensor that is overwritten
        return distribute_module(module, device_mesh, self._distribute, self._input, self._output)

    def _distribute(self, name: str, module: nn.Module, mesh: DeviceMesh) -> None:
        if isinstance(module.alpha, Tensor):
            shard = module.num_parameters != 1 and self.input_layout == Shard(module.channel_dim)  # type: ignore[arg-type]
            alpha = distribute_tensor(module.alpha, mesh, [Shard(0) if shard else Replicate()])
            module.register_parameter("alpha", nn.Parameter(alpha, module.alpha.requires_grad))

    def _input(self, module: nn.Module, inputs: tuple[Any, ...], mesh: DeviceMesh) -> Any:
        x = inputs[0]
        return x if isinstance(x, DTensor) else DTensor.from_local(x, mesh, [self.input_layout], run_check=False)

    def _output(self, module: nn.Module, output: Any, mesh: DeviceMesh) -> Any:
        return output.to_local() if self.use_local_output else output


def _layouts(x: Any, alpha: Any, channel_dim: int) -> Iterator[list[Placement]]:
    """Every placement of x on one mesh dimension, with that of alpha, if it is a tensor."""
    shape = getattr(alpha, "shape", None)
    yield [Replicate()] if shape is None else [Replicate(), Replicate()]
    for dim in range(x.ndim):
        if shape is None:
            yield [Shard(dim)]
        elif shape.numel() == 1:
            yield [Shard(dim), Replicate()]
        elif len(shape) == x.ndim:
            yield [Shard(dim), Replicate() if shape[dim] == 1 else Shard(dim)]
        else:
            yield [Shard(dim), Shard(0) if dim == channel_dim % x.ndim else Replicate()]


@register_sharding([_ops.learnable_leaky_relu.default, _ops.learnable_leaky_relu.Scalar])
def _learnable_leaky_relu(x: Any, alpha: Any, channel_dim: int = 1, **kwargs: Any) -> Sequence[Rule]:
    return [([inputs[0]], inputs) for inputs in _layouts(x, alpha, channel_dim)]


@register_sharding([_ops.learnable_leaky_relu_.default, _ops.learnable_leaky_relu_.Scalar])
def _learnable_leaky_relu_(x: Any, alpha: Any, channel_dim: int = 1, **kwargs: Any) -> Sequence[Rule]:
    return [([], inputs) for inputs in _layouts(x, alpha, channel_dim)]


@register_sharding(_ops.straight_through_relu.default)
def _straight_through_relu(x: Any) -> Sequence[Rule]:
    return [([inputs[0]], inputs) for inputs in _layouts(x, None, 1)]


@register_sharding(_ops.straight_through_relu_.default)
def _straight_through_relu_(x: Any) -> Sequence[Rule]:
    return [([], inputs) for inputs in _layouts(x, None, 1)]


@register_sharding(_ops.backward.default)
def _backward(grad: Any, x: Any, alpha: Any, channel_dim: int, output_mask: Sequence[bool]) -> Sequence[Rule]:
    def outputs(grad_x: Placement, grad_alpha: Placement) -> list[Placement | None]:
        return [grad_x if output_mask[0] else None, grad_alpha if output_mask[1] else None]

    rules: list[Rule] = []
    for at, slopes in _layouts(x, alpha, channel_dim):
        summed = Partial() if isinstance(at, Shard) and isinstance(slopes, Replicate) else slopes
        rules.append((outputs(at, summed), [at, at, slopes]))
    # Both gradients are linear in grad, so a partial sum may stay one.
    return [*rules, (outputs(Partial(), Partial()), [Partial(), Replicate(), Replicate()])]


@register_sharding(_ops.backward.Scalar)
def _backward_scalar(grad: Any, x: Any, alpha: float) -> Sequence[Rule]:
    rules: list[Rule] = [([at], [at, at]) for (at,) in _layouts(x, None, 1)]
    return [*rules, ([Partial()], [Partial(), Replicate()])]
