"""The benchmarks refuse wrong contenders, take turns, and report the allocator's memory. Times are not tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from slow import slow_but
from torch import Tensor, nn

pytest.importorskip("pandas")  # not on machines that run other tests alone

from benchmarks.cases import BOTH, FORWARD, INFERENCE, THEN_READ, TRAINING, Case
from benchmarks.contenders import CONTENDERS, MAIN, Contender, Layer, where
from benchmarks.networks import BLOCKS, NETWORKS
from benchmarks.problems import problem
from benchmarks.worker import measure_case

CASE = Case(suite="test", subject="operator", task=BOTH, contenders=("where",), numel=10_000, threads=1)
OURS = ("residual network", "MLP", *BLOCKS)  # networks that need no other package
# The network of 64 px, on other images.
LARGER = [f"Real-ESRGAN compact, {size} px" for size in ("128", "256", "16 x 96")]


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
    """In linear, activation, linear, a fixed slope saves one bit per element, and PReLU saves its input."""
    case = Case(suite="test", subject="MLP block", task=TRAINING, contenders=MAIN)
    use = {name: problem(case).entry(CONTENDERS[name]).memory() for name in ("PReLU", "fixed")}
    hidden = 4 * 1024 * 1024
    assert use["PReLU"]["kept"] - use["fixed"]["kept"] == pytest.approx(hidden * (1 - 1 / 32), rel=0.01)
    assert use["PReLU"]["peak"] > use["PReLU"]["kept"]
