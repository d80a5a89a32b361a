"""benchmarks/bandwidth.py on the CPU, with few elements."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import bandwidth

ROOT = Path(__file__).parents[1]
NUMEL = 1 << 16


def test_a_row_for_each_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "made" / "rows.json"
    bandwidth.main(["--numel", str(NUMEL), "--seconds", "0.01", "--out", str(out)])
    rows = json.loads(out.read_text())["rows"]
    keys = {(row["dtype"], row["layout"], row["call"]) for row in rows}
    assert len(keys) == len(rows) == len(bandwidth.DTYPES) * len(bandwidth.LAYOUTS) * 5
    assert all(row["share_of_copy"] > 0 and row["microseconds"] > 0 for row in rows)
    assert {row["share_of_copy"] for row in rows if row["call"] == "copy_"} == {1}
    assert len(capsys.readouterr().out.splitlines()) == len(rows)


@pytest.mark.parametrize("layout", bandwidth.LAYOUTS)
@pytest.mark.parametrize("dtype", bandwidth.DTYPES, ids=str)
def test_bytes_are_those_of_the_operands(layout: str, dtype: torch.dtype) -> None:
    x = bandwidth.operand(layout, NUMEL, dtype, "cpu")
    assert x.numel() == NUMEL and x.dtype == dtype
    size = NUMEL * dtype.itemsize
    jobs = bandwidth.calls(layout, NUMEL, dtype, "cpu")
    moved = {name: moved for name, (_, moved) in jobs.items()}
    assert moved[bandwidth.FORWARD] == moved["copy_"] == 2 * size
    assert moved[bandwidth.FORWARD_MASK] == moved[bandwidth.BACKWARD_MASK] == 2 * size + NUMEL // 8
    assert moved[bandwidth.BACKWARD] == 3 * size
    y, mask = jobs[bandwidth.FORWARD_MASK][0]()
    assert y.numel() == NUMEL and mask.numel() == NUMEL // 8
    grad_x, grad_alpha = jobs[bandwidth.BACKWARD][0]()
    assert grad_x.shape == x.shape and grad_alpha.numel() == (bandwidth.CHANNELS if x.dim() == 4 else 1)
    assert jobs[bandwidth.BACKWARD_MASK][0]()[0].shape == x.shape


def test_layouts_are_what_their_names_say() -> None:
    x = {layout: bandwidth.operand(layout, NUMEL, torch.float32, "cpu") for layout in bandwidth.LAYOUTS}
    assert x["nchw"].is_contiguous()
    assert x["channels_last"].is_contiguous(memory_format=torch.channels_last)
    assert not x["channels_last"].is_contiguous() and not x["sliced rows"].is_contiguous()


def test_once_runs_the_main_calls_and_prints_nothing() -> None:
    assert len(set(bandwidth.MAIN)) == 8
    command = [sys.executable, "-m", "benchmarks.bandwidth", "--once", "--numel", str(NUMEL)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == ""
