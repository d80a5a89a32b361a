"""Names that torch does not document, each with the reason why there is no other."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad

# Whether a torch.func transform is running: a Function in Python has no other way to know.
transforms_active = torch._C._are_functorch_transforms_active

# torch.jit.is_tracing, which torch.jit does not export.
is_tracing = torch._C._is_tracing


def is_exporting() -> bool:
    """torch.compiler.is_exporting, which Dynamo of torch 2.11 takes for True in every compiled function."""
    return torch.compiler._is_exporting_flag


def dual_level() -> int:
    """The level of forward-mode AD that is entered, or -1. Under Dynamo, reading it puts a guard on it."""
    return forward_ad._current_level


def is_transformed() -> bool:
    """Whether a torch.func transform or forward-mode AD is active: what a Function in Python does not follow."""
    return transforms_active() or dual_level() >= 0


def backend_name() -> str:
    """The backend that Dynamo is tracing for, "inductor" if that cannot be told."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    try:
        backend = InstructionTranslator.current_tx().output.compiler_fn
    except (AttributeError, LookupError):
        return "inductor"
    for _ in range(8):  # wrappers of wrappers
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
