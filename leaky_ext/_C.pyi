# The native module (csrc/bindings.cpp). Loading it defines the operators, torch.ops.leaky_ext.*.
from typing import Any

from torch import Tensor

# Positional only. NotImplemented for any call that is not plain: see functional.py.
def activation(x: Tensor, alpha: Tensor | float, channel_dim: int, formula: int, in_place: bool, /) -> Tensor: ...
def build_info() -> dict[str, Any]: ...
