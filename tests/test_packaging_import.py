"""`import leaky_ext` finds the native module for the running torch, or says what to do."""

import re
import shutil
import sys
from pathlib import Path

import pytest
from environments import TRY_IT, Environment, run

from leaky_ext import _build, _torch_check

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "built, with_cuda, running, running_cuda, fits",
    [
        ("2.13.0+cpu", False, "2.13.0+cpu", None, True),
        ("2.13.0+cpu", False, "2.13.1+cu130", "13.0", True),
        ("2.13.0+cu130", True, "2.13.0+cu130", "13.0", True),
        ("2.13.0+cu130", True, "2.13.0+cpu", None, False),
        ("2.13.0", False, "2.14.0", None, False),
        ("2.1.0", False, "2.13.0", None, False),
    ],
)
def test_which_torch_goes_with_which_build(built, with_cuda, running, running_cuda, fits):
    message = _torch_check.mismatch(built, with_cuda, running, running_cuda)
    assert message is None if fits else built in message and running in message


def test_a_source_tree_that_was_not_built_says_so(source, tmp_path):
    environment = Environment(tmp_path / "environment", "torch")  # an editable install here would lend its module
    message = run(environment.python, "-c", "import leaky_ext", cwd=source, check=False)
    assert "leaky_ext has no native module" in message
    assert f"run `pip install .` in {source}" in message


def test_a_clone_serves_the_installed_package(source, tmp_path):
    """After `pip install .`, README's commands work in the clone. If the version differs, they raise."""
    environment = Environment(tmp_path / "environment", "torch", "numpy")
    package = environment.site / "leaky_ext"
    shutil.copytree(Path(_build.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    output = run(environment.python, "-c", TRY_IT + "print(leaky_ext.show_config())", cwd=source)
    assert f"leaky_ext: {_build.VERSION}" in re.sub(" +", " ", output)
    where = "import leaky_ext.modules; print(leaky_ext.modules.__file__)"
    assert run(environment.python, "-c", where, cwd=source).strip().startswith(str(environment.site))
    assert "operators" in run(environment.python, "-m", "benchmarks", "run", "--help", cwd=source)

    edited = source / "leaky_ext" / "modules.py"
    edited.write_text(edited.read_text() + "\n")
    (source / "leaky_ext" / "added.py").touch()
    message = run(environment.python, "-c", "import leaky_ext", cwd=source, check=False)
    assert f"added.py, modules.py in {source / 'leaky_ext'} differs from what is installed in {package}" in message
    assert f"run `pip install .` in {source}" in message

    project = source / "pyproject.toml"
    project.write_text(project.read_text().replace(f'version = "{_build.VERSION}"', 'version = "77.0"'))
    message = run(environment.python, "-c", "import leaky_ext", cwd=source, check=False)
    assert f"leaky_ext {_build.VERSION} is installed in {environment.site}" in message
    assert f"{source / 'leaky_ext'} holds the sources of 77.0: run `pip install .` in {source}" in message


@pytest.mark.slow
def test_a_package_of_bytecode_alone(tmp_path):
    """Some applications are compiled by `compileall -b` and have no .py files."""
    package = tmp_path / "leaky_ext"
    shutil.copytree(Path(_build.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "compileall", "-q", "-b", package)
    for file in package.glob("*.py"):
        file.unlink()
    said = run(sys.executable, ROOT / "tests" / "call_each.py", PYTHONPATH=str(tmp_path), cwd=tmp_path)
    assert said.splitlines()[-1] == str(package / "__init__.pyc")


def test_the_version_stands_in_pyproject_alone():
    assert f'version = "{_build.VERSION}"' in (ROOT / "pyproject.toml").read_text()
