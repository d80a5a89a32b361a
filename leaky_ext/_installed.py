"""In a clone that nothing was built in, points the package at the installed one, which the folder here shadows.

So `python -c "import leaky_ext"` and `python -m benchmarks` work in the clone after `pip install .`.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path

PACKAGE = Path(__file__).parent


def installed_package() -> Path | None:
    """The folder of a leaky_ext with a native module that comes later on sys.path, if there is one."""
    elsewhere = [entry for entry in sys.path if Path(entry or ".").resolve() != PACKAGE.parent.resolve()]
    spec = PathFinder.find_spec("leaky_ext", elsewhere)
    folders = (spec and spec.submodule_search_locations) or []
    return next((Path(folder) for folder in folders if Path(folder, "_build.py").exists()), None)


def version_of_sources() -> str:
    import tomllib  # here: an installed package, which needs no version of its sources, would pay for it at each import

    project = PACKAGE.parent / "pyproject.toml"
    return tomllib.loads(project.read_text())["project"]["version"] if project.exists() else "another version"


def version_of(build: Path) -> str:
    facts: dict[str, str] = {}
    exec(build.read_text(), facts)
    return facts["VERSION"]


def find() -> None:
    """Raises ImportError where nothing is installed, or another version than the sources here."""
    if (PACKAGE / "_build.py").exists():
        return
    found = installed_package()
    what_to_do = f"run `pip install .` in {PACKAGE.parent} (`make dev` to work on it)"
    if found is None:
        raise ImportError(f"leaky_ext has no native module: {PACKAGE} holds the sources alone. {what_to_do}")
    here, installed = version_of_sources(), version_of(found / "_build.py")
    if installed != here:
        raise ImportError(
            f"leaky_ext {installed} is installed in {found}, but {PACKAGE} holds the sources of {here}: {what_to_do}, "
            "or leave this folder"
        )
    sys.modules[__package__].__path__ = [str(found)]


find()
