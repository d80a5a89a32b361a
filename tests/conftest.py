"""Options and fixtures that test files share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# Tests that count compilations must not depend on what was compiled before.
os.environ.setdefault("TORCHINDUCTOR_AUTOGRAD_CACHE", "0")
# Processes of pytest-xdist share the cores: an OpenMP thread that waits must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-modes", metavar="FILE", help="write the result of test_modes.py as a Markdown table")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the source tree without build outputs."""
    ignored = shutil.ignore_patterns("build", "dist", ".*", "*.so", "_build.py", "*.egg-info", "__pycache__", "results")
    return Path(shutil.copytree(Path(__file__).parents[1], tmp_path / "source", ignore=ignored))


@pytest.fixture(scope="session")
def modes_table(request: pytest.FixtureRequest) -> Iterator[dict[str, dict[str, set[str]]]]:
    """Mode -> column -> outcomes. Written as a table if --write-modes is given and all tests passed."""
    table: dict[str, dict[str, set[str]]] = {}
    yield table
    path = request.config.getoption("--write-modes")
    if not path:
        return
    if request.session.testsfailed or not all(all(row.values()) for row in table.values()):
        raise pytest.UsageError(f"{path} is not written: a test failed, or not all were run")
    columns = list(next(iter(table.values())))
    title = "# Modes\n\nWritten by `python -m pytest tests/test_modes.py --write-modes docs/modes.md`.\n\n"
    lines = [["mode", *columns], ["---"] * (1 + len(columns))]
    lines += [[mode, *("; ".join(sorted(row[column])) for column in columns)] for mode, row in table.items()]
    Path(path).write_text(title + "".join(f"| {' | '.join(line)} |\n" for line in lines))
