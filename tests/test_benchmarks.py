"""The benchmarks: they refuse what is wrong, contenders take turns, memory is what the allocator saw. No times."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from slow import slow_but
from torch import Tensor, nn

pytest.importorskip("pandas")  # not on machines that run other tests alone

from benchmarks import run
from benchmarks.__main__ import main
from benchmarks.capacity import largest
from benchmarks.cases import BOTH, FORWARD, INFERENCE, SIZES, SUITES, THEN_READ, TRAINING, Case, select
from benchmarks.contenders import BY_HAND, CONTENDERS, MAIN, PEER, Contender, Layer, where
from benchmarks.machine import this_machine, this_run
from benchmarks.networks import BLOCKS, NETWORKS
from benchmarks.problems import problem
from benchmarks.results import Results, row
from benchmarks.run import measure_suite
from benchmarks.tables import by_case
from benchmarks.timing import measure, timers, without_drift
from benchmarks.worker import measure_case

ROOT = Path(__file__).resolve().parent.parent
CASE = Case(suite="test", subject="operator", task=BOTH, contenders=("where",), numel=10_000, threads=1)
OURS = ("residual network", "MLP", *BLOCKS)  # networks that need no other package
LARGER = ("Real-ESRGAN compact, 128 px", "Real-ESRGAN compact, 256 px")  # the network of 64 px on other images


class WrongGradX(torch.autograd.Function):
    """Leaky ReLU, but for the gradient of one element."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor) -> Tensor:
        ctx.save_for_backward(x, alpha)
        return where(x, alpha)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, alpha = ctx.saved_tensors
        grad_x = torch.where(x >= 0, grads[0], alpha * grads[0])
        grad_x[-1] *= 1.001
        return grad_x, (grads[0] * x)[x < 0].sum().view(1)


def one_wrong_value(x: Tensor, alpha: Any) -> Tensor:
    y = where(x, alpha)
    return torch.cat([y[:-1], y[-1:] * 1.001])


WRONG: dict[str, tuple[Callable[..., Tensor], str]] = {
    "one value": (one_wrong_value, "wrong y"),
    "one gradient": (WrongGradX.apply, "wrong grad_x"),
    "gradients doubled": (lambda x, a: 2 * where(x, a) - where(x.detach(), a.detach()), "wrong grad_x"),
    "d(alpha) of half the elements": (
        lambda x, a: torch.cat([where(x[::2], a), where(x[1::2], a.detach())]).view(2, -1).t().flatten(),
        "wrong d(alpha)",
    ),
    "another slope": (lambda x, a: where(x, 1.01 * a), "wrong y"),
    "NaN": (lambda x, a: where(x, a) + torch.nan, "wrong y"),
    "another dtype": (lambda x, a: where(x, a).double(), "y is torch.float64"),
    "another shape": (lambda x, a: where(x, a)[None], "not torch.float32 [10000]"),
}


@pytest.mark.parametrize("task", [BOTH, FORWARD, THEN_READ])
@pytest.mark.parametrize("name", WRONG)
def test_wrong_operator_is_refused(name: str, task: str) -> None:
    function, reason = WRONG[name]
    wrong = Contender(function=function, forward=None, backward=None)
    case = replace(CASE, task=task, contenders=("wrong",))
    results = measure_case(case, seconds=0.001, contenders={"wrong": wrong})
    assert results["wrong"]["problem"].startswith("refused") and reason in results["wrong"]["problem"]
    assert "samples" not in results["wrong"]


def test_the_others_are_timed_beside_a_wrong_operator() -> None:
    wrong = Contender(function=one_wrong_value, forward=None, backward=None)
    case = replace(CASE, contenders=("wrong", "where"))
    results = measure_case(case, seconds=0.001, contenders={"wrong": wrong, "where": CONTENDERS["where"]})
    assert "problem" in results["wrong"]
    assert results["where"]["samples"] and "problem" not in results["where"]


@pytest.mark.parametrize("subject", OURS)
def test_wrong_activation_in_a_network_is_refused(subject: str) -> None:
    def gradient_of_relu(x: Tensor, alpha: Any) -> Tensor:
        return where(x, alpha).detach() + torch.relu(x) - torch.relu(x).detach()

    wrong = replace(CONTENDERS["where"], module=lambda prelu: Layer(lambda x, a: where(x, 1.1 * a), prelu.weight))
    half = replace(CONTENDERS["where"], module=lambda prelu: Layer(gradient_of_relu, prelu.weight))
    case = Case(suite="test", subject=subject, task=TRAINING, contenders=("wrong", "half"), threads=2)
    results = measure_case(case, seconds=0.001, contenders={"wrong": wrong, "half": half})
    assert "relative error" in results["wrong"]["problem"]
    assert "wrong gradient" in results["half"]["problem"]


def test_wrong_inference_is_refused() -> None:
    wrong = replace(CONTENDERS["ReLU"], module=lambda prelu: nn.LeakyReLU(0.1))
    case = Case(suite="test", subject="MLP", task=INFERENCE, contenders=("wrong",), threads=2)
    assert "wrong output 0" in measure_case(case, seconds=0.001, contenders={"wrong": wrong})["wrong"]["problem"]


def test_what_a_contender_raises_is_its_result() -> None:
    def broken(x: Tensor, alpha: Any) -> Tensor:
        raise RuntimeError("no kernel\nfor this")

    case = replace(CASE, contenders=("broken",))
    results = measure_case(case, seconds=0.001, contenders={"broken": Contender(function=broken)})
    assert results == {"broken": {"problem": "failed: RuntimeError: no kernel"}}


def test_a_slow_first_call_is_no_measure_of_the_next() -> None:
    count = 0

    def compiled() -> None:
        nonlocal count
        count += 1
        if count == 1:
            time.sleep(0.1)

    measure(timers({"compiled": compiled}, "cpu"), seconds=0.01)
    assert count > 100  # samples of many calls, as for any short one


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_right_operators_are_not_refused(dtype: str) -> None:
    subject = problem(replace(CASE, dtype=dtype))
    for name, contender in CONTENDERS.items():
        if not contender.mkldnn:
            assert subject.entry(contender).check() is None, name


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_slopes_per_channel_are_not_refused(layout: str) -> None:
    subject = problem(replace(CASE, layout=layout, numel=1 << 17))
    for name in ("learnable", "PReLU") + (("oneDNN",) if layout == "nchw" else ()):
        assert subject.entry(CONTENDERS[name]).check() is None, name


@pytest.mark.parametrize("task", [TRAINING, INFERENCE])
@pytest.mark.parametrize("subject", OURS)
def test_right_networks_are_not_refused(subject: str, task: str) -> None:
    network = problem(Case(suite="test", subject=subject, task=task, contenders=MAIN))
    for name in (*MAIN, "where"):
        assert network.entry(CONTENDERS[name]).check() is None, name


@pytest.mark.slow
@pytest.mark.parametrize("subject", [name for name in NETWORKS if name not in (*OURS, *LARGER)])
def test_architectures_of_packages_are_not_refused(subject: str) -> None:
    if not NETWORKS[subject].available:
        pytest.skip(f"{NETWORKS[subject].package} is not installed")
    network = problem(Case(suite="test", subject=subject, task=TRAINING, contenders=MAIN))
    for name in MAIN:
        assert network.entry(CONTENDERS[name]).check() is None, name


@pytest.mark.slow
def test_compiled_contenders_are_not_refused() -> None:
    for subject, contenders in (("operator", (*MAIN, "where")), ("conv block", ("learnable", "PReLU", "where"))):
        case = replace(CASE, subject=subject, compiled=True, contenders=contenders)
        results = measure_case(case, seconds=0.001)
        assert all("samples" in result and "kept" in result for result in results.values()), results


def test_a_step_changes_weights_and_a_check_does_not() -> None:
    network = problem(Case(suite="test", subject="residual network", task=TRAINING, contenders=MAIN))
    seen = []

    def layer(prelu: nn.PReLU) -> nn.Module:
        seen.append(prelu)
        return prelu

    entry = network.entry(replace(CONTENDERS["PReLU"], module=layer))
    weight = seen[0].weight
    before = weight.detach().clone()
    assert entry.check() is None and torch.equal(weight, before)
    entry.call()
    assert not torch.equal(weight, before)


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


KEPT = {  # bytes per element: in all, and beyond input and output
    "learnable": (4, 0),
    "learnable, save=output": (4, 0),
    "fixed": (0.125, 0.125),
    "straight-through": (0.125, 0.125),
    "PReLU": (4, 0),
    "ReLU": (4, 0),
    "where": (5, 1),
    "clamp": (8, 4),
    "NSReLU": (1, 1),
}


@pytest.mark.parametrize("name", slow_but(KEPT, "learnable", "fixed", "where"))
def test_memory_is_what_the_allocator_saw(name: str) -> None:
    numel, (kept, beyond) = 1 << 16, KEPT[name]
    use = problem(replace(CASE, numel=numel)).entry(CONTENDERS[name]).memory()
    slack = 64 / numel  # slopes
    assert use["kept"] / numel == pytest.approx(kept, abs=slack)
    assert use["beyond"] / numel == pytest.approx(beyond, abs=slack)
    assert use["peak"] >= 8 * numel  # y and grad_x


def test_memory_of_a_step() -> None:
    """Of linear, activation, linear: a fixed slope keeps a bit for each element where PReLU keeps its input."""
    case = Case(suite="test", subject="MLP block", task=TRAINING, contenders=MAIN)
    use = {name: problem(case).entry(CONTENDERS[name]).memory() for name in ("PReLU", "fixed")}
    hidden = 4 * 1024 * 1024
    assert use["PReLU"]["kept"] - use["fixed"]["kept"] == pytest.approx(hidden * (1 - 1 / 32), rel=0.01)
    assert use["PReLU"]["peak"] > use["PReLU"]["kept"]


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
    out = tmp_path / "machine.json"
    command = ["benchmarks", "run", "--quick", "--seconds", "0.01", "--out", str(out), "calls"]
    monkeypatch.setattr(sys, "argv", command)
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
