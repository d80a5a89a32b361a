"""A tensor-parallel style for the modules. The sharding rules of the operators are in operators/sharding.py."""

from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.parallel import ParallelStyle

from .modules import Slope
from .operators import sharding  # noqa: F401  (code may call an operator with a DTensor directly)


class SlopeParallel(ParallelStyle):
    """Tensor parallelism for :class:`PReLU`, :class:`LearnableLeakyReLU` and :class:`StraightThroughReLU`.

    For :func:`torch.distributed.tensor.parallel.parallelize_module`, between layers whose activations are sharded.
    Without `SlopeParallel`, each rank would train its own slopes, on its own shard only. ::

        parallelize_module(model, mesh, {"up": ColwiseParallel(), "act": SlopeParallel(), "down": RowwiseParallel()})

    Args:
        input_layout: placement of the input; default ``Shard(-1)``. Slopes are sharded if this is
            ``Shard(channel_dim)``, for example ``Shard(-1)`` with ``channel_dim=-1``, else replicated.
        use_local_output: return this rank's shard as a plain tensor, as PyTorch's own styles do. If False, return a
            DTensor.
    """

    def __init__(self, *, input_layout: Placement | None = None, use_local_output: bool = True) -> None:
        super().__init__()
        self.input_layout = input_layout or Shard(-1)
        self.use_local_output = use_local_output

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if not isinstance(module, Slope):
            raise TypeError(f"SlopeParallel is for PReLU, LearnableLeakyReLU and StraightThroughReLU, got {module}")
        return distribute_module(module, device_mesh, self._distribute, self._input, self._output)

    def _distribute(self, name: str, module: nn.Module, mesh: DeviceMesh) -> None:
        assert isinstance(module, Slope)
        stored = module._parameters.get(module.slope_name)
        if stored is not None:
            shard = module.num_parameters != 1 and self.input_layout == Shard(module.channel_dim)
            slope = distribute_tensor(stored, mesh, [Shard(0) if shard else Replicate()])
            module.register_parameter(module.slope_name, nn.Parameter(slope, stored.requires_grad))

    def _input(self, module: nn.Module, inputs: tuple[Any, ...], mesh: DeviceMesh) -> Any:
        x = inputs[0]
        return x if isinstance(x, DTensor) else DTensor.from_local(x, mesh, [self.input_layout], run_check=False)

    def _output(self, module: nn.Module, output: Any, mesh: DeviceMesh) -> Any:
        return output.to_local() if self.use_local_output else output
