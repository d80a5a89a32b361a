"""scripts/gpu_check.py without a GPU, with a fake runner."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts/gpu_check.py"


@pytest.fixture
def gpu_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_check", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "LOG", tmp_path / "log")
    return module


def names(report: Path) -> dict[str, str]:
    return {step["name"]: step["status"] for step in json.loads(report.read_text())["steps"]}


def test_benchmark_comes_before_the_sanitizers(gpu_check: ModuleType, tmp_path: Path) -> None:
    order = [step.name for step in gpu_check.make_steps(tmp_path / "results.json", full=False)]
    assert order[0] == "build"
    assert (
        order.index("bandwidth")
        < order.index("benchmark")
        < min(order.index(tool) for tool in ("memcheck", "racecheck", "initcheck"))
    )


def test_kernels_that_are_built_already_are_not_built_again(gpu_check: ModuleType, tmp_path: Path) -> None:
    steps = gpu_check.make_steps(tmp_path / "results.json", full=False, built=True)
    assert [step.name for step in steps if "build_ext" in step.command] == []
    assert steps[0].name == "import"


def test_a_failed_step_leaves_the_others_to_run(gpu_check: ModuleType, tmp_path: Path) -> None:
    ran = []

    def runner(step, limit):
        ran.append(step.name)
        if step.name == "breaks":
            raise OSError("no such program")
        return (1 if step.name == "fails" else 0), "3 passed in 1 s"

    steps = [gpu_check.Step(name, ["x"], 10) for name in ("build", "fails", "breaks", "last")]
    gpu_check.run_steps(steps, runner, 100, tmp_path / "report.json", {})
    assert ran == ["build", "fails", "breaks", "last"]
    assert list(names(tmp_path / "report.json").values()) == ["ok", "FAILED (1)", "FAILED (127)", "ok"]


def test_nothing_runs_without_a_build(gpu_check: ModuleType, tmp_path: Path) -> None:
    steps = [gpu_check.Step(name, ["x"], 10) for name in ("build", "tests")]
    gpu_check.run_steps(steps, lambda step, limit: (2, ""), 100, tmp_path / "report.json", {})
    assert names(tmp_path / "report.json") == {"build": "FAILED (2)", "tests": "left out: the build failed"}


def test_budget_cuts_limits_and_leaves_out_the_rest(
    gpu_check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, limits = [0.0], []
    monkeypatch.setattr(gpu_check.time, "monotonic", lambda: now[0])

    def runner(step, limit):
        limits.append(limit)
        now[0] += 300
        return None if now[0] > 560 else 0, ""

    steps = [gpu_check.Step(name, ["x"], 300) for name in ("build", "cut", "late")]
    gpu_check.run_steps(steps, runner, gpu_check.BUDGET, tmp_path / "report.json", {"gpu": "none"})
    assert limits == [300, 260]
    assert names(tmp_path / "report.json") == {
        "build": "ok",
        "cut": "killed after 260 s",
        "late": "left out: no time left",
    }


@pytest.mark.parametrize(("text", "measured"), [('{"rows": [1]}', {"rows": [1]}), ('{"rows": [', None), (None, None)])
def test_report_takes_up_what_a_step_measured(
    gpu_check: ModuleType, tmp_path: Path, text: str | None, measured: object
) -> None:
    """A step may be killed later. A missing or incomplete file is no error."""
    out = tmp_path / "out.json"

    def runner(step, limit):
        if text is not None and step.writes:
            step.writes.write_text(text)
        return (None if step.writes else 0), ""

    steps = [gpu_check.Step("build", ["x"], 10), gpu_check.Step("bandwidth", ["x"], 10, writes=out)]
    gpu_check.run_steps(steps, runner, 100, tmp_path / "report.json", {})
    report = json.loads((tmp_path / "report.json").read_text())["steps"]
    assert [step["measured"] for step in report] == [None, measured]
    assert report[1]["status"] == "killed after 10 s"


def test_profile_is_of_the_kernels_there_are(gpu_check: ModuleType) -> None:
    """The profile has all kernels except the sum of partial sums. A renamed kernel must not be left out silently."""
    sources = "".join(path.read_text() for path in (ROOT / "csrc/cuda").glob("*.cu"))
    kernels = set(re.findall(r"(\w+_kernel)\(const", sources))
    pattern = re.compile(gpu_check.KERNELS.removeprefix("regex:"))
    assert {name for name in kernels if not pattern.match(name)} == {"combine_kernel"}
    assert len(kernels) == 6


def test_benchmark_is_left_out_where_its_packages_are_missing(
    gpu_check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bandwidth is still measured, because it requires only torch."""
    monkeypatch.setattr(gpu_check, "has_packages", lambda *names: False)
    steps = {step.name: step for step in gpu_check.make_steps(tmp_path / "results.json", full=False)}
    assert not steps["benchmark"].command and steps["benchmark"].optional
    assert steps["bandwidth"].command


def test_report_is_there_when_a_step_is_interrupted(gpu_check: ModuleType, tmp_path: Path) -> None:
    def runner(step, limit):
        if step.name == "interrupted":
            raise KeyboardInterrupt
        return 0, ""

    steps = [gpu_check.Step(name, ["x"], 10) for name in ("build", "interrupted")]
    with pytest.raises(KeyboardInterrupt):
        gpu_check.run_steps(steps, runner, 100, tmp_path / "report.json", {})
    assert names(tmp_path / "report.json") == {"build": "ok"}


def test_a_step_that_runs_over_is_killed_with_its_children(gpu_check: ModuleType, tmp_path: Path) -> None:
    child = tmp_path / "child"
    step = gpu_check.Step("over", ["sh", "-c", f"sleep 60 & echo $! > {child}; wait"], 1)
    status, _ = gpu_check.run_in_group(step, 1)
    assert status is None
    pid = int(child.read_text())
    for _ in range(100):
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        os.kill(pid, 9)
        pytest.fail("the step's child still runs")
