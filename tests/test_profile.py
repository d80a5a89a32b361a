"""benchmarks/profile.py on the CPU: every event has the right part of the step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

pytest.importorskip("pandas")  # not on machines that run other tests alone

from benchmarks import profile
from benchmarks.cases import TRAINING, Case
from benchmarks.problems import NetworkProblem


def event(*names: str, cpu: float = 1.0, cuda: float = 0.0) -> SimpleNamespace:
    """Returns an event. The names after the first are those of the enclosing events."""
    around = event(*names[1:]) if len(names) > 1 else None
    return SimpleNamespace(
        name=names[0], cpu_parent=around, self_cpu_time_total=cpu, self_device_time_total=cuda,
        device_type=torch.autograd.DeviceType.CPU,
    )  # fmt: skip


NODE = "autograd::engine::evaluate_function: "
EVENTS = {
    ("aten::cudnn_convolution", "aten::_convolution", "aten::conv2d"): profile.CONVOLUTIONS,
    ("aten::copy_", "aten::mkldnn_convolution", "aten::conv2d"): profile.CONVOLUTIONS,  # a weight is reordered
    ("aten::add_", "aten::_convolution", "aten::conv2d"): profile.BIAS,
    ("aten::sum", "aten::convolution_backward", NODE + "ConvolutionBackward0"): profile.GRAD_BIAS,
    ("aten::sum", NODE + "AddmmBackward0"): profile.GRAD_BIAS,
    ("aten::sum", NODE + "MeanBackward0"): profile.REST,
    ("aten::add_", NODE + "torch::autograd::AccumulateGrad"): profile.REST,
    ("aten::mm", "aten::matmul"): profile.CONVOLUTIONS,
    ("aten::native_batch_norm", "aten::batch_norm"): profile.NORMS,
    ("aten::repeat", "aten::instance_norm"): profile.NORMS,
    ("leaky_ext::forward",): profile.ACTIVATION,
    ("leaky_ext::backward", NODE + "LearnableLeakyReluBackward0"): profile.ACTIVATION,
    ("aten::_prelu_kernel_backward", NODE + "PreluKernelBackward0"): profile.ACTIVATION,
    ("aten::threshold_backward", NODE + "ReluBackward0"): profile.ACTIVATION,
    ("aten::leaky_relu",): profile.ACTIVATION,
    ("aten::copy_", "aten::_to_copy", "aten::to", "aten::conv2d"): profile.CASTS,  # by autocast
    ("aten::copy_", "aten::_to_copy", NODE + "ToCopyBackward0"): profile.CASTS,
    ("aten::_foreach_add_", "Optimizer.step#SGD.step"): profile.OPTIMIZER,
}


@pytest.mark.parametrize(("names", "part"), EVENTS.items(), ids=[" in ".join(names) for names in EVENTS])
def test_an_event_has_its_part(names: tuple[str, ...], part: str) -> None:
    assert profile.part_of(event(*names)) == part


def test_times_are_those_of_the_device() -> None:
    events = [event("aten::mm", cpu=1, cuda=30), event("aten::native_batch_norm", cpu=3, cuda=10)]
    events.append(event("aten::mm", cpu=2, cuda=5))
    on_host, on_gpu = profile.times(events, "cpu"), profile.times(events, "cuda")
    assert (on_host[profile.CONVOLUTIONS], on_host[profile.NORMS], on_host.total()) == (3, 3, 6)
    assert (on_gpu[profile.CONVOLUTIONS], on_gpu[profile.NORMS], on_gpu.total()) == (35, 10, 45)


@pytest.mark.parametrize(("bias", "norm", "count"), [(True, False, 2), (False, False, 0), (True, True, 0)])
def test_fusable_is_what_comes_right_from_a_bias(bias: bool, norm: bool, count: int) -> None:
    problem = NetworkProblem(Case(suite="test", subject="MLP (fp32)", task=TRAINING, contenders=()))
    layers = [nn.Linear(784, 8, bias=bias), nn.BatchNorm1d(8) if norm else nn.Identity(), nn.PReLU()]
    layers = [layer for layer in layers if not isinstance(layer, nn.Identity)]
    problem.model = nn.Sequential(*layers, nn.Linear(8, 4, bias=bias), nn.PReLU(), nn.Linear(4, 4))
    own = problem.x.shape[0] * (8 + 4) * 4
    assert profile.fusable(problem) == (own if count else problem.x.shape[0] * 4 * 4 * (bias and norm))


def test_the_page_has_a_row_for_each_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "made" / "page.md"
    profile.main(["--only", "MLP", "--steps", "1", "--out", str(out)])
    text = out.read_text()
    assert "| MLP (fp32) |" in text and "Profile of a training step" in text
    row = next(line for line in text.splitlines() if line.startswith("| MLP (fp32)"))
    header = next(line for line in text.splitlines() if line.startswith("| training step of"))
    cells = dict(zip(header.split("|"), row.split("|"), strict=True))
    assert cells[" convolutions and products "].strip().endswith("%")  # most of an MLP
    assert cells[" fusable, MiB "].strip() == "3.0"  # 256 x 1024 floats, three times
    assert "MLP (fp32)" in capsys.readouterr().out
