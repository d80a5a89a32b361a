"""The programs that are called: nvcc, cuobjdump, c++filt."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

NO_CUOBJDUMP = """cuobjdump not found. Install the full CUDA toolkit and put its bin folder on PATH, or run
    {python} -m pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm
(cuobjdump calls nvdisasm). With another virtual environment, use its Python for check.py, or put its bin on PATH."""


def fail(message):
    raise SystemExit(f"check.py: {message}")


def run(command, **options):
    try:
        return subprocess.run([str(x) for x in command], capture_output=True, text=True, **options)
    except FileNotFoundError:
        fail(f"{command[0]} is not on PATH")


def find_cuobjdump():
    """Returns the path of cuobjdump: on PATH, or in a package of this Python or of an environment on PATH.

    Appends the folder of nvdisasm to PATH.
    """
    folders = [Path(x) for x in os.environ.get("PATH", "").split(os.pathsep) if x]
    homes = [Path(x) for x in sys.path] + [lib for x in folders for lib in x.parent.glob("lib/python3*/site-packages")]
    folders += [x for home in homes for x in home.glob("nvidia/*/bin")]
    for folder in folders:
        if (folder / "cuobjdump").exists():
            for other in folders:
                if (other / "nvdisasm").exists():
                    # Last: if this folder also has an nvcc, the one on PATH must stay the first.
                    os.environ["PATH"] = f"{os.environ.get('PATH', '')}{os.pathsep}{other}"
                    return folder / "cuobjdump"
    fail(NO_CUOBJDUMP.format(python=sys.executable))
    return None


def readable(names):
    """Returns short demangled names of kernels, by mangled name."""
    done = run([shutil.which("c++filt") or fail("c++filt is not on PATH (binutils)"), "--no-params", *names])
    removed = re.compile(r"leaky_ext::cuda::|\(anonymous namespace\)::|^void |\(bool\)")
    terms = {"unsigned int": "u32", "unsigned long": "u64", "__nv_bfloat16": "bfloat16", "__half": "half", "> >": ">>"}
    clean = []
    for name in done.stdout.splitlines():
        name = removed.sub("", name)
        for long, short in terms.items():
            name = name.replace(long, short)
        clean.append(name)
    return dict(zip(names, clean, strict=True))
