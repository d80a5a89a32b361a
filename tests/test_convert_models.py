"""convert on well-known models. Each is skipped if its package (requirements-models.txt) is not installed."""

import copy

import pytest
import torch
from torch import nn
from zoo import PRELU, tensors, transformer

from leaky_ext import LearnableLeakyReLU, StraightThroughReLU, convert

pytestmark = pytest.mark.slow


def path(model, inputs, steps=20):
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = sum(y.square().mean() for y in tensors(model(inputs(step))))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def same_path(old, new, inputs):
    start = [parameter.detach().clone() for parameter in old.parameters()]
    losses, new_losses = path(old, inputs), path(new, inputs)
    torch.testing.assert_close(new_losses, losses, rtol=1e-6, atol=1e-6)
    for a, b, first in zip(new.parameters(), old.parameters(), start, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
        # All except biases that a normalization cancels.
        assert b.ndim == 1 or not torch.equal(b, first)


@pytest.mark.parametrize("make, count", PRELU.values(), ids=PRELU)
def test_prelu_models(make, count):
    torch.manual_seed(0)
    old, shape = make()
    new = copy.deepcopy(old)
    done = convert(new)
    assert len(done) == count
    assert not any(type(module) is nn.PReLU for module in new.modules())
    new.load_state_dict(old.state_dict(), strict=True)
    x = torch.randn(shape)
    for a, b in zip(tensors(new(x)), tensors(old(x)), strict=True):
        assert torch.equal(a, b)
    same_path(old, new, lambda step: torch.randn(shape, generator=torch.Generator().manual_seed(step)))


def test_a_transformer_with_a_relu_mlp():
    torch.manual_seed(0)
    old, _ = transformer()

    def tokens(step):
        return torch.randint(64, (2, 16), generator=torch.Generator().manual_seed(step))

    straight = copy.deepcopy(old)
    assert [change.names for change in convert(straight, {nn.ReLU: "straight_through"})] == [
        (f"model.decoder.layers.{layer}.activation_fn",) for layer in range(3)
    ]
    assert torch.equal(straight(tokens(0)).logits, old(tokens(0)).logits)
    # With a slope of 0 the gradient is ReLU's too.
    same = copy.deepcopy(old)
    convert(same, {"*.activation_fn": "straight_through"}, alpha=0.0)
    assert sum(isinstance(module, StraightThroughReLU) for module in same.modules()) == 3
    # A learnable slope that starts at 0 does not change the outputs.
    learnable = copy.deepcopy(old)
    convert(learnable, {nn.ReLU: "learnable"}, alpha=0.0)
    assert sum(isinstance(module, LearnableLeakyReLU) for module in learnable.modules()) == 3
    assert torch.equal(learnable(tokens(0)).logits, old(tokens(0)).logits)
    same_path(old, same, tokens)
