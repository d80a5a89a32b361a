"""Calls of modules: one native call if they are plain, and the same results by the path in Python if they are not."""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from leaky_ext import LearnableLeakyReLU, PReLU, StraightThroughReLU, functional, reference

MODULES = {
    "PReLU": PReLU,
    "per channel": functools.partial(LearnableLeakyReLU, 4),
    "save=output": functools.partial(LearnableLeakyReLU, 4, save="output"),
    "in place": functools.partial(LearnableLeakyReLU, inplace=True),
    "straight-through": StraightThroughReLU,
    "straight-through, learned": functools.partial(StraightThroughReLU, learnable=True, num_parameters=4),
    "straight-through, in place": functools.partial(StraightThroughReLU, inplace=True),
}


@pytest.fixture
def functions_called(monkeypatch):
    """The public functions that modules call, as they are called."""
    called = []

    def watch(function):
        @functools.wraps(function)
        def watched(*args, **kwargs):
            called.append(function.__name__)
            return function(*args, **kwargs)

        monkeypatch.setattr(functional, function.__name__, watched)

    watch(functional.learnable_leaky_relu), watch(functional.learnable_leaky_relu_)
    watch(functional.straight_through_relu), watch(functional.straight_through_relu_)
    return called


def gradients(call, module, x):
    x = x.detach().clone().requires_grad_()
    y = call(x * 1)
    y.square().sum().backward()
    grads = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    return [y.detach(), x.grad, *grads]


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_a_plain_call_is_one_native_call(make, functions_called):
    module, x = make(), torch.randn(5, 4)
    native = gradients(module, module, x)
    assert functions_called == []
    assert all(map(torch.equal, native, gradients(module._activation, module, x)))
    assert len(functions_called) == 1


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_a_call_that_is_not_plain_is_the_functions(make, functions_called):
    class Seen(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(getattr(function, "__name__", None))
            return function(*args, **(kwargs or {}))

    class Subclass(torch.Tensor):
        pass

    seen: list[str | None] = []
    module, x = make(), torch.randn(5, 4)
    expected = module(x.clone())
    with Seen():
        assert torch.equal(module(x.clone()), expected)
    assert functions_called and functions_called[0] in seen
    functions_called.clear()
    assert isinstance(module(x.clone().as_subclass(Subclass)), Subclass) and functions_called


def test_options_that_change_are_followed():
    module, x = LearnableLeakyReLU(3), torch.randn(3, 3)
    with torch.no_grad():
        module.alpha.copy_(torch.tensor([0.1, 0.2, 0.3]))
    module.channel_dim = 0
    assert torch.equal(module(x), reference.learnable_leaky_relu(x, module.alpha, channel_dim=0))
    nn.init.zeros_(module.alpha)
    module.save = "output"
    with pytest.raises(ValueError, match="x cannot be rebuilt"):
        module(x)
    module.save = "input"
    nn.init.ones_(module.alpha)
    module.alpha_bounds = (0.0, 0.1)
    assert torch.equal(module(x), reference.learnable_leaky_relu(x, 0.1))
    module.inplace, module.alpha_bounds = True, None
    hidden = x.clone()
    assert module(hidden) is hidden
    straight = StraightThroughReLU()
    straight.alpha = 0.5
    x.requires_grad_()
    straight(x).sum().backward()
    assert torch.equal(x.grad, torch.where(x >= 0, 1.0, 0.5))


class HalvedSlope(LearnableLeakyReLU):
    def slope(self):
        return super().slope() / 2


class NeverInPlace(LearnableLeakyReLU):
    inplace = property(lambda self: False, lambda self, value: vars(self).update(inplace=value))


@pytest.mark.parametrize("make", [lambda: HalvedSlope(init=0.5), lambda: NeverInPlace(init=0.25, inplace=True)])
def test_a_subclass_may_override_any_attribute(make):
    module, x = make(), torch.randn(5, 4)
    before = x.clone()
    assert torch.equal(module(x), reference.learnable_leaky_relu(before, 0.25)) and torch.equal(x, before)


@pytest.mark.parametrize("make", [PReLU, LearnableLeakyReLU, functools.partial(StraightThroughReLU, learnable=True)])
def test_a_trace_does_not_fix_the_slope_for_a_constant_input(make):
    class OfBuffer(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = make()
            self.register_buffer("constant", torch.tensor([-1.0, 2.0]))

        def forward(self, x):
            return x * self.act(self.constant)

    model = OfBuffer()
    graph = torch.fx.symbolic_trace(model)
    for _ in range(2):
        graph(torch.ones(2)).sum().backward()
    assert [p.grad for p in model.parameters()] == [torch.tensor([-2.0])]


@pytest.mark.parametrize("make", [PReLU, functools.partial(StraightThroughReLU, learnable=True)])
def test_slopes_that_are_computed_are_followed(make):
    class Square(nn.Module):
        def forward(self, slope):
            return slope.square()

    x = torch.randn(5, 4, requires_grad=True)
    module = make(num_parameters=4)
    nn.init.constant_(getattr(module, module.slope_name), 0.5)
    parametrized = copy.deepcopy(module)
    parametrize.register_parametrization(parametrized, module.slope_name, Square())
    pruned = prune.identity(copy.deepcopy(module), module.slope_name)
    getattr(pruned, module.slope_name + "_mask")[0] = 0
    for changed, slopes in ((parametrized, [0.25] * 4), (pruned, [0.0, 0.5, 0.5, 0.5])):
        (grad,) = torch.autograd.grad(changed(x).sum(), x)
        assert torch.equal(grad, torch.where(x >= 0, 1.0, torch.tensor(slopes)))
