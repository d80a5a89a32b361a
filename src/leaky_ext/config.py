"""What this installation is."""

from __future__ import annotations

import torch

from . import _C, _build


def show_config() -> str:
    """Version, torch built against and running, CUDA architectures built for, instruction set in use, and threads.

    To be put into a report: ``python -c "import leaky_ext; print(leaky_ext.show_config())"``.
    """
    info = _C.build_info()
    lines = {
        "leaky_ext": _build.VERSION,
        "torch": f"{torch.__version__} (built against {info['torch']})",
        "CUDA": f"built for {info['cuda_architectures']}" if info["cuda"] else "not built",
        "CPU": f"{info['instruction_set']}, {torch.get_num_threads()} threads",
        "compiler": info["compiler"],
    }
    return "\n".join(f"{name + ':':<11}{value}" for name, value in lines.items())
