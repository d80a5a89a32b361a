"""`show_config`: a description of this installation, for bug reports."""

from __future__ import annotations

import torch

from . import _C, _build


def show_config() -> str:
    """Return a description of this installation for bug reports.

    It lists the version of leaky_ext, the torch that it was built against, the running torch, the devices with kernels
    and the reason for these, the instruction set in use, the number of threads and the compiler.

    Print it from a shell with ``python -c "import leaky_ext; print(leaky_ext.show_config())"``.
    """
    info = _C.build_info()
    lines = {
        "leaky_ext": _build.VERSION,
        "torch": f"{torch.__version__} (built against {info['torch']})",
        "kernels": "CPU, CUDA " + info["cuda_architectures"] if info["cuda"] else "CPU (built without CUDA)",
        "reason": getattr(_build, "WHY", "unknown: an older setup.py built it"),
        "CPU": f"{info['instruction_set']}, {torch.get_num_threads()} threads",
        "compiler": info["compiler"],
    }
    return "\n".join(f"{name + ':':<11}{value}" for name, value in lines.items())
