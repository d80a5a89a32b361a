"""Finds the native module if it is not in the same folder as this file.

A wheel for several versions of torch has one native module for each version, in `for_torch`. In a clone without a
build, this folder shadows the installed package, and the native module of the installed package is used. So
`python -c "import leaky_ext"` and `python -m benchmarks` work in the clone after `pip install .`.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path

PACKAGE = Path(__file__).parent


def installed_build() -> ModuleSpec | None:
    """Returns the spec of the _build module of another leaky_ext on sys.path, or None."""
    elsewhere = [entry for entry in sys.path if Path(entry or ".").resolve() != PACKAGE.parent.resolve()]
    spec = PathFinder.find_spec("leaky_ext", elsewhere)
    folders = spec and spec.submodule_search_locations
    return PathFinder.find_spec("leaky_ext._build", list(folders)) if folders else None


def version_of_sources() -> str:
    import tomllib  # imported here because an installed package never needs it

    project = PACKAGE.parent / "pyproject.toml"
    return tomllib.loads(project.read_text())["project"]["version"] if project.exists() else "another version"


def version_of(spec: ModuleSpec) -> str:
    assert spec.loader is not None
    build = module_from_spec(spec)
    spec.loader.exec_module(build)
    return build.VERSION


def edited(installed: Path) -> list[str]:
    """Returns the names of the Python files that differ between this folder and the installed package."""
    folders = (PACKAGE, installed)
    names = {str(file.relative_to(folder)) for folder in folders for file in folder.rglob("*.py")} - {"_build.py"}

    def contents(folder: Path, name: str) -> bytes | None:
        return (folder / name).read_bytes() if (folder / name).exists() else None

    return sorted(name for name in names if contents(PACKAGE, name) != contents(installed, name))


def choose() -> None:
    """Selects the native module for the running torch, in a wheel for several versions of torch."""
    import torch

    minor, built = ".".join(torch.__version__.split(".")[:2]), PACKAGE / "for_torch"
    if not (built / minor).is_dir():
        versions = sorted((folder.name for folder in built.iterdir()), key=lambda name: int(name.split(".")[1]))
        raise ImportError(
            f"this wheel of leaky_ext is for torch {', '.join(versions)}, but torch {torch.__version__} is running: "
            "install one of these, or build leaky_ext from its sources in this environment (pip install . in a clone)"
        )
    sys.modules[__package__].__path__.insert(0, str(built / minor))


def find() -> None:
    """Raises ImportError if leaky_ext is not installed, or was built from sources that differ from this folder."""
    if (PACKAGE / "for_torch").is_dir():
        choose()
    if find_spec(f"{__package__}._build"):  # not a test for a file: a frozen application may have only bytecode
        return
    found = installed_build()
    what_to_do = f"run `pip install .` in {PACKAGE.parent} (`make dev` to work on it)"
    if found is None or found.origin is None:
        raise ImportError(f"leaky_ext has no native module: {PACKAGE} holds only sources. {what_to_do}")
    here, installed, folder = version_of_sources(), version_of(found), Path(found.origin).parent
    if installed != here:
        raise ImportError(
            f"leaky_ext {installed} is installed in {folder}, but {PACKAGE} holds the sources of {here}: {what_to_do}, "
            "or leave this folder"
        )
    if changed := edited(folder):
        raise ImportError(
            f"{', '.join(changed)} in {PACKAGE} differs from what is installed in {folder} and would not be used: "
            f"{what_to_do}, or leave this folder"
        )
    sys.modules[__package__].__path__ = [str(folder)]


find()
