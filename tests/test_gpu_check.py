"""scripts/gpu_check.py without a GPU, with a fake runner."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
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
    return module


def names(report: Path) -> dict[str, str]:
    return {step["name"]: step["status"] for step in json.loads(report.read_text())["steps"]}


def in_turn(gpu_check: ModuleType, names: list[str], limit: float = 10) -> list[list]:
    return [[gpu_check.Step(name, ["x"], limit)] for name in names]


def test_both_parts_fit_one_lease(gpu_check: ModuleType) -> None:
    """15 minutes, of which a start and the transfers take two; 10 minutes for one command."""
    assert sum(gpu_check.BUDGET.values()) <= 13 * 60 and max(gpu_check.BUDGET.values()) < 10 * 60


def test_tests_and_sanitizers_run_side_by_side_and_before_what_is_timed(gpu_check: ModuleType) -> None:
    together, *alone = ([step.name for step in stage] for stage in gpu_check.check_stages())
    assert {"tests on the GPU", "compiled", "memcheck", "racecheck", "initcheck"} <= set(together)
    assert alone == [["ncu"], ["bandwidth"]]


def test_tables_are_of_cases_that_there_are(gpu_check: ModuleType, tmp_path: Path) -> None:
    """A suite or a network that is renamed would silently be left out."""
    pytest.importorskip("pandas")
    from benchmarks.__main__ import parse
    from benchmarks.cases import select
    from benchmarks.networks import NETWORKS

    if not NETWORKS["Real-ESRGAN compact, 64 px"].available:
        pytest.skip("the packages of the networks are not installed")
    stages = gpu_check.table_stages(tmp_path / "results.json", full=False)
    assert all(len(stage) == 1 for stage in stages)  # what is timed has the GPU to itself
    for (step,) in stages:
        if step.command[2] != "benchmarks":
            continue
        options = parse(step.command[3:])
        for suite in options.suites:
            assert [case for case in select(suite, device="cuda") if (options.only or "") in case.name], step.name
    assert stages[0][0].name == "trained, bf16"


@pytest.mark.parametrize("changed", [True, False])
def test_sources_that_differ_from_their_commit_are_refused(
    gpu_check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc/kernels.h").write_text("//")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "all"], check=True)
    if changed:
        (tmp_path / "csrc/kernels.h").write_text("// changed")
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    assert gpu_check.is_changed() == changed


def test_kernels_that_are_built_already_are_not_built_again(gpu_check: ModuleType) -> None:
    assert "build_ext" in gpu_check.build_step(built=False).command
    assert gpu_check.build_step(built=True).name == "import"


def test_a_failed_step_leaves_the_others_to_run(gpu_check: ModuleType, tmp_path: Path) -> None:
    ran = []

    def runner(step, limit):
        ran.append(step.name)
        if step.name == "breaks":
            raise OSError("no such program")
        return (1 if step.name == "fails" else 0), "3 passed in 1 s"

    steps = in_turn(gpu_check, ["build", "fails", "breaks", "last"])
    gpu_check.run_stages(steps, runner, 100, tmp_path / "report.json", {})
    assert ran == ["build", "fails", "breaks", "last"]
    assert list(names(tmp_path / "report.json").values()) == ["ok", "FAILED (1)", "FAILED (127)", "ok"]


def test_nothing_runs_without_a_build(gpu_check: ModuleType, tmp_path: Path) -> None:
    steps = in_turn(gpu_check, ["build", "tests"])
    gpu_check.run_stages(steps, lambda step, limit: (2, ""), 100, tmp_path / "report.json", {})
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

    steps = in_turn(gpu_check, ["build", "cut", "late"], limit=300)
    gpu_check.run_stages(steps, runner, 560, tmp_path / "report.json", {"gpu": "none"})
    assert limits == [300, 260]
    assert names(tmp_path / "report.json") == {
        "build": "ok",
        "cut": "ended after 260 s",
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

    steps = [[gpu_check.Step("build", ["x"], 10)], [gpu_check.Step("bandwidth", ["x"], 10, writes=out)]]
    gpu_check.run_stages(steps, runner, 100, tmp_path / "report.json", {})
    report = json.loads((tmp_path / "report.json").read_text())["steps"]
    assert [step["measured"] for step in report] == [None, measured]
    assert report[1]["status"] == "ended after 10 s"


def test_profile_is_of_the_kernels_there_are(gpu_check: ModuleType) -> None:
    """The profile has all kernels except the sum of partial sums. A renamed kernel must not be left out silently."""
    sources = "".join(path.read_text() for path in (ROOT / "csrc/cuda").glob("*.cu*"))
    kernels = set(re.findall(r"(\w+_kernel)\(const", sources))
    pattern = re.compile(gpu_check.KERNELS.removeprefix("regex:"))
    assert {name for name in kernels if not pattern.match(name)} == {"combine_kernel"}
    assert len(kernels) == 5


def test_benchmark_is_left_out_where_its_packages_are_missing(
    gpu_check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bandwidth is still measured, because it requires only torch."""
    monkeypatch.setattr(gpu_check, "has_packages", lambda *names: False)
    tables = [step for stage in gpu_check.table_stages(tmp_path / "results.json", full=True) for step in stage]
    assert tables and all(not step.command and step.optional for step in tables)
    assert all(step.command for stage in gpu_check.check_stages() for step in stage if step.name == "bandwidth")


def test_report_is_there_when_a_step_is_interrupted(gpu_check: ModuleType, tmp_path: Path) -> None:
    def runner(step, limit):
        if step.name == "interrupted":
            raise KeyboardInterrupt
        return 0, ""

    steps = in_turn(gpu_check, ["build", "interrupted"])
    with pytest.raises(KeyboardInterrupt):
        gpu_check.run_stages(steps, runner, 100, tmp_path / "report.json", {})
    assert names(tmp_path / "report.json") == {"build": "ok"}


def test_steps_of_a_stage_run_at_the_same_time(gpu_check: ModuleType, tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=10)  # passes if two are there at once

    def runner(step, limit):
        if step.name != "build":
            both.wait()
        return 0, f"output of {step.name}"

    stages = [[gpu_check.Step("build", ["x"], 10)], [gpu_check.Step(name, ["x"], 10) for name in ("a", "b")]]
    results = gpu_check.run_stages(stages, runner, 100, tmp_path / "report.json", {})
    assert [(r.name, r.status) for r in results] == [("build", "ok"), ("a", "ok"), ("b", "ok")]
    log = (tmp_path / "report.log").read_text()
    assert all(f"===== {name}: x\noutput of {name}" in log for name in ("build", "a", "b"))


def test_a_step_that_runs_over_can_write_what_it_found(gpu_check: ModuleType) -> None:
    # sh, because Python may take longer than the limit to start on a busy machine.
    code = "trap 'echo found; kill $!; exit' INT; echo began; sleep 60 & wait"
    status, text = gpu_check.run_in_group(gpu_check.Step("over", ["sh", "-c", code], 1), 2)
    assert status is None and text == "began\nfound\n"


def test_a_step_that_runs_over_is_killed_with_its_children(
    gpu_check: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child"
    monkeypatch.setattr(gpu_check, "GRACE", 1)
    step = gpu_check.Step("over", ["sh", "-c", f"trap '' INT; sleep 60 & echo $! > {child}; wait"], 1)
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
