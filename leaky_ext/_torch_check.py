"""Raises ImportError if the running torch is not the one that the native module was built against.

Imported before the native module, which would fail to load with a message about undefined symbols.
"""

import torch


def mismatch(built: str, with_cuda: bool, running: str, running_cuda: str | None) -> str | None:
    """Returns an error message if a build does not work with the running torch, else None.

    The minor versions must be equal. A build with CUDA kernels requires a torch with CUDA.
    """
    if built.split(".")[:2] == running.split(".")[:2] and (running_cuda or not with_cuda):
        return None
    kernels = "with CUDA kernels against" if with_cuda else "against"
    return (
        f"leaky_ext was built {kernels} torch {built}, but torch {running} is running: install torch {built}, or build "
        "leaky_ext again in this environment with pip install --force-reinstall --no-deps --no-cache-dir SOURCE, where "
        "SOURCE is the folder or URL of leaky_ext (if torch is on PYTHONPATH, add --no-build-isolation)"
    )


def check() -> None:
    """Raises ImportError if the native module was built against another torch."""
    from leaky_ext import _build

    message = mismatch(_build.TORCH, _build.WITH_CUDA, torch.__version__, torch.version.cuda)
    if message:
        raise ImportError(message)


check()
