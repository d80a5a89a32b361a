"""How the benchmarks run: cases, turns, processes, files. No times."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("pandas")  # not on machines that run other tests alone

from benchmarks import run
from benchmarks.__main__ import main
from benchmarks.capacity import largest
from benchmarks.cases import BOTH, FORWARD, SIZES, SUITES, THEN_READ, Case, select
from benchmarks.contenders import BY_HAND, CONTENDERS, MAIN, PEER
from benchmarks.machine import this_machine, this_run
from benchmarks.results import Results, row
from benchmarks.run import measure_suite
from benchmarks.tables import by_case
from benchmarks.timing import measure, timers, without_drift

ROOT = Path(__file__).resolve().parent.parent
CASE = Case(suite="test", subject="operator", task=BOTH, contenders=("where",), numel=10_000, threads=1)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("suite", SUITES)
def test_cases_are_sound(suite: str, quick: bool, device: str) -> None:
    cases = select(suite, quick=quick, device=device)
    assert cases and len({tuple(case.key.values()) for case in cases}) == len(cases)
    for case in cases:
        assert case.subject != "operator" or torch.Size(case.shape).numel() == case.numel
        assert set(case.contenders) <= set(CONTENDERS) and case.device == device
        assert len(set(case.contenders)) == len(case.contenders)
        assert device == "cpu" or "oneDNN" not in case.contenders


def test_operators_cover_every_size_and_comparison() -> None:
    cases = select("operators")
    for task in (BOTH, FORWARD, THEN_READ):
        assert {c.numel for c in cases if c.task == task and set(MAIN) <= set(c.contenders)} == set(SIZES)
    assert {(c.dtype, c.threads, c.malloc) for c in cases} >= {
        ("float32", 2, "default"), ("float32", 1, "default"), ("float32", 2, "kept"), ("bfloat16", 2, "kept")
    }  # fmt: skip
    measured = {name for case in cases for name in case.contenders}
    assert measured >= {*PEER, *PEER.values(), "oneDNN", *(name for names in BY_HAND.values() for name in names)}


def test_a_slow_first_call_is_no_measure_of_the_next() -> None:
    count = 0

    def compiled() -> None:
        nonlocal count
        count += 1
        if count == 1:
            time.sleep(0.1)

    measure(timers({"compiled": compiled}, "cpu"), seconds=0.01)
    assert count > 100  # samples of many calls, as for any short one


def test_contenders_take_turns() -> None:
    log: list[str] = []
    calls = {name: (lambda name=name: log.append(name)) for name in "abc"}
    samples = measure(timers(calls, "cpu"), seconds=0.1)
    counts = {len(taken) for taken in samples.values()}
    assert len(counts) == 1 and min(counts) >= 3
    turns = [name for name, before in zip(log, [None, *log], strict=False) if name != before]
    assert len(turns) > 2 * min(counts)  # far more than one turn each


def test_a_drift_of_the_machine_is_taken_out() -> None:
    speed = [1.0, 1.0, 1.5, 1.5, 1.0]
    taken = {"a": [3.0 * s for s in speed], "b": [4.0 * s for s in speed], "c": [6.0 * s for s in speed]}
    taken["c"][4] *= 7  # what hits one alone is left to the median
    samples = without_drift(taken)
    assert samples["a"] == pytest.approx([3.0] * 5)
    assert samples["b"] == pytest.approx([4.0] * 5)
    assert samples["c"] == pytest.approx([6.0] * 4 + [42.0])
    assert without_drift({"alone": [1.0, 2.0]}) == {"alone": [1.0, 2.0]}


def test_each_process_gives_one_time_and_what_fails_costs_its_case_alone() -> None:
    case = replace(CASE, numel=100, contenders=("where", "no such contender"))
    bad = replace(case, threads=-1)  # raises outside of any contender
    (failed, _, timed, missing), interrupted = measure_suite("test", [bad, case], processes=2, seconds=0.001)
    assert not interrupted and len(timed["times"]) == 2
    assert timed.keys() >= {"kept", "beyond", "peak", "low", "high"}
    assert failed["problem"].startswith("failed")
    assert missing["problem"].startswith("failed") and "times" not in missing


def test_an_interrupted_run_keeps_what_it_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted_after_one(cases: list[Case], *_: Any, **__: Any) -> Iterator[tuple[Case, dict[str, Any]]]:
        yield cases[0], {"where": {"samples": [1.0]}}
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "in_fresh_process", interrupted_after_one)
    rows, interrupted = measure_suite("test", [CASE, replace(CASE, task=FORWARD)], processes=2, seconds=0.001)
    assert interrupted and [row["task"] for row in rows] == [BOTH]


@pytest.mark.slow
def test_a_process_that_cannot_be_set_up_costs_its_cases_and_no_more() -> None:
    bad = replace(CASE, numel=200, threads=-1)
    (first, second), _ = measure_suite("test", [bad, replace(CASE, numel=100)], processes=1, seconds=0.001)
    assert first["problem"].startswith("failed") and second["times"]


def test_runs_merge_into_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(suite: str, cases: list[Case], **_: Any) -> tuple[list[dict[str, Any]], bool]:
        return [row(case.key, name, [{"samples": [1.0]}]) for case in cases for name in case.contenders], False

    out = tmp_path / "machine.json"
    monkeypatch.setattr(run, "measure_suite", measured)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "run", "--quick", "--out", str(out), "calls"])
    main()
    first = Results.load(out)
    assert {row["suite"] for row in first.rows} == {"calls"} and first.runs["calls"].quick
    first.rows.append({**first.rows[0], "suite": "networks"})
    first.save(out)
    main()
    again = Results.load(out)
    assert [row["suite"] for row in again.rows].count("calls") == len(first.rows) - 1
    assert [row["suite"] for row in again.rows].count("networks") == 1
    said = capsys.readouterr().out
    assert "F.prelu      learnable_leaky_relu(x, alpha)" in said and f"Results: {out}" in said


@pytest.mark.slow
def test_the_command_measures_and_shows_what_it_measured(tmp_path: Path) -> None:
    out = tmp_path / "machine.json"
    command = [sys.executable, "-m", "benchmarks", "run", "--quick", "--out", str(out), "calls", "networks"]
    done = subprocess.run([*command, "--only", "MLP"], cwd=ROOT, capture_output=True, text=True, check=True)
    results = Results.load(out)
    assert results.rows and all(min(row["times"]) > 0 for row in results.rows)
    assert 'convert(model, save="output")' in done.stdout
    assert f"Chart: {out.with_suffix('.svg')}" in done.stdout and "<svg" in out.with_suffix(".svg").read_text()


def test_tables_keep_the_order_of_the_file() -> None:
    results = Results(this_machine("cpu"))
    for subject, names in (("RNet", ("ReLU", "none")), ("MLP", ("ReLU",)), ("ANet", ("none", "ReLU"))):
        results.rows += [row(replace(CASE, subject=subject).key, name, [{"samples": [1.0]}]) for name in names]
    assert list(by_case(results.frame())["subject"]) == ["RNet", "MLP", "ANet"]


def test_a_part_of_a_suite_replaces_its_rows_alone() -> None:
    def rows(time: float, *subjects: str) -> list[dict[str, Any]]:
        cases = [replace(CASE, suite="operators", subject=subject) for subject in subjects]
        return [row(case.key, "ReLU", [{"samples": [time]}]) for case in cases]

    results = Results(this_machine("cpu"))
    results.merge("operators", this_run(quick=False, seconds=1), rows(1, "UNet", "MLP"))
    results.merge("operators", this_run(quick=False, seconds=2), rows(2, "UNet", "RNet"), only="Net")
    assert [(r["subject"], r["times"]) for r in results.rows] == [("UNet", [2]), ("MLP", [1]), ("RNet", [2])]
    assert {suite: run.seconds for suite, run in results.runs.items()} == {"operators": 1, "operators: Net": 2}
    results.merge("operators", this_run(quick=False, seconds=3), rows(3, "MLP"))
    assert [r["times"] for r in results.rows] == [[3]] and list(results.runs) == ["operators"]


def test_unknown_suites_are_named() -> None:
    command = [sys.executable, "-m", "benchmarks", "run", "no-such-suite"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "no such suite: no-such-suite" in done.stderr


def test_only_what_no_case_is_named_is_an_error(tmp_path: Path) -> None:
    out = tmp_path / "machine.json"
    with pytest.raises(SystemExit, match="no case of calls, networks has 'no-such-network' in its name"):
        run.run(["calls", "networks"], device="cpu", quick=True, threads=1, only="no-such-network", out=out)
    assert not out.exists()


@pytest.mark.parametrize("limit", [1, 7, 64, 100])
@pytest.mark.parametrize("capacity", [0, 1, 2, 3, 5, 63, 64, 65, 1000])
def test_the_largest_batch_is_found(capacity: int, limit: int) -> None:
    assert largest(lambda batch: batch <= capacity, limit) == min(capacity, limit)
