"""A PEP 517 backend: setuptools, building against the torch that the package will run with.

Build isolation hides the packages of the target environment. An extension of torch must be built against exactly the
torch in this environment. So the backend asks the interpreter of the environment where torch is, and appends the
folders to sys.path, behind the isolated folders. If there is no torch, the backend adds torch to the build
requirements. If torch has CUDA and there is no toolkit, the backend adds the packages of a toolkit.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cuda_toolkit
from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403

ANY_TORCH = "torch>=2.11"
FIND_TORCH = """import importlib.util, json, pathlib, sys
spec = importlib.util.find_spec("torch")
print(json.dumps([str(pathlib.Path(spec.origin).parents[1]), *sys.path] if spec and spec.origin else []))"""


def environment_path():
    """Returns the folder of the environment's torch, then the environment's sys.path, or [] if there is no torch.

    pip runs this with the environment's interpreter, but with another PYTHONPATH and without the user's site.
    """
    if re.search(r"builds-v\d|build-env-", sys.prefix):  # the temporary environment of uv or build, not the target
        return []
    hidden = ("PYTHONPATH", "PYTHONNOUSERSITE")
    clean = {name: value for name, value in os.environ.items() if name not in hidden}
    told = subprocess.run([sys.executable, "-P", "-c", FIND_TORCH], env=clean, stdout=subprocess.PIPE, text=True)
    return json.loads(told.stdout.splitlines()[-1]) if told.returncode == 0 else []


def is_of_environment(torch):
    """Returns whether this module is the torch of the target environment, if the environment is known."""
    return bool(ENVIRONMENT) and Path(torch.__file__).parents[1].samefile(ENVIRONMENT[0])


def cuda_packages(cuda):
    """Returns the requirements of the CUDA kernels for a torch with this version of CUDA; None means no CUDA."""
    if cuda is None or os.environ.get("FORCE_CUDA") == "0" or cuda_toolkit.find(cuda):
        return []
    return cuda_toolkit.packages(cuda)


def cuda_of_torch():
    """Returns the CUDA version of the torch that can be imported, without importing it."""
    facts = {}
    exec(Path(importlib.util.find_spec("torch").origin).with_name("version.py").read_text(), facts)
    return facts.get("cuda")


def get_requires_for_build_wheel(config_settings=None):
    requires = build_meta.get_requires_for_build_wheel(config_settings)
    return [*requires, *(cuda_packages(cuda_of_torch()) if importlib.util.find_spec("torch") else [ANY_TORCH])]


get_requires_for_build_editable = get_requires_for_build_wheel
ENVIRONMENT = environment_path()
sys.path += [folder for folder in ENVIRONMENT if folder not in sys.path]
