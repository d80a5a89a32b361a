"""`show_config`: a description of this installation, for bug reports."""

from __future__ import annotations

import torch

from . import _C, _build


def show_config() -> str:
    """Version, torch built against and running, devices with kernels and why these, instruction set, threads, stores.

    For bug reports: ``python -c "import leaky_ext; print(leaky_ext.show_config())"``.
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
