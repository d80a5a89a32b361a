"""Leaky ReLU with a learnable slope, and straight-through ReLU, as C++ and CUDA kernels for PyTorch."""

from . import _installed  # noqa: F401  # isort: skip  (must come first)
from . import _torch_check  # noqa: F401  # isort: skip  (must come before the native module is loaded)

from . import operators, reference  # noqa: F401
from ._build import VERSION as __version__
from ._replace import Conversion
from .config import show_config
from .convert import convert
from .functional import (
    learnable_leaky_relu,
    learnable_leaky_relu_,
    straight_through,
    straight_through_relu,
    straight_through_relu_,
)
from .modules import LearnableLeakyReLU, PReLU, StraightThroughReLU
from .monitor import AlphaMonitor
from .optim import parameter_groups
from .revert import revert

__all__ = [
    "AlphaMonitor",
    "Conversion",
    "LearnableLeakyReLU",
    "PReLU",
    "StraightThroughReLU",
    "__version__",
    "convert",
    "learnable_leaky_relu",
    "learnable_leaky_relu_",
    "parameter_groups",
    "reference",
    "revert",
    "show_config",
    "straight_through",
    "straight_through_relu",
    "straight_through_relu_",
]
