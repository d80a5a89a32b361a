"""Activation checkpointing: plain, and selective, which decides for each operator."""

import functools

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from leaky_ext import LearnableLeakyReLU, StraightThroughReLU

FORWARDS = {torch.ops.leaky_ext.forward, torch.ops.leaky_ext.forward_mask}

ACTIVATIONS = {
    "learnable": (lambda: LearnableLeakyReLU(16, init=0.1), "forward"),
    "save_output": (lambda: LearnableLeakyReLU(16, init=0.1, save="output"), "forward"),
    "straight_through": (lambda: StraightThroughReLU(0.1), "forward_mask"),
    "straight_through, learned": (lambda: StraightThroughReLU(0.1, learnable=True), "forward"),
}
activations = pytest.mark.parametrize("make, forward", ACTIVATIONS.values(), ids=ACTIVATIONS)


class Count(TorchDispatchMode):
    """How often each operator runs."""

    def __init__(self):
        super().__init__()
        self.calls = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        packet = func.overloadpacket
        self.calls[packet] = self.calls.get(packet, 0) + 1
        return func(*args, **(kwargs or {}))


def block(make):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), make(), nn.Linear(16, 4))


def gradients(model, run):
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with Count() as count:
        run(model, x).square().sum().backward()
    return [x.grad, *(parameter.grad for parameter in model.parameters())], count.calls


def selective(policy):
    contexts = functools.partial(create_selective_checkpoint_contexts, policy)
    return lambda model, x: checkpoint(model, x, use_reentrant=False, context_fn=contexts)


@activations
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoint(make, forward, use_reentrant):
    expected, _ = gradients(block(make), lambda model, x: model(x))
    actual, calls = gradients(block(make), lambda model, x: checkpoint(model, x, use_reentrant=use_reentrant))
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    assert sum(calls.get(op, 0) for op in FORWARDS) == 2


@activations
def test_selective_checkpoint_recomputes_the_operator_and_keeps_the_rest(make, forward):
    seen = []

    def policy(context, op, *args, **kwargs):
        seen.append(op.overloadpacket)
        recompute = op.overloadpacket in FORWARDS
        return CheckpointPolicy.MUST_RECOMPUTE if recompute else CheckpointPolicy.MUST_SAVE

    expected, _ = gradients(block(make), lambda model, x: model(x))
    actual, calls = gradients(block(make), selective(policy))
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    operator = getattr(torch.ops.leaky_ext, forward)
    assert operator in seen
    assert calls[operator] == 2  # once forward, once again in backward
    assert calls[torch.ops.aten.addmm] == 2  # two layers, each once


@activations
def test_selective_checkpoint_keeps_the_operator_and_recomputes_the_rest(make, forward):
    def policy(context, op, *args, **kwargs):
        keep = op.overloadpacket in FORWARDS
        return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE

    expected, _ = gradients(block(make), lambda model, x: model(x))
    actual, calls = gradients(block(make), selective(policy))
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    assert calls[getattr(torch.ops.leaky_ext, forward)] == 1
    assert calls[torch.ops.aten.addmm] > 2


def test_a_list_of_operators_will_do():
    keep = [torch.ops.leaky_ext.forward.default]
    contexts = functools.partial(create_selective_checkpoint_contexts, keep)
    model = block(ACTIVATIONS["learnable"][0])
    run = lambda model, x: checkpoint(model, x, use_reentrant=False, context_fn=contexts)  # noqa: E731
    _, calls = gradients(model, run)
    assert calls[torch.ops.leaky_ext.forward] == 1


def test_checkpointed_bounds():
    model = nn.Sequential(nn.Linear(8, 8), LearnableLeakyReLU(init=0.9, alpha_bounds=(0.0, 0.5)))
    x = torch.randn(3, 8)
    checkpoint(model, x, use_reentrant=False).sum().backward()
    grad = model[1].alpha.grad.clone()
    model.zero_grad()
    model(x).sum().backward()
    assert torch.equal(model[1].alpha.grad, grad)
    assert torch.equal(model[1].alpha, torch.tensor([0.9]))  # forward clamps, and writes to nothing
