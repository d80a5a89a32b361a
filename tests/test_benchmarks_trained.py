"""Networks as people train them, and calls of modules: nothing is timed here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("pandas")  # not on machines that run other tests alone

from benchmarks import problems, report
from benchmarks.cases import BOTH, FORWARD, GRAPHED, RECORDED, TRAINING, Case, select
from benchmarks.contenders import CONTENDERS, MAIN, Layer
from benchmarks.machine import this_machine, this_run
from benchmarks.networks import ALL, NETWORKS, TRAINED
from benchmarks.problems import ModuleProblem, NetworkProblem, problem
from benchmarks.results import Results, row
from benchmarks.worker import measure_case

CASE = Case(suite="trained", subject="MLP (fp32)", task=TRAINING, contenders=("learnable", "PReLU"), threads=1)
BF16 = pytest.mark.skipif(not torch.cpu._is_avx512_bf16_supported(), reason="this CPU computes no bfloat16")
SETTINGS = {
    "MLP (fp32)": (torch.float32, torch.contiguous_format),
    "residual network (fp32, channels_last)": (torch.float32, torch.channels_last),
    "MLP (bf16)": (torch.bfloat16, torch.contiguous_format),
    "residual network (bf16, channels_last)": (torch.bfloat16, torch.channels_last),
}


@pytest.mark.parametrize("subject", SETTINGS)
def test_activations_meet_the_dtype_and_the_layout_of_the_name(subject: str) -> None:
    dtype, layout = SETTINGS[subject]
    seen: list[Tensor] = []

    def watch(x: Tensor, alpha: Any) -> Tensor:
        seen.append(x)
        return x

    watched = replace(CONTENDERS["PReLU"], module=lambda prelu: Layer(watch, prelu.weight))
    network = NetworkProblem(replace(CASE, subject=subject))
    assert network.loss_of_step(network.module(watched)).dtype == torch.float32
    assert seen and all(x.dtype == dtype and x.is_contiguous(memory_format=layout) for x in seen)


@pytest.mark.parametrize("subject", [pytest.param(name, marks=BF16 if "bf16" in name else ()) for name in SETTINGS])
def test_right_networks_are_not_refused(subject: str) -> None:
    network = problem(replace(CASE, subject=subject))
    for name in MAIN:
        assert network.entry(CONTENDERS[name]).check() is None, name


@BF16
def test_a_wrong_activation_is_refused_under_autocast() -> None:
    wrong = replace(CONTENDERS["where"], module=lambda prelu: Layer(lambda x, a: torch.where(x >= 0, x, 2 * x), 0.0))
    case = replace(CASE, subject="residual network (bf16, channels_last)", contenders=("wrong",))
    results = measure_case(case, seconds=0.001, contenders={"wrong": wrong})
    assert "relative error" in results["wrong"]["problem"]


def test_each_device_has_the_batches_and_the_precisions_that_it_can_train() -> None:
    on_cpu, on_cuda = ({c.subject for c in select("trained", device=device)} for device in ("cpu", "cuda"))
    assert not on_cpu & on_cuda and not any("fp16" in name for name in on_cpu)
    assert {ALL[name].autocast for name in on_cuda} == {None, torch.bfloat16, torch.float16}
    assert {c.task for c in select("trained", device="cuda")} == {TRAINING, GRAPHED}
    for name in on_cuda:
        assert ALL[name].channels_last == ("channels_last" in name)
    assert {name.partition(" (")[0] for name in on_cpu} <= set(NETWORKS)
    assert not any(network.large for network in TRAINED.values())


def weights_of(network: NetworkProblem, task: str) -> tuple[list[Tensor], Any]:
    network.case = replace(network.case, task=task)
    made: list[nn.Module] = []
    module = network.module
    network.module = lambda contender: made.append(module(contender)) or made[-1]  # type: ignore[method-assign]
    call = network.entry(CONTENDERS["learnable"]).call
    return list(made[0].parameters()), call


def test_a_captured_step_trains_as_an_eager_one(monkeypatch: pytest.MonkeyPatch) -> None:
    captures: list[Any] = []

    def capture(step: Any) -> Any:
        step()
        captures.append(step)
        return step

    monkeypatch.setattr(problems, "capture", capture)
    (eager, step), (graphed, call) = (weights_of(NetworkProblem(CASE), task) for task in (TRAINING, GRAPHED))
    before = [weight.detach().clone() for weight in eager]
    for _ in range(2):
        step(), call()
    assert len(captures) == 1
    assert all(map(torch.equal, eager, graphed))
    assert not all(map(torch.equal, eager, before))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16, channels_last", "fp16, channels_last"])
def test_cuda_graphs_train_as_eager_steps(precision: str) -> None:
    case = replace(CASE, subject=f"residual network, batch 512 ({precision})", device="cuda")
    (eager, step), (graphed, call) = (weights_of(NetworkProblem(case), task) for task in (TRAINING, GRAPHED))
    for _ in range(2):
        step(), call()
    for a, b in zip(eager, graphed, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("task", [BOTH, RECORDED, FORWARD])
def test_modules_are_called_and_checked(task: str) -> None:
    case = Case(suite="host", subject="module", task=task, contenders=MAIN, numel=100, threads=1)
    subject = problem(case)
    assert isinstance(subject, ModuleProblem)
    for name in MAIN:
        entry = subject.entry(CONTENDERS[name])
        assert entry.check() is None, name
        entry.call()
    wrong = replace(CONTENDERS["ReLU"], module=lambda prelu: nn.LeakyReLU(0.1))
    assert "wrong y" in str(subject.entry(wrong).check())


def test_pages_have_networks_as_people_train_them_and_calls_of_modules() -> None:
    def rows(case: Case, **times: float) -> list[dict[str, Any]]:
        taken = {name.replace("_", "-"): [time] for name, time in times.items()}
        return [row(case.key, name, [{"samples": samples}]) for name, samples in taken.items()]

    results = Results(this_machine("cpu"))
    bf16 = replace(CASE, subject="MLP (bf16)")
    trained = rows(bf16, learnable=10.0, PReLU=25.0) + rows(replace(bf16, task=GRAPHED), learnable=10.0, PReLU=15.0)
    results.merge("trained", this_run(quick=False, seconds=1), trained)
    host = Case(suite="host", subject="module", task=RECORDED, contenders=MAIN, numel=100, threads=1)
    times = {"learnable": 3.0, "PReLU": 4.5, "straight_through": 2.0, "ReLU": 2.0, "LeakyReLU": 3.0}
    results.merge("host", this_run(quick=False, seconds=1), rows(host, **times))
    page = report.page(results)
    sections = {part.partition("\n")[0]: part for part in page.split("\n## ")}
    assert "| MLP (bf16) | 2.50 |" in sections["Networks, training step, as people train, eager"]
    assert "| MLP (bf16) | 1.50 |" in sections["Networks, training step in a CUDA graph, as people train, eager"]
    assert "| forward, recorded | 1.50 | 1.00 | 1.50 |" in sections["Calls of modules: how many times as fast"]
    assert "| MLP (bf16) | 2.50 |" in report.headline({"some": results}, suite="trained")
    assert report.headline({"some": results}) == report.NOTHING
    assert "## As people train" in report.index({"some": results})
