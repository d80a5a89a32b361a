"""scripts/wheel.py: one wheel for several versions of torch, here made from copies of one build."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from leaky_ext import _C, _build

ROOT = Path(__file__).parents[1]
MINOR = ".".join(torch.__version__.split(".")[:2])
METADATA = "Metadata-Version: 2.1\nName: leaky_ext\nVersion: {0}\nRequires-Dist: torch=={1}.*\n\n# leaky_ext\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: py3-none-any\n"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wheel_script", ROOT / "scripts" / "wheel.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def install(script: ModuleType, tmp_path: Path) -> Callable[..., Path]:
    """Merges wheels for these minor versions, and unpacks the result into a folder."""

    def one(minor: str) -> Path:
        path = tmp_path / f"{minor}.whl"
        facts = Path(_build.__file__).read_text().replace(f'"{torch.__version__}"', f'"{minor}.0"')
        info = f"leaky_ext-{_build.VERSION}.dist-info"
        with zipfile.ZipFile(path, "w") as archive:
            for file in (ROOT / "leaky_ext").glob("*.py"):
                archive.writestr(f"leaky_ext/{file.name}", facts if file.name == "_build.py" else file.read_text())
            archive.write(_C.__file__, f"leaky_ext/{Path(_C.__file__).name}")
            archive.writestr(f"{info}/METADATA", METADATA.format(_build.VERSION, minor))
            archive.writestr(f"{info}/WHEEL", WHEEL)
            archive.writestr(f"{info}/RECORD", "")
        return path

    def merged(*minors: str) -> Path:
        wheel = script.merge([one(minor) for minor in minors], tmp_path)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(tmp_path / "site")
        return tmp_path / "site"

    return merged


def run(site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "tests" / "call_each.py"]
    variables = os.environ | {"PYTHONPATH": str(site)}
    return subprocess.run(command, cwd=site, env=variables, capture_output=True, text=True)


def test_the_module_of_the_running_torch_is_chosen(install: Callable[..., Path]) -> None:
    site = install("2.1", MINOR, "2.99")
    done = run(site)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(site / "leaky_ext" / "__init__.py")
    assert f"(built against {torch.__version__})" in done.stdout
    metadata = next(site.glob("*.dist-info/METADATA")).read_text()
    assert "Requires-Dist: torch>=2.1,<2.100\n" in metadata
    assert "Requires-Dist: torch==" not in metadata
    assert not (site / "leaky_ext" / "_build.py").exists()


def test_an_unknown_torch_is_told_which_there_are(install: Callable[..., Path]) -> None:
    done = run(install("2.99", "2.100"))
    assert done.returncode != 0
    assert f"is for torch 2.99, 2.100, but torch {torch.__version__} is running" in done.stderr
    assert "build leaky_ext from its sources" in done.stderr
