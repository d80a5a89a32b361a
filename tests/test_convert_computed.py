"""convert(functions=True) names every call that no module can replace, and the reason: no slope is left in silence."""

import pytest
import torch
from torch import nn
from torch.fx import GraphModule, symbolic_trace
from torch.nn import functional as F

from leaky_ext import convert, learnable_leaky_relu

EVERY = {nn.PReLU: "learnable", nn.LeakyReLU: "learnable", nn.ReLU: "straight_through"}
ATEN = torch.ops.aten
LEAKY = {
    "F.leaky_relu": lambda x, slope: F.leaky_relu(x, slope),
    "F.leaky_relu, by name": lambda x, slope: F.leaky_relu(input=x, negative_slope=slope, inplace=True),
    "F.leaky_relu_": lambda x, slope: F.leaky_relu_(x, slope),
    "aten.leaky_relu": lambda x, slope: ATEN.leaky_relu.default(x, slope),
    "aten.leaky_relu_": lambda x, slope: ATEN.leaky_relu_.default(x, slope),
}
PRELU = {
    "F.prelu": lambda x, slope: F.prelu(x, slope),
    "F.prelu, by name": lambda x, slope: F.prelu(input=x, weight=slope),
    "x.prelu": lambda x, slope: x.prelu(slope),
    "aten.prelu": lambda x, slope: ATEN.prelu.default(x, slope),
}
NUMBERS = {  # the slope as the model gets it -> the reason, empty if the call becomes a module
    "constant": (lambda model, x, given: 0.25, ""),
    "computed": (lambda model, x, given: x.size(0) / 8, "its slope is computed when the graph runs"),
    "read from a tensor": (lambda model, x, given: model.weight.item(), "its slope is computed when the graph runs"),
    "input": (lambda model, x, given: given, "its slope is an input of the graph"),
}
TENSORS = {
    "parameter": (lambda model, x, given: model.weight, ""),
    "computed": (lambda model, x, given: model.weight * 2, "its slope is computed when the graph runs"),
    "input": (lambda model, x, given: given, "its slope is an input of the graph"),
    "buffer": (lambda model, x, given: model.buffer, "its slope is a tensor, but not a parameter"),
    "0-D": (lambda model, x, given: model.scalar, "its slope is a 0-D parameter, and a module has a 1-D parameter"),
}
CASES = [
    pytest.param(calls[call], *slopes[slope], given, id=f"{call}, {slope}")
    for calls, slopes, given in ((LEAKY, NUMBERS, 0.5), (PRELU, TENSORS, torch.tensor([0.5])))
    for call in calls
    for slope in slopes
]


class Model(nn.Module):
    def __init__(self, call, slope):
        super().__init__()
        self.call, self.slope = call, slope
        self.weight = nn.Parameter(torch.tensor([0.3]))
        self.scalar = nn.Parameter(torch.tensor(0.3))
        self.register_buffer("buffer", torch.tensor([0.3]))

    def forward(self, x, given):
        return self.call(x - 0.5, self.slope(self, x, given)) * 2


@pytest.mark.parametrize("call, slope, reason, given", CASES)
def test_a_call_becomes_a_module_or_is_listed_with_the_reason(call, slope, reason, given):
    old = Model(call, slope)
    model, x = symbolic_trace(old), torch.randn(4, 3)
    code = model.code
    planned = convert(model, EVERY, functions=True, dry_run=True)
    (change,) = convert(model, EVERY, functions=True)
    assert planned == [change] and len(change.names) == 1
    torch.testing.assert_close(model(x, given), old(x, given), rtol=0, atol=0)
    if not reason:
        assert not change.skipped and model.code != code
        return
    assert change.skipped.startswith(f"{reason}: call learnable_leaky_relu")
    assert model.code == code and change.before == change.after and "relu" in change.before
    assert str(change) == f"{change.names[0]}: {change.before} stays: {change.skipped}"
    assert convert(model, EVERY, functions=True) == [change]  # again, with the same name


@pytest.mark.parametrize("call", [F.leaky_relu, lambda x, slope: F.prelu(x, x.mean().reshape(1))])
def test_calls_in_exported_graphs(call):
    class Computed(nn.Module):
        def forward(self, x):
            return call(x, x.size(0) / 8)

    batch = torch.export.Dim("batch", min=2, max=8)
    graph = torch.export.export(Computed(), (torch.randn(4, 3),), dynamic_shapes=({0: batch},)).module()
    x = torch.randn(6, 3)
    expected = graph(x)
    (change,) = convert(graph, EVERY, functions=True)
    assert change.skipped.startswith("its slope is computed when the graph runs: ")
    assert torch.equal(graph(x), expected)


def test_whether_it_overwrites_its_input_is_computed():
    class Switch(nn.Module):
        def forward(self, x, inplace):
            return F.relu(x - 1, inplace) + F.leaky_relu(x - 1, 0.2, inplace)

    changes = convert(symbolic_trace(Switch()), EVERY, functions=True)
    assert [change.skipped.partition(":")[0] for change in changes] == [
        "whether it overwrites its input is computed when the graph runs"
    ] * 2


def test_calls_that_stay_do_not_change_the_names_of_modules():
    class Mixed(nn.Module):
        def forward(self, x):
            return F.leaky_relu(F.leaky_relu(x, x.size(0) / 8), 0.25)

    model = symbolic_trace(Mixed())
    changes = convert(model, EVERY, functions=True)
    assert {change.names[0]: bool(change.skipped) for change in changes} == {"leakyrelu": False, "leakyrelu_1": True}
    assert [name for name, _ in model.named_parameters()] == ["leakyrelu.alpha"]


@pytest.mark.parametrize(
    "rules, listed",
    [
        ({nn.ReLU: "learnable"}, []),
        ({nn.LeakyReLU: "learnable", "leakyrelu": None}, []),
        ({"leakyrelu": "learnable"}, ["leakyrelu"]),
        ({nn.LeakyReLU: "straight_through"}, ["leakyrelu"]),
    ],
)
def test_only_what_the_rules_match_is_listed(rules, listed):
    model = symbolic_trace(Model(F.leaky_relu, NUMBERS["computed"][0]))
    changes = convert(model, rules, functions=True)
    assert [change.names[0] for change in changes] == listed and all(change.skipped for change in changes)


@pytest.mark.parametrize("slope", [0.25, "computed"])
def test_formulas_are_neither_replaced_nor_listed(slope):
    class Formula(nn.Module):
        def forward(self, x):
            return torch.where(x >= 0, x, (x.size(0) / 8 if slope == "computed" else slope) * x)

    model = symbolic_trace(Formula())
    code = model.code
    assert convert(model, EVERY, functions=True) == [] and model.code == code


def test_what_the_reason_advises_works():
    old = symbolic_trace(Model(F.leaky_relu, NUMBERS["computed"][0]))
    new = symbolic_trace(Model(learnable_leaky_relu, NUMBERS["computed"][0]))
    assert isinstance(new, GraphModule)
    x = torch.randn(4, 3)
    torch.testing.assert_close(new(x, 0.0), old(x, 0.0))
