"""build_backend/: which torch a build finds, and which packages it asks for. No compiler runs here."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest
import setuptools
import torch

ROOT = Path(__file__).parents[1]
TOOLKIT = ["cuda-toolkit[cccl,crt,cudart,nvcc,nvvm]==13.0.*"]
SAY_WHERE = """import json, os, sys
sys.path.insert(0, "build_backend")
import backend, torch
print(json.dumps([os.path.dirname(torch.__file__), backend.is_of_environment(torch), backend.cuda_of_torch()]))"""


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The backend on a machine without a toolkit."""
    monkeypatch.syspath_prepend(ROOT / "build_backend")
    module = importlib.import_module("backend")
    for name in ("CUDA_HOME", "CUDA_PATH", "FORCE_CUDA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setattr(module.cuda_toolkit, "USUAL", str(tmp_path / "nothing"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site-packages")])
    return module


def make_toolkit(home: Path, version: str) -> Path:
    nvcc = home / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    for part in ("nvvm/bin/cicc", "include/crt", "include/cccl", "include/cuda_runtime.h"):
        (home / part).mkdir(parents=True)
    nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {version}, V{version}.88'\n")
    nvcc.chmod(0o755)
    return home


def test_a_torch_without_cuda_asks_for_no_package(backend: ModuleType) -> None:
    assert backend.cuda_packages(None) == []


def test_cuda_13_without_a_toolkit_asks_for_its_own_version(backend: ModuleType) -> None:
    assert backend.cuda_packages("13.0") == TOOLKIT
    assert backend.cuda_packages("13.2") == [TOOLKIT[0].replace("13.0", "13.2")]


def test_the_version_that_torch_pins_is_kept(backend: ModuleType, tmp_path: Path) -> None:
    metadata = tmp_path / "site-packages" / "cuda_toolkit-13.0.2.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: cuda-toolkit\nVersion: 13.0.2\n")
    assert backend.cuda_packages("13.0") == [TOOLKIT[0].replace("13.0.*", "13.0.2")]
    assert backend.cuda_packages("13.2") == [TOOLKIT[0].replace("13.0", "13.2")]


@pytest.mark.parametrize("place", ["CUDA_HOME", "CUDA_PATH", "PATH", "USUAL", "site-packages"])
def test_a_toolkit_is_preferred_wherever_it_is(
    backend: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    by_pip = place == "site-packages"
    home = make_toolkit(tmp_path / ("site-packages/nvidia/cu13" if by_pip else "cuda"), "13.0" if by_pip else "13.2")
    if place == "USUAL":
        monkeypatch.setattr(backend.cuda_toolkit, "USUAL", str(home))
    elif not by_pip:
        monkeypatch.setenv(place, str(home / "bin" if place == "PATH" else home))
    assert backend.cuda_toolkit.find("13.0") == str(home)
    assert backend.cuda_packages("13.0") == []


def test_a_toolkit_of_another_major_version_is_not_used(
    backend: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = make_toolkit(tmp_path / "cuda", "12.8")
    monkeypatch.setenv("CUDA_HOME", str(home))
    assert backend.cuda_packages("13.0") == TOOLKIT
    said = backend.cuda_toolkit.how_to_get("13.0")
    assert f"no nvcc of CUDA 13, the CUDA of this torch, was found ({home} has 12.8)" in said


@pytest.mark.parametrize("version, missing", [("13.0", "include/crt"), ("13.0", "nvvm/bin/cicc"), ("13.5", None)])
def test_packages_that_another_library_brought_are_not_used(
    backend: ModuleType, tmp_path: Path, version: str, missing: str | None
) -> None:
    home = make_toolkit(tmp_path / "site-packages/nvidia/cu13", version)
    if missing:
        (home / missing).rmdir()
    assert backend.cuda_packages("13.0") == TOOLKIT


def test_an_nvcc_that_is_away_from_its_toolkit_is_not_taken_for_one(
    backend: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = make_toolkit(tmp_path / "wrapped", "13.0")
    shutil.rmtree(home / "nvvm")
    monkeypatch.setenv("PATH", str(home / "bin"))
    assert backend.cuda_packages("13.0") == TOOLKIT


def test_force_cuda_0_declines(backend: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_CUDA", "0")
    assert backend.cuda_packages("13.0") == []


def test_cuda_12_is_told_what_to_install(backend: ModuleType) -> None:
    assert backend.cuda_packages("12.8") == []
    said = backend.cuda_toolkit.how_to_get("12.8")
    assert said.startswith("no nvcc of CUDA 12, the CUDA of this torch, was found. PyPI has no nvcc of CUDA 12")


def test_cuda_13_is_told_the_command(backend: ModuleType) -> None:
    said = backend.cuda_toolkit.how_to_get("13.0")
    assert f"pip install '{TOOLKIT[0]}' && FORCE_CUDA=1 pip install --no-build-isolation SOURCE" in said


def test_the_linker_is_given_the_runtime_of_the_packages(backend: ModuleType, tmp_path: Path) -> None:
    library = tmp_path / "cu13" / "lib" / "libcudart.so.13"
    library.parent.mkdir(parents=True)
    library.touch()
    for _ in range(2):  # a second build in the same folder
        backend.cuda_toolkit.link_runtime(tmp_path / "cu13", tmp_path / "temporary")
        assert (tmp_path / "temporary" / "libcudart.so").resolve() == library


def make_torch(folder: Path, cuda: str | None = "13.0") -> Path:
    package = folder / "torch"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "version.py").write_text(f"__version__ = '2.99.0'\ncuda = {cuda!r}\n")
    return package


def isolated(overlay: Path) -> dict[str, str]:
    """Returns the variables of an isolated build of pip: PYTHONPATH with setuptools, and no user site."""
    overlay.mkdir(exist_ok=True)
    for name in ("setuptools", "_distutils_hack"):
        (overlay / name).symlink_to(Path(setuptools.__file__).parents[1] / name)
    return os.environ | {"PYTHONPATH": str(overlay), "PYTHONNOUSERSITE": "1"}


def ask(python: str | Path, overlay: Path, **environment: str) -> list[object]:
    """Returns the torch that an isolated build finds, whether it is the environment's, and its CUDA version."""
    command, variables = [python, "-c", SAY_WHERE], isolated(overlay) | environment
    return json.loads(subprocess.run(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, check=True).stdout)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The interpreter of an empty virtual environment."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    return tmp_path / "venv" / "bin" / "python"


def site_of(python: Path) -> Path:
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return Path(subprocess.run(where, stdout=subprocess.PIPE, text=True, check=True).stdout.strip())


def test_torch_in_site_packages_is_found(python: Path, tmp_path: Path) -> None:
    package = make_torch(site_of(python))
    assert ask(python, tmp_path / "overlay") == [str(package), True, "13.0"]


def test_torch_behind_a_pth_file_is_found(python: Path, tmp_path: Path) -> None:
    package = make_torch(tmp_path / "elsewhere", cuda=None)
    (site_of(python) / "elsewhere.pth").write_text(f"{package.parent}\n")
    assert ask(python, tmp_path / "overlay") == [str(package), True, None]


def test_torch_in_the_users_site_is_found(tmp_path: Path) -> None:
    """Uses the base interpreter, because virtual environments have no user site."""
    base = {"userbase": str(tmp_path / "user")}
    package = make_torch(Path(sysconfig.get_path("purelib", "posix_user", base)))
    found = ask(sys._base_executable, tmp_path / "overlay", PYTHONUSERBASE=base["userbase"])
    assert found == [str(package), True, "13.0"]


def test_a_torch_that_was_fetched_for_the_build_is_not_the_environments(python: Path, tmp_path: Path) -> None:
    package = make_torch(tmp_path / "overlay")
    assert ask(python, tmp_path / "overlay") == [str(package), False, "13.0"]


def test_forced_cuda_without_nvcc_is_said_so(python: Path, tmp_path: Path) -> None:
    """Uses a torch with a CUDA version that no machine has."""
    package = make_torch(site_of(python), cuda="99.0")
    (package / "__init__.py").write_text("from . import version\n")
    variables = isolated(tmp_path / "overlay") | {"FORCE_CUDA": "1"}
    done = subprocess.run([python, "setup.py", "build_ext"], cwd=ROOT, env=variables, stderr=subprocess.PIPE, text=True)
    assert "FORCE_CUDA=1, but no nvcc of CUDA 99, the CUDA of this torch, was found" in done.stderr


def test_what_a_build_without_isolation_needs_is_printed() -> None:
    """The output is for `uv pip install -r -`."""
    command = [sys.executable, "build_backend/cuda_toolkit.py"]
    said = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    assert {f"torch=={torch.__version__.partition('+')[0]}", "ninja", "pybind11"} <= set(said)
    assert torch.version.cuda or not any("cuda" in requirement for requirement in said)


@pytest.mark.parametrize("pinned", [True, False])
def test_only_the_environments_torch_is_required_by_version(python: Path, tmp_path: Path, pinned: bool) -> None:
    """A torch that was downloaded for the build must not silently replace one that is only on PYTHONPATH."""
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    if pinned:
        (site_of(python) / "all.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
    for entry in () if pinned else Path(torch.__file__).parents[1].iterdir():
        (overlay / entry.name).symlink_to(entry)
    variables = os.environ | {"PYTHONPATH": str(overlay), "FORCE_CUDA": "0"}
    command = [python, "setup.py", "-q", "egg_info", "--egg-base", tmp_path]
    done = subprocess.run(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    minor = ".".join(torch.__version__.split(".")[:2])
    required = (tmp_path / "leaky_ext.egg-info" / "requires.txt").read_text().split()
    assert required == [f"torch=={minor}.*" if pinned else "torch>=2.11"]
