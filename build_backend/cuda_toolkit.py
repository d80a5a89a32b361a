"""Finds the CUDA toolkit, or names the packages of PyPI that provide a toolkit.

`python build_backend/cuda_toolkit.py` prints the requirements of a build without isolation, including these packages.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

USUAL = "/usr/local/cuda"
PARTS = ("nvvm/bin/cicc", "include/crt", "include/cccl", "include/cuda_runtime.h")  # nvcc needs them


def packages(cuda):
    """Returns the requirements that install a toolkit as nvidia/cu13 in site-packages, or [] before CUDA 13: no nvcc.

    There is one requirement: cuda-toolkit pins its parts, whose version numbers differ (cccl of CUDA 13.5 is 13.3.5).
    torch's wheels pin cuda-toolkit too. If cuda-toolkit is installed, its version does not change.
    """
    if int(cuda.split(".")[0]) < 13:
        return []
    here = [dist.version for dist in distributions(name="cuda-toolkit")]
    version = here[0] if here and here[0].startswith(f"{cuda}.") else f"{cuda}.*"
    return [f"cuda-toolkit[cccl,crt,cudart,nvcc,nvvm]=={version}"]


def version_of(home):
    """Returns the CUDA version of the nvcc in a folder, or None if there is no nvcc."""
    try:
        told = subprocess.run([Path(home, "bin", "nvcc"), "--version"], capture_output=True, text=True)
    except OSError:
        return None
    found = re.search(r"release (\d+\.\d+)", told.stdout)
    return found and found[1]


def candidates(cuda):
    """Yields folders that may contain a toolkit: from variables, of the system, and of the packages above."""
    yield from filter(None, (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")))
    if nvcc := shutil.which("nvcc"):
        folder = Path(nvcc).resolve().parents[1]
        if (folder / "nvvm").is_dir():  # otherwise nvcc is a script or a link outside its toolkit
            yield folder
    yield USUAL
    yield from (Path(entry, "nvidia", f"cu{cuda.split('.')[0]}") for entry in sys.path)


def fits(home, cuda):
    """Returns whether a folder has a toolkit of this major version of CUDA. Packages must have the same minor version.

    Packages are separate: a library may have installed nvcc alone, or another version of it than torch's.
    """
    version = version_of(home)
    if Path(home).parent.name == "nvidia":
        return version == cuda and all(Path(home, part).exists() for part in PARTS)
    return version is not None and version.split(".")[0] == cuda.split(".")[0]


def find(cuda):
    """Returns the folder of the first toolkit that fits, or None."""
    return next((str(home) for home in candidates(cuda) if fits(home, cuda)), None)


def how_to_get(cuda):
    """Returns a message that no toolkit was found, and what to do."""
    major = cuda.split(".")[0]
    others = {f" ({home} has {version})" for home in candidates(cuda) if (version := version_of(home))}
    message = f"no nvcc of CUDA {major}, the CUDA of this torch, was found{''.join(sorted(others))}"
    if wanted := packages(cuda):
        command = f"pip install '{wanted[0]}' && FORCE_CUDA=1 pip install --no-build-isolation SOURCE"
        return f"{message}. Install torch before leaky_ext, or run {command} (SOURCE: the folder or URL of leaky_ext)"
    return f"{message}. PyPI has no nvcc of CUDA {major}: install its toolkit, and set CUDA_HOME to the folder"


def link_runtime(home, folder):
    """Makes folder/libcudart.so for the linker, because the packages have only libcudart.so.13."""
    for library in sorted(Path(home, "lib").glob("libcudart.so.[0-9]*")):
        link = Path(folder, "libcudart.so")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(library)


if __name__ == "__main__":
    import tomllib

    import torch

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    version, cuda = torch.__version__.partition("+")[0], torch.version.cuda
    print(f"torch=={version}", *project["build-system"]["requires"], sep="\n")  # the installed version
    print(*(packages(cuda) if cuda and not find(cuda) else []))
