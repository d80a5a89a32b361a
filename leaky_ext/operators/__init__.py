"""Registers the operators with the subsystems of PyTorch, one file per subsystem.

csrc/operators.h declares the operators. `fake` and `batching` are imported with the package, `sharding` after DTensor,
`compiled` and `inductor` at the first compiled call.
"""

import sys

from .. import _C  # noqa: F401  (loading it defines the operators)
from . import batching, fake  # noqa: F401


def register_sharding() -> None:
    """Registers the sharding rules if DTensor has been imported."""
    if "torch.distributed.tensor" in sys.modules:
        from . import sharding  # noqa: F401
