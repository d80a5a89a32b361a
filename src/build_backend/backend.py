"""setuptools' PEP 517 backend, which builds against the torch that the package will run with.

Build isolation hides the packages of the environment that the package is installed into. An extension of torch must be
built against exactly the torch found there, so its site-packages are put on sys.path, behind the isolated ones. Only
where there is no torch is one asked for as a build requirement.
"""

import importlib.util
import site
import sys
import sysconfig
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403

for _folder in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()):
    if _folder not in sys.path and Path(_folder, "torch", "version.py").exists():
        sys.path.append(_folder)


def get_requires_for_build_wheel(config_settings=None):
    requires = build_meta.get_requires_for_build_wheel(config_settings)
    return requires if importlib.util.find_spec("torch") else [*requires, "torch>=2.11"]


get_requires_for_build_editable = get_requires_for_build_wheel
