"""Runs the machine code of the CUDA kernels in the emulator of tests/sass.

`make test-slow` installs nvcc and cuobjdump if they are missing.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def has_cuobjdump() -> bool:
    return shutil.which("cuobjdump") is not None or any(
        next(Path(folder).glob("nvidia/*/bin/cuobjdump"), None) for folder in sys.path if folder
    )


HAS_TOOLS = shutil.which("nvcc") is not None and has_cuobjdump() and importlib.util.find_spec("numpy") is not None


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TOOLS and "CI" not in os.environ, reason="needs nvcc, cuobjdump, numpy: `make test-slow`")
def test_quick_cases_on_machine_code() -> None:
    command = [sys.executable, "tests/sass/check.py", ".", "--quick", "--no-table", "--arch", "90"]
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert result.returncode == 0, result.stdout[-6000:]
    assert re.search(r"^\d+ cases, 0 wrong$", result.stdout, re.MULTILINE)
