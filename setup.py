"""Builds leaky_ext._C: always the CPU kernels, and the CUDA kernels if torch has CUDA and nvcc is found.

FORCE_CUDA=1 raises an error if the CUDA kernels cannot be built, FORCE_CUDA=0 skips them. TORCH_CUDA_ARCH_LIST selects
the GPU architectures, CUDA_HOME the CUDA toolkit, CXX the compiler, and MAX_JOBS the number of files that are compiled
at once. Everything else is in pyproject.toml.
"""

import atexit
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

sys.path.insert(0, str(Path("build_backend").resolve()))
import backend  # makes the environment's torch importable
import cuda_toolkit

try:
    import torch
except ModuleNotFoundError:  # a source distribution does not need torch
    torch = None

CXX = shlex.split(os.environ.get("CXX", "c++"))  # ["ccache", "c++", "-march=native"]


def cuda_or_not():
    """Returns the folder of the toolkit that builds the CUDA kernels, or None, and the reason."""
    forced, cuda = os.environ.get("FORCE_CUDA"), torch.version.cuda
    if forced == "0":
        return None, "FORCE_CUDA=0"
    if cuda is None:
        missing = "this torch has no CUDA"
    elif home := cuda_toolkit.find(cuda):
        place = "PyPI's packages" if Path(home).parent.name == "nvidia" else home
        return home, f"torch has CUDA {cuda}, nvcc {cuda_toolkit.version_of(home)} is from {place}"
    else:
        missing = cuda_toolkit.how_to_get(cuda)
    if forced == "1":
        raise SystemExit(f"leaky_ext: FORCE_CUDA=1, but {missing}")
    return None, missing


def cuda_architectures():
    """Returns a TORCH_CUDA_ARCH_LIST: the visible GPUs, or csrc/cuda/architectures.txt if there is no GPU."""
    if torch.cuda.is_available():
        found = {torch.cuda.get_device_capability(n) for n in range(torch.cuda.device_count())}
        return ";".join(f"{major}.{minor}" for major, minor in sorted(found))
    listed = Path("csrc/cuda/architectures.txt").read_text().split()
    if tuple(map(int, torch.version.cuda.split(".")[:2])) < (12, 8):  # this nvcc does not support Blackwell
        listed = [sm for sm in listed if int(sm) < 100]
    return ";".join(f"{sm[:-1]}.{sm[-1]}" for sm in listed) + "+PTX"


def require_compiler():
    if not shutil.which(CXX[0]):
        raise SystemExit(
            f"leaky_ext: no C++ compiler: '{CXX[0]}' is not on PATH. Install one (Debian, Ubuntu: apt install g++; "
            "Fedora: dnf install gcc-c++), or set CXX to one."
        )
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        raise SystemExit("leaky_ext: no Python.h: install Python's headers (Debian, Ubuntu: apt install python3-dev)")


def openmp():
    """Returns the flag for OpenMP, or [] if the compiler does not support it: the CPU kernels then use one thread."""
    program = "#include <omp.h>\nint main() { return omp_get_max_threads(); }"
    command = [*CXX, "-fopenmp", "-x", "c++", "-", "-o", os.devnull]
    has_it = subprocess.run(command, input=program, capture_output=True, text=True).returncode == 0
    return ["-fopenmp"] if has_it else []


def extension():
    """Returns the extension and the command that builds it, for the torch that can be imported."""
    if torch is None:

        class NoTorch(build_ext):
            def run(self):
                raise SystemExit("leaky_ext: the build requires torch: install torch first, or build with isolation")

        return Extension("leaky_ext._C", []), NoTorch

    toolkit, why = cuda_or_not()
    with_cuda = toolkit is not None
    if with_cuda:
        os.environ["CUDA_HOME"] = toolkit  # read when cpp_extension is imported
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", cuda_architectures())
    from torch.utils import cpp_extension
    from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension

    wrapper, *compiler = CXX
    if compiler and wrapper in ("ccache", "sccache") and hasattr(cpp_extension, "_wrap_compiler"):
        os.environ["CXX"] = shlex.join(compiler)  # this torch adds the wrapper itself, and CXX must be one word

    architectures = os.environ["TORCH_CUDA_ARCH_LIST"] if with_cuda else ""
    macros = [("LEAKY_TORCH", f'"{torch.__version__}"'), ("LEAKY_CUDA_ARCHITECTURES", f'"{architectures}"')]
    sources = [f"csrc/{name}" for name in Path("csrc/sources.txt").read_text().split()]
    ext = (CUDAExtension if with_cuda else CppExtension)(
        "leaky_ext._C",
        [name for name in sources if with_cuda or not name.endswith(".cu")],
        include_dirs=[str(Path("csrc").resolve())],
        define_macros=macros + [("LEAKY_WITH_CUDA", None)] * with_cuda,
        extra_compile_args={"cxx": ["-O3", "-g0", "-fvisibility=hidden"], "nvcc": ["-O3"]},
    )

    class Build(BuildExtension):
        def run(self):
            require_compiler()
            threads = openmp()
            ext.extra_compile_args["cxx"] += threads
            ext.extra_link_args += threads
            kernels = f"CPU and CUDA ({architectures})" if with_cuda else "CPU"
            reason = why if threads else f"{why}. {shlex.join(CXX)} has no OpenMP: one thread on the CPU"
            what = f"the {kernels} kernels against torch {torch.__version__}: {reason}"
            print(f"leaky_ext: building {what}", flush=True)
            self.force = True  # an old build may be for another torch; ninja compiles only what has changed
            if with_cuda:
                cuda_toolkit.link_runtime(toolkit, self.build_temp)
                ext.library_dirs.append(self.build_temp)
            super().run()
            atexit.register(print, f"leaky_ext: built {what}", flush=True)  # last, below the output of the compilers
            facts = f'VERSION = "{self.distribution.get_version()}"\nTORCH = "{torch.__version__}"\n'
            Path(self.get_ext_fullpath(ext.name)).with_name("_build.py").write_text(
                f"# Written by setup.py.\n{facts}WITH_CUDA = {with_cuda}\nWHY = {reason!r}\n"
            )

    return ext, Build


ext, command = extension()
# Requires the version of a torch in the target environment, but not of a torch that was downloaded for the build: pip
# would install that version.
minor = ".".join(torch.__version__.split(".")[:2]) if torch and backend.is_of_environment(torch) else None
setup(
    ext_modules=[ext],
    cmdclass={"build_ext": command},
    install_requires=[f"torch=={minor}.*" if minor else backend.ANY_TORCH],
)
