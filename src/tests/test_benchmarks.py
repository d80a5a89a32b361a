"""The benchmark suite: it refuses what is wrong, and implementations take turns."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("jsonschema")  # not on machines that only take results

from benchmarks import run, schema, tables
from benchmarks.blocks import BLOCKS, BlockProblem
from benchmarks.cases import K10, M1, M16, MEMORY_TUNABLES, SUITES, Case, block_case, select, size_name
from benchmarks.implementations import FIXED, IMPLEMENTATIONS, LEARNABLE, STRAIGHT_THROUGH, Implementation, where
from benchmarks.memory import memory_use
from benchmarks.problem import OperatorProblem
from benchmarks.timing import EventTimer, measure, quartiles
from benchmarks.worker import measure_case

ROOT = Path(__file__).resolve().parent.parent
CASE = Case(LEARNABLE, "both", "float32", "flat", K10, 1, "default", "cpu", ("where",))


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
        return grad_x, (grads[0] * x)[x < 0].sum()


def one_wrong_value(x: Tensor, alpha: Any) -> Tensor:
    y = where(x, alpha)
    return torch.cat([y[:-1], y[-1:] * 1.001])


def nan(x: Tensor, alpha: Any) -> Tensor:
    return where(x, alpha) + torch.full_like(x, torch.nan)


WRONG: dict[str, tuple[Callable[..., Tensor], str]] = {
    "one value": (one_wrong_value, "wrong y"),
    "one gradient": (WrongGradX.apply, "wrong grad_x"),
    "gradients doubled": (lambda x, a: 2 * where(x, a) - where(x.detach(), a.detach()), "wrong grad_x"),
    "d(alpha) of half the elements": (
        lambda x, a: torch.cat([where(x[::2], a), where(x[1::2], a.detach())]).view(2, -1).t().flatten(),
        "wrong d(alpha)",
    ),
    "another slope": (lambda x, a: where(x, 1.01 * a), "wrong y"),
    "NaN": (nan, "wrong y"),
    "another dtype": (lambda x, a: where(x, a).double(), "y is torch.float64"),
    "another shape": (lambda x, a: where(x, a)[None], "not torch.float32 [10000]"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
def test_wrong_implementation_is_refused(name: str, direction: str) -> None:
    function, reason = WRONG[name]
    table = {"wrong": Implementation("wrong", function, "[]"), "where": IMPLEMENTATIONS[LEARNABLE]["where"]}
    case = replace(CASE, direction=direction, implementations=("wrong", "where"))
    wrong, right = measure_case(case, seconds=0.001, table=table)["results"]
    assert wrong["status"] == "refused" and reason in wrong["reason"]
    assert "samples" not in wrong and "median" not in wrong
    assert right["status"] == "ok" and right["samples"]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("operator", [LEARNABLE, STRAIGHT_THROUGH])
def test_wrong_activation_in_a_block_is_refused(block: str, operator: str) -> None:
    case = replace(block_case(block, operator, 1, "cpu", compiled=False), implementations=("wrong",))
    alpha = IMPLEMENTATIONS[operator]["leaky_ext"].alpha
    table = {"wrong": Implementation("wrong", lambda x, a: torch.nn.functional.leaky_relu(x, 0.05) + 0 * a, alpha)}
    (wrong,) = measure_case(case, seconds=0.001, table=table)["results"]
    assert wrong["status"] == "refused" and "relative error" in wrong["reason"]


def test_what_an_implementation_raises_is_its_result() -> None:
    def broken(x: Tensor, alpha: Any) -> Tensor:
        raise RuntimeError("no kernel\nfor this")

    table = {"broken": Implementation("broken", broken, "[]")}
    (result,) = measure_case(replace(CASE, implementations=("broken",)), 0.001, table)["results"]
    assert result == {"implementation": "broken", "status": "failed", "reason": "RuntimeError: no kernel"}


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("layout", ["flat", "nchw", "channels_last", "btc", "sliced"])
@pytest.mark.parametrize("operator", IMPLEMENTATIONS)
def test_eager_implementations_are_right(operator: str, layout: str, dtype: str) -> None:
    problem = OperatorProblem(replace(CASE, operator=operator, layout=layout, dtype=dtype))
    for implementation in IMPLEMENTATIONS[operator].values():
        if not implementation.compiled:
            assert problem.check(problem.bind(implementation)) is None, implementation.name


@pytest.mark.slow
@pytest.mark.parametrize("operator", IMPLEMENTATIONS)
def test_compiled_implementations_are_right(operator: str) -> None:
    torch._dynamo.reset()
    problem = OperatorProblem(replace(CASE, operator=operator))
    for implementation in IMPLEMENTATIONS[operator].values():
        if implementation.compiled:
            assert problem.check(problem.bind(implementation)) is None, implementation.name


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS)
def test_right_blocks_are_not_refused(block: str) -> None:
    for operator in (LEARNABLE, STRAIGHT_THROUGH):
        case = block_case(block, operator, 1, "cpu", compiled=True)
        problem = BlockProblem(case)
        for name in case.implementations:
            assert problem.check(problem.bind(IMPLEMENTATIONS[operator][name])) is None, name


@pytest.mark.parametrize(("device", "suite"), SUITES)
def test_cases_are_sound(device: str, suite: str) -> None:
    cases = select(device, suite, threads=2)
    assert len({case.label for case in cases}) == len(cases)
    for case in cases:
        assert case.block or torch.Size(case.shape).numel() == case.numel
        assert set(case.implementations) <= IMPLEMENTATIONS[case.operator].keys()
        assert len(set(case.implementations)) == len(case.implementations)
        assert case.memory in MEMORY_TUNABLES and case.device == device


def test_full_suite_has_every_comparison() -> None:
    """The ratios that a report gives exist for 100 to 16M elements."""
    cases = select("cpu", "full", threads=2)
    for _, operator, name in tables.AGAINST:
        for numel in (100, K10, M1, M16):
            start = f"{operator} both float32 flat {size_name(numel)} "
            assert any(name in c.implementations for c in cases if c.label.startswith(start)), (name, numel)
    assert {case.memory for case in cases} == {"default", "fresh", "mapped"}
    assert {case.threads for case in cases} == {1, 2}


def test_filter_selects_by_label() -> None:
    assert {case.dtype for case in select("cpu", "full", 2, "bfloat16 flat 1M")} == {"bfloat16"}
    assert select("cpu", "full", 2, "no such row") == []


def test_implementations_take_turns() -> None:
    log: list[str] = []
    calls = {name: (lambda name=name: log.append(name)) for name in "abc"}
    samples = measure(calls, threads=1, device="cpu", seconds=0.2)
    counts = {name: len(times) for name, times in samples.items()}
    assert len(set(counts.values())) == 1 and counts["a"] >= 3
    turns = [name for name, before in zip(log, [None, *log], strict=False) if name != before]
    assert len(turns) > 2 * counts["a"]  # far more than one turn each
    assert all(time > 0 for times in samples.values() for time in times)


def test_quartiles() -> None:
    assert quartiles([4.0, 1.0, 3.0, 2.0, 5.0]) == (2.0, 3.0, 4.0)
    assert quartiles([7.0]) == (7.0, 7.0, 7.0)


@pytest.mark.parametrize(
    ("operator", "name", "kept", "beyond"),
    [
        (LEARNABLE, "leaky_ext", 4, 0),
        (LEARNABLE, "leaky_ext, save=output", 4, 0),
        (LEARNABLE, "where", 5, 1),
        (LEARNABLE, "clamp", 8, 4),
        (LEARNABLE, "F.prelu", 4, 0),
        (FIXED, "leaky_ext", 0.125, 0.125),
        (STRAIGHT_THROUGH, "leaky_ext", 0.125, 0.125),
        (STRAIGHT_THROUGH, "F.relu", 4, 0),
        (STRAIGHT_THROUGH, "NSReLU", 1, 1),
    ],
)
def test_memory_is_what_the_allocator_saw(operator: str, name: str, kept: float, beyond: float) -> None:
    numel = 1 << 16
    problem = OperatorProblem(replace(CASE, operator=operator, numel=numel))
    use = memory_use(problem.bind(IMPLEMENTATIONS[operator][name]), problem.x, problem.grad)
    slack = 64 / numel  # slopes
    assert use["kept"] / numel == pytest.approx(kept, abs=slack)
    assert use["kept_beyond"] / numel == pytest.approx(beyond, abs=slack)
    assert use["peak"] >= 8 * numel  # y and grad_x


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_event_timer_measures_the_gpu() -> None:
    timer = EventTimer()
    assert timer() == 0.0
    torch.cuda._sleep(10_000_000)
    assert timer() > 1e-3
    assert timer() == 0.0


def test_a_dead_worker_costs_one_row() -> None:
    good = replace(CASE, numel=100)
    bad = replace(good, dtype="no_such_dtype")
    done = list(run.in_workers([good, bad, replace(good, numel=1_000)], "default", 0.001))
    assert [case.numel for case, _ in done] == [100, 100, 1_000]
    assert [row["results"][0]["status"] for _, row in done] == ["ok", "failed", "ok"]
    assert "status 1" in done[1][1]["results"][0]["reason"]


def test_command_line(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "benchmarks", "run", "--quick", "--threads", "1"]
    command += ["--filter", "straight_through_relu both float32 flat 100 ", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result = schema.load(out)
    assert [row["numel"] for row in result["rows"]] == [100] and result["complete"]
    assert "straight-through / `F.relu`" in done.stdout
    command = [sys.executable, "-m", "benchmarks", "compare", str(out), str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "## Slower: 0" in done.stdout
