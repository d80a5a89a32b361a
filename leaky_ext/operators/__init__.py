"""What the subsystems of PyTorch use instead of the operators' kernels: a file for each subsystem.

The operators are declared in csrc/operators.h. `fake` and `batching` are registered with the package, `sharding` once
DTensor is in use, `compiled` and `inductor` at the first call that is compiled.
"""

import sys

from .. import _C  # noqa: F401  (loading it defines the operators)
from . import batching, fake  # noqa: F401


def register_sharding() -> None:
    """Registers the sharding rules with DTensor, once it is in use."""
    if "torch.distributed.tensor" in sys.modules:
        from . import sharding  # noqa: F401
