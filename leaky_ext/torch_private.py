"""The undocumented names of torch that leaky_ext uses, each with the reason."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad

# Whether a torch.func transform is active. There is no public function for this.
transforms_active = torch._C._are_functorch_transforms_active

# The same as torch.jit.is_tracing, which torch.jit does not list in __all__.
is_tracing = torch._C._is_tracing


def is_exporting() -> bool:
    """Return torch.compiler.is_exporting(). Dynamo of torch 2.11 traces that function as True in any compiled code."""
    return torch.compiler._is_exporting_flag


def dual_level() -> int:
    """Return the current level of forward-mode AD, or -1. Dynamo adds a guard on the level."""
    return forward_ad._current_level


def is_transformed() -> bool:
    """Return whether a torch.func transform or forward-mode AD is active."""
    return transforms_active() or dual_level() >= 0


def backend_name() -> str:
    """Return the name of the backend that Dynamo traces for, or "inductor" if the backend is unknown."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    try:
        backend = InstructionTranslator.current_tx().output.compiler_fn
    except (AttributeError, LookupError):
        return "inductor"
    for _ in range(8):  # backends can be wrapped several times
        name = getattr(backend, "compiler_name", None)
        if isinstance(name, str):
            return name
        inner = next(
            (
                getattr(backend, attribute)
                for attribute in ("_torchdynamo_orig_backend", "compiler_fn", "compiler_function", "backend")
                if hasattr(backend, attribute)
            ),
            None,
        )
        if inner is None:
            break
        backend = inner
    return getattr(backend, "__name__", "inductor")
