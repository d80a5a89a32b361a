"""A two-layer network on scikit-learn's digits learns its slope as it does with the formulas written by hand."""

from __future__ import annotations

from collections.abc import Callable

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


def train(activation: Callable[[], nn.Module]) -> tuple[Tensor, Tensor, Tensor]:
    """Losses, the slope after each step, and accuracy on all images, in float64 so that rounding does not add up."""
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
