"""convert(inplace=True) overwrites only inputs that no other module reads, and names the other activations."""

import copy

import pytest
import torch
from torch import nn
from torch.fx import symbolic_trace

from leaky_ext import convert, straight_through_relu
from leaky_ext.modules import Slope

KEPT = "not in place: something else may read its input"


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.act, self.last = nn.Conv2d(3, 3, 1), nn.PReLU(3), nn.PReLU()

    def forward(self, x):
        y = self.conv(x)
        return self.last(self.conv(self.act(y))) + y


class Twice(nn.Sequential):
    def forward(self, x):
        y = self[0](x)
        return self[1](y) + y


def net(*layers):
    return nn.Sequential(nn.Conv2d(3, 3, 1), *layers)


def with_hook():
    model = net(nn.PReLU())
    model[0].register_forward_hook(lambda module, args, output: output)
    return model


def shared():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.PReLU(), nn.Sequential(nn.Identity()))
    model[2].append(model[1])
    return model


MODELS = {  # -> how many of its activations overwrite their input, and how many there are
    "after a convolution": (lambda: net(nn.PReLU()), 1, 1),
    "after norms": (lambda: net(nn.BatchNorm2d(3), nn.PReLU(3), nn.GroupNorm(1, 3), nn.PReLU()), 2, 2),
    "weight norm": (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1)), nn.PReLU()), 1, 1),
    "first of all": (lambda: nn.Sequential(nn.PReLU(), nn.Conv2d(3, 3, 1)), 0, 1),
    "after an identity": (lambda: net(nn.Identity(), nn.PReLU()), 0, 1),
    "after dropout": (lambda: net(nn.Dropout(0.0), nn.PReLU()), 0, 1),
    "after what reads its output": (lambda: net(nn.Tanh(), nn.PReLU()), 0, 1),
    "after a hook": (with_hook, 0, 1),
    "another forward": (Residual, 0, 2),
    "a Sequential with another forward": (lambda: Twice(nn.Conv2d(3, 3, 1), nn.PReLU()), 0, 1),
    "shared": (shared, 0, 1),
    "traced": (lambda: symbolic_trace(Residual()), 1, 2),
    "traced Sequential": (lambda: symbolic_trace(net(nn.BatchNorm2d(3), nn.PReLU(3))), 1, 1),
}


@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_gradients_stay(name):
    make, in_place, count = MODELS[name]
    torch.manual_seed(0)
    model = make()
    twin = copy.deepcopy(model)
    done = convert(model, inplace=True)
    assert len(done) == count
    assert sum(m.inplace for m in model.modules() if isinstance(m, Slope)) == in_place
    assert [KEPT in one.note for one in done].count(False) == in_place
    results = []
    for one in (model, twin):
        x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
        y = one(x * 1)
        y.square().sum().backward()
        results.append((y.detach(), x.grad, [p.grad for p in one.parameters()]))
    torch.testing.assert_close(results[0], results[1])


def test_calls_of_functions():
    class Calls(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            y = torch.relu(self.conv(x))
            return torch.relu(y) + y

    model = symbolic_trace(Calls())
    done = convert(model, {nn.ReLU: "straight_through"}, inplace=True, functions=True)
    assert [KEPT in one.note for one in done] == [False, True]
    x = torch.randn(2, 3, 4, 4)
    y = straight_through_relu(model.conv(x))
    torch.testing.assert_close(model(x), straight_through_relu(y) + y)


@pytest.mark.parametrize("options", [{"save": "output"}, {"inplace": True}], ids=str)
@pytest.mark.parametrize("why", ["a slope", "a bound"])
def test_an_input_that_cannot_be_rebuilt_is_kept(why, options):
    model = net(nn.PReLU(3), nn.Conv2d(3, 3, 1), nn.PReLU(3))
    if why == "a slope":
        model[1].weight.data[1] = 0
    first, second = convert(model, alpha_bounds=(0.0, 1.0) if why == "a bound" else None, **options)
    assert "cannot be rebuilt" in first.note and model[1].save == "input" and not model[1].inplace
    assert ("cannot be rebuilt" in second.note) == (why == "a bound")
    model(torch.randn(2, 3, 4, 4)).sum().backward()
    assert model[1].weight.grad.isfinite().all()


def test_a_learned_straight_through_relu_is_never_in_place():
    model = net(nn.PReLU(3))
    (change,) = convert(model, {nn.PReLU: "straight_through"}, inplace=True)
    assert change.note == "not in place: the gradient of its slope needs its input" and not model[1].inplace
