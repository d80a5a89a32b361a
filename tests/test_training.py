"""A two-layer network on scikit-learn's digits learns its slope as it does with the formulas written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import leaky_ext

STEPS, BATCH = 50, 64


class Where(nn.Module):
    """A 0-d slope and torch.where."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.01))

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x >= 0, x, self.alpha * x)


class Clamp(Where):
    """The positive part and the slope times the rest."""

    def forward(self, x: Tensor) -> Tensor:
        positive = torch.clamp(x, min=0.0)
        return positive + self.alpha * (x - positive)


class Initialized(Where):
    """A slope of shape [1], filled by nn.init."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(nn.init.constant_(torch.empty(1), 0.01))


class Detach(nn.Module):
    """ReLU with the gradient of leaky ReLU, as x_backward + (x_forward - x_backward).detach()."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.01))

    def forward(self, x: Tensor) -> Tensor:
        backward = torch.where(x >= 0, x, self.alpha * x)
        return backward + (x.clamp(min=0) - backward).detach()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Uses one thread, which is faster than several for tensors this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(activation: Callable[[], nn.Module]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns losses, the slope after each step, and the accuracy, in float64 so that rounding does not add up."""
    data = load_digits()
    images, labels = torch.tensor(data.data) / 16, torch.tensor(data.target)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 32), activation(), nn.Linear(32, 10)).double()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    losses, slopes = [], []
    for step in range(STEPS):
        picked = torch.arange(step * BATCH, (step + 1) * BATCH) % len(images)
        loss = cross_entropy(net(images[picked]), labels[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        slopes.append(net[1].alpha.detach().reshape(()).clone())
    accuracy = (net(images).argmax(1) == labels).double().mean()
    return torch.stack(losses), torch.stack(slopes), accuracy


@pytest.mark.parametrize(
    "ours, by_hand",
    [
        (leaky_ext.LearnableLeakyReLU, Where),
        (leaky_ext.LearnableLeakyReLU, Clamp),
        (leaky_ext.LearnableLeakyReLU, Initialized),
        (lambda: leaky_ext.LearnableLeakyReLU(save="output"), Where),
        (lambda: leaky_ext.StraightThroughReLU(learnable=True), Detach),
    ],
    ids=["where", "clamp", "initialized", "save the output", "straight-through"],
)
def test_same_losses_as_by_hand(ours: Callable[[], nn.Module], by_hand: Callable[[], nn.Module]) -> None:
    losses, slopes, accuracy = train(ours)
    expected_losses, expected_slopes, _ = train(by_hand)
    torch.testing.assert_close(losses, expected_losses, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(slopes, expected_slopes, rtol=1e-7, atol=1e-9)
    assert losses[-1] < losses[0] / 3
    assert abs(slopes[-1] - 0.01) > 1e-3  # it has been learned
    assert accuracy > 0.8


def losses(save: str, slopes: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the losses of a super-resolution network in training, with the slopes of `convert`."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.PReLU(16)]
    layers += [layer for _ in range(3) for layer in (nn.Conv2d(16, 16, 3, padding=1), nn.PReLU(16))]
    net = nn.Sequential(*layers, nn.Conv2d(16, 3, 3, padding=1))
    for layer in net.modules():
        if isinstance(layer, nn.PReLU):
            layer.weight.data.copy_(slopes)
    leaky_ext.convert(net, save=save)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    taken = []
    for _ in range(STEPS):
        x = torch.randn(4, 3, 16, 16)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = nn.functional.l1_loss(net(x).float(), x.tanh())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        taken.append(loss.detach())
    return torch.stack(taken)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("start", ["0.25", "0.01", "-0.25", "mixed"])
def test_a_rebuilt_input_trains_as_a_saved_one(start: str, dtype: torch.dtype, tolerance: float) -> None:
    slopes = torch.linspace(-0.3, 0.45, 16) if start == "mixed" else torch.full((16,), float(start))
    by_output, by_input = losses("output", slopes, dtype), losses("input", slopes, dtype)
    torch.testing.assert_close(by_output, by_input, rtol=tolerance, atol=0)
    assert by_input[-5:].mean() < 0.8 * by_input[:5].mean()
