"""torch.fx: our modules are one node if nn.PReLU is, and convert(functions=True) finds function calls."""

import copy

import pytest
import torch
from torch import nn
from torch.fx import GraphModule, Interpreter, Tracer, Transformer, symbolic_trace
from torch.nn import functional as F
from zoo import Net

from leaky_ext import AlphaMonitor, LearnableLeakyReLU, PReLU, StraightThroughReLU, convert, revert

EVERY = {nn.PReLU: "learnable", nn.LeakyReLU: "learnable", nn.ReLU: "straight_through"}


def leaves(model):
    return [(node.op, node.target) for node in symbolic_trace(model).graph.nodes]


@pytest.mark.parametrize("training", [False, True])
def test_the_graph_is_that_of_the_original(training):
    old = Net().train(training)
    new = copy.deepcopy(old)
    convert(new, EVERY, alpha_bounds=(0.0, 1.0))
    assert leaves(new) == leaves(old)
    x = torch.randn(4, 3, 10, 10)
    graph = symbolic_trace(new)
    assert torch.equal(graph(x), new(x))
    assert type(graph.shared) is PReLU and graph.shared.weight is new.shared.weight
    for again in (Transformer(graph).transform(), copy.deepcopy(graph), symbolic_trace(graph)):
        assert torch.equal(again(x), new(x))
    assert torch.equal(Interpreter(graph).run(x), new(x))


def test_a_graph_trains_converts_and_reverts():
    model = symbolic_trace(Net())
    convert(model, EVERY)
    x = torch.randn(4, 3, 10, 10)
    model(x).sum().backward()
    assert model.shared.weight.grad.count_nonzero()
    before = model(x)
    revert(model)
    assert torch.equal(model(x), before)


def test_a_tracer_is_asked_what_it_asks_about_prelu():
    asked = []

    class Asks(Tracer):
        def is_leaf_module(self, module, name):
            asked.append((type(module), name))
            return super().is_leaf_module(module, name)

    model = nn.Sequential(LearnableLeakyReLU(), StraightThroughReLU())
    graph = Asks().trace(model)
    assert [node.target for node in graph.nodes if node.op == "call_module"] == ["0", "1"]
    assert (nn.PReLU, "0") in asked and (nn.PReLU, "1") in asked


@pytest.mark.parametrize(
    "layer",
    [
        LearnableLeakyReLU(3, init=0.2),
        LearnableLeakyReLU(3, init=2.0, alpha_bounds=(0.0, 1.0)),
        StraightThroughReLU(0.1, learnable=True, alpha_bounds=(0.0, 0.05)),
    ],
)
def test_without_leaves_the_function_is_traced_with_its_bounds(layer):
    class Inlines(Tracer):
        def is_leaf_module(self, module, name):
            return False

    x = torch.randn(4, 3, 5)
    model = nn.Sequential(layer)
    for graph in (symbolic_trace(layer), GraphModule(model, Inlines().trace(model))):
        assert "call_function" in [node.op for node in graph.graph.nodes]
        assert torch.equal(graph(x), layer(x))


def test_a_monitored_model_is_traced_without_its_monitor():
    model = nn.Sequential(nn.Linear(2, 2), LearnableLeakyReLU())
    monitor = AlphaMonitor(model)
    graph = symbolic_trace(model)
    assert [node.op for node in graph.graph.nodes] == ["placeholder", "call_module", "call_module", "output"]
    graph(torch.randn(3, 2))
    monitor.step()
    assert monitor.rows()[0]["negative"] == monitor.rows()[0]["negative"]


def test_features_as_torchvision_extracts_them():
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    model = Net()
    names = extraction.get_graph_node_names(model)
    convert(model, EVERY)
    assert extraction.get_graph_node_names(model) == names
    x = torch.randn(2, 3, 10, 10)
    features = extraction.create_feature_extractor(model, ["shared_1", "second.3"])(x)
    assert list(features) == ["shared_1", "second.3"] and features["second.3"].shape[1] == 4


@pytest.mark.filterwarnings("ignore")
def test_graph_mode_quantization_leaves_them_in_floating_point():
    quantize_fx = pytest.importorskip("torch.ao.quantization.quantize_fx")
    from torch.ao.quantization import get_default_qconfig_mapping

    model = nn.Sequential(nn.Conv2d(3, 4, 3), LearnableLeakyReLU(4, init=0.2), nn.Conv2d(4, 4, 3)).eval()
    x = torch.randn(2, 3, 8, 8)
    prepared = quantize_fx.prepare_fx(copy.deepcopy(model), get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    quantized = quantize_fx.convert_fx(prepared)
    assert type(quantized.get_submodule("1")) is LearnableLeakyReLU
    assert type(quantized.get_submodule("0")) is not nn.Conv2d
    torch.testing.assert_close(quantized(x), model(x), rtol=0.1, atol=0.1)


def test_fusion_of_normalizations_goes_on():
    from torch.fx.experimental.optimization import fuse

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), LearnableLeakyReLU(4, init=0.2)).eval()
    x = torch.randn(2, 3, 8, 8)
    fused = fuse(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    torch.testing.assert_close(fused(x), model(x))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return F.relu(torch.relu(self.linear(x)) - 0.1) + x.relu()


class Functions(nn.Module):
    """Calls of every function and method, in every form, that `convert` finds, and some that it does not find."""

    def __init__(self):
        super().__init__()
        self.slopes = nn.Parameter(torch.tensor([0.1, 0.2, 0.3, -0.4]))
        self.block = Block()
        self.relu = nn.ReLU()

    def forward(self, x):
        x = self.block(x - 0.5)
        x = F.leaky_relu(x - 0.5, 0.2) + F.leaky_relu(input=x - 1.0, negative_slope=0.3, inplace=True)
        x = F.prelu(x - 1.0, self.slopes) + (x - 1.0).prelu(self.slopes)
        x = self.relu(x) + F.relu((x - 0.2) * 2.0, inplace=True) + (x - 0.3).relu_()
        x = F.leaky_relu(x - 0.1, x.size(1) / 8)
        return F.relu6(x) + x.clamp(min=0.0) + F.prelu(x, self.slopes * 2.0)


FOUND = [
    *("relu", "block.relu", "block.relu_1", "block.relu_2", "leakyrelu", "leakyrelu_1"),
    *("prelu", "prelu_1", "relu_1", "relu_2"),
]


def test_functions_become_modules():
    old = Functions()
    model = symbolic_trace(old)
    keys, nodes, code = list(model.state_dict()), len(model.graph.nodes), model.code
    planned = convert(model, EVERY, functions=True, dry_run=True)
    assert model.code == code and list(model.state_dict()) == keys
    done = convert(model, EVERY, functions=True)
    assert planned == done
    assert sorted(name for change in done if not change.skipped for name in change.names) == sorted(FOUND)
    left = [change for change in done if change.skipped]
    assert [str(change).partition(":")[0] for change in left] == ["leakyrelu_2", "prelu_2"]
    assert len(model.graph.nodes) <= nodes + 1
    x = torch.randn(16, 4)
    assert torch.equal(model(x), old(x))
    assert type(model.get_submodule("block.relu_1")) is StraightThroughReLU
    assert model.get_submodule("prelu").weight is model.get_submodule("prelu_1").weight is old.slopes
    assert model.get_submodule("relu_1").inplace and model.get_submodule("leakyrelu").alpha.item() == pytest.approx(0.2)
    assert convert(model, EVERY, functions=True) == left
    model.load_state_dict(old.state_dict(), strict=True)
    # Each call has a slope of its own, and trains.
    model(x).sum().backward()
    assert model.get_submodule("leakyrelu").alpha.grad.item() != model.get_submodule("leakyrelu_1").alpha.grad.item()
    assert model.block.linear.weight.grad.count_nonzero()
    before = model(x)
    revert(model)
    assert torch.equal(model(x), before)


def test_functions_by_name_and_in_a_part_of_a_model():
    model = nn.Sequential(nn.Linear(4, 4), symbolic_trace(Functions()))
    done = convert(model, {"1.block.*": "learnable"}, functions=True, alpha=0.1)
    assert [change.names for change in done] == [("1.block.relu",), ("1.block.relu_1",), ("1.block.relu_2",)]
    assert isinstance(model[1], GraphModule) and model(torch.randn(2, 4)).shape == (2, 4)
    assert [name for name, _ in model.named_parameters() if "alpha" in name] == [
        f"1.block.relu{i}.alpha" for i in ("", "_1", "_2")
    ]


def test_without_functions_calls_are_left():
    model = symbolic_trace(Functions())
    assert [change.names for change in convert(model, EVERY)] == [("relu",)]


@pytest.mark.parametrize(
    "make, rules, message",
    [
        (
            Functions,
            None,
            r"no part of this Functions is a torch.fx.GraphModule: pass torch.fx.symbolic_trace\(",
        ),
        (
            lambda: symbolic_trace(Functions()),
            {"blok.*": "learnable"},
            r"'blok.\*' matches no activation; .*block.relu",
        ),
        (lambda: symbolic_trace(Functions()), {nn.ReLU: "prelu"}, "must be 'learnable', 'straight_through' or None"),
    ],
)
def test_misuse_of_functions(make, rules, message):
    model = make()
    code = getattr(model, "code", None)
    with pytest.raises(ValueError, match=message):
        convert(model, rules, functions=True)
    assert getattr(model, "code", None) == code


def test_calls_in_an_exported_graph():
    class Calls(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([0.3, 0.2, 0.1]))

        def forward(self, x):
            return F.leaky_relu(torch.relu(F.prelu(x, self.weight) + 1) - 2, 0.1)

    model, x = Calls(), torch.randn(2, 3, 4)
    graph = torch.export.export(model, (x,)).module()
    assert len(convert(graph, EVERY, functions=True)) == 3
    torch.testing.assert_close(graph(x), model(x))
