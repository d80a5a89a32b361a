# The native module (csrc/bindings.cpp). Loading it defines the operators, torch.ops.leaky_ext.*.
from typing import Any

from torch import Tensor
from torch.nn import Module

# Positional only. They return NotImplemented for a call that is not plain and eager.
def activation(x: Tensor, alpha: Tensor | float, channel_dim: int, formula: int, in_place: bool, /) -> Tensor: ...
def module_activation(x: Tensor, module: Module, /) -> Tensor: ...
def build_info() -> dict[str, Any]: ...
