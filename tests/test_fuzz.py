"""Part of what `make fuzz` does, with as many calls as there is time for."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("calls", [20_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_hostile_calls_do_not_crash(calls):
    command = [sys.executable, Path(__file__).with_name("fuzz_operators.py"), "--calls", str(calls), "--seed", "1000"]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout[-1000:] + process.stderr[-3000:]
    assert f"{calls:,} calls: " in process.stdout and "'results'" in process.stdout
